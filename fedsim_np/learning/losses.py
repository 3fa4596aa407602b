r"""Heads: where a model's outputs meet the labels, and where predictions, losses and gradients come from.

A *head* is the last part of a model, without weights: of outputs z (..., c) and labels y it makes predictions, a loss
of each example, and the errors :math:`\partial\,\mathrm{loss}_i / \partial z_i` that the layers before it pass on. Any
axes may stand in front: an example's, a client's, a step's. All engines compute with these functions, each in its own
order of memory, so that a loss is written once.

`SoftmaxHead` classifies. It compares the probabilities ``p = softmax(z)`` with a label by one of three cross-entropies,
which differ only where a probability gets close to 0 or 1 in float32:

=============== =========================================================== =====================================
name            loss of one example                                         gradient in the outputs
=============== =========================================================== =====================================
``"keras"``     log(sum c) - log c_y with c = clip(p, 1e-7, 1 - 1e-7)       p - onehot(y); 0 where p_y is clipped
``"stable"``    log(sum exp z) - z_y                                        p - onehot(y)
``"tutorial"``  -sum(onehot(y) * log p)                                     p - onehot(y)
=============== =========================================================== =====================================

``"stable"`` is Keras's cross-entropy ``from_logits``, and the accuracy that goes with it is of the outputs as well:
they differ where probabilities tie, and may be infinite where these are NaN. ``"keras"`` is what Keras's
``SparseCategoricalCrossentropy`` computes of a softmax layer's output, and what the tutorial trains. ``"tutorial"`` is
the tutorial's hand-written model: once any probability underflows to 0, or to a subnormal number, which TensorFlow
takes for 0, ``0 * log 0`` makes the gradient NaN, and the loss too unless it was the label's own probability, whose
loss is infinite.

`SquaresHead` is regression's: half the squared distance to the targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np

from fedsim_np.errors import data_error, unknown_name
from fedsim_np.learning.metrics import CLASSIFICATION, REGRESSION, ExampleMetrics, LabelEntries
from fedsim_np.trees import Array

LossName = Literal["keras", "stable", "tutorial"]

EPSILON = np.float32(1e-7)
ONE = np.float32(1)
TINY = np.finfo(np.float32).tiny  # the smallest normal number, 1.2e-38
_NEARLY_ONE = np.float32(1 - 2e-7)  # a label's error where its probability is near EPSILON
_SMALLEST_SUM, _LARGEST_SUM = np.float32(1e-20), np.float32(1e20)
_ONE_LESS = np.float32(1) - EPSILON  # 0.9999999, rounded to float32 as Keras does


class Head(Protocol):
    """What the last part of a model offers."""

    @property
    def metrics(self) -> ExampleMetrics:
        """The metrics that go with it."""

    def check(self, y: Array) -> None:
        """Raise a `DataError` if labels (..., t) break a rule."""

    def targets(self, y: Array) -> Any:
        """Return labels (..., t) in the form that `losses` and `errors` take."""

    def predict(self, z: Array, out: Array | None = None) -> Array:
        """Return predictions (..., c) of outputs z (..., c), in `out` if it is given."""

    def losses(self, z: Array, predictions: Array, targets: Any) -> Array:
        """Return the loss of each example, (...)."""

    def errors(self, predictions: Array, targets: Any, scale: Any = ONE, out: Array | None = None) -> Array:
        """Return the gradient of each example's loss in its outputs, (..., c), times `scale` (...)."""


@runtime_checkable
class ReadsOutputs(Protocol):
    """A head that says whether it, and its accuracy, look at outputs; others look at predictions alone."""

    @property
    def needs_outputs(self) -> bool:
        """Whether losses and accuracy are of z itself; `losses` may be given any array for it otherwise."""


def outputs_to_measure(head: Head, z: Array) -> Array | None:
    """Return the outputs for a head's metrics, or None where they are of predictions alone."""
    return z if isinstance(head, ReadsOutputs) and head.needs_outputs else None


