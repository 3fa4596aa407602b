"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse


class CommandError(Exception):
    """A command that cannot be carried out as it was given: one line and status 2."""


def positive(text: str) -> int:
    """Return an argument as a count, from 1."""
    return _integer(text, 1)


def seed(text: str) -> int:
    """Return an argument as a seed of simulated writers."""
    return _integer(text, 0)


def _integer(text: str, minimum: int, maximum: int = 2**32 - 1) -> int:
    if not text.isdecimal() or len(text) > 18 or not minimum <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"must be an integer from {minimum} to {maximum}. Got '{text[:30]}'.")
    return int(text)
