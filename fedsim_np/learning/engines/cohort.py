"""All clients of a chunk in lockstep: one stacked step of the model and the optimizer where the loop takes k.

The arithmetic is the loop's, with a client axis in front of every array. It serves every model that offers
``stacked_forward_and_gradient`` and every optimizer; one whose rule is not elementwise steps client by client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error
from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, columns_of
from fedsim_np.learning.engines.engine import ChunkResult, Client, Engine
from fedsim_np.learning.engines.lockstep import Visits, visits_of
from fedsim_np.learning.metrics import Unfinalized, add
from fedsim_np.learning.models import Array, Arrays, BatchOutput, ModelWeights, fast_method


@dataclass(frozen=True)
class CohortEngine(Engine):
    """Lockstep on stacked weights.

    Parameters
    ----------
    model : Model
        One that offers ``stacked_forward_and_gradient``.
    client_work : ClientWork
        One that says which `LocalTraining` it is.
    """

    model: Any
    client_work: ClientWork
    name = "cohort"
    chunk_size = 32
    takes_columns = True

    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Train a chunk of clients in lockstep."""
        training, hparams = self.client_work.local_training(state) or (None, None)
        assert training is not None
        with np.errstate(all="ignore"):  # an update that overflows is found and left out by the server
            return train(training, hparams, weights, columns_of(self.model, clients, cache))


def train(
    training: LocalTraining, hparams: Any, weights: ModelWeights, clients: Sequence[ClientColumns]
) -> ChunkResult:
    """Train clients in lockstep, those with most batches first: whoever has finished is cut off the end."""
    order = np.argsort([-len(client.lengths) for client in clients], kind="stable")
    clients = [clients[i] for i in order]
    visits = visits_of(clients)
    k, mu = len(clients), np.float32(training.proximal_strength or 0.0)
    start = weights.trainable
    local = tuple(np.repeat(w[np.newaxis], k, axis=0) for w in start)
    final = tuple(np.empty_like(w) for w in local)
    optimizer = _Stepper(training, hparams, start, local)
    measure = _Measure(training.model, clients, visits)
    active = k
    for t in range(len(visits.rows)):
        still = int(np.count_nonzero(visits.batches > t))
        if still < active:
            for done, w in zip(final, local, strict=True):
                done[still:active] = w[still:]
            local = tuple(w[:still] for w in local)
            optimizer.keep(still)
            active = still
        x, y = (_gathered(clients[:still], name, visits.rows[t, :still]) for name in ("x", "y"))
        mask = visits.mask[t, :still]
        output, gradients = training.model.stacked_forward_and_gradient(local, x, y, mask)  # type: ignore[attr-defined]
        if [np.shape(g) for g in gradients] != [w.shape for w in local]:
            name = f"stacked_forward_and_gradient of {type(training.model).__name__}"
            rule = f"arrays of the shapes {[w.shape for w in local]}"
            raise argument_error(name, rule, [np.shape(g) for g in gradients])
        if mu:
            gradients = tuple(g + mu * (w - w0) for g, w, w0 in zip(gradients, local, start, strict=True))
        measure.step(t, output, x, y, mask)
        local = optimizer.step(local, gradients)
    for done, w in zip(final, local, strict=True):
        done[:active] = w
    back = np.argsort(order)
    updates = tuple((w0 - w)[back] for w0, w in zip(start, final, strict=True))
    examples = visits.examples[back].tolist()
    client_weights = np.array([training.weight(n) for n in examples])
    sums = measure.sums()
    return ChunkResult.of(updates, client_weights, [sums[i] for i in back], [*examples])


def _gathered(clients: Sequence[ClientColumns], name: str, rows: Array) -> Array:
    """Return the visited rows of x or y, (k, b, ...)."""
    first = getattr(clients[0], name)
    out = np.zeros((*rows.shape, *first.shape[1:]), first.dtype)
    for client, index, into in zip(clients, rows, out, strict=True):
        if len(client.x):  # a client may have nothing but empty batches
            np.take(getattr(client, name), index, axis=0, out=into, mode="clip")
    return out


class _Stepper:
    """The optimizer of a chunk: one state for all clients if its rule is elementwise, else one each."""

    def __init__(self, training: LocalTraining, hparams: Any, start: Arrays, local: Arrays) -> None:
        self._optimizer = training.optimizer
        self._shapes = [w.shape for w in start]
        self._together = training.optimizer.is_elementwise
        if self._together:
            self._states = [training.initial_optimizer_state(local, hparams)]
        else:
            self._states = [training.initial_optimizer_state(start, hparams) for _ in range(len(local[0]))]

    def step(self, local: Arrays, gradients: Arrays) -> Arrays:
        """Step all clients."""
        if self._together:
            self._states[0], local = self._optimizer.next(self._states[0], local, gradients)
            return local
        moved = []
        for i in range(len(local[0])):
            one, gradient = tuple(w[i] for w in local), tuple(g[i] for g in gradients)
            self._states[i], weights = self._optimizer.next(self._states[i], one, gradient)
            moved.append(weights)
        return tuple(np.stack(tensors) for tensors in zip(*moved, strict=True))

    def keep(self, count: int) -> None:
        """Go on with the first clients only."""
        self._states = [self._cut(self._states[0], count)] if self._together else self._states[:count]

    def _cut(self, value: Any, count: int) -> Any:
        if isinstance(value, Mapping):
            return type(value)((name, self._cut(v, count)) for name, v in value.items())  # type: ignore[call-arg]
        if isinstance(value, tuple):
            return tuple(self._cut(v, count) for v in value)
        return value[:count] if isinstance(value, np.ndarray) and value.shape[1:] in self._shapes else value


class _Measure:
    """The metrics of a chunk, step by step."""

    def __init__(self, model: Any, clients: Sequence[ClientColumns], visits: Visits) -> None:
        self._model, self._visits = model, visits
        self._of_sums = fast_method(model, "metrics_of_sums", ("unfinalized_metrics", "initial_metrics"))
        self._loss, self._correct = np.zeros(len(clients)), np.zeros(len(clients))
        self._sums: list[Unfinalized] = [model.initial_metrics() for _ in clients]

    def step(self, t: int, output: BatchOutput, x: Array, y: Array, mask: Array) -> None:
        """Measure a step."""
        k, lengths = len(x), self._visits.lengths[t]
        losses = np.asarray(output.loss, np.float64)
        if self._of_sums is not None:
            hit = output.predictions.argmax(axis=-1) == y.reshape(mask.shape)
            self._loss[:k] += losses * lengths[:k]
            self._correct[:k] += np.count_nonzero(hit & mask, axis=1)
            return
        for i, n in enumerate(lengths[:k].tolist()):
            of_client = BatchOutput(np.asarray(output.loss)[i], output.predictions[i, :n], n)
            batch = {"x": x[i, :n], "y": y[i, :n]}
            self._sums[i] = add(self._sums[i], self._model.unfinalized_metrics(batch, of_client))

    def sums(self) -> list[Unfinalized]:
        """Return each client's unfinalized metrics."""
        if self._of_sums is None:
            return self._sums
        columns = (
            self._correct.tolist(),
            self._loss.tolist(),
            self._visits.examples.tolist(),
            self._visits.batches.tolist(),
        )
        return [self._of_sums(*sums) for sums in zip(*columns, strict=True)]
