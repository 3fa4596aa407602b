"""A client's data as columns and visits: what lockstep arithmetic needs instead of batches.

::

    batches:   x[[4, 0]], x[[2, 4]], x[[1]]      made one by one, by the user's map
    columns:   x (n, ...), y (n, ...)            every row once
    visits:    rows [4, 0, 2, 4, 1], lengths [2, 2, 1]

Columns are right only if the map works row by row. That is never assumed. Every batch of a client's first read goes
through the map, once and in order, as the reference loop does it. Then

- if all that the map does is to rename and reshape, the columns are the data's own arrays, and this is remembered;
- else the mapped batches are joined, and if every row looks the same to the bit in all of its visits, they are reduced
  to one copy of each row; otherwise (a map that subtracts the batch's mean, or draws random numbers) every visit gets
  a row of its own. Such a client is read through its map in every round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.datasets.dataset import RowBatches
from fedsim_np.datasets.sources import Columns
from fedsim_np.errors import naming_client
from fedsim_np.learning.engines.cache import Cache, WeakKey
from fedsim_np.learning.models import Array, Model, check_batch, read_batches


class ClientColumns(NamedTuple):
    """One client's rows, and the order in which local training visits them.

    Attributes
    ----------
    x, y : ndarray, shapes (n, ...)
        The fields of the batches.
    rows : ndarray of intp, shape (v,)
        The row of each visit.
    lengths : ndarray of intp, shape (T,)
        The visits of each batch; they add up to v.
    key : hashable or None
        What may be remembered about x is remembered under this key; None stands for nothing.
    visits_key : hashable or None
        Equal for clients with as many rows in the same order; None stands for nothing.
    """

    x: Array
    y: Array
    rows: Array
    lengths: Array
    key: Hashable | None = None
    visits_key: Hashable | None = None


class _Recipe(NamedTuple):
    """How a map that only renames and reshapes makes x and y: field of the data -> shape of a row."""

    x: tuple[str, tuple[int, ...]]
    y: tuple[str, tuple[int, ...]]
    rows: Array
    lengths: Array


def function_key(function: Callable[..., Any]) -> Hashable:
    """Return what identifies a map: for a function its code and what it has captured, for others the object.

    The tutorial makes its map anew for every client; all of those are one.

    Examples
    --------
    >>> def make(n):
    ...     return lambda batch: {"x": batch["x"] * n}
    >>> function_key(make(2)) == function_key(make(2)), function_key(make(2)) == function_key(make(3))
    (True, False)
    """
    if not isinstance(function, FunctionType):
        return function if isinstance(function, Hashable) else _Same(function)
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a cell that is not filled yet
        return function
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    return function.__code__, tuple(map(_captured, cells)), tuple(map(_captured, defaults)), _Same(function.__globals__)


def _captured(value: Any) -> Hashable:
    """Return numbers and texts as they are with their types, since 1 == 1.0, and stand-ins for all else."""
    if isinstance(value, FunctionType):
        return function_key(value)
    simple = isinstance(value, str | bytes | int | float | bool | type(None))
    return (type(value), value) if simple else _Same(value)


class _Same:
    """Equal to what stands for the same object; it keeps the object, so that no other one can take its place."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash((type(self), type(self.value)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def stacks(model: Model) -> bool:
    """Return whether a model's batches are an x and a y whose rows all have one shape."""
    spec = model.input_spec
    return set(spec) == {"x", "y"} and all(s.shape[:1] == (None,) and None not in s.shape[1:] for s in spec.values())


def read_columns(model: Model, dataset: Dataset, cache: Cache) -> ClientColumns:
    """Read a client.

    Raises
    ------
    DataError
        If a batch is not what the model takes.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> arrays = {"x": np.float32([[1], [2], [3]]), "y": np.int32([[0], [1], [0]])}
    >>> dataset = Dataset.from_arrays(arrays).repeat(2).shuffle(9, seed=1).batch(4)
    >>> client = read_columns(SoftmaxRegression(1, 2), dataset, Cache(0))
    >>> client.x.tolist(), client.rows.tolist(), client.lengths.tolist()
    ([[1.0], [2.0], [3.0]], [1, 2, 1, 2, 0, 0], [4, 2])
    """
    known: ClientColumns | None = cache.find_of(dataset)
    if known is not None:
        return known
    parts = dataset.row_batches()
    if parts is None:
        batches = [(np.asarray(b["x"]), np.asarray(b["y"])) for b in read_batches(model, dataset)]
        return _checked(model, _of_visits(batches, model))
    columns = parts.source.columns()
    largest = max(columns.values(), key=lambda column: column.nbytes)
    data_key = WeakKey(largest), tuple((name, a.shape, a.dtype.str) for name, a in columns.items())
    map_key = tuple(function_key(fn) for fn in parts.maps)
    key = data_key, map_key, parts.order_key, parts.batch_size, parts.drop_remainder
    recipe: _Recipe | None = cache.find(key)
    rows, lengths = _visits(parts, cache) if recipe is None else (recipe.rows, recipe.lengths)
    if recipe is None:
        batches, recipe = _read_batches(model, dataset, parts, columns, rows, lengths)
        if recipe is None:
            return _checked(model, _of_rows(batches, rows, lengths, (data_key, map_key), model))
        cache.put(key, recipe, _SMALL)
    x, y = (columns[name].reshape(-1, *shape) for name, shape in (recipe.x, recipe.y))
    visits_key = parts.order_key, parts.batch_size, parts.drop_remainder
    client = _checked(model, ClientColumns(x, y, rows, lengths, (data_key, map_key), visits_key))
    cache.put_of(dataset, client)
    return client


