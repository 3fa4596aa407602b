"""Reading HDF5, and the cold round: clients that nobody has seen before, every round.

usage: bench_load.py [--clients N] [--repeats N] [--json FILE] [--quick]

A file of simulated writers is written first. h5py alone means: open the file and read both arrays of each client. HDF5
keeps a group of thousands in a tree of small nodes, and h5py makes an object for each group and array in it: "a wide
group" compares ways to look at all clients. The cold round goes from `create_dataset_for_client` to the new state; its
parts are measured on the same clients, one after the other and on one thread: reading the values, computing the order
of the shuffle, everything else.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import common
import h5py
from bench_round import preprocess

import fedsim_np as fed


def timed(function):
    """Return milliseconds."""
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1e3


def read_by_h5py(path, client_ids):
    """Read as h5py does."""
    with h5py.File(path, "r") as file:
        for client_id in client_ids:
            group = file["examples"][client_id]
            group["pixels"][()], group["label"][()]


def wide_group(path, repeats):
    """Return the ms of opening by h5py and here: names alone, and the shapes of all clients' arrays."""

    def shapes_by_h5py():
        with h5py.File(path, "r") as file:
            for group in file["examples"].values():
                group["pixels"].shape, group["label"].shape

    def names_by_h5py():
        with h5py.File(path, "r") as file:
            list(file["examples"])

    def shapes_here():
        with fed.datasets.HDF5ClientData(path, cache_bytes=0) as data:
            sum(data.create_dataset_for_client(client_id).num_examples for client_id in data.client_ids)

    times = {"names by h5py": [], "names here": [], "shapes by h5py": [], "shapes, checked, here": []}
    for _ in range(repeats):
        times["names by h5py"].append(timed(names_by_h5py))
        times["names here"].append(timed(lambda: fed.datasets.HDF5ClientData(path, cache_bytes=0).close()))
        times["shapes by h5py"].append(timed(shapes_by_h5py))
        times["shapes, checked, here"].append(timed(shapes_here))
    return common.medians(times)


def new_process(**keywords):
    """Return the tutorial's process, which has kept nothing yet."""
    return fed.learning.build_weighted_fed_avg(
        fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), **keywords
    )


def cold_rounds(path, size, repeats):
    """Return the times of cold and warm rounds, interleaved, and the parts of the cold ones."""
    data = fed.datasets.HDF5ClientData(path, cache_bytes=0)
    ids = data.client_ids
    process, kept = new_process(), new_process()
    state = process.initialize()
    warm_cohort = [preprocess(data.create_dataset_for_client(c), 1) for c in ids[:size]]
    for _ in range(3):
        kept.next(state, warm_cohort)
    times = {name: [] for name in ("cold round", "warm round", "h5py alone", "reading", "ordering", "the rest")}
    for repeat in range(repeats):
        cohort_ids = [ids[(size * (repeat + 1) + i) % len(ids)] for i in range(size)]

        def cold(cohort_ids=cohort_ids):
            process.next(state, [preprocess(data.create_dataset_for_client(c), 1) for c in cohort_ids])

        times["cold round"].append(timed(cold))
        times["h5py alone"].append(timed(lambda ids=cohort_ids: read_by_h5py(path, ids)))
        times["warm round"].append(timed(lambda: kept.next(state, warm_cohort)))
        started = time.perf_counter()
        datasets = [preprocess(data.create_dataset_for_client(c), 1) for c in cohort_ids]
        parts = [dataset.row_batches() for dataset in datasets]
        for part in parts:
            part.source.columns()
        times["reading"].append((time.perf_counter() - started) * 1e3)
        times["ordering"].append(timed(lambda parts=parts: {p.order_key: p.make_order() for p in parts}))
        fresh = new_process(executor="serial")
        times["the rest"].append(timed(lambda f=fresh, d=datasets: f.next(state, d)) - times["ordering"][-1])
    budget = [1.5 * w + h for w, h in zip(times["warm round"], times["h5py alone"], strict=True)]
    over = statistics.median(c / b for c, b in zip(times["cold round"], budget, strict=True))
    return {"ms": common.medians(times), "cold / (1.5 x warm + h5py alone)": round(over, 2)}


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=3383)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few clients, to see that it runs")
    arguments = parser.parse_args()
    clients, repeats, size = (80, 3, 20) if arguments.quick else (arguments.clients, arguments.repeats, 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "writers.h5")
        fed.datasets.write_hdf5(path, fed.datasets.SyntheticClientData(clients))
        opened = [timed(lambda: fed.datasets.HDF5ClientData(path, cache_bytes=0)) for _ in range(repeats)]
        data = fed.datasets.HDF5ClientData(path, cache_bytes=0)
        first = [timed(lambda: data.create_dataset_for_client(data.client_ids[-1]).to_arrays()) for _ in range(repeats)]
        everyone = timed(lambda: [data.create_dataset_for_client(c).to_arrays() for c in data.client_ids])
        by_h5py = timed(lambda: read_by_h5py(path, data.client_ids))
        data.close()
        wide = wide_group(path, min(repeats, 5))
        result = {
            "what": f"{clients} simulated writers in HDF5, {path.stat().st_size / 1e6:.0f} MB; medians",
            "open, ms": round(statistics.median(opened), 2),
            "one client, ms": round(statistics.median(first), 2),
            "a wide group, ms": wide,
            "all clients, s": round(everyone / 1e3, 2),
            "all clients by h5py alone, s": round(by_h5py / 1e3, 2),
            f"round of {size} clients x 1 epoch": cold_rounds(path, size, repeats),
            "repeats": repeats,
        }
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
