"""fedsim-np train: killed, interrupted, damaged, misused; always resumable, and to the same bytes."""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import digits

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.program import log_files
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.folder import exclusive_lock

RESULT = ("config.json", "metrics.csv", "metrics.jsonl", "clients.csv", "evaluation.json", "weights.npz")


def train(out, *arguments):
    return ["train", "--out", str(out), *map(str, arguments)]


def start(arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "fedsim_np", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, **environment},
    )


def result(folder):
    return {name: (folder / name).read_bytes() for name in RESULT}


CHOICES = ["--rounds", "30", "--clients", "4", "--epochs", "1", "--evaluate-every", "4", "--checkpoint-every", "3"]
CHOICES += ["--server-optimizer", "adam", "--server-lr", "0.01", "--client-momentum", "0.5"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(train(folder, *CHOICES)) == 0
    return result(folder)


def test_what_a_run_leaves(whole, folder, capsys):
    assert main(train(folder / "run", *CHOICES)) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 32
    assert re.match(r"round 12 of 30  accuracy 0\.\d+  loss .*  evaluation loss .*  \d:\d\d:\d\d left", out[12])
    names = sorted(path.name for path in (folder / "run").iterdir())
    assert names == sorted([*RESULT, "timings.csv", "checkpoints"])
    assert result(folder / "run") == whole
    assert list(folder.iterdir()) == [folder / "run"]
    config = json.loads(whole["config.json"])
    assert config["choices"]["server_optimizer"] == "adam"
    assert len(config["data"]["train"]["sha256"]) == 64
    assert b"time" not in whole["metrics.csv"].splitlines()[0]
    with np.load(folder / "run" / "weights.npz") as weights:
        assert weights["kernel"].shape == (784, 10)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_killed_at_random_moments_and_resumed(whole, folder):
    moments = random.Random(1)
    for _ in range(3):
        process = start(train(folder / "run", *CHOICES, "--resume"))
        for line in process.stdout:
            if re.match(rf"round +{moments.randrange(1, 30)} of", line):
                break
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.communicate()
    # With another hash seed, and other workers.
    process = start(train(folder / "run", *CHOICES, "--resume", "--workers", "2"), PYTHONHASHSEED="77")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert result(folder / "run") == whole


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_ctrl_c_ends_after_the_round_and_twice_at_once(whole, folder):
    process = start(train(folder / "run", *CHOICES))
    while not process.stdout.readline().startswith("round  2 of"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted: the run ends after this round" in out
    assert "to go on: fedsim-np train --out" in out
    stopped = int(re.search(r"stopped after round (\d+) of 30", out).group(1))
    assert (folder / "run" / "checkpoints" / f"program_state_{stopped}").exists()
    process = start(train(folder / "run", "--resume"))
    while f"round {stopped + 2:2d} of" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in out
    assert main(train(folder / "run", "--resume")) == 0
    assert result(folder / "run") == whole


def test_a_run_that_is_told_to_ignore_ctrl_c_ignores_it(whole, folder, monkeypatch):
    class Interrupting(fed.program.ConsoleLogger):
        def release(self, metrics, round_num):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fed.program, "ConsoleLogger", Interrupting)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup, or a shell with a job in the background
    try:
        assert main(train(folder / "run", *CHOICES)) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert result(folder / "run") == whole


def test_interrupts_reach_what_the_tests_start_in_the_background_too():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import conftest; signal.raise_signal(2)"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, check=False)
    assert b"KeyboardInterrupt" in ended.stderr


def test_resume_needs_no_choices_and_takes_no_others(whole, folder, capsys):
    assert main(train(folder / "run", *CHOICES, "--resume")) == 0  # there is nothing yet: round 1
    assert result(folder / "run") == whole
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(train(folder / "run", "--resume")) == 0
    assert "done already" in capsys.readouterr().out
    assert main(train(folder / "run", "--resume", "--client-lr", "0.5", "--seed", "3")) == 2
    assert "client_lr (0.02 there, 0.5 here), seed (0 there, 3 here)" in capsys.readouterr().err
    assert main(train(folder / "run", *CHOICES)) == 2
    assert "use --resume to go on with it, or --overwrite" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()} == before
    (folder / "run" / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(train(folder / "run", "--rounds", "1", "--overwrite")) == 0
    assert json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))["choices"]["rounds"] == 1
    assert (folder / "run" / "mine.txt").exists()


def test_killed_before_the_first_checkpoint(whole, folder):
    assert main(train(folder / "run", *CHOICES)) == 0
    for path in (folder / "run" / "checkpoints").iterdir():
        path.unlink()
    (folder / "run" / "weights.npz").unlink()
    assert main(train(folder / "run", "--resume")) == 0
    assert result(folder / "run") == whole


def test_other_data_are_not_gone_on_with(folder, capsys):
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"d_{split}.h5", digits([5, 6, 7], seed))
    choices = ["--data", str(folder / "d"), "--clients", "2", "--rounds", "2"]
    assert main(train(folder / "run", *choices)) == 0
    (folder / "run" / "checkpoints" / "program_state_2").unlink()
    fed.datasets.write_hdf5(folder / "d_train.h5", digits([5, 6, 7], 9))
    assert main(train(folder / "run", "--resume")) == 2
    assert "the train data must be those that the run began with" in capsys.readouterr().err


def test_choices_come_from_flags_then_the_file(folder, capsys):
    path = folder / "choices.json"
    path.write_text(json.dumps({"client-lr": 0.5, "rounds": 2, "clients": 3, "workers": 2}), encoding="utf-8")
    assert main(train(folder / "run", "--config", path, "--rounds", "1")) == 0
    choices = json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))["choices"]
    path.write_text(json.dumps({"workers": 0}), encoding="utf-8")
    assert main(train(folder / "other", "--config", path)) == 2
    assert "choices.json': choices must be in range. Got 'workers' must be" in capsys.readouterr().err
    assert (choices["client_lr"], choices["rounds"], choices["clients"], choices["epochs"]) == (0.5, 1, 3, 5)
    toml = folder / "choices.toml"
    toml.write_text('rounds = 1\nalgorithm = "fedsgd"\n', encoding="utf-8")
    status = main(train(folder / "toml", "--config", toml))
    assert status == (0 if sys.version_info >= (3, 11) else 2)


