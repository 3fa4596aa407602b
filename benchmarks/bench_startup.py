"""How long until something happens: importing the library, and the tutorial as one command.

usage: bench_startup.py [--repeats N] [--train FILE --test FILE] [--json FILE] [--quick]

Every measurement is a fresh interpreter; the two imports take turns, so that both see the same machine. The first
round of runs only warms the file cache and is left out. Without files, the tutorial runs on the sample.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

import fedsim_np as fed

# Compiled modules are kept between runs, as they are for anyone who has not switched that off.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

IMPORTS = {"numpy and h5py": "import numpy, h5py", "fedsim_np": "import fedsim_np"}


def seconds(*arguments):
    """Wall time of a fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - started


def measure(repeats, *files):
    """Return the medians in seconds."""
    command = ["-m", "fedsim_np", "tutorial", *files]
    runs = {**{name: ["-c", code] for name, code in IMPORTS.items()}, "tutorial command": command}
    times = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, arguments in runs.items():
            elapsed = seconds(*arguments)
            if repeat:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--train", help="HDF5 file with the clients' train examples")
    parser.add_argument("--test", help="HDF5 file with the same clients' test examples")
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="two repeats, to see that it runs")
    arguments = parser.parse_args()
    files = ["--train", arguments.train, "--test", arguments.test] if arguments.train else []
    medians = measure(2 if arguments.quick else arguments.repeats, *files)
    result = {
        "what": "median wall seconds of a fresh interpreter, second time round",
        "data": "the sample" if not arguments.train else Path(arguments.train).name,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "import fedsim_np beyond numpy and h5py": round(medians["fedsim_np"] - medians["numpy and h5py"], 3),
        "repeats": 2 if arguments.quick else arguments.repeats,
        "versions": {
            "fedsim_np": fed.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "h5py": h5py.__version__,
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
