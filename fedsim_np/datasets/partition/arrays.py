"""Arrays of examples -> clients, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
from fedsim_np.datasets.partition.cells import number_labels
from fedsim_np.datasets.schema import label_field
from fedsim_np.datasets.sources import Columns, owned
from fedsim_np.errors import argument_type_error, check_float, check_int, check_type, data_error, did_you_mean

Arrays = Mapping[str, npt.ArrayLike]

_SPLIT = 1_000_005  # the first word of `split_examples`'s streams, beside those in `assignments`


class Column(Protocol):
    """A column of a data frame."""

    def to_numpy(self) -> npt.NDArray[Any]:
        """Return its values, (n,)."""


@runtime_checkable
class DataFrame(Protocol):
    """Columns by their names, as pandas and polars have them."""

    @property
    def columns(self) -> Any:
        """Return the columns' names, an iterable."""

    def __getitem__(self, name: Any, /) -> Any:
        """Return the `Column` of a name."""


class LabelledClientData(InMemoryClientData):
    """Clients in memory, and what is known of their labels.

    Attributes
    ----------
    label_names : tuple of str
        What labels 0, 1, ... stand for where they were texts; empty where they were numbers.
    num_classes : int
        c: as many as there are names, or one more than the greatest number; 0 without labels, and where these are
        floats, which are measured: ``astype(int)``, or `label_names`, makes classes of 0.0 and 1.0.
    """

    def __init__(
        self,
        client_arrays: Mapping[str, Mapping[str, npt.ArrayLike]],
        label_names: Sequence[str] = (),
        num_classes: int = 0,
    ) -> None:
        super().__init__(client_arrays)
        self.label_names, self.num_classes = tuple(label_names), num_classes


class _Examples(NamedTuple):
    """Fields of equal length, and what is known of their labels."""

    columns: Columns
    label_names: tuple[str, ...]
    num_classes: int

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def from_arrays(
    arrays: Arrays,
    client: npt.ArrayLike,
    label: str | None = None,
    label_names: Sequence[str] | None = None,
) -> LabelledClientData:
    """Make clients of arrays and an array that says whose each example is.

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        Field -> numbers. Floats of any width become float32, which is what models compute in; they must be finite as
        such. 64-bit integers become int32 where they fit; others stay. A field `y` of one number an example gets the
        shape (n, 1), in which models take it.
    client : array-like of int or str, shape (n,), or str
        The client of each example, or the name of the field that says it. Clients are sorted by it (numbers as
        numbers); a client's examples stay in their order.
    label : str, optional
        The field of labels, by default `label`, or `y` if there is no such field. Labels may be texts, which are
        numbered in sorted order.
    label_names : sequence of str, optional
        All labels, in the order of their numbers; another one is an error. Whole floats are labels as integers are:
        1.0 is "1".

    Returns
    -------
    LabelledClientData
        Client data in memory, with `label_names` and `num_classes`.

    Raises
    ------
    DataError
        If lengths differ, a field does not hold numbers, or a number is not finite.

    Examples
    --------
    >>> data = from_arrays({"x": [[1.0], [2.0], [3.0]], "y": ["no", "yes", "yes"]}, client=["bob", "ann", "bob"])
    >>> data.client_ids, data.create_dataset_for_client("bob").to_arrays()["y"].tolist(), data.label_names
    (['ann', 'bob'], [[0], [1]], ('no', 'yes'))
    """
    arrays = _checked(arrays)
    if isinstance(client, str):
        if client not in arrays:
            rule = "the 'client' must be the name of a field, or integers or texts, one an example"
            raise data_error(rule, f"{client!r} and {list(arrays)}", hint=did_you_mean(client, arrays))
        client = arrays.pop(client)
    examples = _examples(arrays, label, label_names)
    numbers, client_ids = _numbered(client)
    return _grouped(examples, numbers, client_ids)


