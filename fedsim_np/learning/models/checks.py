"""What is asked of a model of one's own and of its data, checked where they come in.

The data are a client's batches; a model is asked for its first weights, and for loss and gradients of a batch.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec, Dataset
from fedsim_np.errors import DataError, argument_error, argument_type_error, data_error
from fedsim_np.learning.models.model import Batch, BatchOutput, Model, ModelFn, ModelWeights

ClientBatches = Dataset | Iterable[Mapping[str, npt.ArrayLike]]
"""One client's data: a dataset, or a plain list of batches."""


def as_dataset(data: ClientBatches) -> Dataset:
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
        If a field is missing or the model takes none of that name, or one has another shape, length or dtype than the
        model takes. Integers of any width may stand for integers; floats must be of the model's own type, since another
        would silently change the arithmetic. Numbers of shape (b,) may stand for (b, 1), and are given out as that.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> next(read_batches(model, Dataset.from_batches([{"x": np.zeros((1, 2)), "y": [[0]]}], "ann")))
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: client 'ann', field 'x': a batch must be float32 of shape (None, 2).
    Got float64 of shape (1, 2).
    """
    known, is_flat = None, False
    for batch in dataset.batches():
        # Most batches are of the form of the one before.
        arrays = [batch.get(name) for name in model.input_spec]
        form = [(array.shape, array.dtype) if type(array) is np.ndarray else None for array in arrays]
        if form != known or len(batch) != len(arrays):
            try:
                check_batch(model.input_spec, batch, dataset.client_id)
            except DataError as error:
                if dataset.is_batched:
                    raise
                rule = f"a dataset must be batched, as .batch(20) does, and have the fields {list(model.input_spec)}"
                found = f"single examples with the fields {list(batch)}"
                raise data_error(rule, found, client_id=dataset.client_id) from error
            known = None if None in form else form
            is_flat = any(np.ndim(batch[name]) < len(spec.shape) for name, spec in model.input_spec.items())
        yield OrderedDict((n, in_rows(s, batch[n])) for n, s in model.input_spec.items()) if is_flat else batch


def in_rows(spec: ArraySpec, array: npt.ArrayLike) -> Any:
    """Return the field of a batch that was checked, (b,) as (b, 1) where the model wants that."""
    return array if np.ndim(array) == len(spec.shape) else np.expand_dims(array, -1)


def check_batch(input_spec: Mapping[str, ArraySpec], batch: Mapping[str, Any], client_id: str | None = None) -> None:
    """Raise a `DataError` unless a batch is what a model takes, see `read_batches`."""
    for name in [*batch, *input_spec]:
        if name not in batch or name not in input_spec:
            rule = f"a batch must have the fields {list(input_spec)} (see Dataset.batch and Dataset.select)"
            raise data_error(rule, list(batch), client_id=client_id, field=name)
    for name, spec in input_spec.items():
        array = np.asarray(batch[name])
        shape, dtype = array.shape, array.dtype
        if spec.shape[-1:] == (1,) and len(shape) == len(spec.shape) - 1:
            shape = (*shape, 1)
        fits = len(shape) == len(spec.shape) and all(
            wanted in (None, length) for wanted, length in zip(spec.shape, shape, strict=True)
        )
        if not fits or not (dtype == spec.dtype or (dtype.kind in "iu" and spec.dtype.kind in "iu" and dtype.isnative)):
            rule = f"a batch must be {spec.dtype.name} of shape {spec.shape}"
            order = "" if dtype.isnative else " in foreign byte order"
            raise data_error(rule, f"{dtype.name}{order} of shape {array.shape}", client_id=client_id, field=name)
    lengths = {len(batch[name]) for name, spec in input_spec.items() if spec.shape[:1] == (None,)}
    if len(lengths) > 1:
        found = {name: np.shape(batch[name]) for name in input_spec}
        raise data_error("a batch's fields must have the same length", found, client_id=client_id)


def narrowed(widest: Mapping[str, ArraySpec], given: Mapping[str, ArraySpec]) -> OrderedDict[str, ArraySpec]:
    """Return the spec of batches that was asked for, if a model with the widest one takes such batches.

    Examples
    --------
    >>> widest = {"y": ArraySpec((None, 1), np.int32)}
    >>> narrowed(widest, {"y": ArraySpec((20,), np.int64)})["y"]
    ArraySpec(shape=(20, 1), dtype=int64)
    """
    rule = f"a dataset's element_spec of batches that fit {dict(widest)}"
    if not isinstance(given, Mapping) or not all(isinstance(spec, ArraySpec) for spec in given.values()):
        raise argument_type_error("input_spec", rule, given)
    try:
        lengths = {None if spec.shape[0] is None else operator.index(spec.shape[0]) for spec in given.values()}
        batch = {
            name: np.broadcast_to(np.zeros((), spec.dtype), [1 if n is None else n for n in spec.shape])
            for name, spec in given.items()
        }
        check_batch(widest, batch)
    except (DataError, IndexError, TypeError, ValueError) as error:
        raise argument_error("input_spec", rule, dict(given)) from error
    if len(lengths) > 1:
        raise argument_error("input_spec", "of fields of one length, or all of any", dict(given))
    shapes = {name: (given[name].shape[0], *spec.shape[1:]) for name, spec in widest.items()}
    return OrderedDict((name, ArraySpec(shape, given[name].dtype)) for name, shape in shapes.items())


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


def forward_and_gradient(model: Model, weights: ModelWeights, batch: Batch) -> tuple[BatchOutput, Any]:
    """Return a batch's forward pass and the gradients, of the weights' dtypes; None where a weight is left alone.

    Raises
    ------
    ValueError
        If the gradients are not shaped as the trainable weights.
    """
    (output, given), trainable = model.forward_and_gradient(weights, batch), weights.trainable
    gradients = [g if g is None else np.asarray(g, w.dtype) for g, w in zip(given, trainable, strict=True)]
    for g, w in zip(gradients, trainable, strict=True):
        if g is not None and g.shape != w.shape:
            rule = "shaped as the trainable weights"
            raise argument_error(f"gradient of {type(model).__name__}", rule, g.shape)
    return output, tuple(gradients)


def num_examples(output: BatchOutput) -> int:
    """Return the number of examples in a batch, from what its forward pass gave."""
    if output.num_examples is None and np.ndim(output.predictions) == 0:
        raise argument_error("predictions of a BatchOutput without num_examples", "one a row", output.predictions)
    return len(output.predictions) if output.num_examples is None else int(output.num_examples)
