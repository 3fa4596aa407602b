"""Rounds, one after another: training runs and what is kept of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fedsim_np.program.checkpoints import FileProgramStateManager
from fedsim_np.program.log_files import CSVLogger, JSONLinesLogger
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
    from fedsim_np.runs.sweep import sweep

__all__ = [
    "CSVLogger",
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
    "run_training_process",
    "sweep",
]

_OF_RUNS = {"sweep": "sweep"}
"""Name -> the module of `fedsim_np.runs` that it is in: runs are made of what is here, so it comes when asked for."""


def __getattr__(name: str) -> Any:
    if name in _OF_RUNS:
        return getattr(importlib.import_module(f"fedsim_np.runs.{_OF_RUNS[name]}"), name)
    raise AttributeError(f"module 'fedsim_np.program' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
