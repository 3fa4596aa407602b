"""The engine that chooses: for each chunk the first of several that suits its shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.engine import ChunkResult, Engine, Task, columns_of
from fedsim_np.learning.models.model import Model


@dataclass(frozen=True)
class AutoEngine(Engine):
    """Several engines that can do the same work on columns.

    What is chosen depends on configuration, state and shapes alone: so it is the same on every machine.

    Parameters
    ----------
    candidates : tuple of Engine
        The fastest first; the last one suits everything.
    """

    candidates: tuple[Engine, ...]
    takes_columns = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """The first candidate's."""
        return self.candidates[0].name

    @property
    def model(self) -> Model:  # type: ignore[override]
        """The candidates'."""
        return self.candidates[0].model

    @property
    def chunk_size(self) -> int:  # type: ignore[override]
        """The first candidate's."""
        return self.candidates[0].chunk_size

    @property
    def parts(self) -> Mapping[str, Any]:
        """The candidates'."""
        return self.candidates[0].parts

    def run_chunk(self, sent: Broadcast, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Have a chunk done by the first that suits it."""
        columns = columns_of(self.model, tasks, cache)
        engine = next(engine for engine in self.candidates if engine.suits(sent, columns))
        ready = [Task(client, task.client_id, task.kept) for task, client in zip(tasks, columns, strict=True)]
        return engine.run_chunk(sent, ready, cache)
