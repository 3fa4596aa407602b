"""``fedsim-np train`` and ``fedsim-np evaluate``: rounds, over hours, without losing any."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO, cast

from fedsim_np import program
from fedsim_np.commands.arguments import add_examples, add_silence, aside, is_silent, positive, telling
from fedsim_np.commands.progress import MovingLine
from fedsim_np.commands.remarks import remark_on_loss
from fedsim_np.commands.signals import INTERRUPTED, interrupts
from fedsim_np.commands.train_choices import add_choices, chosen, command_to_resume
from fedsim_np.errors import CommandError
from fedsim_np.files import as_json
from fedsim_np.learning.models import load_weights
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.folder import FILES, check_files, check_folder, read_stored
from fedsim_np.runs.stored import CHECKPOINTS, LOGS, TENSORBOARD, WEIGHTS, read_run
from fedsim_np.runs.training import train
from fedsim_np.tables import Table, cell_of

_EXAMPLES = """\
  fedsim-np evaluate run
      the metrics of the model in the folder run
  fedsim-np evaluate run --per-client > clients.csv
      a row for each client, and for its train and its test examples"""


def add_parser(commands: Any) -> None:
    """Add both commands to a parser's subcommands."""
    train = commands.add_parser(
        "train",
        help="train for many rounds, with checkpoints",
        description="Train, evaluate and keep what is needed to go on: a run that is killed or interrupted at any "
        "moment is resumed by the same command with --resume, and ends with the same bytes as one that was not.",
    )
    add_choices(train)
    train.add_argument(
        "--workers", metavar="N", type=positive, help="How many threads compute; they change no bit of the result."
    )
    train.add_argument(
        "--profile", action="store_true", help="Say in the end where the time went: reading, orders, training, ..."
    )
    train.add_argument(
        "--tensorboard", action="store_true", help=f"Write event files for TensorBoard too, in DIR/{TENSORBOARD}."
    )
    train.add_argument(
        "--out", metavar="DIR", required=True, help=f"The folder for {', '.join(FILES)} and {CHECKPOINTS}."
    )
    add_silence(train, "Print a line a round on a terminal, too.")
    how = train.add_mutually_exclusive_group()
    how.add_argument(
        "--resume",
        action="store_true",
        help="Go on with the run in DIR, if there is one; with --rounds MORE to more rounds.",
    )
    how.add_argument("--overwrite", action="store_true", help="Remove the run in DIR first.")
    train.set_defaults(run=_train)
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate the model of a run",
        description="Print the metrics of a run's model on its clients' test examples, as JSON.",
    )
    evaluate.add_argument("folder", metavar="DIR", help="The folder of fedsim-np train --out.")
    evaluate.add_argument(
        "--per-client",
        action="store_true",
        help="Print those of each client, on its train and its test examples, as CSV.",
    )
    add_examples(evaluate, _EXAMPLES)
    evaluate.set_defaults(run=_evaluate)


def _train(arguments: argparse.Namespace) -> int:
    folder, stored = check_folder(arguments.out, arguments.resume, arguments.overwrite)
    config = chosen(arguments, stored)
    silent = is_silent(arguments)
    is_moving = not silent and not arguments.verbose and sys.stdout is not None and sys.stdout.isatty()
    moving = MovingLine(sys.stdout) if is_moving else None
    console = [] if silent else [program.ConsoleLogger(config.rounds, cast(TextIO | None, moving))]
    try:
        with _workers(arguments.workers) as executor:
            trained = train(
                config,
                folder,
                resume=arguments.resume,
                overwrite=arguments.overwrite,
                executor=executor,
                tensorboard=arguments.tensorboard,
                loggers=console,
                stopping=interrupts(aside(arguments)),
                profiling=arguments.profile,
            )
    finally:
        if moving is not None:
            moving.end()
    if trained.profile is not None:
        print(trained.profile, file=aside(arguments))
    if not trained.is_whole:
        again = f"stopped after round {trained.reached} of {config.rounds}; to go on: {command_to_resume(arguments)}"
        print(again, file=aside(arguments))
        return INTERRUPTED
    if arguments.json:
        print(as_json({"folder": str(folder), "rounds": config.rounds, **read_run(folder).evaluation}))
    tell = telling(arguments)
    if not trained.is_new:
        tell(f"done already: {config.rounds} rounds in {folder}")
        return 0
    remark_on_loss(folder / LOGS[0], trained.experiment)
    if trained.privacy is not None:
        tell("promised: epsilon {epsilon:.4f} ({meaning})".format(**trained.privacy.after(config.rounds)))
    tell(f"done: {config.rounds} rounds in {folder}")
    return 0


def _workers(count: int | None) -> contextlib.AbstractContextManager[Executor | str | None]:
    if count is None or count == 1:
        return contextlib.nullcontext(None if count is None else "serial")
    return ThreadPoolExecutor(count)


def _evaluate(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder)
    stored = read_stored(folder)
    experiment = Experiment(RunConfig(**stored["choices"]))
    check_files(experiment.files(), stored)
    if not os.path.lexists(folder / WEIGHTS):
        rounds = experiment.config.rounds
        raise CommandError(f"'{folder}' must be a finished run of {rounds} rounds: it has no {WEIGHTS} (see --resume).")
    weights = load_weights(folder / WEIGHTS, experiment.model_fn())
    if arguments.per_client:
        table = experiment.evaluate_clients(weights)
        print(Table(table, client_id=[*map(cell_of, table["client_id"])]).text(), end="")
        return 0
    metrics = experiment.evaluate(weights)
    print(as_json({"clients": len(experiment.evaluation_cohort), **metrics}))
    return 0
