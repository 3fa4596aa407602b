"""Time and memory against the size of the cohort, of the population, and the number of workers.

usage: bench_scale.py [--json FILE] [--plot FILE] [--quick]

Every measurement of memory is a process of its own, which reports its peak. Cohorts come from HDF5 (written first) or
are drawn by simulated writers; each is trained for the stated epochs, batches of 20, by `engine="auto"`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
from bench_round import preprocess

import fedsim_np as fed


def process_of(**keywords):
    """Return the tutorial's process."""
    return fed.learning.build_weighted_fed_avg(
        fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), **keywords
    )


def one_round(source, population, cohort, epochs):
    """Train once on a cohort spread over a population; print seconds and peak memory."""
    if source == "simulated":
        data = fed.datasets.SyntheticClientData(population)
    else:
        data = fed.datasets.HDF5ClientData(source)
    step = max(1, len(data.client_ids) // cohort)
    ids = [data.client_ids[i * step] for i in range(cohort)]
    process = process_of()
    state = process.initialize()
    started = time.perf_counter()
    process.next(state, [preprocess(data.create_dataset_for_client(c), epochs) for c in ids])
    print(json.dumps({"seconds": round(time.perf_counter() - started, 3), "peak MB": common.peak_mb()}))


def measured(source, population, cohort, epochs):
    """Return what `one_round` prints in a process of its own."""
    command = [sys.executable, __file__, "--round", str(source), str(population), str(cohort), str(epochs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def workers(cohort_size, counts, repeats):
    """Return seconds of a warm round of 1 epoch by number of threads, interleaved."""
    source = fed.datasets.SyntheticClientData(cohort_size)
    data = {c: dict(source.create_dataset_for_client(c).to_arrays()) for c in source.client_ids}
    memory = fed.datasets.InMemoryClientData(data)
    cohort = [preprocess(memory.create_dataset_for_client(c), 1) for c in memory.client_ids]
    contenders, executors = {}, [ThreadPoolExecutor(count) for count in counts]
    for count, executor in zip(counts, executors, strict=True):
        process = process_of(executor=executor if count > 1 else "serial")
        state = process.initialize()
        contenders[str(count)] = lambda p=process, s=state: p.next(s, cohort)
        contenders[str(count)]()
    medians = common.medians(common.interleaved(contenders, repeats))
    for executor in executors:
        executor.shutdown()
    return {"ms": medians, "two workers against one": round(medians["1"] / medians["2"], 2)}


def plot(result, path):
    """Draw seconds and memory against the cohort's size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = result["cohort, from HDF5, 5 epochs"]
    sizes = [int(size) for size in rows]
    left.loglog(sizes, [row["seconds"] for row in rows.values()], "o-")
    left.set(xlabel="clients in the round", ylabel="seconds, first round", title="Time")
    right.semilogx(sizes, [row["peak MB"] for row in rows.values()], "s-", color="tab:orange")
    right.set(xlabel="clients in the round", ylabel="peak memory, MB", title="Memory", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main():
    """Measure, print, store."""
    if sys.argv[1:2] == ["--round"]:
        source, *numbers = sys.argv[2:]
        one_round(source, *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--plot", help="where to store the picture")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    arguments = parser.parse_args()
    quick = arguments.quick
    sizes = [10, 30] if quick else [10, 30, 100, 300, 1000, 3383]
    populations, cohort = ([100, 10_000], 20) if quick else ([10**3, 3383, 10**4, 10**5, 10**6], 1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "writers.h5")
        # Kept, they would be in the peak memory of the processes that are started below.
        fed.datasets.write_hdf5(path, fed.datasets.SyntheticClientData(sizes[-1], cache_bytes=0))
        result = {
            "what": "first round of a new process: create the datasets, read, train; simulated writers",
            "cohort, from HDF5, 5 epochs": {str(k): measured(path, 0, k, 5) for k in sizes},
            f"population, {cohort} simulated writers drawn on demand, 1 epoch": {
                str(n): measured("simulated", n, cohort, 1) for n in populations
            },
            f"workers, {cohort} clients in memory, 1 epoch, warm": workers(cohort, [1, 2, 4], 3 if quick else 11),
        }
    rows = result["cohort, from HDF5, 5 epochs"]
    result["seconds per 1,000 clients"] = {k: round(row["seconds"] / int(k) * 1e3, 2) for k, row in rows.items()}
    common.store(result | common.origin(), arguments.json)
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
