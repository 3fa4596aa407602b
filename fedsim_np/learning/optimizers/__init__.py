"""Optimizers: pure update rules, for a client's steps and for the server's.

A new one is a class like `SGDM` in `sgdm`, the shortest, and a ``build_...`` function that checks its numbers.
"""

from fedsim_np.learning.optimizers.adaptive import build_adagrad, build_adam, build_adamw, build_rmsprop, build_yogi
from fedsim_np.learning.optimizers.optimizer import LEARNING_RATE_KEY, Optimizer, OptimizerFn, as_optimizer
from fedsim_np.learning.optimizers.scheduling import schedule_learning_rate
from fedsim_np.learning.optimizers.sgdm import SGDM, build_sgdm
from fedsim_np.learning.shortcuts import SGDSteps

__all__ = [
    "LEARNING_RATE_KEY",
    "SGDM",
    "Optimizer",
    "OptimizerFn",
    "SGDSteps",
    "as_optimizer",
    "build_adagrad",
    "build_adam",
    "build_adamw",
    "build_rmsprop",
    "build_sgdm",
    "build_yogi",
    "schedule_learning_rate",
]
