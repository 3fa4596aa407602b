"""Aggregators: the clients' updates in, one update out.

An `Aggregator` sees a cohort at once: ``updates`` is a tuple with one array (k, ...) per weight tensor, k clients
along the first axis in cohort order, ``weights`` (k,) is what each client counts for. Whatever it wants to remember
between rounds is its state. Sums over clients are float64, taken in cohort order.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from typing import Any

import numpy as np

from fedsim_np.learning.metrics import Metrics
from fedsim_np.learning.models import Array, Arrays


class Aggregator(abc.ABC):
    """The protocol for an aggregation rule of one's own.

    Attributes
    ----------
    is_weighted : bool
        Whether the rule is one for weighted clients; False is for the unweighted builders.
    """

    is_weighted: bool = True

    @abc.abstractmethod
    def initialize(self, weights: Arrays) -> Any:
        """Return the state before the first round, for trainable weights of these shapes."""

    @abc.abstractmethod
    def next(self, state: Any, updates: Arrays, weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Aggregate one round.

        Parameters
        ----------
        state
            From `initialize`, or from the round before.
        updates : tuple of ndarray, each (k, ...) float32, read-only
            The clients' updates (initial - final weights), one array per weight tensor.
        weights : ndarray, shape (k,), float64
            The clients' weights; 0 for a client whose update was not finite, and is zero here.

        Returns
        -------
        state
            For the next round.
        aggregate : tuple of ndarray
            One array per weight tensor, without the clients' axis.
        metrics : OrderedDict
        """


def _weighted_sum(update: Array, weights: Array) -> Array:
    """Return sum_i weights[i] * update[i] in float64, client by client: no (k, ...) copy in float64 is made."""
    total = np.zeros(update.shape[1:], np.float64)
    for row, weight in zip(update, weights, strict=True):
        total += np.multiply(row, weight, dtype=np.float64)
    return total


class MeanFactory(Aggregator):
    r"""The weighted mean, :math:`\sum_i n_i u_i / \sum_i n_i` (McMahan et al. 2017).

    If all weights are 0 the mean is NaN, and the server leaves the model as it is.

    Examples
    --------
    >>> updates, weights = (np.float32([[1.0], [4.0]]),), np.array([2.0, 1.0])
    >>> MeanFactory().next(MeanFactory().initialize(updates), updates, weights)[1]
    (array([2.], dtype=float32),)
    """

    def initialize(self, weights: Arrays) -> Any:
        """Return TFF's state of a mean: two sums that remember nothing."""
        return OrderedDict(value_sum_process=(), weight_sum_process=())

    def next(self, state: Any, updates: Arrays, weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the weighted mean."""
        with np.errstate(invalid="ignore"):
            mean = tuple((_weighted_sum(u, weights) / weights.sum()).astype(np.float32) for u in updates)
        return state, mean, OrderedDict(mean_value=(), mean_weight=())


class UnweightedMeanFactory(Aggregator):
    r"""The plain mean, :math:`\sum_i u_i / k`, over all clients of the cohort.

    Examples
    --------
    >>> updates = (np.float32([[1.0], [4.0]]),)
    >>> UnweightedMeanFactory().next(((), ()), updates, np.array([2.0, 1.0]))[1]
    (array([2.5], dtype=float32),)
    """

    is_weighted = False

    def initialize(self, weights: Arrays) -> Any:
        """Return TFF's state of a plain mean."""
        return (), ()

    def next(self, state: Any, updates: Arrays, weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean; the weights do not count."""
        ones = np.ones(len(weights))
        mean = tuple((_weighted_sum(u, ones) / len(ones)).astype(np.float32) for u in updates)
        return state, mean, OrderedDict(mean_value=(), mean_count=())
