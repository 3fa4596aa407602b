"""The table of `benchmarks/papers`, against the results that are stored."""

import importlib.util
import json
from pathlib import Path

import pytest

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
RESULTS = PAPERS.parent / "results" / "papers"
README = (PAPERS / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.stem for path in PAPERS.glob("[!_]*.py"))


def load(name):
    """Import a script's neighbour."""
    spec = importlib.util.spec_from_file_location(name, PAPERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.syspath_prepend(str(PAPERS.parent))
    return load("_paper")


def test_the_table_is_what_the_stored_results_say(paper):
    assert f"{paper.BEGIN}\n{paper.table()}{paper.END}" in README


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_a_place_in_the_table(name, paper):
    assert name in paper.ORDER
    assert f"({name}.py)" in README


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_has_a_figure_and_verdicts(path):
    name, result = path.stem, json.loads(path.read_text(encoding="utf-8"))
    assert name in SCRIPTS
    assert (PAPERS.parent / "figures" / "papers" / f"{name}.png").stat().st_size > 1000
    words = ("came out", "did not", "cannot be checked here")
    assert result["claims"]
    assert all(one["verdict"].startswith(words) for one in result["claims"])


def test_all_results_together_take_less_than_twenty_minutes_two_at_a_time():
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    assert sum(result["seconds"] for result in stored) < 2 * 20 * 60


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        (True, "came out"),
        ([True, True], "came out"),
        ([True, False, True], "did not everywhere: in 2 of 3"),
        ([False, False], "did not"),
        (False, "did not"),
        (None, "cannot be checked here"),
    ],
)
def test_verdicts(holds, verdict, paper):
    assert paper.claim("it does", "1", "2", holds)["verdict"] == verdict
