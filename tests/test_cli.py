"""The command: what it prints, what it writes, and how it fails."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import digits

import fedsim_np as fed
from fedsim_np import cli, files, published, tutorial
from fedsim_np.cli import main
from fedsim_np.commands import notebook
from fedsim_np.datasets.hdf5_writing import write_new
from fedsim_np.runs.folder import FILES
from fedsim_np.runs.stored import PAGE


def command(files, *arguments):
    return ["tutorial", "--train", str(files[0]), "--test", str(files[1]), *map(str, arguments)]


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_prints_facts_signature_rounds_and_evaluations(digit_files, capsys):
    assert main(command(digit_files, "--rounds", 3, "--clients", 4)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 12 clients in ")
    assert lines[3].startswith("client f0000_00: 5 examples, labels ")
    assert lines[4] == "a round: 4 clients with 26 examples; 5 epochs in batches of 20"
    assert "    learning_rate=float32" in lines
    header = next(
        i for i, line in enumerate(lines) if line.split() == ["round", "loss", "accuracy", "examples", "seconds"]
    )
    rows = [line.split() for line in lines[header + 1 : header + 4]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert {row[3] for row in rows} == {"130"}
    assert float(rows[2][1]) < float(rows[0][1])
    assert [line.split()[2] for line in lines[header + 4 :]] == ["train", "test"]


def test_verbose_prints_the_tutorials_lines(digit_files, capsys):
    assert main(command(digit_files, "--rounds", 2, "--clients", 2, "--verbose")) == 0
    lines = capsys.readouterr().out.splitlines()
    rounds = [line for line in lines if line.startswith("round ")]
    assert len(rounds) == 2
    assert rounds[0].startswith("round  1, metrics=OrderedDict(")
    assert "'num_batches'" in rounds[0]


def test_writes_a_run_that_can_be_checked(digit_files, folder, capsys):
    out = folder / "new" / "run"
    assert main(command(digit_files, "--rounds", 3, "--clients", 4, "--no-figures", "--out", out)) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, PAGE, "checkpoints"])
    train, test = (fed.datasets.HDF5ClientData(path) for path in digit_files)
    expected = tutorial.run(train, test, num_clients=4, num_rounds=3)

    rows = read_csv(out / "metrics.csv")
    assert [row["round_num"] for row in rows] == ["1", "2", "3"]
    assert [float(row["client_work/train/loss"]) for row in rows] == expected.history["client_work/train/loss"]
    assert not any("time" in name or "seconds" in name for name in rows[0])
    assert len(read_csv(out / "timings.csv")) == 3
    evaluation = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation == expected.evaluation
    with np.load(out / "weights.npz") as weights:
        np.testing.assert_array_equal(weights["kernel"], expected.weights.trainable[0])
        np.testing.assert_array_equal(weights["bias"], expected.weights.trainable[1])
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["choices"]["rounds"] == 3
    assert config["choices"]["sampling"] == "first"
    clients = read_csv(out / "clients.csv")
    assert [row["client_id"] for row in clients] == train.client_ids[:4] * 3
    assert config["data"]["train"]["sha256"] == files.sha256(digit_files[0])


def test_a_run_is_replaced_only_on_request(digit_files, folder, capsys):
    arguments = command(digit_files, "--rounds", 1, "--no-figures", "--out", folder / "run")
    assert main(arguments) == 0
    (folder / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    before = (folder / "run" / "metrics.csv").read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--clients", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "already holds a run" in captured.err
    assert "--overwrite" in captured.err
    assert (folder / "run" / "metrics.csv").read_bytes() == before
    assert main([*arguments, "--clients", "3", "--overwrite"]) == 0
    assert (folder / "run" / "metrics.csv").read_bytes() != before
    assert (folder / "run" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_empty_clients_are_reported(folder, capsys):
    paths = folder / "train.h5", folder / "test.h5"
    for path in paths:
        fed.datasets.write_hdf5(path, digits([5, 0, 4]))
    assert main(command(paths, "--clients", 3, "--rounds", 1)) == 0
    assert "a round: 3 clients with 9 examples, 1 of them without any" in capsys.readouterr().out


def errors(folder, digit_files):
    train, test = map(str, digit_files)
    (folder / "text.h5").write_text("no", encoding="utf-8")
    csv, out, pickled = str(folder / "own.csv"), str(folder / "own"), folder / "pickled.npz"
    (folder / "own.csv").write_text("who,f,y\nann,1,0\nbob,2,1\nann,3,1\n", encoding="utf-8")
    np.savez(pickled, x=np.array([print, None], object), who=np.array(["a", "b"]))
    deal = ["--scheme", "iid", "--clients", "2", "--out", out]
    np.savez(folder / "e.npz")
    np.savez(folder / "s.npz", x=3)
    (folder / "c.csv").write_text("who\nann\nbob\n", encoding="utf-8")
    np.savez(folder / "half.npz", x=np.zeros(500), who=np.zeros(500, int))
    (folder / "half.npz").write_bytes((folder / "half.npz").read_bytes()[:2000])
    fed.datasets.write_hdf5(folder / "others.h5", digits([3] * 2))
    fed.datasets.write_hdf5(folder / "x.h5", fed.datasets.InMemoryClientData({"ann": {"x": [1]}}))
    return {
        "no such command": (
            ["tutorials"],
            "invalid choice: 'tutorials' (choose from tutorial, train, evaluate, sweep, data,",
        ),
        "one file": (["tutorial", "--train", train], "--train and --test go together"),
        "unknown flag": ([*command(digit_files), "--fast"], "unrecognized arguments: --fast"),
        "shortened flag": ([*command(digit_files), "--round", "2"], "unrecognized arguments"),
        "no rounds": (
            [*command(digit_files), "--rounds", "0"],
            "--rounds: must be an integer from 1 to 4294967295. Got '0'",
        ),
        "half a client": ([*command(digit_files), "--clients", "1.5"], "--clients: must be an integer from 1"),
        "no such file": (["tutorial", "--train", "nowhere.h5", "--test", test], "nowhere.h5' does not exist"),
        "not HDF5": (["tutorial", "--train", str(folder / "text.h5"), "--test", test], "must be a whole HDF5 file"),
        "too many clients": ([*command(digit_files), "--clients", "13"], "at least 13 train clients. Got 12"),
        "other test clients": (["tutorial", "--train", train, "--test", str(folder / "others.h5")], "test clients"),
        "other fields": (
            ["tutorial", "--train", str(folder / "x.h5"), "--test", test],
            "there must be at least 10 train clients",
        ),
        "many digits": ([*command(digit_files), "--rounds", "9" * 5000], "--rounds: must be an integer from 1"),
        "out is a file": ([*command(digit_files), "--out", train], "--out must be a folder"),
        "no client column": (["data", "convert", csv, "--out", out], "--client must name the column or array"),
        "no such column": (
            ["data", "convert", csv, "--client", "z", "--out", out],
            "own.csv': must have the columns ['z']. Got ['who', 'f', 'y'].",
        ),
        "a bad cell": (
            ["data", "convert", csv, "--client", "y", "--out", out],
            "line 2, column 'who' must be a finite float32. Got 'ann'.",
        ),
        "of no kind": (
            ["data", "convert", str(folder / "text.h5"), "--out", out],
            "FILE must be a .csv, .npz or .json",
        ),
        "no alpha": (
            ["data", "partition", csv, "--scheme", "dirichlet", "--clients", "2", "--out", out],
            "needs --alpha",
        ),
        "no beta": (["data", "partition", csv, "--scheme", "quantity", "--clients", "2", "--out", out], "needs --beta"),
        "a stray alpha": (
            ["data", "partition", csv, "--scheme", "iid", "--alpha", "1", "--clients", "2", "--out", out],
            "--alpha belongs to --scheme dirichlet",
        ),
        "no alpha above 0": (
            ["data", "partition", csv, "--scheme", "dirichlet", "--alpha", "0", "--clients", "2", "--out", out],
            "--alpha: must be a number above 0. Got '0'.",
        ),
        "too many to deal out to": (
            ["data", "partition", csv, "--scheme", "iid", "--clients", "4", "--client", "who", "--out", out],
            "'num_clients' must be at most the number of examples (3). Got 4.",
        ),
        "no labels to deal out": (
            ["data", "partition", csv, "--scheme", "shards", "--clients", "1", "--client", "who", "--out", out],
            "--label must name the field of labels, one of x.",
        ),
        "the whole as a test": (
            ["data", "convert", csv, "--client", "who", "--test-fraction", "1", "--out", out],
            "--test-fraction: must be a number from 0 and below 1. Got '1'.",
        ),
        "no delimiter": (
            ["data", "convert", csv, "--client", "who", "--delimiter", "", "--out", out],
            "--delimiter: must be one character",
        ),
        "pickled objects": (
            ["data", "convert", str(pickled), "--client", "who", "--out", out],
            "whole .npz file of numbers",
        ),
        "half an npz": (
            ["data", "convert", str(folder / "half.npz"), "--client", "who", "--out", out],
            "whole .npz file",
        ),
        "an npz of nothing": (["data", "partition", str(folder / "e.npz"), *deal], "there must be a field. Got none."),
        "an npz of a number": (["data", "partition", str(folder / "s.npz"), *deal], "must hold numbers, one or more"),
        "a CSV of clients alone": (["data", "partition", str(folder / "c.csv"), *deal, "--client", "who"], "a field"),
        "an empty name": (["data", "convert", csv, "--client", "", "--out", out], "--client must not be an empty name"),
        "an empty feature": (
            ["data", "convert", csv, "--client", "who", "--features", "f,,y", "--out", out],
            "--features must not be an empty name. Got 'f,,y'.",
        ),
        "a flag for another kind": (
            ["data", "convert", str(folder / "s.npz"), "--client", "x", "--delimiter", ";", "--out", out],
            "--delimiter says nothing about such a file",
        ),
        "no such array": (
            ["data", "partition", str(folder / "s.npz"), *deal, "--client", "w"],
            "--client must be one of",
        ),
        "out is a folder's name": (
            ["data", "partition", csv, "--scheme", "iid", "--clients", "2", "--out", "a/"],
            "--out",
        ),
        "no cache": (["data", "download", "--cache-dir", ""], "must be the path of a folder. Got ''."),
        "no home": (["data", "download", "--cache-dir", "~nosuchuser/x"], "set FEDSIM_NP_CACHE to a folder"),
        "no such field": (["data", "info", train, "--label", "z"], "--label must be one of the fields label, pixels"),
        "out is below a file": ([*command(digit_files), "--out", train + "/a/run"], f"Got the file '{train}'."),
        "a notebook below a file": (
            ["notebook", "--to", train + "/x"],
            f"--to must be a folder. Got the file '{train}'.",
        ),
        "a run below a file": (["train", "--out", train + "/x"], f"--out must be a folder. Got the file '{train}'."),
    }


def test_every_error_is_one_line_and_status_2(folder, digit_files, capsys):
    for name, (arguments, message) in errors(folder, digit_files).items():
        assert main(arguments) == 2, name
        error = capsys.readouterr().err
        assert error.count("\n") == 1, name
        assert error.startswith("fedsim-np: error: "), name
        assert message in error, name


def test_a_bad_value_in_a_file_is_one_line(folder, digit_files, capsys):
    with h5py.File(digit_files[0], "a") as file:
        file["examples/f0003_03/pixels"][2, 0, 0] = np.nan
    assert main(command(digit_files, "--out", folder / "run")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "client 'f0003_03', field 'pixels': values must be finite. Got nan at index (2, 0, 0)" in error
    assert not {"weights.npz", "report.html"} & {path.name for path in (folder / "run").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "text"), [(["--version"], "fedsim_np 0."), (["tutorial", "--help"], "--overwrite")]
)
def test_help_and_version(arguments, text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert text in capsys.readouterr().out


# --- one's own data


def test_convert_and_partition(folder, capsys):
    rng = np.random.default_rng(0)
    y, who = np.arange(60) % 3, np.arange(60) % 4
    np.savez(folder / "own.npz", x=rng.standard_normal((60, 5)), y=y, who=who)
    rows = "".join(f"{who[i]},{i / 8},{'abc'[y[i]]}\n" for i in range(60))
    (folder / "own.csv").write_text("who,f,y\n" + rows, encoding="utf-8")
    leaf = {"users": ["u"], "num_samples": [60], "user_data": {"u": {"x": [[0.5]] * 60, "y": y.tolist()}}}
    (folder / "leaf").mkdir()
    (folder / "leaf" / "all.json").write_text(json.dumps(leaf), encoding="utf-8")
    common = ["--test-fraction", "0.25", "--out", str(folder / "a")]
    for source in ("own.npz", "own.csv"):
        label = ["--label", "y"] if source == "own.csv" else []
        arguments = ["data", "convert", str(folder / source), "--client", "who", *label, *common]
        assert main([*arguments, "--overwrite"] if source == "own.csv" else arguments) == 0
        train, test = (fed.datasets.HDF5ClientData(folder / f"a_{split}.h5") for split in ("train", "test"))
        assert train.client_ids == test.client_ids == ["0", "1", "2", "3"]
        sizes = [train.create_dataset_for_client(c).num_examples for c in train.client_ids]
        assert sizes == [11, 11, 11, 11]
        train.close()
        test.close()
        assert main(arguments) == 2  # they are there
    assert "labels: 0 a, 1 b, 2 c" in capsys.readouterr().out
    for source in ("own.npz", "own.csv", "leaf", "a_train.h5"):
        for scheme in (
            ["iid"],
            ["dirichlet", "--alpha", "0.2"],
            ["shards", "--shards", "1"],
            ["quantity", "--beta", "1"],
        ):
            arguments = ["data", "partition", str(folder / source), "--clients", "3", "--scheme", *scheme]
            arguments += ["--out", str(folder / "b"), "--test-fraction", "0", "--overwrite"]
            arguments += ["--client", "who"] * source.startswith("own")
            assert main(arguments + ["--label", "y"] * (source == "own.csv")) == 0
            with fed.datasets.HDF5ClientData(folder / "b_train.h5") as dealt:
                examples = sum(dealt.create_dataset_for_client(c).num_examples for c in dealt.client_ids)
                assert (len(dealt.client_ids), examples) == (3, 44 if source == "a_train.h5" else 60)
    assert not (folder / "b_test.h5").exists()
    capsys.readouterr()
    assert main(["data", "info", str(folder / "b_train.h5")]) == 0
    assert "labels              0: " in capsys.readouterr().out


def test_images_of_any_shape_and_type_are_converted_and_trained_on(folder, capsys):
    rng = np.random.default_rng(0)
    own = {"client": np.arange(40) % 4, "label": np.arange(40) % 3}
    small = {"pixels": rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), **own}
    large = {"pixels": rng.random((40, 28, 28)), **own}  # as NumPy makes them: float64 and int64
    for name, arrays in (("small", small), ("large", large)):
        np.savez(folder / f"{name}.npz", **arrays)
        out = str(folder / name)
        assert main(["data", "convert", f"{out}.npz", "--client", "client", "--out", out]) == 0
        assert main(["data", "info", f"{out}_train.h5"]) == 0
        run = ["--clients", "2", "--rounds", "1", "--client-lr", "1e-4", "--out", str(folder / f"run {name}")]
        assert main(["train", "--data", out, *run]) == 0
    printed = capsys.readouterr().out
    assert "field pixels        uint8 [8, 8]" in printed
    assert "field pixels        float32 [28, 28]" in printed
    np.savez(folder / "dark.npz", **{**large, "pixels": large["pixels"] - 1})
    assert main(["data", "convert", str(folder / "dark.npz"), "--client", "client", "--out", str(folder / "d")]) == 2
    assert "dark.npz', client '0', field 'pixels': values must lie in [0, 1]" in capsys.readouterr().err
    assert not (folder / "d_train.h5").exists()


def test_csv_labels_are_numbered_as_they_are_named(folder, capsys):
    (folder / "a.csv").write_text("who;f;y\nann;1,5;C\nbob;2;A\nann;0;A\n", encoding="utf-8")
    arguments = [
        "data",
        "convert",
        str(folder / "a.csv"),
        "--client",
        "who",
        "--label",
        "y",
        "--out",
        str(folder / "a"),
    ]
    arguments += ["--delimiter", ";", "--decimal", ",", "--label-names", "A,B,C", "--test-fraction", "0"]
    assert main(arguments) == 0
    assert "labels: 0 A, 1 B, 2 C" in capsys.readouterr().out
    with fed.datasets.HDF5ClientData(folder / "a_train.h5") as data:
        assert data.create_dataset_for_client("ann").to_arrays()["y"].tolist() == [[2], [0]]
        assert data.create_dataset_for_client("ann").to_arrays()["x"].tolist() == [[1.5], [0]]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_to_other_disks_stay_links(folder, capsys):
    fed.datasets.write_hdf5(folder / "in.h5", digits([30]))
    (folder / "disk").mkdir()
    (folder / "a_train.h5").symlink_to(folder / "disk" / "a.h5")
    arguments = ["data", "partition", str(folder / "in.h5"), "--scheme", "iid", "--clients", "2"]
    arguments += ["--test-fraction", "0", "--out", str(folder / "a")]
    assert main(arguments) == 2  # a link is something, whether it leads anywhere or not
    assert main([*arguments, "--overwrite"]) == 0
    assert (folder / "a_train.h5").is_symlink()
    with fed.datasets.HDF5ClientData(folder / "disk" / "a.h5") as data:
        assert len(data.client_ids) == 2


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_folder_is_not_made_where_a_link_leads_nowhere(folder, capsys):
    (folder / "link").symlink_to(folder / "nowhere")
    for flag, *words in (["--out", "train"], ["--out", "tutorial"], ["--to", "notebook"]):
        for name in ("link", "link/run"):
            assert main([*words, flag, str(folder / name)]) == 2
            said = f"{flag} must be a folder. Got the link that leads nowhere, '{folder / 'link'}'.\n"
            assert capsys.readouterr().err == f"fedsim-np: error: {said}"
    assert os.listdir(folder) == ["link"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "synthesize", "--clients", "100001"], "--clients: must be at most 100000, which take twenty minutes"),
        (["data", "info", "synthetic", "--clients", "1000000"], "and in files 5 GB. Got 1000000."),
        (
            ["data", "partition", "synthetic", "--scheme", "iid", "--clients", "2", "--population", "10001"],
            "--population: must be at most 10000, which take two minutes and 11 GB of memory. Got 10001.",
        ),
    ],
)
def test_what_would_take_hours_or_all_memory_is_refused(words, message, folder, capsys):
    assert main([*words, *(["--out", str(folder / "a")] if "info" not in words else [])]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize("name", ["pipe", "device"])
def test_what_has_no_end_is_not_read(name, folder, capsys):
    for suffix in ("csv", "npz", "json", "h5", "toml"):
        path = str(folder / f"{name}.{suffix}")
        if name == "pipe":
            os.mkfifo(path)
        else:
            os.symlink("/dev/zero", path)
        deal = ["data", "partition", path, "--scheme", "iid", "--clients", "2", "--out", str(folder / "out")]
        convert = ["data", "convert", path, "--client", "who", "--out", str(folder / "out")]
        config = ["train", "--config", path, "--out", str(folder / "run")]
        data = (["data", "info", path], ["data", "check", path], ["tutorial", "--train", path, "--test", path])
        for command in {"h5": (deal, *data), "json": (config, deal, convert), "toml": (config,)}.get(
            suffix, (deal, convert)
        ):
            assert main([word for word in command if suffix != "json" or word not in ("--client", "who")]) == 2
            assert f".{suffix}': must be a file. Got a pipe or a device." in capsys.readouterr().err


def test_choices_fit_into_a_small_file(folder, capsys):
    path = folder / "choices.json"
    path.write_bytes(b'{"rounds": 1}'.ljust(2**14 + 1))
    assert main(["train", "--config", str(path), "--out", str(folder / "run")]) == 2
    assert "choices.json': must have at most 16384 bytes, as choices. Got more." in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="no such signal")
def test_what_is_told_to_end_leaves_no_half_file(folder):
    process = start(["data", "synthesize", "--clients", "3383", "--out", str(folder / "a")])
    deadline = time.monotonic() + 30
    while not list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no alarms")
@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_told_to_end_several_times_ends_once(is_lost, folder, monkeypatch, capsys):
    """The second signal comes while half files are removed; one is lost in what Python finalises."""
    removed = []

    class Finalised:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def run(arguments):
        try:
            if is_lost:
                Finalised()
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            removed.append("half a file")

    monkeypatch.setattr(cli, "_PATIENCE", 0.5)
    monkeypatch.setattr(notebook, "_run", run)
    with pytest.raises(SystemExit) as ended:
        main(["notebook"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert removed == ["half a file"]
    assert capsys.readouterr().err == ""
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_read_is_never_written_over(folder, capsys):
    fed.datasets.write_hdf5(folder / "a_train.h5", digits([30]))
    before = (folder / "a_train.h5").read_bytes()
    arguments = ["data", "partition", str(folder / "a_train.h5"), "--scheme", "iid", "--clients", "3", "--overwrite"]
    assert main([*arguments, "--out", str(folder / "a")]) == 2
    assert "--out must not name what is read" in capsys.readouterr().err
    assert (folder / "a_train.h5").read_bytes() == before


def test_a_pair_of_files_is_replaced_as_a_pair(folder, monkeypatch, capsys):
    fed.datasets.write_hdf5(folder / "in.h5", digits([30]))
    arguments = [
        "data",
        "partition",
        str(folder / "in.h5"),
        "--scheme",
        "iid",
        "--out",
        str(folder / "a"),
        "--overwrite",
    ]
    assert main([*arguments, "--clients", "3"]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    writes = []

    def failing(path, client_data):
        writes.append(path)
        if len(writes) == 2:
            raise OSError("no space left")
        return write_new(path, client_data)

    monkeypatch.setattr("fedsim_np.commands.outputs.write_new", failing)
    assert main([*arguments, "--clients", "5"]) == 2
    assert len(writes) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    assert main([*arguments, "--clients", "5", "--test-fraction", "0"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a_train.h5", "in.h5"]
    assert "a_test.h5: it would be of other clients" in capsys.readouterr().out


# --- as a process of its own


def start(arguments, **keywords):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    return subprocess.Popen(
        [sys.executable, "-m", "fedsim_np", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **keywords,
    )


def test_as_a_module_on_a_narrow_console(folder):
    paths = folder / "train.h5", folder / "test.h5"
    clients = {"写手": digits([5]).create_dataset_for_client("f0000_00").to_arrays()}
    for path in paths:
        fed.datasets.write_hdf5(path, fed.datasets.InMemoryClientData(clients))
    process = start(command(paths, "--clients", 1, "--rounds", 1, "--no-figures", "--out", folder / "run"))
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    assert b"client \\u5199\\u624b: 5 examples" in out
    rows = read_csv(folder / "run" / "clients.csv")
    assert [row["client_id"] for row in rows] == ["写手"]


@pytest.mark.skipif(os.name == "nt", reason="signals and closed pipes are POSIX's here")
def test_interrupted(digit_files, folder):
    process = start(command(digit_files, "--rounds", 100000, "--out", folder / "run"))
    try:
        while not process.stdout.readline().strip().startswith(b"3 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error == b""
    assert b"stopped after round " in out
    assert b"of 100000; to go on: fedsim-np train --resume --out " in out
    assert not (folder / "run" / "weights.npz").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals and closed pipes are POSIX's here")
def test_a_reader_that_has_seen_enough(digit_files):
    process = start(command(digit_files, "--rounds", 1000))
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


# --- the published figures


def history(losses):
    return {
        "round_num": list(range(1, 11)),
        "client_work/train/sparse_categorical_accuracy": [c / 4860 for c in published.CORRECT],
        "client_work/train/loss": list(losses),
        "client_work/train/num_examples": [4860] * 10,
        "client_work/train/num_batches": [248] * 10,
    }


def published_result(losses, loss):
    evaluation = {
        split: {"sparse_categorical_accuracy": correct / n, "loss": loss, "num_examples": n, "num_batches": 0}
        for split, (n, loss, correct) in published.EVALUATION.items()
    }
    return tutorial.Result(history(losses), [0.0] * 10, evaluation, None, [], loss)


def test_figures_are_compared_one_by_one():
    train = digits([30])
    results = published_result(published.KERAS_LOSS, "keras"), published_result(published.CUSTOM_LOSS, "tutorial")
    figures = list(published.compare(train, *results))
    # The page prints batches for its Keras model alone, and evaluations of its own model alone.
    assert sum(figure.on_page for figure in figures) == 3 + 10 * 4 + 10 * 3 + 2 * 3 == 79
    others = {figure.name for figure in figures if not figure.on_page}
    assert len(others) == len(figures) - 79 == 16
    assert {"own model, round 10: batches", "Keras model, evaluation on test: loss"} <= others
    assert not figures[0].agrees
    assert all(figure.agrees for figure in figures[3:])

    results[0].history["client_work/train/loss"][3] *= 1 + 1.5e-6  # within 2e-6
    results[0].history["client_work/train/loss"][4] *= 1 + 3e-6
    results[1].history["client_work/train/sparse_categorical_accuracy"][0] += 2 / 4860  # within 2 answers
    results[1].history["client_work/train/sparse_categorical_accuracy"][1] -= 3 / 4860
    results[1].history["client_work/train/num_examples"][9] += 1
    results[1].evaluation["test"]["loss"] *= 1.1
    differing = [figure.name for figure in list(published.compare(train, *results))[3:] if not figure.agrees]
    assert differing == [
        "Keras model, round 5: loss",
        "own model, round 2: correct",
        "own model, round 10: examples",
        "own model, evaluation on test: loss",
    ]


def test_a_figure_that_is_not_a_number_differs():
    results = published_result(published.KERAS_LOSS, "keras"), published_result(published.CUSTOM_LOSS, "tutorial")
    results[0].history["client_work/train/sparse_categorical_accuracy"][2] = float("nan")
    results[1].evaluation["test"].update(sparse_categorical_accuracy=float("inf"), loss=float("nan"))
    differing = [f.name for f in list(published.compare(digits([30]), *results))[3:] if not f.agrees]
    where = "own model, evaluation on test"
    assert differing == ["Keras model, round 3: correct", f"{where}: loss", f"{where}: correct"]


def test_the_two_models_cannot_be_mistaken_for_each_other():
    keras, custom = published_result(published.KERAS_LOSS, "keras"), published_result(published.CUSTOM_LOSS, "tutorial")
    for swapped in ((custom, keras), (keras, keras), (custom, custom)):
        with pytest.raises(ValueError, match="must be a run with loss="):
            published.compare(digits([30]), *swapped)


def test_stored_figures_are_the_published_ones(shared):
    printed = json.loads((shared / "goldens" / "tutorial_printed.json").read_text(encoding="utf-8"))
    assert list(published.KERAS_LOSS) == printed["keras_loss"]
    assert list(published.CUSTOM_LOSS) == printed["custom_loss"]
    assert list(published.CORRECT) == printed["correct_of_4860"]
    assert list(published.FIRST_BATCH_LABELS) == printed["first_preprocessed_batch_labels"]
    assert printed["first_label"] == published.FIRST_LABEL
    assert printed["number_of_clients"] == published.NUM_CLIENTS_IN_FILE
    assert (printed["num_examples"], printed["num_batches"]) == (published.NUM_EXAMPLES, published.NUM_BATCHES)
    for split, figures in published.EVALUATION.items():
        stored = printed[f"eval_{split}"]
        assert figures == (stored["num_examples"], stored["loss"], stored["correct"])
        file = printed["files"][f"fed_emnist_digitsonly_{split}.h5"]
        assert published.FILES[split] == (file["bytes"], file["sha256"])


def test_the_command_recognises_the_files_and_says_what_came_out(digit_files, monkeypatch, capsys):
    real = {
        split: (path.stat().st_size, files.sha256(path))
        for split, path in zip(("train", "test"), digit_files, strict=True)
    }
    monkeypatch.setattr(published, "FILES", real)
    assert main(command(digit_files, "--rounds", 2)) == 0
    assert "the published figures are for --clients 10 --rounds 10" in capsys.readouterr().out
    assert main(command(digit_files)) == 1
    out = capsys.readouterr().out
    assert "DIFFERS  Keras model, round 1: loss: published 3.1193733, here " in out
    assert "DIFFERS  own model, round 1: batches: published of the other model 248, here " in out
    assert "of the tutorial's 79 published figures came out, and 0 of 16 that it prints of one of its two" in out

    # Files with other contents and the same sizes are not taken for the real ones.
    monkeypatch.setattr(published, "FILES", {split: (size, "0" * 64) for split, (size, _) in real.items()})
    assert main(command(digit_files)) == 0
    assert "published" not in capsys.readouterr().out


# --- without files, and files of one's own


def test_without_files_the_sample_is_used_from_any_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["tutorial", "--rounds", "2"]) == 0
    out = capsys.readouterr().out
    assert "handwriting_train.h5" in out
    assert "30 clients" in out
    assert list(folder.iterdir()) == []


def test_synthesize_writes_a_pair_that_the_tutorial_takes(folder, capsys):
    prefix = folder / "mine"
    assert main(["data", "synthesize", "--clients", "12", "--seed", "3", "--out", str(prefix)]) == 0
    files = [folder / "mine_train.h5", folder / "mine_test.h5"]
    assert sorted(folder.iterdir()) == sorted(files)
    assert main(command(files, "--rounds", 1)) == 0
    before = files[0].read_bytes()
    capsys.readouterr()
    assert main(["data", "synthesize", "--clients", "2", "--out", str(prefix)]) == 2
    assert "is there already: use --overwrite" in capsys.readouterr().err
    assert files[0].read_bytes() == before
    assert main(["data", "synthesize", "--clients", "2", "--out", str(prefix), "--overwrite", "--raw"]) == 0
    assert len(fed.datasets.HDF5ClientData(files[0]).client_ids) == 2


def test_info_of_a_file_and_of_writers(digit_files, capsys):
    assert main(["data", "info", str(digit_files[0])]) == 0
    out = capsys.readouterr().out
    assert "clients             12 (0 without examples)" in out
    assert "field pixels        float32 [28, 28]" in out
    assert main(["data", "info"]) == 0
    assert capsys.readouterr().out.count("clients             30 (0 without examples)") == 2
    assert main(["data", "info", "synthetic", "--clients", "4", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "train of SyntheticClientData(4, split='train', seed=1" in out
    assert "test of SyntheticClientData(4, split='test', seed=1" in out


def test_errors_of_the_data_commands(folder, capsys):
    (folder / "dir_test.h5").mkdir()
    for arguments, message in [
        (["data", "info", str(folder / "none.h5")], "none.h5' does not exist"),
        (["data", "info", "synthetic", "--clients", "0"], "--clients: must be an integer from 1"),
        (["data", "synthesize"], "required: --out"),
        (["data", "synthesize", "--out", str(folder / "a" / "b")], "must be in a folder that exists"),
        (["data", "synthesize", "--out", str(folder / "a"), "--seed", "-1"], "--seed"),
        (["data", "synthesize", "--out", str(folder / "a"), "--seed", str(2**32)], "from 0 to 4294967295. Got"),
        (["data", "synthesize", "--out", str(folder / "dir"), "--overwrite"], "--out must name files"),
    ]:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX's")
def test_a_full_disk_is_one_line(folder):
    # A limit on the size of files stands for a full disk: the same writes fail.
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from fedsim_np.cli import main
sys.exit(main())
"""
    arguments = ["data", "synthesize", "--clients", "20", "--out", str(folder / "small")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"small_train.h5" in done.stderr
    assert list(folder.iterdir()) == []


def test_what_cannot_be_removed_does_not_hide_what_went_wrong(folder, monkeypatch):
    def unlink(path, missing_ok=False):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(OSError, match="Read-only") as caught, files.replacing(folder / "a.txt") as temporary:
        raise OSError(30, "Read-only file system", str(temporary))
    assert caught.value.filename == str(folder / "a.txt")


# --- a first evening: what is mistyped, and what one tries


def error_of(arguments, capsys):
    assert main(arguments) == 2, arguments
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["tutoral"], "'tutorial'"),
        (["data", "ifno"], "'info'"),
        (["train", "--lr", "0.1"], "'--client-lr' or '--server-lr' or '--personal-lr'"),
        (["train", "--lr=0.1", "--out", "x"], "'--client-lr' or '--server-lr' or '--personal-lr'"),
        (["train", "--learning-rate", "0.1"], "'--client-lr' or '--server-lr' or '--personal-lr'"),
        (["train", "--round", "3", "--out", "x"], "'--rounds'"),
        (["train", "-rounds", "3", "--out", "x"], "'--rounds'"),
        (["train", "--batch", "3", "--out", "x"], "'--batch-size'"),
        (["tutorial", "--emnits"], "'--emnist'"),
        (["help", "tran"], "'train'"),
        (["data", "partition", "sample", "--scheme", "dirichlett", "--clients", "3", "--out", "x"], "'dirichlet'"),
        (["train", "--data", "mnist", "--out", "x"], "'emnist'"),
        (["data", "info", "samples"], "'sample'"),
        (["data", "partition", "sinthetic", "--scheme", "iid", "--clients", "3", "--out", "x"], "'synthetic'"),
        (["train", "--model", "sofmax", "--out", "x"], "'softmax'"),
        (["train", "--server-optimizer", "Adam", "--out", "x"], "'adam'"),
        (["train", "--engine", "loops", "--out", "x"], "'loop'"),
    ],
)
def test_what_is_mistyped_is_told_what_may_be_meant(arguments, meant, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    error = error_of(arguments, capsys)
    assert f"Did you mean {meant}?" in error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "info", "--data", "synthetic"], "--data. It goes without a flag: fedsim-np data info FILE|NAME."),
        (["tutorial", "--invert"], "--invert. fedsim-np train takes it."),
        (["train", "--scheme", "iid"], "--scheme. fedsim-np data partition takes it."),
    ],
)
def test_a_flag_of_another_command_is_told_whose_it_is(arguments, said, capsys):
    assert f"unrecognized arguments: {said}" in error_of(arguments, capsys)


