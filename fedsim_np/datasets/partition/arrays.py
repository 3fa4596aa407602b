"""Arrays of examples -> clients, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.client_data import ClientData, InMemoryClientData
from fedsim_np.datasets.partition.assignments import (
    Assignment,
    assign_dirichlet,
    assign_iid,
    assign_quantity_skew,
    assign_shards,
    assign_similarity,
    even_array,
)
from fedsim_np.datasets.sources import Columns, owned
from fedsim_np.errors import argument_type_error, check_float, check_int, check_type, data_error

Arrays = Mapping[str, npt.ArrayLike]

_SPLIT = 1_000_005  # the first word of `split_examples`'s streams, beside those in `assignments`


def from_arrays(arrays: Arrays, client: npt.ArrayLike) -> InMemoryClientData:
    """Make clients of arrays and an array that says whose each example is.

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        Field -> numbers. Floats of any width become float32, which is what models compute in; they must be finite as
        such. 64-bit integers become int32 where they fit; others stay.
    client : array-like of int or str, shape (n,)
        The client of each example. Clients are sorted by it (numbers as numbers); a client's examples stay in their
        order.

    Returns
    -------
    InMemoryClientData

    Raises
    ------
    DataError
        If lengths differ, a field does not hold numbers, or a number is not finite.

    Examples
    --------
    >>> data = from_arrays({"x": [[1.0], [2.0], [3.0]], "y": [0, 1, 1]}, client=["bob", "ann", "bob"])
    >>> data.client_ids, data.create_dataset_for_client("bob").to_arrays()["y"].tolist()
    (['ann', 'bob'], [0, 1])
    """
    columns = _columns(arrays)
    numbers, client_ids = _numbered(client)
    return _grouped(columns, numbers, client_ids)


def _numbered(client: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return clients as numbers 0..k-1 (n,), and their ids in sorted order."""
    rule = "the 'client' must be integers or texts, one an example"
    # Not by NumPy's own texts, which lose a NUL at the end and cost as much as the longest in every row.
    ids: list[Any] = even_array(client, "client", rule, object).tolist()
    kinds = set(map(type, ids)) if isinstance(ids, list) else {type(ids)}
    whole = all(issubclass(kind, Integral) and not issubclass(kind, bool) for kind in kinds)
    if not isinstance(ids, list) or not kinds or not (whole or all(issubclass(kind, str) for kind in kinds)):
        raise data_error(rule, ", ".join(sorted(kind.__name__ for kind in kinds)) or "none")
    if kinds not in ({int}, {str}):  # NumPy's own
        ids = list(map(int if whole else str, ids))
    number = {client_id: i for i, client_id in enumerate(sorted(set(ids)))}
    return np.array([number[client_id] for client_id in ids], np.int64), [str(client_id) for client_id in number]


def _columns(arrays: Arrays) -> Columns:
    """Return fields as arrays of equal length, floats as float32."""
    check_type("arrays", arrays, Mapping, "a mapping of field names to arrays")
    if not arrays:
        raise data_error("there must be a field", "none")
    for name in arrays:
        if not isinstance(name, str) or not name:
            raise argument_type_error("arrays", "a mapping of field names (texts) to arrays", name)
    columns = OrderedDict((name, numbers_of(name, values)) for name, values in arrays.items())
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise data_error("all fields must have the same length", lengths)
    if not next(iter(lengths.values())):
        raise data_error("there must be an example", "none")
    return columns


def numbers_of(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return a field's numbers as an array: floats as float32, 64-bit integers as int32 where they fit."""
    array: npt.NDArray[Any] = even_array(values, name, "must be an array of numbers", field=name)
    if array.dtype.kind not in "biuf" or not array.ndim:
        found = f"dtype {array.dtype} of shape {array.shape}"
        raise data_error("must hold numbers, one or more an example", found, field=name)
    if array.size == 0 and len(array):
        raise data_error("an example must have values", f"shape {array.shape}", field=name)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        fits = not array.size or (array.min() >= -(2**31) and array.max() < 2**31)
        return array.astype(np.int32) if fits else array
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        narrow: npt.NDArray[Any] = array.astype(np.float32, copy=False)
    # Looked at here, where an index is one of the caller's arrays; a NaN makes both extremes NaN.
    if narrow.size and not np.isfinite([narrow.min(), narrow.max()]).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(narrow))[0])
        raise data_error("values must be finite as float32", f"{array[index]} at index {index}", field=name)
    return narrow


