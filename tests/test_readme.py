"""What the README shows is run."""

import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import digits

import fedsim_np as fed
from fedsim_np.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


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
    said = re.search(r"Arguments that are not there:(.*?)\n\n", README, flags=re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", said)) - set(tff_figures["parameters"]) == missing


def test_the_tutorial_in_twenty_lines(folder, monkeypatch, capsys):
    code = blocks("python")[0]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 22
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"fed_emnist_digitsonly_{split}.h5", digits([5] * 11, seed))
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.count("round ") == 10
    assert "current_round_metrics" in out


def test_an_algorithm_of_ones_own(capsys):
    (code,) = (block for block in blocks("python") if "LocalTraining" in block)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all("cohort" in line and "confidence" in line for line in lines)


@pytest.mark.parametrize("language", ["bash", "powershell"])
def test_the_two_commands(language):
    first, second = blocks(language)[0].splitlines()
    assert first.endswith("fedsim-np tutorial")
    assert second.endswith("python -m pytest -n auto")


def test_every_name_in_the_table_exists():
    names = re.findall(r"`(fed(?:\.\w+)+)", README)
    assert len(names) >= 15
    for name in names:
        owner = fed
        for part in name.split(".")[1:]:
            owner = getattr(owner, part)


def test_the_shown_figures_are_the_stored_ones():
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    realism = json.loads((results / "realism.json").read_text(encoding="utf-8"))["measures"]
    startup = json.loads((results / "startup.json").read_text(encoding="utf-8"))
    card = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    for name, value in realism.items():
        if "milliseconds" in name:
            assert f"A hundred images take {value:.0f} ms" in README
        elif "seconds" in name:
            assert f"{value:.0f} s on two" in README
        else:
            assert f"| {value:.3f} |" in README
            assert f"| {value:.3f} |" in card
    work = json.loads((results / "round.json").read_text(encoding="utf-8"))["work"]
    peers = json.loads((results / "peers.json").read_text(encoding="utf-8"))["peers"]
    for name, measured in work.items():
        ms, ratio = measured["ms"], measured["times as fast as plain_numpy.py"]["auto"]
        key, frameworks = name.split()[0].rstrip(":"), ("TensorFlow Federated", "PyTorch", "FedJAX", "Flower")
        others = [peers[framework]["ms"][key] for framework in frameworks]
        cells = [f"{ms['auto']:.1f}", f"{ratio:.1f}", f"{ms['plain_numpy']:.0f}", f"{ms['loop']:.0f}"]
        assert f"| {name} | {' | '.join([*cells, *(f'{other:,.0f}' for other in others)])} |" in README
    research = json.loads((results / "research.json").read_text(encoding="utf-8"))["work"]
    for name, measured in research.items():
        for way, ratio in measured["times as fast as plain_numpy.py"].items():
            ms, plain = measured["ms"][way], measured["ms"]["plain_numpy"]
            assert way == "plain_numpy" or f"| {name} | {way} | {ms:.0f} | {ratio:.1f} | {plain:.0f} |" in README
    mlp = json.loads((results / "mlp.json").read_text(encoding="utf-8"))["times as fast as plain_numpy.py"]["cohort"]
    text = " ".join(README.split())
    assert f"{mlp:.1f} times as fast as the same written out in plain NumPy" in text
    run = json.loads((results / "research.json").read_text(encoding="utf-8"))["training, 10 of 100 x 5 epochs"]
    assert f"takes {run['times as long']:.2f} times as long as the same rounds" in text
    whole = json.loads((results / "200.json").read_text(encoding="utf-8"))["contenders"]
    for of_one in whole.values():
        seconds, ratio = of_one["seconds, start to end"], of_one["times as long as fedsim_np"]
        assert f"| {seconds:.1f} | {ratio:.1f} | {of_one['peak MB']:,} | {of_one['loss']:.3f} |" in README
    new, warm, first = (
        json.loads((results / "shapes.json").read_text(encoding="utf-8"))["verdict"][what]
        for what in ("new", "warm", "first")
    )
    under, loop = ([found[key] for found in (new, warm, first)] for key in ("best/auto under 0.9", "loop/auto under 1"))
    said = "in {} where orders are new, in {} where clients and orders come again, and in {} in a first".format(*under)
    assert said in text
    assert f"the loop is faster in {loop[0]}, {loop[1]} and {loop[2]} (" in README
    scale = json.loads((results / "scale.json").read_text(encoding="utf-8"))
    cohort = scale["cohort, from HDF5, 5 epochs"]["3383"]["2 threads"]
    per_thousand = scale["seconds per 1,000 clients, first round"]["3383"]["2 threads"]
    assert f"take {cohort['first round, s']:.1f} s in the first round, {per_thousand:.1f} s per" in README
    assert f"with a peak of {cohort['peak MB']:,} MB" in README
    population = scale["population, drawn on demand, 1 epoch"]["1000000"]["2 threads"]
    assert f"{population['first round, s']:.1f} s out of 1,000,000" in text
    peak = scale["2NN, 1000 clients from HDF5, 1 epoch"]["2 threads"]["peak MB"]
    assert f"stays under {peak + 1} MB" in text
    two = scale["workers, 1000 clients in memory, 1 epoch, warm"]["two workers against one"]
    assert f"Two threads are {two:.2f} times as fast as one" in text
    cold = json.loads((results / "load.json").read_text(encoding="utf-8"))["round of 100 clients x 1 epoch"]["ms"]
    assert f"before take {cold['cold round']:.0f} ms, of which h5py alone would need {cold['h5py alone']:.0f}" in README
    assert f"takes {startup['import fedsim_np beyond numpy and h5py']:.2f} s more" in README
    assert f"of ten clients, {startup['seconds']['tutorial command']:.1f} s" in README


