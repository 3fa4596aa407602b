"""What the benchmarks share: fair timing, and what a stored result says about where it comes from."""

import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

# One BLAS thread for everybody: matrices are small here, and more threads make every contender slower.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

RESULTS = Path(__file__).resolve().parent / "results"


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def interleaved(contenders, repeats, seconds=0.0):
    """Return each contender's times in ms; they take turns, so that all see the same machine.

    A turn is a call, or calls one after the other until so many seconds have passed, of which the mean counts. Rounds
    come one after the other in use, and for the first tenth of a second after a pause systems may leave two threads on
    one core.
    """
    times = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    gc.disable()
    for _ in range(repeats):
        for name, contender in contenders.items():
            calls, started, passed = 0, time.perf_counter(), 0.0
            while not calls or passed < seconds:
                contender()
                calls, passed = calls + 1, time.perf_counter() - started
            times[name].append(passed * 1e3 / calls)
        gc.collect()
    gc.enable()
    return times


def medians(times):
    """Return medians, rounded."""
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def peak_mb():
    """Return this process's peak memory in MB, where the system tells."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def origin():
    """Return versions and machine."""
    import h5py
    import numpy as np

    import fedsim_np as fed

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next((line.split(":")[1].strip() for line in text.splitlines() if "model name" in line), model)
    return {
        "versions": {
            "fedsim_np": fed.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "h5py": h5py.__version__,
        },
        "machine": f"{platform.system()} {platform.machine()}, {model}, {cores()} cores, one BLAS thread",
    }


def store(result, path):
    """Print a result, and store it if there is a path; a list of numbers is a line."""
    text = re.sub(
        r"\[[-+.\deE,\s]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", json.dumps(result, indent=2)
    )
    print(text)
    if path:
        Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")
