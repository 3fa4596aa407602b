"""Models: weights and a batch in, a loss and gradients out.

A model is functional. It owns no weights: `Model.initial_weights` makes them, every method takes them as an argument,
and nothing is changed in place. So one instance serves every client, and a round is a function of its inputs.

Shapes: b examples in a batch, d features, c classes. Weights, data and gradients are float32.
"""

from __future__ import annotations

import abc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import ArraySpec, Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_int, data_error
from fedsim_np.files import replacing
from fedsim_np.learning import metrics
from fedsim_np.learning.losses import LOSSES, Loss, softmax

Array = npt.NDArray[Any]
Arrays = tuple[Array, ...]
Batch = Mapping[str, Array]


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
    """The protocol for a model of one's own; `SoftmaxRegression` is an example of it.

    A model may offer more, which makes it fast. Engines ask for these methods, never for the class:

    ``forward_and_gradient(weights, batch) -> (BatchOutput, gradients)``
        Both at once.
    ``stacked_forward_and_gradient(weights, x, y, mask) -> (BatchOutput, gradients)``
        A batch of each of k clients: weights and gradients (k, ...), x and y (k, b, ...), ``mask`` (k, b) says which
        rows count; the output's loss is (k,), its predictions (k, b, ...). For a model whose fields are x and y.
    ``softmax_head() -> Loss``, ``metrics_of_sums(correct, loss, examples, batches)``, ``checked_labels(labels)``
        Of softmax regression alone, see `SoftmaxRegression`.

    Attributes
    ----------
    input_spec : mapping of str to ArraySpec
        The fields of a batch; the first axis is None, the examples.
    """

    input_spec: Mapping[str, ArraySpec]

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
    def gradient(self, weights: ModelWeights, batch: Batch, output: BatchOutput) -> Arrays:
        """Return the gradient of ``output.loss`` in every trainable tensor; `output` is the batch's forward pass."""

    @abc.abstractmethod
    def initial_metrics(self) -> metrics.Unfinalized:
        """Return the unfinalized metrics of no examples."""

    @abc.abstractmethod
    def unfinalized_metrics(self, batch: Batch, output: BatchOutput) -> metrics.Unfinalized:
        """Return the unfinalized metrics of one batch."""

    @abc.abstractmethod
    def metric_finalizers(self) -> metrics.Finalizers:
        """Return a function of its sums for every metric."""


def _mean(sums: Sequence[Any]) -> Any:
    """Divide a sum by its count; 0 where nothing was counted, as Keras's metrics do."""
    return sums[0] / sums[1] if sums[1] else 0.0


