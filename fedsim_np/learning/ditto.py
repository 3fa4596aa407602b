r"""Ditto (Li et al. 2021): a global model by federated averaging, and a personal one of each client, held near it.

::

    each client i of the cohort, on every batch:
        w_i = client optimizer's step on w_i with  g(w_i)                             w_i = w at first
        v_i = personal optimizer's step on v_i with  g(v_i) + lambda (v_i - w)        v_i is kept; w when first seen
    u_i = w - w_i;   w = server optimizer's step on w with  sum_i n_i u_i / sum_i n_i  as the gradient

The personal models take no part in the global one. lambda = 0 is local training, a large one the global model. Both
optimizers start afresh in each round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, check_int
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.compression import Compressor, kept_by_work
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn, ModelWeights
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer
from fedsim_np.learning.optimizers.optimizer import check_hparam
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.learning.state import ClientWorkState, LearningAlgorithmState
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class DittoTraining(LocalTraining):
    r"""The client's half: federated averaging's, and beside it the personal model.

    Parameters
    ----------
    optimizer, personal_optimizer : Optimizer
    proximal_strength : float
        :math:`\lambda`.
    """

    optimizer: Optimizer
    personal_optimizer: Optimizer
    proximal_strength: float

    def __post_init__(self) -> None:
        """Check the strength."""
        check_hparam("proximal_strength", self.proximal_strength)

    def initialize_client(self, weights: Arrays) -> Arrays:
        """Return v_i: the server's weights."""
        return weights

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, and at the personal ones."""
        return {
            "weights": client.weights,
            "optimizer": self.optimizer.initialize(client.weights),
            "personal": client.kept,
            "personal optimizer": self.personal_optimizer.initialize(client.kept),
            "start": client.weights,
        }

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Let both take a step on the same batch."""
        state, w_i = self.optimizer.next(local["optimizer"], local["weights"], gradients)
        v_i, strength = local["personal"], np.float32(self.proximal_strength)
        pulled = trees.map(lambda g, v, w: g + strength * (v - w), batch.gradient_at(v_i), v_i, local["start"])
        personal_state, v_i = self.personal_optimizer.next(local["personal optimizer"], v_i, pulled)
        return {**local, "weights": w_i, "optimizer": state, "personal": v_i, "personal optimizer": personal_state}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update, and keep the personal weights."""
        return ClientResult(trained.update, trained.num_examples, kept=local["personal"])

    def is_elementwise(self, state: Any) -> bool:
        """As both optimizers."""
        return self.optimizer.is_elementwise and self.personal_optimizer.is_elementwise


def personal_weights(state: LearningAlgorithmState, client_id: str) -> ModelWeights:
    """Return a client's personal model in a state of `build_ditto`.

    Parameters
    ----------
    state : LearningAlgorithmState
    client_id : str
        Of a client that has taken part: another one has no model of its own yet.

    Raises
    ------
    ValueError
        If there is none.
    """
    clients = ClientWorkState.of(state).clients
    if client_id not in clients:
        raise argument_error("client_id", f"of one of the {len(clients)} clients that have taken part", client_id)
    return state.global_model_weights._replace(trainable=kept_by_work(clients[client_id]))


def build_ditto(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn,
    personal_optimizer_fn: OptimizerFn,
    proximal_strength: float,
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
    r"""Build Ditto.

    .. math:: \min_{v_i} F_i(v_i) + \frac{\lambda}{2} |v_i - w|^2 \quad \text{beside federated averaging of } w

    The personal models are in the state, by client id: the data must have ids. `personal_weights` returns one. The
    global model weighs clients by their examples, as federated averaging does.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_optimizer_fn, personal_optimizer_fn : Optimizer or callable that returns one
        Of the steps of the global model and of the personal one, on the same batches.
    proximal_strength : float
        :math:`\lambda`, finite and >= 0.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    num_clients : int
        All clients that there are.
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
    Li et al., "Ditto: Fair and robust federated learning through personalization", ICML 2021,
    https://arxiv.org/abs/2012.04221

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> sgd, x = build_sgdm(0.1), np.zeros((1, 1), np.float32)
    >>> targets = {"ann": 1, "bob": 3}
    >>> cohort = [Dataset.from_batches([{"x": x, "y": np.float32([[y]])}] * 9, name) for name, y in targets.items()]
    >>> process = build_ditto(lambda: LinearRegression(1), sgd, sgd, 1.0, num_clients=2)
    >>> state = process.initialize()
    >>> for _ in range(20):
    ...     state, metrics = process.next(state, cohort)
    >>> for name in ("ann", "bob"):  # half-way from the global model, 2, to the client's own
    ...     print(name, personal_weights(state, name).trainable[1].round(3))
    ann [1.5]
    bob [2.5]
    """
    check_int("num_clients", num_clients, minimum=1)
    client = as_optimizer(client_optimizer_fn, "client_optimizer_fn")
    work = DittoTraining(client, as_optimizer(personal_optimizer_fn, "personal_optimizer_fn"), proximal_strength)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
