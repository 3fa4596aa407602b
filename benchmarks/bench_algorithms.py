"""What an algorithm's round costs beside federated averaging's, and what state per client costs a run.

usage: bench_algorithms.py [--repeats N] [--json FILE] [--quick]

- rounds: 100 of 400 simulated writers in memory, drawn anew each round, in a new order; the algorithms take turns, a
  turn is a second of rounds; ratios are medians of the ratios to FedAvg within each turn. Every client has been seen
  before, so that something is kept of each.
- population: SCAFFOLD with 100 of 3,383 writers whose control variates are all in the state, against 100 of the same
  state with none: what keeping many costs a round.
- checkpoint: that state, of 3,383 float32 control variates of 784 x 10 + 10, saved (synced to the disk) and loaded.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from bench_research import select

import fedsim_np as fed
from fedsim_np.learning import models

RATE, K = 0.02, 100
SGD = fed.learning.optimizers.build_sgdm(RATE)
MOMENTUM = fed.learning.optimizers.build_sgdm(RATE, 0.9)


def builders(num_clients):
    """Return what builds each process."""
    learning = fed.learning
    return {
        "fed_avg": lambda model: learning.build_weighted_fed_avg(model, SGD),
        "fed_prox": lambda model: learning.build_weighted_fed_prox(model, 0.1, SGD),
        "scaffold": lambda model: learning.build_scaffold(model, RATE, num_clients=num_clients),
        "scaffold, option i": lambda model: learning.build_scaffold(model, RATE, num_clients=num_clients, option="i"),
        "fed_dyn": lambda model: learning.build_fed_dyn(model, RATE, 0.1, num_clients=num_clients),
        "fed_nova": lambda model: learning.build_fed_nova(model, SGD),
        "q_fed_avg": lambda model: learning.build_q_fed_avg(model, SGD, 1.0, 1 / RATE),
        "mime_lite": lambda model: learning.build_weighted_mime_lite(model, MOMENTUM),
        "ditto": lambda model: learning.build_ditto(model, SGD, SGD, 0.1, num_clients=num_clients),
    }


def rounds(process, state, client_data, k, epochs):
    """Return a function that makes the next round: clients drawn anew, and their order too."""
    rng, ids, numbers = np.random.default_rng(0), client_data.client_ids, itertools.count(1)
    states = [state]

    def round_():
        chosen = rng.choice(len(ids), k, replace=False)
        cohort = [select(client_data.create_dataset_for_client(ids[i]), epochs) for i in chosen]
        states[0] = process.next(states[0], cohort, iteration=next(numbers)).state

    return round_


def all_seen(process, client_data, epochs):
    """Return a state after one round of all clients, in cohorts of a hundred."""
    state, ids = process.initialize(), client_data.client_ids
    for start in range(0, len(ids), K):
        cohort = [select(client_data.create_dataset_for_client(c), epochs) for c in ids[start : start + K]]
        state = process.next(state, cohort).state
    return state


def compared(contenders, first, repeats, seconds):
    """Return medians in ms, and each contender's ratio to the first one."""
    times = common.interleaved(contenders, repeats, seconds)
    ratios = {
        name: round(statistics.median(t / f for t, f in zip(values, times[first], strict=True)), 2)
        for name, values in times.items()
    }
    return {"ms": common.medians(times), f"times as long as {first}": ratios}


def timed(function):
    """Return seconds, and what a function returns."""
    started = time.perf_counter()
    result = function()
    return round(time.perf_counter() - started, 3), result


def checkpoint(process, state, folder, repeats):
    """Return bytes and median seconds of saving and loading a state, and whether it came back to the bit."""
    manager, saving, loading, like = fed.program.FileProgramStateManager(folder), [], [], process.initialize()
    for version in range(repeats):
        seconds, _ = timed(functools.partial(manager.save, state, version))
        saving.append(seconds)
        seconds, loaded = timed(functools.partial(manager.load, version, like))
        loading.append(seconds)
    pairs = zip(fed.trees.leaves(loaded), fed.trees.leaves(state), strict=True)
    arrays = [leaf for _, leaf in fed.trees.leaves(state.client_work.clients)]
    return {
        "clients kept": len(state.client_work.clients),
        "MB of their arrays": round(sum(array.nbytes for array in arrays) / 1e6, 1),
        "MB of the file": round(manager.path(version).stat().st_size / 1e6, 1),
        "save, s": statistics.median(saving),
        "load, s": statistics.median(loading),
        "to the bit": all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for (_, a), (_, b) in pairs),
    }


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few clients and turns, to see that it runs")
    arguments = parser.parse_args()
    repeats, seconds = (2, 0.0) if arguments.quick else (arguments.repeats, 1.0)
    few, many, k = (20, 120, 10) if arguments.quick else (400, 3383, K)
    model = models.SoftmaxRegression
    source = fed.datasets.SyntheticClientData(many)
    data = {c: dict(source.create_dataset_for_client(c).to_arrays()) for c in source.client_ids}
    everybody = fed.datasets.InMemoryClientData(data)
    some = fed.datasets.InMemoryClientData(dict(list(data.items())[:few]))
    result = {"what": "median ms a round, and median of the ratios within each turn", "repeats": repeats}
    for epochs in (1, 5):
        contenders = {}
        for name, build in builders(few).items():
            process = build(model)
            contenders[name] = rounds(process, all_seen(process, some, epochs), some, k, epochs)
        result[f"rounds: {k} of {few}, epochs: {epochs}"] = compared(contenders, "fed_avg", repeats, seconds)
    process = builders(many)["scaffold"](model)
    state = all_seen(process, everybody, 1)
    forgotten = state._replace(client_work=state.client_work._replace(clients={}))
    contenders = {
        "none kept": lambda: process.next(forgotten, cohort),
        "all kept": lambda: process.next(state, cohort),
    }
    cohort = [select(everybody.create_dataset_for_client(c), 1) for c in everybody.client_ids[:k]]
    result[f"population: scaffold, {k} of {many}"] = compared(contenders, "none kept", repeats, seconds)
    with tempfile.TemporaryDirectory() as folder:
        result[f"checkpoint of scaffold with {many} clients"] = checkpoint(process, state, Path(folder), repeats)
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
