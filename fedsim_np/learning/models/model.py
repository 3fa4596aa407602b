"""Models: weights and a batch in, a loss and gradients out.

A model is functional. It owns no weights: `Model.initial_weights` makes them, every method takes them as an argument,
and nothing is changed in place. So one instance serves every client, and a round is a function of its inputs.

Shapes: b examples in a batch, d features, c classes, k clients. Weights, data and gradients are float32; a model whose
first weights are float64 is computed in float64.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import ArraySpec
from fedsim_np.errors import argument_type_error
from fedsim_np.learning import metrics as metrics_lib
from fedsim_np.learning.shortcuts import WithShortcuts
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
    outputs : ndarray, shape (b, ...), or None
        What predictions were made of, where the model's accuracy is of that (``from_logits`` in Keras).
    """

    loss: Any
    predictions: Array
    num_examples: int | None = None
    cache: Any = None
    outputs: Array | None = None


class Model(WithShortcuts, abc.ABC):
    """The protocol for a model of one's own: four methods, and a line for its metrics.

    A model may offer more, which makes it fast: `forward_and_gradient`, and what `Stackable` says, see
    `fedsim_np.learning.shortcuts`. A class that overrides `predict_on_batch`, `forward_pass` or `gradient` inherits
    nothing of that: it computes something else, and has to offer it anew.

    Attributes
    ----------
    input_spec : mapping of str to ArraySpec
        The fields of a batch; the first axis counts the examples, None for any number.
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
    _computed_by = ("predict_on_batch", "forward_pass", "gradient")

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

    def check_labels(self, y: Array) -> None:
        """Raise a `DataError` if labels break a rule of the model's; by default any will do."""

    def initial_metrics(self) -> metrics_lib.Unfinalized:
        """Return the unfinalized metrics of no examples."""
        return self._example_metrics().initial()

    def unfinalized_metrics(self, batch: Batch, output: BatchOutput) -> metrics_lib.Unfinalized:
        """Return the unfinalized metrics of one batch."""
        return self._example_metrics().of_batch(output.predictions, np.asarray(batch["y"]), output.loss, output.outputs)

    def metric_finalizers(self) -> metrics_lib.Finalizers:
        """Return a function of its sums for every metric."""
        return self._example_metrics().finalizers()

    @property
    def declared_metrics(self) -> metrics_lib.ExampleMetrics | None:
        """What `metrics` says, if that is all; None where the class writes methods of its own."""
        methods = {"initial_metrics", "unfinalized_metrics", "metric_finalizers"}
        last = next(cls for cls in type(self).__mro__ if "metrics" in vars(cls) or methods & set(vars(cls)))
        return self.metrics if "metrics" in vars(last) else None

    def _example_metrics(self) -> metrics_lib.ExampleMetrics:
        if self.metrics is None:
            rule = "an attribute such as metrics.CLASSIFICATION, or the methods that stand for it be written"
            raise argument_type_error(f"metrics of {type(self).__name__}", rule, None)
        return self.metrics


ModelFn = Callable[[], Model] | Model
"""A callable without arguments that returns a model, or a model itself."""
