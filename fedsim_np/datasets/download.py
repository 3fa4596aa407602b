"""Published archives: fetched whole, checked, and only the files that were expected taken out of them.

An archive goes through a temporary folder inside the cache folder: downloaded, its SHA-256 compared, its files
unpacked, and only then moved to their places by `os.replace`. Whatever happens before that, the cache folder has the
files that it had; two processes that fetch at once both end with one good copy. What a stranger's server or archive
says is believed nowhere: names, kinds and sizes are held to what was expected.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import queue
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fedsim_np._version import __version__
from fedsim_np.errors import DataError, argument_error, data_error

CACHE_VARIABLE = "FEDSIM_NP_CACHE"
_BLOCK = 2**18  # bytes that are read at a time
_MOST = 2**31  # bytes of an archive or of a file in it: several times as much as the largest has
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP's ways of saying "try again"
_SLICE = 0.2  # seconds
_STALE = 24 * 3600  # seconds after which a temporary folder has been left behind by a process that was killed
_TEMPORARY = ".fetching-"
_ADDRESS = re.compile("https?://[0-9a-z[][!-~]*", re.IGNORECASE)


class Patience(NamedTuple):
    """How long a server is waited for.

    Attributes
    ----------
    attempts : int
        From the first to the last.
    pause : float
        Seconds before the second attempt; before each further one, twice as long.
    timeout : float
        Seconds without a byte after which an attempt has failed.
    total : float
        Seconds for all attempts together: a server that sends a byte now and then is not waited for without end.
    """

    attempts: int = 4
    pause: float = 1.0
    timeout: float = 30.0
    total: float = 6 * 3600.0


class DownloadError(OSError):
    """A file could not be had from the network: the message names address and reason."""


class _PassingError(Exception):
    """A failure that may be gone next time."""


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder for downloaded files; it need not exist.

    Parameters
    ----------
    cache_dir : path-like, optional
        By default what the environment variable FEDSIM_NP_CACHE says, else ``fedsim_np`` in the platform's usual place:
        ``%LOCALAPPDATA%`` on Windows, ``~/Library/Caches`` on macOS, ``$XDG_CACHE_HOME`` or ``~/.cache`` elsewhere.

    Examples
    --------
    >>> cache_folder("handwriting").name
    'handwriting'
    """
    if cache_dir is not None and not os.fspath(cache_dir):
        raise argument_error("cache_dir", "the path of a folder", cache_dir)
    named = os.fspath(cache_dir) if cache_dir is not None else os.environ.get(CACHE_VARIABLE)
    if named:
        return _expanded(named)
    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        usual = "~/Library/Caches"
    else:
        usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(usual) / "fedsim_np"


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError as error:  # a user without a home, as in a container
        message = f"there is no home folder for '{name}': set {CACHE_VARIABLE} to a folder for downloads"
        raise FileNotFoundError(message) from error


