r"""Checkpoints: the state after a round, whole or not at all, and nothing in it that could run.

A file holds a first line ``fedsim_np checkpoint 1``, the SHA-256 of all that follows in hexadecimal, the length of the
description, the description in JSON (round, configuration, versions of the libraries, structure of the state), and the
arrays' bytes. It is written beside its place, synced to the disk, and moved there. A file that does not have its
checksum is damaged: it is reported, and the version before it is used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedsim_np._version import versions
from fedsim_np.errors import (
    DataError,
    argument_error,
    argument_type_error,
    check_bool,
    check_int,
    check_path,
    data_error,
    no_such_file,
)
from fedsim_np.files import naming_file, replacing
from fedsim_np.program.serialization import Description, describe_state, form_of, restore_state

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)
_MAGIC = b"fedsim_np checkpoint 1\n"
_PREFIX = "program_state_"
_DIGEST = 64


class FileProgramStateManager:
    """Keeps states in a folder, a file a version.

    Parameters
    ----------
    root_dir : path-like
        Made if need be.
    keep_total : int
        How many versions to keep, the latest; 0 or less: all.
    keep_first : bool
        Keep the first one too, as one of these.
    keep_every_k : int
        Of the others, keep those whose number is a multiple of it. The latest is always kept.
    config : mapping, optional
        Stored with every version, in JSON's terms. A version that was stored with another configuration is not loaded.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manager = FileProgramStateManager(folder, keep_total=2)
    ...     for version in range(4):
    ...         manager.save({"weights": np.full(2, version)}, version)
    ...     manager.get_versions(), manager.load_latest({"weights": np.zeros(2, np.int64)})
    ([0, 3], ({'weights': array([3, 3])}, 3))
    """

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        keep_total: int = 5,
        keep_first: bool = True,
        keep_every_k: int = 1,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._root = Path(check_path("root_dir", root_dir)).absolute()
        self._keep_total = check_int("keep_total", keep_total)
        self._keep_first = check_bool("keep_first", keep_first)
        self._keep_every_k = check_int("keep_every_k", keep_every_k, minimum=1)
        try:
            self._config = None if config is None else json.loads(json.dumps(dict(config), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise argument_type_error("config", "a mapping that JSON can hold", config) from error
        self._libraries = versions("numpy")
        self._structure: list[Any] = []  # the one that was asked for, if any
        self._loadable: Any = None  # the form of a state that fits it
        self._root.mkdir(parents=True, exist_ok=True)
        self._folder = self._root.stat()

    def path(self, version: int) -> Path:
        """Return where a version is, or would be."""
        return self._root / f"{_PREFIX}{version}"

    def get_versions(self) -> list[int]:
        """Return the versions that there are, in order."""
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root) as found:
            names = [entry.name for entry in found if entry.name.startswith(_PREFIX) and _is_file(entry)]
        numbers = (name.removeprefix(_PREFIX) for name in names)
        whole = [number for number in numbers if number.isascii() and number.isdecimal() and len(number) < 19]
        return sorted(int(number) for number in whole if str(int(number)) == number)  # and not 02

    def save(self, program_state: Any, version: int) -> None:
        """Keep a state, and remove versions that are no longer to be kept.

        Raises
        ------
        ValueError
            If there is a whole state of this version already.
        TypeError
            If something in the state cannot be stored.
        OSError
            If it cannot be written; the versions before are as they were.
        """
        self.prepare(program_state, version)()

    def prepare(self, program_state: Any, version: int) -> Callable[[], None]:
        """Return what saves a state as it is now, of which nothing is asked any more: another thread may call it."""
        check_int("version", version, minimum=0)
        path = self.path(version)
        if path.is_file() and _can(_read, path):  # a damaged one may be replaced
            raise argument_error("version", f"new in '{self._root}'", version)
        description, arrays = describe_state(program_state)
        content = b"".join(array.tobytes() for array in arrays)
        return functools.partial(self._write, path, int(version), description, content)

    def _write(self, path: Path, version: int, description: Description, content: bytes) -> None:
        if self._structure:  # what could not be loaded again is known now; of the same form it is all the same
            form = form_of(description)
            if form != self._loadable:
                restore_state(description, content, self._structure[0])
                self._loadable = form
        about = {"version": version, "config": self._config, "libraries": self._libraries, "state": description}
        text = json.dumps(about, separators=(",", ":")).encode()
        parts = [f"{len(text)}\n".encode(), text, content]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        whole = [_MAGIC, digest.hexdigest().encode(), b"\n", *parts]
        try:
            self._check_folder()
            _write_whole(path, whole)
        except FileNotFoundError:
            with naming_file(self._root):  # and no folder above it: a run's that was moved is not made again
                self._root.mkdir(exist_ok=True)
                self._folder = self._root.stat()
            _LOGGER.warning("The folder '%s' was removed in mid-run, with its states: it was made again.", self._root)
            _write_whole(path, whole)
        with contextlib.suppress(FileNotFoundError):  # the folder was removed at this moment
            self._check_folder()
            self._remove_old(version)

    def _check_folder(self) -> None:
        """Neither write to nor remove from another folder that has come in this one's place."""
        if not os.path.samestat(self._root.stat(), self._folder):
            raise data_error("must be the folder that it was at first", "another one", path=self._root)

    def load(self, version: int, structure: T) -> T:
        """Return the state of a version, in the structure of another state.

        Raises
        ------
        DataError
            If there is none, it is damaged, it was stored with another configuration, or does not fit.
        """
        path = self.path(check_int("version", version, minimum=0))
        if not path.is_file():
            raise no_such_file(path)
        return self._restored(path, *_read(path), structure)

    def _restored(self, path: Path, about: dict[str, Any], content: memoryview, structure: T) -> T:
        if self._config is not None and about["config"] is not None:
            check_config(self._config, about["config"], path)
        try:
            state: T = restore_state(about["state"], content, structure)
        except DataError as error:
            raise DataError(f"file '{path}': {error}") from error
        return state

    def load_latest(self, structure: T) -> tuple[T | None, int]:
        """Return the latest whole state and its version; (None, 0) if there is none. Damaged ones are reported.

        Raises
        ------
        DataError
            If the latest whole one was stored with another configuration, or does not fit.
        """
        self._structure, self._loadable = [structure], None
        for version in reversed(self.get_versions()):
            path = self.path(version)
            try:
                about, content = _read(path)
            except DataError as error:
                _LOGGER.warning("A damaged checkpoint is not used: %s", error)
                continue
            return self._restored(path, about, content, structure), version
        return None, 0

    def _remove_old(self, saved: int) -> None:
        versions = self.get_versions()
        for version in [version for version in versions if version > saved]:
            if not _can(_contents, self.path(version)):
                # The run went on from before it: it is of no use, and would count as the latest.
                self.path(version).unlink(missing_ok=True)
                versions.remove(version)
        if not versions:
            return
        first, last = versions[0], versions[-1]
        kept = [
            version
            for version in versions
            if version % self._keep_every_k == 0 or version in (last, saved) or (self._keep_first and version == first)
        ]
        if 0 < self._keep_total < len(kept):
            start = int(self._keep_first and self._keep_total > 1)
            del kept[start : len(kept) - (self._keep_total - start)]
        for version in set(versions) - set(kept) - {saved}:
            self.path(version).unlink(missing_ok=True)