def test_what_the_algorithms_cost():
    text, results = " ".join(README.split()), Path(__file__).parents[1] / "benchmarks" / "results"
    algorithms = json.loads((results / "algorithms.json").read_text(encoding="utf-8"))
    one, five = (algorithms[f"rounds: 100 of 400, epochs: {n}"]["times as long as fed_avg"] for n in (1, 5))
    ratios = (
        "SCAFFOLD's take {scaffold:.1f} times as long as FedAvg's, FedDyn's {fed_dyn:.1f}, FedNova's {fed_nova:.1f},"
    )
    assert f"{ratios.format(**one)} Ditto's {one['ditto']:.1f};" in text
    ratios = f"Mime Lite's {one['mime_lite']:.1f}, with five epochs {five['mime_lite']:.1f}, q-FedAvg's"
    assert f"{ratios} {one['q_fed_avg']:.1f} and {five['q_fed_avg']:.1f}." in text
    option_i = "scaffold, option i"
    assert f"option i takes {one[option_i]:.1f} and {five[option_i]:.1f}." in text
    stored = algorithms["checkpoint of scaffold with 3383 clients"]
    said = (
        f"{stored['MB of the file']:.0f} MB, saved in {stored['save, s']:.1f} s and loaded in {stored['load, s']:.1f} ("
    )
    assert said in text


def test_a_study(folder, monkeypatch, capsys):
    (grid,), (commands,) = blocks("toml"), [block for block in blocks("bash") if "fedsim-np sweep" in block]
    root = Path(__file__).parents[1] / "benchmarks"
    assert grid == (root / "sweep.toml").read_text(encoding="utf-8")
    assert len(grid.splitlines()) <= 15
    monkeypatch.chdir(folder)
    if sys.version_info >= (3, 11):
        for full, small in (
            (" 100 ", " 3 "),
            ("= 100\n", "= 2\n"),
            ("= 10 ", "= 2 "),
            ("= 5\n", "= 1\n"),
            ("= 5 ", "= 1 "),
        ):
            grid = grid.replace(full, small)
        Path("sweep.toml").write_text(grid.replace("0.03, 0.1, ", ""), encoding="utf-8")
        for line in commands.splitlines():
            assert main(line.split()[1:]) == 0
        assert "written study" in capsys.readouterr().out.splitlines()[-1]
        assert len(Path("study/results.csv").read_text(encoding="utf-8").splitlines()) == 1 + 6
    (code,) = [block for block in blocks("python") if "fed.program.sweep" in block]
    names = {"fed": fed}
    exec(compile(code, "README.md", "exec"), names)
    assert [(row["client_lr"], row["seed"]) for row in names["rows"]] == [(0.02, 0), (0.02, 1), (0.1, 0), (0.1, 1)]
    found, text = json.loads((root / "results" / "sweep.json").read_text(encoding="utf-8")), " ".join(README.split())
    assert (
        f"These {found['runs']} runs of {found['rounds']} rounds take {found['seconds by two processes']:.0f} s" in text
    )
    assert f"two are {found['runs of one seed']['times as fast']:.2f} times as fast as one" in text
    assert found["the same results.csv"]
    assert len(found["killed after runs"]) == 2


