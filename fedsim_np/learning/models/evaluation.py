"""Evaluation under fixed weights, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.learning import metrics
from fedsim_np.learning.models.checks import ClientBatches, as_dataset, forward_and_gradient, num_examples, read_batches
from fedsim_np.learning.models.model import Batch, BatchOutput, Model, ModelWeights
from fedsim_np.trees import Array, Arrays

_WAITING_BYTES = 2**20


def evaluate(model: Model, weights: ModelWeights, data: ClientBatches) -> metrics.Metrics:
    """Evaluate a model on one central test set.

    Parameters
    ----------
    model : Model
    weights : ModelWeights
    data : Dataset of batches, or a list of batches

    Returns
    -------
    OrderedDict
        The model's finalized metrics.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> data = [{"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}]
    >>> evaluate(model, model.initial_weights(), data)["sparse_categorical_accuracy"]
    1.0
    """
    sums, _ = unfinalized_evaluation(model, weights, as_dataset(data))
    return metrics.finalize(model.metric_finalizers(), sums)


def unfinalized_evaluation(model: Model, weights: ModelWeights, dataset: Dataset) -> tuple[metrics.Unfinalized, int]:
    """Return the unfinalized metrics of a dataset under fixed weights, and its number of examples."""
    measured, examples = Measured(model), 0
    with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics, not by warnings
        for batch in read_batches(model, dataset):
            output = model.forward_pass(weights, batch)
            measured.add(batch, output)
            examples += num_examples(output)
        return measured.total(), examples


class Measured:
    """The unfinalized metrics of batches, one after the other.

    Those that a model declares are computed of many batches at once: every example has a value of its own. Their sums
    are taken batch by batch all the same.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> model = LinearRegression(num_features=1)
    >>> measured = Measured(model)
    >>> for batch in ({"x": array, "y": array} for array in (np.float32([[1], [2]]), np.float32([[4]]))):
    ...     measured.add(batch, model.forward_pass(model.initial_weights(), batch))
    >>> measured.total()["mean_squared_error"]
    [21.0, 3.0]
    """

    def __init__(self, model: Model) -> None:
        self._model, self._declared, self._sums = model, model.declared_metrics, model.initial_metrics()
        self._means = [0.0] * (len(self._declared.means) if self._declared else 0)
        self._loss, self._examples, self._batches = 0.0, 0, 0
        self._waiting: list[tuple[Array, Array, Any]] = []  # predictions, labels, outputs, all of one form
        self._form: Any = None
        self._bytes = 0

    def add(self, batch: Batch, output: BatchOutput) -> None:
        """Measure a batch, given its forward pass."""
        if self._declared is None:
            self._sums = metrics.add(self._sums, self._model.unfinalized_metrics(batch, output))
            return
        predictions, y = output.predictions, np.array(batch["y"])  # copies: their memory may be used again
        n, is_by_row = len(y), isinstance(predictions, np.ndarray) and predictions.shape[:1] == y.shape[:1]
        form = (predictions.shape[1:], predictions.dtype, y.shape[1:], y.dtype) if is_by_row else None
        if form != self._form or self._bytes > _WAITING_BYTES:
            self._compute()
            self._form = form
        outputs = None if output.outputs is None else np.array(output.outputs)
        self._waiting.append((np.array(predictions) if is_by_row else predictions, y, outputs))
        self._bytes += y.nbytes + (predictions.nbytes if is_by_row else _WAITING_BYTES)
        self._loss += float(output.loss) * n
        self._examples, self._batches = self._examples + n, self._batches + 1

    def total(self) -> metrics.Unfinalized:
        """Return the sums."""
        if self._declared is None:
            return self._sums
        self._compute()
        return self._declared.of_sums(self._means, self._loss, self._examples, self._batches)

    def _compute(self) -> None:
        """Add the means of the batches that wait."""
        if not self._waiting or self._declared is None:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        predictions, y, outputs = waiting[0] if len(waiting) == 1 else map(_joined, zip(*waiting, strict=True))
        ends = np.cumsum([0, *(len(labels) for _, labels, _ in waiting)]).tolist()
        for place, values in enumerate(self._declared.values(predictions, y, outputs)):
            if len(waiting) > 1 and values.shape[:1] != y.shape[:1]:  # not one an example
                parts = [[*self._declared.values(*one)][place] for one in waiting]
            elif len(waiting) == 1 or values.dtype == np.bool_:  # counts are exact in any grouping
                parts = [values]
            else:
                parts = [values[a:b] for a, b in itertools.pairwise(ends)]
            for part in parts:
                self._means[place] += float(part.sum())


def _joined(arrays: Sequence[Any]) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)


def objective(model: Model, weights: ModelWeights, batches: Iterable[Batch]) -> tuple[float, Arrays]:
    """Return what training minimises, and its gradient: the mean loss over all examples, and the model's penalty.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> model = LinearRegression(num_features=1)
    >>> batches = [{"x": array, "y": array} for array in (np.float32([[1], [2]]), np.float32([[4]]))]
    >>> loss, gradients = objective(model, model.initial_weights(), batches)
    >>> loss, gradients[0].tolist()
    (3.5, [[-7.0]])
    """
    total, loss, examples = trees.map(np.zeros_like, weights.trainable), 0.0, 0
    for batch in batches:
        output, gradients = forward_and_gradient(model, weights, batch)
        n = num_examples(output)
        total = trees.map(lambda s, g, n=n: s + s.dtype.type(n) * g, total, gradients)
        loss, examples = loss + float(output.loss) * n, examples + n
    count = max(1, examples)
    return loss / count + model.penalty(weights), trees.map(lambda s: s / s.dtype.type(count), total)
