"""Fast ways to do what the reference loop does, held to it by tests.

=============  ===================================================================================================
``loop``       one client after the other: the reference, for everything
``cohort``     all clients of a chunk in lockstep, for a `LocalTraining` of a model that is `Stackable`
``gram``       lockstep in the span of the data, for softmax regression and `SGDSteps`
``presorted``  client by client, each one's rows laid out once in the order in which they are read, for the same
``auto``       the fastest of them that is valid; instead of gram, what suits a chunk's shapes best
=============  ===================================================================================================

`choose_engine` decides when a process is built, by what work and model declare. To read them: `engine`, `loop`;
`columns`, `schedule`, `lockstep`, `sgd`, `descent`, `gram`, `presorted`, `costs`, `evaluation`; then `audit`, `cache`,
`runner`, `host`; last `maps`, where what cannot be declared is found out.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from fedsim_np.errors import unknown_name
from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.engines.columns import stacks
from fedsim_np.learning.engines.engine import ChunkResult, Engine
from fedsim_np.learning.engines.evaluation import ColumnEvaluation, LoopEvaluation
from fedsim_np.learning.engines.host import end_with_parent
from fedsim_np.learning.engines.lockstep import LockstepEngine, chunk_size_for
from fedsim_np.learning.engines.loop import LoopEngine
from fedsim_np.learning.engines.runner import ExecutorArgument, Runner, Workers
from fedsim_np.learning.engines.sgd import SGDEngine
from fedsim_np.learning.models.checks import initial_weights
from fedsim_np.learning.models.model import Model
from fedsim_np.learning.shortcuts import DeclaresElementwise, EndsInHead, IsSoftmaxRegression, Stackable

EngineName = Literal["auto", "loop", "cohort", "gram", "presorted"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
DEFAULT_CACHE_BYTES = 2**28


def checked_engine(engine: EngineName) -> EngineName:
    """Return an engine's name, or raise a ValueError."""
    if engine not in ENGINES:
        raise unknown_name("engine", ENGINES, engine)
    return engine


def choose_engine(engine: EngineName, work: LocalTraining | ClientWork, model: Model) -> Engine:
    """Return the engine of a name; for "auto" the fastest that can do this configuration.

    Raises
    ------
    ValueError
        If a named engine cannot.

    Examples
    --------
    >>> from fedsim_np.learning.fed_avg import FedAvgTraining
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_adam, build_sgdm
    >>> model = SoftmaxRegression()
    >>> [choose_engine("auto", FedAvgTraining(o), model).name for o in (build_sgdm(0.1), build_adam(0.1))]
    ['gram', 'cohort']
    """
    lockstep = _lockstep(work, model)
    sgd, loop = _sgd(lockstep, checked_engine(engine)), LoopEngine(work, model)
    if engine == "auto":
        return next(found for found in (sgd, lockstep, loop) if isinstance(found, Engine))
    found = {"cohort": lockstep, "loop": loop}.get(engine, sgd)
    if isinstance(found, str):
        raise ValueError(f"engine='{engine}' cannot {found}: use engine='auto'.")
    return found


def _lockstep(work: LocalTraining | ClientWork, model: Model) -> LockstepEngine | str:
    """Return lockstep for a work and a model, or what of them it cannot do."""
    if not isinstance(work, LocalTraining):
        return f"do the client work {type(work).__name__}, which is no LocalTraining"
    if not stacks(model) or not isinstance(model, Stackable):
        return f"use {type(model).__name__}, which has no stacked_forward_and_gradient of its own for rows x and y"
    trainable = initial_weights(model).trainable
    if isinstance(work, DeclaresElementwise) and not work.is_elementwise(work.initialize(trainable)):
        return f"take the steps of {type(work).__name__}, which are not elementwise"
    return LockstepEngine(work, model, model, chunk_size_for(trainable))


def _sgd(lockstep: LockstepEngine | str, engine: EngineName) -> SGDEngine | str:
    """Return the engine of gradient descent for what lockstep can do, or what of it this cannot."""
    if isinstance(lockstep, str):
        return lockstep
    work, model = lockstep.work, lockstep.model
    if not isinstance(model, IsSoftmaxRegression) or model.declared_metrics is None:
        return f"use {type(model).__name__}, which has no softmax_head of its own"
    trainable = initial_weights(model).trainable
    if any(w.dtype != np.float32 for w in trainable):
        return "compute in float64"
    if work.as_sgd(work.initialize(trainable)) is None:
        return f"take the steps of {type(work).__name__}, only gradient descent's that as_sgd declares"
    name = engine if engine == "presorted" else "gram"
    return SGDEngine(work, model, lockstep.stacked, softmax=model, name=name, is_auto=engine == "auto")


def evaluation_engine(model: Model, engine: EngineName = "auto") -> Engine:
    """Return the evaluation of a name: the loop, or for any other name the fastest that is valid for a model."""
    metrics, is_loop = model.declared_metrics, checked_engine(engine) == "loop"
    if is_loop or metrics is None or not isinstance(model, EndsInHead) or not stacks(model):
        return LoopEvaluation(model)
    return ColumnEvaluation(model, model, metrics)


__all__ = [
    "DEFAULT_CACHE_BYTES",
    "ENGINES",
    "ChunkResult",
    "Engine",
    "EngineName",
    "ExecutorArgument",
    "LoopEngine",
    "LoopEvaluation",
    "Runner",
    "Workers",
    "checked_engine",
    "choose_engine",
    "end_with_parent",
    "evaluation_engine",
]