class SoftmaxRegression(Model):
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

    Notes
    -----
    ==============  ============  =============================
    kernel          (d, c)        ``weights.trainable[0]``
    bias            (c,)          ``weights.trainable[1]``
    x               (b, d)        float32
    y               (b, 1)        integers in [0, c)
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

    weight_names = ("kernel", "bias")

    def __init__(self, num_features: int = 784, num_classes: int = 10, loss: str = "keras") -> None:
        self.num_features = check_int("num_features", num_features, minimum=1)
        self.num_classes = check_int("num_classes", num_classes, minimum=1)
        if loss not in LOSSES:
            raise argument_error("loss", f"one of {sorted(LOSSES)}", loss)
        self.loss = loss
        self.input_spec = OrderedDict(
            x=ArraySpec((None, self.num_features), np.float32), y=ArraySpec((None, 1), np.int32)
        )

    def initial_weights(self) -> ModelWeights:
        """Return a kernel (d, c) and a bias (c,) of zeros."""
        shape = self.num_features, self.num_classes
        return ModelWeights((np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)))

    def predict_on_batch(self, weights: ModelWeights, x: Array) -> Array:
        """Return probabilities (b, c)."""
        kernel, bias = weights.trainable
        return softmax(x @ kernel + bias)

    def checked_labels(self, labels: Array) -> Array:
        """Return labels as they are; raise a `DataError` if one is no class."""
        # Seen as unsigned, a negative label is huge: one test finds both kinds of bad label.
        if labels.size and labels.view(f"=u{labels.itemsize}").max() >= self.num_classes:
            bad = labels[(labels < 0) | (labels >= self.num_classes)][0]
            raise data_error(f"labels must lie in [0, {self.num_classes - 1}]", bad, field="y")
        return labels

    def softmax_head(self) -> Loss:
        """Say that this is softmax regression on ``trainable = (kernel, bias)``, with this loss: engines ask."""
        return LOSSES[self.loss]

    def forward_pass(self, weights: ModelWeights, batch: Batch) -> BatchOutput:
        """Return the mean loss, the probabilities (b, c) and the labels for the backward pass."""
        kernel, bias = weights.trainable
        labels = self.checked_labels(np.reshape(batch["y"], -1))
        logits = batch["x"] @ kernel + bias
        probabilities = softmax(logits)
        rows = np.arange(len(labels))
        losses = LOSSES[self.loss].examples(
            logits, probabilities, logits[rows, labels], probabilities[rows, labels], -1
        )
        loss = losses.mean() if len(labels) else np.float32(0)
        return BatchOutput(loss, probabilities, len(labels), cache=(rows, labels))

    def gradient(self, weights: ModelWeights, batch: Batch, output: BatchOutput) -> Arrays:
        r"""Return the gradients :math:`x^T e / b` and :math:`\sum_i e_i / b` of the errors e = p - onehot(y)."""
        rows, labels = output.cache
        errors = self._errors(output.predictions, (rows, labels))
        errors /= errors.dtype.type(max(1, len(labels)))
        return batch["x"].T @ errors, errors.sum(axis=0)

    def _errors(self, probabilities: Array, at_labels: tuple[Array, ...]) -> Array:
        """Return p - onehot(y), times the loss's factor."""
        errors: Array = probabilities.copy()
        errors[at_labels] -= 1
        factor = LOSSES[self.loss].factor
        factors = None if factor is None else factor(probabilities, probabilities[at_labels], -1)
        if factors is not None:
            errors *= factors[..., np.newaxis]
        return errors

    def stacked_forward_and_gradient(
        self, weights: Arrays, x: Array, y: Array, mask: Array
    ) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each of k clients, forward and backward at once.

        Parameters
        ----------
        weights : tuple of ndarray, (k, d, c) and (k, c)
            Each client's kernel and bias.
        x, y : ndarray, shapes (k, b, d) and (k, b, 1)
        mask : ndarray of bool, shape (k, b)
            Which of the rows are examples; the others count for nothing.

        Returns
        -------
        BatchOutput
            ``loss`` (k,) and ``predictions`` (k, b, c).
        gradients : tuple of ndarray, (k, d, c) and (k, c)
        """
        kernel, bias = weights
        k, b = mask.shape
        labels = self.checked_labels(np.reshape(y, (k, b)))
        logits = np.matmul(x, kernel) + bias[:, np.newaxis]
        probabilities = softmax(logits)
        at_labels = np.arange(k)[:, np.newaxis], np.arange(b), labels
        n = np.maximum(mask.sum(axis=1), 1).astype(probabilities.dtype)
        losses = LOSSES[self.loss].examples(logits, probabilities, logits[at_labels], probabilities[at_labels], -1)
        loss = np.where(mask, losses, 0).sum(axis=1) / n
        errors = self._errors(probabilities, at_labels)
        errors /= n[:, np.newaxis, np.newaxis]
        errors[~mask] = 0
        gradients = np.matmul(x.transpose(0, 2, 1), errors), errors.sum(axis=1)
        return BatchOutput(loss, probabilities), gradients

    def initial_metrics(self) -> metrics.Unfinalized:
        """Return the sums of no examples."""
        return self.metrics_of_sums(0.0, 0.0, 0, 0)

    def unfinalized_metrics(self, batch: Batch, output: BatchOutput) -> metrics.Unfinalized:
        """Return Keras's metrics as sums; a tie in argmax counts for the lowest class."""
        labels = np.reshape(batch["y"], -1)
        n = len(labels)
        correct = float(np.count_nonzero(output.predictions.argmax(axis=1) == labels))
        return self.metrics_of_sums(correct, float(output.loss) * n, n, 1)

    def metrics_of_sums(self, correct: float, loss: float, examples: int, batches: int) -> metrics.Unfinalized:
        """Return the unfinalized metrics of correct predictions, the sum of losses, examples and batches."""
        n = float(examples)
        return OrderedDict(
            sparse_categorical_accuracy=[correct, n], loss=[loss, n], num_examples=[examples], num_batches=[batches]
        )

    def metric_finalizers(self) -> metrics.Finalizers:
        """Return means for accuracy and loss, plain sums for the counts."""
        return OrderedDict(sparse_categorical_accuracy=_mean, loss=_mean, num_examples=_only, num_batches=_only)


