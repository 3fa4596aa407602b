"""What a run's folder holds, read back."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim_np.errors import check_path, data_error
from fedsim_np.files import check_own
from fedsim_np.learning.models import ModelWeights, load_weights
from fedsim_np.program.training import TRAINING_TIME_KEY
from fedsim_np.runs.config import RunConfig
from fedsim_np.tables import Table, text_of, values_of

CONFIG, WEIGHTS, PAGE = "config.json", "weights.npz", "report.html"
LOGS = ("metrics.csv", "metrics.jsonl", "timings.csv")
CLIENTS, EVALUATION = "clients.csv", "evaluation.json"
PROMISE = "privacy/epsilon", "privacy/meaning"  # a number, and a text
FIGURES_INDEX = "figures.json"
_SECONDS = TRAINING_TIME_KEY, "seconds"  # of a run of 0.1.0's tutorial
CHECKPOINTS, TENSORBOARD, FIGURES = "checkpoints", "tensorboard", "figures"
_FILES = (CONFIG, *LOGS, CLIENTS, EVALUATION, WEIGHTS, PAGE)
_FOLDERS = (CHECKPOINTS, FIGURES, TENSORBOARD, f"{TENSORBOARD}/train", f"{TENSORBOARD}/eval")


def check_run_folder(folder: Path) -> None:
    """Raise a `DataError` if something by the name of a run's, or in a folder of a run's, is a link, or a pipe.

    The folder itself may be a link, and what is there by other names is the user's.
    """
    for name in _FILES:
        check_own(folder / name)
    for name in _FOLDERS:
        check_own(folder / name, folder=True)
        for path in sorted((folder / name).iterdir()) if (folder / name).is_dir() else ():
            check_own(path, folder=path.is_dir())


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes
    ----------
    folder : Path
    config : dict
        What it takes to repeat it, from ``config.json``.
    history : Table of str to list of float
        A column a metric, from ``metrics.csv``, NaN where there is none; the rounds' numbers, ``round_num``, are ints.
    seconds : list of float
        Of each round's training, from ``timings.csv``; none if there is no such file.
    evaluation : dict
        Split -> metrics, from ``evaluation.json``; none if there is no such file.
    clients : Table
        A row per client and round, from ``clients.csv``; no columns if there is no such file.
    promise : str
        What noise promises after the last round; empty if there is none.
    """

    folder: Path
    config: dict[str, Any]
    history: Table
    seconds: list[float]
    evaluation: dict[str, dict[str, Any]]
    clients: Table
    promise: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def configuration(self) -> RunConfig:
        """The run's choices, as `fedsim-np train` has them; a `DataError` of a run that was stored otherwise."""
        return RunConfig.of(self.choices, str(self.folder / CONFIG))

    @property
    def weights(self) -> ModelWeights:
        """The final model's; a `DataError` if the run is not finished."""
        return load_weights(self.folder / WEIGHTS)

    @property
    def is_handwriting(self) -> bool:
        """Whether its examples are known to be characters on paper; data of one's own may be anything."""
        is_named = self.choices.get("data", "sample") in ("sample", "synthetic", "emnist")
        return is_named or self.config.get("command") == "tutorial"

    @property
    def rounds(self) -> int:
        """How many rounds were trained; an evaluation before the first is none."""
        return sum(number >= 1 for number in self.history["round_num"])

    @property
    def choices(self) -> dict[str, Any]:
        """What was chosen, by the names that ``fedsim-np train`` has for it, whichever command stored it."""
        choices = self.config.get("choices")
        if isinstance(choices, dict):
            return choices
        chosen = {key: value for key, value in self.config.items() if key not in ("command", "data")}
        for who in ("client", "server"):
            optimizer = chosen.get(f"{who}_optimizer")
            if isinstance(optimizer, dict):
                chosen[f"{who}_optimizer"] = optimizer.get("name")
                chosen[f"{who}_lr"] = optimizer.get("learning_rate")
        if chosen.get("algorithm") == "build_weighted_fed_avg":
            chosen["algorithm"] = "fedavg"
        return chosen


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run's folder.

    Parameters
    ----------
    folder : path-like
        Of ``fedsim-np train --out`` or ``fedsim-np tutorial --out``, or a run's below that of a study.

    Returns
    -------
    Run

    Raises
    ------
    DataError
        If it is no run's, or a file in it is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import fedsim_np as fed
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = fed.program.sweep({"rounds": 2}, {}, 1, folder, tell=None)
    ...     run = read_run(f"{folder}/seed=0")
    ...     run.history["round_num"], run.configuration.client_lr, [w.shape for w in run.weights.trainable]
    ([0, 1, 2], 0.02, [(784, 10), (10,)])
    """
    folder = Path(check_path("folder", folder))
    config, path, evaluated = folder / CONFIG, folder / LOGS[0], folder / EVALUATION
    if not config.is_file() or not path.is_file():
        raise data_error(f"must be a run's folder, with {CONFIG} and {LOGS[0]}", "none", path=folder)
    header, rows = read_table(path)
    if "round_num" not in header:
        raise data_error("must have a column 'round_num'", header, path=path)
    history = Table((name, [_float(path, name, row[name]) for row in rows]) for name in header if name != PROMISE[1])
    if not rows or not all(number.is_integer() and abs(number) < 1e15 for number in history["round_num"]):
        raise data_error("column 'round_num' must hold the rounds' numbers", "none, or others", path=path)
    history["round_num"] = [int(number) for number in history["round_num"]]
    path = folder / LOGS[2]
    names, timings = read_table(path)
    name = next((name for name in _SECONDS if name in names), None)
    told = [row[name] for row in timings if name is not None and row[name]]  # an evaluation before round 1 has none
    seconds = [_float(path, str(name), text) for text in told]
    trained = sum(number >= 1 for number in history["round_num"])
    if name is not None and (len(seconds) != trained or not all(0 <= value < 1e9 for value in seconds)):
        raise data_error("must hold the seconds of each round", "others", path=path)
    clients = _clients(folder / CLIENTS)
    evaluation = read_object(evaluated) if evaluated.is_file() else {}
    if not all(isinstance(metrics, dict) for metrics in evaluation.values()):
        raise data_error("must hold metrics for each split", "something else", path=evaluated)
    epsilon, meaning = (rows[-1].get(name, "") for name in PROMISE)
    promise = f"epsilon {epsilon} ({meaning})" * bool(epsilon)
    return Run(folder, read_object(config), history, seconds, evaluation, clients, promise)


def _clients(path: Path) -> Table:
    """Return a table of clients, a row a client and round; rounds of nobody have none."""
    header, rows = read_table(path)
    for size in (row.get("num_examples", "") for row in rows):
        if size and not (size.isascii() and size.isdecimal() and len(size) < 19):
            raise data_error("column 'num_examples' must hold counts", repr(size[:50]), path=path)
    rows = [row for row in rows if row.get("client_id") != ""]
    table = Table((name, values_of([row[name] for row in rows])) for name in header)
    if "client_id" in table:
        table["client_id"] = [text_of(row["client_id"]) for row in rows]
    return table


def read_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a run holds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # half a character, "\ud800", is JSON and no text
    except (ValueError, RecursionError) as error:
        raise data_error("must be JSON", error, path=path) from error
    if not isinstance(content, dict):
        raise data_error("must be a JSON object", type(content).__name__, path=path)
    return content


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return a CSV file's header and its rows by its names; none if there is no such file."""
    if not path.is_file():
        return [], []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise data_error("must be a CSV file", error, path=path) from error
    if not header or any(len(row) != len(header) for row in rows):
        raise data_error("must be a CSV file with as many cells in each row", "others", path=path)
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def _float(path: Path, name: str, text: str) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError as error:
        raise data_error(f"column '{name}' must hold numbers", repr(text[:50]), path=path) from error


def clear_pictures(folder: Path) -> None:
    """Remove the pictures that are stored with a run, and no other file."""
    index = folder / FIGURES / FIGURES_INDEX
    try:
        names = [entry["name"] for entry in json.loads(index.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        names = []
    index.unlink(missing_ok=True)
    for name in names:
        for ending in (".png", ".svg"):
            path = folder / FIGURES / f"{name}{ending}"
            if is_picture_name(name) and path.is_file():
                path.unlink()


def is_picture_name(name: object) -> bool:
    """Return whether a name may be that of a stored picture."""
    return isinstance(name, str) and name.replace("_", "").isalnum()
