"""How real the simulated handwriting is.

usage: realism.py [--real PREFIX] [--writers N] [--full] [--json FILE] [--sheet FILE] [--quick]

Four measures, with softmax regression as the judge, on simulated writers that it has not seen:

1. its accuracy on unseen simulated writers: as hard as the real thing (0.87 on these real digits) and not 1.0;
2. its accuracy on real digits, none of which it has seen;
3. the accuracy of a linear classifier that tells real images from simulated ones, on unseen ones: 0.5 is perfect;
4. the writer's share of the pixel variance within a class (variance components, writers as a random effect).

The real digits are PREFIX_train.h5 and PREFIX_test.h5 (by default those below FEDSIM_NP_ACCEPTANCE); without them
only 1 and 4 are measured. Beside them: how fast images are drawn. --sheet draws ten digits of ten writers.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset, HDF5ClientData, SyntheticClientData, handwriting, synthetic
from fedsim_np.learning.models import ModelWeights, SoftmaxRegression

UNSEEN = 100_000  # number of the first writer that nothing is trained on


def load(client_data, client_ids):
    """Ink (n, 784), labels (n,) and writers (n,) of clients."""
    arrays = [client_data.create_dataset_for_client(c).to_arrays() for c in client_ids]
    ink = np.concatenate([1 - a["pixels"].reshape(-1, 784) for a in arrays])
    labels = np.concatenate([a["label"] for a in arrays])
    return ink, labels, np.repeat(np.arange(len(arrays)), [len(a["label"]) for a in arrays])


def train(x, y, classes, epochs, rate):
    """Weights of softmax regression after SGD with momentum, the rate falling to 0."""
    model = SoftmaxRegression(784, classes, loss="stable")
    weights = model.initial_weights()
    optimizer = fed.learning.optimizers.build_sgdm(rate, 0.9)
    state = optimizer.initialize(weights.trainable)
    data = Dataset.from_arrays({"x": x, "y": y.reshape(-1, 1)}).shuffle(len(x), seed=1).batch(100)
    for epoch in range(epochs):
        state = optimizer.set_hparams(state, {"learning_rate": rate * (1 - epoch / epochs), "momentum": 0.9})
        for batch in data.batches(epoch):
            gradients = model.gradient(weights, batch, model.forward_pass(weights, batch))
            state, trainable = optimizer.next(state, weights.trainable, gradients)
            weights = ModelWeights(trainable)
    return weights


def accuracy(weights, x, y):
    """Share of right answers."""
    kernel, bias = weights.trainable
    return float(np.mean((x @ kernel + bias).argmax(axis=1) == y))


def writers_share(x, labels, writers):
    """Return the between-writers part of the within-class pixel variance, by analysis of variance."""
    between = total = 0.0
    for digit in np.unique(labels):
        of_class = labels == digit
        ink, groups = x[of_class].astype(np.float64), writers[of_class]
        _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        keep = sizes[numbers] >= 2
        ink, (_, numbers, sizes) = ink[keep], np.unique(groups[keep], return_inverse=True, return_counts=True)
        n, k = len(ink), len(sizes)
        means = np.zeros((k, ink.shape[1]))
        np.add.at(means, numbers, ink)
        means /= sizes[:, np.newaxis]
        within = ((ink - means[numbers]) ** 2).sum() / (n - k)
        among = (sizes[:, np.newaxis] * (means - ink.mean(axis=0)) ** 2).sum() / (k - 1)
        component = (among - within) * (k - 1) / (n - (sizes**2).sum() / n)
        between, total = between + component, total + component + within
    return between / total


def speed():
    """Milliseconds to draw 100 images, the median of 21."""
    labels, times = np.arange(100) % 10, []
    for writer in range(22):
        started = time.perf_counter()
        handwriting.draw_images(writer, "train", labels)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]) * 1e3)


def full_seconds():
    """Seconds to write all 3,383 writers, train and test, to HDF5."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for data, split in zip(synthetic.load_data(), handwriting.SPLITS, strict=True):
            fed.datasets.write_hdf5(Path(folder, f"{split}.h5"), data)
    return time.perf_counter() - started


def measure(writers, real_prefix, epochs):
    """All measures as a dict."""
    population = SyntheticClientData(UNSEEN + writers)
    ids = population.client_ids
    x, labels, who = load(population, ids[:writers])
    unseen_x, unseen_labels, _ = load(population, ids[UNSEEN : UNSEEN + max(5, writers // 4)])
    judge = train(x, labels, 10, epochs, 0.1)
    some = who < 120
    result = {
        "accuracy on unseen simulated writers": accuracy(judge, unseen_x, unseen_labels),
        "writer's share of within-class variance": writers_share(x[some], labels[some], who[some]),
        "milliseconds for 100 images": speed(),
    }
    if real_prefix:
        parts = []
        for split in ("train", "test"):
            with HDF5ClientData(f"{real_prefix}_{split}.h5") as data:
                parts.append(load(data, data.client_ids))
        real_x, real_labels, real_who = (np.concatenate(column) for column in zip(*parts, strict=True))
        held_out = real_who >= 2 * real_who.max() // 3
        n, m = int((~held_out).sum()), int(held_out.sum())
        n, m = min(n, len(x)), min(m, len(unseen_x))
        both = np.concatenate([real_x[~held_out][:n], x[:n]])
        detector = train(both, np.repeat(np.int32([1, 0]), n), 2, epochs, 0.02)
        others = np.concatenate([real_x[held_out][:m], unseen_x[:m]])
        result["accuracy on real digits"] = accuracy(judge, real_x, real_labels)
        result["real or simulated, unseen images"] = accuracy(detector, others, np.repeat([1, 0], m))
        result["writer's share of within-class variance, real"] = writers_share(real_x, real_labels, real_who)
    return {name: round(value, 3) for name, value in result.items()}


def draw_sheet(path):
    """Write a picture of the digits 0 to 9 by ten writers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [np.concatenate(list(handwriting.draw_images(w, "train", np.arange(10))), axis=1) for w in range(10)]
    plt.imsave(path, np.kron(np.concatenate(rows), np.ones((2, 2))), cmap="gray", vmin=0, vmax=1)


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("FEDSIM_NP_ACCEPTANCE")
    parser.add_argument("--real", default=shared and str(Path(shared, "data", "mnist_by_writer")))
    parser.add_argument("--writers", type=int, default=250, help="simulated writers to train on")
    parser.add_argument("--full", action="store_true", help="also time all 3,383 writers to HDF5")
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--sheet", help="where to draw the contact sheet")
    parser.add_argument("--quick", action="store_true", help="few writers, to see that it runs")
    arguments = parser.parse_args()
    writers, epochs = (20, 2) if arguments.quick else (arguments.writers, 12)
    measures = measure(writers, arguments.real, epochs)
    if arguments.full:
        measures["seconds to write all 3,383 writers to HDF5"] = round(full_seconds(), 1)
    result = {
        "measures": measures,
        "writers": writers,
        "real": Path(arguments.real).name if arguments.real else None,
        "versions": {"fedsim_np": fed.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8", newline="\n")
    if arguments.sheet:
        draw_sheet(arguments.sheet)


if __name__ == "__main__":
    main()