def softmax(z: Array, out: Array | None = None) -> Array:
    """Return ``exp(z) / sum(exp(z))`` over the last axis, without overflow.

    Examples
    --------
    >>> softmax(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    # The ufuncs' own reductions: on a batch, the methods take half as long again.
    p: Array = np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=out)
    np.exp(p, out=p)
    p /= np.add.reduce(p, axis=-1, keepdims=True)
    return p


def unguarded_softmax(z: Array, axis: int, out: Array, sums: Array) -> None:
    """Compute ``exp(z) / sum(exp(z))``; right where `are_safe` says that the sums are.

    It saves two passes of `softmax`, which count where a batch is small.
    """
    np.exp(z, out=out)
    np.add.reduce(out, axis=axis, out=sums, keepdims=True)
    out /= sums


def are_safe(sums: Array) -> Array:
    """Return where sums of exponentials are in float32's range, with digits to spare.

    Examples
    --------
    >>> are_safe(np.float32([10, 1e-30, np.inf, np.nan])).tolist()
    [True, False, False, False]
    """
    return np.asarray((sums > _SMALLEST_SUM) & (sums < _LARGEST_SUM))


class CrossEntropy(NamedTuple):
    """One of the three, of an array (..., c) and the labels' entries in it (...).

    Attributes
    ----------
    losses : callable
        Of probabilities p and p_y, or of outputs z and z_y: -> (...).
    factors : callable
        Of p and p_y: factors (...) of the gradients ``p - onehot(y)``, or None where all are 1.
    are_plain : callable or None
        Of e = p - onehot(y): whether these are the gradients, to rounding. It may be False where they are, if rarely.
        None where the digits of the smallest probabilities matter.
    is_of_outputs : bool
        What `losses` is of.
    """

    losses: Callable[[Array, Array], Array]
    factors: Callable[[Array, Array], Array | None]
    are_plain: Callable[[Array], Any] | None
    is_of_outputs: bool = False


def _keras(p: Array, p_y: Array) -> Array:
    losses: Array = np.log(_clip(p).sum(axis=-1)) - np.log(_clip(p_y))
    return losses


def _clip(p: Array) -> Array:
    return np.asarray(np.minimum(np.maximum(p, EPSILON), _ONE_LESS))


def _keras_factors(p: Array, p_y: Array) -> Array | None:
    inside: Array = (p_y >= EPSILON) & (p_y <= _ONE_LESS)
    return None if np.logical_and.reduce(inside, axis=None) else inside.astype(p.dtype)


def _stable(z: Array, z_y: Array) -> Array:
    top = z.max(axis=-1, keepdims=True)
    losses: Array = np.log(np.exp(z - top).sum(axis=-1)) - (z_y - top[..., 0])
    return losses


def _tutorial(p: Array, p_y: Array) -> Array:
    small = p < TINY
    if not small.any():
        return np.asarray(-np.log(p_y))
    # 0 * log 0 is NaN where another class has underflown, 1 * log 0 infinite where the label's own has.
    others = small.sum(axis=-1) - (p_y < TINY)
    with np.errstate(divide="ignore"):
        losses = -np.log(np.where(p_y < TINY, 0, p_y))
    return np.where(others > 0, np.nan, losses).astype(p.dtype)


def _tutorial_factors(p: Array, p_y: Array) -> Array | None:
    small = p < TINY
    return np.where(small.any(axis=-1), np.nan, 1).astype(p.dtype) if small.any() else None


LOSSES: dict[LossName, CrossEntropy] = {
    # Where p_y is so near 1 that Keras's factor is 0, all of p - onehot(y) is no larger than p's rounding.
    "keras": CrossEntropy(_keras, _keras_factors, lambda e: np.minimum.reduce(e, axis=None, initial=0) > -_NEARLY_ONE),
    "stable": CrossEntropy(_stable, lambda p, p_y: None, lambda e: True, is_of_outputs=True),
    "tutorial": CrossEntropy(_tutorial, _tutorial_factors, None),
}
"""The cross-entropies by name."""


@dataclass(frozen=True)
class SoftmaxHead:
    """Classification by softmax and a cross-entropy.

    Parameters
    ----------
    num_classes : int
        c: a label is an integer in [0, c).
    loss : {"keras", "stable", "tutorial"}

    Examples
    --------
    >>> head, z = SoftmaxHead(num_classes=2), np.float32([[0, 0], [0, 0]])
    >>> p, targets = head.predict(z), head.targets(np.array([[0], [1]]))
    >>> head.losses(z, p, targets).round(4).tolist(), head.errors(p, targets).tolist()
    ([0.6930999755859375, 0.6930999755859375], [[-0.5, 0.5], [0.5, -0.5]])
    """

    num_classes: int
    loss: LossName = "keras"
    metrics = CLASSIFICATION

    def __post_init__(self) -> None:
        """Check the loss's name."""
        if self.loss not in LOSSES:
            raise unknown_name("loss", sorted(get_args(LossName)), self.loss)

    def check(self, y: Array) -> None:
        """Raise a `DataError` if a label is no class."""
        # Seen as unsigned, a negative label is huge: one test finds both kinds of bad label.
        if y.size and y.view(f"=u{y.itemsize}").max() >= self.num_classes:
            bad = y[(y < 0) | (y >= self.num_classes)][0]
            raise data_error(f"labels must lie in [0, {self.num_classes - 1}]", bad, field="y")

    def targets(self, y: Array) -> LabelEntries:
        """Return where labels (..., 1) have their entries in arrays (..., c)."""
        labels = y[..., 0]
        self.check(labels)
        return LabelEntries(labels)

    def predict(self, z: Array, out: Array | None = None) -> Array:
        """Return probabilities."""
        return softmax(z, out)

    def losses(self, z: Array, predictions: Array, targets: LabelEntries) -> Array:
        """Return the cross-entropies."""
        compared = z if self.needs_outputs else predictions
        return LOSSES[self.loss].losses(compared, targets.of(compared))

    @property
    def needs_outputs(self) -> bool:
        """Whether losses and accuracy are of z itself, as Keras has them ``from_logits``."""
        return LOSSES[self.loss].is_of_outputs

    @property
    def may_be_plain(self) -> bool:
        """Whether `unguarded_softmax` and `are_plain` can take the places of `predict` and `errors`."""
        return LOSSES[self.loss].are_plain is not None

    def are_plain(self, differences: Array) -> bool:
        """Return whether p - onehot(y) are the errors, to rounding; it may be False where they are, if rarely."""
        are_plain = LOSSES[self.loss].are_plain
        return are_plain is not None and bool(are_plain(differences))

    def errors(self, predictions: Array, targets: LabelEntries, scale: Any = ONE, out: Array | None = None) -> Array:
        """Return p - onehot(y), times the loss's factor and the scale."""
        p_y = targets.of(predictions)
        factors = LOSSES[self.loss].factors(predictions, p_y)
        weights = scale if factors is None else scale * factors
        errors: Array = np.multiply(predictions, weights[..., np.newaxis], out=out)
        targets.put(errors, (p_y - 1) * weights)  # not p - 1 times the weight, which would be rounded twice
        return errors


@dataclass(frozen=True)
class SquaresHead:
    r"""Regression: the loss is :math:`|z - y|^2 / 2`, the predictions are the outputs.

    Examples
    --------
    >>> head, z, y = SquaresHead(), np.float32([[3.0]]), np.float32([[1.0]])
    >>> head.losses(z, z, y).tolist(), head.errors(z, y).tolist()
    ([2.0], [[2.0]])
    """

    metrics = REGRESSION

    def check(self, y: Array) -> None:
        """Take any targets."""

    def targets(self, y: Array) -> Array:
        """Return the targets (..., c) themselves."""
        return y

    def predict(self, z: Array, out: Array | None = None) -> Array:
        """Return the outputs."""
        return z if out is None else np.positive(z, out=out)

    def losses(self, z: Array, predictions: Array, targets: Array) -> Array:
        """Return half the squared distances."""
        return np.asarray(np.square(predictions - targets).sum(axis=-1) / 2)

    def errors(self, predictions: Array, targets: Array, scale: Any = ONE, out: Array | None = None) -> Array:
        """Return z - y, times the scale."""
        return np.asarray(np.multiply(predictions - targets, scale[..., np.newaxis], out=out))
