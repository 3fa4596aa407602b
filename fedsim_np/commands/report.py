"""``fedsim-np report``: the page of a stored run or study, or one that compares several runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from fedsim_np.commands.arguments import add_examples
from fedsim_np.errors import CommandError, DataError
from fedsim_np.report import read_run, redraw, write_comparison, write_report, write_study_report
from fedsim_np.runs.study import SWEEP
from fedsim_np.texts import LANGUAGES

_EXAMPLES = """\
  fedsim-np report run
      run/report.html, of what is stored there; the data are not needed
  fedsim-np report run --lang es
      the same in Spanish; a tutorial's figures are drawn again from its data
  fedsim-np report study
      study/report.html, of a folder of fedsim-np sweep
  fedsim-np report one another --out both.html
      a page that compares two runs"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "report",
        help="make the page of a run or a study, or compare runs",
        description="Make report.html in a run's or a study's folder from what is stored there; or, of several runs' "
        "folders, one page that compares them. A run's page has the figures that are stored with it, or else those "
        "that need no data: curves, the clients' accuracies, what rounds cost, and the weights of softmax regression "
        "on characters.",
    )
    command.add_argument(
        "runs", metavar="RUN", nargs="+", help="The folder of fedsim-np tutorial, train or sweep --out."
    )
    command.add_argument("--out", metavar="FILE", help="The page of a comparison (default: comparison.html).")
    command.add_argument("--overwrite", action="store_true", help="Replace FILE.")
    command.add_argument(
        "--lang",
        choices=LANGUAGES,
        help="English or Spanish (default: that of the run's figures; of a comparison or a study, en). Figures of a "
        "run's data that are stored in the other one are drawn again from the data.",
    )
    add_examples(command, _EXAMPLES)
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if "" in arguments.runs:
        raise CommandError("RUN must be a run's folder. Got ''.")
    folders = [Path(run) for run in arguments.runs]
    if len(folders) == 1:
        if arguments.out is not None:
            raise CommandError("--out is for a comparison; the page of one run or study is its own report.html.")
        if (folders[0] / SWEEP).is_file():
            print(f"written {write_study_report(folders[0], arguments.lang or 'en')}")
            return 0
        if arguments.lang is not None:
            try:
                redraw(folders[0], arguments.lang)
            except (DataError, OSError) as error:
                read_run(folders[0])  # or that is the error
                print(f"note: figures in another language are left out, which need the data: {error}", file=sys.stderr)
        print(f"written {write_report(folders[0], lang=arguments.lang)}")
        return 0
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise CommandError(f"the runs must differ. Got {', '.join(arguments.runs)}.")
    path = Path("comparison.html" if arguments.out is None else arguments.out)
    if not path.name or path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"--out must be a file in a folder that exists. Got '{arguments.out or path}'.")
    if os.path.lexists(path) and not arguments.overwrite:
        raise CommandError(f"'{path}' is there already: use --overwrite to replace it.")
    print(f"written {write_comparison(folders, path, arguments.lang or 'en')}")
    return 0
