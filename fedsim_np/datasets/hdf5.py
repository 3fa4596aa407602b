"""Client data in HDF5 files, in the layout of TFF's EMNIST files: ``examples/<client id>/<field>``.

Reading is lazy at every step. Opening a file reads the clients' ids; making a client's dataset reads its arrays'
headers (fields, shapes, dtypes) and checks them, once; the values are read, and checked, when they are first needed. A
client's dataset keeps them for as long as it lives, and the `HDF5ClientData` those of the clients that were read last:
drawing them again costs nothing.

An HDF5 handle cannot travel: none can be pickled, and a forked process should not read through its parent's. So a
`HDF5ClientData` opens its file anew in every process, and its pickle is the path, with what the file is known by: one
that was replaced or changed since it was opened first is an error, in every process.

What HDF5 itself makes of damaged bytes, up to a crash, cannot be mended here: `hdf5_check` reads a stranger's file in a
process of its own first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.caching import DEFAULT_CACHE_BYTES, keep
from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.hdf5_arrays import StoredArray, check_stored, reader, reading
from fedsim_np.datasets.hdf5_file import HDF5File
from fedsim_np.datasets.schema import CHARACTERS, Schema
from fedsim_np.datasets.sources import Columns, ElementSpec, sealed
from fedsim_np.errors import DataError, argument_type_error, check_int, data_error
from fedsim_np.forking import ProcessLock
from fedsim_np.lru import LRU

_MOST_DECODED = 250
"""Times a file's bytes that all of its clients' values may take: one-hot rows of a thousand columns take 200."""


class _ClientSource:
    """One client's rows in a file; they are read at first use, and not pickled."""

    def __init__(
        self,
        file: HDF5File,
        schema: Schema,
        client_id: str,
        num_rows: int,
        headers: Mapping[str, StoredArray] | None = None,
        kept: LRU | None = None,
    ) -> None:
        self._file, self._schema, self._client_id, self._num_rows = file, schema, client_id, num_rows
        self._headers = headers, os.getpid()
        self._unpacked: dict[str, Callable[[], npt.NDArray[Any]]] | None = None
        self._columns: Columns | None = None
        self._kept = None if kept is None else weakref.ref(kept)

    def __reduce__(self) -> tuple[type[_ClientSource], tuple[HDF5File, Schema, str, int]]:
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
        else:
            self._file.check_unchanged()
        readers = {}
        for name in self._schema.fields:
            place = {"field": name, "path": self._file.path, "client_id": self._client_id}
            with reading("values must be readable", **place):
                readers[name] = reader(headers[name], self._file.size, **place)
        return readers

    def columns(self) -> Columns:
        if self._columns is None:
            place = {"path": self._file.path, "client_id": self._client_id}
            columns: Columns = OrderedDict()
            for name, unpacked in (self._unpacked or self._readers()).items():
                field = self._schema.fields[name]
                with reading("values must be readable", field=name, **place):
                    whole = sealed(self._result(name, unpacked))
                    whole = sealed(np.asarray(whole, dtype=field.dtype))  # a view, or of another type
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

    Notes
    -----
    Arrays are contiguous, compact, or in pieces with no filters but gzip, shuffle and fletcher32. A small file can
    claim much: the bound for what all clients take, decoded, is the largest of `cache_bytes`, 1.25 GiB, and 250 times
    the file's bytes. A client that takes more than its share of it (divided by the number of clients) is refused if it
    takes more than the bound together with all clients that sort before it. Arrays that several clients share (hard
    links) count for each of them.

    The file must stay as it is while it is read. One that was replaced, changed or removed is an error, here and in the
    processes to which datasets are sent; those take a copy with the same content.

    A stranger's file can make HDF5 itself crash, or run without end: `check_hdf5` reads it in a process of its own
    first.

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
        check_int("cache_bytes", cache_bytes, minimum=0)
        if schema is not None and not isinstance(schema, Schema):
            raise argument_type_error("schema", "a Schema or None", schema)
        self._begin(HDF5File(os.path.abspath(os.fspath(path))), schema, cache_bytes)

    def _begin(self, file: HDF5File, schema: Schema | None, cache_bytes: int) -> None:
        self._file, self._kept, self._checked = file, LRU(cache_bytes), dict[str, int]()
        self._lock, self._claims = ProcessLock(), list[int]()  # bytes, of the first client, the first two, ...
        try:
            client_ids = self._file.client_ids()
            if not client_ids:
                raise data_error("must have at least one client", "none", path=self._file.path)
            self._client_ids = {client_id: i for i, client_id in enumerate(client_ids)}  # in order
            self._schema = schema or self._default_schema(client_ids)
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
        with reading("must have readable arrays", **place):
            fields = self._file.fields(client_ids[0])
            if not fields:
                raise data_error("must have a field", "none", **place)
            schema = Schema.of_structure(fields)
            schema.check_structure(fields, **place)
        return schema

    def __reduce__(self) -> tuple[Callable[..., HDF5ClientData], tuple[HDF5File, Schema, int]]:
        return HDF5ClientData._of, (self._file, self._schema, self._kept.budget)

    @classmethod
    def _of(cls, file: HDF5File, schema: Schema, cache_bytes: int) -> HDF5ClientData:
        client_data = cls.__new__(cls)
        client_data._begin(file, schema, cache_bytes)
        return client_data

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
        fields, num_rows, claimed = self._headers(client_id)
        most = max(_MOST_DECODED * self._file.size, DEFAULT_CACHE_BYTES, self._kept.budget)
        # Clients within their share take no more than that in all, whoever is read; of others all before are looked at.
        if claimed > most // len(self._client_ids) and self._claimed_up_to(client_id, most) > most:
            rule = f"all clients' values must take at most {_MOST_DECODED} times the file's bytes, or 'cache_bytes'"
            found = f"more than {most} bytes with those of this client and of those before it"
            raise data_error(rule, found, path=self._file.path, client_id=client_id)
        self._checked[client_id] = num_rows
        return _ClientSource(*parts, num_rows, fields, self._kept)

    def _headers(self, client_id: str) -> tuple[dict[str, StoredArray], int, int]:
        """Return a client's arrays, the number of its rows, and the bytes that it takes, its structure checked."""
        place = {"path": self._file.path, "client_id": client_id}
        with reading("must have readable arrays", **place):
            fields = self._file.fields(client_id, self._schema.fields)
            if len(fields) < len(self._schema.fields):  # one is missing: say it beside those that are there
                fields = {**self._file.fields(client_id), **fields}
            num_rows = self._schema.check_structure(fields, **place)
            size = self._file.size
            claimed = sum(check_stored(fields[name], size, field=name, **place) for name in self._schema.fields)
        return fields, num_rows, claimed

    def _claimed_up_to(self, client_id: str, most: int) -> int:
        """Return the bytes that a client takes with all before it, or more than `most` as soon as these are so many."""
        place = self._client_ids[client_id]
        with self._lock():
            for other in itertools.islice(self._client_ids, len(self._claims), place + 1):
                before = self._claims[-1] if self._claims else 0
                if before > most:
                    return before
                claimed = 0
                with contextlib.suppress(DataError):  # whoever is refused takes nothing
                    claimed = self._headers(other)[2]
                self._claims.append(before + claimed)
            return self._claims[place]

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
