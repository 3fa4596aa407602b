"""What a round gives: state, metrics, and a table of its clients."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics, Unfinalized
from fedsim_np.learning.state import LearningAlgorithmState


class _StateAndMetrics(NamedTuple):
    state: LearningAlgorithmState
    metrics: Metrics


class LearningProcessOutput(_StateAndMetrics):
    """What a round gives: ``state, metrics = process.next(state, data)``, and the clients besides.

    Attributes
    ----------
    state : LearningAlgorithmState
        For the next round.
    metrics : OrderedDict
        Of the parts: ``distributor``, ``client_work``, ``aggregator``, ``finalizer``.
    clients : OrderedDict of str to list or ndarray
        A table with a row per client in cohort order: ``client_id``, ``num_examples``, ``weight``, ``update_norm``
        (l2, as the client sent it), ``status`` ("ok", "empty" or "non-finite update") and ``metrics`` (unfinalized).
        It is made when it is asked for.
    """

    _make_clients: Callable[[], OrderedDict[str, Any]] = OrderedDict

    def __new__(
        cls,
        state: LearningAlgorithmState,
        metrics: Metrics,
        clients: Callable[[], OrderedDict[str, Any]] | OrderedDict[str, Any] | None = None,
    ) -> LearningProcessOutput:
        """Take the parts; `clients` may be a function that makes the table."""
        self = super().__new__(cls, state, metrics)
        self._make_clients = clients if callable(clients) else functools.partial(OrderedDict, clients or ())
        return self

    @functools.cached_property
    def clients(self) -> OrderedDict[str, Any]:
        """The table of the clients."""
        make, self._make_clients = self._make_clients, OrderedDict  # it holds what clients sent
        return make()

    def __reduce__(self) -> tuple[type[LearningProcessOutput], tuple[Any, Any, Any]]:
        return LearningProcessOutput, (self.state, self.metrics, self.clients)


def clients_table(cohort: Cohort, unfinalized: Sequence[Unfinalized], *, updates: bool = True) -> OrderedDict[str, Any]:
    """Return `LearningProcessOutput.clients`; clients that are evaluated send no updates."""
    of_updates = {"weight": cohort.client_weights, "update_norm": cohort.update_norms} if updates else {}
    return OrderedDict(
        client_id=list(cohort.ids),
        num_examples=cohort.num_examples,
        **of_updates,
        status=cohort.status,
        metrics=list(unfinalized),
    )
