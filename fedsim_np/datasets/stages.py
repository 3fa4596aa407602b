"""The stages of a dataset's order, with tf.data's semantics.

A stage turns a stream of elements into another. Starting is not reading: `start` starts the stage's input at once, and
by that a shuffle further up uses an iteration's order up, read or not; a shuffle alone starts its own input when it is
first read. That is TensorFlow's behaviour, measured on TensorFlow 2.14, and it shows in the orders of later iterations.

What an element *is* the stages do not know. A `Reader` says how a stream begins, how a batch is joined and what a map
does; one that begins with row numbers reads examples, one that begins with ones counts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.shuffle import fixed_key, iteration_key, shuffled, shuffled_array

Start = Callable[[], Iterator[Any]]
Rows = npt.NDArray[np.intp]


class SeedGenerator:
    """Counts the iterations of one shuffle; copies and pickles start anew.

    Attributes
    ----------
    first : int
        The number of its first iteration: 0 but for a dataset that was made to begin later.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = self._next = first

    def draw(self) -> int:
        """Return the number of the iteration that starts now."""
        self._next += 1
        return self._next - 1

    def __reduce__(self) -> tuple[type[SeedGenerator], tuple[int]]:
        return SeedGenerator, (self.first,)


Draw = Callable[[SeedGenerator], int]
"""The number of the iteration that starts now, of a shuffle's generator."""


class Reader(NamedTuple):
    """What the stages act on.

    Attributes
    ----------
    begin : callable
        Starts the stream of elements that the first stage takes in.
    combine : callable
        List of elements -> the batch of them.
    apply : callable
        ``(fn of a map, element) -> element``.
    draw : callable
        Seed generator -> number of the iteration that starts now.
    """

    begin: Start
    combine: Callable[[list[Any]], Any]
    apply: Callable[[Callable[..., Any], Any], Any]
    draw: Draw


class Repeat(NamedTuple):
    """Everything so many times; for ever if `times` is None.

    As in TensorFlow the input is started once more than it is read.
    """

    times: int | None

    def start(self, upstream: Start, reader: Reader) -> Iterator[Any]:
        """Start the first repetition."""
        return iter(()) if self.times == 0 else self._read(upstream, upstream())

    def _read(self, upstream: Start, elements: Iterator[Any]) -> Iterator[Any]:
        for repetition in itertools.count(1):
            empty = True
            for element in elements:
                empty = False
                yield element
            if self.times is None and empty:
                return
            elements = upstream()
            if repetition == self.times:
                return

    def start_rows(self, upstream: Callable[[], Callable[[], Rows]], draw: Draw) -> Callable[[], Rows]:
        """Start the first repetition."""
        if self.times == 0:
            return lambda: np.empty(0, np.intp)
        first = upstream()

        def read() -> Rows:
            parts = [first()]
            if self.times is None:  # of nothing
                return parts[0]
            parts += [upstream()() for _ in range(self.times - 1)]
            upstream()
            return np.concatenate(parts)

        return read


class Shuffle(NamedTuple):
    """Buffered shuffle; every iteration draws its order's number from the generator.

    TensorFlow makes one stage of a shuffle and a repeat that follows it: `times` is how often all is read, for ever if
    it is None, each time in an order of its own.
    """

    buffer_size: int
    seed: int
    reshuffle: bool
    generator: SeedGenerator
    times: int | None = 1

    def start(self, upstream: Start, reader: Reader) -> Iterator[Any]:
        """Start an iteration, but not yet its input."""
        return shuffled(upstream, self.buffer_size, self._keys(reader.draw), self.times)

    def start_rows(self, upstream: Callable[[], Callable[[], Rows]], draw: Draw) -> Callable[[], Rows]:
        """Start an iteration, but not yet its input."""
        keys = self._keys(draw)

        def read() -> Rows:
            times = 1 if self.times is None else self.times  # of nothing, if for ever
            orders = [shuffled_array(upstream()(), self.buffer_size, next(keys)) for _ in range(times)]
            return np.concatenate(orders) if orders else np.empty(0, np.intp)

        return read

    def _keys(self, draw: Draw) -> Iterator[tuple[int, int]]:
        """Return the keys of the repetitions, the first of which is drawn now and each other one when it is needed."""
        return itertools.chain([self._key(draw)], iter(lambda: self._key(draw), None))

    def _key(self, draw: Draw) -> tuple[int, int]:
        return iteration_key(self.seed, draw(self.generator)) if self.reshuffle else fixed_key(self.seed)


