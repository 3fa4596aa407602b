"""Client data in HDF5 files, in the layout of TFF's EMNIST files: ``examples/<client id>/<field>``.

Reading is lazy at every step. Opening a file reads the clients' ids; making a client's dataset reads its arrays'
headers (fields, shapes, dtypes) and checks them; the values are read, and checked, when they are first needed. A
client's dataset keeps them for as long as it lives.

An HDF5 handle cannot travel: none can be pickled, and a forked process should not read through its parent's. So a
`HDF5ClientData` opens its file anew in every process, and its pickle is the path.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np

from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.emnist import CHARACTERS
from fedsim_np.datasets.schema import Schema
from fedsim_np.datasets.sources import Columns, ElementSpec
from fedsim_np.errors import DataError, argument_type_error, data_error
from fedsim_np.files import replacing

_GROUP = "examples"
_CHUNK_BYTES = 2**20
_MOST_COMPRESSED = 1100  # gzip's best ratio, and a little
_LEVEL = 4  # of gzip: above it files hardly get smaller
_WRITERS = 2  # threads that read and compress


@contextlib.contextmanager
def _reading(rule: str, **place: Any) -> Iterator[None]:
    """Turn whatever h5py raises on damaged bytes (it has many kinds) into a `DataError` of this rule."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise data_error(rule, error, **place) from error


class _File:
    """An HDF5 file, opened in every process that reads it; its pickle is the path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle: h5py.File | None = None
        self._process: int | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[_File], tuple[str]]:
        return _File, (self.path,)

    def _open(self) -> h5py.File:
        if self._closed:
            raise data_error("must be open to be read", "a closed file", path=self.path)
        if self._handle is not None and self._process != os.getpid():
            # A forked child: the lock may be held by a thread that it has not got, and HDF5 would go on reading
            # through the parent's file if that were still open here.
            self._lock = threading.Lock()
            self._handle.close()
            self._handle = None
        with self._lock:
            if self._handle is None:
                if not os.path.exists(self.path):
                    raise data_error("must exist", "no such file", path=self.path)
                with _reading("must be a whole HDF5 file", path=self.path):
                    self._handle = h5py.File(self.path, "r")
                self._process = os.getpid()
            return self._handle

    def close(self) -> None:
        if self._handle is not None and self._process == os.getpid():
            self._handle.close()
        self._handle, self._closed = None, True

    def client_ids(self) -> list[str]:
        """Return the clients' ids in sorted order."""
        with _reading(f"must have a readable group '{_GROUP}'", path=self.path):
            return sorted(_text(name, "a client's id", path=self.path) for name in self._group(self._open(), _GROUP))

    def _group(self, parent: h5py.Group, name: str, **place: Any) -> h5py.Group:
        group = parent.get(name)
        if not isinstance(group, h5py.Group):
            found = "none" if group is None else "something else by that name"
            raise data_error(f"must have a group '{name}'", found, path=self.path, **place)
        return group

    def fields(self, client_id: str, names: Iterable[str] | None = None) -> dict[str, h5py.Dataset]:
        """Return a client's arrays as they are in the file, headers and no values: those named, or all there are."""
        place = {"path": self.path, "client_id": client_id}
        with _reading("must be readable", **place):
            group = self._group(self._group(self._open(), _GROUP), client_id, client_id=client_id)
            fields = {}
            for name in list(group) if names is None else names:
                item = group.get(_text(name, "a field's name", **place))
                if isinstance(item, h5py.Dataset) and item.shape is not None:
                    fields[name] = item
                elif item is not None and names is not None:
                    found = "a group" if isinstance(item, h5py.Group) else "no values"
                    raise data_error("must be an array", found, field=name, **place)
            return fields


def _text(name: object, kind: str, **place: Any) -> str:
    """Return a name in the file; h5py gives bytes for what is not UTF-8."""
    if not isinstance(name, str) or not name.isprintable():
        raise data_error(f"{kind} must be printable UTF-8", repr(name), **place)
    return name


