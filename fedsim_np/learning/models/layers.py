"""Models of layers that end in a head: the layers make outputs of x, the head predictions, losses and errors of them.

::

    x (b, d) --layers--> z (b, c) --head, with y--> predictions, losses (b,), errors dloss/dz (b, c)
                            <-------backward through the layers-------------/

Every array may have the clients' axis in front: the layers are matrix products, which take it, and the head takes any
axes. So one text computes a client's batch, and a batch of each of k clients.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec
from fedsim_np.errors import check_float, check_int
from fedsim_np.learning.losses import Head, outputs_to_measure
from fedsim_np.learning.models.checks import narrowed
from fedsim_np.learning.models.model import Batch, BatchOutput, Model, ModelWeights
from fedsim_np.trees import Array, Arrays


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """Return x W + b, (..., b, c)."""
    z: Array = np.matmul(x, kernel)
    z += bias[..., np.newaxis, :]
    return z


def dense_gradients(x: Array, errors: Array) -> tuple[Array, Array]:
    r"""Return :math:`x^T e` and :math:`\sum_i e_i`, what errors (..., b, c) in x W + b are in W and in b."""
    return np.matmul(x.swapaxes(-1, -2), errors), errors.sum(axis=-2)


class HeadedModel(Model):
    """Layers that end in a head; a subclass writes `outputs`, `backward` and `initial_weights`.

    Parameters
    ----------
    head : Head
    num_features : int
        d, the columns of x.
    num_targets : int
        Columns of y: 1 for labels that are classes.
    dtype : dtype-like
        Of y.
    l2 : float
        The objective is the loss and ``l2/2`` times the sum of the squared weights. Reported losses are without it.
    input_spec : mapping of str to ArraySpec, optional
        Of the batches, such as a dataset's `element_spec`: it fixes what they may be, and what the type signature says
        of them, their length (``batch(..., drop_remainder=True)``) and the labels' integers. By default batches have
        any length, and labels that are classes are int32.
    """

    def __init__(
        self,
        head: Head,
        num_features: int,
        num_targets: int,
        dtype: npt.DTypeLike,
        l2: float = 0.0,
        input_spec: Mapping[str, ArraySpec] | None = None,
    ) -> None:
        self.num_features = check_int("num_features", num_features, minimum=1)
        self.head, self.l2, self._num_targets = head, check_float("l2", l2, minimum=0.0), num_targets
        x, y = ArraySpec((None, self.num_features), np.float32), ArraySpec((None, num_targets), dtype)
        self.input_spec = OrderedDict(x=x, y=y)
        if input_spec is not None:
            self.input_spec = narrowed(self.input_spec, input_spec)

    @abc.abstractmethod
    def outputs(self, trainable: Arrays, x: Array) -> tuple[Array, Any]:
        """Return the outputs z (..., b, c), and what `backward` wants to find again."""

    @abc.abstractmethod
    def backward(self, trainable: Arrays, x: Array, hidden: Any, errors: Array) -> Arrays:
        """Return the gradients that errors (..., b, c) in the outputs make, summed over the examples."""

    def head_outputs(self, trainable: Arrays, x: Array) -> Array:
        """Return the outputs z (..., b, c) of x (..., b, d)."""
        return self.outputs(trainable, x)[0]

    def predict_on_batch(self, weights: ModelWeights, x: Array) -> Array:
        """Return the head's predictions (b, c)."""
        return self.head.predict(self.head_outputs(weights.trainable, x))

    def forward_pass(self, weights: ModelWeights, batch: Batch) -> BatchOutput:
        """Return the mean loss and the predictions (b, c)."""
        losses, predictions, z, cache = self._forward(weights.trainable, batch["x"], np.asarray(batch["y"]))
        n = len(losses)
        return BatchOutput(losses.sum() / losses.dtype.type(max(1, n)), predictions, n, cache, z)

    def gradient(self, weights: ModelWeights, batch: Batch, output: BatchOutput) -> Arrays:
        """Return the gradients of the mean loss and the penalty."""
        targets, hidden = output.cache
        errors = self.head.errors(output.predictions, targets)
        errors /= errors.dtype.type(max(1, len(errors)))
        return self._gradients(weights.trainable, batch["x"], hidden, errors)

    def stacked_forward_and_gradient(
        self, weights: Arrays, x: Array, y: Array, mask: Array
    ) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each of k clients, forward and backward at once, see `Stackable`."""
        losses, predictions, z, (targets, hidden) = self._forward(weights, x, y)
        n = np.maximum(mask.sum(axis=1), 1).astype(losses.dtype)
        errors = self.head.errors(predictions, targets)
        errors /= n[:, np.newaxis, np.newaxis]
        errors[~mask] = 0
        loss = np.where(mask, losses, 0).sum(axis=1) / n
        return BatchOutput(loss, predictions, outputs=z), self._gradients(weights, x, hidden, errors)

    def penalty(self, weights: ModelWeights) -> float:
        """Return l2/2 times the sum of the squared weights."""
        return self.l2 / 2 * sum(float(np.square(w, dtype=np.float64).sum()) for w in weights.trainable)

    def check_labels(self, y: Array) -> None:
        """Raise a `DataError` if the head does not take these labels."""
        self.head.check(y)

    def _forward(self, trainable: Arrays, x: Array, y: Array) -> tuple[Array, Array, Array | None, Any]:
        """Return losses, predictions, the outputs where the head needs them, and what `gradient` wants to find."""
        z, hidden = self.outputs(trainable, x)
        targets = self.head.targets(y.reshape(*x.shape[:-1], self._num_targets))
        predictions = self.head.predict(z)
        losses = self.head.losses(z, predictions, targets)
        return losses, predictions, outputs_to_measure(self.head, z), (targets, hidden)

    def _gradients(self, trainable: Arrays, x: Array, hidden: Any, errors: Array) -> Arrays:
        gradients = self.backward(trainable, x, hidden, errors)
        if not self.l2:
            return gradients
        return trees.map(lambda g, w: g + w.dtype.type(self.l2) * w, gradients, trainable)
