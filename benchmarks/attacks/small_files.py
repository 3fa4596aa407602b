"""One byte changed, at every offset of a small file of each kind but HDF5: it is read, or refused by name."""

import collections
import json
import subprocess
import sys
import tracemalloc

import numpy as np

import fedsim_np as fed
from fedsim_np.datasets.partition import from_csv, from_leaf_json
from fedsim_np.learning.models import SoftmaxRegression, load_weights, save_weights
from fedsim_np.program import CSVLogger, FileProgramStateManager, JSONLinesLogger
from fedsim_np.runs.config import RunConfig, read_config_file

MOST_BYTES = 2**26  # that reading one may take


def _run_config(path):
    found = read_config_file(str(path)).get("choices")
    if not isinstance(found, dict):
        raise fed.DataError(f"file '{path}': no choices")
    return RunConfig.of(found, str(path))


def _good_files(folder):
    """Return name -> file, and the function that reads one."""
    choices = ["--out", str(folder / "run"), "--rounds", "2", "--server-optimizer", "adam", "--clients", "2"]
    subprocess.run([sys.executable, "-m", "fedsim_np", "train", *choices], check=True, stdout=subprocess.DEVNULL)
    model = SoftmaxRegression(2, 3)
    save_weights(folder / "weights.npz", model.initial_weights())
    small = {"step": 3, "weights": (np.arange(6.0).reshape(2, 3), np.ones(3, np.float32)), "name": "a"}
    manager = FileProgramStateManager(folder / "states")
    manager.save(small, 1)
    users = {name: {"x": [[0.5, 1.0], [0.25, 2.0]], "y": [0, 1]} for name in ("ann", "bob")}
    leaf = {"users": [*users], "num_samples": [2, 2], "user_data": users}
    (folder / "leaf.json").write_text(json.dumps(leaf), encoding="utf-8")
    (folder / "data.csv").write_text("who,x,y\nann,0.5,1\nbob,1.5,0\nann,2.5,1\n", encoding="utf-8")

    def state(path):
        other = FileProgramStateManager(path.parent / "others")
        path.replace(other.path(1))
        try:
            return other.load(1, small)
        finally:
            other.path(1).unlink()

    def logged(kind):
        def read(path):
            kind(path).rounds()
            kind(path).resume(1)

        return read

    return {
        "checkpoint": (folder / "states/program_state_1", state),
        "config.json": (folder / "run/config.json", _run_config),
        "metrics.csv": (folder / "run/metrics.csv", logged(CSVLogger)),
        "metrics.jsonl": (folder / "run/metrics.jsonl", logged(JSONLinesLogger)),
        "weights.npz": (folder / "weights.npz", lambda path: load_weights(path, model)),
        "LEAF's JSON": (folder / "leaf.json", from_leaf_json),
        "data.csv": (folder / "data.csv", lambda path: from_csv(path, client="who", label="y")),
    }


def small_files(folder, quick):
    """Read damaged files in this process; what is neither read nor a `DataError` that names the file came through."""
    found, through = {}, []
    for name, (good, read) in _good_files(folder).items():
        content, outcomes, path = good.read_bytes(), collections.Counter(), folder / "damaged" / good.name
        path.parent.mkdir(exist_ok=True)
        for offset in range(0, len(content), 97 if quick else 1):
            old = content[offset]
            for value in {0, 10, 44, 255, old ^ 1, old ^ 128, (old + 1) % 256} - {old}:
                path.write_bytes(content[:offset] + bytes([value]) + content[offset + 1 :])
                tracemalloc.start()
                try:
                    read(path)
                    outcome = "read"
                except fed.DataError as error:
                    named = path.name in str(error) or "program_state_1" in str(error)
                    outcome = "refused" if named else f"no file named: {error}"
                except Exception as error:
                    outcome = f"raised {error!r}"
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                if peak > MOST_BYTES:
                    outcome = f"{peak >> 20} MB"
                outcomes[outcome if outcome in ("read", "refused") else "else"] += 1
                if outcome not in ("read", "refused"):
                    through.append(f"{name}, {value} at {offset}: {outcome[:150]}")
        found[name] = dict(outcomes)
    return {"files": sum(map(sum, (of.values() for of in found.values()))), "outcomes": found, "came through": through}
