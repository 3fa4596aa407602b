"""The means: of clients weighted by their examples, and of all clients alike."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import check_bool
from fedsim_np.learning.aggregators.aggregator import Aggregator
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Array, Arrays


def weighted_sums(updates: Arrays, weights: Array) -> Arrays:
    """Return sum_i weights[i] * update[i] in float64, in cohort order: no (k, ...) copy in float64 is made."""
    with np.errstate(invalid="ignore"):
        return tuple(np.einsum(np.asarray(weights, np.float64), [0], u, [0, ...], [...]) for u in updates)


def in_dtypes_of(updates: Arrays, aggregate: Arrays) -> Arrays:
    """Return an aggregate that was computed in float64 in the updates' dtypes; infinite where it is beyond them."""
    with np.errstate(over="ignore"):
        return tuple(a.astype(u.dtype) for a, u in zip(aggregate, updates, strict=True))


def _over(sums: Arrays, total: Any) -> Arrays:
    with np.errstate(invalid="ignore"):
        return tuple(s / total for s in sums)


def _at_once(
    aggregator: Any, kind: Any, state: Any, updates: Arrays, client_weights: Array
) -> tuple[Any, Arrays, Metrics]:
    """Return what `next` does, in the updates' dtypes; of a subclass that overrides `next`, by the sums of its base."""
    own = aggregator if aggregator.summed else kind
    bound = () if own is aggregator else (aggregator,)
    sums = own.summed(*bound, updates, client_weights)
    state, mean, metrics = own.of_sums(*bound, state, sums, client_weights)
    return state, in_dtypes_of(updates, mean), metrics


@dataclass(frozen=True)
class MeanFactory(Aggregator):
    r"""The weighted mean, :math:`\sum_i n_i u_i / \sum_i n_i` (McMahan et al. 2017).

    The name is TFF's; it is the aggregator itself.

    Parameters
    ----------
    no_nan_division : bool
        What comes of weights that are all 0: a mean of zeros if True; otherwise NaN, and the server leaves the model
        and its optimizer as they are.

    Examples
    --------
    >>> updates, weights = (np.float32([[1.0], [4.0]]),), np.array([2.0, 1.0])
    >>> state = MeanFactory().initialize((np.zeros(1, np.float32),))
    >>> MeanFactory().next(state, updates, weights)[1]
    (array([2.], dtype=float32),)
    """

    is_weighted = True
    sees_all_clients = True
    no_nan_division: bool = False

    def __post_init__(self) -> None:
        """Check the argument."""
        check_bool("no_nan_division", self.no_nan_division)

    def initialize(self, trainable: Arrays) -> Any:
        """Return TFF's state of a mean: two sums that remember nothing."""
        return OrderedDict(value_sum_process=(), weight_sum_process=())

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the weighted mean."""
        return _at_once(self, MeanFactory, state, updates, client_weights)

    def summed(self, updates: Arrays, client_weights: Array) -> Arrays:
        """Return the sums of the weighted updates."""
        return weighted_sums(updates, client_weights)

    def of_sums(self, state: Any, sums: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the weighted mean, in float64."""
        total = client_weights.sum()
        if self.no_nan_division and total == 0:
            total = np.float64(1)
        return state, _over(sums, total), self.initial_metrics()

    def initial_metrics(self) -> Metrics:
        """Return TFF's metrics of a mean, which say nothing."""
        return OrderedDict(mean_value=(), mean_weight=())


@dataclass(frozen=True)
class UnweightedMeanFactory(Aggregator):
    r"""The plain mean, :math:`\sum_i u_i / k`, over all clients of the cohort.

    Examples
    --------
    >>> updates = (np.float32([[1.0], [4.0]]),)
    >>> UnweightedMeanFactory().next(((), ()), updates, np.array([2.0, 1.0]))[1]
    (array([2.5], dtype=float32),)
    """

    is_weighted = False
    sees_all_clients = True

    def initialize(self, trainable: Arrays) -> Any:
        """Return TFF's state of a plain mean."""
        return (), ()

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean; the weights do not count."""
        return _at_once(self, UnweightedMeanFactory, state, updates, client_weights)

    def summed(self, updates: Arrays, client_weights: Array) -> Arrays:
        """Return the sums of the updates."""
        return weighted_sums(updates, np.ones(len(client_weights)))

    def of_sums(self, state: Any, sums: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean, in float64."""
        return state, _over(sums, len(client_weights)), self.initial_metrics()

    def initial_metrics(self) -> Metrics:
        """Return TFF's metrics of a plain mean, which say nothing."""
        return OrderedDict(mean_value=(), mean_count=())
