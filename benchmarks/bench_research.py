"""Rounds as a researcher makes them, against plain_numpy.py, interleaved in one run.

usage: bench_research.py [--repeats N] [--json FILE] [--quick] [--only WORD]

Every round has clients that are drawn anew and an order that is new; plain_numpy.py draws the same clients, permutes
their rows itself (every epoch anew), and has all data ready in memory. fedsim_np reads datasets: repeat, shuffle, batch
and a map that flattens, or `select`. What is measured is the whole round, from the choice of the clients on. Ratios are
medians of the ratios within each turn; a turn is a second of rounds.

- memory: 400 simulated writers as arrays; 100 of them a round, one epoch, or 10 of them, five epochs
- hdf5: the same 400 in a file (gzip), once all of them have been read; plain_numpy.py has them in memory
- synthetic: FedProx's Synthetic(1, 1), 60 features, clients of 50 to 5,000 rows, batches of 10, 20 epochs
- training: a checkpoint and three logs a round, against `process.next` alone
- own model: a softmax regression as a user writes it, nothing stacked, 10 clients, five epochs
"""

import argparse
import functools
import itertools
import statistics
import tempfile
from pathlib import Path

import bench_round
import common
import numpy as np
import plain_numpy

import fedsim_np as fed
from fedsim_np.learning import models
from fedsim_np.program.training import is_timing


class OwnModel(models.Model):
    """Softmax regression in the four methods that a model has."""

    metrics = fed.learning.metrics.CLASSIFICATION
    input_spec = models.SoftmaxRegression().input_spec

    def initial_weights(self):
        """Start at zero."""
        return models.ModelWeights((np.zeros((784, 10), np.float32), np.zeros(10, np.float32)))

    def predict_on_batch(self, weights, x):
        """Return the probabilities."""
        kernel, bias = weights.trainable
        return plain_numpy.softmax(x @ kernel + bias)

    def forward_pass(self, weights, batch):
        """Return the mean of Keras's loss and the probabilities."""
        p = self.predict_on_batch(weights, batch["x"])
        q, y = np.clip(p, 1e-7, 1 - 1e-7), batch["y"][:, 0]
        losses = np.log(q.sum(axis=1)) - np.log(q[np.arange(len(y)), y])
        return models.BatchOutput(losses.sum() / np.float32(len(y)), p, len(y))

    def gradient(self, weights, batch, output):
        """Return the gradient."""
        errors, y = output.predictions.copy(), batch["y"][:, 0]
        errors[np.arange(len(y)), y] -= 1
        errors /= np.float32(len(y))
        return batch["x"].T @ errors, errors.sum(axis=0)


def select(dataset, epochs):
    """Read as the tutorial does, with `select` in the map's place."""
    return dataset.repeat(epochs).shuffle(100, seed=1).batch(20).select(x="pixels", y="label")


def plain(arrays, k, epochs, rate=0.02, batch=20):
    """Return a function that makes the next round in plain NumPy, and the rounds' states."""
    rng, permute = np.random.default_rng(0), np.random.default_rng(1)
    d, c = arrays[0][0].shape[1], 10
    weights = [np.zeros((d, c), np.float32), np.zeros(c, np.float32)]

    def round_():
        chosen = rng.choice(len(arrays), k, replace=False)
        clients = [arrays[i] for i in chosen]
        orders = [np.concatenate([permute.permutation(len(x)) for _ in range(epochs)]) for x, _ in clients]
        weights[:] = plain_numpy.round_of(*weights, clients, orders, rate, batch)[:2]

    return round_


def ours(client_data, read, k, model=models.SoftmaxRegression, rate=0.02, **keywords):
    """Return a function that makes the next round."""
    sgd = fed.learning.optimizers.build_sgdm(rate)
    process = fed.learning.build_weighted_fed_avg(model, sgd, **keywords)
    rng, ids, rounds = np.random.default_rng(0), client_data.client_ids, itertools.count(1)
    state = [process.initialize()]

    def round_():
        chosen = rng.choice(len(ids), k, replace=False)
        cohort = [read(client_data.create_dataset_for_client(ids[i])) for i in chosen]
        state[0] = process.next(state[0], cohort, iteration=next(rounds)).state

    return round_


def methods_alone(arrays, k, epochs, batch=20):
    """Return a function that calls an `OwnModel` as a round does, on batches that are there: what no loop can save."""
    model, rng = OwnModel(), np.random.default_rng(0)
    weights, batches = model.initial_weights(), []
    for x, y in arrays[:k]:
        order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)])
        rows = (order[start : start + batch] for start in range(0, len(order), batch))
        batches += [{"x": x[places], "y": y[places, np.newaxis]} for places in rows]

    def round_():
        for one in batches:
            model.gradient(weights, one, model.forward_pass(weights, one))

    return round_


