r"""Optimizers that divide each coordinate's step by the size of its gradients so far.

============ ======================================================== ============================================
optimizer    preconditioner s, accumulator a                          step
============ ======================================================== ============================================
Adagrad      s += g^2                                                 w -= lr * g / sqrt(s + eps)
RMSprop      s += (g^2 - s) * (1 - decay)                             w -= lr * g / (sqrt(s) + eps)
Adam         a += (g - a) * (1 - b1); s += (g^2 - s) * (1 - b2)       w -= lr * c * a / (sqrt(s) + eps)
AdamW        as Adam                                                  w -= lr * (c * a / (sqrt(s) + eps) + wd * w)
Yogi         a as Adam; s += (1 - b2) * sign(g^2 - s) * g^2           as Adam
============ ======================================================== ============================================

with :math:`c = \sqrt{1 - b_2^t} / (1 - b_1^t)` in step t. At the server they make FedAdagrad, FedAdam and FedYogi
(Reddi et al., "Adaptive federated optimization", ICLR 2021, https://arxiv.org/abs/2003.00295).

The order of the operations is TFF's, so that the roundings are. Where gradients cancel to almost nothing, a tiny
epsilon makes steps out of rounding: Reddi et al. use 1e-3.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.learning.optimizers.optimizer import LEARNING_RATE_KEY, Optimizer, State, check_hparam, filled
from fedsim_np.trees import Array, Arrays

ONE = np.float32(1)
_FIRST_VALUE = "initial_preconditioner_value"


@dataclass(frozen=True)
class _Adaptive(Optimizer):
    """An optimizer with a preconditioner s; its fields are its hyperparameters, and the first value of s if not 0."""

    learning_rate: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check_hparam(field.name, getattr(self, field.name)))

    @property
    def hparam_names(self) -> tuple[str, ...]:
        """The fields, without the first value of s."""
        return tuple(field.name for field in dataclasses.fields(self) if field.name != _FIRST_VALUE)

    def initialize(self, weights: Arrays) -> State:
        """Return the hyperparameters and s."""
        state: State = OrderedDict((name, getattr(self, name)) for name in self.hparam_names)
        state["preconditioner"] = filled(weights, getattr(self, _FIRST_VALUE, 0.0))
        return state

    def _in_float32(self, state: State) -> dict[str, Any]:
        return {name: np.float32(state[name]) for name in self.hparam_names}


@dataclass(frozen=True)
class Adagrad(_Adaptive):
    """Made by `build_adagrad`."""

    is_elementwise = True
    initial_preconditioner_value: float
    epsilon: float

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step."""
        rate, epsilon = self._in_float32(state).values()
        sums = trees.map(lambda s, g: s + np.square(g), state["preconditioner"], gradients)
        weights = trees.map(lambda w, s, g: w - rate * g / np.sqrt(s + epsilon), weights, sums, gradients)
        return OrderedDict(state, preconditioner=sums), weights


@dataclass(frozen=True)
class RMSprop(_Adaptive):
    """Made by `build_rmsprop`."""

    is_elementwise = True
    decay: float
    epsilon: float

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step."""
        rate, decay, epsilon = self._in_float32(state).values()
        means = trees.map(lambda s, g: s + (np.square(g) - s) * (ONE - decay), state["preconditioner"], gradients)
        weights = trees.map(lambda w, s, g: w - rate * g / (np.sqrt(s) + epsilon), weights, means, gradients)
        return OrderedDict(state, preconditioner=means), weights


def _power(base: float, exponent: int) -> np.float32:
    """Return base**exponent of a float32 base, correctly rounded: 1 - b**t cancels, and every bit counts."""
    power: np.float32 = np.float32(math.pow(np.float32(base), exponent))
    return power


@dataclass(frozen=True)
class Adam(_Adaptive):
    """Made by `build_adam`."""

    is_elementwise = True
    beta_1: float
    beta_2: float
    epsilon: float

    def initialize(self, weights: Arrays) -> State:
        """Return the hyperparameters, step 0 and both moments."""
        state = OrderedDict(super().initialize(weights), step=0, accumulator=filled(weights, 0.0))
        state.move_to_end("preconditioner")
        return state

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step."""
        step, h = state["step"] + 1, self._in_float32(state)
        rest_1, rest_2 = ONE - h["beta_1"], ONE - h["beta_2"]
        c = np.sqrt(ONE - _power(h["beta_2"], step)), ONE - _power(h["beta_1"], step)
        first = trees.map(lambda a, g: a + (g - a) * rest_1, state["accumulator"], gradients)
        second = trees.map(
            lambda s, g: self._second_moment(s, np.square(g), rest_2), state["preconditioner"], gradients
        )
        weights = trees.map(
            lambda w, a, s, g: self._step(w, a, np.sqrt(s) + h["epsilon"], c, h), weights, first, second, gradients
        )
        return OrderedDict(state, step=step, accumulator=first, preconditioner=second), weights

    def _second_moment(self, s: Array, square: Array, rest_2: Any) -> Any:
        return s + (square - s) * rest_2

    def _step(self, w: Array, a: Array, root: Array, c: tuple[Any, Any], h: dict[str, Any]) -> Any:
        """Return the next weights; c is numerator and denominator of the correction, h the hyperparameters."""
        return w - h[LEARNING_RATE_KEY] * c[0] / c[1] * a / root


