"""Shortcuts: faster ways to compute what a method computes, offered as methods of their own.

A class that overrides the method computes something else, and must not inherit the shortcut: nobody would hear its own
method. It offers a shortcut anew, or has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def inherit_no_shortcut(
    cls: type, base: type, shortcuts: Iterable[Callable[..., Any]], of: Iterable[Callable[..., Any]]
) -> None:
    """Have a class that overrides a method inherit the method's shortcuts from no nearer than a base class.

    Where the base class has none it is None, which no protocol takes for a method.

    Examples
    --------
    >>> class Base:
    ...     def work(self): ...
    >>> class Quick(Base):
    ...     def work_fast(self): ...
    >>> class Other(Quick):
    ...     def work(self): ...
    >>> inherit_no_shortcut(Other, Base, [Quick.work_fast], of=[Base.work])
    >>> Other.work_fast is None
    True
    """
    written = vars(cls)
    if any(method.__name__ in written for method in of):
        for name in (shortcut.__name__ for shortcut in shortcuts):
            if hasattr(cls, name) and name not in written:
                setattr(cls, name, getattr(base, name, None))
