"""Stochastic gradient descent: plain, with momentum, and with Nesterov's look ahead."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, check_bool
from fedsim_np.learning.optimizers.optimizer import LEARNING_RATE_KEY, Optimizer, State, check_hparam, filled
from fedsim_np.learning.shortcuts import SGDSteps
from fedsim_np.trees import Array, Arrays


def _moved(w: Array, rate: np.float32, step: Array) -> Array:
    """Return w - rate step, with one pass over new memory instead of two."""
    scaled: Array = rate * step if step.dtype == w.dtype else np.multiply(rate, step, dtype=w.dtype)
    return np.subtract(w, scaled, scaled) if scaled.ndim else np.asarray(w - scaled)


@dataclass(frozen=True)
class SGDM(Optimizer):
    """Stochastic gradient descent, with or without momentum; made by `build_sgdm`."""

    is_elementwise = True
    learning_rate: float
    momentum: float | None = None
    nesterov: bool = False

    @property
    def hparam_names(self) -> tuple[str, ...]:
        """``learning_rate``, and ``momentum`` where there is one."""
        return (LEARNING_RATE_KEY, "momentum") if self.momentum else (LEARNING_RATE_KEY,)

    def initialize(self, weights: Arrays) -> State:
        """Return the hyperparameters, and an accumulator of zeros where there is momentum."""
        state: State = OrderedDict([(LEARNING_RATE_KEY, self.learning_rate)])
        if self.momentum:
            state["momentum"] = self.momentum
            state["accumulator"] = filled(weights, 0.0)
        return state

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step."""
        rate = np.float32(state[LEARNING_RATE_KEY])
        if "accumulator" not in state:
            # As `trees.map` has it, which takes longer than the arithmetic of a small batch.
            return state, tuple(
                [w if g is None else _moved(w, rate, g) for w, g in zip(weights, gradients, strict=True)]
            )
        momentum = np.float32(state["momentum"])
        accumulator = trees.map(lambda a, g: momentum * a + g, state["accumulator"], gradients)
        steps = trees.map(lambda a, g: momentum * a + g, accumulator, gradients) if self.nesterov else accumulator
        weights = trees.map(lambda w, a, g: _moved(w, rate, a), weights, steps, gradients)
        return OrderedDict(state, accumulator=accumulator), weights

    def as_sgd(self, state: Mapping[str, Any]) -> SGDSteps:
        """Say that it is gradient descent, at the rate and momentum in its state."""
        rate, momentum = np.float32(state[LEARNING_RATE_KEY]), np.float32(state.get("momentum", 0.0))
        return SGDSteps(float(rate), float(momentum), self.nesterov)


def build_sgdm(learning_rate: float = 0.01, momentum: float | None = None, *, nesterov: bool = False) -> Optimizer:
    r"""Build stochastic gradient descent with momentum.

    .. math:: a \leftarrow m a + g, \qquad w \leftarrow w - \eta a

    Without momentum, :math:`w \leftarrow w - \eta g`. There is no dampening, as in TFF.

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`, finite and >= 0.
    momentum : float, optional
        m in [0, 1). None and 0 keep no accumulator.
    nesterov : bool
        Step by :math:`g + m a`, Nesterov's momentum, instead of by a. TFF has no such option: this one is ours.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a rate or momentum is out of range, or `nesterov` is asked for without momentum.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964

    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013

    Hsu et al., "Measuring the effects of non-identical data distribution for federated visual classification", 2019,
    https://arxiv.org/abs/1909.06335 (at the server: FedAvgM)

    Examples
    --------
    >>> optimizer = build_sgdm(learning_rate=0.5, momentum=0.5)
    >>> weights, gradients = (np.float32([1.0]),), (np.float32([1.0]),)
    >>> state, weights = optimizer.next(optimizer.initialize(weights), weights, gradients)
    >>> state, weights = optimizer.next(state, weights, gradients)
    >>> weights[0].tolist(), state["accumulator"][0].tolist()
    ([-0.25], [1.5])
    """
    rate = check_hparam("learning_rate", learning_rate)
    if momentum is not None:
        momentum = check_hparam("momentum", momentum)
    check_bool("nesterov", nesterov)
    if nesterov and not momentum:
        raise argument_error("nesterov", "False where there is no momentum", nesterov)
    return SGDM(rate, momentum or None, nesterov)
