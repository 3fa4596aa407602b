r"""FedNova (Wang et al. 2020): federated averaging of updates that do not grow with the number of steps.

::

    each client i of the cohort:  w_i after t_i local steps;   u_i = w - w_i;   d_i = u_i / a_i
        a_i = t_i                                                 plain steps
              [t_i - rho (1 - rho^t_i) / (1 - rho)] / (1 - rho)   with momentum rho
              [1 - (1 - eta mu)^t_i] / (eta mu)                   with a proximal term mu/2 |w_i - w|^2
    p_i = m_i / sum m,  m_i the client's own examples
    w = server optimizer's step on w with  (sum p_i a_i) (sum p_i d_i)  as the gradient

a_i is what t_i equal gradients add up to, over one of them: the 1-norm of the paper's vector of the same name. m_i
counts each example once, whatever ``repeat`` says: clients that do more epochs would weigh more otherwise, which is
what the normalisation takes out. Where all a_i are equal this is federated averaging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.aggregators.aggregator import Wrapper, aggregate
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, Trained
from fedsim_np.learning.client_work import Local
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.fed_prox import FedProxTraining
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.metrics import Metrics
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, SGDSteps, as_optimizer
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Arrays, along


def normaliser(steps: SGDSteps, num_steps: Any) -> Any:
    r"""Return :math:`a_i`, what so many equal gradients add up to, over one of them; of k clients (k,) float64.

    Examples
    --------
    >>> float(normaliser(SGDSteps(0.1), 5)), normaliser(SGDSteps(0.1, momentum=0.5), [1, 2]).tolist()
    (5.0, [1.0, 2.5])
    >>> round(float(normaliser(SGDSteps(0.1, pull=1.0), 2)), 6)  # 1 + 0.9
    1.9
    """
    t, rho, eta_mu = np.asarray(num_steps, np.float64), steps.momentum, steps.learning_rate * steps.pull
    if rho:
        return (t - rho * (1 - rho**t) / (1 - rho)) / (1 - rho)
    return (1 - (1 - eta_mu) ** t) / eta_mu if eta_mu else t


@dataclass(frozen=True)
class FedNovaTraining(FedProxTraining):
    """The client's half: FedProx's steps, of which an update is sent that does not depend on their number.

    Raises
    ------
    ValueError
        If the steps are not gradient descent's, or with momentum and a proximal term at once.
    """

    def __post_init__(self) -> None:
        """Check that a_i is known."""
        super().__post_init__()
        steps = self.as_sgd(())
        if steps is None or steps.nesterov:
            rule = "gradient descent, with or without momentum, and not Nesterov's"
            raise argument_error("client_optimizer_fn", rule, self.optimizer)
        if steps.momentum and steps.pull:
            raise argument_error("proximal_strength", "0 or None where there is momentum", self.proximal_strength)

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send d_i and a_i; m_i is its weight."""
        steps = self.as_sgd(())
        assert steps is not None
        a_i = normaliser(steps, np.maximum(trained.num_steps, 1))
        d_i = trees.map(lambda u: u / along(a_i, u), trained.update)
        m_i = client.num_own_examples * np.minimum(trained.num_examples, 1)
        return ClientResult(d_i, weight=m_i, message=a_i)


@dataclass(frozen=True)
class FedNovaAggregator(Wrapper):
    """The server's half: the mean of d_i, times that of a_i.

    Parameters
    ----------
    inner : Aggregator
        Makes the mean of d_i.
    """

    inner: Aggregator

    def initialize(self, trainable: Arrays) -> Any:
        """Return the state of the inner one."""
        return self.inner.initialize(trainable)

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Return (sum p_i a_i) (sum p_i d_i)."""
        state, d, metrics = aggregate(self.inner, state, updates, cohort)
        m = cohort.client_weights
        a = (m * cohort.messages).sum() / np.maximum(m.sum(), 1)  # of nobody d is NaN
        return state, trees.map(lambda d: d * d.dtype.type(a), d), metrics

    def initial_metrics(self) -> Metrics | None:
        """Return those of the inner one."""
        return self.inner.initial_metrics()


def build_fed_nova(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    proximal_strength: float | None = None,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build FedNova.

    .. math:: w \leftarrow \mathrm{server}\left(w, \Big(\sum_i p_i a_i\Big) \sum_i p_i \frac{w - w_i}{a_i}\right)

    Clients weigh by their own examples, each counted once; of data that are a list of batches, all of them.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_optimizer_fn : Optimizer or callable that returns one
        SGD, with or without momentum.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    proximal_strength : float, optional
        mu of FedProx, for clients without momentum; none by default. The authors' code takes sum p_i t_i for the first
        factor then; here it is sum p_i a_i.
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
    Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated optimization", NeurIPS 2020,
    https://arxiv.org/abs/2007.07481

    Examples
    --------
    Two clients that pull in opposite directions, one with nine times as many steps:

    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning import build_weighted_fed_avg
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> def data(y, epochs):
    ...     return Dataset.from_arrays({"x": [[0.0]], "y": [[y]]}).repeat(epochs).batch(1).select(x="x", y="y")
    >>> for build in (build_weighted_fed_avg, build_fed_nova):
    ...     process = build(lambda: LinearRegression(1), build_sgdm(0.1))
    ...     state = process.initialize()
    ...     for _ in range(50):
    ...         state, metrics = process.next(state, [data(1.0, 9), data(-1.0, 1)])
    ...     print(build.__name__, state.global_model_weights.trainable[1].round(2))
    build_weighted_fed_avg [0.96]
    build_fed_nova [-0.19]
    """
    optimizer = as_optimizer(client_optimizer_fn, "client_optimizer_fn")
    work = FedNovaTraining(optimizer, proximal_strength=proximal_strength or 0.0)
    rule = FedNovaAggregator(aggregator_or_mean(model_aggregator, weighted=True))
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
