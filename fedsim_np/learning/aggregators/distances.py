r"""Rules that look at the distances between whole updates: Krum, Bulyan, the geometric median, centred clipping.

Coordinates are taken in blocks, so that no second copy of all updates is made. In another order of the clients the
result is the same but for rounding.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, check_float, check_int
from fedsim_np.learning.aggregators.aggregator import Aggregator
from fedsim_np.learning.aggregators.coordinates import OfUnweighted, blocks, by_coordinate, median_of_sorted
from fedsim_np.learning.aggregators.mean import in_dtypes_of, weighted_sums
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Array, Arrays

_ROWS = 256  # clients whose distances are looked at together


def _krum_ranking(updates: Arrays, num_byzantine: int) -> Array:
    """Return the clients (k,), those of the lowest scores first; of equal ones those of the smaller norm."""
    k = len(updates[0])
    products = np.zeros((k, k))
    for update in updates:
        for _, block in blocks(update, least=256):
            numbers = block.astype(np.float64)
            products += numbers @ numbers.T
    squares, scores = np.diag(products), np.empty(k)
    for start in range(0, k, _ROWS):
        rows = slice(start, start + _ROWS)
        distances = np.maximum(squares[rows, np.newaxis] + squares - 2 * products[rows], 0)
        distances[np.arange(len(distances)), np.arange(k)[rows]] = np.inf
        scores[rows] = np.sort(distances)[:, : k - num_byzantine - 2].sum(axis=1)
    return np.lexsort((squares, scores))


def _check_size(rule: str, least: int, k: int, f: int) -> None:
    if k < least:
        found = f"{f}, and a cohort of {k} clients that count"
        raise argument_error("num_byzantine", f"so small that there are the {least} clients that {rule} needs", found)


@dataclass(frozen=True)
class KrumFactory(OfUnweighted):
    r"""The update, or the mean of some, nearest to its neighbours: Krum, Multi-Krum.

    .. math:: s_i = \sum_{j \to i} \lVert u_i - u_j \rVert_2^2

    over the k - f - 2 nearest j; the `num_selected` updates of the lowest scores are averaged.

    Parameters
    ----------
    num_byzantine : int
        f: how many clients may send anything. It takes 2 f + 3 clients.
    num_selected : int
        1 is Krum; more, up to k - f, is Multi-Krum.

    References
    ----------
    Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent", NeurIPS 2017,
    https://arxiv.org/abs/1703.02757

    Examples
    --------
    >>> updates = (np.float32([[1.0], [1.25], [2.0], [2.5], [99.0]]),)
    >>> KrumFactory(num_byzantine=1).next((), updates, np.ones(5))[1]
    (array([1.25], dtype=float32),)
    """

    num_byzantine: int
    num_selected: int = 1

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_int("num_byzantine", self.num_byzantine, minimum=0)
        check_int("num_selected", self.num_selected, minimum=1)

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean of the selected updates."""
        k, f, selected = len(client_weights), self.num_byzantine, self.num_selected
        _check_size("Krum", 2 * f + 3, k, f)
        if selected > k - f:
            raise argument_error("num_selected", f"at most {k - f}, the honest ones of {k} clients", selected)
        shares = np.zeros(k)
        shares[_krum_ranking(updates, f)[:selected]] = 1 / selected
        return state, in_dtypes_of(updates, weighted_sums(updates, shares)), self.initial_metrics()


@dataclass(frozen=True)
class BulyanFactory(OfUnweighted):
    """Krum first, then each coordinate: the mean of the values nearest to the median.

    Of the k - 2 f updates with the lowest Krum scores, the k - 4 f values of each coordinate that are nearest to their
    median are averaged. Here the scores are those of the whole cohort. In the paper updates are chosen one by one, the
    scores computed anew of those that are left: of so few that for f <= 2 the last ones always tie, and the order of
    the clients decides.

    Parameters
    ----------
    num_byzantine : int
        f. It takes 4 f + 3 clients.

    References
    ----------
    El Mhamdi, Guerraoui, Rouault, "The hidden vulnerability of distributed learning in Byzantium", ICML 2018,
    https://arxiv.org/abs/1802.07927

    Examples
    --------
    >>> updates = (np.float32([[1.0], [1.25], [2.0], [2.25], [2.5], [3.0], [99.0]]),)
    >>> BulyanFactory(num_byzantine=1).next((), updates, np.ones(7))[1]
    (array([2.25], dtype=float32),)
    """

    num_byzantine: int

    def __post_init__(self) -> None:
        """Check the argument."""
        check_int("num_byzantine", self.num_byzantine, minimum=0)

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean of each coordinate's values in the middle."""
        k, f = len(client_weights), self.num_byzantine
        _check_size("Bulyan", 4 * f + 3, k, f)
        selected = np.sort(_krum_ranking(updates, f)[: k - 2 * f])

        def of_middle(values: Array) -> Array:
            away = np.abs(values - median_of_sorted(values)[:, np.newaxis])
            nearest = np.argsort(away, axis=1, kind="stable")[:, : k - 4 * f]
            mean: Array = np.take_along_axis(values, nearest, axis=1).mean(axis=1, dtype=np.float64)
            return mean

        return state, by_coordinate(of_middle, updates, selected), self.initial_metrics()


