"""What commands write: ``PREFIX_train.h5`` and ``PREFIX_test.h5``, replaced as a pair."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedsim_np.datasets import ClientData
from fedsim_np.datasets.hdf5_writing import write_new
from fedsim_np.errors import CommandError
from fedsim_np.files import replacing


def output_paths(prefix: str, splits: Iterable[str], overwrite: bool, sources: Iterable[str] = ()) -> dict[str, Path]:
    """Return split -> ``PREFIX_split.h5``, or refuse to write there.

    What is read (`sources`) is never written over.
    """
    if not Path(prefix).name or prefix.endswith(("/", os.sep)):
        raise CommandError(f"--out must be the start of a file's name. Got '{prefix}'.")
    paths = {split: Path(f"{prefix}_{split}.h5") for split in splits}
    for path in paths.values():
        if path.is_dir():
            raise CommandError(f"--out must name files. Got the folder '{path}'.")
        for source in sources:
            if path.exists() and os.path.exists(source) and path.samefile(source):
                raise CommandError(f"--out must not name what is read. Got '{prefix}' for '{source}'.")
        if os.path.lexists(path) and not overwrite:
            raise CommandError(f"'{path}' is there already: use --overwrite to replace it.")
        if not path.parent.is_dir():
            raise CommandError(f"--out must be in a folder that exists. Got '{prefix}'.")
        if not os.access(path.parent, os.W_OK):
            raise CommandError(f"--out must be in a folder that can be written to. Got '{prefix}'.")
    return paths


def write_splits(paths: Mapping[str, Path], splits: Mapping[str, ClientData]) -> None:
    """Write every split, and only then put the files in their places; an old file of a split that is not written goes.

    An interrupt or a full disk leaves the files that were there; only a kill in the instant between two renames leaves
    a new one beside an old one.
    """
    with contextlib.ExitStack() as stack:
        for split, client_data in splits.items():
            write_new(stack.enter_context(replacing(paths[split], through_links=True)), client_data)
    for split in set(paths) - set(splits):
        if os.path.lexists(paths[split]):
            paths[split].unlink()
            print(f"removed {paths[split]}: it would be of other clients")
    for split, client_data in splits.items():
        size = f"{os.path.getsize(paths[split]) / 1e6:.2f} MB"
        print(f"written {paths[split]}: {len(client_data.client_ids)} clients, {size}", flush=True)
