"""What goes through a round: the state between rounds, and what a round gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.learning import metrics as metrics_lib
from fedsim_np.learning.models import Array, Model, ModelWeights

OK, EMPTY, NON_FINITE = "ok", "empty", "non-finite update"
"""What `clients` says of a client: took part; had no examples; was left out."""


class LearningAlgorithmState(NamedTuple):
    """The state between rounds, a part for each part of the process."""

    global_model_weights: ModelWeights
    distributor: Any
    client_work: Any
    aggregator: Any
    finalizer: Any


class _StateAndMetrics(NamedTuple):
    state: LearningAlgorithmState
    metrics: metrics_lib.Metrics


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

    _make_clients: Callable[[], OrderedDict[str, Any]] | None = None
    _clients: OrderedDict[str, Any] | None = None

    def __new__(
        cls,
        state: LearningAlgorithmState,
        metrics: metrics_lib.Metrics,
        clients: Callable[[], OrderedDict[str, Any]] | OrderedDict[str, Any] | None = None,
    ) -> LearningProcessOutput:
        """Take the parts; `clients` may be a function that makes the table."""
        self = super().__new__(cls, state, metrics)
        self._make_clients = clients if callable(clients) else None
        if self._make_clients is None:
            self._clients = OrderedDict() if clients is None else OrderedDict(clients)  # type: ignore[arg-type]
        return self

    @property
    def clients(self) -> OrderedDict[str, Any]:
        """The table of the clients."""
        if self._make_clients is not None:
            self._clients, self._make_clients = self._make_clients(), None
        return OrderedDict() if self._clients is None else self._clients

    def __reduce__(self) -> tuple[type[LearningProcessOutput], tuple[Any, Any, Any]]:
        return LearningProcessOutput, (self.state, self.metrics, self.clients)


def clients_table(
    client_ids: Sequence[str | None],
    sizes: Sequence[int | Dataset],
    unfinalized: Sequence[metrics_lib.Unfinalized],
    **columns: Array,
) -> OrderedDict[str, Any]:
    """Return `LearningProcessOutput.clients`; a size is the number of examples, or the dataset to count them in."""
    counts = [size.num_examples if isinstance(size, Dataset) else size for size in sizes]
    finite = np.isfinite(columns.get("update_norm", np.zeros(len(counts))))
    status = [EMPTY if not n else OK if good else NON_FINITE for n, good in zip(counts, finite, strict=True)]
    return OrderedDict(
        client_id=list(client_ids),
        num_examples=np.array(counts, np.int64),
        **columns,
        status=status,
        metrics=list(unfinalized),
    )


def frozen(value: Any) -> Any:
    """Return a state or weights with every array in it read-only."""
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if isinstance(value, Mapping):
        return OrderedDict((name, frozen(v)) for name, v in value.items())
    if isinstance(value, tuple | list):
        parts = [frozen(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def initial_weights(model: Model) -> ModelWeights:
    """Return a model's first weights as arrays of the state's own, the trainable ones float32."""
    trainable, non_trainable = model.initial_weights()
    owned = ModelWeights(tuple(np.array(w, np.float32) for w in trainable), tuple(np.array(w) for w in non_trainable))
    weights: ModelWeights = frozen(owned)
    return weights
