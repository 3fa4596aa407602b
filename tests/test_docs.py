"""The pages in fedsim_np/docs: their code runs, and prints what they show."""

import re
from pathlib import Path

import pytest

import fedsim_np as fed

PAGES = sorted((Path(fed.__file__).parent / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page, folder, monkeypatch, capsys):
    """Blocks of Python run in order, in one namespace; a block of text after one is what it prints."""
    text, names, printed = page.read_text(encoding="utf-8"), {}, None
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```") / 2
    monkeypatch.chdir(folder)
    for block in blocks:
        kind, content = block.groups()
        if kind == "python":
            # Errors name the page's own line.
            exec(compile("\n" * text.count("\n", 0, block.start(2)) + content, page.name, "exec"), names)
            printed = capsys.readouterr().out
        elif kind == "text":
            assert printed == content
            printed = None