def _write_whole(path: Path, parts: Iterable[bytes]) -> None:
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def check_config(wanted: Mapping[str, Any], stored: Any, path: str | os.PathLike[str]) -> None:
    """Raise a `DataError` that names the keys in which two configurations differ."""
    stored = stored if isinstance(stored, dict) else {}
    differing = [key for key in {**wanted, **stored} if wanted.get(key) != stored.get(key)]
    if differing:
        said = "; ".join(f"{key}: {stored.get(key)!r} there, {wanted.get(key)!r} here" for key in differing)
        raise data_error("must have the same configuration as this run", said[:500], path=path)


def _read(path: Path) -> tuple[dict[str, Any], memoryview]:
    """Return the description and the arrays' bytes of the version that a file is named after."""
    about, content = _contents(path)
    if path.name != f"{_PREFIX}{about['version']}":  # renamed: rounds would be missing, or be there twice
        raise data_error("must be a whole checkpoint of this version", f"version {about['version']}", path=path)
    return about, content


def _can(read: Callable[[Path], Any], path: Path) -> bool:
    try:
        read(path)
    except DataError:
        return False
    return True


def _contents(path: Path) -> tuple[dict[str, Any], memoryview]:
    """Return a file's description and the arrays' bytes, its checksum checked."""
    content = path.read_bytes()
    start = len(_MAGIC) + _DIGEST + 1
    if not content.startswith(_MAGIC) or len(content) < start:
        raise data_error("must be a whole checkpoint", "something else", path=path)
    found = hashlib.sha256(memoryview(content)[start:]).hexdigest()
    stored = content[len(_MAGIC) : start - 1]
    if found.encode() != stored:
        raise data_error("must have the SHA-256 that it says", found, path=path)
    try:
        end = content.index(b"\n", start)
        first = end + 1
        length = int(content[start:end])
        about = json.loads(content[first : first + length])
        if not isinstance(about, dict) or not {"version", "config", "state"} <= set(about):
            raise ValueError("no description of a state")
    except (ValueError, RecursionError) as error:
        raise data_error("must be a whole checkpoint", error, path=path) from error
    return about, memoryview(content)[first + length :]
