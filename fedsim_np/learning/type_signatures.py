"""The text of a process's types, as TFF 0.87 prints it, derived from the values themselves; and methods that have it.

A type is a tensor ("float32[784,10]"), a struct of members, or one of these placed, repeated or joined into a
function. `type_of` reads it off a state, a batch's spec or a round's metrics, so that no signature is typed by hand.
`typed_method` gives a method its ``type_signature``, which is made when it is asked for, beside the rounds.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Type:
    """A type, held as its indented text."""

    text: str

    def formatted_representation(self) -> str:
        """Return TFF's indented text."""
        return self.text

    def __str__(self) -> str:
        # TFF's compact text differs in line ends and indentation alone.
        return "".join(line.lstrip(" ") for line in self.text.split("\n"))

    def __repr__(self) -> str:
        return f"Type({self})"

    def between(self, before: str, after: str) -> Type:
        """Return the type with marks around it: placed at the server, a sequence, ..."""
        return Type(f"{before}{self.text}{after}")


def tensor(dtype: str, shape: Iterable[int | None] = ()) -> Type:
    """Return the type of a number or an array.

    Examples
    --------
    >>> print(tensor("int32", (None, 1)))
    int32[?,1]
    """
    lengths = ",".join("?" if length is None else str(length) for length in shape)
    return Type(f"{dtype}[{lengths}]" if lengths else dtype)


def fields(members: Iterable[tuple[str | None, Type]]) -> Type:
    """Return the type of a struct: members in order, each with a name or None.

    Examples
    --------
    >>> print(fields([("rate", tensor("float32")), (None, fields([]))]))
    <rate=float32,<>>
    """
    texts = [f"{name}={member.text}" if name else member.text for name, member in members]
    return Type("<\n{}\n>".format(textwrap.indent(",\n".join(texts), "  ")) if texts else "<>")


def function(parameter: Type | None, result: Type) -> Type:
    """Return the type of a function.

    Examples
    --------
    >>> print(function(None, server(type_of({"rate": 0.5}))).formatted_representation())
    ( -> <
      rate=float32
    >@SERVER)
    """
    before = "" if parameter is None else parameter.text
    return result.between(f"({before} -> ", ")")


def server(member: Type) -> Type:
    """Place a type at the server."""
    return member.between("", "@SERVER")


def client_sequences(element: Type) -> Type:
    """Return the type of the clients' datasets: one sequence of batches at each client.

    Examples
    --------
    >>> print(client_sequences(type_of({"x": ArraySpec((None, 784), np.float32)})))
    {<x=float32[?,784]>*}@CLIENTS
    """
    return element.between("{", "*}@CLIENTS")


def type_of(value: Any) -> Type:
    """Read the type off a value.

    Parameters
    ----------
    value : array, ArraySpec, number or any nesting of mappings, named tuples, tuples and lists
        A Python float is a float32 as in TFF, and a Python int an int32, see `with_int64`.

    Examples
    --------
    >>> print(type_of({"weights": (np.zeros((2, 3), np.float32), 1.0), "step": 0, "nothing": ()}))
    <weights=<float32[2,3],float32>,step=int32,nothing=<>>
    """
    python_types = {bool: "bool", int: "int32", float: "float32", type(None): "?"}

    def of_leaf(leaf: Any) -> Type:
        if isinstance(leaf, np.ndarray | np.generic | ArraySpec):
            return tensor(leaf.dtype.name, leaf.shape)
        return tensor(python_types.get(type(leaf), type(leaf).__name__))

    return trees.fold(of_leaf, lambda node, members: fields(members), value)


def with_int64(value: T) -> T:
    """Return a value with int64 for every Python int: TFF counts examples in int64, and all else in int32."""
    return trees.map(lambda leaf: np.int64(leaf) if type(leaf) is int else leaf, value)


def varying(a: T, b: T) -> T:
    """Return what two values of the same nesting have in common: arrays become specs, with None where lengths differ.

    Examples
    --------
    >>> print(type_of(varying({"per_client": np.zeros(2, np.float32)}, {"per_client": np.zeros(3, np.float32)})))
    <per_client=float32[?]>
    """

    def common(x: Any, y: Any) -> Any:
        if isinstance(x, np.ndarray) and x.ndim:
            return ArraySpec(tuple(m if m == n else None for m, n in zip(x.shape, np.shape(y), strict=True)), x.dtype)
        return x

    return trees.map(common, a, b)


def type_of_initialize(state: Any) -> Type:
    """Return the type of a process's ``initialize``, of a state."""
    return function(None, server(type_of(state)))


def type_of_next(batch: Any, state: Any, metrics: Any) -> Type:
    """Return the type of a process's ``next``, of the spec of a batch, a state, and metrics of a round."""
    at_server, data = server(type_of(state)), client_sequences(type_of(batch))
    result = fields([("state", at_server), ("metrics", server(type_of(metrics)))])
    return function(fields([("state", at_server), ("client_data", data)]), result)


class TypedMethod(Protocol[P, R_co]):
    """A method of a process, with its TFF type beside it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the method."""

    @property
    def type_signature(self) -> Type:
        """The `Type`: ``str()`` is compact, ``formatted_representation()`` indented."""


class _Typed(Generic[S, P, R]):
    """Makes bound methods; and is what one of them calls, and where it looks for ``type_signature``."""

    def __init__(
        self, method: Callable[Concatenate[S, P], R], signature: Callable[[Any], Type], instance: S | None = None
    ) -> None:
        functools.update_wrapper(self, method)
        self._method, self._signature, self._instance = method, signature, instance

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self._method(*args, **kwargs)

    @property
    def type_signature(self) -> Type:
        return self._signature(self._instance)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Callable[Concatenate[S, P], R]: ...

    @overload
    def __get__(self, instance: S, owner: type | None = None) -> TypedMethod[P, R]: ...

    def __get__(self, instance: S | None, owner: type | None = None) -> Any:
        if instance is None:
            return self._method
        return MethodType(_Typed(self._method, self._signature, instance), instance)


def typed_method(
    signature: Callable[[Any], Type],
) -> Callable[[Callable[Concatenate[S, P], R]], _Typed[S, P, R]]:
    """Give a method a ``type_signature``, which a function makes of the instance when it is asked for."""
    return lambda method: _Typed(method, signature)
