"""The folder of a training run: what is in it, whose it is, and that one process at a time has it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsim_np.errors import CommandError, data_error
from fedsim_np.files import check_own, folder_of, kind_at, write_text
from fedsim_np.runs.config import RunConfig, read_config_file
from fedsim_np.runs.stored import (
    CHECKPOINTS,
    CLIENTS,
    CONFIG,
    EVALUATION,
    LOGS,
    PAGE,
    TENSORBOARD,
    WEIGHTS,
    check_run_folder,
    clear_pictures,
)

_LOGGER = logging.getLogger(__name__)
CONFIG_KEYS = frozenset(
    {"command", "command_line", "client_ids", "choices", "data", "versions", "privacy", "first_rounds"}
)
FILES = (CONFIG, *LOGS, CLIENTS, EVALUATION, WEIGHTS)
_STATES, _EVENTS = "program_state_*", "events.out.tfevents.*"
_PLACES = {".": FILES, CHECKPOINTS: (_STATES,), f"{TENSORBOARD}/train": (_EVENTS,), f"{TENSORBOARD}/eval": (_EVENTS,)}


def read_stored(folder: Path) -> dict[str, Any]:
    """Return what a run's ``config.json`` holds, its choices complete; a `DataError` if it is damaged."""
    path = folder / CONFIG
    check_own(path)  # a pipe would be waited for without end
    stored = read_config_file(str(path))
    choices, data, versions = (stored.get(key) for key in ("choices", "data", "versions"))
    if not isinstance(choices, dict):
        raise data_error("must be a run's configuration, with 'choices'", type(choices).__name__, path=path)
    files = data.values() if isinstance(data, dict) else [None]
    if not all(
        isinstance(of, dict) and all(isinstance(of.get(key), str) for key in ("file", "sha256")) for of in files
    ):
        raise data_error("'data' must say which files a run began with, by 'file' and 'sha256'", repr(data), path=path)
    config = dataclasses.asdict(RunConfig.of(choices, str(path)))
    return {**stored, "choices": config, "versions": versions if isinstance(versions, dict) else {}}


def check_folder(name: str, resume: bool, overwrite: bool) -> tuple[Path, dict[str, Any] | None]:
    """Refuse a folder that a run cannot be in; return it, and what is stored of the run to go on with."""
    folder = folder_of("--out", name)
    check_run_folder(folder)
    there = [file for file in FILES if (folder / file).exists()]
    states = [CHECKPOINTS] * any((folder / CHECKPOINTS).glob(_STATES))
    if (there or states) and not (resume or overwrite):
        found = ", ".join(there + states)
        how = "use --resume to go on with it, or --overwrite"
        raise CommandError(f"--out '{folder}' already holds a run ({found}): {how}.")
    if there and CONFIG not in there and not states:
        found = f"{', '.join(there)} and no {CONFIG}"
        raise CommandError(f"--out '{folder}' holds {found}: these are no run's of this kind.")
    if CONFIG not in there:
        return folder, None
    try:
        stored = read_stored(folder)  # or an error: it would be somebody else's
    except ValueError as error:
        if overwrite:
            raise CommandError(f"{error} --overwrite removes runs alone: remove that file by hand.") from error
        raise
    return folder, stored if resume else None


class KeptConfig:
    """A run's ``config.json``: a logger that is told no metrics, but looks every round whether it is still there.

    Parameters
    ----------
    folder : Path
    text : str or None
        What to write; None: what is there is it.
    """

    def __init__(self, folder: Path, text: str | None) -> None:
        self._path = folder / CONFIG
        if text is not None:
            write_text(self._path, text, durable=True)
        self._content = self._path.read_bytes()

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Write it again if it is not there."""
        self.restore()

    def restore(self) -> None:
        """Write it again, the same, if it was removed, or changed: without it nobody could go on with the run."""
        with contextlib.suppress(OSError):
            if kind_at(self._path).startswith("a file") and self._path.read_bytes() == self._content:
                return
        write_text(self._path, self._content.decode(), durable=True)
        _LOGGER.warning("The file '%s' was removed or changed in mid-run: it was written again.", self._path)


@contextlib.contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Have what goes wrong because a run's folder is no longer there say so: the run does not follow it."""
    try:
        yield
    except (OSError, ValueError) as error:
        if folder.is_dir():
            raise
        gone = f"the run's folder '{folder}' was moved or removed in mid-run, and must stay where it is"
        how = "the run has ended there, and goes on with --resume and the folder's place now"
        raise CommandError(f"{gone}: {how}.") from error


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Be the only process that trains into a folder, until it ends, in whatever way."""
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    with locked(folder / CHECKPOINTS / ".lock", f"another process trains into '{folder}'"):
        for place, names in _PLACES.items():
            for name in names:
                for left in (folder / place).glob(f".{name}.tmp" if "*" in name else f".{name}.*.tmp"):
                    left.unlink(missing_ok=True)  # of a process that was killed
        yield


@contextlib.contextmanager
def locked(lock: Path, taken: str) -> Iterator[None]:
    """Hold a lock, which is a file, until this process ends, in whatever way; a `CommandError` if it is taken."""
    try:
        import sqlite3  # whose locks are the same on all systems
    except ImportError:  # a Python built without it
        yield
        return
    rule = "must be a lock that can be taken (if nothing trains here, remove it)"
    if kind_at(lock) not in ("nothing", "a file") or (lock.exists() and lock.stat().st_size):
        raise data_error(rule, f"{kind_at(lock)} with something in it", path=lock)
    for journal in lock.parent.glob(f"{lock.name}-*"):  # SQLite would do what it says, to whichever files it names
        journal.unlink()
    with contextlib.ExitStack() as stack:
        try:
            connection = sqlite3.connect(lock, timeout=0.0, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise CommandError(f"{taken} ({error}).") from error
            raise data_error(rule, error, path=lock) from error
        yield


def remove_run(folder: Path) -> None:
    """Remove a run's own files and no other.

    The model goes first and the configuration last: what an interrupt leaves is never taken for another run.
    """
    (folder / WEIGHTS).unlink(missing_ok=True)
    for place, names in _PLACES.items():
        for path in [path for name in names if "*" in name for path in (folder / place).glob(name) if path.is_file()]:
            path.unlink()
    clear_pictures(folder)
    for name in (PAGE, *LOGS, CLIENTS, EVALUATION, CONFIG):
        (folder / name).unlink(missing_ok=True)


def check_files(found: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raise a `DataError` if the data are not those that a run began with."""
    for split in {**stored["data"], **found}:
        there, here = (of.get(split, {}) for of in (stored["data"], found))
        if there.get("sha256") != here.get("sha256"):
            rule = f"the {split} data must be those that the run began with, of SHA-256 {there.get('sha256')}"
            raise data_error(rule, here.get("sha256"), path=here.get("file", there.get("file")))
