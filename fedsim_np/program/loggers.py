"""Where a run's metrics go: a logger is told every round's, once.

Metrics are nested mappings; a logger sees them flat, named by their path: ``client_work/train/loss``.
"""

from __future__ import annotations

import datetime
import math
import numbers
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TextIO, runtime_checkable

from fedsim_np.tables import ClientsTable, Table

_MOST_SECONDS = 86400.0 * 9999  # nobody waits longer
_SHOWN = {
    "loss": "loss",
    "sparse_categorical_accuracy": "accuracy",
    "accuracy": "accuracy",
    "mean_squared_error": "squared error",
}


class Logger(Protocol):
    """Something that is told a round's metrics: TFF's release manager."""

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Take the metrics of a round."""


def flatten(metrics: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return nested metrics as one mapping from path to value; empty parts vanish.

    Examples
    --------
    >>> dict(flatten({"distributor": (), "client_work": {"train": {"loss": 2.5}}}))
    {'client_work/train/loss': 2.5}
    """
    flat: OrderedDict[str, Any] = OrderedDict()

    def add(prefix: str, items: Iterable[tuple[Any, Any]]) -> None:
        for key, value in items:
            path = f"{prefix}{key}"
            if isinstance(value, (float, int)):  # most are
                flat[path] = value
            elif isinstance(value, Mapping):
                add(f"{path}/", value.items())
            elif isinstance(value, (tuple, list)):
                add(f"{path}/", enumerate(value))
            else:
                flat[path] = value

    add("", metrics.items())
    return flat


class ResumableLogger(Logger, Protocol):
    """A logger that can go on where a stopped run left off. One that cannot is told the rounds that come.

    If it has a method ``sync()`` too, that is called before every save of a state: what a resumed run will not tell
    again must be safe by then.
    """

    def resume(self, round_num: int) -> None:
        """Go on after a round: forget all later ones."""


@runtime_checkable
class KeepsRows(Protocol):
    """A logger that can tell again what it was told in rounds before."""

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return a row a round, with ``round_num``."""


@runtime_checkable
class Recalls(Protocol):
    """A logger that is told the rounds that were told in another process, where a `KeepsRows` stands beside it."""

    def recall(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows of earlier rounds."""


@runtime_checkable
class TakesClients(Protocol):
    """A logger that is told each round's clients, too."""

    def release_clients(self, clients: ClientsTable, round_num: int) -> None:
        """Take the table of `LearningProcessOutput.clients`, before the round's metrics."""


class MemoryLogger:
    """Keeps every round's metrics in memory, as columns.

    Attributes
    ----------
    history : Table of str to list
        ``round_num`` and one column per metric, all of the same length: NaN where a round did not report a metric.
        ``history.to_frame()`` is a data frame, ``history.to_csv(path)`` writes a file.

    Examples
    --------
    >>> logger = MemoryLogger()
    >>> logger.release({"loss": 2.0}, round_num=1)
    >>> logger.release({"loss": 1.5, "evaluation/loss": 1.75}, round_num=2)
    >>> dict(logger.history)
    {'round_num': [1, 2], 'loss': [2.0, 1.5], 'evaluation/loss': [nan, 1.75]}
    """

    def __init__(self) -> None:
        self.history = Table(round_num=[])

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Add a row."""
        rows = len(self.history["round_num"])
        flat = flatten(metrics)
        flat.pop("round_number", None)  # TFF's name for the same
        row: dict[str, Any] = {"round_num": round_num}
        row.update((f"metric/{name}" if name in row else name, value) for name, value in flat.items())
        self._add(row, rows)

    def recall(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows of rounds that were told in another process, in front of those that are here."""
        first = next(iter(self.history["round_num"]), math.inf)
        later, self.history = self.history, Table(round_num=[])
        earlier = [{"round_num": row["round_num"], **row} for row in rows if row["round_num"] < first]
        for row in [*earlier, *({name: later[name][i] for name in later} for i in range(later.num_rows))]:
            self._add(row, len(self.history["round_num"]))

    def _add(self, row: Mapping[str, Any], rows: int) -> None:
        for name in row:
            self.history.setdefault(name, [float("nan")] * rows)
        for name, column in self.history.items():
            column.append(row.get(name, float("nan")))

    def resume(self, round_num: int) -> None:
        """Go on after a round: forget all later ones."""
        kept = sum(number <= round_num for number in self.history["round_num"])
        for column in self.history.values():
            del column[kept:]


class ConsoleLogger:
    """Prints a line a round: loss and accuracy of the client work and of the evaluation, and how long is left.

    Where noise is added, epsilon as well (`fedsim_np.privacy`).

    Parameters
    ----------
    total_rounds : int
        How many rounds there will be.
    file : text file, optional
        Where to print; by default standard output.
    clock : callable
        Seconds; for the time left.

    Examples
    --------
    >>> logger = ConsoleLogger(total_rounds=3, clock=iter([0.0, 2.0, 4.0]).__next__)
    >>> logger.release({"client_work": {"train": {"loss": 2.5, "num_examples": 100}}}, round_num=1)
    round 1 of 3  loss 2.5000  0:00:04 left
    """

    def __init__(
        self, total_rounds: int, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._file, self._clock = total_rounds, file, clock
        self._started, self._first = clock(), 0

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Print a round's line."""
        parts = [f"round {round_num:{len(str(self._total))}d} of {self._total}"]
        for path, value in flatten(metrics).items():
            *where, name = path.split("/")
            shown = _SHOWN.get(name)
            if shown is not None and "total_rounds_metrics" not in where and isinstance(value, numbers.Real):
                parts.append(f"{'evaluation ' * ('evaluation' in where)}{shown} {float(value):.4f}")
        if "privacy" in metrics:
            parts.append("epsilon {epsilon:.4f} ({meaning})".format(**metrics["privacy"]))
        done, left = round_num - self._first, self._total - round_num
        if done > 0 and left > 0:
            seconds = min((self._clock() - self._started) / done * left, _MOST_SECONDS)
            parts.append(f"{datetime.timedelta(seconds=round(seconds))} left")
        print("  ".join(parts), file=self._file or sys.stdout, flush=True)

    def resume(self, round_num: int) -> None:
        """Go on after a round: the time left is counted from here."""
        self._started, self._first = self._clock(), max(round_num, 0)
