"""Training runs and loggers."""

import _thread
import math
import threading
import time

import numpy as np
import pytest
from conftest import TOY_X, TOY_Y, sgd, toy_batches, toy_model

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.program import MemoryLogger, flatten, run_training_process

PROCESS = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.5))


def run(**keywords):
    logger = MemoryLogger()
    arguments = {"training_selection_fn": lambda round_num: [toy_batches()], "total_rounds": 4, **keywords}
    state = run_training_process(PROCESS, metrics_managers=[logger], **arguments)
    return state, logger.history


def test_history_has_equal_columns():
    logger = MemoryLogger()
    logger.release({"a": 1, "b": {"c": 2, "d": ()}}, 0)
    logger.release({"b": {"c": 3}, "e": [4, 5]}, 7)
    history = logger.history
    assert list(history) == ["round_num", "a", "b/c", "e/0", "e/1"]
    assert history["round_num"] == [0, 7]
    assert history["b/c"] == [2, 3]
    assert (history["a"][0], history["e/1"][1]) == (1, 5)
    assert math.isnan(history["a"][1])
    assert math.isnan(history["e/0"][0])


def test_flatten_names_paths():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2, "e": ()}) == {"a/b/c": 1, "d": 2}


def test_a_run_is_its_rounds():
    state, history = run()
    by_hand, losses = PROCESS.initialize(), []
    for _ in range(4):
        by_hand, metrics = PROCESS.next(by_hand, [toy_batches()])
        losses.append(metrics["client_work"]["train"]["loss"])
    assert history["client_work/train/loss"] == losses
    assert history["round_num"] == [1, 2, 3, 4]
    assert "round_number" not in history
    assert all(seconds >= 0 for seconds in history["training_time_in_seconds"])
    for mine, theirs in zip(state.global_model_weights.trainable, by_hand.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_evaluation_comes_before_round_one_and_every_so_many_rounds():
    asked = []

    def evaluate(state, data):
        assert data == "data"
        return {"bias": float(state.global_model_weights.trainable[1][0])}

    _, history = run(
        evaluation_fn=evaluate,
        evaluation_selection_fn=lambda round_num: asked.append(round_num) or "data",
        rounds_per_evaluation=2,
    )
    assert asked == [0, 2, 4]
    assert history["round_num"] == [0, 1, 2, 3, 4]
    assert [not math.isnan(v) for v in history["evaluation/bias"]] == [True, False, True, False, True]
    assert history["evaluation/bias"][0] == 0
    assert "evaluation/evaluation_time_in_seconds" in history


def test_the_selection_is_asked_for_every_round():
    asked = []
    run(training_selection_fn=lambda round_num: asked.append(round_num) or [toy_batches()])
    assert asked == [1, 2, 3, 4]


def test_reshuffle_reads_another_order_every_round():
    dataset = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).shuffle(5, seed=1).batch(2)
    _, kept = run(training_selection_fn=lambda _: [dataset])
    _, reshuffled = run(training_selection_fn=lambda _: [dataset], reshuffle=True)
    state, losses = PROCESS.initialize(), []
    for iteration in range(4):
        state, metrics = PROCESS.next(state, [dataset], iteration=iteration)
        losses.append(metrics["client_work"]["train"]["loss"])
    assert reshuffled["client_work/train/loss"] == losses
    assert kept["client_work/train/loss"][0] == losses[0]
    assert kept["client_work/train/loss"][1:] != losses[1:]


def test_a_run_whose_cohorts_are_empty_by_chance():
    process, logger = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1)), MemoryLogger()
    cohorts = {1: [], 2: [toy_batches()], 3: [], 4: [toy_batches()]}
    got = run_training_process(process, cohorts.get, 4, metrics_managers=[logger])
    expected = run_training_process(process, lambda _: [toy_batches()], 2, metrics_managers=[])
    assert logger.history["client_work/train/num_examples"] == [0, 5, 0, 5]
    assert logger.history["finalizer/update_non_finite"] == [1, 0, 1, 0]
    for a, b in zip(got.global_model_weights.trainable, expected.global_model_weights.trainable, strict=True):
        assert a.tobytes() == b.tobytes()


def test_no_rounds():
    state, history = run(total_rounds=0)
    assert history == {"round_num": []}
    assert not state.global_model_weights.trainable[0].any()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"total_rounds": -1}, ValueError, "'total_rounds' must be an integer >= 0. Got -1"),
        ({"rounds_per_evaluation": 0}, ValueError, "'rounds_per_evaluation' must"),
        ({"training_selection_fn": None}, TypeError, "'training_selection_fn' must be a call"),
        ({"evaluation_fn": 3}, TypeError, "'evaluation_fn' must be a callable"),
        ({"evaluation_fn": dict}, TypeError, "given together with evaluation_selection_fn"),
    ],
)
def test_wrong_arguments(keywords, error, message):
    with pytest.raises(error, match=message):
        run(**keywords)


