"""The command line as people expect it: help, any choice, progress, silence, completion."""

import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

import fedsim_np as fed
from fedsim_np import cli
from fedsim_np.cli import main
from fedsim_np.commands import progress, signals, train_choices
from fedsim_np.runs.config import RunConfig

SMALL = ["--clients", "3", "--epochs", "1", "--rounds", "2", "--evaluation-clients", "5"]


def train(out, *arguments):
    return ["train", "--out", str(out), *map(str, arguments)]


def choices(folder):
    return json.loads((folder / "config.json").read_bytes())["choices"]


def test_every_choice_is_in_one_group_of_the_help(capsys):
    names = [name for group in train_choices._GROUPS.values() for name in group]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(RunConfig))
    for group in train_choices._GROUPS.values():
        for about in group.values():
            assert about.endswith(".")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: fedsim-np train [-h] [choices] [--resume | --overwrite] --out DIR"
    for title in train_choices._GROUPS:
        assert f"{title}:" in lines
    examples = [line.strip() for line in lines if line.strip().startswith("fedsim-np train --")]
    assert len(examples) == 5


def test_every_help_is_in_whole_sentences_and_has_examples_that_are_commands(capsys):
    whole = cli._parser()
    parsers = list(whole.below())
    assert len(parsers) >= 15
    for parser in parsers:
        assert parser.description.endswith("."), parser.prog
        for action in parser._actions:
            if action.dest not in ("help", "algorithm", "action"):  # argparse's own, names, commands
                about = re.sub(r" \(default: [^()]*\)$", "", action.help)
                assert re.fullmatch(r"[A-Z$].*\.", about), (parser.prog, action.dest)
        assert parser.epilog.startswith(
            "examples:\n  fedsim-np" if parser.prog != "fedsim-np completion" else "examples:"
        )
        examples = [line.strip() for line in parser.epilog.splitlines() if line.startswith("  fedsim-np ")]
        for line in examples:
            given = whole.parse_args(shlex.split(line.partition(" > ")[0])[1:])
            assert callable(given.run)


