r"""What a client does in a round.

`LocalTraining` is a sequence of steps, in three functions:

.. code-block:: text

    local = begin(client)                              what the server sent becomes what moves
    for batch in the client's dataset:
        g = gradient of the batch's mean loss at local["weights"]
        local = step(local, g, batch)
    result = end(client, local, trained)               what goes back: an update, a weight, more if wanted

`train` is the loop that does just that, for one client. The functions are written for one client and computed for many
at once: every array that they are given may have the clients' axis in front, and numbers that belong to a client (how
many steps it took, what it weighs) are then an array of them, which `trees.along` lays beside such an array. What they
make elementwise, with NumPy's operators, `trees.map` and an elementwise optimizer, is right for both.

What has to be remembered from round to round, of a client or of all, is in the state that the server has. In SCAFFOLD
(Karimireddy et al. 2020), for example:

.. code-block:: text

    c          initialize;  read as client.state, moved by finish_round
    c_i        initialize_client;  read as client.kept, moved by ClientResult(kept=...)
    delta c_i  ClientResult(message=...);  read as cohort.messages in finish_round, where |S| is len(cohort)
    N          unknown to a round: an argument of one's own

Nothing is to be kept in ``self``, which travels to other threads, processes and machines and is in no checkpoint.

A work that is no sequence of steps is a `ClientWork`, with a loop of its own.
"""

from __future__ import annotations

import abc
import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error
from fedsim_np.learning import metrics
from fedsim_np.learning.client import Broadcast, Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.models.checks import forward_and_gradient, num_examples, read_batches
from fedsim_np.learning.models.evaluation import Measured, objective
from fedsim_np.learning.models.model import Batch, Model, ModelWeights
from fedsim_np.learning.shortcuts import SGDSteps, WithShortcuts
from fedsim_np.trees import Arrays

Local = Mapping[str, Any]
"""What moves during local training; ``local["weights"]`` is where gradients are taken."""


class _ServerHalf:
    """What both kinds of work do at the server."""

    def finish_round(self, state: Any, cohort: Cohort) -> tuple[Any, Mapping[str, Any]]:
        """Return the state for the next round, and what the server reports beside ``train``; nothing by default.

        Parameters
        ----------
        state
            The work's, of this round.
        cohort : Cohort
            Who took part, perhaps nobody; ``cohort.messages`` are what the clients sent, zeros where a client does not
            count.
        """
        return state, OrderedDict()

    @property
    def round_metrics(self) -> Mapping[str, Any]:
        """What `finish_round` reports: name -> any value of its type. For type signatures."""
        return OrderedDict()

    def initial_metrics(self) -> metrics.Unfinalized:
        """Return the unfinalized metrics of no examples that a client reports beside the model's."""
        return OrderedDict()

    def metric_finalizers(self) -> metrics.Finalizers:
        """Return a function of the sums for every metric that a client reports beside the model's."""
        return OrderedDict()

    def get_hparams(self, state: Any) -> Mapping[str, Any]:
        """Return the hyperparameters in a state; none by default."""
        return OrderedDict()

    def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> Any:
        """Return the state with other hyperparameters."""
        if hparams:
            raise argument_error("hparams", "empty for this client work", hparams)
        return state


class ClientWork(_ServerHalf, abc.ABC):
    """A client work with a loop of its own; engines run it client by client."""

    @abc.abstractmethod
    def initialize(self) -> Any:
        """Return the state before the first round; it is the same for all clients."""

    @abc.abstractmethod
    def run(self, weights: ModelWeights, dataset: Dataset, state: Any) -> ClientResult:
        """Do one client's work of one round, on ``dataset.batches()``, and change nothing that was passed in."""


class LocalTraining(_ServerHalf, WithShortcuts, abc.ABC):
    """A client work that is a sequence of steps: `begin`, `step` and `end`. Every engine runs it.

    Attributes
    ----------
    counts_rounds : bool
        Whether the state for this work counts the rounds and holds what is kept of the clients (`ClientWorkState`); or
        is the work's own alone, as that of TFF's algorithms.
    reads_all_data : bool
        Whether `begin` or `end` asks for ``client.objective``.
    first_iteration : int
        Which of a dataset's iterations is read, counted from the round's own: 1 if there was a pass before it.
    """

    counts_rounds: bool = True
    reads_all_data: bool = False
    first_iteration: int = 0
    _computed_by = ("begin", "step")

    def initialize(self, weights: Arrays) -> Any:
        """Return the work's state before the first round, the same for all clients, for weights of these shapes."""
        return ()

    def initialize_client(self, weights: Arrays) -> Any:
        """Return what is kept of a client that has not been seen yet, at the server's weights; None to keep nothing.

        Arrays and numbers in tuples, lists and dicts; a work that keeps something counts rounds (`counts_rounds`).
        """
        return None

    @abc.abstractmethod
    def begin(self, client: Client) -> Local:
        """Return what moves during local training, ``weights`` among it: arrays and numbers, or anything to pass on."""

    @abc.abstractmethod
    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        """Take a step on a batch's gradients, taken at ``local["weights"]``; change no array in place."""

    @abc.abstractmethod
    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        """Return what the client sends back."""

    def as_sgd(self, state: Any) -> SGDSteps | None:
        """Return what the steps are, where they are gradient descent's in this state; None where they are others."""
        return None


