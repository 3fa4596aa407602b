"""CSV files -> arrays and clients, row by row.

The text is read in blocks of rows and becomes numbers at once: memory holds the numbers, never the text. Nothing is
guessed. A column is a feature, the label, the client, a field of a stated type, or it is left out; a cell that does not
fit is an error that names its line and column.
"""

from __future__ import annotations

import csv
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.partition.arrays import DataFrame, LabelledClientData, count_classes, from_arrays
from fedsim_np.datasets.partition.cells import Texts, check_texts, labels_of, parsed
from fedsim_np.datasets.sources import Columns
from fedsim_np.errors import (
    NamingDataFile,
    argument_error,
    argument_type_error,
    check_path,
    check_type,
    data_error,
    did_you_mean,
    no_such_file,
)

_CELLS = 2**19  # of a block of rows


class Table(NamedTuple):
    """What `read_csv` and `read_dataframe` return; n examples, d features.

    Attributes
    ----------
    arrays : OrderedDict of str to ndarray
        ``x`` float32 (n, d), the features; ``y`` (n, 1), the labels, int32 of a file; and the columns with a type of
        their own.
    client : ndarray of str objects, shape (n,), or None
        The client of each example: each id is in memory once.
    label_names : tuple of str
        What labels 0, 1, ... stand for where they are texts; empty where they are numbers.
    num_classes : int
        c: as many as there are names, or one more than the greatest number; 0 without labels, and where those of a
        frame are floats.
    """

    arrays: Columns
    client: npt.NDArray[np.object_] | None
    label_names: tuple[str, ...]
    num_classes: int

    def to_clients(self) -> LabelledClientData:
        """Return the clients that the examples say they are of."""
        assert self.client is not None
        data = from_arrays(self.arrays, self.client)
        data.label_names, data.num_classes = self.label_names, self.num_classes
        return data


def from_csv(
    path: str | os.PathLike[str],
    client: str,
    label: str | None = None,
    features: Sequence[str] | None = None,
    types: Mapping[str, npt.DTypeLike] | None = None,
    delimiter: str = ",",
    decimal: str = ".",
    label_names: Sequence[str] | None = None,
) -> LabelledClientData:
    r"""Make clients of a CSV file with a column that says whose each row is.

    Parameters
    ----------
    path : path-like
        UTF-8 text, its first line the columns' names.
    client : str
        The column of clients' ids. Clients are sorted by it; a client's rows stay in their order.
    label, features, types, delimiter, decimal, label_names
        See `read_csv`.

    Returns
    -------
    LabelledClientData
        Of examples ``x`` (d,) and ``y`` (1,): batches of these are what `SoftmaxRegression` takes.

    Raises
    ------
    DataError
        If the file is not of this form: it names line and column.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "flowers.csv")
    ...     with open(path, "w", encoding="utf-8") as file:
    ...         _ = file.write("garden,petal,sepal,kind\nnorth,1.5,5,rose\nsouth,4,6.5,lily\nnorth,2,5,rose\n")
    ...     data = from_csv(path, client="garden", label="kind")
    >>> data.client_ids, data.label_names, data.num_classes
    (['north', 'south'], ('lily', 'rose'), 2)
    >>> data.create_dataset_for_client("north").to_arrays()["x"].tolist()
    [[1.5, 5.0], [2.0, 5.0]]
    """
    check_type("client", client, str, "a column's name (ids, one an example, are for from_arrays)")
    table = read_csv(path, label, client, features, types, delimiter, decimal, label_names)
    with NamingDataFile(path):
        return table.to_clients()


def read_csv(
    path: str | os.PathLike[str],
    label: str | None = None,
    client: str | None = None,
    features: Sequence[str] | None = None,
    types: Mapping[str, npt.DTypeLike] | None = None,
    delimiter: str = ",",
    decimal: str = ".",
    label_names: Sequence[str] | None = None,
) -> Table:
    """Read the columns of a CSV file as arrays.

    Parameters
    ----------
    path : path-like
        UTF-8 text, its first line the columns' names.
    label : str, optional
        The column of labels: integers ("1", also "1.0": a file says no types), which stay as they are, or texts, which
        are numbered in sorted order; not both, unless there are `label_names`. It becomes the field ``y``.
    client : str, optional
        The column of clients' ids: texts.
    features : sequence of str, optional
        The columns of numbers that become the field ``x``, in this order. By default all that are left, or, where there
        are `types`, none.
    types : mapping of str to dtype-like, optional
        Columns that become fields of their own, by their own names: any of NumPy's integers and floats. (`from_csv`
        makes float32 of any float, and int32 of int64 where it fits.)
    delimiter : str
        One character.
    decimal : {".", ","}
        What stands before a number's fraction.
    label_names : sequence of str, optional
        All labels, in the order of their numbers; another one in the file is an error. Without it two files of one data
        set number their labels alike only if both have all of them.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        If the file is not of this form, or a cell does not fit: it names line and column.
    """
    if isinstance(path, DataFrame):
        raise argument_type_error("path", "a path (of a data frame: from_dataframe, read_dataframe)", type(path))
    path = check_path("path", path)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\0\r\n"':
        raise argument_error("delimiter", "one character, no quote and no end of a line", delimiter)
    if decimal not in (".", ",") or decimal == delimiter:
        raise argument_error("decimal", "'.' or ',', and not the delimiter", decimal)
    for name, column in (("label", label), ("client", client)):
        check_type(name, column, str | None, "a column's name or None")
    features, known = _names("features", features), _known_labels(label, label_names)
    check_type("types", types, Mapping | None, "a mapping of columns' names to dtypes")
    own = {name: _own_type(name, dtype) for name, dtype in (types or {}).items()}
    taken = {"y"} if label is not None else set()
    if taken & set(own) or ("x" in own and features):
        raise argument_error("types", "for columns of other names than x and y, which others have", sorted(own))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            wanted = [name for name in (label, client, *(features or ()), *own) if name is not None]
            header = _header(path, reader, delimiter, wanted)
            if features is None:
                features = [] if own else [name for name in header if name not in (label, client)]
                if "" in features:
                    raise data_error("a feature's column must have a name, or the features be named", header, path=path)
            return _read(path, reader, header, label, client, features, own, decimal, known)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except UnicodeDecodeError as error:
        rule = "must be UTF-8 text (of a spreadsheet: saved as 'CSV UTF-8')"
        where = f" in line {_bad_line(path)}" if os.path.isfile(path) else ""  # a pipe is read once
        raise data_error(rule, f"{error.object[error.start]:#x}{where}", path=path) from error
    except IsADirectoryError as error:
        raise data_error("must be a file", "a folder", path=path) from error
    except csv.Error as error:
        raise data_error("must be a CSV file", f"in line {reader.line_num}: {error}", path=path) from error


