"""Federated averaging with a client learning rate for every round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_type_error
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import ModelFn, OptimizerFn, build_process
from fedsim_np.learning.client_work import ClientResult, ClientWork, LocalTraining
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, ExecutorArgument
from fedsim_np.learning.metrics import Metrics, as_float32_prints
from fedsim_np.learning.models import Model, ModelWeights
from fedsim_np.learning.optimizers import Optimizer, as_optimizer
from fedsim_np.learning.optimizers.scheduling import ScheduleFn, scheduled_rate
from fedsim_np.learning.process import LearningProcess, MetricsAggregator


@dataclass(frozen=True)
class ScheduledTraining(ClientWork):
    """Local training by the optimizer of the round; the state is the round's number, from 0.

    Parameters
    ----------
    model : Model
    learning_rate_fn : callable
        Round to learning rate.
    optimizer_fn : callable
        Learning rate to optimizer.
    """

    model: Model
    learning_rate_fn: ScheduleFn
    optimizer_fn: Callable[[float], Optimizer]

    def initialize(self) -> Any:
        """Return round 0."""
        return 0

    def of_round(self, state: Any) -> LocalTraining:
        """Return the local training of a round."""
        rate = scheduled_rate(self.learning_rate_fn, state)
        return LocalTraining(self.model, as_optimizer(self.optimizer_fn(rate), "client_optimizer_fn"))

    def local_training(self, state: Any) -> tuple[LocalTraining, Any] | None:
        """Return the local training of a round, with its optimizer's hyperparameters."""
        training = self.of_round(state)
        return training, training.initialize()

    def run(self, weights: ModelWeights, dataset: Dataset, state: Any) -> ClientResult:
        """Train on the dataset once through, at the round's rate."""
        training = self.of_round(state)
        return training.run(weights, dataset, training.initialize())

    def finish_round(self, state: Any) -> tuple[Any, Metrics]:
        """Return the next round's number, and this round's rate."""
        rate = scheduled_rate(self.learning_rate_fn, state)
        return state + 1, OrderedDict(client_learning_rate=as_float32_prints(rate))


def build_weighted_fed_avg_with_optimizer_schedule(
    model_fn: ModelFn,
    client_learning_rate_fn: ScheduleFn,
    client_optimizer_fn: Callable[[float], Optimizer],
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    engine: str = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build federated averaging whose clients train at a rate that depends on the round.

    .. math:: \eta_t = \mathrm{schedule}(t), \quad t = 0, 1, 2, \dots \text{ counts the calls of next}

    The rate is constant within a round; for a rate by local step, or for the server's, see
    `optimizers.schedule_learning_rate`. The round's number is the state of the client work, and its rate is reported
    as ``client_work.client_learning_rate``.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_learning_rate_fn : callable
        Number of the round, an int from 0, to a finite rate >= 0. It is asked for every client: a pure function.
    client_optimizer_fn : callable
        Learning rate to optimizer, such as `optimizers.build_sgdm`.
    server_optimizer_fn, model_aggregator, metrics_aggregator, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or a function gives something else than a rate or an optimizer.

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> process = build_weighted_fed_avg_with_optimizer_schedule(
    ...     lambda: SoftmaxRegression(num_features=2, num_classes=3), lambda t: 0.1 / 2**t, build_sgdm)
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> state = process.initialize()
    >>> for _ in range(3):
    ...     state, metrics = process.next(state, [[batch]])
    ...     print(metrics["client_work"]["client_learning_rate"])
    0.1
    0.05
    0.025
    """
    for name, value in {
        "client_learning_rate_fn": client_learning_rate_fn,
        "client_optimizer_fn": client_optimizer_fn,
    }.items():
        if not callable(value) or isinstance(value, Optimizer):
            of = "the round's number" if name == "client_learning_rate_fn" else "a learning rate"
            raise argument_type_error(name, f"a callable that takes {of}", value)

    def client_work(model: Model) -> ScheduledTraining:
        work = ScheduledTraining(model, client_learning_rate_fn, client_optimizer_fn)
        work.of_round(work.initialize())  # a function that gives no rate or no optimizer is found now, not in round 1
        return work

    return build_process(
        model_fn,
        client_work,
        server_optimizer_fn=server_optimizer_fn,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        engine=engine,
        executor=executor,
        cache_bytes=cache_bytes,
    )
