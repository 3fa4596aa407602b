"""Aggregators: the clients' updates in, one update out.

An `Aggregator` sees a cohort at once: ``updates`` is a tuple with one array (k, ...) per weight tensor, k clients
along the first axis in cohort order, ``client_weights`` (k,) is what each client counts for. Whatever it wants to
remember between rounds is its state. Sums over clients are float64, taken in cohort order.

A client that does not count (it had no examples, or its update is not finite) has an update of zeros. A mean may take
it for one; a median must not, and is not shown it, unless it says `Aggregator.sees_all_clients`. One that wants to know
who the clients are is a `CohortAggregator`. `aggregate` asks all kinds.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedsim_np.errors import check_parts
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics
from fedsim_np.learning.shortcuts import SumsParts, WithShortcuts
from fedsim_np.trees import Array, Arrays


class Aggregator(WithShortcuts, abc.ABC):
    """The protocol for an aggregator of one's own.

    One that needs no more than sums over the clients may say so (`SumsParts`): updates are then added up as they come,
    and large models and cohorts take little memory. A class that overrides `next` inherits nothing of that.

    Attributes
    ----------
    is_weighted : bool or None
        Whether it is for the weighted builders alone (True) or for the unweighted ones (False); None: for both.
    sees_all_clients : bool
        Whether it is given the clients that do not count too, as updates of zeros with weights of zero. A round without
        clients has k = 0 then; one that does not see all is not asked where nobody counts.
    """

    is_weighted: bool | None = None
    sees_all_clients: bool = False
    _computed_by = ("next",)

    @abc.abstractmethod
    def initialize(self, trainable: Arrays) -> Any:
        """Return the state before the first round, for trainable weights of these shapes."""

    @abc.abstractmethod
    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Aggregate one round.

        Parameters
        ----------
        state
            From `initialize`, or from the round before.
        updates : tuple of ndarray, each (k, ...), read-only
            The clients' updates, see `ClientResult`: one array per weight tensor, of its dtype.
        client_weights : ndarray, shape (k,), float64
            What each client counts for.

        Returns
        -------
        state
            For the next round.
        aggregate : tuple of ndarray
            One array per weight tensor, without the clients' axis.
        metrics : OrderedDict
        """

    def initial_metrics(self) -> Metrics | None:
        """Return metrics of the types that `next` gives, for type signatures; None if they are not known before."""
        return None


class CohortAggregator(Aggregator):
    """The protocol for an aggregator that knows its clients: `next_of_cohort` instead of `Aggregator.next`.

    It is given all clients, perhaps none; ``cohort.counts`` says which count.
    """

    @abc.abstractmethod
    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Aggregate one round: as `Aggregator.next`, with a `Cohort` in the place of the weights."""

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Aggregate clients of whom nothing is known but the weights."""
        return self.next_of_cohort(state, updates, Cohort.of_weights(client_weights))


@runtime_checkable
class KeepsTime(Protocol):
    """An aggregator that waits for clients by a clock of its own, and tells how long."""

    def seconds(self, metrics: Metrics) -> float:
        """Return the simulated seconds of a round, of the metrics that `Aggregator.next` gave."""


@runtime_checkable
class SaysBytes(Protocol):
    """An aggregator that knows how its clients send their updates."""

    def bytes_up(self, weights: Arrays) -> int:
        """Return the bytes of one client's message, of an update with tensors like these."""


def bytes_up(aggregator: Aggregator, weights: Arrays) -> int:
    """Return the bytes of one client's message: where the aggregator does not say so, those of the tensors.

    Examples
    --------
    >>> from fedsim_np.learning.aggregators import MeanFactory, clipping_factory, quantized_mean_factory
    >>> weights = np.zeros((784, 200), np.float32), np.zeros(200, np.float32)
    >>> bytes_up(MeanFactory(), weights), bytes_up(clipping_factory(1.0, quantized_mean_factory(8)), weights)
    (628000, 180008)
    """
    return aggregator.bytes_up(weights) if isinstance(aggregator, SaysBytes) else sum(w.nbytes for w in weights)


class Wrapper(CohortAggregator):
    """An aggregator in front of another one, `inner`: weighted if that is, and what clients send is for that.

    Attributes
    ----------
    inner : Aggregator
    looks_at_one : bool
        Whether what it gives to `inner` of a client depends on that client alone: then noise behind it hides a client
        as it would without it.
    """

    inner: Aggregator

    @property
    def looks_at_one(self) -> bool:
        """As far as is known, not."""
        return False

    @property
    def is_weighted(self) -> bool | None:  # type: ignore[override]
        """As the inner aggregator."""
        return self.inner.is_weighted

    def bytes_up(self, weights: Arrays) -> int:
        """Return the bytes of one client's message, see `bytes_up`."""
        return bytes_up(self.inner, weights)


def summing(aggregator: Aggregator) -> SumsParts | None:
    """Return the aggregator as one that takes sums of parts of the cohort, if its class says so."""
    methods = [getattr(type(aggregator), name, None) for name in ("summed", "of_sums")]
    if not all(map(callable, methods)) or not aggregator.sees_all_clients:
        return None
    assert isinstance(aggregator, SumsParts)
    return aggregator


def aggregate(aggregator: Aggregator, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
    """Have an aggregator of any kind aggregate a round. Where nobody counts for one, the aggregate is NaN."""
    if isinstance(aggregator, CohortAggregator):
        got = aggregator.next_of_cohort(state, updates, cohort)
    elif aggregator.sees_all_clients or (len(cohort) and cohort.counts.all()):
        got = aggregator.next(state, updates, cohort.client_weights)
    elif cohort.counts.any():
        own = tuple(u[cohort.counts] for u in updates)
        got = aggregator.next(state, own, cohort.client_weights[cohort.counts])
    else:
        nothing = tuple(np.full(u.shape[1:], np.nan, u.dtype) for u in updates)
        got = state, nothing, aggregator.initial_metrics() or OrderedDict()
    return _checked(f"next of {type(aggregator).__name__}", got)


def aggregate_sums(aggregator: SumsParts, state: Any, sums: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
    """Have an aggregator finish a round of which the sums are known."""
    return _checked(f"of_sums of {type(aggregator).__name__}", aggregator.of_sums(state, sums, cohort.client_weights))


def _checked(method: str, got: Any) -> tuple[Any, Arrays, Metrics]:
    state, update, metrics = check_parts(method, got, "state", "aggregate", "metrics")
    return state, update, metrics
