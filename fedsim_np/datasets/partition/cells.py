"""Columns of a CSV file, as texts, into numbers and labels; a cell that does not fit is named by its line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import data_error


def check_texts(path: str, name: str, cells: tuple[str, ...], lines: list[int]) -> None:
    """Raise a `DataError` if a cell is no text that can be an id or a label."""
    for bad in {cell for cell in set(cells) if not cell or "\0" in cell}:
        rule = f"line {lines[cells.index(bad)]}, column '{name}' must be a text without NUL, and not empty"
        raise data_error(rule, repr(bad[:50]), path=path)


def parsed(
    path: str, name: str, cells: tuple[str, ...], lines: list[int], dtype: np.dtype[Any], decimal: str
) -> npt.NDArray[Any]:
    """Return one column's cells as numbers."""
    texts: Sequence[str] = cells
    if dtype.kind == "f" and decimal == ",":
        texts = [_with_a_point(cell, decimal) for cell in cells]
    values = _as(dtype, texts)
    if values is not None:
        return values
    line, cell = next((lines[i], cells[i]) for i, text in enumerate(texts) if _as(dtype, [text]) is None)
    raise data_error(f"line {line}, column '{name}' must be a finite {dtype.name}", repr(cell[:50]), path=path)


def _as(dtype: np.dtype[Any], texts: Sequence[str]) -> npt.NDArray[Any] | None:
    """Return texts as an array, or None if one is no number, not finite, or beyond the type's range."""
    if "_" in "".join(texts):  # Python's numbers may have underscores; a file's may not
        return None
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore", under="ignore"):
                values = np.array(list(map(float, texts)), np.float64).astype(dtype)
            return values if np.isfinite(values).all() else None
        numbers, bounds = list(map(int, texts)), np.iinfo(dtype)
        return np.array(numbers, dtype) if min(numbers) >= bounds.min and max(numbers) <= bounds.max else None
    except (ValueError, OverflowError):
        return None


class Texts:
    """A column of texts, most of them seen before: a number for each."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.codes: list[npt.NDArray[np.int32]] = []
        self.lines: list[int] = []
        """Of each text, the first line that it is in."""

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """Take the next cells, and the numbers of their lines."""
        numbers, before = self.numbers, len(self.numbers)
        codes = np.array([numbers.setdefault(cell, len(numbers)) for cell in cells], np.int32)
        if len(numbers) > before:
            _, first = np.unique(codes, return_index=True)
            self.lines += [lines[i] for i in sorted(first.tolist()) if codes[i] >= before]
        self.codes.append(codes)

    def array(self) -> npt.NDArray[np.object_]:
        """Return the column; each text is in memory once."""
        return np.array(list(self.numbers), object)[np.concatenate(self.codes)]


def labels_of(
    path: str, column: str, texts: Texts, known: Sequence[str] | None, decimal: str
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Return labels as integers (n, 1): those that they are, or their places among the known or the sorted ones."""

    def refuse(rule: str, is_bad: Callable[[str], bool]) -> None:
        for text, line in zip(texts.numbers, texts.lines, strict=True):
            if is_bad(text):
                raise data_error(f"line {line}, column '{column}': {rule}", repr(text[:50]), path=path)

    as_integers, names = number_labels(list(texts.numbers), known, refuse, decimal)
    return as_integers[np.concatenate(texts.codes)][:, np.newaxis], names


def number_labels(
    labels: Sequence[str],
    known: Sequence[str] | None,
    refuse: Callable[[str, Callable[[str], bool]], None],
    decimal: str = ".",
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Return different texts as integers (c,), and the names of these: none where the texts are integers.

    Parameters
    ----------
    labels, known
        Those that there are, and all that there may be, if that is known.
    refuse : callable
        Takes a rule and what breaks it, and raises for a text that does.
    decimal : {".", ","}
    """
    numbers = {text: _number(_with_a_point(text, decimal)) for text in labels}
    names: tuple[str, ...] = ()
    if known is not None:
        refuse(f"a label must be one of the {len(known)} 'label_names'", lambda text: text not in known)
        names = tuple(known)
    elif any(number is not None for number in numbers.values()):
        refuse("labels must all be integers, or none (or name them all: 'label_names')", lambda t: numbers[t] is None)
        # Others are measured, and no classes.
        refuse("labels must be integers below 2^31, or texts", lambda text: numbers[text] != _whole(numbers[text]))
    else:
        names = tuple(sorted(numbers))
    place: Mapping[str, Any] = {name: i for i, name in enumerate(names)} or numbers
    return np.array([place[text] for text in numbers]).astype(np.int32), names


def _with_a_point(text: str, decimal: str) -> str:
    """Return a number's text as Python reads it; where a comma is the mark a point separates thousands: no number."""
    return text.replace(".", "_").replace(",", ".") if decimal == "," else text


def _number(text: str) -> float | None:
    """Return the number that a text is, or None."""
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # "nan" and "infinity" are words, too


def _whole(number: float | None) -> float:
    """Return a number that is an int32 ("3", also "3.0"), or NaN for any other."""
    return number if number is not None and number.is_integer() and abs(number) < 2**31 else float("nan")
