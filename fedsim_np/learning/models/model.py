"""Models: weights and a batch in, a loss and gradients out.

A model is functional. It owns no weights: `Model.initial_weights` makes them, every method takes them as an argument,
and nothing is changed in place. So one instance serves every client, and a round is a function of its inputs.

Shapes: b examples in a batch, d features, c classes, k clients. Weights, data and gradients are float32; a model whose
first weights are float64 is computed in float64.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec
from fedsim_np.errors import argument_error, argument_type_error
from fedsim_np.learning import metrics as metrics_lib
from fedsim_np.learning.losses import Head, SoftmaxHead
from fedsim_np.learning.shortcuts import inherit_no_shortcut
from fedsim_np.trees import Array, Arrays

Batch = Mapping[str, Array]
Gradients = Sequence[Array | None]


class ModelWeights(NamedTuple):
    """What the server and the clients exchange.

    Attributes
    ----------
    trainable : tuple of ndarray
        Moved by the optimizers.
    non_trainable : tuple of ndarray
        Broadcast to the clients, never changed.
    """

    trainable: Arrays
    non_trainable: Arrays = ()


class BatchOutput(NamedTuple):
    """What a forward pass gives.

    Attributes
    ----------
    loss : float
        Mean over the batch.
    predictions : ndarray, shape (b, ...)
        The model's outputs.
    num_examples : int or None
        Examples in the batch (b); None stands for ``len(predictions)``.
    cache : object
        What the model wants to find again in its backward pass.
    """

    loss: Any
    predictions: Array
    num_examples: int | None = None
    cache: Any = None


class Model(abc.ABC):
    """The protocol for a model of one's own: four methods, and a line for its metrics.

    A model may offer more, which makes it fast: `forward_and_gradient`, and what `Stackable` says. A class that
    overrides `predict_on_batch`, `forward_pass` or `gradient` inherits nothing of that: it computes something else, and
    has to offer it anew.

    Attributes
    ----------
    input_spec : mapping of str to ArraySpec
        The fields of a batch; the first axis is None, the examples.
    metrics : metrics.ExampleMetrics
        What is reported, of predictions and the field ``y``: `metrics.CLASSIFICATION`, `metrics.REGRESSION`, or these
        with means of one's own on top. A model with other metrics writes `initial_metrics`, `unfinalized_metrics` and
        `metric_finalizers` instead.
    weight_names : sequence of str, optional
        Of the trainable arrays, where they are stored.
    """

    input_spec: Mapping[str, ArraySpec]
    metrics: metrics_lib.ExampleMetrics | None = None
    weight_names: Sequence[str] | None = None
    _writes_metrics: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Leave behind what is inherited for speed, or of metrics, where a class computes something else."""
        super().__init_subclass__(**keywords)
        shortcuts = (
            Model.forward_and_gradient,
            Stackable.stacked_forward_and_gradient,
            EndsInHead.head_outputs,
            IsSoftmaxRegression.softmax_head,
        )
        inherit_no_shortcut(cls, Model, shortcuts, of=[Model.predict_on_batch, Model.forward_pass, Model.gradient])
        own = (Model.initial_metrics, Model.unfinalized_metrics, Model.metric_finalizers)
        if "metrics" in vars(cls) or any(method.__name__ in vars(cls) for method in own):
            cls._writes_metrics = "metrics" not in vars(cls)

    @abc.abstractmethod
    def initial_weights(self) -> ModelWeights:
        """Return the weights before the first round."""

    @abc.abstractmethod
    def predict_on_batch(self, weights: ModelWeights, x: Array) -> Array:
        """Return the model's outputs for inputs of shape (b, ...)."""

    @abc.abstractmethod
    def forward_pass(self, weights: ModelWeights, batch: Batch) -> BatchOutput:
        """Return loss and predictions of a batch."""

    @abc.abstractmethod
    def gradient(self, weights: ModelWeights, batch: Batch, output: BatchOutput) -> Gradients:
        """Return the gradient of ``output.loss`` in every trainable tensor; `output` is the batch's forward pass.

        None leaves that tensor alone, its optimizer's state as well.
        """

    def forward_and_gradient(self, weights: ModelWeights, batch: Batch) -> tuple[BatchOutput, Gradients]:
        """Return a batch's forward pass and gradient; to be overridden where both at once are faster."""
        output = self.forward_pass(weights, batch)
        return output, self.gradient(weights, batch, output)

    def penalty(self, weights: ModelWeights) -> float:
        """Return what the objective has beside the loss, and `gradient` the gradient of: regularisation, 0 if none."""
        return 0.0

    def check_labels(self, y: Array) -> None:  # noqa: B027
        """Raise a `DataError` if labels break a rule of the model's; by default any will do."""

    def initial_metrics(self) -> metrics_lib.Unfinalized:
        """Return the unfinalized metrics of no examples."""
        return self._example_metrics().initial()

    def unfinalized_metrics(self, batch: Batch, output: BatchOutput) -> metrics_lib.Unfinalized:
        """Return the unfinalized metrics of one batch."""
        return self._example_metrics().of_batch(output.predictions, np.asarray(batch["y"]), output.loss)

    def metric_finalizers(self) -> metrics_lib.Finalizers:
        """Return a function of its sums for every metric."""
        return self._example_metrics().finalizers()

    @property
    def declared_metrics(self) -> metrics_lib.ExampleMetrics | None:
        """What `metrics` says, if that is all; None where the class writes methods of its own."""
        return None if self._writes_metrics else self.metrics

    def _example_metrics(self) -> metrics_lib.ExampleMetrics:
        if self.metrics is None:
            rule = "an attribute such as metrics.CLASSIFICATION, or the methods that stand for it be written"
            raise argument_type_error(f"metrics of {type(self).__name__}", rule, None)
        return self.metrics


