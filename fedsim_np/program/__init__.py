"""Rounds, one after another: training runs and what is kept of them."""

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
]
