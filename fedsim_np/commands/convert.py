"""``fedsim-np data convert`` and ``data partition``: one's own data into HDF5 files of clients."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.commands.arguments import above_zero, add_output, fraction, positive, seed, writers
from fedsim_np.commands.outputs import output_paths, write_splits
from fedsim_np.datasets import ClientData, HDF5ClientData, partition
from fedsim_np.datasets.handwriting import SPLITS
from fedsim_np.datasets.named import NAMED_DATA, data_paths, open_data, prefix_paths
from fedsim_np.datasets.schema import CHARACTERS, label_field
from fedsim_np.datasets.sources import ElementSpec
from fedsim_np.errors import CommandError, DataError, data_error, did_you_mean, no_such_file
from fedsim_np.files import check_ends

_CSV_FLAGS = "client", "label", "features", "delimiter", "decimal", "label_names"
_POPULATION = 100
_SCHEMES = ("iid", "dirichlet", "shards", "quantity")


def add_parsers(actions: Any) -> None:
    """Add both actions to a parser's subcommands."""
    convert = actions.add_parser(
        "convert",
        help="clients from a CSV file, NumPy arrays or LEAF's JSON into HDF5",
        description="Write PREFIX_train.h5 and PREFIX_test.h5: the clients of a CSV file (FILE.csv, with --client and "
        "--label), of NumPy arrays (FILE.npz, with --client), or of LEAF's JSON (FILE.json, or a folder of these).",
    )
    convert.set_defaults(run=functools.partial(_naming_input, _convert))
    deal = actions.add_parser(
        "partition",
        help="deal examples out to clients that are not i.i.d.",
        description="Write PREFIX_train.h5 and PREFIX_test.h5: the examples of a CSV file, of NumPy arrays (FILE.npz), "
        "of LEAF's JSON or of an HDF5 file of clients (FILE.h5), dealt out to new clients; or all of those, train and "
        f"test, that a name stands for: {', '.join(NAMED_DATA)}, or PREFIX of a pair of HDF5 files.",
    )
    deal.add_argument("--scheme", choices=_SCHEMES, required=True, help="The rule by which examples are dealt out.")
    deal.add_argument("--clients", metavar="N", type=positive, required=True, help="How many clients to make.")
    deal.add_argument("--alpha", metavar="A", type=above_zero, help="The concentration of dirichlet: small is uneven.")
    deal.add_argument("--beta", metavar="B", type=above_zero, help="The concentration of quantity: small is uneven.")
    deal.add_argument(
        "--population",
        metavar="N",
        type=writers(10**4, "take two minutes and 11 GB of memory"),
        help=f"How many writers of synthetic are simulated (default: {_POPULATION}).",
    )
    deal.add_argument("--shards", metavar="S", type=positive, help="How many shards a client gets (default: 2).")
    deal.set_defaults(run=functools.partial(_naming_input, _partition))
    for action in (convert, deal):
        name = "FILE" if action is convert else "FILE|NAME"
        action.add_argument("input", metavar=name, help="Where the examples are.")
        add_output(action)
        action.add_argument(
            "--test-fraction",
            metavar="F",
            type=fraction,
            default=0.1,
            help="The share of each client's examples that are for tests, at least one of two; 0: all of them in "
            "PREFIX_train.h5, and no other file (default: 0.1).",
        )
        action.add_argument("--seed", metavar="S", type=seed, default=0, help="The seed of what is drawn (default: 0).")
        client = "The column (CSV) or array (NumPy) of clients' ids"
        action.add_argument(
            "--client", metavar="NAME", help=client + ("." if action is convert else ", to be left out.")
        )
        action.add_argument("--label", metavar="NAME", help="The column (CSV) or field of labels.")
        action.add_argument(
            "--features", metavar="A,B,...", help="The columns (CSV) of features (default: all that are left)."
        )
        action.add_argument(
            "--delimiter", metavar="C", type=_delimiter, help="What stands between columns (CSV; default: a comma)."
        )
        action.add_argument(
            "--decimal",
            choices=(".", ","),
            metavar="C",
            help="What stands before a fraction, a point or a comma (CSV; default: a point).",
        )
        action.add_argument(
            "--label-names",
            metavar="A,B,...",
            help="All labels in the order of their numbers (CSV; default: those in the file, sorted).",
        )


def _delimiter(text: str) -> str:
    if (len(text) != 1 or text in '\0\r\n"') and text != "\\t":  # which is how one writes a tab in a shell
        raise argparse.ArgumentTypeError(f"must be one character, or \\t for a tab. Got '{text[:30]}'.")
    return "\t" if text == "\\t" else text


