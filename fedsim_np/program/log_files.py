"""Metrics in text files, a row a round: CSV and JSON Lines.

A row is written when its round is over, and a file can be gone on with: `resume` drops the rows of rounds that will be
computed again, and a row that was cut off in the middle, so that no round is there twice and none is lost. A run that
was interrupted and resumed leaves the same bytes as one that was not.
"""

from __future__ import annotations

import abc
import contextlib
import csv
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, check_int, check_path, data_error
from fedsim_np.files import HeldFile, as_json, check_own, naming_file, sync_file, sync_folder, write_text
from fedsim_np.program.loggers import flatten
from fedsim_np.tables import ClientsTable, cell_of, csv_lines, values_of

_LOGGER = logging.getLogger(__name__)
ROUND = "round_num"
Select = Callable[[str], bool]


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's, whose text is the same in all versions of NumPy, and anything else as text."""
    if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0:
        value = value.item()
    return value if value is None or isinstance(value, bool | int | float) else _clean(str(value))


def _clean(text: str) -> str:
    """Return a text as one line of UTF-8, and not too long for a reader of CSV files."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode()[:10_000]


class _FileLogger(abc.ABC):
    """What all files have in common: lines that belong to rounds, after a header or none."""

    _form: str
    """What a file must be, for an error's text."""
    _one_row_a_round = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(check_path("path", path)).absolute()
        self._opened = self._is_named = False
        self._last: int | None = None
        self._held: HeldFile | None = None  # what was written

    @abc.abstractmethod
    def _rounds_of(self, lines: list[str]) -> list[int]:
        """Return the rounds of lines, or raise if they are no such file's."""

    def restore(self) -> None:
        """Write the file again, whole, if since the last row it was removed, or another put in its place.

        Raises
        ------
        DataError
            If its content was changed: what was written can no longer be read.
        OSError
            If it cannot be written, because its folder was removed as well.
        """
        if self._held is None or self._held.is_at(self._path):
            return
        content = self._held.read()
        if content is None:
            rule = "must stay as this run writes it (nothing was added to it; put a copy back to go on with the run)"
            raise data_error(rule, "a file that was changed in mid-run, or removed", path=self._path)
        self._held = None
        write_text(self._path, content.decode(), durable=True)
        self._held = HeldFile(self._path)
        _LOGGER.warning("The log '%s' was removed or replaced in mid-run: it was written again, whole.", self._path)

    def _open(self) -> None:
        if self._opened:
            return
        if self._path.is_dir():
            raise argument_error("path", "a file", str(self._path))
        check_own(self._path, appended=True)
        if self._path.exists() and self._path.stat().st_size:
            rule = "a file that is not there yet (or call resume(round_num) first, to go on with it)"
            raise argument_error("path", rule, str(self._path))
        self._opened = True

    def _append(self, line: str, round_num: int) -> None:
        size = None
        try:
            with naming_file(self._path), open(self._path, "ab") as file:
                size = file.tell()
                file.write(line.encode())
            self._hold(line.encode())
        except BaseException:
            if size is not None:
                with contextlib.suppress(OSError):  # a part of a line would be taken for the start of the next
                    os.truncate(self._path, size)
            raise
        self._last = round_num

    def _hold(self, added: bytes = b"") -> None:
        if self._held is None:
            with naming_file(self._path):
                self._held = HeldFile(self._path)
        else:
            self._held.grow(self._path, added)

    def sync(self) -> None:
        """Have the disk confirm what was written; an error if the file is there and not this logger's."""
        self._open()
        with contextlib.suppress(FileNotFoundError), naming_file(self._path):
            sync_file(self._path)
            if not self._is_named:  # a name stays
                sync_folder(self._path.parent)
                self._is_named = True

    def _lines(self) -> list[str]:
        """Return the whole lines of the file; what follows the last line's end was cut off."""
        if not self._path.exists():
            return []
        try:
            text = self._path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            text = self._path.read_bytes()[: error.start].decode("utf-8")
        return text.split("\n")[:-1]

    def _read(self) -> tuple[list[str], list[int]]:
        """Return the file's lines and rounds."""
        check_own(self._path, appended=True)
        lines = self._lines()
        try:
            return lines, self._rounds_of(lines)
        except (csv.Error, ValueError, TypeError, LookupError, RecursionError) as error:
            raise data_error(f"must be {self._form}", error, path=self._path) from error

    def rounds(self) -> list[int]:
        """Return the rounds that the file has rows of."""
        return self._read()[1]

    def resume(self, round_num: int) -> None:
        """Go on after a round: drop the rows of later ones.

        Raises
        ------
        DataError
            If the file is no such log, or does not have the round.
        """
        lines, rounds = self._read()
        header = len(lines) - len(rounds)
        kept = [line for line, number in zip(lines[header:], rounds, strict=True) if number <= round_num]
        there = [number for number in rounds if number <= round_num]
        if there:
            is_lost = there[-1] != round_num
        else:  # a log may begin in mid-run
            is_lost = round_num > 0 and self._path.exists() and rounds[:1] != [round_num + 1]
        in_order = sorted(set(rounds)) if self._one_row_a_round else sorted(rounds)
        if is_lost or rounds != in_order:
            found = "none" if not rounds else f"rounds up to {rounds[-1]}"
            rule = f"must have a row of round {round_num}, to go on from there, and rows in order"
            raise data_error(rule, found, path=self._path)
        self._last = round_num
        text = "".join(f"{line}\n" for line in lines[:header] + kept)
        self._held = None
        if self._path.exists() and self._path.read_bytes() != text.encode():
            write_text(self._path, text, durable=True)
        if self._path.exists():
            self._hold()
        self._opened = True