def _bad_line(path: str) -> int:
    with open(path, "rb") as file:
        return next(number for number, line in enumerate(file, 1) if line.decode("utf-8", "ignore").encode() != line)


def _names(argument: str, names: Sequence[str] | None) -> list[str] | None:
    """Return names as a list, whatever they came in."""
    if names is None:
        return None
    found = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [None]
    if not all(isinstance(name, str) for name in found):
        raise argument_type_error(argument, "a sequence of texts", names)
    return [str(name) for name in found]


def _known_labels(label: str | None, label_names: Sequence[str] | None) -> list[str] | None:
    known = _names("label_names", label_names)
    if known is not None and (label is None or len(set(known)) < len(known) or not known):
        raise argument_error("label_names", "different texts, given together with 'label'", label_names)
    return known


def _own_type(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(object if dtype is None else dtype)
    except (TypeError, ValueError, SyntaxError):
        found = np.dtype(object)
    if found.kind not in "iuf" or not found.isnative:
        raise argument_error("types", f"one of NumPy's integers or floats for '{name}'", dtype)
    return found


def _header(path: str, reader: Iterator[list[str]], delimiter: str, wanted: Sequence[str]) -> list[str]:
    header = next(reader, [])
    if not header:
        raise data_error("the first line must name the columns", "nothing", path=path)
    if len(set(header)) < len(header):
        raise data_error("the columns' names must differ", header, path=path)
    if len(set(wanted)) < len(wanted):
        raise data_error("a column must be wanted once", list(wanted), path=path)
    there = set(header)
    absent = [name for name in wanted if name not in there]
    if absent:
        others = [mark for mark in ";\t,|" if mark != delimiter and mark in header[0]]
        hint = f"; is the delimiter {others[0]!r}?" if len(header) == 1 and others else ""
        meant = did_you_mean(absent[0], header)
        raise data_error(f"must have the columns {absent}{hint}", header, path=path, hint=meant)
    return header


def _read(
    path: str,
    reader: Any,
    header: list[str],
    label: str | None,
    client: str | None,
    features: list[str],
    own: Mapping[str, np.dtype[Any]],
    decimal: str,
    known: Sequence[str] | None,
) -> Table:
    texts = {name: Texts() for name in (label, client) if name is not None}
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ["x"] * bool(features) + list(own)}
    for lines, rows in _blocks(path, reader, len(header)):
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        for name, seen in texts.items():
            seen.add(columns[name], lines)
            check_texts(path, name, columns[name], lines)
        if features:
            x = np.empty((len(rows), len(features)), np.float32)
            for j, name in enumerate(features):
                x[:, j] = parsed(path, name, columns[name], lines, x.dtype, decimal)
            parts["x"].append(x)
        for name, dtype in own.items():
            parts[name].append(parsed(path, name, columns[name], lines, dtype, decimal))
    if not (texts or parts) or not any([*parts.values(), *(seen.codes for seen in texts.values())]):
        raise data_error("must have a row and a column that is wanted", "none", path=path)
    arrays: Columns = OrderedDict((name, np.concatenate(parts.pop(name))) for name in list(parts))
    label_names: tuple[str, ...] = ()
    num_classes = 0
    if label is not None:
        arrays["y"], label_names = labels_of(path, label, texts[label], known, decimal)
        num_classes = count_classes(arrays["y"], label_names)
    clients = None if client is None else texts[client].array()
    return Table(arrays, clients, label_names, num_classes)


def _blocks(path: str, reader: Any, width: int) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield rows and the numbers of their lines, a block at a time; empty lines are skipped."""
    lines: list[int] = []
    rows: list[list[str]] = []
    most = max(1, _CELLS // width)
    for row in reader:
        if not row:
            continue
        if len(row) != width:
            rule = f"line {reader.line_num} must have as many cells as there are columns ({width})"
            raise data_error(rule, len(row), path=path)
        rows.append(row)
        lines.append(reader.line_num)
        if len(rows) == most:
            yield lines, rows
            lines, rows = [], []
    if rows:
        yield lines, rows