def test_what_paper_does_is_as_measured():
    text = " ".join(README.split())
    paper = json.loads(
        (Path(__file__).parents[1] / "benchmarks" / "results" / "paper.json").read_text(encoding="utf-8")
    )["data"]
    sample, inverted = (paper["sample"][word] for word in ("paper is 1", "ink is 1"))
    assert f"falls in {sample['share_of_rounds_that_fell']:.0%} of the rounds by more than 0.01" in text
    assert f"once by {sample['largest_fall']:.2f}, and ends twenty rounds between" in text
    assert "between {:.2f} and {:.2f}; on".format(*sample["ends"][::2]) in text
    assert f"falls by more than {inverted['largest_fall']:.2f} and ends between" in text
    assert "between {:.2f} and {:.2f}. With more".format(*inverted["ends"][::2]) in text
    falls = [paper["synthetic, 100 writers"][word]["largest_fall"] for word in ("paper is 1", "ink is 1")]
    assert "the largest fall is {:.2f} against {:.2f} (`benchmarks/paper.py`".format(*falls) in text


def test_the_training_commands(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = [line for block in blocks("bash") if "fedsim-np train" in block for line in block.splitlines()]
    assert len(lines) == 8
    for line in lines:
        words = [{"1000": "30", "50": "3", "200": "4", "300": "6"}.get(word, word) for word in line.split()[1:]]
        assert main(words) == 0
    out = capsys.readouterr().out
    assert "done: 4 rounds in run" in out
    assert "done already" in out
    assert "promised: epsilon" in out


def test_the_promises_are_those_that_were_measured():
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    soak = json.loads((results / "soak.json").read_text(encoding="utf-8"))
    assert soak["kills"]["byte-identical"]
    assert f"SIGKILL at {soak['kills']['kills']} random moments" in README
    assert all(same is True for name, same in soak["same-bytes"].items() if name != "seconds")
    assert soak["disk"]["one line and status 2"]
    assert soak["disk"]["they are whole"]
    assert soak["disk"]["resumed, byte-identical"]
    attacks = {name: part for name, part in soak.items() if isinstance(part, dict) and "came through" in part}
    assert len(attacks) == 13
    assert all(part["came through"] == [] for part in attacks.values())
    changed, crafted, small = (soak[name]["files"] for name in ("hdf5-bytes", "hdf5-structure", "small-files"))
    assert f"{changed:,} HDF5 files with one changed byte, {crafted:,} crafted ones, {small:,} damaged" in README
    bad = len(soak["hdf5-bytes"]["bad"]) + len(soak["hdf5-structure"]["bad"])
    assert f"{bad} of the HDF5 files crash HDF5, hang or take the memory" in README
    assert f"places, {soak['links']['tried']} in all" in README
    assert f"{soak['kept-rows']['seeds']} runs on rows that change in place" in README
    assert f"{soak['memory']['growth after round 50, %']} % growth after round 50" in README
    assert soak["memory"]["handles flat"]


def own_data(folder, names=("healthy", "ill", "very ill")):
    """Write what the README's section on one's own data reads; return the share of the commonest class."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 600)
    x = rng.standard_normal((600, 4)) + 2 * np.eye(4)[y]
    np.save(folder / "features.npy", x)
    np.save(folder / "labels.npy", y)
    rows = [",".join([f"hospital {i % 7}", *map(str, x[i]), names[y[i]]]) for i in range(600)]
    text = "\n".join(["hospital,age,weight,pulse,pressure,diagnosis", *rows])
    (folder / "measurements.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("names", [("healthy", "ill", "very ill"), ("0", "1", "2")])
@pytest.mark.parametrize("source", ["measurements.csv", "features.npy"])
def test_your_own_data_in_ten_lines(source, names, folder, monkeypatch, capsys):
    (code,) = [block for block in blocks("python") if source in block]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10
    own_data(folder, names)
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    accuracy = re.findall(r"'sparse_categorical_accuracy'[:,] ([\d.]+)", capsys.readouterr().out)[-1]
    assert float(accuracy) > 0.8  # 0.33 by chance


def test_scikit_learn(capsys):
    pytest.importorskip("sklearn")
    (code,) = [block for block in blocks("python") if "fed.sklearn" in block]
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 600)
    names = {"X": 100 + rng.standard_normal((600, 4)) + 2 * np.eye(4)[y], "y": y, "hospital": np.arange(600) % 7}
    exec(compile(code, "README.md", "exec"), names)
    score = float(capsys.readouterr().out.split()[-1])
    assert score > 0.8  # 0.33 by chance
    assert names["search"].best_estimator_[-1].n_clients_ == 7


def test_the_loggers_lines_are_the_pages():
    (code,) = [block for block in blocks("python") if "MLflowLogger" in block]
    page = (Path(fed.__file__).parent / "docs" / "loggers.md").read_text(encoding="utf-8")
    assert all(f"    {line}\n" in page for line in code.splitlines())


def test_the_own_data_commands(folder, monkeypatch, capsys):
    (block,) = [block for block in blocks("bash") if "measurements.csv" in block]
    own_data(folder)
    monkeypatch.chdir(folder)
    for line in block.splitlines():
        assert main(line.split()[1:]) == 0
    assert "clients             20 (0 without examples)" in capsys.readouterr().out


def test_the_data_commands(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (block,) = [block for block in blocks("bash") if "data synthesize" in block]
    for line in block.splitlines():
        assert main([word if word != "3383" else "3" for word in line.split()[1:]]) == 0
    assert "3 (0 without examples)" in capsys.readouterr().out


def test_the_executor_lines(monkeypatch):
    (code,) = [block for block in blocks("python") if "ProcessPoolExecutor" in block]
    names = {"fed": fed, "model_fn": fed.learning.models.SoftmaxRegression}
    names["optimizer"] = fed.learning.optimizers.build_sgdm(0.1)
    exec(compile(code, "README.md", "exec"), names)
    names["pool"].shutdown()
    assert names["process"].engine == "gram"


def test_privacy_and_attackers(capsys):
    first, second = (block for block in blocks("python") if "privacy" in block or "attacks.choose" in block)
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "epsilon 8.0000 (delta 0.01; sampling: poisson; neighbours: one client added or removed;" in last
    exec(compile(second, "README.md", "exec"), names)
    assert len(names["attackers"]) == round(0.2 * len(names["writers"].client_ids))
    (attacker, *_), honest = names["attackers"], set(names["writers"].client_ids) - names["attackers"]
    for client_id, differs in ((attacker, True), (honest.pop(), False)):
        a, b = (names[data].create_dataset_for_client(client_id).to_arrays()["label"] for data in ("writers", "wrong"))
        assert (a != b).any() == differs
    stored = Path(__file__).parents[1] / "benchmarks" / "results" / "attacks.json"
    accuracies = json.loads(stored.read_text(encoding="utf-8"))["accuracy"]
    rows = re.findall(r"^\| (iid|shards) \| ([^|]+) \| (.*) \|$", README, flags=re.MULTILINE)
    assert len(rows) == 5
    columns = re.search(r"\| clients \| attack \| (.*) \|", README)[1].split(" | ")
    for kind, attack, shown in rows:
        assert shown == " | ".join(f"{accuracies[kind][attack][rule]:.3f}" for rule in columns)


def test_the_price_of_a_message():
    (block,) = [block for block in blocks("python") if "compression.top_k(0.05)" in block]
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logger"].history["communication/bytes_up"] == [5 * 8 * (392 + 1)] * 20
    assert min(names["logger"].history["network/seconds"]) > 0
    stored = Path(__file__).parents[1] / "benchmarks" / "results" / "communication.json"
    runs = json.loads(stored.read_text(encoding="utf-8"))["runs"]
    (section,) = re.findall(r"^## The price of a message$(.*?)^## ", README, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| ([^|]+) \| (\d[\d. |-]*) \|$", section, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(runs)
    for name, shown in rows:
        assert shown == " | ".join(map(str, runs[name].values()))
