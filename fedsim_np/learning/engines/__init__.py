"""Fast ways to do what the reference loop does, held to it by tests.

==========  ======================================================================================================
``loop``    `ClientWork.run`, one client after the other: the reference, for everything
``cohort``  all clients of a chunk in lockstep, for `LocalTraining` of a model with ``stacked_forward_and_gradient``
``gram``    lockstep in the span of the data, for softmax regression (``softmax_head``) with SGD
``auto``    the fastest of them that is valid
==========  ======================================================================================================

`choose_engine` decides when a process is built, by its configuration. To read them: `engine`, `columns`, `lockstep`,
`cohort`, `gram`, `evaluation`; then `cache`, `runner`, `blas`.
"""

from __future__ import annotations

from fedsim_np.errors import argument_error
from fedsim_np.learning.client_work import ClientWork
from fedsim_np.learning.engines.cohort import CohortEngine
from fedsim_np.learning.engines.columns import stacks
from fedsim_np.learning.engines.engine import ChunkResult, Engine, LoopEngine
from fedsim_np.learning.engines.evaluation import evaluation_engine
from fedsim_np.learning.engines.gram import GramEngine
from fedsim_np.learning.engines.runner import ExecutorArgument, Runner, checked_executor
from fedsim_np.learning.models import Model, fast_method
from fedsim_np.learning.optimizers import SGDM

ENGINES = ("auto", "loop", "cohort", "gram")
DEFAULT_CACHE_BYTES = 2**28

_PLAIN = (
    "predict_on_batch",
    "forward_pass",
    "gradient",
    "forward_and_gradient",
    "unfinalized_metrics",
    "initial_metrics",
)


def checked_engine(engine: str) -> str:
    """Return an engine's name, or raise a ValueError."""
    if engine not in ENGINES:
        raise argument_error("engine", f"one of {list(ENGINES)}", engine)
    return engine


def choose_engine(engine: str, client_work: ClientWork, model: Model) -> Engine:
    """Return the engine of a name; for "auto" the fastest that can do this configuration.

    Raises
    ------
    ValueError
        If a named engine cannot.

    Examples
    --------
    >>> from fedsim_np.learning.client_work import LocalTraining
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_adam, build_sgdm
    >>> model = SoftmaxRegression()
    >>> [choose_engine("auto", LocalTraining(model, o), model).name for o in (build_sgdm(0.1), build_adam(0.1))]
    ['gram', 'cohort']
    """
    found = client_work.local_training(client_work.initialize())
    training = None if found is None else found[0]
    model = model if training is None else training.model
    cannot: dict[str, str | None] = {"loop": None, "cohort": None, "gram": None}
    if training is None:
        cannot["cohort"] = cannot["gram"] = f"do the client work {type(client_work).__name__}"
    elif not stacks(model):
        cannot["cohort"] = cannot["gram"] = f"stack the batches of {type(model).__name__}"
    else:
        if fast_method(model, "stacked_forward_and_gradient", _PLAIN) is None:
            cannot["cohort"] = f"use {type(model).__name__}, which has no stacked_forward_and_gradient of its own"
        if fast_method(model, "softmax_head", (*_PLAIN, "stacked_forward_and_gradient")) is None:
            cannot["gram"] = f"use {type(model).__name__}, which has no softmax_head of its own"
        elif type(training.optimizer) is not SGDM:
            cannot["gram"] = f"use {type(training.optimizer).__name__}, only SGD"
    if engine == "auto":
        engine = next(name for name in ("gram", "cohort", "loop") if cannot[name] is None)
        auto = cannot["cohort"] is None
    else:
        auto = False
    if cannot[engine] is not None:
        raise ValueError(f"engine='{engine}' cannot {cannot[engine]}: use engine='auto'.")
    if engine == "gram":
        return GramEngine(model, client_work, may_step=auto)
    return CohortEngine(model, client_work) if engine == "cohort" else LoopEngine(client_work, model)


__all__ = [
    "DEFAULT_CACHE_BYTES",
    "ENGINES",
    "ChunkResult",
    "Engine",
    "ExecutorArgument",
    "Runner",
    "checked_engine",
    "checked_executor",
    "choose_engine",
    "evaluation_engine",
]
