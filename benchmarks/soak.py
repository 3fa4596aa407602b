"""What is promised of long runs, at full size: kills, full disks, workers, damaged files, memory.

usage: soak.py [PART ...] [--json FILE] [--quick]

PARTs are kills, same-bytes, disk, hdf5, checkpoints and memory; all of them by default. The suite has the same checks
in small. Every damaged file is made from a good one and a number, so that each can be made again; files are read by a
process of their own, which is watched: it may neither crash, nor take more than 5 s for a file, nor 1 GB of memory.
"""

import argparse
import gc
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import common
import h5py
import numpy as np

import fedsim_np as fed
from fedsim_np.experiment import Experiment, RunConfig

RESULT = ("config.json", "metrics.csv", "metrics.jsonl", "weights.npz")
CHOICES = ["--rounds", "30", "--clients", "10", "--evaluate-every", "5", "--checkpoint-every", "3"]
CHOICES += ["--server-optimizer", "adam", "--server-lr", "0.01", "--client-momentum", "0.5"]


def command(folder, *arguments):
    """Return the command that trains into a folder."""
    return [sys.executable, "-m", "fedsim_np", "train", "--out", str(folder), *arguments]


def result(folder):
    """Return the bytes that must be the same."""
    return {name: (folder / name).read_bytes() for name in RESULT}


def one_piece(folder):
    """Train without an interruption; return the result."""
    subprocess.run(command(folder, *CHOICES), check=True, stdout=subprocess.DEVNULL)
    return result(folder)


def kills(folder, quick):
    """Kill runs at random moments, resume them each time, and compare: four kills a run."""
    whole, moments, at, same = one_piece(folder / "whole"), random.Random(7), [], []
    for number in range(1 if quick else 5):
        target = folder / f"killed_{number}"
        for last_round in sorted(moments.sample(range(30), 4)):
            process = subprocess.Popen(command(target, *CHOICES, "--resume"), stdout=subprocess.PIPE, encoding="utf-8")
            for line in process.stdout:
                found = re.match(r"round +(\d+) of", line)
                if found and int(found.group(1)) >= last_round:
                    break
            # Somewhere in the next round, a log or a checkpoint.
            time.sleep(moments.random() * 0.02)
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
            at.append(last_round)
        subprocess.run(command(target, *CHOICES, "--resume"), check=True, stdout=subprocess.DEVNULL)
        same.append(result(target) == whole)
    return {"kills": len(at), "after rounds": at, "byte-identical": all(same)}


class Delaying(Executor):
    """Threads that finish in random order."""

    def __init__(self, seed):
        self._random, self._lock = random.Random(seed), threading.Lock()

    def submit(self, fn, /, *args, **kwargs):
        """Do something later."""
        future = Future()
        with self._lock:
            delay = self._random.random() * 0.02

        def work():
            time.sleep(delay)
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work).start()
        return future


