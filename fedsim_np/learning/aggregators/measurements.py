"""Measurements of the updates on their way through an aggregator."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_type_error
from fedsim_np.learning.aggregators.aggregator import Aggregator, Wrapper, aggregate
from fedsim_np.learning.aggregators.robust import update_norms
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics, as_float32_prints
from fedsim_np.trees import Array, Arrays


@dataclass(frozen=True)
class _Measured(Wrapper):
    """Made by `add_debug_measurements`."""

    inner: Aggregator

    @property
    def looks_at_one(self) -> bool:
        """Yes: updates stay what they are."""
        return True

    def initialize(self, trainable: Arrays) -> Any:
        """Return the inner aggregator's state."""
        return self.inner.initialize(trainable)

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Aggregate, and add the measurements to the inner aggregator's metrics."""
        state, total, metrics = aggregate(self.inner, state, updates, cohort)
        norms = update_norms(updates).astype(np.float64)
        weights = np.ones(len(norms)) if self.is_weighted is False else cohort.client_weights
        return state, total, _measured(metrics, *_mean_and_deviation(norms, weights), total)

    def initial_metrics(self) -> Metrics | None:
        """Return the inner aggregator's metrics and measurements of nothing."""
        inner = self.inner.initial_metrics()
        return None if inner is None else _measured(inner, 0.0, 0.0, (np.zeros(1),))


def _measured(metrics: Metrics, mean: float, deviation: float, total: Arrays) -> Metrics:
    measurements = {
        "average_client_norm": mean,
        "std_dev_client_norm": deviation,
        "server_update_max": np.max([np.max(a) for a in total if a.size]),
        "server_update_norm": update_norms(tuple(np.asarray(a)[np.newaxis] for a in total))[0],
        "server_update_min": np.min([np.min(a) for a in total if a.size]),
    }
    return OrderedDict(metrics or {}, **{name: as_float32_prints(value) for name, value in measurements.items()})


def _mean_and_deviation(norms: Array, weights: Array) -> tuple[float, float]:
    """Return the weighted mean, and the root of the unbiased variance for such weights; NaN without any weight."""
    with np.errstate(all="ignore"):
        total, squares = float(weights.sum()), float(np.square(weights).sum())
        mean = (weights * norms).sum() / np.float64(total)
        variance = (weights * np.square(norms - mean)).sum() / np.float64(total)
        free = total * total - squares
        return float(mean), float(np.sqrt(variance * (total * total / free if free else 0.0)))


def add_debug_measurements(aggregation_factory: Aggregator) -> Aggregator:
    """Add measurements of the clients' updates and of the aggregate to an aggregator's metrics.

    They are the mean and the (unbiased) standard deviation of the clients' l2 norms, weighted if the aggregator is,
    ``average_client_norm`` and ``std_dev_client_norm``; and the aggregate's largest entry, l2 norm and smallest entry,
    ``server_update_max``, ``server_update_norm`` and ``server_update_min``. The aggregate stays what it is.

    TFF computes the variance as a difference of squares in float32; here it is computed in float64, so that norms
    which nearly agree have a deviation near 0, where TFF's is rounding or NaN.

    Parameters
    ----------
    aggregation_factory : Aggregator

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError
        If it is no aggregator.

    Examples
    --------
    >>> from fedsim_np.learning.aggregators import UnweightedMeanFactory
    >>> aggregator = add_debug_measurements(UnweightedMeanFactory())
    >>> updates = np.float32([[-1, -3, -5], [-1, -3, 1]]), np.float32([[2], [0]])
    >>> metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(2))[2]
    >>> [metrics[f"server_update_{name}"] for name in ("max", "norm", "min")]
    [1.0, 3.8729835, -3.0]
    """
    if not isinstance(aggregation_factory, Aggregator):
        raise argument_type_error("aggregation_factory", "an Aggregator", aggregation_factory)
    return _Measured(aggregation_factory)
