r"""Federated averaging (McMahan et al. 2017), generalised to any server optimizer (Reddi et al. 2021).

::

    w = initial weights
    each round:
        each client i of the cohort, on its own data:
            w_i = w after local training;   u_i = w - w_i;   n_i = number of examples read
        u = sum_i n_i u_i / sum_i n_i
        w = server optimizer's step on w with u as the gradient

With the server's default, SGD at rate 1, the new weights are the mean of the clients'.

Of the paper's letters, eta is the client optimizer's rate; E and B are a dataset's ``repeat`` and ``batch``; the C K
clients of a round are the list that `next` is given, and n is the sum of their n_i: E times their examples.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsim_np.errors import argument_type_error
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, ClientWeighting, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, SGDSteps, as_optimizer
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class FedAvgTraining(LocalTraining):
    r"""The client's half: ClientUpdate of McMahan et al.'s algorithm 1, with any optimizer.

    .. code-block:: text

        w_i = w
        for batch in dataset:
            w_i = optimizer step on w_i with the batch's gradient
        u_i = w - w_i,   weight = number of examples read

    The optimizer's state is fresh for each client in each round; its hyperparameters are the work's state.

    Parameters
    ----------
    optimizer : Optimizer
    client_weighting : ClientWeighting
    """

    optimizer: Optimizer
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES
    counts_rounds = False

    def __post_init__(self) -> None:
        """Check the weighting."""
        if not isinstance(self.client_weighting, ClientWeighting):
            raise argument_type_error("client_weighting", "a member of ClientWeighting", self.client_weighting)

    def initialize(self, weights: Arrays) -> Any:
        """Return the optimizer's hyperparameters, which do not depend on weights and may change between rounds."""
        return self.optimizer.get_hparams(self.optimizer.initialize(()))

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, with a fresh optimizer."""
        fresh = self.optimizer.initialize(client.weights)
        return {"weights": client.weights, "optimizer": self.optimizer.set_hparams(fresh, client.state)}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Let the optimizer take a step."""
        state, weights = self.optimizer.next(local["optimizer"], local["weights"], gradients)
        return {**local, "weights": weights, "optimizer": state}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update, and what it counts for."""
        return ClientResult(trained.update, self.client_weighting.of(trained.num_examples))

    def is_elementwise(self, state: Any) -> bool:
        """As the optimizer."""
        return self.optimizer.is_elementwise

    def as_sgd(self, state: Any) -> SGDSteps | None:
        """As the optimizer."""
        return self.optimizer.as_sgd(state)

    def get_hparams(self, state: Any) -> Mapping[str, Any]:
        """Return the optimizer's hyperparameters."""
        return OrderedDict(state)

    def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> Any:
        """Return other hyperparameters for the optimizer."""
        return self.optimizer.set_hparams(state, hparams)


def build_weighted_fed_avg(
    model_fn: ModelFn,
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
    r"""Build federated averaging with clients weighted by their examples.

    .. math:: w \leftarrow \mathrm{server}\left(w, \sum_i n_i (w - w_i) / \sum_i n_i\right)

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_optimizer_fn : Optimizer or callable that returns one
        Each client's local steps.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default: plain averaging.
    client_weighting : ClientWeighting
        By number of examples, or all alike.
    model_aggregator : Aggregator, optional
        `aggregators.MeanFactory` by default.
    metrics_aggregator : callable, optional
        `metrics.sum_then_finalize` by default.
    compressor : Compressor, optional
        What becomes of updates on their way to the server: `compression.top_k` and others.
    engine, executor, cache_bytes
        How a round is computed and by whom, see `compose_learning_process`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, an optimizer's class for an optimizer, say, or the engine is unknown.

    References
    ----------
    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    https://arxiv.org/abs/1602.05629

    Reddi et al., "Adaptive federated optimization", ICLR 2021, https://arxiv.org/abs/2003.00295

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> process = build_weighted_fed_avg(lambda: SoftmaxRegression(num_features=2, num_classes=3), build_sgdm(0.1))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> output = process.next(process.initialize(), [[batch]])
    >>> train = output.metrics["client_work"]["train"]
    >>> round(train["loss"], 4), train["num_examples"], train["num_batches"]
    (1.0986, 4, 1)
    """
    work = FedAvgTraining(as_optimizer(client_optimizer_fn, "client_optimizer_fn"), client_weighting)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )


def build_unweighted_fed_avg(
    model_fn: ModelFn,
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
    r"""Build federated averaging in which every client of the cohort counts alike.

    .. math:: w \leftarrow \mathrm{server}\left(w, \sum_i (w - w_i) / k\right)

    A client without examples, or with an update that is not finite, counts as an update of zero.

    Parameters
    ----------
    model_fn, client_optimizer_fn, server_optimizer_fn, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.
    model_aggregator : Aggregator, optional
        An unweighted one, `aggregators.UnweightedMeanFactory` by default.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, a weighted aggregator for an unweighted one, say, or the engine is unknown.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> process = build_unweighted_fed_avg(SoftmaxRegression, build_sgdm(0.1))
    >>> process.initialize().aggregator
    ((), ())
    """
    work = FedAvgTraining(as_optimizer(client_optimizer_fn, "client_optimizer_fn"), ClientWeighting.UNIFORM)
    rule, server = aggregator_or_mean(model_aggregator, weighted=False), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
