"""A lab's text, and the notebooks that are made of it.

A text is Markdown, ``<number>_<name>.<language>.md``, with a head of ``key: value`` lines between two ``---``::

    ---
    minutes: 50
    about: what the lab is about, in one line
    ---

What is fenced becomes a cell of its own; the words behind the three marks say of which notebooks:

=======================  =====================================================
``python``               of both
``python exercise``      the students': the answer is ``...``
``python solution``      of that with solutions, in place of the exercise
``markdown solution``    text of that with solutions
=======================  =====================================================

All else is text, a cell from one heading of level 2 to the next.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from typing import Any, NamedTuple

from fedsim_np.texts import LANGUAGES

_NAME = re.compile(r"(\d+)_(\w+)\.(\w+)\.md")
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_HEAD = re.compile(r"---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
WORDS = ("python", "python exercise", "python solution", "markdown solution")
"""What may stand behind the marks of a fence."""


class Cell(NamedTuple):
    """A cell of a lab.

    Attributes
    ----------
    kind : str
        "code" or "markdown".
    part : str
        "exercise" and "solution" are of one notebook each, "" of both.
    text : str
    """

    kind: str
    part: str
    text: str


class Lab(NamedTuple):
    """A lab in one language.

    Attributes
    ----------
    number : str
    name : str
        Of its files.
    lang : str
    title : str
    minutes : int
    about : str
        One line.
    cells : tuple of Cell
    """

    number: str
    name: str
    lang: str
    title: str
    minutes: int
    about: str
    cells: tuple[Cell, ...]

    def file_name(self, *, solutions: bool = False) -> str:
        """Return the notebook's name.

        Examples
        --------
        >>> labs("es")[0].file_name(solutions=True)
        'lab_1_drift_es_solutions.ipynb'
        """
        lang = "" if self.lang == "en" else f"_{self.lang}"
        return f"lab_{self.number}_{self.name}{lang}{'_solutions' * solutions}.ipynb"

    def notebook(self, *, solutions: bool = False) -> str:
        """Return the notebook as JSON: the students', or that with solutions and nothing left to answer."""
        left_out = "exercise" if solutions else "solution"
        cells = [_json_cell(i, cell) for i, cell in enumerate(self.cells) if cell.part != left_out]
        metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def code(self, *, solutions: bool = False) -> list[str]:
        """Return the code of a notebook's cells."""
        left_out = "exercise" if solutions else "solution"
        return [cell.text for cell in self.cells if cell.kind == "code" and cell.part != left_out]


def _json_cell(number: int, cell: Cell) -> dict[str, Any]:
    # By place in the text: a cell has the same id in both languages, with solutions or without.
    found: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{number:02d}", "metadata": {}}
    if cell.kind == "code":
        found.update(execution_count=None, outputs=[])
    return {**found, "source": cell.text.splitlines(keepends=True)}


@functools.cache
def labs(lang: str = "en") -> tuple[Lab, ...]:
    """Return all labs in a language, in order.

    Examples
    --------
    >>> labs()[0].number, labs()[0].name
    ('1', 'drift')
    """
    files = importlib.resources.files("fedsim_np.labs").iterdir()
    found = [(match, file) for file in files if (match := _NAME.fullmatch(file.name)) and match[3] == lang]
    read = [parse(file.read_text(encoding="utf-8"), match[1], match[2], lang) for match, file in found]
    return tuple(sorted(read, key=lambda lab: int(lab.number)))


def lab(number: str, lang: str = "en") -> Lab:
    """Return one lab, or raise KeyError."""
    return {found.number: found for found in labs(lang)}[number]


def parse(text: str, number: str, name: str, lang: str) -> Lab:
    r"""Return the lab that a text describes.

    Raises
    ------
    ValueError
        If the text breaks one of the rules above.

    Examples
    --------
    >>> text = "---\nminutes: 5\nabout: sums\n---\n# Sums\n```python exercise\n...\n```\n"
    >>> found = parse(text, "9", "sums", "en")
    >>> found.title, found.minutes, [cell.part for cell in found.cells]
    ('Sums', 5, ['', 'exercise'])
    """
    where = f"{number}_{name}.{lang}.md"
    head = _HEAD.match(text)
    facts = dict(re.findall(r"^(\w+): *(.+)$", head[1], re.MULTILINE)) if head else {}
    if lang not in LANGUAGES or not head or facts.keys() != {"minutes", "about"} or not facts["minutes"].isdecimal():
        raise ValueError(f"file '{where}' must begin with '---', 'minutes: 50', 'about: ...' and '---'.")
    cells: list[Cell] = []
    at = head.end()
    for fence in _FENCE.finditer(text, at):
        cells += _texts(text[at : fence.start()])
        words = fence[1].strip()
        if words not in WORDS:
            raise ValueError(f"file '{where}': a fence must say one of {', '.join(WORDS)}. Got {words!r}.")
        language, _, part = words.partition(" ")
        cells.append(Cell("code" if language == "python" else "markdown", part, fence[2].strip("\n")))
        at = fence.end()
    cells += _texts(text[at:])
    title = re.match(r"# (.+)", cells[0].text) if cells else None
    if not title or any("```" in cell.text for cell in cells):
        raise ValueError(f"file '{where}' must have a title '# ...' first, and an end to every fence.")
    return Lab(number, name, lang, title[1], int(facts["minutes"]), facts["about"], tuple(cells))


def _texts(text: str) -> list[Cell]:
    parts = (part.strip("\n") for part in re.split(r"^(?=## )", text, flags=re.MULTILINE))
    return [Cell("markdown", "", part) for part in parts if part]
