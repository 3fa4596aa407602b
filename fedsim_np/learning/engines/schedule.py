"""The batches of a chunk's clients side by side: step t is everybody's batch number t.

Clients have different numbers of rows and batches, so everything is padded: k clients, T steps, b examples a batch. A
padded place points at row 0 of its client and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.trees import Array


class Schedule(NamedTuple):
    """Which rows a chunk's clients read, step by step.

    Attributes
    ----------
    rows : ndarray of intp, shape (T, k, b)
        The row that is read at each place, in its client.
    lengths : ndarray of intp, shape (T, k)
        Places that count; the others are padding.
    num_steps : ndarray of int64, shape (k,)
        Batches of each client; one may be empty, and is a step all the same.
    """

    rows: Array
    lengths: Array
    num_steps: Array

    @property
    def mask(self) -> Array:
        """Which places count, (T, k, b) bool."""
        counted: Array = np.less(np.arange(self.rows.shape[2]), self.lengths[:, :, np.newaxis])
        return counted

    @property
    def num_examples(self) -> Array:
        """Examples that each client reads, (k,) int64."""
        return np.asarray(self.lengths.sum(axis=0), np.int64)


def schedule_of(clients: Sequence[ClientColumns]) -> Schedule:
    """Put clients side by side.

    Examples
    --------
    >>> nothing = np.zeros((3, 0))
    >>> ann = ClientColumns(nothing, nothing, np.array([2, 0, 1]), np.array([2, 1]), 3)
    >>> bob = ClientColumns(nothing, nothing, np.array([1, 2]), np.array([2]), 3)
    >>> schedule_of([ann, bob]).rows.tolist(), schedule_of([ann, bob]).lengths.tolist()
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
    num_steps = np.array([len(client.lengths) for client in clients], np.int64)
    return Schedule(np.ascontiguousarray(rows.transpose(1, 0, 2)), np.ascontiguousarray(lengths.T), num_steps)
