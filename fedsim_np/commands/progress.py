"""How far a command is: a line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from fedsim_np.datasets import ClientData, Dataset


class MovingLine:
    """A text stream whose lines stand in each other's place; given to a `program.ConsoleLogger` as its file.

    Parameters
    ----------
    stream : text stream
        A terminal's.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._width, self._text = stream, 0, ""

    def write(self, text: str) -> int:
        """Take a part of a line; a whole line is shown, as far as it fits."""
        self._text += text
        if self._text.endswith("\n"):
            shown = _fitting(self._text.rstrip("\n"), max(shutil.get_terminal_size().columns - 1, 1))
            self._stream.write("\r" + shown.ljust(self._width))
            self._width, self._text = len(shown), ""
        return len(text)

    def flush(self) -> None:
        """Show what was written."""
        self._stream.flush()

    def end(self) -> None:
        """Leave the last line where it is, and go on below it."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
        self._width = 0


def _fitting(line: str, width: int) -> str:
    """Return a line without those of its parts that do not fit: losses go first; the round and the time left stay.

    Examples
    --------
    >>> _fitting("round 1 of 9  accuracy 0.2665  loss 2.2613  evaluation accuracy 0.5287  0:00:04 left", 79)
    'round 1 of 9  accuracy 0.2665  evaluation accuracy 0.5287  0:00:04 left'
    """
    parts = line.split("  ")
    while len("  ".join(parts)) > width and len(parts) > 2:
        droppable = range(1, len(parts) - parts[-1].endswith(" left"))
        losses = [i for i in droppable if "loss" in parts[i]]
        del parts[(losses or droppable)[-1]]
    return "  ".join(parts)[:width]


class Counter:
    """Says on standard error how many of some things are done, and how long the others will take."""

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._clock, self._started = what, total, clock, clock()
        self._moving = sys.stderr is not None and sys.stderr.isatty()
        self._done, self._said = 0, 0.0

    def count(self) -> None:
        """Count one; say it every second on a terminal, every ten elsewhere, and at the end if that took so long."""
        self._done += 1
        passed = self._clock() - self._started
        every = 0.5 if self._moving else 10.0
        if sys.stderr is None or passed < every or (passed - self._said < every and self._done < self._total):
            return
        self._said = passed
        left = datetime.timedelta(seconds=round(passed / self._done * (self._total - self._done)))
        text = f"{self._what}: {self._done} of {self._total}  {left} left"
        ended = not self._moving or self._done == self._total
        sys.stderr.write("\r" * self._moving + text.ljust(60 * self._moving) + "\n" * ended)
        sys.stderr.flush()


def counted(client_data: ClientData, counter: Counter) -> ClientData:
    """Return the same clients, each of whom is counted when its dataset is made for the first time."""
    seen = set[str]()

    def create(client_id: str) -> Dataset:
        if client_id not in seen:
            counter.count()
        seen.add(client_id)
        return client_data.create_dataset_for_client(client_id)

    return ClientData.from_clients_and_fn(client_data.client_ids, create)
