"""What the README shows is run, and the figures in it and in the pages of fedsim_np/docs are those that were stored.

test_docs.py runs the pages' code.
"""

import inspect
import json
import re
from pathlib import Path

import pytest
from conftest import PAGES, digits, run_page

import fedsim_np as fed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page_of(stem):
    return (PAGES / f"{stem}.md").read_text(encoding="utf-8")


def stored(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def in_one_line(text):
    return " ".join(text.split())


def blocks(language, text=README):
    return re.findall(rf"```{language}(?: [^\n]*)?\n(.*?)```", text, flags=re.DOTALL)


def test_the_arguments_of_tff_that_are_missing(tff_figures):
    learning = fed.learning
    quantile = learning.aggregators.PrivateQuantileEstimationProcess
    places = learning, learning.optimizers, learning.aggregators, learning.metrics, quantile, fed.program
    missing = set()
    for name, of_tff in tff_figures["parameters"].items():
        own = inspect.signature(next(getattr(place, name) for place in places if hasattr(place, name))).parameters
        missing |= set(of_tff) - set(own)
        for parameter, default in of_tff.items():
            if parameter in own and default is not None:
                assert repr(own[parameter].default) == default, (name, parameter)
    said = re.search(r"Arguments that are not there:(.*?)\n\n", page_of("tff"), flags=re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", said)) - set(tff_figures["parameters"]) == missing


@pytest.mark.parametrize("language", ["bash", "powershell"])
def test_the_two_commands(language):
    first, second = blocks(language)[0].splitlines()
    assert first.endswith("fedsim-np tutorial")
    assert second.endswith("python -m pytest -n auto")


def test_what_the_algorithms_cost():
    text, algorithms = in_one_line(page_of("speed")), stored("algorithms")
    one, five = (algorithms[f"rounds: 100 of 400, epochs: {n}"]["times as long as fed_avg"] for n in (1, 5))
    ratios = (
        "SCAFFOLD's take {scaffold:.1f} times as long as FedAvg's, FedDyn's {fed_dyn:.1f}, FedNova's {fed_nova:.1f},"
    )
    assert f"{ratios.format(**one)} Ditto's {one['ditto']:.1f};" in text
    ratios = f"Mime Lite's {one['mime_lite']:.1f}, with five epochs {five['mime_lite']:.1f}, q-FedAvg's"
    assert f"{ratios} {one['q_fed_avg']:.1f} and {five['q_fed_avg']:.1f}." in text
    option_i = "scaffold, option i"
    assert f"option i takes {one[option_i]:.1f} and {five[option_i]:.1f}." in text
    saved = algorithms["checkpoint of scaffold with 3383 clients"]
    said = f"{saved['MB of the file']:.0f} MB, saved in {saved['save, s']:.1f} s and loaded in {saved['load, s']:.1f} ("
    assert said in text


def test_what_paper_does_is_as_measured():
    text, paper = in_one_line(page_of("your_data")), stored("paper")["data"]
    sample, inverted = (paper["sample"][word] for word in ("paper is 1", "ink is 1"))
    assert f"falls in {sample['share_of_rounds_that_fell']:.0%} of the rounds by more than 0.01" in text
    assert f"once by {sample['largest_fall']:.2f}, and ends twenty rounds between" in text
    assert "between {:.2f} and {:.2f}; on".format(*sample["ends"][::2]) in text
    assert f"falls by more than {inverted['largest_fall']:.2f} and ends between" in text
    assert "between {:.2f} and {:.2f}. With more".format(*inverted["ends"][::2]) in text
    falls = [paper["synthetic, 100 writers"][word]["largest_fall"] for word in ("paper is 1", "ink is 1")]
    assert "the largest fall is {:.2f} against {:.2f} (`benchmarks/paper.py`".format(*falls) in text


def test_the_promises_are_those_that_were_measured():
    page, soak = page_of("reproducibility"), stored("soak")
    assert soak["kills"]["byte-identical"]
    assert f"SIGKILL at {soak['kills']['kills']} random moments" in page
    assert all(same is True for name, same in soak["same-bytes"].items() if name != "seconds")
    assert soak["disk"]["one line and status 2"]
    assert soak["disk"]["they are whole"]
    assert soak["disk"]["resumed, byte-identical"]
    attacks = {name: part for name, part in soak.items() if isinstance(part, dict) and "came through" in part}
    assert len(attacks) == 13
    assert all(part["came through"] == [] for part in attacks.values())
    changed, crafted, small = (soak[name]["files"] for name in ("hdf5-bytes", "hdf5-structure", "small-files"))
    assert f"{changed:,} HDF5 files with one changed byte, {crafted:,} crafted ones, {small:,} damaged" in page
    bad = len(soak["hdf5-bytes"]["bad"]) + len(soak["hdf5-structure"]["bad"])
    assert f"{bad} of the HDF5 files crash HDF5, hang or take the memory" in page
    assert f"places, {soak['links']['tried']} in all" in page
    assert f"{soak['kept-rows']['seeds']} runs on rows that change in place" in page
    assert f"{soak['memory']['growth after round 50, %']} % growth after round 50" in page
    assert soak["memory"]["handles flat"]


def test_the_code_is_run(folder, monkeypatch, capsys):
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 22
    monkeypatch.chdir(folder)
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"fed_emnist_digitsonly_{split}.h5", digits([5] * 11, seed))
    own_data(folder)
    smaller = [("population 100 --clients 10 --rounds 50", "population 30 --clients 3 --rounds 2")]
    smaller += [("--rounds 60", "--rounds 3"), ("--rounds 20", "--rounds 2")]
    run_page(ROOT / "README.md", smaller=smaller)
    out = capsys.readouterr().out
    assert out.count("done: 2 rounds in") == 2
    assert out.count("done: 3 rounds in run") == 1


def own_data(folder, names=("healthy", "ill", "very ill")):
    """Write the file of the page on one's own data, with other names of the diagnoses."""
    code = blocks("python", page_of("your_data"))[0]
    exec(compile(code.replace('["healthy", "ill", "very ill"]', repr(list(names))), "your_data.md", "exec"), {})


@pytest.mark.parametrize("names", [("healthy", "ill", "very ill"), ("0", "1", "2")])
@pytest.mark.parametrize("source", ["measurements.csv", "features.npy"])
def test_your_own_data_in_ten_lines(source, names, folder, monkeypatch, capsys):
    code = [block for block in blocks("python", page_of("your_data")) if source in block][1]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10
    monkeypatch.chdir(folder)
    own_data(folder, names)
    exec(compile(code, "your_data.md", "exec"), {})
    accuracy = re.findall(r"'sparse_categorical_accuracy'[:,] ([\d.]+)", capsys.readouterr().out)[-1]
    assert float(accuracy) > 0.8  # 0.33 by chance


def test_every_name_exists_and_every_link_leads_somewhere():
    for path in (ROOT / "README.md", *PAGES.glob("*.md")):
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for name in re.findall(r"`(fed(?:\.\w+)+)", text):
            owner = fed
            for part in name.split(".")[1:]:
                owner = getattr(owner, part)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert link.startswith("https://") or (path.parent / link).is_file(), (path.name, link)


def test_the_figures_of_the_data_page():
    page, card = page_of("your_data"), (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, value in stored("realism")["measures"].items():
        if "milliseconds" in name:
            assert f"A hundred images take {value:.0f} ms" in page
        elif "seconds" in name:
            assert f"{value:.0f} s on two" in page
        else:
            assert f"| {value:.3f} |" in page
            assert f"| {value:.3f} |" in card


def test_the_readme_says_how_fast_it_is():
    text, startup = in_one_line(README), stored("startup")
    assert f"takes {startup['import fedsim_np beyond numpy and h5py']:.2f} s more" in text
    assert f"of ten clients, {startup['seconds']['tutorial command']:.1f} s" in text
    (tutorial, wide, _), contenders = stored("round")["work"].values(), stored("200")["contenders"]
    for measured, said in (
        (tutorial, "takes {:.1f} ms on two cores, {:.1f} times as fast as the same in plain NumPy"),
        (wide, "100 clients and one epoch, {:.1f} ms, {:.1f} times as fast."),
    ):
        assert said.format(measured["ms"]["auto"], measured["times as fast as plain_numpy.py"]["auto"]) in text
    ratios = [
        ratio
        for name, measured in stored("research")["work"].items()
        for way, ratio in measured["times as fast as plain_numpy.py"].items()
        if way != "plain_numpy" and not name.startswith("own model")
    ]
    assert f"new every round it is {min(ratios):.1f} to {max(ratios):.1f} times as fast" in text
    seconds = [of_one["seconds, start to end"] for of_one in contenders.values()]
    said = "takes {:.1f} s from start to end, plain NumPy {:.1f}, FedJAX {:.1f} and PyTorch {:.1f} ("
    assert said.format(*seconds) in text


def test_the_figures_of_the_speed_page():
    page = page_of("speed")
    text = in_one_line(page)
    peers = stored("peers")["peers"]
    for name, measured in stored("round")["work"].items():
        ms, ratio = measured["ms"], measured["times as fast as plain_numpy.py"]["auto"]
        key, frameworks = name.split()[0].rstrip(":"), ("TensorFlow Federated", "PyTorch", "FedJAX", "Flower")
        others = [peers[framework]["ms"][key] for framework in frameworks]
        cells = [f"{ms['auto']:.1f}", f"{ratio:.1f}", f"{ms['plain_numpy']:.0f}", f"{ms['loop']:.0f}"]
        assert f"| {name} | {' | '.join([*cells, *(f'{other:,.0f}' for other in others)])} |" in page
    research = stored("research")
    for name, measured in research["work"].items():
        for way, ratio in measured["times as fast as plain_numpy.py"].items():
            ms, plain = measured["ms"][way], measured["ms"]["plain_numpy"]
            assert way == "plain_numpy" or f"| {name} | {way} | {ms:.0f} | {ratio:.1f} | {plain:.0f} |" in page
    mlp = stored("mlp")["times as fast as plain_numpy.py"]["cohort"]
    assert f"{mlp:.1f} times as fast as the same written out in plain NumPy" in text
    run = research["training, 10 of 100 x 5 epochs"]
    assert f"takes {run['times as long']:.2f} times as long as the same rounds" in text
    for of_one in stored("200")["contenders"].values():
        seconds, ratio = of_one["seconds, start to end"], of_one["times as long as fedsim_np"]
        assert f"| {seconds:.1f} | {ratio:.1f} | {of_one['peak MB']:,} | {of_one['loss']:.3f} |" in page
    new, warm, first = (stored("shapes")["verdict"][what] for what in ("new", "warm", "first"))
    under, loop = ([found[key] for found in (new, warm, first)] for key in ("best/auto under 0.9", "loop/auto under 1"))
    said = "in {} where orders are new, in {} where clients and orders come again, and in {} in a first".format(*under)
    assert said in text
    assert f"the loop is faster in {loop[0]}, {loop[1]} and {loop[2]} (" in text
    scale = stored("scale")
    cohort = scale["cohort, from HDF5, 5 epochs"]["3383"]["2 threads"]
    per_thousand = scale["seconds per 1,000 clients, first round"]["3383"]["2 threads"]
    assert f"take {cohort['first round, s']:.1f} s in the first round, {per_thousand:.1f} s per" in text
    assert f"with a peak of {cohort['peak MB']:,} MB" in text
    population = scale["population, drawn on demand, 1 epoch"]["1000000"]["2 threads"]
    assert f"{population['first round, s']:.1f} s out of 1,000,000" in text
    peak = scale["2NN, 1000 clients from HDF5, 1 epoch"]["2 threads"]["peak MB"]
    assert f"stays under {peak + 1} MB" in text
    two = scale["workers, 1000 clients in memory, 1 epoch, warm"]["two workers against one"]
    assert f"Two threads are {two:.2f} times as fast as one" in text
    cold = stored("load")["round of 100 clients x 1 epoch"]["ms"]
    assert f"before take {cold['cold round']:.0f} ms, of which h5py alone would need {cold['h5py alone']:.0f}" in text


def test_the_study_is_the_one_that_was_measured():
    page, found = page_of("studies"), stored("sweep")
    (grid,) = blocks("toml", page)
    assert grid == (ROOT / "benchmarks" / "sweep.toml").read_text(encoding="utf-8")
    assert len(grid.splitlines()) <= 15
    text = in_one_line(page)
    said = f"These {found['runs']} runs of {found['rounds']} rounds take {found['seconds by two processes']:.0f} s"
    assert said in text
    assert f"two are {found['runs of one seed']['times as fast']:.2f} times as fast as one" in text
    assert found["the same results.csv"]
    assert len(found["killed after runs"]) == 2


def test_the_figures_of_attacks():
    page, accuracies = page_of("privacy_and_attackers"), stored("attacks")["accuracy"]
    rows = re.findall(r"^\| (iid|shards) \| ([^|]+) \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 5
    columns = re.search(r"\| clients \| attack \| (.*) \|", page)[1].split(" | ")
    for kind, attack, shown in rows:
        assert shown == " | ".join(f"{accuracies[kind][attack][rule]:.3f}" for rule in columns)


def test_the_figures_of_messages():
    runs = stored("communication")["runs"]
    rows = re.findall(r"^\| ([^|]+) \| (\d[\d. |-]*) \|$", page_of("messages"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(runs)
    for name, shown in rows:
        assert shown == " | ".join(map(str, runs[name].values()))
