"""A run's page: whole, self-contained, made again from what is stored; runs compared; what damaged files get."""

import base64
import csv
import functools
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import digits
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import fedsim_np as fed
from fedsim_np import plots
from fedsim_np.cli import main
from fedsim_np.report import Picture, read_pictures, read_run, run_pictures, save_pictures
from fedsim_np.runs.folder import FILES
from fedsim_np.runs.stored import PAGE
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


# No HTML, no formula, and not in every font.
AWKWARD = '写手 <b>&"bold"\' $a_^$ price$5$6'


def files_of(folder):
    return ["--train", str(folder / "train.h5"), "--test", str(folder / "test.h5"), "--clients", "4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the command on a few small clients, one with all figures."""
    folder = tmp_path_factory.mktemp("runs of été")
    for seed, split in enumerate(("train", "test")):
        data = digits([12, 7, 0, 9], seed)
        arrays = {c: data.create_dataset_for_client(c).to_arrays() for c in data.client_ids}
        arrays[AWKWARD] = arrays.pop("f0001_01")
        fed.datasets.write_hdf5(folder / f"{split}.h5", fed.datasets.InMemoryClientData(arrays))
    assert main(["tutorial", *files_of(folder), "--rounds", "3", "--out", str(folder / "a"), "--svg"]) == 0
    assert main(["tutorial", *files_of(folder), "--rounds", "2", "--out", str(folder / "b"), "--no-figures"]) == 0
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


def test_two_runs_write_the_same_bytes_but_for_the_seconds(runs, folder):
    again = folder / "again"
    assert main(["tutorial", *files_of(runs), "--rounds", "3", "--out", str(again)]) == 0
    figures = [f"figures/{path.name}" for path in (again / "figures").iterdir()]
    assert len(figures) == 12
    assert not any(name.endswith(".svg") for name in figures)
    # The report shows the seconds, and so does one figure.
    for name in {*FILES, PAGE, *figures} - {"timings.csv", "report.html", "figures/round_costs.png"}:
        assert (runs / "a" / name).read_bytes() == (again / name).read_bytes()


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
    # What is stored suffices for these.
    assert [image["alt"].split()[0] for image in page.images] == ["Curves", "Bands", "A", "An"]
    assert page.headings[3:5] == ["The evaluation", "The model"]
    # Told as the tutorial is, of what it was: other clients in every round, an evaluation that counts once.
    sizes = read_run(folder / "run").clients["num_examples"]
    totals = sorted(sum(sizes[i : i + 2]) for i in (0, 2))
    assert f"with {totals[0]:,} to {totals[1]:,} examples a round, {min(sizes)} to {max(sizes)} a client." in text
    assert "a client reads each of its own images 5 times, once an epoch, and each time counts." in text
    assert "at most 100 clients, and on examples of theirs that nobody trained on, each counted once." in text
    assert "fedsim-np train --config config.json --out again" in text


@pytest.mark.usefixtures("undrawn")
def test_the_absent_took_no_part(folder, capsys):
    choices = ["--rounds", "2", "--clients", "6", "--dropout", "0.5", "--no-reshuffle", "--seed", "1"]
    assert main(["train", *choices, "--out", str(folder / "run")]) == 0
    assert main(["report", str(folder / "run")]) == 0
    clients = read_run(folder / "run").clients
    rows = list(zip(clients["status"], clients["client_id"], clients["num_examples"], strict=True))
    there = [row for row in rows if row[0] != "absent"]
    assert 0 < len(there) < len(rows)
    text = " ".join(Page((folder / "run" / "report.html").read_text(encoding="utf-8")).texts)
    assert f"{len({client for _, client, _ in there})} clients took part, with" in text
    assert f", {min(size for *_, size in there)} to {max(size for *_, size in there)} a client." in text


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
    return shutil.copytree(runs / "a", folder / "run", ignore=shutil.ignore_patterns("*.svg", "checkpoints"))


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


@pytest.mark.usefixtures("undrawn")
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
    # Drawn anew, as far as no data are needed.
    assert [image["alt"].split()[0] for image in page.images] == ["Curves", "Bands", "A", "An"]
    assert page.images[0]["alt"].startswith("Curves of the metrics over 1 round; the table below")
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
    spanish = ["--lang", "es", "--out", str(folder / "es.html")]
    assert main(["report", str(folder / "a"), str(folder / "b"), *spanish]) == 0
    texts, _ = spanish_texts(folder / "es.html")
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert "No hay nada que dibujar: ninguna ejecución tiene valores finitos." in texts


def test_dollar_signs_in_names_are_no_formulas(runs, folder, capsys):
    for name, target in (("a", "$x_^$"), ("b", "$y_^$")):  # an id has them too
        shutil.copytree(runs / name, folder / target)
    assert AWKWARD in read_run(runs / "a").clients["client_id"]
    assert main(["report", str(folder / "$x_^$"), str(folder / "$y_^$"), "--out", str(folder / "c.html")]) == 0
    assert "$x_^$: " in Page((folder / "c.html").read_text(encoding="utf-8")).images[0]["alt"]


def test_a_picture_of_no_size_is_refused(runs, folder, capsys):
    shutil.copytree(runs / "a", folder / "run")
    path = folder / "run" / "figures" / "image.png"
    png = path.read_bytes()
    end = png[-8:]
    for damaged in (png[:8] + end, png[:16] + b"\xff" * 4 + png[20:], png[:29] + b"\0\0\0\0" + png[33:]):
        path.write_bytes(damaged)
        assert main(["report", str(folder / "run")]) == 2
        assert "figures.json': must list pictures that are there. Got no whole PNG" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
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
    page = Page(path.read_text(encoding="utf-8"))
    rows = {row[0]: tuple(row[1:]) for row in page.rows}
    assert rows["client lr"] == ("0.02", "0.5")
    others = "Warning: not all settings were evaluated on the same test clients (a and b were not)"  # 3 and 30
    assert sum(others in text for text in page.texts) == len(page.images) > 0
    assert rows["rounds"] == ("2", "3")  # not the evaluation before the first
    assert not {"clients", "algorithm", "epochs", "batch size", "client optimizer"} & set(rows)


@pytest.mark.usefixtures("undrawn")
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
    assert header[1:3] == ["accuracy", "loss"]  # training first
    assert header[3:5] == ["examples", "batches"]
    assert header[5:] == ["evaluation accuracy", "evaluation loss"]  # no counts that stay the same


@pytest.mark.usefixtures("undrawn")
def test_a_page_says_who_was_not_there_for_all_of_a_round(folder, capsys):
    choices = ["--rounds", "2", "--clients", "4", "--dropout", "0.1", "--stragglers", "0.9", "--evaluate-every", "0"]
    assert main(["train", *choices, "--out", str(folder / "run")]) == 0
    assert "partial" in fed.program.read_run(folder / "run").clients["status"]
    path = folder / "run" / "report.html"
    for lang, counts in (
        ("en", ("5 times, once an epoch, or less often", "probability of 0.1.", "fewer epochs, at least 1.")),
        ("es", ("5 veces, una por época, o menos", "probabilidad de 0.1.", "menos épocas, al menos 1.")),
    ):
        assert main(["report", str(folder / "run"), "--lang", lang]) == 0
        text = " ".join(Page(path.read_text(encoding="utf-8")).texts)
        assert [said for said in counts if said not in text] == []
    config = folder / "run" / "config.json"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"drop_stragglers": false', '"drop_stragglers": true'), "utf-8"
    )
    assert main(["report", str(folder / "run"), "--lang", "en"]) == 0
    assert "for whom the server did not wait" in path.read_text(encoding="utf-8")


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