def _numbered(client: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return clients as numbers 0..k-1 (n,), and their ids in sorted order."""
    rule = "the 'client' must be integers or texts, one an example (or a field's name)"
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


def _checked(arrays: Arrays) -> dict[str, npt.ArrayLike]:
    """Return arrays as a dict of one's own."""
    rule = "a mapping of field names to arrays"
    if isinstance(arrays, DataFrame) and not isinstance(arrays, Mapping):
        frame = "(of a data frame: from_dataframe, or read_dataframe(...).arrays)"
        raise argument_type_error("arrays", f"{rule} {frame}", type(arrays))
    check_type("arrays", arrays, Mapping, rule)
    for name in arrays:
        if not isinstance(name, str) or not name:
            raise argument_type_error("arrays", "a mapping of field names (texts) to arrays", name)
    return dict(arrays)


def _examples(arrays: Arrays, label: str | None = None, label_names: Sequence[str] | None = None) -> _Examples:
    """Return fields as arrays of equal length: floats as float32, labels as integers."""
    arrays = _checked(arrays)
    check_type("label", label, str | None, "a field's name or None")
    label = label_field(arrays) if label is None else label
    if not arrays:
        raise data_error("there must be a field", "none")
    if label is not None and label not in arrays:
        raise data_error(f"there must be a field '{label}' of labels", list(arrays), hint=did_you_mean(label, arrays))
    known = None if label_names is None else list(label_names)
    if known is not None and label is None:
        raise data_error("there must be a field of labels to have 'label_names'", list(arrays))
    names: tuple[str, ...] = ()
    columns: Columns = OrderedDict()
    for name, values in arrays.items():
        if name == label:
            columns[name], names = labels_of_array(name, values, known)
        else:
            columns[name] = numbers_of(name, values)
    if "y" in columns and columns["y"].ndim == 1:
        columns["y"] = columns["y"][:, np.newaxis]
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise data_error("all fields must have the same length", lengths)
    if not next(iter(lengths.values())):
        raise data_error("there must be an example", "none")
    return _Examples(columns, names, count_classes(columns.get(label or ""), names))


def count_classes(labels: npt.NDArray[Any] | None, names: Sequence[str] = ()) -> int:
    """Return how many names there are, or one more than the greatest label; 0 where labels are no integers.

    Examples
    --------
    >>> count_classes(np.array([[0], [2]])), count_classes(np.array([0.5])), count_classes(None)
    (3, 0, 0)
    """
    if names or labels is None or labels.dtype.kind not in "iu" or labels.size != len(labels):
        return len(names)
    return int(labels.max()) + 1 if labels.size else 0


def texts_of(values: npt.ArrayLike, field: str | None = None) -> list[str] | None:
    """Return texts, one an example, as a list; None if they are anything else.

    Examples
    --------
    >>> texts_of(np.array([["a"], ["b"]])), texts_of([1, 2]), texts_of(np.array(["a", None], object))
    (['a', 'b'], None, None)
    """
    if isinstance(values, list) and not all(isinstance(value, str) for value in values):
        return None  # before NumPy makes texts of all, or an error
    array = even_array(values, "labels", "must be an array of numbers", field=field)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    listed = array.tolist() if array.ndim == 1 and array.dtype.kind in "UTO" else [None]
    return list(map(str, listed)) if listed and all(isinstance(text, str) for text in listed) else None


def labels_of_array(
    name: str, values: npt.ArrayLike, known: Sequence[str] | None = None
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Return a field of labels as numbers, and what they stand for: texts are numbered as `read_csv` numbers them."""
    texts = texts_of(values, name)
    if texts is None:
        array = even_array(values, name, "must be an array of numbers", field=name)
        odd = [value for value in array.flat if not isinstance(value, str)] if array.dtype.kind == "O" else []
        if 0 < len(odd) < array.size:
            raise data_error("labels must all be texts, or all numbers, none of them missing", repr(odd[0]), field=name)
        array = numbers_of(name, values)
        array = array.astype(np.int32) if array.dtype.kind == "b" else array
        if known is None:
            return array, ()
        if array.size != len(array):
            raise data_error("labels must be one number an example", f"shape {array.shape}", field=name)
        listed = array.ravel().tolist()
        texts = [str(int(value) if isinstance(value, float) and value.is_integer() else value) for value in listed]
    different = dict.fromkeys(texts)

    def refuse(rule: str, is_bad: Callable[[str], bool]) -> None:
        for text in filter(is_bad, different):
            raise data_error(rule, f"{text[:50]!r} at index {texts.index(text)}", field=name)

    refuse("a label must be a text without NUL, and not empty", lambda text: not text or "\0" in text)
    numbers, names = number_labels(list(different), known, refuse)
    number = dict(zip(different, numbers, strict=True))
    return np.array([number[text] for text in texts], np.int32), names


def numbers_of(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return a field's numbers as an array: floats as float32, 64-bit integers as int32 where they fit."""
    array: npt.NDArray[Any] = even_array(values, name, "must be an array of numbers", field=name)
    if array.dtype.kind == "O" and array.ndim and all(isinstance(value, Real) for value in array.flat):
        array = np.array(array.tolist())  # as columns of frames are that have room for missing numbers
    if array.dtype.kind not in "biuf" or not array.ndim:
        found = f"dtype {array.dtype} of shape {array.shape}"
        raise data_error("must hold numbers, one or more an example", found, field=name)
    # NumPy makes floats of whole numbers that no one type of its own has.
    if array.dtype == np.float64 and (abs(array) >= 2.0**63).any() and _are_integers(values):
        raise data_error("integers must fit into 64 bits", "one of 2^63 or more beside smaller ones", field=name)
    if array.size == 0 and len(array):
        raise data_error("an example must have values", f"shape {array.shape}", field=name)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        fits = not array.size or (array.min() >= -(2**31) and array.max() < 2**31)
        return array.astype(np.int32) if fits else array
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore", under="ignore"):
        narrow: npt.NDArray[Any] = array.astype(np.float32, copy=False)
    # Looked at here, where an index is one of the caller's arrays; a NaN makes both extremes NaN.
    if narrow.size and not np.isfinite([narrow.min(), narrow.max()]).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(narrow))[0])
        raise data_error("values must be finite as float32", f"{array[index]} at index {index}", field=name)
    return narrow


