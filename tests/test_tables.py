"""Tables: a run's history, its clients, and a model's worth to each client."""

import csv
import json
import pickle
import sys

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.learning import Attendance
from fedsim_np.program import ClientsLogger, CSVLogger, FileProgramStateManager, JSONLinesLogger, MemoryLogger
from fedsim_np.tables import ClientsTable, Table, values_of


def process():
    return fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.5))


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train(rounds, loggers, **keywords):
    return fed.program.run_training_process(
        process(), lambda r: random_cohort([4, 9, 6], seed=r, batch=3), rounds, metrics_managers=loggers, **keywords
    )


def test_history_is_columns_of_one_length_with_one_name_for_the_round(folder):
    logger = MemoryLogger()
    train(3, [logger])
    assert isinstance(logger.history, Table)
    assert {len(column) for column in logger.history.values()} == {3} == {logger.history.num_rows}
    assert [name for name in logger.history if "round" in name] == ["round_num"]
    logger.history.to_csv(folder / "history.csv")
    for i, row in enumerate(rows_of(folder / "history.csv")):
        assert row["round_num"] == str(i + 1)
        assert float(row["client_work/train/loss"]) == logger.history["client_work/train/loss"][i]


def test_clients_in_files_have_finalized_metrics(folder):
    cohort = random_cohort([4, 9, 0], batch=3)
    output = process().next(process().initialize(), cohort)
    assert list(output.clients["metrics"][0]) == list(toy_model().initial_metrics())
    for table in (output.clients, pickle.loads(pickle.dumps(output)).clients):
        assert list(table) == list(output.clients)
    output.clients.to_csv(folder / "clients.csv")
    rows = rows_of(folder / "clients.csv")
    assert [row["client_id"] for row in rows] == ["c0", "c1", "c2"]
    assert "metrics" not in rows[0]
    losses = [float(row["loss"]) * int(row["num_examples"]) for row in rows[:2]]
    assert sum(losses) / 13 == pytest.approx(output.metrics["client_work"]["train"]["loss"], rel=1e-6)
    assert rows[2]["status"] == "empty"


def test_data_frames(monkeypatch):
    table = Table(round_num=[1, 2], loss=[2.0, np.float32(1.5)])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas: pip install pandas"):
        table.to_frame()

    class Pandas:
        DataFrame = dict

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert table.to_frame() == {"round_num": [1, 2], "loss": [2.0, 1.5]}
    assert ClientsTable({"client_id": ["ann"]}).to_frame() == {"client_id": ["ann"]}


def test_with_pandas():
    pandas = pytest.importorskip("pandas")
    logger = MemoryLogger()
    train(2, [logger])
    frame = logger.history.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["round_num"].tolist() == [1, 2]
    frame = process().next(process().initialize(), random_cohort([4, 9], batch=3)).clients.to_frame()
    assert frame.loc[frame["client_id"] == "c1", "num_examples"].tolist() == [9]
    assert (frame["loss"] > 0).all()


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_loggers_in_memory_know_the_rounds_before_a_resume(kind, folder):
    whole = MemoryLogger()
    train(5, [whole])
    manager = FileProgramStateManager(folder / "states")
    train(3, [kind(folder / "log")], program_state_manager=manager)
    logger = MemoryLogger()
    train(5, [logger, kind(folder / "log")], program_state_manager=manager)
    assert logger.history["round_num"] == [1, 2, 3, 4, 5]
    for name in whole.history:
        if "time" not in name:
            assert logger.history[name] == whole.history[name]
    alone = MemoryLogger()  # of whom nobody told
    train(6, [alone], program_state_manager=manager)
    assert alone.history["round_num"] == [6]


