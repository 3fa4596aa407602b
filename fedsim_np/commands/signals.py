"""What a signal does while a command runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C has ended."""


@contextlib.contextmanager
def handling(number: int, handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Have a signal handled in a block, if that is in the main thread: no other may ask for it.

    One that is ignored stays ignored: that is how ``nohup`` and jobs in the background are started.
    """
    if signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def interrupts(stream: TextIO) -> Iterator[Callable[[], bool]]:
    """Have the first Ctrl-C end the run after its round, and say so; the second at once; give whether one came."""
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        print("interrupted: the run ends after this round; again to end it at once", file=stream, flush=True)

    with handling(signal.SIGINT, handle):
        yield lambda: bool(came)
