"""All clients of a chunk in lockstep: one step of the model and the work where the loop takes k.

The arithmetic is the loop's, with the clients' axis in front of every array. It serves every `Stackable` model, and
every `LocalTraining` whose steps are elementwise. Whether they are, a work may declare; if it does not, each step is
also taken for one of the clients alone, and has to come to the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error
from fedsim_np.learning import metrics
from fedsim_np.learning.client import Broadcast, Client, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.engines.engine import (
    ChunkResult,
    Engine,
    Lazy,
    Task,
    check_shapes,
    chunk_result,
    columns_of,
    with_more,
)
from fedsim_np.learning.engines.schedule import Schedule, schedule_of
from fedsim_np.learning.models.model import BatchOutput, Model
from fedsim_np.learning.shortcuts import DeclaresElementwise, Stackable
from fedsim_np.trees import Array, Arrays

_CHUNK_BYTES = 2**23  # of weights: what the clients of a chunk move should stay near the processor
_MOST_CLIENTS = 32


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
    chunk_size: int = _MOST_CLIENTS
    name = "cohort"
    takes_columns = True

    @property
    def parts(self) -> Mapping[str, Any]:
        """The work and the model."""
        return {"client work": self.work, "model": self.model}

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Train a chunk of clients in lockstep."""
        columns = columns_of(self.model, tasks, cache)
        with np.errstate(all="ignore"):  # an update that overflows is found and left out by the server
            return _Lockstep(self.work, self.model, self.stacked, sent, tasks, columns).run()