def _grouped(columns: Columns, numbers: npt.NDArray[Any], client_ids: Sequence[str]) -> InMemoryClientData:
    """Make clients 0..k-1 of columns (n, ...) and the number of the client of each row."""
    n = len(next(iter(columns.values())))
    if len(numbers) != n:
        raise data_error(f"each of the {n} examples must have a client", f"{len(numbers)} clients' ids")
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(client_ids)))
    # One copy of each field, in which a client's rows lie together: clients are views of it.
    together = owned(OrderedDict((name, column[order]) for name, column in columns.items()))
    return InMemoryClientData(
        {
            client_id: {name: column[start:end] for name, column in together.items()}
            for client_id, start, end in zip(client_ids, [0, *ends[:-1]], ends, strict=True)
        }
    )


def _dealt(columns: Columns, assignment: Assignment, num_clients: int) -> InMemoryClientData:
    """Make clients of an assignment; their ids sort as their numbers do, as they have to in an HDF5 file."""
    width = len(str(num_clients - 1))
    return _grouped(columns, assignment, [f"client_{number:0{width}d}" for number in range(num_clients)])


def _labels(columns: Columns, label: str) -> npt.NDArray[Any]:
    if label not in columns:
        raise data_error(f"there must be a field '{label}' of labels", list(columns))
    column = columns[label]
    if column.dtype.kind == "f" or column.size != len(column):
        found = f"{column.dtype} of shape {column.shape}"
        raise data_error("labels must be integers, one an example", found, field=label)
    return column


def iid(arrays: Arrays, num_clients: int, seed: int = 0) -> InMemoryClientData:
    """Deal examples out evenly to clients that do not differ, see `assign_iid`.

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    seed : int

    Returns
    -------
    InMemoryClientData
        Clients ``client_0``, ``client_1``, ..., with leading zeros.

    Examples
    --------
    >>> data = iid({"x": np.zeros((100, 2)), "y": np.zeros(100, np.int32)}, num_clients=10)
    >>> data.client_ids[-1], data.create_dataset_for_client("client_9").num_examples
    ('client_9', 10)
    """
    columns = _columns(arrays)
    n = len(next(iter(columns.values())))
    return _dealt(columns, assign_iid(n, num_clients, seed), num_clients)


def dirichlet(
    arrays: Arrays, num_clients: int, alpha: float, seed: int = 0, label: str = "label"
) -> InMemoryClientData:
    """Deal examples out to clients whose label distributions differ, see `assign_dirichlet` (Hsu et al. 2019).

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    alpha : float
        Concentration: small is uneven.
    seed : int
    label : str
        The field of labels.

    Returns
    -------
    InMemoryClientData

    Examples
    --------
    >>> data = dirichlet({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=6, alpha=0.1, label="y")
    >>> data.create_dataset_for_client("client_0").num_examples
    10
    """
    columns = _columns(arrays)
    return _dealt(columns, assign_dirichlet(_labels(columns, label), num_clients, alpha, seed), num_clients)


def shards(
    arrays: Arrays, num_clients: int, shards_per_client: int = 2, seed: int = 0, label: str = "label"
) -> InMemoryClientData:
    """Deal sorted examples out in shards, so that clients have few labels, see `assign_shards` (McMahan et al. 2017).

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    shards_per_client : int
    seed : int
    label : str
        The field of labels.

    Returns
    -------
    InMemoryClientData

    Examples
    --------
    >>> data = shards({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=6, label="y")
    >>> max(len(np.unique(data.create_dataset_for_client(id).to_arrays()["y"])) for id in data.client_ids)
    2
    """
    columns = _columns(arrays)
    assignment = assign_shards(_labels(columns, label), num_clients, shards_per_client, seed)
    return _dealt(columns, assignment, num_clients)


