r"""A quantile of the clients' norms, followed over the rounds without keeping any of them.

Each client sends one bit, whether its value is at most the estimate C. The server moves C by a factor:

.. math:: C \leftarrow C \exp(-\eta (\bar b - q))

with the mean bit :math:`\bar b` and the target quantile q: C shrinks while more than a share q lies below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.errors import argument_error, check_float
from fedsim_np.trees import Array


class QuantileState(NamedTuple):
    """The state of TFF's estimator, leaf for leaf."""

    current_estimate: float
    target_quantile: float
    learning_rate: float
    below_estimate_state: tuple[()] = ()


_MOST = 80.0  # of the logarithm of an estimate, that a round moves it: exp(89) is beyond float32
_FLOAT32 = np.finfo(np.float32)


def _float32(value: float) -> float:
    return float(np.float32(value))


def moved(estimate: np.float32, exponent: float, least: float = float(_FLOAT32.tiny)) -> np.float32:
    """Return an estimate times the exponential of a number, as a positive float32, whatever the number is."""
    factor = np.float32(math.exp(min(max(exponent, -_MOST), _MOST)))
    with np.errstate(all="ignore"):
        result: np.float32 = np.clip(estimate * factor, np.float32(least), _FLOAT32.max)
    return result


@dataclass(frozen=True)
class PrivateQuantileEstimationProcess:
    """An estimate of a quantile by bits; made by `no_noise`.

    The name is TFF's: the bits are what noise can be added to.

    References
    ----------
    Andrew et al., "Differentially private learning with adaptive clipping", NeurIPS 2021,
    https://arxiv.org/abs/1905.03871
    """

    initial_estimate: float
    target_quantile: float
    learning_rate: float
    multiplier: float = 1.0
    increment: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("initial_estimate", "learning_rate", "multiplier"):
            value = getattr(self, name)
            if not float(_FLOAT32.tiny) <= check_float(name, value, minimum=0.0) <= float(_FLOAT32.max):
                raise argument_error(name, "a finite float > 0, within float32's range", value)
        if check_float("target_quantile", self.target_quantile, minimum=0.0) > 1:
            raise argument_error("target_quantile", "a float in [0, 1]", self.target_quantile)
        check_float("increment", self.increment, minimum=0.0)

    @classmethod
    def no_noise(
        cls,
        initial_estimate: float,
        target_quantile: float,
        learning_rate: float,
        multiplier: float = 1.0,
        increment: float = 0.0,
    ) -> PrivateQuantileEstimationProcess:
        """Build an estimate without noise, and so without privacy.

        Parameters
        ----------
        initial_estimate : float
            C before the first round, > 0.
        target_quantile : float
            q in [0, 1].
        learning_rate : float
            > 0.
        multiplier, increment : float
            What is reported is multiplier * C + increment; > 0 and >= 0.

        Returns
        -------
        PrivateQuantileEstimationProcess

        Raises
        ------
        ValueError
            If an argument is out of range.

        Examples
        --------
        >>> estimate = PrivateQuantileEstimationProcess.no_noise(1.0, target_quantile=0.5, learning_rate=np.log(4))
        >>> state = estimate.initialize()
        >>> estimate.report(estimate.next(state, np.float32([2.0, 3.0])))
        2.0
        """
        return cls(initial_estimate, target_quantile, learning_rate, multiplier, increment)

    def initialize(self) -> tuple[QuantileState, tuple[()]]:
        """Return the first estimate, and the empty state of the sum of bits."""
        estimate, quantile = _float32(self.initial_estimate), _float32(self.target_quantile)
        return QuantileState(estimate, quantile, _float32(self.learning_rate)), ()

    def next(self, state: Any, values: Array) -> tuple[QuantileState, tuple[()]]:
        """Move the estimate; nobody moves it."""
        quantile = QuantileState(*state[0])
        if not len(values):
            return quantile, ()
        estimate, target, rate = map(np.float32, quantile[:3])
        below = np.float32(np.mean(values <= estimate))
        with np.errstate(over="ignore"):
            exponent = -float(rate * (below - target))
        return quantile._replace(current_estimate=float(moved(estimate, exponent))), ()

    def report(self, state: Any) -> float:
        """Return multiplier * C + increment."""
        with np.errstate(over="ignore"):  # no limit at all
            estimate = np.float32(self.multiplier) * np.float32(state[0].current_estimate)
            return float(estimate + np.float32(self.increment))
