"""Evaluation: fixed weights, so every row is computed once, however often and in whatever order it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import NamingClient
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.engine import ChunkResult, Engine, Task, columns_of, objects
from fedsim_np.learning.losses import outputs_to_measure
from fedsim_np.learning.metrics import ExampleMetrics, Unfinalized
from fedsim_np.learning.models.evaluation import unfinalized_evaluation
from fedsim_np.learning.models.model import Model
from fedsim_np.learning.shortcuts import EndsInHead
from fedsim_np.trees import Array


def _evaluated(sums: Sequence[Unfinalized], num_examples: Sequence[int]) -> ChunkResult:
    nothing = np.zeros(len(sums))
    return ChunkResult((), nothing, nothing, objects(sums), objects(num_examples), objects([None] * len(sums)))


@dataclass(frozen=True)
class LoopEvaluation(Engine):
    """The reference: batch by batch, one client after the other."""

    model: Model
    work = None
    name = "loop"
    chunk_size = 8
    takes_columns = False

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Evaluate a chunk of clients."""
        evaluated = []
        for task in tasks:
            assert isinstance(task.data, Dataset)
            with NamingClient(task.client_id):
                evaluated.append(unfinalized_evaluation(self.model, sent.weights, task.data))
        return _evaluated(*zip(*evaluated, strict=True))


@dataclass(frozen=True)
class ColumnEvaluation(Engine):
    """Models that end in a head, on columns: the layers client by client, everything else once a chunk."""

    model: Model
    layers: EndsInHead
    metrics: ExampleMetrics
    work = None
    name = "columns"
    chunk_size = 50
    takes_columns = True

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Evaluate a chunk of clients."""
        layers, head, k = self.layers, self.layers.head, len(tasks)
        clients, trainable = columns_of(self.model, tasks, cache), sent.weights.trainable
        sizes = [len(client.x) for client in clients]
        ends = np.cumsum([0, *sizes]).tolist()
        places = np.concatenate([client.rows + start for client, start in zip(clients, ends, strict=False)])
        counts = np.bincount(places, minlength=ends[-1])  # how often each row is read
        read, owners = counts > 0, np.repeat(np.arange(k), sizes)

        def of_clients(values: Array) -> Array:  # a row that is not read must not count, not even as NaN times 0
            return np.bincount(owners, np.where(read, values * counts, 0.0), minlength=k)

        y = np.concatenate([client.y for client in clients])
        head.check(y[read])
        y[~read] = 0  # nobody reads these, and they may be anything
        # Outputs lie side by side in memory, (c, n): NumPy reduces over a first axis faster than over a short last one.
        z = np.empty((trainable[-1].shape[0], ends[-1]), trainable[-1].dtype).T
        with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics, not by warnings
            for client, start, end in zip(clients, ends, ends[1:], strict=False):
                z[start:end] = layers.head_outputs(trainable, client.x)
            predictions = head.predict(z)
            losses = of_clients(head.losses(z, predictions, head.targets(y)))
            measured = self.metrics.values(predictions, y, outputs_to_measure(head, z))
            means = [of_clients(values) for values in measured]
        examples = [len(client.rows) for client in clients]
        batches = np.array([len(client.lengths) for client in clients])
        return _evaluated(self.metrics.of_clients(means, losses, np.array(examples), batches), [*examples])
