"""What an engine is: a way to do the client work of many clients, and the plain one.

An engine is given *chunks* of the cohort, cut in cohort order by its size alone, and returns what each client of the
chunk sends to the server. A chunk's result depends on nothing but the chunk: so the same bits come out whoever
computes it, in whatever order, on however many cores.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, check_float, naming_client
from fedsim_np.learning.client_work import ClientResult, ClientWork
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.metrics import Unfinalized
from fedsim_np.learning.models import Array, Arrays, Model, ModelWeights

Client = Dataset | ClientColumns
"""A client of a chunk: a dataset to be read, or one that has been."""


class ChunkResult(NamedTuple):
    """What k clients send to the server.

    Attributes
    ----------
    updates : tuple of ndarray, each (k, ...)
        One float32 array per trainable tensor, in any memory order.
    weights : ndarray, shape (k,), float64
    metrics : list of OrderedDict
        Unfinalized, one per client.
    num_examples : list of int or None
        Examples that each has read; None stands for all that its dataset has.
    norms : ndarray, shape (k,), float64
        l2 norm of each update over all tensors; not finite just if the update is not.
    """

    updates: Arrays
    weights: Array
    metrics: list[Unfinalized]
    num_examples: list[int | None]
    norms: Array

    @classmethod
    def of(
        cls, updates: Arrays, weights: Array, sums: list[Unfinalized], num_examples: list[int | None]
    ) -> ChunkResult:
        """Measure the updates."""
        return cls(updates, weights, sums, num_examples, _norms(updates, len(weights)))


def _norms(updates: Arrays, k: int) -> Array:
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
    model : Model
    name : str
    chunk_size : int
        Clients in a chunk, at most.
    takes_columns : bool
        Whether a client that was read already, as `ClientColumns`, is taken as well as a dataset.
    """

    model: Any
    name: str
    chunk_size: int
    takes_columns: bool

    @abc.abstractmethod
    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Do the work of a chunk."""


@dataclass(frozen=True)
class LoopEngine(Engine):
    """The reference: `ClientWork.run`, one client after the other."""

    client_work: ClientWork
    model: Model
    name = "loop"
    chunk_size = 8
    takes_columns = False

    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Run client by client."""
        results = []
        for dataset in clients:
            assert isinstance(dataset, Dataset)
            # A copy has counters of its own: whatever the client work does, the caller's datasets stay as they are.
            copied = dataset.skip_iterations(0)
            with naming_client(dataset.client_id):
                results.append(self.client_work.run(weights, copied, state))
            _check_result(results[-1], dataset.client_id, weights.trainable)
        with np.errstate(over="ignore"):
            updates = tuple(
                np.stack([np.asarray(result.update[i], np.float32) for result in results])
                for i in range(len(weights.trainable))
            )
        client_weights = np.array([result.weight for result in results], np.float64)
        return ChunkResult.of(updates, client_weights, [r.metrics for r in results], [r.num_examples for r in results])


def _check_result(result: ClientResult, client_id: str | None, trainable: Arrays) -> None:
    shapes, got = [w.shape for w in trainable], [np.shape(u) for u in result.update]
    of = "" if client_id is None else f" of client {client_id}"
    if got != shapes:
        raise argument_error(f"update{of}", f"arrays of the shapes {shapes}", got)
    check_float(f"weight{of}", result.weight, minimum=0.0)
