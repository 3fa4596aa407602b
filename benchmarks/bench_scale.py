"""Time and memory against the size of the cohort, of the population, and the number of workers.

usage: bench_scale.py [--json FILE] [--plot FILE] [--quick | --draw-from FILE]

Every measurement of memory is a process of its own, which reports its peak. Cohorts come from HDF5 (written first) or
are drawn by simulated writers; each is trained for the stated epochs, batches of 20, by `engine="auto"`. With
--draw-from nothing is measured: --plot is made of a stored result.
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
import numpy as np
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
    """Draw seconds and memory against the sizes of cohort and population, all of it on logarithmic axes."""
    from matplotlib.figure import Figure

    from fedsim_np.plots.style import GREY, SMALL, dress, line_style

    figure = Figure(figsize=(8.0, 6.4), layout="constrained")
    texts = {
        COHORT: ("clients in a round", "by cohort, from HDF5"),
        POPULATION: ("population", f"by population, cohorts of {result['cohort']:,}"),
    }
    for row, (name, (xlabel, title)) in zip(figure.subplots(2, 2, sharey="col"), texts.items(), strict=True):
        sizes = np.array([int(size) for size in result[name]])
        seconds, memory = row
        for number, threads in enumerate(("1 thread", "2 threads")):
            of = [measured[threads] for measured in result[name].values()]
            for which, filled in (("first round", "full"), ("next round", "none")):
                look = {**line_style(number), "fillstyle": filled, "markersize": 6}
                seconds.plot(sizes, [of_one[f"{which}, s"] for of_one in of], label=f"{which}, {threads}", **look)
            memory.plot(sizes, [of_one["peak MB"] for of_one in of], label=threads, **line_style(number))
        if name == COHORT:
            for axes, column in ((seconds, "first round, s"), (memory, "peak MB")):
                greatest = result[name][str(sizes[-1])]["1 thread"][column]
                axes.plot(sizes, greatest * sizes / sizes[-1], ":", color=GREY, label="in proportion to clients")
        dress(seconds, f"Time {title}", xlabel, "seconds a round")
        dress(memory, f"Memory {title}", xlabel, "peak of the process, MB")
        for axes in row:
            axes.set_xscale("log")
            axes.set_yscale("log")
    for above, below in zip(figure.axes[:2], figure.axes[2:], strict=True):  # where there is room
        below.legend(*above.get_legend_handles_labels(), fontsize=SMALL, framealpha=0.9, loc="lower right")
    figure.axes[1].set_ylim(10, None)  # Python, NumPy and h5py are in it, about 70 MB before the first client
    figure.savefig(path, dpi=200, metadata={"Software": None})


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
    parser.add_argument("--draw-from", type=Path, metavar="FILE", help="a stored result to draw, and nothing else")
    arguments = parser.parse_args()
    if arguments.draw_from:
        plot(json.loads(arguments.draw_from.read_text(encoding="utf-8")), arguments.plot)
        return
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
