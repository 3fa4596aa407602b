r"""Means of updates that clients send in a few bits a number: TFF's uniform quantization.

::

    w_i u_i --> each large tensor: [lo, hi] --> whole steps 0 ... M --> [sum] --> over sum w_i --> aggregate

Each client sends, of each of its large tensors, the range from the least number to the largest and in which of
:math:`M = 2^{bits} - 1` equal steps of it each number lies:

.. math:: q = M (v - lo) / (hi - lo), \qquad \hat v = lo + \operatorname{round}(q) (hi - lo) / M

What is rounded is the update times its weight. Random rounding is up with probability :math:`q - \lfloor q \rfloor`,
and so right on average; it is drawn from (seed, round, client id).

References
----------
Konečný, McMahan, Yu, Richtárik, Suresh, Bacon, "Federated learning: strategies for improving communication
efficiency", 2016, https://arxiv.org/abs/1610.05492
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, check_bool, check_float, check_int
from fedsim_np.learning.aggregators.aggregator import Aggregator, Wrapper
from fedsim_np.learning.aggregators.mean import MeanFactory, UnweightedMeanFactory, in_dtypes_of, weighted_sums
from fedsim_np.learning.aggregators.robust import adaptive_clipping, adaptive_zeroing
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Array, Arrays

_PACKED = 28  # bits of a number that TFF packs into an int32
_ROUNDING = 3_000_002  # the first word of the roundings' streams


@dataclass(frozen=True)
class _Quantized(Wrapper):
    """A mean of quantized updates: made by `quantized_mean_factory` and `compression_aggregator`."""

    inner: MeanFactory | UnweightedMeanFactory
    quantization_bits: int
    threshold: int
    stochastic: bool
    min_max: Sequence[float] | None
    seed: int

    def __post_init__(self) -> None:
        """Check the arguments."""
        if check_int("quantization_bits", self.quantization_bits, minimum=1) > 16:
            raise argument_error("quantization_bits", "an integer in [1, 16]", self.quantization_bits)
        check_int("threshold", self.threshold, minimum=0)
        check_bool("stochastic", self.stochastic)
        check_int("seed", self.seed, minimum=0)
        if self.min_max is not None:
            if not isinstance(self.min_max, Sequence) or len(self.min_max) != 2:
                raise argument_error("min_max", "None or two floats, the smaller one first", self.min_max)
            low, high = (check_float("min_max", number) for number in self.min_max)
            if low >= high:
                raise argument_error("min_max", "None or two floats, the smaller one first", self.min_max)
            object.__setattr__(self, "min_max", (low, high))

    def initialize(self, trainable: Arrays) -> Any:
        """Return TFF's state of such a mean; and, where roundings are drawn, the number of rounds that are over."""
        # Of one tensor TFF has its part alone.
        parts = () if len(trainable) == 1 else ((),) * len(trainable)
        state: Any = (parts, ()) if self.is_weighted is False else OrderedDict(self.inner.initialize(trainable))
        if self.is_weighted:
            state["value_sum_process"] = parts
        if self.stochastic and any(w.size > self.threshold for w in trainable):
            return OrderedDict(round_num=0, mean=state)
        return state

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Return the mean of what clients send."""
        weights = cohort.client_weights if self.is_weighted else np.ones(len(cohort))
        streams: list[Any] = [None] * len(cohort)
        if "round_num" in state:
            state = OrderedDict(state, round_num=int(state["round_num"]) + 1)
            streams = list(cohort.streams(state["round_num"], self.seed, _ROUNDING))
        sums = tuple(
            self._sum(u, weights, streams) if self._quantizes(u.shape[1:]) else weighted_sums((u,), weights)[0]
            for u in updates
        )
        _, mean, metrics = self.inner.of_sums((), sums, weights)
        return state, in_dtypes_of(updates, mean), metrics

    def _quantizes(self, shape: tuple[int, ...]) -> bool:
        return math.prod(shape) > self.threshold

    def _sum(self, update: Array, weights: Array, streams: list[Any]) -> Array:
        total = np.zeros(update.shape[1:])
        with np.errstate(all="ignore"):  # of what is not finite, or beyond float32, the whole tensor becomes NaN
            for u, weight, rng in zip(update, weights.astype(update.dtype), streams, strict=True):
                total += self._decoded(u * weight, rng)
        return total

    def _decoded(self, value: Array, rng: np.random.Generator | None) -> Array:
        """Return one client's tensor as the server reads it, in its dtype as in TFF."""
        number = value.dtype.type
        if self.min_max is None:
            low, high = value.min(), value.max()
        else:
            low, high = number(self.min_max[0]), number(self.min_max[1])
            value = np.fmin(np.fmax(value, low), high)
        steps, length = number(2**self.quantization_bits - 1), high - low
        if length == 0:
            return np.full_like(value, low)
        decoded: Array = value - low
        decoded /= length
        decoded *= steps
        if rng is None:
            decoded = np.rint(decoded)
        else:
            whole = np.floor(decoded)
            decoded = whole + (rng.random(decoded.shape) < decoded - whole)
        decoded /= steps
        decoded *= length
        decoded += low
        return decoded

    def initial_metrics(self) -> Metrics:
        """Return the mean's, which say nothing."""
        return self.inner.initial_metrics()

    def bytes_up(self, weights: Arrays) -> int:
        """Return the bytes of one client's message: of a large tensor packed int32 and, if it is its own, the range."""

        def of_tensor(w: Array) -> int:
            of_range = 2 if self.min_max is None else 0
            packed = math.ceil(self.quantization_bits * w.size / _PACKED)
            return 4 * (packed + of_range) if self._quantizes(w.shape) else w.nbytes

        return sum(map(of_tensor, weights))