def test_clients_of_all_rounds_in_a_file(folder):
    def select(round_num):
        if round_num == 2:
            return [Attendance("c0", None, "absent")]
        return [] if round_num == 3 else random_cohort([4, 9], seed=round_num, batch=3)

    def run(rounds, path, manager):
        fed.program.run_training_process(
            process(), select, rounds, metrics_managers=[ClientsLogger(path)], program_state_manager=manager
        )

    run(5, folder / "whole.csv", None)
    manager = FileProgramStateManager(folder / "states")
    for rounds in (1, 3, 4, 5):
        run(rounds, folder / "resumed.csv", manager)
    assert (folder / "resumed.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    rows = rows_of(folder / "whole.csv")
    assert [row["round_num"] for row in rows] == ["1", "1", "2", "3", "4", "4", "5", "5"]
    assert [row["status"] for row in rows] == ["ok", "ok", "absent", "", "ok", "ok", "ok", "ok"]
    assert [row["client_id"] for row in rows[2:4]] == ["c0", ""]
    logger = ClientsLogger(folder / "whole.csv")
    logger.resume(2)
    assert logger.rounds() == [1, 1, 2]
    (folder / "other.csv").write_text("round_num,loss\n1,2.0\n", encoding="utf-8")
    with pytest.raises(fed.DataError, match="must be a CSV file with the columns 'round_num' and 'client_id' first"):
        ClientsLogger(folder / "other.csv").resume(1)


def test_a_model_s_worth_to_each_client():
    cohort, weights = random_cohort([4, 0, 6], batch=3), toy_model().initial_weights()
    table = fed.learning.evaluate_clients(toy_model(), weights, cohort)
    assert table["client_id"] == ["c0", "c1", "c2"]
    assert [*table["num_examples"]] == [4, 0, 6]
    for i in (0, 2):
        alone = fed.learning.models.evaluate(toy_model(), weights, cohort[i])
        assert table["loss"][i] == pytest.approx(alone["loss"])
        assert table["sparse_categorical_accuracy"][i] == alone["sparse_categorical_accuracy"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_read_back(folder, capsys):
    choices = ["--clients", "3", "--epochs", "1", "--rounds", "3", "--evaluation-clients", "5"]
    assert main(["train", *choices, "--out", str(folder / "run")]) == 0
    run = fed.program.read_run(folder / "run")
    assert run.configuration.clients == 3
    assert run.history["round_num"] == [0, 1, 2, 3]
    assert run.clients.num_rows == 9
    assert len(run.seconds) == 3
    assert run.weights.trainable[0].shape == (784, 10)
    assert set(run.evaluation) == {"train", "test"}
    assert run.evaluation["test"]["loss"] == pytest.approx(run.history["evaluation/loss"][-1])
    capsys.readouterr()
    assert main(["evaluate", str(folder / "run"), "--per-client"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["split"] for row in rows] == ["train"] * 5 + ["test"] * 5
    test = [row for row in rows if row["split"] == "test"]
    correct = sum(float(row["sparse_categorical_accuracy"]) * int(row["num_examples"]) for row in test)
    total = sum(int(row["num_examples"]) for row in test)
    assert correct / total == pytest.approx(run.evaluation["test"]["sparse_categorical_accuracy"])
    assert main(["report", str(folder / "run")]) == 0
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "A round took" in page  # its seconds were told by another name
    (folder / "run" / "evaluation.json").unlink()
    (folder / "run" / "weights.npz").unlink()
    with pytest.raises(fed.DataError, match=r"weights\.npz' does not exist"):
        _ = fed.program.read_run(folder / "run").weights
    assert main(["train", "--resume", "--out", str(folder / "run")]) == 0
    assert json.loads((folder / "run" / "evaluation.json").read_bytes()) == run.evaluation
    with pytest.raises(fed.DataError, match="must be a run's folder"):
        fed.program.read_run(folder)


def test_texts_as_numbers():
    assert values_of([]) == []
    assert values_of(["1", "x"]) == ["1", "x"]
    first, second = values_of(["1.5", ""])
    assert first == 1.5
    assert np.isnan(second)


def test_metrics_of_all_clients_at_once_are_those_of_each():
    """Plain floats are divided side by side, and what is no plain float client by client: to the same digits."""
    of = fed.learning.metrics.CLASSIFICATION
    some = np.random.default_rng(0).lognormal(0, 9, (60, 2)).tolist()
    sums = [*some, [0.0, 0.0], [np.nan, 2.0], [np.inf, 2.0], [1e300, 1e-5], [1.0, np.nan], [-1.0, 0.0]]
    for odd in ([], [[np.float32(1), 3.0]], [[1, 3]], [(1.0, 3.0)]):
        clients = [{**of.initial(), "sparse_categorical_accuracy": value, "loss": value} for value in sums]
        clients += [{**clients[0], "loss": value} for value in odd]
        with np.errstate(all="ignore"):
            columns = fed.learning.metrics.finalize_each(of.finalizers(), clients)
            rows = [fed.learning.metrics.finalize(of.finalizers(), client) for client in clients]
        for name, column in columns.items():
            assert repr(column) == repr([row[name] for row in rows])
            assert set(map(type, column)) <= {int, float}
