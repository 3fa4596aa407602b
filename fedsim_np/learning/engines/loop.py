"""The plain engine: one client after the other, the reference for all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import NamingClient
from fedsim_np.learning.client import Broadcast, ClientResult
from fedsim_np.learning.client_work import ClientWork, LocalTraining, train
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.engine import ChunkResult, Engine, Task, check_shapes, chunk_result
from fedsim_np.learning.models.model import Model


@dataclass(frozen=True)
class LoopEngine(Engine):
    """`client_work.train`, or `ClientWork.run`, client by client.

    Parameters
    ----------
    work : LocalTraining or ClientWork
    model : Model
    """

    work: LocalTraining | ClientWork
    model: Model
    name = "loop"
    chunk_size = 8
    takes_columns = False

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Run client by client."""
        # An update that overflows is found, left out and reported by the server.
        with np.errstate(all="ignore"):
            results = [self._run(sent, task) for task in tasks]
        trainable = sent.weights.trainable
        for task, result in zip(tasks, results, strict=True):
            check_shapes(f"update of {task.name}", result.update, [w.shape for w in trainable])
        updates, weights, metrics, num_examples, kept, messages, num_steps = zip(*results, strict=True)
        together = ClientResult(
            update=tuple(map(np.stack, zip(*updates, strict=True))),
            weight=weights,
            kept=trees.stack(kept),
            message=trees.stack(messages),
        )
        return chunk_result(tasks, trainable, together, metrics, num_examples, num_steps)

    def _run(self, sent: Broadcast, task: Task) -> ClientResult:
        assert isinstance(task.data, Dataset)
        # A copy has counters of its own: whatever the client work does, the caller's datasets stay as they are.
        dataset = task.data.skip_iterations(0)
        with NamingClient(task.client_id):
            if isinstance(self.work, LocalTraining):
                return train(self.work, self.model, sent, dataset, task.kept)
            return self.work.run(sent.weights, dataset, sent.state)
