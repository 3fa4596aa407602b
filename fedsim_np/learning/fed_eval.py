"""Federated evaluation: the clients' metrics under fixed weights, of each round and summed over all rounds."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from fedsim_np.datasets import Dataset
from fedsim_np.learning import metrics
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument, Runner, evaluation_engine
from fedsim_np.learning.learning_process import LearningProcess, Round, clients_table, cohort_of
from fedsim_np.learning.models.checks import ClientBatches, as_model, initial_weights
from fedsim_np.learning.models.model import ModelFn, ModelWeights
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.learning.type_signatures import with_int64
from fedsim_np.tables import Table


@dataclass(frozen=True, eq=False)
class EvaluationProcess(LearningProcess):
    """The process of `build_fed_eval`; its ``client_work`` state holds the sums over all rounds."""

    def first_state(self) -> LearningAlgorithmState:
        """Return the model's first weights, and sums of nothing."""
        return LearningAlgorithmState(
            global_model_weights=initial_weights(self.model),
            distributor=(),
            client_work=((), self.model.initial_metrics()),
            aggregator=OrderedDict(value_sum_process=(), weight_sum_process=()),
            finalizer=(),
        )

    def run_round(self, state: LearningAlgorithmState, datasets: Sequence[Dataset]) -> Round:
        """Evaluate the weights in a state on a cohort, and add to the totals in it."""
        results = self.runner.run(Broadcast(state.global_model_weights, ()), datasets)
        unfinalized = results.metrics.tolist()
        current = metrics.total(unfinalized or [self.model.initial_metrics()])
        sums = metrics.add(state.client_work[1], current)
        finalizers = self.model.metric_finalizers()
        clients = functools.partial(clients_table, cohort_of(datasets, results), unfinalized, finalizers)
        return state._replace(client_work=((), sums)), self._metrics(current, sums), clients

    def _metrics(self, current: metrics.Unfinalized, sums: metrics.Unfinalized) -> metrics.Metrics:
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

    def metrics_example(self) -> metrics.Metrics:
        """Return the metrics of nothing; the counts are int64."""
        nothing = self.model.initial_metrics()
        return with_int64(self._metrics(nothing, nothing))

    def state_example(self) -> LearningAlgorithmState:
        """Return the first state, whose integers are counts as well."""
        return with_int64(self.initialize())


def build_fed_eval(
    model_fn: ModelFn,
    *,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Build federated evaluation.

    Set the weights with `set_model_weights`; every call of `next` evaluates them on a cohort's datasets and changes
    only the totals in the state.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    engine : {"auto", "loop", "cohort", "gram", "presorted"}
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
    return EvaluationProcess(model, Runner(evaluation_engine(model, engine), executor, cache_bytes))


def evaluate_clients(
    model_fn: ModelFn,
    model_weights: ModelWeights,
    datasets: Sequence[ClientBatches],
    *,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
) -> Table:
    """Return each client's metrics of a model, finalized.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    model_weights : ModelWeights
    datasets : sequence of Dataset, or of lists of batches
        One entry per client: their train or their test examples.
    engine, executor
        As for `build_fed_eval`.

    Returns
    -------
    Table
        ``client_id``, ``num_examples``, ``status`` ("ok", or "empty") and a column a metric.

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.int32([[0], [0], [0], [1]])}
    >>> table = evaluate_clients(model, model.initial_weights(), [Dataset.from_batches([batch], "ann")])
    >>> print(table.text(), end="")
    client_id,num_examples,status,sparse_categorical_accuracy,loss
    ann,4,ok,0.75,1.0986123
    """
    process = build_fed_eval(model_fn, engine=engine, executor=executor)
    state = process.set_model_weights(process.initialize(), model_weights)
    return Table(process.next(state, datasets).clients.plain())