def test_names_in_files_and_of_files_are_told_too(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    error = error_of(["train", "--data", "mnist", "--out", "run"], capsys)
    assert (
        "mnist_train.h5' does not exist. Data are sample, synthetic, fedprox-synthetic, emnist, or PREFIX of" in error
    )
    (folder / "c.json").write_text('{"lr": 0.1}', encoding="utf-8")
    error = error_of(["train", "--config", "c.json", "--out", "run"], capsys)
    assert "Got 'lr'. Did you mean 'client_lr' or 'server_lr' or 'personal_lr'?" in error
    for split in ("train", "test"):
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", digits([5, 5]))
    assert "Did you mean '" in error_of(["train", "--data", "own_train.h5", "--out", "run"], capsys)
    (folder / "own.csv").write_text("hospital,age,diagnosis\na,1,0\nb,2,1\n", encoding="utf-8")
    error = error_of(["data", "convert", "own.csv", "--client", "hopital", "--out", "x"], capsys)
    assert "must have the columns ['hopital']. Got ['hospital', 'age', 'diagnosis']. Did you mean 'hospital'?" in error
    assert "Did you mean 'label'?" in error_of(["data", "info", "own_train.h5", "--label", "lable"], capsys)
    assert "(see fedsim-np data partition)" in error_of(["data", "convert", "sample", "--out", "x"], capsys)
    with pytest.raises(fed.DataError, match="field 'pixel': must be there. Got only .*. Did you mean 'pixels'"):
        fed.datasets.load_sample()[0].create_dataset_for_client("f0000_14").select(x="pixel")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "usage: fedsim-np [-h]"),
        (["help"], "usage: fedsim-np [-h]"),
        (["data"], "usage: fedsim-np data [-h]"),
        (["help", "train"], "usage: fedsim-np train [-h]"),
        (["help", "data", "info"], "usage: fedsim-np data info"),
    ],
)
def test_help_is_printed_and_no_error(arguments, text, capsys):
    try:
        status = main(arguments)
    except SystemExit as end:  # as of --help
        status = end.code
    assert status == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(text)
    assert captured.err == ""


