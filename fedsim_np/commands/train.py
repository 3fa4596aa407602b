"""``fedsim-np train`` and ``fedsim-np evaluate``: rounds, over hours, without losing any."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from fedsim_np._version import versions
from fedsim_np.commands.arguments import CommandError, positive
from fedsim_np.errors import check_bool, check_int, data_error
from fedsim_np.experiment import ALGORITHMS, MODELS, OPTIMIZERS, Choices, Experiment, read_choices
from fedsim_np.files import write_text
from fedsim_np.learning.engines import ENGINES
from fedsim_np.learning.models import SoftmaxRegression, load_weights, save_weights
from fedsim_np.program import (
    ConsoleLogger,
    CSVLogger,
    FileProgramStateManager,
    JSONLinesLogger,
    TensorBoardLogger,
    run_training_process,
)
from fedsim_np.program.training import is_timing

_CHECKPOINTS, _TENSORBOARD = "checkpoints", "tensorboard"
_LOGS = ("metrics.csv", "metrics.jsonl", "timings.csv")
_FILES = ("config.json", *_LOGS, "weights.npz")
_INTERRUPTED = 130
_LEAF = "current_round_metrics"
_HELP = {
    "data": "sample, synthetic, emnist, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5",
    "population": "simulated writers, with --data synthetic",
    "clients": "clients a round",
    "rounds": "how many",
    "epochs": "of each client in a round",
    "batch_size": "examples",
    "algorithm": ", ".join(ALGORITHMS),
    "proximal_strength": "of fedprox",
    "client_optimizer": ", ".join(OPTIMIZERS),
    "client_lr": "learning rate of the clients",
    "client_momentum": "of sgdm on the clients",
    "server_optimizer": "as --client-optimizer",
    "server_lr": "learning rate of the server",
    "server_momentum": "of sgdm at the server",
    "model": ", ".join(MODELS),
    "classes": "of labels; 0: ten for handwriting, else as many as there are",
    "engine": ", ".join(ENGINES),
    "seed": "of everything that is drawn",
    "evaluate_every": "rounds from one evaluation to the next",
    "evaluation_clients": "whose test examples are evaluated, at most",
    "checkpoint_every": "rounds from one checkpoint to the next",
}


def add_parser(commands: Any) -> None:
    """Add both commands to a parser's subcommands."""
    train = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train for many rounds, with checkpoints",
        description="Train, evaluate and keep what is needed to go on: a run that is killed or interrupted at any "
        "moment is resumed by the same command with --resume, and ends with the same bytes as one that was not.",
    )
    train.add_argument("--config", metavar="FILE", help="JSON or TOML with these choices; flags go before it")
    types = {"int": int, "float": float, "str": str}
    for field in dataclasses.fields(Choices):
        train.add_argument(
            f"--{field.name.replace('_', '-')}",
            metavar=field.name.split("_")[-1].upper(),
            type=types[str(field.type)],
            default=None,
            help=f"{_HELP[field.name]} (default: {field.default})",
        )
    train.add_argument("--workers", metavar="N", type=positive, help="threads; they change no bit of the result")
    train.add_argument(
        "--tensorboard", action="store_true", help=f"event files for TensorBoard too, in DIR/{_TENSORBOARD}"
    )
    train.add_argument("--out", metavar="DIR", required=True, help=f"folder for {', '.join(_FILES)} and {_CHECKPOINTS}")
    how = train.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in DIR, if there is one")
    how.add_argument("--overwrite", action="store_true", help="remove the run in DIR first")
    train.set_defaults(run=_train)
    evaluate = commands.add_parser(
        "evaluate",
        allow_abbrev=False,
        help="evaluate the model of a run",
        description="Print the metrics of a run's model on its clients' test examples, as JSON.",
    )
    evaluate.add_argument("folder", metavar="DIR", help="of fedsim-np train --out")
    evaluate.set_defaults(run=_evaluate)


