"""Rounds, one after another: training runs and what is kept of them."""

from fedsim_np.program.loggers import Logger, MemoryLogger, flatten
from fedsim_np.program.training import run_training_process

__all__ = ["Logger", "MemoryLogger", "flatten", "run_training_process"]
