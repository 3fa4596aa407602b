"""How far weights are from the optimum, how much clients differ, and what a round's step is made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.analysis.objective import Objective, Optimum, wide_weights
from fedsim_np.errors import argument_error, check_float, check_int, data_error
from fedsim_np.learning.learning_process import as_datasets
from fedsim_np.learning.models.checks import ClientBatches, read_batches
from fedsim_np.learning.models.model import ModelWeights
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.trees import Array, Arrays


def suboptimality(objective: Objective, weights: ModelWeights, optimum: Optimum) -> float:
    """Return by how much the objective is above its least value, F(w) - F(w*)."""
    return objective(weights)[0] - optimum.loss


def distance_to_optimum(weights: ModelWeights, optimum: Optimum) -> float:
    """Return the l2 distance of weights from the optimum's, over all trainable tensors.

    Softmax regression without l2 has many optima, which differ by what moves all classes alike.
    """
    there, least = wide_weights(weights).trainable, optimum.weights.trainable
    if [w.shape for w in there] != [w.shape for w in least]:
        raise argument_error("weights", f"of the shapes {[w.shape for w in least]}", [w.shape for w in there])
    return float(np.sqrt(sum(np.square(w - o).sum() for w, o in zip(there, least, strict=True))))


def suboptimality_fn(objective: Objective, optimum: Optimum) -> Callable[[LearningAlgorithmState, Any], Any]:
    """Return an ``evaluation_fn`` for `program.run_training_process`: both measures, and the objective itself.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> from fedsim_np.analysis import minimize
    >>> from fedsim_np.learning import build_weighted_fed_avg, optimizers
    >>> model, clients = fed.learning.models.LinearRegression(1), [
    ...     [{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)
    ... ]
    >>> measure = suboptimality_fn(Objective.of(model, clients), minimize(model, clients))
    >>> process, log = build_weighted_fed_avg(model, optimizers.build_sgdm(0.5)), fed.program.MemoryLogger()
    >>> _ = fed.program.run_training_process(
    ...     process, lambda _: clients, 3, measure, lambda _: [], metrics_managers=[log])
    >>> [round(value, 4) for value in log.history["evaluation/suboptimality"]]
    [2.0, 0.5, 0.125, 0.0312]
    """

    def evaluate(state: LearningAlgorithmState, data: Any) -> OrderedDict[str, float]:
        weights = state.global_model_weights
        objective_there = objective(weights)[0]
        return OrderedDict(
            objective=objective_there,
            suboptimality=objective_there - optimum.loss,
            distance_to_optimum=distance_to_optimum(weights, optimum),
        )

    return evaluate


class Dissimilarity(NamedTuple):
    r"""How much the clients' gradients differ at some weights.

    Attributes
    ----------
    zeta_squared : float
        :math:`\sum_i p_i |\nabla F_i - \nabla F|^2`.
    mean_squared_norm : float
        :math:`\sum_i p_i |\nabla F_i|^2`: at the optimum it is zeta squared, and G squared of SCAFFOLD's (G, B).
    squared_norm : float
        :math:`|\nabla F|^2`.
    """

    zeta_squared: float
    mean_squared_norm: float
    squared_norm: float

    @property
    def b(self) -> float:
        r"""B of Li et al. 2020, :math:`B^2 = \sum_i p_i |\nabla F_i|^2 / |\nabla F|^2`; infinite at the optimum."""
        return float(np.sqrt(self.mean_squared_norm / self.squared_norm)) if self.squared_norm else np.inf


def gradient_dissimilarity(objective: Objective, weights: ModelWeights) -> Dissimilarity:
    """Return how much the clients' gradients differ at some weights.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> clients = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)]
    >>> objective = Objective.of(LinearRegression(1), clients)
    >>> gradient_dissimilarity(objective, objective.model.initial_weights())
    Dissimilarity(zeta_squared=1.0, mean_squared_norm=5.0, squared_norm=4.0)
    """
    gradients = [objective.of_client(weights, i)[1] for i in range(len(objective.clients))]
    mean = _mean(objective.shares, gradients)
    apart = [_squared(trees.map(np.subtract, g, mean)) for g in gradients]
    return Dissimilarity(
        float(objective.shares @ apart), float(objective.shares @ [*map(_squared, gradients)]), _squared(mean)
    )


def average_drift_at_optimum(
    objective: Objective, datasets: Sequence[ClientBatches], optimum: Optimum, learning_rate: float
) -> float:
    r"""Return how far local training pulls away from the optimum, for a step: 0 where averaging settles there.

    .. math:: \rho = \left| \sum_i p_i \frac{w^* - w_i}{\eta H_i} \right|

    Parameters
    ----------
    objective : Objective
        Of the same clients.
    datasets : sequence of Dataset or of lists of batches
        What each client reads in a round of FedAvg: its batches are the H_i steps.
    optimum : Optimum
    learning_rate : float
        :math:`\eta`.

    References
    ----------
    Wang et al., "On the unreasonable effectiveness of federated averaging with heterogeneous data", 2022,
    https://arxiv.org/abs/2206.04723
    """
    updates, num_steps = _local_training(objective, optimum.weights, datasets, learning_rate)
    if len(updates) != len(objective.clients):
        raise argument_error("datasets", f"one for each of {len(objective.clients)} clients", len(updates))
    per_step = [
        trees.map(lambda u, h=h: u / (learning_rate * h), update) for h, update in zip(num_steps, updates, strict=True)
    ]
    return float(np.sqrt(_squared(_mean(objective.shares, per_step))))


class RoundStep(NamedTuple):
    r"""What a round's aggregate of updates is made of; the parts add up to it.

    Attributes
    ----------
    centralized : tuple of ndarray
        :math:`\eta \bar H \nabla F(w)`: the same number of steps along the gradient of all clients.
    sampling : tuple of ndarray
        :math:`\eta \sum_S p_i H_i \nabla F_i(w)` minus that: who was there, and how many steps each took.
    drift : tuple of ndarray
        The rest: the gradients change on the way, and batches are not all data.
    """

    centralized: Arrays
    sampling: Arrays
    drift: Arrays

    def norms(self) -> OrderedDict[str, float]:
        """Return the l2 norm of each part."""
        return OrderedDict((name, float(np.sqrt(_squared(part)))) for name, part in self._asdict().items())


def round_step(
    objective: Objective,
    weights: ModelWeights,
    cohort: Sequence[int],
    datasets: Sequence[ClientBatches],
    learning_rate: float,
) -> RoundStep:
    """Take a round of FedAvg with SGD apart.

    Parameters
    ----------
    objective : Objective
        Of all clients.
    weights : ModelWeights
        At the beginning of the round.
    cohort : sequence of int
        Which clients of the objective take part.
    datasets : sequence of Dataset or of lists of batches
        What each of them reads.
    learning_rate : float
        Of their SGD.

    Returns
    -------
    RoundStep
        float64.
    """
    k = len(objective.clients)
    if not len(cohort) or not all(0 <= check_int("cohort", i) < k for i in cohort):
        raise argument_error("cohort", f"clients of the objective, numbers from 0 to {k - 1}", cohort)
    updates, num_steps = _local_training(objective, weights, datasets, learning_rate)
    if len(updates) != len(cohort):
        raise argument_error("datasets", f"one for each of {len(cohort)} clients", len(updates))
    chosen = objective.shares[list(cohort)]
    shares = chosen / chosen.sum()
    mean_update = _mean(shares, updates)
    here = [objective.of_client(weights, i)[1] for i in cohort]
    scaled = [
        trees.map(lambda g, h=float(h): learning_rate * h * g, gradient)
        for h, gradient in zip(num_steps, here, strict=True)
    ]
    along_cohort = _mean(shares, scaled)
    steps = learning_rate * float(shares @ num_steps)
    centralized = trees.map(lambda g: steps * g, objective(weights)[1])
    return RoundStep(
        centralized,
        trees.map(np.subtract, along_cohort, centralized),
        trees.map(np.subtract, mean_update, along_cohort),
    )


def _local_training(
    objective: Objective, weights: ModelWeights, datasets: Sequence[ClientBatches], learning_rate: float
) -> tuple[list[Arrays], Array]:
    """Return each client's update by SGD on the objective in float64, w - w_i, and its number of steps."""
    if not check_float("learning_rate", learning_rate, minimum=0.0):
        raise argument_error("learning_rate", "above 0", learning_rate)
    start, updates, num_steps = wide_weights(weights), list[Arrays](), list[int]()
    for dataset in as_datasets(datasets, 0):
        w_i, steps = start, 0
        for batch in read_batches(objective.model, dataset):
            gradients = objective.of_batch(w_i, batch)[1]
            w_i = w_i._replace(trainable=trees.map(lambda w, g: w - learning_rate * g, w_i.trainable, gradients))
            steps += 1
        if not steps:
            raise data_error("a client must have examples", "none", client_id=dataset.client_id)
        updates.append(trees.map(np.subtract, start.trainable, w_i.trainable))
        num_steps.append(steps)
    return updates, np.array(num_steps, np.float64)


def _mean(shares: Array, parts: Sequence[Arrays]) -> Arrays:
    return trees.map(lambda *arrays: sum(p * a for p, a in zip(shares, arrays, strict=True)), *parts)


def _squared(arrays: Arrays) -> float:
    return float(sum(np.square(array).sum() for array in arrays))
