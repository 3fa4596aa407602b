"""The process that a round is computed in: one BLAS thread, threads that do not wait, memory that is kept, an end.

The matrices here are small: more BLAS threads gain nothing, and on a busy machine they wait for each other. The cores
are used by computing several clients at once instead. NumPy's own OpenBLAS is asked directly; for another BLAS set
``OMP_NUM_THREADS=1`` (or ``MKL_NUM_THREADS=1``, ``VECLIB_MAXIMUM_THREADS=1``) before Python starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.forking import ProcessLock


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _openblas() -> tuple[Any, Any] | None:
    """Return OpenBLAS's functions that get and set its number of threads, where NumPy brought it along."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                library = ctypes.PyDLL(str(path))  # holds Python's lock: no child is forked while BLAS has its own
                for prefix in ("scipy_", ""):
                    for suffix in ("64_", ""):
                        names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
                        if all(hasattr(library, name) for name in names):
                            return getattr(library, names[0]), getattr(library, names[1])
    return None


class _Setting:
    """A setting of the whole Python process, changed for as long as anyone needs it: the last one restores it."""

    def __init__(self, functions: Callable[[], tuple[Any, Any] | None], value: float) -> None:
        self._functions, self._value = functions, value
        self._lock, self._users = ProcessLock(), 0
        self._before: float | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        functions = self._functions()
        if functions is None:
            yield
            return
        get, set_ = functions

        def renew(was_held: bool) -> None:
            # Changed by threads that a forked child has not got. BLAS is not called without need: it has locks as well.
            if (self._users or was_held) and self._before not in (None, self._value):
                set_(self._before)
            self._users = 0

        process = os.getpid()
        with self._lock(renew):
            if not self._users:
                self._before = get()
                if self._before != self._value:
                    set_(self._value)
            self._users += 1
        try:
            yield
        finally:
            with self._lock(renew):
                self._users -= process == os.getpid()
                if not self._users and self._before != self._value:
                    set_(self._before)


one_blas_thread = _Setting(_openblas, 1)
"""``with one_blas_thread(): ...``"""

quick_switching = _Setting(lambda: (sys.getswitchinterval, sys.setswitchinterval), 5e-5)
"""``with quick_switching(): ...``: a thread that comes back from a product waits 0.05 ms for Python's lock, not 5."""


def keep_freed_memory() -> None:
    """Have glibc keep what a round frees for the next one: it gives back all but twice the largest block freed so far.

    A round of 2 ms would spend another half on having pages given to it again. Elsewhere this does nothing.
    """
    np.empty(32 * 2**20 - 2**16, np.uint8)  # never touched, freed at once; glibc counts no larger ones


def end_with_parent() -> None:
    """Have a worker process end as soon as the process that started it has ended, in whatever way.

    A worker of a `ProcessPoolExecutor` does not notice that its parent was killed, and waits for work for ever. This is
    done in every worker that computes a part of a round; as the ``initializer`` of an executor also in those that have
    had nothing to compute. In a process that multiprocessing has not started it does nothing.

    Examples
    --------
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> from multiprocessing import get_context
    >>> pool = ProcessPoolExecutor(4, mp_context=get_context("spawn"), initializer=end_with_parent)
    """
    _watch_parent(os.getpid())


@functools.cache
def _watch_parent(process: int) -> None:
    """Begin to watch the parent of a process: this one, once."""
    del process
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, name="fedsim_np watches its parent", daemon=True).start()
