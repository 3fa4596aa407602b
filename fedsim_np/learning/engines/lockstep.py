"""All clients of a chunk in lockstep: one step of the model and the work where the loop takes k.

The arithmetic is the loop's, with the clients' axis in front of every array. It serves every `Stackable` model, and
every `LocalTraining` whose steps are elementwise, which the first rounds find out (`audit`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error
from fedsim_np.forking import cached_property
from fedsim_np.learning import metrics
from fedsim_np.learning.client import Broadcast, Client, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining, check_dtypes, checked_local, checked_result
from fedsim_np.learning.engines.audit import audit, rounds_to_audit
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, counted
from fedsim_np.learning.engines.engine import ChunkResult, Engine, Task, check_shapes, chunk_result, columns_of
from fedsim_np.learning.engines.schedule import Schedule, schedule_of
from fedsim_np.learning.models.model import BatchOutput, Model
from fedsim_np.learning.shortcuts import EndsInHead, Stackable
from fedsim_np.trees import Array, Arrays

_CHUNK_BYTES = 2**23  # of weights: what the clients of a chunk move should stay near the processor
_MOST_CLIENTS = 32
_BLOCK_BYTES = 2**22  # of examples that are read at once where weights stay where they are


@dataclass(frozen=True)
class LockstepEngine(Engine):
    """Lockstep on stacked weights.

    Parameters
    ----------
    work : LocalTraining
    model : Model
    stacked : Model
        The model, as what it offers.
    chunk_size : int
    """

    work: LocalTraining
    model: Model
    stacked: Stackable
    chunk_size: int
    name = "cohort"
    takes_columns = True

    @cached_property
    def _audited(self) -> tuple[int | None, ...]:
        return rounds_to_audit(self.work)

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Train a chunk of clients in lockstep."""
        columns = columns_of(self.model, tasks, cache)
        with np.errstate(all="ignore"):  # an update that overflows is found and left out by the server
            if sent.round_num in self._audited:
                apart = functools.partial(self._train, cache=Cache(0))
                audit(apart, self.work, self.model, sent, tasks, columns)
            return self._train(sent, tasks, columns, cache)

    def _train(
        self, sent: Broadcast, tasks: Sequence[Task], columns: Sequence[ClientColumns], cache: Cache
    ) -> ChunkResult:
        """Take all steps; clients with most batches come first, and whoever has finished is cut off the end."""
        order = np.argsort([-len(client.lengths) for client in columns], kind="stable")
        columns = [columns[i] for i in order]
        stack = Stack(self, sent, [tasks[i] for i in order], columns)
        schedule = stack.schedule
        client, measure = stack.client(), Measure(self.model, schedule)
        active, server = len(tasks), sent.weights.trainable
        local = self._begin(client)
        parts: list[Local] = []
        for t in range(len(schedule.rows)):
            still = int(np.count_nonzero(schedule.num_steps > t))
            if still < active:
                parts.insert(0, trees.take(local, slice(still, active)))
                local, active = trees.take(local, slice(still)), still
            batch = stack.batch(t, active)
            output, gradients = stack.compute(local["weights"], *batch)
            measure.step(t, output, *batch)
            of_step = StepBatch(schedule.lengths[t, :active], functools.partial(stack.gradient_at, batch))
            local = checked_local(self.work, "step", self.work.step(local, gradients, of_step))
        check_dtypes(self.work, server, local["weights"])
        parts.insert(0, local)
        sizes = np.unique(-schedule.num_steps, return_counts=True)[1].tolist()  # a part took as many steps
        left = Lazy(local, lambda name: trees.concatenate([part[name] for part in parts], sizes))
        result = stack.end(client, left, lambda: trees.map(np.subtract, server, left["weights"]), measure.clients())
        return trees.take(result, np.argsort(order))

    def _begin(self, client: Client) -> Local:
        local, k = checked_local(self.work, "begin", self.work.begin(client)), len(client.ids)
        for path, leaf in trees.leaves(local):
            if isinstance(leaf, np.ndarray) and leaf.shape[:1] not in ((), (k,)):
                rule = f"with the clients' axis in front, as all that begin is given: ({k}, ...)"
                raise argument_error(f"{path} of {type(self.work).__name__}.begin", rule, leaf.shape)
        return local


