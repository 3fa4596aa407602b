r"""What federated learning minimises, and its optimum.

.. math:: F(w) = \sum_i p_i F_i(w) + \tfrac{l_2}{2} |w|^2

:math:`F_i` is the mean loss of client i's examples and the model's own penalty, :math:`p_i` its share: of the examples,
or 1/k. Everything is computed in float64, of the model's own forward pass and gradient.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error, check_float, check_int, data_error
from fedsim_np.learning.client import ClientWeighting
from fedsim_np.learning.learning_process import as_datasets
from fedsim_np.learning.models.checks import (
    ClientBatches,
    as_model,
    forward_and_gradient,
    initial_weights,
    read_batches,
)
from fedsim_np.learning.models.model import Batch, Model, ModelFn, ModelWeights
from fedsim_np.trees import Array, Arrays

_REMEMBERED = 30
_CURVATURE = 0.5


class Optimum(NamedTuple):
    """Where an objective is least.

    Attributes
    ----------
    weights : ModelWeights
        float64.
    loss : float
        The objective there, penalties included.
    gradient_norm : float
        l2, over all tensors.
    num_iterations : int
    """

    weights: ModelWeights
    loss: float
    gradient_norm: float
    num_iterations: int


@dataclass(frozen=True, eq=False)
class Objective:
    """The clients' objective; make it with `Objective.of`, and call it with weights.

    Attributes
    ----------
    model : Model
    clients : tuple of batches
        All examples of each client, as one batch, floats in float64.
    shares : ndarray, shape (k,), float64
        p_i, adding up to 1.
    l2 : float
        Beside the model's own.
    is_pooled : bool
        Whether the shares are those of the examples.
    """

    model: Model
    clients: tuple[Batch, ...]
    shares: Array
    l2: float
    is_pooled: bool

    @classmethod
    def of(
        cls,
        model_fn: ModelFn,
        datasets: Sequence[ClientBatches],
        l2: float = 0.0,
        *,
        client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    ) -> Objective:
        """Read clients.

        Parameters
        ----------
        model_fn : callable without arguments that returns a Model, or a Model
        datasets : sequence of Dataset or of lists of batches
            One entry per client; a client's loss is the mean over all the examples that it gives.
        l2 : float
            Strength of a penalty on all weights, beside the model's own.
        client_weighting : ClientWeighting
            Of the clients' losses: by their examples, or all alike, which is what SCAFFOLD and FedDyn minimise.

        Raises
        ------
        DataError
            If a client has no examples, or batches that are not what the model takes.

        Examples
        --------
        >>> from fedsim_np.learning.models import LinearRegression
        >>> clients = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)]
        >>> objective = Objective.of(LinearRegression(1), clients)
        >>> loss, (kernel, bias) = objective(objective.model.initial_weights())
        >>> loss, bias.tolist()
        (2.5, [-2.0])
        """
        if not isinstance(client_weighting, ClientWeighting):
            raise argument_type_error("client_weighting", "a member of ClientWeighting", client_weighting)
        model, clients = as_model(model_fn), []
        for dataset in as_datasets(datasets, 0):
            batches = list(read_batches(model, dataset))
            if not any(len(batch[name]) for batch in batches for name in model.input_spec):
                raise data_error("a client must have examples", "none", client_id=dataset.client_id)
            clients.append({name: _wide([batch[name] for batch in batches]) for name in model.input_spec})
        if not clients:
            raise argument_error("datasets", "of at least one client", datasets)
        n = np.array([len(next(iter(batch.values()))) for batch in clients], np.float64)
        is_pooled = client_weighting is ClientWeighting.NUM_EXAMPLES
        shares = n / n.sum() if is_pooled else np.full(len(n), 1 / len(n))
        return cls(model, tuple(clients), shares, check_float("l2", l2, minimum=0.0), is_pooled)

    def only(self, client: int) -> Objective:
        """Return one client's objective."""
        return replace(self, clients=(self.clients[client],), shares=np.ones(1))

    def __call__(self, weights: ModelWeights) -> tuple[float, Arrays]:
        """Return the objective and its gradient at some weights."""
        if self.is_pooled and len(self.clients) > 1:
            pooled = {name: np.concatenate([b[name] for b in self.clients]) for name in self.model.input_spec}
            return self.of_batch(weights, pooled)
        found = [self.of_client(weights, i) for i in range(len(self.clients))]
        loss = sum(float(p) * of_client for p, (of_client, _) in zip(self.shares, found, strict=True))
        gradient = trees.map(
            lambda *parts: sum(p * part for p, part in zip(self.shares, parts, strict=True)), *(g for _, g in found)
        )
        return loss, gradient

    def of_client(self, weights: ModelWeights, client: int) -> tuple[float, Arrays]:
        """Return one client's objective and its gradient."""
        return self.of_batch(weights, self.clients[client])

    def of_batch(self, weights: ModelWeights, batch: Batch) -> tuple[float, Arrays]:
        """Return the objective of some examples, and its gradient."""
        at, batch = wide_weights(weights), {name: _wide([array]) for name, array in batch.items()}
        with np.errstate(all="ignore"):
            output, gradients = forward_and_gradient(self.model, at, batch)
        half_squares = sum(float(np.square(w).sum()) for w in at.trainable) / 2
        loss = float(output.loss) + self.model.penalty(at) + self.l2 * half_squares
        return loss, trees.map(lambda g, w: g + self.l2 * w, gradients, at.trainable)


