r"""Softmax regression client by client: each one's rows are laid out once in the order in which they are read.

On small batches a step of the loop spends its time on being called. Here a step is eight calls on views of what has
been laid out, a block of batches at a time:

.. code-block:: text

    p = exp(x W);   p /= sum(p);   W -= rate / |B| x^T (p - onehot(y))

The bias is one more row of W, for a column of ones beside x. Whether an exponential has left float32's range is looked
at when the block is done, since it is rare: then it is done again as the loop does it. Metrics are made of the
probabilities of a whole block.

In exact terms this is the reference loop's arithmetic; in float32 it agrees to rounding. It serves what `gram` serves,
where clients have many rows or few features, and where they differ much in size: nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.learning.engines.columns import ClientColumns, counted
from fedsim_np.learning.engines.descent import Descent
from fedsim_np.learning.losses import SoftmaxHead, are_safe, unguarded_softmax
from fedsim_np.learning.metrics import ExampleMetrics, LabelEntries, Unfinalized
from fedsim_np.learning.shortcuts import SGDSteps
from fedsim_np.trees import Array, Arrays

_BLOCK_BYTES = 2**20  # of what is laid out: it should stay in a core's cache


def train(descent: Descent) -> tuple[Arrays, list[Unfinalized]]:
    """Return W0 - W and b0 - b of each client, (k, d, c) and (k, c), and its unfinalized metrics."""
    head, metrics, steps, server, drift, columns = descent
    start = np.vstack(server).astype(np.float32)
    k, (d, c) = len(columns), server[0].shape
    update = np.empty((k, d, c), np.float32), np.empty((k, c), np.float32)
    sums = np.zeros((1 + len(metrics.means), k))
    for i, client in enumerate(columns):
        own = None if drift is None else np.vstack([part[i].reshape(-1, c) for part in drift]) * steps.learning_rate
        local = _Local(head, steps, start, own)
        for block in _blocks(client, d, c):
            sums[:, i] += local.train(block, metrics)
        np.subtract(start[:d], local.weights[:d], out=update[0][i])
        np.subtract(start[d], local.weights[d], out=update[1][i])
    num_steps, num_examples = counted(columns)
    return update, metrics.of_clients(list(sums[1:]), sums[0], num_examples, num_steps)


class _Block(NamedTuple):
    """Some of a client's batches, laid out.

    Attributes
    ----------
    x : ndarray, shape (m, d + 1)
        The last column is 1.
    y : ndarray, shape (m, 1)
    edges : list of int
        Where batches begin and end.
    """

    x: Array
    y: Array
    edges: list[int]


def _blocks(client: ClientColumns, d: int, c: int) -> Iterator[_Block]:
    n = len(client.x)
    edges = np.concatenate([[0], np.cumsum(client.lengths)])
    with_ones = np.ones((n, d + 1), np.float32)
    with_ones[:, :d] = client.x.reshape(n, d)
    most, first = max(1, _BLOCK_BYTES // (4 * (d + 1 + 2 * c))), 0  # rows, and two numbers of each class
    while first < len(client.lengths):
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + most, side="right")) - 1)
        rows = client.rows[edges[first] : edges[last]]
        yield _Block(
            with_ones.take(rows, axis=0), client.y.take(rows, axis=0), (edges[first : last + 1] - edges[first]).tolist()
        )
        first = last


class _Local:
    """A client's weights (d + 1, c) on their way."""

    def __init__(self, head: SoftmaxHead, steps: SGDSteps, start: Array, drift: Array | None) -> None:
        self._head, self._start, self._drift = head, start, drift
        self._rate, self._momentum, self._nesterov = steps.learning_rate, np.float32(steps.momentum), steps.nesterov
        self._pull = np.float32(steps.learning_rate * steps.pull)
        self.weights, self._moved = start.copy(), np.empty_like(start)
        self._velocity = np.zeros_like(start) if steps.momentum else None

    def train(self, block: _Block, metrics: ExampleMetrics) -> list[Any]:
        """Take a block's steps; return the sum of the losses, and of what each mean is of."""
        labels = block.y[:, 0]
        p, entries = np.empty((len(block.y), self._start.shape[1]), np.float32), self._head.targets(block.y)
        z = np.empty_like(p) if self._head.needs_outputs else p
        before = self.weights.copy(), None if self._velocity is None else self._velocity.copy()
        if not (self._head.may_be_plain and self._quickly(block, z, p, labels)):
            self.weights, self._velocity = before
            self._carefully(block, z, p, labels)
        losses, outputs = self._head.losses(z, p, entries), z if self._head.needs_outputs else None
        return [values.sum(dtype=np.float64) for values in (losses, *metrics.values(p, block.y, outputs))]

    def _quickly(self, block: _Block, z: Array, p: Array, labels: Array) -> bool:
        """Take steps whose exponentials stay in float32's range; return whether they did."""
        matmul = np.matmul
        onehot = np.eye(p.shape[1], dtype=np.float32).take(labels, axis=0)
        sums, weights, moved, length = np.empty((len(p), 1), np.float32), self.weights, self._moved, -1
        plain = self._velocity is None and self._drift is None and not self._pull
        for a, b in zip(block.edges, block.edges[1:], strict=False):
            x, here, total = block.x[a:b], p[a:b], sums[a:b]
            if length != b - a:
                length = b - a
                errors, rate = np.empty((length, p.shape[1]), np.float32), np.float32(self._rate / max(length, 1))
            unguarded_softmax(matmul(x, weights, out=z[a:b]), 1, here, total)
            np.subtract(here, onehot[a:b], out=errors)
            if self._head.are_plain(errors):
                errors *= rate
            else:
                errors = self._errors(here, labels[a:b])
            matmul(x.T, errors, out=moved)
            if plain:
                weights -= moved
            else:
                self._move()
        return bool(are_safe(sums).all())

    def _carefully(self, block: _Block, z: Array, p: Array, labels: Array) -> None:
        """Take the steps as the loop does."""
        for a, b in zip(block.edges, block.edges[1:], strict=False):
            x, here = block.x[a:b], p[a:b]
            self._head.predict(np.matmul(x, self.weights, out=z[a:b]), out=here)
            np.matmul(x.T, self._errors(here, labels[a:b]), out=self._moved)
            self._move()

    def _errors(self, p: Array, labels: Array) -> Array:
        scale = np.full(len(p), self._rate / max(len(p), 1), np.float32)
        return self._head.errors(p, LabelEntries(labels), scale)

    def _move(self) -> None:
        """Move the weights by a step's gradient, times the rate, that is in ``_moved``."""
        moved = self._moved
        if self._pull:
            moved += self._pull * (self.weights - self._start)
        if self._drift is not None:
            moved += self._drift
        if self._velocity is None:
            self.weights -= moved
            return
        self._velocity *= self._momentum
        self._velocity += moved
        self.weights -= moved + self._momentum * self._velocity if self._nesterov else self._velocity