def syncs_anywhere(logger: Any) -> bool:
    """Return whether any thread may call a logger's `sync`: one of those here may be, but not a subclass of them."""
    return type(logger) in (CSVLogger, JSONLinesLogger) and "sync" not in vars(logger)


class _MetricsLogger(_FileLogger):
    """A file of metrics: a line a round."""

    def __init__(self, path: str | os.PathLike[str], select: Select | None = None) -> None:
        super().__init__(path)
        self._select = select

    @abc.abstractmethod
    def _line(self, row: Mapping[str, Any]) -> str:
        """Return the line of a row."""

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Write a round's metrics."""
        number = check_int("round_num", round_num)
        if self._last is not None and number <= self._last:
            raise argument_error("round_num", f"after {self._last}", round_num)
        row: dict[str, Any] = {ROUND: number}
        for name, value in flatten(metrics).items():
            if self._select is None or self._select(name):
                row[_clean(name) if name != ROUND else f"metric/{ROUND}"] = _plain(value)
        self._open()
        self.restore()
        self._append(self._line(row), number)


class CSVLogger(_MetricsLogger):
    r"""Writes a row a round to a CSV file.

    A metric that is first reported in a later round gets a column then: the file is written again, whole or not at all,
    with empty cells in the rows before.

    Parameters
    ----------
    path : path-like
        A file that is not there yet, or one that `resume` goes on with.
    select : callable, optional
        Metric's name -> whether to write it. By default all are written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = CSVLogger(Path(folder) / "metrics.csv")
    ...     logger.release({"loss": 2.0}, round_num=1)
    ...     logger.release({"loss": 1.5, "evaluation": {"loss": 1.75}}, round_num=2)
    ...     (Path(folder) / "metrics.csv").read_text(encoding="utf-8")
    'round_num,loss,evaluation/loss\n1,2.0,\n2,1.5,1.75\n'
    """

    _form = f"a CSV file with the column '{ROUND}' first"

    def __init__(self, path: str | os.PathLike[str], select: Select | None = None) -> None:
        super().__init__(path, select)
        self._columns: list[str] = []

    def _line(self, row: Mapping[str, Any]) -> str:
        new = [name for name in row if name not in self._columns]
        if new:
            lines = [f"{line}{',' * len(new)}\n" for line in self._lines()[1:]]
            columns = self._columns + new
            self._held = None
            write_text(self._path, "".join([csv_lines([columns]), *lines]), durable=True)
            self._hold()
            self._columns = columns
        return csv_lines([[row.get(name, "") for name in self._columns]])

    def resume(self, round_num: int) -> None:
        """Go on after a round: drop the rows of later ones."""
        super().resume(round_num)
        self._columns = next(csv.reader(self._lines()), [])

    def rows(self) -> list[dict[str, Any]]:
        """Return the file's rows, numbers as numbers, without what a round has no value of."""
        header, *lines = list(csv.reader(self._read()[0], strict=True)) or [[]]
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        return [{name: values_of([text])[0] for name, text in row.items() if text} for row in rows]

    def _rounds_of(self, lines: list[str]) -> list[int]:
        rows = list(csv.reader(lines, strict=True))
        if rows and rows[0] and rows[0][0].isdecimal():
            raise ValueError("a row first, and no header: the file was removed while a run wrote it")
        rounds = [int(row[0]) for row in rows[1:]]
        if rows and (rows[0][0] != ROUND or len(rows) != len(lines) or len({len(row) for row in rows}) > 1):
            raise ValueError("something else")
        return rounds


