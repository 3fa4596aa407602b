"""``fedsim-np notebook``: the tutorial or a lab as a notebook, written to where the user is."""

from __future__ import annotations

import argparse
import importlib.resources
import os
from typing import Any

from fedsim_np.commands.arguments import add_examples
from fedsim_np.errors import CommandError, unknown_name
from fedsim_np.files import folder_of, write_text

NAMES = {
    "en": "federated_learning_for_image_classification.ipynb",
    "es": "federated_learning_for_image_classification_es.ipynb",
}
"""Language -> the tutorial's name in `fedsim_np.demos`."""
_TUTORIAL = {
    "en": "federated learning for image classification, step by step (with exercises and their solutions)",
    "es": "aprendizaje federado para la clasificación de imágenes, paso a paso (con ejercicios y sus soluciones)",
}
_MINUTES = 60  # of the tutorial, for who reads it all

_EXAMPLES = """\
  fedsim-np notebook
      the tutorial, in this folder
  fedsim-np notebook --list
      which labs there are, and how long they take
  fedsim-np notebook 1 --lang es --to class
      the first lab in Spanish, in the folder class"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser(
        "notebook",
        help="write the tutorial's notebook, or a lab's, here",
        description="Write a notebook into a folder of yours: the tutorial, with exercises and their solutions, or a "
        "lab for a class, whose exercises are checked by the notebook itself.",
    )
    command.add_argument("lab", metavar="LAB", nargs="?", help="A lab's number (default: the tutorial); see --list.")
    command.add_argument("--list", action="store_true", help="Say which labs there are, and write nothing.")
    command.add_argument("--solutions", action="store_true", help="Write the lab with its exercises solved.")
    command.add_argument("--lang", choices=sorted(NAMES), default="en", help="English or Spanish (default: en).")
    command.add_argument(
        "--to", "--out", metavar="DIR", default=".", help="The folder to write to, made if need be (default: here)."
    )
    command.add_argument("--overwrite", action="store_true", help="Replace a notebook of that name.")
    add_examples(command, _EXAMPLES)
    command.set_defaults(run=_run)


def read(language: str) -> str:
    """Return the text of the tutorial's notebook in a language, "en" or "es"."""
    return importlib.resources.files("fedsim_np.demos").joinpath(NAMES[language]).read_text(encoding="utf-8")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(_listed(arguments.lang))
        return 0
    name, content = _chosen(arguments)
    folder = folder_of("--to", arguments.to)
    path = folder / name
    if path.is_dir():
        raise CommandError(f"'{path}' is a folder.")
    if os.path.lexists(path) and not arguments.overwrite:
        raise CommandError(f"'{path}' is there already, perhaps with your work in it: use --overwrite to replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, content, through_links=True)
    print(f'written {path}\nopen it: jupyter lab "{path}" (pip install jupyterlab), or in VS Code or Colab')
    return 0


def _chosen(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the name and the text of the notebook that is asked for."""
    if arguments.lab is None:
        if arguments.solutions:
            raise CommandError("--solutions is about a lab: give its number. The tutorial has its solutions in it.")
        return NAMES[arguments.lang], read(arguments.lang)
    from fedsim_np.labs.source import labs  # with matplotlib, which the tutorial's copy does without

    found = {lab.number: lab for lab in labs(arguments.lang)}
    if arguments.lab not in found:
        raise CommandError(str(unknown_name("LAB", found, arguments.lab)))
    lab = found[arguments.lab]
    return lab.file_name(solutions=arguments.solutions), lab.notebook(solutions=arguments.solutions)


def _listed(lang: str) -> str:
    from fedsim_np.labs.source import labs

    rows = [("", _MINUTES, _TUTORIAL[lang]), *((lab.number, lab.minutes, lab.about) for lab in labs(lang))]
    return "\n".join(f"notebook {number:2} {minutes:3} min  {about}" for number, minutes, about in rows)
