"""Client data in HDF5 files, in the layout of TFF's EMNIST files: ``examples/<client id>/<field>``.

Reading is lazy at every step. Opening a file reads the clients' ids; making a client's dataset reads its arrays'
headers (fields, shapes, dtypes) and checks them, once; the values are read, and checked, when they are first needed. A
client's dataset keeps them for as long as it lives, and the `HDF5ClientData` those of the clients that were read last:
drawing them again costs nothing.

An HDF5 handle cannot travel: none can be pickled, and a forked process should not read through its parent's. So a
`HDF5ClientData` opens its file anew in every process, and its pickle is the path.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.caching import DEFAULT_CACHE_BYTES, keep
from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.schema import CHARACTERS, Schema
from fedsim_np.datasets.sources import Columns, ElementSpec
from fedsim_np.errors import DataError, argument_type_error, check_int, data_error
from fedsim_np.lru import LRU

GROUP = "examples"
SCHEMA, GENERIC = "fedsim_np_schema", "generic"
"""An attribute of a file whose ``pixels`` and ``label`` are not EMNIST's, and its value."""

_MOST_COMPRESSED = 1100  # gzip's best ratio, and a little
_SMALL = 2**14  # bytes that HDF5 reads as fast as anyone


@contextlib.contextmanager
def _reading(rule: str, **place: Any) -> Iterator[None]:
    """Turn whatever h5py raises on damaged bytes (it has many kinds) into a `DataError` of this rule."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise data_error(rule, error, **place) from error


class _Header(NamedTuple):
    """An array in a file, its values not read: h5py's high-level object takes ten times as long to make."""

    id: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> npt.NDArray[Any]:
        """Return the values, by HDF5."""
        return np.asarray(h5py.Dataset(self.id)[...])


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

    def is_generic(self) -> bool:
        """Return whether the file says that the generic rules hold, whatever its fields are called."""
        try:
            value = self._open().attrs.get(SCHEMA)
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError):  # somebody else's, or damaged
            return False
        return isinstance(value, str) and value == GENERIC

    def client_ids(self) -> list[str]:
        """Return the clients' ids in sorted order."""
        with _reading(f"must have a readable group '{GROUP}'", path=self.path):
            self._refuse_links(GROUP, path=self.path)
            return sorted(_text(name, "a client's id", path=self.path) for name in self._group(self._open(), GROUP))

    def _refuse_links(self, *parts: str, **place: Any) -> None:
        """Check that a path in the file does not lead out of it: to another file, or to a pipe that never ends."""
        links = self._open().id.links
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end]).encode()
            if links.exists(name) and links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise data_error(f"'{parts[end - 1]}' must be stored in the file itself", "a link", **place)

    def _group(self, parent: h5py.Group, name: str, **place: Any) -> h5py.Group:
        group = parent.get(name)
        if not isinstance(group, h5py.Group):
            found = "none" if group is None else "something else by that name"
            raise data_error(f"must have a group '{name}'", found, path=self.path, **place)
        return group

    def fields(self, client_id: str, names: Iterable[str] | None = None) -> dict[str, _Header]:
        """Return a client's arrays as they are in the file, headers and no values: those named, or all there are."""
        place = {"path": self.path, "client_id": client_id}
        with _reading("must be readable", **place):
            self._refuse_links(GROUP, client_id, **place)
            at_once = None if names is None else self._found_at_once(client_id, names)
            if at_once is not None:
                return at_once
            group = self._group(self._group(self._open(), GROUP), client_id, client_id=client_id)
            fields = {}
            for name in list(group) if names is None else names:
                self._refuse_links(GROUP, client_id, _text(name, "a field's name", **place), **place)
                item = group.get(name)
                if isinstance(item, h5py.Dataset) and item.shape is not None:
                    fields[name] = _Header(item.id, item.shape, item.dtype)
                elif item is not None and names is not None:
                    found = "a group" if isinstance(item, h5py.Group) else "no values"
                    raise data_error("must be an array", found, field=name, **place)
            return fields

    def _found_at_once(self, client_id: str, names: Iterable[str]) -> dict[str, _Header] | None:
        """Return the arrays if everything is as it should be; to say what is not takes longer."""
        file, found = self._open().id, {}
        # Every piece is read once: the cache that HDF5 makes for each open array would only take memory.
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_chunk_cache(1, 0, 1.0)
        for name in names:
            place = f"{GROUP}/{client_id}/{name}".encode()
            try:
                if file.links.get_info(place).type != h5py.h5l.TYPE_HARD:
                    return None
                stored = h5py.h5d.open(file, place, access)
            except (KeyError, ValueError, OSError, RuntimeError):
                return None
            if stored.get_space().get_simple_extent_type() != h5py.h5s.SIMPLE:
                return None
            found[name] = _Header(stored, stored.shape, stored.dtype)
        return found


def _text(name: object, kind: str, **place: Any) -> str:
    """Return a name in the file; h5py gives bytes for what is not UTF-8."""
    if not isinstance(name, str) or not name.isprintable():
        raise data_error(f"{kind} must be printable UTF-8", repr(name), **place)
    return name


def _check_stored(values: _Header, size: int, **place: Any) -> None:
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


def _reader(stored: _Header) -> Callable[[], npt.NDArray[Any]]:
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


