r"""Limits on what one client can do: clipping and zeroing, in front of another aggregator.

::

    updates --> [norms] --> above the limit?  clip: scale down to it;  zero: 0  --> [inner aggregator] --> aggregate
                   |
                   +------> [quantile estimate] --> next round's limit

The limit is a number, or a `PrivateQuantileEstimationProcess` that adapts it to the norms. The norm that is compared,
reported and used in a round is the one from before it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fedsim_np.errors import argument_error, argument_type_error, check_bool
from fedsim_np.learning.aggregators.aggregator import Aggregator, Wrapper, aggregate
from fedsim_np.learning.aggregators.mean import MeanFactory, UnweightedMeanFactory
from fedsim_np.learning.aggregators.quantile import PrivateQuantileEstimationProcess
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics, as_float32_prints
from fedsim_np.trees import Array, Arrays, along

Norm = float | PrivateQuantileEstimationProcess


def update_norms(updates: Arrays, order: float = 2.0) -> Array:
    """Return the norm of each client's update over all its tensors, (k,) float32.

    Parameters
    ----------
    updates : tuple of ndarray, each (k, ...)
    order : {1.0, 2.0, inf}

    Examples
    --------
    >>> updates = np.float32([[3.0], [0.0]]), np.float32([[[4.0]], [[1.0]]])
    >>> [update_norms(updates, order).tolist() for order in (1.0, 2.0, np.inf)]
    [[7.0, 1.0], [5.0, 1.0], [4.0, 1.0]]
    """
    rows = [u.reshape(len(u), math.prod(u.shape[1:])) for u in updates]
    with np.errstate(over="ignore"):  # a norm beyond float32 is infinite, and above every limit
        if order == 2:
            # Summed in float64, and float32 from there on as in TFF: a square beyond it makes an infinite norm.
            squares = [np.einsum("kd,kd->k", u, u, dtype=np.float64).astype(np.float32) for u in rows]
            return np.asarray(np.sqrt(np.sum(squares, axis=0, dtype=np.float32)))
        if order == 1:
            sums = [np.abs(u).sum(axis=1, dtype=np.float64) for u in rows]
            return np.asarray(np.sum(sums, axis=0), np.float32)
        return np.asarray(np.max([np.abs(u).max(axis=1, initial=0) for u in rows], axis=0), np.float32)


@dataclass(frozen=True)
class Limited(Wrapper):
    """An aggregator behind a limit on the clients' norms: made by `clipping_factory` and `zeroing_factory`.

    `verb` is what becomes of updates above the limit, and what TFF's names of state and metrics begin with.
    """

    verb: Literal["clipp", "zero"]
    norm: Norm
    norm_order: float
    inner: Aggregator

    def __post_init__(self) -> None:
        """Check the inner aggregator."""
        if not isinstance(self.inner, Aggregator):
            raise argument_type_error("inner_agg_factory", "an Aggregator", self.inner)

    @property
    def looks_at_one(self) -> bool:
        """If the limit is a number, which no client moves."""
        return not isinstance(self.norm, PrivateQuantileEstimationProcess)

    def initialize(self, trainable: Arrays) -> Any:
        """Return the states of the limit and of the inner aggregator."""
        limit = self.norm.initialize() if isinstance(self.norm, PrivateQuantileEstimationProcess) else ()
        inner = self.inner.initialize(trainable)
        return OrderedDict({f"{self.verb}ing_norm": limit, "inner_agg": inner, f"{self.verb}ed_count_agg": ()})

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Limit the updates, and let the inner aggregator make one of them; the weights stay."""
        name = f"{self.verb}ing_norm"
        norms = update_norms(updates, self.norm_order)
        if isinstance(self.norm, PrivateQuantileEstimationProcess):
            limit = np.float32(self.norm.report(state[name]))
            state = OrderedDict(state, **{name: self.norm.next(state[name], norms)})
        else:
            limit = np.float32(self.norm)
        above = norms > limit
        if above.any():
            updates = tuple(self._limited(u, above, norms[above], limit) for u in updates)
        inner_state, total, inner_metrics = aggregate(self.inner, state["inner_agg"], updates, cohort)
        return OrderedDict(state, inner_agg=inner_state), total, self._metrics(inner_metrics, limit, int(above.sum()))

    def _limited(self, update: Array, above: Array, norms: Array, limit: np.float32) -> Array:
        limited: Array = update.copy()
        with np.errstate(over="ignore"):  # so far above the limit that nothing is left
            limited[above] = 0 if self.verb == "zero" else update[above] / along(norms / limit, update)
        limited.flags.writeable = False
        return limited

    def initial_metrics(self) -> Metrics | None:
        """Return the inner aggregator's metrics, a limit and a count."""
        inner = self.inner.initial_metrics()
        return None if inner is None else self._metrics(inner, np.float32(1), 0)

    def _metrics(self, inner: Metrics, limit: np.float32, count: int) -> Metrics:
        verb, shown = self.verb, as_float32_prints(float(limit))
        return OrderedDict({f"{verb}ing": inner, f"{verb}ing_norm": shown, f"{verb}ed_count": count})


def _checked_norm(name: str, norm: Norm, zero: bool) -> Norm:
    if isinstance(norm, PrivateQuantileEstimationProcess):
        return norm
    number = isinstance(norm, int | float | np.floating | np.integer) and not isinstance(norm, bool)
    with np.errstate(over="ignore"):
        if not number or not (np.float32(norm) > 0 or (zero and norm == 0)):
            raise argument_error(name, f"a float {'>=' if zero else '>'} 0 or a PrivateQuantileEstimationProcess", norm)
        return float(np.float32(norm))


