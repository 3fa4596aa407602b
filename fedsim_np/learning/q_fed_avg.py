r"""q-FedAvg (Li et al. 2020): federated averaging in which clients with larger losses count for more.

::

    minimise  sum_i F_i^(q+1) / (q+1)  instead of  sum_i F_i
    each client i of the cohort:
        F_i = the loss of all its data at w;   w_i = w after local training
        G_i = L (w - w_i)
        Delta_i = F_i^q G_i,   h_i = q F_i^(q-1) |G_i|^2 + L F_i^q
    w = server optimizer's step on w with  sum_i Delta_i / sum_i h_i  as the gradient

which is the mean of Delta_i / h_i, weighted by h_i: what clients send. L, a bound on how fast gradients change, sets
the steps' size; 1 over the clients' learning rate is usual. With q = 0 this is the plain mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, check_float
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, Trained
from fedsim_np.learning.client_work import Local
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.fed_avg import FedAvgTraining
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, as_optimizer
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import along


@dataclass(frozen=True)
class QFedAvgTraining(FedAvgTraining):
    r"""The client's half: federated averaging's steps, weighed by the loss.

    Parameters
    ----------
    optimizer : Optimizer
    q, lipschitz : float
        :math:`q` and :math:`L`.
    """

    q: float = 0.0
    lipschitz: float = 1.0
    reads_all_data = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        check_float("q", self.q, minimum=0.0)
        if not check_float("lipschitz", self.lipschitz, minimum=0.0):
            raise argument_error("lipschitz", "above 0", self.lipschitz)

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send Delta_i / h_i, weighed by h_i."""
        f_i, q, lipschitz = client.objective(client.weights)[0] + 1e-10, self.q, self.lipschitz
        of_client = 1 if client.is_many else 0  # the clients' axis stays
        squares = (np.square(u, dtype=np.float64).sum(axis=tuple(range(of_client, u.ndim))) for u in trained.update)
        g_i_squared = lipschitz**2 * sum(squares)
        h_i = q * f_i ** (q - 1) * g_i_squared + lipschitz * f_i**q
        share = f_i**q * lipschitz / h_i
        counts = np.minimum(trained.num_examples, 1)
        return ClientResult(trees.map(lambda u: along(share, u) * u, trained.update), weight=h_i * counts)


def build_q_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn,
    q: float,
    lipschitz: float,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build q-FedAvg.

    .. math:: w \leftarrow \mathrm{server}\left(w, \frac{\sum_i F_i^q G_i}{\sum_i q F_i^{q-1} |G_i|^2 + L F_i^q}\right),
              \qquad G_i = L (w - w_i)

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
        Its losses are what is made alike: they are >= 0.
    client_optimizer_fn : Optimizer or callable that returns one
    q : float
        How much the worst-off count, >= 0.
    lipschitz : float
        L, above 0; 1 over the clients' learning rate is usual.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
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
    Li et al., "Fair resource allocation in federated learning", ICLR 2020, https://arxiv.org/abs/1905.10497

    Examples
    --------
    One client at 2, two at -1; the larger q, the nearer to the middle of the worst two, 0.5:

    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> cohort = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (2.0, -1.0, -1.0)]
    >>> for q in (0.0, 1.0, 4.0):
    ...     process = build_q_fed_avg(lambda: LinearRegression(1), build_sgdm(0.5), q, lipschitz=2.0)
    ...     state = process.initialize()
    ...     for _ in range(100):
    ...         state, metrics = process.next(state, cohort)
    ...     print(q, state.global_model_weights.trainable[1].round(2))
    0.0 [0.]
    1.0 [0.33]
    4.0 [0.44]
    """
    work = QFedAvgTraining(as_optimizer(client_optimizer_fn, "client_optimizer_fn"), q=q, lipschitz=lipschitz)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
