"""Reading a stranger's HDF5 file whole, in a process of its own: what HDF5 makes of damaged bytes stays there.

`HDF5ClientData` refuses what it can tell. But HDF5 is a C library that trusts the bytes of a file in places: one that
was changed can crash it, have it run without end, or fill the memory, before anything could be checked.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fedsim_np.datasets.schema import Schema
from fedsim_np.errors import DataError, argument_type_error, check_float, check_int, check_path, data_error

_CHILD = "-m", "fedsim_np.datasets.hdf5_check_child"
_RULE = "must be readable by a process of its own"


@dataclass(frozen=True)
class CheckedFile:
    """A file that was read whole.

    Parameters
    ----------
    path : str
        Its absolute path.
    num_clients, num_examples : int
    """

    path: str
    num_clients: int
    num_examples: int


def check_hdf5(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    timeout: float = 300.0,
    memory: int = 2**32,
) -> CheckedFile:
    """Read every client of a file in a process of its own, within limits.

    What is not fine is an error, and this process goes on: the file is refused by `HDF5ClientData`, or reading it
    crashes, takes too long or too much memory. To be called before a stranger's file is opened; a file that is replaced
    afterwards has not been checked.

    Parameters
    ----------
    path : path-like
    schema : Schema, optional
        As for `HDF5ClientData`.
    timeout : float
        Seconds that it may take.
    memory : int
        Bytes that it may take, beside those that Python and NumPy take. Linux has such a limit; where the system has
        none (Windows, and macOS in part), only the time is limited.

    Returns
    -------
    CheckedFile
        How many clients and examples there are.

    Raises
    ------
    DataError
        Naming the file, and what became of it.
    RuntimeError
        If the process could not begin.

    Examples
    --------
    >>> import tempfile
    >>> from fedsim_np.datasets import InMemoryClientData, write_hdf5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "two.h5")
    ...     write_hdf5(path, InMemoryClientData({"ann": {"x": [1, 2]}, "bob": {"x": [3]}}))
    ...     checked = check_hdf5(path)
    >>> checked.num_clients, checked.num_examples
    (2, 3)
    """
    path = os.path.abspath(check_path("path", path))
    if schema is not None and not isinstance(schema, Schema):
        raise argument_type_error("schema", "a Schema or None", schema)
    timeout = check_float("timeout", timeout, minimum=0.1, below=1e8)
    memory = check_int("memory", memory, minimum=2**20)
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        child = subprocess.run(
            [sys.executable, *_CHILD],
            input=pickle.dumps((path, schema, timeout, memory)),
            capture_output=True,
            timeout=timeout,
            check=False,
            # Python looks for modules where it starts: beside this package, and not among strangers' files.
            cwd=Path(__file__).parents[2],
            env={**os.environ, **threads},
        )
    except subprocess.TimeoutExpired:
        raise data_error(_RULE, f"no end within {timeout:g} s", path=path) from None
    _, began, said = child.stdout.partition(b"began\n")
    if not began:
        reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"The process that reads '{path}' could not begin: {reason or child.returncode}.")
    if child.returncode:
        raise data_error(_RULE, _death(child.returncode), path=path)
    answer = json.loads(said)
    if "refused" in answer:
        raise DataError(answer["refused"])
    if "memory" in answer:
        raise data_error(_RULE, f"no end within {memory} bytes of memory", path=path)
    return CheckedFile(path, answer["clients"], answer["examples"])


def _death(status: int) -> str:
    """Return the text of how a process ended that did not answer."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"a crash ({name})"
    return f"a crash (status {status:#x})"
