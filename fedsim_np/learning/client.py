"""A client's side of a round: what it is told, what it knows, what it sends back."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from fedsim_np.errors import argument_error
from fedsim_np.forking import cached_property
from fedsim_np.learning.cohort import client_stream
from fedsim_np.learning.models.model import ModelWeights
from fedsim_np.trees import Array, Arrays


class ClientWeighting(enum.Enum):
    """What a client's update counts for in a weighted mean: the examples that it has read, or 1."""

    NUM_EXAMPLES = "num_examples"
    UNIFORM = "uniform"

    def of(self, num_examples: Any) -> Any:
        """Return the weight of a client with so many examples, or of each of k clients."""
        return num_examples if self is ClientWeighting.NUM_EXAMPLES else np.ones_like(num_examples)


STATUSES = ("full", "partial", "absent")


class Attendance(NamedTuple):
    """What became of a client that was asked to take part: an entry of a cohort, in the place of its data.

    Attributes
    ----------
    client_id : str
    data : Dataset or list of batches, or None
        What the client reads; None of one that is absent.
    status : {"full", "partial", "absent"}
        "partial" if it does less than it was asked to.
    """

    client_id: str
    data: Any
    status: Literal["full", "partial", "absent"] = "full"

    @property
    def is_there(self) -> bool:
        """Whether it has anything to do."""
        return self.status != "absent"


class Broadcast(NamedTuple):
    """What the server sends to all clients of a round.

    Attributes
    ----------
    weights : ModelWeights
    state : tree
        The client work's own.
    round_num : int or None
        From 1; None where the process's state counts no rounds.
    """

    weights: ModelWeights
    state: Any
    round_num: int | None = None


@dataclass(frozen=True)
class Client:
    """What a client knows when local training begins and ends; or what each of k clients knows.

    Attributes
    ----------
    weights : tuple of ndarray
        The server's trainable tensors.
    state : tree
        The client work's own: hyperparameters, a server's control variate.
    kept : tree of arrays or None
        What the server keeps of this client: at first what `LocalTraining.initialize_client` gives.
    round_num : int or None
        From 1; None where the process's state counts no rounds, see `LocalTraining.counts_rounds`.
    ids : tuple of str or None
        The client's id; of k clients, all of theirs.
    is_many : bool
        Whether these are k clients: every array then has their axis in front.
    """

    weights: Arrays
    state: Any
    kept: Any
    round_num: int | None
    ids: tuple[str | None, ...]
    is_many: bool
    _count_own_examples: Callable[[], Any]
    _objective: Callable[[Arrays], tuple[Any, Arrays]] | None

    @property
    def num_own_examples(self) -> Any:
        """Number of the client's examples, each counted once: without repetitions."""
        return self._count_own_examples()

    def objective(self, weights: Arrays) -> tuple[Any, Arrays]:
        """Return loss and gradient of all examples that the dataset gives, at weights that stay where they are.

        The loss is the mean over the examples and the model's penalty. A work that asks for it says so:
        `LocalTraining.reads_all_data`.
        """
        if self._objective is None:
            raise argument_error("reads_all_data", "True for a local training that asks for client.objective", False)
        return self._objective(weights)

    def draw(self, seed: int, function: Callable[[np.random.Generator], Array]) -> Array:
        """Return what a function draws from the client's own stream of this round, one of (seed, round, client id).

        Raises
        ------
        ValueError
            If the data have no client ids.
        """
        if None in self.ids:
            raise argument_error("data", "of clients with ids, since they draw random numbers of their own", None)
        drawn = [function(client_stream(str(i), self.round_num or 0, seed)) for i in self.ids]
        return np.stack(drawn) if self.is_many else drawn[0]


class StepBatch(NamedTuple):
    """The batch of a step.

    Attributes
    ----------
    num_examples : int; of k clients ndarray (k,)
    gradient_at : callable
        Weights -> the gradient of this batch's mean loss there.
    """

    num_examples: Any
    gradient_at: Callable[[Arrays], Arrays]


class Trained:
    """What has become of local training.

    Attributes
    ----------
    num_steps, num_examples : int; of k clients ndarray (k,)
        Batches and examples that were read.
    """

    def __init__(self, num_steps: Any, num_examples: Any, update: Callable[[], Arrays]) -> None:
        self.num_steps, self.num_examples, self._update = num_steps, num_examples, update

    @cached_property
    def update(self) -> Arrays:
        """Initial minus final weights; computed when it is asked for."""
        return self._update()


class ClientResult(NamedTuple):
    """What a client sends back: sums and updates, nothing of its examples.

    Attributes
    ----------
    update : tuple of ndarray
        What the server's optimizer takes for a gradient, one array per trainable tensor: mostly `Trained.update`,
        initial minus final weights; in FedSGD a gradient.
    weight : float; of k clients ndarray (k,), or one number for all
        What the update counts for.
    metrics : mapping of str to list of sums
        Unfinalized. Of a `LocalTraining` those that it adds to the model's.
    num_examples : int or None
        Examples that were read, repetitions included; None stands for all that the dataset has.
    kept : tree of arrays or None
        What the server keeps of this client from now on.
    message : tree of arrays or None
        For the server's half of the client work, see `LocalTraining.finish_round`.
    num_steps : int or None
        Batches that were read.
    """

    update: Arrays
    weight: Any
    metrics: Mapping[str, Any] = OrderedDict()
    num_examples: int | None = None
    kept: Any = None
    message: Any = None
    num_steps: int | None = None
