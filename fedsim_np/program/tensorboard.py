"""Metrics for TensorBoard, written by TensorBoard's own writer.

As in the tutorial, training and evaluation have a folder each, ``train`` and ``eval``, which TensorBoard shows as two
runs. A metric of the client work goes by its own name (``loss``), so that the two share a chart; everything else goes
by its path (``finalizer/update_non_finite``).
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.errors import check_int, check_path, data_error
from fedsim_np.files import check_own, replacing
from fedsim_np.program.loggers import flatten
from fedsim_np.program.training import EVALUATION_METRICS_PREFIX

_CLIENT_WORK = "client_work/train/", "client_work/eval/current_round_metrics/"


class TensorBoardLogger:
    """Writes every round's metrics to TensorBoard's event files, with the round number as the step.

    Look at them with ``tensorboard --logdir LOGDIR``. Needs the extra ``tensorboard``.

    Parameters
    ----------
    logdir : path-like
        Where to make the folders ``train`` and ``eval``; what is there stays.

    Raises
    ------
    ImportError
        If TensorBoard is not installed.

    Examples
    --------
    ::

        with fed.program.TensorBoardLogger("logs/run1") as logger:
            fed.program.run_training_process(process, selection_fn, 50, metrics_managers=[logger])
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        try:
            # Here, and not at the top: it is no dependency, and takes longer to import than all of this package.
            from tensorboard.summary import Writer
        except ImportError as error:
            message = 'TensorBoardLogger needs TensorBoard: pip install "fedsim_np[tensorboard]"'
            raise ImportError(message) from error
        self._make_writer = Writer
        self._logdir = Path(check_path("logdir", logdir))
        self._writers: dict[str, Any] = {}

    def release(self, metrics: Mapping[str, Any], round_num: int) -> None:
        """Write a round's metrics; what is no number is left out."""
        step = check_int("round_num", round_num)
        named: dict[tuple[str, str], float] = {}
        flat = [(path, _number(value)) for path, value in flatten(metrics).items()]
        # The client work's metrics have the short names, whatever else is called so.
        for path, number in sorted(flat, key=lambda metric: _place(metric[0])[1] == metric[0]):
            folder, name = _place(path)
            while (folder, name) in named:
                name = f"metric/{name}"
            if number is not None:
                named[folder, name] = number
        for (folder, name), number in named.items():
            self._writer(folder).add_scalar(name, number, step=step)
        for writer in self._writers.values():
            writer.flush()  # somebody may be watching

    def resume(self, round_num: int) -> None:
        """Go on after a round: take the later ones out of the event files that are there."""
        self.close()
        for folder in ("train", "eval"):
            for path in sorted((self._logdir / folder).glob("events.out.tfevents.*")):
                check_own(path)
                _drop_after(path, round_num)

    def _writer(self, folder: str) -> Any:
        if folder not in self._writers:
            check_own(self._logdir / folder, folder=True)
            self._writers[folder] = self._make_writer(str(self._logdir / folder))
        return self._writers[folder]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writers": {}}

    def close(self) -> None:
        """Finish the files; a later `release` starts new ones beside them."""
        while self._writers:
            self._writers.popitem()[1].close()

    def __enter__(self) -> TensorBoardLogger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _drop_after(path: Path, round_num: int) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    try:
        records = list(RawEventFileLoader(str(path)).Load())  # ends before a record that was cut off
        events = zip(records, map(Event.FromString, records), strict=True)
        kept = [record for record, event in events if event.step <= round_num or event.HasField("file_version")]
    except OSError:
        raise
    except Exception as error:  # damaged files are reported in many ways: TensorBoard's, protobuf's, Python's
        raise data_error("must be an event file of TensorBoard's", error or type(error).__name__, path=path) from error
    if len(kept) == len(records):
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for record in kept:
            writer.write(record)


def _number(value: Any) -> float | None:
    """Return a number of Python's or NumPy's as a float, or None for what is none, or none that a float can hold."""
    if not isinstance(value, numbers.Real | np.bool_) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _place(path: str) -> tuple[str, str]:
    """Return a metric's folder and name.

    Examples
    --------
    >>> _place("client_work/train/loss"), _place("evaluation/client_work/eval/current_round_metrics/loss")
    (('train', 'loss'), ('eval', 'loss'))
    """
    name = path.removeprefix(EVALUATION_METRICS_PREFIX)
    folder = "eval" if name != path or name.startswith("client_work/eval/") else "train"
    for prefix in _CLIENT_WORK:
        name = name.removeprefix(prefix)
    return folder, name
