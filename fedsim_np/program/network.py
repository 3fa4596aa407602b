r"""How long a round would take: what clients compute, and what travels to them and back.

::

    seconds of client i = bytes_down / down_i + num_examples / compute_i + bytes_up / up_i
    seconds of a round  = those of the slowest client who answers

It is a clock for comparing runs, not a measurement: bytes are those of `LearningProcessOutput.clients`, nobody shares a
line with another, and the server takes no time. Examples are those of the steps: what an algorithm computes beside
them, a full gradient or a personal model, takes no time either.
"""

from __future__ import annotations

import functools
import numbers
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, check_float, check_int
from fedsim_np.learning.cohort import client_stream
from fedsim_np.trees import Array

_SLOWEST, _MOST_SPREAD = 1e-9, 10  # so that every time is a finite number
_NETWORK = 4_000_003  # a word of the streams, so that they are nobody else's


@dataclass(frozen=True)
class Network:
    r"""How fast clients are: each has speeds of its own, the same in all rounds, drawn from (seed, client id).

    Parameters
    ----------
    up, down : float
        Bytes a second from a client to the server, and to a client: the median over clients, at least 1e-9.
    compute : float
        Examples a second that a client trains on: the median. Infinity for any of the three: it takes no time.
    spread : float
        How much clients differ, from 0 to 10: a speed is the median times :math:`e^{spread \cdot z}` with z standard
        normal. 0: not at all; 1: of 100 clients the slowest has about a tenth of the median.
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    A model of 31,400 bytes and 500 examples, on a line of 1 Mbit/s up and 8 Mbit/s down:

    >>> network = Network(up=125_000, down=1_000_000, compute=2_000)
    >>> network.seconds(["ann", "bob"], [500, 100], bytes_up=31_400, bytes_down=31_400).round(4)
    array([0.5326, 0.3326])
    """

    up: float
    down: float
    compute: float
    spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name in ("up", "down", "compute"):
            value = getattr(self, name)
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            is_beyond = isinstance(value, int) and value > sys.float_info.max
            if is_beyond or not (is_number and value >= _SLOWEST):
                raise argument_error(name, f"a number of at least {_SLOWEST:g}", value)
        if check_float("spread", self.spread, minimum=0.0) > _MOST_SPREAD:
            raise argument_error("spread", f"from 0 to {_MOST_SPREAD}", self.spread)
        check_int("seed", self.seed, minimum=0)

    def seconds(self, client_ids: Sequence[str], num_examples: Any, bytes_up: Any, bytes_down: Any) -> Array:
        """Return how long each of k clients takes, (k,) float64.

        Parameters
        ----------
        client_ids : sequence of k str
        num_examples, bytes_up, bytes_down : ndarray, shape (k,), or one number for all
            Examples that each reads, repetitions included, and what its messages take.

        Raises
        ------
        ValueError
            If clients differ, and one has no id.
        """
        if self.spread and any(client_id is None for client_id in client_ids):
            rule = "of clients with ids (Dataset.with_client_id), since each has its speeds"
            raise argument_error("client_ids", rule, None)
        normal = np.array([_normal(self.seed, str(client_id)) for client_id in client_ids]).reshape(-1, 3)
        up, down, compute = np.array([self.up, self.down, self.compute])[:, np.newaxis] * np.exp(self.spread * normal.T)
        return np.asarray(bytes_down / down + np.asarray(num_examples) / compute + bytes_up / up)

    def round(self, clients: Mapping[str, Any]) -> OrderedDict[str, float]:
        """Return a round's metrics, ``seconds``: those of the slowest client who answers; 0 if nobody does.

        Parameters
        ----------
        clients : mapping
            The table of `LearningProcessOutput.clients`.
        """
        is_there = np.array([status != "absent" for status in clients["status"]], np.bool_)
        columns = (clients[name] for name in ("client_id", "num_examples", "bytes_up", "bytes_down"))
        taken = self.seconds(*columns)
        return OrderedDict(seconds=float(taken[is_there].max(initial=0.0)))


@functools.lru_cache(2**17)
def _normal(seed: int, client_id: str) -> tuple[float, float, float]:
    up, down, compute = client_stream(client_id, _NETWORK, seed).standard_normal(3).tolist()
    return up, down, compute
