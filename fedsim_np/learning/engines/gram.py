r"""Softmax regression in the span of the client's data.

Every step of SGD subtracts a combination of data rows from the kernel, so that the kernel never leaves
:math:`W_0 + \mathrm{span}(X)`. Local training needs only the logits of the client's rows, and they move by

.. math:: X W_{t+1} + b_{t+1} = X W_t + b_t - \eta\, G_{:,B} E_t, \qquad G = X X^T + 1

with the errors :math:`E_t = (p - \mathrm{onehot}(y)) / |B|` of batch B; the 1 is the bias. So a step costs n x b x c
instead of twice b x d x c, and the weights are computed once, at the end: :math:`W_0 - W = X^T A`, with A the sum of
all errors by row.

Momentum and the proximal term are linear in the past errors and the same for every coordinate: the logits follow the
same recursion as the weights would, and each step's errors enter A with a factor that depends on how long ago it was,
the *impulse response* of that recursion.

In exact terms this is the reference loop's arithmetic; in float32 it agrees to rounding. The Gram matrix G never
changes, and is kept between rounds. Classes come first in the arrays, (c, k, ...), since NumPy reduces over a first
axis several times faster than over a short last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.engines import cohort
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, columns_of
from fedsim_np.learning.engines.engine import ChunkResult, Client, Engine
from fedsim_np.learning.engines.lockstep import Visits, client_metrics, labels_by_row, visits_of
from fedsim_np.learning.losses import Loss
from fedsim_np.learning.models import Array, ModelWeights
from fedsim_np.learning.optimizers import SGDM


@dataclass(frozen=True)
class GramEngine(Engine):
    """Lockstep in the span of the data, for `SGDM`.

    Parameters
    ----------
    model : Model
        One that offers ``softmax_head``.
    client_work : ClientWork
        One that says which `LocalTraining` it is.
    may_step : bool
        Whether a chunk whose clients have so many rows that their Gram matrices cost more than they save is stepped
        as `cohort` does; what decides is the shapes.
    """

    model: Any
    client_work: ClientWork
    may_step: bool = False
    name = "gram"
    chunk_size = 100
    takes_columns = True

    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Train a chunk of clients in lockstep."""
        training, hparams = self.client_work.local_training(state) or (None, None)
        assert training is not None
        columns = columns_of(self.model, clients, cache)
        sgd = type(training.optimizer) is SGDM  # a schedule by round may change from it
        if not sgd and not self.may_step:
            raise ValueError(
                f"engine='gram' cannot use {type(training.optimizer).__name__}, only SGD: use engine='auto'."
            )
        with np.errstate(all="ignore"):  # an update that overflows is found and left out by the server
            if not sgd or (self.may_step and _too_large(columns, weights.trainable[0].shape[1])):
                return cohort.train(training, hparams, weights, columns)
            return _train(self.model, training, hparams, weights, columns, cache)


def _too_large(clients: Sequence[ClientColumns], c: int) -> bool:
    """Return whether Gram matrices, n^2 d, cost more than they save: of 2 v d c, at half their speed."""
    rows = sum(len(client.x) ** 2 for client in clients)
    return rows > 16 * c * sum(len(client.rows) for client in clients)


