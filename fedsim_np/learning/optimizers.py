"""Optimizers: pure update rules, for a client's steps and for the server's.

An optimizer is a pair of pure functions. ``initialize(weights)`` makes a state, an OrderedDict of hyperparameters and
accumulators; ``next(state, weights, gradients)`` returns the next state and the next weights. It holds nothing but its
hyperparameters' first values: those in the state count, so that `set_hparams` can change a running process.

At the server the "gradient" is the aggregate of the clients' updates (initial - final weights).

The rules are elementwise and in float32: they serve one client's weights and, with a leading axis, a whole cohort's.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, argument_type_error, check_float
from fedsim_np.learning.models import Arrays

State = OrderedDict[str, Any]
Hparams = OrderedDict[str, float]

LEARNING_RATE_KEY = "learning_rate"


class Optimizer(abc.ABC):
    """The protocol for an optimizer."""

    @abc.abstractmethod
    def initialize(self, weights: Arrays) -> State:
        """Return the state before the first step on weights of these shapes."""

    @abc.abstractmethod
    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step: return the next state and the next weights, and change neither argument."""

    @property
    @abc.abstractmethod
    def hparam_names(self) -> tuple[str, ...]:
        """The keys of the state that are hyperparameters."""

    def get_hparams(self, state: Mapping[str, Any]) -> Hparams:
        """Return the hyperparameters in a state."""
        return OrderedDict((name, state[name]) for name in self.hparam_names)

    def set_hparams(self, state: State, hparams: Mapping[str, float]) -> State:
        """Return the state with other hyperparameters.

        Raises
        ------
        ValueError
            If `hparams` has other names than `get_hparams` gives, or a value is not a finite float >= 0.
        """
        if set(hparams) != set(self.hparam_names):
            raise argument_error("hparams", "set_hparams", f"a mapping of {list(self.hparam_names)}", dict(hparams))
        for name, value in hparams.items():
            check_float(name, "set_hparams", value, minimum=0.0)
        return OrderedDict((name, hparams.get(name, value)) for name, value in state.items())


@dataclass(frozen=True)
class SGDM(Optimizer):
    """Stochastic gradient descent, with or without momentum; made by `build_sgdm`."""

    learning_rate: float
    momentum: float | None = None

    @property
    def hparam_names(self) -> tuple[str, ...]:
        """``learning_rate``, and ``momentum`` where there is one."""
        return (LEARNING_RATE_KEY, "momentum") if self.momentum else (LEARNING_RATE_KEY,)

    def initialize(self, weights: Arrays) -> State:
        """Return the hyperparameters, and an accumulator of zeros where there is momentum."""
        state: State = OrderedDict([(LEARNING_RATE_KEY, self.learning_rate)])
        if self.momentum:
            state["momentum"] = self.momentum
            state["accumulator"] = tuple(np.zeros_like(w) for w in weights)
        return state

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step."""
        rate = np.float32(state[LEARNING_RATE_KEY])
        if "accumulator" not in state:
            return state, tuple(w - rate * g for w, g in zip(weights, gradients, strict=True))
        momentum = np.float32(state["momentum"])
        accumulator = tuple(momentum * a + g for a, g in zip(state["accumulator"], gradients, strict=True))
        weights = tuple(w - rate * a for w, a in zip(weights, accumulator, strict=True))
        return OrderedDict(state, accumulator=accumulator), weights


def build_sgdm(learning_rate: float = 0.01, momentum: float | None = None) -> Optimizer:
    r"""Build stochastic gradient descent with momentum.

    .. math:: a \leftarrow m a + g, \qquad w \leftarrow w - \eta a

    Without momentum, :math:`w \leftarrow w - \eta g`. There is neither dampening nor Nesterov's correction, as in TFF.

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`, finite and >= 0.
    momentum : float, optional
        m in [0, 1). None and 0 keep no accumulator.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a rate or momentum is out of range.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.

    Examples
    --------
    >>> optimizer = build_sgdm(learning_rate=0.5, momentum=0.5)
    >>> weights, gradients = (np.float32([1.0]),), (np.float32([1.0]),)
    >>> state, weights = optimizer.next(optimizer.initialize(weights), weights, gradients)
    >>> state, weights = optimizer.next(state, weights, gradients)
    >>> weights[0].tolist(), state["accumulator"][0].tolist()
    ([-0.25], [1.5])
    """
    rate = check_float("learning_rate", "build_sgdm", learning_rate, minimum=0.0)
    if momentum is not None:
        momentum = check_float("momentum", "build_sgdm", momentum, minimum=0.0, below=1.0)
    return SGDM(rate, momentum or None)


def as_optimizer(optimizer: Optimizer | Callable[[], Optimizer], name: str, owner: str) -> Optimizer:
    """Return an optimizer: given as it is, or as the callable without arguments that the tutorial passes.

    Examples
    --------
    >>> as_optimizer(lambda: build_sgdm(0.1), "client_optimizer_fn", "build_weighted_fed_avg")
    SGDM(learning_rate=0.1, momentum=None)
    """
    made = optimizer
    if callable(optimizer) and not isinstance(optimizer, type | Optimizer):
        made = optimizer()
    if not isinstance(made, Optimizer):
        rule = "an optimizer, or a callable without arguments that returns one"
        raise argument_type_error(name, owner, rule, made)
    return made
