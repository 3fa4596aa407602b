"""A training run: rounds, evaluations, loggers."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedsim_np.errors import argument_error, argument_type_error, check_bool, check_int, check_type
from fedsim_np.learning.aggregators.private import noise_multiplier_of
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.client_work import LocalTraining
from fedsim_np.learning.hidden_state import unchanged
from fedsim_np.learning.learning_process import LearningProcess, LearningProcessOutput
from fedsim_np.learning.models import ModelWeights
from fedsim_np.learning.models.checks import ClientBatches
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.privacy import Guarantee
from fedsim_np.program.checkpoints import FileProgramStateManager
from fedsim_np.program.loggers import ConsoleLogger, KeepsRows, Logger, Recalls, TakesClients
from fedsim_np.program.network import Network
from fedsim_np.program.saving import Saver

ROUND_NUMBER_KEY = "round_number"
TRAINING_TIME_KEY = "training_time_in_seconds"
EVALUATION_TIME_KEY = "evaluation_time_in_seconds"
EVALUATION_METRICS_PREFIX = "evaluation/"

_TIMING_KEYS = (TRAINING_TIME_KEY, EVALUATION_METRICS_PREFIX + EVALUATION_TIME_KEY)


def is_timing(name: str) -> bool:
    """Return whether a metric of a run is seconds, which are others each time.

    Examples
    --------
    >>> is_timing("training_time_in_seconds"), is_timing("client_work/train/loss")
    (True, False)
    """
    return name in _TIMING_KEYS


_Cohort = Sequence[ClientBatches] | Sequence[Attendance]
SelectionFn = Callable[[int], _Cohort] | Callable[[int, LearningAlgorithmState], _Cohort]
"""Round number, and the state before the round if it has a second parameter without a default -> a cohort's data."""
EvaluationFn = Callable[[LearningAlgorithmState, Sequence[ClientBatches]], Mapping[str, Any]]


def guarantee_of(privacy: Guarantee | None, process: Any) -> Guarantee | None:
    """Return what a run promises, with what is not known of its process; a `ValueError` if its noise is another."""
    check_type("privacy", privacy, Guarantee | None, "a Guarantee or None")
    if privacy is None:
        return None
    parts = process.parts if isinstance(process, LearningProcess) else {}
    added, one_by_one = noise_multiplier_of(parts.get("aggregator"))
    if added not in (None, privacy.noise_multiplier):
        raise argument_error("privacy", f"of the aggregator's noise_multiplier, {added}", privacy.noise_multiplier)
    work, compressor = parts.get("client work"), parts.get("compressor")
    tells = work is not None and type(work).finish_round is not LocalTraining.finish_round
    keeps = compressor is not None and compressor.error_feedback
    keeps |= isinstance(work, LocalTraining) and type(work).initialize_client is not LocalTraining.initialize_client
    doubts = {
        "whether the aggregator adds that noise is not known": added is None,
        "what the aggregator makes of several clients' updates before the noise is not counted": not one_by_one,
        "what else clients tell the server is not counted": tells,
        # Who took part before shows in what others send, and of a fixed size that tells of the rest.
        "what clients keep between rounds is not counted with fixed_size": keeps and privacy.sampling == "fixed_size",
    }
    return dataclasses.replace(privacy, doubts=tuple(doubt for doubt, is_there in doubts.items() if is_there))


