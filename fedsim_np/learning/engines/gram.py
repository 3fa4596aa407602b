r"""Softmax regression in the span of the client's data.

Every step of SGD subtracts a combination of data rows from the kernel, so that the kernel never leaves
:math:`W_0 + \mathrm{span}(X)`. Local training needs only the logits of the client's rows, and they move by

.. math:: X W_{t+1} + b_{t+1} = X W_t + b_t - \eta\, G_{:,B} E_t, \qquad G = X X^T + 1

with the errors :math:`E_t = (p - \mathrm{onehot}(y)) / |B|` of batch B; the 1 is the bias. So a step costs n x b x c
instead of twice b x d x c, and the weights are computed once, at the end: :math:`W_0 - W = X^T A`, with A the sum of
all errors by row.

Momentum and a pull towards the server's weights are linear in the past errors and the same for every coordinate: the
logits follow the same recursion as the weights would, and each step's errors enter A with a factor that depends on how
long ago it was, the *impulse response* of that recursion. A constant drift d, added to every gradient, is one more
direction: the logits move by X d as well, and the weights by d times the sum of the responses. So the engine serves
every local training that declares its steps to be `SGDSteps`, whatever it does before and after them.

In exact terms this is the reference loop's arithmetic; in float32 it agrees to rounding. The Gram matrix G never
changes, and is kept between rounds. Classes come first in the arrays, (c, k, ...), since NumPy reduces over a first
axis several times faster than over a short last one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.learning.client import Broadcast, Trained
from fedsim_np.learning.client_work import LocalTraining
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
from fedsim_np.learning.engines.lockstep import Stack
from fedsim_np.learning.engines.schedule import Schedule, schedule_of
from fedsim_np.learning.losses import SoftmaxHead
from fedsim_np.learning.metrics import ExampleMetrics, LabelEntries, Unfinalized
from fedsim_np.learning.models.model import Model
from fedsim_np.learning.shortcuts import IsSoftmaxRegression, SGDSteps, Stackable, TakesSGDSteps
from fedsim_np.trees import Array, Arrays


@dataclass(frozen=True)
class GramEngine(Engine):
    """Lockstep in the span of the data, for `SGDSteps` of softmax regression.

    Parameters
    ----------
    work : LocalTraining
    model : Model
    stacked, softmax : Model
        The model, as what it offers.
    sgd : LocalTraining
        The work, as what it declares.
    """

    work: LocalTraining
    model: Model
    stacked: Stackable
    softmax: IsSoftmaxRegression
    sgd: TakesSGDSteps
    name = "gram"
    chunk_size = 100
    takes_columns = True

    @property
    def parts(self) -> Mapping[str, Any]:
        """The work and the model."""
        return {"client work": self.work, "model": self.model}

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Train a chunk of clients in lockstep."""
        steps = self.sgd.as_sgd(sent.state)
        if steps is None:  # a schedule by round may change from it
            raise ValueError("engine='gram' cannot take steps that are not gradient descent's: use engine='auto'.")
        columns = columns_of(self.model, tasks, cache)
        with np.errstate(all="ignore"):  # an update that overflows is found and left out by the server
            return self._train(steps, sent, tasks, columns, cache)

    def _train(
        self, steps: SGDSteps, sent: Broadcast, tasks: Sequence[Task], clients: list[ClientColumns], cache: Cache
    ) -> ChunkResult:
        work, model, trainable, k = self.work, self.model, sent.weights.trainable, len(clients)
        logits, fingerprints = _first_logits(trainable[0], trainable[1], clients)
        plan = _plan(model, clients, fingerprints, cache)
        schedule = plan.schedule
        client = Stack(model, self.stacked, sent, tasks, clients, schedule).client(work.reads_all_data)
        local, server = work.begin(client), client.weights
        drift = None if steps.drift is None else local[steps.drift]
        if self.softmax.l2:  # l2 w is a pull towards the server's weights, and a drift of l2 times these
            of_l2 = trees.map(lambda w: np.float32(self.softmax.l2) * w, server)
            drift = of_l2 if drift is None else trees.map(np.add, drift, of_l2)
            steps = steps._replace(pull=steps.pull + self.softmax.l2)
        recursion = _Recursion.of(steps)
        movement = _movement(recursion, drift, clients, logits)
        taken = _Lockstep(self.softmax.softmax_head(), recursion, logits, plan, movement)
        update = taken.update(clients, drift)
        trained = Trained(schedule.num_steps, schedule.num_examples, lambda: update)
        final: dict[str, Callable[[], Any]] = {name: functools.partial(local.get, name) for name in local}
        final["weights"] = lambda: trees.map(np.subtract, server, update)
        result = work.end(client, Lazy(final), trained)
        check_shapes(f"update of {type(work).__name__}", result.update, [(k, *w.shape) for w in trainable])
        return chunk_result(
            tasks,
            trainable,
            result,
            np.broadcast_to(result.weight, k),
            metrics=with_more(taken.measured(model.declared_metrics), result.metrics),
            num_examples=schedule.num_examples.tolist(),
            num_steps=schedule.num_steps.tolist(),
        )

    def suits(self, sent: Broadcast, clients: Sequence[ClientColumns]) -> bool:
        """Return whether the steps are gradient descent's, and Gram matrices, n^2 d, save more than they cost.

        They save 2 v d c, at half that speed.
        """
        rows = sum(len(client.x) ** 2 for client in clients)
        c = sent.weights.trainable[0].shape[1]
        return self.sgd.as_sgd(sent.state) is not None and rows <= 16 * c * sum(len(cl.rows) for cl in clients)


