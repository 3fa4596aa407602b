"""Optimizers: pure update rules, for a client's steps and for the server's.

An optimizer is a pair of pure functions. ``initialize(weights)`` makes a state, an OrderedDict of hyperparameters and
accumulators; ``next(state, weights, gradients)`` returns the next state and the next weights. It holds nothing but its
hyperparameters' first values: those in the state count, so that `set_hparams` can change a running process.

At the server the "gradient" is the aggregate of the clients' updates (initial - final weights).

The rules are elementwise and in float32: they serve one client's weights and, with a leading axis, a whole cohort's.
"""

from __future__ import annotations

import abc
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from fedsim_np.errors import argument_error, argument_type_error, check_float
from fedsim_np.learning.models import Arrays

State = OrderedDict[str, Any]
Hparams = OrderedDict[str, float]

LEARNING_RATE_KEY = "learning_rate"


_FRACTIONS = ("momentum", "beta_1", "beta_2", "decay")


def check_hparam(name: str, owner: str, value: Any) -> float:
    """Return a hyperparameter as a float, or raise if it is out of range.

    Examples
    --------
    >>> check_hparam("beta_1", "build_adam", 1.0)
    Traceback (most recent call last):
    ...
    ValueError: The 'beta_1' of build_adam must be a finite float >= 0 and < 1. Got 1.0.
    """
    return check_float(name, owner, value, minimum=0.0, below=1.0 if name in _FRACTIONS else math.inf)


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
            If `hparams` has other names than `get_hparams` gives, or a value is out of range.
        """
        if set(hparams) != set(self.hparam_names):
            raise argument_error("hparams", "set_hparams", f"a mapping of {list(self.hparam_names)}", dict(hparams))
        for name, value in hparams.items():
            check_hparam(name, "set_hparams", value)
        return OrderedDict((name, hparams.get(name, value)) for name, value in state.items())


def as_optimizer(optimizer: Optimizer | Callable[[], Optimizer], name: str, owner: str) -> Optimizer:
    """Return an optimizer: given as it is, or as the callable without arguments that the tutorial passes.

    Examples
    --------
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> as_optimizer(lambda: build_sgdm(0.1), "client_optimizer_fn", "build_weighted_fed_avg")
    SGDM(learning_rate=0.1, momentum=None, nesterov=False)
    """
    made = optimizer
    if callable(optimizer) and not isinstance(optimizer, type | Optimizer):
        made = optimizer()
    if not isinstance(made, Optimizer):
        rule = "an optimizer, or a callable without arguments that returns one"
        raise argument_type_error(name, owner, rule, made)
    return made
