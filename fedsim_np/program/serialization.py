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
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import data_error, shortened, shown

Description = dict[str, Any]
_KINDS = "biufc"  # of dtypes
_CONTAINERS: dict[str, Any] = {"tuple": tuple, "list": list, "dict": dict, "ordered": OrderedDict}
_KIND_OF = {container: kind for kind, container in _CONTAINERS.items()}
_SEQUENCES = ("tuple", "list")
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
        kind = "fields" if _fields(value) is not None else _KIND_OF.get(type(value))
        if kind is None:
            raise _not_storable(path, f"a {type(value).__name__}")
        parts = _parts(value)
        if isinstance(value, dict) and any(not isinstance(key, str) for key in value):
            raise _not_storable(path, "a mapping with keys that are no texts")
        if dataclasses.is_dataclass(value) and not all(field.init for field in dataclasses.fields(value)):
            raise _not_storable(path, "a dataclass with fields that its __init__ does not take")
        items = [[name, of(part, f"{path}/{name}", depth + 1)] for name, part in parts.items()]
        return {"kind": kind, "items": [item for _, item in items] if kind in _SEQUENCES else items}

    return of(state, ""), arrays


def form_of(description: Description) -> Any:
    """Return what decides whether a state fits into a structure: its description without numbers, texts and places.

    Examples
    --------
    >>> form_of(describe_state((1, np.zeros(2)))[0]) == form_of(describe_state((5, np.ones(2)))[0])
    True
    """
    items = description.get("items")
    if items is None:
        shape = description.get("shape")
        return description["kind"], type(description.get("value")), description.get("dtype"), shape
    if description["kind"] in _SEQUENCES:
        return description["kind"], [form_of(item) for item in items]
    return description["kind"], [(name, form_of(item)) for name, item in items]


def _fields(value: Any) -> list[str] | None:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return None


def _parts(node: Any) -> dict[Any, Any]:
    """Return what a node holds by its keys, fields or places."""
    fields = _fields(node)
    if fields is not None:
        return {name: getattr(node, name) for name in fields}
    return dict(node if isinstance(node, Mapping) else enumerate(node))


def _not_storable(path: str, found: str) -> TypeError:
    rule = "arrays of numbers, numbers, texts, None, or tuples, lists, mappings, named tuples or dataclasses of these"
    return TypeError(shortened(f"The state at '{path or '/'}' cannot be stored: it must be {rule}. Got {found}."))


def restore_state(description: Any, content: bytes | memoryview, like: Any) -> Any:
    """Return the state that was described, in the structure and with the classes of another.

    Parameters
    ----------
    description
        From `describe_state`.
    content : bytes or memoryview
        The arrays', one after another in the order of the description: no byte belongs to two of them.
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
    return _restored(description, _Bytes(content), like, "", 0)


class _Bytes:
    """The arrays' bytes, taken one after another: a state takes no more memory than its file."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._content, self._taken = memoryview(content), 0

    def take(self, place: int, size: int, path: str) -> memoryview:
        if place != self._taken:
            raise _unfit(path, f"stored in bytes of its own, from {self._taken}", place)
        if place + size > len(self._content):
            raise _unfit(path, f"stored, in {size} bytes from {place}", f"{len(self._content)} bytes in all")
        self._taken += size
        return self._content[place : self._taken]


def _restored(about: Any, content: _Bytes, like: Any, path: str, depth: int) -> Any:
    if not isinstance(about, dict) or depth > _MOST_DEEP:
        raise _unfit(path, "described as a state is", type(about).__name__)
    kind = about.get("kind")
    if kind in ("array", "scalar"):
        return _array(about, content, like, path)
    if kind in ("plain", "int", "float"):
        return _number(about, like, path)
    if kind not in ("fields", *_CONTAINERS):
        raise _unfit(path, "of a known kind", _said(kind))
    named = _named(kind, about.get("items"), path)
    if kind != "fields" and _is_open(like):
        like = dict.fromkeys(named) if kind not in _SEQUENCES else _CONTAINERS[kind]([None] * len(named))
    _check_node(kind, list(named), like, path)
    parts = _parts(like)
    values = {n: _restored(item, content, parts[n], f"{path}/{n}", depth + 1) for n, item in named.items()}
    if kind != "fields":
        return _CONTAINERS[kind](values.values() if kind in _SEQUENCES else values)
    try:
        return type(like)(**values)
    except TypeError as error:
        raise _unfit(path, f"what {type(like).__name__} can be made of", error) from error