def _only(sums: Sequence[Any]) -> Any:
    return sums[0]


def fast_method(model: Any, name: str, instead_of: Sequence[str]) -> Any:
    """Return a model's method of that name, if it still speaks for the plain methods that it stands for; else None.

    A class that inherits the fast method and overrides a plain one has left the fast one behind.

    Examples
    --------
    >>> class Scaled(SoftmaxRegression):
    ...     def gradient(self, weights, batch, output):
    ...         return tuple(2 * g for g in super().gradient(weights, batch, output))
    >>> fast_method(SoftmaxRegression(), "softmax_head", ["gradient"])().name
    'keras'
    >>> fast_method(Scaled(), "softmax_head", ["gradient"]) is None
    True
    """
    method = getattr(model, name, None)
    if method is None:
        return None
    for owner in type(model).__mro__:
        if name in vars(owner):
            return method
        if any(plain in vars(owner) for plain in instead_of):
            return None
    return method


def forward_and_gradient(model: Model, weights: ModelWeights, batch: Batch) -> tuple[BatchOutput, Arrays]:
    """Return a batch's forward pass and the gradients, by the model's own method for both if it has one.

    Raises
    ------
    ValueError
        If the gradients are not shaped as the trainable weights.
    """
    at_once = fast_method(model, "forward_and_gradient", ("forward_pass", "gradient"))
    if at_once is not None:
        output, gradients = at_once(weights, batch)
    else:
        output = model.forward_pass(weights, batch)
        gradients = model.gradient(weights, batch, output)
    if any(np.shape(g) != w.shape for g, w in zip(gradients, weights.trainable, strict=True)):
        shapes = [np.shape(g) for g in gradients]
        raise argument_error(f"gradient of {type(model).__name__}", "shaped as the trainable weights", shapes)
    return output, gradients


def as_model(model_fn: Callable[[], Model] | Model) -> Model:
    """Return the model of a `model_fn`: a callable without arguments, or a model itself.

    Examples
    --------
    >>> as_model(SoftmaxRegression).num_classes
    10
    """
    model = model_fn if isinstance(model_fn, Model) or not callable(model_fn) else model_fn()
    if not isinstance(model, Model):
        raise argument_type_error("model_fn", "a callable that returns a Model", model)
    return model


def as_dataset(data: Dataset | Iterable[Mapping[str, npt.ArrayLike]]) -> Dataset:
    """Return a `Dataset` as it is, and a plain list of batches as one."""
    if isinstance(data, Dataset):
        if data.is_infinite:
            raise argument_error("data", "datasets that end: give repeat() a count", data)
        return data
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise argument_type_error("data", "a list with a Dataset or a list of batches per client", data)
    return Dataset.from_batches(data)


def read_batches(model: Model, dataset: Dataset) -> Iterator[Batch]:
    """Yield a client's batches, each checked against ``model.input_spec``.

    Raises
    ------
    DataError
        If a field is missing, or has another shape, length or dtype than the model takes. Integers of any width may
        stand for integers; floats must be of the model's own type, since another would silently change the
        arithmetic.

    Examples
    --------
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> next(read_batches(model, Dataset.from_batches([{"x": np.zeros((1, 2)), "y": [[0]]}], "ann")))
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: client 'ann', field 'x': a batch must be float32 of shape (None, 2).
    Got float64 of shape (1, 2).
    """
    for batch in dataset.batches():
        check_batch(model.input_spec, batch, dataset.client_id)
        yield batch


def check_batch(input_spec: Mapping[str, ArraySpec], batch: Mapping[str, Any], client_id: str | None) -> None:
    """Raise a `DataError` unless a batch is what a model takes, see `read_batches`."""
    lengths = set()
    for name, spec in input_spec.items():
        if name not in batch:
            rule = f"a batch must have the fields {list(input_spec)} (see Dataset.batch and Dataset.map)"
            raise data_error(rule, list(batch), client_id=client_id)
        array = np.asarray(batch[name])
        shape, dtype = array.shape, array.dtype
        fits = len(shape) == len(spec.shape) and all(
            wanted in (None, length) for wanted, length in zip(spec.shape, shape, strict=True)
        )
        if not fits or not (dtype == spec.dtype or (dtype.kind in "iu" and spec.dtype.kind in "iu" and dtype.isnative)):
            rule = f"a batch must be {spec.dtype.name} of shape {spec.shape}"
            order = "" if dtype.isnative else " in foreign byte order"
            raise data_error(rule, f"{dtype.name}{order} of shape {shape}", client_id=client_id, field=name)
        if spec.shape[:1] == (None,):
            lengths.add(shape[0])
    if len(lengths) > 1:
        found = {name: np.shape(batch[name]) for name in input_spec}
        raise data_error("a batch's fields must have the same length", found, client_id=client_id)


