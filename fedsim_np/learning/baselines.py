"""What federated learning is compared with: one model of all data in one place, and one of each client's own.

::

    train_centrally     everybody's examples, one optimizer, epoch after epoch
    train_locally       the same for each client alone: nobody shares anything
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.learning import metrics
from fedsim_np.learning.learning_process import as_datasets
from fedsim_np.learning.models.checks import (
    ClientBatches,
    as_dataset,
    as_model,
    forward_and_gradient,
    initial_weights,
    read_batches,
)
from fedsim_np.learning.models.evaluation import Measured, evaluate
from fedsim_np.learning.models.model import Model, ModelFn, ModelWeights
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer


class Releases(Protocol):
    """A logger: `fedsim_np.program.Logger`."""

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Take the metrics of an epoch."""


class TrainedModel(NamedTuple):
    """A model, and how good it is.

    Attributes
    ----------
    weights : ModelWeights
    metrics : OrderedDict
        Of the evaluation after the last epoch; without evaluation data, those of the last epoch's training.
    """

    weights: ModelWeights
    metrics: metrics.Metrics


def train_centrally(
    model_fn: ModelFn,
    optimizer: OptimizerFn,
    dataset: ClientBatches,
    evaluation_data: ClientBatches | None = None,
    *,
    num_epochs: int = 1,
    metrics_managers: Iterable[Releases] = (),
) -> TrainedModel:
    r"""Train one model on data that are in one place.

    .. math:: w \leftarrow \mathrm{optimizer}(w, \nabla F_b(w)) \quad \text{for each batch } b

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    optimizer : Optimizer or callable that returns one
        Its state goes on from epoch to epoch.
    dataset : Dataset of batches, or a list of batches
        An epoch; epoch e reads tf.data's iteration e - 1, so that a shuffle is another one each time. Of all clients:
        ``client_data.create_dataset_from_all_clients(seed=0).batch(20)``.
    evaluation_data : Dataset of batches, or a list of batches, optional
        Evaluated after every epoch.
    num_epochs : int
    metrics_managers : iterable of Logger
        Told of each epoch, by the names of a federated run: ``client_work/train/...`` and ``evaluation/...``.

    Returns
    -------
    TrainedModel

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.
    DataError
        If a batch is not what the model takes.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> data = [{"x": np.zeros((2, 1), np.float32), "y": np.float32([[1], [3]])}]
    >>> trained = train_centrally(LinearRegression(1), build_sgdm(0.5), data, data, num_epochs=2)
    >>> trained.weights.trainable[1].tolist(), trained.metrics["mean_squared_error"]
    ([1.5], 1.25)
    """
    model, rule = as_model(model_fn), as_optimizer(optimizer, "optimizer")
    tests = None if evaluation_data is None else as_dataset(evaluation_data)
    return _trained(model, rule, as_dataset(dataset), tests, num_epochs, metrics_managers)


def train_locally(
    model_fn: ModelFn,
    optimizer: OptimizerFn,
    datasets: Sequence[ClientBatches],
    evaluation_datasets: Sequence[ClientBatches] | None = None,
    *,
    num_epochs: int = 1,
    metrics_managers_fn: Callable[[str | None], Iterable[Releases]] | None = None,
) -> list[TrainedModel]:
    """Train one model for each client, on its own data alone, and evaluate it on that client's.

    Parameters
    ----------
    model_fn, optimizer, num_epochs
        As for `train_centrally`; everybody starts at the model's first weights.
    datasets, evaluation_datasets : sequence of Dataset or of lists of batches
        One entry per client, in the same order.
    metrics_managers_fn : callable, optional
        Client id -> the loggers that are told of this client's epochs, as `train_centrally` tells its own.

    Returns
    -------
    list of TrainedModel

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> clients = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)]
    >>> alone = train_locally(LinearRegression(1), build_sgdm(0.5), clients, clients)
    >>> [each.metrics["mean_squared_error"] for each in alone]
    [0.25, 2.25]
    """
    model, rule, clients = as_model(model_fn), as_optimizer(optimizer, "optimizer"), as_datasets(datasets, 0)
    tests: Sequence[Dataset | None] = [None] * len(clients)
    if evaluation_datasets is not None:
        tests = as_datasets(evaluation_datasets, 0)
        if len(tests) != len(clients):
            raise argument_error("evaluation_datasets", f"one for each of {len(clients)} clients", len(tests))
    if metrics_managers_fn is not None and not callable(metrics_managers_fn):
        raise argument_type_error("metrics_managers_fn", "a function of a client's id, or None", metrics_managers_fn)
    loggers = [metrics_managers_fn(data.client_id) if metrics_managers_fn else () for data in clients]
    return [
        _trained(model, rule, data, test, num_epochs, told)
        for data, test, told in zip(clients, tests, loggers, strict=True)
    ]


def _trained(
    model: Model,
    optimizer: Optimizer,
    dataset: Dataset,
    tests: Dataset | None,
    num_epochs: int,
    metrics_managers: Iterable[Releases],
) -> TrainedModel:
    check_int("num_epochs", num_epochs, minimum=1)
    if not isinstance(metrics_managers, Iterable):
        raise argument_type_error("metrics_managers", "a list of loggers", metrics_managers)
    loggers = list(metrics_managers)
    for logger in loggers:
        if not hasattr(logger, "release"):
            raise argument_type_error("metrics_managers", "loggers, each with a method release", logger)
    weights = initial_weights(model)
    state, finalizers = optimizer.initialize(weights.trainable), model.metric_finalizers()
    for epoch in range(1, num_epochs + 1):
        measured = Measured(model)
        with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics
            for batch in read_batches(model, dataset.skip_iterations(epoch - 1)):
                output, gradients = forward_and_gradient(model, weights, batch)
                measured.add(batch, output)
                state, trainable = optimizer.next(state, weights.trainable, gradients)
                weights = weights._replace(trainable=trainable)
        train = found = metrics.finalize(finalizers, measured.total())
        told: OrderedDict[str, Any] = OrderedDict(client_work=OrderedDict(train=train))
        if tests is not None:
            told["evaluation"] = found = evaluate(model, weights, tests)
        for logger in loggers:
            logger.release(told, epoch)
    return TrainedModel(weights, found)