def _named(kind: str, items: Any, path: str) -> dict[Any, Any]:
    """Return a node's items by their keys, fields or places."""
    if not isinstance(items, list):
        raise _unfit(path, "described as a state is", type(items).__name__)
    if kind in _SEQUENCES:
        return dict(enumerate(items))
    is_whole = all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in items)
    if not is_whole or len({name for name, _ in items}) < len(items):
        raise _unfit(path, "described as a state is", "something else")
    return dict(items)


def _check_node(kind: str, names: list[Any], like: Any, path: str) -> None:
    """Raise a `DataError` if what is stored is another node than there should be."""
    fields = _fields(like)
    if kind == "fields":
        fits, found = fields == names, "one with named fields" if fields is None else str(names)
    elif kind in _SEQUENCES:
        fits = fields is None and isinstance(like, _CONTAINERS[kind]) and len(like) == len(names)
        found = f"a {kind} of {len(names)}"
    else:
        fits = fields is None and isinstance(like, Mapping) and list(like) == names
        found = f"a mapping with the keys {names}" if fields is None else "a mapping"
    if not fits:
        raise _unfit(path, _kind_of(like), found)


def _array(about: Any, content: _Bytes, like: Any, path: str) -> Any:
    shape, place, name = about.get("shape"), about.get("place"), about.get("dtype")
    try:
        dtype = np.dtype(name if isinstance(name, str) else object)
    except (TypeError, ValueError, SyntaxError) as error:
        raise _unfit(path, "of one of NumPy's dtypes", _said(name)) from error
    numbers = [place, *shape] if isinstance(shape, list) else [None]
    is_whole = all(type(number) is int and number >= 0 for number in numbers)
    if not is_whole or dtype.kind not in _KINDS:
        raise _unfit(path, "described as an array is, by place, shape and dtype", _said(name))
    native, is_scalar = dtype.newbyteorder("="), about["kind"] == "scalar"
    fits = _is_open(like)
    if isinstance(like, np.ndarray | np.generic):
        fits = (like.dtype.newbyteorder("="), like.shape) == (native, tuple(shape))
        # NumPy's arithmetic makes scalars of arrays without axes: the given state says which of the two it is.
        is_scalar = isinstance(like, np.generic)
    if not fits:
        raise _unfit(path, _kind_of(like), f"{native.name} of shape {tuple(shape)}")
    stored = content.take(place, dtype.itemsize * math.prod(shape), path)
    try:
        values = np.frombuffer(stored, dtype).reshape(shape).astype(native)
    except ValueError as error:  # too many axes, or one too long for NumPy although there is nothing in it
        raise _unfit(path, "of a shape that NumPy has", str(shape)[:50]) from error
    return values[()] if is_scalar else values


def _number(about: Description, like: Any, path: str) -> Any:
    stored, kind = about.get("value"), about["kind"]
    value = stored
    try:
        if kind != "plain":
            value = int(stored, 16) if kind == "int" else float.fromhex(stored)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError) as error:
        raise _unfit(path, f"a stored {kind}", _said(stored)) from error
    if kind == "plain" and not (value is None or isinstance(value, bool | str)):
        raise _unfit(path, "a text, True, False or None", _said(stored))
    if not _is_open(like) and type(value) is not type(like):
        raise _unfit(path, _kind_of(like), shown(value))
    return value


def _said(stored: object) -> str:
    """Return what a file says in few words: what is nested in it may be deeper than Python writes."""
    return shortened(repr(stored), 50) if isinstance(stored, str | bool) else f"a {type(stored).__name__}"


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
