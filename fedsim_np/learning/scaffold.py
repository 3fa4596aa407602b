r"""SCAFFOLD (Karimireddy et al. 2020): federated averaging with the clients' drift taken out by control variates.

::

    c = 0 at the server; c_i = 0 of each of the N clients
    each round, for each client i of the cohort S:
        w_i = w;   t_i times:   w_i -= eta (g_i(w_i) - c_i + c);   u_i = w - w_i
        c_i+ = gradient of the client's loss at w         (option i)
               c_i - c + u_i / (t_i eta)                  (option ii)
    w = server optimizer's step on w with the mean of u_i as the gradient
    c = c + sum_S (c_i+ - c_i) / N

c is the state of the client work, c_i is kept by the server for each client, c_i+ - c_i is a client's message. Of the
paper's letters x is w here, y_i is w_i, K is t_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import Client, ClientResult, ClientWeighting, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, SGDSteps
from fedsim_np.learning.optimizers.optimizer import check_hparam, filled
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.trees import Array, Arrays, along

Option = Literal["i", "ii"]


@dataclass(frozen=True)
class ScaffoldTraining(LocalTraining):
    r"""The clients' half, and the server's control variate.

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`.
    num_clients : int
        N: all there are, and not a round's.
    option : {"ii", "i"}
    client_weighting : ClientWeighting
    """

    learning_rate: float
    num_clients: int
    option: Option = "ii"
    client_weighting: ClientWeighting = ClientWeighting.UNIFORM

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not check_hparam("client_learning_rate", self.learning_rate):
            raise argument_error("client_learning_rate", "above 0", self.learning_rate)
        check_int("num_clients", self.num_clients, minimum=1)
        if self.option not in ("i", "ii"):
            raise argument_error("option", "'i' or 'ii'", self.option)
        if not isinstance(self.client_weighting, ClientWeighting):
            raise argument_type_error("client_weighting", "a member of ClientWeighting", self.client_weighting)

    @property
    def reads_all_data(self) -> bool:  # type: ignore[override]
        """Whether the gradient of all of a client's data is asked for: by option i."""
        return self.option == "i"

    def initialize(self, weights: Arrays) -> Arrays:
        """Return c."""
        return filled(weights, 0.0)

    def initialize_client(self, weights: Arrays) -> Arrays:
        """Return c_i."""
        return filled(weights, 0.0)

    def begin(self, client: Client) -> Local:
        """Start at the server's weights, with the correction c - c_i."""
        return {"weights": client.weights, "correction": trees.map(np.subtract, client.state, client.kept)}

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Descend along the corrected gradient."""
        eta = np.float32(self.learning_rate)
        w_i = trees.map(lambda w, g, d: w - eta * (g + d), local["weights"], gradients, local["correction"])
        return {**local, "weights": w_i}

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Send the update and the change of c_i."""
        u_i, c_i, correction = trained.update, client.kept, local["correction"]
        t_eta = self.learning_rate * np.maximum(trained.num_steps, 1)
        if self.option == "i":
            new = client.objective(client.weights)[1]
        else:
            new = trees.map(lambda u, d: u / along(t_eta, u) - d, u_i, correction)
        weight = self.client_weighting.of(trained.num_examples) * np.minimum(trained.num_examples, 1)
        return ClientResult(u_i, weight, kept=new, message=trees.map(np.subtract, new, c_i))

    def finish_round(self, state: Arrays, cohort: Cohort) -> tuple[Arrays, Mapping[str, Any]]:
        """Move c."""
        cohort.check_at_most(self.num_clients)
        n = np.float32(self.num_clients)

        def moved(c: Array, m: Array) -> Array:
            new: Array = m.sum(axis=0) / n
            new += c  # in place: c then lies in memory as the clients' arrays do, and is subtracted many times as fast
            return new

        return trees.map(moved, state, cohort.messages), {}

    def is_elementwise(self, state: Any) -> bool:
        """Say that the steps are."""
        return True

    def as_sgd(self, state: Any) -> SGDSteps:
        """Say that they are gradient descent with a constant drift."""
        return SGDSteps(self.learning_rate, drift="correction")


def build_scaffold(
    model_fn: ModelFn,
    client_learning_rate: float,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    num_clients: int,
    option: Option = "ii",
    client_weighting: ClientWeighting = ClientWeighting.UNIFORM,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build SCAFFOLD.

    .. math:: w_i \leftarrow w_i - \eta\,(\nabla F_i(w_i) - c_i + c)

    The control variates are in the state, by client id: the data must have ids. A client that is empty or not finite
    changes none of them.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_learning_rate : float
        :math:`\eta`, above 0.
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    num_clients : int
        All clients that there are, N in the paper; not those of a round.
    option : {"ii", "i"}
        Where new control variates come from: "ii" from the steps, "i" from the gradient of all of a client's data at
        the server's weights, which costs another pass over them.
    client_weighting : ClientWeighting
        What updates count for in their mean. Whatever it is, the fixed point is the optimum of the plain mean of the
        clients' losses.
    model_aggregator, metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`. An aggregator has the updates alone: changes of control variates are added up
        as they are sent, so that no clipping and no noise holds for them.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Karimireddy et al., "SCAFFOLD: Stochastic controlled averaging for federated learning", ICML 2020,
    https://arxiv.org/abs/1910.06378

    Examples
    --------
    Two clients pull in opposite directions; the control variates learn by how much:

    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning.models import LinearRegression
    >>> process = build_scaffold(lambda: LinearRegression(1), 0.1, num_clients=2)
    >>> x, targets = np.zeros((1, 1), np.float32), {"ann": 1.0, "bob": -1.0}
    >>> cohort = [
    ...     Dataset.from_batches([{"x": x, "y": np.full((1, 1), y, np.float32)}] * 5, client_id=name)
    ...     for name, y in targets.items()
    ... ]
    >>> state, metrics = process.next(process.initialize(), cohort)
    >>> for name, c_i in state.client_work.clients.items():
    ...     print(name, c_i[1].round(3))
    ann [-0.819]
    bob [0.819]
    """
    work = ScaffoldTraining(client_learning_rate, num_clients, option, client_weighting)
    rule, server = aggregator_or_mean(model_aggregator, weighted=True), server_optimizer(server_optimizer_fn)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
