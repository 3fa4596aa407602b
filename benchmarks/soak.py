"""What is promised of long runs and of strangers' files, at full size.

usage: soak.py [PART ...] [--json FILE] [--quick]

PARTs are all of them by default; their names are in PARTS below. The suite has the same checks in small. What `attacks`
make is damaged or crafted by a number, so that each can be made again.
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
from attacks import hdf5_files, kept_rows, processes, run_folders, small_files

from fedsim_np.runs.experiment import Experiment, RunConfig

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
    assert process.wait() == 130, "it was done before it could be stopped"
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
    "logs": processes.logs,
    "forks": processes.forks,
    "orphans": processes.orphans,
    "small-files": small_files.small_files,
    "hdf5-bytes": hdf5_files.bytes_of_files,
    "hdf5-structure": hdf5_files.structure,
    "hdf5-bombs": hdf5_files.bombs,
    "hdf5-changes": hdf5_files.changes,
    "links": run_folders.links,
    "descriptions": run_folders.descriptions,
    "weights": run_folders.weights,
    "configurations": run_folders.configurations,
    "kept-rows": kept_rows.kept_rows,
    "memory": memory,
}


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", metavar="PART", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="few of each, to see that it runs")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are {', '.join(PARTS)})")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job is started without it
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