def chosen_label(fields: Mapping[str, Any], wanted: str | None) -> str:
    """Return the name of the field of labels: the one that is wanted, or the usual one that is there."""
    if wanted is not None and wanted not in fields:
        found = f"Got '{wanted}'.{did_you_mean(wanted, fields)}"
        raise CommandError(f"--label must be one of the fields {', '.join(fields)}. {found}")
    return wanted or label_field(fields) or "label"


def _naming_input(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run an action; a `DataError` that knows no file gets the one that is read."""
    check_ends(arguments.input)
    try:
        return run(arguments)
    except DataError as error:
        if str(error).startswith("file '"):
            raise
        joint = ", " if str(error).startswith(("client '", "field '")) else ": "
        raise DataError(f"file '{arguments.input}'{joint}{error}") from error


def _convert(arguments: argparse.Namespace) -> int:
    kind = _kind(arguments.input)
    if kind not in ("csv", "npz", "json"):
        instead = " (see fedsim-np data partition)" if kind == "hdf5" or arguments.input in NAMED_DATA else ""
        rule = "FILE must be a .csv, .npz or .json file, or a folder of .json"
        raise CommandError(f"{rule}. Got '{arguments.input}'{instead}.")
    if kind != "json" and arguments.client is None:
        raise CommandError("--client must name the column or array of clients' ids (or see fedsim-np data partition).")
    _refuse_others(arguments, {"csv": _CSV_FLAGS, "npz": ("client", "label"), "json": ()}[kind])
    paths = output_paths(arguments.out, SPLITS, arguments.overwrite, [arguments.input])
    if kind == "json":
        return _write(paths, partition.from_leaf_json(arguments.input), arguments)
    arrays, client = _examples(arguments)
    label = chosen_label(arrays, arguments.label) if kind == "npz" and arguments.label else None
    return _write(paths, partition.from_arrays(arrays, client, label), arguments)


def _partition(arguments: argparse.Namespace) -> int:
    for flag, scheme in (("alpha", "dirichlet"), ("beta", "quantity"), ("shards", "shards")):
        if getattr(arguments, flag) is not None and arguments.scheme != scheme:
            raise CommandError(f"--{flag} belongs to --scheme {scheme}. Got --scheme {arguments.scheme}.")
    if arguments.scheme == "dirichlet" and arguments.alpha is None:
        raise CommandError("--scheme dirichlet needs --alpha: 0.1 is uneven, 100 is nearly i.i.d.")
    if arguments.scheme == "quantity" and arguments.beta is None:
        raise CommandError("--scheme quantity needs --beta: 0.5 is uneven, 100 is nearly even.")
    kind = _kind(arguments.input)
    _refuse_others(arguments, {"csv": _CSV_FLAGS, "npz": ("client", "label")}.get(kind, ("label",)))
    if arguments.population is not None and arguments.input != "synthetic":
        raise CommandError(f"--population belongs to synthetic. Got '{arguments.input}'.")
    paths = output_paths(arguments.out, SPLITS, arguments.overwrite, _files(arguments.input))
    arrays, _ = _examples(arguments)
    label = chosen_label(arrays, arguments.label if kind != "csv" else None)
    if arguments.scheme in ("dirichlet", "shards") and label not in arrays:
        raise CommandError(f"--label must name the field of labels, one of {', '.join(arrays)}.")
    clients, number = arguments.clients, arguments.seed
    if arguments.scheme == "iid":
        dealt = partition.iid(arrays, clients, number)
    elif arguments.scheme == "dirichlet":
        dealt = partition.dirichlet(arrays, clients, arguments.alpha, number, label)
    elif arguments.scheme == "shards":
        dealt = partition.shards(arrays, clients, arguments.shards or 2, number, label)
    else:
        dealt = partition.quantity_skew(arrays, clients, arguments.beta, number)
    return _write(paths, dealt, arguments)


def _refuse_others(arguments: argparse.Namespace, read: tuple[str, ...]) -> None:
    """Refuse flags that would be ignored with this kind of file, and empty names."""
    for flag in _CSV_FLAGS:
        value = getattr(arguments, flag)
        name = f"--{flag.replace('_', '-')}"
        if value is not None and flag not in read:
            raise CommandError(f"{name} says nothing about such a file. Got {name} with '{arguments.input}'.")
        if value is not None and not all(value.split(",") if flag in ("features", "label_names") else [value]):
            raise CommandError(f"{name} must not be an empty name. Got '{value}'.")


def _kind(name: str) -> str:
    if name in NAMED_DATA:
        return "named"
    suffix = Path(name).suffix.lower()
    if Path(name).is_dir() or suffix == ".json":
        return "json"
    kinds = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
    return kinds.get(suffix) or ("" if os.path.exists(name) else "named")


def _files(name: str) -> list[str]:
    """Return the files that are read where this is given, as far as they are the user's own."""
    return [name] if _kind(name) != "named" else [] if name in NAMED_DATA else list(prefix_paths(name))


def open_files(name: str) -> list[HDF5ClientData]:
    """Return client data of an HDF5 file, or of both that a name other than synthetic stands for."""
    paths = data_paths(name) if _kind(name) == "named" else [name]
    return [HDF5ClientData(path, cache_bytes=0) for path in paths]


def _examples(arguments: argparse.Namespace) -> tuple[Mapping[str, Any], Any]:
    """Return all examples as arrays, and whose they are where a file's column or array of clients is named."""
    kind = _kind(arguments.input)
    if kind == "csv":
        table = partition.read_csv(arguments.input, arguments.label, arguments.client, **_csv_format(arguments))
        _print_labels(table.label_names)
        return table.arrays, table.client
    if kind == "json":
        return partition.pool(partition.from_leaf_json(arguments.input)), None
    if arguments.input == "synthetic":
        return _pooled(open_data("synthetic", arguments.population or _POPULATION, arguments.seed)), None
    if kind in ("hdf5", "named"):
        with contextlib.ExitStack() as stack:
            return _pooled([stack.enter_context(client_data) for client_data in open_files(arguments.input)]), None
    if kind == "npz":
        arrays = _npz(arguments.input)
        if arguments.client not in (None, *arrays):
            found = f"Got '{arguments.client}'.{did_you_mean(arguments.client, arrays)}"
            raise CommandError(f"--client must be one of the arrays {', '.join(arrays)}. {found}")
        return arrays, arrays.pop(arguments.client, None)
    raise CommandError(f"FILE must be a .csv, .npz, .h5 or .json file, or a folder of .json. Got '{arguments.input}'.")


def _pooled(splits: Sequence[ClientData]) -> Mapping[str, Any]:
    """Return the examples of several client data as arrays."""
    pools = [partition.pool(client_data) for client_data in splits]
    specs = [split.element_type_structure for split in splits]
    if any(dict(spec) != dict(specs[0]) for spec in specs):
        raise data_error(f"train and test examples must have one structure, {dict(specs[0])}", dict(specs[-1]))
    return {name: np.concatenate([pool[name] for pool in pools]) for name in pools[0]}


def _npz(path: str) -> dict[str, Any]:
    """Return the arrays of a file of NumPy's, no code of which is run."""
    if not os.path.exists(path):
        raise no_such_file(path)
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file.items())
    except OSError:
        raise
    except Exception as error:  # zip files and their headers are read by four libraries, which raise what they like
        raise data_error("must be a whole .npz file of numbers", error, path=path) from error


