"""Data frames -> arrays and clients. A frame is whatever has columns by name: pandas' and polars' are such."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.partition.arrays import (
    DataFrame,
    LabelledClientData,
    count_classes,
    labels_of_array,
    numbers_of,
)
from fedsim_np.datasets.partition.tables import Table
from fedsim_np.datasets.sources import Columns
from fedsim_np.errors import argument_type_error, data_error, did_you_mean


def from_dataframe(
    frame: DataFrame,
    client: Hashable,
    label: Hashable | None = None,
    features: Sequence[Hashable] | None = None,
    label_names: Sequence[str] | None = None,
) -> LabelledClientData:
    """Make clients of a data frame with a column that says whose each row is.

    Parameters
    ----------
    frame : DataFrame
        Of pandas, polars, or any with `columns` and, for ``frame[name]``, something with `to_numpy`.
    client : hashable
        The name of the column of clients' ids, integers or texts. Clients are sorted by it; a client's rows stay in
        their order.
    label, features, label_names
        See `read_dataframe`.

    Returns
    -------
    LabelledClientData
        Of examples ``x`` (d,) and ``y`` (1,): batches of these are what `SoftmaxRegression` takes. Its `label_names`
        and `num_classes` are those of the frame.

    Raises
    ------
    DataError
        If there is no such column, or it holds what it must not: it names the column.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Frame(SimpleNamespace):  # what is asked of pandas.DataFrame and polars.DataFrame
    ...     columns = ["garden", "petal", "kind"]
    ...     def __getitem__(self, name):
    ...         return SimpleNamespace(to_numpy=lambda: np.array(getattr(self, name)))
    >>> frame = Frame(garden=["north", "south"], petal=[1.5, 4.0], kind=["rose", "lily"])
    >>> data = from_dataframe(frame, client="garden", label="kind")
    >>> data.client_ids, data.label_names, data.create_dataset_for_client("north").to_arrays()["x"].tolist()
    (['north', 'south'], ('lily', 'rose'), [[1.5]])
    """
    if client is None:
        raise argument_type_error("client", "a column's name (without clients: read_dataframe(...).arrays)", client)
    return read_dataframe(frame, label, client, features, label_names).to_clients()


def read_dataframe(
    frame: DataFrame,
    label: Hashable | None = None,
    client: Hashable | None = None,
    features: Sequence[Hashable] | None = None,
    label_names: Sequence[str] | None = None,
) -> Table:
    """Return the columns of a data frame as arrays.

    Parameters
    ----------
    frame : DataFrame
    label : hashable, optional
        The column of labels, which becomes the field ``y``: integers, which stay as they are, texts, which are numbered
        in sorted order, or floats, for a regression: of 0.0 and 1.0, ``astype(int)`` or `label_names` makes classes.
    client : hashable, optional
        The column of clients' ids, to be left out of the features.
    features : sequence of hashable, optional
        The columns of numbers that become the field ``x``, float32, in this order. By default all that are left.
    label_names : sequence of str, optional
        All labels, in the order of their numbers; another one in the frame is an error.

    Returns
    -------
    Table
        Its `arrays` are what `iid`, `dirichlet` and their siblings deal out.

    Raises
    ------
    DataError
        If there is no such column, or it holds what it must not: it names the column.
    """
    if not isinstance(frame, DataFrame):
        raise argument_type_error("frame", "a data frame (of arrays: from_arrays, of a file: from_csv)", frame)
    columns = list(frame.columns)
    if features is not None and (isinstance(features, str) or not isinstance(features, Sequence)):
        raise argument_type_error("features", "a list of columns' names", features)
    if len(set(columns)) < len(columns):
        raise data_error("the columns' names must differ", columns)
    taken = [name for name in (label, client) if name is not None]
    chosen = [name for name in columns if name not in taken] if features is None else list(features)
    for name in (*taken, *chosen):
        if name not in columns:
            rule = f"the frame must have the column {name!r}"
            raise data_error(rule, columns, hint=did_you_mean(name, map(str, columns)))
    if len(set(taken + chosen)) < len(taken + chosen):
        raise data_error("a column must be wanted once", [*taken, *chosen])
    arrays: Columns = OrderedDict()
    if chosen:
        arrays["x"] = np.stack([_feature(frame, name) for name in chosen], axis=1)
    names: tuple[str, ...] = ()
    if label is not None:
        y, names = labels_of_array(str(label), _values(frame, label), label_names)
        arrays["y"] = y.reshape(-1, 1)
    ids = None if client is None else np.asarray(_values(frame, client), object)
    return Table(arrays, ids, names, count_classes(arrays.get("y"), names))


def _values(frame: DataFrame, name: Hashable) -> npt.NDArray[Any]:
    return np.asarray(frame[name].to_numpy())


def _feature(frame: DataFrame, name: Hashable) -> npt.NDArray[np.float32]:
    values = numbers_of(str(name), _values(frame, name))
    if values.ndim != 1:
        raise data_error("a column must hold one number a row", f"shape {values.shape}", field=str(name))
    return values.astype(np.float32, copy=False)
