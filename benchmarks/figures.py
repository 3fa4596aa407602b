"""The pictures that the README shows.

usage: figures.py [--out FOLDER] [--quick]

They are drawn by `fed.plots` from the sample and from short runs on it, and are the same every time: no times are in
them, and all seeds are fixed. With --quick they go to a temporary folder after shorter runs, to see that it works.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fedsim_np as fed
from fedsim_np import tutorial

FIGURES = Path(__file__).resolve().parent / "figures"
RATES, SEEDS = (0.005, 0.02), (1, 2, 3)
COHORT = 10


def handwriting(writers=10):
    """Draw one image of each digit by each of a few simulated writers, a row a writer."""
    from matplotlib.figure import Figure

    data = fed.datasets.SyntheticClientData(writers)
    rows = []
    for client_id in data.client_ids:
        arrays = data.create_dataset_for_client(client_id).to_arrays()
        first = [np.flatnonzero(arrays["label"] == digit)[0] for digit in range(10)]
        rows.append(np.concatenate(arrays["pixels"][first], axis=1))
    figure = Figure(figsize=(5.4, 5.1), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    middle = 28 * np.arange(10) + 13.5
    axes.set_xticks(middle, range(10), fontsize=9)
    axes.set_yticks(28 * np.arange(writers) + 13.5, data.client_ids, fontsize=9)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("digit", fontsize=10)
    axes.set_ylabel("writer", fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def cohort_of(client_data, client_ids):
    """Return the clients' datasets as the tutorial preprocesses them."""
    return tutorial.make_federated_data(client_data, client_ids)


def process_of(rate):
    """Return the tutorial's process with another client rate."""
    return fed.learning.build_weighted_fed_avg(
        fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(rate)
    )


def history_of(rate, seed, rounds, train, test):
    """Train on ten clients that the seed chooses; return the history, with an evaluation on all clients' test images.

    The evaluation comes before the first round and after every second one.
    """
    chosen = np.random.default_rng(seed).permutation(train.client_ids)[:COHORT].tolist()
    cohort, testing = cohort_of(train, chosen), cohort_of(test, test.client_ids)
    process, logger = process_of(rate), fed.program.MemoryLogger()
    evaluation = fed.learning.build_fed_eval(fed.learning.models.SoftmaxRegression)

    def evaluate(state, datasets):
        weights = process.get_model_weights(state)
        output = evaluation.next(evaluation.set_model_weights(evaluation.initialize(), weights), datasets)
        return output.metrics["client_work"]["eval"]["current_round_metrics"]

    fed.program.run_training_process(
        process, lambda _: cohort, rounds, evaluate, lambda _: testing, 2, metrics_managers=[logger]
    )
    return logger.history


def learning_curves(rounds, train, test):
    """Compare client rates over several seeds."""
    configs = [{"client learning rate": rate, "seed": seed} for rate in RATES for seed in SEEDS]
    histories = [history_of(config["client learning rate"], config["seed"], rounds, train, test) for config in configs]
    return fed.plots.learning_curves(fed.plots.histories_by_config(configs, histories))


def client_drift(train):
    """Draw the tutorial's first round."""
    process = process_of(tutorial.CLIENT_LEARNING_RATE)
    client_ids = train.client_ids[:COHORT]
    cohort, state = cohort_of(train, client_ids), process.initialize()
    updates = fed.learning.client_updates(process, state, cohort)
    new_state, _ = process.next(state, cohort)
    old, new = (process.get_model_weights(s).trainable for s in (state, new_state))
    return fed.plots.client_drift(updates, [w0 - w for w0, w in zip(old, new, strict=True)], client_ids)


def main():
    """Draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIGURES, help="where to store the pictures")
    parser.add_argument("--quick", action="store_true", help="in a temporary folder, after two rounds")
    arguments = parser.parse_args()
    train, test = fed.datasets.load_sample()
    figures = {
        "handwriting": handwriting(),
        "client_digits": fed.plots.client_images(train.create_dataset_for_client(train.client_ids[0])),
        "label_counts": fed.plots.label_counts(train),
        "label_distribution": fed.plots.label_distribution(fed.datasets.describe(train)),
        "learning_curves": learning_curves(2 if arguments.quick else 10, train, test),
        "client_drift": client_drift(train),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if arguments.quick else arguments.out
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            # Without the version of matplotlib in the file, the same picture is the same bytes.
            figure.savefig(path, dpi=200, metadata={"Software": None})
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