def _train(
    model: Any, training: LocalTraining, hparams: Any, weights: ModelWeights, clients: list[ClientColumns], cache: Cache
) -> ChunkResult:
    kernel, bias = weights.trainable
    c, k, num_rows = kernel.shape[1], len(clients), max(len(client.x) for client in clients)
    if not num_rows or not any(len(client.rows) for client in clients):  # nobody has an example
        return cohort.train(training, hparams, weights, clients)
    logits, prints = _first_logits(kernel, bias, clients, num_rows)
    plan = _plan(model, clients, num_rows, prints, cache)
    visits = plan.visits
    recursion = _Recursion.of(training, hparams)
    steps = _Lockstep(model.softmax_head(), recursion, logits, plan).run()
    coefficients = _coefficients(steps.errors, recursion, plan, num_rows)
    kernels, biases = np.empty((k, c, len(kernel)), np.float32), np.empty((k, c), np.float32)
    for i, client in reversed(list(enumerate(clients))):  # the last one's data are still in the cache
        of_client = coefficients[:, i, : len(client.x)]
        np.matmul(of_client, client.x.reshape(-1, len(kernel)), out=kernels[i])
        biases[i] = of_client.sum(axis=1)
    examples = visits.examples
    client_weights = np.array([training.weight(n) for n in examples.tolist()])
    sums = client_metrics(model, clients, visits, steps.losses, steps.predictions, steps.correct)
    return ChunkResult.of((kernels.transpose(0, 2, 1), biases), client_weights, sums, examples.tolist())


class _Recursion(NamedTuple):
    """SGD's recursion on displacements D = w - w0, gradients already times the rate.

    g = rate * gradient + rate * mu * D;   a = momentum * a + g;   D -= a   (Nesterov: D -= g + momentum * a)
    """

    rate: float
    momentum: float
    pull: float
    nesterov: bool

    @classmethod
    def of(cls, training: LocalTraining, hparams: Any) -> _Recursion:
        state = training.initial_optimizer_state((), hparams)
        rate, momentum = np.float32(state["learning_rate"]), np.float32(state.get("momentum", 0.0))
        pull = rate * np.float32(training.proximal_strength or 0.0)
        return cls(float(rate), float(momentum), float(pull), getattr(training.optimizer, "nesterov", False))

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


def _first_logits(kernel: Array, bias: Array, clients: Sequence[ClientColumns], num_rows: int) -> tuple[Array, Array]:
    """Return the logits of all rows, (c, k, N), and a fingerprint of each row of x, (k, N).

    The fingerprint is one more column of the same product: by it a Gram matrix knows the rows that it was made of.
    """
    d, c = kernel.shape
    columns = np.empty((c + 1, d), np.float32)
    columns[:c] = kernel.T
    columns[c] = np.random.default_rng([d]).standard_normal(d, np.float32)
    products = np.zeros((c + 1, len(clients), num_rows), np.float32)
    for i, client in enumerate(clients):
        n = len(client.x)
        np.matmul(columns, client.x.reshape(n, d).T, out=products[:, i, :n])
    logits = products[:c]
    logits += bias[:, np.newaxis, np.newaxis]
    return logits, products[c]


class _Plan(NamedTuple):
    """What a chunk's steps need besides the weights; kept where the same chunk comes again.

    Attributes
    ----------
    visits : Visits
    labels, at_label : ndarray of intp, shape (T, k b)
        The label of each visit, and where its logit is in an array (c, k b).
    rows : ndarray of intp, shape (T, k b)
        The row of each visit among all rows of the chunk, k N.
    mask : ndarray of bool, shape (T, k b)
    padded : list of bool
        Whether a step has padding.
    grams : ndarray, shape (k N, N), or None
        G, for clients that take more than one step.
    row_labels, prints : ndarray, shape (k, N)
        What the rows were when this was made.
    """

    visits: Visits
    labels: Array
    at_label: Array
    rows: Array
    mask: Array
    padded: list[bool]
    grams: Array | None
    row_labels: Array
    prints: Array


