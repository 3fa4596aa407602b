"""Where a run's metrics go: a logger is told every round's, once.

Metrics are nested mappings; a logger sees them flat, named by their path: ``client_work/train/loss``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol


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
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update((f"{name}/{path}", leaf) for path, leaf in flatten(value).items())
        elif isinstance(value, tuple | list):
            numbered = {str(i): item for i, item in enumerate(value)}
            flat.update((f"{name}/{path}", leaf) for path, leaf in flatten(numbered).items())
        else:
            flat[name] = value
    return flat


class MemoryLogger:
    """Keeps every round's metrics in memory, as columns.

    Attributes
    ----------
    history : OrderedDict of str to list
        ``round_num`` and one column per metric, all of the same length: NaN where a round did not report a metric.

    Examples
    --------
    >>> logger = MemoryLogger()
    >>> logger.release({"loss": 2.0}, round_num=1)
    >>> logger.release({"loss": 1.5, "evaluation/loss": 1.75}, round_num=2)
    >>> dict(logger.history)
    {'round_num': [1, 2], 'loss': [2.0, 1.5], 'evaluation/loss': [nan, 1.75]}
    """

    def __init__(self) -> None:
        self.history: OrderedDict[str, list[Any]] = OrderedDict(round_num=[])

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Add a row."""
        rows = len(self.history["round_num"])
        row = {"round_num": round_num, **flatten(metrics)}
        for name in row:
            self.history.setdefault(name, [float("nan")] * rows)
        for name, column in self.history.items():
            column.append(row.get(name, float("nan")))
