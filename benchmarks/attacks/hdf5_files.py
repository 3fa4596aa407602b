"""Strangers' HDF5 files: damaged, crafted, and changed while they are read.

Files are read by a child process that is watched (`hdf5_reader`). What crashes it, hangs or takes memory there is read
once more by `fedsim_np.datasets.check_hdf5`, which must say so.
"""

import collections
import contextlib
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import HDF5ClientData, check_hdf5

READER = Path(__file__).with_name("hdf5_reader.py")
SECONDS = 5  # that a file may take
MOST_KB = 600_000
KINDS = {
    "contiguous": {},
    "gzip": {"chunks": True, "compression": "gzip"},
    "all filters": {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True},
    "pieces": {"pieces": True, "compression": "gzip", "shuffle": True},
    "plain pieces": {"pieces": True},
    "resizable": {"pieces": True, "compression": "gzip", "maxshape": True},
    "compact": {"own": lambda plist, shape: plist.set_layout(h5py.h5d.COMPACT)},
    "szip": {"chunks": True, "compression": "szip", "compression_opts": ("nn", 4)},
    "scale-offset": {"chunks": True, "scaleoffset": 2},
    "n-bit": {"own": lambda plist, shape: (plist.set_chunk(shape), plist.set_filter(h5py.h5z.FILTER_NBIT, 0, ()))},
}
FILTERS = {
    "szip": b"szip",
    "scale-offset": b"scaleoffset",
    "n-bit": b"nbit",
    "all filters": b"shuffle",
    "gzip": b"deflate",
}


def clients():
    """Return two clients of five rows."""
    rng = np.random.default_rng(0)
    return {
        f"c{i}": {"x": rng.integers(0, 9, (5, 6)).astype("f4"), "y": np.arange(5, dtype="i4") % 3} for i in range(2)
    }


def make(path, kind="gzip", libver="earliest"):
    """Write a good file; return its clients."""
    data = clients()
    with h5py.File(path, "w", libver=libver) as file:
        for client_id, fields in data.items():
            group = file.create_group(f"examples/{client_id}")
            for name, values in fields.items():
                _store(group, name, values, dict(KINDS[kind]))
    return data


def _store(group, name, values, how):
    own, pieces = how.pop("own", None), how.pop("pieces", False)
    if own is not None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        own(plist, values.shape)
        of_type, space = h5py.h5t.py_create(values.dtype), h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(group.id, name.encode(), of_type, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return
    if pieces:
        how["chunks"] = (2, *values.shape[1:])
    elif how.get("chunks"):
        how["chunks"] = values.shape
    if how.pop("maxshape", False):
        how["maxshape"] = (None, *values.shape[1:])
    group.create_dataset(name, data=values, **how)


# --- damages


def one_byte(content, step):
    """Yield files with one byte changed, at every offset up to the padding."""
    for offset in range(0, len(content.rstrip(b"\0")), step):
        old = content[offset]
        for value in dict.fromkeys([(old + 1) % 256, old ^ 128, 24]):
            if value != old:
                yield (offset, value), content[:offset] + bytes([value]) + content[offset + 1 :]


def lookup3(data):
    """Return Bob Jenkins' checksum, as HDF5 stores it."""
    most = 0xFFFFFFFF

    def rotated(x, k):
        return ((x << k) | (x >> (32 - k))) & most

    words = [0xDEADBEEF + len(data) & most] * 3
    while len(data) > 12:
        for i, word in enumerate(struct.unpack("<III", data[:12])):
            words[i] = words[i] + word & most
        for i, j, k in [(0, 2, 4), (1, 0, 6), (2, 1, 8), (0, 2, 16), (1, 0, 19), (2, 1, 4)]:
            words[i] = (words[i] - words[j] & most) ^ rotated(words[j], k)
            other = 3 - i - j
            words[j] = words[j] + words[other] & most
        data = data[12:]
    if not data:
        return words[2]
    for i, word in enumerate(struct.unpack("<III", data.ljust(12, b"\0"))):
        words[i] = words[i] + word & most
    for i, j, k in [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)]:
        words[i] = (words[i] ^ words[j]) - rotated(words[j], k) & most
    return words[2]


_BLOCKS = "OHDR OCHK FRHP FHDB FHIB BTHD BTLF BTIN FAHD FADB EAHD EAIB EASB EADB FSHD FSSE SMTB SMLI"
SIGNATURES = [b"\x89HDF", *_BLOCKS.encode().split()]


def blocks(content):
    """Return (start, end) of what a checksum of four bytes at `end` covers, found by trying every length."""
    found = set()
    for signature in SIGNATURES:
        start = content.find(signature)
        while start >= 0:
            for end in range(start + 8, min(len(content) - 4, start + 2500)):
                stored = int.from_bytes(content[end : end + 4], "little")
                if stored and lookup3(content[start:end]) == stored:
                    found.add((start, end))
                    break
            start = content.find(signature, start + 1)
    return sorted(found)


