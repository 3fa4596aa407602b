"""tf.data's buffered shuffle, order for order.

TensorFlow shuffles a stream through a buffer: it fills the buffer, gives out one element picked at random, refills,
and so on. Two things decide the order, and both are reproduced here exactly.

*Random words.* Philox4x32-10 (Salmon et al. 2011), a counter turned into random bits by ten rounds of multiplication
under a key: block ``i`` of the stream keyed ``(a, b)`` is ``philox(counter=(i, 0, lo b, hi b), key=(lo a, hi a))``,
four 32-bit words. A *seed generator* keyed ``(87654321, seed)`` gives every iteration of the data two words; they key
the iteration's own stream, one word an element. Since a block is a function of its number, iteration ``t`` needs no
memory of the iterations before it.

*The ring buffer.* Refill, pick the word modulo the number of elements in the buffer, swap the pick with the front,
give out the front and advance. This is not the textbook "swap with the last", and gives other orders.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

GRAPH_SEED = 87654321  # TensorFlow's seed of the graph where only the operation's is given
SEED_MODULUS = 2**31 - 1  # TensorFlow reduces every operation's seed by it
_WORD = 0xFFFFFFFF
_MAX_REPETITIONS = 3  # TensorFlow's kMaxEpochsInBuffer
_CHUNK = 256  # blocks a call: past a few hundred, NumPy's overhead no longer shows


def _philox(counter: list[Any], key: list[Any]) -> list[Any]:
    """Philox4x32-10 on four counters and two keys: Python ints, or uint64 arrays of words alike."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def random_words(key: tuple[int, int], count: int, start: int = 0) -> npt.NDArray[np.uint64]:
    """Return 32-bit words of TensorFlow's Philox stream of a key.

    Parameters
    ----------
    key : (int, int)
        TensorFlow's ``(seed, seed2)``.
    count : int
        How many words.
    start : int
        Number of the first block of four words.

    Returns
    -------
    ndarray of uint64, shape (count,)
        Words in [0, 2^32).

    References
    ----------
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> random_words((87654321, 1), 2).tolist() == list(iteration_key(1, 0))
    True
    """
    blocks = np.arange(start, start + -(-count // 4), dtype=np.uint64)
    fixed = [np.full_like(blocks, word & _WORD) for word in (0, key[1], key[1] >> 32)]
    words = _philox([blocks, *fixed], [key[0] & _WORD, (key[0] >> 32) & _WORD])
    return np.stack(words, axis=1).reshape(-1)[:count]


@functools.lru_cache(maxsize=16)
def _words_at_least(key: tuple[int, int], blocks: int) -> npt.NDArray[np.int64]:
    return random_words(key, 4 * blocks).astype(np.int64)


@functools.lru_cache(maxsize=64)
def _some_words(key: tuple[int, int], start: int) -> list[int]:
    """Return the words of `_CHUNK` blocks; the clients of a cohort are shuffled with one seed, and share them."""
    words: list[int] = random_words(key, 4 * _CHUNK, start).tolist()
    return words


@functools.lru_cache(maxsize=1024)
def iteration_key(seed: int, iteration: int) -> tuple[int, int]:
    """Return the key of a shuffle's stream in its iteration number `iteration` (from 0).

    Examples
    --------
    >>> iteration_key(1, 0) == iteration_key(1 + 2**31 - 1, 0)
    True
    """
    block = _philox([iteration // 2, 0, seed % SEED_MODULUS, 0], [GRAPH_SEED, 0])
    first = 2 * (iteration % 2)
    return block[first], block[first + 1]


def fixed_key(seed: int) -> tuple[int, int]:
    """Return the key of every iteration of a shuffle with ``reshuffle_each_iteration=False``.

    Examples
    --------
    >>> fixed_key(3)
    (87654321, 3)
    """
    return GRAPH_SEED, seed % SEED_MODULUS


def shuffled(
    start: Callable[[], Iterator[T]], buffer_size: int, keys: Iterator[tuple[int, int]], times: int | None = 1
) -> Iterator[T]:
    """Yield elements in the order of tf.data's buffered shuffle.

    Repetitions share the buffer: it is refilled from the next one while the one before is given out, but each is
    shuffled by itself.

    Parameters
    ----------
    start : callable
        ``() -> iterator`` of the elements, which is called when they are needed and read no further ahead than the
        buffer reaches.
    buffer_size : int
        At least 1.
    keys : iterator of (int, int)
        A key for each repetition, from `iteration_key` or `fixed_key`; taken when its first element is given out.
    times : int or None
        How often everything is read; None is for ever, unless there is nothing.

    Yields
    ------
    object
        Every element `times` times.

    Examples
    --------
    >>> list(shuffled(lambda: iter(range(7)), 100, iter([iteration_key(1, 0)])))
    [4, 6, 3, 0, 5, 2, 1]
    """
    source: Iterator[T] | None = None
    # One part a repetition, each in the order of its places in the ring; of the first, what was given out is before
    # `front`, where it is cheaper to leave it for a while.
    parts: deque[list[Any]] = deque()
    begun, held, front, any_read = 0, 0, 0, False
    words = _words(next(keys))
    while True:
        # Nor does TensorFlow begin a fifth repetition while it has elements of four.
        while held < buffer_size and (len(parts) <= _MAX_REPETITIONS or not held):
            if source is None:
                if begun == times:
                    break
                source, begun = start(), begun + 1
                parts.append([])
            newest = parts[-1]
            for element in source:
                newest.append(element)
                held, any_read = held + 1, True
                if held == buffer_size:
                    break
            else:
                source = None
                if times is None and not any_read:
                    return
        if not held:
            return
        while front == len(parts[0]):
            parts.popleft()
            front, words = 0, _words(next(keys))
        part = parts[0]
        pick = front + next(words) % (len(part) - front)
        element, part[pick], part[front] = part[pick], part[front], None
        front, held = front + 1, held - 1
        if front > _CHUNK and 2 * front > len(part):
            del part[:front]
            front = 0
        yield element


def _words(key: tuple[int, int]) -> Iterator[int]:
    """Return the words of a key's stream."""
    return itertools.chain.from_iterable(_some_words(key, block) for block in itertools.count(0, _CHUNK))


def shuffled_array(elements: npt.NDArray[np.intp], buffer_size: int, key: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Return a whole array in the order of tf.data's buffered shuffle.

    Laid out as a tape, the buffer is a window that moves on by one place a step: the ring's front is the window's first
    place, what refills it is what comes into view. So step t swaps place t with one of those that follow, all known
    beforehand, and what has left the window is the order.

    Parameters
    ----------
    elements : ndarray, shape (n,)
    buffer_size, key
        As for `shuffled`.

    Examples
    --------
    >>> shuffled_array(np.arange(7), 100, iteration_key(1, 0)).tolist()
    [4, 6, 3, 0, 5, 2, 1]
    """
    n = len(elements)
    places = np.arange(n)
    picks = places + _first_words(key, n) % np.minimum(buffer_size, n - places)
    tape = elements.tolist()
    for t, pick in enumerate(picks.tolist()):
        tape[t], tape[pick] = tape[pick], tape[t]
    return np.array(tape, np.intp)


def _first_words(key: tuple[int, int], count: int) -> npt.NDArray[np.int64]:
    return _words_at_least(key, max(_CHUNK, 1 << (count // 4).bit_length()))[:count]
