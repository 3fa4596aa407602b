"""A training run: rounds, evaluations, loggers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedsim_np.errors import argument_type_error, check_int
from fedsim_np.learning.process import ClientBatches, LearningProcess
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.program.loggers import Logger

ROUND_NUMBER_KEY = "round_number"
TRAINING_TIME_KEY = "training_time_in_seconds"
EVALUATION_TIME_KEY = "evaluation_time_in_seconds"
EVALUATION_METRICS_PREFIX = "evaluation/"

SelectionFn = Callable[[int], Sequence[ClientBatches]]
EvaluationFn = Callable[[LearningAlgorithmState, Sequence[ClientBatches]], Mapping[str, Any]]


def run_training_process(
    training_process: LearningProcess,
    training_selection_fn: SelectionFn,
    total_rounds: int,
    evaluation_fn: EvaluationFn | None = None,
    evaluation_selection_fn: SelectionFn | None = None,
    rounds_per_evaluation: int = 1,
    *,
    metrics_managers: Iterable[Logger] | None = None,
    reshuffle: bool = False,
) -> LearningAlgorithmState:
    """Run rounds 1 to `total_rounds`, as TFF's function of this name does.

    An evaluation, where asked for, comes before round 1 (as round 0) and after every round whose number is a
    multiple of `rounds_per_evaluation`.

    Parameters
    ----------
    training_process : LearningProcess
    training_selection_fn : callable
        Round number -> the cohort's datasets.
    total_rounds : int
    evaluation_fn : callable, optional
        ``(state, datasets) -> metrics``; they are logged under "evaluation/".
    evaluation_selection_fn : callable, optional
        Round number -> datasets for `evaluation_fn`.
    rounds_per_evaluation : int
    metrics_managers : iterable of Logger, optional
        Each is told every round's metrics, with ``round_number`` and the seconds of training and evaluation.
    reshuffle : bool
        Read the datasets in another order every round: tf.data's order of iteration ``round - 1``. By default every
        round reads them in the first iteration's order, as TFF does.

    Returns
    -------
    LearningAlgorithmState
        After the last round.

    Examples
    --------
    >>> import numpy as np
    >>> import fedsim_np as fed
    >>> from fedsim_np.program import MemoryLogger
    >>> process = fed.learning.build_weighted_fed_avg(
    ...     lambda: fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.5))
    >>> cohort = [[{"x": np.float32([[1, 0], [0, 1]]), "y": np.int32([[0], [1]])}]]
    >>> logger = MemoryLogger()
    >>> state = run_training_process(process, lambda round_num: cohort, 3, metrics_managers=[logger])
    >>> [round(loss, 4) for loss in logger.history["client_work/train/loss"]]
    [0.6931, 0.5759, 0.4859]
    """
    owner = "run_training_process"
    total_rounds = check_int("total_rounds", owner, total_rounds, minimum=0)
    rounds_per_evaluation = check_int("rounds_per_evaluation", owner, rounds_per_evaluation, minimum=1)
    for name, value in (
        ("training_selection_fn", training_selection_fn),
        ("evaluation_fn", evaluation_fn),
        ("evaluation_selection_fn", evaluation_selection_fn),
    ):
        if not callable(value) and (value is not None or name.startswith("training")):
            raise argument_type_error(name, owner, "a callable", value)
    if (evaluation_fn is None) != (evaluation_selection_fn is None):
        raise argument_type_error("evaluation_fn", owner, "given together with evaluation_selection_fn", evaluation_fn)
    loggers = list(metrics_managers or ())

    def release(metrics: Mapping[str, Any], round_num: int) -> None:
        for logger in loggers:
            logger.release(metrics, round_num)

    def evaluate(state: LearningAlgorithmState, round_num: int) -> OrderedDict[str, Any]:
        assert evaluation_fn is not None
        assert evaluation_selection_fn is not None
        started = time.perf_counter()
        metrics = OrderedDict(evaluation_fn(state, evaluation_selection_fn(round_num)))
        metrics[EVALUATION_TIME_KEY] = time.perf_counter() - started
        return OrderedDict((EVALUATION_METRICS_PREFIX + name, value) for name, value in metrics.items())

    state = training_process.initialize()
    if evaluation_fn is not None:
        release(evaluate(state, 0), 0)
    for round_num in range(1, total_rounds + 1):
        started = time.perf_counter()
        cohort = training_selection_fn(round_num)
        state, round_metrics = training_process.next(state, cohort, iteration=round_num - 1 if reshuffle else 0)
        metrics = OrderedDict(round_metrics)
        metrics[TRAINING_TIME_KEY] = time.perf_counter() - started
        metrics[ROUND_NUMBER_KEY] = round_num
        if evaluation_fn is not None and round_num % rounds_per_evaluation == 0:
            metrics.update(evaluate(state, round_num))
        release(metrics, round_num)
    return state
