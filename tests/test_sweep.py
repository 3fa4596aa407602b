"""Studies: grids over seeds, each run a folder, one table; killed, interrupted, broken, grown, and told on a page."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import ENGLISH, Page, spanish_texts

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.report.comparison import about_evaluation
from fedsim_np.report.page import page
from fedsim_np.runs import sweep as sweeping
from fedsim_np.runs.folder import locked
from fedsim_np.runs.grid import Grid
from fedsim_np.runs.stored import Run
from fedsim_np.runs.study import ACCURACY, read_study, row_of
from fedsim_np.texts import Texts

SMALL = {"clients": 2, "epochs": 1, "rounds": 4, "evaluation_clients": 2, "evaluate_every": 2, "checkpoint_every": 2}
LONGER = SMALL | {"rounds": 24, "checkpoint_every": 5, "invert": True}
NETWORK = "speeds:1e5,1e6,2000"
RATES = {"client_lr": [0.02, 0.2]}


def names(mapping):
    return [run.name for run in Grid.of(mapping).runs]


def grid_file(folder, **mapping):
    path = folder / "grid.json"
    path.write_text(json.dumps(mapping), encoding="utf-8")
    return str(path)


def table(study):
    with open(study / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_runs(study):
    """Return the results of a study's runs, byte for byte."""
    kept = ("config.json", "metrics.csv", "weights.npz")
    return {path.relative_to(study): path.read_bytes() for path in sorted(study.glob("*/*")) if path.name in kept}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "fedsim_np", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study in one process."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    fed.program.sweep(LONGER, RATES, 2, folder, targets=[0.3, 1.0], tell=None)
    return folder


def test_cases_before_grids_before_seeds():
    cases = [{"algorithm": "fedavg"}, {"algorithm": "fedprox", "proximal-strength": 0.5}]
    assert names({"cases": cases, "grid": {"client-lr": [0.1, 1], "l2": [0.0]}, "seeds": [7, 3]}) == [
        f"{case},client_lr={rate},l2=0,seed={seed}"
        for case in ("algorithm=fedavg", "algorithm=fedprox,proximal_strength=0.5")
        for rate in (0.1, 1)
        for seed in (7, 3)
    ]
    assert names({"rounds": 3}) == ["seed=0"]
    assert names({"seed": 5}) == ["seed=5"]
    grid = Grid.of({"cases": cases, "grid": {"client_lr": [0.1, 1], "l2": [0.0]}, "seeds": 2})
    assert list(dict.fromkeys(map(grid.label, grid.runs)))[::3] == [
        "algorithm=fedavg, client_lr=0.1",
        "algorithm=fedprox, proximal_strength=0.5, client_lr=1",
    ]


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True), st.lists(st.text("aA1,"), unique=True))
def test_names_fit_every_system_and_are_none_twice(texts, more):
    found = names({"grid": {"data": list(dict.fromkeys([*texts, *filter(None, more)]))}, "seeds": 2})
    assert len({name.lower() for name in found}) == len(found)
    assert all(re.fullmatch(r"data=[a-z0-9._+-]+,seed=[01]", name) and len(name) <= 120 for name in found)


