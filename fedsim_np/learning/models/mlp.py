r"""The multi-layer perceptron: McMahan et al.'s 2NN at its defaults."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from fedsim_np.datasets import ArraySpec
from fedsim_np.errors import argument_type_error, check_int, unknown_name
from fedsim_np.learning.losses import SoftmaxHead
from fedsim_np.learning.models.layers import HeadedModel, dense, dense_gradients
from fedsim_np.learning.models.model import ModelWeights
from fedsim_np.trees import Array, Arrays

Activation = Literal["relu", "tanh", "sigmoid"]


ACTIVATIONS: dict[Activation, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda h: h > 0),
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "sigmoid": (lambda z: (1 + np.tanh(z / 2)) / 2, lambda h: h * (1 - h)),
}
"""Name -> the function h of z, and its slope as a function of h."""


class MLP(HeadedModel):
    r"""A multi-layer perceptron that classifies.

    .. math:: h_0 = x, \quad h_l = \sigma(h_{l-1} W_l + b_l), \quad p = \mathrm{softmax}(h_L W_{L+1} + b_{L+1})

    Parameters
    ----------
    num_features : int
        d, the columns of x.
    hidden : sequence of int
        The hidden layers' units.
    num_classes : int
        c, the labels 0..c-1.
    activation : {"relu", "tanh", "sigmoid"}
        :math:`\sigma`.
    seed : int
        Of the first weights: kernels are uniform within :math:`\pm\sqrt{6 / (m + n)}` for m inputs and n outputs
        (Glorot and Bengio 2010), drawn from (seed, layer); biases are zero.
    input_spec : mapping of str to ArraySpec, optional
        Of the batches, such as a dataset's `element_spec`, see `HeadedModel`.

    Notes
    -----
    ``weights.trainable`` is ``(W_1, b_1, W_2, b_2, ...)``. x is (b, d) float32, y (b, 1) or (b,) integers in [0, c),
    predictions are probabilities (b, c). The loss is Keras's cross-entropy, see `fedsim_np.learning.losses`.

    References
    ----------
    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    https://arxiv.org/abs/1602.05629: two hidden layers of 200 units with ReLU, 199,210 parameters.

    Examples
    --------
    >>> model = MLP()
    >>> weights = model.initial_weights()
    >>> sum(w.size for w in weights.trainable), [w.shape for w in weights.trainable[::2]]
    (199210, [(784, 200), (200, 200), (200, 10)])
    >>> model.predict_on_batch(weights, np.zeros((1, 784), np.float32)).round(2).tolist()[0][:3]
    [0.10000000149011612, 0.10000000149011612, 0.10000000149011612]
    """

    metrics = SoftmaxHead.metrics

    def __init__(
        self,
        num_features: int = 784,
        hidden: Sequence[int] = (200, 200),
        num_classes: int = 10,
        activation: Activation = "relu",
        seed: int = 0,
        input_spec: Mapping[str, ArraySpec] | None = None,
    ) -> None:
        if isinstance(hidden, str) or not isinstance(hidden, Sequence):
            raise argument_type_error("hidden", "a sequence of integers", hidden)
        if activation not in get_args(Activation):
            raise unknown_name("activation", get_args(Activation), activation)
        self.hidden = tuple(check_int("hidden", units, minimum=1) for units in hidden)
        self.num_classes = check_int("num_classes", num_classes, minimum=1)
        self.activation, self.seed = activation, check_int("seed", seed, minimum=0)
        self.weight_names = [f"{kind}_{layer}" for layer in range(len(hidden) + 1) for kind in ("kernel", "bias")]
        super().__init__(SoftmaxHead(self.num_classes), num_features, 1, np.int32, input_spec=input_spec)

    def initial_weights(self) -> ModelWeights:
        """Return kernels drawn from (seed, layer), and biases of zeros."""
        weights: list[Array] = []
        units = itertools.pairwise((self.num_features, *self.hidden, self.num_classes))
        for layer, (m, n) in enumerate(units):
            kernel = np.random.default_rng([layer, self.seed]).uniform(-1, 1, (m, n)) * np.sqrt(6 / (m + n))
            weights += [kernel.astype(np.float32), np.zeros(n, np.float32)]
        return ModelWeights(tuple(weights))

    def outputs(self, trainable: Arrays, x: Array) -> tuple[Array, list[Array]]:
        """Return the last layer's outputs, and every layer's inputs."""
        *layers, last = zip(trainable[::2], trainable[1::2], strict=True)
        activate, inputs = ACTIVATIONS[self.activation][0], [x]
        for kernel, bias in layers:
            inputs.append(activate(dense(inputs[-1], kernel, bias)))
        return dense(inputs[-1], *last), inputs

    def backward(self, trainable: Arrays, x: Array, hidden: list[Array], errors: Array) -> Arrays:
        """Return the gradients; the last layer's are the first to be found."""
        slope, kernels = ACTIVATIONS[self.activation][1], trainable[::2]
        gradients: Arrays = dense_gradients(hidden[-1], errors)
        # Of each layer but the last, from behind: the kernel after it, what it made, and what it was given.
        for kernel, h, given in zip(kernels[:0:-1], hidden[:0:-1], hidden[-2::-1], strict=True):
            errors = np.matmul(errors, kernel.swapaxes(-1, -2)) * slope(h)
            gradients = (*dense_gradients(given, errors), *gradients)
        return gradients
