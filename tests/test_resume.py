"""Runs that are stopped anywhere and gone on with are the run in one piece, byte for byte."""

import csv
import io
import json
import math
import os
import shutil
import stat
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np import files
from fedsim_np.learning.models import save_weights
from fedsim_np.program import (
    ConsoleLogger,
    CSVLogger,
    FileProgramStateManager,
    JSONLinesLogger,
    MemoryLogger,
    build_uniform_sampling_fn,
    log_files,
    run_training_process,
)
from fedsim_np.program.training import is_timing

ROUNDS = 7
PEOPLE = random_cohort([5, 3, 8, 4, 6, 2], batch=3)


class Killed(BaseException):
    """The process ends here."""


class Bomb:
    """A logger that ends the process in a round, before or after the others were told."""

    def __init__(self, round_num):
        self.round_num = round_num

    def release(self, metrics, round_num):
        if round_num == self.round_num:
            raise Killed


def run(folder, bomb=None, first=False, saving=2, total=ROUNDS, stop_fn=None, memory=None):
    """Train as a process would that was started anew."""
    optimizer = fed.learning.optimizers.build_adam(0.1)
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1, 0.9), optimizer)
    evaluation = fed.learning.build_fed_eval(toy_model)
    sample = build_uniform_sampling_fn(range(len(PEOPLE)), random_seed=5)

    def evaluate(state, data):
        weights = process.get_model_weights(state)
        return evaluation.next(evaluation.set_model_weights(evaluation.initialize(), weights), data).metrics

    loggers = [
        CSVLogger(folder / "metrics.csv", lambda name: not is_timing(name)),
        JSONLinesLogger(folder / "metrics.jsonl", lambda name: not is_timing(name)),
        CSVLogger(folder / "timings.csv", is_timing),
        *([] if memory is None else [memory]),
    ]
    bombs = [] if bomb is None else [Bomb(bomb)]
    manager = FileProgramStateManager(folder / "checkpoints", keep_total=2)
    state = run_training_process(
        process,
        lambda round_num: [PEOPLE[i] for i in sample(round_num, 3)],
        total,
        evaluate,
        lambda round_num: PEOPLE,
        3,
        manager,
        saving,
        [*bombs, *loggers] if first else [*loggers, *bombs],
        True,
        stop_fn=stop_fn,
    )
    save_weights(folder / "weights.npz", process.get_model_weights(state), ["kernel", "bias"])
    return state


def result(folder):
    return {name: (folder / name).read_bytes() for name in ("metrics.csv", "metrics.jsonl", "weights.npz")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return result(folder)


def test_files_hold_every_round_once(whole):
    rows = list(csv.DictReader(io.StringIO(whole["metrics.csv"].decode())))
    assert [row["round_num"] for row in rows] == [str(i) for i in range(ROUNDS + 1)]
    lines = [json.loads(line) for line in whole["metrics.jsonl"].decode().splitlines()]
    assert [line["round_num"] for line in lines] == list(range(ROUNDS + 1))
    name = "evaluation/client_work/eval/current_round_metrics/loss"
    assert [line.get(name) is not None for line in lines] == [i in (0, 3, 6) for i in range(ROUNDS + 1)]
    for row, line in zip(rows, lines, strict=True):
        for column, text in row.items():
            assert (text == "" and column not in line) or float(text) == line[column]
    assert not any("time" in column for column in rows[0])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, ROUNDS), st.booleans()), max_size=4), st.integers(1, 4), st.data())
def test_stopped_anywhere_and_resumed(whole, tmp_path_factory, bombs, saving, data):
    folder = tmp_path_factory.mktemp("resumed")
    for bomb, first in bombs:
        try:
            run(folder, bomb, first, saving)
        except Killed:
            # The machine may have been writing the next row.
            cut = data.draw(st.sampled_from(["", "3,0.", '{"round_num": 3, "clie', "\n"[:0]]))
            for name in ("metrics.csv", "metrics.jsonl"):
                with open(folder / name, "a", encoding="utf-8", newline="\n") as file:
                    file.write(cut)
    run(folder, saving=saving)
    assert result(folder) == whole


def test_a_finished_run_is_left_as_it_is(whole, tmp_path):
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".csv", ".jsonl")}
    run(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert result(tmp_path) == whole


def test_a_run_that_is_told_to_stop_saves_and_goes_on(whole, tmp_path):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) == 3

    run(tmp_path, saving=100, stop_fn=stop)
    assert FileProgramStateManager(tmp_path / "checkpoints").get_versions()[-1] == 3
    run(tmp_path, saving=100)
    assert result(tmp_path) == whole


