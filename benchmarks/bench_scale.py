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


def process_of(model_fn=fed.learning.models.SoftmaxRegression, **keywords):
    """Return the tutorial's process."""
    return fed.learning.build_weighted_fed_avg(model_fn, fed.learning.optimizers.build_sgdm(0.02), **keywords)


def two_rounds(source, model, *numbers):
    """Train twice on a cohort spread over a population; print the seconds of each round and the peak memory."""
    population, cohort, epochs, threads = map(int, numbers)
    if source == "simulated":
        data = fed.datasets.SyntheticClientData(population)
    else:
        data = fed.datasets.HDF5ClientData(source)
    step = max(1, len(data.client_ids) // cohort)
    ids = [data.client_ids[i * step] for i in range(cohort)]
    model_fn = fed.learning.models.MLP if model == "2NN" else fed.learning.models.SoftmaxRegression
    process = process_of(model_fn, executor="serial" if threads == 1 else ThreadPoolExecutor(threads))
    state, seconds = process.initialize(), []
    for round_num in range(2):
        started = time.perf_counter()
        datasets = [preprocess(data.create_dataset_for_client(c), epochs) for c in ids]
        state = process.next(state, datasets, iteration=round_num).state
        seconds.append(round(time.perf_counter() - started, 3))
    print(json.dumps({"first round, s": seconds[0], "next round, s": seconds[1], "peak MB": common.peak_mb()}))


def measured(source, *arguments, model="softmax", threads=(1, 2)):
    """Return by number of threads what `two_rounds` prints in a process of its own."""
    found = {}
    for count in threads:
        command = [sys.executable, __file__, "--rounds", str(source), model, *map(str, arguments), str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found["1 thread" if count == 1 else f"{count} threads"] = json.loads(done.stdout)
    return found


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
    medians = common.medians(common.interleaved(contenders, repeats, seconds=1.0))
    for executor in executors:
        executor.shutdown()
    return {"ms": medians, "two workers against one": round(medians["1"] / medians["2"], 2)}


def plot(result, path):
    """Draw seconds and memory against the sizes of cohort and population."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    by_cohort, by_population, memory = figure.subplots(1, 3)
    for axes, name in ((by_cohort, COHORT), (by_population, POPULATION)):
        rows = result[name]
        sizes = [int(size) for size in rows]
        for threads, style in (("1 thread", "o"), ("2 threads", "s")):
            for which, line in (("first round, s", "-"), ("next round, s", "--")):
                seconds = [row[threads][which] for row in rows.values()]
                label = f"{threads}, {which.removesuffix(', s')}"
                axes.loglog(sizes, seconds, style + line, color="C0" if threads == "1 thread" else "C1", label=label)
        axes.set(ylabel="seconds a round")
        axes.grid(alpha=0.3)
    first = min(map(int, result[COHORT]))
    unit = result[COHORT][str(first)]["1 thread"]["first round, s"] / first
    by_cohort.loglog(sizes := [int(k) for k in result[COHORT]], [unit * k for k in sizes], "k:", label="linear")
    by_cohort.set(xlabel="clients in the round", title="From HDF5, 5 epochs")
    by_cohort.legend(fontsize=7)
    by_population.set(xlabel="simulated writers", title=f"{result['cohort']} of them a round", ylim=(0.01, None))
    memory.semilogx(sizes, [row["2 threads"]["peak MB"] for row in result[COHORT].values()], "s-", color="C1")
    memory.set(xlabel="clients in the round", ylabel="peak memory, MB", title="Memory, 2 threads", ylim=(0, None))
    memory.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


COHORT = "cohort, from HDF5, 5 epochs"
POPULATION = "population, drawn on demand, 1 epoch"


def main():
    """Measure, print, store."""
    if sys.argv[1:2] == ["--rounds"]:
        two_rounds(*sys.argv[2:])
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
            "what": "two rounds of a new process: create the datasets, read, train; simulated writers",
            "cohort": cohort,
            COHORT: {str(k): measured(path, 0, k, 5) for k in sizes},
            POPULATION: {str(n): measured("simulated", n, cohort, 1) for n in populations},
            f"2NN, {cohort} clients from HDF5, 1 epoch": measured(path, 0, cohort, 1, model="2NN"),
            f"workers, {cohort} clients in memory, 1 epoch, warm": workers(cohort, [1, 2, 4], 3 if quick else 11),
        }
    result["seconds per 1,000 clients, first round"] = {
        k: {threads: round(row["first round, s"] / int(k) * 1e3, 2) for threads, row in rows.items()}
        for k, rows in result[COHORT].items()
    }
    common.store(result | common.origin(), arguments.json)
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
