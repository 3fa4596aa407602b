"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse


class CommandError(Exception):
    """A command that cannot be carried out as it was given: one line and status 2."""


def positive(text: str) -> int:
    """Return an argument as an integer >= 1."""
    return _integer(text, 1)


def non_negative(text: str) -> int:
    """Return an argument as an integer >= 0."""
    return _integer(text, 0)


def _integer(text: str, minimum: int) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"must be an integer >= {minimum}. Got '{text[:30]}'.")
    return int(text)
