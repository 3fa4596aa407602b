"""A client's data as columns and visits: what lockstep arithmetic needs instead of batches.

::

    batches:   x[[4, 0]], x[[2, 4]], x[[1]]      made one by one, by the user's map
    columns:   x (n, ...), y (n, ...)            every row once
    visits:    rows [4, 0, 2, 4, 1], lengths [2, 2, 1]

Columns are right only if the map works row by row. That is never assumed. Every batch of a client's first read goes
through the map, once and in order, as the reference loop does it. Then

- if all that the map does is to rename and reshape, the columns are the data's own arrays, and this is remembered of
  a map that refers to nothing that can change (`function_key`);
- else the mapped batches are joined, and if every row looks the same to the bit in all of its visits, they are reduced
  to one copy of each row; otherwise (a map that subtracts the batch's mean, or draws random numbers) every visit gets
  a row of its own. Such a client is read through its map in every round.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
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


_CHANCE = {"random", "secrets", "time", "uuid", "urandom"}  # names by which a function may reach what is never the same


def function_key(function: Callable[..., Any]) -> Hashable | None:
    """Return what a map depends on, if that cannot change: its code, and the constants that it refers to; else None.

    The tutorial makes its map anew for every client; all of those are one. A map that refers to anything that can
    change (a dict, a generator of random numbers, an object of one's own) has no key, and is called in every round.

    Examples
    --------
    >>> def make(n):
    ...     return lambda batch: {"x": batch["x"] * n}
    >>> function_key(make(2)) == function_key(make(2)), function_key(make(2)) == function_key(make(3))
    (True, False)
    >>> function_key(make([2])) is None
    True
    """
    return _key(function, ())


def _key(value: Any, within: tuple[Any, ...]) -> Hashable | None:
    if value is None or isinstance(value, str | bytes | int | float | bool | np.generic):
        return type(value), value  # 1 == 1.0 == True
    if isinstance(value, ModuleType):
        return ("module", value.__name__) if _of_trusted(value.__name__) else None
    if isinstance(value, BuiltinFunctionType | type | np.ufunc):
        home = getattr(value, "__module__", None) or "numpy"
        return (home, value.__name__) if _of_trusted(home) else None
    if isinstance(value, tuple):
        parts = tuple(_key(part, within) for part in value)
        return None if None in parts else parts
    if not isinstance(value, FunctionType) or value.__dict__ or value in within:
        return None
    names = _names(value.__code__)
    if names & _CHANCE:
        return None
    try:
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:  # a cell that is not filled yet
        return None
    found = [value.__globals__[name] for name in sorted(names) if name in value.__globals__]
    defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    # What these libraries do is in their documentation, and they have globals without end.
    refers = [] if _of_trusted(value.__module__) else [*cells, *found, *defaults]
    keys = tuple(_key(reference, (*within, value)) for reference in refers)
    return None if None in keys else (value.__code__, keys)


_TRUSTED = {"builtins", "numpy", "collections", "math", "operator", "itertools", "functools"}


def _of_trusted(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _TRUSTED  # code that exec runs has no module


def _names(code: CodeType) -> set[str]:
    """Return the global names and attributes that code uses, functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def changes(dataset: Dataset) -> bool:
    """Return whether reading a dataset runs code that may give something else the next time."""
    return dataset.is_stream or any(function_key(fn) is None for fn in dataset.maps)


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
        # Copies: whoever makes the batches may use the same memory again.
        batches = [(np.array(b["x"]), np.array(b["y"])) for b in read_batches(model, dataset)]
        return _checked(model, _of_visits(batches, model))
    columns = parts.source.columns()
    data_key = tuple((name, WeakKey(column)) for name, column in columns.items())
    map_keys = tuple(function_key(fn) for fn in parts.maps)
    visits_key = parts.order_key, parts.batch_size, parts.drop_remainder
    fixed = None not in map_keys
    # A kept Gram matrix knows its rows: what this key leaves out it will notice.
    row_key = data_key, map_keys if fixed else tuple(getattr(fn, "__code__", type(fn)) for fn in parts.maps)
    recipe: _Recipe | None = cache.find((row_key, visits_key)) if fixed else None
    rows, lengths = _visits(parts, cache) if recipe is None else (recipe.rows, recipe.lengths)
    if recipe is None:
        batches, recipe = _read_batches(model, dataset, parts, columns, rows, lengths)
        if recipe is None:
            return _checked(model, _of_rows(batches, rows, lengths, row_key, model))
        if fixed:
            cache.put((row_key, visits_key), recipe, _SMALL + rows.nbytes)
    x, y = (columns[name].reshape(-1, *shape) for name, shape in (recipe.x, recipe.y))
    client = _checked(model, ClientColumns(x, y, rows, lengths, row_key, visits_key))
    if fixed:
        cache.put_of(dataset, client)
    return client


def _checked(model: Any, client: ClientColumns) -> ClientColumns:
    """Raise a `DataError` where the model has a rule for labels and one that is visited breaks it."""
    check = getattr(model, "checked_labels", None)
    if check is not None:
        check(client.y.reshape(-1)[client.rows])
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
        x_made, y_made = _reshaped(x, memory, start, length), _reshaped(y, memory, start, length)
        made.add((x_made, y_made))
        start += length
        # A map may use the memory of what it returns again.
        batches.append((x if x_made else np.array(x), y if y_made else np.array(y)))
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
