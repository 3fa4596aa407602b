r"""Models of one layer, :math:`z = x W + b`: softmax regression, the tutorial's, and linear regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedsim_np.datasets import ArraySpec
from fedsim_np.errors import check_int
from fedsim_np.learning.losses import LossName, SoftmaxHead, SquaresHead
from fedsim_np.learning.models.layers import HeadedModel, dense, dense_gradients
from fedsim_np.learning.models.model import ModelWeights
from fedsim_np.trees import Array, Arrays


class LinearModel(HeadedModel):
    r"""A head on :math:`z = x W + b`, started at zero.

    Notes
    -----
    ==============  ============  =============================
    kernel W        (d, c)        ``weights.trainable[0]``
    bias b          (c,)          ``weights.trainable[1]``
    x               (b, d)        float32
    outputs z       (b, c)
    ==============  ============  =============================
    """

    weight_names = ("kernel", "bias")
    num_outputs: int

    def initial_weights(self) -> ModelWeights:
        """Return a kernel (d, c) and a bias (c,) of zeros."""
        shape = self.num_features, self.num_outputs
        return ModelWeights((np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)))

    def outputs(self, trainable: Arrays, x: Array) -> tuple[Array, Any]:
        """Return x W + b."""
        kernel, bias = trainable
        return dense(x, kernel, bias), None

    def backward(self, trainable: Arrays, x: Array, hidden: Any, errors: Array) -> Arrays:
        r"""Return :math:`x^T e` and :math:`\sum_i e_i`."""
        return dense_gradients(x, errors)


class SoftmaxRegression(LinearModel):
    r"""Softmax regression: the tutorial's Keras model, a dense layer with a softmax, started at zero.

    .. math:: p = \mathrm{softmax}(x W + b)

    Parameters
    ----------
    num_features : int
        d, the columns of x.
    num_classes : int
        c, the labels 0..c-1.
    loss : {"keras", "stable", "tutorial"}
        Which cross-entropy, see `fedsim_np.learning.losses`.
    l2 : float
        Adds ``l2/2 (|W|^2 + |b|^2)`` to the objective; reported losses are without it, as Keras's metric is.
    input_spec : mapping of str to ArraySpec, optional
        Of the batches, such as a dataset's `element_spec`, see `HeadedModel`.

    Notes
    -----
    ==============  ============  =============================
    kernel          (d, c)        ``weights.trainable[0]``
    bias            (c,)          ``weights.trainable[1]``
    x               (b, d)        float32
    y               (b, 1), (b,)  integers in [0, c)
    predictions     (b, c)        probabilities
    ==============  ============  =============================

    Examples
    --------
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> output = model.forward_pass(model.initial_weights(), batch)
    >>> round(float(output.loss), 6), output.predictions.shape
    (1.098612, (4, 3))
    >>> print(model.gradient(model.initial_weights(), batch, output)[1].round(4))
    [-0.6667  0.3333  0.3333]
    """

    metrics = SoftmaxHead.metrics

    def __init__(
        self,
        num_features: int = 784,
        num_classes: int = 10,
        loss: LossName = "keras",
        l2: float = 0.0,
        input_spec: Mapping[str, ArraySpec] | None = None,
    ) -> None:
        self.num_classes = self.num_outputs = check_int("num_classes", num_classes, minimum=1)
        self.loss = loss
        super().__init__(SoftmaxHead(self.num_classes, loss), num_features, 1, np.int32, l2, input_spec)

    def softmax_head(self) -> SoftmaxHead:
        """Say that this is softmax regression on ``trainable = (kernel, bias)``, see `IsSoftmaxRegression`."""
        assert isinstance(self.head, SoftmaxHead)
        return self.head


class LinearRegression(LinearModel):
    r"""Linear regression, started at zero.

    .. math:: \mathrm{loss} = |x W + b - y|^2 / 2

    Parameters
    ----------
    num_features : int
        d, the columns of x.
    num_targets : int
        c, the columns of y, float32.
    l2 : float
        Adds ``l2/2 (|W|^2 + |b|^2)`` to the objective; reported losses are without it.
    input_spec : mapping of str to ArraySpec, optional
        Of the batches, such as a dataset's `element_spec`, see `HeadedModel`.

    Examples
    --------
    >>> model = LinearRegression(num_features=2)
    >>> batch = {"x": np.float32([[1, 2]]), "y": np.float32([[3]])}
    >>> output = model.forward_pass(model.initial_weights(), batch)
    >>> float(output.loss), model.gradient(model.initial_weights(), batch, output)[0].tolist()
    (4.5, [[-3.0], [-6.0]])
    """

    metrics = SquaresHead.metrics

    def __init__(
        self,
        num_features: int,
        num_targets: int = 1,
        l2: float = 0.0,
        input_spec: Mapping[str, ArraySpec] | None = None,
    ) -> None:
        self.num_targets = self.num_outputs = check_int("num_targets", num_targets, minimum=1)
        super().__init__(SquaresHead(), num_features, self.num_targets, np.float32, l2, input_spec)
