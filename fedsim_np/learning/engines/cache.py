"""What engines keep between rounds, within a budget of bytes.

An entry belongs to an array and to the description of a pipeline. The array is held weakly: once it is gone its
entries are never found again, and age out. Whatever is kept could be computed again with the same bits, so a cache
changes when things are computed and never what comes out: what was made of an array is used again only for the same
`Content`.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from fedsim_np.datasets.sources import is_sealed
from fedsim_np.lru import LRU
from fedsim_np.trees import Array


class Cache(LRU):
    """Values by key, and beside them by the object that they belong to."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._of_objects: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def _renew(self, was_held: bool) -> None:
        super()._renew(was_held)
        if was_held:
            self._of_objects = weakref.WeakKeyDictionary()

    def find_of(self, owner: Any) -> Any:
        """Return what was kept for as long as an object lives, or None."""
        with self._locked():
            return self._of_objects.get(owner)

    def put_of(self, owner: Any, value: Any) -> None:
        """Keep what is small, or held by an object anyway, for as long as it lives; nothing if the budget is 0."""
        if self.budget:
            with self._locked():
                self._of_objects[owner] = value


class WeakKey:
    """Stands for an array in a key: equal for the same memory read in the same way, and only while that lives.

    Examples
    --------
    >>> array = np.arange(4.0)
    >>> WeakKey(array) == WeakKey(array[:]), WeakKey(array) == WeakKey(array[1:]), WeakKey(array) == WeakKey(array + 0)
    (True, False, False)
    """

    __slots__ = ("_hash", "_layout", "_owner")

    def __init__(self, array: Array) -> None:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._owner = weakref.ref(owner)
        # Where a part of the memory begins; all of it begins where it does.
        is_whole = array.nbytes == owner.nbytes and array.flags.c_contiguous
        begin = 0 if is_whole else array.__array_interface__["data"][0]
        self._layout = begin, array.shape, array.strides, array.dtype
        self._hash = hash((id(owner), self._layout))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeakKey):
            return NotImplemented
        owner = self._owner()
        return owner is not None and self._layout == other._layout and other._owner() is owner


class Content:
    """What an array was: the array itself where nobody can write to it (`is_sealed`), else a copy of its memory.

    Examples
    --------
    >>> array = np.arange(3.0)
    >>> was = Content(array)
    >>> was.is_of(array), was.is_of(array.copy())
    (True, True)
    >>> array[0] = 7
    >>> was.is_of(array)
    False
    """

    __slots__ = ("_key", "_layout", "_memory")

    def __init__(self, array: Array) -> None:
        self._key = WeakKey(array) if is_sealed(array) else None
        self._layout, self._memory = (array.shape, array.dtype), bytearray(b"" if self._key else array.tobytes())

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return len(self._memory)

    def is_of(self, array: Array) -> bool:
        """Return whether an array is the same, to the bit."""
        if self._key is not None:
            return is_sealed(array) and self._key == WeakKey(array)
        # A bytearray compares itself with any memory, faster than NumPy and without a copy; bytes do not.
        return self._layout == (array.shape, array.dtype) and self._memory == np.ascontiguousarray(array).data
