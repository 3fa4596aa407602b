"""Rounds and evaluations against plain_numpy.py, interleaved in one run.

usage: bench_round.py [--repeats N] [--json FILE] [--quick] [--export FILE]

The clients are simulated writers in memory, read in the tutorial's way: repeat, shuffle, batches of 20, a map that
flattens. plain_numpy.py is given ready arrays and ready orders; fedsim_np is given datasets. "loop" is this project's
own reference engine. Ratios are medians of the ratios within each turn, which is a second of calls. --export writes
the clients' arrays for the scripts in peers/, which make the same rounds in other frameworks.
"""

import argparse
import statistics

import common
import numpy as np
import plain_numpy

import fedsim_np as fed


def preprocess(dataset, epochs):
    """Read as the tutorial does."""

    def batch_format(element):
        return {"x": element["pixels"].reshape(-1, 784), "y": element["label"].reshape(-1, 1)}

    return dataset.repeat(epochs).shuffle(100, seed=1).batch(20).map(batch_format)


def training(data, epochs):
    """Return the contenders for a training round on these clients."""
    clients = [(d["pixels"].reshape(-1, 784), d["label"].astype(np.int64)) for d in data.values()]
    memory = fed.datasets.InMemoryClientData(data)
    cohort = [preprocess(memory.create_dataset_for_client(c), epochs) for c in memory.client_ids]
    orders = [dataset.row_batches().make_order() for dataset in cohort]
    start = np.zeros((784, 10), np.float32), np.zeros(10, np.float32)
    contenders = {"plain_numpy": lambda: plain_numpy.round_of(*start, clients, orders)}
    for engine in ("auto", "cohort", "loop"):
        process = fed.learning.build_weighted_fed_avg(
            fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), engine=engine
        )
        state = process.initialize()
        contenders[engine] = lambda process=process, state=state: process.next(state, cohort)
        got = contenders[engine]().state.global_model_weights.trainable
        expected = contenders["plain_numpy"]()[:2]
        assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(got, expected, strict=True)), engine
    return contenders


def evaluation(data):
    """Return the contenders for an evaluation of these clients."""
    clients = [(d["pixels"].reshape(-1, 784), d["label"].astype(np.int64)) for d in data.values()]
    memory = fed.datasets.InMemoryClientData(data)
    cohort = [preprocess(memory.create_dataset_for_client(c), 1) for c in memory.client_ids]
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, (784, 10)).astype(np.float32), np.zeros(10, np.float32)
    contenders = {"plain_numpy": lambda: plain_numpy.evaluate(*weights, clients)}
    for engine in ("auto", "loop"):
        process = fed.learning.build_fed_eval(fed.learning.models.SoftmaxRegression, engine=engine)
        model_weights = fed.learning.models.ModelWeights(weights)
        state = process.set_model_weights(process.initialize(), model_weights)
        contenders[engine] = lambda process=process, state=state: process.next(state, cohort)
    return contenders


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few clients and turns, to see that it runs")
    parser.add_argument("--export", help="write the clients as arrays (.npz), and measure nothing")
    arguments = parser.parse_args()
    repeats, seconds, wide, many = (3, 0.0, 30, 30) if arguments.quick else (arguments.repeats, 1.0, 100, 400)
    source = fed.datasets.SyntheticClientData(max(wide, many))
    data = {c: dict(source.create_dataset_for_client(c).to_arrays()) for c in source.client_ids}
    if arguments.export:
        arrays = {f"x{i}": d["pixels"].reshape(-1, 784) for i, d in enumerate(data.values())}
        labels = {f"y{i}": d["label"] for i, d in enumerate(data.values())}
        np.savez_compressed(arguments.export, **arrays, **labels)
        return
    first = lambda k: dict(list(data.items())[:k])  # noqa: E731
    works = {
        "tutorial round: 10 clients x 5 epochs": training(first(10), 5),
        f"wide round: {wide} clients x 1 epoch": training(first(wide), 1),
        f"evaluation: {many} clients, one epoch": evaluation(first(many)),
    }
    result = {"what": "median ms, and median of plain_numpy.py's time over it", "repeats": repeats, "work": {}}
    for name, contenders in works.items():
        times = common.interleaved(contenders, repeats, seconds)
        ratios = {
            contender: round(statistics.median(p / t for p, t in zip(times["plain_numpy"], values, strict=True)), 2)
            for contender, values in times.items()
        }
        result["work"][name] = {"ms": common.medians(times), "times as fast as plain_numpy.py": ratios}
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
