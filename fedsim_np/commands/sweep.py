"""``fedsim-np sweep``: every run of a grid, some at a time, and one table of all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fedsim_np.algorithms import is_dotted
from fedsim_np.commands.arguments import add_examples, add_silence, allow_own, aside, positive, telling
from fedsim_np.commands.signals import INTERRUPTED
from fedsim_np.errors import CommandError
from fedsim_np.files import as_json
from fedsim_np.learning.engines.host import cores
from fedsim_np.runs.config import read_config_file
from fedsim_np.runs.grid import Grid
from fedsim_np.runs.study import RESULTS
from fedsim_np.runs.sweep import run_grid

_EXAMPLES = """\
  fedsim-np sweep grid.toml --seeds 5 --workers 2 --out study
      every run of the grid with five seeds, two at a time
  fedsim-np report study
      the page of what came out
  fedsim-np sweep grid.toml --seeds 5 --json --out study
      the same study as JSON: what is done is not done again

a grid, in TOML (Python 3.11 or later) or the same in JSON:

  data = "synthetic"                  # keys of train, of all runs
  rounds = 100
  seeds = 5                           # 0 to 4, or a list
  targets = [0.8, 0.9]                # accuracies: rounds and bytes to reach them

  [grid]                              # every combination of
  client_lr = [0.02, 0.1]

  [[cases]]                           # with each of these, if there are any
  algorithm = "fedavg"
  [[cases]]
  algorithm = "fedprox"
  proximal_strength = 0.1             # what one algorithm alone takes is its case's

A key that changes nothing in any run that it is given for is refused."""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "sweep",
        help="train every run of a grid, over seeds",
        description="Train every run of a grid, each in a folder of its own below DIR. The same command goes on with "
        f"what was interrupted or killed, and with a grid that has grown. DIR/{RESULTS} has a row a run.",
    )
    command.add_argument(
        "grid", metavar="FILE", help="The grid: choices, lists of values, cases, seeds and targets, in JSON or TOML."
    )
    command.add_argument(
        "--seeds", metavar="N", type=positive, help="Run each setting N times, with the seeds 0 to N-1."
    )
    command.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        help="How many processes there are, each with a run at a time (default: the cores).",
    )
    command.add_argument(
        "--algorithm",
        metavar="MODULE:NAME",
        action="append",
        default=[],
        help="An algorithm of your own that the file may import. The flag may be given several times.",
    )
    command.add_argument(
        "--out", metavar="DIR", required=True, help=f"The folder of the study: {RESULTS}, and a folder a run."
    )
    add_silence(command)
    add_examples(command, _EXAMPLES)
    command.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    given = read_config_file(arguments.grid)
    if arguments.seeds is not None:
        given["seeds"] = arguments.seeds
    grid = Grid.of(given, arguments.grid)
    grid.check_effect(arguments.grid)
    algorithms = {run.config.algorithm for run in grid.runs}
    allow_own(algorithms, arguments.algorithm)
    if unused := [name for name in sorted(arguments.algorithm) if name not in algorithms or not is_dotted(name)]:
        raise CommandError(f"--algorithm must be one of the grid's own. Got {unused[0]}.")
    tell = telling(arguments)
    workers = arguments.workers or min(cores(), len(grid.runs))
    try:
        study = run_grid(grid, Path(arguments.out), workers, tell)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the study", file=aside(arguments))
        return INTERRUPTED
    for name, reason in study.broken.items():
        print(f"fedsim-np: broken: {name}: {reason}", file=sys.stderr)
    left = f", {len(study.broken)} of them broken: the same command tries those again" * bool(study.broken)
    tell(f"written {Path(arguments.out) / RESULTS}: {len(study.rows)} runs{left}")
    if arguments.json:
        print(as_json({"folder": arguments.out, "runs": study.rows}))
    return 1 if study.broken else 0
