"""The type signatures of a process, and methods that have them: ``process.next.type_signature``.

They are computed when they are asked for, beside the rounds: from the state that `initialize` gives, the model's
batches and an example of a round's metrics. No aggregator is run for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from fedsim_np.learning.models.model import Model
from fedsim_np.learning.type_signatures import Type, client_sequences, function, server, struct, type_of

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class _Process(Protocol):
    """What the signatures are made of."""

    @property
    def model(self) -> Model: ...

    @property
    def integers(self) -> str: ...

    @property
    def initialize(self) -> Callable[[], Any]: ...

    def metrics_example(self) -> Any: ...


def initialize_signature(process: Any) -> Type:
    """Return the type of ``process.initialize``."""
    return function(None, _state(process))


def next_signature(process: Any) -> Type:
    """Return the type of ``process.next``."""
    state, data = _state(process), client_sequences(type_of(process.model.input_spec))
    metrics = server(type_of(process.metrics_example()))
    return function(struct(state=state, client_data=data), struct(state=state, metrics=metrics))


def _state(process: _Process) -> Type:
    return server(type_of(process.initialize(), integers=process.integers))


class TypedMethod(Protocol[P, R_co]):
    """A method of a process, with its TFF type beside it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the method."""

    @property
    def type_signature(self) -> Type:
        """The `Type`: ``str()`` is compact, ``formatted_representation()`` indented."""


class _Function(Generic[R]):
    """What a bound method calls, and where it looks for ``type_signature``."""

    def __init__(self, method: Callable[..., R], make_signature: Callable[[], Type]) -> None:
        functools.update_wrapper(self, method)
        self._method, self._make_signature = method, make_signature

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        return self._method(*args, **kwargs)

    @property
    def type_signature(self) -> Type:
        return self._make_signature()


class _Typed(Generic[S, P, R]):
    """Makes bound methods with a ``type_signature``."""

    def __init__(self, method: Callable[Concatenate[S, P], R], signature: Callable[[S], Type]) -> None:
        self._method, self._signature = method, signature

    def __set_name__(self, owner: type, name: str) -> None:
        """Have a method that has no text of its own say what the one that it overrides says."""
        texts = (getattr(base, name).__doc__ for base in owner.__mro__[1:] if hasattr(base, name))
        self._method.__doc__ = self._method.__doc__ or next(texts, None)

    @property
    def __isabstractmethod__(self) -> bool:
        return getattr(self._method, "__isabstractmethod__", False)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Callable[Concatenate[S, P], R]: ...

    @overload
    def __get__(self, instance: S, owner: type | None = None) -> TypedMethod[P, R]: ...

    def __get__(self, instance: S | None, owner: type | None = None) -> Any:
        if instance is None:
            return self._method
        bound = MethodType(_Function(self._method, functools.partial(self._signature, instance)), instance)
        return cast(TypedMethod[P, R], bound)


def typed_method(
    signature: Callable[[Any], Type],
) -> Callable[[Callable[Concatenate[S, P], R]], _Typed[S, P, R]]:
    """Give a method a ``type_signature``, which a function makes of the instance when it is asked for."""
    return lambda method: _Typed(method, signature)