@dataclass(frozen=True)
class GeometricMedianFactory(OfUnweighted):
    r"""The point from which the updates are nearest, by their weights: RFA's smoothed Weiszfeld iterations.

    .. math::
        \beta_i = \alpha_i / \max(\nu, \lVert v - u_i \rVert_2),
        \qquad v \leftarrow \sum_i \beta_i u_i / \sum_i \beta_i

    from v, the weighted mean, on. It stays near the honest clients as long as they have more than half of the weight.

    Parameters
    ----------
    num_iterations : int
        At least 1; RFA's 3 are near enough, unless attackers are very far away.
    smoothing : float
        :math:`\nu` > 0.

    References
    ----------
    Pillutla, Kakade, Harchaoui, "Robust aggregation for federated learning", 2019, https://arxiv.org/abs/1912.13445

    Examples
    --------
    >>> updates = (np.float32([[1.0], [2.0], [10.0]]),)
    >>> GeometricMedianFactory(num_iterations=50).next((), updates, np.ones(3))[1][0].round(3)
    array([2.], dtype=float32)
    """

    num_iterations: int = 3
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_int("num_iterations", self.num_iterations, minimum=1)
        _check_positive("smoothing", self.smoothing)

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the geometric median."""
        shares = alphas = client_weights / client_weights.sum()
        for _ in range(self.num_iterations):
            centre = weighted_sums(updates, shares)
            betas = alphas / np.maximum(self.smoothing, _distances(updates, centre))
            shares = betas / betas.sum()
        return state, in_dtypes_of(updates, weighted_sums(updates, shares)), self.initial_metrics()


@dataclass(frozen=True)
class CenteredClippingFactory(Aggregator):
    r"""The last aggregate, moved by the mean of clipped differences from it.

    .. math:: v \leftarrow v + \frac{1}{k} \sum_i (u_i - v) \min(1, \tau / \lVert u_i - v \rVert_2)

    from the last round's aggregate on, zero in the first one.

    Parameters
    ----------
    clipping_norm : float
        :math:`\tau` > 0.
    num_iterations : int
        At least 1.

    References
    ----------
    Karimireddy, He, Jaggi, "Learning from history for Byzantine robust optimization", ICML 2021,
    https://arxiv.org/abs/2012.10333

    Examples
    --------
    >>> rule = CenteredClippingFactory(1.0)
    >>> updates = (np.float32([[0.5], [0.75], [99.0]]),)
    >>> state, aggregate, _ = rule.next(rule.initialize((np.zeros(1, np.float32),)), updates, np.ones(3))
    >>> aggregate
    (array([0.75], dtype=float32),)
    """

    clipping_norm: float
    num_iterations: int = 1

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check_positive("clipping_norm", self.clipping_norm)
        check_int("num_iterations", self.num_iterations, minimum=1)

    def initialize(self, trainable: Arrays) -> Any:
        """Return a centre of zeros."""
        return OrderedDict(centre=tuple(np.zeros_like(w) for w in trainable))

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the centre, moved."""
        centre = tuple(c.astype(np.float64) for c in state["centre"])
        for _ in range(self.num_iterations):
            with np.errstate(divide="ignore"):
                shares = np.minimum(1, self.clipping_norm / _distances(updates, centre)) / len(client_weights)
            sums = weighted_sums(updates, shares)
            centre = tuple((1 - shares.sum()) * c + s for c, s in zip(centre, sums, strict=True))
        moved = in_dtypes_of(updates, centre)
        return OrderedDict(centre=moved), moved, self.initial_metrics()

    def initial_metrics(self) -> Metrics:
        """Return no metrics."""
        return OrderedDict()


def _check_positive(name: str, value: float) -> None:
    if check_float(name, value, minimum=0.0) == 0:
        raise argument_error(name, "a finite float > 0", value)


def _distances(updates: Arrays, centre: Arrays) -> Array:
    """Return the l2 norm of each update minus the centre, (k,) float64."""
    squares = np.zeros(len(updates[0]))
    for update, middle in zip(updates, centre, strict=True):
        for index, block in blocks(update):
            away = block - np.ravel(middle[index])
            squares += np.einsum("km,km->k", away, away)
    distances: Array = np.sqrt(squares)
    return distances
