"""Reads HDF5 files as a child of `hdf5_files.Reader`: a path a line in, what became of it a line out."""

import json
import resource
import sys
from pathlib import Path

import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import HDF5ClientData


def peak():
    """Return the most memory that this process has had, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def outcome(path, good):
    """Read all of a file; return "right", "other" (values that nothing can tell from right ones), "refused" or else."""
    try:
        with HDF5ClientData(path, cache_bytes=0) as data:
            found = {c: dict(data.create_dataset_for_client(c).to_arrays()) for c in data.client_ids}
    except fed.DataError as error:
        if isinstance(error.__cause__, MemoryError):
            return "refused, no memory"
        return "refused" if path in str(error) else f"refused, no file named: {error}"
    except BaseException as error:
        return f"raised {error!r}"[:200]
    same = {c: sorted(fields) for c, fields in found.items()} == {c: sorted(fields) for c, fields in good.items()}
    same = same and all(np.array_equal(v, good[c][n]) for c, fields in found.items() for n, v in fields.items())
    return "right" if same else "other"


def main():
    """Read until there are no more paths."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    good = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([outcome(line.rstrip("\n"), good), peak()]), flush=True)


if __name__ == "__main__":
    main()