ALGORITHMS = [
    ["--algorithm", "fedavg-unweighted", "--model", "softmax-tutorial"],
    ["--algorithm", "fedprox", "--proximal-strength", "0.5", "--engine", "cohort"],
    ["--algorithm", "fedsgd", "--server-lr", "0.1", "--model", "softmax-stable"],
    ["--client-optimizer", "adam", "--client-lr", "0.01", "--server-momentum", "0.9"],
    ["--data", "synthetic", "--population", "150000", "--evaluation-clients", "3"],
]


@pytest.mark.parametrize("choices", ALGORITHMS, ids=lambda choices: choices[1])
def test_every_kind_of_run(choices, folder, capsys):
    assert main(train(folder / "run", *choices, "--rounds", "2", "--clients", "3")) == 0
    rows = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    capsys.readouterr()
    assert main(["evaluate", str(folder / "run")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["loss"] == json.loads(rows[-1])["evaluation/loss"]


def test_one_s_own_data(folder, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    arrays = {"x": rng.standard_normal((90, 5)) + 3 * np.eye(5)[y], "y": y[:, np.newaxis]}
    parts = fed.datasets.partition.split_examples(fed.datasets.partition.iid(arrays, 6), 0.2)
    for split, part in zip(("train", "test"), parts, strict=True):
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", part)
    choices = ["--data", str(folder / "own"), "--clients", "6", "--rounds", "10", "--client-lr", "0.1"]
    assert main(train(folder / "run", *choices)) == 0
    assert (
        json.loads((folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])[
            "evaluation/sparse_categorical_accuracy"
        ]
        > 0.9
    )


def test_tensorboard_gets_the_rounds(folder):
    pytest.importorskip("tensorboard")
    assert main(train(folder / "run", "--rounds", "2", "--clients", "2", "--tensorboard")) == 0
    assert sorted(path.name for path in (folder / "run" / "tensorboard").iterdir()) == ["eval", "train"]


def test_without_tensorboard_it_is_one_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    assert main(train(folder / "run", "--rounds", "1", "--tensorboard")) == 2
    assert 'pip install "fedsim_np[tensorboard]"' in capsys.readouterr().err


def test_nothing_is_written_elsewhere(folder):
    places = {name: folder / name for name in ("home", "cwd", "temporary", "cache")}
    for path in places.values():
        path.mkdir()
    environment = {"HOME": str(places["home"]), "USERPROFILE": str(places["home"]), "TMPDIR": str(places["temporary"])}
    environment |= {"FEDSIM_NP_CACHE": str(places["cache"]), "XDG_CACHE_HOME": str(places["cache"])}
    source = str(Path(fed.__file__).parents[1])
    environment |= {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "fedsim_np", *train(folder / "run", "--rounds", "2")],
        cwd=places["cwd"],
        env={**os.environ, **environment},
        check=False,
    )
    assert process.returncode == 0
    assert {name: list(path.iterdir()) for name, path in places.items()} == {name: [] for name in places}


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(folder, monkeypatch, capsys, whole):
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 40:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(train(folder / "run", *CHOICES)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error
    monkeypatch.undo()
    assert main(train(folder / "run", "--resume")) == 0
    assert result(folder / "run") == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "x"], "--rounds: invalid int value: 'x'"),
        (["--rounds", "-1"], "'rounds' must be an integer >= 0. Got -1."),
        (["--client-lr", "nan"], "'client_lr' must be a finite float >= 0. Got nan."),
        (["--algorithm", "fedavgg"], "'algorithm' must be one of fedavg, fedavg-unweighted, fedprox,"),
        (
            ["--client-optimizer", "adam", "--client-momentum", "0.9"],
            "--client-momentum changes nothing with the client_optimizer adam",
        ),
        (["--client-momentum", "1"], "'momentum' must be a finite float >= 0 and < 1. Got 1.0."),
        (["--clients", "31"], "there must be at least 31 train clients. Got 30."),
        (["--data", "nowhere"], "nowhere_train.h5' does not exist"),
        (["--config", "nowhere.json"], "nowhere.json' does not exist"),
        (["--engine", "gram", "--client-optimizer", "adam"], "engine='gram' cannot"),
        (["--resume", "--overwrite"], "not allowed with argument"),
        (["--seed", "99999999999"], "'seed' must be below 2^32."),
        (["--classes", "5"], "labels must lie in [0, 4]"),
    ],
)
def test_bad_choices_are_one_line(arguments, message, folder, capsys):
    assert main(train(folder / "run", *arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


BAD_FILES = [b"", b"{", b"[]", b"\xff", b'{"no_such": 1}', b'{"rounds": "many"}', b'{"rounds": 1.5}', b"[" * 100_000]


@pytest.mark.parametrize("content", BAD_FILES)
def test_bad_files_of_choices_are_refused(content, folder, capsys):
    (folder / "c.json").write_bytes(content)
    assert main(train(folder / "run", "--config", folder / "c.json")) == 2
    error = capsys.readouterr().err
    assert "c.json" in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_bytes(content)
    for command in (train(folder / "run", "--resume"), ["evaluate", str(folder / "run")]):
        assert main(command) == 2
        assert "config.json" in capsys.readouterr().err


def test_evaluating_what_is_no_run(folder, capsys):
    assert main(["evaluate", str(folder)]) == 2
    assert "config.json' does not exist" in capsys.readouterr().err


def test_a_configuration_makes_the_same_experiment_anywhere():
    one, other = (Experiment(RunConfig(clients=3, seed=4)) for _ in range(2))
    assert [d.client_id for d in one.cohort(5)] == [d.client_id for d in other.cohort(5)]
    assert [d.client_id for d in one.cohort(5)] != [d.client_id for d in one.cohort(6)]
    assert (one.num_features, one.num_outputs) == (784, 10)


# --- what a fresh pair of eyes found


def test_a_damaged_last_checkpoint_is_no_end(whole, folder, capsys):
    assert main(train(folder / "run", *CHOICES)) == 0
    (folder / "run" / "checkpoints" / "program_state_30").write_bytes(b"x")
    capsys.readouterr()
    assert main(train(folder / "run", "--resume")) == 0
    assert "round 28 of 30" in capsys.readouterr().out
    assert result(folder / "run") == whole
    assert (folder / "run" / "checkpoints" / "program_state_30").stat().st_size > 1000
    for path in (folder / "run" / "checkpoints").glob("program_state_*"):
        path.write_bytes(b"x")
    assert main(train(folder / "run", "--resume")) == 0  # from round 1
    assert result(folder / "run") == whole


def test_a_lost_log_is_not_gone_on_with(folder, capsys):
    choices = ["--rounds", "4", "--clients", "2", "--epochs", "1", "--checkpoint-every", "2"]
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"")):
        assert main(train(folder / "run", *choices, "--overwrite")) == 0
        for name in ("weights.npz", "checkpoints/program_state_4"):
            (folder / "run" / name).unlink()
        damage(folder / "run" / "metrics.csv")
        capsys.readouterr()
        assert main(train(folder / "run", "--resume")) == 2
        assert "metrics.csv" in capsys.readouterr().err


