"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from fedsim_np.algorithms import is_dotted
from fedsim_np.errors import CommandError

_EXAMPLES = "examples:"


def add_output(action: argparse.ArgumentParser) -> None:
    """Add what says which pair of files to write."""
    action.add_argument("--out", metavar="PREFIX", required=True, help="Write PREFIX_train.h5 and PREFIX_test.h5.")
    action.add_argument("--overwrite", action="store_true", help="Replace files that are there already.")


def add_examples(command: argparse.ArgumentParser, examples: str) -> None:
    """Add what a command's help ends with, line by line as it is."""
    command.formatter_class, command.epilog = _WithExamples, f"{_EXAMPLES}\n{examples.rstrip()}"


class _WithExamples(argparse.HelpFormatter):
    """Leaves the lines of examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


def add_silence(command: argparse.ArgumentParser, verbose: str | None = None) -> None:
    """Add what says how much is printed; `verbose` is the help of a flag for more than usual, if there is one."""
    told = command.add_mutually_exclusive_group()
    if verbose is not None:
        told.add_argument("--verbose", action="store_true", help=verbose)
    told.add_argument("--quiet", action="store_true", help="Print nothing but what is wrong.")
    told.add_argument("--json", action="store_true", help="Print the result alone, as JSON.")


def telling(arguments: argparse.Namespace) -> Callable[[str], object]:
    """Return what a line on standard output is given to: nobody, if a silent command was asked for."""
    return (lambda line: None) if is_silent(arguments) else functools.partial(print, flush=True)


def aside(arguments: argparse.Namespace) -> TextIO:
    """Return the stream of what a silent command says all the same."""
    return sys.stderr if is_silent(arguments) else sys.stdout


def is_silent(arguments: argparse.Namespace) -> bool:
    """Return whether standard output is to have nothing in it, or JSON alone."""
    return bool(arguments.quiet or arguments.json)


def allow_own(algorithms: Iterable[str], named: Iterable[Any]) -> None:
    """Have algorithms of the user's own be found in this folder too, if the command line names them: no file runs code.

    Raises
    ------
    CommandError
        If one is not named.
    """
    own = {name for name in algorithms if is_dotted(name)}
    if unnamed := sorted(own - {*named}):
        raise CommandError(f"to import a module of your own, name it here: --algorithm {unnamed[0]}")
    if own and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def print_help(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Print what a command takes: what a command does that was given nothing to do."""
    parser.print_help()
    return 0


def positive(text: str) -> int:
    """Return an argument as a count, from 1."""
    return _integer(text, 1)


def writers(most: int, costs: str) -> Callable[[str], int]:
    """Return what takes an argument as a count of simulated writers, and says what more than so many would cost."""

    def count(text: str) -> int:
        if (number := _integer(text, 1)) > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, which {costs}. Got {number}.")
        return number

    return count


def seed(text: str) -> int:
    """Return an argument as a seed."""
    return _integer(text, 0)


def fraction(text: str) -> float:
    """Return an argument as a share, from 0 and below 1."""
    return _real(text, 0.0, 1.0)


def above_zero(text: str) -> float:
    """Return an argument as a finite number above 0."""
    return _real(text, 5e-324, math.inf)


def _real(text: str, minimum: float, below: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not minimum <= number < below:
        bounds = "above 0" if below == math.inf else f"from {minimum:g} and below {below:g}"
        raise argparse.ArgumentTypeError(f"must be a number {bounds}. Got '{text[:30]}'.")
    return number


def _integer(text: str, minimum: int) -> int:
    if not text.isdecimal() or len(text) > 18 or not minimum <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from {minimum} to {2**32 - 1}. Got '{text[:30]}'.")
    return int(text)
