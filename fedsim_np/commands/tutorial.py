"""``fedsim-np tutorial``: the tutorial as one command."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np import published, tutorial
from fedsim_np._version import versions
from fedsim_np.commands.arguments import positive
from fedsim_np.datasets import HDF5ClientData, emnist
from fedsim_np.datasets.sample import sample_paths
from fedsim_np.errors import CommandError, data_error
from fedsim_np.files import as_json, check_own, folder_of, sha256, write_text
from fedsim_np.learning.metrics import finalize
from fedsim_np.learning.models import SoftmaxRegression, save_weights
from fedsim_np.report import save_pictures, write_report
from fedsim_np.report.pictures import clear_pictures
from fedsim_np.runs.stored import CONFIG, FIGURES, PAGE, WEIGHTS, check_run_folder
from fedsim_np.tables import cell_of

OUTPUT_FILES = (CONFIG, "metrics.csv", "clients.csv", "timings.csv", "evaluation.json", WEIGHTS, PAGE)


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "tutorial",
        help="the tutorial 'Federated Learning for Image Classification' as one command",
        description="Train softmax regression on the first clients by federated averaging, then evaluate it on their "
        "train and test examples: the tutorial, as one command. Without files it uses the sample of simulated "
        "handwriting that comes with the package.",
    )
    command.add_argument("--train", metavar="FILE", help="HDF5 file with the clients' train examples")
    command.add_argument("--test", metavar="FILE", help="HDF5 file with the same clients' test examples")
    command.add_argument(
        "--emnist", action="store_true", help="the real files, downloaded if need be (see fedsim-np data download)"
    )
    command.add_argument("--clients", metavar="N", type=positive, default=10, help="clients a round (default: 10)")
    command.add_argument("--rounds", metavar="N", type=positive, default=10, help="rounds (default: 10)")
    command.add_argument("--out", metavar="DIR", help=f"folder for {', '.join(OUTPUT_FILES)} and figures")
    drawn = command.add_mutually_exclusive_group()
    drawn.add_argument("--svg", action="store_true", help="the figures in DIR as SVG too")
    drawn.add_argument("--no-figures", action="store_true", help="none, since drawing takes longer than training")
    command.add_argument("--overwrite", action="store_true", help="replace a run that is already in DIR")
    command.add_argument("--verbose", action="store_true", help="print every round's metrics as the tutorial does")
    command.set_defaults(run=run)


def _prepare_folder(name: str | None, overwrite: bool) -> Path | None:
    """Make the folder for a run, or refuse one that has a run already."""
    if name is None:
        return None
    folder = folder_of("--out", name)
    figures = folder / FIGURES
    if figures.is_file():
        raise CommandError(f"--out must have a folder for figures. Got the file '{figures}'.")
    for file in OUTPUT_FILES:
        if (folder / file).is_dir():
            rule = "--out must hold files alone by the names of a run's"
            raise CommandError(f"{rule}. Got the folder '{folder / file}'.")
    check_run_folder(folder)
    there = [file for file in OUTPUT_FILES if (folder / file).exists()]
    if figures.is_dir() and any(figures.iterdir()):
        there.append(FIGURES)
    if there and not overwrite:
        raise CommandError(f"--out '{name}' already holds a run ({', '.join(there)}): use --overwrite to replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # or an OSError that names the folder
        pass
    return folder


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    if (arguments.train is None) != (arguments.test is None):
        raise CommandError("--train and --test go together: give both, or neither for the sample.")
    if arguments.svg and arguments.out is None:
        raise CommandError("--svg is about the figures in --out DIR: give both.")
    if arguments.emnist and arguments.train is not None:
        raise CommandError("--emnist stands for files: give it, or --train and --test.")
    if arguments.train is None:
        arguments.train, arguments.test = map(str, emnist.download() if arguments.emnist else sample_paths())
    with HDF5ClientData(arguments.train, emnist.DIGITS) as train, HDF5ClientData(arguments.test, emnist.DIGITS) as test:
        train.create_dataset_for_client(train.client_ids[0])  # or an error, before a folder is made
        if len(train.client_ids) < arguments.clients:
            raise data_error(f"there must be at least {arguments.clients} train clients", len(train.client_ids))
        folder = _prepare_folder(arguments.out, arguments.overwrite)
        _print_facts(arguments, train, test)
        print(tutorial.build_training_process().initialize.type_signature.formatted_representation(), flush=True)
        if not arguments.verbose:
            print(f"{'round':>5}  {'loss':>9}  {'accuracy':>8}  {'examples':>8}  {'seconds':>7}", flush=True)
        tell = functools.partial(_print_round, verbose=arguments.verbose)
        result = tutorial.run(train, test, arguments.clients, arguments.rounds, on_round=tell)
        for split, metrics in result.evaluation.items():
            if arguments.verbose:
                print(f"evaluation on {split}, metrics={metrics}")
                continue
            loss, accuracy, examples = (metrics[n] for n in ("loss", "sparse_categorical_accuracy", "num_examples"))
            print(f"evaluation on {split:5}  loss {loss:.6f}  accuracy {accuracy:.4f}  examples {examples}")
        if folder is not None:
            # Old figures beside new numbers would tell of no run at all.
            (folder / PAGE).unlink(missing_ok=True)
            clear_pictures(folder)
            _write_run(folder, _config(arguments, train, test), result)
            _draw(folder, arguments, train, test, result)
            print(f"written to {folder}: {', '.join(OUTPUT_FILES)}, figures")
        real = published.is_published("train", arguments.train) and published.is_published("test", arguments.test)
        return _compare_with_published(arguments, train, test, result) if real else 0


def _print_facts(arguments: argparse.Namespace, train: HDF5ClientData, test: HDF5ClientData) -> None:
    print(f"train: {len(train.client_ids)} clients in {arguments.train}")
    print(f"test:  {len(test.client_ids)} clients in {arguments.test}")
    fields = train.element_type_structure.items()
    structure = ", ".join(f"{name} {spec.dtype.name}{list(spec.shape)}" for name, spec in fields)
    print(f"an example: {structure}")
    cohort = [train.create_dataset_for_client(client_id) for client_id in train.client_ids[: arguments.clients]]
    sizes = [dataset.num_examples for dataset in cohort]
    labels = [str(label) for label in cohort[0].to_arrays()["label"]]
    shown = " ".join(labels[:10]) + (" ..." if len(labels) > 10 else "")
    print(f"client {cohort[0].client_id}: {sizes[0]} examples, labels {shown}")
    empty = f", {sizes.count(0)} of them without any" if 0 in sizes else ""
    print(
        f"a round: {len(cohort)} clients with {sum(sizes)} examples{empty}; "
        f"{tutorial.NUM_EPOCHS} epochs in batches of {tutorial.BATCH_SIZE}"
    )


def _print_round(this: tutorial.Round, verbose: bool) -> None:
    if verbose:
        print(f"round {this.number:2d}, metrics={this.metrics}", flush=True)
        return
    train = this.metrics["client_work"]["train"]
    accuracy, examples = train["sparse_categorical_accuracy"], train["num_examples"]
    left_out = sum(count for status, count in this.status.items() if status not in ("ok", "empty"))
    note = f"  {left_out} clients left out: their updates are not finite" if left_out else ""
    row = f"{this.number:5d}  {train['loss']:9.6f}  {accuracy:8.4f}  {examples:8d}  {this.seconds:7.3f}"
    print(row + note, flush=True)


def _config(arguments: argparse.Namespace, train: HDF5ClientData, test: HDF5ClientData) -> dict[str, Any]:
    """Return what it takes to repeat a run."""
    files = {split: getattr(arguments, split) for split in ("train", "test")}
    return {
        "command": "tutorial",
        "command_line": _command_line(arguments),
        "data": {
            split: {"file": files[split], "sha256": sha256(files[split]), "clients": len(data.client_ids)}
            for split, data in (("train", train), ("test", test))
        },
        "client_ids": train.client_ids[: arguments.clients],
        "clients": arguments.clients,
        "rounds": arguments.rounds,
        "epochs": tutorial.NUM_EPOCHS,
        "batch_size": tutorial.BATCH_SIZE,
        "shuffle_buffer": tutorial.SHUFFLE_BUFFER,
        "shuffle_seed": tutorial.SHUFFLE_SEED,
        "algorithm": "build_weighted_fed_avg",
        "engine": tutorial.build_training_process().engine,
        "model": "SoftmaxRegression(784, 10, loss='keras')",
        "client_optimizer": {"name": "sgdm", "learning_rate": tutorial.CLIENT_LEARNING_RATE},
        "server_optimizer": {"name": "sgdm", "learning_rate": tutorial.SERVER_LEARNING_RATE},
        "versions": versions("numpy", "h5py", "matplotlib"),
    }


def _command_line(arguments: argparse.Namespace) -> str:
    """Return the command that makes the run again, without folders of this machine."""
    words = ["fedsim-np", "tutorial", "--clients", str(arguments.clients), "--rounds", str(arguments.rounds)]
    if arguments.emnist:
        words.append("--emnist")
    elif tuple(map(Path, (arguments.train, arguments.test))) != sample_paths():
        words += ["--train", Path(arguments.train).name, "--test", Path(arguments.test).name]
    return shlex.join(words)


def _write_run(folder: Path, config: Mapping[str, Any], result: tutorial.Result) -> None:
    """Write a run: what is reproducible, and apart from it the seconds."""
    rounds = result.history["round_num"]
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    write_text(folder / "metrics.csv", _csv(result.history))
    write_text(folder / "clients.csv", _csv(_clients(result)))
    write_text(folder / "timings.csv", _csv({"round_num": rounds, "seconds": result.seconds}))
    write_text(folder / "evaluation.json", as_json(result.evaluation, indent=2) + "\n")
    check_own(folder / WEIGHTS)
    save_weights(folder / WEIGHTS, result.weights, SoftmaxRegression.weight_names)


def _draw(
    folder: Path, arguments: argparse.Namespace, train: HDF5ClientData, test: HDF5ClientData, result: tutorial.Result
) -> None:
    """Draw a run's figures and make its report."""
    if not arguments.no_figures:
        print("drawing the figures", flush=True)
        # Here, and not at the top: matplotlib takes longer to import than a run without figures.
        from fedsim_np.report.tutorial import tutorial_pictures

        pictures = tutorial_pictures(train, test, train.client_ids[: arguments.clients], result)
        save_pictures(folder, pictures, svg=arguments.svg)
    write_report(folder, draw=False)