def chunk_size_for(trainable: Arrays) -> int:
    """Return how many clients make a chunk of models of this size.

    Examples
    --------
    >>> chunk_size_for((np.zeros((784, 10), np.float32),)), chunk_size_for((np.zeros((784, 300), np.float32),))
    (32, 8)
    """
    return max(1, min(_MOST_CLIENTS, _CHUNK_BYTES // max(1, sum(w.nbytes for w in trainable))))


class Stack:
    """Clients side by side, with what a `LocalTraining` may know of them.

    Parameters
    ----------
    model, stacked : Model
    sent : Broadcast
    tasks : sequence of Task
    columns : sequence of ClientColumns
        The tasks' data.
    schedule : Schedule
    """

    def __init__(
        self,
        model: Model,
        stacked: Stackable,
        sent: Broadcast,
        tasks: Sequence[Task],
        columns: Sequence[ClientColumns],
        schedule: Schedule,
    ) -> None:
        self.model, self._compute = model, stacked.stacked_forward_and_gradient
        self._sent, self._tasks, self.columns, self.schedule = sent, tasks, columns, schedule
        self._x, self._y = [client.x for client in columns], [client.y for client in columns]

    @functools.cached_property
    def _mask(self) -> Array:
        return self.schedule.mask

    def client(self, reads_all_data: bool) -> Client:
        """Return what the clients know; all arrays have their axis in front, those of the server without copies."""
        k = len(self._tasks)

        def of_each(leaf: Any) -> Any:
            return np.broadcast_to(leaf, (k, *leaf.shape)) if isinstance(leaf, np.ndarray) and leaf.ndim else leaf

        kept = [task.kept for task in self._tasks]
        return Client(
            weights=tuple(np.broadcast_to(w, (k, *w.shape)) for w in self._sent.weights.trainable),
            state=trees.map(of_each, self._sent.state),
            kept=None if kept[0] is None else trees.stack(kept),
            round_num=self._sent.round_num,
            ids=tuple(task.client_id for task in self._tasks),
            is_many=True,
            _count_own_examples=lambda: np.array([client.num_own_examples for client in self.columns], np.int64),
            _objective=self._objective if reads_all_data else None,
        )

    def batch(self, t: int, count: int) -> tuple[Array, Array, Array]:
        """Return x, y and the mask of step t, of the first clients."""
        rows = self.schedule.rows[t, :count]
        return _gathered(self._x, rows), _gathered(self._y, rows), self._mask[t, :count]

    def compute(self, weights: Arrays, x: Array, y: Array, mask: Array) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each client, forward and backward."""
        output, gradients = self._compute(weights, x, y, mask)
        name = f"stacked_forward_and_gradient of {type(self.model).__name__}"
        check_shapes(name, gradients, [w.shape for w in weights])
        return output, gradients

    def _objective(self, weights: Arrays) -> tuple[Array, Arrays]:
        k, lengths, count = len(self._tasks), self.schedule.lengths, np.maximum(self.schedule.num_examples, 1)
        total, loss = trees.map(lambda w: np.zeros(w.shape, w.dtype), weights), np.zeros(k)
        for t, n in enumerate(lengths):
            output, gradients = self.compute(weights, *self.batch(t, k))
            # A client that has no batch left has no gradient either, but perhaps one of the penalty.
            total = trees.map(lambda s, g, n=n: s + trees.along(n, g) * g, total, gradients)
            loss += np.where(n > 0, np.asarray(output.loss, np.float64) * n, 0)
        here = (self._sent.weights._replace(trainable=trees.take(weights, i)) for i in range(k))
        penalty = np.array([self.model.penalty(one) for one in here])
        return loss / count + penalty, trees.map(lambda s: s / trees.along(count, s), total)


def _gathered(columns: Sequence[Array], rows: Array) -> Array:
    """Return the rows that the first clients read of their columns, (k, b, ...)."""
    out = np.empty((*rows.shape, *columns[0].shape[1:]), columns[0].dtype)
    for column, index, into in zip(columns, rows, out, strict=False):
        if len(column):
            column.take(index, axis=0, out=into, mode="clip")
        else:  # a client may have nothing but empty batches
            into[:] = 0
    return out


class _Lockstep:
    """The steps of a chunk; clients with most batches come first, and whoever has finished is cut off the end."""

    def __init__(
        self,
        work: LocalTraining,
        model: Model,
        stacked: Stackable,
        sent: Broadcast,
        tasks: Sequence[Task],
        columns: Sequence[ClientColumns],
    ) -> None:
        self._work, self._sent = work, sent
        self._is_declared = isinstance(work, DeclaresElementwise)
        order = np.argsort([-len(client.lengths) for client in columns], kind="stable").tolist()
        self._back = np.argsort(order)
        self._tasks, columns = [tasks[i] for i in order], [columns[i] for i in order]
        self._stack = Stack(model, stacked, sent, self._tasks, columns, schedule_of(columns))
        self._measure = Measure(model, self._stack.schedule)

    def run(self) -> ChunkResult:
        """Take all steps."""
        k, schedule, trainable = len(self._tasks), self._stack.schedule, self._sent.weights.trainable
        client = self._stack.client(self._work.reads_all_data)
        local, active = self._begin(client), k
        finished: list[Local] = []
        sizes: list[int] = []
        for t in range(len(schedule.rows)):
            still = int(np.count_nonzero(schedule.num_steps > t))
            if still < active:
                finished.insert(0, trees.take(local, slice(still, active)))
                sizes.insert(0, active - still)
                local, active = trees.take(local, slice(still)), still
            x, y, mask = self._stack.batch(t, active)
            output, gradients = self._stack.compute(local["weights"], x, y, mask)
            self._measure.step(t, output, x, y, mask)
            local = self._step(local, gradients, t, (x, y, mask))
        parts, sizes = [local, *finished], [active, *sizes]

        def joined(name: str) -> Any:
            return trees.concatenate([part[name] for part in parts], sizes)

        local = Lazy({name: functools.partial(joined, name) for name in local})
        trained = Trained(
            schedule.num_steps,
            schedule.num_examples,
            lambda: trees.map(lambda w0, w: w0 - w, trainable, local["weights"]),
        )
        result = self._work.end(client, local, trained)
        check_shapes(f"update of {type(self._work).__name__}", result.update, [(k, *w.shape) for w in trainable])
        return self._in_order(result)

    def _begin(self, client: Client) -> Local:
        local = self._work.begin(client)
        for path, leaf in trees.leaves(local):
            if isinstance(leaf, np.ndarray) and leaf.shape[:1] not in ((), (len(self._tasks),)):
                rule = f"with the clients' axis in front, as all that begin is given: ({len(self._tasks)}, ...)"
                raise argument_error(f"{path} of {type(self._work).__name__}.begin", rule, leaf.shape)
        return local

    def _step(self, local: Local, gradients: Arrays, t: int, batch: tuple[Array, Array, Array]) -> Local:
        active = len(batch[0])
        lengths = self._stack.schedule.lengths[t, :active]
        gradient_at = functools.partial(self._gradient_at, batch)
        stepped = self._work.step(local, gradients, StepBatch(lengths, gradient_at))
        if not self._is_declared and active > 1:
            one = batch[0][:1], batch[1][:1], batch[2][:1]
            alone = self._work.step(
                trees.take(local, 0),
                trees.take(gradients, 0),
                StepBatch(int(lengths[0]), lambda w: trees.take(self._gradient_at(one, trees.map(_row, w)), 0)),
            )
            _check_same(self._work, trees.take(stepped, 0), alone)
        return stepped

    def _gradient_at(self, batch: tuple[Array, Array, Array], weights: Arrays) -> Arrays:
        return self._stack.compute(weights, *batch)[1]

    def _in_order(self, result: Any) -> ChunkResult:
        back, schedule = self._back, self._stack.schedule
        result = trees.take(result._replace(weight=None, metrics=None), back)._replace(
            weight=result.weight, metrics=result.metrics
        )
        weights = np.broadcast_to(result.weight, len(back))[back]
        measured = with_more(self._measure.clients(), result.metrics)
        return chunk_result(
            [self._tasks[i] for i in back],
            self._sent.weights.trainable,
            result,
            weights,
            metrics=[measured[i] for i in back],
            num_examples=schedule.num_examples[back].tolist(),
            num_steps=schedule.num_steps[back].tolist(),
        )


def _row(array: Array) -> Array:
    return np.asarray(array)[np.newaxis]


def _check_same(work: LocalTraining, of_many: Local, alone: Local) -> None:
    for (path, a), (_, b) in zip(trees.leaves(of_many), trees.leaves(alone), strict=True):
        if isinstance(a, np.ndarray | np.generic) and not np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True):
            rule = f"elementwise, or is_elementwise return False: '{path}' is another one if a client is stepped alone"
            raise argument_error(f"step of {type(work).__name__}", rule, f"off by {float(np.abs(a - b).max()):.2g}")


class Measure:
    """The metrics of a chunk, step by step."""

    def __init__(self, model: Model, schedule: Schedule) -> None:
        k = len(schedule.num_steps)
        self._model, self._schedule, self._of_examples = model, schedule, model.declared_metrics
        self._loss = np.zeros(k)
        self._means = [
            np.zeros(k) for _ in (model.declared_metrics.means if model.declared_metrics is not None else ())
        ]
        self._sums = [] if model.declared_metrics is not None else [model.initial_metrics() for _ in range(k)]

    def step(self, t: int, output: BatchOutput, x: Array, y: Array, mask: Array) -> None:
        """Measure a step."""
        k, lengths, losses = len(x), self._schedule.lengths[t], np.asarray(output.loss, np.float64)
        if self._of_examples is not None:
            self._loss[:k] += losses * lengths[:k]
            for total, sums in zip(
                self._means, self._of_examples.masked_sums(output.predictions, y, mask), strict=True
            ):
                total[:k] += sums
            return
        for i, n in enumerate(lengths[:k].tolist()):
            of_client = BatchOutput(np.asarray(output.loss)[i], output.predictions[i, :n], n)
            batch = {"x": x[i, :n], "y": y[i, :n]}
            self._sums[i] = metrics.add(self._sums[i], self._model.unfinalized_metrics(batch, of_client))

    def clients(self) -> list[metrics.Unfinalized]:
        """Return each client's unfinalized metrics."""
        if self._of_examples is None:
            return self._sums
        schedule = self._schedule
        return self._of_examples.of_clients(self._means, self._loss, schedule.num_examples, schedule.num_steps)