def disturbing(monkeypatch, rounds, disturb):
    """Have something done to a run when it has logged some rounds."""

    class Disturbed(fed.program.ConsoleLogger):
        def release(self, metrics, round_num):
            if round_num in rounds:
                disturb()

    monkeypatch.setattr(fed.program, "ConsoleLogger", Disturbed)


@pytest.mark.skipif(os.name == "nt", reason="what is removed cannot be read any more on Windows")
def test_what_is_removed_in_mid_run_is_written_again(whole, folder, monkeypatch, caplog):
    names = ["config.json", "metrics.csv", "metrics.jsonl", "timings.csv", "checkpoints"]

    def remove():
        for name in names:
            os.rename(folder / "run" / name, tempfile.mkdtemp(dir=folder) + "/removed")

    disturbing(monkeypatch, [0, 7, 30], remove)
    assert main(train(folder / "run", *CHOICES)) == 0
    assert result(folder / "run") == whole
    assert len((folder / "run" / "timings.csv").read_text(encoding="utf-8").splitlines()) == 32
    assert all(name in caplog.text for name in names)
    assert (folder / "run" / "checkpoints" / "program_state_30").exists()


@pytest.mark.parametrize("disturb", [Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("round_num", [0, 3, 4])
def test_a_configuration_that_is_lost_in_mid_run_is_written_again(disturb, round_num, folder, monkeypatch, caplog):
    choices = ["--rounds", "4", "--clients", "2", "--epochs", "1", "--checkpoint-every", "2"]
    before = []

    def remove():
        before.append((folder / "run" / "config.json").read_bytes())
        disturb(folder / "run" / "config.json")

    disturbing(monkeypatch, [round_num], remove)
    assert main(train(folder / "run", *choices)) == 0
    assert [(folder / "run" / "config.json").read_bytes()] == before
    assert "config.json' was removed or changed in mid-run: it was written again" in caplog.text
    monkeypatch.undo()
    assert main(train(folder / "run", "--resume")) == 0


@pytest.mark.skipif(os.name == "nt", reason="open folders are not moved on Windows")
def test_a_run_whose_folder_is_moved_away_ends_and_is_gone_on_with_there(whole, folder, monkeypatch, capsys):
    disturbing(monkeypatch, [7], lambda: os.rename(folder / "run", folder / "moved"))
    assert main(train(folder / "run", *CHOICES)) == 2
    said = capsys.readouterr().err
    assert f"error: the run's folder '{folder / 'run'}' was moved or removed in mid-run, and must stay" in said
    assert said.count("\n") == 1
    assert not (folder / "run").exists()
    monkeypatch.undo()
    assert main(train(folder / "moved", "--resume")) == 0
    assert result(folder / "moved") == whole


def test_what_to_do_about_a_log_of_which_rows_are_lost(folder, capsys):
    assert main(train(folder / "run", "--rounds", "2", "--clients", "2", "--epochs", "1")) == 0
    log = folder / "run" / "metrics.csv"
    copy, row = log.read_bytes(), log.read_bytes().splitlines(keepends=True)[-1]
    (folder / "run" / "weights.npz").unlink()
    log.write_bytes(row)  # as older versions left it where it had been removed
    assert main(train(folder / "run", "--resume")) == 2
    said = capsys.readouterr().err
    assert "metrics.csv': must be a CSV file with the column 'round_num' first. Got a row first, and no header" in said
    assert said.endswith("Put a whole copy of the file there, or begin again with --overwrite.\n")
    log.write_bytes(copy)
    assert main(train(folder / "run", "--resume")) == 0


def test_overwrite_removes_a_run_s_own_files_alone(folder, capsys):
    mine = folder / "run" / "checkpoints" / "mine" / "model.pt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    choices = ["--rounds", "1", "--clients", "2", "--overwrite"]
    assert main(train(folder / "run", *choices)) == 0
    assert mine.read_bytes() == b"mine"
    (folder / "run" / "config.json").write_text("{}", encoding="utf-8")
    assert main(train(folder / "run", *choices)) == 2
    assert "must be a run's configuration" in capsys.readouterr().err
    assert main(train("", *choices)) == 2
    assert "--out must be a folder. Got ''." in capsys.readouterr().err


def test_an_overwrite_that_was_killed_never_mixes_two_runs(folder, monkeypatch, capsys):
    choices = ["--rounds", "2", "--clients", "2", "--epochs", "1", "--checkpoint-every", "1"]
    fresh = [*choices, "--seed", "5"]
    assert main(train(folder / "whole", *fresh)) == 0
    removals, real = [0], Path.unlink
    for point in range(1, 9):
        assert main(train(folder / "run", *choices, "--seed", "0", "--overwrite")) == 0
        removals[0] = 0

        def dying(path, missing_ok=False, point=point):
            removals[0] += 1
            if removals[0] >= point:
                raise KeyboardInterrupt
            real(path, missing_ok=missing_ok)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", dying)
            assert main(train(folder / "run", *fresh, "--overwrite")) == 130
        # Either the old run's choices are still there, and others are refused; or nothing of it is.
        status = main(train(folder / "run", *fresh, "--resume"))
        if status == 0:
            assert result(folder / "run") == result(folder / "whole")
        else:
            assert "Got others for seed (0 there, 5 here)" in capsys.readouterr().err


def test_two_processes_do_not_train_into_one_folder(whole, folder):
    (folder / "run").mkdir()
    with exclusive_lock(folder / "run"):
        process = start(train(folder / "run", *CHOICES, "--resume"))
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "another process trains into" in out
        assert sorted(path.name for path in (folder / "run").iterdir()) == ["checkpoints"]
    assert main(train(folder / "run", *CHOICES, "--resume")) == 0
    assert result(folder / "run") == whole


@pytest.mark.parametrize("data", ["[1]", '{"train": "x"}', "null"])
def test_a_damaged_configuration_is_refused_by_name(data, folder, capsys):
    assert main(train(folder / "run", "--rounds", "1", "--clients", "2")) == 0
    path = folder / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "data": json.loads(data)}), encoding="utf-8")
    for command in (train(folder / "run", "--resume"), ["evaluate", str(folder / "run")]):
        capsys.readouterr()
        assert main(command) == 2
        assert "config.json': 'data' must say which files" in capsys.readouterr().err


