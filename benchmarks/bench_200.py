"""What a researcher waits for: 200 rounds, from the start of a process to its end, here and in other frameworks.

usage: bench_200.py [--repeats N] [--json FILE] [--quick] [--peers NAME=PYTHON ...]

Every round draws 100 of 3,383 simulated writers in HDF5 (gzip) and trains softmax regression for one epoch, batches of
20, rate 0.02, in a new order. Each contender is a process of its own, which imports, opens, reads (and keeps what it
has read), compiles if it does, trains, and tells the last model's loss and accuracy on the last round's clients. They
draw the same clients, and take turns. "plain_numpy" is plain_numpy.py with h5py. --peers runs peers/NAME_200.py by
that framework's Python; see peers/README.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common  # before NumPy: it says how many threads that may use
import numpy as np
from peers import peers

HERE = Path(__file__).resolve().parent
# Compiled modules are kept between runs, as they are for anyone who has not switched that off.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def ours(path, rounds, clients):
    """Return the last model's loss and accuracy on the last clients, by fedsim_np."""
    import fedsim_np as fed

    data = fed.datasets.HDF5ClientData(path)
    model_fn = fed.learning.models.SoftmaxRegression
    process = fed.learning.build_weighted_fed_avg(model_fn, fed.learning.optimizers.build_sgdm(peers.RATE))
    state = process.initialize()
    for round_num, ids in enumerate(peers.drawn(data.client_ids, rounds, clients)):
        datasets = [data.create_dataset_for_client(c).repeat(1).shuffle(100, seed=1).batch(peers.BATCH) for c in ids]
        cohort = [dataset.select(x="pixels", y="label") for dataset in datasets]
        state = process.next(state, cohort, iteration=round_num).state
    evaluation = fed.learning.build_fed_eval(model_fn)
    evaluated = evaluation.set_model_weights(evaluation.initialize(), process.get_model_weights(state))
    metrics = evaluation.next(evaluated, cohort).metrics["client_work"]["eval"]["current_round_metrics"]
    return metrics["loss"], metrics["sparse_categorical_accuracy"]


def plain(path, rounds, clients):
    """Return the same by plain NumPy and h5py."""
    import plain_numpy

    ids, client = peers.read_and_kept(path, lambda x, y: (x.reshape(-1, 784), y))
    weights, rng = (np.zeros((784, 10), np.float32), np.zeros(10, np.float32)), np.random.default_rng(1)
    for drawn in peers.drawn(ids, rounds, clients):
        cohort = [client(c) for c in drawn]
        orders = [rng.permutation(len(x)) for x, _ in cohort]
        weights = plain_numpy.round_of(*weights, cohort, orders, peers.RATE, peers.BATCH)[:2]
    return plain_numpy.evaluate(*weights, cohort)[::-1]


def measured(command):
    """Run a process; return what it printed, and the seconds from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=ENVIRONMENT)
    seconds = time.perf_counter() - started
    return {"wall": round(seconds, 2), **json.loads(done.stdout.splitlines()[-1])}


def summary(runs, of_ours):
    """Return medians of a contender's runs, and of its times over ours within each turn."""
    median = lambda name: statistics.median(run[name] for run in runs)  # noqa: E731
    ratios = [run["wall"] / other["wall"] for run, other in zip(runs, of_ours, strict=True)]
    return {
        "seconds, start to end": median("wall"),
        "of each turn": [run["wall"] for run in runs],
        "without start, imports and exit": median("seconds"),
        "times as long as fedsim_np": round(statistics.median(ratios), 2),
        "peak MB": None if runs[0]["peak MB"] is None else median("peak MB"),
        "loss": median("loss"),
        "accuracy": median("accuracy"),
        "versions": runs[0]["versions"],
    }


def main():
    """Measure, print, store."""
    if sys.argv[1:2] in (["--run"], ["--plain"]):
        packages, run = (["fedsim_np"], ours) if sys.argv[1] == "--run" else ([], plain)
        peers.report_run([*packages, "numpy", "h5py"], run, sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few writers, rounds and turns, to see that it runs")
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME=PYTHON", help="fedjax, pytorch")
    arguments = parser.parse_args()
    repeats, writers, rounds, clients = (1, 30, 30, 10) if arguments.quick else (arguments.repeats, 3383, 200, 100)
    commands = {"fedsim_np": [sys.executable, __file__, "--run"], "plain_numpy": [sys.executable, __file__, "--plain"]}
    for name, python in (peer.split("=", 1) for peer in arguments.peers):
        commands[name] = [python, str(HERE / "peers" / f"{name}_200.py")]
    runs = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "writers.h5"))
        import fedsim_np as fed

        # Kept, they would be in the peak memory of the processes that are started below.
        fed.datasets.write_hdf5(path, fed.datasets.SyntheticClientData(writers, cache_bytes=0))
        for command in commands.values():  # one round, to see that it runs and to have it in the file cache
            measured([*command, path, "1", str(clients)])
        for _ in range(repeats):
            for name, command in commands.items():
                runs[name].append(measured([*command, path, str(rounds), str(clients)]))
                print(name, runs[name][-1], flush=True)
        size = Path(path).stat().st_size / 1e6
    within = 0.2 if arguments.quick else 0.02  # orders differ, which matters more after a few rounds
    for measure in ("loss", "accuracy"):
        values = [run[measure] for of_one in runs.values() for run in of_one]
        assert max(values) - min(values) < within, (measure, values)
    result = {
        "what": f"{rounds} rounds of {clients} out of {writers} writers in HDF5, {size:.0f} MB; medians",
        "repeats": repeats,
        "contenders": {name: summary(of_one, runs["fedsim_np"]) for name, of_one in runs.items()},
    }
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