def same_bytes(folder, quick):
    """Compare workers, orders of finishing and hash seeds."""
    del quick
    whole, same = one_piece(folder / "whole"), {}
    for name, arguments, seed in (
        ("1 worker", ["--workers", "1"], "0"),
        ("2 workers", ["--workers", "2"], "0"),
        ("another PYTHONHASHSEED", [], "12345"),
    ):
        target = folder / name.replace(" ", "_")
        subprocess.run(
            command(target, *CHOICES, *arguments),
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        same[name] = result(target) == whole
    experiment = Experiment(RunConfig(clients=30, rounds=5))
    weights = []
    for executor in ("serial", Delaying(1), Delaying(2)):
        process = experiment.training_process(executor)
        state = process.initialize()
        for round_num in range(1, 6):
            state, _ = process.next(state, experiment.cohort(round_num))
        weights.append([array.tobytes() for array in process.get_model_weights(state).trainable])
    same["workers that finish in random order"] = weights[0] == weights[1] == weights[2]
    return same


def disk(folder, quick):
    """Have no room for a checkpoint in mid-run: from then on files may not be longer than a limit."""
    del quick
    whole, target = one_piece(folder / "whole"), folder / "full"
    process = subprocess.Popen(command(target, *CHOICES), stdout=subprocess.PIPE, encoding="utf-8")
    for line in process.stdout:
        if line.startswith("round 10 of"):
            process.send_signal(signal.SIGINT)  # which ends it after the round
    process.wait()
    before = sorted((target / "checkpoints").iterdir())
    contents = [path.read_bytes() for path in before]
    limited = subprocess.run(
        command(target, "--resume"),
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
        check=False,
    )
    kept = sorted((target / "checkpoints").iterdir()) == before and [p.read_bytes() for p in before] == contents
    subprocess.run(command(target, "--resume"), check=True, stdout=subprocess.DEVNULL)
    return {
        "one line and status 2": limited.returncode == 2 and limited.stderr.count("\n") == 1,
        "said": limited.stderr.strip().replace(str(folder), "..."),
        "checkpoints before": [path.name for path in before],
        "they are whole": kept,
        "resumed, byte-identical": result(target) == whole,
    }


# --- damaged files


def good_hdf5(path):
    """Write a file with one client of each kind of storage."""
    data = fed.datasets.SyntheticClientData(4, seed=3)
    fed.datasets.write_hdf5(path, data)
    with h5py.File(path, "a") as file:
        group = file.create_group("examples/f9999_00")
        group.create_dataset("label", data=np.arange(3, dtype=np.int32))
        group.create_dataset("pixels", data=np.ones((3, 28, 28), np.float32), chunks=(1, 28, 28), compression="gzip")


def damage_hdf5(good, path, seed):
    """Write the damaged file of a number; return what was done."""
    rng = random.Random(seed)
    content = bytearray(good)
    kind = rng.choice(["flip", "flip", "flip", "burst", "cut", "zeros", "structure", "type", "attribute"])
    # Three of four in the first bytes: that is where structure is, and not pixels.
    place = rng.randrange(len(content)) if rng.random() < 0.25 else rng.randrange(min(len(content), 20_000))
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            content[min(place + rng.randrange(64), len(content) - 1)] ^= 1 << rng.randrange(8)
    elif kind == "burst":
        content[place : place + 16] = rng.randbytes(len(content[place : place + 16]))
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)
    if kind in ("structure", "type", "attribute"):
        damage_structure(path, kind, rng)
    return kind


def damage_structure(path, kind, rng):
    """Damage a file by HDF5's own means."""
    with h5py.File(path, "a") as file:
        group = file["examples"][rng.choice(list(file["examples"]))]
        name = rng.choice(["label", "pixels"])
        if kind == "structure":
            what = rng.choice(["group", "field", "all", "link", "external", "copy"])
            if what == "group":
                del file["examples"][group.name.rpartition("/")[2]]
            elif what == "field":
                del group[name]
            elif what == "all":
                del file["examples"]
            else:
                del group[name]
                group[name] = {
                    "link": h5py.SoftLink("/examples"),
                    "external": h5py.ExternalLink("nowhere.h5", "/x"),
                    "copy": h5py.SoftLink(group.name + "/" + name),
                }[what]
        elif kind == "type":
            del group[name]
            n = rng.randrange(0, 4)
            made = rng.choice(
                [np.zeros((n, 28, 28), np.float64), np.zeros((n, 2), np.int64), np.array([b"a"] * 3), np.float32(1)]
            )
            group.create_dataset(name, data=made)
        else:
            what = rng.choice(["huge", "claimed", "long", "vlen"])
            if what == "huge":
                del group[name]
                group.create_dataset(name, shape=(2**40, 28, 28), dtype="f4", chunks=(1, 28, 28))
            elif what == "claimed":
                del group[name]
                group.create_dataset(name, shape=(2**33,), dtype="i4", chunks=(2**20,), compression="gzip")
            elif what == "long":
                file.attrs["a" * 1000] = np.zeros(8000, np.uint8)
                group.attrs["b"] = "c" * 60_000
            else:
                del group[name]
                group.create_dataset(name, data=["x" * 1000] * 3, dtype=h5py.string_dtype())


