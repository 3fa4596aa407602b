"""Metrics that can be summed: unfinalized at the clients, finalized once at the server.

Every metric is a list of sums, such as ``loss=[sum of losses, examples]``. Sums of batches add up to a client's, sums
of clients to a round's, sums of rounds to a run's, in any grouping; only then a *finalizer* turns the sums into the
figure that is shown, such as ``loss = sums[0] / sums[1]``. An average of averages never arises.

Training metrics are measured on each batch *before* its step, with the local model as it moves: they describe the
round's clients on the way from the old model, not the new model. The sums over clients are float64, in cohort order.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedsim_np.errors import check_int

Unfinalized = OrderedDict[str, Any]
"""Metric name -> list of sums."""

Metrics = OrderedDict[str, Any]
"""Metric name -> figure, or metrics again."""

Finalizers = Mapping[str, Callable[[Any], Any]]
"""Metric name -> function of the sums."""


def add(a: Mapping[str, Any], b: Mapping[str, Any]) -> Unfinalized:
    """Add unfinalized metrics: of two batches, two clients or two rounds.

    Parameters
    ----------
    a, b : mapping of str to list of sums
        With the same names.

    Returns
    -------
    OrderedDict

    Examples
    --------
    >>> dict(add({"loss": [2.5, 1.0]}, {"loss": [0.5, 3.0]}))
    {'loss': [3.0, 4.0]}
    """
    return OrderedDict((name, _add(sums, b[name])) for name, sums in a.items())


def _add(a: Any, b: Any) -> Any:
    if type(a) in _PLAIN and type(b) in _PLAIN:
        return a + b
    if isinstance(a, Mapping):
        return add(a, b)
    if isinstance(a, list | tuple):
        return [_add(x, y) for x, y in zip(a, b, strict=True)]
    return _wide(a) + _wide(b)


def _wide(value: Any) -> Any:
    """Return a sum in float64 or as it is: a model may hand in NumPy's float32, which would stay float32."""
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float64)
    return value


def total(clients: Sequence[Mapping[str, Any]]) -> Unfinalized:
    """Add the unfinalized metrics of all clients, in cohort order.

    Examples
    --------
    >>> dict(total([{"n": [1]}, {"n": [2]}, {"n": [3]}]))
    {'n': [6]}
    """
    return OrderedDict((name, _total([client[name] for client in clients])) for name in clients[0])


_PLAIN = {int, float}


def _total(values: Sequence[Any]) -> Any:
    """Add in order; lists of plain numbers, which is what nearly all sums are, column by column."""
    if set(map(type, values)) == {list}:
        columns = list(zip(*values, strict=True))
        if all(set(map(type, column)) <= _PLAIN for column in columns):
            return [functools.reduce(operator.add, column) for column in columns]
    return functools.reduce(_add, values)


def as_float32_prints(value: float) -> float:
    """Return the float with the digits that float32 prints.

    Examples
    --------
    >>> as_float32_prints(np.float32(2.2330460548))
    2.233046
    """
    return float(str(np.float32(value)))


def _numpy_scalar(value: Any) -> Any:
    """NumPy's division of 0 by 0 is NaN where Python's is an error."""
    if isinstance(value, Mapping):
        return OrderedDict((name, _numpy_scalar(v)) for name, v in value.items())
    if isinstance(value, list | tuple):
        return [_numpy_scalar(v) for v in value]
    if isinstance(value, bool | int):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float) else value