def _csv_format(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "features": None if arguments.features is None else arguments.features.split(","),
        "label_names": None if arguments.label_names is None else arguments.label_names.split(","),
        "delimiter": arguments.delimiter or ",",
        "decimal": arguments.decimal or ".",
    }


def _print_labels(names: tuple[str, ...]) -> None:
    shown = [f"{number} {name}" for number, name in enumerate(names[:100])]
    if names:
        print("labels: " + ", ".join(shown) + (f", ... ({len(names)})" if len(names) > len(shown) else ""))


def _is_handwriting(spec: ElementSpec) -> bool:
    return all(spec.get(name) == field.spec for name, field in CHARACTERS.fields.items())


def _write(paths: dict[str, Path], clients: partition.LabelledClientData, arguments: argparse.Namespace) -> int:
    _print_labels(clients.label_names)
    if _is_handwriting(clients.element_type_structure):  # as which it will be read
        for client_id in clients.client_ids:
            for name, values in clients.create_dataset_for_client(client_id).to_arrays().items():
                if name in CHARACTERS.fields:  # fields of other names, such as x and y, may hold any numbers
                    CHARACTERS.check_values(name, values, client_id=client_id)
    if arguments.test_fraction:
        train, test = partition.split_examples(clients, arguments.test_fraction, arguments.seed)
        write_splits(paths, {"train": train, "test": test})
    else:
        write_splits(paths, {"train": clients})
    return 0
