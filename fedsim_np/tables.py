"""Tables: columns of one length, by their names."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedsim_np.errors import check_path
from fedsim_np.files import write_text

# What a spreadsheet takes for a formula, which may call a program, when it opens a CSV file.
_FORMULA = r"[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20]"


class Table(OrderedDict[str, Any]):
    """A mapping from name to column, all of the same length.

    Examples
    --------
    >>> table = Table(round_num=[1, 2], loss=[2.0, 1.5])
    >>> table["loss"], table.num_rows
    ([2.0, 1.5], 2)
    >>> print(table.text(), end="")
    round_num,loss
    1,2.0
    2,1.5
    """

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.values()), ()))

    def plain(self) -> Mapping[str, Any]:
        """Return the columns that a file or a data frame has."""
        return self

    def to_frame(self) -> Any:
        """Return the table as a ``pandas.DataFrame``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas (to_csv does without)") from error
        return pandas.DataFrame({name: list(column) for name, column in self.plain().items()})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a CSV file, whole or not at all.

        Parameters
        ----------
        path : path-like
        """
        write_text(check_path("path", path), self.text(), through_links=True)

    def text(self) -> str:
        """Return the table as CSV."""
        columns = self.plain()
        return csv_lines([columns, *zip(*columns.values(), strict=True)])


class ClientsTable(Table):
    """A row a client; ``metrics`` are unfinalized, and finalized in files and data frames, a column each."""

    def __init__(
        self, columns: Any = (), finalize: Callable[[Sequence[Any]], Mapping[str, list[Any]]] | None = None
    ) -> None:
        super().__init__(columns)
        self._finalize = finalize

    def __reduce__(self) -> Any:
        return ClientsTable, (OrderedDict(self),)  # functions of one's own may not travel

    def without_rows(self) -> ClientsTable:
        """Return a table without columns, of the same metrics."""
        return ClientsTable((), self._finalize)

    def plain(self) -> Mapping[str, Any]:
        """Return the columns with finalized metrics; their counts stand among the others already."""
        if self._finalize is None:
            return self
        columns = OrderedDict((name, column) for name, column in self.items() if name != "metrics")
        columns.update(self._finalize(self["metrics"]))
        return columns


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as lines of CSV; NumPy's numbers are written as Python's."""
    return plain_csv_lines([cell.item() if isinstance(cell, np.generic) else cell for cell in row] for row in rows)


def plain_csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of Python's own numbers and texts as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def values_of(column: Sequence[str]) -> list[Any]:
    """Return texts as integers, or as floats (NaN where a text is empty), if all are such; else as they are.

    Examples
    --------
    >>> values_of(["1", "2"]), values_of(["1", ""]), values_of(["1", "ok"])
    ([1, 2], [1.0, nan], ['1', 'ok'])
    """
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return [kind(text or "nan") for text in column]
    return list(column)


def cell_of(text: str) -> str:
    """Return a client's id as a cell of ``clients.csv``: with ``'`` before what a spreadsheet takes for a formula.

    Examples
    --------
    >>> cell_of("=1+1"), text_of(cell_of("=1+1")), cell_of("f0000_14")
    ("'=1+1", '=1+1', 'f0000_14')
    """
    is_formula = not text[:1].isalnum() and re.match(_FORMULA, text)
    return f"'{text}" if is_formula else text


def text_of(cell: str) -> str:
    """Return the client's id that `cell_of` has written as a cell."""
    return cell[1:] if re.match(f"'{_FORMULA}", cell) else cell
