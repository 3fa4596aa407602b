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
subnormal number, which TensorFlow takes for 0, ``0 * log 0`` makes the gradient NaN, and the loss too unless it was
the label's own probability, whose loss is infinite.

Shapes: ``z`` and ``p`` are (b, c), or (c, b) where the classes' axis is 0; ``z_y`` and ``p_y`` (b,) are the labels'.
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
        ``(z, p, z_y, p_y, axis) -> (b,)`` losses; the classes lie along `axis`.
    factor : callable or None
        ``(p, p_y, axis) -> (b,)`` factor of each example's gradient ``p - onehot(y)``, or None where all of them are
        1; None in place of the function if they always are.
    uses_logits : bool
        Whether the losses need z.
    """

    name: str
    examples: Callable[[Array, Array, Array, Array, int], Array]
    factor: Callable[[Array, Array, int], Array | None] | None
    uses_logits: bool = False


def softmax(z: Array, axis: int = -1) -> Array:
    """Return ``exp(z) / sum(exp(z))`` over the classes' axis, without overflow.

    Examples
    --------
    >>> softmax(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    exp: Array = np.exp(z - z.max(axis=axis, keepdims=True))
    exp /= exp.sum(axis=axis, keepdims=True)
    return exp


def _clip(p: Array) -> Array:
    return np.asarray(np.minimum(np.maximum(p, EPSILON), _ONE_LESS))


def _keras(z: Array, p: Array, z_label: Array, p_label: Array, axis: int) -> Array:
    losses: Array = np.log(_clip(p).sum(axis=axis)) - np.log(_clip(p_label))
    return losses


def _keras_factor(p: Array, p_label: Array, axis: int) -> Array | None:
    inside: Array = (p_label >= EPSILON) & (p_label <= _ONE_LESS)
    return None if inside.all() else inside.astype(p.dtype)


def _stable(z: Array, p: Array, z_label: Array, p_label: Array, axis: int) -> Array:
    top = z.max(axis=axis, keepdims=True)
    losses: Array = np.log(np.exp(z - top).sum(axis=axis)) - (z_label - top.squeeze(axis))
    return losses


def _underflown(p: Array, p_label: Array, axis: int) -> Array | None:
    """NaN for an example with a probability of 0, else 1; TensorFlow flushes subnormal numbers to 0."""
    small = p < TINY
    return np.where(small.any(axis=axis), np.nan, 1).astype(p.dtype) if small.any() else None


def _tutorial(z: Array, p: Array, z_label: Array, p_label: Array, axis: int) -> Array:
    small = p < TINY
    if not small.any():
        plain: Array = -np.log(p_label)
        return plain
    # 0 * log 0 is NaN where another class has underflown, 1 * log 0 infinite where the label's own has.
    others = small.sum(axis=axis) - (p_label < TINY)
    with np.errstate(divide="ignore"):
        losses = -np.log(np.where(p_label < TINY, 0, p_label))
    return np.where(others > 0, np.nan, losses).astype(p.dtype)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("keras", _keras, _keras_factor),
        Loss("stable", _stable, None, uses_logits=True),
        Loss("tutorial", _tutorial, _underflown),
    )
}
"""The losses by name."""
