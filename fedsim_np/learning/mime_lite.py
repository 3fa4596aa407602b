r"""Mime Lite (Karimireddy et al. 2021): clients step with the server's optimizer state, which they do not move.

::

    s = the base optimizer's state at the server
    each round, each client i of the cohort:
        G_i = gradient of the mean loss of all its data at w
        w_i = w;   for each batch:   w_i = base.next(s, w_i, g(w_i)), and the state that this returns is dropped
        u_i = w - w_i
    w = server optimizer's step on w with  sum_i n_i u_i / sum_i n_i  as the gradient
    s = base.next(s, ., sum_i n_i G_i / sum_i n_i)

So momentum is that of the whole cohort's gradients, and clients do not drift with momentum of their own. s and the
state of the mean of G_i are the client work's; G_i is what a client sends as its message. As in TFF the steps read the
dataset's second iteration, its first being the pass for G_i: G_i is taken of the second one's batches here, which are
the same examples unless a pipeline drops some after a shuffle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.aggregators.aggregator import aggregate
from fedsim_np.learning.builders import aggregator_or_mean
from fedsim_np.learning.builders import server_optimizer as server_optimizer_of
from fedsim_np.learning.client import Client, ClientResult, ClientWeighting, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, SGDSteps, as_optimizer
from fedsim_np.learning.optimizers.optimizer import LEARNING_RATE_KEY, State, filled
from fedsim_np.learning.optimizers.scheduling import ScheduleFn, scheduled_rate
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class MimeLiteTraining(LocalTraining):
    """The clients' half, and the base optimizer's state: ``(s, state of the full gradient's aggregator)``.

    Parameters
    ----------
    base : Optimizer
    full_gradient_aggregator : Aggregator
    client_weighting : ClientWeighting
    """

    base: Optimizer
    full_gradient_aggregator: Aggregator
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES
    counts_rounds = False
    reads_all_data = True
    first_iteration = 1

    def __post_init__(self) -> None:
        """Check the weighting."""
        if not isinstance(self.client_weighting, ClientWeighting):
            raise argument_type_error("client_weighting", "a member of ClientWeighting", self.client_weighting)

    def initialize(self, weights: Arrays) -> Any:
        """Return both states."""
        return self.base.initialize(weights), self.full_gradient_aggregator.initialize(weights)

    def base_state(self, state: Any) -> State:
        """Return s, in a state of this work."""
        s: State = state[0]
        return s

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, with the server's state of the optimizer."""
        return self._told(client.weights, self.base_state(client.state))

    def _told(self, weights: Arrays, s: State) -> Local:
        local = {"weights": weights, "base": s}
        steps = self.base.as_sgd(s)
        if steps is None or not steps.momentum:
            return local
        # Momentum m a that stays is a constant drift: what a step takes from zero weights along a gradient of zero.
        zeros = filled(weights, 0.0)
        rate = np.float32(-1 / steps.learning_rate)
        return {**local, "drift": trees.map(lambda w: w * rate, self.base.next(s, zeros, zeros)[1])}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Take a step of the base optimizer, and leave its state as it was."""
        _, weights = self.base.next(local["base"], local["weights"], gradients)
        return {**local, "weights": weights}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update, and the gradient of all data at the server's weights."""
        _, full_gradient = client.objective(client.weights)
        weight = self.client_weighting.of(trained.num_examples)
        return ClientResult(trained.update, weight, message=full_gradient)

    def finish_round(self, state: Any, cohort: Cohort) -> tuple[Any, Mapping[str, Any]]:
        """Let the base optimizer's state see the cohort's gradient."""
        s, of_aggregator = state
        messages = trees.freeze(cohort.messages)
        of_aggregator, mean, _ = aggregate(self.full_gradient_aggregator, of_aggregator, messages, cohort)
        gradient = trees.map(lambda sent, g: g.astype(sent.dtype), messages, mean)
        with np.errstate(all="ignore"):
            moved, _ = self.base.next(s, filled(gradient, 0.0), gradient)
        # Of nobody there is no gradient, and a huge one has no square: what is not finite would stay so for good.
        if all(np.isfinite(leaf).all() for _, leaf in trees.leaves(moved)):
            s = moved
        return (s, of_aggregator), {}

    def is_elementwise(self, state: Any) -> bool:
        """As the base optimizer."""
        return self.base.is_elementwise

    def as_sgd(self, state: Any) -> SGDSteps | None:
        """As the base optimizer, its momentum being a constant drift here; Nesterov's has another rate."""
        steps = self.base.as_sgd(self.base_state(state))
        if steps is None or steps.nesterov or not steps.learning_rate:
            return None
        return SGDSteps(steps.learning_rate, drift="drift" if steps.momentum else None)


@dataclass(frozen=True)
class ScheduledMimeLiteTraining(MimeLiteTraining):
    """The same at a rate for every round; the state is ``(round from 0, state without schedule)``, as in TFF.

    Parameters
    ----------
    base : Optimizer
        Its own rate is not used.
    full_gradient_aggregator, client_weighting
        As before.
    learning_rate_fn : callable
        Round to learning rate.
    """

    learning_rate_fn: ScheduleFn = float

    def __post_init__(self) -> None:
        """Check that there is a rate to schedule."""
        super().__post_init__()
        if LEARNING_RATE_KEY not in self.base.initialize(()):
            raise argument_error("base_optimizer", "an optimizer with a learning rate in its state", self.base)

    def initialize(self, weights: Arrays) -> Any:
        """Return round 0, and its state."""
        return self._at(0, *super().initialize(weights))

    def _at(self, round_num: int, s: State, of_aggregator: Any) -> Any:
        rates = {**self.base.get_hparams(s), LEARNING_RATE_KEY: scheduled_rate(self.learning_rate_fn, round_num)}
        return round_num, (self.base.set_hparams(s, rates), of_aggregator)

    def base_state(self, state: Any) -> State:
        """Return s."""
        return super().base_state(state[1])

    def finish_round(self, state: Any, cohort: Cohort) -> tuple[Any, Mapping[str, Any]]:
        """Move s, and set the next round's rate."""
        round_num, inner = state
        moved, metrics = super().finish_round(inner, cohort)
        return self._at(round_num + 1, *moved), metrics


def build_weighted_mime_lite(
    model_fn: ModelFn,
    base_optimizer: OptimizerFn,
    server_optimizer: OptimizerFn | None = None,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Aggregator | None = None,
    full_gradient_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build Mime Lite with clients weighted by their examples.

    .. math:: w_i \leftarrow \mathrm{base}(s, w_i, \nabla F_i(w_i)), \qquad
              s \leftarrow \mathrm{base}\Big(s, \cdot, \sum_i n_i \nabla F_i(w) / \sum_i n_i\Big)

    A client that is empty or not finite moves neither the weights nor s: in TFF its NaN would stay in s for good. A
    round in which nobody counts leaves s as it was.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    base_optimizer : Optimizer or callable that returns one
        Of the clients' steps; its state is the server's.
    server_optimizer : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    client_weighting : ClientWeighting
        What updates and gradients count for in their means.
    model_aggregator, full_gradient_aggregator : Aggregator, optional
        Weighted ones, `aggregators.MeanFactory` by default: of the updates, and of the gradients of all data, whose
        metrics are dropped.
    metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, an unweighted aggregator say, or out of range.

    References
    ----------
    Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning", NeurIPS 2021,
    https://arxiv.org/abs/2008.03606

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> process = build_weighted_mime_lite(lambda: LinearRegression(1), build_sgdm(0.1, momentum=0.5))
    >>> batch = {"x": np.zeros((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}
    >>> state = process.initialize()
    >>> for _ in range(2):
    ...     state, metrics = process.next(state, [[batch]])
    ...     print(state.global_model_weights.trainable[1], state.client_work[0]["accumulator"][1])
    [0.1] [-1.]
    [0.24000001] [-1.4]
    """
    mean = aggregator_or_mean(full_gradient_aggregator, weighted=True, name="full_gradient_aggregator")
    work = MimeLiteTraining(as_optimizer(base_optimizer, "base_optimizer"), mean, client_weighting)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer_of(server_optimizer)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )


def build_unweighted_mime_lite(
    model_fn: ModelFn,
    base_optimizer: OptimizerFn,
    server_optimizer: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    full_gradient_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Build Mime Lite in which every client of the cohort counts alike.

    A client without examples, or with an update that is not finite, counts as an update of zero and as a gradient of
    zero.

    Parameters
    ----------
    model_fn, base_optimizer, server_optimizer, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_mime_lite`.
    model_aggregator, full_gradient_aggregator : Aggregator, optional
        Unweighted ones, `aggregators.UnweightedMeanFactory` by default.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_adagrad
    >>> process = build_unweighted_mime_lite(SoftmaxRegression, build_adagrad(0.1))
    >>> process.initialize().aggregator
    ((), ())
    """
    mean = aggregator_or_mean(full_gradient_aggregator, weighted=False, name="full_gradient_aggregator")
    work = MimeLiteTraining(as_optimizer(base_optimizer, "base_optimizer"), mean, ClientWeighting.UNIFORM)
    rule, server = aggregator_or_mean(model_aggregator, weighted=False), server_optimizer_of(server_optimizer)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )


def build_mime_lite_with_optimizer_schedule(
    model_fn: ModelFn,
    learning_rate_fn: ScheduleFn,
    base_optimizer: OptimizerFn,
    server_optimizer: OptimizerFn | None = None,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Aggregator | None = None,
    full_gradient_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build Mime Lite with a learning rate for every round.

    .. math:: \eta_t = \mathrm{schedule}(t), \quad t = 0, 1, 2, \dots \text{ counts the calls of next}

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    learning_rate_fn : callable
        Number of the round, an int from 0, to a finite rate >= 0. As in TFF it is asked one round ahead.
    base_optimizer : Optimizer or callable that returns one
        One with a learning rate; its own is not used.
    server_optimizer, client_weighting, model_aggregator, full_gradient_aggregator
        As for `build_weighted_mime_lite`.
    metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or the schedule gives something else than a rate.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> process = build_mime_lite_with_optimizer_schedule(lambda: LinearRegression(1), lambda t: 0.5**t, build_sgdm())
    >>> round_num, (base, of_aggregator) = process.initialize().client_work
    >>> round_num, base["learning_rate"]
    (0, 1.0)
    """
    if not callable(learning_rate_fn):
        raise argument_type_error("learning_rate_fn", "a callable that takes the round's number", learning_rate_fn)
    base = as_optimizer(base_optimizer, "base_optimizer")
    mean = aggregator_or_mean(full_gradient_aggregator, weighted=True, name="full_gradient_aggregator")
    work = ScheduledMimeLiteTraining(base, mean, client_weighting, learning_rate_fn)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer_of(server_optimizer)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
