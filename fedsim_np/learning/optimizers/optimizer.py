"""Optimizers: pure update rules, for a client's steps and for the server's.

An optimizer is a pair of pure functions. ``initialize(weights)`` makes a state, an OrderedDict of hyperparameters and
accumulators; ``next(state, weights, gradients)`` returns the next state and the next weights. It holds nothing but its
hyperparameters' first values: those in the state count, so that `set_hparams` can change a running process.

At the server the "gradient" is the aggregate of the clients' updates (initial - final weights).

The rules are elementwise, with hyperparameters in float32: they serve one client's weights and, with the clients' axis
in front, many clients'. Where a gradient is None that weight and its accumulators stay as they are, as in TFF:
`trees.map` has it so.
"""

from __future__ import annotations

import abc
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error, check_float
from fedsim_np.learning.shortcuts import SGDSteps, WithShortcuts
from fedsim_np.trees import Arrays

State = OrderedDict[str, Any]
Hparams = OrderedDict[str, float]

LEARNING_RATE_KEY = "learning_rate"


_FRACTIONS = ("momentum", "beta_1", "beta_2", "decay")


def check_hparam(name: str, value: Any) -> float:
    """Return a hyperparameter as a float, or raise if it is out of range.

    Examples
    --------
    >>> check_hparam("beta_1", 1.0)
    Traceback (most recent call last):
    ...
    ValueError: 'beta_1' must be a finite float >= 0 and < 1. Got 1.0.
    """
    below = 1.0 if name in _FRACTIONS else math.inf
    number = check_float(name, value, minimum=0.0, below=below)
    with np.errstate(over="ignore", under="ignore"):
        if not np.float32(number) < below:  # it counts in float32: 0.99999999 is 1 there, and 1e39 infinite
            raise argument_error(name, f"a finite float >= 0{' and < 1' * (below == 1)} in float32", value)
    return number


def filled(weights: Arrays, value: float) -> Arrays:
    """Return arrays of one value, of the weights' shapes and dtypes."""
    return trees.map(lambda w: np.full(w.shape, value, w.dtype) if value else np.zeros(w.shape, w.dtype), weights)


class Optimizer(WithShortcuts, abc.ABC):
    """The protocol for an optimizer.

    Attributes
    ----------
    is_elementwise : bool
        Whether each weight moves by its own gradient and accumulators alone, the latter being tuples of arrays shaped
        like the weights. Then many clients can be stepped at once, with their axis in front. A class that overrides
        `next` has to say so anew.
    """

    is_elementwise: bool = False
    _computed_by = ("next",)

    @abc.abstractmethod
    def initialize(self, weights: Arrays) -> State:
        """Return the state before the first step on weights of these shapes."""

    @abc.abstractmethod
    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step: return the next state and the next weights, and change neither argument."""

    def as_sgd(self, state: State) -> SGDSteps | None:
        """Return what the steps are, where they are gradient descent's in this state; None where they are others."""
        return None

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
        if not isinstance(hparams, Mapping) or set(hparams) != set(self.hparam_names):
            raise argument_error("hparams", f"a mapping of {list(self.hparam_names)}", hparams)
        checked = {name: check_hparam(name, value) for name, value in hparams.items()}
        return OrderedDict((name, checked.get(name, value)) for name, value in state.items())


def _needs_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        return True
    return True


OptimizerFn = Optimizer | Callable[[], Optimizer]
"""An optimizer, or the callable without arguments that returns one which the tutorial passes."""


def as_optimizer(optimizer: OptimizerFn, name: str) -> Optimizer:
    """Return the optimizer of an `OptimizerFn`.

    Examples
    --------
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> as_optimizer(lambda: build_sgdm(0.1), "client_optimizer_fn")
    SGDM(learning_rate=0.1, momentum=None, nesterov=False)
    """
    made = optimizer
    if callable(optimizer) and not isinstance(optimizer, type | Optimizer) and _needs_nothing(optimizer):
        made = optimizer()
    if not isinstance(made, Optimizer):
        raise argument_type_error(name, "an optimizer, or a callable without arguments that returns one", made)
    return made