def _are_integers(values: Any) -> bool:
    """Return whether nested lists hold whole numbers alone."""
    while isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple):
        values = [item for row in values for item in row]
    return isinstance(values, list | tuple) and all(type(value) is int for value in values)


def _grouped(examples: _Examples, numbers: npt.NDArray[Any], client_ids: Sequence[str]) -> LabelledClientData:
    """Make clients 0..k-1 of columns (n, ...) and the number of the client of each row."""
    n = len(examples)
    if len(numbers) != n:
        raise data_error(f"each of the {n} examples must have a client", f"{len(numbers)} clients' ids")
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(client_ids)))
    # One copy of each field, in which a client's rows lie together: clients are views of it.
    together = owned(OrderedDict((name, column[order]) for name, column in examples.columns.items()))
    return LabelledClientData(
        {
            client_id: {name: column[start:end] for name, column in together.items()}
            for client_id, start, end in zip(client_ids, [0, *ends[:-1]], ends, strict=True)
        },
        examples.label_names,
        examples.num_classes,
    )


def _dealt(examples: _Examples, assignment: Assignment, num_clients: int) -> LabelledClientData:
    """Make clients of an assignment; their ids sort as their numbers do, as they have to in an HDF5 file."""
    width = len(str(num_clients - 1))
    return _grouped(examples, assignment, [f"client_{number:0{width}d}" for number in range(num_clients)])


def _labels(columns: Columns, label: str | None) -> npt.NDArray[Any]:
    label = label_field(columns) if label is None else label
    if label is None:
        raise data_error("there must be a field 'label' of labels, or 'y'", list(columns))
    column = columns[label]
    if column.dtype.kind == "f" or column.size != len(column):
        found = f"{column.dtype} of shape {column.shape}"
        raise data_error("labels must be integers, one an example", found, field=label)
    return column