ENGLISH = re.compile(r"\b(the|of|and|with|each|which|from|that|were|is|are|its|their)\b", re.IGNORECASE)


def spanish_texts(path):
    """Return what a page says, without what is typed."""
    html = path.read_text(encoding="utf-8")
    assert '<html lang="es">' in html
    page = Page(re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", html, flags=re.DOTALL))
    labels = re.findall(r'aria-label="([^"]*)"', html)
    return [*page.texts, *(image["alt"] for image in page.images), *labels], page


def test_a_page_in_spanish_has_no_english_left(runs, folder, capsys):
    shutil.copytree(runs / "a", folder / "run")
    before = {path.name: path.read_bytes() for path in (folder / "run" / "figures").glob("*.png")}
    assert main(["report", str(folder / "run"), "--lang", "es"]) == 0
    texts, page = spanish_texts(folder / "run" / "report.html")
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert page.headings[1:] == ["Los datos", "Las rondas", "La evaluación", "El modelo", "Para repetirla"]
    said = " ".join(texts)
    assert "Los 140 ejemplos de una ronda son repeticiones de 28 imágenes" in said
    assert "3 sin ejemplos (clients.csv dice cuáles)" in said
    pictures = read_pictures(folder / "run")
    assert {picture.lang for picture in pictures} == {"es"}
    assert [image["alt"] for image in page.images] == [picture.alt for picture in pictures]
    after = {path.name: path.read_bytes() for path in (folder / "run" / "figures").glob("*.png")}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] == before[name]] == []
    assert len(list((folder / "run" / "figures").glob("*.svg"))) == len(after)  # as it was made
    # From now on it is a Spanish run; and back again it is what it was.
    html = (folder / "run" / "report.html").read_bytes()
    assert main(["report", str(folder / "run")]) == 0
    assert (folder / "run" / "report.html").read_bytes() == html
    assert main(["report", str(folder / "run"), "--lang", "en"]) == 0
    back = {path.name: path.read_bytes() for path in (folder / "run" / "figures").glob("*.png")}
    assert back == before


