"""The soak benchmark in small: damaged files read by a watched process, and rounds in flat memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
def test_two_hundred_damaged_files_and_sixty_rounds(folder):
    arguments = [sys.executable, SOAK, "hdf5", "checkpoints", "memory", "--quick", "--json", folder / "soak.json"]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((folder / "soak.json").read_text(encoding="utf-8"))
    assert found["hdf5"]["files"] == 200
    for part in ("hdf5", "checkpoints"):
        assert found[part]["bad"] == []
        outcomes = found[part]["outcomes"]
        assert sum(outcomes.values()) == found[part]["files"]
        assert {name.rpartition(" ")[2] for name in outcomes} <= {"right", "other", "refused"}
        assert any(name.endswith("refused") for name in outcomes)
    assert found["memory"]["growth after round 50, %"] < 5
    assert found["memory"]["handles flat"]
