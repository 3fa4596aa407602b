"""Values that are kept within a budget of bytes, the least recently used ones out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from fedsim_np.forking import ProcessLock

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
        self._lock = ProcessLock()

    def _locked(self) -> AbstractContextManager[Any]:
        return self._lock(self._renew)

    def _renew(self, was_held: bool) -> None:
        if was_held:
            self._entries, self._bytes = OrderedDict(), 0

    def __reduce__(self) -> tuple[type[LRU], tuple[int]]:
        return type(self), (self.budget,)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def find(self, key: Hashable) -> Any:
        """Return the value of a key, or None."""
        return self.find_all([key])[0]

    def find_all(self, keys: Iterable[Hashable]) -> list[Any]:
        """Return the values of keys, None where there is none."""
        found = []
        with self._locked():
            entries = self._entries
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
