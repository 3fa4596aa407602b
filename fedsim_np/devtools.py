"""``python -m fedsim_np.devtools``: is a change likely to pass? Ruff, mypy and the fast tests, in this environment.

It takes less than a minute and makes nothing but caches. What must hold before a change lands is ``bash .ci/run``,
which makes an environment of its own and takes much longer.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The figures of TFF, the parts of a round, and what is said of them; no processes, pages or commands.
QUICK = (
    "aggregators",
    "algorithms",
    "attacks",
    "client_data",
    "dataset",
    "encoded",
    "losses_and_models",
    "optimizers",
    "own_parts",
    "packaging",
    "partition",
    "personalization",
    "process",
    "program",
    "robust_rules",
    "shuffle",
)


def commands(more: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return what is run, by its name.

    Parameters
    ----------
    more : sequence of str
        Paths of tests beside the fast ones.

    Examples
    --------
    >>> list(commands()), commands(["tests/test_cli.py"])["tests"][-1]
    (['ruff format', 'ruff check', 'mypy', 'tests'], 'tests/test_cli.py')
    """
    spread = ["-n", "2"] if importlib.util.find_spec("xdist") else []
    tests = [f"tests/test_{name}.py" for name in QUICK]
    return {
        "ruff format": ["ruff", "format", "--check", "."],
        "ruff check": ["ruff", "check", "."],
        "mypy": ["mypy"],
        "tests": ["pytest", "-q", *spread, *tests, *more],
    }


def missing() -> list[str]:
    """Return which of the tools this environment has not."""
    return [tool for tool in ("ruff", "mypy", "pytest", "hypothesis") if importlib.util.find_spec(tool) is None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of it and return the exit status: 1 if something failed, 2 if it cannot be run here."""
    parser = argparse.ArgumentParser(prog="python -m fedsim_np.devtools", description="Ruff, mypy and the fast tests.")
    parser.add_argument(
        "tests", metavar="TEST", nargs="*", help="tests beside the fast ones, such as tests/test_cli.py"
    )
    more = parser.parse_args(argv).tests
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the tools say may have letters that a console has not
    if not (ROOT / "tests" / "conftest.py").is_file():
        return _refused(f"it is for a clone of the repository. There are no tests beside '{Path(__file__).parent}'.")
    if missing():
        return _refused(f'{", ".join(missing())} missing. Install what the tests need: pip install -e ".[test]".')
    # This clone's package, also where another one is installed; one thread of BLAS, as in CI.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    begun, failed = time.monotonic(), []
    running = {
        name: subprocess.Popen(
            _started(command),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name, command in commands(more).items()
    }
    try:
        for name, process in running.items():
            said = process.communicate()[0].decode(errors="replace")
            if process.returncode:
                failed.append(name)
                print(f"== {name}\n{said}", flush=True)
            else:
                lines = said.strip().splitlines()
                print(f"{name}: {lines[-1] if lines else 'ok'}", flush=True)
    finally:
        for process in running.values():
            process.kill()
    print(f"{'failed: ' + ', '.join(failed) if failed else 'all of it passed'}, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


def _started(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", *command]


def _refused(message: str) -> int:
    print(f"fedsim_np.devtools: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
