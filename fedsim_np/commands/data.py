"""``fedsim-np data``: look at client data, and make some."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fedsim_np.commands.arguments import CommandError, positive, seed
from fedsim_np.datasets import HDF5ClientData, SyntheticClientData, describe, synthetic, write_hdf5
from fedsim_np.datasets.handwriting import SPLITS
from fedsim_np.datasets.sample import sample_paths


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser("data", allow_abbrev=False, help="look at client data, and make some")
    actions = command.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    info = actions.add_parser(
        "info",
        allow_abbrev=False,
        help="how large, how uneven, how non-i.i.d. client data are",
        description="Print the counts, sizes, label distribution and duplicates of a file, of simulated writers, or, "
        "without either, of the sample that comes with the package.",
    )
    info.add_argument("data", metavar="FILE|synthetic", nargs="?", help="an HDF5 file, or the word synthetic")
    info.set_defaults(run=_info)
    synthesize = actions.add_parser(
        "synthesize",
        allow_abbrev=False,
        help="write files of simulated handwriting",
        description="Write PREFIX_train.h5 and PREFIX_test.h5: simulated writers in the layout of TFF's EMNIST files.",
    )
    synthesize.add_argument("--out", metavar="PREFIX", required=True, help="write PREFIX_train.h5 and PREFIX_test.h5")
    synthesize.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    synthesize.set_defaults(run=_synthesize)
    for action, clients in ((info, 100), (synthesize, synthetic.EMNIST_CLIENTS)):
        action.add_argument(
            "--clients", metavar="N", type=positive, default=clients, help=f"simulated writers (default: {clients})"
        )
        action.add_argument("--seed", metavar="S", type=seed, default=0, help="of the population (default: 0)")
        action.add_argument(
            "--raw", action="store_true", help="leave size and place to the writer, instead of MNIST's normalisation"
        )


def _writers(arguments: argparse.Namespace, split: str) -> SyntheticClientData:
    return SyntheticClientData(arguments.clients, split, arguments.seed, normalize=not arguments.raw)


def _info(arguments: argparse.Namespace) -> int:
    if arguments.data == "synthetic":
        for split in SPLITS:
            print(f"{split} of {_writers(arguments, split)}")
            print(describe(_writers(arguments, split)), flush=True)
        return 0
    for path in sample_paths() if arguments.data is None else [arguments.data]:
        with HDF5ClientData(path) as client_data:
            print(path)
            for name, spec in client_data.element_type_structure.items():
                print(f"{'field ' + name:18}  {spec.dtype.name} {list(spec.shape)}")
            print(describe(client_data), flush=True)
    return 0


def _synthesize(arguments: argparse.Namespace) -> int:
    paths = {split: Path(f"{arguments.out}_{split}.h5") for split in SPLITS}
    for path in paths.values():
        if path.is_dir():
            raise CommandError(f"--out must name files. Got the folder '{path}'.")
        if path.exists() and not arguments.overwrite:
            raise CommandError(f"'{path}' is there already: use --overwrite to replace it.")
        if not path.parent.is_dir():
            raise CommandError(f"--out must be in a folder that exists. Got '{arguments.out}'.")
    for split, path in paths.items():
        write_hdf5(path, _writers(arguments, split))
        print(f"written {path}: {arguments.clients} writers, {os.path.getsize(path) / 1e6:.2f} MB", flush=True)
    return 0