def _check_stored(values: h5py.Dataset, size: int, **place: Any) -> None:
    """Check that the values that a header claims are in the file.

    HDF5 invents what was never stored, and fetches what a header says is in other files: a few bytes could claim
    gigabytes. `size` is the file's, in bytes.
    """
    claimed = values.dtype.itemsize * math.prod(values.shape)
    if values.is_virtual or values.external:
        raise data_error("values must be stored in the file itself", "a reference to others", **place)
    if not claimed and values.shape[0]:
        raise data_error("an example must have values", f"shape {values.shape}", **place)
    claimed = max(claimed, values.dtype.itemsize * math.prod(values.chunks or ()))  # a piece is read whole
    if claimed > _MOST_COMPRESSED * size:
        raise data_error("values must be stored in the file", f"{claimed} bytes claimed by one of {size}", **place)
    if values.chunks is None:
        complete = values.id.get_storage_size() >= values.nbytes
    else:
        pieces = math.prod(-(-n // chunk) for n, chunk in zip(values.shape, values.chunks, strict=True))
        complete = values.id.get_num_chunks() >= pieces
    if not complete:
        raise data_error("values must be stored in the file", "some that never were", **place)


class _ClientSource:
    """One client's rows in a file; they are read at first use, and not pickled."""

    def __init__(self, file: _File, schema: Schema, client_id: str, num_rows: int) -> None:
        self._file, self._schema, self._client_id, self._num_rows = file, schema, client_id, num_rows
        self._columns: Columns | None = None

    def __reduce__(self) -> tuple[type[_ClientSource], tuple[_File, Schema, str, int]]:
        return _ClientSource, (self._file, self._schema, self._client_id, self._num_rows)

    @property
    def num_rows(self) -> int:
        return self._num_rows

    @property
    def spec(self) -> ElementSpec:
        return self._schema.spec

    @property
    def is_loaded(self) -> bool:
        return self._columns is not None

    def columns(self) -> Columns:
        if self._columns is None:
            place = {"path": self._file.path, "client_id": self._client_id}
            headers = self._file.fields(self._client_id, self._schema.fields)
            columns: Columns = OrderedDict()
            for name, field in self._schema.fields.items():
                with _reading("values must be readable", field=name, **place):
                    values = np.asarray(headers[name][...], dtype=field.dtype)
                    values = values.reshape(self._num_rows, *field.shape)
                self._schema.check_values(name, values, **place)
                values.flags.writeable = False
                columns[name] = values
            self._columns = columns
        return self._columns


class HDF5ClientData(ClientData):
    """Clients in an HDF5 file, read when they are needed.

    Parameters
    ----------
    path : path-like
        The file. It is opened for reading only.
    schema : Schema, optional
        What every client's arrays must look like. By default a file with ``pixels`` and ``label`` is held to
        `emnist.CHARACTERS`, any other to the generic rules, with the first client's structure for all.

    Raises
    ------
    DataError
        If the file is missing, damaged, or not of this layout; later, if a client that is asked for breaks a rule.

    Examples
    --------
    >>> import tempfile
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "two.h5")
    ...     write_hdf5(path, InMemoryClientData({"ann": {"x": [1, 2]}, "bob": {"x": [3]}}))
    ...     with HDF5ClientData(path) as data:
    ...         data.client_ids, [int(example["x"]) for example in data.create_dataset_for_client("ann")]
    (['ann', 'bob'], [1, 2])
    """

    def __init__(self, path: str | os.PathLike[str], schema: Schema | None = None) -> None:
        if schema is not None and not isinstance(schema, Schema):
            raise argument_type_error("schema", "HDF5ClientData", "a Schema or None", schema)
        self._file = _File(os.path.abspath(os.fspath(path)))
        try:
            client_ids = self._file.client_ids()
            if not client_ids:
                raise data_error("must have at least one client", "none", path=self._file.path)
            self._client_ids = dict.fromkeys(client_ids)  # a dict finds an id at once, and keeps the order
            self._schema = schema or self._default_schema(client_ids)
            self._size = os.path.getsize(self._file.path)
        except BaseException:
            self._file.close()
            raise

    def _default_schema(self, client_ids: list[str]) -> Schema:
        # More than one client is looked at, so that a first client without its labels is an error and not a rule.
        if any({"pixels", "label"} <= set(self._file.fields(client_id)) for client_id in client_ids[:3]):
            return CHARACTERS
        place = {"path": self._file.path, "client_id": client_ids[0]}
        with _reading("must have readable arrays", **place):
            fields = self._file.fields(client_ids[0])
            if not fields:
                raise data_error("must have a field", "none", **place)
            schema = Schema.of_structure(fields)
            schema.check_structure(fields, **place)
        return schema

    def __reduce__(self) -> tuple[type[HDF5ClientData], tuple[str, Schema]]:
        return HDF5ClientData, (self._file.path, self._schema)

    @property
    def client_ids(self) -> list[str]:
        """The clients' ids, sorted."""
        return list(self._client_ids)

    @property
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec` of one example."""
        return self._schema.spec

    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the client's `Dataset`, its structure checked, its values not yet read.

        Raises
        ------
        ValueError
            If there is no such client.
        DataError
            If a field is missing, or has another shape, dtype or length than the others and the schema.
        """
        if client_id not in self._client_ids:
            raise self._unknown(client_id)
        place = {"path": self._file.path, "client_id": client_id}
        with _reading("must have readable arrays", **place):
            fields = self._file.fields(client_id, self._schema.fields)
            num_rows = self._schema.check_structure(fields, **place)
            for name, values in fields.items():
                _check_stored(values, self._size, field=name, **place)
        return Dataset(_ClientSource(self._file, self._schema, client_id, num_rows), (), client_id)

    def close(self) -> None:
        """Close the file; what has been read stays usable."""
        self._file.close()

    def __enter__(self) -> HDF5ClientData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HDF5ClientData({self._file.path!r}, {len(self._client_ids)} clients)"


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
    try:
        _write(path, client_data)
    except RuntimeError as error:
        # On a full disk h5py fails once more when it closes the file; the first failure says what happened.
        if isinstance(error.__context__, OSError):
            raise OSError(f"file '{os.fspath(path)}' could not be written: {error.__context__}") from error
        raise


def _write(path: str | os.PathLike[str], client_data: ClientData) -> None:
    with replacing(path) as temporary, h5py.File(temporary, "w") as file, ThreadPoolExecutor(_WRITERS) as pool:
        examples = file.create_group(_GROUP)
        waiting: deque[tuple[str, Future[dict[str, _Compressed]]]] = deque()

        def write_next() -> None:
            client_id, prepared = waiting.popleft()
            group = examples.create_group(client_id)
            for name, compressed in prepared.result().items():
                compressed.write(group, name)

        for client_id in client_data.client_ids:
            _check_name("a client's id", client_id)
            waiting.append((client_id, pool.submit(_compress_client, client_data, client_id)))
            if len(waiting) > 4 * _WRITERS:
                write_next()
        while waiting:
            write_next()


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


def _compress_client(client_data: ClientData, client_id: str) -> dict[str, _Compressed]:
    """Read a client and compress its arrays: the work that threads share, since neither needs h5py."""
    compressed = {}
    for name, values in client_data.create_dataset_for_client(client_id).to_arrays().items():
        _check_name("a field's name", name)
        if values.dtype.kind not in "biuf":
            raise data_error("must hold numbers", f"dtype {values.dtype}", client_id=client_id, field=name)
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