def evaluate(
    model: Model, weights: ModelWeights, data: Dataset | Iterable[Mapping[str, npt.ArrayLike]]
) -> metrics.Metrics:
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
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> data = [{"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}]
    >>> evaluate(model, model.initial_weights(), data)["sparse_categorical_accuracy"]
    1.0
    """
    sums, _ = unfinalized_evaluation(model, weights, as_dataset(data))
    return metrics.finalize(model.metric_finalizers(), sums)


def unfinalized_evaluation(model: Model, weights: ModelWeights, dataset: Dataset) -> tuple[metrics.Unfinalized, int]:
    """Return the unfinalized metrics of a dataset under fixed weights, and its number of examples."""
    sums, examples = model.initial_metrics(), 0
    with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics, not by warnings
        for batch in read_batches(model, dataset):
            output = model.forward_pass(weights, batch)
            sums = metrics.add(sums, model.unfinalized_metrics(batch, output))
            examples += num_examples(output)
    return sums, examples


def num_examples(output: BatchOutput) -> int:
    """Return the number of examples in a batch, from what its forward pass gave."""
    if output.num_examples is None and np.ndim(output.predictions) == 0:
        raise argument_error("predictions", "one a row where there is no num_examples", output.predictions)
    return len(output.predictions) if output.num_examples is None else int(output.num_examples)


def save_weights(path: str | os.PathLike[str], weights: ModelWeights, names: Sequence[str] | None = None) -> None:
    """Save weights to a NumPy ``.npz`` file, without pickle, whole or not at all.

    Parameters
    ----------
    path : path-like
        Used as it is: no ending is added.
    weights : ModelWeights
    names : sequence of str, optional
        Of the trainable arrays, such as ``SoftmaxRegression.weight_names``; otherwise ``trainable_0``, ...

    Examples
    --------
    >>> import tempfile
    >>> weights = SoftmaxRegression().initial_weights()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.npz")
    ...     save_weights(path, weights, SoftmaxRegression.weight_names)
    ...     [array.shape for array in load_weights(path).trainable]
    [(784, 10), (10,)]
    """
    if names is None:
        names = [f"trainable_{i}" for i in range(len(weights.trainable))]
    taken = {"file", "allow_pickle"}.intersection(names)  # numpy.savez's own parameters
    if len(names) != len(weights.trainable) or len(set(names)) < len(names) or any(map(_is_fixed, names)) or taken:
        rule = f"{len(weights.trainable)} different names, none starting with '{_NON_TRAINABLE}' or of numpy.savez's"
        raise argument_error("names", rule, names)
    arrays = dict(zip(names, weights.trainable, strict=True))
    arrays.update({f"{_NON_TRAINABLE}{i}": array for i, array in enumerate(weights.non_trainable)})
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_weights(path: str | os.PathLike[str]) -> ModelWeights:
    """Load what `save_weights` saved, arrays in their order there.

    Raises
    ------
    DataError
        If the file is missing, or not a whole ``.npz`` file of numbers. Nothing in it is ever unpickled.
    """
    if not Path(path).exists():
        raise data_error("must exist", "no such file", path=path)
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # damaged archives are reported in many ways: zipfile's, zlib's, NumPy's
        raise data_error("must be a whole .npz file of arrays of numbers", error, path=path) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise data_error("must hold numbers", getattr(array, "dtype", "no array"), path=path, field=name)
    trainable = tuple(array for name, array in arrays.items() if not _is_fixed(name))
    return ModelWeights(trainable, tuple(array for name, array in arrays.items() if _is_fixed(name)))


_NON_TRAINABLE = "non_trainable_"


def _is_fixed(name: str) -> bool:
    return name.startswith(_NON_TRAINABLE)
