"""The text of a process's types, as TFF 0.87 prints it, derived from the values themselves.

A type is one of three things: a tensor ("float32[784,10]"), a struct of named or unnamed fields, or one of these
placed, repeated or joined into a function. `type_of` reads it off a state, a batch's spec or a round's metrics, so
that no signature is typed by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from fedsim_np.datasets import ArraySpec

P = ParamSpec("P")
R = TypeVar("R")


class Type:
    """A type with TFF's two texts: compact by `str`, indented by `formatted_representation`."""

    def _lines(self) -> list[str]:
        raise NotImplementedError

    def formatted_representation(self) -> str:
        """Return the indented text."""
        return "\n".join(self._lines())

    def __str__(self) -> str:
        # The texts differ in white space alone, and only "->" has some in the compact one.
        return "".join(line.lstrip(" ") for line in self._lines())


@dataclass(frozen=True)
class TensorType(Type):
    """A number or an array: "float32", "int32[?,1]"."""

    dtype: str
    shape: tuple[int | None, ...] = ()

    def _lines(self) -> list[str]:
        lengths = ",".join("?" if length is None else str(length) for length in self.shape)
        return [f"{self.dtype}[{lengths}]" if self.shape else self.dtype]


@dataclass(frozen=True)
class StructType(Type):
    """Fields in order, each with a name or None."""

    fields: tuple[tuple[str | None, Type], ...]

    def _lines(self) -> list[str]:
        if not self.fields:
            return ["<>"]
        lines = ["<"]
        for number, (name, member) in enumerate(self.fields, 1):
            first, *rest = member._lines()
            block = [f"{name}={first}" if name else first, *rest]
            block[-1] += "," if number < len(self.fields) else ""
            lines += [f"  {line}" for line in block]
        return [*lines, ">"]


@dataclass(frozen=True)
class WrappedType(Type):
    """A type between two marks: placed ("...@SERVER") or a sequence ("...*")."""

    before: str
    member: Type
    after: str

    def _lines(self) -> list[str]:
        lines = self.member._lines()
        lines[0] = self.before + lines[0]
        lines[-1] += self.after
        return lines


@dataclass(frozen=True)
class FunctionType(Type):
    """Parameter -> result.

    Examples
    --------
    >>> print(FunctionType(None, server(type_of({"rate": 0.5}))).formatted_representation())
    ( -> <
      rate=float32
    >@SERVER)
    """

    parameter: Type | None
    result: Type

    def _lines(self) -> list[str]:
        parameter = "" if self.parameter is None else self.parameter.formatted_representation()
        return f"({parameter} -> {self.result.formatted_representation()})".split("\n")


def server(member: Type) -> Type:
    """Place a type at the server."""
    return WrappedType("", member, "@SERVER")


def client_sequences(element: Type) -> Type:
    """Return the type of the clients' datasets: one sequence of batches at each client.

    Examples
    --------
    >>> str(client_sequences(type_of({"x": ArraySpec((None, 784), np.float32)})))
    '{<x=float32[?,784]>*}@CLIENTS'
    """
    return WrappedType("{", element, "*}@CLIENTS")


def struct(**fields: Type) -> StructType:
    """Make a struct of named fields."""
    return StructType(tuple(fields.items()))


def type_of(value: Any, integers: str = "int32") -> Type:
    """Read the type off a value.

    Parameters
    ----------
    value : array, ArraySpec, number or any nesting of mappings, named tuples, tuples and lists
        A Python float is a float32, as in TFF.
    integers : str
        The type of a Python int: TFF counts examples in int64 and all else in int32.

    Examples
    --------
    >>> str(type_of({"weights": (np.zeros((2, 3), np.float32), 1.0), "step": 0, "nothing": ()}))
    '<weights=<float32[2,3],float32>,step=int32,nothing=<>>'
    """
    if isinstance(value, Mapping):
        return StructType(tuple((str(name), type_of(v, integers)) for name, v in value.items()))
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", (None,) * len(value))
        return StructType(tuple((name, type_of(v, integers)) for name, v in zip(names, value, strict=True)))
    if isinstance(value, np.ndarray | np.generic | ArraySpec):
        return TensorType(value.dtype.name, value.shape)
    if isinstance(value, bool):
        return TensorType("bool")
    if isinstance(value, int):
        return TensorType(integers)
    if isinstance(value, float):
        return TensorType("float32")
    return TensorType(type(value).__name__)


class TypedFunction(Generic[P, R]):
    """A function that knows its TFF type: ``process.next.type_signature``."""

    def __init__(self, function: Callable[P, R], make_signature: Callable[[], Type]) -> None:
        self._function, self._make_signature = function, make_signature
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self._function.__qualname__.split('.')[-1].strip('_')}: {self.type_signature}>"

    @cached_property
    def type_signature(self) -> Type:
        """The `Type`: ``str()`` is compact, ``formatted_representation()`` indented."""
        return self._make_signature()
