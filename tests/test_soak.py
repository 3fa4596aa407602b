"""The soak benchmark in small: damaged files, and rounds in flat memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_damaged_files_and_sixty_rounds(folder):
    arguments = [
        sys.executable,
        SOAK,
        "small-files",
        "hdf5-structure",
        "memory",
        "--quick",
        "--json",
        folder / "soak.json",
    ]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((folder / "soak.json").read_text(encoding="utf-8"))
    for part in ("small-files", "hdf5-structure"):
        assert found[part]["came through"] == []
    for outcomes in found["small-files"]["outcomes"].values():
        assert outcomes["refused"] > 0
    assert sum(found["hdf5-structure"]["outcomes"].values()) == found["hdf5-structure"]["files"] == 20
    assert found["hdf5-structure"]["outcomes"]["refused"] > 0
    assert found["memory"]["growth after round 50, %"] < 5
    assert found["memory"]["handles flat"]
