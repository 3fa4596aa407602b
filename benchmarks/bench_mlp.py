"""A round with McMahan et al.'s 2NN, 10 clients x 5 epochs, against plain_numpy.py's, interleaved in one run.

usage: bench_mlp.py [--repeats N] [--json FILE] [--quick]

The clients are read as in bench_round.py. plain_numpy.py updates its weights in place, one client after the other, in
one thread; so does "cohort, one thread", while "cohort" may use all cores, as it does by default. Ratios are medians
of the ratios within each turn, which is a second of calls.
"""

import argparse
import statistics

import bench_round
import common
import numpy as np
import plain_numpy

import fedsim_np as fed


def contenders(data, epochs, hidden):
    """Return the contenders for a round on these clients; they must agree."""
    clients = [(d["pixels"].reshape(-1, 784), d["label"].astype(np.int64)) for d in data.values()]
    memory = fed.datasets.InMemoryClientData(data)
    cohort = [bench_round.preprocess(memory.create_dataset_for_client(c), epochs) for c in memory.client_ids]
    orders = [dataset.row_batches().make_order() for dataset in cohort]
    model = fed.learning.models.MLP(hidden=hidden)
    start = model.initial_weights().trainable
    rounds = {"plain_numpy": lambda: plain_numpy.mlp_round(start, clients, orders)}
    ways = {"cohort": ("cohort", None), "cohort, one thread": ("cohort", "serial"), "loop": ("loop", None)}
    for name, (engine, executor) in ways.items():
        process = fed.learning.build_weighted_fed_avg(
            model, fed.learning.optimizers.build_sgdm(0.02), engine=engine, executor=executor
        )
        state = process.initialize()
        rounds[name] = lambda process=process, state=state: process.next(state, cohort)
        got = rounds[name]().state.global_model_weights.trainable
        expected = rounds["plain_numpy"]()[0]
        assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(got, expected, strict=True)), name
    return rounds


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="small and few turns, to see that it runs")
    arguments = parser.parse_args()
    repeats, seconds, hidden = (3, 0.0, (20, 20)) if arguments.quick else (arguments.repeats, 1.0, (200, 200))
    source = fed.datasets.SyntheticClientData(10)
    data = {c: dict(source.create_dataset_for_client(c).to_arrays()) for c in source.client_ids}
    times = common.interleaved(contenders(data, 5, hidden), repeats, seconds)
    ratios = {
        name: round(statistics.median(p / t for p, t in zip(times["plain_numpy"], values, strict=True)), 2)
        for name, values in times.items()
    }
    result = {"what": "median ms, and median of plain_numpy.py's time over it", "repeats": repeats, "hidden": hidden}
    result |= {"ms": common.medians(times), "times as fast as plain_numpy.py": ratios}
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