class _ClientSource:
    """One client's rows in a file; they are read at first use, and not pickled."""

    def __init__(
        self,
        file: _File,
        schema: Schema,
        client_id: str,
        num_rows: int,
        headers: Mapping[str, _Header] | None = None,
        kept: LRU | None = None,
    ) -> None:
        self._file, self._schema, self._client_id, self._num_rows = file, schema, client_id, num_rows
        self._headers = headers, os.getpid()
        self._unpacked: dict[str, Callable[[], npt.NDArray[Any]]] | None = None
        self._columns: Columns | None = None
        self._kept = None if kept is None else weakref.ref(kept)

    def __reduce__(self) -> tuple[type[_ClientSource], tuple[_File, Schema, str, int]]:
        return _ClientSource, (self._file, self._schema, self._client_id, self._num_rows)

    @property
    def num_rows(self) -> int:
        return self._num_rows

    @property
    def spec(self) -> ElementSpec:
        return self._schema.spec

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Read what is stored now, and have others unpack it; `columns` waits for them."""
        if self._columns is None and self._unpacked is None:
            readers = self._readers()
            self._unpacked = {name: submit(read).result for name, read in readers.items()}

    def _result(self, name: str, unpacked: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        try:
            return unpacked()
        except CancelledError:  # of an executor that was shut down: read again
            return self._readers()[name]()

    def _readers(self) -> dict[str, Callable[[], npt.NDArray[Any]]]:
        headers, process = self._headers
        if headers is None or process != os.getpid() or not all(header.id.valid for header in headers.values()):
            headers = self._file.fields(self._client_id, self._schema.fields)
        readers = {}
        for name in self._schema.fields:
            with _reading("values must be readable", field=name, path=self._file.path, client_id=self._client_id):
                readers[name] = _reader(headers[name])
        return readers

    def columns(self) -> Columns:
        if self._columns is None:
            place = {"path": self._file.path, "client_id": self._client_id}
            columns: Columns = OrderedDict()
            for name, unpacked in (self._unpacked or self._readers()).items():
                field = self._schema.fields[name]
                with _reading("values must be readable", field=name, **place):
                    whole = np.asarray(self._result(name, unpacked), dtype=field.dtype)
                    whole.flags.writeable = False
                    columns[name] = whole.reshape(self._num_rows, *field.shape)
                self._schema.check_values(name, columns[name], **place)
            self._columns, self._headers, self._unpacked = columns, (None, 0), None
            keep(self, self._client_id, self._kept, columns)
        return self._columns


class HDF5ClientData(ClientData):
    """Clients in an HDF5 file, read when they are needed.

    Parameters
    ----------
    path : path-like
        The file. It is opened for reading only.
    schema : Schema, optional
        What every client's arrays must look like. By default a file with ``pixels`` and ``label`` is held to
        `emnist.CHARACTERS`, unless `write_hdf5` made it of others; any other is held to the generic rules, with the
        first client's structure for all.
    cache_bytes : int
        How much of what has been read is kept, decoded, the clients that were read last: 1.25 GiB by default, which is
        all of EMNIST's digits. It is memory that fills as clients are read; 0 keeps none.

    Raises
    ------
    DataError
        If the file is missing, damaged, or not of this layout; later, if a client that is asked for breaks a rule.

    Examples
    --------
    >>> import tempfile
    >>> from fedsim_np.datasets import InMemoryClientData, write_hdf5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "two.h5")
    ...     write_hdf5(path, InMemoryClientData({"ann": {"x": [1, 2]}, "bob": {"x": [3]}}))
    ...     with HDF5ClientData(path) as data:
    ...         data.client_ids, [int(example["x"]) for example in data.create_dataset_for_client("ann")]
    (['ann', 'bob'], [1, 2])
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: Schema | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._kept, self._checked = LRU(check_int("cache_bytes", cache_bytes, minimum=0)), dict[str, int]()
        if schema is not None and not isinstance(schema, Schema):
            raise argument_type_error("schema", "a Schema or None", schema)
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
        if not self._file.is_generic() and any(
            {"pixels", "label"} <= set(self._file.fields(client_id)) for client_id in client_ids[:3]
        ):
            return CHARACTERS
        place = {"path": self._file.path, "client_id": client_ids[0]}
        with _reading("must have readable arrays", **place):
            fields = self._file.fields(client_ids[0])
            if not fields:
                raise data_error("must have a field", "none", **place)
            schema = Schema.of_structure(fields)
            schema.check_structure(fields, **place)
        return schema

    def __reduce__(self) -> tuple[type[HDF5ClientData], tuple[str, Schema, int]]:
        return HDF5ClientData, (self._file.path, self._schema, self._kept.budget)

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self._file.path

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
        source: _ClientSource | None = self._kept.find(client_id)
        if source is None:
            source = self._source(client_id)
        return Dataset(source, (), client_id)

    def _source(self, client_id: str) -> _ClientSource:
        """Return a client's rows, their structure checked once; they are kept as soon as they are read."""
        parts = self._file, self._schema, client_id
        if client_id in self._checked:
            return _ClientSource(*parts, self._checked[client_id], None, self._kept)
        place = {"path": self._file.path, "client_id": client_id}
        with _reading("must have readable arrays", **place):
            fields = self._file.fields(client_id, self._schema.fields)
            if len(fields) < len(self._schema.fields):  # one is missing: say it beside those that are there
                fields = {**self._file.fields(client_id), **fields}
            num_rows = self._schema.check_structure(fields, **place)
            for name, values in fields.items():
                _check_stored(values, self._size, field=name, **place)
        self._checked[client_id] = num_rows
        return _ClientSource(*parts, num_rows, fields, self._kept)

    def close(self) -> None:
        """Close the file; datasets that have been read stay usable."""
        self._file.close()
        self._kept = LRU(0)  # whoever is still being read finds the other one gone
        self._checked.clear()

    def __enter__(self) -> HDF5ClientData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HDF5ClientData({self._file.path!r}, {len(self._client_ids)} clients)"
