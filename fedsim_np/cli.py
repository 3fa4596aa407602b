"""The command ``fedsim-np``: the library from a shell.

Results go to standard output and, where asked for, to a folder. What goes wrong is one line on standard error and
exit status 2; an interrupt (Ctrl-C) is status 130. Folders are made, and refused, before any work is done.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from fedsim_np._version import __version__
from fedsim_np.commands import data, notebook, report, train, tutorial
from fedsim_np.commands.arguments import CommandError


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fedsim-np", description="Federated averaging in pure NumPy.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fedsim_np {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    tutorial.add_parser(commands)
    train.add_parser(commands)
    data.add_parser(commands)
    notebook.add_parser(commands)
    report.add_parser(commands)
    return parser


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM (a batch system, a container) end the command as Ctrl-C does: half files are removed on the way."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    try:
        if before is signal.SIG_DFL:  # and not ignored, or somebody else's
            signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        before = None
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a client's id may have letters that the console has not
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        with _terminable():
            status: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (CommandError, ValueError, OSError, MemoryError) as error:  # a DataError is a ValueError
        if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough: `fedsim-np ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if sys.stderr is not None:
            message = " ".join(str(error).split()) or "not enough memory"
            print(f"fedsim-np: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fedsim-np: interrupted", file=sys.stderr)
        return 130
