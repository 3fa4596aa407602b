"""A study of sixty runs: how long it takes, by two processes against one, and killed twice.

usage: bench_sweep.py [--json FILE] [--quick] [--repeats N]

The study is benchmarks/sweep.toml: three algorithms, four rates, five seeds, a hundred rounds each on simulated
writers. Two processes are compared with one, taking turns, on its runs of one seed; the medians count, and a machine
that is busy otherwise has no second core to give. Then the whole is killed by SIGKILL twice, gone on with, and its
results.csv compared with that of the study that was left alone. Every time is that of a command, from its start to its
end.
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

import common

from fedsim_np.runs.config import read_config_file
from fedsim_np.runs.grid import Grid

GRID = Path(__file__).resolve().parent / "sweep.toml"


def started(grid, out, workers):
    """Start a sweep and return its process."""
    command = [sys.executable, "-m", "fedsim_np", "sweep", grid, "--workers", str(workers), "--out", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def swept(grid, out, workers):
    """Return the seconds of a sweep."""
    begun = time.perf_counter()
    process = started(grid, out, workers)
    process.communicate()
    if process.returncode:
        raise SystemExit(f"the sweep into {out} ended with status {process.returncode}")
    return time.perf_counter() - begun


def killed(grid, out, after):
    """Sweep, and kill it once so many runs have ended; return how many had."""
    process, ended = started(grid, out, 2), 0
    for line in process.stdout:
        ended += " of " in line and "left" in line
        if ended >= after:
            break
    time.sleep(0.5)  # others are on their way
    process.kill()
    process.communicate()  # until its children have ended as well
    return ended


def written(folder, name, mapping):
    """Write a grid into a folder and return its path."""
    path = folder / name
    path.write_text(json.dumps(mapping), encoding="utf-8")
    return path


def load():
    """Return how many processes wanted to run in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def measure(folder, mapping, repeats):
    """Return what is measured."""
    grid, begun = written(folder, "grid.json", mapping), load()
    count = len(Grid.of(mapping).runs)
    one_seed = written(folder, "one_seed.json", {**mapping, "seeds": 1})
    times = {1: [], 2: []}
    for repeat in range(repeats):
        for workers, of in times.items():
            of.append(swept(one_seed, folder / f"{workers}-{repeat}", workers))
    one, two = (statistics.median(of) for of in times.values())
    middle, seconds = load(), swept(grid, folder / "whole", 2)
    kills = [killed(grid, folder / "killed", max(1, count // 4)) for _ in range(2)]
    swept(grid, folder / "killed", 2)
    tables = [(folder / name / "results.csv").read_bytes() for name in ("whole", "killed")]
    return {
        "runs": count,
        "rounds": mapping["rounds"],
        "seconds by two processes": round(seconds, 1),
        "runs of one seed": {
            "runs": len(Grid.of({**mapping, "seeds": 1}).runs),
            "one process, s": [round(of, 1) for of in times[1]],
            "two processes, s": [round(of, 1) for of in times[2]],
            "times as fast": round(one / two, 2),
        },
        "killed after runs": kills,
        "the same results.csv": tables[0] == tables[1],
        "load before, after the turns of one and two processes, at the end": [begun, middle, load()],
    }


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="two rounds of ten writers, to see that it runs")
    arguments = parser.parse_args()
    mapping = read_config_file(str(GRID))
    if arguments.quick:
        small = {"population": 10, "clients": 2, "rounds": 2, "evaluate_every": 1, "evaluation_clients": 2, "seeds": 2}
        mapping |= small | {"grid": {"client_lr": [0.1]}}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), mapping, 1 if arguments.quick else arguments.repeats)
    what = "a study of three algorithms, four rates and five seeds on simulated writers"
    common.store({"what": what, **found} | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
