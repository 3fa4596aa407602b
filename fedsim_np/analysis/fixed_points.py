r"""Where federated averaging settles on linear regression, in closed form.

With A_i = [x, 1] of client i, n_i rows, its loss has the gradient :math:`Q_i w - c_i`,

.. math:: Q_i = A_i^T A_i / n_i + l_2, \qquad c_i = A_i^T y_i / n_i

H steps of gradient descent at rate s on the client's whole data, with a pull mu towards where they began, move w by

.. math:: w - w_i = s P_i (Q_i w - c_i), \qquad P_i = \sum_{j < H} (I - s (Q_i + \mu I))^j

and so the weighted mean of these is zero at

.. math:: w = \left(\sum_i p_i P_i Q_i\right)^{-1} \sum_i p_i P_i c_i

which is the optimum where H is 1, or where all clients are alike, and is not otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsim_np.analysis.objective import Objective
from fedsim_np.errors import argument_error, argument_type_error, check_float, check_int
from fedsim_np.learning.client import ClientWeighting
from fedsim_np.learning.models import LinearRegression
from fedsim_np.learning.models.checks import ClientBatches, as_model
from fedsim_np.learning.models.model import ModelFn, ModelWeights


def fed_avg_fixed_point(
    model_fn: ModelFn,
    datasets: Sequence[ClientBatches],
    learning_rate: float,
    num_steps: int,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
) -> ModelWeights:
    """Return where federated averaging with deterministic local steps settles, of all clients in every round.

    Parameters
    ----------
    model_fn : callable that returns a LinearRegression, or a LinearRegression
    datasets : sequence of Dataset or of lists of batches
        One entry per client; all its examples are one batch.
    learning_rate : float
        s, of the clients' steps; small enough for them to be stable.
    num_steps : int
        H.
    client_weighting : ClientWeighting

    Returns
    -------
    ModelWeights
        float64.

    References
    ----------
    Pathak and Wainwright, "FedSplit", NeurIPS 2020, https://arxiv.org/abs/2005.05238

    Examples
    --------
    Two clients with the slopes 1 and -1; the second has inputs of half the size, and so goes more slowly:

    >>> clients = [
    ...     [{"x": np.float32([[x], [-x]]), "y": np.float32([[x * w], [-x * w]])}] for x, w in ((1.0, 1.0), (0.5, -1.0))
    ... ]
    >>> for num_steps in (1, 10, 1000):
    ...     print(num_steps, fed_avg_fixed_point(LinearRegression(1), clients, 0.1, num_steps).trainable[0].round(3))
    1 [[0.6]]
    10 [[0.489]]
    1000 [[0.]]
    """
    return fed_prox_fixed_point(model_fn, datasets, 0.0, learning_rate, num_steps, client_weighting=client_weighting)


def fed_prox_fixed_point(
    model_fn: ModelFn,
    datasets: Sequence[ClientBatches],
    proximal_strength: float,
    learning_rate: float,
    num_steps: int,
    *,
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES,
) -> ModelWeights:
    """Return where FedProx with deterministic local steps settles; arguments as for `fed_avg_fixed_point`.

    Parameters
    ----------
    proximal_strength : float
        mu.
    """
    model = as_model(model_fn)
    if not isinstance(model, LinearRegression):
        raise argument_type_error("model_fn", "a LinearRegression, or a function that returns one", model)
    mu = check_float("proximal_strength", proximal_strength, minimum=0.0)
    s, steps = check_float("learning_rate", learning_rate, minimum=0.0), check_int("num_steps", num_steps, minimum=1)
    objective = Objective.of(model, datasets, client_weighting=client_weighting)
    d, left, right = model.num_features + 1, 0.0, 0.0
    for share, batch in zip(objective.shares, objective.clients, strict=True):
        a = np.hstack([batch["x"], np.ones((len(batch["x"]), 1))])
        q, c = a.T @ a / len(a) + model.l2 * np.eye(d), a.T @ batch["y"] / len(a)
        # In Q's own axes the sum of powers is that of numbers.
        values, axes = np.linalg.eigh(q)
        if not 0 < s * (values[-1] + mu) < 2:
            rule = f"above 0 and below {2 / (values[-1] + mu):.3g}, for a client's steps to be stable"
            raise argument_error("learning_rate", rule, learning_rate)
        powers = (1 - s * (values + mu))[:, np.newaxis] ** np.arange(steps)
        p = axes * powers.sum(axis=1) @ axes.T
        left, right = left + share * p @ q, right + share * p @ c
    solved = np.linalg.lstsq(np.asarray(left), np.asarray(right), rcond=None)[0]
    return ModelWeights((solved[:-1], solved[-1]))
