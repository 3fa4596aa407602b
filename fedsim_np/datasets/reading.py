"""Reading a dataset: a source's rows or elements, through the stages of an order.

Two ways lead to the same batches. `elements` starts the whole chain, whatever is in it, on row numbers. Where the first
stages only reorder rows and one batch follows, `whole_order` computes their order at once, and `sliced_batches` gathers
the rows of many batches together.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.sources import Columns, Element, ElementSource, Source, stack
from fedsim_np.datasets.stages import Batch, Draw, Reader, Repeat, SeedGenerator, Shuffle, Stage, start, start_rows
from fedsim_np.errors import argument_type_error

_BLOCK_BYTES = 2**20  # of rows that are gathered at once: they should stay near the processor


class RowBatches(NamedTuple):
    """A dataset as what it is at heart: rows of columns, in an order, cut into batches, each of which is mapped.

    Attributes
    ----------
    source : Source
        The columns, not yet read.
    order_key : tuple
        What the order and its batches depend on, the number of rows included; datasets with equal keys share them.
    make_order : callable
        ``() -> ndarray of row numbers``, repetitions included.
    batch_size : int
    drop_remainder : bool
    maps : tuple of callable
        Applied to every batch, one after the other.
    """

    source: Source
    order_key: tuple[Any, ...]
    make_order: Callable[[], npt.NDArray[np.intp]]
    batch_size: int
    drop_remainder: bool
    maps: tuple[Callable[..., Any], ...]


def elements(
    source: Source | ElementSource, stages: Sequence[Stage], draw: Draw, order: Sequence[int] | None = None
) -> Iterator[Element]:
    """Start stages on what a source has, in its own order or in the one of these row numbers."""
    if isinstance(source, ElementSource):
        return map(OrderedDict, start(stages, Reader(lambda: iter(source.read()), stack, applied, draw)))
    rows = range(source.num_rows) if order is None else order
    loaded: list[Columns] = []

    def columns() -> Columns:
        if not loaded:
            loaded.append(source.columns())
        return loaded[0]

    # Until a batch or a map needs its arrays, an element is the number of its row.
    def resolve(element: int | Element) -> Element:
        if not isinstance(element, int):
            return element
        return OrderedDict((name, column[element]) for name, column in columns().items())

    def combine(batch: list[Any]) -> Element:
        if not isinstance(batch[0], int):
            return stack(batch)
        index = np.array(batch, dtype=np.intp)
        return OrderedDict((name, column[index]) for name, column in columns().items())

    reader = Reader(lambda: iter(rows), combine, lambda fn, element: applied(fn, resolve(element)), draw)
    return map(resolve, start(stages, reader))


def sliced_batches(
    source: Source, order: npt.NDArray[np.intp], batch: Batch, maps: Sequence[Callable[..., Any]]
) -> Iterator[Element]:
    """Read batches of rows, and map them: the rows of many are gathered at once, a batch is a slice of these."""
    columns, size = source.columns(), batch.batch_size
    of_row = sum(column.itemsize * math.prod(column.shape[1:]) for column in columns.values())
    block = size * max(1, _BLOCK_BYTES // max(1, size * of_row))
    end = len(order) - len(order) % size if batch.drop_remainder else len(order)
    for begin in range(0, end, block):
        rows = order[begin : min(begin + block, end)]
        gathered = [column[rows] for column in columns.values()]
        for first in range(0, len(rows), size):
            batch_of = [values[first : first + size] for values in gathered]
            element: Element = OrderedDict(zip(columns, batch_of, strict=True))
            for fn in maps:
                element = applied(fn, element)
            yield element


def counter(numbers: dict[SeedGenerator, int]) -> Callable[[SeedGenerator], int]:
    """Return a `draw` that counts in a dict and leaves the generators alone."""

    def draw(generator: SeedGenerator) -> int:
        number = numbers.get(generator, generator.first)
        numbers[generator] = number + 1
        return number

    return draw


def whole_order(
    stages: Sequence[Stage], num_rows: int, numbers: dict[SeedGenerator, int] | None = None
) -> npt.NDArray[np.intp]:
    """Return the rows that stages give one iteration, which only reorder them; count up their shuffles' numbers."""
    draw, rows = counter({} if numbers is None else numbers), range(num_rows)
    reordering = [stage for stage in stages if isinstance(stage, Repeat | Shuffle)]
    if len(reordering) == len(stages):
        return start_rows(reordering, np.arange(num_rows), draw)()
    # A chain that is cut short does not use up what it does not read.
    return np.fromiter(start(stages, Reader(lambda: iter(rows), stack, applied, draw)), np.intp)


def applied(fn: Callable[..., Any], element: Mapping[str, Any]) -> Element:
    """Return what a map makes of an element, which must be a mapping again."""
    mapped = fn(element)
    if type(mapped) is not dict and not isinstance(mapped, Mapping):
        raise argument_type_error("fn", "a callable that returns a mapping of arrays", mapped)
    return OrderedDict(mapped)
