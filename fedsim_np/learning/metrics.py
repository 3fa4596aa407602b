"""Metrics that can be summed: unfinalized at the clients, finalized once at the server.

Every metric is a list of sums, such as ``loss=[sum of losses, examples]``. Sums of batches add up to a client's, sums
of clients to a round's, sums of rounds to a run's, in any grouping; only then a *finalizer* turns the sums into the
figure that is shown, such as ``loss = sums[0] / sums[1]``. An average of averages never arises.

A model says in one line which metrics it has: `CLASSIFICATION`, `REGRESSION`, or one of these with means of one's own
on top, ``CLASSIFICATION.plus(top_3=in_the_top_3)``.

Training metrics are measured on each batch *before* its step, with the local model as it moves: they describe the
round's clients on the way from the old model, not the new model. The sums over clients are float64, in cohort order.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import check_int, data_error
from fedsim_np.trees import Array

Unfinalized = OrderedDict[str, Any]
"""Metric name -> list of sums."""

Metrics = OrderedDict[str, Any]
"""Metric name -> figure, or metrics again."""

Finalizers = Mapping[str, Callable[[Any], Any]]
"""Metric name -> function of the sums."""

ExampleValues = Callable[[Array, Array], Array]
"""Predictions (..., c) and labels (..., t) of the examples -> a value of each, (...)."""


@dataclass(frozen=True)
class ExampleMetrics:
    """Metrics of a model: means over examples, and beside them ``loss``, ``num_examples`` and ``num_batches``.

    Parameters
    ----------
    means : mapping of str to callable
        Name -> function of predictions (..., c) and labels (..., t) that gives a value an example, (...). Any axes may
        stand in front: engines measure many clients at once.
    of_outputs : set of str
        Which of them are told a model's outputs instead of what it predicts of them, where it gives any
        (`BatchOutput.outputs`).

    Examples
    --------
    >>> measured = CLASSIFICATION.plus(confidence=lambda p, y: p.max(axis=-1))
    >>> dict(measured.of_batch(np.float32([[0.25, 0.75]]), np.array([[1]]), loss=0.5))
    {'sparse_categorical_accuracy': [1.0, 1.0], 'confidence': [0.75, 1.0],
     'loss': [0.5, 1.0], 'num_examples': [1], 'num_batches': [1]}
    """

    means: Mapping[str, ExampleValues]
    of_outputs: Set[str] = frozenset()

    def plus(self, **means: ExampleValues) -> ExampleMetrics:
        """Return these metrics and more means, which are of predictions."""
        return ExampleMetrics(OrderedDict(self.means, **means), self.of_outputs - set(means))

    def values(self, predictions: Array, y: Array, outputs: Array | None = None) -> Iterator[Array]:
        """Yield what each mean is of: a value an example, (...)."""
        for name, of_examples in self.means.items():
            yield of_examples(predictions if outputs is None or name not in self.of_outputs else outputs, y)

    def of_batch(self, predictions: Array, y: Array, loss: float, outputs: Array | None = None) -> Unfinalized:
        """Return the unfinalized metrics of one batch and its mean loss."""
        n = len(y)
        means = [float(values.sum()) for values in self.values(predictions, y, outputs)]
        return self.of_sums(means, float(loss) * n, n, 1)

    def of_sums(self, means: Iterable[float], loss: float, examples: int, batches: int) -> Unfinalized:
        """Return the unfinalized metrics whose sums are known."""
        n = float(examples)
        sums: Unfinalized = OrderedDict()
        for name, value in zip(self.means, means, strict=True):
            sums[name] = [value, n]
        sums["loss"], sums["num_examples"], sums["num_batches"] = [loss, n], [examples], [batches]
        return sums

    def of_clients(self, means: Sequence[Array], loss: Array, examples: Array, batches: Array) -> list[Unfinalized]:
        """Return the unfinalized metrics of k clients, whose sums are arrays (k,)."""
        columns = [np.asarray(sums, np.float64).tolist() for sums in (*means, loss)]
        counts = examples.tolist(), batches.tolist()
        return [self.of_sums(sums[:-1], sums[-1], n, b) for *sums, n, b in zip(*columns, *counts, strict=True)]

    def masked_sums(self, predictions: Array, y: Array, mask: Array, outputs: Array | None = None) -> list[Array]:
        """Return the sums of each mean over the examples (..., b) that a mask counts, (...)."""
        return [np.where(mask, values, 0).sum(axis=-1) for values in self.values(predictions, y, outputs)]

    def initial(self) -> Unfinalized:
        """Return the unfinalized metrics of no examples."""
        return self.of_sums([0.0] * len(self.means), 0.0, 0, 0)

    def finalizers(self) -> Finalizers:
        """Return means, 0 where nothing was counted as Keras has it, and plain sums for the counts."""
        return OrderedDict([*((name, _mean) for name in (*self.means, "loss"))], num_examples=_only, num_batches=_only)


def _mean(sums: Sequence[Any]) -> Any:
    return sums[0] / sums[1] if sums[1] else 0.0


def _only(sums: Sequence[Any]) -> Any:
    return sums[0]


def is_correct(predictions: Array, y: Array) -> Array:
    """Return whether each label (..., 1) is the class with the largest prediction (..., c), the lowest of several.

    As in TensorFlow, NaN is larger than nothing.

    Examples
    --------
    >>> is_correct(np.float32([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]]), np.array([[1], [0], [1]])).tolist()
    [True, True, False]
    """
    labels = y[..., 0]
    if predictions.flags.c_contiguous:
        return np.asarray(_largest(predictions) == labels)
    # Argmax is slow where the classes do not lie side by side: it is asked where several classes tie, or where there
    # is no largest one (NaN).
    at_top = predictions == predictions.max(axis=-1, keepdims=True)
    label_at_top = LabelEntries(labels).of(at_top)
    narrow = np.uint8 if predictions.shape[-1] < 256 else np.uint32
    unclear = at_top.view(np.uint8).sum(axis=-1, dtype=narrow) != 1
    if unclear.any():
        label_at_top[unclear] = _largest(predictions[unclear]) == labels[unclear]
    return np.asarray(label_at_top)


def _largest(predictions: Array) -> Array:
    return np.asarray(np.fmax(predictions, -np.inf).argmax(axis=-1))  # of NaN and a number, fmax takes the number


class LabelEntries:
    """Where labels (...) have their entries in an array with an entry for each class, (..., c).

    Examples
    --------
    >>> LabelEntries(np.array([1, 0])).of(np.array([[0.1, 0.9], [0.7, 0.3]])).tolist()
    [0.9, 0.7]
    """

    def __init__(self, labels: Array) -> None:
        last = labels.ndim - 1
        before = (np.arange(n).reshape(-1, *[1] * (last - axis)) for axis, n in enumerate(labels.shape))
        self._index = (*before, labels)

    def of(self, array: Array) -> Array:
        """Return the entries."""
        return np.asarray(array[self._index])

    def put(self, array: Array, values: Array) -> None:
        """Replace the entries."""
        array[self._index] = values


def squared_errors(predictions: Array, y: Array) -> Array:
    """Return the squared errors, each example's mean over its targets.

    Examples
    --------
    >>> squared_errors(np.float32([[1.0, 3.0]]), np.float32([[1.0, 1.0]])).tolist()
    [2.0]
    """
    return np.asarray(np.square(predictions - y).mean(axis=-1))


CLASSIFICATION = ExampleMetrics(
    OrderedDict(sparse_categorical_accuracy=is_correct), of_outputs=frozenset(["sparse_categorical_accuracy"])
)
"""Keras's accuracy, the loss, and how many examples and batches there were: for labels (b, 1) that are classes."""

