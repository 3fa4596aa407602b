"""The loggers of docs/loggers.md, as they stand there: what they log is read back, by MLflow and from W&B's own file.

MLflow and W&B are heavy: they are in the extra `loggers`, and where they are missing their tests are skipped.
"""

import contextlib
import math
import re
import sqlite3
import struct
import sys

import pytest
from conftest import PAGES, random_cohort, run_page, sgd, toy_model

import fedsim_np as fed
from fedsim_np.program.training import is_timing

PAGE = PAGES / "loggers.md"
ROUNDS = 6


class KilledError(Exception):
    pass


class Killer:
    def release(self, metrics, round_num):
        if round_num == 5:
            raise KilledError


def run(loggers, folder):
    """Six rounds and evaluations from round 0 on, saved after every second round."""
    cohort = random_cohort([5, 7], batch=3)
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1))
    evaluation = fed.learning.build_fed_eval(toy_model)
    fed.program.run_training_process(
        process,
        lambda _: cohort,
        ROUNDS,
        lambda state, data: fed.program.training.evaluate_weights(evaluation, state.global_model_weights, data),
        lambda _: cohort,
        program_state_manager=fed.program.FileProgramStateManager(folder),
        rounds_per_saving_program_state=2,
        metrics_managers=loggers,
    )


@pytest.fixture
def trackers(folder, monkeypatch):
    """What MLflow and W&B may do in a test: write to its folder, the working directory, and send nothing."""
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "WANDB_SILENT"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(folder / "of_wandb"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield folder
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def expected(folder):
    """Name of a metric -> round -> value, of the run in one piece, but for seconds."""
    memory = fed.program.MemoryLogger()
    run([memory], folder / "in one piece")
    numbers = memory.history.pop("round_num")
    assert numbers == list(range(ROUNDS + 1))
    return {
        name: {i: float(value) for i, value in zip(numbers, column, strict=True) if not math.isnan(value)}
        for name, column in memory.history.items()
        if not is_timing(name)
    }


def compare(found, expected):
    assert len(expected) > 10
    assert {name: found[name] for name in expected} == expected
    assert set(found) - set(expected) <= {"round_num", "round_number", *filter(is_timing, found)}


def recipe(name):
    (code,) = (
        code for code in re.findall("```python.*?\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if name in code
    )
    return code


@pytest.mark.parametrize("name", ["class SQLiteLogger", "class MLflowLogger", "class WandbLogger"])
def test_a_recipe_has_at_most_15_lines(name):
    assert 5 < len([line for line in recipe(name).splitlines() if line.strip()]) <= 15


def test_sqlite(trackers, expected):
    names = run_page(PAGE, packages=())
    kept = trackers / "metrics of a run.db"
    first = names["SQLiteLogger"](kept)
    with contextlib.closing(first.db), pytest.raises(KilledError):
        run([first, Killer()], trackers / "killed")
    second = names["SQLiteLogger"](kept)
    with contextlib.closing(second.db):
        run([second], trackers / "killed")
    found = {}
    with contextlib.closing(sqlite3.connect(kept)) as db:
        for round_num, name, value in db.execute("SELECT * FROM metrics"):
            assert found.setdefault(name, {}).setdefault(round_num, value) == value
        rows = db.execute("SELECT COUNT(*) FROM metrics WHERE name = 'round_number'").fetchone()[0]
    assert rows == ROUNDS
    compare(found, expected)


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's
def test_mlflow(trackers, expected):
    mlflow = pytest.importorskip("mlflow")
    names = run_page(PAGE, packages=("mlflow",))
    client = mlflow.MlflowClient()
    # What the page logs.
    (of_page,) = client.search_runs([client.get_experiment_by_name("Default").experiment_id])
    assert of_page.data.params == {name: str(value) for name, value in names["config"].items()}
    assert of_page.info.status == "FINISHED"
    assert [artifact.path for artifact in client.list_artifacts(of_page.info.run_id)] == ["weights.npz"]
    assert (
        client.list_artifacts(of_page.info.run_id)[0].file_size
        == (trackers / "run_of_mlflow/weights.npz").stat().st_size
    )
    # A run that is killed and goes on.
    run_id = client.create_run("0").info.run_id
    with pytest.raises(KilledError):
        run([names["MLflowLogger"](run_id), Killer()], trackers / "killed")

    def read(name):
        return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]

    seconds = read("training_time_in_seconds")
    assert [step for step, _ in seconds] == [1, 2, 3, 4, 5]
    run([names["MLflowLogger"](run_id)], trackers / "killed")
    found = {name: read(name) for name in client.get_run(run_id).data.metrics}
    assert all(len(dict(history)) == len(history) for history in found.values())
    assert found["training_time_in_seconds"][:5] == seconds
    compare({name: dict(history) for name, history in found.items()}, expected)
    # What is not finite, and what is no number.
    names["MLflowLogger"](run_id).release({"nothing": math.nan, "note": "text"}, 7)
    assert math.isnan(dict(read("nothing"))[7])
    assert read("note") == []


def records(path):
    """Yield the records of a file of W&B's: LevelDB's log format, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # no place for another one in this block
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_wandb(folder):
    """Return metrics by name and step, and the config, of a run's folder; W&B's process has ended."""
    found, config = {}, {}
    (path,) = folder.glob("*.wandb")
    for record in records(path):
        for item in record.run.config.update:
            config[item.key] = item.value_json
        row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
        for name, value in row.items():
            assert int(row["_step"]) not in found.setdefault(name, {})
            found[name][int(row["_step"])] = value
    return found, config


@pytest.mark.filterwarnings("ignore")  # W&B's
def test_wandb(trackers, expected):
    wandb = pytest.importorskip("wandb")
    names = run_page(PAGE, packages=("wandb",))
    wandb.teardown()  # its other process writes until it ends
    # What the page logs.
    (of_page,) = trackers.glob("wandb/offline-run-*-digits-1")
    found, config = read_wandb(of_page)
    assert {name: float(config[name]) for name in names["config"]} == names["config"]
    assert list(found["client_work/train/loss"]) == [1, 2, 3]
    (path,) = of_page.glob("*.wandb")
    (artifact,) = (record.artifact for record in records(path) if record.HasField("artifact"))
    assert (artifact.name, [file.path for file in artifact.manifest.contents]) == ("weights", ["weights.npz"])
    # A run that is killed and goes on: the second folder is all of it.
    log = trackers / "metrics.jsonl"
    for which in ("first", "second"):
        with wandb.init(project="digits", id=which, mode="offline") as tracked:
            loggers = [fed.program.JSONLinesLogger(log), names["WandbLogger"](tracked, log)]
            if which == "first":
                with pytest.raises(KilledError):
                    run([*loggers, Killer()], trackers / "killed")
            else:
                run(loggers, trackers / "killed")
    wandb.teardown()
    (folder,) = trackers.glob("wandb/offline-run-*-second")
    found = {name: of for name, of in read_wandb(folder)[0].items() if not name.startswith("_")}
    compare(found, expected)
