"""Methods with a TFF type beside them: ``process.next.type_signature``.

The type is made when it is asked for, beside the rounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from fedsim_np.learning.type_signatures import Type

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


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
