r"""Sums with Gaussian noise, of updates that are clipped before: differentially private means.

::

    updates --> [norms] --> clip to C --> sum + N(0, (z C)^2) --> over n --> aggregate
                   |
                   +------> bits: norm <= C?  their sum + N(0, b^2) --> next round's C     (adaptive)

One client moves the sum by at most C, so noise in proportion to C hides whether it was there; what that promises over
the rounds of a run is said by `fedsim_np.privacy`, for models and not for the metrics beside them. The divisor n is a
number given beforehand: how many clients there were shall not be told.

The noise is drawn from (seed, round), the round being in the state: the same for every executor and after a resume, and
no secret from anybody who knows the seed.

References
----------
McMahan et al., "Learning differentially private recurrent language models", ICLR 2018,
https://arxiv.org/abs/1710.06963

Andrew et al., "Differentially private learning with adaptive clipping", NeurIPS 2021, https://arxiv.org/abs/1905.03871
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, check_bool, check_float, check_int
from fedsim_np.learning.aggregators.aggregator import Aggregator, CohortAggregator, Wrapper
from fedsim_np.learning.aggregators.mean import in_dtypes_of, weighted_sums
from fedsim_np.learning.aggregators.quantile import moved
from fedsim_np.learning.aggregators.robust import adaptive_zeroing, update_norms
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics, as_float32_prints
from fedsim_np.trees import Array, Arrays

_NOISE = 3_000_001  # the first word of the noise's streams
_LEAST, _GREATEST = 2.0**-63, float(np.finfo(np.float32).max)  # of a clip; the square of the least one is a float32


@dataclass(frozen=True)
class DifferentiallyPrivateFactory(CohortAggregator):
    """A mean of clipped updates with Gaussian noise: made by `gaussian_fixed` or `gaussian_adaptive`.

    The name is TFF's; it is the aggregator itself. All clients are seen, those that do not count as updates of zero.

    Attributes
    ----------
    noise_multiplier : float
        z, which `fedsim_np.privacy` is to be asked with.
    """

    noise_multiplier: float
    clients_per_round: float
    clip: float
    target_unclipped_quantile: float | None = None
    learning_rate: float = 0.0
    clipped_count_stddev: float = 0.0
    seed: int = 0
    is_weighted = False
    sees_all_clients = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("noise_multiplier", "learning_rate", "clipped_count_stddev"):
            check_float(name, getattr(self, name), minimum=0.0)
        if check_float("clients_per_round", self.clients_per_round, minimum=0.0) == 0:
            raise argument_error("clients_per_round", "a finite float > 0", self.clients_per_round)
        quantile = self.target_unclipped_quantile
        if quantile is not None and check_float("target_unclipped_quantile", quantile, minimum=0.0) > 1:
            raise argument_error("target_unclipped_quantile", "a float in [0, 1]", quantile)
        z, b = self.noise_multiplier, self.clipped_count_stddev
        if quantile is not None and z and z >= 2 * b:
            rule = f"more than half the noise_multiplier of {z:g} (by default it is clients_per_round / 20)"
            raise argument_error("clipped_count_stddev", rule, b)
        endless = self.clip == math.inf and z == 0 and quantile is None
        if not endless:
            _check_clip("clip", self.clip)
        check_int("seed", self.seed, minimum=0)

    @classmethod
    def gaussian_fixed(
        cls, noise_multiplier: float, clients_per_round: float, clip: float, seed: int = 0
    ) -> DifferentiallyPrivateFactory:
        r"""Build a mean with noise and a fixed clip.

        .. math:: \frac{1}{n} \left(\sum_i u_i \min(1, C / \lVert u_i \rVert_2) + \mathcal{N}(0, z^2 C^2 I)\right)

        Parameters
        ----------
        noise_multiplier : float
            z >= 0: the noise's standard deviation over the clip.
        clients_per_round : float
            n > 0, the divisor, however many clients there are.
        clip : float
            C > 0; without noise it may be infinite: the plain mean, if there are n clients.
        seed : int
            Of the noise, >= 0. (TFF's is not seeded.)

        Returns
        -------
        DifferentiallyPrivateFactory
            An unweighted aggregator.

        Raises
        ------
        ValueError
            If a number is out of range.

        Examples
        --------
        >>> aggregator = DifferentiallyPrivateFactory.gaussian_fixed(0.0, clients_per_round=4, clip=2.5)
        >>> updates = (np.float32([[3.0, 4.0], [0.0, 0.5]]),)
        >>> aggregator.next(aggregator.initialize(updates), updates, np.ones(2))[1]
        (array([0.375, 0.625], dtype=float32),)
        """
        return cls(noise_multiplier, clients_per_round, clip, seed=seed)

    @classmethod
    def gaussian_adaptive(
        cls,
        noise_multiplier: float,
        clients_per_round: float,
        initial_l2_norm_clip: float = 0.1,
        target_unclipped_quantile: float = 0.5,
        learning_rate: float = 0.2,
        clipped_count_stddev: float | None = None,
        seed: int = 0,
    ) -> DifferentiallyPrivateFactory:
        r"""Build a mean with noise and a clip that follows a quantile of the norms, which is found with noise as well.

        .. math::
            \bar b = \mathrm{clamp}_{[0, 1]}\left(\tfrac12 + \tfrac1n \left(\sum_i (\pm \tfrac12)
            + \mathcal{N}(0, b^2)\right)\right), \qquad C \leftarrow C e^{-\eta (\bar b - q)}

        with 1/2 of each client whose norm is at most C, -1/2 of the others. The updates' noise is
        :math:`z_v = (z^{-2} - (2 b)^{-2})^{-1/2}` times C, so that both together are worth z.

        Parameters
        ----------
        noise_multiplier, clients_per_round, seed
            z, n, as for `gaussian_fixed`.
        initial_l2_norm_clip : float
            C in the first round, > 0.
        target_unclipped_quantile : float
            q in [0, 1].
        learning_rate : float
            :math:`\eta` >= 0.
        clipped_count_stddev : float, optional
            b >= 0, more than z / 2; n / 20 by default, or 0 without noise.

        Returns
        -------
        DifferentiallyPrivateFactory
            An unweighted aggregator. The metrics are the next round's ``clip`` under ``dp_query_metrics``.

        Raises
        ------
        ValueError
            If a number is out of range, or b too small for z.

        Examples
        --------
        >>> aggregator = DifferentiallyPrivateFactory.gaussian_adaptive(0.0, 2, initial_l2_norm_clip=1.0)
        >>> updates = (np.float32([[3.0, 4.0], [0.0, 5.0]]),)
        >>> aggregator.next(aggregator.initialize(updates), updates, np.ones(2))[2]["dp_query_metrics"]["clip"]
        1.105171
        """
        z, b = check_float("noise_multiplier", noise_multiplier, minimum=0.0), clipped_count_stddev
        if b is None:
            b = check_float("clients_per_round", clients_per_round, minimum=0.0) / 20 if z else 0.0
        _check_clip("initial_l2_norm_clip", initial_l2_norm_clip)
        made = cls(z, clients_per_round, initial_l2_norm_clip, target_unclipped_quantile, learning_rate, b, seed)
        if z and made.update_noise_multiplier >= 2 * z:
            warnings.warn(
                f"clipped_count_stddev={b:g} leaves a noise of {made.update_noise_multiplier:.3g} clips to updates, "
                f"at least twice the noise_multiplier of {z:g}: a larger one costs less.",
                stacklevel=2,
            )
        return made

    @property
    def update_noise_multiplier(self) -> float:
        """The part of the noise that updates get, over the clip: all of it, if the clip is fixed."""
        z, b = self.noise_multiplier, self.clipped_count_stddev
        return z if self.target_unclipped_quantile is None or not z else (z**-2 - (2 * b) ** -2) ** -0.5

    def initialize(self, trainable: Arrays) -> Any:
        """Return the first clip, and the number of rounds that are over."""
        return OrderedDict(l2_norm_clip=float(np.float32(self.clip)), round_num=0)

    def next(self, state: Any, updates: Arrays, client_weights: Array) -> tuple[Any, Arrays, Metrics]:
        """Return the mean with noise, as TFF has it: a norm beyond float32 makes all of it NaN."""
        return self._mean(state, updates, beyond=np.nan)

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Return the mean with noise; the weights do not count.

        Of an update whose norm is beyond float32 nothing is left: a model that stays as it was, as in TFF, would tell
        that such a client was there.
        """
        return self._mean(state, updates, beyond=0.0)

    def _mean(self, state: Any, updates: Arrays, beyond: float) -> tuple[Any, Arrays, Metrics]:
        clip, round_num = np.float32(state["l2_norm_clip"]), int(state["round_num"]) + 1
        rng = np.random.default_rng([_NOISE, round_num, self.seed])
        norms = update_norms(updates)
        with np.errstate(all="ignore"):
            shares = np.where(norms <= clip, 1, np.where(np.isinf(norms), beyond, np.float64(clip) / norms))
        sums = weighted_sums(updates, shares)
        if self.noise_multiplier:
            spread = self.update_noise_multiplier * float(clip)
            sums = tuple(s + rng.normal(scale=spread, size=s.shape) for s in sums)
        mean = in_dtypes_of(updates, tuple(s / self.clients_per_round for s in sums))
        if self.target_unclipped_quantile is not None:
            bits = float(np.where(norms <= clip, 0.5, -0.5).sum()) + rng.normal(scale=self.clipped_count_stddev)
            share = np.clip(bits / self.clients_per_round + 0.5, 0, 1)
            clip = moved(clip, -self.learning_rate * (share - self.target_unclipped_quantile), _LEAST)
        return OrderedDict(l2_norm_clip=float(clip), round_num=round_num), mean, self._metrics(clip)

    def initial_metrics(self) -> Metrics:
        """Return TFF's metrics: the next clip, if it adapts."""
        return self._metrics(np.float32(self.clip))

    def _metrics(self, clip: np.float32) -> Metrics:
        adapts = self.target_unclipped_quantile is not None
        query = OrderedDict(clip=as_float32_prints(float(clip))) if adapts else OrderedDict()
        return OrderedDict(dp_query_metrics=query, dp=())


def noise_multiplier_of(aggregator: Any) -> tuple[float | None, bool]:
    """Return the z of a mean with noise, and whether all in front of it looks at one client at a time.

    An aggregator that is no such mean has None.

    Examples
    --------
    >>> noise_multiplier_of(dp_aggregator(0.5, clients_per_round=20))
    (0.5, False)
    >>> noise_multiplier_of(dp_aggregator(0.5, clients_per_round=20, zeroing=False)), noise_multiplier_of("mean")
    ((0.5, True), (None, True))
    """
    one_by_one = True
    while isinstance(aggregator, Wrapper):
        one_by_one = one_by_one and aggregator.looks_at_one
        aggregator = aggregator.inner
    return aggregator.noise_multiplier if isinstance(aggregator, DifferentiallyPrivateFactory) else None, one_by_one


def _check_clip(name: str, clip: float) -> None:
    if not _LEAST <= check_float(name, clip, minimum=0.0) <= _GREATEST:
        raise argument_error(name, "a finite float > 0, within float32's range, and its square as well", clip)


def dp_aggregator(noise_multiplier: float, clients_per_round: float, zeroing: bool = True, seed: int = 0) -> Aggregator:
    """Build TFF's differentially private mean: an adaptive clip, from 0.1, to the median of the norms.

    Parameters
    ----------
    noise_multiplier, clients_per_round, seed
        As for `DifferentiallyPrivateFactory.gaussian_adaptive`.
    zeroing : bool
        Whether updates far beyond the others become zero before, as in `robust_aggregator`. As in TFF, that limit is
        found without noise: no epsilon covers what it tells.

    Returns
    -------
    Aggregator
        An unweighted one.

    Raises
    ------
    ValueError
        As for `DifferentiallyPrivateFactory.gaussian_adaptive`.

    Examples
    --------
    >>> aggregator = dp_aggregator(0.0, clients_per_round=2)
    >>> updates = (np.float32([[30.0], [0.5]]),)
    >>> state, aggregate, metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(2))
    >>> aggregate[0].round(4).tolist(), metrics["zeroed_count"], metrics["zeroing"]["dp_query_metrics"]["clip"]
    ([0.05000000074505806], 1, 0.1)
    """
    aggregator = DifferentiallyPrivateFactory.gaussian_adaptive(noise_multiplier, clients_per_round, seed=seed)
    return adaptive_zeroing(aggregator) if check_bool("zeroing", zeroing) else aggregator
