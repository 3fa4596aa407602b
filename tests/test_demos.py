"""The notebooks run, say the same in two languages, and the script draws its figure."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.commands.notebook import NAMES, read

DEMOS = Path(fed.__file__).parent / "demos"


def cells(language, kind=None):
    notebook = json.loads(read(language))
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def source(cell):
    return "".join(cell["source"])


def test_both_languages_have_the_same_code_and_no_outputs():
    first, second = (json.loads(read(language)) for language in ("en", "es"))
    english, spanish = first.pop("cells"), second.pop("cells")
    assert first == second  # the kernel and the format
    assert [cell["cell_type"] for cell in english] == [cell["cell_type"] for cell in spanish]
    for one, other in zip(english, spanish, strict=True):
        assert one["id"] == other["id"]
        if one["cell_type"] == "code":
            assert one == other  # so what one does, the other does
            assert one["outputs"] == []
            assert one["execution_count"] is None
        else:
            assert source(one) != source(other)
            assert source(one).count("#") == source(other).count("#")  # the same headings
            assert re.findall(r"`[^`]*\(.*?`", source(one)) == re.findall(r"`[^`]*\(.*?`", source(other))


def test_the_texts_are_in_their_languages():
    english, spanish = (" ".join(source(cell).lower() for cell in cells(lang, "markdown")) for lang in ("en", "es"))
    assert len(re.findall(r"\b(the|and|of|with)\b", english)) > 150
    assert len(re.findall(r"\b(el|la|los|las|de|con|que)\b", spanish)) > 250
    assert not re.findall(r"\b(the|and|with|which)\b", spanish)
    assert all(letter in spanish for letter in "áéíóúñ¿")


_EXECUTE = """
import sys, nbclient, nbformat
notebook, other = (nbformat.read(path, 4) for path in sys.argv[1:3])
nbformat.validate(notebook)
nbformat.validate(other)
resources = {"metadata": {"path": sys.argv[4]}}
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
nbformat.write(notebook, sys.argv[3])
"""


def test_it_runs_from_top_to_bottom(folder, tmp_path):
    # In English: what is run in Spanish is the same, by the tests above.
    for name in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    path = tmp_path / NAMES["en"]
    command = [sys.executable, "-c", _EXECUTE, *(DEMOS / NAMES[language] for language in ("en", "es")), path, folder]
    # Jupyter's own files are opened without an encoding.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNDEFAULTENCODING"}
    subprocess.run(command, check=True, timeout=240, env=environment)
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 15
    printed = "".join(line for output in outputs for line in output.get("text", []))
    train, _ = fed.datasets.load_sample()
    assert f"{len(train.client_ids)} clients" in printed
    assert "round 10, metrics=" in printed
    assert "warning" not in printed.lower()
    assert list(folder.iterdir()) == []


def test_the_command_copies_it(folder, capsys):
    for language in ("en", "es"):
        assert main(["notebook", "--lang", language, "--to", str(folder)]) == 0
        assert (folder / NAMES[language]).read_text(encoding="utf-8") == read(language)
    (folder / NAMES["en"]).write_text("my work", encoding="utf-8")
    assert main(["notebook", "--to", str(folder)]) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert (folder / NAMES["en"]).read_text(encoding="utf-8") == "my work"
    assert main(["notebook", "--to", str(folder), "--overwrite"]) == 0
    assert (folder / NAMES["en"]).read_text(encoding="utf-8") == read("en")
    assert main(["notebook", "--to", str(folder / "not yet" / "there")]) == 0
    assert (folder / "not yet" / "there" / NAMES["en"]).read_text(encoding="utf-8") == read("en")
    assert main(["notebook", "--to", str(folder / NAMES["en"])]) == 2
    assert main(["notebook", "--to", ""]) == 2
    assert main(["notebook", "--lang", "fr"]) == 2


def test_comparing_two_ideas_in_forty_lines(folder, monkeypatch):
    path = DEMOS / "compare.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    monkeypatch.chdir(folder)
    names = runpy.run_path(str(path), run_name="__main__")
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    mean, trimmed = names["histories"]["MeanFactory"], names["histories"]["TrimmedMean"]
    assert len(mean) == len(trimmed) == 3
    name = "evaluation/sparse_categorical_accuracy"
    assert mean[0]["round_num"] == list(range(1, 21))
    # What the demonstration is to show: the faulty scanners do less harm.
    assert min(history[name][-1] for history in trimmed) > sum(history[name][-1] for history in mean) / 3 - 0.02
    assert os.listdir(folder) == ["compare.png"]