def test_a_tutorial_in_spanish(runs, folder, capsys):
    files = ["--train", str(runs / "train.h5"), "--test", str(runs / "test.h5"), "--clients", "1", "--rounds", "1"]
    assert main(["tutorial", *files, "--lang", "es", "--out", str(folder / "run")]) == 0
    texts, page = spanish_texts(folder / "run" / "report.html")
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert len(page.images) == 11
    assert "1 cliente por ronda entrenó un modelo en 1 ronda sin entregar sus datos" in " ".join(texts)
    assert read_run(folder / "run").config["command_line"].endswith("--lang es")
    for name in ("config.json", "metrics.csv", "clients.csv"):
        assert (folder / "run" / name).exists()
    capsys.readouterr()
    assert main(["tutorial", *files, "--lang", "es"]) == 2
    assert "--lang is about the report in --out DIR" in capsys.readouterr().err
    assert main(["report", str(folder / "run"), "--lang", "fr"]) == 2


def test_runs_are_compared_in_spanish(runs, folder, capsys):
    path = folder / "both.html"
    assert main(["report", str(runs / "a"), str(runs / "b"), "--lang", "es", "--out", str(path)]) == 0
    texts, page = spanish_texts(path)
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert page.headings[1:] == ["En qué se diferencian", "Cómo evolucionaron", "Cómo terminaron"]


