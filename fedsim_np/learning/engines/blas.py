"""One BLAS thread while a round is computed.

The matrices here are small: more BLAS threads gain nothing, and on a busy machine they wait for each other. The cores
are used by computing several clients at once instead. NumPy's own OpenBLAS is asked directly; for another BLAS set
``OMP_NUM_THREADS=1`` (or ``MKL_NUM_THREADS=1``, ``VECLIB_MAXIMUM_THREADS=1``) before Python starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


@functools.cache
def _openblas() -> tuple[Any, Any] | None:
    """Return OpenBLAS's functions that get and set its number of threads, where NumPy brought it along."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(str(path))
                for prefix in ("scipy_", ""):
                    for suffix in ("64_", ""):
                        names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
                        if all(hasattr(library, name) for name in names):
                            return getattr(library, names[0]), getattr(library, names[1])
    return None


class _OneThread:
    """The number of threads belongs to the whole Python process: the first to come lowers it, the last restores it."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        functions = _openblas()
        if functions is None:
            yield
            return
        get, set_ = functions
        with self._lock:
            if not self._users:
                self._before = int(get())
                if self._before != 1:
                    set_(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._before != 1:
                    set_(self._before)


one_blas_thread = _OneThread()
"""``with one_blas_thread(): ...``"""
