"""Client data into an HDF5 file, in the layout that `HDF5ClientData` reads.

HDF5 lets one thread in at a time, and compressing takes longest. So threads read the clients and compress their arrays,
neither of which needs h5py, and the pieces are stored as they come, in the clients' order.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.hdf5_file import GENERIC, GROUP, SCHEMA
from fedsim_np.datasets.schema import CHARACTERS
from fedsim_np.errors import DataError, argument_type_error, check_path, data_error
from fedsim_np.files import replacing

_CHUNK_BYTES = 2**20
_LEVEL = 4  # of gzip: above it files hardly get smaller
_THREADS = 2


def write_hdf5(path: str | os.PathLike[str], client_data: ClientData) -> None:
    """Write every client's examples to a file in the EMNIST layout, ``examples/<client id>/<field>``.

    The arrays are compressed (gzip, no shuffle filter) in pieces of whole rows, clients in parallel by two threads.
    The file appears when it is complete.

    Parameters
    ----------
    path : path-like
        The file to make or to replace.
    client_data : ClientData
        Written in the order of its ids, each dataset as it is first read.

    Raises
    ------
    DataError
        If a client's id or a field cannot be a name in HDF5, or a field does not hold numbers.
    OSError
        If the file cannot be written.
    """
    if not isinstance(client_data, ClientData):
        raise argument_type_error("client_data", "a ClientData", type(client_data).__name__)
    check_path("path", path)
    with replacing(path, through_links=True) as temporary:
        write_new(temporary, client_data)


def write_new(path: Path, client_data: ClientData) -> None:
    """Write a file that is not there yet; if it cannot be completed, a part of it may be."""
    try:
        _write(path, client_data)
    except RuntimeError as error:
        # On a full disk h5py fails once more when it closes the file; the first failure says what happened.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _write(path: Path, client_data: ClientData) -> None:
    with h5py.File(path, "w") as file, ThreadPoolExecutor(_THREADS) as pool:
        examples = file.create_group(GROUP)
        alike: set[bool] = set()  # whether it is handwriting, of clients whose fields are called so
        waiting: deque[tuple[str, Future[dict[str, _Compressed]]]] = deque()

        def write_next() -> None:
            client_id, prepared = waiting.popleft()
            group, arrays = examples.create_group(client_id), prepared.result()
            for name, compressed in arrays.items():
                compressed.write(group, name)
            if set(CHARACTERS.fields) <= set(arrays):
                alike.add(_is_handwriting(arrays))

        for client_id in client_data.client_ids:
            _check_name("a client's id", client_id)
            waiting.append((client_id, pool.submit(_compress_client, client_data, client_id)))
            if len(waiting) > 4 * _THREADS:
                write_next()
        while waiting:
            write_next()
        if alike == {False}:
            file.attrs[SCHEMA] = GENERIC  # or a reader would take these fields for EMNIST's


class _Compressed(NamedTuple):
    """An array as the pieces that HDF5 stores: whole rows, compressed by gzip's method."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    pieces: list[bytes]

    def write(self, group: h5py.Group, name: str) -> None:
        if not self.pieces:
            group.create_dataset(name, shape=self.shape, dtype=self.dtype)
            return
        chunks = (self.rows, *self.shape[1:])
        dataset = group.create_dataset(
            name, self.shape, self.dtype, chunks=chunks, compression="gzip", compression_opts=_LEVEL
        )
        for number, piece in enumerate(self.pieces):
            dataset.id.write_direct_chunk((number * self.rows, *(0 for _ in self.shape[1:])), piece)


def _is_handwriting(arrays: Mapping[str, _Compressed]) -> bool:
    try:
        CHARACTERS.check_structure(arrays)
    except DataError:
        return False
    return True


def _compress_client(client_data: ClientData, client_id: str) -> dict[str, _Compressed]:
    """Read a client and compress its arrays: the work that threads share."""
    compressed = {}
    for name, values in client_data.create_dataset_for_client(client_id).to_arrays().items():
        _check_name("a field's name", name)
        if values.dtype.kind not in "biuf":
            raise data_error("must hold numbers", f"dtype {values.dtype}", client_id=client_id, field=name)
        if len(values) and not values.size:
            raise data_error("an example must have values", f"shape {values.shape}", client_id=client_id, field=name)
        rows = min(len(values), max(1, _CHUNK_BYTES // max(1, values[:1].nbytes))) if values.size else 0
        pieces = []
        for first in range(0, len(values) if rows else 0, rows or 1):
            piece = np.ascontiguousarray(values[first : first + rows]).tobytes()
            whole = rows * values[:1].nbytes  # HDF5 stores a last piece that is shorter as a whole one
            pieces.append(zlib.compress(piece.ljust(whole, b"\0"), _LEVEL))
        compressed[name] = _Compressed(values.shape, values.dtype, rows, pieces)
    return compressed


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not name.isprintable() or "/" in name or name in ("", ".", ".."):
        raise data_error(f"{kind} must be a name in HDF5: printable text without '/', not '' or '.'", repr(name))
