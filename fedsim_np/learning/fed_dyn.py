r"""FedDyn (Acar et al. 2021, algorithm 1): federated averaging with a dynamic regulariser for each client.

::

    h = 0 at the server; h_i = 0 of each of the N clients
    each round, for each client i of the cohort S:
        w_i = w;   until done:   w_i -= eta (g_i(w_i) - h_i + alpha (w_i - w));   u_i = w - w_i
        h_i = h_i + alpha u_i
    h = h + alpha/N sum_S u_i
    w = server optimizer's step on w with  mean_S u_i + h / alpha  as the gradient

With the server's default, SGD at rate 1, the new weights are ``mean_S w_i - h / alpha``. h_i is the gradient of the
client's loss where it was last: of the paper's letters :math:`\theta` is w, and its gradients of L_k are h_i here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, check_int
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.aggregators.aggregator import Wrapper, aggregate
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.metrics import Metrics
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, SGDSteps
from fedsim_np.learning.optimizers.optimizer import check_hparam, filled
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class FedDynTraining(LocalTraining):
    r"""The clients' half.

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`.
    alpha : float
        :math:`\alpha`.
    """

    learning_rate: float
    alpha: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_hparam("client_learning_rate", self.learning_rate)
        if not check_hparam("alpha", self.alpha):
            raise argument_error("alpha", "above 0: without it this is federated averaging", self.alpha)

    def initialize_client(self, weights: Arrays) -> Arrays:
        """Return h_i."""
        return filled(weights, 0.0)

    def begin(self, client: Client) -> Local:
        """Start at the server's weights."""
        return {"weights": client.weights, "start": client.weights, "drift": trees.map(np.negative, client.kept)}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Descend on the loss with its dynamic regulariser."""
        eta, alpha = np.float32(self.learning_rate), np.float32(self.alpha)

        def descend(w_i: Any, g: Any, w: Any, d: Any) -> Any:
            return w_i - eta * (g + alpha * (w_i - w) + d)

        return {**local, "weights": trees.map(descend, local["weights"], gradients, local["start"], local["drift"])}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update, and keep h_i."""
        h_i = trees.map(lambda h, u: h + np.float32(self.alpha) * u, client.kept, trained.update)
        return ClientResult(trained.update, np.minimum(trained.num_examples, 1), kept=h_i)

    def is_elementwise(self, state: Any) -> bool:
        """Say that the steps are."""
        return True

    def as_sgd(self, state: Any) -> SGDSteps:
        """Say that they are gradient descent with a pull and a constant drift."""
        return SGDSteps(self.learning_rate, pull=self.alpha, drift="drift")


@dataclass(frozen=True)
class FedDynAggregator(Wrapper):
    r"""The server's half: the mean of the updates, and h.

    Parameters
    ----------
    alpha : float
    num_clients : int
        N.
    inner : Aggregator
        Makes the mean.
    """

    alpha: float
    num_clients: int
    inner: Aggregator

    def __post_init__(self) -> None:
        """Check the number of clients."""
        check_int("num_clients", self.num_clients, minimum=1)

    def initialize(self, trainable: Arrays) -> Any:
        """Return h, and the state of the inner one."""
        return filled(trainable, 0.0), self.inner.initialize(trainable)

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Return the mean of the updates, plus h / alpha with the new h."""
        cohort.check_at_most(self.num_clients)
        (h, inner), alpha = state, np.float32(self.alpha)
        inner, mean, metrics = aggregate(self.inner, inner, updates, cohort)
        share = np.float32(np.count_nonzero(cohort.counts) / self.num_clients)
        if share:  # of nobody there is no mean
            h = trees.map(lambda h, m: h + alpha * share * m.astype(h.dtype), h, mean)
        return (h, inner), trees.map(lambda m, h: m + h / alpha, mean, h), metrics

    def initial_metrics(self) -> Metrics | None:
        """Return those of the inner one."""
        return self.inner.initial_metrics()


def build_fed_dyn(
    model_fn: ModelFn,
    client_learning_rate: float,
    alpha: float,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    num_clients: int,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build FedDyn.

    .. math:: w_i \leftarrow w_i - \eta\,(\nabla F_i(w_i) - h_i + \alpha (w_i - w))

    Clients that count weigh alike. h_i is in the state, by client id: the data must have ids.

    With a compressor h adds up what was sent, and each h_i what was meant. On a quadratic `top_k` with feedback costs
    nothing, `quantize` leaves it off the optimum by a little, and `random_k` and `sign` with feedback may diverge.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_learning_rate : float
        :math:`\eta`, finite and >= 0.
    alpha : float
        :math:`\alpha`, above 0: small for large steps of the server.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    num_clients : int
        All clients that there are, m in the paper; not those of a round.
    model_aggregator, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Acar et al., "Federated learning based on dynamic regularization", ICLR 2021, https://arxiv.org/abs/2111.04263

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning.models import LinearRegression
    >>> process = build_fed_dyn(lambda: LinearRegression(1), 0.1, alpha=1.0, num_clients=1)
    >>> batch = {"x": np.zeros((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}
    >>> data, state = [Dataset.from_batches([batch] * 5, client_id="ann")], process.initialize()
    >>> for _ in range(3):
    ...     state, metrics = process.next(state, data)
    ...     print(state.global_model_weights.trainable[1].round(3))
    [0.672]
    [1.003]
    [1.11]
    """
    work = FedDynTraining(client_learning_rate, alpha)
    rule = FedDynAggregator(alpha, num_clients, aggregator_or_mean(model_aggregator, weighted=True))
    return compose_learning_process(
        model_fn,
        work,
        rule,
        server_optimizer(server_optimizer_fn),
        metrics_aggregator,
        compressor,
        engine,
        executor,
        cache_bytes,
    )
