"""What the scripts for other frameworks share; NumPy and the standard library alone."""

import json
import platform
import statistics
import sys
import time
from importlib import metadata

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
