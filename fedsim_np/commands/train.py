"""``fedsim-np train`` and ``fedsim-np evaluate``: rounds, over hours, without losing any."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from fedsim_np import program
from fedsim_np._version import versions
from fedsim_np.commands.arguments import CommandError, positive
from fedsim_np.commands.remarks import remark_on_loss
from fedsim_np.commands.run_folder import (
    FILES,
    KeptConfig,
    check_files,
    check_folder,
    exclusive_lock,
    read_stored,
    remove_run,
    staying,
)
from fedsim_np.commands.signals import handling
from fedsim_np.commands.train_choices import add_choices, chosen, command_to_resume, identity
from fedsim_np.errors import DataError, data_error, shortened
from fedsim_np.experiment import Experiment
from fedsim_np.files import as_json, check_own
from fedsim_np.learning.models import ModelWeights, load_weights, save_weights
from fedsim_np.privacy import Guarantee
from fedsim_np.profiling import profiled
from fedsim_np.program.training import guarantee_of, is_timing
from fedsim_np.report.stored import CHECKPOINTS, LOGS, TENSORBOARD, WEIGHTS
from fedsim_np.run_config import RunConfig

_INTERRUPTED = 130


def add_parser(commands: Any) -> None:
    """Add both commands to a parser's subcommands."""
    train = commands.add_parser(
        "train",
        help="train for many rounds, with checkpoints",
        description="Train, evaluate and keep what is needed to go on: a run that is killed or interrupted at any "
        "moment is resumed by the same command with --resume, and ends with the same bytes as one that was not.",
    )
    add_choices(train)
    train.add_argument("--workers", metavar="N", type=positive, help="threads; they change no bit of the result")
    train.add_argument(
        "--profile", action="store_true", help="say in the end where the time went: reading, orders, training, ..."
    )
    train.add_argument(
        "--tensorboard", action="store_true", help=f"event files for TensorBoard too, in DIR/{TENSORBOARD}"
    )
    train.add_argument("--out", metavar="DIR", required=True, help=f"folder for {', '.join(FILES)} and {CHECKPOINTS}")
    how = train.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in DIR, if there is one")
    how.add_argument("--overwrite", action="store_true", help="remove the run in DIR first")
    train.set_defaults(run=_train)
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate the model of a run",
        description="Print the metrics of a run's model on its clients' test examples, as JSON.",
    )
    evaluate.add_argument("folder", metavar="DIR", help="of fedsim-np train --out")
    evaluate.set_defaults(run=_evaluate)