@dataclass(frozen=True)
class AdamW(Adam):
    """Made by `build_adamw`."""

    weight_decay: float

    def initialize(self, weights: Arrays) -> State:
        """Return Adam's state and, as in TFF at its end, the weight decay."""
        state = super().initialize(weights)
        state.move_to_end("weight_decay")
        return state

    def _step(self, w: Array, a: Array, root: Array, c: tuple[Any, Any], h: dict[str, Any]) -> Any:
        return w - h[LEARNING_RATE_KEY] * (c[0] / c[1] * a / root + h["weight_decay"] * w)


@dataclass(frozen=True)
class Yogi(Adam):
    """Made by `build_yogi`."""

    initial_preconditioner_value: float

    def _second_moment(self, s: Array, square: Array, rest_2: Any) -> Any:
        return s + rest_2 * np.sign(square - s) * square


def build_adagrad(learning_rate: float, initial_preconditioner_value: float = 0.1, epsilon: float = 1e-7) -> Optimizer:
    r"""Build Adagrad.

    .. math:: s \leftarrow s + g^2, \qquad w \leftarrow w - \eta g / \sqrt{s + \epsilon}

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`, finite and >= 0.
    initial_preconditioner_value : float
        s before the first step, >= 0.
    epsilon : float
        >= 0; inside the root.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    References
    ----------
    Duchi et al., "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 2011,
    https://www.jmlr.org/papers/v12/duchi11a.html

    Examples
    --------
    >>> optimizer = build_adagrad(1.0, initial_preconditioner_value=0.0, epsilon=0.0)
    >>> weights = (np.float32([1.0]),)
    >>> state, weights = optimizer.next(optimizer.initialize(weights), weights, (np.float32([3.0]),))
    >>> state, weights = optimizer.next(state, weights, (np.float32([4.0]),))
    >>> state["preconditioner"][0].tolist(), weights[0].round(4).tolist()
    ([25.0], [-0.800000011920929])
    """
    return Adagrad(learning_rate, initial_preconditioner_value, epsilon)


def build_rmsprop(learning_rate: float, decay: float = 0.9, epsilon: float = 1e-7) -> Optimizer:
    r"""Build RMSprop.

    .. math:: s \leftarrow s + (1 - d) (g^2 - s), \qquad w \leftarrow w - \eta g / (\sqrt{s} + \epsilon)

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`, finite and >= 0.
    decay : float
        d in [0, 1).
    epsilon : float
        >= 0; outside the root.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    References
    ----------
    Tieleman and Hinton, lecture 6.5, 2012, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Examples
    --------
    >>> optimizer = build_rmsprop(1.0, decay=0.0, epsilon=0.0)
    >>> weights = (np.float32([1.0]),)
    >>> optimizer.next(optimizer.initialize(weights), weights, (np.float32([-4.0]),))[1][0].tolist()
    [2.0]
    """
    return RMSprop(learning_rate, decay, epsilon)


def build_adam(learning_rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Optimizer:
    r"""Build Adam.

    .. math::

        a \leftarrow a + (1 - \beta_1) (g - a), \quad s \leftarrow s + (1 - \beta_2) (g^2 - s), \quad
        w \leftarrow w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{a}{\sqrt{s} + \epsilon}

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`, finite and >= 0.
    beta_1, beta_2 : float
        Decays of the first and the second moment, in [0, 1).
    epsilon : float
        >= 0; outside the root.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, https://arxiv.org/abs/1412.6980

    Examples
    --------
    >>> optimizer = build_adam(0.5, beta_1=0.0, beta_2=0.0, epsilon=0.0)
    >>> weights = (np.float32([1.0]),)
    >>> optimizer.next(optimizer.initialize(weights), weights, (np.float32([8.0]),))[1][0].tolist()
    [0.5]
    """
    return Adam(learning_rate, beta_1, beta_2, epsilon)


def build_adamw(
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    weight_decay: float = 0.004,
) -> Optimizer:
    r"""Build AdamW: Adam with decoupled weight decay.

    .. math::

        w \leftarrow w - \eta \left( \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{a}{\sqrt{s} + \epsilon}
        + \lambda w \right)

    with Adam's moments a and s. Biases decay too, as in TFF.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As for `build_adam`.
    weight_decay : float
        :math:`\lambda`, >= 0.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, https://arxiv.org/abs/1711.05101

    Examples
    --------
    >>> optimizer = build_adamw(0.5, beta_1=0.0, beta_2=0.0, epsilon=0.0, weight_decay=0.5)
    >>> weights = (np.float32([1.0]),)
    >>> optimizer.next(optimizer.initialize(weights), weights, (np.float32([8.0]),))[1][0].tolist()
    [0.25]
    """
    return AdamW(learning_rate, beta_1, beta_2, epsilon, weight_decay)


def build_yogi(
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-3,
    initial_preconditioner_value: float = 1e-6,
) -> Optimizer:
    r"""Build Yogi: Adam whose second moment moves by addition.

    .. math:: s \leftarrow s + (1 - \beta_2)\, \mathrm{sign}(g^2 - s)\, g^2

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As for `build_adam`.
    initial_preconditioner_value : float
        s before the first step, >= 0.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    References
    ----------
    Zaheer et al., "Adaptive methods for nonconvex optimization", NeurIPS 2018

    Examples
    --------
    >>> optimizer = build_yogi(1.0, beta_1=0.0, beta_2=0.5, epsilon=0.0, initial_preconditioner_value=0.0)
    >>> weights = (np.float32([1.0]),)
    >>> state, weights = optimizer.next(optimizer.initialize(weights), weights, (np.float32([2.0]),))
    >>> state["preconditioner"][0].tolist(), weights[0].round(6).tolist()
    ([2.0], [0.0])
    """
    return Yogi(learning_rate, beta_1, beta_2, epsilon, initial_preconditioner_value)