REGRESSION = ExampleMetrics(OrderedDict(mean_squared_error=squared_errors))
"""Keras's mean squared error, the loss, and how many examples and batches there were."""


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
    return total((a, b))


class Nobody(tuple[Unfinalized, ...]):
    """The metrics of no client: an empty sequence, which knows what those of nothing are.

    Examples
    --------
    >>> nobody = Nobody({"n": [0]})
    >>> len(nobody), dict(total(nobody))
    (0, {'n': [0]})
    """

    nothing: Unfinalized

    def __new__(cls, nothing: Unfinalized) -> Nobody:
        """Make it of a new client's metrics."""
        self = super().__new__(cls)
        self.nothing = nothing
        return self


def total(clients: Sequence[Mapping[str, Any]]) -> Unfinalized:
    """Add the unfinalized metrics of all clients, in cohort order.

    Examples
    --------
    >>> dict(total([{"n": [1]}, {"n": [2]}, {"n": [3]}]))
    {'n': [6]}
    """
    first = clients.nothing if isinstance(clients, Nobody) else clients[0]
    return OrderedDict((name, _added(first[name], *(client[name] for client in clients[1:]))) for name in first)


def _added(*sums: Any) -> Any:
    """Add trees of sums; nearly all are lists of plain numbers."""
    kinds = set(map(type, sums))
    if kinds == {list}:
        return [_added(*column) for column in zip(*sums, strict=True)]
    if kinds <= {int, float}:
        return functools.reduce(operator.add, sums)
    return trees.map(lambda *leaves: functools.reduce(operator.add, map(_wide, leaves)), *sums)