def test_figures_that_cannot_be_drawn_again_are_left_out_of_a_page_in_another_language(runs, folder, capsys):
    shutil.copytree(runs / "a", folder / "run")
    config = (folder / "run" / "config.json").read_text(encoding="utf-8")
    (folder / "run" / "config.json").write_text(config.replace("train.h5", "gone.h5"), encoding="utf-8")
    stored = {path.name: path.read_bytes() for path in (folder / "run" / "figures").iterdir()}
    assert main(["report", str(folder / "run"), "--lang", "es"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("note: figures in another language are left out, which need the data: ")
    assert error.count("\n") == 1
    texts, page = spanish_texts(folder / "run" / "report.html")
    assert len(page.images) == 4  # those that need none
    assert [text for text in texts if ENGLISH.search(text)] == []
    assert {path.name: path.read_bytes() for path in (folder / "run" / "figures").iterdir()} == stored


def test_of_a_run_that_is_extended_nothing_tells_of_fewer_rounds(tmp_path):
    run = tmp_path / "run"
    assert main(["tutorial", "--rounds", "1", "--clients", "2", "--no-figures", "--out", str(run)]) == 0
    stored = read_run(run)
    assert stored.history["round_num"] == [1]
    assert isinstance(stored.history["round_num"][0], int)
    assert stored.config["command_line"] == "fedsim-np tutorial --clients 2 --rounds 1"
    figure = Picture.of(Figure(), "learning_curves", "rounds", "a picture", "of one round")
    save_pictures(run, [figure])
    assert main(["train", "--out", str(run), "--resume", "--rounds", "2"]) == 0
    assert not list(run.glob("figures/*"))
    assert not (run / "report.html").exists()
    assert "command_line" not in read_run(run).config


def test_what_is_drawn_without_data_is_what_means_something(folder, monkeypatch):
    """A stored run's pictures by what it was; none of them is drawn here."""

    def named(run, *but):
        return [picture.name for picture in run_pictures.stored_pictures(read_run(run), "en", but)]

    monkeypatch.setattr(run_pictures.Picture, "of", lambda figure, name, *_: Picture(name, "", "", "", b"", figure))
    always, figures = ["learning_curves", "client_accuracy", "round_costs"], {}
    for name in (*always, "class_weights"):
        draw = functools.wraps(getattr(plots, name))(lambda *what, _name=name, **_: figures.update({_name: what}))
        monkeypatch.setattr(plots, name, draw)
    small = ["--rounds", "2", "--clients", "2", "--epochs", "1", "--quiet"]
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        x = rng.random((2, 5, 784), np.float32)
        arrays = {f"c{i}": {"x": x[i], "y": rng.integers(3, size=5).astype(np.int32)} for i in range(2)}
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", fed.datasets.InMemoryClientData(arrays))
    for name, *choices, expected in (
        ("softmax", [*always, "class_weights"]),
        ("mlp", "--model", "mlp", "--hidden", "3", always),
        ("numbers", "--model", "linear", ["learning_curves", "round_costs"]),
        ("own", "--data", str(folder / "own"), always),  # 784 features, and perhaps no pixels
    ):
        assert main(["train", *small, *choices, "--out", str(folder / name)]) == 0
        assert named(folder / name) == expected
        assert named(folder / name, *always) == expected[3:] * (name != "numbers")
    # Every client's of every round, as stored; and a model that was given 1 - x speaks the other way round.
    figures.clear()
    chosen = ["--invert", "--clients", "6", "--dropout", "0.5", "--seed", "1"]
    assert main(["train", *small, *chosen, "--out", str(folder / "ink")]) == 0
    assert named(folder / "ink") == [*always, "class_weights"]
    run = read_run(folder / "ink")
    assert np.array_equal(figures["class_weights"][0], -run.weights.trainable[0])
    shares, statuses = run.clients["sparse_categorical_accuracy"], run.clients["status"]
    there = [share for share, status in zip(shares, statuses, strict=True) if status != "absent"]
    drawn = np.concatenate(figures["client_accuracy"][0])
    assert len(figures["client_accuracy"][0]) == 2
    assert drawn[np.isfinite(drawn)].tolist() == there
    assert 0 < len(there) < len(drawn) == 12
    # A stranger's table.
    path = folder / "ink" / "clients.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(str(there[0]), "high"), encoding="utf-8")
    with pytest.raises(fed.DataError, match=r"clients\.csv': columns 'round_num' and 'sparse_.*' must hold numbers"):
        named(folder / "ink")
