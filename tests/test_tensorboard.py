"""TensorBoard reads what is logged: its own reader, and its server."""

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed


def run(logdir):
    """Three rounds with an evaluation after each, logged to TensorBoard and to memory."""
    cohort = random_cohort([5, 7], batch=3)
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1))
    evaluation = fed.learning.build_fed_eval(toy_model)

    def evaluate(state, data):
        weights = process.get_model_weights(state)
        return evaluation.next(evaluation.set_model_weights(evaluation.initialize(), weights), data).metrics

    memory = fed.program.MemoryLogger()
    with fed.program.TensorBoardLogger(logdir) as logger:
        fed.program.run_training_process(
            process,
            lambda _: cohort,
            3,
            evaluation_fn=evaluate,
            evaluation_selection_fn=lambda _: cohort,
            metrics_managers=[logger, memory],
        )
    return memory.history


def test_tensorboards_own_reader_gives_every_metric_back(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    history = run(folder / "logs")
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["eval", "train"]
    read = {}
    for part in ("train", "eval"):
        accumulator = accumulators.EventAccumulator(str(folder / "logs" / part))
        accumulator.Reload()
        for tag in accumulator.Tags()["tensors"]:
            events = accumulator.Tensors(tag)
            read[part, tag] = {event.step: float(util.make_ndarray(event.tensor_proto)) for event in events}
    for part, prefix in (
        ("train", "client_work/train/"),
        ("eval", "evaluation/client_work/eval/current_round_metrics/"),
    ):
        for name in ("loss", "sparse_categorical_accuracy", "num_examples", "num_batches"):
            column = history[prefix + name]
            expected = {i: v for i, v in zip(history["round_num"], column, strict=True) if not np.isnan(v)}
            assert read[part, name] == {i: np.float32(v) for i, v in expected.items()}
    assert read["train", "finalizer/update_non_finite"] == {1: 0, 2: 0, 3: 0}
    assert read["eval", "client_work/eval/total_rounds_metrics/loss"][0] > 0
    metrics = [name for name in history if name != "round_num"]
    assert len(read) == len(metrics) + 1  # the round, by the name that TFF gives it


def test_the_server_shows_the_scalars(folder):
    pytest.importorskip("tensorboard")
    history = run(folder / "logs")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "logs"), "--port", "0"]
    command += ["--host", "127.0.0.1", "--load_fast=false"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8")
    killer = threading.Timer(100, server.kill)
    killer.start()
    try:
        address = None
        while address is None:
            line = server.stderr.readline()
            assert line, "TensorBoard ended"
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask(path):
            with opener.open(address.group() + path, timeout=60) as response:
                return json.load(response)

        tags = ask("data/plugin/scalars/tags")
        while not ("train" in tags and "eval" in tags):  # it goes on reading after it has started
            tags = ask("data/plugin/scalars/tags")
        assert "loss" in tags["train"]
        points = ask("data/plugin/scalars/scalars?run=train&tag=loss")
    finally:
        killer.cancel()
        server.kill()
        server.communicate()
    assert [step for _, step, _ in points] == [1, 2, 3]
    np.testing.assert_allclose([value for *_, value in points], history["client_work/train/loss"][1:], rtol=1e-6)


def test_a_resumed_run_has_every_round_once(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with fed.program.TensorBoardLogger(folder) as logger:
        for round_num in range(6):
            logger.release({"loss": float(round_num)}, round_num)
    (path,) = folder.rglob("*tfevents*")
    with open(path, "ab") as file:
        file.write(b"\x20\0\0\0\0")  # of a record that was cut off
    with fed.program.TensorBoardLogger(folder) as logger:
        logger.resume(3)
        for round_num in range(4, 7):
            logger.release({"loss": 10.0 * round_num}, round_num)
    accumulator = accumulators.EventAccumulator(str(folder / "train"))
    accumulator.Reload()
    assert [event.step for event in accumulator.Tensors("loss")] == list(range(7))
    values = [event.tensor_proto.float_val[0] for event in accumulator.Tensors("loss")]
    assert values == [0, 1, 2, 3, 40, 50, 60]
    fed.program.TensorBoardLogger(folder / "none").resume(3)


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ImportError, match=r'pip install "fedsim_np\[tensorboard\]"'):
        fed.program.TensorBoardLogger(folder)
    assert list(folder.iterdir()) == []


def test_texts_are_left_out_and_what_is_there_stays(folder):
    pytest.importorskip("tensorboard")
    logger = fed.program.TensorBoardLogger(folder)
    logger.release({"note": "text", "client_work": {"train": {"loss": float("nan")}}, "n": np.int64(3)}, 1)
    logger.close()
    before = sorted(folder.rglob("*tfevents*"))
    logger.release({"n": 4}, 2)
    logger.close()
    logger.close()
    assert set(before) < set(folder.rglob("*tfevents*"))


def test_names_that_clash_and_numbers_of_all_kinds(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    metrics = {
        "loss": 2.0,
        "client_work": {"train": {"loss": 1.0}},
        "a": np.array(4.0),
        "b": np.bool_(True),
        3: 10**400,
    }
    with pickle.loads(pickle.dumps(fed.program.TensorBoardLogger(folder))) as logger:
        logger.release(metrics, 1)
        pickle.dumps(logger)
    accumulator = accumulators.EventAccumulator(str(folder / "train"))
    accumulator.Reload()
    values = {tag: accumulator.Tensors(tag)[0].tensor_proto.float_val[0] for tag in accumulator.Tags()["tensors"]}
    assert values == {"loss": 1.0, "metric/loss": 2.0, "a": 4.0, "b": 1.0}


def test_no_two_metrics_share_a_name(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    for number, metrics in enumerate(
        ({"loss": 9.0, "client_work": {"train": {"loss": 1.5}}}, {"client_work": {"train": {"loss": 1.5}}, "loss": 9.0})
    ):
        with fed.program.TensorBoardLogger(folder / str(number)) as logger:
            logger.release(metrics, 1)
        accumulator = accumulators.EventAccumulator(str(folder / str(number) / "train"))
        accumulator.Reload()
        found = {tag: accumulator.Tensors(tag) for tag in accumulator.Tags()["tensors"]}
        values = {tag: [float(util.make_ndarray(event.tensor_proto)) for event in of] for tag, of in found.items()}
        assert values == {"loss": [1.5], "metric/loss": [9.0]}
    with pytest.raises(TypeError, match="'logdir' must be a path. Got None"):
        fed.program.TensorBoardLogger(None)
    with pytest.raises(ValueError, match=r"'round_num' must be an integer. Got 'x'"):
        fed.program.TensorBoardLogger(folder).release({}, "x")


def test_a_damaged_event_file_is_named(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.record_writer import RecordWriter

    for content in (b"\xff" * 40, b"\x09"):  # records that are whole, and no events
        path = folder / "train" / "events.out.tfevents.1"
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb") as file:
            RecordWriter(file).write(content)
        before = path.read_bytes()
        with pytest.raises(fed.DataError, match="events.out.tfevents.1': must be an event file of TensorBoard's"):
            fed.program.TensorBoardLogger(folder).resume(0)
        assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_event_files_are_not_written_through_links(folder):
    pytest.importorskip("tensorboard")
    (folder / "outside").mkdir()
    (folder / "logs").mkdir()
    (folder / "logs" / "train").symlink_to(folder / "outside")
    logger = fed.program.TensorBoardLogger(folder / "logs")
    with pytest.raises(fed.DataError, match="train': must be a folder of the run's own. Got a link"):
        logger.release({"loss": 1.0}, 1)
    assert not list((folder / "outside").iterdir())
