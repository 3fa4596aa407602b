"""Arrays in an HDF5 file: what their headers claim, what is stored of it, and reading that.

What is stored as it is, is read by HDF5. What is stored in pieces is fetched piece by piece, and its filters are undone
here: HDF5 unpacks whatever a stream holds, while this stops at the length that the header declares. HDF5 lets one
thread in at a time, and unpacking takes longest; this can be done by threads, side by side.

Nothing here knows of clients; `hdf5_file` finds the arrays, and `hdf5` says whose they are.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from fedsim_np.errors import DataError, data_error

DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, zlib.error)
"""What h5py and zlib raise on damaged bytes."""

_MOST_COMPRESSED = 1100  # gzip's best ratio, and a little
_SMALL = 2**14  # bytes that are unpacked before another thread could have begun
_GZIP, _SHUFFLE, _CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
_FILTERS = {_GZIP: "gzip", _SHUFFLE: "shuffle", _CHECKSUM: "fletcher32"}


@contextlib.contextmanager
def reading(rule: str, **place: Any) -> Iterator[None]:
    """Turn whatever h5py and zlib raise on damaged bytes into a `DataError` of this rule."""
    try:
        yield
    except DataError:
        raise
    except DAMAGED as error:
        raise data_error(rule, error, **place) from error


class _Storage(NamedTuple):
    """How an array is stored: in pieces of one shape, or (None) in one as it is; filters in the order of writing."""

    chunk: tuple[int, ...] | None
    filters: tuple[int, ...]


class StoredArray:
    """An array in a file, its values not read: h5py's high-level object takes ten times as long to make."""

    def __init__(self, identifier: h5py.h5d.DatasetID) -> None:
        self.id = identifier
        self.shape: tuple[int, ...] = identifier.shape
        self.dtype: np.dtype[Any] = identifier.dtype
        self._storage: _Storage | None = None

    def storage(self, **place: Any) -> _Storage:
        """Return how it is stored, if that is a way whose reading can be answered for."""
        if self._storage is None:
            self._storage = _storage(self, place)
        return self._storage


def _storage(stored: StoredArray, place: Mapping[str, Any]) -> _Storage:
    layout = stored.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise data_error("values must be stored in the file itself", "a reference to others", **place)
    # HDF5 would convert what is none of NumPy's own types, integers of 12 bits say, by numbers in the file.
    if stored.id.get_type() != h5py.h5t.py_create(stored.dtype, logical=True):
        raise data_error("values must be stored in a type that NumPy has", f"another one, like {stored.dtype}", **place)
    if layout.get_layout() != h5py.h5d.CHUNKED:
        return _Storage(None, ())
    filters: list[int] = []
    for number in range(layout.get_nfilters()):
        # HDF5's others (szip, scale-offset, n-bit) trust the numbers that they find in a file.
        code, _, parameters, name = layout.get_filter(number)
        if code not in _FILTERS or code in filters:
            found = (
                f"filter {code}, {name.decode('ascii', 'backslashreplace')!r}" if code not in filters else "one twice"
            )
            raise data_error(f"values must have no filters but {', '.join(_FILTERS.values())}", found, **place)
        if code == _SHUFFLE and parameters[:1] != (stored.dtype.itemsize,):
            rule = f"shuffled values must be of {stored.dtype.itemsize} bytes each"
            raise data_error(rule, f"{parameters[:1]}", **place)
        filters.append(code)
    return _Storage(layout.get_chunk(), tuple(filters))


def check_stored(values: StoredArray, size: int, **place: Any) -> int:
    """Check that the values that a header claims can be in the file; return how many bytes they take when read.

    HDF5 invents what was never stored, and fetches what a header says is in other files: a few bytes could claim
    gigabytes. `size` is the file's, in bytes.
    """
    shape, itemsize, storage = values.shape, values.dtype.itemsize, values.storage(**place)
    claimed = itemsize * math.prod(shape)
    if not claimed and shape[0]:
        raise data_error("an example must have values", f"shape {shape}", **place)
    if claimed and storage.chunk:
        claimed = max(claimed, itemsize * math.prod(storage.chunk))  # a piece is read whole
    if claimed > (_MOST_COMPRESSED if _GZIP in storage.filters else 1) * size:
        raise data_error("values must be stored in the file", f"{claimed} bytes claimed by one of {size}", **place)
    if storage.chunk is None and values.id.get_storage_size() < claimed:
        raise data_error("values must be stored in the file", "some that never were", **place)
    return claimed