def _clients(result: tutorial.Result) -> dict[str, list[Any]]:
    """Return a row per client and round, as columns."""
    columns: dict[str, list[Any]] = {"round_num": []}
    finalizers = SoftmaxRegression().metric_finalizers()
    for round_num, table in zip(result.history["round_num"], result.clients, strict=True):
        columns["round_num"] += [round_num] * len(table["client_id"])
        columns.setdefault("client_id", []).extend(map(cell_of, table["client_id"]))
        for name in ("num_examples", "weight", "update_norm", "bytes_up", "bytes_down", "status"):
            columns.setdefault(name, []).extend(np.asarray(table[name]).tolist())
        metrics = [finalize(finalizers, sums) for sums in table["metrics"]]
        for name in ("loss", "sparse_categorical_accuracy"):
            columns.setdefault(name, []).extend(of[name] for of in metrics)
    return columns


def _csv(columns: Mapping[str, Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _compare_with_published(
    arguments: argparse.Namespace, train: HDF5ClientData, test: HDF5ClientData, keras: tutorial.Result
) -> int:
    """Print figure by figure whether the published tutorial's numbers came out; status 1 if one did not."""
    if (arguments.clients, arguments.rounds) != (published.NUM_CLIENTS, published.NUM_ROUNDS):
        print("these are the real EMNIST files; the published figures are for --clients 10 --rounds 10")
        return 0
    custom = tutorial.run(train, test, loss="tutorial")
    figures = list(published.compare(train, keras, custom))
    for figure in figures:
        verdict = "agrees" if figure.agrees else "DIFFERS"
        source = "published" if figure.on_page else "published of the other model"
        print(f"{verdict:7}  {figure.name}: {source} {figure.published}, here {figure.here}")
    on_page, others = ([f.agrees for f in figures if f.on_page is wanted] for wanted in (True, False))
    print(
        f"{sum(on_page)} of the tutorial's {len(on_page)} published figures came out, and {sum(others)} of "
        f"{len(others)} that it prints of one of its two models and that must be the same of the other"
    )
    return 0 if all(on_page) and all(others) else 1