def _plan(model: Any, clients: Sequence[ClientColumns], num_rows: int, prints: Array, cache: Cache) -> _Plan:
    """Return the chunk's plan, a kept one if it is of the same rows to the bit."""
    row_labels = labels_by_row(clients, num_rows)
    keys = tuple((client.key, client.visits_key) for client in clients)
    known = all(client.visits_key is not None for client in clients)
    kept: _Plan | None = cache.find((keys, "plan")) if known else None
    if kept and np.array_equal(kept.prints, prints) and np.array_equal(kept.row_labels, row_labels):
        return kept
    k, visits = len(clients), visits_of(clients)
    visited = k * visits.rows.shape[2]
    rows = (visits.rows + (np.arange(k, dtype=np.intp) * num_rows)[:, np.newaxis]).reshape(-1, visited)
    mask = visits.mask.reshape(-1, visited)
    labels = row_labels.reshape(-1)[rows]
    model.checked_labels(labels[mask])
    labels[~mask] = 0  # nobody reads these, and they may be anything
    grams = _gram_matrices(clients, num_rows, prints, cache) if len(rows) > 1 else None
    at_label = labels * visited + np.arange(visited)
    padded = [bool(t) for t in np.asarray(np.count_nonzero(~mask, axis=1))]
    plan = _Plan(visits, labels, at_label, rows, mask, padded, grams, row_labels, prints.copy())
    if known:
        # Only a chunk that comes again is worth it: of clients that are drawn anew, the Gram matrices are kept alone.
        if cache.find((keys, "seen")):
            size = sum(a.nbytes for a in (labels, at_label, rows, mask, row_labels, plan.prints, *visits))
            cache.put((keys, "plan"), plan, size + (0 if grams is None else grams.nbytes))
        else:
            cache.put((keys, "seen"), True, 128 * k)
    return plan


def _gram_matrices(clients: Sequence[ClientColumns], num_rows: int, prints: Array, cache: Cache) -> Array:
    """Return the rows of each client's G = X X^T + 1, (k N, N)."""
    grams = np.zeros((len(clients), num_rows, num_rows), np.float32)
    for i, client in enumerate(clients):
        n = len(client.x)
        fingerprint, key = prints[i, :n], (client.key, "gram")
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


class _Steps(NamedTuple):
    """What local training leaves behind.

    Attributes
    ----------
    errors : ndarray, shape (T, c, k b)
        Rate times the gradient in the logits, of each visit.
    losses : ndarray, shape (T, k)
        Mean loss of each batch.
    predictions : ndarray, shape (T, k, b, c)
    correct : ndarray, shape (k,)
    """

    errors: Array
    losses: Array
    predictions: Array
    correct: Array


