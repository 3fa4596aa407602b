"""Arrays in an HDF5 file: what their headers claim, what is stored of it, and reading that.

Nothing here knows of clients; `hdf5_file` finds the arrays, and `hdf5` says whose they are.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from fedsim_np.errors import DataError, data_error

_MOST_COMPRESSED = 1100  # gzip's best ratio, and a little
_SMALL = 2**14  # bytes that HDF5 reads as fast as anyone


@contextlib.contextmanager
def reading(rule: str, **place: Any) -> Iterator[None]:
    """Turn whatever h5py raises on damaged bytes (it has many kinds) into a `DataError` of this rule."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise data_error(rule, error, **place) from error


class StoredArray(NamedTuple):
    """An array in a file, its values not read: h5py's high-level object takes ten times as long to make."""

    id: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> npt.NDArray[Any]:
        """Return the values, by HDF5."""
        return np.asarray(h5py.Dataset(self.id)[...])


def check_stored(values: StoredArray, size: int, **place: Any) -> None:
    """Check that the values that a header claims are in the file.

    HDF5 invents what was never stored, and fetches what a header says is in other files: a few bytes could claim
    gigabytes. `size` is the file's, in bytes.
    """
    shape, itemsize, layout = values.shape, values.dtype.itemsize, values.id.get_create_plist()
    claimed = itemsize * math.prod(shape)
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise data_error("values must be stored in the file itself", "a reference to others", **place)
    if not claimed and shape[0]:
        raise data_error("an example must have values", f"shape {shape}", **place)
    chunks = layout.get_chunk() if layout.get_layout() == h5py.h5d.CHUNKED else None
    claimed = max(claimed, itemsize * math.prod(chunks or ()))  # a piece is read whole
    if claimed > _MOST_COMPRESSED * size:
        raise data_error("values must be stored in the file", f"{claimed} bytes claimed by one of {size}", **place)
    if chunks is None:
        complete = values.id.get_storage_size() >= itemsize * math.prod(shape)
    else:
        pieces = math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True))
        complete = values.id.get_num_chunks() >= pieces
    if not complete:
        raise data_error("values must be stored in the file", "some that never were", **place)


def reader(stored: StoredArray) -> Callable[[], npt.NDArray[Any]]:
    """Read an array as it is stored, and return the function that unpacks it.

    HDF5 lets one thread in at a time, and unpacking takes longest. So a large array of a single gzipped piece, which is
    how `write_hdf5` stores clients, is unpacked by zlib, which threads can do side by side.
    """
    shape, dtype = stored.shape, stored.dtype
    size, layout = dtype.itemsize * math.prod(shape), stored.id.get_create_plist()
    one_piece = layout.get_layout() == h5py.h5d.CHUNKED and layout.get_chunk() == shape
    gzipped = one_piece and layout.get_nfilters() == 1 and layout.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
    if not gzipped or size <= _SMALL or not dtype.isnative or dtype.kind not in "fiu":
        values = stored.read()
        return lambda: values
    skipped, raw = stored.id.read_direct_chunk((0,) * len(shape))

    def unpack() -> npt.NDArray[Any]:
        with contextlib.suppress(zlib.error):  # damaged: HDF5 shall say so
            unpacked = b"" if skipped else zlib.decompress(raw, bufsize=size + 1)
            if len(unpacked) == size:
                return np.asarray(np.frombuffer(unpacked, dtype).reshape(shape))
        return stored.read()

    return unpack
