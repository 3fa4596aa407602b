"""An HDF5 file in the layout of TFF's EMNIST files, ``examples/<client id>/<field>``: its clients' names and arrays."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from typing import Any

import h5py

from fedsim_np.datasets.hdf5_arrays import StoredArray, reading
from fedsim_np.errors import data_error

GROUP = "examples"
SCHEMA, GENERIC = "fedsim_np_schema", "generic"
"""An attribute of a file whose ``pixels`` and ``label`` are not EMNIST's, and its value."""


class HDF5File:
    """An HDF5 file, opened in every process that reads it; its pickle is the path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle: h5py.File | None = None
        self._process: int | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[HDF5File], tuple[str]]:
        return HDF5File, (self.path,)

    def _open(self) -> h5py.File:
        if self._closed:
            raise data_error("must be open to be read", "a closed file", path=self.path)
        if self._handle is not None and self._process != os.getpid():
            # A forked child: the lock may be held by a thread that it has not got, and HDF5 would go on reading
            # through the parent's file if that were still open here.
            self._lock = threading.Lock()
            self._let_go()
        with self._lock:
            if self._handle is None:
                if not os.path.exists(self.path):
                    raise data_error("must exist", "no such file", path=self.path)
                with reading("must be a whole HDF5 file", path=self.path):
                    self._handle = h5py.File(self.path, "r")
                self._process = os.getpid()
            return self._handle

    def _let_go(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(RuntimeError):  # of a damaged file; nothing was written that could be lost
                self._handle.close()
        self._handle = None

    def close(self) -> None:
        """Close it for good."""
        if self._process == os.getpid():
            self._let_go()
        self._handle, self._closed = None, True

    def is_generic(self) -> bool:
        """Return whether the file says that the generic rules hold, whatever its fields are called."""
        try:
            attributes = self._open().attrs
            # Of somebody else's, which may claim any size, no value is read.
            if SCHEMA not in attributes or attributes.get_id(SCHEMA).shape != ():
                return False
            return (
                h5py.check_string_dtype(attributes.get_id(SCHEMA).dtype) is not None and attributes[SCHEMA] == GENERIC
            )
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError):  # damaged
            return False

    def client_ids(self) -> list[str]:
        """Return the clients' ids in sorted order."""
        with reading(f"must have a readable group '{GROUP}'", path=self.path):
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

    def fields(self, client_id: str, names: Iterable[str] | None = None) -> dict[str, StoredArray]:
        """Return a client's arrays as they are in the file, headers and no values: those named, or all there are."""
        place = {"path": self.path, "client_id": client_id}
        with reading("must be readable", **place):
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
                    fields[name] = StoredArray(item.id)
                elif item is not None and names is not None:
                    found = "a group" if isinstance(item, h5py.Group) else "no values"
                    raise data_error("must be an array", found, field=name, **place)
            return fields

    def _found_at_once(self, client_id: str, names: Iterable[str]) -> dict[str, StoredArray] | None:
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
            found[name] = StoredArray(stored)
        return found


def _text(name: object, kind: str, **place: Any) -> str:
    """Return a name in the file; h5py gives bytes for what is not UTF-8."""
    if not isinstance(name, str) or not name.isprintable():
        raise data_error(f"{kind} must be printable UTF-8", repr(name), **place)
    return name
