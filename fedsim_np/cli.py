"""The command ``fedsim-np``: the library from a shell.

Results go to standard output and, where asked for, to a folder. What goes wrong is one line on standard error and
exit status 2; an interrupt (Ctrl-C) is status 130. Folders are made, and refused, before any work is done.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from fedsim_np._version import __version__
from fedsim_np.commands import completion, data, notebook, report, sweep, train, tutorial
from fedsim_np.commands.arguments import add_examples, print_help
from fedsim_np.commands.signals import handling
from fedsim_np.errors import CommandError, did_you_mean, printable, shortened

_FLAG = re.compile("--?[A-Za-z][^ ]*$")  # and not a number below 0


class _Parser(argparse.ArgumentParser):
    """A parser, as all of its commands' are, whose errors are one line and whose flags are written out."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)
        self._commands: Any = None
        self.takers: dict[str, str] = {}
        """Flag -> the command that takes it, of all commands."""

    def add_subparsers(self, **keywords: Any) -> Any:
        """Add commands, and know them."""
        self._commands = super().add_subparsers(**keywords)
        return self._commands

    def below(self) -> Iterator[_Parser]:
        """Yield the commands' parsers, each before those of its own commands."""
        for parser in self._commands.choices.values() if self._commands is not None else ():
            yield parser
            yield from parser.below()

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; flags that a command has not are named first, with those that may be meant."""
        given = sys.argv[1:] if args is None else list(args)
        # What follows a command is for that command's parser.
        before = given[:1] if self._commands is not None else given
        before = before[: before.index("--")] if "--" in before else before
        flags = [text.partition("=")[0] for text in before if _FLAG.match(text)]
        unknown = [flag for flag in flags if flag not in self._option_string_actions]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)[:200]}.{self._meant(unknown[0])}")
        return super().parse_known_args(args, namespace)

    def _meant(self, flag: str) -> str:
        """Return what to add to the error of a flag that this command has not."""
        plain = [action.metavar for action in self._actions if not action.option_strings and f"--{action.dest}" == flag]
        if plain:
            return f" It goes without a flag: {self.prog} {plain[0]}."
        if flag in self.takers:
            return f" {self.takers[flag]} takes it."
        about = {flag: action.help or "" for flag, action in self._option_string_actions.items()}
        return did_you_mean(flag, about, about)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of the choices, in the same words with all versions of Python.

        argparse has no public way to say it: its own words differ, and a `type` cannot stand for a command's name.
        """
        if action.choices is not None and value not in action.choices:
            choices = list(action.choices)
            message = (
                f"invalid choice: {value[:50]!r} (choose from {', '.join(choices)}).{did_you_mean(value, choices)}"
            )
            raise argparse.ArgumentError(action, message)


def _parser() -> _Parser:
    parser = _Parser(prog="fedsim-np", description="Federated averaging in pure NumPy.")
    parser.add_argument("--version", action="version", version=f"fedsim_np {__version__}")
    parser.set_defaults(run=functools.partial(print_help, parser))
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in (tutorial, train, sweep, data, notebook, report):
        command.add_parser(commands)
    completion.add_parser(commands, _parser)
    helping = commands.add_parser(
        "help",
        help="what the commands are, or what one of them takes",
        description="Say what the commands are; or, of one of them, what it takes, as its --help does.",
    )
    helping.add_argument("words", metavar="COMMAND", nargs="*", help="A command, or two words such as: data info.")
    add_examples(helping, "  fedsim-np help train\n  fedsim-np help data info")
    helping.set_defaults(run=_help_with)
    parsers = list(parser.below())
    # The first command that has a flag is the one to name.
    takers = {flag: of.prog for of in reversed(parsers) for flag in of._option_string_actions}
    for of in parsers:
        of.takers = takers
    return parser


def _help_with(arguments: argparse.Namespace) -> int:
    _parser().parse_args([*arguments.words, "--help"])  # which ends the program
    return 0


_PATIENCE = 10.0  # seconds, for removing half files


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM (a batch system, a container) end the command as Ctrl-C does: half files are removed on the way.

    A second one does not disturb that.
    """
    has_alarm = hasattr(signal, "SIGALRM")
    alarm = signal.getsignal(signal.SIGALRM) if has_alarm else None
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        is_second = bool(came) and number == signal.SIGTERM
        came.append(number)
        if is_second:
            return
        if has_alarm:
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        raise SystemExit(128 + signal.SIGTERM)

    def say(lost: sys.UnraisableHookArgs) -> None:
        # An exception that is raised while Python finalises an object is lost: the alarm raises it once more.
        if not came or lost.exc_type is not SystemExit:
            hook(lost)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # but ignored, or somebody else's
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, say
    try:
        with handling(signal.SIGTERM, end):
            yield
    finally:
        if came and has_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm or signal.SIG_DFL)
        sys.unraisablehook = hook


class _Printable:
    """A stream that writes out what a terminal would obey: ids, names and reasons come from strangers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; a carriage return before it, of a line that moves on, is no stranger's."""
        moving = text.startswith("\r") and self._stream.isatty()
        self._stream.write("\r" * moving + printable(text[moving:]))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _printable() -> Iterator[None]:
    """Have all that is printed pass through `_Printable`, and in letters that the console has."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in ((sys.stdout, contextlib.redirect_stdout), (sys.stderr, contextlib.redirect_stderr)):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
            if stream is not None:
                stack.enter_context(redirect(cast(TextIO, _Printable(stream))))
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    with _printable():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
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
            message = shortened(printable(" ".join(str(error).split()))) or "not enough memory"
            print(f"fedsim-np: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fedsim-np: interrupted", file=sys.stderr)
        return 130