def _checked(model: Any, client: ClientColumns) -> ClientColumns:
    """Raise a `DataError` where the model has a rule for labels and one that is visited breaks it."""
    check = getattr(model, "checked_labels", None)
    if check is not None:
        labels = client.y.reshape(-1)
        check(labels if len(client.rows) >= len(labels) else labels[client.rows])
    return client


def columns_of(model: Model, clients: Sequence[Dataset | ClientColumns], cache: Cache) -> list[ClientColumns]:
    """Return the clients of a chunk, those that are still datasets read now."""
    found = []
    for client in clients:
        if isinstance(client, ClientColumns):
            found.append(client)
            continue
        with naming_client(client.client_id):
            found.append(read_columns(model, client, cache))
    return found


_SMALL = 1024  # bytes of an entry without arrays of its own: its key, its objects


def _visits(parts: RowBatches, cache: Cache) -> tuple[Array, Array]:
    """Return rows and lengths of a pipeline: all clients with as many examples share them."""
    key = parts.order_key, parts.batch_size, parts.drop_remainder
    found: tuple[Array, Array] | None = cache.find(key)
    if found is None:
        rows = parts.make_order()
        b, v = parts.batch_size, len(rows)
        whole, rest = divmod(v, b)
        lengths = np.array([b] * whole + [rest] * (rest > 0 and not parts.drop_remainder), np.intp)
        found = rows[: lengths.sum()], lengths
        cache.put(key, found, found[0].nbytes + lengths.nbytes + _SMALL)
    return found


def _read_batches(
    model: Model, dataset: Dataset, parts: RowBatches, columns: Columns, rows: Array, lengths: Array
) -> tuple[list[tuple[Array, Array]], _Recipe | None]:
    """Send every batch through the map; return them, and the recipe if all that it does is to rename and reshape."""
    gathered = OrderedDict((name, column[rows]) for name, column in columns.items())
    batches: list[tuple[Array, Array]] = []
    made: set[tuple[Any, Any]] = set()
    memory = [(name, _address(c), c.nbytes // max(1, len(c)), c) for name, c in gathered.items()]
    seen, start = None, 0
    for length in lengths.tolist():
        given = OrderedDict((name, column[start : start + length]) for name, column in gathered.items())
        batch: Mapping[str, Any] = given
        for fn in parts.maps:
            batch = dataset.mapped(fn, batch)
        x, y = np.asarray(batch.get("x")), np.asarray(batch.get("y"))
        form = x.shape[1:], x.dtype, y.shape[1:], y.dtype
        if form != seen or len(x) != len(y):
            check_batch(model.input_spec, batch, dataset.client_id)
            seen = form
        batches.append((x, y))
        made.add((_reshaped(x, memory, start, length), _reshaped(y, memory, start, length)))
        start += length
    if len(made) != 1:
        return batches, None
    x_made, y_made = made.pop()
    if x_made is None or y_made is None:
        return batches, None
    for name in {x_made[0], y_made[0]}:  # a map may have written into what it was given
        if not np.array_equal(gathered[name], columns[name][rows]):
            return batches, None
    return batches, _Recipe(x_made, y_made, rows, lengths)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _reshaped(
    array: Array, memory: Sequence[tuple[str, int, int, Array]], start: int, length: int
) -> tuple[str, tuple[int, ...]] | None:
    """Return which gathered column a batch's array is, row by row in the same memory, and the shape of its rows."""
    if array.base is None or not array.flags.c_contiguous or len(array) != length:
        return None
    address = _address(array)
    for name, first, row_bytes, column in memory:
        if address == first + start * row_bytes and array.nbytes == length * row_bytes and array.dtype == column.dtype:
            return name, array.shape[1:]
    return None


def _of_visits(batches: list[tuple[Array, Array]], model: Model) -> ClientColumns:
    """Return every visit as a row of its own."""
    x, y = _joined(batches, model)
    lengths = np.array([len(b[0]) for b in batches], np.intp)
    return ClientColumns(x, y, np.arange(len(x), dtype=np.intp), lengths)


def _of_rows(
    batches: list[tuple[Array, Array]], rows: Array, lengths: Array, key: Hashable, model: Model
) -> ClientColumns:
    """Return each row once, if it is the same in all of its visits."""
    if [len(x) for x, _ in batches] != lengths.tolist():
        return _of_visits(batches, model)
    x, y = _joined(batches, model)
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    one_x, one_y = x[first], y[first]
    inverse = inverse.reshape(-1).astype(np.intp)
    same = len(first) == len(rows) or (_same_bits(one_x[inverse], x) and _same_bits(one_y[inverse], y))
    return ClientColumns(one_x, one_y, inverse, lengths, key) if same else _of_visits(batches, model)


def _joined(batches: list[tuple[Array, Array]], model: Model) -> tuple[Array, Array]:
    if batches:
        return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
    spec = model.input_spec
    x, y = (np.empty((0, *(d or 0 for d in spec[name].shape[1:])), spec[name].dtype) for name in ("x", "y"))
    return x, y


def _same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
