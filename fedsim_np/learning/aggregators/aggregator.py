"""Aggregators: the clients' updates in, one update out.

An `Aggregator` sees a cohort at once: ``updates`` is a tuple with one array (k, ...) per weight tensor, k clients
along the first axis in cohort order, ``weights`` (k,) is what each client counts for. Whatever it wants to remember
between rounds is its state. Sums over clients are float64, taken in cohort order.
"""

from __future__ import annotations

import abc
from typing import Any

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
