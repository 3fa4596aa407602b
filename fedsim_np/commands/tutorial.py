"""``fedsim-np tutorial``: the tutorial as one command."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedsim_np import published, tutorial
from fedsim_np.commands.arguments import add_examples, add_silence, aside, is_silent, positive, telling
from fedsim_np.commands.signals import INTERRUPTED, interrupts
from fedsim_np.datasets import emnist
from fedsim_np.datasets.sample import sample_paths
from fedsim_np.errors import CommandError
from fedsim_np.files import as_json
from fedsim_np.program.training import TRAINING_TIME_KEY
from fedsim_np.report import write_pages
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.folder import FILES, check_folder
from fedsim_np.runs.stored import FIGURES, PAGE, read_run
from fedsim_np.runs.training import train
from fedsim_np.texts import LANGUAGES

_EXAMPLES = """\
  fedsim-np tutorial
      ten rounds of ten writers of the sample; nothing is written
  fedsim-np tutorial --out run
      the same, with its model, its metrics and run/report.html
  fedsim-np tutorial --emnist
      the published tutorial, of the real EMNIST, figure by figure
  fedsim-np train --resume --rounds 50 --out run
      the run that was kept, to more rounds: it is one of train's"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "tutorial",
        help="the tutorial 'Federated Learning for Image Classification' as one command",
        description="Train softmax regression on the first clients by federated averaging, then evaluate it on their "
        "train and test examples: the tutorial, as one command. Without files it uses the sample of simulated "
        "handwriting that comes with the package.",
    )
    command.add_argument("--train", metavar="FILE", help="The HDF5 file with the clients' train examples.")
    command.add_argument("--test", metavar="FILE", help="The HDF5 file with the same clients' test examples.")
    command.add_argument(
        "--emnist", action="store_true", help="Use the real files, downloaded if need be (see fedsim-np data download)."
    )
    command.add_argument(
        "--clients", metavar="N", type=positive, default=10, help="How many clients take part (default: 10)."
    )
    command.add_argument(
        "--rounds", metavar="N", type=positive, default=10, help="How many rounds there are (default: 10)."
    )
    command.add_argument("--out", metavar="DIR", help=f"The folder for {', '.join((*FILES, PAGE))} and {FIGURES}.")
    drawn = command.add_mutually_exclusive_group()
    drawn.add_argument("--svg", action="store_true", help="Store the figures in DIR as SVG too.")
    drawn.add_argument("--no-figures", action="store_true", help="Draw no figures: that takes longer than training.")
    command.add_argument(
        "--lang",
        choices=LANGUAGES,
        default="en",
        help="The language of the report and its figures: English or Spanish (default: en).",
    )
    command.add_argument("--overwrite", action="store_true", help="Replace a run that is already in DIR.")
    add_silence(command, "Print every round's metrics as the tutorial does.")
    add_examples(command, _EXAMPLES)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    if (arguments.train is None) != (arguments.test is None):
        raise CommandError("--train and --test go together: give both, or neither for the sample.")
    if arguments.svg and arguments.out is None:
        raise CommandError("--svg is about the figures in --out DIR: give both.")
    if arguments.lang != "en" and arguments.out is None:
        raise CommandError("--lang is about the report in --out DIR: give both.")
    if arguments.emnist and arguments.train is not None:
        raise CommandError("--emnist stands for files: give it, or --train and --test.")
    if arguments.train is None:
        arguments.train, arguments.test = map(str, emnist.download() if arguments.emnist else sample_paths())
    config = RunConfig(
        data=f"{os.path.abspath(arguments.train)},{os.path.abspath(arguments.test)}",
        clients=arguments.clients,
        rounds=arguments.rounds,
        **tutorial.CHOICES,
    )
    with contextlib.ExitStack() as stack:
        name = arguments.out or stack.enter_context(tempfile.TemporaryDirectory())
        folder = check_folder(name, resume=False, overwrite=arguments.overwrite)[0]
        if (folder / FIGURES).is_dir() and any((folder / FIGURES).iterdir()) and not arguments.overwrite:
            raise CommandError(f"--out '{name}' already holds a run ({FIGURES}): use --overwrite to replace it.")
        experiment = Experiment(config)
        _ = experiment.evaluation_cohort  # or an error
        silent, tell = is_silent(arguments), telling(arguments)
        _tell_facts(arguments, experiment, tell)
        tell(experiment.training_process().initialize.type_signature.formatted_representation())
        trained = train(
            config,
            folder,
            overwrite=arguments.overwrite,
            loggers=[] if silent else [_Rounds(arguments.verbose)],
            stopping=interrupts(aside(arguments)),
            experiment=experiment,
            about={
                "command": "tutorial",
                "command_line": _command_line(arguments),
                "client_ids": experiment.sample(1),
            },
        )
        if not trained.is_whole:
            again = f"; to go on: fedsim-np train --resume --out {name}" if arguments.out else ""
            stopped = f"stopped after round {trained.reached} of {config.rounds}{again}"
            print(stopped, file=aside(arguments))
            return INTERRUPTED
        result = read_run(folder)
        for split, metrics in result.evaluation.items():
            if arguments.verbose:
                tell(f"evaluation on {split}, metrics={metrics}")
                continue
            loss, accuracy, examples = (metrics[n] for n in ("loss", "sparse_categorical_accuracy", "num_examples"))
            tell(f"evaluation on {split:5}  loss {loss:.6f}  accuracy {accuracy:.4f}  examples {examples}")
        if arguments.out:
            how = {"figures": not arguments.no_figures, "svg": arguments.svg, "lang": arguments.lang}
            write_pages(folder, experiment, **how, tell=tell)
            tell(f"written to {folder}: {', '.join((*FILES, PAGE, *[FIGURES] * (not arguments.no_figures)))}")
        if arguments.json:
            where = str(folder) if arguments.out else None
            print(as_json({"folder": where, "rounds": config.rounds, **result.evaluation}))
        real = published.is_published("train", arguments.train) and published.is_published("test", arguments.test)
        keras = tutorial.Result(result.history, result.seconds, result.evaluation, result.weights, [], "keras")
        return _compare_with_published(arguments, experiment, keras, tell) if real else 0


