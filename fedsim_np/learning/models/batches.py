"""What a model takes: a client's batches, each checked where it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import ArraySpec, Dataset
from fedsim_np.errors import argument_error, argument_type_error, data_error
from fedsim_np.learning.models.model import Batch, Model

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
        If a field is missing, or has another shape, length or dtype than the model takes. Integers of any width may
        stand for integers; floats must be of the model's own type, since another would silently change the
        arithmetic.

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
    known = None
    for batch in dataset.batches():
        arrays = [batch.get(name) for name in model.input_spec]
        # Most batches are of the form of the one before.
        form = [(a.shape[1:], a.dtype, len(a)) if isinstance(a, np.ndarray) and a.ndim else None for a in arrays]
        if form != known:
            check_batch(model.input_spec, batch, dataset.client_id)
            known = None if None in form else form
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