def _train(arguments: argparse.Namespace) -> int:
    folder, stored = check_folder(arguments.out, arguments.resume, arguments.overwrite)
    config = chosen(arguments, stored)
    experiment = Experiment(config)
    files = experiment.files()
    if stored is not None:
        check_files(files, stored)
        _say_other_versions(stored["versions"])
    _check_cost(experiment)
    with contextlib.ExitStack() as stack:
        # What can go wrong shall do so before anything is made, or removed.
        process = experiment.training_process(stack.enter_context(_workers(arguments.workers)))
        privacy = guarantee_of(experiment.privacy, process)
        if arguments.tensorboard:
            _tensorboard(folder)  # or an error
        if stored is None:
            experiment.dry_run(process)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(staying(folder))
        stack.enter_context(exclusive_lock(folder))
        if check_folder(arguments.out, arguments.resume, arguments.overwrite)[1] != stored:
            raise CommandError(f"another process has begun a run in '{folder}'.")
        if arguments.overwrite:
            remove_run(folder)
        manager = program.FileProgramStateManager(folder / CHECKPOINTS, config=identity(config, files))
        saved, start = manager.load_latest(process.initialize())
        loggers = _loggers(folder)
        _check_logs(folder, loggers, start)
        kept = _kept_config(folder, experiment, files, stored, privacy)
        if saved is not None and start == config.rounds:
            _write_weights(folder, experiment, process.get_model_weights(saved))
            print(f"done already: {config.rounds} rounds in {folder}")
            return 0
        is_watched = arguments.tensorboard or (stored is not None and (folder / TENSORBOARD).is_dir())
        if is_watched:
            loggers.append(stack.enter_context(_tensorboard(folder)))
        if arguments.resume and saved is None:  # killed before the first checkpoint, or all of them are damaged
            for logger in loggers:
                logger.resume(-1)
        interrupted = stack.enter_context(_interrupts())
        run = functools.partial(
            program.run_training_process,
            process,
            experiment.cohort,
            config.rounds,
            lambda state, _: experiment.evaluate(state.global_model_weights),
            lambda _: experiment.evaluation_cohort,
            config.evaluate_every,
            manager,
            config.checkpoint_every,
            [*loggers, kept, program.ConsoleLogger(config.rounds)],
            reshuffle=True,
            stop_fn=lambda: bool(interrupted),
            loaded=(saved, start),
            privacy=privacy,
            network=experiment.network,
        )
        state, profile = profiled(run) if arguments.profile else (run(), None)
        if profile is not None:
            print(profile)
        reached = _last_round(loggers[: len(LOGS)])
        kept.restore()
        if reached < config.rounds:
            print(f"stopped after round {reached} of {config.rounds}; to go on: {command_to_resume(arguments)}")
            return _INTERRUPTED
        _write_weights(folder, experiment, process.get_model_weights(state))
        remark_on_loss(folder / LOGS[0], experiment)
    if privacy is not None:
        print("promised: epsilon {epsilon:.4f} ({meaning})".format(**privacy.after(config.rounds)))
    print(f"done: {config.rounds} rounds in {folder}")
    return 0


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
    privacy: Guarantee | None,
) -> KeptConfig:
    config = experiment.config
    if stored is not None and stored["choices"]["data"] == config.data:
        return KeptConfig(folder, None)
    # The run is new, or its files have moved.
    began = versions("numpy", "h5py") if stored is None else stored["versions"]
    about = {"command": "train", "choices": config.stored, "data": files, "versions": began}
    if privacy is not None:
        about["privacy"] = privacy.after(0)["meaning"]
    return KeptConfig(folder, json.dumps(about, indent=2) + "\n")


def _loggers(folder: Path) -> list[Any]:
    csv, lines, timings = (folder / name for name in LOGS)
    return [
        program.CSVLogger(csv, _is_reproducible),
        program.JSONLinesLogger(lines, _is_reproducible),
        program.CSVLogger(timings, is_timing),
    ]


def _check_logs(folder: Path, loggers: Sequence[Any], start: int) -> None:
    """Check that no round up to the one to go on from has been lost; 0 is saved before it is logged."""
    try:
        for name, logger in zip(LOGS, loggers, strict=True):
            missing = set(range(start + 1)) - set(logger.rounds()) if start else set()
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


def _workers(count: int | None) -> contextlib.AbstractContextManager[Executor | str | None]:
    if count is None or count == 1:
        return contextlib.nullcontext(None if count is None else "serial")
    return ThreadPoolExecutor(count)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Have the first Ctrl-C end the run after its round, and the second at once; give the list of those that came."""
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        print("interrupted: the run ends after this round; again to end it at once", flush=True)

    with handling(signal.SIGINT, handle):
        yield came


def _evaluate(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder)
    stored = read_stored(folder)
    experiment = Experiment(RunConfig(**stored["choices"]))
    check_files(experiment.files(), stored)
    if not os.path.lexists(folder / WEIGHTS):
        rounds = experiment.config.rounds
        raise CommandError(f"'{folder}' must be a finished run of {rounds} rounds: it has no {WEIGHTS} (see --resume).")
    metrics = experiment.evaluate(load_weights(folder / WEIGHTS, experiment.model_fn()))
    print(as_json({"clients": len(experiment.evaluation_cohort), **metrics}))
    return 0