def _wide(value: Any) -> Any:
    """Return a sum in float64 or as it is: a model may hand in NumPy's float32, which would stay float32."""
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float64)
    return value


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
    if isinstance(value, bool | int):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float) else value


def _reported(value: Any) -> Any:
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
    return OrderedDict((name, trees.map(_reported, figure)) for name, figure in _figures(finalizers, sums).items())


def finalize_each(finalizers: Finalizers, unfinalized: Sequence[Mapping[str, Any]]) -> OrderedDict[str, list[Any]]:
    """Return a column a metric, of clients one by one: what `finalize` makes of each.

    Examples
    --------
    >>> dict(finalize_each({"loss": lambda sums: sums[0] / sums[1]}, [{"loss": [1.0, 3.0]}, {"loss": [0.0, 0.0]}]))
    {'loss': [0.33333334, nan]}
    """
    with np.errstate(all="ignore"):
        return OrderedDict(
            (name, _column(finalizer, [sums[name] for sums in unfinalized])) for name, finalizer in finalizers.items()
        )


def _column(finalizer: Callable[[Any], Any], sums: Sequence[Any]) -> list[Any]:
    """Return what a finalizer makes of each client's sums; means of plain numbers, which most are, at once."""
    if finalizer is _mean and all(type(value) is list and [*map(type, value)] == [float, float] for value in sums):
        values, counts = np.array(sums, np.float64).reshape(-1, 2).T
        means = np.divide(values, counts, out=np.zeros_like(values), where=counts != 0)
        return [float(text) for text in map(str, means.astype(np.float32))]  # as `as_float32_prints`

    def scalars(value: Any) -> Any:
        is_plain = type(value) is list and all(type(part) in (float, int) for part in value)
        return [_numpy_scalar(part) for part in value] if is_plain else trees.map(_numpy_scalar, value)

    def reported(figure: Any) -> Any:
        return _reported(figure) if isinstance(figure, np.generic) else trees.map(_reported, figure)

    return [reported(finalizer(scalars(value))) for value in sums]


def _figures(finalizers: Finalizers, sums: Mapping[str, Any]) -> Metrics:
    """Return what finalizers make of sums, of the types that they make."""
    if set(finalizers) != set(sums):
        raise ValueError(
            f"The metric finalizers must have the unfinalized metrics' names {sorted(sums)}. Got {sorted(finalizers)}."
        )
    with np.errstate(all="ignore"):
        return OrderedDict(
            (name, finalizer(trees.map(_numpy_scalar, sums[name]))) for name, finalizer in finalizers.items()
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
        ``[unfinalized metrics of each client] -> metrics``, with arrays (min(k, sample_size),): float32 of floats,
        int64 of Python's integers, other numbers as the finalizers have them.

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

    def of_figure(*values: Any) -> Array:
        try:
            array = np.asarray([np.int64(value) if type(value) is int else value for value in values])
        except OverflowError:
            raise data_error("a metric's integers must fit in 64 bits", max(values, key=abs)) from None
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def aggregate(clients: Sequence[Mapping[str, Any]]) -> Metrics:
        if isinstance(clients, Nobody):
            nobody: Metrics = trees.map(
                lambda figure: of_figure(figure)[:0], _figures(metric_finalizers, clients.nothing)
            )
            return nobody
        k = len(clients)
        chosen = range(k) if k <= sample_size else sorted(np.random.default_rng([k, seed]).permutation(k)[:sample_size])
        sampled: Metrics = trees.map(of_figure, *(_figures(metric_finalizers, clients[i]) for i in chosen))
        return sampled

    return aggregate
