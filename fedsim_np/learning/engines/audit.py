"""What a work says of itself, held to the reference: the first batches of two clients, in both ways.

A local training is written for one client and computed for many, and may declare its steps to be ones that are taken
in a shorter way. Neither can be seen from its text; both show where what two clients send is not what the loop makes
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.learning.client import Broadcast, Client, ClientResult, StepBatch, Trained
from fedsim_np.learning.client_work import Local, LocalTraining
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.engines.engine import ChunkResult, Task
from fedsim_np.learning.engines.loop import LoopEngine
from fedsim_np.learning.metrics import Unfinalized
from fedsim_np.learning.models.model import Model
from fedsim_np.learning.shortcuts import DeclaresElementwise
from fedsim_np.trees import Array, Arrays

_BATCHES = 4
_CLOSE = 1e-4  # of an array's largest number; rounding makes a hundredth of it
_STIR = 1e-6


def rounds_to_audit(work: LocalTraining) -> tuple[int | None, ...]:
    """Return the rounds in which a work is audited: 1 and 2, and all if none are counted and nothing is declared.

    In round 1 a control variate is still 0, and what is done with it does not show.
    """
    return (1, 2) if isinstance(work, DeclaresElementwise) else (1, 2, None)


def audit(
    run: Callable[[Broadcast, Sequence[Task], Sequence[ClientColumns]], ChunkResult],
    work: LocalTraining,
    model: Model,
    sent: Broadcast,
    tasks: Sequence[Task],
    columns: Sequence[ClientColumns],
) -> None:
    """Raise a ValueError if an engine and the loop differ in what two clients of a chunk send.

    Parameters
    ----------
    run : callable
        The engine.
    work, model, sent
        As the engine has them.
    tasks, columns : sequences of k
        Of the chunk.
    """
    few = [_first_batches(task, client) for task, client in zip(tasks, columns, strict=True) if len(client.rows)][:2]
    if not few:
        return
    few = [few[0], few[-1]]  # a lone client stands for two

    def sent_by_loop(of_loop: LocalTraining) -> dict[str, Array]:
        batches = [task._replace(data=_as_batches(client, task.client_id)) for task, client in few]
        return _numbers(work, LoopEngine(of_loop, model).run_chunk(sent, batches, Cache(0)))

    found, expected = _numbers(work, run(sent, *zip(*few, strict=True))), sent_by_loop(work)
    off = {path: _distance(found[path], numbers) for path, numbers in expected.items()}
    if max(off.values()) <= _CLOSE:
        return
    # Where training itself leads rounding astray, steps that are stirred a little lead as far.
    stirred = sent_by_loop(_Stirred(work))
    for path, distance in off.items():
        if distance > max(_CLOSE, 10 * _distance(stirred[path], expected[path])):
            raise ValueError(
                f"The client work {type(work).__name__} must come to the same for one client and for many: after its "
                f"first batches '{path}' of a ClientResult is {distance:.1%} off what the loop has. All arrays that "
                "begin, step and end are given may have the clients' axis in front; what they make must be elementwise "
                "(or is_elementwise return False), and as_sgd, if there is one, say what step does."
            )


class _Stirred(LocalTraining):
    """The same work, its weights rounded worse after every step."""

    def __init__(self, work: LocalTraining) -> None:
        self._work, self.reads_all_data = work, work.reads_all_data

    def initial_metrics(self) -> Unfinalized:
        return self._work.initial_metrics()

    def begin(self, client: Client) -> Local:
        return self._work.begin(client)

    def end(self, client: Client, local: Local, trained: Trained) -> ClientResult:
        return self._work.end(client, local, trained)

    def step(self, local: Local, gradients: Arrays, batch: StepBatch) -> Local:
        stepped = self._work.step(local, gradients, batch)

        def stirred(w: Array) -> Array:
            return np.asarray(w + _STIR * np.abs(w).max(initial=0) * _signs(w.shape), w.dtype)

        return {**stepped, "weights": trees.map(stirred, stepped["weights"])}


def _first_batches(task: Task, client: ClientColumns) -> tuple[Task, ClientColumns]:
    lengths = client.lengths[:_BATCHES]
    read, rows = np.unique(client.rows[: lengths.sum()], return_inverse=True)
    return task, ClientColumns(client.x[read], client.y[read], rows, lengths, num_own_examples=len(rows))


def _as_batches(client: ClientColumns, client_id: str | None) -> Dataset:
    batches = np.split(client.rows, np.cumsum(client.lengths)[:-1])
    return Dataset.from_batches([{"x": client.x[rows], "y": client.y[rows]} for rows in batches], client_id)


def _numbers(work: LocalTraining, result: ChunkResult) -> dict[str, Array]:
    """Return what the work makes of it, by name: arrays with the clients' axis in front. The model's metrics are not.

    A prediction that is as good as another may well be another one.
    """
    own = [{name: sums[name] for name in work.initial_metrics()} for sums in result.metrics.tolist()]
    of_work = {
        "update": result.updates,
        "weight": result.client_weights,
        "kept": result.kept,
        "message": result.messages,
        "metrics": trees.stack([trees.map(np.asarray, sums) for sums in own]),
    }
    return {path: np.asarray(leaf, np.float64) for path, leaf in trees.leaves(of_work) if leaf is not None}


def _distance(found: Array, expected: Array) -> float:
    """Return the largest distance, in parts of the largest number; what has overflown is nowhere."""
    finite = np.isfinite(expected)
    if not finite.any():
        return 0.0
    with np.errstate(all="ignore"):
        distance, size = np.abs(found - expected)[finite].max(), np.abs(expected[finite]).max()
    return float(np.nan_to_num(distance, nan=np.inf) / (size + _STIR))


def _signs(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).choice([-1.0, 1.0], shape)