SMALL = ["--rounds", "2", "--clients", "2", "--epochs", "1"]
MISTAKES = [
    ["--client-momentum", "1"],
    ["--engine", "gram", "--client-optimizer", "adam"],
    ["--client-lr", "1e39"],
    ["--classes", "5"],
    ["--clients", "99999"],
    ["--data", "nowhere"],
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_leaves_what_was_there_and_is_no_run(mistake, folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    assert main(train(folder / "run", *SMALL, *mistake, "--overwrite")) == 2
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before
    assert main(train(folder / "new", *SMALL, *mistake)) == 2
    assert main(train(folder / "new", *SMALL)) == 0
    assert result(folder / "new") == result(folder / "run")


@pytest.mark.parametrize("damage", ["bytes", "a folder"])
def test_a_lock_that_is_none_is_one_line(damage, folder, capsys):
    lock = folder / "run" / "checkpoints" / ".lock"
    lock.parent.mkdir(parents=True)
    if damage == "bytes":
        lock.write_bytes(b"x" * 4096)
    else:
        lock.mkdir()
    assert main(train(folder / "run", *SMALL)) == 2
    assert re.search(r"\.lock': must be a lock that can be taken \(if nothing trains", capsys.readouterr().err)


def test_a_finished_run_gets_a_lost_model_or_configuration_again(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    whole = result(folder / "run")
    for name, damage in (
        ("weights.npz", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("weights.npz", Path.unlink),
        ("config.json", Path.unlink),
    ):
        damage(folder / "run" / name)
        assert main(train(folder / "run", *SMALL, "--resume")) == 0
        assert result(folder / "run") == whole
    (folder / "run" / "config.json").unlink()
    assert main(train(folder / "run", *SMALL, "--seed", "5", "--resume")) == 2
    assert "seed: 0 there, 5 here" in capsys.readouterr().err


def test_files_that_are_no_run_s_stay(folder, capsys):
    (folder / "run").mkdir()
    for name in ("metrics.csv", "weights.npz"):
        (folder / "run" / name).write_text("round_num,mine\n1,2\n", encoding="utf-8", newline="\n")
        for how in ([], ["--overwrite"], ["--resume"]):
            assert main(train(folder / "run", *SMALL, *how)) == 2
    assert "holds metrics.csv, weights.npz and no config.json" in capsys.readouterr().err
    assert (folder / "run" / "metrics.csv").read_bytes() == b"round_num,mine\n1,2\n"


def test_renamed_checkpoints_and_lost_rows_are_noticed(folder, capsys):
    choices = ["--rounds", "6", "--clients", "2", "--epochs", "1", "--checkpoint-every", "2"]
    assert main(train(folder / "run", *choices)) == 0
    whole, states = result(folder / "run"), folder / "run" / "checkpoints"
    (states / "program_state_2").replace(states / "program_state_6")  # would be done, with round 2's weights
    (folder / "run" / "weights.npz").unlink()
    assert main(train(folder / "run", "--resume")) == 0
    assert result(folder / "run") == whole
    (states / "program_state_6").unlink()
    lines = (folder / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "run" / "metrics.csv").write_text("".join(lines[:2] + lines[3:]), encoding="utf-8", newline="\n")
    capsys.readouterr()
    assert main(train(folder / "run", "--resume")) == 2
    error = capsys.readouterr().err
    assert "metrics.csv': must have a row of each round up to 4, to go on from there. Got none of round 1." in error


def test_data_are_found_from_anywhere_and_known_by_their_content(folder, monkeypatch, capsys):
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"d_{split}.h5", digits([5, 6, 7], seed))
    monkeypatch.chdir(folder)
    assert main(train("run", "--data", "d", *SMALL)) == 0
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["evaluate", str(folder / "run")]) == 0
    assert main(train(folder / "run", "--resume")) == 0
    for split in ("train", "test"):
        (folder / f"d_{split}.h5").rename(folder / "elsewhere" / f"e_{split}.h5")
    (folder / "run" / "checkpoints" / "program_state_2").unlink()
    assert main(train(folder / "run", "--resume", "--data", "e")) == 0
    assert main(train(folder / "run", "--resume", "--data", "sample")) == 2
    assert "with the same choices. Got others for data" in capsys.readouterr().err


def test_a_run_s_own_configuration_is_one_for_another(folder):
    assert main(train(folder / "run", *SMALL, "--seed", "3")) == 0
    assert main(train(folder / "again", "--config", folder / "run" / "config.json")) == 0
    assert result(folder / "again") == result(folder / "run")


def test_the_model_of_a_run_that_is_not_finished(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    (folder / "run" / "weights.npz").unlink()
    assert main(["evaluate", str(folder / "run")]) == 2
    assert "must be a finished run of 2 rounds: it has no weights.npz" in capsys.readouterr().err


def test_a_model_without_numbers_is_evaluated_as_json(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    kernel = np.full((784, 10), np.nan, np.float32)
    weights = fed.learning.models.ModelWeights((kernel, np.zeros(10, np.float32)), ())
    fed.learning.models.save_weights(folder / "run" / "weights.npz", weights, ("kernel", "bias"))
    capsys.readouterr()
    assert main(["evaluate", str(folder / "run")]) == 0

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(capsys.readouterr().out, parse_constant=refuse)["loss"] is None


def test_another_numpy_is_said(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    path = folder / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["versions"]["numpy"] = "1.0"
    path.write_text(json.dumps(config), encoding="utf-8")
    capsys.readouterr()
    assert main(train(folder / "run", "--resume")) == 0
    assert "note: the run began with numpy 1.0, and this is" in capsys.readouterr().err


BAD_DATA = {
    "other shapes": ({"x": np.zeros((10, 7)), "y": np.zeros((10, 1), int)}, "must have one shape, (5,). Got (7,)."),
    "labels of floats": ({"x": np.zeros((10, 5)), "y": np.zeros((10, 1))}, "labels must be integers below 65536"),
    "a label beyond": ({"x": np.zeros((10, 5)), "y": np.full((10, 1), 2**30)}, "labels must be integers below 65536"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_named_before_anything_is_made(name, folder, capsys):
    arrays, message = BAD_DATA[name]
    good = {"x": np.zeros((10, 5)), "y": np.zeros((10, 1), int)}
    bad_split = "test" if name == "other shapes" else "train"
    for split in ("train", "test"):
        clients = fed.datasets.partition.iid(arrays if split == bad_split else good, 2)
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", clients)
    assert main(train(folder / "run", "--data", str(folder / "own"), *SMALL)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"own_{bad_split}.h5" in error
    assert not (folder / "run").exists()


# --- what a second pair found


@pytest.mark.parametrize("log", ["metrics.csv", "metrics.jsonl", "timings.csv"])
def test_killed_between_the_first_checkpoint_and_its_log(whole, log, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def dying(logger, line, round_num):
        if logger._path.name == log:
            raise Killed
        append(logger, line, round_num)

    append = log_files._FileLogger._append
    monkeypatch.setattr(log_files._FileLogger, "_append", dying)
    with pytest.raises(Killed):
        main(train(folder / "run", *CHOICES))
    monkeypatch.undo()
    assert (folder / "run" / "checkpoints" / "program_state_0").exists()
    assert main(train(folder / "run", "--resume")) == 0
    assert result(folder / "run") == whole


def test_features_beyond_float32_are_refused(folder, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        arrays = {name: {"x": rng.random((6, 3)), "y": np.zeros((6, 1), np.int32)} for name in ("ann", "bob", "cid")}
        arrays["cid"]["x"][2, 1] = 1e60
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", fed.datasets.InMemoryClientData(arrays))
    run = ["--data", str(folder / "own"), "--rounds", "1", "--clients", "3", "--out", str(folder / "run")]
    assert main(["train", *run]) == 2
    assert "client 'cid', field 'x': values must be finite as float32. Got 1e+60." in capsys.readouterr().err


def test_a_run_whose_files_have_moved_is_at_home_there(folder, capsys):
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"d_{split}.h5", digits([5, 6, 7], seed))
    assert main(train(folder / "run", "--data", str(folder / "d"), *SMALL)) == 0
    (folder / "moved").mkdir()
    for split in ("train", "test"):
        (folder / f"d_{split}.h5").rename(folder / "moved" / f"_{split}.h5")
    config = json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))
    config["versions"]["numpy"] = "1.0"
    (folder / "run" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["evaluate", str(folder / "run")]) == 2
    assert main(train(folder / "run", "--resume", "--data", f"{folder / 'moved'}{os.sep}")) == 0
    again = json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))
    assert again["versions"]["numpy"] == "1.0"
    assert again["choices"] == {**config["choices"], "data": f"{folder / 'moved'}{os.sep}"}
    capsys.readouterr()
    assert main(["evaluate", str(folder / "run")]) == 0
    assert main(train(folder / "run", "--resume")) == 0


def test_a_test_file_without_labels_is_named(folder, capsys):
    arrays = {"x": np.zeros((10, 5)), "y": np.zeros((10, 1), int)}
    fed.datasets.write_hdf5(folder / "own_train.h5", fed.datasets.partition.iid(arrays, 2))
    fed.datasets.write_hdf5(folder / "own_test.h5", fed.datasets.partition.iid({"x": arrays["x"]}, 2))
    assert main(train(folder / "run", "--data", str(folder / "own"), *SMALL)) == 2
    error = capsys.readouterr().err
    assert "own_test.h5', field 'y': labels must be one number an example. Got only ['x']." in error


def test_a_run_that_another_process_began_is_not_mixed_with(folder, monkeypatch, capsys):
    dry_run = Experiment.dry_run

    def slowly(experiment, process):
        dry_run(experiment, process)
        monkeypatch.undo()
        assert main(train(folder / "run", *SMALL, "--seed", "0")) == 0

    for how in (["--resume"], []):
        monkeypatch.setattr(Experiment, "dry_run", slowly)
        assert main(train(folder / "run", *SMALL, "--seed", "1", *how)) == 2
        assert re.search("another process has begun a run|already holds a run", capsys.readouterr().err)
        assert main(train(folder / "run", *SMALL, "--seed", "0", "--overwrite")) == 0
        for path in (folder / "run" / "checkpoints").iterdir():
            path.unlink()
        for path in (folder / "run").glob("*.*"):
            path.unlink()


def test_a_finished_run_needs_no_tensorboard(folder, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    assert main(train(folder / "run", *SMALL, "--tensorboard")) == 0
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    assert main(train(folder / "run", "--resume")) == 0
    assert "done already" in capsys.readouterr().out


def test_keys_beside_the_choices_are_refused(folder, capsys):
    path = folder / "choices.json"
    path.write_text(json.dumps({"choices": {"rounds": 1}, "typo": 1}), encoding="utf-8")
    assert main(train(folder / "run", "--config", path)) == 2
    assert "keys must be among data, population" in capsys.readouterr().err


def test_labels_may_be_a_column_on_one_side(folder):
    x = np.random.default_rng(0).random((12, 5))
    for split, y in (("train", np.arange(12) % 2), ("test", np.arange(12)[:, np.newaxis] % 2)):
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", fed.datasets.partition.iid({"x": x, "y": y}, 2))
    assert main(train(folder / "run", "--data", str(folder / "own"), *SMALL)) == 0


# --- what a first evening found


def own_lines(folder, scale=1.0):
    """Files of a line y = 2 x, of two clients; x as large as asked."""
    x = np.linspace(0.0, scale, 8, dtype=np.float32)[:, np.newaxis]
    for split in ("train", "test"):
        clients = {name: {"x": x, "y": 2 * x[:, 0]} for name in ("ann", "bob")}
        fed.datasets.write_hdf5(folder / f"line_{split}.h5", fed.datasets.InMemoryClientData(clients))
    return ["--data", str(folder / "line"), "--model", "linear", "--clients", "2", "--rounds", "3"]


def test_a_run_whose_loss_does_not_fall_says_so_and_what_may_help(folder, capsys):
    small = ["--clients", "3", "--rounds", "3", "--epochs", "1"]
    assert main(train(folder / "a", *small, "--client-lr", "0.5")) == 0
    captured = capsys.readouterr()
    (note,) = captured.err.splitlines()
    assert re.match(
        r"note: the loss began at 2\.3026 and ended at \d+\.\d+\. What may help: a smaller --client-lr", note
    )
    assert "(here 0.5)" in note
    assert "--invert, since most pixels are near 1" in note
    assert captured.out.splitlines()[-1].startswith("done: 3 rounds")
    note.encode("cp1252")
    for name in RESULT:
        assert b"What may help" not in (folder / "a" / name).read_bytes()
    # It began in another process, and its last round was not evaluated.
    assert main(train(folder / "b", *small, "--client-lr", "0.5", "--evaluate-every", "2", "--resume")) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert "began at 2.3026 and ended at " in note
    assert main(train(folder / "c", *small, "--invert")) == 0
    assert capsys.readouterr().err == ""
    assert main(train(folder / "d", *small, "--algorithm", "fedsgd", "--server-lr", "30", "--invert")) == 0
    assert "a smaller --server-lr (here 30)\n" in capsys.readouterr().err  # no rate of clients, and inverted already
    assert main(train(folder / "e", *small, "--rounds", "0")) == 0
    assert capsys.readouterr().err == ""


def test_a_loss_that_is_not_finite_is_remarked_on(folder, capsys):
    assert main(train(folder / "fell", *own_lines(folder))) == 0
    assert capsys.readouterr().err == ""
    lines = own_lines(folder, scale=1e6)
    assert main(train(folder / "a", *lines, "--client-lr", "1e10")) == 0  # every client is left out
    assert "the last round without a finite update. What may help: a smaller --client-lr" in capsys.readouterr().err
    assert main(train(folder / "b", *lines, "--client-lr", "1e10", "--epochs", "1", "--batch-size", "8")) == 0
    assert "ended as no finite number" in capsys.readouterr().err


def test_paper_and_ink_change_places(folder, capsys):
    assert Experiment(RunConfig()).is_mostly_paper()
    experiment = Experiment(RunConfig(invert=True))
    assert not experiment.is_mostly_paper()
    for one, other in zip(Experiment(RunConfig()).cohort(1), experiment.cohort(1), strict=True):
        np.testing.assert_array_equal(other.to_arrays()["x"], np.float32(1) - one.to_arrays()["x"])
        np.testing.assert_array_equal(other.to_arrays()["y"], one.to_arrays()["y"])
    path = folder / "choices.json"
    path.write_text('{"invert": true, "rounds": 1, "clients": 2}', encoding="utf-8")
    assert main(train(folder / "a", "--config", path)) == 0
    assert main(train(folder / "b", "--invert", "--rounds", 1, "--clients", 2)) == 0
    assert result(folder / "a") == result(folder / "b")
    assert json.loads((folder / "a" / "config.json").read_text(encoding="utf-8"))["choices"]["invert"] is True
    assert main(train(folder / "c", "--config", path, "--no-invert")) == 0
    assert result(folder / "a") != result(folder / "c")
    capsys.readouterr()
    path.write_text('{"invert": 1}', encoding="utf-8")
    assert main(train(folder / "d", "--config", path)) == 2
    assert (
        "choices.json': choices must be in range. Got 'invert' must be true or false. Got 1." in capsys.readouterr().err
    )
    arrays = {"x": np.arange(40, dtype=np.uint8).reshape(8, 5), "y": np.arange(8) % 2}
    for split in ("train", "test"):
        fed.datasets.write_hdf5(folder / f"bytes_{split}.h5", fed.datasets.partition.iid(arrays, 2))
    assert main(train(folder / "e", "--data", folder / "bytes", "--clients", 2, "--invert")) == 2
    assert "field 'x': must hold floats from 0 to 1 to be inverted" in capsys.readouterr().err


NO_LINKS = pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
LINKED = ["config.json", "metrics.csv", "metrics.jsonl", "timings.csv", "weights.npz", "report.html"]
LINKED += ["checkpoints", "checkpoints/.lock", "checkpoints/program_state_2", "checkpoints/mine", "figures"]
LINKED += ["tensorboard", "tensorboard/train", "tensorboard/eval/events.out.tfevents.1"]
LEADS = ["to a file", "to a folder", "nowhere"]
LINKS = {*zip(LINKED, LEADS * 5, strict=False), *itertools.product(["weights.npz", "checkpoints"], LEADS)}


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@NO_LINKS
@pytest.mark.parametrize(("name", "leads"), sorted(LINKS))
def test_nothing_of_a_run_is_a_link(name, leads, folder, capsys, whole):
    """What a stranger's folder has in a run's places would be written, locked or removed wherever it leads."""
    run, outside = folder / "run", folder / "outside"
    (run / name).parent.mkdir(parents=True)
    for file, content in whole.items():
        if name.partition("/")[0] != file:
            (run / file).write_bytes(content)
    outside.mkdir()
    (outside / "program_state_1").write_bytes(b"mine")
    target = {"to a file": outside / "program_state_1", "to a folder": outside, "nowhere": outside / "new"}[leads]
    (run / name).symlink_to(target)
    before = everything(outside)
    for command in (
        train(run, "--resume"),
        train(run, *SMALL, "--overwrite"),
        train(run, *SMALL),
        ["report", str(run)],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        if "already holds" not in error:
            assert re.search(rf"{re.escape(name)}': must be a (file|folder) of the run's own. Got a link", error)
        assert everything(outside) == before
        assert (run / name).is_symlink()


@NO_LINKS
def test_the_run_s_folder_may_be_a_link(whole, folder):
    (folder / "disk").mkdir()
    (folder / "run").symlink_to(folder / "disk")
    assert main(train(folder / "run", *CHOICES)) == 0
    assert result(folder / "disk") == whole


@NO_LINKS
def test_a_log_with_another_name_is_not_added_to(folder, capsys):
    """As `cp -al` makes them: both runs would have the rows of both."""
    assert main(train(folder / "run", *SMALL)) == 0
    os.link(folder / "run" / "metrics.csv", folder / "other.csv")
    before = (folder / "other.csv").read_bytes()
    assert main(train(folder / "run", "--resume")) == 2
    assert "metrics.csv': must be a file of the run's own. Got a file that has another name" in capsys.readouterr().err
    assert main(train(folder / "run", *SMALL, "--seed", "1", "--overwrite")) == 0  # which removes a name
    assert (folder / "other.csv").read_bytes() == before


def link_weights(run, outside):
    (run / "weights.npz").symlink_to(outside / "mine")


def link_states(run, outside):
    deadline = time.monotonic() + 10
    while len(list((run / "checkpoints").glob("program_state_[036]"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.rename(run / "checkpoints", run / "old")
    (run / "checkpoints").symlink_to(outside)


def edit_log(run, outside):
    with open(run / "metrics.csv", "r+b") as file:
        file.seek(60)
        file.write(b"77")


def move_log_and_link_it(run, outside):
    os.rename(run / "metrics.csv", outside / "metrics.csv")
    (run / "metrics.csv").symlink_to(outside / "metrics.csv")


def name_log_twice(run, outside):
    os.link(run / "metrics.csv", outside / "metrics.csv")


@NO_LINKS
@pytest.mark.parametrize(
    ("disturb", "said"),
    [
        (link_weights, "weights.npz': must be a file of the run's own. Got a link"),
        (link_states, "checkpoints': must be the folder that it was at first. Got another one"),
        (edit_log, "metrics.csv': must stay as this run writes it"),
        (move_log_and_link_it, ""),
        (name_log_twice, ""),
    ],
)
def test_nothing_of_a_run_becomes_a_link_in_mid_run(disturb, said, whole, folder, monkeypatch, capsys):
    run, outside, after = folder / "run", folder / "outside", []
    outside.mkdir()
    for name in ("mine", "program_state_1", "program_state_99"):
        (outside / name).write_bytes(b"mine")

    def once():
        disturb(run, outside)
        after.append(everything(outside))

    disturbing(monkeypatch, [8], once)  # round 6's state has been written by then
    assert main(train(run, *CHOICES)) == (2 if said else 0)
    assert said in capsys.readouterr().err
    assert [everything(outside)] == after
    if not said:
        assert result(run) == whole


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_pipe_is_not_waited_for(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    for name in ("config.json", "metrics.jsonl", "weights.npz", "checkpoints/program_state_2"):
        path = folder / "run" / name
        whole = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        for command in (train(folder / "run", "--resume"), train(folder / "run", *SMALL, "--overwrite")):
            assert main(command) == 2
            assert re.search(rf"{re.escape(name)}'.* Got a pipe or a device", capsys.readouterr().err)
        if not name.startswith(("checkpoints", "metrics")):
            assert main(["evaluate", str(folder / "run")]) == 2
        path.unlink()
        path.write_bytes(whole)
    assert main(["evaluate", str(folder / "run")]) == 0


@pytest.mark.parametrize("is_database", [True, False])
def test_a_lock_s_journal_is_never_played_back(is_database, folder, capsys):
    """SQLite would undo what it says, and remove the file that it names as another's journal."""
    sqlite3 = pytest.importorskip("sqlite3")
    lock, mine = folder / "run" / "checkpoints" / ".lock", folder / "mine"
    lock.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with contextlib.closing(sqlite3.connect(lock)) as connection:
        connection.executescript("PRAGMA page_size = 512; CREATE TABLE a (b);")
    page, pages, name = lock.read_bytes()[:512], lock.stat().st_size // 512, os.fsencode(mine)
    magic, checksum = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", sum(page[place] for place in range(312, 0, -200))
    journal = (magic + struct.pack(">5I", 1, 0, pages, 512, 512)).ljust(512, b"\0")
    journal += struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    journal += struct.pack(">I", 2**30 // 512 + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    lock.with_name(".lock-journal").write_bytes(journal)
    if not is_database:
        lock.write_bytes(b"")
    assert main(train(folder / "run", *SMALL)) == (2 if is_database else 0)
    assert mine.read_bytes() == b"mine"
    if is_database:
        assert ".lock': must be a lock that can be taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["--epochs", 10**9], "a client must read at most 100,000,000 examples (or it takes hours). Got about"),
        (["--epochs", 9 * 10**18], "a client must read at most 100,000,000 examples"),
        (["--epochs", 10**400], "'epochs' must be below 2^63."),
        (
            ["--data", "synthetic", "--population", 2**32 - 1, "--clients", 4 * 10**7],
            "'clients' must be at most 1000000",
        ),
        (
            ["--data", "synthetic", "--population", 2**32 - 1, "--evaluation-clients", 2**32 - 1],
            "'evaluation_clients' must",
        ),
        (
            ["--data", "synthetic", "--population", 10**6, "--clients", 2000, "--epochs", 10**5],
            "a round must read at most",
        ),
        (["--model", "mlp", "--hidden", 10**9], "a model must have at most 268435456 parameters (1 GB). Got 795"),
        (["--model", "mlp", "--hidden", "9" * 5000], "'hidden' must be integers above 0"),
        (
            ["--model", "mlp", "--hidden", "1," * 10**6 + "1"],
            "'hidden' must be integers above 0 with commas between them, at",
        ),
        (["--classes", 10**9], "a model must have at most"),
    ],
)
def test_what_would_never_end_is_refused(choices, message, folder, capsys):
    assert main(train(folder / "run", *choices)) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_what_a_configuration_says_of_a_file_is_texts(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    path = folder / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for about in ({"file": 5, "sha256": "x"}, {"file": "x"}, {"file": "x", "sha256": [1]}, {}):
        path.write_text(json.dumps({**config, "data": {**config["data"], "x": about}}), encoding="utf-8")
        for command in (train(folder / "run", "--resume"), ["evaluate", str(folder / "run")]):
            assert main(command) == 2
            assert "config.json': 'data' must say which files" in capsys.readouterr().err


def test_weights_of_another_model_are_named_with_their_file(folder, capsys):
    assert main(train(folder / "run", *SMALL)) == 0
    weights = fed.learning.models.ModelWeights((np.zeros((3, 4), np.float32), np.zeros(4, np.float32)))
    fed.learning.models.save_weights(folder / "run" / "weights.npz", weights, ("kernel", "bias"))
    assert main(["evaluate", str(folder / "run")]) == 2
    error = capsys.readouterr().err
    assert (
        "weights.npz': must hold the weights of SoftmaxRegression, trainable arrays of the shapes (784, 10), (10,)"
        in error
    )
    assert "Got (3, 4), (4,)." in error


@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_a_finished_run_is_extended(checkpoint_every, folder, capsys):
    """It ends with what a run of as many rounds in one piece has, but that its configuration says how it was begun."""
    often = ["--checkpoint-every", str(checkpoint_every)]
    assert main(train(folder / "whole", *SMALL, *often, "--rounds", "7")) == 0
    for rounds in (2, 5, 7):
        assert (
            main(train(folder / "run", *(() if rounds > 2 else (*SMALL, *often)), "--resume", "--rounds", str(rounds)))
            == 0
        )
    assert main(train(folder / "run", "--resume")) == 0
    assert "done already: 7 rounds" in capsys.readouterr().out
    for name in ("metrics.csv", "metrics.jsonl", "weights.npz"):
        assert (folder / "run" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    config, whole = (json.loads((folder / run / "config.json").read_bytes()) for run in ("run", "whole"))
    assert config.pop("first_rounds") == 2
    assert config == whole
    assert main(train(folder / "run", "--resume", "--rounds", "3")) == 2
    assert "Got others for rounds (7 there, 3 here)" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "run")]) == 0


def test_a_run_that_is_being_extended_is_no_finished_one(folder, monkeypatch, capsys):
    assert main(train(folder / "run", *SMALL, "--rounds", "2")) == 0

    def stopped(self, round_num):
        raise MemoryError("here")

    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "cohort", stopped)
        assert main(train(folder / "run", "--resume", "--rounds", "4")) == 2
    assert main(["evaluate", str(folder / "run")]) == 2
    assert "must be a finished run of 4 rounds" in capsys.readouterr().err
    assert main(train(folder / "run", "--resume")) == 0
    assert main(train(folder / "whole", *SMALL, "--rounds", "4")) == 0
    assert (folder / "run" / "weights.npz").read_bytes() == (folder / "whole" / "weights.npz").read_bytes()
