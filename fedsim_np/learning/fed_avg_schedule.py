"""Federated averaging with a client learning rate for every round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedsim_np.errors import argument_type_error
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.metrics import as_float32_prints
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, SGDSteps, as_optimizer
from fedsim_np.learning.optimizers.scheduling import ScheduleFn, scheduled_rate
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class ScheduledTraining(LocalTraining):
    """The client's half: local training by the optimizer of the round; the state is the round's number, from 0.

    Parameters
    ----------
    learning_rate_fn : callable
        Round to learning rate.
    optimizer_fn : callable
        Learning rate to optimizer.
    """

    learning_rate_fn: ScheduleFn
    optimizer_fn: Callable[[float], Optimizer]
    counts_rounds = False

    def initialize(self, weights: Arrays) -> Any:
        """Return round 0."""
        return 0

    def rate(self, state: Any) -> float:
        """Return the learning rate of a round."""
        return scheduled_rate(self.learning_rate_fn, state)

    def optimizer(self, state: Any) -> Optimizer:
        """Return the optimizer of a round."""
        return as_optimizer(self.optimizer_fn(self.rate(state)), "client_optimizer_fn")

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, with a fresh optimizer of this round."""
        optimizer = self.optimizer(client.state)
        return {"weights": client.weights, "state": optimizer.initialize(client.weights), "optimizer": optimizer}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Let the optimizer take a step."""
        state, weights = local["optimizer"].next(local["state"], local["weights"], gradients)
        return {**local, "weights": weights, "state": state}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update, weighted by the examples."""
        return ClientResult(trained.update, trained.num_examples)

    def is_elementwise(self, state: Any) -> bool:
        """As the optimizer of the round."""
        return self.optimizer(state).is_elementwise

    def as_sgd(self, state: Any) -> SGDSteps | None:
        """As the optimizer of the round."""
        rule = self.optimizer(state)
        return rule.as_sgd(rule.initialize(()))

    def finish_round(self, state: Any, cohort: Cohort) -> tuple[Any, Mapping[str, Any]]:
        """Return the next round's number, and this round's rate."""
        return state + 1, OrderedDict(client_learning_rate=as_float32_prints(self.rate(state)))

    @property
    def round_metrics(self) -> Mapping[str, Any]:
        """A rate."""
        return OrderedDict(client_learning_rate=0.0)


def build_weighted_fed_avg_with_optimizer_schedule(
    model_fn: ModelFn,
    client_learning_rate_fn: ScheduleFn,
    client_optimizer_fn: Callable[[float], Optimizer],
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
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
    server_optimizer_fn, model_aggregator, metrics_aggregator, compressor, engine, executor, cache_bytes
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
    if not callable(client_learning_rate_fn):
        wanted = "a callable that takes the round's number"
        raise argument_type_error("client_learning_rate_fn", wanted, client_learning_rate_fn)
    if not callable(client_optimizer_fn):
        raise argument_type_error("client_optimizer_fn", "a callable that takes a learning rate", client_optimizer_fn)
    work = ScheduledTraining(client_learning_rate_fn, client_optimizer_fn)
    work.optimizer(0)  # a function that gives no rate or no optimizer is found now, not in round 1
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
