"""``fedsim-np data``: look at client data, and make some."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from typing import Any

from fedsim_np.commands import convert
from fedsim_np.commands.arguments import above_zero, add_examples, add_output, positive, print_help, seed, writers
from fedsim_np.commands.outputs import output_paths, write_splits
from fedsim_np.commands.progress import Counter, counted
from fedsim_np.datasets import SyntheticClientData, check_hdf5, describe, emnist, synthetic
from fedsim_np.datasets.handwriting import SPLITS
from fedsim_np.datasets.named import NAMED_DATA
from fedsim_np.errors import DataError

_EXAMPLES = {
    "data": """\
  fedsim-np data info emnist
      the real EMNIST, downloaded if need be
  fedsim-np data convert patients.csv --client hospital --label outcome --out mine
      a table of your own; then: fedsim-np train --data mine --out run""",
    "info": """\
  fedsim-np data info
      the sample that comes with the package
  fedsim-np data info mine_train.h5
      a file of your own""",
    "check": """\
  fedsim-np data check theirs_train.h5 theirs_test.h5 --timeout 60
      whether the files of somebody else can be read""",
    "download": """\
  fedsim-np data download
      the digits
  fedsim-np data download --all --cache-dir data
      letters, too, in a folder of your own""",
    "convert": """\
  fedsim-np data convert patients.csv --client hospital --label outcome --out mine
      a client for each hospital; then: fedsim-np train --data mine --out run
  fedsim-np data convert ventas.csv --client tienda --label tipo --delimiter ";" --decimal , --out shops
      a table as spreadsheets write it in much of the world""",
    "partition": """\
  fedsim-np data partition emnist --scheme dirichlet --alpha 0.1 --clients 100 --out uneven
      a hundred clients, each of whom has few of the labels; a small alpha is uneven
  fedsim-np data partition patients.csv --label outcome --scheme iid --clients 10 --out even
      ten clients who are alike, of a table without clients""",
    "synthesize": """\
  fedsim-np data synthesize --clients 100 --seed 1 --out writers
      writers_train.h5 and writers_test.h5; then: fedsim-np train --data writers --out run""",
}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "data",
        help="look at client data, and make some",
        description="Look at client data, check and download files of them, and make some of your own.",
    )
    add_examples(command, _EXAMPLES["data"])
    command.set_defaults(run=functools.partial(print_help, command))
    actions = command.add_subparsers(title="actions", dest="action", metavar="ACTION")
    info = actions.add_parser(
        "info",
        help="how large, how uneven, how non-i.i.d. client data are",
        description="Print the counts, sizes, label distribution, duplicates and range of values of a file or of data "
        "that have a name; without either, of the sample that comes with the package.",
    )
    info.add_argument(
        "data",
        metavar="FILE|NAME",
        nargs="?",
        default="sample",
        help=f"An HDF5 file, {', '.join(NAMED_DATA)}, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5.",
    )
    info.add_argument("--label", metavar="NAME", help="The field of labels (default: label, or y if there is none).")
    info.set_defaults(run=_info)
    check = actions.add_parser(
        "check",
        help="read a stranger's files, each in a process of its own",
        description="Read HDF5 files of clients whole, each in a process of its own with limits of time and memory, "
        "and say what became of it. A damaged file can crash HDF5, or have it run without end: do this before "
        "anything else with a stranger's file. Status 2 if one of them is not fine.",
    )
    check.add_argument("files", metavar="FILE", nargs="+", help="An HDF5 file.")
    check.add_argument(
        "--timeout", metavar="S", type=above_zero, default=300.0, help="The seconds that each may take (default: 300)."
    )
    check.add_argument(
        "--memory",
        metavar="MB",
        type=positive,
        default=4096,
        help="The memory that each may take, where the system can limit it, as Linux does (default: 4096).",
    )
    check.set_defaults(run=_check)
    download = actions.add_parser(
        "download",
        help="fetch the real federated EMNIST",
        description="Download the federated EMNIST, as TFF published it, into a cache folder; files that are there "
        "already are left as they are. Prints where they are.",
    )
    download.add_argument(
        "--all", action="store_true", help="Fetch digits and letters, 62 classes, instead of digits alone."
    )
    download.add_argument(
        "--cache-dir", metavar="DIR", help="The folder (default: $FEDSIM_NP_CACHE, else the platform's cache folder)."
    )
    download.add_argument(
        "--url", metavar="URL", help="The address of a mirror; the SHA-256 must be the published one all the same."
    )
    download.set_defaults(run=_download)
    convert.add_parsers(actions)
    synthesize = actions.add_parser(
        "synthesize",
        help="write files of simulated handwriting",
        description="Write PREFIX_train.h5 and PREFIX_test.h5: simulated writers in the layout of TFF's EMNIST files.",
    )
    add_output(synthesize)
    synthesize.set_defaults(run=_synthesize)
    for name, action in actions.choices.items():
        add_examples(action, _EXAMPLES[name])
    # Drawing one takes 10 ms, and its images 45 kB of a file.
    limited = writers(10**5, "take twenty minutes, and in files 5 GB")
    for action, clients in ((info, 100), (synthesize, synthetic.EMNIST_CLIENTS)):
        action.add_argument(
            "--clients",
            metavar="N",
            type=limited,
            default=clients,
            help=f"How many writers are simulated (default: {clients}).",
        )
        action.add_argument(
            "--seed", metavar="S", type=seed, default=0, help="The seed of the population (default: 0)."
        )
        action.add_argument(
            "--raw", action="store_true", help="Leave size and place to the writer, instead of MNIST's normalisation."
        )


def _writers(arguments: argparse.Namespace, split: str) -> SyntheticClientData:
    # Each is looked at once: there is nothing to keep.
    return SyntheticClientData(arguments.clients, split, arguments.seed, not arguments.raw, cache_bytes=0)


def _info(arguments: argparse.Namespace) -> int:
    if arguments.data == "synthetic":
        for split in SPLITS:
            print(f"{split} of {_writers(arguments, split)}")
            print(describe(_writers(arguments, split)), flush=True)
        return 0
    for client_data in convert.open_files(arguments.data):
        with client_data:
            print(client_data.path)
            for name, spec in client_data.element_type_structure.items():
                print(f"{'field ' + name:18}  {spec.dtype.name} {list(spec.shape)}")
            label = arguments.label and convert.chosen_label(client_data.element_type_structure, arguments.label)
            print(describe(client_data, label))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    status = 0
    for path in arguments.files:
        try:
            found = check_hdf5(path, timeout=arguments.timeout, memory=arguments.memory * 2**20)
            print(f"{path}: fine, {found.num_clients} clients, {found.num_examples} examples", flush=True)
        except DataError as error:  # the other files are read all the same
            print(f"fedsim-np: error: {error}", file=sys.stderr)
            status = 2
    return status


def _download(arguments: argparse.Namespace) -> int:
    train, test = emnist.download(not arguments.all, arguments.cache_dir, arguments.url)
    for path in (train, test):
        print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB")
    print(f'look at one: fedsim-np data info "{train}"')
    if not arguments.all:
        print(f'the tutorial: fedsim-np tutorial --train "{train}" --test "{test}"')
    return 0


def _synthesize(arguments: argparse.Namespace) -> int:
    paths = output_paths(arguments.out, SPLITS, arguments.overwrite)
    counter = Counter("writers drawn", len(SPLITS) * arguments.clients)
    write_splits(paths, {split: counted(_writers(arguments, split), counter) for split in SPLITS})
    return 0
