"""Values that are kept within a budget of bytes, the least recently used ones out first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any

_OVERHEAD = 1200  # bytes of an entry's key, links and headers, which are more than a short array


class LRU:
    """Values by key; threads may share it. Copies and pickles are empty.

    Parameters
    ----------
    budget : int
        Bytes to keep at most.

    Examples
    --------
    >>> kept = LRU(budget=3000)
    >>> for key in ("a", "b", "c"):
    ...     kept.put(key, key.upper(), size=4)
    >>> kept.find("a"), kept.find("c")
    (None, 'C')
    """

    def __init__(self, budget: int) -> None:
        self.budget, self._bytes = budget, 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock, self._process = threading.Lock(), os.getpid()

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():  # a forked child: a thread that it has not got may hold the lock
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def __reduce__(self) -> tuple[type[LRU], tuple[int]]:
        return type(self), (self.budget,)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def find(self, key: Hashable) -> Any:
        """Return the value of a key, or None."""
        return self.find_all([key])[0]

    def find_all(self, keys: Iterable[Hashable]) -> list[Any]:
        """Return the values of keys, None where there is none."""
        entries, found = self._entries, []
        with self._locked():
            for key in keys:
                entry = entries.get(key)
                if entry is not None:
                    entries.move_to_end(key)
                found.append(None if entry is None else entry[0])
        return found

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of so many bytes, if it fits into the budget at all."""
        size += _OVERHEAD
        if size > self.budget:
            return
        with self._locked():
            self._bytes += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while self._bytes > self.budget:
                self._bytes -= self._entries.popitem(last=False)[1][1]
