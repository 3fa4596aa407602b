"""What the README shows is run."""

import os
import re
from pathlib import Path

import pytest
from conftest import digits

import fedsim_np as fed

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_tutorial_in_twenty_lines(folder, monkeypatch, capsys):
    (code,) = blocks("python")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 22
    for seed, split in enumerate(("train", "test")):
        fed.datasets.write_hdf5(folder / f"fed_emnist_digitsonly_{split}.h5", digits([5] * 11, seed))
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.count("round ") == 10
    assert "current_round_metrics" in out


@pytest.mark.parametrize("language", ["bash", "powershell"])
def test_the_two_commands(language):
    (commands,) = blocks(language)
    assert len(commands.splitlines()) == 2
    assert re.search(r"fedsim-np tutorial --train \S+ --test \S+$", commands.splitlines()[0])
    assert commands.splitlines()[1].endswith("python -m pytest")


@pytest.mark.skipif(os.name == "nt", reason="one platform is enough")
def test_every_name_in_the_table_exists():
    for name in re.findall(r"`(fed(?:\.\w+)+)", README):
        owner = fed
        for part in name.split(".")[1:]:
            owner = getattr(owner, part)
