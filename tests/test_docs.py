"""The pages in fedsim_np/docs: their code runs, and prints what they show; their links lead somewhere.

Blocks that are marked as needing a package which may be missing are left out, or run in tests of their own:
test_loggers_recipes.py has those of MLflow and W&B.
"""

import importlib.util
import re
import sys
from types import SimpleNamespace

import pytest
from conftest import PAGES, run_page

import fedsim_np as fed
from fedsim_np import devtools
from fedsim_np.docs import GUIDES
from fedsim_np.docs import __main__ as docs
from fedsim_np.docs.checking import missing_names
from fedsim_np.docs.names import public_modules, public_names

# What a page says, and what is run instead: fewer clients, rounds and runs.
SMALLER = {
    "privacy_and_attackers": [
        ("--population 1000 --clients 50", "--population 30 --clients 5 --rounds 2"),
        ("--out attacked", "--out attacked --clients 12 --rounds 2"),
        ("--out flipped", "--out flipped --clients 12 --rounds 2"),
    ],
    "messages": [("--rounds 20", "--rounds 2")],
    "reproducibility": [
        ("--population 1000 --clients 50 --rounds 200", "--population 30 --clients 3 --rounds 4"),
        ("--rounds 300", "--rounds 6"),
    ],
    "studies": [
        ("population = 100 ", "population = 3 "),
        ("rounds = 100\n", "rounds = 2\n"),
        ("clients = 10 ", "clients = 2 "),
        ("evaluate_every = 5\n", "evaluate_every = 1\n"),
        ("seeds = 5 ", "seeds = 1 "),
        ("0.03, 0.1, 0.3, 1.0", "0.3"),
        ("--workers 2", "--workers 1"),
        ("--rounds 20 ", "--rounds 2 "),
        ('{"rounds": 5}', '{"rounds": 1}'),
    ],
    "your_data": [("--clients 3383", "--clients 3"), ("range(20)", "range(10)"), ("rounds=20", "rounds=8")],
}
if sys.version_info < (3, 11):  # whose library has no TOML
    SMALLER["studies"].insert(0, ("fedsim-np sweep sweep.toml --workers 2 --out study\nfedsim-np report study\n", ""))


def privacy_and_attackers(names, out):
    assert "epsilon 8.0000 (delta 0.01; sampling: poisson; neighbours: one client added or removed;" in out
    assert "promised: epsilon" in out
    assert len(names["attackers"]) == round(0.2 * len(names["writers"].client_ids))
    (attacker, *_), honest = names["attackers"], set(names["writers"].client_ids) - names["attackers"]
    for client_id, differs in ((attacker, True), (honest.pop(), False)):
        a, b = (names[data].create_dataset_for_client(client_id).to_arrays()["label"] for data in ("writers", "wrong"))
        assert (a != b).any() == differs


def messages(names, out):
    assert names["logger"].history["communication/bytes_up"] == [5 * 8 * (392 + 1)] * 20
    assert min(names["logger"].history["network/seconds"]) > 0


def reproducibility(names, out):
    assert "done: 4 rounds in run" in out
    assert "done already" in out
    assert "done: 6 rounds in run" in out


def speed(names, out):
    names["pool"].shutdown()
    assert names["process"].engine == "gram"
    assert "train" in str(names["profile"])


def studies(names, out):
    assert [(row["client_lr"], row["seed"]) for row in names["rows"]] == [(0.02, 0), (0.02, 1), (0.1, 0), (0.1, 1)]
    if sys.version_info >= (3, 11):
        assert "written study" in out
        with open("study/results.csv", encoding="utf-8") as file:
            assert len(file.readlines()) == 1 + 3


def your_data(names, out):
    assert "clients             20 (0 without examples)" in out
    assert "3 (0 without examples)" in out
    if importlib.util.find_spec("sklearn"):
        assert names["search"].best_score_ > 0.8  # 0.33 by chance
        assert names["search"].best_estimator_[-1].n_clients_ == 7


