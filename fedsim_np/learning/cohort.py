"""What the server knows of a round's clients, beside their updates."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error
from fedsim_np.forking import cached_property
from fedsim_np.trees import Array


def client_stream(client_id: str, *words: int) -> np.random.Generator:
    """Return a client's own stream of random numbers, one of its id and some numbers >= 0."""
    of_client = np.frombuffer(hashlib.sha256(client_id.encode()).digest()[:16], "<u4").tolist()
    return np.random.default_rng([*of_client, *words])


@dataclass(frozen=True, eq=False)
class Cohort:
    """The clients of a round, in order: k of them.

    Attributes
    ----------
    ids : sequence of str or None
    round_num : int or None
        From 1; None where the process's state counts no rounds.
    client_weights : ndarray, shape (k,), float64
        What each client's update counts for; 0 for one whose update is not finite.
    update_norms : ndarray, shape (k,), float64
        l2 norm of each update over all tensors, as the client sent it.
    num_steps : ndarray, shape (k,), int64, or None
        Batches that each has read; None where the client work does not say.
    bytes_up : ndarray, shape (k,), int64, or None
        What each client's message takes: its update, and what it tells the server's half of the work.
    bytes_down : int or None
        What the server's message to each takes; None where updates are not asked for.
    """

    ids: Sequence[str | None]
    round_num: int | None
    client_weights: Array
    update_norms: Array
    num_steps: Array | None
    _count_examples: Callable[[], Sequence[int]]
    _sent: Any = None
    bytes_up: Array | None = None
    bytes_down: int | None = None

    @classmethod
    def of_weights(cls, client_weights: Array) -> Cohort:
        """Return a cohort of which nothing is known but the weights: for an aggregator that is called by hand."""
        k = len(client_weights)
        return cls((None,) * k, None, client_weights, np.zeros(k), None, lambda: [1] * k)

    def __len__(self) -> int:
        return len(self.client_weights)

    def streams(self, round_num: int, *words: int) -> Iterator[np.random.Generator]:
        """Yield each client's own random stream of a round and a seed; of one without an id, that of its place."""
        for place, client_id in enumerate(self.ids):
            yield client_stream(str(place) if client_id is None else client_id, round_num, *words)

    def check_at_most(self, num_clients: int) -> None:
        """Raise a `ValueError` if these are more than all the clients that there are said to be."""
        if len(self) > num_clients:
            raise argument_error("num_clients", f"all there are, at least the {len(self)} of this round", num_clients)

    def without(self, clients: Array) -> Cohort:
        """Return the cohort in which the clients at these places do not count: their updates are not finite."""
        weights, norms = np.array(self.client_weights), np.array(self.update_norms)
        weights[clients], norms[clients] = 0, np.inf
        return dataclasses.replace(self, client_weights=weights, update_norms=norms)

    @cached_property
    def num_examples(self) -> Array:
        """Examples that each client has read, repetitions included, (k,) int64."""
        return np.array(self._count_examples(), np.int64)

    @cached_property
    def status(self) -> list[str]:
        """What became of each client: "ok", "empty" or "non-finite update", which was left out."""
        said = np.where(self.counts, "ok", np.where(self.num_examples == 0, "empty", "non-finite update"))
        return [str(word) for word in said]

    @cached_property
    def counts(self) -> Array:
        """Which clients count, (k,) bool: those whose status is "ok"."""
        return (self.num_examples > 0) & np.isfinite(self.update_norms)

    @cached_property
    def messages(self) -> Any:
        """What clients sent to the server's half of the client work, (k, ...): zeros where one does not count.

        Raises
        ------
        ValueError
            If they sent none.
        """
        if self._sent is None:
            raise argument_error("message", "given in the ClientResult of a work that asks for cohort.messages", None)

        def counted(sent: Array) -> Array:
            return np.where(trees.along(self.counts, sent).astype(np.bool_), sent, np.zeros((), sent.dtype))

        return self._sent if self.counts.all() else trees.map(counted, self._sent)
