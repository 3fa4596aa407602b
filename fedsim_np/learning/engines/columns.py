"""A client's data as columns and a reading order: what lockstep arithmetic needs instead of batches.

::

    batches:   x[[4, 0]], x[[2, 4]], x[[1]]      made one by one, by the user's map
    columns:   x (n, ...), y (n, ...)            every row once
    order:     rows [4, 0, 2, 4, 1], lengths [2, 2, 1]

Columns are right only if the batches are made row by row. A dataset without a map says so (`Dataset.select`), and a map
that only renames and reshapes is known to be so (`maps`): then the columns are the data's own arrays. Otherwise every
batch goes through the map, in order, as the reference loop does it, in every round. The batches are joined, and if
every row looks the same to the bit wherever it is read, they are reduced to one copy of each row; if not (a map that
subtracts the batch's mean, or draws random numbers), every row of every batch is a row of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.datasets.reading import RowBatches, applied
from fedsim_np.errors import DataError, NamingClient
from fedsim_np.learning.engines.cache import Cache, WeakKey
from fedsim_np.learning.engines.maps import Renaming, function_key, referents, renaming
from fedsim_np.learning.models.checks import check_batch, in_rows, read_batches
from fedsim_np.learning.models.model import Model
from fedsim_np.trees import Array


class ClientColumns(NamedTuple):
    """One client's rows, and the order in which local training reads them.

    Attributes
    ----------
    x, y : ndarray, shapes (n, ...)
        The fields of the batches.
    rows : ndarray of intp, shape (v,)
        The row that is read at each place of the order.
    lengths : ndarray of intp, shape (T,)
        Of the batches; they add up to v.
    num_own_examples : int
        Of the data, without repetitions.
    key : hashable or None
        What may be remembered about x is remembered under this key, beside its `Content`; None stands for nothing.
    order_key : hashable or None
        Equal for clients with as many rows in the same order; None stands for nothing.
    """

    x: Array
    y: Array
    rows: Array
    lengths: Array
    num_own_examples: int
    key: Hashable | None = None
    order_key: Hashable | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ClientColumns, self[:5]  # a key stands for memory of this process


def counted(columns: Sequence[ClientColumns]) -> tuple[Array, Array]:
    """Return how many batches and how many examples each client reads, (k,) int64 both."""
    num_steps = np.array([len(client.lengths) for client in columns], np.int64)
    return num_steps, np.array([len(client.rows) for client in columns], np.int64)


def stacks(model: Model) -> bool:
    """Return whether a model's batches are an x and a y, as many rows of each, which all have one shape."""
    spec = model.input_spec
    in_rows = set(spec) == {"x", "y"} and all(s.shape and None not in s.shape[1:] for s in spec.values())
    return in_rows and len({s.shape[0] for s in spec.values()}) == 1


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
    comes_again = not dataset.starts_later  # a copy for one round does not
    found: tuple[ClientColumns, list[Any]] | None = cache.find_of(dataset) if comes_again else None
    if found is not None and not _are_same(found[1], dataset):
        found = None
    if found is not None:
        client = found[0]
    else:
        with NamingClient(dataset.client_id):
            client = _read(model, dataset, cache)
        if comes_again and client.order_key is not None and _are_views(client, dataset):
            cache.put_of(dataset, (client, [referents(fn) for fn in dataset.maps]))
    # What is remembered are the data's own arrays, which may change; a copy would not change with them.
    x, y = (_as_model(model, name, array) for name, array in (("x", client.x), ("y", client.y)))
    return client if x is client.x and y is client.y else client._replace(x=x, y=y)


def _are_same(known: list[Any], dataset: Dataset) -> bool:
    """Return whether a dataset's maps refer to what they did."""
    try:
        now = [referents(fn) for fn in dataset.maps]
    except (RecursionError, ValueError):  # a function that refers to itself now, a name without a value
        return False
    return all(len(a) == len(b) and all(map(operator.is_, a, b)) for a, b in zip(known, now, strict=True))


def _are_views(client: ClientColumns, dataset: Dataset) -> bool:
    """Return whether a client's rows are the data's own memory: a reshape of strided rows is a copy."""
    parts = dataset.row_batches()
    columns = () if parts is None else parts.source.columns().values()
    return all(not a.size or any(np.may_share_memory(a, c) for c in columns) for a in (client.x, client.y))


def _read(model: Model, dataset: Dataset, cache: Cache) -> ClientColumns:
    parts = dataset.row_batches()
    if parts is None:
        # Copies: whoever makes the batches may use the same memory again.
        batches = [_fields(model, batch) for batch in read_batches(model, dataset)]
        return _of_batches(batches, model, dataset.num_own_examples)
    rows, lengths, sizes = _order(parts, cache)
    if not len(lengths):  # what nobody reads may be anything, as in the loop
        return _of_batches([], model, dataset.num_own_examples)
    columns, maps = parts.source.columns(), tuple([function_key(fn) for fn in parts.maps])
    names = _renaming(model, dataset, parts, columns, maps, sizes, cache)
    if names is None:
        batches = _mapped_batches(model, dataset, parts, rows, lengths)
        key = tuple((name, WeakKey(column)) for name, column in columns.items()), maps
        return _of_batches(batches, model, dataset.num_own_examples, rows, key)
    x, y = _renamed(columns, *names.x), _renamed(columns, *names.y)
    return ClientColumns(x, y, rows, lengths, len(x), (WeakKey(columns[names.x[0]]), names.x), parts.order_key)