def fedprox_synthetic(num_clients):
    """Return the clients of Synthetic(1, 1), of Li et al. 2018, https://arxiv.org/abs/1812.06127."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(np.arange(1, 61) ** -1.2)
    clients = []
    for _ in range(num_clients):
        n = min(5000, int(rng.lognormal(4, 2)) + 50)
        u, center = rng.normal(0, 1, 2)
        kernel, bias, mean = rng.normal(u, 1, (60, 10)), rng.normal(u, 1, 10), rng.normal(center, 1, 60)
        x = (mean + spread * rng.normal(0, 1, (n, 60))).astype(np.float32)
        clients.append((x, (x @ kernel + bias).argmax(axis=1)))
    return clients


def works(quick, folder):
    """Yield a name and the contenders of each work, made when it is their turn."""
    count, wide, few = (40, 10, 3) if quick else (400, 100, 10)
    source = fed.datasets.SyntheticClientData(count)
    data = {c: dict(source.create_dataset_for_client(c).to_arrays()) for c in source.client_ids}
    arrays = [(d["pixels"].reshape(-1, 784), d["label"].astype(np.int64)) for d in data.values()]
    memory = fed.datasets.InMemoryClientData(data)
    for k, epochs in ((wide, 1), (few, 5)):
        mapped = functools.partial(bench_round.preprocess, epochs=epochs)
        selected = functools.partial(select, epochs=epochs)
        yield (
            f"memory: {k} of {count}, epochs: {epochs}",
            {
                "plain_numpy": plain(arrays, k, epochs),
                "map": ours(memory, mapped, k),
                "select": ours(memory, selected, k),
            },
        )
    path = folder / "writers.h5"
    fed.datasets.write_hdf5(path, memory)
    stored = fed.datasets.HDF5ClientData(path)
    contenders = {
        "plain_numpy": plain(arrays, wide, 1),
        "map": ours(stored, functools.partial(bench_round.preprocess, epochs=1), wide),
        "select": ours(stored, functools.partial(select, epochs=1), wide),
    }
    for _ in range(2 if quick else 20):  # until all have been read once
        contenders["map"]()
        contenders["select"]()
    yield f"hdf5: {wide} of {count}, epochs: 1", contenders
    arrays = fedprox_synthetic(10 if quick else 30)
    memory = fed.datasets.InMemoryClientData(
        {f"{i:03}": {"x": x, "y": y[:, np.newaxis].astype(np.int32)} for i, (x, y) in enumerate(arrays)}
    )
    epochs = 2 if quick else 20
    read = lambda d: d.repeat(epochs).shuffle(1000, seed=1).batch(10)  # noqa: E731
    model = functools.partial(models.SoftmaxRegression, 60)
    yield (
        f"synthetic: {few} of {len(arrays)}, epochs: {epochs}",
        {
            "plain_numpy": plain(arrays, few, epochs, 0.01, 10),
            "auto": ours(memory, read, few, model, 0.01),
        },
    )
    arrays = [(d["pixels"].reshape(-1, 784), d["label"].astype(np.int64)) for d in data.values()]
    memory = fed.datasets.InMemoryClientData(data)
    yield (
        f"own model: {few} of {count}, epochs: 5",
        {
            "plain_numpy": plain(arrays, few, 5),
            "auto": ours(memory, functools.partial(bench_round.preprocess, epochs=5), few, OwnModel),
            "the model's methods alone": methods_alone(arrays, few, 5),
        },
    )


def training(quick, folder, repeats):
    """Return ms a round by `process.next`, and with a checkpoint and three logs a round, as `fedsim-np train` does."""
    rounds, k = (3, 3) if quick else (200, 10)
    writers = fed.datasets.SyntheticClientData(10 * k)
    process = fed.learning.build_weighted_fed_avg(
        models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), engine="auto"
    )
    sample = fed.program.build_uniform_sampling_fn(writers.client_ids, random_seed=0)
    numbers = itertools.count()

    def cohort(round_num):
        return [select(writers.create_dataset_for_client(c), 5) for c in sample(round_num, k)]

    def by_next():
        state = process.initialize()
        for round_num in range(1, rounds + 1):
            state = process.next(state, cohort(round_num), iteration=round_num - 1).state

    def by_training():
        run = folder / f"run{next(numbers)}"
        run.mkdir()
        loggers = [
            fed.program.CSVLogger(run / "metrics.csv", lambda name: not is_timing(name)),
            fed.program.JSONLinesLogger(run / "metrics.jsonl", lambda name: not is_timing(name)),
            fed.program.CSVLogger(run / "timings.csv", is_timing),
        ]
        manager = fed.program.FileProgramStateManager(run / "checkpoints")
        fed.program.run_training_process(
            process, cohort, rounds, program_state_manager=manager, metrics_managers=loggers, reshuffle=True
        )

    times = common.interleaved({"process.next": by_next, "run_training_process": by_training}, repeats)
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    ms = {name: round(ms / rounds, 2) for name, ms in common.medians(times).items()}
    return {"ms a round": ms, "times as long": round(statistics.median(ratios), 2)}


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="small and few turns, to see that it runs")
    parser.add_argument("--only", default="", help="the works with this word in their name")
    arguments = parser.parse_args()
    repeats, seconds = (2, 0.0) if arguments.quick else (arguments.repeats, 1.0)
    result = {"what": "median ms a round, and median of plain_numpy.py's time over it", "repeats": repeats, "work": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, contenders in works(arguments.quick, Path(folder)):
            if arguments.only not in name:
                continue
            times = common.interleaved(contenders, repeats, seconds)
            ratios = {
                contender: round(statistics.median(p / t for p, t in zip(times["plain_numpy"], values, strict=True)), 2)
                for contender, values in times.items()
            }
            result["work"][name] = {"ms": common.medians(times), "times as fast as plain_numpy.py": ratios}
            print(name, common.medians(times), ratios, flush=True)
        if arguments.only in "training":
            result["training, 10 of 100 x 5 epochs"] = training(arguments.quick, Path(folder), repeats)
            print(result["training, 10 of 100 x 5 epochs"], flush=True)
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