def with_checksums(content, count):
    """Yield files that are changed inside of what checksums cover, with right checksums."""
    rng, places = random.Random(0), blocks(content)
    for number in range(count):
        damaged = bytearray(content)
        start, end = rng.choice(places)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            offset, width = rng.randrange(start + 4, end), rng.choice([1, 1, 1, 2, 4, 8])
            choices = [0, 1, 255, 2**31, 2**32 - 1, 2**63, 24, 8, rng.randrange(2**64), content[offset] + 1]
            value = (rng.choice(choices) % 2 ** (8 * width)).to_bytes(width, "little")
            damaged[offset : min(end, offset + width)] = value[: min(end, offset + width) - offset]
        for a, b in reversed([place for place in places if place[0] <= start < place[1]]):
            damaged[b : b + 4] = lookup3(bytes(damaged[a:b])).to_bytes(4, "little")
        yield number, bytes(damaged)


def filter_parameters(content, name, count):
    """Yield files with changed bytes in the descriptions of filters."""
    rng, starts, at = random.Random(0), [], content.find(name)
    while at >= 0:
        starts.append(at)
        at = content.find(name, at + 1)
    for number in range(count):
        damaged, start = bytearray(content), rng.choice(starts)
        for _ in range(rng.choice([1, 1, 2])):
            damaged[start - 8 + rng.randrange(100)] = rng.choice([0, 1, 2, 3, 4, 7, 8, 31, 32, 33, 64, 128, 255])
        yield number, bytes(damaged)


# --- reading