class Batch(NamedTuple):
    """`batch_size` elements joined into one."""

    batch_size: int
    drop_remainder: bool

    def start(self, upstream: Start, reader: Reader) -> Iterator[Any]:
        """Start the input."""
        return self._read(upstream(), reader.combine)

    def _read(self, elements: Iterator[Any], combine: Callable[[list[Any]], Any]) -> Iterator[Any]:
        while batch := list(itertools.islice(elements, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_remainder:
                return
            yield combine(batch)


class Map(NamedTuple):
    """A function of every element."""

    fn: Callable[..., Mapping[str, Any]]

    def start(self, upstream: Start, reader: Reader) -> Iterator[Any]:
        """Start the input."""
        return map(reader.apply, itertools.repeat(self.fn), upstream())


class Take(NamedTuple):
    """The first `num` elements."""

    num: int

    def start(self, upstream: Start, reader: Reader) -> Iterator[Any]:
        """Start the input, unless none of it is needed."""
        return itertools.islice(upstream(), self.num) if self.num else iter(())


Stage = Repeat | Shuffle | Batch | Map | Take


def start(stages: Sequence[Stage], reader: Reader) -> Iterator[Any]:
    """Start a chain of stages: the last one starts the one before it, as often as it needs to.

    Examples
    --------
    >>> numbers = Reader(lambda: iter(range(5)), list, lambda fn, element: fn(element), SeedGenerator.draw)
    >>> list(start([Repeat(2), Batch(4, False), Map(sum)], numbers))
    [6, 7, 7]
    """
    if not stages:
        return reader.begin()
    *before, last = stages
    return last.start(lambda: start(before, reader), reader)


def start_rows(stages: Sequence[Repeat | Shuffle], rows: Rows, draw: Draw) -> Callable[[], Rows]:
    """Start a finite chain that only reorders rows; return what reads it whole, faster than `start` row by row.

    Examples
    --------
    >>> start_rows([Repeat(2), Shuffle(9, 1, True, SeedGenerator())], np.arange(3), SeedGenerator.draw)()
    array([1, 2, 1, 2, 0, 0])
    """
    if not stages:
        return lambda: rows
    *before, last = stages
    return last.start_rows(lambda: start_rows(before, rows, draw), draw)


def counted(stages: Sequence[Stage], num_rows: int) -> tuple[int, dict[SeedGenerator, int]] | None:
    """Return how many rows a finite chain reads, and how many iterations of each shuffle that uses up.

    None where it takes reading to tell: where a chain is cut short, or batches are batched.

    Examples
    --------
    >>> generator = SeedGenerator()
    >>> count, used = counted([Shuffle(9, 1, True, generator, times=2), Batch(4, True)], 5)
    >>> count, used[generator]
    (8, 2)
    """
    used: dict[SeedGenerator, int] = {}
    count, batches = num_rows, 0
    for stage in stages:
        if isinstance(stage, Repeat | Shuffle):
            count *= 1 if stage.times is None else stage.times
        elif isinstance(stage, Batch):
            count -= count % stage.batch_size if stage.drop_remainder else 0
            batches += 1
        if isinstance(stage, Take) or batches > 1:
            return None
    read, only_started = 1, 0  # how often that is done to a stage
    for stage in reversed(stages):
        times = 1 if not isinstance(stage, Repeat | Shuffle) or stage.times is None else stage.times
        if isinstance(stage, Shuffle):
            if stage.reshuffle:
                used[stage.generator] = used.get(stage.generator, 0) + read * times + only_started
            only_started = 0  # a shuffle that is not read has not started its input
        elif isinstance(stage, Repeat) and stage.times is not None:
            only_started = only_started + read if times else 0  # its input is started once more than it is read
        read *= times
    return count, used


def is_infinite(stages: Sequence[Stage]) -> bool:
    """Return whether a stream that has elements never ends.

    Examples
    --------
    >>> is_infinite([Repeat(None)]), is_infinite([Repeat(None), Take(3)])
    (True, False)
    """
    infinite = False
    for stage in stages:
        if isinstance(stage, Repeat | Shuffle):
            infinite = (infinite or stage.times is None) and stage.times != 0
        elif isinstance(stage, Take):
            infinite = False
    return infinite


def split_order(stages: Sequence[Stage]) -> int:
    """Return how many of the first stages only reorder a finite stream, and are started once an iteration.

    The order that these make can be computed at once and kept. It is 0 where a later stage starts them again.

    Examples
    --------
    >>> split_order([Repeat(5), Shuffle(100, 1, True, SeedGenerator()), Batch(20, False), Map(len)])
    2
    """
    depth = next((i for i, stage in enumerate(stages) if isinstance(stage, Batch | Map)), len(stages))
    restarted = any(isinstance(stage, Repeat | Shuffle) and stage.times != 1 for stage in stages[depth:])
    return 0 if restarted or is_infinite(stages[:depth]) else depth
