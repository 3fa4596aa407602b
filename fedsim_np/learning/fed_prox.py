r"""FedProx (Li et al. 2020): federated averaging whose clients are held near the server's model.

::

    each client i minimises  F_i(w_i) + mu/2 |w_i - w|^2  instead of  F_i(w_i)
    so each local gradient gets  + mu * (w_i - w)

With mu = 0 it is federated averaging, bit for bit. TFF 0.87.0 adds ``mu * (w - w_i)`` (``proximal_client_work.py``,
line 90), which pushes away from the server's model; here the sign is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientWeighting, StepBatch
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.fed_avg import FedAvgTraining
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, SGDSteps, as_optimizer
from fedsim_np.learning.optimizers.optimizer import check_hparam
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class FedProxTraining(FedAvgTraining):
    r"""The client's half: federated averaging's, with :math:`\mu (w_i - w)` added to every gradient.

    As in TFF, there are no hyperparameters for the clients in the state.

    Parameters
    ----------
    optimizer : Optimizer
    client_weighting : ClientWeighting
    proximal_strength : float
        :math:`\mu`.
    """

    proximal_strength: float = 0.0

    def __post_init__(self) -> None:
        """Check weighting and strength."""
        super().__post_init__()
        check_hparam("proximal_strength", self.proximal_strength)

    def initialize(self, weights: Arrays) -> Any:
        """Return nothing."""
        return ()

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, with a fresh optimizer, and remember where that was."""
        optimizer_state = self.optimizer.initialize(client.weights)
        return {"weights": client.weights, "optimizer": optimizer_state, "start": client.weights}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Add the gradient of the proximal term."""
        mu = np.float32(self.proximal_strength)
        if mu:
            gradients = trees.map(lambda g, w_i, w: g + mu * (w_i - w), gradients, local["weights"], local["start"])
        return super().step(local, gradients, batch)

    def is_elementwise(self, state: Any) -> bool:
        """As the optimizer; said anew, since what a class says of its steps does not hold for another `step`."""
        return super().is_elementwise(state)

    def as_sgd(self, state: Any) -> SGDSteps | None:
        """As the optimizer, with a pull of mu towards the server's weights."""
        steps = super().as_sgd(self.optimizer.initialize(()))
        return None if steps is None else steps._replace(pull=self.proximal_strength)

    get_hparams = LocalTraining.get_hparams
    set_hparams = LocalTraining.set_hparams


def build_weighted_fed_prox(
    model_fn: ModelFn,
    proximal_strength: float,
    client_optimizer_fn: OptimizerFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build FedProx with clients weighted by their examples.

    .. math:: g \leftarrow \nabla F_i(w_i) + \mu (w_i - w)

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    proximal_strength : float
        :math:`\mu`, finite and >= 0.
    client_optimizer_fn : Optimizer or callable that returns one
        Each client's local steps. Its hyperparameters are fixed: `get_hparams` has none for the clients, as in TFF.
    server_optimizer_fn, client_weighting, model_aggregator, metrics_aggregator, compressor
        As for `build_weighted_fed_avg`.
    engine, executor, cache_bytes
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
    Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, https://arxiv.org/abs/1812.06127

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> batch = {"x": np.ones((1, 1), np.float32), "y": np.zeros((1, 1), np.int32)}
    >>> for mu in (0.0, 1.0, 10.0):
    ...     process = build_weighted_fed_prox(lambda: SoftmaxRegression(1, 2), mu, build_sgdm(0.1))
    ...     state, metrics = process.next(process.initialize(), [[batch] * 5])
    ...     print(mu, state.global_model_weights.trainable[1].round(3).tolist())
    0.0 [0.20600000023841858, -0.20600000023841858]
    1.0 [0.16899999976158142, -0.16899999976158142]
    10.0 [0.04500000178813934, -0.04500000178813934]
    """
    optimizer = as_optimizer(client_optimizer_fn, "client_optimizer_fn")
    work = FedProxTraining(optimizer, client_weighting, proximal_strength)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )


def build_unweighted_fed_prox(
    model_fn: ModelFn,
    proximal_strength: float,
    client_optimizer_fn: OptimizerFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Build FedProx in which every client of the cohort counts alike.

    Parameters
    ----------
    model_fn, proximal_strength, client_optimizer_fn
        As for `build_weighted_fed_prox`.
    server_optimizer_fn, model_aggregator, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_unweighted_fed_avg`.

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
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> build_unweighted_fed_prox(SoftmaxRegression, -0.1, build_sgdm(0.1))
    Traceback (most recent call last):
    ...
    ValueError: 'proximal_strength' must be a finite float >= 0. Got -0.1.
    """
    optimizer = as_optimizer(client_optimizer_fn, "client_optimizer_fn")
    work = FedProxTraining(optimizer, ClientWeighting.UNIFORM, proximal_strength)
    rule, server = aggregator_or_mean(model_aggregator, weighted=False), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
