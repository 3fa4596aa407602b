"""The visits of a chunk's clients side by side: step t is everybody's batch number t.

Clients have different numbers of rows and batches, so everything is padded: k clients, T steps, b visits a step, N
rows. A padded visit points at row 0 of its client and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.metrics import Unfinalized, add
from fedsim_np.learning.models import Array, BatchOutput, Model, fast_method


class Visits(NamedTuple):
    """The visits of a chunk.

    Attributes
    ----------
    rows : ndarray of intp, shape (T, k, b)
        The row of each visit, in its client.
    lengths : ndarray of intp, shape (T, k)
        Visits that count; the others are padding.
    batches : ndarray of int64, shape (k,)
        Batches of each client; one may be empty, and is a step all the same.
    """

    rows: Array
    lengths: Array
    batches: Array

    @property
    def mask(self) -> Array:
        """Which visits count, (T, k, b) bool."""
        counted: Array = np.less(np.arange(self.rows.shape[2]), self.lengths[:, :, np.newaxis])
        return counted

    @property
    def examples(self) -> Array:
        """Visits of each client, (k,) int64."""
        return np.asarray(self.lengths.sum(axis=0), np.int64)


def visits_of(clients: Sequence[ClientColumns]) -> Visits:
    """Put clients side by side.

    Examples
    --------
    >>> nothing = np.zeros((3, 0))
    >>> ann = ClientColumns(nothing, nothing, np.array([2, 0, 1]), np.array([2, 1]))
    >>> bob = ClientColumns(nothing, nothing, np.array([1, 2]), np.array([2]))
    >>> visits_of([ann, bob]).rows.tolist(), visits_of([ann, bob]).lengths.tolist()
    ([[[2, 0], [1, 2]], [[1, 0], [0, 0]]], [[2, 2], [1, 0]])
    """
    k = len(clients)
    steps = max(len(client.lengths) for client in clients)
    b = max((int(client.lengths.max(initial=0)) for client in clients), default=0)
    rows = np.zeros((k, steps, b), np.intp)
    lengths = np.zeros((k, steps), np.intp)
    for i, client in enumerate(clients):
        v, n = len(client.rows), len(client.lengths)
        lengths[i, :n] = client.lengths
        if v and (client.lengths[:-1] == b).all():  # all batches are full but the last
            rows[i].reshape(-1)[:v] = client.rows
        elif v:
            rows[i, :n][np.arange(b) < client.lengths[:, np.newaxis]] = client.rows
    batches = np.array([len(client.lengths) for client in clients], np.int64)
    return Visits(np.ascontiguousarray(rows.transpose(1, 0, 2)), np.ascontiguousarray(lengths.T), batches)


def labels_by_row(clients: Sequence[ClientColumns], num_rows: int) -> Array:
    """Return the label of each row, (k, N), 0 for padding."""
    labels = np.zeros((len(clients), num_rows), np.intp)
    for row, client in zip(labels, clients, strict=True):
        row[: len(client.y)] = client.y.reshape(-1)
    return labels


def client_metrics(
    model: Model,
    clients: Sequence[ClientColumns],
    visits: Visits,
    losses: Array,
    predictions: Array,
    correct: Array | None,
) -> list[Unfinalized]:
    """Return each client's unfinalized metrics.

    Parameters
    ----------
    losses : ndarray, shape (T, k)
        Mean loss of each batch.
    predictions : ndarray, shape (T, k, b, c)
        For a model that has nothing but `Model.unfinalized_metrics`.
    correct : ndarray, shape (k,), optional
        Correct predictions, where they were counted.
    """
    of_sums = fast_method(model, "metrics_of_sums", ("unfinalized_metrics", "initial_metrics"))
    if of_sums is not None and correct is not None:
        loss_sums = (losses.astype(np.float64) * visits.lengths).sum(axis=0)
        columns = correct.tolist(), loss_sums.tolist(), visits.examples.tolist(), visits.batches.tolist()
        return [of_sums(float(c), s, n, b) for c, s, n, b in zip(*columns, strict=True)]
    return [_batch_by_batch(model, client, losses[:, i], predictions[:, i]) for i, client in enumerate(clients)]


def _batch_by_batch(model: Model, client: ClientColumns, losses: Array, predictions: Array) -> Unfinalized:
    sums, start = model.initial_metrics(), 0
    for t, n in enumerate(client.lengths.tolist()):
        rows = client.rows[start : start + n]
        start += n
        output = BatchOutput(losses[t], predictions[t, :n], n)
        batch: dict[str, Any] = {"x": client.x[rows], "y": client.y[rows]}
        sums = add(sums, model.unfinalized_metrics(batch, output))
    return sums