class _Lockstep:
    """The steps of a chunk: `logits` (c, k, N) move with the weights, `errors` and predictions are kept."""

    def __init__(self, head: Loss, recursion: _Recursion, logits: Array, plan: _Plan) -> None:
        c, k, num_rows = logits.shape
        steps, visited = plan.rows.shape
        self._head, self._recursion, self._logits, self._plan = head, recursion, logits, plan
        scale = np.float32(recursion.rate) / np.maximum(plan.visits.lengths, 1).astype(np.float32)
        self._scale = np.repeat(scale, visited // k, axis=1)
        self._first = logits.copy() if recursion.pull else None
        self._velocity = np.zeros_like(logits) if recursion.momentum else None
        self._moved = np.empty((c, k, num_rows), np.float32)
        self._gram_rows = np.empty((visited, num_rows), np.float32)
        self._p, self._e = (np.empty((steps, c, visited), np.float32) for _ in range(2))
        self._z = np.empty((steps if head.uses_logits else 1, c, visited), np.float32)
        self._totals, self._p_label, self._z_label = (np.empty((steps, visited), np.float32) for _ in range(3))

    def run(self) -> _Steps:
        """Take all steps."""
        for t in range(len(self._p)):
            self._find_errors(t)
            if t + 1 < len(self._p):
                self._move_logits(t)
        return self._measured()

    def _find_errors(self, t: int) -> None:
        """Compute the probabilities and errors of step t."""
        z, p, e = self._z[t if self._head.uses_logits else 0], self._p[t], self._e[t]
        plan, total, p_label = self._plan, self._totals[t], self._p_label[t]
        at_label = plan.at_label[t]
        self._logits.reshape(len(p), -1).take(plan.rows[t], axis=1, out=z, mode="clip")
        np.subtract(z, z.max(axis=0), out=p)
        np.exp(p, out=p)
        p.sum(axis=0, out=total)
        np.divide(p, total, out=p)
        p.reshape(-1).take(at_label, out=p_label, mode="clip")
        if self._head.uses_logits:
            z.reshape(-1).take(at_label, out=self._z_label[t], mode="clip")
        factor = None if self._head.factor is None else self._head.factor(p, p_label, 0)
        scale = self._scale[t] if factor is None else self._scale[t] * factor
        np.multiply(p, scale, out=e)
        # p - 1 for the label, rounded before the factor as the loop does it.
        e.reshape(-1)[at_label] = (p_label - 1) * scale
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
        if self._first is not None:
            moved += np.float32(self._recursion.pull) * (self._logits - self._first)
        if self._velocity is None:
            self._logits -= moved
            return
        self._velocity *= momentum
        self._velocity += moved
        self._logits -= moved + momentum * self._velocity if self._recursion.nesterov else self._velocity

    def _measured(self) -> _Steps:
        steps, c, visited = self._p.shape
        visits, k = self._plan.visits, self._logits.shape[1]
        of_clients = steps, k, visited // k
        losses = self._head.examples(self._z, self._p, self._z_label, self._p_label, 1).reshape(of_clients)
        lengths = np.maximum(visits.lengths, 1).astype(np.float32)
        means = np.where(visits.mask, losses, 0).sum(axis=2) / lengths
        p_top = np.float32(1) / self._totals
        hits = correct_predictions(self._p, self._p_label, p_top, self._plan.labels) & self._plan.mask
        correct = np.count_nonzero(hits.reshape(of_clients), axis=(0, 2))
        p = self._p.reshape(steps, c, *of_clients[1:]).transpose(0, 2, 3, 1)
        return _Steps(self._e, means, p, correct)


def correct_predictions(p: Array, p_label: Array, p_top: Array, labels: Array) -> Array:
    """Return whether each label is the prediction: the lowest of the classes with the largest probability.

    Parameters
    ----------
    p : ndarray, shape (T, c, m)
    p_label, p_top : ndarray, shape (T, m)
        Probability of the label, and the largest one.
    labels : ndarray, shape (T, m)

    Examples
    --------
    >>> p = np.float32([[[0.2, 0.4], [0.8, 0.4], [0.0, 0.2]]])
    >>> correct_predictions(p, np.float32([[0.8, 0.4]]), p.max(axis=1), np.array([[1, 1]])).tolist()
    [[True, False]]
    """
    hit = np.equal(p_label, p_top)
    at_top = np.equal(p, p_top[:, np.newaxis]).view(np.uint8)
    # Argmax is the rule, and slow: it is asked where several classes tie, or where there is no largest one (NaN).
    unclear = at_top.sum(axis=1, dtype=np.uint8) != 1
    if unclear.any():
        t, m = np.nonzero(unclear)
        hit[t, m] = p[t, :, m].argmax(axis=1) == labels[t, m]
    return hit


def _coefficients(errors: Array, recursion: _Recursion, plan: _Plan, num_rows: int) -> Array:
    """Return A, the weight of each row in the final update, (c, k, N) float32."""
    steps, c, visited = errors.shape
    k = len(plan.visits.batches)
    if not recursion.is_plain:
        # Step t of a client with T batches is followed by T - 1 - t others.
        age = plan.visits.batches - 1 - np.arange(steps)[:, np.newaxis]
        response = recursion.impulse_response(steps)[np.maximum(age, 0)].astype(np.float32)
        errors = errors * np.repeat(response, visited // k, axis=1)[:, np.newaxis]
    rows, by_class = plan.rows.reshape(-1), errors.transpose(1, 0, 2).reshape(c, -1)
    sums = np.empty((c, k * num_rows), np.float32)
    for of_class, out in zip(by_class, sums, strict=True):
        out[:] = np.bincount(rows, of_class, minlength=k * num_rows)
    return sums.reshape(c, k, num_rows)
