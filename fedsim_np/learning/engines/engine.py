"""What an engine is: a way to do the client work of many clients.

An engine is given *chunks* of the cohort, cut in cohort order by its size alone, and returns what each client of the
chunk sends to the server. A chunk's result depends on nothing but the chunk: so the same bits come out whoever
computes it, in whatever order, on however many cores.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, check_float
from fedsim_np.learning.client import Broadcast, ClientResult
from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, check_labels, read_columns
from fedsim_np.learning.models.model import Model
from fedsim_np.trees import Array, Arrays


class Task(NamedTuple):
    """A client's part of a round.

    Attributes
    ----------
    data : Dataset or ClientColumns
        To be read, or read already.
    client_id : str or None
    kept : tree of arrays or None
        What the server keeps of the client.
    """

    data: Dataset | ClientColumns
    client_id: str | None
    kept: Any = None

    @property
    def name(self) -> str:
        """The client, in an error."""
        return "a client without an id" if self.client_id is None else f"client {self.client_id}"


class ChunkResult(NamedTuple):
    """What k clients send to the server: a tree of arrays, each with the clients' axis in front.

    Attributes
    ----------
    updates : tuple of ndarray, each (k, ...)
        One array per trainable tensor, in any memory order; or their sums (...), where they were reduced.
    client_weights : ndarray, shape (k,), float64
        0 for a client whose update is not finite.
    norms : ndarray, shape (k,), float64
        l2 norm of each update over all tensors; not finite just if the update is not.
    metrics : ndarray of OrderedDict, shape (k,)
        Unfinalized.
    num_examples : ndarray of int or None, shape (k,)
        Examples that each has read; None stands for all that its dataset has.
    num_steps : ndarray of int or None, shape (k,)
    kept, messages : tree of arrays (k, ...), or None
    num_bytes : ndarray of int, shape (k,), or None
        What each update takes as a message; None stands for what its arrays do.
    """

    updates: Arrays
    client_weights: Array
    norms: Array
    metrics: Array
    num_examples: Array
    num_steps: Array
    kept: Any = None
    messages: Any = None
    num_bytes: Array | None = None


def chunk_result(
    tasks: Sequence[Task], trainable: Arrays, result: ClientResult, *of_each: Sequence[Any]
) -> ChunkResult:
    """Measure the updates that k clients send, the clients' axis in front of every array, and check their weights.

    What is said client by client is given beside that: metrics, numbers of examples and numbers of steps.

    Raises
    ------
    ValueError
        If the weight of a client whose update is finite is no number >= 0.
    """
    with np.errstate(over="ignore"):
        updates = tuple(np.asarray(u, w.dtype) for u, w in zip(result.update, trainable, strict=True))
    norms = update_norms(updates, len(tasks))
    for _, leaf in trees.leaves((result.kept, result.message)):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":  # it would be passed on with a good update
            norms[~np.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))] = np.nan
    weights, finite = np.broadcast_to(result.weight, len(tasks)), np.isfinite(norms)
    if weights.dtype.kind not in "biuf" or not (np.isfinite(weights) & (weights >= 0) | ~finite).all():
        for i in np.flatnonzero(finite).tolist():
            check_float(f"weight of {tasks[i].name}", weights.tolist()[i], minimum=0.0)
    weights = np.where(finite, weights.astype(np.float64), 0.0)
    metrics, num_examples, num_steps = map(objects, of_each)
    return ChunkResult(updates, weights, norms, metrics, num_examples, num_steps, result.kept, result.message)


Reduce = Callable[[Arrays, Array], Arrays]
"""Updates (k, ...) and weights (k,) of some clients -> what they add to the round's sums: `SumsParts.summed`."""


def without_non_finite(result: ChunkResult) -> ChunkResult:
    """Return the result with zeros in the place of updates that are not finite."""
    finite = np.isfinite(result.norms)
    if finite.all():
        return result
    zeroed = [np.where(trees.along(finite, u).astype(np.bool_), u, np.zeros((), u.dtype)) for u in result.updates]
    return result._replace(updates=tuple(zeroed))


def reduced(result: ChunkResult, reduce: Reduce) -> ChunkResult:
    """Return the result with what its updates add to the round's sums in their place."""
    updates = trees.freeze(without_non_finite(result).updates)
    return result._replace(updates=reduce(updates, trees.freeze(result.client_weights)))


def objects(values: Sequence[Any]) -> Array:
    """Return an array (k,) of these."""
    return np.fromiter(values, np.object_, len(values))


def check_shapes(name: str, arrays: Arrays, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise a ValueError unless arrays have these shapes."""
    got = [np.shape(array) for array in arrays]
    if got != [*shapes]:
        raise argument_error(name, f"arrays of the shapes {[*shapes]}", got)


def update_norms(updates: Arrays, k: int) -> Array:
    """Return the l2 norm of each client's update over all tensors, (k,); not finite just if the update is not."""
    with np.errstate(all="ignore"):
        squares = sum((_squares(u).astype(np.float64) for u in updates), start=np.zeros(k))
        large = ~np.isfinite(squares)
        if large.any():
            # In float64 the squares of finite float32 numbers cannot overflow.
            squares[large] = sum(_squares(u[large].astype(np.float64)) for u in updates)
        return np.asarray(np.sqrt(squares))


def _squares(update: Array) -> Array:
    axes = list(range(update.ndim))
    return np.asarray(np.einsum(update, axes, update, axes, [0]))


class Engine(abc.ABC):
    """A way to do client work.

    Attributes
    ----------
    work : LocalTraining or ClientWork or None
        None for an evaluation.
    model : Model
    name : str
    chunk_size : int
        Clients in a chunk, at most.
    takes_columns : bool
        Whether a client that was read already, as `ClientColumns`, is taken as well as a dataset.
    """

    work: LocalTraining | ClientWork | None
    model: Model
    name: str
    chunk_size: int
    takes_columns: bool

    @property
    def parts(self) -> Mapping[str, Any]:
        """What of the user's is in it: it must not change in a round."""
        return {"client work": self.work, "model": self.model}

    @abc.abstractmethod
    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Do the work of a chunk."""


def columns_of(model: Model, tasks: Sequence[Task], cache: Cache) -> list[ClientColumns]:
    """Return the clients of a chunk, those that are still datasets read now; their labels are checked."""
    columns = [
        task.data if isinstance(task.data, ClientColumns) else read_columns(model, task.data, cache) for task in tasks
    ]
    check_labels(model, columns, [task.client_id for task in tasks])
    return columns
