"""Where the time of rounds goes: read, order, train, aggregate, log, and the user's own functions.

Python's profiler says how long each function took; here these times are added up by the part of the package that a
function belongs to. What belongs to none (NumPy, h5py, the standard library) counts for whoever called it, in the
proportions in which they did. Work that threads do is waiting for the one that is looked at, and counts as training.
"""

from __future__ import annotations

import cProfile
import functools
import pstats
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Function = tuple[str, int, str]  # as pstats names it: file, line, name

PACKAGE = Path(__file__).resolve().parent
LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib"))
PARTS = {
    "read": "files, drawing, decoding, gathering rows",
    "order": "repeating and shuffling",
    "look at maps": "what can be done once instead of batch by batch",
    "train": "steps, metrics; threads and workers",
    "aggregate": "from the clients' updates to one",
    "server": "states and checks",
    "log": "loggers, checkpoints",
    "your functions": "maps, models, works and choices of clients that are not the package's",
}
"""The parts, and what they are."""

_DEEPEST = 12  # of libraries' functions that call each other
# The first that a module's path begins with.
_OF_MODULES = {
    "datasets/shuffle": "order",
    "datasets/stages": "order",
    "datasets/": "read",
    "learning/engines/maps": "look at maps",
    "learning/engines/columns": "look at maps",
    "learning/aggregators/": "aggregate",
    "learning/learning_process": "server",
    "learning/process": "server",
    "learning/state": "server",
    "learning/hidden_state": "server",
    "learning/type_signatures": "server",
    "learning/": "train",
    "trees": "train",
    "program/": "log",
    "files": "log",
}


@dataclass(frozen=True)
class Profile:
    """How many seconds each part took.

    Attributes
    ----------
    seconds : mapping of str to float
        By the names in `PARTS`, and ``other``.
    total : float
        By the clock, without what the profiler itself costs being taken out.

    Examples
    --------
    >>> print(Profile({"read": 0.25, "train": 0.75}, total=1.0))
    read                250.0 ms   25 %  files, drawing, decoding, gathering rows
    train               750.0 ms   75 %  steps, metrics; threads and workers
    total              1000.0 ms
    """

    seconds: Mapping[str, float]
    total: float

    def __str__(self) -> str:
        whole = sum(self.seconds.values()) or 1.0
        lines = [
            f"{name:16} {1e3 * seconds:8.1f} ms {100 * seconds / whole:4.0f} %  {PARTS.get(name, '')}".rstrip()
            for name, seconds in self.seconds.items()
        ]
        return "\n".join([*lines, f"{'total':16} {1e3 * self.total:8.1f} ms"])


def profiled(function: Callable[[], T]) -> tuple[T, Profile]:
    """Call a function; return what it gives, and where its time went.

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> batches, profile = profiled(lambda: list(Dataset.from_arrays({"x": range(9)}).shuffle(9, seed=1).batch(2)))
    >>> {"order", "read"} <= set(profile.seconds)
    True
    """
    profiler, started = cProfile.Profile(), time.perf_counter()
    result = profiler.runcall(function)
    total = time.perf_counter() - started
    stats: Mapping[Function, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    seconds = dict.fromkeys([*PARTS, "other"], 0.0)
    shares = _shares(stats)
    for name, (_, _, own, _, _) in stats.items():
        for part, share in shares(name).items():
            seconds[part] += own * share
    return result, Profile({part: spent for part, spent in seconds.items() if spent}, total)


def _part_of(file: str) -> str | None:
    """Return the part that a file belongs to; None for a library's."""
    path = Path(file)
    if PACKAGE in path.parents:
        module = path.relative_to(PACKAGE).as_posix()
        return next((part for start, part in _OF_MODULES.items() if module.startswith(start)), "other")
    # What is built in or made by a library has no file: "~", "<frozen ...>", "<string>".
    is_library = file == "~" or file.startswith(("<frozen", "<string>", *LIBRARIES))
    return None if is_library else "your functions"


def _shares(stats: Mapping[Function, Any]) -> Callable[[Function], Mapping[str, float]]:
    """Return a function that says which parts a function works for, in shares that add up to 1."""

    @functools.cache
    def shares(name: Function, within: frozenset[Function] = frozenset()) -> Mapping[str, float]:
        part = _part_of(name[0])
        if part is not None:
            return {part: 1.0}
        edges = stats[name][4] if len(within) < _DEEPEST else {}
        callers = {caller: edge[3] for caller, edge in edges.items() if caller not in within}
        whole, found = sum(callers.values()), dict[str, float]()
        for caller, spent in callers.items() if whole else ():
            for of_caller, share in shares(caller, within | {name}).items():
                found[of_caller] = found.get(of_caller, 0.0) + share * spent / whole
        return found or {"other": 1.0}

    return shares
