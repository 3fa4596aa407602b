"""Federated evaluation: the clients' metrics under fixed weights, of each round and summed over all rounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedsim_np.errors import check_int
from fedsim_np.learning import metrics
from fedsim_np.learning.engines import (
    DEFAULT_CACHE_BYTES,
    ExecutorArgument,
    Runner,
    checked_engine,
    checked_executor,
    evaluation_engine,
)
from fedsim_np.learning.engines.evaluation import LoopEvaluation
from fedsim_np.learning.models import Model, as_model
from fedsim_np.learning.process import ClientBatches, LearningProcess, as_cohort
from fedsim_np.learning.state import (
    LearningAlgorithmState,
    LearningProcessOutput,
    clients_table,
    frozen,
    initial_weights,
)
from fedsim_np.learning.type_signatures import Type, type_of


@dataclass(frozen=True, eq=False)
class _EvaluationProcess(LearningProcess):
    """The process of `build_fed_eval`; its ``client_work`` state holds the sums over all rounds."""

    model: Model
    runner: Runner

    @property
    def engine(self) -> str:
        """How a round is computed."""
        return self.runner.engine.name

    def _initialize(self) -> LearningAlgorithmState:
        return LearningAlgorithmState(
            global_model_weights=initial_weights(self.model),
            distributor=(),
            client_work=((), frozen(self.model.initial_metrics())),
            aggregator=OrderedDict(value_sum_process=(), weight_sum_process=()),
            finalizer=(),
        )

    def _next(
        self, state: LearningAlgorithmState, data: Sequence[ClientBatches], iteration: int = 0
    ) -> LearningProcessOutput:
        cohort = as_cohort(data, iteration)
        weights = frozen(state.global_model_weights)
        results = self.runner.run(weights, cohort, ())
        unfinalized, counts = results.metrics, [n or 0 for n in results.num_examples]
        current = metrics.total(unfinalized)
        sums = metrics.add(state.client_work[1], current)
        client_ids = [dataset.client_id for dataset in cohort]
        return LearningProcessOutput(
            state._replace(client_work=((), frozen(sums))),
            self._round_metrics(current, sums),
            lambda: clients_table(client_ids, counts, unfinalized),
        )

    def _round_metrics(self, current: metrics.Unfinalized, sums: metrics.Unfinalized) -> metrics.Metrics:
        finalizers = self.model.metric_finalizers()
        evaluation = OrderedDict(
            current_round_metrics=metrics.finalize(finalizers, current),
            total_rounds_metrics=metrics.finalize(finalizers, sums),
        )
        return OrderedDict(
            distributor=(),
            client_work=OrderedDict(eval=evaluation),
            aggregator=OrderedDict(mean_value=(), mean_weight=()),
            finalizer=(),
        )

    def _state_type(self) -> Type:
        # Sums of counts are int64; there are no other integers in this state.
        return type_of(self._initialize(), integers="int64")

    def _metrics_type(self) -> Type:
        nothing = self.model.initial_metrics()
        return type_of(self._round_metrics(nothing, nothing), integers="int64")


def build_fed_eval(
    model_fn: Callable[[], Model] | Model,
    *,
    engine: str = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Build federated evaluation.

    Set the weights with `set_model_weights`; every call of `next` evaluates them on a cohort's datasets and changes
    only the totals in the state.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    engine : {"auto", "loop", "cohort", "gram"}
        "loop" is the reference. For all others evaluation has one fast way of its own, where the model allows it.
    executor, cache_bytes
        As for `compose_learning_process`.

    Returns
    -------
    LearningProcess
        Its metrics are ``client_work={eval: {current_round_metrics, total_rounds_metrics}}`` beside empty parts.

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> evaluation = build_fed_eval(lambda: SoftmaxRegression(num_features=2, num_classes=3))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> state, metrics = evaluation.next(evaluation.initialize(), [[batch]])
    >>> state, metrics = evaluation.next(state, [[batch]])
    >>> metrics["client_work"]["eval"]["total_rounds_metrics"]["num_examples"]
    8
    """
    model = as_model(model_fn)
    loop = checked_engine(engine) == "loop"
    runner = Runner(
        LoopEvaluation(model) if loop else evaluation_engine(model),
        checked_executor(executor),
        check_int("cache_bytes", cache_bytes, minimum=0),
    )
    return _EvaluationProcess(model, runner)
