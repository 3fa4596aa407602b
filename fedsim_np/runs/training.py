"""A run in a folder: begun, gone on with, extended, finished, with the same bytes whatever happened on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np import program
from fedsim_np._version import versions
from fedsim_np.datasets.named import NAMED_DATA
from fedsim_np.errors import CommandError, DataError, data_error, shortened
from fedsim_np.files import as_json, check_own, write_text
from fedsim_np.learning.models import ModelWeights, load_weights, save_weights
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.privacy import Guarantee
from fedsim_np.profiling import Profile, profiled
from fedsim_np.program.training import guarantee_of, is_timing
from fedsim_np.runs.config import OF_UPDATES, RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.folder import KeptConfig, check_files, check_folder, exclusive_lock, remove_run, staying
from fedsim_np.runs.stored import (
    CHECKPOINTS,
    CLIENTS,
    EVALUATION,
    LOGS,
    PAGE,
    TENSORBOARD,
    WEIGHTS,
    clear_pictures,
    read_object,
)

_EARLIER = "first_rounds"
"""In ``config.json`` of a run that was extended: the rounds that it was begun for, as its states say."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that has ended for now.

    Attributes
    ----------
    folder : Path
    experiment : Experiment
    reached : int
        The last round; fewer than ``experiment.config.rounds`` if it was told to stop.
    is_new : bool
        Whether any round was computed, and it had not ended before.
    profile : Profile or None
        Where the time went, if it was asked for.
    privacy : Guarantee or None
        What noise promises.
    """

    folder: Path
    experiment: Experiment
    reached: int
    is_new: bool = True
    profile: Profile | None = None
    privacy: Guarantee | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all rounds are there."""
        return self.reached == self.experiment.config.rounds


def train(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor | str | None = None,
    tensorboard: bool = False,
    loggers: Sequence[Any] = (),
    stopping: contextlib.AbstractContextManager[Callable[[], bool]] | None = None,
    profiling: bool = False,
    experiment: Experiment | None = None,
    about: Mapping[str, Any] | None = None,
) -> Trained:
    """Train in a folder, which is made.

    Parameters
    ----------
    config : RunConfig
    folder : Path
    resume, overwrite : bool
        What to do with a run that is there: go on with it, to more rounds than it was begun for as well; or remove it.
    executor : as for the builders
    tensorboard : bool
        Write event files, too.
    loggers : sequence of Logger
        Who else is told of every round.
    stopping : context manager, optional
        Entered for the rounds; gives the `stop_fn` of `program.run_training_process`.
    profiling : bool
        Whether to find out where the time goes.
    experiment : Experiment, optional
        Of the configuration, where it was made already.
    about : mapping, optional
        What else stands in ``config.json``: by which command it was made.

    Returns
    -------
    Trained

    Raises
    ------
    CommandError
        If there is a run and nothing was said of it, or of another kind or with other choices, or another process
        trains there.
    DataError
        If the data or a file of the run are damaged or others.
    """
    folder, stored = check_folder(str(folder), resume, overwrite)
    began = config.rounds if stored is None else _rounds_begun(config, stored)
    experiment = experiment or Experiment(config, executor=executor)
    files = experiment.files()
    if stored is not None:
        check_files(files, stored)
        _say_other_versions(stored["versions"])
    _check_cost(experiment)
    with contextlib.ExitStack() as stack:
        # What can go wrong shall do so before anything is made, or removed.
        process = experiment.training_process(executor)
        privacy = guarantee_of(experiment.privacy, process)
        if tensorboard:
            _tensorboard(folder)  # or an error
        if stored is None:
            experiment.dry_run(process)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(staying(folder))
        stack.enter_context(exclusive_lock(folder))
        if check_folder(str(folder), resume, overwrite)[1] != stored:
            raise CommandError(f"another process has begun a run in '{folder}'.")
        if overwrite:
            remove_run(folder)
        identified = identity(dataclasses.replace(config, rounds=began), files)
        manager = program.FileProgramStateManager(folder / CHECKPOINTS, config=identified)
        saved, start = manager.load_latest(process.initialize())
        logs = _logs(folder, start == 0 or (folder / CLIENTS).exists())
        _check_logs(folder, logs, start, config.evaluate_every > 0)
        made = about or {k: of for k, of in (stored or {}).items() if k in ("command", "command_line", "client_ids")}
        kept = _kept_config(folder, experiment, files, stored, began, made, privacy)
        if saved is not None and start == config.rounds:
            _write_result(folder, experiment, process.get_model_weights(saved))
            return Trained(folder, experiment, start, is_new=False)
        for name in (WEIGHTS, EVALUATION, PAGE):  # of a run that is extended: of the model of fewer rounds
            (folder / name).unlink(missing_ok=True)
        clear_pictures(folder)
        is_watched = tensorboard or (stored is not None and (folder / TENSORBOARD).is_dir())
        if is_watched:
            loggers = [stack.enter_context(_tensorboard(folder)), *loggers]
        if resume and saved is None:  # killed before the first checkpoint, or all of them are damaged
            for logger in [*logs.values(), *loggers]:
                if hasattr(logger, "resume"):
                    logger.resume(-1)
        stop_fn = None if stopping is None else stack.enter_context(stopping)
        run = functools.partial(
            program.run_training_process,
            process,
            experiment.cohort,
            config.rounds,
            *_evaluation(experiment),
            manager,
            config.checkpoint_every,
            [*logs.values(), kept, *loggers],
            reshuffle=config.reshuffle,
            stop_fn=stop_fn,
            loaded=(saved, start),
            privacy=privacy,
            network=experiment.network,
        )
        state, profile = profiled(run) if profiling else (run(), None)
        reached = _last_round([*logs.values()])
        kept.restore()
        if reached == config.rounds:
            _write_result(folder, experiment, process.get_model_weights(state))
    return Trained(folder, experiment, reached, profile=profile, privacy=privacy)