CAME_OUT = (privacy_and_attackers, messages, reproducibility, speed, studies, your_data)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    packages = [name for name in ("sklearn",) if importlib.util.find_spec(name)]
    names = run_page(page, packages, SMALLER.get(page.stem, ()))
    for check in CAME_OUT:
        if check.__name__ == page.stem:
            check(names, capsys.readouterr().out)


def test_every_page_is_in_the_site():
    assert set(GUIDES) == {page.stem for page in PAGES.glob("*.md")}


def test_the_site_is_refused_in_one_line(folder, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "fedsim_np.docs.site", raising=False)
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    assert docs.main(["--out", str(folder / "site")]) == 2
    assert capsys.readouterr().err.endswith('made with: pip install "fedsim_np[docs]".\n')
    assert not (folder / "site").exists()
    (folder / "a.txt").write_text("", encoding="utf-8")
    for out, rule in (
        (folder, "is there already"),
        (folder / "a.txt", "--out must be a folder"),
        ("", "--out must be"),
    ):
        assert docs.main(["--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert rule in line


def test_a_site_with_a_fault_is_not_written(folder, monkeypatch, capsys):
    files, faults = {"a/b.html": "<p>é</p>", "c.png": b"c"}, ["a/b.html: 'd.html' leads to no file"]
    monkeypatch.setitem(sys.modules, "fedsim_np.docs.site", SimpleNamespace(build=lambda: (files, faults)))
    assert docs.main(["--out", str(folder / "site")]) == 1
    assert capsys.readouterr().err == "a/b.html: 'd.html' leads to no file\n"
    assert not (folder / "site").exists()
    faults.clear()
    (folder / "a.txt").write_text("", encoding="utf-8")
    assert docs.main(["--out", str(folder / "a.txt" / "site")]) == 2
    assert "a.txt" in capsys.readouterr().err
    assert docs.main(["--out", str(folder / "site")]) == 0
    assert (folder / "site" / "a" / "b.html").read_bytes() == "<p>é</p>".encode()
    assert capsys.readouterr().out.endswith("index.html: 1 pages\n")


def test_every_module_and_every_name_is_asked_for():
    modules = public_modules()
    assert {"fedsim_np.plots", "fedsim_np.report", "fedsim_np.datasets.emnist", "fedsim_np.learning.losses"} < set(
        modules
    )
    pages = {"fedsim_np/program.html": '<section id="sweep"><section id="read_run">'}
    names = {"fedsim_np.program": public_names(fed.program)}
    missing = missing_names(pages, names)
    assert "fedsim_np.program.Network" in missing
    assert len(missing) == len(fed.program.__all__) - 2


def test_the_quick_check_says_what_it_needs(folder, monkeypatch, capsys):
    for name in devtools.QUICK:
        assert (devtools.ROOT / "tests" / f"test_{name}.py").is_file()
    monkeypatch.setattr(devtools, "missing", lambda: ["ruff", "mypy"])
    assert devtools.main([]) == 2
    assert "ruff, mypy missing. Install" in capsys.readouterr().err
    monkeypatch.setattr(devtools, "ROOT", folder)
    assert devtools.main([]) == 2
    assert "it is for a clone of the repository" in capsys.readouterr().err


def test_the_quick_check_fails_where_one_of_its_tools_does(monkeypatch, capsys):
    says = ["-c", "print('what it says')"]
    monkeypatch.setattr(devtools, "missing", list)
    monkeypatch.setattr(devtools, "_started", lambda command: [sys.executable, *command])
    monkeypatch.setattr(devtools, "commands", lambda more: {"good": says, "bad": ["-c", "raise SystemExit('worse')"]})
    assert devtools.main([]) == 1
    assert re.fullmatch(r"good: what it says\n== bad\nworse\n\nfailed: bad, \d+ s\n", capsys.readouterr().out)
