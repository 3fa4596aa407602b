"""The text of a process's types, as TFF 0.87 prints it, derived from the values themselves.

A type is a tensor ("float32[784,10]"), a struct of members, or one of these placed, repeated or joined into a
function. `type_of` reads it off a state, a batch's spec or a round's metrics, so that no signature is typed by hand.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec


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


T = TypeVar("T")


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
