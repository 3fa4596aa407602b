"""A run's page: whole, self-contained, made again from what is stored; runs compared; what damaged files get."""

import base64
import csv
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import digits
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.report import read_pictures, read_run
from fedsim_np.tables import cell_of, text_of


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps headings, images, tables' rows and everything that is loaded."""

    VOID = {"meta", "img", "br", "link", "hr"}

    def __init__(self, html):
        super().__init__()
        self.open, self.images, self.headings, self.rows, self.loaded, self.texts = [], [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loaded += [attributes[name] for name in ("src", "href", "data", "srcset") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe", "object")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)
        self.texts.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the command on a few small clients, one with SVG."""
    folder = tmp_path_factory.mktemp("runs of été")
    for seed, split in enumerate(("train", "test")):
        data = digits([12, 7, 0, 9], seed)
        arrays = {c: data.create_dataset_for_client(c).to_arrays() for c in data.client_ids}
        arrays['写手 <b>&"bold"\''] = arrays.pop("f0001_01")  # no HTML, and not in every font
        fed.datasets.write_hdf5(folder / f"{split}.h5", fed.datasets.InMemoryClientData(arrays))
    files = ["--train", str(folder / "train.h5"), "--test", str(folder / "test.h5"), "--clients", "4"]
    assert main(["tutorial", *files, "--rounds", "3", "--out", str(folder / "a"), "--svg"]) == 0
    assert main(["tutorial", *files, "--rounds", "2", "--out", str(folder / "b")]) == 0
    return folder


def test_the_page_tells_the_run(runs):
    html = (runs / "a" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.headings == [
        "Federated learning: a run",
        "The data",
        "The rounds",
        "The evaluation",
        "The model",
        "To repeat it",
    ]
    run = read_run(runs / "a")
    rows = {tuple(row) for row in page.rows}
    for i in range(3):
        accuracy = run.history["client_work/train/sparse_categorical_accuracy"][i]
        loss = run.history["client_work/train/loss"][i]
        assert any(row[:3] == (str(i + 1), f"{accuracy:#.4g}", f"{loss:#.4g}") for row in rows)
    for split, metrics in run.evaluation.items():
        assert any(row[0] == split and f"{metrics['loss']:#.4g}" in row for row in rows)
    assert ("numpy", np.__version__) in rows
    text = " ".join(page.texts)
    assert "Clients left out of a round's average: 3 empty" in text
    assert "4 clients took part, the same in every round, with 140 examples a round, 0 to 60 a client." in text
    assert "The 140 examples a round are repetitions of 28 images: a client reads each of its own 5 times" in text
    assert "counted 5 times, once an epoch, as in training" in text
    assert "fedsim-np tutorial --clients 4 --rounds 3 --train train.h5 --test test.h5" in text
    assert '写手 <b>&\\"bold\\"' in text  # as a text, in config.json
    assert '"sha256": "' + run.config["data"]["train"]["sha256"] in text


def test_the_page_is_self_contained_and_every_picture_has_a_text(runs):
    html = (runs / "a" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    pictures = read_pictures(runs / "a")
    assert len(page.images) == len(pictures) == 11
    assert {picture.section for picture in pictures} == {"data", "rounds", "evaluation", "model"}
    for image, picture in zip(page.images, pictures, strict=True):
        assert len(image["alt"]) > 40
        assert image["alt"] == picture.alt
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == picture.png
        assert 200 < int(image["width"]) < 1200
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert not re.search(r"url\(|@import|https?://", html)
    assert '<html lang="en">' in html
    assert 'name="viewport"' in html
    assert "@media print" in html
    # What is said of a picture is right.
    run, counts = read_run(runs / "a"), next(p for p in pictures if p.name == "confusion_matrix")
    assert f"{run.evaluation['test']['num_examples'] // 5} test examples" in counts.alt


def test_figures_are_stored_with_the_run(runs):
    names = sorted(path.name for path in (runs / "a" / "figures").iterdir())
    stems = [picture.name for picture in read_pictures(runs / "a")]
    assert names == sorted([*(f"{s}.png" for s in stems), *(f"{s}.svg" for s in stems), "figures.json"])
    assert not list((runs / "b" / "figures").glob("*.svg"))
    for path in (runs / "a" / "figures").glob("*.svg"):
        assert "<dc:date>" not in path.read_text(encoding="utf-8")


def test_clients_are_stored_with_the_run(runs):
    clients = read_run(runs / "a").clients
    assert clients.num_rows == 4 * 3
    assert clients["round_num"][::4] == [1, 2, 3]
    assert clients["status"][:4] == ["ok", "empty", "ok", "ok"]
    history = read_run(runs / "a").history
    losses, sizes, rounds = (np.array(clients[name]) for name in ("loss", "num_examples", "round_num"))
    for number in range(3):
        mine = (rounds == number + 1) & (sizes > 0)
        mean = (losses * sizes)[mine].sum() / sizes[mine].sum()
        assert mean == pytest.approx(history["client_work/train/loss"][number], rel=1e-5)


def test_a_page_is_made_again_without_the_data(runs, folder, capsys):
    before = (runs / "a" / "report.html").read_bytes()
    (runs / "a" / "report.html").unlink()
    moved = runs / "train.h5"
    moved.rename(runs / "elsewhere.h5")
    try:
        assert main(["report", str(runs / "a")]) == 0
    finally:
        (runs / "elsewhere.h5").rename(moved)
    assert (runs / "a" / "report.html").read_bytes() == before


def test_a_training_run_has_a_page_too(folder, capsys):
    choices = ["--rounds", "2", "--clients", "2", "--client-optimizer", "adam", "--client-lr", "0.01"]
    assert main(["train", *choices, "--out", str(folder / "run")]) == 0
    assert main(["report", str(folder / "run")]) == 0
    page = Page((folder / "run" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    assert "2 clients a round trained one model together in 2 rounds" in text
    assert "(adam, learning rate 0.01)" in text
    assert len(page.images) == 1
    # Told as the tutorial is, of what it was: other clients in every round, an evaluation that counts once.
    sizes = read_run(folder / "run").clients["num_examples"]
    totals = sorted(sum(sizes[i : i + 2]) for i in (0, 2))
    assert f"with {totals[0]:,} to {totals[1]:,} examples a round, {min(sizes)} to {max(sizes)} a client." in text
    assert "a client reads each of its own images 5 times, once an epoch, and each time counts." in text
    assert "at most 100 clients, and on examples of theirs that nobody trained on, each counted once." in text
    assert "fedsim-np train --config config.json --out again" in text


def test_a_round_and_a_client_are_told_in_the_singular(folder, capsys):
    assert main(["tutorial", "--rounds", "1", "--clients", "1", "--no-figures", "--out", str(folder / "run")]) == 0
    text = " ".join(Page((folder / "run" / "report.html").read_text(encoding="utf-8")).texts)
    assert not re.findall(r"\b1 (?:rounds|clients|examples|images)\b", text)
    assert "1 client took part, with 535 examples a round, 535 a client." in text
    assert capsys.readouterr().out.endswith("weights.npz, report.html\n")  # and no figures


def test_runs_are_compared(runs, folder, capsys):
    path = folder / "both.html"
    assert main(["report", str(runs / "a"), str(runs / "b"), "--out", str(path)]) == 0
    page = Page(path.read_text(encoding="utf-8"))
    rows = {tuple(row) for row in page.rows}
    assert ("choice", "a", "b") in rows
    assert ("rounds", "3", "2") in rows
    a, b = read_run(runs / "a"), read_run(runs / "b")
    losses = [f"{run.history['client_work/train/loss'][-1]:#.4g}" for run in (a, b)]
    assert ("train loss", *losses) in rows
    assert ("test: loss", *(f"{run.evaluation['test']['loss']:#.4g}" for run in (a, b))) in rows
    assert len(page.images) == 1
    assert "a: " in page.images[0]["alt"]
    capsys.readouterr()
    assert main(["report", str(runs / "a"), str(runs / "b"), "--out", str(path)]) == 2
    assert "use --overwrite" in capsys.readouterr().err


def copy(runs, folder):
    target = folder / "run"
    target.mkdir()
    for path in (runs / "b").iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    (target / "figures").mkdir()
    for path in (runs / "b" / "figures").iterdir():
        (target / "figures" / path.name).write_bytes(path.read_bytes())
    return target


DAMAGE = {
    "config.json": [b"", b"{", b"[]", b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000],
    "metrics.csv": [
        b"",
        b"a,b\n1\n",
        b"loss\n1\n",
        b"round_num,loss\n1,x\n",
        b'round_num\n"1\n',
        b"\xff\n",
        b"round_num\n",
        b"round_num\ninf\n",
        b"round_num\nnan\n",
        b"round_num\n1.5\n",
        b'round_num\n""\n',
    ],
    "timings.csv": [b"round_num,seconds\n1,soon\n", b"round_num,seconds\n1,1\n", b"round_num,seconds\n1,1\n2,-1\n"],
    "evaluation.json": [b"3", b'{"train": 3}'],
    "clients.csv": [
        b"a,b\n1\n",
        b"client_id,num_examples\na,-1\n",
        b"client_id,num_examples\na," + b"9" * 5000 + b"\n",
    ],
    "figures/figures.json": [b"{}}", b"[3]", b'[{"name": "../x", "section": "", "alt": "", "caption": ""}]'],
    "figures/image.png": [b"", b"GIF89a" * 20, b"\x89PNG\r\n\x1a\n" + bytes(60)],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_runs_are_refused_by_file_and_nothing_is_lost(runs, folder, name, capsys):
    target = copy(runs, folder)
    page = (target / "report.html").read_bytes()
    for content in DAMAGE[name]:
        (target / name).write_bytes(content)
        assert main(["report", str(target)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert name.rpartition("/")[2].split(".")[0] in error or "figures.json" in error
        assert (target / "report.html").read_bytes() == page


def test_what_is_optional_may_be_missing(runs, folder, capsys):
    target = copy(runs, folder)
    for name in ("timings.csv", "evaluation.json", "clients.csv", "figures/figures.json"):
        (target / name).unlink()
        assert main(["report", str(target)]) == 0
    Page((target / "report.html").read_text(encoding="utf-8"))
    (target / "config.json").write_text("{}", encoding="utf-8")
    assert main(["report", str(target)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "must be a run's folder, with config.json and metrics.csv"),
        (["RUN", "RUN"], "the runs must differ"),
        (["RUN", "--out", "x.html"], "--out is for a comparison"),
        (["RUN", "OTHER", "--out", "no/such/x.html"], "--out must be a file in a folder that exists"),
    ],
)
def test_bad_commands(runs, arguments, message, capsys):
    names = {"RUN": str(runs / "a"), "OTHER": str(runs / "b")}
    assert main(["report", *(names.get(word, word) for word in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_where_the_figures_go(runs, folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "figures").write_text("mine", encoding="utf-8")
    files = ["--train", str(runs / "train.h5"), "--test", str(runs / "test.h5"), "--clients", "1", "--rounds", "1"]
    assert main(["tutorial", *files, "--out", str(folder / "out")]) == 2
    assert "must be a folder of the run's own. Got a file." in capsys.readouterr().err
    assert main(["tutorial", *files, "--svg"]) == 2
    assert "--svg is about the figures in --out DIR" in capsys.readouterr().err


def test_pictures_of_one_s_own_are_never_removed(runs, folder, capsys):
    files = ["--train", str(runs / "train.h5"), "--test", str(runs / "test.h5"), "--clients", "1", "--rounds", "1"]
    mine = folder / "paper" / "figures" / "my_plot.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    arguments = ["tutorial", *files, "--no-figures", "--out", str(folder / "paper")]
    assert main(arguments) == 2
    assert "already holds a run (figures)" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert mine.read_bytes() == b"mine"


def test_a_failed_drawing_leaves_no_old_figures_beside_new_numbers(runs, folder, monkeypatch, capsys):
    target = copy(runs, folder)
    files = ["--train", str(runs / "train.h5"), "--test", str(runs / "test.h5"), "--clients", "2", "--rounds", "1"]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedsim_np.commands.tutorial.write_pages", interrupted)
    assert main(["tutorial", *files, "--out", str(target), "--overwrite"]) == 130
    assert not (target / "report.html").exists()
    assert main(["report", str(target)]) == 0
    page = Page((target / "report.html").read_text(encoding="utf-8"))
    assert [image["alt"][:45] for image in page.images] == [
        "Curves of the metrics over 1 round; the table"
    ]  # drawn anew
    assert "2 clients a round trained one model together in 1 round," in " ".join(page.texts)


def test_runs_with_nothing_to_draw_are_told_all_the_same(folder, capsys):
    for split in ("train", "test"):
        fed.datasets.write_hdf5(folder / f"{split}.h5", digits([0, 0, 0]))
    files = ["--train", str(folder / "train.h5"), "--test", str(folder / "test.h5"), "--clients", "3", "--rounds", "2"]
    assert main(["tutorial", *files, "--out", str(folder / "a")]) == 0
    Page((folder / "a" / "report.html").read_text(encoding="utf-8"))
    shutil.copytree(folder / "a", folder / "b")
    for name in ("a", "b"):
        text = (folder / name / "metrics.csv").read_text(encoding="utf-8").splitlines()
        header, rows = text[0].split(","), [line.split(",") for line in text[1:]]
        for row in rows:
            row[header.index("client_work/train/loss")] = "nan"
            row[header.index("client_work/train/sparse_categorical_accuracy")] = "inf"
        lines = [",".join(cells) for cells in (header, *rows)]
        (folder / name / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["report", str(folder / "a"), str(folder / "b"), "--out", str(folder / "c.html")]) == 0
    assert "Nothing to draw" in (folder / "c.html").read_text(encoding="utf-8")


def test_dollar_signs_in_ids_are_no_formulas(folder, capsys):
    arrays = digits([4]).create_dataset_for_client("f0000_00").to_arrays()
    for split in ("train", "test"):
        clients = fed.datasets.InMemoryClientData({"$a_^$": arrays, "price$5$6": arrays})
        fed.datasets.write_hdf5(folder / f"{split}.h5", clients)
    files = ["--train", str(folder / "train.h5"), "--test", str(folder / "test.h5"), "--clients", "2", "--rounds", "1"]
    assert main(["tutorial", *files, "--out", str(folder / "$x_^$")]) == 0
    assert main(["tutorial", *files, "--no-figures", "--out", str(folder / "$y_^$")]) == 0
    assert len(read_pictures(folder / "$x_^$")) == 11
    assert main(["report", str(folder / "$x_^$"), str(folder / "$y_^$"), "--out", str(folder / "c.html")]) == 0


def test_a_picture_of_no_size_is_refused(runs, folder, capsys):
    shutil.copytree(runs / "a", folder / "run")
    path = folder / "run" / "figures" / "image.png"
    png = path.read_bytes()
    end = png[-8:]
    for damaged in (png[:8] + end, png[:16] + b"\xff" * 4 + png[20:], png[:29] + b"\0\0\0\0" + png[33:]):
        path.write_bytes(damaged)
        assert main(["report", str(folder / "run")]) == 2
        assert "figures.json': must list pictures that are there. Got no whole PNG" in capsys.readouterr().err


def test_what_rounds_do_not_say_is_not_counted(folder, capsys):
    chosen = ["train", "--clients", "2", "--epochs", "1"]
    assert main([*chosen, "--rounds", "4", "--out", str(folder / "old")]) == 0
    assert main([*chosen, "--rounds", "3", "--out", str(folder / "whole")]) == 0
    noise = ["--algorithm", "fedavg-unweighted", "--noise-multiplier", "0.01", "--clip", "1", "--sampling", "poisson"]
    assert main([*chosen, "--rounds", "2", *noise, "--out", str(folder / "noise")]) == 0
    # As a run is that an earlier version began, and this one has gone on with.
    path = folder / "old" / "metrics.csv"
    header, *lines = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    column = header.index("communication/bytes_up")
    for line in lines[:2]:
        line[column : column + 2] = "", ""
    path.write_text("\n".join(map(",".join, [header, *lines])) + "\n", encoding="utf-8")
    assert main(["report", str(folder / "old")]) == 0
    page = " ".join(Page((folder / "old" / "report.html").read_text(encoding="utf-8")).texts)
    assert "In 3 of the 4 rounds (it is not stored of others) the clients would have sent 188.4 kB" in page
    assert main(["report", str(folder / "noise")]) == 0
    page = " ".join(Page((folder / "noise" / "report.html").read_text(encoding="utf-8")).texts)
    assert "About 2 clients a round trained one model together in 2 rounds" in page
    both, shown = folder / "both.html", {}
    for one, other in (("old", "whole"), ("noise", "whole")):
        assert main(["report", str(folder / one), str(folder / other), "--out", str(both), "--overwrite"]) == 0
        page = Page(both.read_text(encoding="utf-8"))
        shown[one] = len(page.images), {row[0]: row[1:] for row in page.rows}
    assert [count for count, _ in shown.values()] == [1, 2]
    rows = shown["noise"][1]
    assert "rounds" in rows
    assert rows["clip"] == ["1", "none"]  # and not "not set"
    assert "bucket size" not in rows
    assert rows["privacy"][0].startswith("delta 0.03333; sampling: poisson; neighbours: one client added or removed")
    assert rows["privacy"][1] == "not set"


def test_runs_of_both_commands_are_compared_by_the_same_choices(folder, capsys):
    assert main(["tutorial", "--rounds", "2", "--clients", "3", "--no-figures", "--out", str(folder / "a")]) == 0
    assert main(["train", "--rounds", "3", "--clients", "3", "--client-lr", "0.5", "--out", str(folder / "b")]) == 0
    path = folder / "both.html"
    assert main(["report", str(folder / "a"), str(folder / "b"), "--out", str(path)]) == 0
    rows = {row[0]: tuple(row[1:]) for row in Page(path.read_text(encoding="utf-8")).rows}
    assert rows["client lr"] == ("0.02", "0.5")
    assert rows["rounds"] == ("2", "3")  # not the evaluation before the first
    assert not {"clients", "algorithm", "epochs", "batch size", "client optimizer"} & set(rows)


def test_a_page_says_what_was_done(folder, capsys):
    choices = ["--rounds", "50", "--clients", "2", "--epochs", "1", "--algorithm", "fedsgd", "--server-lr", "0.1"]
    assert main(["train", *choices, "--out", str(folder / "run")]) == 0
    assert main(["report", str(folder / "run")]) == 0
    page = Page((folder / "run" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    assert "every client computes the gradient of the loss over all its examples" in text
    assert "epochs of steps" not in text
    assert "one row in 2 of 51" in text
    (header,) = [row for row in page.rows if row[:1] == ["round"]]
    assert header[1:3] == ["sparse categorical accuracy", "loss"]  # training first
    assert header[3:5] == ["num examples", "num batches"]
    assert header[5:] == ["evaluation sparse categorical accuracy", "evaluation loss"]  # no counts that stay the same


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("name", ["report.html", "figures", "figures/figures.json", "clients.csv", "evaluation.json"])
def test_a_page_is_not_written_through_a_link(runs, folder, name, capsys):
    target = copy(runs, folder)
    if name == "figures":
        shutil.rmtree(target / name)
    else:
        (target / name).unlink()
    (folder / "keys").write_bytes(b"mine")
    (folder / "of another").mkdir()
    (target / name).symlink_to(folder / ("of another" if name == "figures" else "keys"))
    files = ["--train", str(runs / "train.h5"), "--test", str(runs / "test.h5"), "--clients", "1", "--rounds", "1"]
    for command in (["report", str(target)], ["tutorial", *files, "--out", str(target), "--overwrite"]):
        assert main(command) == 2
        assert f"{name}': must be a" in capsys.readouterr().err
        assert (folder / "keys").read_bytes() == b"mine"
        assert not list((folder / "of another").iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_page_does_not_wait_for_a_pipe(runs, folder, capsys):
    for name in ("figures/figures.json", "figures/image.png", "clients.csv", "timings.csv"):
        target = copy(runs, folder)
        (target / name).unlink()
        os.mkfifo(target / name)
        assert main(["report", str(target)]) == 2
        assert f"{name}': must be a file of the run's own. Got a pipe or a device." in capsys.readouterr().err
        shutil.rmtree(target)


def test_the_name_of_a_comparison_may_be_a_link_of_the_user_s(runs, folder, capsys):
    link = folder / "all.html"
    try:
        link.symlink_to(folder / "elsewhere.html")
    except OSError:
        pytest.skip("links need a privilege")
    command = ["report", str(runs / "a"), str(runs / "b"), "--out", str(link)]
    assert main(command) == 2  # it is there, wherever it leads
    assert "use --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert link.is_symlink()
    assert (folder / "elsewhere.html").exists()


@given(st.text("=+-@' \t\rab\uff1d", max_size=6))
def test_no_id_is_a_spreadsheet_s_formula(text):
    cell = cell_of(text)
    assert text_of(cell) == text
    assert cell.strip("' \t\r")[:1] not in ("=", "+", "-", "@", "\uff1d") or cell.startswith("'")


def test_formulas_in_ids_stay_texts_and_come_back(folder):
    ids = ['=HYPERLINK("x","y")', "'=1", "-1", "ann", "'bob"]
    for seed, split in enumerate(("train", "test")):
        arrays = zip(
            ids, [a.to_arrays() for a in map(digits([4] * 5, seed).create_dataset_for_client, DIGIT_IDS)], strict=True
        )
        fed.datasets.write_hdf5(folder / f"{split}.h5", fed.datasets.InMemoryClientData(dict(arrays)))
    files = ["--train", str(folder / "train.h5"), "--test", str(folder / "test.h5"), "--clients", "5", "--rounds", "1"]
    assert main(["tutorial", *files, "--out", str(folder / "run"), "--no-figures"]) == 0
    with open(folder / "run" / "clients.csv", encoding="utf-8", newline="") as file:
        cells = [row["client_id"] for row in csv.DictReader(file)]
    assert sorted(cells) == sorted(["'" + ids[0], "'" + ids[1], "'-1", "ann", "'bob"])
    assert sorted(read_run(folder / "run").clients["client_id"]) == sorted(ids)


DIGIT_IDS = digits([4] * 5).client_ids
