"""Forks while threads compute, logs that are removed in mid-run, parents that are killed. POSIX."""

import collections
import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import fedsim_np as fed
from fedsim_np.cli import main as fedsim

RESULT = ("config.json", "metrics.csv", "metrics.jsonl", "weights.npz")
CHOICES = ["--rounds", "20", "--clients", "4", "--epochs", "1", "--checkpoint-every", "3"]


def forks(folder, quick):
    """Fork children at random moments while a thread computes rounds; each computes one, or is killed after a while."""
    path, rng, count, patience = folder / "sample.h5", random.Random(0), 12 if quick else 600, 20
    fed.datasets.write_hdf5(path, fed.datasets.load_sample()[0])
    found = {}
    for name, data, executor in (
        ("memory, serial", fed.datasets.load_sample()[0], "serial"),
        ("file, threads", fed.datasets.HDF5ClientData(path, cache_bytes=0), None),
        ("writers, threads", fed.datasets.SyntheticClientData(60), None),
    ):
        process = fed.learning.build_weighted_fed_avg(
            fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), executor=executor
        )
        state, stop = process.initialize(), threading.Event()

        def cohort(number, data=data):
            ids = random.Random(number).sample(list(data.client_ids), min(40, len(data.client_ids)))
            made = (data.create_dataset_for_client(client_id) for client_id in ids)
            return [d.select(x="pixels", y="label").shuffle(100, seed=number % 5).batch(20) for d in made]

        def compute(process=process, state=state, stop=stop, cohort=cohort):
            number = 0
            while not stop.is_set():
                number += 1
                process.next(state, cohort(number), iteration=number)

        thread = threading.Thread(target=compute)
        thread.start()
        outcomes = collections.Counter()
        for number in range(count // 3):
            time.sleep(rng.random() * 0.02)
            child = os.fork()
            if not child:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(patience)
                status = 1
                with contextlib.suppress(BaseException):
                    process.next(state, cohort(number), iteration=number)
                    status = 0
                os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            outcomes["computed" if status == 0 else "hung" if status == -signal.SIGALRM else "failed"] += 1
        stop.set()
        thread.join()
        found[name] = dict(outcomes)
    through = [name for name, of in found.items() if set(of) != {"computed"}]
    return {"forked": found, "came through": through}


def logs(folder, quick):
    """Remove or replace logs and checkpoints at random rounds of a run; the result must be that of another one."""
    rng, count = random.Random(0), 2 if quick else 20

    def run(name):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return fedsim(["train", "--out", str(folder / name), *CHOICES])

    def result(name):
        return {part: (folder / name / part).read_bytes() for part in RESULT}

    run("whole")
    whole, outcomes, console = result("whole"), collections.Counter(), fed.program.ConsoleLogger
    for number in range(count):
        name, at = f"run{number}", {rng.randrange(21) for _ in range(3)}
        victim, kind = rng.choice(["metrics.csv", "metrics.jsonl", "timings.csv", "checkpoints"]), rng.randrange(2)

        class Disturbed(console):
            def release(self, metrics, round_num, name=name, at=at, victim=victim, kind=kind):
                path = folder / name / victim
                if round_num in at and path.exists():
                    os.rename(path, tempfile.mkdtemp(dir=folder) + "/removed")
                    if kind and victim != "checkpoints":
                        path.write_text("somebody else's\n", encoding="utf-8")

        fed.program.ConsoleLogger = Disturbed
        try:
            status = run(name)
        finally:
            fed.program.ConsoleLogger = console
        same = status == 0 and result(name) == whole
        outcomes["same bytes" if same else f"status {status}, other bytes"] += 1
        shutil.rmtree(folder / name)
    return {"runs": dict(outcomes), "came through": [what for what in outcomes if what != "same bytes"]}


_PARENT = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np
import fedsim_np as fed
if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=get_context(sys.argv[1]), initializer=fed.learning.end_with_parent)
    model, sgd = fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.1)
    process = fed.learning.build_weighted_fed_avg(model, sgd, executor=pool)
    batch = {"x": np.ones((2, 2), np.float32), "y": np.zeros((2, 1), np.int32)}
    print("began", flush=True)
    while True:
        process.next(process.initialize(), [[batch]] * 600)
"""


def orphans(folder, quick):
    """Kill a parent at random moments; say how many of its workers' outputs were still open ten seconds later."""
    rng, script, left, count = random.Random(0), folder / "parent.py", 0, 2 if quick else 12
    script.write_text(_PARENT, encoding="utf-8")
    for number in range(count):
        how = ("spawn", "fork")[number % 2]
        parent = subprocess.Popen([sys.executable, str(script), how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        parent.stdout.readline()
        time.sleep(rng.random() * 3)
        parent.send_signal(rng.choice([signal.SIGTERM, signal.SIGKILL]))
        try:
            parent.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            left += 1
    return {"parents killed": count, "workers left": left, "came through": ["workers"] * (left > 0)}
