"""State as bytes, and back: arrays, numbers, texts and what holds them; nothing that could run.

A state is described in JSON, arrays by their dtype, shape and place in the bytes that follow. Named tuples and
dataclasses are stored by their fields alone. To load them one gives a state of the same structure, usually the one that
``initialize`` makes: its classes are used, and what is stored must fit its fields, dtypes and shapes. So no class is
looked up by a name from a file, and no code of a stranger's file is run. Where the given state has nothing yet (None,
or an empty container: what fills up over the rounds), plain containers of arrays and numbers are taken as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import data_error

Description = dict[str, Any]
_KINDS = "biufc"  # of dtypes
_MOST_DEEP = 50


def describe_state(state: Any) -> tuple[Description, list[npt.NDArray[Any]]]:
    """Return a state's description in JSON's terms, and its arrays in the order of their places.

    Raises
    ------
    TypeError
        If something in it is of another kind: the message names its place.

    Examples
    --------
    >>> description, arrays = describe_state({"rate": 0.5, "weights": (np.zeros(2, np.float32),)})
    >>> description["items"][1][1]
    {'kind': 'tuple', 'items': [{'kind': 'array', 'dtype': '<f4', 'shape': [2], 'place': 0}]}
    """
    arrays: list[npt.NDArray[Any]] = []
    place = 0

    def array_of(value: npt.NDArray[Any], kind: str, path: str) -> Description:
        nonlocal place
        if value.dtype.kind not in _KINDS:
            raise _not_storable(path, f"an array of {value.dtype}")
        # Not ascontiguousarray, which makes one axis of none.
        stored = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
        about = {"kind": kind, "dtype": stored.dtype.str, "shape": list(stored.shape), "place": place}
        arrays.append(stored)
        place += stored.nbytes
        return about

    def of(value: Any, path: str, depth: int = 0) -> Description:
        if depth > _MOST_DEEP:
            raise _not_storable(path, f"something {_MOST_DEEP} levels deep")
        # Exact types: an array with a mask, a number of an enumeration or a mapping with defaults would lose these.
        if value is None or type(value) in (bool, str):
            return {"kind": "plain", "value": value}
        if type(value) is np.ndarray:
            return array_of(value, "array", path)
        if isinstance(value, np.generic):
            return array_of(np.asarray(value), "scalar", path)
        if type(value) is int:
            return {"kind": "int", "value": hex(value)}
        if type(value) is float:
            return {"kind": "float", "value": value.hex()}
        if type(value) in (dict, OrderedDict):
            kind = "ordered" if isinstance(value, OrderedDict) else "dict"
            if any(not isinstance(key, str) for key in value):
                raise _not_storable(path, "a mapping with keys that are no texts")
            return {"kind": kind, "items": [[key, of(item, f"{path}/{key}", depth + 1)] for key, item in value.items()]}
        fields = _fields(value)
        if fields is not None:
            if dataclasses.is_dataclass(value) and not all(field.init for field in dataclasses.fields(value)):
                raise _not_storable(path, "a dataclass with fields that its __init__ does not take")
            items = [[name, of(getattr(value, name), f"{path}/{name}", depth + 1)] for name in fields]
            return {"kind": "fields", "items": items}
        if type(value) in (tuple, list):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {"kind": kind, "items": [of(item, f"{path}/{i}", depth + 1) for i, item in enumerate(value)]}
        raise _not_storable(path, f"a {type(value).__name__}")

    return of(state, ""), arrays


def _fields(value: Any) -> list[str] | None:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return None


def _not_storable(path: str, found: str) -> TypeError:
    rule = "arrays of numbers, numbers, texts, None, or tuples, lists, mappings, named tuples or dataclasses of these"
    return TypeError(f"The state at '{path or '/'}' cannot be stored: it must be {rule}. Got {found}.")


def restore_state(description: Any, content: bytes, like: Any) -> Any:
    """Return the state that was described, in the structure and with the classes of another.

    Parameters
    ----------
    description
        From `describe_state`.
    content : bytes
        The arrays', one after another.
    like
        A state of the same structure.

    Raises
    ------
    DataError
        If what is stored is damaged, or does not fit: the message names the place, and both shapes or kinds.

    Examples
    --------
    >>> description, arrays = describe_state((1, np.ones(2)))
    >>> restore_state(description, b"".join(array.tobytes() for array in arrays), (0, np.zeros(2)))
    (1, array([1., 1.]))
    >>> restore_state(description, b"", (0, np.zeros(3)))
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: the state at '/1' must be float64 of shape (3,). Got float64 of shape (2,).
    """
    return _restored(description, content, like, "", 0)


def _restored(about: Any, content: bytes, like: Any, path: str, depth: int) -> Any:
    if not isinstance(about, dict) or depth > _MOST_DEEP:
        raise _unfit(path, "described as a state is", type(about).__name__)
    kind = about.get("kind")
    if kind in ("array", "scalar"):
        return _array(about, content, like, path)
    if kind in ("plain", "int", "float"):
        return _number(about, like, path)
    if kind not in ("tuple", "list", "dict", "ordered", "fields"):
        raise _unfit(path, "of a known kind", repr(kind)[:50])
    items = about.get("items")
    if not isinstance(items, list):
        raise _unfit(path, "described as a state is", type(items).__name__)
    restored = _sequence if kind in ("tuple", "list") else _named
    return restored(kind, items, content, like, path, depth)


def _named(kind: str, items: list[Any], content: bytes, like: Any, path: str, depth: int) -> Any:
    named = {}
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or item[0] in named:
            raise _unfit(path, "described as a state is", "something else")
        named[item[0]] = item[1]
    fields = _fields(like)
    if (fields is not None) != (kind == "fields"):
        raise _unfit(path, _kind_of(like), "one with named fields" if kind == "fields" else "a mapping")
    if fields is not None:
        if list(named) != fields:
            raise _unfit(path, f"{type(like).__name__} with the fields {fields}", list(named))
        values = {n: _restored(named[n], content, getattr(like, n), f"{path}/{n}", depth + 1) for n in fields}
        try:
            return type(like)(**values)
        except TypeError as error:
            raise _unfit(path, f"what {type(like).__name__} can be made of", error) from error
    if _is_open(like):
        like = dict.fromkeys(named)
    if not isinstance(like, Mapping) or list(like) != list(named):
        raise _unfit(path, _kind_of(like), f"a mapping with the keys {list(named)}")
    make: Callable[..., Any] = OrderedDict if kind == "ordered" else dict
    return make((n, _restored(item, content, like[n], f"{path}/{n}", depth + 1)) for n, item in named.items())


def _sequence(kind: str, items: list[Any], content: bytes, like: Any, path: str, depth: int) -> Any:
    if _is_open(like):
        like = [None] * len(items)
    elif (
        not isinstance(like, list if kind == "list" else tuple) or _fields(like) is not None or len(like) != len(items)
    ):
        raise _unfit(path, _kind_of(like), f"a {kind} of {len(items)}")
    values = [_restored(item, content, like[i], f"{path}/{i}", depth + 1) for i, item in enumerate(items)]
    return values if kind == "list" else tuple(values)


def _array(about: Description, content: bytes, like: Any, path: str) -> Any:
    shape, place, name = about.get("shape"), about.get("place"), about.get("dtype")
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise _unfit(path, "of one of NumPy's dtypes", repr(name)[:50]) from error
    whole = (
        isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) and type(place) is int and place >= 0
    )
    if not whole or dtype.kind not in _KINDS or not isinstance(name, str):
        raise _unfit(path, "described as an array is", repr(about)[:50])
    assert isinstance(shape, list)
    assert isinstance(place, int)
    native = dtype.newbyteorder("=")
    found = f"{native.name} of shape {tuple(shape)}"
    if isinstance(like, np.ndarray | np.generic):
        if native != like.dtype.newbyteorder("=") or tuple(shape) != like.shape:
            raise _unfit(path, f"{like.dtype.name} of shape {like.shape}", found)
    elif not _is_open(like):
        raise _unfit(path, _kind_of(like), found)
    size = dtype.itemsize * math.prod(shape)
    if place + size > len(content):
        raise _unfit(path, f"stored, in {size} bytes from {place}", f"{len(content)} bytes in all")
    try:
        values = np.frombuffer(content, dtype, math.prod(shape), place).reshape(shape).astype(native)
    except ValueError as error:  # too many axes, or one too long for NumPy although there is nothing in it
        raise _unfit(path, "of a shape that NumPy has", str(shape)[:50]) from error
    # NumPy's arithmetic makes scalars of arrays without axes: the given state says which of the two it is.
    is_scalar = not isinstance(like, np.ndarray) and (about["kind"] == "scalar" or isinstance(like, np.generic))
    return values[()] if is_scalar else values


def _number(about: Description, like: Any, path: str) -> Any:
    value, kind = about.get("value"), about["kind"]
    try:
        if kind == "int":
            value = int(str(value), 16)
        elif kind == "float":
            value = float.fromhex(str(value))
    except (ValueError, OverflowError) as error:
        raise _unfit(path, f"a stored {kind}", repr(value)[:50]) from error
    if kind == "plain" and not (value is None or isinstance(value, bool | str)):
        raise _unfit(path, "a text, True, False or None", repr(value)[:50])
    if not _is_open(like) and type(value) is not type(like):
        raise _unfit(path, _kind_of(like), f"{value!r}"[:50])
    return value


def _is_open(like: Any) -> bool:
    """Return whether a state has nothing yet at a place, so that anything may have come there."""
    return like is None or (isinstance(like, tuple | list | Mapping) and not like)


def _kind_of(like: Any) -> str:
    if isinstance(like, np.ndarray | np.generic):
        return f"{like.dtype.name} of shape {like.shape}"
    fields = _fields(like)
    if fields is not None:
        return f"{type(like).__name__} with the fields {fields}"
    if isinstance(like, Mapping):
        return f"a mapping with the keys {list(like)}"
    if isinstance(like, tuple | list):
        return f"a {type(like).__name__} of {len(like)}"
    return f"of type {type(like).__name__}"


def _unfit(path: str, rule: str, found: object) -> Exception:
    return data_error(f"the state at '{path or '/'}' must be {rule}", found)