def test_a_state_is_written_while_the_next_round_is_computed(folder, monkeypatch):
    begun, manager = threading.Event(), fed.program.FileProgramStateManager(folder)
    write = manager._write

    def patient(path, version, *content):
        # Round 2 begins before round 1 is on the disk.
        assert version != 1 or begun.wait(30)
        write(path, version, *content)

    def select(round_num):
        if round_num == 2:
            assert 1 not in manager.get_versions()
            begun.set()
        return [toy_batches()]

    monkeypatch.setattr(manager, "_write", patient)
    state, _ = run(training_selection_fn=select, total_rounds=3, program_state_manager=manager)
    assert manager.get_versions() == [0, 1, 2, 3]
    again, _ = manager.load_latest(PROCESS.initialize())
    for a, b in zip(again.global_model_weights.trainable, state.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_is_there_when_a_later_round_fails(folder):
    def select(round_num):
        if round_num == 3:
            raise RuntimeError("no data for round 3")
        return [toy_batches()]

    manager = fed.program.FileProgramStateManager(folder)
    with pytest.raises(RuntimeError, match="no data for round 3"):
        run(training_selection_fn=select, program_state_manager=manager)
    assert manager.get_versions() == [0, 1, 2]


@pytest.mark.parametrize("failing", [0, 1, 4])
def test_a_state_that_cannot_be_written_ends_the_run(folder, monkeypatch, failing):
    manager = fed.program.FileProgramStateManager(folder)
    write = manager._write

    def full(path, version, *content):
        if version == failing:
            raise OSError(28, "No space left on device", str(path))
        write(path, version, *content)

    monkeypatch.setattr(manager, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run(program_state_manager=manager)
    assert manager.get_versions() == [*range(failing)]


def test_a_manager_of_ones_own_is_called_by_the_thread_that_runs(folder):
    class Own(fed.program.FileProgramStateManager):
        def save(self, state, version):
            threads.add(threading.current_thread())
            super().save(state, version)

    threads = set()
    run(program_state_manager=Own(folder))
    assert threads == {threading.current_thread()}


def test_an_error_in_writing_is_told_in_the_next_round(folder, monkeypatch):
    asked, written, manager = [], threading.Event(), fed.program.FileProgramStateManager(folder)
    write = manager._write

    def full(path, version, *content):
        if version == 2:
            written.set()
            raise OSError(28, "No space left on device", str(path))
        write(path, version, *content)

    def select(round_num):
        asked.append(round_num)
        if round_num == 3:
            written.wait(30)
        return [toy_batches()]

    monkeypatch.setattr(manager, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run(
            training_selection_fn=select,
            total_rounds=9,
            program_state_manager=manager,
            rounds_per_saving_program_state=2,
        )
    assert asked[-1] in (3, 4)  # in the round in which it is over


def test_an_interrupt_does_not_end_a_state_that_is_being_written(folder, monkeypatch):
    manager = fed.program.FileProgramStateManager(folder)
    write = manager._write

    def interrupted(path, version, *content):
        if version == 4:  # the last: nothing is left to do but to wait for it
            for _ in range(2):
                _thread.interrupt_main()
                time.sleep(0.05)
        write(path, version, *content)

    monkeypatch.setattr(manager, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(program_state_manager=manager)
    assert manager.get_versions() == [0, 1, 2, 3, 4]
    assert not list(folder.glob(".*"))


def test_a_logger_of_ones_own_is_called_by_the_thread_that_runs(folder):
    class Buffering(MemoryLogger):
        def sync(self):
            threads.add(threading.current_thread())

    threads = set()
    manager = fed.program.FileProgramStateManager(folder)
    arguments = {"training_selection_fn": lambda round_num: [toy_batches()], "total_rounds": 3}
    run_training_process(PROCESS, metrics_managers=[Buffering()], program_state_manager=manager, **arguments)
    assert threads == {threading.current_thread()}


def test_paths_are_those_of_the_beginning(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "data").mkdir()
    manager, logger = fed.program.FileProgramStateManager("checkpoints"), fed.program.CSVLogger("metrics.csv")

    def select(round_num):
        monkeypatch.chdir(folder / "data")
        return [toy_batches()]

    run_training_process(PROCESS, select, 3, program_state_manager=manager, metrics_managers=[logger])
    assert manager.get_versions() == [0, 1, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "data", "metrics.csv"]
