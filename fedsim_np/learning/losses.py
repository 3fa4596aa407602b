"""Three cross-entropies of softmax regression, and their gradients.

All three compare the probabilities ``p = softmax(z)`` of the logits ``z`` with a label ``y``, and differ only where a
probability gets close to 0 or 1 in float32:

=============== =========================================================== =====================================
name            loss of one example                                         gradient in the logits
=============== =========================================================== =====================================
``"keras"``     log(sum c) - log c_y with c = clip(p, 1e-7, 1 - 1e-7)       p - onehot(y); 0 where p_y is clipped
``"stable"``    log(sum exp z) - z_y                                        p - onehot(y)
``"tutorial"``  -sum(onehot(y) * log p)                                     p - onehot(y)
=============== =========================================================== =====================================

``"keras"`` is what Keras's ``SparseCategoricalCrossentropy`` computes of a softmax layer's output, and what the
tutorial trains. ``"tutorial"`` is the tutorial's hand-written model: once any probability underflows to 0, or to a
subnormal number, which TensorFlow takes for 0, ``0 * log 0`` makes the loss and its gradient NaN.

Shapes: ``z`` and ``p`` are (b, c), ``labels`` (b,) integers in [0, c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EPSILON = np.float32(1e-7)
TINY = np.finfo(np.float32).tiny  # the smallest normal number, 1.2e-38
_ONE_LESS = np.float32(1) - EPSILON  # 0.9999999, rounded to float32 as Keras does


class Loss(NamedTuple):
    """A loss of logits and labels.

    Attributes
    ----------
    name : str
    examples : callable
        ``(z, p, rows, labels) -> (b,)`` losses, with ``rows = arange(b)``.
    factor : callable or None
        ``(p, p_y) -> (b,)`` factor of each example's gradient ``p - onehot(y)``, None if it is always 1.
    """

    name: str
    examples: Callable[[Array, Array, Array, Array], Array]
    factor: Callable[[Array, Array], Array] | None


def softmax(z: Array) -> Array:
    """Return ``exp(z) / sum(exp(z))`` over the last axis, without overflow.

    Examples
    --------
    >>> softmax(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    exp: Array = np.exp(z - z.max(axis=-1, keepdims=True))
    exp /= exp.sum(axis=-1, keepdims=True)
    return exp


def _keras(z: Array, p: Array, rows: Array, labels: Array) -> Array:
    clipped = np.clip(p, EPSILON, _ONE_LESS)
    losses: Array = np.log(clipped.sum(axis=-1)) - np.log(clipped[rows, labels])
    return losses


def _keras_factor(p: Array, p_label: Array) -> Array:
    inside: Array = (p_label >= EPSILON) & (p_label <= _ONE_LESS)
    return inside.astype(p.dtype)


def _stable(z: Array, p: Array, rows: Array, labels: Array) -> Array:
    shifted = z - z.max(axis=-1, keepdims=True)
    losses: Array = np.log(np.exp(shifted).sum(axis=-1)) - shifted[rows, labels]
    return losses


def _underflown(p: Array) -> Array:
    """NaN for an example with a probability of 0, else 1; TensorFlow flushes subnormal numbers to 0."""
    return np.where((p < TINY).any(axis=-1), np.nan, 1).astype(p.dtype)


def _tutorial(z: Array, p: Array, rows: Array, labels: Array) -> Array:
    with np.errstate(divide="ignore"):
        losses: Array = -np.log(p[rows, labels]) * _underflown(p)
    return losses


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("keras", _keras, _keras_factor),
        Loss("stable", _stable, None),
        Loss("tutorial", _tutorial, lambda p, p_label: _underflown(p)),
    )
}
"""The losses by name."""