def test_long_names_are_cut_and_differ():
    found = names(
        {
            "cases": [{"compress": "top_k:0.1", "network": NETWORK, "clip": 0.25 + i} for i in range(2)],
            "grid": {"hidden": ["1,2", "12,1"], "model": ["mlp"], "data": ["/some/where/" + 30 * "x"]},
        }
    )
    assert len(set(found)) == 4
    assert max(map(len, found)) <= 120


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"rates": 1}, "keys of the file must be a run's choices, grid, cases, seeds or targets. Got 'rates'."),
        ({"grid": {"client_lrs": [1]}}, "keys of grid .* Got 'client_lrs'. Did you mean 'client_lr'?"),
        ({"cases": [{"rouns": 1}]}, "keys of cases .* Got 'rouns'"),
        ({"grid": {"seed": [1]}}, "none of the seeds'. Got 'seed': use 'seeds'."),
        ({"grid": {"client_lr": 0.1}}, "field 'grid.client_lr': must be a list of values. Got 0.1."),
        ({"grid": {"client_lr": []}}, "field 'grid.client_lr': must be a list"),
        ({"grid": [1]}, "field 'grid': must be a table"),
        ({"cases": {"epochs": 1}}, r"field 'cases': must be a list of tables, \[\[cases\]\]"),
        ({"client_lr": 1, "grid": {"client_lr": [1]}}, "must be there once. Got 'client_lr' elsewhere too"),
        ({"grid": {"client_lr": [0.1, -1]}}, "also of client_lr=-1, seed=0. Got 'client_lr' must be"),
        (
            {"cases": [{"algorithm": "fedavg", "q": 2}]},
            "also of algorithm='fedavg', q=2, seed=0. Got 'q' changes nothing with",
        ),
        (
            {"cases": [{"algorithm": "fedavg", "q": 1}]},
            "grid.json': 'q' changes nothing with the algorithm fedavg: leave it",
        ),
        ({"population": 0}, "'population' changes nothing with the data 'sample': leave it out"),
        (
            {"grid": {"algorithm": ["fedavg", "scaffold"], "l2": [0], "alpha": [0.1]}},
            "'alpha' changes nothing with the algorithm fedavg or the algorithm scaffold: leave it out",
        ),
        ({"grid": {"client_lr": [1, 1.0]}}, "must differ. Got 'client_lr=1,seed=0' and 'client_lr=1,seed=0'"),
        ({"cases": [{"algorithm": "fedprox"}, {"algorithm": "fedprox", "proximal_strength": 0.1}]}, "must differ"),
        ({"grid": {"client_lr": [1], "client-lr": [2]}}, "field 'grid': a key must be there once, with - or _ in it"),
        ({"cases": [{"client_lr": 1, "client-lr": 2}]}, "field 'cases': a key must be there once"),
        ({"data": "x" * 2**14}, "grid.json': must have at most 16384 bytes, as choices. Got more.\n"),
        ({"seeds": 0}, "field 'seeds': must be a count or a list. Got 'seeds' must be an integer >= 1"),
        ({"seeds": [1, 1]}, "must be different integers"),
        ({"seed": 1, "seeds": 2}, "field 'seed': must be left out"),
        ({"targets": 0.9}, "field 'targets': must be a list of numbers"),
        ({"seeds": 101, "grid": {"epochs": list(range(1, 101))}}, "at most 10,000 runs. Got 10,100"),
        ({"seeds": 10**30}, "at most 10,000 runs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(mapping, words, folder, capsys):
    assert main(["sweep", grid_file(folder, **mapping), "--out", str(folder / "study")]) == 2
    said = capsys.readouterr().err
    assert re.search(words, said), said
    assert "file '" in said
    assert not (folder / "study").exists()


def test_the_table_says_what_the_runs_logged(whole):
    rows = table(whole)
    assert [row["run"] for row in rows] == [f"client_lr={rate},seed={seed}" for rate in (0.02, 0.2) for seed in (0, 1)]
    for row in rows:
        run = whole / row["run"]
        with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
            log = list(csv.DictReader(file))
        evaluated = [line for line in log if line["evaluation/loss"]]
        accuracies = [float(line["evaluation/sparse_categorical_accuracy"]) for line in evaluated]
        assert (row["status"], row["rounds"], row["client_lr"]) == ("done", "24", json.dumps(float(row["client_lr"])))
        assert float(row["final_accuracy"]) == accuracies[-1]
        assert float(row["best_accuracy"]) == max(accuracies)
        assert int(row["best_accuracy_round"]) == 2 * accuracies.index(max(accuracies))
        assert row["final_loss"] == evaluated[-1]["evaluation/loss"]
        assert row["train_loss"] == log[-1]["client_work/train/loss"]
        first = next(i for i, accuracy in enumerate(accuracies) if accuracy >= 0.3)
        assert int(row["rounds_to_0.3"]) == 2 * first
        assert int(row["bytes_up_to_0.3"]) == 2 * first * 2 * 4 * 7850  # rounds, clients, float32 of a model
        assert row["rounds_to_1"] == row["bytes_up_to_1"] == ""
        assert json.loads((run / "config.json").read_text(encoding="utf-8"))["choices"]["seed"] == int(row["seed"])


def test_a_run_of_a_study_is_one_of_train(whole, folder):
    flags = [word for key, value in LONGER.items() for word in (f"--{key.replace('_', '-')}", str(value))][:-2]
    assert main(["train", "--out", str(folder / "run"), *flags, "--invert", "--client-lr", "0.2", "--seed", "1"]) == 0
    for name in ("config.json", "metrics.csv", "metrics.jsonl", "weights.npz"):
        assert (folder / "run" / name).read_bytes() == (whole / "client_lr=0.2,seed=1" / name).read_bytes()


def test_a_grid_that_grows_keeps_its_runs(folder):
    study = folder / "study"
    lines = []
    fed.program.sweep(SMALL, {"client_lr": [0.1]}, 1, study, tell=None)
    before = of_runs(study)
    # As a script has them: NumPy's values, ranges, tuples.
    rates = np.array([0.05, 0.1])
    found = fed.program.sweep(SMALL, {"client_lr": rates}, range(2), str(study), targets=(0.1,), tell=lines.append)
    assert [row["status"] for row in found.rows] == ["done"] * 4
    assert lines[0] == f"4 runs in {study}, 1 of them done already"
    assert re.fullmatch(r"2 of 4  client_lr=0.05,seed=0  accuracy 0\.\d{4}  0:00:\d\d left", lines[1])
    assert len(lines) == 4
    assert before.items() <= of_runs(study).items()
    # More rounds go on; what the grid has no longer stays, and is not in the table.
    more = fed.program.sweep(SMALL | {"rounds": 6}, {"client_lr": [0.1]}, 1, study, tell=None)
    assert [(row["run"], row["rounds"]) for row in more.rows] == [("client_lr=0.1,seed=0", 6)]
    assert (study / "client_lr=0.05,seed=1" / "weights.npz").exists()
    assert Grid.of(json.loads((study / "sweep.json").read_text(encoding="utf-8"))).runs == more.grid.runs
    with pytest.raises(ValueError, match=r"other choices than this grid's: epochs \(1 there, 2 here\)"):
        fed.program.sweep(SMALL | {"rounds": 6, "epochs": 2}, {"client_lr": [0.1]}, 1, study, tell=None)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_killed_interrupted_and_resumed_to_the_same_bytes(whole, folder):
    study = folder / "study"
    path = grid_file(folder, **LONGER, grid=RATES, targets=[0.3, 1.0])
    for number, ended in ((signal.SIGKILL, 1), (signal.SIGINT, 2)):
        process = start("sweep", path, "--seeds", 2, "--workers", 2, "--out", study)
        for line in process.stdout:
            if line.startswith(f"{ended} of 4"):
                break
        time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)  # which its children have open too: they have ended
        assert "Traceback" not in out
        assert len(table(study)) == 4
        if number == signal.SIGINT and process.returncode != 0:
            assert process.returncode == 130
            assert "interrupted: the same command goes on" in out
    process = start("sweep", path, "--seeds", 2, "--workers", 2, "--out", study)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert f"written {study / 'results.csv'}: 4 runs" in out
    assert (study / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert of_runs(study) == of_runs(whole)
    assert not list(study.glob(".*.tmp"))


def test_any_executor_does(whole, folder):
    with ThreadPoolExecutor(2) as threads:
        fed.program.sweep(LONGER, RATES, 2, folder / "study", targets=[0.3, 1.0], executor=threads, tell=None)
    assert (folder / "study" / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    with pytest.raises(TypeError, match="'executor' must be 'serial', an Executor, or a count"):
        fed.program.sweep(SMALL, RATES, 1, folder / "another", executor="processes")
    with pytest.raises(ValueError, match="'executor' must be an integer >= 1"):
        fed.program.sweep(SMALL, RATES, 1, folder / "another", executor=0)
    with pytest.raises(ValueError, match="'choices' must be a run's alone: .*. Got 'grid'"):
        fed.program.sweep(SMALL | {"grid": RATES}, {}, 1, folder / "another")
    with pytest.raises(TypeError, match="'choices' must be a mapping. Got None"):
        fed.program.sweep(None, {}, 1, folder / "another")


ENDING = """
import os
from fedsim_np.algorithms import ALGORITHMS, Algorithm

def ending(parts):
    if parts.choices["client_lr"] == 0.5:
        os._exit(9)
    if parts.choices["client_lr"] == 0.25:
        raise ZeroDivisionError("of one's own")
    return ALGORITHMS["fedavg"].build(parts)

build = Algorithm(ending, "ends at some rates")
"""


def test_what_breaks_is_named_and_the_others_go_on(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "ending_of_sweeps.py").write_text(ENDING, encoding="utf-8")
    own = "ending_of_sweeps:build"
    path = grid_file(folder, **SMALL, algorithm=own, grid={"client_lr": [0.5, 0.25, 0.1, 0.2]}, targets=[0.1])
    sweep = ["sweep", path, "--workers", "2", "--out", "study"]
    assert main(sweep) == 2
    assert f"name it here: --algorithm {own}" in capsys.readouterr().err
    assert not (folder / "study").exists()
    monkeypatch.syspath_prepend(str(folder))
    assert main([*sweep, "--algorithm", own]) == 1
    out, err = capsys.readouterr()
    ended, wrong = "its process ended (killed, or not enough memory?)", "ZeroDivisionError: of one's own"
    assert [(row["status"], bool(row["rounds"])) for row in table(folder / "study")] == [
        (f"broken: {ended}", False),
        (f"broken: {wrong}", False),
        ("done", True),
        ("done", True),
    ]
    assert f"broken: client_lr=0.5,seed=0: {ended}" in err
    assert f"broken: client_lr=0.25,seed=0: {wrong}" in err
    assert "2 of them broken" in out
    (folder / "ending_of_sweeps.py").write_text(ENDING.replace("== 0.", "== 9."), encoding="utf-8")
    assert main([*sweep, "--algorithm", own, "--workers", "1"]) == 0
    assert [row["status"] for row in table(folder / "study")] == ["done"] * 4


def test_processes_that_do_not_begin_end_the_study(folder, monkeypatch):
    class Broken(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_exception(BrokenExecutor())
            return future

    monkeypatch.setattr(sweeping, "_processes", lambda *_: contextlib.nullcontext(Broken()))
    with pytest.raises(ValueError, match="must begin, and ended before they did: .* '__main__'"):
        fed.program.sweep(SMALL, RATES, 1, folder / "study", executor=2, tell=None)
    assert [row["status"] for row in table(folder / "study")] == ["to do"] * 2


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_ctrl_c_waits_while_processes_are_made(monkeypatch):
    def submit(*_):
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    assert signal.SIGINT in sweeping._Processes(1).submit(int)
    assert signal.SIGINT not in submit()


def test_a_run_that_was_killed_before_its_evaluation_is_not_done(whole, folder):
    study = shutil.copytree(whole, folder / "study")
    evaluation = study / "client_lr=0.02,seed=0" / "evaluation.json"
    content = evaluation.read_bytes()
    for damage in (evaluation.unlink, lambda: evaluation.write_bytes(content[:20])):
        damage()
        assert [row["status"] for row in read_study(study).rows] == ["to do"] + ["done"] * 3
        fed.program.sweep(LONGER, RATES, 2, study, targets=[0.3, 1.0], tell=None)
        assert evaluation.read_bytes() == content
    assert (study / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_path_that_is_no_text_is_told(folder):
    study = fed.program.sweep(SMALL | {"data": "\udce9"}, {}, 1, folder / "study", tell=None)
    assert list(study.broken) == ["seed=0"]
    assert "\\udce9_train.h5" in table(folder / "study")[0]["status"]
    assert "<h1>caf\\udce9</h1>" in page("caf\udce9", "", ())


def test_data_that_break_and_figures_that_are_no_numbers(folder, capsys):
    choices = SMALL | {"server_lr": 1e38, "server_momentum": 0.9}
    cases = [{"data": "sample"}, {"data": str(folder / "nothing")}]
    study = fed.program.sweep(choices, {}, 1, folder / "study", cases=cases, tell=None)
    done, broken = table(folder / "study")
    assert done["status"] == "done"
    assert done["final_loss"] in ("nan", "inf")
    assert np.isfinite(float(done["best_loss"]))
    assert done["best_loss_round"] == "0"
    assert "nothing_train.h5' does not exist" in broken["status"]
    assert list(study.broken) == [broken["run"]]
    assert main(["report", str(folder / "study")]) == 0
    page = (folder / "study" / "report.html").read_text(encoding="utf-8")
    assert "Runs that broke" in page
    assert "nothing_train.h5" in page


def test_numbers_as_labels_are_judged_by_their_squared_error(folder):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        clients = {}
        for i in range(3):
            x = rng.standard_normal((20, 2)).astype(np.float32)
            clients[f"c{i}"] = {"x": x, "y": x @ np.float32([[1], [-1]])}
        fed.datasets.write_hdf5(folder / f"line_{split}.h5", fed.datasets.InMemoryClientData(clients))
    choices = SMALL | {"data": str(folder / "line"), "epochs": 5, "model": "linear", "network": NETWORK}
    study = fed.program.sweep(choices, {"client_lr": [0.001, 0.1]}, 2, folder / "study", targets=[0.5], tell=None)
    slow, fast = study.rows[0], study.rows[2]
    assert slow["final_mean_squared_error"] > 0.5 > fast["final_mean_squared_error"] >= fast["best_mean_squared_error"]
    assert slow["rounds_to_0.5"] is None
    assert fast["rounds_to_0.5"] in (2, 4)
    assert fast["seconds_to_0.5"] > 0
    assert "final_accuracy" not in fast
    assert main(["report", str(folder / "study")]) == 0
    page = (folder / "study" / "report.html").read_text(encoding="utf-8")
    assert "client_lr=0.1: a final mean squared error of" in page
    assert "greater ones may be better" in page


def test_costs_by_hand(folder):
    log = [
        "round_num,evaluation/accuracy,evaluation/loss,client_work/train/loss,communication/bytes_up,network/seconds"
    ]
    log += ["0,0.1,2.0,,,", "1,,,1.5,10,0.5", "2,0.8,nan,1.25,20,0.25", "3,,,1.0,40,1", "4,0.7,1.0,nan,80,2"]
    run = folder / "seed=0"
    run.mkdir()
    (run / "metrics.csv").write_text("\n".join(log), encoding="utf-8")
    grid = Grid.of({"targets": [0.75, 0.1, 0.9], "network": NETWORK})
    row = row_of(grid, grid.runs[0], folder, "done")
    assert [row[f"{cost}_to_0.75"] for cost in ("rounds", "bytes_up", "seconds")] == [2, 30, 0.75]
    assert [row[f"{cost}_to_0.1"] for cost in ("rounds", "bytes_up", "seconds")] == [0, 0, 0.0]
    assert row["rounds_to_0.9"] is None
    assert (row["final_accuracy"], row["best_accuracy"], row["best_accuracy_round"]) == (0.7, 0.8, 2)
    assert (row["final_loss"], row["best_loss"], row["best_loss_round"]) == (1.0, 1.0, 4)
    assert np.isnan(row["train_loss"])
    assert ACCURACY.best([(1, 0.5), (2, 0.5), (3, float("inf"))]) == (1, 0.5)
    (run / "metrics.csv").write_text("round_num\nx\n", encoding="utf-8")
    assert row_of(grid, grid.runs[0], folder, "done")["status"].startswith("broken: ")


def test_whose_a_folder_is(folder, capsys):
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="an empty one or a study's. Got one with notes.txt"):
        fed.program.sweep(SMALL, {}, 1, folder / "mine")
    (folder / "study").mkdir()
    with locked(folder / "study" / ".lock", "taken"), pytest.raises(ValueError, match="another process is at work"):
        fed.program.sweep(SMALL, {}, 1, folder / "study")
    if os.name != "nt":
        (folder / "linked").mkdir()
        (folder / "linked" / "results.csv").symlink_to(folder / "target")
        with pytest.raises(ValueError, match="results.csv': must be a file of the run's own. Got a link"):
            fed.program.sweep(SMALL, {}, 1, folder / "linked")
        assert not (folder / "target").exists()
        (folder / "linked" / "results.csv").unlink()
        (folder / "linked" / "seed=0").symlink_to(folder / "mine")
        (folder / "linked" / "sweep.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ValueError, match="seed=0': must be a folder of the run's own. Got a link"):
            fed.program.sweep(SMALL, {}, 1, folder / "linked")
    assert main(["report", str(folder / "mine")]) == 2
    (folder / "mine" / "sweep.json").write_text("{}", encoding="utf-8")
    assert main(["report", str(folder / "mine")]) == 2
    assert "must be a study's folder with a finished run" in capsys.readouterr().err


def report(folder, *arguments, **keywords):
    fed.program.sweep(*arguments, folder / "study", tell=None, **keywords)
    assert main(["report", str(folder / "study")]) == 0
    return Page((folder / "study" / "report.html").read_text(encoding="utf-8"))


def in_spanish(folder, english):
    """Return what the page of a study says in Spanish: as much as in English, and nothing in it."""
    assert main(["report", str(folder / "study"), "--lang", "es"]) == 0
    texts, page = spanish_texts(folder / "study" / "report.html")
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert [len(row) for row in page.rows] == [len(row) for row in english.rows]
    assert len(page.images) == len(english.images)
    assert not {image["src"] for image in page.images} & {image["src"] for image in english.images}
    return page, " ".join(page.texts)


def test_the_page_of_a_study(folder):
    cases = [{"algorithm": "fedavg"}, {"algorithm": "fedprox", "proximal_strength": 0.5}]
    page = report(folder, SMALL, {"client_lr": [0.02, 0.2]}, 2, cases=cases, targets=[0.1])
    assert page.headings[1:] == ["What varied", "How they went", "Which was best", "To repeat it"]
    assert ["algorithm", "fedavg, fedprox"] in page.rows
    assert ["client_lr", "0.02, 0.2"] in page.rows
    assert ["seed", "0, 1"] in page.rows
    curves, heat = page.images[0], page.images[-1]
    assert "algorithm=fedprox, proximal_strength=0.5, client_lr=0.2: accuracy" in curves["alt"]
    assert "algorithm fedprox, proximal_strength=0.5, client_lr 0.02: " in heat["alt"]
    rows = read_study(folder / "study").rows
    means, reached = {}, {}
    for row in rows:
        label = ", ".join(f"{key}={row[key]}" for key in ("algorithm", "proximal_strength", "client_lr") if row[key])
        means.setdefault(label, []).append(row["final_accuracy"])
        reached[label] = reached.get(label, 0) + (row["rounds_to_0.1"] is not None)
    best = max(means, key=lambda label: sum(means[label]))
    texts = " ".join(page.texts)
    assert f"{best}: a final accuracy of {np.mean(means[best]):#.4g}, the mean over 2 seeds (" in texts
    assert "of 2 times" in texts
    assert "figure, which therefore flatters it" in texts
    listed = {row[0]: row for row in page.rows if row[0] in means}
    assert len(listed) == 4
    for label, found in means.items():
        assert float(listed[label][2]) == pytest.approx(np.mean(found), rel=1e-3)
        assert float(listed[label][3]) == pytest.approx(np.std(found, ddof=1), rel=1e-3)
        assert listed[label][6] == f"{reached[label]} of 2"
    assert texts.count("All runs were evaluated on the same test clients.") == 3
    assert Grid.of(json.loads(next(text for text in page.texts if text.startswith("{")))).runs
    page, texts = in_spanish(folder, page)
    assert page.headings[1:] == ["Qué varió", "Cómo evolucionaron", "Cuál fue la mejor", "Para repetirlo"]
    assert f"La mejor de 4 configuraciones es {best} (exactitud final: {np.mean(means[best]):#.4g}, media de 2" in texts
    assert main(["report", str(folder / "study"), "--lang", "fr"]) == 2


def test_other_test_clients_are_said_beside_the_figures_of_the_best_and_worst(folder):
    choices = {**SMALL, "rounds": 2}
    del choices["evaluation_clients"]
    page = report(folder, choices, {"evaluation_clients": [1, 2], "client_lr": [0.02, 0.05, 0.1, 0.2]}, 1)
    texts = [text for text in page.texts if "Warning: not all settings were evaluated on the same test clients" in text]
    assert len(texts) == 3  # the curves, the heat map, and the table
    assert re.search(r"\(evaluation_clients=1, .* and evaluation_clients=2, .* were not\)", texts[0])
    assert "Of 8 settings the 5 best and the 2 worst." in texts[0]
    assert page.images[0]["alt"].count("client_lr=") == 7
    assert in_spanish(folder, page)[1].count("Atención: no todas las configuraciones se evaluaron con los mismos") == 3


def test_on_whom_runs_were_evaluated():
    def told(*runs):
        of = {name: [Run(None, config, {}, [], {}, {})] for name, config in zip("ab", runs, strict=True)}
        return about_evaluation(of, Texts("en"))

    def of_file(**choices):
        return {"choices": {"data": "sample", "seed": 0, **choices}, "data": {"test": {"sha256": "1f"}}}

    drawn = {"choices": {"data": "synthetic", "seed": 0}, "data": {}}
    same, others = "All runs were evaluated on the same", "not all settings were evaluated on the same"
    assert told(of_file(clients=3), of_file(clients=4, seed=1)).startswith(same)
    first = {"sampling": "first", "evaluation_clients": 9}  # which says nothing then
    assert others in told(of_file(**first, clients=3), of_file(**first, clients=4))
    assert others in told(of_file(**first, clients=9), of_file(evaluation_clients=9))
    assert others in told(drawn, of_file())
    assert told(drawn, drawn | {"choices": drawn["choices"] | {"seed": 1}}).startswith("Every seed draws clients")
    assert told(of_file(clients=[{}]), of_file()).startswith(same)  # a stranger's


def test_seeds_that_draw_clients_are_said(folder):
    page = report(folder, SMALL | {"data": "synthetic", "population": 3, "rounds": 2}, {}, 2)
    assert "Every seed draws clients of its own, for training and test" in " ".join(page.texts)
    assert "all runs: a final accuracy of" in " ".join(page.texts)
    said = in_spanish(folder, page)[1]
    assert "Cada semilla sortea sus propios clientes" in said
    assert "todas las ejecuciones (exactitud final: " in said


def test_the_door_to_runs():
    assert "sweep" in dir(fed.program)
    assert "sweep" in fed.program.__all__
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        _ = fed.program.swep
    code = "import sys, fedsim_np; assert not any(name.startswith('fedsim_np.runs') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