def quantity_skew(arrays: Arrays, num_clients: int, beta: float, seed: int = 0) -> InMemoryClientData:
    """Deal examples out to clients of different sizes, see `assign_quantity_skew` (Li et al. 2022).

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    beta : float
        Concentration: small is uneven.
    seed : int

    Returns
    -------
    InMemoryClientData

    Examples
    --------
    >>> data = quantity_skew({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=3, beta=0.5)
    >>> [data.create_dataset_for_client(client_id).num_examples for client_id in data.client_ids]
    [1, 20, 39]
    """
    columns = _columns(arrays)
    n = len(next(iter(columns.values())))
    return _dealt(columns, assign_quantity_skew(n, num_clients, beta, seed), num_clients)


def similarity(
    arrays: Arrays, num_clients: int, similarity: float, seed: int = 0, label: str = "label"
) -> InMemoryClientData:
    """Deal a share of the examples out evenly and the rest sorted by label, see `assign_similarity`.

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    similarity : float
        The share, from 0 to 1.
    seed : int
    label : str
        The field with the labels.

    Returns
    -------
    InMemoryClientData

    Examples
    --------
    >>> data = similarity({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=3, similarity=0.0, label="y")
    >>> [np.unique(data.create_dataset_for_client(id).to_arrays()["y"]).tolist() for id in data.client_ids]
    [[2], [0], [1]]
    """
    columns = _columns(arrays)
    return _dealt(columns, assign_similarity(_labels(columns, label), num_clients, similarity, seed), num_clients)


def pool(client_data: ClientData) -> Columns:
    """Return all clients' examples as arrays, one client after the other: what can be dealt out anew.

    Parameters
    ----------
    client_data : ClientData

    Returns
    -------
    OrderedDict of str to ndarray, each of shape (n, ...)

    Examples
    --------
    >>> pool(InMemoryClientData({"ann": {"x": [1, 2]}, "bob": {"x": [3]}}))["x"].tolist()
    [1, 2, 3]
    """
    check_type("client_data", client_data, ClientData, "a ClientData")
    clients = [client_data.create_dataset_for_client(client_id).to_arrays() for client_id in client_data.client_ids]
    return OrderedDict((name, np.concatenate([arrays[name] for arrays in clients])) for name in clients[0])


def split_examples(
    client_data: ClientData, test_fraction: float = 0.1, seed: int = 0
) -> tuple[InMemoryClientData, InMemoryClientData]:
    """Split every client's examples into train and test ones, as in EMNIST: nobody is held out.

    A client of at least two examples has at least one on either side; a single one is for training. (To hold clients
    out: `ClientData.train_test_client_split`.)

    Parameters
    ----------
    client_data : ClientData
    test_fraction : float
        Of each client's examples, from 0 (none) and below 1.
    seed : int
        A client's split depends on the seed and its own id and number of examples alone.

    Returns
    -------
    (InMemoryClientData, InMemoryClientData)
        The same clients' train and test examples, each in their order.

    Examples
    --------
    >>> data = from_arrays({"x": np.arange(20)}, client=np.arange(20) % 2)
    >>> train, test = split_examples(data, test_fraction=0.2)
    >>> [d.create_dataset_for_client("0").to_arrays()["x"].tolist() for d in (train, test)]
    [[0, 2, 6, 8, 10, 12, 14, 16], [4, 18]]
    """
    check_type("client_data", client_data, ClientData, "a ClientData")
    fraction = check_float("test_fraction", test_fraction, minimum=0.0, below=1.0)
    seed = check_int("seed", seed, minimum=0)
    train: dict[str, Columns] = {}
    test: dict[str, Columns] = {}
    for client_id in client_data.client_ids:
        columns = client_data.create_dataset_for_client(client_id).to_arrays()
        n = len(next(iter(columns.values())))
        held_out = min(max(round(fraction * n), 1), n - 1) if n > 1 and fraction else 0
        id_bytes = client_id.encode("utf-8", "surrogatepass")
        words = [_SPLIT, len(id_bytes), *id_bytes, seed]
        chosen = np.zeros(n, bool)
        chosen[np.random.default_rng(words).permutation(n)[:held_out]] = True
        for part, rows in ((train, ~chosen), (test, chosen)):
            part[client_id] = owned(OrderedDict((name, column[rows]) for name, column in columns.items()))
    return InMemoryClientData(train), InMemoryClientData(test)
