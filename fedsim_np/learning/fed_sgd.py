r"""FedSGD (McMahan et al. 2017): one step of gradient descent a round, on the gradient of all the cohort's examples.

::

    each client i:  u_i = sum_b n_b g_b / sum_b n_b     over its batches b, all at the server's weights
    u = sum_i n_i u_i / sum_i n_i
    w = server optimizer's step on w with u as the gradient

The paper's special case E = 1, B = infinity, for any cohort and any batches: these only part the sum. The server's rate
is the paper's eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn
from fedsim_np.learning.optimizers.optimizer import filled
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import along


@dataclass(frozen=True)
class FedSGDTraining(LocalTraining):
    """The client's half: the gradient of its mean loss, at the server's weights, which stay where they are."""

    counts_rounds = False

    def begin(self, client: Client) -> Local:
        """Start the sum of gradients."""
        return {"weights": client.weights, "sum": filled(client.weights, 0.0)}

    def step(self, local: Local, gradients: Any, batch: StepBatch) -> Local:
        """Add the batch's gradient, times its examples."""
        return {**local, "sum": trees.map(lambda s, g: s + along(batch.num_examples, g) * g, local["sum"], gradients)}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the mean gradient."""
        n = np.maximum(trained.num_examples, 1)
        return ClientResult(trees.map(lambda s: s / along(n, s), local["sum"]), trained.num_examples)

    def is_elementwise(self, state: Any) -> bool:
        """Say that they are: there are only sums."""
        return True


def build_fed_sgd(
    model_fn: ModelFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build FedSGD.

    .. math:: w \leftarrow \mathrm{server}\left(w, \sum_i n_i \nabla F_i(w) / \sum_i n_i\right)

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 0.1 by default.
    model_aggregator, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, or the engine is unknown.

    References
    ----------
    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    https://arxiv.org/abs/1602.05629

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> process = build_fed_sgd(lambda: SoftmaxRegression(num_features=2, num_classes=3))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> state, metrics = process.next(process.initialize(), [[batch]])
    >>> print(state.global_model_weights.trainable[1].round(4))
    [ 0.0667 -0.0333 -0.0333]
    """
    work, rule = FedSGDTraining(), aggregator_or_mean(model_aggregator, weighted=True)
    server = server_optimizer(server_optimizer_fn, learning_rate=0.1)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