def run_training_process(
    training_process: LearningProcess,
    training_selection_fn: SelectionFn,
    total_rounds: int,
    evaluation_fn: EvaluationFn | None = None,
    evaluation_selection_fn: Callable[[int], Sequence[ClientBatches]] | None = None,
    rounds_per_evaluation: int = 1,
    program_state_manager: FileProgramStateManager | None = None,
    rounds_per_saving_program_state: int = 1,
    metrics_managers: Iterable[Logger] | None = None,
    reshuffle: bool = False,
    *,
    stop_fn: Callable[[], bool] | None = None,
    loaded: tuple[LearningAlgorithmState | None, int] | None = None,
    privacy: Guarantee | None = None,
    network: Network | None = None,
) -> LearningAlgorithmState:
    """Run rounds 1 to `total_rounds`, as TFF's function of this name does.

    An evaluation, where asked for, comes before round 1 (as round 0) and after every round whose number is a
    multiple of `rounds_per_evaluation`. Where states are saved, a run goes on after the latest one that was: loggers
    are told to forget the rounds after it (`ResumableLogger`), so that the result is that of a run in one piece, as
    far as the selection functions depend on the round number alone. Round 0 is saved too, before its evaluation is
    logged: a log that is there is one that can be gone on with.

    Parameters
    ----------
    training_process : LearningProcess
    training_selection_fn : callable
        Round number -> the cohort's datasets; or round number and the state before the round, if the choice depends on
        it: a function with two parameters that have no defaults.
    total_rounds : int
    evaluation_fn : callable, optional
        ``(state, datasets) -> metrics``; they are logged under "evaluation/".
    evaluation_selection_fn : callable, optional
        Round number -> datasets for `evaluation_fn`.
    rounds_per_evaluation : int
    program_state_manager : FileProgramStateManager, optional
        Where states are saved, and loaded from.
    rounds_per_saving_program_state : int
        A state is saved after every round whose number is a multiple of it, after the last, and when it is told to
        stop. (TFF saves neither of the last two.) A `FileProgramStateManager` writes it while the next round is
        computed, and raises what goes wrong then; when this function returns, or raises, it is there.
    metrics_managers : iterable of Logger, optional
        Each is told every round's metrics, with ``round_number``, ``communication`` (bytes up and down of all clients)
        and the seconds of training and evaluation. None: a `ConsoleLogger`. A run that goes on tells a `MemoryLogger`
        the rounds before, if a `CSVLogger` or a `JSONLinesLogger` stands beside it.
    reshuffle : bool
        Read the datasets in another order every round: tf.data's order of iteration ``round - 1``. By default every
        round reads them in the first iteration's order, as TFF does.
    stop_fn : callable, optional
        Asked after every round: True ends the run there, its state saved.
    loaded : (LearningAlgorithmState or None, int), optional
        What the manager's `load_latest` has returned, where it was asked already: it is not asked again.
    privacy : Guarantee, optional
        Of a run whose aggregator adds noise: what is promised by then stands in every round's metrics, as ``privacy``.
        Its noise is that of the `DifferentiallyPrivateFactory`; of another aggregator it is said that nobody checked,
        and of a process what in it the figure does not know: what looks at several clients before the noise, what
        clients tell the server beside their updates, what they keep between rounds of a fixed size.
    network : Network, optional
        How fast clients are: the seconds that each round would have taken then stand in its metrics, as ``network``.

    Returns
    -------
    LearningAlgorithmState
        After the last round: of `total_rounds`, or of those that were saved if these are more.

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
    total_rounds = check_int("total_rounds", total_rounds, minimum=0)
    rounds_per_evaluation = check_int("rounds_per_evaluation", rounds_per_evaluation, minimum=1)
    rounds_per_saving = check_int("rounds_per_saving_program_state", rounds_per_saving_program_state, minimum=1)
    check_bool("reshuffle", reshuffle)
    check_type("network", network, Network | None, "a Network or None")
    _check_parts(
        training_selection_fn=training_selection_fn,
        evaluation_fn=evaluation_fn,
        evaluation_selection_fn=evaluation_selection_fn,
        stop_fn=stop_fn,
        training_process=training_process,
        program_state_manager=program_state_manager,
    )
    loggers = _checked_loggers(metrics_managers, total_rounds)
    sees_state, told = _takes_two(training_selection_fn), [each for each in loggers if isinstance(each, TakesClients)]
    select: Callable[..., _Cohort] = training_selection_fn

    def release(metrics: Mapping[str, Any], round_num: int) -> None:
        for logger in loggers:
            logger.release(metrics, round_num)

    def evaluate(state: LearningAlgorithmState, round_num: int) -> OrderedDict[str, Any]:
        if evaluation_fn is None or evaluation_selection_fn is None:
            return OrderedDict()
        return _evaluated(evaluation_fn, state, evaluation_selection_fn(round_num))

    parts = training_process.parts if isinstance(training_process, LearningProcess) else {}
    privacy = guarantee_of(privacy, training_process)
    state, start = training_process.initialize(), 0
    saved = None
    if program_state_manager is not None:
        saved, start = program_state_manager.load_latest(state) if loaded is None else loaded
    if saved is not None:
        state = saved
        _resume(loggers, start or -1)  # round 0 is evaluated again
    with Saver(program_state_manager, loggers) as saver:
        if start == 0:
            first_metrics = evaluate(state, 0)
            if saved is None:
                saver.save(state, 0)
                saver.wait()  # before there is a log, which nobody could go on with
            if first_metrics:
                release(first_metrics, 0)
        for round_num in range(start + 1, total_rounds + 1):
            started = time.perf_counter()
            cohort = select(round_num, state) if sees_state else select(round_num)
            with unchanged(parts, program_state_manager is not None):
                output = training_process.next(state, cohort, iteration=round_num - 1 if reshuffle else 0)
            state, metrics = output[0], _metrics_of(output, network)
            _release_clients(told, output, round_num)
            if privacy is not None:
                metrics["privacy"] = privacy.after(round_num)
            metrics[TRAINING_TIME_KEY] = time.perf_counter() - started
            metrics[ROUND_NUMBER_KEY] = round_num
            if round_num % rounds_per_evaluation == 0:
                metrics.update(evaluate(state, round_num))
            release(metrics, round_num)
            saver.check()
            stop = stop_fn is not None and stop_fn()
            if round_num % rounds_per_saving == 0 or round_num == total_rounds or stop:
                saver.save(state, round_num)
            if stop:
                break
    return state


def _release_clients(loggers: Sequence[TakesClients], output: object, round_num: int) -> None:
    for logger in loggers:
        if isinstance(output, LearningProcessOutput):
            logger.release_clients(output.clients, round_num)


def _resume(loggers: Sequence[Logger], round_num: int) -> None:
    """Have loggers go on after a round, and those in memory know the rounds that a file beside them has."""
    for logger in loggers:
        if hasattr(logger, "resume"):
            logger.resume(round_num)
    rows = next((logger.rows() for logger in loggers if isinstance(logger, KeepsRows)), ())
    for logger in loggers:
        if rows and isinstance(logger, Recalls):
            logger.recall(rows)


def _metrics_of(output: LearningProcessOutput | tuple[Any, Any], network: Network | None) -> OrderedDict[str, Any]:
    """Return a round's metrics, and what follows from who took part."""
    metrics = OrderedDict(output[1])
    if isinstance(output, LearningProcessOutput):  # a process of one's own may give no more than state and metrics
        metrics["communication"] = output.communication
        if network is not None and "network" not in metrics:  # asynchronous rounds have a clock of their own
            metrics["network"] = network.round(output.clients)
    return metrics


