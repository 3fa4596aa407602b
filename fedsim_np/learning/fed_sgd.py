r"""FedSGD (McMahan et al. 2017): one step of gradient descent a round, on the gradient of all the cohort's examples.

::

    each client i:  u_i = sum_b n_b g_b / sum_b n_b     over its batches b, all at the server's weights
    u = sum_i n_i u_i / sum_i n_i
    w = server optimizer's step on w with u as the gradient
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.learning import metrics
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import ModelFn, OptimizerFn, build_process
from fedsim_np.learning.client_work import ClientResult, ClientWork
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, ExecutorArgument
from fedsim_np.learning.models import Model, ModelWeights, forward_and_gradient, num_examples, read_batches
from fedsim_np.learning.process import LearningProcess, MetricsAggregator


@dataclass(frozen=True)
class AverageGradient(ClientWork):
    """The client's half of FedSGD: the gradient of its mean loss, at the server's weights.

    Parameters
    ----------
    model : Model
    """

    model: Model

    def initialize(self) -> Any:
        """Return nothing: there is no optimizer on the clients."""
        return ()

    def run(self, weights: ModelWeights, dataset: Dataset, state: Any) -> ClientResult:
        """Average the gradients of the batches, weighted by their examples."""
        model = self.model
        gradient_sums = tuple(np.zeros_like(w) for w in weights.trainable)
        sums, examples = model.initial_metrics(), 0
        with np.errstate(all="ignore"):  # an update that overflows is found, left out and reported by the server
            for batch in read_batches(model, dataset):
                output, gradients = forward_and_gradient(model, weights, batch)
                n = num_examples(output)
                gradient_sums = tuple(s + np.float32(n) * g for s, g in zip(gradient_sums, gradients, strict=True))
                sums = metrics.add(sums, model.unfinalized_metrics(batch, output))
                examples += n
        update = tuple(s / np.float32(max(1, examples)) for s in gradient_sums)
        return ClientResult(update, float(examples), sums, examples)


def build_fed_sgd(
    model_fn: ModelFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    engine: str = "auto",
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
    model_aggregator, metrics_aggregator, engine, executor, cache_bytes
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
    return build_process(
        model_fn,
        AverageGradient,
        server_optimizer_fn=server_optimizer_fn,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        engine=engine,
        executor=executor,
        cache_bytes=cache_bytes,
        server_learning_rate=0.1,
    )