def iid(arrays: Arrays, num_clients: int, seed: int = 0) -> LabelledClientData:
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
    LabelledClientData
        Clients ``client_0``, ``client_1``, ..., with leading zeros.

    Examples
    --------
    >>> data = iid({"x": np.zeros((100, 2)), "y": np.zeros(100, np.int32)}, num_clients=10)
    >>> data.client_ids[-1], data.create_dataset_for_client("client_9").num_examples
    ('client_9', 10)
    """
    examples = _examples(arrays)
    return _dealt(examples, assign_iid(len(examples), num_clients, seed), num_clients)


def dirichlet(
    arrays: Arrays, num_clients: int, alpha: float, seed: int = 0, label: str | None = None
) -> LabelledClientData:
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
    label : str, optional
        The field of labels; as for `from_arrays`.

    Returns
    -------
    LabelledClientData

    Examples
    --------
    >>> data = dirichlet({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=6, alpha=0.1)
    >>> data.create_dataset_for_client("client_0").num_examples
    10
    """
    examples = _examples(arrays, label)
    labels = _labels(examples.columns, label)
    return _dealt(examples, assign_dirichlet(labels, num_clients, alpha, seed), num_clients)


def shards(
    arrays: Arrays, num_clients: int, shards_per_client: int = 2, seed: int = 0, label: str | None = None
) -> LabelledClientData:
    """Deal sorted examples out in shards, so that clients have few labels, see `assign_shards` (McMahan et al. 2017).

    Parameters
    ----------
    arrays : mapping of str to array-like, each of shape (n, ...)
        As for `from_arrays`.
    num_clients : int
        k.
    shards_per_client : int
    seed : int
    label : str, optional
        The field of labels; as for `from_arrays`.

    Returns
    -------
    LabelledClientData

    Examples
    --------
    >>> data = shards({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=6)
    >>> max(len(np.unique(data.create_dataset_for_client(id).to_arrays()["y"])) for id in data.client_ids)
    2
    """
    examples = _examples(arrays, label)
    assignment = assign_shards(_labels(examples.columns, label), num_clients, shards_per_client, seed)
    return _dealt(examples, assignment, num_clients)


def quantity_skew(arrays: Arrays, num_clients: int, beta: float, seed: int = 0) -> LabelledClientData:
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
    LabelledClientData

    Examples
    --------
    >>> data = quantity_skew({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=3, beta=0.5)
    >>> [data.create_dataset_for_client(client_id).num_examples for client_id in data.client_ids]
    [1, 20, 39]
    """
    examples = _examples(arrays)
    return _dealt(examples, assign_quantity_skew(len(examples), num_clients, beta, seed), num_clients)


def similarity(
    arrays: Arrays, num_clients: int, similarity: float, seed: int = 0, label: str | None = None
) -> LabelledClientData:
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
    label : str, optional
        The field with the labels: ``label`` or ``y`` by default.

    Returns
    -------
    LabelledClientData

    Examples
    --------
    >>> data = similarity({"x": np.zeros((60, 2)), "y": np.arange(60) % 3}, num_clients=3, similarity=0.0)
    >>> [np.unique(data.create_dataset_for_client(id).to_arrays()["y"]).tolist() for id in data.client_ids]
    [[2], [0], [1]]
    """
    examples = _examples(arrays, label)
    assignment = assign_similarity(_labels(examples.columns, label), num_clients, similarity, seed)
    return _dealt(examples, assignment, num_clients)


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
) -> tuple[LabelledClientData, LabelledClientData]:
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
    (LabelledClientData, LabelledClientData)
        The same clients' train and test examples, each in their order; `label_names` and `num_classes` are kept.

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
    known = client_data if isinstance(client_data, LabelledClientData) else None
    about = ((), 0) if known is None else (known.label_names, known.num_classes)
    return LabelledClientData(train, *about), LabelledClientData(test, *about)
