"""What is public: the modules that the site has pages of, and their names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

PACKAGE = Path(__file__).parents[1]

# Without an `__all__`, and public all the same: the guides name what is in them.
ALSO = ("algorithms", "learning.shortcuts", "profiling")


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _has_all(path: Path) -> bool:
    # Found in the text: a module is imported only if it is public.
    return re.search(r"^__all__\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _below(module: ModuleType) -> Iterator[str]:
    """Yield the name of a module, and of those in its ``__all__``."""
    yield module.__name__
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            yield from _below(value)


def public_modules() -> list[str]:
    """Return the modules' names: what has an ``__all__``, what stands in one, and `ALSO`.

    Examples
    --------
    >>> names = public_modules()
    >>> names[0], "fedsim_np.trees" in names, "fedsim_np.learning.scaffold" in names
    ('fedsim_np', True, False)
    """
    with_all = {_module_name(path) for path in PACKAGE.rglob("*.py") if _has_all(path)}
    listed = set(_below(importlib.import_module(PACKAGE.name)))
    return sorted(with_all | listed | {f"{PACKAGE.name}.{name}" for name in ALSO})


def public_names(module: ModuleType) -> list[str]:
    """Return what is public in a module: its ``__all__``, or what is defined there and begins with no underscore.

    Modules are not among them: they are in `public_modules`.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> "build_scaffold" in public_names(fed.learning), "stack" in public_names(fed.trees)
    (True, True)
    """
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    return [
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or isinstance(value, TypeVar))
        and getattr(value, "__module__", None) == module.__name__
    ]