def clipping_factory(clipping_norm: Norm, inner_agg_factory: Aggregator) -> Aggregator:
    r"""Build an aggregator that scales updates down to a norm.

    .. math:: u_i \leftarrow u_i / \max(1, \lVert u_i \rVert_2 / C)

    The norm is over all tensors of a client's update, before weighting. The metrics are the inner aggregator's under
    ``clipping``, the norm used, ``clipping_norm``, and ``clipped_count``.

    Parameters
    ----------
    clipping_norm : float or PrivateQuantileEstimationProcess
        C > 0; infinity clips nothing.
    inner_agg_factory : Aggregator
        What the clipped updates are given to. The result is weighted if this is.

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or C is not > 0.

    Examples
    --------
    >>> aggregator = clipping_factory(1.0, MeanFactory())
    >>> updates = (np.float32([[3.0, 4.0], [0.0, 0.5]]),)
    >>> state, clipped, metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(2))
    >>> clipped[0].round(4).tolist(), metrics["clipping_norm"], metrics["clipped_count"]
    ([0.30000001192092896, 0.6499999761581421], 1.0, 1)
    """
    norm = _checked_norm("clipping_norm", clipping_norm, zero=False)
    return Limited("clipp", norm, 2.0, inner_agg_factory)


def zeroing_factory(zeroing_norm: Norm, inner_agg_factory: Aggregator, norm_order: float = math.inf) -> Aggregator:
    r"""Build an aggregator that replaces updates above a norm by zero.

    .. math:: u_i \leftarrow 0 \quad \text{where } \lVert u_i \rVert > C

    The weight of such a client stays, so that the mean is drawn towards zero. The metrics are the inner
    aggregator's under ``zeroing``, the norm used, ``zeroing_norm``, and ``zeroed_count``.

    Parameters
    ----------
    zeroing_norm : float or PrivateQuantileEstimationProcess
        C >= 0.
    inner_agg_factory : Aggregator
        What the other updates are given to. The result is weighted if this is.
    norm_order : {1.0, 2.0, inf}
        Which norm, over all tensors of the update.

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> aggregator = zeroing_factory(3.5, UnweightedMeanFactory())
    >>> updates = (np.float32([[3.0, 4.0], [0.0, 0.5]]),)
    >>> state, aggregate, metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(2))
    >>> aggregate[0].tolist(), metrics["zeroed_count"]
    ([0.0, 0.25], 1)
    """
    if isinstance(norm_order, bool) or not isinstance(norm_order, int | float) or norm_order not in (1, 2, math.inf):
        raise argument_error("norm_order", "1.0, 2.0 or infinity", norm_order)
    norm = _checked_norm("zeroing_norm", zeroing_norm, zero=True)
    return Limited("zero", norm, float(norm_order), inner_agg_factory)


def adaptive_zeroing(inner: Aggregator) -> Aggregator:
    """Put TFF's zeroing in front: of updates whose largest entry is above twice its 0.98 quantile plus one."""
    limit = PrivateQuantileEstimationProcess.no_noise(10.0, 0.98, math.log(10.0), multiplier=2.0, increment=1.0)
    return zeroing_factory(limit, inner)


def adaptive_clipping(
    inner: Aggregator, initial_estimate: float = 1.0, target_quantile: float = 0.8, learning_rate: float = 0.2
) -> Aggregator:
    """Put TFF's clipping in front: of updates whose l2 norm is above a quantile of them."""
    limit = PrivateQuantileEstimationProcess.no_noise(initial_estimate, target_quantile, learning_rate)
    return clipping_factory(limit, inner)


def robust_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Callable[[Aggregator], Aggregator] | None = None,
) -> Aggregator:
    """Build a mean with adaptive zeroing of corrupt updates and adaptive clipping of large ones.

    Updates whose largest entry is above twice its 0.98 quantile plus one become zero; then those with an l2 norm
    above its 0.8 quantile are clipped to it. Both quantiles are estimated over the rounds, from 10 and from 1.

    Parameters
    ----------
    zeroing, clipping : bool
        Which of the two.
    weighted : bool
        Whether the mean is weighted.
    debug_measurements_fn : callable, optional
        `add_debug_measurements`; the mean is passed through it.

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError
        If `debug_measurements_fn` makes an unweighted aggregator of a weighted one, or the reverse.

    References
    ----------
    Andrew et al., "Differentially private learning with adaptive clipping", NeurIPS 2021,
    https://arxiv.org/abs/1905.03871

    Examples
    --------
    >>> aggregator = robust_aggregator()
    >>> updates = (np.float32([[30.0], [0.5]]),)
    >>> state, aggregate, metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(2))
    >>> aggregate[0].tolist(), metrics["zeroing_norm"], metrics["zeroed_count"]
    ([0.25], 21.0, 1)
    """
    for name, flag in {"zeroing": zeroing, "clipping": clipping, "weighted": weighted}.items():
        check_bool(name, flag)
    aggregator: Aggregator = MeanFactory() if weighted else UnweightedMeanFactory()
    if debug_measurements_fn is not None:
        measured: Any = debug_measurements_fn(aggregator) if callable(debug_measurements_fn) else debug_measurements_fn
        if not isinstance(measured, Aggregator) or measured.is_weighted is not aggregator.is_weighted:
            kind = "a weighted" if weighted else "an unweighted"
            rule = f"a function that returns {kind} Aggregator as it is given, such as add_debug_measurements"
            raise argument_type_error("debug_measurements_fn", rule, measured)
        aggregator = measured
    if clipping:
        aggregator = adaptive_clipping(aggregator)
    return adaptive_zeroing(aggregator) if zeroing else aggregator