def test_any_choice_is_set_by_its_key(folder, capsys):
    sets = ["--set", "client_lr=0.1", "--set", "server-optimizer=adam", "--set", "invert=TRUE", "--set", "clip=0.5"]
    assert main(train(folder / "set", *SMALL, *sets)) == 0
    flags = ["--client-lr", "0.1", "--server-optimizer", "adam", "--invert", "--clip", "0.5"]
    assert main(train(folder / "flags", *SMALL, *flags)) == 0
    assert choices(folder / "set") == choices(folder / "flags")
    assert (folder / "set" / "weights.npz").read_bytes() == (folder / "flags" / "weights.npz").read_bytes()
    assert main(train(folder / "both", *SMALL, "--set", "rounds=5", "--rounds", "1")) == 0
    assert choices(folder / "both")["rounds"] == 1  # a flag of its own goes first
    for text, message in (
        ("client_rl=1", "with a choice of a run as the key. Got 'client_rl=1'. Did you mean 'client_lr'?"),
        ("rounds", "--set must be KEY=VALUE"),
        ("rounds=two", "--set rounds must be of type int. Got 'two'."),
        ("invert=1", "--set invert must be of type bool. Got '1'."),
        ("batch_size=-1", "'batch_size' must be an integer >= 1. Got -1."),
    ):
        capsys.readouterr()
        assert main(train(folder / "wrong", *SMALL, "--set", text)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (folder / "wrong").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--population", "7"], "--population changes nothing with the data 'sample'"),
        (["--min-epochs", "2"], "--min-epochs changes nothing with stragglers of 0"),
        (["--drop-stragglers"], "--drop-stragglers changes nothing with stragglers of 0"),
        (["--proximal-strength", "0.5"], "--proximal-strength changes nothing with the algorithm fedavg"),
        (["--algorithm", "fedsgd", "--client-lr", "0.5"], "--client-lr changes nothing with the algorithm fedsgd"),
        (
            ["--sampling", "first", "--evaluation-clients", "7"],
            "--evaluation-clients changes nothing with the sampling",
        ),
        (["--set", "population=7"], "--set population changes nothing with the data 'sample': leave it out."),
        (["--hidden", "5"], "--hidden changes nothing with the model softmax"),
        (["--attackers", "0.5"], "--attackers changes nothing with the attack none"),
        # What is typed counts, and not its value.
        (["--q", "1"], "--q changes nothing with the algorithm fedavg: leave it out."),
        (["--set", "q=1.0"], "--set q changes nothing with the algorithm fedavg: leave it out."),
        (["--no-drop-stragglers"], "--no-drop-stragglers changes nothing with stragglers of 0"),
        (["--algorithm", "fedsgd", "--client-lr", "0.02"], "--client-lr changes nothing with the algorithm fedsgd"),
        (["--client-optimizer", "adam", "--client-momentum", "0"], "nothing with the client_optimizer adam"),
        (["--server-optimizer", "adam", "--server-momentum", "0.9"], "nothing with the server_optimizer adam"),
        (["--model", "linear", "--classes", "2"], "--classes changes nothing with the model linear"),
    ],
)
def test_flags_without_effect_are_refused_by_name(flags, message, folder, capsys):
    assert main(train(folder / "run", "--clients", "3", "--rounds", "1", *flags)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()


def test_silence_and_json(folder, capsys):
    assert main(train(folder / "quiet", *SMALL, "--quiet")) == 0
    assert capsys.readouterr() == ("", "")
    assert main(train(folder / "json", *SMALL, "--json")) == 0
    out, error = capsys.readouterr()
    result = json.loads(out)
    assert error == ""
    assert result["rounds"] == 2
    run = fed.program.read_run(folder / "json")
    assert {split: result[split] for split in ("train", "test")} == run.evaluation
    assert main(train(folder / "json", "--resume", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert main(train(folder / "both", *SMALL, "--json", "--quiet")) == 2


def test_silence_and_json_of_the_tutorial(folder, capsys):
    tutorial = ["tutorial", "--clients", "2", "--rounds", "1", "--no-figures"]
    assert main([*tutorial, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*tutorial, "--json", "--out", str(folder / "run")]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    evaluation = fed.program.read_run(folder / "run").evaluation
    assert json.loads(out) == {"folder": str(folder / "run"), "rounds": 1, **evaluation}
    assert (folder / "run" / "report.html").exists()
    assert main([*tutorial, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": None, "rounds": 1, **evaluation}
    assert main([*tutorial, "--json", "--verbose"]) == 2


def test_silence_and_json_of_a_study(folder, capsys):
    grid, out = folder / "grid.json", str(folder / "study")
    choices = {"clients": 2, "epochs": 1, "rounds": 1, "evaluation_clients": 3, "targets": [0.9]}
    # The second is of files that are not there.
    grid.write_text(json.dumps({**choices, "cases": [{"data": "sample"}, {"data": "none"}]}), encoding="utf-8")
    sweep = ["sweep", str(grid), "--workers", "1", "--out", out]
    assert main([*sweep, "--json"]) == 1
    said, error = capsys.readouterr()
    assert error.count("fedsim-np: broken: ") == error.count("\n") == 1
    result = json.loads(said)
    assert result["folder"] == out
    done, broken = result["runs"]
    log = fed.program.read_run(folder / "study" / done["run"]).history
    assert (done["status"], done["final_loss"]) == ("done", log["evaluation/loss"][-1])
    assert done["rounds_to_0.9"] is None
    assert broken["status"].startswith("broken: ")
    assert broken["final_loss"] is None
    grid.write_text(json.dumps({**choices, "cases": [{"data": "sample"}]}), encoding="utf-8")
    assert main([*sweep, "--quiet"]) == 0  # it is done already
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_of_a_silent_command_leaves_standard_output_alone(folder, capsys):
    with signals.interrupts(sys.stderr) as came:
        assert not came()
        signal.raise_signal(signal.SIGINT)
        assert came()
    assert capsys.readouterr() == ("", "interrupted: the run ends after this round; again to end it at once\n")


def test_a_line_that_moves():
    stream = io.StringIO()
    line = progress.MovingLine(stream)
    logger = fed.program.ConsoleLogger(3, line, clock=iter([0.0, 1.0, 2.0, 3.0]).__next__)
    for round_num, loss in ((1, 2.5), (2, 1.25), (3, 1.0)):
        logger.release({"client_work": {"train": {"loss": loss}}}, round_num)
    line.end()
    line.end()
    first, second, third = stream.getvalue().split("\r")[1:]
    assert first == "round 1 of 3  loss 2.5000  0:00:02 left"
    assert second == "round 2 of 3  loss 1.2500  0:00:01 left"
    assert third == "round 3 of 3  loss 1.0000".ljust(len(second)) + "\n"


def test_a_line_that_is_too_long_still_says_how_long_is_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    logger = fed.program.ConsoleLogger(12, progress.MovingLine(stream), clock=iter([0.0, 2.0, 4.0]).__next__)
    metrics = {"sparse_categorical_accuracy": 0.5, "loss": 2.5}
    for round_num in (1, 12):
        logger.release({"client_work": {"train": metrics}, "evaluation": metrics}, round_num)
    first, last = stream.getvalue().split("\r")[1:]
    assert first == "round  1 of 12  accuracy 0.5000  evaluation accuracy 0.5000  0:00:22 left"
    assert last.rstrip() == "round 12 of 12  accuracy 0.5000  loss 2.5000  evaluation accuracy 0.5000"


@pytest.mark.skipif(os.name == "nt", reason="terminals are POSIX's here")
def test_on_a_terminal(folder):
    import pty

    def said(*flags):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "fedsim_np", *train(folder / f"run{len(flags)}", *SMALL, *flags)]
        with subprocess.Popen(
            command, stdout=slave, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "60"}
        ) as process:
            os.close(slave)
            parts = []
            try:
                while part := os.read(master, 1000):
                    parts.append(part)
            except OSError:  # Linux's end of a terminal
                pass
            os.close(master)
        assert process.returncode == 0
        return b"".join(parts).decode().replace("\r\n", "\n")

    moving = said()
    assert moving.count("\n") == 2  # the last round's line, and what is said in the end
    assert moving.count("\rround ") == 3
    assert all(len(part) < 60 for part in moving.split("\n")[0].split("\r"))
    assert said("--verbose").count("\nround ") == 2


def test_writers_are_counted(folder, monkeypatch, capsys):
    seconds = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.Counter.__init__, "__defaults__", (seconds.__next__,))
    assert main(["data", "synthesize", "--clients", "4", "--out", str(folder / "w")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "writers drawn: 2 of 8  0:00:36 left"
    assert said[-1] == "writers drawn: 8 of 8  0:00:00 left"
    monkeypatch.undo()
    assert main(["data", "synthesize", "--clients", "4", "--out", str(folder / "v")]) == 0
    assert capsys.readouterr().err == ""  # it took no second
    assert (folder / "w_train.h5").read_bytes() == (folder / "v_train.h5").read_bytes()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_completion(folder, capsys):
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        (folder / shell).write_text(capsys.readouterr().out, encoding="utf-8", newline="\n")
    assert (folder / "zsh").read_text(encoding="utf-8").endswith((folder / "bash").read_text(encoding="utf-8"))

    def completed(*words):
        code = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _fedsim_np; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "-c", code, str(folder / "bash"), "fedsim-np", *words]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=folder, timeout=60)
        assert result.stderr == ""
        return result.stdout.split()

    assert completed("tr") == ["train"]
    assert {"tutorial", "train", "data", "help"} <= set(completed(""))
    assert completed("help", "tu") == ["tutorial"]
    assert completed("help", "data", "synth") == ["synthesize"]
    assert completed("help", "train", "") == []  # no files
    assert completed("train", "--algorithm", "scaf") == ["scaffold"]
    assert completed("train", "--out", "x", "--client-l") == ["--client-lr"]
    assert completed("train", "--client-l") == ["--client-lr"]
    assert completed("train", "--set", "client_l") == ["client_lr="]
    assert completed("data", "partition", "--scheme", "di") == ["dirichlet"]
    assert completed("data", "synth") == ["synthesize"]
    assert completed("data", "synthesize", "--cl") == ["--clients"]
    assert {"bash", "zsh"} <= set(completed("completion", ""))
    assert {"sample", "synthetic"} <= set(completed("train", "--data", "s"))
    assert main(["completion", "fish"]) == 2