class Reader:
    """A child that reads files, begun anew when one of them was its end."""

    def __init__(self, good, memory=3 * 2**30):
        self._good = json.dumps({c: {n: v.tolist() for n, v in fields.items()} for c, fields in good.items()})
        self._memory, self._child, self.peak = memory, None, 0

    def _begin(self):
        self._child = subprocess.Popen(
            [sys.executable, str(READER), str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._child.stdin.write(self._good + "\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == "ready\n"

    def read(self, path):
        """Return what became of a file."""
        if self._child is None:
            self._begin()
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        began, cpu = time.monotonic(), _cpu_seconds(self._child.pid)
        while not select.select([self._child.stdout], [], [], SECONDS)[0]:
            # The machine may be shared: what counts is the child's own time, or 10 times as much of the clock's.
            if _cpu_seconds(self._child.pid) - cpu > 0.8 * SECONDS or time.monotonic() - began > 10 * SECONDS:
                self.end()
                return "hung"
        line = self._child.stdout.readline()
        if not line:
            status = self._child.wait()
            self.end()
            return f"crashed ({signal.Signals(-status).name if status < 0 else status})"
        found, self.peak = json.loads(line)
        if self.peak > MOST_KB:
            self.end()
            return f"took memory ({found})"
        return found

    def end(self):
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def checked(path):
    """Return what `check_hdf5` says of a file, in few words."""
    try:
        return f"fine: {check_hdf5(path, timeout=20, memory=2**30).num_clients} clients"
    except fed.DataError as error:
        said = str(error).rpartition("Got ")[2]
        return "refused" if "no end within" not in said and "signal" not in said and "SIG" not in said else said[:60]


def attacked(good, files, folder):
    """Read damaged files; return how many were what, and what `check_hdf5` says of the bad ones."""
    reader, outcomes, bad, path = Reader(good), collections.Counter(), {}, folder / "damaged.h5"
    with contextlib.closing(_Ending(reader)):
        for key, content in files:
            path.write_bytes(content)
            found = reader.read(path)
            kind = next((word for word in ("right", "other", "refused") if found == word), found[:60])
            outcomes[kind] += 1
            if kind not in ("right", "other", "refused"):
                bad[str(key)] = f"{found[:60]}; check_hdf5: {checked(path)}"
    return outcomes, bad


class _Ending:
    def __init__(self, reader):
        self.close = reader.end


def _all(made, folder):
    total, bad = collections.Counter(), {}
    for name, (good, files) in made.items():
        outcomes, worse = attacked(good, files, folder)
        total += outcomes
        bad.update({f"{name} {key}": found for key, found in worse.items()})
    # Bad is what the reader's process cannot help, the library's own; what must not be is that a check does not say so.
    unsaid = [key for key, found in bad.items() if "; check_hdf5: fine" in found]
    return {"files": sum(total.values()), "outcomes": dict(sorted(total.items())), "bad": bad, "came through": unsaid}


def bytes_of_files(folder, quick):
    """Change one byte at every offset of a small file of each kind of storage, old format and new."""
    made, path = {}, folder / "good.h5"
    for kind in ("gzip",) if quick else KINDS:
        for libver in ("earliest", "latest"):
            good = make(path, kind, libver)
            made[f"{kind}, {libver}"] = good, one_byte(path.read_bytes(), 997 if quick else 1)
    return _all(made, folder)


def structure(folder, quick):
    """Change what checksums cover, with right checksums, and the parameters of filters."""
    made, path, count = {}, folder / "good.h5", 20 if quick else 2000
    for kind in ("pieces",) if quick else KINDS:
        good = make(path, kind, "latest")
        made[kind] = good, with_checksums(path.read_bytes(), count)
    for kind, name in () if quick else FILTERS.items():
        good = make(path, kind)
        made[f"filters of {kind}"] = good, filter_parameters(path.read_bytes(), name, count)
    return _all(made, folder)


# --- bombs


def _zeros(path, pieces=2300):
    """Write a thousandth of their size."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("examples/ann/x", (pieces, 2**18), "f4", chunks=(1, 2**18), compression="gzip")
        piece = zlib.compress(bytes(2**20), 9)
        for row in range(pieces):
            made.id.write_direct_chunk((row, 0), piece)


def _links(path, count=200):
    """Write one array of 8 MB that many clients have."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("examples/c0/x", (8, 2**18), "f4", chunks=(1, 2**18), compression="gzip")
        for row in range(8):
            made.id.write_direct_chunk((row, 0), zlib.compress(bytes(2**20), 9))
        for i in range(1, count):
            file[f"examples/c{i}/x"] = made


def _stream(path, gigabytes=3):
    """Write a piece that declares 98 kB and whose stream holds gigabytes."""
    packer = zlib.compressobj(9)
    raw = b"".join(packer.compress(bytes(2**20)) for _ in range(1024 * gigabytes)) + packer.flush()
    with h5py.File(path, "w") as file:
        made = file.create_dataset("examples/ann/x", (98, 250), "f4", chunks=(98, 250), compression="gzip")
        made.id.write_direct_chunk((0, 0), raw)


def _heap(path):
    """Write a group's heap whose list of free blocks leads to itself, which takes memory without end."""
    make(path, "contiguous")
    content = bytearray(path.read_bytes())
    at = content.find(b"HEAP")
    while at >= 0:
        head, data = struct.unpack("<QQ", content[at + 16 : at + 32])
        if head != 1:  # which is none
            content[data + head : data + head + 8] = head.to_bytes(8, "little")
        at = content.find(b"HEAP", at + 1)
    path.write_bytes(content)


def _pieces(path):
    """Write 10 kB that claim two million pieces."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("examples/ann/x", (10**6, 2), "f4", chunks=(1, 1), compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(4)))
        file.create_dataset("filler", data=np.zeros(10_000, "u1"))


BOMBS = {"zeros": _zeros, "links": _links, "stream": _stream, "heap": _heap, "pieces": _pieces}


def bombs(folder, quick):
    """Read small files that stand for large ones."""
    found = {}
    for name in ("pieces",) if quick else BOMBS:
        path, reader = folder / f"{name}.h5", Reader({}, memory=4 * 2**30)
        BOMBS[name](path)
        outcome = reader.read(path)
        found[name] = {"kB": path.stat().st_size >> 10, "read": outcome, "peak, MB": reader.peak >> 10}
        found[name]["check_hdf5"] = checked(path)
        reader.end()
    through = [name for name, of in found.items() if of["check_hdf5"].startswith("fine")]
    return {"bombs": found, "came through": through}


# --- files that change


def _total(dataset):
    try:
        return int(dataset.to_arrays()["y"].sum())
    except fed.DataError as error:
        return "an error that names the file" if ".h5" in str(error) else str(error)


def _another(path):
    make(path)
    with h5py.File(path, "r+") as file:
        for group in file["examples"].values():
            group["y"][...] = 9


def changes(folder, quick):
    """Change a file between two reads: what this process says, and what a worker says."""
    del quick
    new = folder / "new.h5"
    kinds = {
        "replaced": lambda path: (_another(new), os.replace(new, path)),
        "rewritten": lambda path: (_another(new), path.write_bytes(new.read_bytes())),
        "removed": lambda path: path.unlink(),
        "touched": lambda path: os.utime(path, (1, 1)),
        "copied": lambda path: (shutil.copyfile(path, new), os.replace(new, path)),
    }
    found = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for name, change in kinds.items():
            path = folder / f"{name}.h5"
            make(path)
            with HDF5ClientData(path, cache_bytes=0) as data:
                before = pool.submit(_total, data.create_dataset_for_client("c0")).result()
                change(path)
                after = pool.submit(_total, data.create_dataset_for_client("c0"))
                here = _total(data.create_dataset_for_client("c0"))
                try:
                    there = after.result()
                except fed.DataError as error:  # it was noticed when it was to be sent
                    there = "an error that names the file" if ".h5" in str(error) else str(error)
            found[name] = {"before": before, "here": here, "worker": there}
    wrong = [
        name
        for name, of in found.items()
        for who in ("here", "worker")
        if of[who] != (of["before"] if name in ("touched", "copied") else "an error that names the file")
    ]
    return {"changes": found, "came through": wrong}