class ClientsLogger(_FileLogger):
    r"""Writes a row a client and round to a CSV file: what `LearningProcessOutput.clients` says, metrics finalized.

    Parameters
    ----------
    path : path-like
        A file that is not there yet, or one that `resume` goes on with.

    Examples
    --------
    >>> import tempfile
    >>> from fedsim_np.tables import ClientsTable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = ClientsLogger(Path(folder) / "clients.csv")
    ...     logger.release_clients(ClientsTable({"client_id": ["ann"], "num_examples": [4], "status": ["ok"]}), 1)
    ...     (Path(folder) / "clients.csv").read_text(encoding="utf-8")
    'round_num,client_id,num_examples,status\n1,ann,4,ok\n'
    """

    _form = f"a CSV file with the columns '{ROUND}' and 'client_id' first"
    _one_row_a_round = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._has_header: bool | None = None

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Write nothing: metrics are for others."""

    def release_clients(self, clients: ClientsTable, round_num: int) -> None:
        """Write a round's rows; one without a client where nobody took part, so that no round is missing."""
        columns = clients.plain()
        ids = [cell_of(str(client_id)) for client_id in columns["client_id"]]
        others = [column for name, column in columns.items() if name != "client_id"]
        rows = [[round_num, *row] for row in zip(ids, *map(_list, others), strict=True)]
        self._open()
        self.restore()
        if not self._has_header:
            text = csv_lines([[ROUND, "client_id", *(name for name in columns if name != "client_id")]])
            self._has_header = True
        else:
            text = ""
        self._append(text + csv_lines(rows or [[round_num, *[""] * len(columns)]]), round_num)

    def resume(self, round_num: int) -> None:
        """Go on after a round: drop the rows of later ones."""
        super().resume(round_num)
        self._has_header = bool(self._lines())

    def _rounds_of(self, lines: list[str]) -> list[int]:
        rows = list(csv.reader(lines, strict=True))
        if rows and (rows[0][:2] != [ROUND, "client_id"] or len(rows) != len(lines) or len({len(r) for r in rows}) > 1):
            raise ValueError("something else")
        return [int(row[0]) for row in rows[1:]]


def _list(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else [_plain(value) for value in column]


class JSONLinesLogger(_MetricsLogger):
    r"""Writes a JSON object a round, a line each; what is not finite is null.

    Parameters
    ----------
    path : path-like
        A file that is not there yet, or one that `resume` goes on with.
    select : callable, optional
        Metric's name -> whether to write it. By default all are written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = JSONLinesLogger(Path(folder) / "metrics.jsonl")
    ...     logger.release({"loss": 2.0, "accuracy": float("nan")}, round_num=1)
    ...     (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8")
    '{"round_num": 1, "loss": 2.0, "accuracy": null}\n'
    """

    _form = f"JSON Lines with '{ROUND}'"

    def _line(self, row: Mapping[str, Any]) -> str:
        return as_json(row) + "\n"

    def rows(self) -> list[dict[str, Any]]:
        """Return the file's rows; what is null there is NaN."""
        rows = [json.loads(line) for line in self._read()[0]]
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]

    def _rounds_of(self, lines: list[str]) -> list[int]:
        rounds = [json.loads(line)[ROUND] for line in lines]
        if not all(type(number) is int for number in rounds):
            raise ValueError("a round that is no integer")
        return rounds
