"""The process of `hdf5_check`: reads the file that is asked for on its standard input, and answers with a line.

The question is pickled, since it comes from the process that started this one. The answer is JSON, since the file may
have a say in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from typing import Any

from fedsim_np.datasets.hdf5 import HDF5ClientData
from fedsim_np.datasets.schema import Schema
from fedsim_np.errors import DataError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def main() -> None:
    """Answer one question; the process may die of it."""
    path, schema, timeout, memory = pickle.load(sys.stdin.buffer)
    print("began", flush=True)
    limit = _set_limits(memory, timeout)
    print(json.dumps(_answer(path, schema, limit)), flush=True)


def _answer(path: str, schema: Schema | None, limit: float) -> Mapping[str, Any]:
    try:
        with HDF5ClientData(path, schema, cache_bytes=0) as client_data:
            examples = 0
            for client_id in client_data.client_ids:
                examples += len(next(iter(client_data.create_dataset_for_client(client_id).to_arrays().values())))
            return {"clients": len(client_data.client_ids), "examples": examples}
    except MemoryError:
        return {"memory": True}
    except DataError as error:
        # HDF5 has errors of its own where there is no more memory.
        if isinstance(error.__cause__, MemoryError) or _status("VmPeak") > 0.9 * limit:
            return {"memory": True}
        return {"refused": str(error)}


def _set_limits(memory: int, timeout: float) -> float:
    """Limit this process, where the system can; return how many bytes it may have in all."""
    if resource is None:
        return math.inf
    # The parent ends this process in time, unless it was killed: then the system does, even while HDF5 waits.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout + 1)
    limit = _status("VmSize") + memory
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError, OverflowError, OSError):
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    return limit


def _status(name: str) -> int:
    """Return a number of bytes that Linux tells of this process; elsewhere 0."""
    if not os.path.exists("/proc/self/status"):
        return 0
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:")), 0)


if __name__ == "__main__":
    main()