def _wide(arrays: list[Array]) -> Array:
    array = np.concatenate(arrays) if len(arrays) > 1 else np.asarray(arrays[0])
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def wide_weights(weights: ModelWeights) -> ModelWeights:
    """Return weights whose trainable tensors are float64."""
    given = ModelWeights(*weights)
    return given._replace(trainable=trees.map(lambda w: np.asarray(w, np.float64), tuple(given.trainable)))


def minimize(
    model_fn: ModelFn,
    datasets: Sequence[ClientBatches],
    l2: float = 0.0,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
    tolerance: float = 1e-8,
    max_iterations: int = 10_000,
) -> Optimum:
    r"""Return the optimum of the clients' objective, :math:`\min_w \sum_i p_i F_i(w) + l_2/2 |w|^2`.

    By L-BFGS in float64, whose line search looks at slopes alone: near the optimum differences of losses are rounding.
    It is for convex models (`SoftmaxRegression`, `LinearRegression`); of others it finds a place without a gradient.
    Classes that can be separated have no optimum without an l2: what is found is where the gradient fades away.

    Parameters
    ----------
    model_fn, datasets, l2, client_weighting
        As for `Objective.of`.
    tolerance : float
        Of the gradient's l2 norm.
    max_iterations : int

    Returns
    -------
    Optimum

    Raises
    ------
    RuntimeError
        If the tolerance is not reached.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2006, section 7.2

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> clients = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)]
    >>> optimum = minimize(LinearRegression(1), clients)
    >>> optimum.weights.trainable[1].round(8), round(optimum.loss, 8)
    (array([2.]), 0.5)
    """
    objective = Objective.of(model_fn, datasets, l2, client_weighting=client_weighting)
    return minimize_objective(objective, tolerance, max_iterations)


def minimize_each(
    model_fn: ModelFn,
    datasets: Sequence[ClientBatches],
    l2: float = 0.0,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 10_000,
) -> list[Optimum]:
    """Return the optimum of each client's own objective, in order; arguments as for `minimize`."""
    objective = Objective.of(model_fn, datasets, l2)
    return [minimize_objective(objective.only(i), tolerance, max_iterations) for i in range(len(objective.clients))]


def minimize_objective(objective: Objective, tolerance: float = 1e-8, max_iterations: int = 10_000) -> Optimum:
    """Return the optimum of an `Objective`, from the model's first weights; see `minimize`."""
    if not check_float("tolerance", tolerance, minimum=0.0):
        raise argument_error("tolerance", "above 0", tolerance)
    check_int("max_iterations", max_iterations, minimum=0)
    first = wide_weights(initial_weights(objective.model))

    def at(flat: Array) -> tuple[float, Array]:
        loss, gradient = objective(_unflat(flat, first))
        return loss, _flat(gradient)

    w = _flat(first.trainable)
    loss, gradient = at(w)
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=_REMEMBERED)
    iteration = 0
    while np.linalg.norm(gradient) > tolerance and iteration < max_iterations:
        iteration += 1
        direction = -_inverse_hessian(pairs, gradient)
        step, next_loss, next_gradient = _line_search(at, w, gradient, direction, first=not pairs)
        moved, change = step * direction, next_gradient - gradient
        w, loss, gradient = w + moved, next_loss, next_gradient
        curvature = float(moved @ change)
        if curvature > 0:
            pairs.append((moved, change, 1 / curvature))
    norm = float(np.linalg.norm(gradient))
    if not norm <= tolerance:
        raise RuntimeError(
            f"No optimum was found: after {iteration} iterations the gradient's norm is {norm:.1e}, and not below "
            f"{tolerance:g}. Give max_iterations more, or l2: classes that can be separated have no optimum without."
        )
    return Optimum(_unflat(w, first), loss, norm, iteration)


def _flat(arrays: Arrays) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _unflat(flat: Array, like: ModelWeights) -> ModelWeights:
    ends = np.cumsum([w.size for w in like.trainable])[:-1]
    parts = (part.reshape(w.shape) for part, w in zip(np.split(flat, ends), like.trainable, strict=True))
    return like._replace(trainable=tuple(parts))


def _inverse_hessian(pairs: Sequence[tuple[Array, Array, float]], gradient: Array) -> Array:
    """Return the gradient times the inverse Hessian that the last steps tell: the two-loop recursion."""
    q: Array = gradient.copy()
    factors = []
    for moved, change, rho in reversed(pairs):
        factors.append(rho * float(moved @ q))
        q -= factors[-1] * change
    if pairs:
        moved, change, _ = pairs[-1]
        q *= float(moved @ change) / float(change @ change)
    for (moved, change, rho), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - rho * float(change @ q)) * moved
    return q


def _line_search(at: Any, w: Array, gradient: Array, direction: Array, *, first: bool) -> tuple[float, float, Array]:
    """Return a step at which the slope has at most half of its size at 0, and loss and gradient there."""
    slope = float(gradient @ direction)
    low, low_slope, high, high_slope = 0.0, slope, np.inf, np.nan
    step = min(1.0, 1 / float(np.linalg.norm(gradient))) if first else 1.0
    for _ in range(60):
        loss, found = at(w + step * direction)
        here = float(found @ direction)
        if abs(here) <= _CURVATURE * -slope:
            break
        if here < 0:
            low, low_slope = step, here
        else:  # too far; or so far that it is not finite
            high, high_slope = step, here
        if not np.isfinite(high):
            step *= 2
        elif np.isfinite(high_slope):  # a secant's zero, away from the ends
            step = low + (high - low) * min(0.9, max(0.1, low_slope / (low_slope - high_slope)))
        else:
            step = (low + high) / 2
    return step, loss, found