def test_more_rounds_can_be_asked_for(whole, tmp_path):
    run(tmp_path, total=4)
    run(tmp_path)
    assert result(tmp_path) == whole


def test_what_ends_between_a_save_and_its_log_is_gone_on_with(whole, tmp_path):
    """Round 0 is saved before it is logged: a log without a checkpoint could not be told from somebody else's."""
    for first in (True, False):
        with pytest.raises(Killed):
            run(tmp_path, 0, first)
        assert FileProgramStateManager(tmp_path / "checkpoints").get_versions() == [0]
        assert (tmp_path / "metrics.csv").exists() is not first
    run(tmp_path)
    assert result(tmp_path) == whole


def test_somebody_elses_log_is_left_as_it_is(tmp_path):
    (tmp_path / "metrics.csv").write_text("round_num,loss\n1,2.0\n", encoding="utf-8", newline="\n")
    for _ in range(2):  # a state that the first try had saved would have the second go on with the log
        with pytest.raises(ValueError, match="'path' must be a file that is not there yet"):
            run(tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == b"round_num,loss\n1,2.0\n"


def test_memory_forgets_what_comes_again(tmp_path):
    memory = MemoryLogger()
    with pytest.raises(Killed):
        run(tmp_path, 6, memory=memory)
    assert memory.history["round_num"] == [0, 1, 2, 3, 4, 5, 6]
    run(tmp_path, memory=memory)
    assert memory.history["round_num"] == list(range(ROUNDS + 1))
    assert len({len(column) for column in memory.history.values()}) == 1


# --- the files alone


def test_columns_may_come_late(folder):
    logger = CSVLogger(folder / "a.csv")
    logger.release({"loss": np.float32(0.5), "n": np.int64(3)}, 1)
    logger.release({"loss": 0.25, "a,b": 'x"y\nz', "late": math.nan}, 2)
    logger.release({"late": 1}, 3)
    with open(folder / "a.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["round_num", "loss", "n", "a,b", "late"],
            ["1", "0.5", "3", "", ""],
            ["2", "0.25", "", 'x"y z', "nan"],
            ["3", "", "", "", "1"],
        ]
    again = CSVLogger(folder / "a.csv")
    again.resume(2)
    again.release({"late": 2, "later": 5}, 3)
    with open(folder / "a.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[2:] == [["2", "0.25", "", 'x"y z', "nan", ""], ["3", "", "", "", "2", "5"]]


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_file_that_is_there_is_not_written_over(folder, kind):
    path = folder / "log"
    path.write_text("mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a file that is not there yet"):
        kind(path).release({"a": 1}, 1)
    with pytest.raises(fed.DataError, match="log'"):
        kind(path).resume(1)
    assert path.read_text(encoding="utf-8") == "mine\n"


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_round_that_is_missing_is_an_error(folder, kind):
    logger = kind(folder / "log")
    for round_num in (1, 2, 4):
        logger.release({"a": round_num}, round_num)
    before = (folder / "log").read_bytes()
    with pytest.raises(
        fed.DataError, match="must have a row of round 3, to go on from there, and rows in order. Got rounds up to 4."
    ):
        kind(folder / "log").resume(3)
    assert (folder / "log").read_bytes() == before
    kind(folder / "new").resume(3)  # a logger that is new to the run
    kind(folder / "log").resume(2)
    assert len((folder / "log").read_text(encoding="utf-8").splitlines()) == (3 if kind is CSVLogger else 2)


def test_what_is_not_finite_is_json(folder):
    logger = JSONLinesLogger(folder / "a.jsonl")
    logger.release({"a": math.nan, "b": np.float32(math.inf), "c": [1, 2], "d": np.int64(3)}, 1)
    assert json.loads((folder / "a.jsonl").read_text(encoding="utf-8")) == {
        "round_num": 1,
        "a": None,
        "b": None,
        "c/0": 1,
        "c/1": 2,
        "d": 3,
    }


def test_the_console_says_how_long_is_left():
    times, out = iter([0.0, 10.0, 100.0, 110.0]), io.StringIO()
    logger = ConsoleLogger(100, out, lambda: next(times))
    logger.release({"evaluation/loss": 2.0}, 0)
    logger.release({"client_work": {"train": {"loss": 1.5, "sparse_categorical_accuracy": 0.5}}}, 1)
    logger.resume(90)
    logger.release({"client_work": {"train": {"loss": 1.25}}}, 91)
    logger.release({"client_work": {"train": {"loss": 1.0}}}, 100)
    assert out.getvalue().splitlines() == [
        "round   0 of 100  evaluation loss 2.0000",
        "round   1 of 100  loss 1.5000  accuracy 0.5000  0:16:30 left",
        "round  91 of 100  loss 1.2500  0:01:30 left",
        "round 100 of 100  loss 1.0000",
    ]


def test_odd_names_and_values_stay_on_their_lines(folder):
    metrics = {"a\nb": "x\r\ny", "round_num": 7, "m": np.ones((2, 2)), "long": "z" * 200_000, "half": "\ud800"}
    for logger in (CSVLogger(folder / "a.csv"), JSONLinesLogger(folder / "a.jsonl")):
        for round_num in (1, 2):
            logger.release(metrics, round_num)
        before = logger._path.read_bytes()
        type(logger)(logger._path).resume(2)
        assert logger._path.read_bytes() == before
        assert len(before.splitlines()) == (3 if isinstance(logger, CSVLogger) else 2)
    with open(folder / "a.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["round_num"] for row in rows] == ["1", "2"]
    assert (rows[0]["a b"], rows[0]["metric/round_num"], rows[0]["half"]) == ("x y", "7", "\\ud800")


def test_rounds_go_forward(folder):
    for kind in (CSVLogger, JSONLinesLogger):
        logger = kind(folder / kind.__name__)
        logger.release({"a": 1}, 2)
        for round_num in (2, 1):
            with pytest.raises(ValueError, match=r"'round_num' must be after 2. Got"):
                logger.release({"a": 1}, round_num)
        logger.resume(2)
        logger.release({"a": 1}, 3)
        with pytest.raises(ValueError, match="'path' must be a file. Got"):
            kind(folder).release({"a": 1}, 1)
        with pytest.raises(TypeError, match="'path' must be a path. Got None"):
            kind(None)


def test_a_metric_may_be_called_as_the_rounds_are():
    memory = MemoryLogger()
    memory.release({"round_num": 7, "loss": 1.0}, 1)
    assert dict(memory.history) == {"round_num": [1], "metric/round_num": [7], "loss": [1.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training_process": None}, "'training_process' must be something with a method"),
        ({"program_state_manager": "x"}, "'program_state_manager' must be something with a"),
        ({"metrics_managers": MemoryLogger()}, "'metrics_managers' must be a list of loggers"),
        ({"metrics_managers": [3]}, "'metrics_managers' must be a list of loggers"),
        ({"reshuffle": "no"}, "'reshuffle' must be True or False. Got 'no'."),
        (
            {"evaluation_fn": lambda state, data: None, "evaluation_selection_fn": lambda round_num: PEOPLE},
            "'evaluation_fn' must be a callable that returns a mapping of metrics. Got",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1))
    given = {"training_process": process, "training_selection_fn": lambda round_num: PEOPLE, "total_rounds": 1}
    with pytest.raises(TypeError, match=message):
        run_training_process(**{**given, **arguments})


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_logs_that_begin_in_mid_run_or_have_every_fifth_round_go_on(folder, kind):
    for rounds, last in (([6, 7, 8], 5), ([5, 10, 15], 10), ([5, 10, 15], 5)):
        path = folder / f"{kind.__name__}{rounds}{last}"
        logger = kind(path)
        for round_num in rounds:
            logger.release({"a": 1}, round_num)
        again = kind(path)
        again.resume(last)
        again.release({"a": 1}, last + 1)
        assert again.rounds() == [number for number in rounds if number <= last] + [last + 1]


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_round_that_could_not_be_written_can_be_written_again(folder, kind):
    logger = kind(folder / "new" / "log")
    with pytest.raises(FileNotFoundError):
        logger.release({"a": 1}, 1)
    (folder / "new").mkdir()
    logger.release({"a": 1}, 1)
    assert logger.rounds() == [1]


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_log_that_cannot_be_opened_stays_as_it_is(folder, kind, monkeypatch):
    logger = kind(folder / "log")
    logger.release({"a": 1}, 1)
    before = (folder / "log").read_bytes()

    def full(*arguments, **keywords):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="log"):
        logger.release({"a": 2}, 2)
    monkeypatch.undo()
    assert (folder / "log").read_bytes() == before


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_line_that_was_written_in_part_is_taken_back(folder, kind, monkeypatch):
    logger = kind(folder / "log")
    logger.release({"a": 1}, 1)
    before = (folder / "log").read_bytes()

    class Full(io.BytesIO):
        def tell(self):
            return len(before)

        def write(self, content):
            with real(folder / "log", "ab") as file:
                file.write(content[:1])
            raise OSError(28, "No space left on device")

    real = open
    monkeypatch.setattr("builtins.open", lambda *arguments, **keywords: Full())
    with pytest.raises(OSError, match="log"):
        logger.release({"a": 2}, 2)
    monkeypatch.undo()
    assert (folder / "log").read_bytes() == before
    logger.release({"a": 2}, 2)
    assert logger.rounds() == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_log_is_not_written_through_a_link(folder, kind):
    (folder / "mine").write_bytes(b"")
    (folder / "link").symlink_to(folder / "mine")
    os.link(folder / "mine", folder / "hard link")
    os.mkfifo(folder / "pipe")
    for name in ("link", "hard link", "pipe"):
        for use in (lambda logger: logger.release({"loss": 1.0}, 1), lambda logger: logger.resume(-1)):
            with pytest.raises(fed.DataError, match=f"{name}': must be a file of the run's own"):
                use(kind(folder / name))
    assert (folder / "mine").read_bytes() == b""


def test_a_junction_is_a_link(monkeypatch, folder):
    """Windows' link to a folder, which no privilege is needed for."""
    status = SimpleNamespace(st_mode=stat.S_IFDIR | 0o755, st_nlink=1, st_reparse_tag=0xA0000003)
    monkeypatch.setattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", 0xA0000003, raising=False)
    monkeypatch.setattr(os, "lstat", lambda path: status)
    assert files.kind_at(folder) == "a link"
    status.st_reparse_tag = 0x9000001A  # of a folder in a cloud
    assert files.kind_at(folder) == "a folder"


def replaced(path):
    other = path.with_name("other")
    other.write_text("something else\n", encoding="utf-8")
    os.replace(other, path)


@pytest.mark.skipif(os.name == "nt", reason="what is removed cannot be read any more on Windows")
@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
@pytest.mark.parametrize("lose", [os.remove, replaced])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_log_that_is_removed_in_mid_run_is_written_again(folder, kind, lose, is_resumed, caplog):
    def release(logger, round_num):
        logger.release({"a": round_num / 7} | ({"late": 1} if round_num > 3 else {}), round_num)

    undisturbed, logger = kind(folder / "whole"), kind(folder / "log")
    for round_num in range(1, 7):
        release(undisturbed, round_num)
        if round_num in (3, 4, 6):  # before a column is new, when it is, and after
            if is_resumed:
                logger = kind(folder / "log")
                logger.resume(round_num - 1)
            lose(folder / "log")
        release(logger, round_num)
    assert (folder / "log").read_bytes() == (folder / "whole").read_bytes()
    assert caplog.text.count("was removed or replaced in mid-run: it was written again, whole") == 3
    lose(folder / "log")
    logger.restore()
    assert (folder / "log").read_bytes() == (folder / "whole").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["log", "whole"]


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
@pytest.mark.parametrize("content", [b"", b"what somebody else wrote, which is longer than the log was\n"])
def test_nothing_is_added_to_a_log_that_was_changed(folder, kind, content):
    logger = kind(folder / "log")
    logger.release({"a": 1}, 1)
    (folder / "log").write_bytes(content)
    for _ in range(2):
        with pytest.raises(
            fed.DataError, match=r"log': must stay as this run writes it .* Got a file that was changed"
        ):
            logger.release({"a": 2, "b": 3}, 2)
        assert (folder / "log").read_bytes() == content


def test_a_log_of_no_form_is_none(folder):
    with pytest.raises(TypeError, match="abstract"):
        log_files._FileLogger(folder / "log")


def test_a_log_without_its_header_is_told(folder):
    (folder / "log.csv").write_text("3,0.5\n4,0.25\n", encoding="utf-8")
    with pytest.raises(fed.DataError, match="a row first, and no header: the file was removed while a run wrote it"):
        CSVLogger(folder / "log.csv").rounds()


def test_states_whose_folder_is_removed_get_another(folder, caplog):
    (folder / "run").mkdir()
    manager = FileProgramStateManager(folder / "run" / "states")
    manager.save({"a": np.ones(2)}, 1)
    shutil.rmtree(folder / "run" / "states")
    manager.save({"a": np.ones(3)}, 2)
    assert "was removed in mid-run, with its states: it was made again" in caplog.text
    assert manager.get_versions() == [2]
    shutil.rmtree(folder / "run")
    manager._remove_old(2)  # removed between the save and this
    with pytest.raises(FileNotFoundError, match="states"):
        manager.save({"a": np.ones(3)}, 3)
    assert list(folder.iterdir()) == []
