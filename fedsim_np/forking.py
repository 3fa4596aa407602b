"""What a forked child must not inherit: locks, which a thread that it has not got may hold for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, overload

_T = TypeVar("_T")


def _nothing(was_held: bool) -> None:
    del was_held


class ProcessLock:
    """A lock that the threads of a process share; every forked child has its own.

    ``with lock(): ...`` holds it. A thread that has it may take it once more.

    Examples
    --------
    >>> lock = ProcessLock()
    >>> with lock(), lock():
    ...     print("alone")
    alone
    """

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {os.getpid(): threading.RLock()}

    def __call__(self, renew: Callable[[bool], object] = _nothing) -> AbstractContextManager[Any]:
        """Return this process's lock.

        Parameters
        ----------
        renew : callable
            Called in a forked child before anyone has its lock: with True if another thread held the parent's, and so
            what it guards may be half changed.
        """
        lock: AbstractContextManager[Any] | None = self._locks.get(os.getpid())
        return self._renewed(renew) if lock is None else lock

    def _renewed(self, renew: Callable[[bool], object]) -> AbstractContextManager[Any]:
        parents, own = next(reversed(self._locks.values())), threading.RLock()
        with own:  # other threads of the child wait until all is renewed
            lock: AbstractContextManager[Any] = self._locks.setdefault(os.getpid(), own)
            if lock is own:
                renew(not parents.acquire(blocking=False))
        return lock


class cached_property(Generic[_T]):  # noqa: N801
    """`functools.cached_property` as it is from Python 3.12 on: before, it held a lock that all instances share.

    Examples
    --------
    >>> class Circle:
    ...     @cached_property
    ...     def area(self):
    ...         print("computed")
    ...         return 3
    >>> circle = Circle()
    >>> circle.area + circle.area
    computed
    6
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[_T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _T: ...

    def __get__(self, instance: object, owner: type | None = None) -> cached_property[_T] | _T:
        """Return the value, which is in the instance from now on."""
        if instance is None:
            return self
        value = self._make(instance)
        vars(instance)[self._name] = value
        return value
