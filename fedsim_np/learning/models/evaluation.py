"""Evaluation under fixed weights, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.learning import metrics
from fedsim_np.learning.models.checks import ClientBatches, as_dataset, forward_and_gradient, num_examples, read_batches
from fedsim_np.learning.models.model import Batch, Model, ModelWeights
from fedsim_np.trees import Arrays


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
    measured, examples = [model.initial_metrics()], 0
    with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics, not by warnings
        for batch in read_batches(model, dataset):
            output = model.forward_pass(weights, batch)
            measured.append(model.unfinalized_metrics(batch, output))
            examples += num_examples(output)
    return metrics.total(measured), examples


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