def _reported(value: Any) -> Any:
    if isinstance(value, Mapping):
        return OrderedDict((name, _reported(v)) for name, v in value.items())
    if isinstance(value, list | tuple):
        parts = [_reported(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, np.ndarray) and value.ndim:
        return value.copy()  # the sums themselves are in the state
    number = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return as_float32_prints(number) if isinstance(number, float) else number


def finalize(finalizers: Finalizers, sums: Mapping[str, Any]) -> Metrics:
    """Turn summed metrics into the figures that are reported.

    Parameters
    ----------
    finalizers : mapping of str to callable
    sums : mapping of str to list of sums
        With the finalizers' names.

    Returns
    -------
    OrderedDict
        In the finalizers' order. Floats are Python floats with the digits that float32 prints.

    Raises
    ------
    ValueError
        If the names differ.

    Examples
    --------
    >>> dict(finalize({"loss": lambda sums: sums[0] / sums[1]}, {"loss": [1.0, 3.0]}))
    {'loss': 0.33333334}
    """
    if set(finalizers) != set(sums):
        raise ValueError(
            f"The metric finalizers must have the unfinalized metrics' names {sorted(sums)}. Got {sorted(finalizers)}."
        )
    with np.errstate(all="ignore"):
        return OrderedDict(
            (name, _reported(finalizer(_numpy_scalar(sums[name])))) for name, finalizer in finalizers.items()
        )


def sum_then_finalize(metric_finalizers: Finalizers) -> Callable[[Sequence[Mapping[str, Any]]], Metrics]:
    """Return the function that sums the clients' metrics and finalizes the sums.

    Parameters
    ----------
    metric_finalizers : mapping of str to callable
        From ``model.metric_finalizers()``.

    Returns
    -------
    callable
        ``[unfinalized metrics of each client] -> finalized metrics``.

    Examples
    --------
    >>> aggregate = sum_then_finalize({"accuracy": lambda sums: sums[0] / sums[1]})
    >>> dict(aggregate([{"accuracy": [1.0, 2.0]}, {"accuracy": [2.0, 2.0]}]))
    {'accuracy': 0.75}
    """
    return lambda clients: finalize(metric_finalizers, total(clients))


def finalize_then_sample(
    metric_finalizers: Finalizers, *, sample_size: int = 100, seed: int = 0
) -> Callable[[Sequence[Mapping[str, Any]]], Metrics]:
    """Return the function that finalizes each client's metrics, and reports those of a sample of the clients.

    Where a sum hides how the clients differ, this shows it: every figure becomes an array with an entry per client, in
    cohort order, the same client at the same place in all of them. A cohort of more than `sample_size` clients is
    sampled without replacement.

    TFF seeds its sample with the time. Here it depends on `seed` and the number of clients alone, so that a run can be
    repeated; which clients are at the chosen places differs from round to round as the cohort does.

    Parameters
    ----------
    metric_finalizers : mapping of str to callable
        From ``model.metric_finalizers()``.
    sample_size : int
        Clients to report at most, >= 1.
    seed : int
        >= 0.

    Returns
    -------
    callable
        ``[unfinalized metrics of each client] -> metrics``, with arrays of float32 or int64, (min(k, sample_size),).

    Raises
    ------
    ValueError
        If `sample_size` or `seed` is out of range.

    Examples
    --------
    >>> aggregate = finalize_then_sample({"accuracy": lambda sums: sums[0] / sums[1]})
    >>> aggregate([{"accuracy": [1.0, 2.0]}, {"accuracy": [2.0, 2.0]}])["accuracy"].tolist()
    [0.5, 1.0]
    >>> import functools
    >>> of_one = functools.partial(finalize_then_sample, sample_size=1)  # to pass as metrics_aggregator
    """
    sample_size = check_int("sample_size", sample_size, minimum=1)
    seed = check_int("seed", seed, minimum=0)

    def aggregate(clients: Sequence[Mapping[str, Any]]) -> Metrics:
        k = len(clients)
        chosen = range(k) if k <= sample_size else sorted(np.random.default_rng([k, seed]).permutation(k)[:sample_size])
        sampled: Metrics = _stacked([finalize(metric_finalizers, clients[i]) for i in chosen])
        return sampled

    return aggregate


def _stacked(values: Sequence[Any]) -> Any:
    """Return nested metrics of several clients as the same nesting of arrays."""
    first = values[0]
    if isinstance(first, Mapping):
        return OrderedDict((name, _stacked([value[name] for value in values])) for name in first)
    if isinstance(first, list | tuple):
        return [_stacked(parts) for parts in zip(*values, strict=True)]
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