def test_names_stand_for_data_wherever_a_file_does(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    deal = ["--scheme", "iid", "--clients", "5", "--seed", "1"]
    assert main(["data", "partition", "sample", *deal, "--out", "dealt"]) == 0
    train, test = fed.datasets.load_sample()
    parts = [fed.datasets.HDF5ClientData(folder / f"dealt_{split}.h5") for split in ("train", "test")]
    examples = [fed.datasets.partition.pool(data)["label"] for data in (train, test, *parts)]
    assert len(examples[0]) + len(examples[1]) == len(examples[2]) + len(examples[3])
    assert np.bincount(np.concatenate(examples[:2])).tolist() == np.bincount(np.concatenate(examples[2:])).tolist()
    assert main(["train", "--data", "dealt", "--clients", "3", "--rounds", "1", "--invert", "--out", "run"]) == 0
    assert main(["data", "partition", "synthetic", *deal, "--population", "3", "--out", "drawn"]) == 0
    assert main(["data", "partition", "dealt", *deal, "--out", "again"]) == 0  # a prefix
    capsys.readouterr()
    assert main(["data", "info", "again"]) == 0
    assert capsys.readouterr().out.count("clients             5 (0 without examples)") == 2
    assert main(["data", "info", "sample"]) == 0
    assert capsys.readouterr().out.count("clients             30 (0 without examples)") == 2
    for arguments, message in [
        (["dealt", *deal, "--overwrite", "--out", "dealt"], "--out must not name what is read. Got 'dealt'"),
        (["sample", *deal, "--population", "3", "--out", "x"], "--population belongs to synthetic. Got 'sample'."),
        (["sample", *deal, "--client", "x", "--out", "x"], "--client says nothing about such a file"),
    ]:
        assert message in error_of(["data", "partition", *arguments], capsys)


def test_arrays_with_texts_as_labels_are_converted(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    who, kind = np.array(["ann", "bob"] * 6), np.array(["rose", "lily", "tulip"] * 4)
    np.savez("own.npz", x=np.arange(24.0).reshape(12, 2), who=who, kind=kind, y=kind)
    assert main(["data", "convert", "own.npz", "--client", "who", "--label", "lind", "--out", "a"]) == 2
    assert "Did you mean 'kind'?" in capsys.readouterr().err
    np.savez("own.npz", x=np.arange(24.0).reshape(12, 2), who=who, y=kind)
    assert main(["data", "convert", "own.npz", "--client", "who", "--out", "a"]) == 0
    assert "labels: 0 lily, 1 rose, 2 tulip" in capsys.readouterr().out
    assert main(["train", "--data", "a", "--clients", "2", "--rounds", "1", "--client-lr", "0.001", "--out", "r"]) == 0
    assert (
        main(["data", "partition", "own.npz", "--client", "who", "--scheme", "shards", "--clients", "3", "--out", "b"])
        == 0
    )
    capsys.readouterr()
    assert main(["data", "info", "b_train.h5"]) == 0
    assert "labels              0: " in capsys.readouterr().out


LONG = {
    "columns": (
        "own.csv",
        ",".join(f"c{i}" for i in range(10**5)) + "\n",
        ["data", "convert", "FILE", "--client", "who"],
    ),
    "keys": ("own.json", json.dumps({f"k{i}": 0 for i in range(10**5)}), ["train", "--config", "FILE"]),
    "an option": ("own.txt", "", ["train", "--rounds", "x" * 10**6]),
    "a name": ("own.txt", "", ["report", "x" * 10**6]),
}


@pytest.mark.parametrize("name", LONG)
def test_no_error_is_longer_than_a_screen(name, folder, capsys):
    file, text, arguments = LONG[name]
    (folder / file).write_text(text, encoding="utf-8")
    arguments = [str(folder / file) if word == "FILE" else word for word in arguments]
    arguments += ["--label", "y"] * (name == "columns") + ["--out", str(folder / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 2100


def test_a_data_error_is_bounded_wherever_it_is_made():
    error = fed.DataError("x" * 10**6)
    assert len(str(error)) == 2000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(ValueError, match="Got a number too long to be written."):
        fed.learning.optimizers.build_sgdm(10**5000)


OBEYED = ["\x1b[2J", "\x9b2J", "\x07", "\x08", "\r", "\x7f", "\u202e", "\u2066", "\x85"]


@pytest.mark.parametrize("text", OBEYED)
def test_what_a_terminal_obeys_is_written_out(text, folder, capsys):
    for choices in ({f"a{text}b": 1}, {"data": f"{folder}/a{text}b"}):
        (folder / "c.json").write_text(json.dumps(choices), encoding="utf-8")
        assert main(["train", "--config", str(folder / "c.json"), "--out", str(folder / "run")]) == 2
        assert text not in capsys.readouterr().err
    assert type(sys.stdout).__name__ != "_Printable"  # the stream is given back


def test_what_is_said_of_strangers_data_is_written_out(folder, capsys):
    (folder / "own.csv").write_text("who,f,y\nann,1,a\x1b[2J\u202eb\nbob,2,c\n", encoding="utf-8")
    arguments = ["data", "convert", str(folder / "own.csv"), "--client", "who", "--label", "y", "--test-fraction", "0"]
    assert main([*arguments, "--out", str(folder / "a")]) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[2J\\u202eb" in out
    assert "\x1b" not in out