@runtime_checkable
class Stackable(Protocol):
    """A model that computes batches of many clients at once, each with weights of its own.

    Its fields are x and y, and the rows of each have one shape.
    """

    def stacked_forward_and_gradient(
        self, weights: Arrays, x: Array, y: Array, mask: Array
    ) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each of k clients, forward and backward at once.

        Parameters
        ----------
        weights : tuple of ndarray, each (k, ...)
            The clients' trainable tensors.
        x, y : ndarray, shapes (k, b, ...)
        mask : ndarray of bool, shape (k, b)
            Which of the rows are examples; the others count for nothing.

        Returns
        -------
        BatchOutput
            ``loss`` (k,) and ``predictions`` (k, b, ...).
        gradients : tuple of ndarray, each (k, ...)
        """


@runtime_checkable
class EndsInHead(Protocol):
    """A model whose outputs are made row by row, and whose predictions and losses a `losses.Head` makes of them."""

    head: Head

    def head_outputs(self, trainable: Arrays, x: Array) -> Array:
        """Return the outputs z (..., b, c) of x (..., b, d)."""


@runtime_checkable
class IsSoftmaxRegression(Protocol):
    """Softmax regression: a softmax head on x W + b, ``trainable = (W, b)``, and l2/2 |W, b|^2 beside the loss."""

    l2: float

    def softmax_head(self) -> SoftmaxHead:
        """Return the head."""


def forward_and_gradient(model: Model, weights: ModelWeights, batch: Batch) -> tuple[BatchOutput, Any]:
    """Return a batch's forward pass and the gradients, of the weights' dtypes; None where a weight is left alone.

    Raises
    ------
    ValueError
        If the gradients are not shaped as the trainable weights.
    """
    output, given = model.forward_and_gradient(weights, batch)
    gradients = []
    for gradient, w in zip(given, weights.trainable, strict=True):
        fitting = gradient if gradient is None else np.asarray(gradient, w.dtype)
        if fitting is not None and fitting.shape != w.shape:
            rule = "shaped as the trainable weights"
            raise argument_error(f"gradient of {type(model).__name__}", rule, fitting.shape)
        gradients.append(fitting)
    return output, tuple(gradients)


def num_examples(output: BatchOutput) -> int:
    """Return the number of examples in a batch, from what its forward pass gave."""
    if output.num_examples is None and np.ndim(output.predictions) == 0:
        raise argument_error("predictions of a BatchOutput without num_examples", "one a row", output.predictions)
    return len(output.predictions) if output.num_examples is None else int(output.num_examples)


ModelFn = Callable[[], Model] | Model
"""A callable without arguments that returns a model, or a model itself."""


def as_model(model_fn: ModelFn) -> Model:
    """Return the model of a `ModelFn`.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> as_model(SoftmaxRegression).num_classes
    10
    """
    model = model_fn if isinstance(model_fn, Model) or not callable(model_fn) else model_fn()
    if not isinstance(model, Model):
        raise argument_type_error("model_fn", "a callable that returns a Model", model)
    return model


def initial_weights(model: Model) -> ModelWeights:
    """Return a model's first weights as read-only arrays of the state's own, the trainable ones float32 or float64.

    Raises
    ------
    TypeError
        If a trainable array is of another type.
    """
    trainable, non_trainable = model.initial_weights()
    for place, array in enumerate(trainable):
        if isinstance(array, np.ndarray | np.generic) and array.dtype not in (np.float32, np.float64):
            name = f"trainable[{place}] of {type(model).__name__}.initial_weights"
            raise argument_type_error(name, "float32 or float64", array.dtype)
    own = (np.array(w, None if isinstance(w, np.ndarray | np.generic) else np.float32) for w in trainable)
    return trees.freeze(ModelWeights(tuple(own), tuple(np.array(w) for w in non_trainable)))
