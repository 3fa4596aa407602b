"""Rounds, one after another: training runs and what is kept of them.

`read_run` and `sweep` are above this package (`fedsim_np.runs`), and imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fedsim_np.program.checkpoints import FileProgramStateManager
from fedsim_np.program.log_files import ClientsLogger, CSVLogger, JSONLinesLogger
from fedsim_np.program.loggers import ConsoleLogger, Logger, MemoryLogger, ResumableLogger, flatten
from fedsim_np.program.network import Network
from fedsim_np.program.participation import Participation
from fedsim_np.program.sampling import (
    build_poisson_sampling_fn,
    build_power_of_choice_sampling_fn,
    build_size_weighted_sampling_fn,
    build_sparse_sampling_fn,
    build_uniform_sampling_fn,
    client_losses_fn,
)
from fedsim_np.program.tensorboard import TensorBoardLogger
from fedsim_np.program.training import run_training_process

if TYPE_CHECKING:
    from fedsim_np.runs.stored import read_run
    from fedsim_np.runs.sweep import sweep

_ABOVE = {"read_run": "fedsim_np.runs.stored", "sweep": "fedsim_np.runs.sweep"}

__all__ = [
    "CSVLogger",
    "ClientsLogger",
    "ConsoleLogger",
    "FileProgramStateManager",
    "JSONLinesLogger",
    "Logger",
    "MemoryLogger",
    "Network",
    "Participation",
    "ResumableLogger",
    "TensorBoardLogger",
    "build_poisson_sampling_fn",
    "build_power_of_choice_sampling_fn",
    "build_size_weighted_sampling_fn",
    "build_sparse_sampling_fn",
    "build_uniform_sampling_fn",
    "client_losses_fn",
    "flatten",
    "read_run",
    "run_training_process",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(importlib.import_module(_ABOVE[name]), name)
    raise AttributeError(f"module 'fedsim_np.program' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