def check_labels(model: Model, columns: Sequence[ClientColumns], ids: Sequence[str | None]) -> None:
    """Raise a `DataError` if a label that a client reads is none of the model's."""
    try:
        model.check_labels(np.concatenate([client.y for client in columns]))
    except DataError:
        for client, client_id in zip(columns, ids, strict=True):
            with NamingClient(client_id):
                model.check_labels(client.y[client.rows])  # one that nobody reads may be anything


_SMALL = 1024  # bytes of an entry without arrays of its own: its key, its objects


def _order(parts: RowBatches, cache: Cache) -> tuple[Array, Array, tuple[int, ...]]:
    """Return rows, lengths and all sizes of batches of a pipeline: all clients with as many examples share them."""
    found: tuple[Array, Array, tuple[int, ...]] | None = cache.find(parts.order_key)
    if found is None:
        rows = parts.make_order()
        whole, rest = divmod(len(rows), parts.batch_size)
        batches = [parts.batch_size] * whole + [rest] * (rest > 0 and not parts.drop_remainder)
        lengths = np.array(batches, np.intp)
        found = rows[: lengths.sum()], lengths, tuple(set(batches))
        cache.put(parts.order_key, found, found[0].nbytes + lengths.nbytes + _SMALL)
    return found


def _renaming(
    model: Model,
    dataset: Dataset,
    parts: RowBatches,
    columns: Mapping[str, Array],
    keys: tuple[Hashable | None, ...],
    sizes: tuple[int, ...],
    cache: Cache,
) -> Renaming | None:
    """Return where a dataset's x and y are in its columns, if its maps, of these keys, do no more than that.

    What they are is checked, and remembered for all columns of this form.
    """
    if None in keys:
        return None
    fields = columns.values()
    key = keys, sizes, *columns, *[column.shape[1:] for column in fields], *[column.dtype for column in fields]
    found: list[Renaming | None] | None = cache.find(key)
    if found is None:
        of_sizes = {renaming(parts.maps, parts.source.spec, size) for size in sizes or {1}}  # no batch is like any
        found = [of_sizes.pop() if len(of_sizes) == 1 else None]
        if found[0] is not None:
            for size in sizes:
                batch = {
                    name: _like_a_batch(columns[field], size, shape)
                    for name, (field, shape) in found[0]._asdict().items()
                }
                check_batch(model.input_spec, batch, dataset.client_id)
        cache.put(key, found, _SMALL)
    return found[0]


def _like_a_batch(column: Array, size: int, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.empty((), column.dtype), (size, *shape))


def _renamed(columns: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    column = columns[name]
    return column if column.shape[1:] == shape else column.reshape(len(column), *shape)


def _mapped_batches(
    model: Model, dataset: Dataset, parts: RowBatches, rows: Array, lengths: Array
) -> list[tuple[Array, Array]]:
    """Send every batch through the maps; copies, since a map may use the memory of what it returns again."""
    gathered = {name: column[rows] for name, column in parts.source.columns().items()}
    batches, form, start = [], None, 0
    for length in lengths.tolist():
        batch = {name: column[start : start + length] for name, column in gathered.items()}
        for fn in parts.maps:
            batch = applied(fn, batch)
        here = len(batch), *((a.shape, a.dtype) for a in map(np.asarray, map(batch.get, ("x", "y"))))
        if form != here:
            check_batch(model.input_spec, batch, dataset.client_id)
            form = here
        batches.append(_fields(model, batch))
        start += length
    return batches


def _fields(model: Model, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return copies of a batch's x and y."""
    x, y = (_as_model(model, name, np.array(batch[name])) for name in ("x", "y"))
    return x, y


def _as_model(model: Model, name: str, array: Array) -> Array:
    """Return integers of another width than the model's as int64: clients' fields are laid side by side."""
    spec = model.input_spec[name]
    rows: Array = in_rows(spec, array)
    is_own = rows.dtype == spec.dtype or spec.dtype.kind not in "iu"
    return rows if is_own else rows.astype(np.int64, copy=False)


def _of_batches(
    batches: list[tuple[Array, Array]],
    model: Model,
    num_own_examples: int,
    rows: Array | None = None,
    key: Hashable | None = None,
) -> ClientColumns:
    """Return each row once, if it is known which row is where and all its copies are the same; else every place."""
    specs = (model.input_spec[name] for name in ("x", "y"))
    empty = (np.empty((0, *(n or 0 for n in spec.shape[1:])), spec.dtype) for spec in specs)
    x, y = map(np.concatenate, zip(*batches, strict=True)) if batches else empty
    lengths = np.array([len(x) for x, _ in batches], np.intp)
    if rows is not None and len(rows) == len(x):
        _, first, places = np.unique(rows, return_index=True, return_inverse=True)
        once = x[first], y[first]
        # Compared by their bits: NaN is equal to NaN, and 0 is not to -0.
        same = (a[places].tobytes() == b.tobytes() for a, b in zip(once, (x, y), strict=True))
        if len(first) == len(rows) or all(same):
            return ClientColumns(*once, places, lengths, num_own_examples, key)
    return ClientColumns(x, y, np.arange(len(x)), lengths, num_own_examples)
