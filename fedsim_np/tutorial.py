"""The tutorial "Federated Learning for Image Classification", as functions.

The recipe: the first ten clients; five epochs, shuffled, in batches of 20; softmax regression; client SGD at rate
0.02, server SGD at rate 1.0; ten rounds on the same clients; then an evaluation on the same clients' train and test
images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import ClientData, Dataset
from fedsim_np.errors import data_error
from fedsim_np.learning import build_fed_eval, build_weighted_fed_avg
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.losses import LossName
from fedsim_np.learning.models import ModelWeights, SoftmaxRegression
from fedsim_np.learning.optimizers import build_sgdm
from fedsim_np.program.loggers import MemoryLogger
from fedsim_np.program.training import TRAINING_TIME_KEY, evaluate_weights, run_training_process

NUM_EPOCHS = 5
BATCH_SIZE = 20
SHUFFLE_BUFFER = 100
SHUFFLE_SEED = 1
PREFETCH_BUFFER = 10
CLIENT_LEARNING_RATE = 0.02
SERVER_LEARNING_RATE = 1.0
CHOICES: Mapping[str, Any] = {
    "epochs": NUM_EPOCHS,
    "batch_size": BATCH_SIZE,
    "client_lr": CLIENT_LEARNING_RATE,
    "server_lr": SERVER_LEARNING_RATE,
    "seed": SHUFFLE_SEED,
    "sampling": "first",
    "reshuffle": False,
    "evaluate_every": 0,
    "evaluate_as_trained": True,
}
"""What ``fedsim-np train`` is told to do the same."""


def batch_format_fn(element: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Flatten a batch's images and name the fields x and y.

    Parameters
    ----------
    element : mapping
        ``pixels`` (b, 28, 28) and ``label`` (b,).

    Returns
    -------
    OrderedDict
        ``x`` (b, 784) and ``y`` (b, 1).
    """
    return OrderedDict(x=np.reshape(element["pixels"], [-1, 784]), y=np.reshape(element["label"], [-1, 1]))


def preprocess(dataset: Dataset) -> Dataset:
    """Repeat, shuffle, batch and flatten a client's dataset as the tutorial does."""
    shuffled = dataset.repeat(NUM_EPOCHS).shuffle(SHUFFLE_BUFFER, seed=SHUFFLE_SEED)
    return shuffled.batch(BATCH_SIZE).map(batch_format_fn).prefetch(PREFETCH_BUFFER)


def make_federated_data(client_data: ClientData, client_ids: Iterable[str]) -> list[Dataset]:
    """Return the clients' preprocessed datasets."""
    return [preprocess(client_data.create_dataset_for_client(client_id)) for client_id in client_ids]


def build_training_process(loss: LossName = "keras") -> LearningProcess:
    """Return the tutorial's training process: ``loss="keras"`` its Keras model, ``"tutorial"`` its own one."""
    return build_weighted_fed_avg(
        lambda: SoftmaxRegression(loss=loss),
        client_optimizer_fn=lambda: build_sgdm(learning_rate=CLIENT_LEARNING_RATE),
        server_optimizer_fn=lambda: build_sgdm(learning_rate=SERVER_LEARNING_RATE),
    )


@dataclass(frozen=True)
class Result:
    """What a run of the tutorial gives.

    Attributes
    ----------
    history : OrderedDict of str to list
        A column a metric, see `MemoryLogger`.
    seconds : list of float
        Wall time of each round.
    evaluation : mapping
        Split ("train", "test") -> metrics of the final weights on the cohort's examples.
    weights : ModelWeights
        After the last round.
    clients : list of OrderedDict
        Of each round, a table with a row per client, see `LearningProcessOutput.clients`.
    loss : {"keras", "tutorial", "stable"}
        Of the model that was trained.
    """

    history: OrderedDict[str, list[Any]]
    seconds: list[float]
    evaluation: Mapping[str, Mapping[str, Any]]
    weights: ModelWeights
    clients: Sequence[Mapping[str, Any]]
    loss: LossName


def run(
    train: ClientData,
    test: ClientData,
    num_clients: int = 10,
    num_rounds: int = 10,
    loss: LossName = "keras",
) -> Result:
    """Train on the first clients, and evaluate on their train and test examples.

    Parameters
    ----------
    train, test : ClientData
        With the fields ``pixels`` and ``label``; the train clients that take part must be in `test` too.
    num_clients, num_rounds : int
    loss : {"keras", "tutorial", "stable"}

    Returns
    -------
    Result

    Raises
    ------
    DataError
        If there are too few clients, or a client's examples break a rule.
    """
    client_ids = train.client_ids[:num_clients]
    if len(client_ids) < num_clients:
        raise data_error(f"there must be at least {num_clients} train clients", len(client_ids))
    absent = set(client_ids) - set(test.client_ids)
    if absent:
        raise data_error("the train clients that take part must be among the test clients", f"no {sorted(absent)}")
    data = OrderedDict(train=make_federated_data(train, client_ids), test=make_federated_data(test, client_ids))
    process = build_training_process(loss)
    logger, clients = MemoryLogger(), _Clients([])
    state = run_training_process(process, lambda _: data["train"], num_rounds, metrics_managers=[logger, clients])
    seconds = logger.history.pop(TRAINING_TIME_KEY, [])
    weights = process.get_model_weights(state)
    evaluation_process = build_fed_eval(lambda: SoftmaxRegression(loss=loss))
    evaluation = OrderedDict((split, evaluate_weights(evaluation_process, weights, of)) for split, of in data.items())
    return Result(logger.history, seconds, evaluation, weights, clients.tables, loss)


class _Clients(NamedTuple):
    """A logger that keeps the tables of clients."""

    tables: list[Mapping[str, Any]]

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Keep none of these."""

    def release_clients(self, clients: Mapping[str, Any], round_num: int) -> None:
        """Keep a round's."""
        self.tables.append(clients)