def _read_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the choices in the file; its workers and tensorboard, which change no result, are taken as flags."""
    given = read_choices(arguments.config) if arguments.config is not None else {}
    try:
        if "workers" in given:
            workers = check_int("workers", "a run", given.pop("workers"), minimum=1)
            arguments.workers = arguments.workers or workers
        if "tensorboard" in given:
            tensorboard = check_bool("tensorboard", "a run", given.pop("tensorboard"))
            arguments.tensorboard = arguments.tensorboard or tensorboard
    except (ValueError, TypeError) as error:
        raise data_error("choices must be in range", str(error).rstrip("."), path=arguments.config) from error
    Choices.of(given, str(arguments.config))
    return given


def _choices(arguments: argparse.Namespace, stored: dict[str, Any] | None) -> Choices:
    """Return flags before the file before what is stored with the run that is resumed."""
    given = _read_config(arguments)
    for field in dataclasses.fields(Choices):
        if getattr(arguments, field.name) is not None:
            given[field.name] = getattr(arguments, field.name)
    try:
        choices = Choices(**{**(stored or {}), **given})
    except ValueError as error:
        raise CommandError(str(error)) from error
    if stored is not None:
        differing = [
            f"{key} ({stored.get(key)!r} there, {value!r} here)"
            for key, value in dataclasses.asdict(choices).items()
            if stored.get(key) != value
        ]
        if differing:
            raise CommandError(f"--resume goes on with the same choices. Got others for {', '.join(differing)}.")
    return choices


def _stored_choices(folder: Path) -> dict[str, Any]:
    config = read_choices(str(folder / "config.json"))
    choices = config.get("choices")
    if not isinstance(choices, dict):
        raise data_error("must be a run's configuration, with 'choices'", list(config), path=folder / "config.json")
    return dataclasses.asdict(Choices.of(choices, str(folder / "config.json")))


def _prepare_folder(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any] | None]:
    """Make or refuse the folder; return it, and the choices of the run to go on with."""
    if not arguments.out:
        raise CommandError("--out must be a folder. Got ''.")
    folder = Path(arguments.out)
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--out must be a folder. Got the file '{folder}'.")
    there = [name for name in (*_FILES, _CHECKPOINTS) if (folder / name).exists()]
    if there and not (arguments.resume or arguments.overwrite):
        raise CommandError(
            f"--out '{folder}' already holds a run ({', '.join(there)}): use --resume to go on with it, or --overwrite."
        )
    if there and arguments.overwrite and (folder / "config.json").exists():
        _stored_choices(folder)  # or an error: these would be somebody else's files
    stored = _stored_choices(folder) if arguments.resume and (folder / "config.json").exists() else None
    return folder, stored


def _train(arguments: argparse.Namespace) -> int:
    folder, stored = _prepare_folder(arguments)
    choices = _choices(arguments, stored)
    experiment = Experiment(choices)
    files = experiment.files()
    if stored is not None:
        _check_files(files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(folder))
        if arguments.overwrite:
            _remove_run(folder)
        manager = FileProgramStateManager(folder / _CHECKPOINTS, config=dataclasses.asdict(choices))
        executor = stack.enter_context(_workers(arguments.workers))
        process = experiment.training_process(executor)
        saved, start = manager.load_latest(process.initialize())
        logs = [folder / name for name in _LOGS]
        if saved is not None:
            missing = [path.name for path in logs if not path.exists()]
            if missing:
                raise CommandError(
                    f"--out '{folder}' has lost {', '.join(missing)}: its rounds cannot be gone on with."
                )
            if start == choices.rounds and (folder / "weights.npz").exists():
                print(f"done already: {choices.rounds} rounds in {folder}")
                return 0
        if not (folder / "config.json").exists():
            write_text(folder / "config.json", json.dumps(_config(choices, files), indent=2) + "\n", durable=True)
        loggers: list[Any] = [
            CSVLogger(logs[0], lambda name: not _is_apart(name)),
            JSONLinesLogger(logs[1], lambda name: not _is_apart(name)),
            CSVLogger(logs[2], is_timing),
        ]
        if arguments.tensorboard:
            loggers.append(stack.enter_context(_tensorboard(folder)))
        if arguments.resume and saved is None:  # killed before the first checkpoint, or all of them are damaged
            for logger in loggers:
                logger.resume(-1)
        reached = _Reached(start)
        interrupted = stack.enter_context(_interrupts())
        state = run_training_process(
            process,
            experiment.cohort,
            choices.rounds,
            _evaluation_fn(experiment),
            lambda _: experiment.evaluation_cohort,
            choices.evaluate_every,
            manager,
            choices.checkpoint_every,
            [*loggers, ConsoleLogger(choices.rounds), reached],
            reshuffle=True,
            stop_fn=lambda: bool(interrupted),
        )
        if reached.round_num < choices.rounds:
            again = f'fedsim-np train --out "{folder}" --resume'
            print(f"stopped after round {reached.round_num} of {choices.rounds}; to go on: {again}")
            return _INTERRUPTED
        save_weights(folder / "weights.npz", process.get_model_weights(state), SoftmaxRegression.weight_names)
    print(f"done: {choices.rounds} rounds in {folder}")
    return 0


class _Reached:
    """A logger that remembers the last round."""

    def __init__(self, round_num: int) -> None:
        self.round_num = round_num

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        self.round_num = round_num


def _config(choices: Choices, files: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored with a run to repeat it."""
    return {
        "command": "train",
        "choices": dataclasses.asdict(choices),
        "data": files,
        "versions": versions("numpy", "h5py"),
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that trains into a folder, until it ends, in whatever way."""
    try:
        import sqlite3  # whose locks are the same on all systems
    except ImportError:  # a Python built without it
        yield
        return
    (folder / _CHECKPOINTS).mkdir(exist_ok=True)
    connection = sqlite3.connect(folder / _CHECKPOINTS / ".lock", timeout=0.0, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise CommandError(f"another process trains into '{folder}' ({error}).") from error
        for place, names in ((folder, _FILES), (folder / _CHECKPOINTS, ("program_state_*",))):
            for name in names:
                for left in place.glob(f".{name}.*.tmp"):  # of a process that was killed
                    left.unlink(missing_ok=True)
        yield
    finally:
        connection.close()


def _remove_run(folder: Path) -> None:
    """Remove a run's own files and no other.

    The model goes first and the choices last: what an interrupt leaves is never taken for another run.
    """
    (folder / "weights.npz").unlink(missing_ok=True)
    for path in (folder / _CHECKPOINTS).glob("program_state_*"):
        path.unlink()
    for path in (folder / _TENSORBOARD).glob("*/events.out.tfevents.*"):
        path.unlink()
    for name in (*_LOGS, "config.json"):
        (folder / name).unlink(missing_ok=True)


def _tensorboard(folder: Path) -> TensorBoardLogger:
    try:
        return TensorBoardLogger(folder / _TENSORBOARD)
    except ImportError as error:
        raise CommandError(str(error)) from error


def _is_apart(name: str) -> bool:
    """Return whether a metric has no place in files that are reproducible, or is there already."""
    return is_timing(name) or name == "round_number"


def _check_files(found: dict[str, Any], folder: Path) -> None:
    """Raise a `DataError` if the data are not those that a run began with."""
    path = folder / "config.json"
    there = read_choices(str(path)).get("data")
    if not isinstance(there, dict) or not all(isinstance(of, dict) for of in there.values()):
        raise data_error("'data' must say which files a run began with", type(there).__name__, path=path)
    shas = [{split: of.get("sha256") for split, of in data.items()} for data in (found, there)]
    if shas[0] != shas[1]:
        raise data_error("the data must be those that the run began with", "others", path=path)


def _evaluation_fn(experiment: Experiment) -> Any:
    process = experiment.evaluation_process()

    def evaluate(state: Any, data: Any) -> Any:
        weights = state.global_model_weights
        evaluation_state = process.set_model_weights(process.initialize(), weights)
        return process.next(evaluation_state, data).metrics["client_work"]["eval"][_LEAF]

    return evaluate


@contextlib.contextmanager
def _workers(count: int | None) -> Iterator[Executor | str | None]:
    if count is None or count == 1:
        yield "serial" if count == 1 else None
        return
    with ThreadPoolExecutor(count) as executor:
        yield executor


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Have the first Ctrl-C end the run after its round, and the second at once; give the list of those that came."""
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        print("interrupted: the run ends after this round; again to end it at once", flush=True)

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread
        yield came
        return
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def _evaluate(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder)
    experiment = Experiment(Choices(**_stored_choices(folder)))
    _check_files(experiment.files(), folder)
    weights = load_weights(folder / "weights.npz")
    process = experiment.evaluation_process()
    state = process.set_model_weights(process.initialize(), weights)
    metrics = process.next(state, experiment.evaluation_cohort).metrics["client_work"]["eval"][_LEAF]
    print(json.dumps({"clients": len(experiment.evaluation_cohort), **metrics}))
    return 0