def read_hdf5(path, good):
    """Read all of a file; return "right", "other" (values that nothing can tell from right ones) or "refused"."""
    found = "right"
    try:
        with fed.datasets.HDF5ClientData(path) as data:
            for client_id in data.client_ids:
                arrays = data.create_dataset_for_client(client_id).to_arrays()
                expected = good.get(client_id)
                same = expected is not None and all(np.array_equal(arrays[name], expected[name]) for name in expected)
                found = found if same and len(data.client_ids) == len(good) else "other"
    except fed.DataError as error:
        return "refused" if str(path) in str(error) else f"no file named: {error}"
    return found


def good_run(folder):
    """Make a checkpoint and a configuration; return their bytes."""
    subprocess.run(
        command(folder / "r", "--rounds", "2", "--server-optimizer", "adam", "--clients", "2"),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return (folder / "r/checkpoints/program_state_2").read_bytes(), (folder / "r/config.json").read_bytes()


def damage_bytes(good, seed):
    """Return damaged bytes."""
    rng, content = random.Random(seed), bytearray(good)
    place = rng.randrange(len(content)) if rng.random() < 0.3 else rng.randrange(min(len(content), 3000))
    kind = rng.choice(["flip", "cut", "insert", "burst", "double"])
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = rng.randbytes(rng.randrange(1, 20))
    elif kind == "burst":
        content[place : place + 8] = rng.randbytes(8)
    else:
        content[place:place] = content[place : place + rng.randrange(1, 200)]
    return bytes(content)


def watched(part, folder, start, stop):
    """Read files start..stop-1, and print a line for each: what `watch` runs as a process."""
    folder = Path(folder)
    if part == "hdf5":
        content = (folder / "good.h5").read_bytes()
        with fed.datasets.HDF5ClientData(folder / "good.h5") as data:
            good = {c: data.create_dataset_for_client(c).to_arrays() for c in data.client_ids}
    else:
        checkpoint, config = (folder / "checkpoint").read_bytes(), (folder / "config").read_bytes()
        like = Experiment(RunConfig(server_optimizer="adam")).training_process().initialize()
    for seed in range(start, stop):
        if part == "hdf5":
            path = folder / f"damaged_{start}.h5"
            kind = damage_hdf5(content, path, seed)
            print(seed, kind, read_hdf5(path, good), flush=True)
        elif seed % 2:
            root = folder / f"checkpoints_{start}"
            manager = fed.program.FileProgramStateManager(root)
            manager.path(2).write_bytes(damage_bytes(checkpoint, seed))
            same = manager.path(2).read_bytes() == checkpoint
            try:
                manager.load(2, like)
                print(seed, "checkpoint", "right" if same else "other", flush=True)
            except fed.DataError as error:
                print(seed, "checkpoint", "refused" if "program_state_2" in str(error) else "no file named", flush=True)
        else:
            path = folder / f"config_{start}.json"
            path.write_bytes(damage_bytes(config, seed))
            try:
                same = run_config(path) == run_config(folder / "config.json")
                print(seed, "config", "right" if same else "other", flush=True)
            except fed.DataError as error:
                print(seed, "config", "refused" if path.name in str(error) else "no file named", flush=True)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1_000_000:
            print(seed, "memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
            return


def run_config(path):
    """Read a run's configuration as the command does."""
    from fedsim_np.experiment import read_config_file

    found = read_config_file(str(path)).get("choices")
    if not isinstance(found, dict):
        raise fed.DataError(f"file '{path}': no choices")
    return RunConfig.of(found, str(path))


def watch(part, folder, count):
    """Have files read by processes; return how many were what, and those that crashed, hung or took too much memory."""
    outcomes, bad, slowest, start = {}, [], 0.0, 0
    while start < count:
        stop = min(count, start + 500)
        arguments = [sys.executable, __file__, "--watched", part, str(folder), str(start), str(stop)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
        last, asked = start - 1, time.monotonic()
        killer = threading.Timer(30, process.kill)
        killer.start()
        for line in process.stdout:
            seed, kind, outcome = line.split(maxsplit=2)
            if last >= start:  # the first one waits for the imports
                slowest = max(slowest, time.monotonic() - asked)
                if time.monotonic() - asked > 5:
                    bad.append([int(seed), kind, "slow"])
            outcome = outcome.strip()
            if kind == "memory" or outcome not in ("right", "other", "refused"):
                bad.append([int(seed), kind, outcome])
            key = f"{kind}: {outcome if len(outcome) < 20 else 'unexpected'}"
            outcomes[key] = outcomes.get(key, 0) + 1
            last, asked = int(seed), time.monotonic()
            killer.cancel()
            killer = threading.Timer(20, process.kill)
            killer.start()
        killer.cancel()
        if process.wait() != 0 and last + 1 < stop:
            bad.append([last + 1, "process", f"ended with {process.returncode}"])
            last += 1
        start = last + 1
    return {"files": count, "outcomes": dict(sorted(outcomes.items())), "bad": bad, "slowest, s": round(slowest, 2)}


def hdf5(folder, quick):
    """Read damaged HDF5 files."""
    good_hdf5(folder / "good.h5")
    return watch("hdf5", folder, 200 if quick else 10_000)


def checkpoints(folder, quick):
    """Read damaged checkpoints and configurations."""
    checkpoint, config = good_run(folder)
    (folder / "checkpoint").write_bytes(checkpoint)
    for name in ("config", "config.json"):
        (folder / name).write_bytes(config)
    return watch("checkpoints", folder, 100 if quick else 2_000)


def memory(folder, quick):
    """Train for many rounds in one process; return memory and handles on the way."""
    del folder
    rounds = 60 if quick else 1000
    experiment = Experiment(
        RunConfig(data="synthetic", population=300, clients=30 if quick else 100, epochs=1, rounds=rounds)
    )
    process = experiment.training_process()
    state, at = process.initialize(), {}
    for round_num in range(1, rounds + 1):
        state, _ = process.next(state, experiment.cohort(round_num), iteration=round_num - 1)
        if round_num in (50, 60) or round_num % 100 == 0:
            gc.collect()
            with open("/proc/self/statm", encoding="ascii") as file:
                pages = int(file.read().split()[1])
            handles = len(os.listdir("/proc/self/fd"))
            at[round_num] = {"MB": round(pages * resource.getpagesize() / 1e6, 1), "handles": handles}
    growth = max(of["MB"] for of in at.values()) / at[50]["MB"] - 1
    flat = len({of["handles"] for of in at.values()}) == 1
    return {"rounds": rounds, "at round": at, "growth after round 50, %": round(100 * growth, 1), "handles flat": flat}


PARTS = {
    "kills": kills,
    "same-bytes": same_bytes,
    "disk": disk,
    "hdf5": hdf5,
    "checkpoints": checkpoints,
    "memory": memory,
}


def main():
    """Measure, print, store."""
    if sys.argv[1:2] == ["--watched"]:
        watched(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", metavar="PART", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few of each, to see that it runs")
    arguments = parser.parse_args()
    found = {}
    for name in arguments.parts or PARTS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = PARTS[name](Path(folder), arguments.quick)
        found[name]["seconds"] = round(time.monotonic() - started, 1)
        print(name, json.dumps(found[name]), flush=True)
    if arguments.json and Path(arguments.json).exists():
        found = {**json.loads(Path(arguments.json).read_text(encoding="utf-8")), **found}
    common.store(found | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
