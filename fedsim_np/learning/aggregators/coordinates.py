"""Rules that look at each coordinate by itself: the median, the trimmed mean.

All clients count alike. The result is the same, to the bit, in whatever order they come. Coordinates are taken in
blocks, so that no second copy of all updates is made.

References
----------
Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018,
https://arxiv.org/abs/1803.01498
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import check_float
from fedsim_np.learning.aggregators.aggregator import Aggregator
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Array, Arrays

_BLOCK = 2**18  # numbers of a block: 2 MB in float64


def blocks(update: Array, least: int = 1) -> Iterator[tuple[Any, Array]]:
    """Yield parts of a tensor's updates (k, ...): what the aggregate has to be indexed with, and numbers (k, m).

    Of very many clients a part is small; where something is done for each part, `least` coordinates are allowed.

    Examples
    --------
    >>> [(index, block.shape) for index, block in blocks(np.zeros((3, 2, 4)))]
    [((slice(0, 21845, None),), (3, 8))]
    """
    for index in _parts(update.shape[1:], max(least, _BLOCK // max(1, len(update)))):
        of_all = (slice(None), *index)
        part = update[of_all]
        yield index, part.reshape(len(part), math.prod(part.shape[1:]))


def _parts(shape: tuple[int, ...], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield indices that take an array to pieces of so many numbers, or of one."""
    if not shape:
        yield ()
        return
    step = most // max(1, math.prod(shape[1:]))
    if step:
        yield from ((slice(start, start + step),) for start in range(0, shape[0], step))
    else:
        yield from ((row, *rest) for row in range(shape[0]) for rest in _parts(shape[1:], most))


def by_coordinate(rule: Callable[[Array], Array], updates: Arrays, clients: Any = slice(None)) -> Arrays:
    """Aggregate every coordinate by itself: `rule` is given (m, k), sorted, for m of them, and returns (m,)."""
    aggregate = tuple(np.empty(u.shape[1:], u.dtype) for u in updates)
    for update, out in zip(updates, aggregate, strict=True):
        for index, block in blocks(update):
            values = np.array(block[clients].T, order="C")
            values.sort()
            out[index] = rule(values).reshape(out[index].shape)
    return aggregate


class OfUnweighted(Aggregator):
    """A rule that keeps nothing and reports nothing, and for which all clients that count are alike."""

    def initialize(self, trainable: Arrays) -> Any:
        """Return nothing: the rule keeps nothing."""
        return ()

    def initial_metrics(self) -> Metrics:
        """Return no metrics."""
        return OrderedDict()


@dataclass(frozen=True)
class MedianFactory(OfUnweighted):
    """The median of each coordinate: not beyond the honest clients' values as long as they are the majority.

    Of an even number it is the mean of the two in the middle.

    Examples
    --------
    >>> updates = (np.float32([[1.0, 5.0], [2.0, 4.0], [1e30, -1e30]]),)
    >>> MedianFactory().next((), updates, np.ones(3))[1]
    (array([2., 4.], dtype=float32),)
    """

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the median."""
        return state, by_coordinate(median_of_sorted, updates), self.initial_metrics()


@dataclass(frozen=True)
class TrimmedMeanFactory(OfUnweighted):
    r"""The mean of each coordinate without its extremes: :math:`\lfloor \beta k \rfloor` of k values off each end.

    Parameters
    ----------
    trim_fraction : float
        :math:`\beta` in [0, 0.5): of how many clients nothing good is expected.

    Examples
    --------
    >>> updates = (np.float32([[1.0], [2.0], [6.0], [1e30]]),)
    >>> TrimmedMeanFactory(0.25).next((), updates, np.ones(4))[1]
    (array([4.], dtype=float32),)
    """

    trim_fraction: float

    def __post_init__(self) -> None:
        """Check the argument."""
        check_float("trim_fraction", self.trim_fraction, minimum=0.0, below=0.5)

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the trimmed mean."""
        k = len(client_weights)
        # 0.29 of 100 are 29, in floats 28.999999999999996; at least one value is left.
        trimmed = min(math.floor(self.trim_fraction * k + 1e-9), (k - 1) // 2)

        def of_sorted(values: Array) -> Array:
            mean: Array = values[:, trimmed : k - trimmed].mean(axis=1, dtype=np.float64)
            return mean

        return state, by_coordinate(of_sorted, updates), self.initial_metrics()


def median_of_sorted(values: Array) -> Array:
    """Return the medians (m,), in float64, of sorted rows (m, k)."""
    k = values.shape[1]
    median: Array = (values[:, (k - 1) // 2].astype(np.float64) + values[:, k // 2]) / 2
    return median
