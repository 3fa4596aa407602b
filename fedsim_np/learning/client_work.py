"""What a client does in a round: the loop to read first.

A `ClientWork` takes the server's weights and one client's dataset and returns an update, a weight and unfinalized
metrics. `LocalTraining` is the work of federated averaging: a few epochs of an optimizer's steps. Faster engines do
the same for whole cohorts; this loop says what "the same" is.
"""

from __future__ import annotations

import abc
import enum
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error
from fedsim_np.learning import metrics
from fedsim_np.learning.models import Arrays, Model, ModelWeights, forward_and_gradient, num_examples, read_batches
from fedsim_np.learning.optimizers import Optimizer
from fedsim_np.learning.optimizers.optimizer import State


class ClientWeighting(enum.Enum):
    """What a client's update counts for in a weighted mean."""

    NUM_EXAMPLES = "num_examples"
    UNIFORM = "uniform"


class ClientResult(NamedTuple):
    """What a client sends back: sums and updates, nothing of its examples.

    Attributes
    ----------
    update : tuple of ndarray
        Initial minus final weights, one array per trainable tensor.
    weight : float
        What the update counts for.
    metrics : OrderedDict
        Unfinalized.
    num_examples : int or None
        Examples that were read, repetitions included; None stands for all that the dataset has.
    """

    update: Arrays
    weight: float
    metrics: metrics.Unfinalized
    num_examples: int | None = None


class ClientWork(abc.ABC):
    """The protocol for a client work of one's own."""

    @abc.abstractmethod
    def initialize(self) -> Any:
        """Return the state before the first round; it is the same for all clients."""

    @abc.abstractmethod
    def run(self, weights: ModelWeights, dataset: Dataset, state: Any) -> ClientResult:
        """Do one client's work of one round, on ``dataset.batches()``, and change nothing that was passed in."""

    def local_training(self, state: Any) -> tuple[LocalTraining, Any] | None:
        """Say that this round's work is some `LocalTraining` with a state of its own, which fast engines can do."""
        return None

    def finish_round(self, state: Any) -> tuple[Any, metrics.Metrics]:
        """Return the state for the next round, and what the server reports beside ``train``; nothing by default."""
        return state, OrderedDict()

    def get_hparams(self, state: Any) -> Mapping[str, Any]:
        """Return the hyperparameters in a state; none by default."""
        return OrderedDict()

    def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> Any:
        """Return the state with other hyperparameters."""
        if hparams:
            raise argument_error("hparams", "empty for this client work", hparams)
        return state


@dataclass(frozen=True)
class LocalTraining(ClientWork):
    r"""Local training by an optimizer: the client's half of federated averaging, and of FedProx.

    .. code-block:: text

        w = w0
        for batch in dataset:
            g = gradient of the batch's mean loss at w
            g = g + mu * (w - w0)                         FedProx: the proximal term
            w = optimizer step on g
        update = w0 - w,   weight = number of examples read

    The optimizer's state is fresh for each client in each round. Metrics are measured before each step.

    Parameters
    ----------
    model : Model
    optimizer : Optimizer
    client_weighting : ClientWeighting
    proximal_strength : float, optional
        mu, of FedProx; None is federated averaging. As in TFF, FedProx has no hyperparameters on the clients.

    References
    ----------
    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    https://arxiv.org/abs/1602.05629, algorithm 1, ClientUpdate. Li et al., "Federated optimization in heterogeneous
    networks", MLSys 2020, https://arxiv.org/abs/1812.06127.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> work = LocalTraining(SoftmaxRegression(2, 3), build_sgdm(0.1))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> result = work.run(work.model.initial_weights(), Dataset.from_batches([batch]), work.initialize())
    >>> print(result.weight, result.update[1].round(4))
    4.0 [-0.0667  0.0333  0.0333]
    """

    model: Model
    optimizer: Optimizer
    client_weighting: ClientWeighting = ClientWeighting.NUM_EXAMPLES
    proximal_strength: float | None = None

    def initialize(self) -> Any:
        """Return the optimizer's hyperparameters, which the server may change between rounds; for FedProx nothing."""
        if self.proximal_strength is not None:
            return ()
        return self.optimizer.get_hparams(self.optimizer.initialize(()))

    def get_hparams(self, state: Any) -> Mapping[str, Any]:
        """Return the optimizer's hyperparameters."""
        return OrderedDict(state)

    def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> Any:
        """Return the state with other hyperparameters for the optimizer."""
        if self.proximal_strength is not None:
            return super().set_hparams(state, hparams)
        return self.optimizer.set_hparams(state, hparams)

    def local_training(self, state: Any) -> tuple[LocalTraining, Any] | None:
        """Return itself, unless a subclass has another way to run."""
        return (self, state) if type(self).run is LocalTraining.run else None

    def initial_optimizer_state(self, trainable: Arrays, state: Any) -> State:
        """Return the optimizer's state before a client's first step."""
        fresh = self.optimizer.initialize(trainable)
        return fresh if self.proximal_strength is not None else self.optimizer.set_hparams(fresh, state)

    def weight(self, examples: int) -> float:
        """Return what an update from that many examples counts for."""
        return 1.0 if self.client_weighting is ClientWeighting.UNIFORM else float(examples)

    def run(self, weights: ModelWeights, dataset: Dataset, state: Any) -> ClientResult:
        """Train on the dataset once through."""
        model, optimizer, mu = self.model, self.optimizer, np.float32(self.proximal_strength or 0.0)
        optimizer_state = self.initial_optimizer_state(weights.trainable, state)
        local, sums, examples = weights, model.initial_metrics(), 0
        with np.errstate(all="ignore"):  # an update that overflows is found, left out and reported by the server
            for batch in read_batches(model, dataset):
                output, gradients = forward_and_gradient(model, local, batch)
                if mu:
                    drift = (w - w0 for w, w0 in zip(local.trainable, weights.trainable, strict=True))
                    gradients = tuple(g + mu * d for g, d in zip(gradients, drift, strict=True))
                optimizer_state, trainable = optimizer.next(optimizer_state, local.trainable, gradients)
                local = local._replace(trainable=trainable)
                sums = metrics.add(sums, model.unfinalized_metrics(batch, output))
                examples += num_examples(output)
            update = tuple(w0 - w for w0, w in zip(weights.trainable, local.trainable, strict=True))
        return ClientResult(update, self.weight(examples), sums, examples)
