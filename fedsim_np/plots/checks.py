"""What is asked of the arguments: the errors are in the package's words."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import ClientData, Dataset, Description
from fedsim_np.errors import argument_error, argument_type_error, check_type, data_error, did_you_mean

Array = npt.NDArray[Any]


def finite_array(name: str, values: Any, ndim: int, shape: str, *, nan: bool = False) -> npt.NDArray[np.float64]:
    """Return finite numbers as float64, or raise a `DataError`; `shape` is how to say the number of axes.

    With `nan` a number may be missing.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufO":  # texts that look like numbers, or complex ones
            raise TypeError
        array = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        found = f"a {type(values).__name__}"
        raise data_error(f"'{name}' must be numbers of shape {shape}", found) from error
    if array.ndim != ndim or not array.size:
        raise data_error(f"'{name}' must have the shape {shape}, not empty", array.shape)
    is_good = np.isfinite(array) | (nan & np.isnan(array))
    if not is_good.all():
        place = tuple(np.argwhere(~is_good)[0].tolist())
        raise data_error(f"'{name}' must be finite", f"{array[place]} at index {place}")
    return array


def names_or_numbers(names: Iterable[Any] | None, count: int) -> list[str]:
    """Return the names of `count` things; without names, their numbers."""
    texts = [str(name) for name in (range(count) if names is None else as_list("names", names, "names"))]
    if len(texts) != count:
        raise argument_error("names", f"{count} names, one each", texts)
    return texts


def chosen_clients(client_data: ClientData, client_ids: Iterable[str] | None, most: int) -> list[str]:
    """Return the ids of the clients to draw; by default those of the first `most`."""
    check_type("client_data", client_data, ClientData, "a ClientData")
    given = client_data.client_ids[:most] if client_ids is None else client_ids
    ids = as_list("client_ids", given, "client ids")
    if not all(isinstance(client_id, str) for client_id in ids):
        raise argument_type_error("client_ids", "a list of client ids", ids)
    if not ids:
        raise argument_error("client_ids", "at least one client id", ids)
    return ids


def as_list(name: str, values: Any, of: str) -> list[Any]:
    """Return what a caller gives as several things; a text is one thing, and a mapping or a number none."""
    is_one = isinstance(values, str | bytes | Mapping) or (isinstance(values, np.ndarray) and values.ndim == 0)
    if is_one or not isinstance(values, Iterable):
        raise argument_type_error(name, f"a list of {of}", values)
    return list(values)


def read_fields(dataset: Dataset, **fields: str) -> list[Array]:
    """Return a client's arrays of the fields that arguments name; `DataError` if there is no such field."""
    arrays: Mapping[str, Array] = dataset.to_arrays()
    for name, field in fields.items():
        check_type(name, field, str, "the name of a field")
        if field not in arrays:
            rule, hint = f"the examples must have the field '{field}'", did_you_mean(field, arrays)
            raise data_error(rule, list(arrays), client_id=dataset.client_id, hint=hint)
    return [arrays[field] for field in fields.values()]


def flat_labels(labels: Array, field: str, client_id: str | None) -> list[Any]:
    """Return labels as a list of plain values; `DataError` unless they are one value an example."""
    if labels.size != len(labels):
        raise data_error("labels must be one value an example", labels.shape, client_id=client_id, field=field)
    values: list[Any] = labels.reshape(-1).tolist()
    return values


def checked_description(description: Description) -> Description:
    """Return what `fedsim_np.datasets.describe` gave, or raise a TypeError."""
    return check_type("description", description, Description, "the result of fedsim_np.datasets.describe")


def checked_rounds(rounds: Iterable[int] | None, count: int) -> Sequence[int]:
    """Return the numbers of `count` rounds; by default 1, 2, ..."""
    if rounds is None:
        return range(1, count + 1)
    given = as_list("rounds", rounds, "round numbers")
    are_finite = all(isinstance(number, numbers.Real) and math.isfinite(number) for number in given)
    if not are_finite or len(given) != count or len(set(given)) < count:
        raise argument_error("rounds", f"{count} different round numbers, one for each round", given)
    return given