def quantized_mean_factory(
    quantization_bits: int = 8,
    threshold: int = 20000,
    stochastic: bool = True,
    min_max: Sequence[float] | None = None,
    seed: int = 0,
) -> Aggregator:
    """Build the weighted mean of updates whose large tensors are rounded to equal steps of their range.

    It is TFF's ``MeanFactory`` of ``EncodedSumFactory.quantize_above_threshold``. Smaller tensors and the weights are
    sent as they are.

    Parameters
    ----------
    quantization_bits : int
        Of each number, 1 to 16.
    threshold : int
        Tensors with more numbers than this are rounded, >= 0.
    stochastic : bool
        Whether numbers are rounded up or down at random, so that they are right on average, by less than a step; or to
        the nearest step, by at most half of one.
    min_max : (float, float), optional
        A range that the server gives: weighted updates are clipped to it. Each client's own by default.
    seed : int
        Of the rounding, >= 0. (TFF's is not seeded.)

    Returns
    -------
    Aggregator
        A weighted one. It says what a client's message takes, see `SaysBytes`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> aggregator = quantized_mean_factory(2, threshold=3, stochastic=False)
    >>> updates = (np.float32([[0.0, 0.9, 1.4, 3.0], [1.0, 1.0, 1.0, 1.0]]),)
    >>> aggregator.next(aggregator.initialize((np.zeros(4, np.float32),)), updates, np.ones(2))[1]
    (array([0.5, 1. , 1. , 2. ], dtype=float32),)
    """
    return _Quantized(MeanFactory(), quantization_bits, threshold, stochastic, min_max, seed)


def compression_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    quantization_bits: int = 8,
    threshold: int = 20000,
    stochastic: bool = True,
    min_max: Sequence[float] | None = None,
    seed: int = 0,
) -> Aggregator:
    """Build TFF's mean for slow connections: `robust_aggregator`'s limits, then large tensors in a few bits a number.

    Parameters
    ----------
    zeroing, clipping, weighted : bool
        As for `robust_aggregator`.
    quantization_bits, threshold, stochastic, min_max, seed
        As for `quantized_mean_factory`.

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> aggregator = compression_aggregator(zeroing=False, threshold=1, quantization_bits=1, stochastic=False)
    >>> updates = (np.float32([[3.0, 4.0], [0.0, 0.5]]),)
    >>> state, aggregate, metrics = aggregator.next(aggregator.initialize((np.zeros(2),)), updates, np.ones(2))
    >>> aggregate[0].round(4).tolist(), metrics["clipping_norm"], metrics["clipped_count"]
    ([0.30000001192092896, 0.6499999761581421], 1.0, 1)
    """
    for name, flag in {"zeroing": zeroing, "clipping": clipping, "weighted": weighted}.items():
        check_bool(name, flag)
    mean = MeanFactory() if weighted else UnweightedMeanFactory()
    aggregator: Aggregator = _Quantized(mean, quantization_bits, threshold, stochastic, min_max, seed)
    if clipping:
        aggregator = adaptive_clipping(aggregator)
    return adaptive_zeroing(aggregator) if zeroing else aggregator
