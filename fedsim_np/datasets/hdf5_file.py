"""An HDF5 file in the layout of TFF's EMNIST files, ``examples/<client id>/<field>``: its clients' names and arrays."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import h5py

from fedsim_np.datasets.hdf5_arrays import DAMAGED, StoredArray, reading
from fedsim_np.errors import data_error, no_such_file
from fedsim_np.files import check_ends, sha256
from fedsim_np.forking import ProcessLock

GROUP = "examples"
SCHEMA, GENERIC = "fedsim_np_schema", "generic"
"""An attribute of a file whose ``pixels`` and ``label`` are not EMNIST's, and its value."""


class _Stat(NamedTuple):
    """What tells a file from the one that takes its place; a copy on another machine has another inode, or time."""

    inode: int
    size: int
    modified: int  # ns

    @classmethod
    def of(cls, path: str) -> _Stat | None:
        """Return a file's, or None if there is none."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # as os.path.exists
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, stat: _Stat) -> str:
    """Return the SHA-256 of a file that looks so; every process computes it once, however many datasets travel."""
    return sha256(path)


class HDF5File:
    """An HDF5 file, opened in every process that reads it; it must stay as it was when the first of them opened it.

    Its pickle is the path and what the file is known by: `_Stat`, and for those that find another one the content's
    SHA-256.
    """

    def __init__(self, path: str, stat: _Stat | None = None, digest: str | None = None) -> None:
        self.path = path
        self._stat, self._digest = stat, digest
        self._lock = ProcessLock()
        self._handle: h5py.File | None = None
        self._process: int | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[HDF5File], tuple[str, _Stat | None, str | None]]:
        if self._stat is not None and self._digest is None:
            self.check_unchanged()
            digest = _sha256(self.path, self._stat)
            self.check_unchanged()
            self._digest = digest
        return HDF5File, (self.path, self._stat, self._digest)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        self._open()
        assert self._stat is not None
        return self._stat.size

    def check_unchanged(self) -> None:
        """Check that the path still leads to what was opened first, here or in the process that sent this."""
        found = _Stat.of(self.path)
        if found == self._stat:
            return
        rule = "must stay as it was when it was opened, as long as it is read"
        if found is None:
            raise data_error(rule, "no such file", path=self.path)
        # A copy, or a file that was only touched, is known by its content, if that was ever asked for.
        if self._digest is None or self._digest != _sha256(self.path, found):
            raise data_error(rule, f"another one ({_shown(found)} for {_shown(self._stat)})", path=self.path)
        self._stat = found

    def _open(self) -> h5py.File:
        if self._closed:
            raise data_error("must be open to be read", "a closed file", path=self.path)
        # In a forked child, HDF5 would go on reading through the parent's file if that were still open here.
        with self._lock(lambda was_held: self._let_go()):
            if self._handle is None:
                stat = _Stat.of(self.path)
                if self._stat is not None:
                    self.check_unchanged()
                elif stat is None:
                    raise no_such_file(self.path)
                check_ends(self.path)
                with reading("must be a whole HDF5 file", path=self.path):
                    self._handle = h5py.File(self.path, "r")
                self._process, self._stat = os.getpid(), self._stat or stat
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
        except DAMAGED:
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
            if self._handle is not None:  # or it is compared when it is opened
                self.check_unchanged()
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


def _shown(stat: _Stat | None) -> str:
    assert stat is not None
    return f"{stat.size} bytes, changed at {stat.modified / 1e9:.3f}"


def _text(name: object, kind: str, **place: Any) -> str:
    """Return a name in the file; h5py gives bytes for what is not UTF-8."""
    if not isinstance(name, str) or not name.isprintable():
        raise data_error(f"{kind} must be printable UTF-8", repr(name), **place)
    return name