def checked_local(work: LocalTraining, method: str, local: Local) -> Local:
    """Return what `begin` or `step` gives, or raise if it is no mapping with weights."""
    if not (type(local) is dict or isinstance(local, Mapping)) or "weights" not in local:
        raise argument_type_error(f"{method} of {type(work).__name__}", "a mapping with 'weights' in it", local)
    return local


def check_dtypes(work: LocalTraining, before: Arrays, after: Arrays) -> None:
    """Raise if steps have changed a weight's dtype."""
    for w0, w in zip(before, after, strict=True):
        if w.dtype != w0.dtype:
            rule = f"{w0.dtype}, as the model's (numbers of np.float64 widen what they multiply, float() does not)"
            raise argument_error(f"weights of {type(work).__name__}", rule, w.dtype.name)


def checked_result(work: LocalTraining, result: ClientResult, kept: Any, k: int | None = None) -> ClientResult:
    """Return what `end` gives of one client, or of k; raise if it is another thing, or for another one to keep.

    What is kept takes the dtypes of `kept`, what the server kept so far of a client.
    """
    name = type(work).__name__
    if not isinstance(result, ClientResult):
        raise argument_type_error(f"end of {name}", "a ClientResult", result)
    own = work.initial_metrics()
    if set(result.metrics) != set(own):
        rule = f"of the names that initial_metrics gives, {sorted(own)}"
        raise argument_error(f"metrics of the ClientResult of {name}", rule, sorted(result.metrics))
    if kept is None and result.kept is None:
        return result
    clients = () if k is None else (k,)
    wanted = {path: (*clients, *np.shape(leaf)) for path, leaf in trees.leaves(kept) if leaf is not None}
    given = {path: np.shape(leaf) for path, leaf in trees.leaves(result.kept) if leaf is not None}
    if wanted != given:
        rule = f"what initialize_client gives, of the shapes {wanted}"
        raise argument_error(f"kept of the ClientResult of {name}", rule, given)
    return result._replace(kept=trees.map(lambda old, new: np.asarray(new, np.asarray(old).dtype), kept, result.kept))


def train(work: LocalTraining, model: Model, sent: Broadcast, dataset: Dataset, kept: Any) -> ClientResult:
    """Do one client's work: the reference, which says what all engines compute.

    Parameters
    ----------
    work : LocalTraining
    model : Model
    sent : Broadcast
        What the server sends to all clients.
    dataset : Dataset
        The client's.
    kept : tree of arrays or None
        What the server keeps of the client.

    Returns
    -------
    ClientResult
        With all fields; the metrics are the model's, measured on each batch before its step, and the work's.

    Examples
    --------
    >>> from fedsim_np.learning.fed_avg import FedAvgTraining
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> model, work = SoftmaxRegression(2, 3), FedAvgTraining(build_sgdm(0.1))
    >>> weights = model.initial_weights()
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> sent = Broadcast(weights, work.initialize(weights.trainable))
    >>> result = train(work, model, sent, Dataset.from_batches([batch]), None)
    >>> print(result.weight, result.update[1].round(4))
    4 [-0.0667  0.0333  0.0333]
    """
    weights = sent.weights
    batches: Iterable[Batch] = read_batches(model, dataset)
    if work.reads_all_data:
        batches = list(batches)  # read once: a map may give something else the next time

    def at(trainable: Arrays) -> ModelWeights:
        return ModelWeights(trainable, weights.non_trainable)

    def gradient_at(batch: Batch, trainable: Arrays) -> Arrays:
        gradients: Arrays = forward_and_gradient(model, at(trainable), batch)[1]
        return gradients

    client = Client(
        weights=weights.trainable,
        state=sent.state,
        kept=kept,
        round_num=sent.round_num,
        ids=(dataset.client_id,),
        is_many=False,
        _count_own_examples=lambda: dataset.num_own_examples,
        _objective=(lambda trainable: objective(model, at(trainable), batches)) if work.reads_all_data else None,
    )
    local = checked_local(work, "begin", work.begin(client))
    measured, steps, examples = Measured(model), 0, 0
    for batch in batches:
        output, gradients = forward_and_gradient(model, at(local["weights"]), batch)
        n = num_examples(output)
        stepped = work.step(local, gradients, StepBatch(n, functools.partial(gradient_at, batch)))
        local = checked_local(work, "step", stepped)
        measured.add(batch, output)
        steps, examples = steps + 1, examples + n
    check_dtypes(work, weights.trainable, local["weights"])
    trained = Trained(steps, examples, lambda: trees.map(np.subtract, weights.trainable, local["weights"]))
    result = checked_result(work, work.end(client, local, trained), kept)
    sums = OrderedDict(measured.total(), **result.metrics)
    return result._replace(metrics=sums, num_examples=examples, num_steps=steps)
