"""What is found out about the functions that a user maps over batches: the only inference there is.

A map may do anything, and engines that compute on columns are right only if it works row by row. `Dataset.select` says
so by construction. Of a function of the user's two things are found out, here and nowhere else:

- `changes`: whether it refers to anything that may be something else the next time. The tutorial makes its map anew for
  every client; `function_key` is equal for all of these, and None for a function that may change.
- `renaming`: whether all that it does is to rename and reshape, whatever the values are. It is tried on stand-ins for
  arrays, which can be reshaped and nothing else, and on arrays, to see that these come to the same; a function whose
  code uses other names than reshaping needs is not tried.

What is found depends on the function's key, the structure of the data and the length of a batch, and not on client or
order: so it is remembered. Any other function is called for every batch, in order, as the reference loop calls it.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fedsim_np.datasets import ArraySpec, Dataset
from fedsim_np.datasets.selection import Selection

MapFunction = Callable[..., Any]

_CHANCE = {"random", "secrets", "time", "uuid", "urandom"}  # names by which a function may reach what is never the same
_TRUSTED = {"builtins", "numpy", "collections", "math", "operator", "itertools", "functools"}
_RESHAPING = {"np", "numpy", "collections", "OrderedDict", "dict", "reshape", "shape", "len", "size", "ndim", "items"}


def function_key(function: MapFunction) -> Hashable | None:
    """Return what a map depends on, if that cannot change: its code, and the constants that it refers to; else None.

    A map that refers to anything that can change (a dict, a generator of random numbers, an object of one's own) has
    no key.

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
    if type(value) is FunctionType:
        return None if value.__dict__ or value in within else _function_key(value, within)
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
    if isinstance(value, Selection):
        return value.fields, value.scale, value.offset, value.batched
    return None


def _function_key(function: FunctionType, within: tuple[Any, ...]) -> Hashable | None:
    code = function.__code__
    if _names(code)[1]:
        return None
    if _of_trusted(function.__module__):  # what these do is in their documentation, and they have globals without end
        return code, ()
    try:
        keys = tuple([_key(reference, (*within, function)) for reference in _references(function)])
    except ValueError:  # a cell that is not filled yet
        return None
    return None if None in keys else (code, keys)


def _references(function: FunctionType) -> list[Any]:
    """Return what a function refers to besides its code; None of a name that is no global."""
    found = [function.__defaults__, *map(function.__globals__.get, _names(function.__code__)[0])]
    if function.__closure__:
        found += [cell.cell_contents for cell in function.__closure__]
    if function.__kwdefaults__:
        found += function.__kwdefaults__.values()
    return found


def referents(function: MapFunction) -> list[Any]:
    """Return all that a function's key is of, to be compared by identity, which takes less time than another key.

    Examples
    --------
    >>> field = "a"
    >>> def choose(batch):
    ...     return {"x": batch[field]}
    >>> before = referents(choose)
    >>> [a is b for a, b in zip(before, referents(choose))]
    [True, True, True]
    >>> field = "b"
    >>> [a is b for a, b in zip(before, referents(choose))]
    [True, True, False]
    """
    if type(function) is not FunctionType or _of_trusted(function.__module__):
        return [function]
    references = _references(function)
    found = [function.__code__, *references]
    for reference in references:
        if type(reference) is FunctionType:
            found += referents(reference)
    return found


def _of_trusted(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _TRUSTED  # code that exec runs has no module


@functools.lru_cache(maxsize=256)
def _names(code: CodeType) -> tuple[list[str], bool]:
    """Return the global names and attributes that code uses, functions inside it included; and if chance is one."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    names = set(code.co_names).union(*(_names(constant)[0] for constant in inner))
    return sorted(names), not names.isdisjoint(_CHANCE)


def changes(dataset: Dataset) -> bool:
    """Return whether reading a dataset runs code that may give something else the next time."""
    return dataset.is_stream or any(function_key(fn) is None for fn in dataset.maps)


class Renaming(NamedTuple):
    """What x and y are, of a map that only renames and reshapes: field of the data, and shape of a row."""

    x: tuple[str, tuple[int, ...]]
    y: tuple[str, tuple[int, ...]]


def renaming(functions: Sequence[MapFunction], spec: Mapping[str, ArraySpec], length: int) -> Renaming | None:
    """Return what maps, one after the other, do to a batch of rows, if they only rename and reshape; else None.

    Examples
    --------
    >>> spec = {"pixels": ArraySpec((2, 2), np.float32), "label": ArraySpec((), np.int32)}
    >>> flatten = lambda e: {"x": np.reshape(e["pixels"], [-1, 4]), "y": e["label"].reshape(-1, 1)}
    >>> renaming([flatten], spec, 20)
    Renaming(x=('pixels', (4,)), y=('label', (1,)))
    >>> renaming([lambda e: {"x": e["pixels"] * 2, "y": e["label"]}], spec, 20) is None
    True
    """
    if not all(_only_reshapes(fn, ()) for fn in functions):
        return None
    shapes = {name: (length, *(n or 0 for n in array.shape)) for name, array in spec.items()}
    arrays = {name: np.arange(math.prod(shape)).reshape(shape) for name, shape in shapes.items()}
    made: Any = OrderedDict((name, _StandIn(name, shape)) for name, shape in shapes.items())
    tried: Any = OrderedDict(arrays)
    try:
        for fn in functions:
            made, tried = fn(made), fn(tried)
        x, y = made["x"], made["y"]
        same = (np.array_equal(tried[name], arrays[made[name].field].reshape(made[name].shape)) for name in ("x", "y"))
        if len(made) != 2 or not all(same) or {x.shape[0], y.shape[0]} != {length}:
            return None
    except Exception:  # whatever a function raises that is given something else than it expects
        return None
    return Renaming((x.field, x.shape[1:]), (y.field, y.shape[1:]))


def _only_reshapes(function: MapFunction, within: tuple[Any, ...]) -> bool:
    """Return whether a function's code uses nothing but what reshaping needs, and functions of which that is true."""
    if not isinstance(function, FunctionType) or function in within or function_key(function) is None:
        return False
    others = set(_names(function.__code__)[0]) - _RESHAPING
    if not others <= set(function.__globals__):
        return False
    refers = [function.__globals__[name] for name in others]
    refers += [cell.cell_contents for cell in function.__closure__ or ()]
    return all(
        isinstance(value, int | str | tuple | list) or _only_reshapes(value, (*within, function)) for value in refers
    )


class _StandIn:
    """A field that can be reshaped, and whose values nobody can look at."""

    def __init__(self, field: str, shape: tuple[int, ...]) -> None:
        self.field, self.shape, self.ndim, self.size = field, shape, len(shape), math.prod(shape)

    def reshape(self, *shape: Any, order: str = "C") -> _StandIn:
        return _StandIn(self.field, np.broadcast_to(0, self.shape).reshape(*shape).shape)

    def __len__(self) -> int:
        return self.shape[0]

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("only reshaping is known")

    __eq__ = __bool__ = __repr__ = _refuse