def identity(config: RunConfig, files: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs must agree in to have the same states: of files their content, wherever they are."""
    data = {split: of["sha256"] for split, of in files.items()} or config.data
    chosen = {**dataclasses.asdict(config), "data": data}
    # What the model does not take says nothing of its states: runs that began before it could be chosen go on.
    names = ("l2", "invert", "dropout", "stragglers", "min_epochs", "drop_stragglers", *OF_UPDATES)
    later = {name: getattr(RunConfig, name) for name in names}
    return {
        name: value
        for name, value in chosen.items()
        if name not in config.unused and not (name in later and value == later[name])
    }


def _evaluation(experiment: Experiment) -> tuple[Any, Any, int]:
    """Return what evaluates in mid-run, on what, and how often; nothing if that is left for the end."""
    if experiment.config.evaluate_every == 0:
        return None, None, 1

    def evaluate(state: LearningAlgorithmState, data: object) -> Mapping[str, Any]:
        return experiment.evaluate(state.global_model_weights)

    return evaluate, lambda _: experiment.evaluation_cohort, experiment.config.evaluate_every


def differing(config: RunConfig, stored: Mapping[str, Any]) -> list[str]:
    """Return in which choices a run that is there differs from a configuration; more rounds are no other run."""
    there = stored["choices"]
    return [
        f"{key} ({there.get(key)!r} there, {value!r} here)"
        for key, value in dataclasses.asdict(config).items()
        if there.get(key) != value
        and not (key == "data" and not {value, there.get(key)} & set(NAMED_DATA))  # files are compared by content
        and not (key == "rounds" and value > there[key])
    ]


def _rounds_begun(config: RunConfig, stored: Mapping[str, Any]) -> int:
    """Return for how many rounds a run was begun that is to go on with a configuration, or raise."""
    if others := differing(config, stored):
        raise CommandError(f"--resume goes on with the same choices. Got others for {', '.join(others)}.")
    began = stored.get(_EARLIER)
    rounds: int = stored["choices"]["rounds"]
    return began if type(began) is int and 0 <= began <= rounds else rounds


def _check_cost(experiment: Experiment) -> None:
    """Check what a run costs; what its parts warn of is said as notes."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        experiment.check_cost()
    for warning in told:
        print(f"note: {warning.message}", file=sys.stderr)


def _kept_config(
    folder: Path,
    experiment: Experiment,
    files: dict[str, Any],
    stored: dict[str, Any] | None,
    began: int,
    made: Mapping[str, Any],
    privacy: Guarantee | None,
) -> KeptConfig:
    config = experiment.config
    if stored is not None and all(stored["choices"][key] == getattr(config, key) for key in ("data", "rounds")):
        return KeptConfig(folder, None)
    # The run is new, is extended, or its files have moved.
    with_versions = versions("numpy", "h5py") if stored is None else stored["versions"]
    about = {"command": "train", **made, "choices": config.stored, "data": files, "versions": with_versions}
    if privacy is not None:
        about["privacy"] = privacy.after(0)["meaning"]
    if began != config.rounds:
        about[_EARLIER] = began
        about.pop("command_line", None)  # it makes a run of fewer rounds
    return KeptConfig(folder, json.dumps(about, indent=2) + "\n")


def _logs(folder: Path, has_clients: bool) -> dict[str, Any]:
    """Return the loggers of a run's files by their names; one that began without a file of clients goes on without."""
    csv, lines, timings = LOGS
    logs: dict[str, Any] = {
        csv: program.CSVLogger(folder / csv, _is_reproducible),
        lines: program.JSONLinesLogger(folder / lines, _is_reproducible),
        timings: program.CSVLogger(folder / timings, is_timing),
    }
    return {**logs, CLIENTS: program.ClientsLogger(folder / CLIENTS)} if has_clients else logs


def _check_logs(folder: Path, logs: Mapping[str, Any], start: int, evaluates: bool) -> None:
    """Check that no round up to the one to go on from has been lost; 0 is saved before it is logged."""
    try:
        for name, logger in logs.items():
            # Before round 1 nobody takes part, and perhaps nothing is evaluated.
            wanted = range(name == CLIENTS or not evaluates, start + 1)
            missing = set(wanted) - set(logger.rounds()) if start else set()
            if missing:
                rule = f"must have a row of each round up to {start}, to go on from there"
                raise data_error(rule, f"none of round {min(missing)}", path=folder / name)
    except DataError as error:
        raise CommandError(f"{error} Put a whole copy of the file there, or begin again with --overwrite.") from error


def _last_round(loggers: Sequence[Any]) -> int:
    """Return the round that a run has reached, its logs whole."""
    for logger in loggers:
        logger.restore()
    last: int = loggers[0].rounds()[-1]
    return last


def _write_result(folder: Path, experiment: Experiment, weights: ModelWeights) -> None:
    """Write the model and what it is worth, unless they are there and whole."""
    _write_weights(folder, experiment, weights)
    try:
        read_object(folder / EVALUATION)
    except (OSError, ValueError):
        check_own(folder / EVALUATION)
        write_text(folder / EVALUATION, as_json(experiment.final_evaluation(weights), indent=2) + "\n")


def _write_weights(folder: Path, experiment: Experiment, weights: ModelWeights) -> None:
    """Write the model, unless it is there and whole."""
    with contextlib.suppress(ValueError):
        there = load_weights(folder / WEIGHTS, experiment.model_fn()).trainable
        if len(there) == len(weights.trainable) and all(map(np.array_equal, there, weights.trainable)):
            return
    check_own(folder / WEIGHTS)
    save_weights(folder / WEIGHTS, weights, experiment.model_fn().weight_names)


def _say_other_versions(there: Mapping[str, Any]) -> None:
    here = versions("numpy")
    for name in ("fedsim_np", "numpy"):
        if there.get(name) != here[name]:
            stored = there.get(name)
            version = shortened(stored, 50) if isinstance(stored, str) else "of an unknown version"
            began = f"note: the run began with {name} {version}, and this is {here[name]}"
            print(f"{began}: the last bits may be others", file=sys.stderr)


def _tensorboard(folder: Path) -> program.TensorBoardLogger:
    try:
        return program.TensorBoardLogger(folder / TENSORBOARD)
    except ImportError as error:
        raise CommandError(str(error)) from error


def _is_reproducible(name: str) -> bool:
    """Return whether a metric is the same in every run, and not there already as the round's number."""
    return not is_timing(name) and name != "round_number"