class _Recursion(NamedTuple):
    """SGD's recursion on displacements D = w - w0, gradients already times the rate.

    g = rate * gradient + rate * mu * D;   a = momentum * a + g;   D -= a   (Nesterov: D -= g + momentum * a)
    """

    rate: float
    momentum: float
    pull: float
    nesterov: bool

    @classmethod
    def of(cls, steps: SGDSteps) -> _Recursion:
        rate, momentum = np.float32(steps.learning_rate), np.float32(steps.momentum)
        return cls(float(rate), float(momentum), float(rate * np.float32(steps.pull)), steps.nesterov)

    @property
    def is_plain(self) -> bool:
        """Whether every step counts the same in the end."""
        return not self.momentum and not self.pull

    def impulse_response(self, steps: int) -> Array:
        """Return how far a unit step has moved the weights after 1, ..., steps steps, (steps,) float64."""
        a = displacement = 0.0
        moved = np.empty(steps)
        for t in range(steps):
            g = (t == 0) + self.pull * displacement
            a = self.momentum * a + g
            displacement -= g + self.momentum * a if self.nesterov else a
            moved[t] = -displacement
        return moved


def _first_logits(kernel: Array, bias: Array, clients: Sequence[ClientColumns]) -> tuple[Array, Array]:
    """Return the logits of all rows, (c, k, N), and a fingerprint of each row of x, (k, N).

    The fingerprint is one more column of the same product: by it a Gram matrix knows the rows that it was made of.
    """
    d, c = kernel.shape
    num_rows = max(len(client.x) for client in clients)
    columns = np.zeros((d, -(-(c + 1) // 4) * 4), np.float32)  # BLAS likes multiples of 4
    columns[:, :c] = kernel
    columns[:, c] = np.random.default_rng([d]).standard_normal(d, np.float32)
    products = np.zeros((c + 1, len(clients), num_rows), np.float32)
    for i, client in enumerate(clients):
        n = len(client.x)
        products[:, i, :n] = (client.x.reshape(n, d) @ columns)[:, : c + 1].T
    logits = products[:c]
    logits += bias[:, np.newaxis, np.newaxis]
    return logits, products[c]


def _movement(
    recursion: _Recursion, drift: Arrays | None, clients: Sequence[ClientColumns], logits: Array
) -> Array | None:
    """Return how the drift moves the logits of all rows in a step, (c, k, N); None where there is none."""
    if drift is None:
        return None
    kernels, biases = drift
    moved = np.zeros_like(logits)
    for i, client in enumerate(clients):
        n = len(client.x)
        moved[:, i, :n] = (client.x.reshape(n, kernels.shape[1]) @ kernels[i]).T
    moved += biases.T[:, :, np.newaxis]
    moved *= np.float32(recursion.rate)
    return moved


class _Plan(NamedTuple):
    """What a chunk's steps need besides the weights; kept where the same chunk comes again.

    Attributes
    ----------
    schedule : Schedule
    labels, at_label : ndarray of intp, shape (T, k b)
        The label at each place, and where its entry is in an array (c, k b).
    rows : ndarray of intp, shape (T, k b)
        The row at each place, among all rows of the chunk, k N.
    mask : ndarray of bool, shape (T, k b)
    padded : list of bool
        Whether a step has padding.
    grams : ndarray, shape (k N, N), or None
        G, for clients that take more than one step.
    row_labels, fingerprints : ndarray, shape (k, N)
        What the rows were when this was made.
    """

    schedule: Schedule
    labels: Array
    at_label: Array
    rows: Array
    mask: Array
    padded: list[bool]
    grams: Array | None
    row_labels: Array
    fingerprints: Array


def _plan(model: Model, clients: Sequence[ClientColumns], fingerprints: Array, cache: Cache) -> _Plan:
    """Return the chunk's plan, a kept one if it is of the same rows to the bit."""
    k, num_rows = fingerprints.shape
    row_labels = np.zeros((k, num_rows), np.intp)
    for of_client, client in zip(row_labels, clients, strict=True):
        of_client[: len(client.y)] = client.y.reshape(-1)
    keys = tuple((client.key, client.order_key) for client in clients)
    known = all(client.order_key is not None for client in clients)
    kept: _Plan | None = cache.find((keys, "plan")) if known else None
    if kept and np.array_equal(kept.fingerprints, fingerprints) and np.array_equal(kept.row_labels, row_labels):
        return kept
    schedule = schedule_of(clients)
    steps, places = len(schedule.rows), k * schedule.rows.shape[2]
    rows = (schedule.rows + (np.arange(k, dtype=np.intp) * num_rows)[:, np.newaxis]).reshape(steps, places)
    mask = schedule.mask.reshape(steps, places)
    labels = row_labels.reshape(-1)[rows] if num_rows else np.zeros(rows.shape, np.intp)
    model.check_labels(labels[mask])
    labels[~mask] = 0  # nobody reads these, and they may be anything
    grams = _gram_matrices(clients, fingerprints, cache) if len(rows) > 1 else None
    padded = [bool(t) for t in np.asarray(np.count_nonzero(~mask, axis=1))]
    at_label = labels * places + np.arange(places)
    plan = _Plan(schedule, labels, at_label, rows, mask, padded, grams, row_labels, fingerprints.copy())
    if known:
        # Only a chunk that comes again is worth it: of clients that are drawn anew, the Gram matrices are kept alone.
        if cache.find((keys, "seen")):
            size = sum(a.nbytes for a in (labels, at_label, rows, mask, row_labels, plan.fingerprints, *schedule))
            cache.put((keys, "plan"), plan, size + (0 if grams is None else grams.nbytes))
        else:
            cache.put((keys, "seen"), True, 128 * k)
    return plan


def _gram_matrices(clients: Sequence[ClientColumns], fingerprints: Array, cache: Cache) -> Array:
    """Return the rows of each client's G = X X^T + 1, (k N, N)."""
    num_rows = fingerprints.shape[1]
    grams = np.zeros((len(clients), num_rows, num_rows), np.float32)
    for i, client in enumerate(clients):
        n = len(client.x)
        fingerprint, key = fingerprints[i, :n], (client.key, "gram")
        kept = None if client.key is None else cache.find(key)
        if kept is not None and np.array_equal(kept[0], fingerprint):
            grams[i, :n, :n] = kept[1]
            continue
        x = client.x.reshape(n, math.prod(client.x.shape[1:]))
        gram = x @ x.T
        gram += 1
        grams[i, :n, :n] = gram
        if client.key is not None:
            cache.put(key, (fingerprint.copy(), gram), gram.nbytes + fingerprint.nbytes)
    return grams.reshape(-1, num_rows)


class _FlatEntries(LabelEntries):
    """The labels' entries in arrays (..., m, c) that are (..., c, m) in memory, by their places there."""

    def __init__(self, at_label: Array) -> None:
        self._at = at_label

    def of(self, array: Array) -> Array:
        return np.asarray(array.swapaxes(-1, -2).reshape(-1).take(self._at, mode="clip"))

    def put(self, array: Array, values: Array) -> None:
        array.swapaxes(-1, -2).reshape(-1)[self._at] = values


class _Lockstep:
    """The steps of a chunk: `logits` (c, k, N) move with the weights, errors and predictions are kept.

    Parameters
    ----------
    head : SoftmaxHead
    recursion : _Recursion
    logits : ndarray, shape (c, k, N)
        Of all rows, at the server's weights.
    plan : _Plan
    movement : ndarray, shape (c, k, N), or None
        What the drift makes of the logits in each step.
    """

    def __init__(
        self, head: SoftmaxHead, recursion: _Recursion, logits: Array, plan: _Plan, movement: Array | None
    ) -> None:
        c, k, num_rows = logits.shape
        steps, places = plan.rows.shape
        self._head, self._recursion, self._logits, self._plan = head, recursion, logits, plan
        scale = np.float32(recursion.rate) / np.maximum(plan.schedule.lengths, 1).astype(np.float32)
        self._scale = np.repeat(scale, places // k, axis=1)
        self._movement, self._first = movement, logits.copy() if recursion.pull else None
        self._velocity = np.zeros_like(logits) if recursion.momentum else None
        self._moved = np.empty((c, k, num_rows), np.float32)
        self._gram_rows = np.empty((places, num_rows), np.float32)
        self._p, self._e = (np.empty((steps, c, places), np.float32) for _ in range(2))
        self._z = np.empty((steps if head.needs_outputs else 1, c, places), np.float32)
        if num_rows:
            for t in range(steps):
                self._find_errors(t)
                if t + 1 < steps:
                    self._move_logits(t)
        else:
            self._z[:] = self._p[:] = self._e[:] = 0

    def _find_errors(self, t: int) -> None:
        """Compute the probabilities and errors of step t; the head sees the classes last, as it is used to."""
        z, p, e, plan = self._z[t if len(self._z) > 1 else 0], self._p[t], self._e[t], self._plan
        self._logits.reshape(len(z), -1).take(plan.rows[t], axis=1, out=z, mode="clip")
        self._head.predict(z.T, out=p.T)
        self._head.errors(p.T, _FlatEntries(plan.at_label[t]), self._scale[t], out=e.T)
        if plan.padded[t]:
            e[:, ~plan.mask[t]] = 0  # not times 0: a client that has finished may have diverged since

    def _move_logits(self, t: int) -> None:
        """Move the logits of all rows as step t moves the weights."""
        assert self._plan.grams is not None
        c, k, num_rows = self._logits.shape
        self._plan.grams.take(self._plan.rows[t], axis=0, out=self._gram_rows, mode="clip")
        by_client, gram_rows = self._e[t].reshape(c, k, -1).transpose(1, 0, 2), self._gram_rows.reshape(k, -1, num_rows)
        moved, momentum = self._moved, np.float32(self._recursion.momentum)
        np.matmul(by_client, gram_rows, out=moved.transpose(1, 0, 2))
        if self._movement is not None:
            moved += self._movement
        if self._first is not None:
            moved += np.float32(self._recursion.pull) * (self._logits - self._first)
        if self._velocity is None:
            self._logits -= moved
            return
        self._velocity *= momentum
        self._velocity += moved
        self._logits -= moved + momentum * self._velocity if self._recursion.nesterov else self._velocity

    def measured(self, metrics: ExampleMetrics | None) -> list[Unfinalized]:
        """Return each client's unfinalized metrics."""
        assert metrics is not None
        schedule, labels = self._plan.schedule, self._plan.labels
        steps, k, b = schedule.rows.shape
        z, p = (array.transpose(0, 2, 1) for array in (self._z, self._p))
        entries = _FlatEntries(self._plan.at_label + p[:1].size * np.arange(steps)[:, np.newaxis])
        losses = self._head.losses(z, p, entries)

        def of_clients(values: Array) -> Array:
            return np.asarray(np.where(self._plan.mask, values, 0).reshape(steps, k, b).sum(axis=2))

        lengths = schedule.lengths.astype(np.float32)
        batch_losses = (of_clients(losses) / np.maximum(lengths, 1)).astype(np.float64)
        loss = (batch_losses * schedule.lengths).sum(axis=0)
        means = [of_clients(values(p, labels[..., np.newaxis])).sum(axis=0) for values in metrics.means.values()]
        return metrics.of_clients(means, loss, schedule.num_examples, schedule.num_steps)

    def update(self, clients: Sequence[ClientColumns], drift: Arrays | None) -> Arrays:
        """Return W0 - W and b0 - b of each client, (k, d, c) and (k, c)."""
        steps, c, places = self._e.shape
        k, num_rows = self._plan.fingerprints.shape
        num_steps, errors = self._plan.schedule.num_steps, self._e
        response = self._recursion.impulse_response(steps)
        if not self._recursion.is_plain:
            # Step t of a client with T batches is followed by T - 1 - t others.
            age = num_steps - 1 - np.arange(steps)[:, np.newaxis]
            weight = response[np.maximum(age, 0)].astype(np.float32)
            errors = errors * np.repeat(weight, places // k, axis=1)[:, np.newaxis]
        coefficients = _sums_by_row(errors, self._plan.rows, k * num_rows).reshape(c, k, num_rows)
        d = math.prod(clients[0].x.shape[1:])
        kernels, biases = np.empty((k, c, d), np.float32), np.empty((k, c), np.float32)
        for i, client in reversed(list(enumerate(clients))):  # the last one's data are still in the cache
            of_client = coefficients[:, i, : len(client.x)]
            np.matmul(of_client, client.x.reshape(-1, d), out=kernels[i])
            biases[i] = of_client.sum(axis=1)
        updates = kernels.transpose(0, 2, 1), biases
        if drift is not None:
            in_all = self._recursion.rate * np.concatenate([[0.0], np.cumsum(response)])[num_steps]
            for update, direction in zip(updates, drift, strict=True):
                np.add(update, trees.along(in_all, direction) * direction, out=update)
        return updates


def _sums_by_row(errors: Array, rows: Array, num_rows: int) -> Array:
    """Return the sums of errors (T, c, k b) by row, (c, num_rows) float32."""
    c = errors.shape[1]
    places, by_class = rows.reshape(-1), errors.transpose(1, 0, 2).reshape(c, -1)
    sums = np.empty((c, num_rows), np.float32)
    for of_class, out in zip(by_class, sums, strict=True):
        out[:] = np.bincount(places, of_class, minlength=num_rows)[:num_rows]
    return sums
