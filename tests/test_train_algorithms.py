"""fedsim-np train: algorithms by name, one's own, who takes part; resumed to the same bytes."""

import json
import sys

import numpy as np
import pytest

from fedsim_np.algorithms import ALGORITHMS, PARAMETERS, algorithm_of
from fedsim_np.cli import main
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.experiment import Experiment

SMALL = [
    "--data",
    "fedprox-synthetic",
    "--population",
    "5",
    "--clients",
    "3",
    "--epochs",
    "2",
    "--rounds",
    "2",
    "--batch-size",
    "50",
]


def train(out, *arguments):
    return ["train", "--out", str(out), *map(str, arguments)]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def result(folder):
    return {name: (folder / name).read_bytes() for name in ("metrics.csv", "metrics.jsonl", "weights.npz")}


# What is not the default, for those that take it.
CHOSEN = {
    "proximal_strength": 1.0,
    "scaffold_option": "i",
    "alpha": 0.5,
    "q": 2.0,
    "lipschitz": 30.0,
    "personal_lr": 0.1,
}


def test_every_parameter_is_some_algorithms():
    assert {name for algorithm in ALGORITHMS.values() for name in algorithm.takes} == set(PARAMETERS) == set(CHOSEN)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_by_name(name, folder, capsys):
    assert main(train(folder / "run", *SMALL, "--algorithm", name)) == 0
    assert all(row["client_work/train/loss"] > 0 for row in rows(folder / "run")[1:])
    assert main(["evaluate", str(folder / "run")]) == 0
    assert '"loss"' in capsys.readouterr().out
    model = (folder / "run" / "weights.npz").read_bytes()
    for parameter in ALGORITHMS[name].takes:
        flag = "--" + parameter.replace("_", "-")
        assert main(train(folder / parameter, *SMALL, "--algorithm", name, flag, CHOSEN[parameter])) == 0
        # Ditto's personal models move no other.
        assert ((folder / parameter / "weights.npz").read_bytes() == model) is (name == "ditto")