def _evaluated(
    evaluation_fn: EvaluationFn, state: LearningAlgorithmState, data: Sequence[ClientBatches]
) -> OrderedDict[str, Any]:
    """Return an evaluation's metrics, and its seconds, by their names in a training run."""
    started = time.perf_counter()
    metrics = evaluation_fn(state, data)
    check_type("evaluation_fn", metrics, Mapping, "a callable that returns a mapping of metrics")
    found = {**metrics, EVALUATION_TIME_KEY: time.perf_counter() - started}
    return OrderedDict((EVALUATION_METRICS_PREFIX + name, value) for name, value in found.items())


def evaluate_weights(process: LearningProcess, weights: ModelWeights, datasets: Sequence[Any]) -> Mapping[str, Any]:
    """Return the metrics of a model's weights on a cohort, by a process of `build_fed_eval`."""
    state = process.set_model_weights(process.initialize(), weights)
    metrics: Mapping[str, Any] = process.next(state, datasets).metrics["client_work"]["eval"]["current_round_metrics"]
    return metrics


def _check_parts(**parts: Any) -> None:
    methods = {"training_process": "initialize", "program_state_manager": "load_latest"}
    for name, value in parts.items():
        method = methods.get(name, "__call__")
        if not hasattr(value, method) and (value is not None or name.startswith("training")):
            rule = f"something with a method {method}" if name in methods else "a callable"
            raise argument_type_error(name, rule, value)
    if (parts["evaluation_fn"] is None) != (parts["evaluation_selection_fn"] is None):
        rule = "given together with evaluation_selection_fn"
        raise argument_type_error("evaluation_fn", rule, parts["evaluation_fn"])


def _takes_two(function: Callable[..., Any]) -> bool:
    """Return whether a function wants two arguments: parameters with defaults are its own business."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in that does not say
        return False
    wanted = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return len(wanted) == 2


def _checked_loggers(metrics_managers: Iterable[Logger] | None, total_rounds: int) -> list[Logger]:
    if metrics_managers is None:
        return [ConsoleLogger(total_rounds)]
    loggers = list(metrics_managers) if isinstance(metrics_managers, Iterable) else [metrics_managers]
    if not isinstance(metrics_managers, Iterable) or not all(hasattr(logger, "release") for logger in loggers):
        raise argument_type_error("metrics_managers", "a list of loggers, each with a method release", metrics_managers)
    return loggers