def reader(stored: StoredArray, size: int, **place: Any) -> Callable[[], npt.NDArray[Any]]:
    """Read an array as it is stored in a file of `size` bytes, and return the function that unpacks it."""
    shape, dtype, (chunk, filters) = stored.shape, stored.dtype, stored.storage(**place)
    if chunk is None or not math.prod(shape):
        values = np.empty(shape, dtype)
        if values.size:
            stored.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return lambda: values
    pieces, total = [], 0
    # HDF5 could count the pieces, and in a damaged file it would without end. The first that is missing ends this.
    for start in _starts(shape, chunk):
        skipped, raw = _piece(stored, start, place)
        total += len(raw)
        if total > size:
            raise data_error("values must be stored once", f"pieces of more bytes than the file's {size}", **place)
        pieces.append((start, skipped, raw))
    unpack = functools.partial(_assembled, pieces, shape, dtype, chunk, filters)
    if dtype.itemsize * math.prod(shape) <= _SMALL:
        values = unpack()
        return lambda: values
    return unpack


def _starts(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the first index of every piece; itertools.product would have all of them in memory, however many."""
    if not shape:
        yield ()
        return
    for first in range(0, shape[0], chunk[0]):
        for rest in _starts(shape[1:], chunk[1:]):
            yield (first, *rest)


def _piece(stored: StoredArray, start: tuple[int, ...], place: Mapping[str, Any]) -> tuple[int, bytes]:
    """Return a piece as it is stored, and the filters that it goes without, as bits."""
    rule = "values must be stored in the file"
    try:
        skipped, raw = stored.id.read_direct_chunk(start)
    except (MemoryError, SystemError) as error:  # h5py asks for memory first; if there is no piece, for any amount
        raise data_error(rule, "some that never were, or too large to be there", **place) from error
    except (OSError, RuntimeError, ValueError) as error:
        if "not allocated" not in str(error) and "not initialized" not in str(error):
            raise
        raise data_error(rule, "some that never were", **place) from error
    return skipped, raw


def _assembled(
    pieces: list[tuple[tuple[int, ...], int, bytes]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunk: tuple[int, ...],
    filters: tuple[int, ...],
) -> npt.NDArray[Any]:
    """Return the array of pieces, each with its first index and the filters that it does without, as bits."""
    size, values = dtype.itemsize * math.prod(chunk), np.empty(0)
    if shape != chunk:
        values = np.empty(shape, dtype)
    for start, skipped, raw in pieces:
        used = [code for number, code in enumerate(filters) if not skipped >> number & 1]
        piece = np.frombuffer(_unfiltered(raw, used, dtype.itemsize, size), dtype).reshape(chunk)
        if shape == chunk:
            return piece
        place = values[tuple(map(slice, start, map(operator.add, start, chunk)))]
        # What of a piece is beyond the edge is not the array's.
        place[...] = piece if place.shape == chunk else piece[tuple(map(slice, place.shape))]
    return values


def _unfiltered(raw: bytes, filters: list[int], itemsize: int, size: int) -> bytes:
    """Undo a piece's filters, the last one first; it must become so many bytes, and never becomes more."""
    while filters:
        code = filters.pop()
        if code == _GZIP:
            raw = _unzipped(raw, size + 4 * (_CHECKSUM in filters))
        elif code == _CHECKSUM:
            raw = _checked(raw)
        else:
            whole = len(raw) - len(raw) % itemsize
            raw = np.frombuffer(raw, np.uint8, whole).reshape(itemsize, -1).T.tobytes() + raw[whole:]
    if len(raw) != size:
        raise ValueError(f"a piece of {len(raw)} bytes, which must be {size}")
    return raw


def _unzipped(raw: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    unzipped = stream.decompress(raw, size + 1)  # one more: its end is beyond the last byte
    if len(unzipped) != size or not stream.eof:
        raise ValueError(f"a gzipped piece that is not of {size} bytes")
    return unzipped


def _checked(raw: bytes) -> bytes:
    """Return bytes without Fletcher's checksum, which is their last four."""
    data, found = raw[:-4], raw[-4:]
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.int64)
    weights = np.arange(len(words), 0, -1) % 65535
    # One's complement: what is not zero is 1 to 65535.
    low, high = (int(s) and (int(s) - 1) % 65535 + 1 for s in (words.sum(), words @ weights))
    sums = low.to_bytes(2, "little"), high.to_bytes(2, "little")
    # HDF5 had the bytes of each half the other way round before 1.6.3, and takes both.
    if found not in (b"".join(sums), b"".join(half[::-1] for half in sums)):
        raise ValueError("a piece with another checksum than its bytes have")
    return data