def chunk_size_for(trainable: Arrays) -> int:
    """Return how many clients make a chunk of models of this size.

    Examples
    --------
    >>> chunk_size_for((np.zeros((784, 10), np.float32),)), chunk_size_for((np.zeros((784, 300), np.float32),))
    (32, 8)
    """
    return max(1, min(_MOST_CLIENTS, _CHUNK_BYTES // max(1, sum(w.nbytes for w in trainable))))


class Lazy(Mapping[str, Any]):
    """What local training leaves behind, each part made when it is asked for: most works ask for none of it."""

    def __init__(self, names: Collection[str], make: Callable[[str], Any]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> Any:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, eq=False)
class Stack:
    """Clients side by side: what a `LocalTraining` may know of them, their batches, and what they send.

    Parameters
    ----------
    engine : LockstepEngine
    sent : Broadcast
    tasks : sequence of Task
    columns : sequence of ClientColumns
        The tasks' data.
    """

    engine: LockstepEngine
    sent: Broadcast
    tasks: Sequence[Task]
    columns: Sequence[ClientColumns]

    @cached_property
    def schedule(self) -> Schedule:
        """The clients' batches side by side."""
        return schedule_of(self.columns)

    def client(self) -> Client:
        """Return what the clients know; all arrays have their axis in front, those of the server without copies."""
        k = len(self.tasks)

        def of_each(leaf: Any) -> Any:
            return np.broadcast_to(leaf, (k, *leaf.shape)) if isinstance(leaf, np.ndarray) and leaf.ndim else leaf

        return Client(
            weights=tuple(np.broadcast_to(w, (k, *w.shape)) for w in self.sent.weights.trainable),
            state=trees.map(of_each, self.sent.state),
            kept=trees.stack([task.kept for task in self.tasks]),
            round_num=self.sent.round_num,
            ids=tuple(task.client_id for task in self.tasks),
            is_many=True,
            _count_own_examples=lambda: np.array([client.num_own_examples for client in self.columns], np.int64),
            _objective=self._objective if self.engine.work.reads_all_data else None,
        )

    def batch(self, t: int, count: int) -> tuple[Array, Array, Array]:
        """Return x, y and the mask of step t, of the first clients."""
        return self._read(self.columns, self.schedule.rows[t, :count], self.schedule.mask[t, :count])

    def blocks(self) -> Iterator[tuple[Any, tuple[Array, Array, Array]]]:
        """Yield the clients that have batches left, and x, y and the mask of their next few, side by side.

        Each row comes once where that is the same in the mean.
        """
        # What is not made row by row may be another thing in another batch.
        by_row, x, t = isinstance(self.engine.model, EndsInHead), self.columns[0].x, 0
        schedule = schedule_of(list(map(_once, self.columns))) if by_row else self.schedule
        while t < len(schedule.rows):
            clients = np.flatnonzero(schedule.num_steps > t)
            of_step = len(clients) * schedule.rows.shape[2] * x.itemsize * math.prod(x.shape[1:])
            # No longer than half of the clients have batches for: the rest is padding.
            most = min(_BLOCK_BYTES // max(1, of_step), int(np.median(schedule.num_steps[clients])) - t)
            steps = slice(t, t + (max(1, most) if by_row else 1))
            rows, mask = (
                array[steps, clients].swapaxes(0, 1).reshape(len(clients), -1)
                for array in (schedule.rows, schedule.mask)
            )
            index = slice(None) if len(clients) == len(self.columns) else clients  # a slice copies no weights
            yield index, self._read([self.columns[i] for i in clients.tolist()], rows, mask)
            t = steps.stop

    def _read(self, columns: Sequence[ClientColumns], rows: Array, mask: Array) -> tuple[Array, Array, Array]:
        x = _gathered([client.x for client in columns], rows)
        y = _gathered([client.y for client in columns], rows)
        return x, y, mask

    def compute(self, weights: Arrays, x: Array, y: Array, mask: Array) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each client, forward and backward."""
        output, gradients = self.engine.stacked.stacked_forward_and_gradient(weights, x, y, mask)
        name = f"stacked_forward_and_gradient of {type(self.engine.model).__name__}"
        check_shapes(name, gradients, [w.shape for w in weights])
        return output, gradients

    def gradient_at(self, batch: tuple[Array, Array, Array], weights: Arrays) -> Arrays:
        """Return the gradient of a batch of each client."""
        return self.compute(weights, *batch)[1]

    def _objective(self, weights: Arrays) -> tuple[Array, Arrays]:
        k, sent = len(self.tasks), self.sent.weights
        total, loss = trees.map(lambda w: np.zeros(w.shape, w.dtype), weights), np.zeros(k)
        count = np.zeros(k, np.int64)
        for clients, (x, y, mask) in self.blocks():
            output, gradients = self.compute(trees.take(weights, clients), x, y, mask)
            n = mask.sum(axis=1)
            for s, g in zip(total, gradients, strict=True):
                s[clients] += trees.along(n, g) * g
            loss[clients] += np.where(n > 0, np.asarray(output.loss, np.float64) * n, 0)
            count[clients] += n
        here = (sent._replace(trainable=trees.take(weights, i)) for i in range(k))
        penalty = np.array([self.engine.model.penalty(one) for one in here])
        count = np.maximum(count, 1)
        return loss / count + penalty, trees.map(lambda s: s / trees.along(count, s), total)

    def end(
        self, client: Client, local: Local, update: Callable[[], Arrays], measured: Sequence[metrics.Unfinalized]
    ) -> ChunkResult:
        """Return what the clients send, after their steps; beside the model's metrics those that the work adds."""
        work, trainable = self.engine.work, self.sent.weights.trainable
        num_steps, num_examples = counted(self.columns)
        trained = Trained(num_steps, num_examples, update)
        result = checked_result(work, work.end(client, local, trained), self.tasks[0].kept, len(self.tasks))
        wanted = [(len(measured), *w.shape) for w in trainable]
        check_shapes(f"update of {type(work).__name__}", result.update, wanted)
        for i, sums in enumerate(measured if result.metrics else ()):
            sums.update(trees.take(result.metrics, i))
        return chunk_result(self.tasks, trainable, result, measured, num_examples.tolist(), num_steps.tolist())


def _once(client: ClientColumns) -> ClientColumns:
    """Return a client that reads each of its rows once, where it reads all of them equally often, as in epochs."""
    if len(client.rows) <= len(client.x):
        return client
    counts = np.bincount(client.rows)
    rows = np.flatnonzero(counts)
    if np.ptp(counts[rows]):
        return client
    batch = int(client.lengths.max())
    starts = np.arange(0, len(rows), batch)
    return client._replace(rows=rows, lengths=np.minimum(batch, len(rows) - starts))


def _gathered(columns: Sequence[Array], rows: Array) -> Array:
    """Return the rows that the first clients read of their columns, (k, b, ...)."""
    dtype = np.result_type(*{column.dtype for column in columns})
    out = np.empty((*rows.shape, *columns[0].shape[1:]), dtype)
    for column, index, into in zip(columns, rows, out, strict=False):
        if len(column) and column.dtype == dtype:
            column.take(index, axis=0, out=into, mode="clip")
        elif len(column):
            into[:] = column.take(index, axis=0, mode="clip")
        else:  # a client may have nothing but empty batches
            into[:] = 0
    return out


class Measure:
    """The metrics of a chunk, step by step."""

    def __init__(self, model: Model, schedule: Schedule) -> None:
        self._model, self._schedule, self._declared = model, schedule, model.declared_metrics
        k = len(schedule.num_steps)
        if self._declared is None:
            self._sums = [model.initial_metrics() for _ in range(k)]
        else:
            self._totals = np.zeros((1 + len(self._declared.means), k))  # of the loss, and of each mean

    def step(self, t: int, output: BatchOutput, x: Array, y: Array, mask: Array) -> None:
        """Measure a step."""
        k, lengths, losses = len(x), self._schedule.lengths[t, : len(x)], np.asarray(output.loss, np.float64)
        if self._declared is not None:
            self._totals[:, :k] += [
                losses * lengths,
                *self._declared.masked_sums(output.predictions, y, mask, output.outputs),
            ]
            return
        for i, n in enumerate(lengths.tolist()):
            outputs = None if output.outputs is None else output.outputs[i, :n]
            of_client = BatchOutput(np.asarray(output.loss)[i], output.predictions[i, :n], n, outputs=outputs)
            batch = {"x": x[i, :n], "y": y[i, :n]}
            self._sums[i] = metrics.add(self._sums[i], self._model.unfinalized_metrics(batch, of_client))

    def clients(self) -> list[metrics.Unfinalized]:
        """Return each client's unfinalized metrics."""
        if self._declared is None:
            return self._sums
        schedule, (loss, *means) = self._schedule, self._totals
        return self._declared.of_clients(means, loss, schedule.num_examples, schedule.num_steps)
