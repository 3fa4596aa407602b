"""What the scripts for other frameworks share: NumPy, the standard library and, to read writers from a file, h5py."""

import functools
import json
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np

RATE, BATCH = 0.02, 20


def load():
    """Return the clients of the file named on the command line: lists of x (n, 784) and y (n,)."""
    if len(sys.argv) != 2 or sys.argv[1] == "--help":
        sys.exit(f"usage: {sys.argv[0]} WRITERS.npz    (from ../bench_round.py --export)")
    with np.load(sys.argv[1]) as arrays:
        count = len(arrays.files) // 2
        return [(arrays[f"x{i}"], arrays[f"y{i}"].astype(np.int64)) for i in range(count)]


def report(package, works, repeats=11):
    """Time each work, after one run to warm up, and print medians."""
    result = {}
    for name, work in works.items():
        work()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            times.append((time.perf_counter() - started) * 1e3)
        result[name] = round(statistics.median(times), 1)
    versions = {"python": platform.python_version(), package: metadata.version(package)}
    print(json.dumps({"ms": result, "versions": versions, "repeats": repeats}))


def read_and_kept(path, convert):
    """Return an HDF5 file's writers, and the function that reads one once and keeps what `convert` makes of it."""
    import h5py

    examples = h5py.File(path, "r")["examples"]

    @functools.cache
    def client(client_id):
        group = examples[client_id]
        return convert(group["pixels"][()], group["label"][()].astype(np.int64))

    return sorted(examples), client


def drawn(ids, rounds, clients):
    """Yield the ids of each round's clients: the same in every script."""
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        yield [ids[i] for i in rng.choice(len(ids), clients, replace=False)]


def report_run(packages, run, arguments=None):
    """Run FILE ROUNDS CLIENTS, from the command line; print loss, accuracy, seconds and peak memory."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 3:
        sys.exit(f"usage: {sys.argv[0]} WRITERS.h5 ROUNDS CLIENTS    (started by ../bench_200.py)")
    started = time.perf_counter()
    loss, accuracy = run(arguments[0], *map(int, arguments[1:]))
    seconds = time.perf_counter() - started
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from common import peak_mb

    result = {"loss": round(float(loss), 4), "accuracy": round(float(accuracy), 4), "seconds": round(seconds, 2)}
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
    print(json.dumps(result | {"peak MB": peak_mb(), "versions": versions}))
