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
    mask : ndarray of bool, shape (T, k, b)
        Which places count.
    num_steps : ndarray of int64, shape (k,)
        Batches of each client; one may be empty, and is a step all the same.
    """

    rows: Array
    lengths: Array
    mask: Array
    num_steps: Array

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
    num_steps = np.array([len(client.lengths) for client in clients], np.int64)
    lengths, _ = _padded(num_steps, [client.lengths for client in clients])
    rows, mask = _padded(lengths, [client.rows for client in clients])
    rows, lengths, mask = (np.ascontiguousarray(array.swapaxes(0, 1)) for array in (rows, lengths, mask))
    return Schedule(rows, lengths, mask, num_steps)


def _padded(counts: Array, values: Sequence[Array]) -> tuple[Array, Array]:
    """Return values laid out (..., longest), so many at each place of `counts` (...), and where they are."""
    mask: Array = np.arange(counts.max(initial=0)) < counts[..., np.newaxis]
    padded = np.zeros(mask.shape, np.intp)
    padded[mask] = np.concatenate(values)
    return padded, mask
