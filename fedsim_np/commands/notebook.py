"""``fedsim-np notebook``: the tutorial as a notebook, copied to where the user is."""

from __future__ import annotations

import argparse
import importlib.resources
import os
from typing import Any

from fedsim_np.errors import CommandError
from fedsim_np.files import folder_of, write_text

NAMES = {
    "en": "federated_learning_for_image_classification.ipynb",
    "es": "federated_learning_for_image_classification_es.ipynb",
}
"""Language -> the notebook's name in `fedsim_np.demos`."""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "notebook",
        help="copy the tutorial's notebook here",
        description="Copy the tutorial, as a notebook with exercises and their solutions, into a folder of yours.",
    )
    command.add_argument("--lang", choices=sorted(NAMES), default="en", help="English or Spanish (default: en)")
    command.add_argument("--to", metavar="DIR", default=".", help="where to, made if need be (default: here)")
    command.add_argument("--overwrite", action="store_true", help="replace a notebook of that name")
    command.set_defaults(run=_run)


def read(language: str) -> str:
    """Return the text of the notebook in a language, "en" or "es"."""
    return importlib.resources.files("fedsim_np.demos").joinpath(NAMES[language]).read_text(encoding="utf-8")


def _run(arguments: argparse.Namespace) -> int:
    folder = folder_of("--to", arguments.to)
    path = folder / NAMES[arguments.lang]
    if path.is_dir():
        raise CommandError(f"'{path}' is a folder.")
    if os.path.lexists(path) and not arguments.overwrite:
        raise CommandError(f"'{path}' is there already, perhaps with your work in it: use --overwrite to replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, read(arguments.lang), through_links=True)
    print(f'written {path}\nopen it: jupyter lab "{path}" (pip install jupyterlab), or in VS Code or Colab')
    return 0