@pytest.mark.parametrize("model", [["mlp", "--hidden", "5"], ["linear", "--client-lr", "0.0001"]])
@pytest.mark.parametrize("name", ["scaffold", "mime_lite"])
def test_other_models(name, model, folder):
    assert main(train(folder / "run", *SMALL, "--algorithm", name, "--model", *model)) == 0
    losses = [value for row in rows(folder / "run") for column, value in row.items() if "evaluation/" in column]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_parameter_that_it_does_not_take_is_one_line(name, folder, capsys):
    for parameter in ALGORITHMS[name].unused:
        flag = "--" + parameter.replace("_", "-")
        assert main(train(folder / "run", *SMALL, "--algorithm", name, flag, CHOSEN[parameter])) == 2
        error = capsys.readouterr().err
        assert f"{flag} changes nothing with the algorithm {name}: leave it out." in error
        assert error.count("\n") == 1
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algorithm", "scaffold", "--scaffold-option", "iii"], "'scaffold_option' must be one of ii, i. Got 'iii'."),
        (["--algorithm", "scaffold", "--client-momentum", "0.9"], "'client_optimizer' must be sgdm without momentum"),
        (["--algorithm", "fed_dyn", "--client-optimizer", "adam"], "'client_optimizer' must be sgdm without momentum"),
        (["--algorithm", "fed_dyn", "--alpha", "0"], "'alpha' must be above 0"),
        (["--algorithm", "fed_nova", "--client-optimizer", "adam"], "'client_optimizer_fn' must be gradient descent"),
        (["--algorithm", "scafold"], "Did you mean 'scaffold'?"),
        (["--dropout", "1.5"], "'dropout' must be a probability, from 0 to 1. Got 1.5."),
        (["--stragglers", "-1"], "'stragglers' must be a finite float >= 0. Got -1.0."),
        (["--min-epochs", "0"], "'min_epochs' must be an integer >= 1. Got 0."),
        (["--population", "2"], "there must be at least 3 train clients. Got 2."),
    ],
)
def test_bad_choices_are_one_line(arguments, message, folder, capsys):
    assert main(train(folder / "run", *SMALL, *arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()


def test_help_is_made_from_the_registry(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = "".join(capsys.readouterr().out.split())
    for name, algorithm in ALGORITHMS.items():
        assert "".join(f"{name}: {algorithm.about}".split()) in said
    assert ",".join(name for name in ALGORITHMS if "proximal_strength" in algorithm_of(name).takes) in said


OWN = """
from fedsim_np.algorithms import Algorithm
from fedsim_np.learning import build_unweighted_fed_avg, build_weighted_fed_prox

def build(model_fn, client, server, **keywords):
    return build_unweighted_fed_avg(model_fn, client, server, **keywords)

def _build(parts):
    return build_weighted_fed_prox(
        parts.model_fn, parts.choices["alpha"], parts.client, parts.server, **parts.keywords)

entry = Algorithm(_build, "fedprox, its strength by another name", takes=("alpha",))
number = 3

def other(rate):
    return rate

def nothing(model_fn, client, server, **keywords):
    return None
"""


@pytest.fixture
def own(folder, monkeypatch):
    """A module in the present folder; what is imported of it is forgotten."""
    (folder / "own_rounds.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "own_rounds"
    sys.modules.pop("own_rounds", None)


def test_one_s_own_by_a_dotted_name(own, folder, capsys):
    for mine, theirs in (
        ([f"{own}:build"], ["fedavg-unweighted"]),
        ([f"{own}:entry", "--alpha", "0.7"], ["fedprox", "--proximal-strength", "0.7"]),
    ):
        for name, algorithm in (("mine", mine), ("theirs", theirs)):
            assert main(train(folder / name, *SMALL, "--overwrite", "--algorithm", *algorithm)) == 0
        assert result(folder / "mine") == result(folder / "theirs")
    del sys.modules[own]
    assert main(["evaluate", str(folder / "mine")]) == 0
    assert own not in sys.modules
    capsys.readouterr()
    # A folder may be a stranger's: what it says is not imported.
    assert main(train(folder / "mine", "--resume")) == 2
    assert "name it here: --algorithm own_rounds:entry" in capsys.readouterr().err
    assert own not in sys.modules
    assert main(train(folder / "mine", "--resume", "--algorithm", f"{own}:entry")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module:build"], "(No module named 'no_such_module')"),
        (["own_rounds:no_such"], "has no attribute 'no_such'"),
        ([":build"], "'algorithm' must be something that can be imported"),
        (["own_rounds:number"], "'algorithm' must be an Algorithm, or a function called as the builders are"),
        (["own_rounds:other"], "(too many positional arguments)"),
        (["own_rounds:nothing"], "'algorithm' must be one that builds a LearningProcess. Got None."),
        (
            ["own_rounds:build", "--alpha", "0.7"],
            "--alpha changes nothing with the algorithm own_rounds:build: leave it out.",
        ),
        (["own_rounds:entry", "--q", "1"], "--q changes nothing with the algorithm own_rounds:entry: leave it out."),
    ],
)
def test_a_wrong_dotted_name_is_one_line(arguments, message, own, folder, capsys):
    assert main(train(folder / "run", *SMALL, "--algorithm", *arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()


PARTICIPATION = ["--dropout", "0.3", "--stragglers", "0.5"]


def test_who_takes_part(folder):
    assert main(train(folder / "run", *SMALL, "--rounds", "6", *PARTICIPATION)) == 0
    counts = [
        [row[f"participation/{word}"] for word in ("full", "partial", "absent")] for row in rows(folder / "run")[1:]
    ]
    assert [sum(count) for count in counts] == [3] * 6
    assert all(any(column) for column in zip(*counts, strict=True))
    config = RunConfig(data="fedprox-synthetic", population=5, clients=3, epochs=2, dropout=0.3, stragglers=0.5)
    for round_num, count in enumerate(counts, start=1):
        statuses = [entry.status for entry in Experiment(config).cohort(round_num)]
        assert count == [statuses.count(word) for word in ("full", "partial", "absent")]
    assert main(train(folder / "other", *SMALL, "--rounds", "6", *PARTICIPATION, "--drop-stragglers")) == 0
    for row, (full, partial, absent) in zip(rows(folder / "other")[1:], counts, strict=True):
        assert (row["participation/full"], row["participation/absent"]) == (full, partial + absent)


def test_rounds_of_nobody_leave_the_model(folder):
    assert main(train(folder / "run", *SMALL, "--algorithm", "scaffold", "--dropout", "1")) == 0
    first, *rest = rows(folder / "run")
    assert all(row["participation/absent"] == 3 for row in rest)
    assert all(row["evaluation/loss"] == first["evaluation/loss"] for row in rest)


@pytest.mark.parametrize("name", ["scaffold", "ditto"])
def test_resumed_to_the_same_bytes(name, folder, monkeypatch, capsys):
    choices = [*SMALL, "--algorithm", name, *PARTICIPATION, "--rounds", "5", "--checkpoint-every", "2"]
    assert main(train(folder / "whole", *choices)) == 0
    calls, cohort = [], Experiment.cohort

    def stopped(self, round_num):
        calls.append(round_num)
        if round_num == 4:
            raise MemoryError("here")
        return cohort(self, round_num)

    monkeypatch.setattr(Experiment, "cohort", stopped)
    assert main(train(folder / "run", *choices)) == 2
    monkeypatch.setattr(Experiment, "cohort", cohort)
    assert main(train(folder / "run", "--resume")) == 0
    assert "round 3 of" in capsys.readouterr().out
    assert result(folder / "run") == result(folder / "whole")


def test_a_round_of_nobody_is_no_matter_of_rates(folder, capsys):
    assert main(["train", "--out", str(folder / "run"), "--rounds", "1", "--clients", "3", "--dropout", "1"]) == 0
    assert capsys.readouterr().err == "note: nobody took part in the last round\n"


def test_clients_that_are_drawn_at_once_are_bounded(folder, capsys):
    command = ["train", "--out", str(folder / "run"), "--data", "fedprox-synthetic", "--population", "10001"]
    assert main(command) == 2
    assert "'population' must be at most 10000 of fedprox-synthetic" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./mine:build", "..mine:build"])
def test_a_path_is_no_dotted_name(name, folder, capsys):
    assert main(["train", "--out", str(folder / "run"), "--algorithm", name]) == 2
    error = capsys.readouterr().err
    assert "'algorithm' must be something that can be imported" in error
    assert error.count("\n") == 1