def _command_line(arguments: argparse.Namespace) -> str:
    """Return the command that makes the run again, without folders of this machine."""
    words = ["fedsim-np", "tutorial", "--clients", str(arguments.clients), "--rounds", str(arguments.rounds)]
    if arguments.emnist:
        words.append("--emnist")
    elif tuple(map(Path, (arguments.train, arguments.test))) != sample_paths():
        words += ["--train", Path(arguments.train).name, "--test", Path(arguments.test).name]
    if arguments.lang != "en":
        words += ["--lang", arguments.lang]
    return shlex.join(words)


class _Rounds:
    """Prints a line a round, as a table or as the tutorial does."""

    def __init__(self, verbose: bool) -> None:
        self._verbose, self._status = verbose, Counter[str]()

    def release_clients(self, clients: Mapping[str, Any], round_num: int) -> None:
        """Count who was left out."""
        self._status = Counter(clients["status"])

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Print a round."""
        told = OrderedDict((name, value) for name, value in metrics.items() if isinstance(value, Mapping | tuple))
        if self._verbose:
            told.pop("communication")  # which TFF does not tell
            print(f"round {round_num:2d}, metrics={told}", flush=True)
            return
        if round_num == 1:
            print(f"{'round':>5}  {'loss':>9}  {'accuracy':>8}  {'examples':>8}  {'seconds':>7}", flush=True)
        of_round, seconds = metrics["client_work"]["train"], metrics[TRAINING_TIME_KEY]
        accuracy, examples = of_round["sparse_categorical_accuracy"], of_round["num_examples"]
        left_out = sum(count for status, count in self._status.items() if status not in ("ok", "empty"))
        note = f"  {left_out} clients left out: their updates are not finite" if left_out else ""
        print(
            f"{round_num:5d}  {of_round['loss']:9.6f}  {accuracy:8.4f}  {examples:8d}  {seconds:7.3f}{note}", flush=True
        )


def _tell_facts(arguments: argparse.Namespace, experiment: Experiment, tell: Callable[[str], object]) -> None:
    train, test = experiment.train, experiment.test
    tell(f"train: {len(train.client_ids)} clients in {arguments.train}")
    tell(f"test:  {len(test.client_ids)} clients in {arguments.test}")
    fields = train.element_type_structure.items()
    structure = ", ".join(f"{name} {spec.dtype.name}{list(spec.shape)}" for name, spec in fields)
    tell(f"an example: {structure}")
    cohort = [train.create_dataset_for_client(client_id) for client_id in train.client_ids[: arguments.clients]]
    sizes = [dataset.num_examples for dataset in cohort]
    labels = [str(label) for label in cohort[0].to_arrays()["label"]]
    shown = " ".join(labels[:10]) + (" ..." if len(labels) > 10 else "")
    tell(f"client {cohort[0].client_id}: {sizes[0]} examples, labels {shown}")
    empty = f", {sizes.count(0)} of them without any" if 0 in sizes else ""
    tell(
        f"a round: {len(cohort)} clients with {sum(sizes)} examples{empty}; "
        f"{tutorial.NUM_EPOCHS} epochs in batches of {tutorial.BATCH_SIZE}"
    )


def _compare_with_published(
    arguments: argparse.Namespace, experiment: Experiment, keras: tutorial.Result, tell: Callable[[str], object]
) -> int:
    """Tell figure by figure whether the published tutorial's numbers came out; status 1 if one did not.

    A silent command says on standard error which did not.
    """
    if (arguments.clients, arguments.rounds) != (published.NUM_CLIENTS, published.NUM_ROUNDS):
        tell("these are the real EMNIST files; the published figures are for --clients 10 --rounds 10")
        return 0
    custom = tutorial.run(experiment.train, experiment.test, loss="tutorial")
    figures = list(published.compare(experiment.train, keras, custom))
    for figure in figures:
        verdict = "agrees" if figure.agrees else "DIFFERS"
        source = "published" if figure.on_page else "published of the other model"
        line = f"{verdict:7}  {figure.name}: {source} {figure.published}, here {figure.here}"
        tell(line)
        if is_silent(arguments) and not figure.agrees:
            print(line, file=sys.stderr)
    on_page, others = ([f.agrees for f in figures if f.on_page is wanted] for wanted in (True, False))
    tell(
        f"{sum(on_page)} of the tutorial's {len(on_page)} published figures came out, and {sum(others)} of "
        f"{len(others)} that it prints of one of its two models and that must be the same of the other"
    )
    return 0 if all(on_page) and all(others) else 1