def fetch(url: str, sha256: str, files: tuple[str, ...], folder: Path, patience: Patience | None = None) -> list[Path]:
    """Return the paths of an archive's files in a folder; it is downloaded for those that are not there yet.

    Parameters
    ----------
    url : str
        Of a ``.tar.bz2``.
    sha256 : str
        Of the archive, in hexadecimal.
    files : tuple of str
        The names of the files in it, all at its top.
    folder : Path
        Made if need be.
    patience : Patience, optional

    Returns
    -------
    list of Path
        In the order of `files`.

    Raises
    ------
    DownloadError
        If the archive cannot be had.
    DataError
        If it is not the one that was expected. In both cases the folder's files are as they were.
    """
    paths = [folder / name for name in files]
    if all(path.is_file() for path in paths):
        return paths
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"the cache folder must be a folder. Got the file '{folder}'.")
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
            packed = Path(temporary, "archive.tar.bz2")
            found = _download(url, packed, patience or Patience())
            if found != sha256:
                raise data_error(f"the SHA-256 must be {sha256}", found, path=url)
            for source, path in zip(unpack(packed, files, Path(temporary)), paths, strict=True):
                _put(source, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say whose
            error.filename = str(folder)
        raise
    return paths


def _put(source: Path, path: Path) -> None:
    """Move a file to its place, unless one is there."""
    try:
        if not path.is_file():
            os.replace(source, path)
    except PermissionError:
        # Windows: another process that fetched the same archive was faster, and has the file open.
        if not path.is_file():
            raise


def _remove_stale(folder: Path) -> None:
    for left in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - max(entry.stat().st_mtime for entry in (left, *left.iterdir())) > _STALE:
                shutil.rmtree(left)


def unpack(packed: Path, files: tuple[str, ...], folder: Path) -> list[Path]:
    """Unpack an archive that must hold certain files, and nothing else.

    Parameters
    ----------
    packed : Path
        A ``.tar.bz2``.
    files : tuple of str
        The expected names, without folders.
    folder : Path
        Where to write them. Names in the archive are compared, never used as paths.

    Returns
    -------
    list of Path
        In the order of `files`.

    Raises
    ------
    DataError
        If a member is unexpected (another name, a path, a link, a device), too large, or there twice, if a file is
        missing, or if the archive is damaged.
    """
    rule = f"must hold the files {', '.join(files)} and nothing else"
    found = set()
    try:
        with tarfile.open(packed, "r|bz2") as tar:
            for member in tar:
                if member.isdir() and member.name == ".":
                    continue
                name = member.name.removeprefix("./")
                if name not in files or not member.isreg() or name in found or member.size > _MOST:
                    kind = "" if member.isreg() else " (no regular file)"
                    raise data_error(rule, f"{member.name!r}{kind}, {member.size} bytes", path=packed.name)
                found.add(name)
                content = tar.extractfile(member)
                assert content is not None
                with content, open(folder / name, "wb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                    if file.tell() != member.size:
                        raise EOFError(f"a file of {file.tell()} bytes instead of {member.size}")
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        # Those of the disk have a number, bz2's own have none.
        if isinstance(error, DataError) or getattr(error, "errno", None) is not None:
            raise
        raise data_error("must be a whole tar.bz2 archive", error, path=packed.name) from error
    if found != set(files):
        raise data_error(rule, f"no {', '.join(sorted(set(files) - found))}", path=packed.name)
    return [folder / name for name in files]


def _download(url: str, path: Path, patience: Patience) -> str:
    """Write what an address gives to a file, and return its SHA-256."""
    deadline = time.monotonic() + patience.total
    for attempt in range(1, patience.attempts + 1):
        digest = hashlib.sha256()
        try:
            with open(path, "wb") as file:
                for block in _until(deadline, _blocks(url, patience.timeout)):
                    digest.update(block)
                    file.write(block)
            return digest.hexdigest()
        except TimeoutError as error:
            message = f"{url} could not be downloaded: it has not arrived within {patience.total:g} s."
            raise DownloadError(message) from error
        except _PassingError as error:
            if attempt == patience.attempts:
                raise DownloadError(f"{url} could not be downloaded ({attempt} attempts): {error}.") from error
            pause = patience.pause * 2 ** (attempt - 1)
            _say(f"{url}: {error}; trying again in {pause:g} s\n")
            time.sleep(pause)
    raise AssertionError("unreachable")


def _until(deadline: float, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what another thread gets; a TimeoutError at the deadline, whatever that thread waits for then."""
    arrived: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=4)
    is_over = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(item, timeout=_SLICE)
                return

    def get_all() -> None:
        try:
            for block in blocks:
                put(block)
                if is_over.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=get_all, name="fedsim_np download", daemon=True).start()
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                item = arrived.get(timeout=_SLICE)  # in slices: on Windows, Ctrl-C waits for a lock
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        raise TimeoutError
    finally:
        is_over.set()


def _blocks(url: str, timeout: float) -> Iterator[bytes]:
    """Yield what an address gives; a `_PassingError` if that may go better next time."""
    if not _ADDRESS.fullmatch(url):
        rule = "an address is https:// or http://, a host and a path, in ASCII and without spaces"
        raise DownloadError(f"'{url}' could not be downloaded: {rule}.")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"fedsim_np/{__version__}"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if response.status != http.client.OK:
                raise DownloadError(f"{url} could not be downloaded: the server says {response.status}.")
            length = response.headers.get("Content-Length", "")
            expected = int(length) if length.isascii() and length.isdecimal() else None
            received, progress = 0, _Progress(url, expected)
            try:
                while block := response.read1(_BLOCK):
                    received += len(block)
                    if received > _MOST:
                        raise DownloadError(f"{url} could not be downloaded: it is longer than {_MOST} bytes.")
                    progress.show(received)
                    yield block
            finally:
                progress.end()
            if expected is not None and received != expected:
                raise _PassingError(f"the connection ended after {received} of {expected} bytes")
    except urllib.error.HTTPError as error:
        with error:
            reason = f"the server says {error.code} {error.reason}"
        if error.code in _PASSING:
            raise _PassingError(reason) from error
        raise DownloadError(f"{url} could not be downloaded: {reason}.") from error
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, socket.gaierror):  # offline; waiting a few seconds would not help
            raise DownloadError(f"{url} could not be downloaded: {cause}.") from error
        raise _PassingError(str(cause) or type(cause).__name__) from error


class _Progress:
    """What has arrived, on standard error: a line that moves on a terminal, a line every tenth elsewhere."""

    def __init__(self, url: str, expected: int | None) -> None:
        self._name, self._expected = url.rpartition("/")[2], expected
        self._moving = sys.stderr is not None and sys.stderr.isatty()
        self._shown = -1
        size = "of unknown size" if expected is None else f"{expected / 1e6:.1f} MB"
        _say(f"downloading {url}, {size}\n")

    def show(self, received: int) -> None:
        step = 2**22 if self._expected is None else max(1, self._expected // (100 if self._moving else 10))
        if received // step != self._shown:
            self._shown = received // step
            share = "" if not self._expected else f" ({100 * received // self._expected} %)"
            _say(f"{chr(13) * self._moving}{self._name}: {received / 1e6:.1f} MB{share}" + "\n" * (not self._moving))

    def end(self) -> None:
        _say("\n" * self._moving)


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()
