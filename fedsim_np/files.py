"""Files that are either whole or as they were: written beside their place, then moved there. And JSON, strictly.

A link is followed where a user names a single file (`through_links`): it may lead to another disk on purpose. The files
of a run have names of their own, and their folder may be a stranger's: a link there leads wherever the stranger wants.
So nothing of a run's is written through one: `check_own` refuses it, and `replacing` puts the file in its place.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsim_np.errors import CommandError, data_error

_FILE, _LINKED = "a file", "a file that has another name too (a hard link)"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = False, *, through_links: bool = False) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; on success it takes the place of `path`.

    Parameters
    ----------
    path : path-like
        The file to make or to replace. If the block raises, it stays as it was.
    durable : bool
        Have the disk confirm it, before and after: the file is there even if the machine loses its power.
    through_links : bool
        Of a link, replace what it leads to, and not the link.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    OSError
        If it cannot be written; the error names `path`, and not the temporary file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole", encoding="utf-8")
    ...     (Path(folder) / "a.txt").read_text(encoding="utf-8")
    'whole'
    """
    target = Path(os.path.realpath(path) if through_links and os.path.islink(path) else path).absolute()
    if target.is_dir() and not target.is_symlink():
        raise _error(errno.EISDIR, path)
    if not target.parent.is_dir():
        raise _error(errno.ENOENT, path)
    temporary = target.with_name(f".{target.name[:50]}.{os.urandom(6).hex()}.tmp")
    try:
        with naming_file(path, temporary):
            yield temporary
            if durable:
                sync_file(temporary)
            os.replace(temporary, target)
            if durable:
                sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # a disk that is read alone says so of what is not there, too
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[None]:
    """Have an `OSError` name the file that the user knows: a full disk names none, h5py a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise _error(error.errno, path) from error


def _error(number: int, path: str | os.PathLike[str]) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path))


def kind_at(path: str | os.PathLike[str]) -> str:
    """Return in words what is at a path itself, wherever it may lead.

    Examples
    --------
    >>> kind_at(os.curdir), kind_at("no/such/file")
    ('a folder', 'nothing')
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    # A junction is Windows' link to a folder. (What is kept in a cloud is a reparse point too, and no link.)
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    if stat.S_ISLNK(status.st_mode) or (junction and getattr(status, "st_reparse_tag", None) == junction):
        return "a link"
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "a pipe or a device"
    return _FILE if status.st_nlink < 2 else _LINKED


def check_own(path: str | os.PathLike[str], *, folder: bool = False, appended: bool = False) -> None:
    """Raise a `DataError` unless a path is nothing yet, or a file of its own, neither a link nor a pipe.

    Parameters
    ----------
    path : path-like
    folder : bool
        It must be a folder instead.
    appended : bool
        It is not replaced but added to: it must not have another name either, by a hard link.
    """
    found = kind_at(path)
    fits = ("a folder",) if folder else (_FILE,) if appended else (_FILE, _LINKED)
    if found not in ("nothing", *fits):
        raise data_error(f"must be {'a folder' if folder else 'a file'} of the run's own", found, path=path)


def check_ends(path: str | os.PathLike[str]) -> None:
    """Raise a `DataError` if a path leads to a pipe, which is waited for, or a device, which may have no end."""
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise data_error("must be a file", "a pipe or a device", path=path)


def sync_file(path: Path) -> None:
    """Have the disk confirm what is in a file."""
    _sync(path, os.O_RDWR)


def sync_folder(folder: Path) -> None:
    """Have the disk confirm the names in a folder, where that is possible."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    # Not by Python's open: every call into the system lets go of Python's lock, and others wait.
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str, durable: bool = False, *, through_links: bool = False) -> None:
    r"""Write a text file in UTF-8 with ``\n`` line ends, whole or not at all; the rest as for `replacing`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder) / "a.txt", "one\ntwo\n")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'one\ntwo\n'
    """
    place = replacing(path, durable, through_links=through_links)
    with place as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


class HeldFile:
    """A file as it was written, which can still be read when its name is gone or is a link; not so on Windows.

    Parameters
    ----------
    path : path-like

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.txt"
    ...     write_text(path, "one")
    ...     held = HeldFile(path)
    ...     write_text(path, "another")
    ...     held.is_at(path)
    False
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        status = os.fstat(self._descriptor)
        self._known, self._time = _known(status), status.st_mtime_ns
        self._checksum = zlib.crc32(self._content())
        if os.name == "nt":  # it could not be removed for as long as it is open
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def is_at(self, path: str | os.PathLike[str]) -> bool:
        """Return whether a path is this file's only name, and it has the content that is known."""
        try:
            status = os.lstat(path)
        except OSError:
            return False
        if _known(status) != self._known or status.st_nlink > 1:
            return False
        if status.st_mtime_ns != self._time:  # which other disks may have changed by themselves
            self._time = status.st_mtime_ns
            with open(path, "rb") as file:
                return zlib.crc32(file.read()) == self._checksum
        return True

    def grow(self, path: str | os.PathLike[str], added: bytes) -> None:
        """Know the size again: by this path something was added to it."""
        status = os.stat(path)
        self._known, self._time = (*self._known[:2], status.st_size), status.st_mtime_ns
        self._checksum = zlib.crc32(added, self._checksum)

    def read(self) -> bytes | None:
        """Return the content, or None where it is not what it was, or cannot be read any more."""
        if self._descriptor < 0 or _known(os.fstat(self._descriptor)) != self._known:
            return None
        content = self._content()
        return content if zlib.crc32(content) == self._checksum else None

    def _content(self) -> bytes:
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            return file.read()


def _known(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_size


def as_json(value: Any, indent: int | None = None) -> str:
    """Return nested metrics as JSON, with null for NaN and infinity, which JSON has not.

    Examples
    --------
    >>> as_json({"loss": [0.5, float("nan")]})
    '{"loss": [0.5, null]}'
    """

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: finite(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=indent, allow_nan=False)


def parse_json(content: bytes) -> Any:
    """Return what JSON says; an object with a key twice is an error, where Python's own would keep the last.

    Examples
    --------
    >>> parse_json(b'{"epochs": 1, "epochs": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'epochs' twice in an object
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {twice[:50]!r} twice in an object")
        return found

    return json.loads(content, object_pairs_hook=unique)


def folder_of(flag: str, name: str) -> Path:
    """Return a folder that is there or can be made; refuse a name of something else, or below something else."""
    path = Path(name)
    if not name:
        raise CommandError(f"{flag} must be a folder. Got ''.")
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if os.path.lexists(there) and not there.is_dir():
        found = "file" if os.path.exists(there) else "link that leads nowhere,"
        raise CommandError(f"{flag} must be a folder. Got the {found} '{there}'.")
    return path


def unit_of_bytes(count: float) -> tuple[str, float]:
    """Return the unit in which so many bytes are written, and its bytes: powers of 1,000.

    Examples
    --------
    >>> unit_of_bytes(31_400)
    ('kB', 1000.0)
    """
    return next((unit for unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= unit[1]), ("bytes", 1.0))
