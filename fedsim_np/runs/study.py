"""A study's folder: a folder a run, and of each a row of figures in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fedsim_np.errors import data_error
from fedsim_np.files import check_own, write_text
from fedsim_np.runs.config import MODELS, RunConfig, read_config_file
from fedsim_np.runs.folder import read_stored
from fedsim_np.runs.grid import Grid, Planned, shown
from fedsim_np.runs.stored import CONFIG, EVALUATION, LOGS, PROMISE, WEIGHTS, check_run_folder, read_object, read_table
from fedsim_np.runs.updates import NONE
from fedsim_np.tables import cell_of, csv_lines

SWEEP, RESULTS = "sweep.json", "results.csv"
_MOST_OF_SWEEP = 2**20  # bytes
DONE, TO_DO = "done", "to do"
BROKEN = "broken: "
"""With the reason after it."""

_UP, _SECONDS = "communication/bytes_up", "network/seconds"


class Measure(NamedTuple):
    """A metric by which runs are compared.

    Attributes
    ----------
    name : str
        In the names of columns.
    leaves : tuple of str
        The metric's own names.
    sign : int
        1 if more is better, -1 if less is.
    """

    name: str
    leaves: tuple[str, ...]
    sign: int

    def reported(self, log: Iterable[Mapping[str, str]], group: str) -> list[tuple[int, float]]:
        """Return (round, value) where a log has one, NaN as well."""
        paths = [f"{group}/{leaf}" for leaf in self.leaves]
        return [(int(row["round_num"]), float(row[path])) for row in log for path in paths if row.get(path)]

    def best(self, reported: Iterable[tuple[int, float]]) -> tuple[int, float] | tuple[None, None]:
        """Return the best of finite values, and the first round that had it."""
        finite = [(round_num, value) for round_num, value in reported if math.isfinite(value)]
        return max(finite, key=lambda of: self.sign * of[1], default=(None, None))


ACCURACY = Measure("accuracy", ("sparse_categorical_accuracy", "accuracy"), 1)
SQUARES = Measure("mean_squared_error", ("mean_squared_error",), -1)
LOSS = Measure("loss", ("loss",), -1)


def main_measure(config: RunConfig) -> Measure:
    """Return by what a run is judged: accuracy, or the squared error where labels are numbers."""
    return ACCURACY if MODELS[config.model].classifies else SQUARES


@dataclass(frozen=True)
class Study:
    """The runs of a grid, as far as they have come.

    Attributes
    ----------
    folder : Path
    grid : Grid
    rows : list of dict
        A row a run, in the grid's order, as in ``results.csv``; None where there is nothing to say:

        ``run``, what varied, ``seed``; ``status``: "done", "broken: " and why, or "to do"; ``rounds``; of ``accuracy``
        (where labels are numbers, of ``mean_squared_error``) and of ``loss`` the ``final_`` and the ``best_`` of the
        evaluations, the first round that had the best, and ``train_``: of the last round's training. ``epsilon``, if
        there is noise. For each target ``rounds_to_``, ``bytes_up_to_`` and, where there is a network,
        ``seconds_to_`` it; None where it was never reached.
    """

    folder: Path
    grid: Grid
    rows: list[dict[str, Any]]

    @property
    def broken(self) -> dict[str, str]:
        """The runs that broke -> why."""
        is_broken = (row for row in self.rows if row["status"].startswith(BROKEN))
        return {row["run"]: row["status"].removeprefix(BROKEN) for row in is_broken}

    def write(self) -> None:
        """Write ``results.csv``, whole or not at all."""
        header = map(cell_of, columns(self.grid))
        write_text(self.folder / RESULTS, csv_lines([header, *(map(_cell, row.values()) for row in self.rows)]))


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(shown(value).split())
    text = text.encode("utf-8", "backslashreplace").decode()  # a path need not be text
    return cell_of(text) if isinstance(value, str) else text


def _measures(grid: Grid) -> list[Measure]:
    return [*dict.fromkeys(main_measure(run.config) for run in grid.runs), LOSS]


def columns(grid: Grid) -> list[str]:
    """Return the names of a study's columns, which follow from the grid alone."""
    figures = ["final_{}", "best_{}", "best_{}_round"]
    names = [pattern.format(measure.name) for measure in _measures(grid) for pattern in figures]
    names += [f"train_{measure.name}" for measure in _measures(grid)]
    names += ["epsilon"] * any(run.config.noise_multiplier for run in grid.runs)
    has_clock = any(run.config.network != NONE for run in grid.runs)
    costs = ["rounds_to_{}", "bytes_up_to_{}", *["seconds_to_{}"] * has_clock]
    names += [pattern.format(shown(target)) for target in grid.targets for pattern in costs]
    return ["run", *grid.keys, "seed", "status", "rounds", *names]


def row_of(grid: Grid, run: Planned, folder: Path, status: str) -> dict[str, Any]:
    """Return a run's row: its figures if it is done, from its folder in a study's."""
    row: dict[str, Any] = dict.fromkeys(columns(grid))
    row.update({key: value for key, value in run.varied.items() if key not in run.config.unused})
    row.update(run=run.name, status=status)
    if status == DONE:
        try:
            check_run_folder(folder / run.name)
            row.update(_figures(grid, run.config, read_table(folder / run.name / LOGS[0])[1], row))
        except (ValueError, KeyError, OSError) as error:
            row["status"] = BROKEN + reason_of(error)
    return row


def reason_of(error: BaseException) -> str:
    """Return why a run broke, in one line."""
    text = " ".join(str(error).split()) or ("not enough memory" if isinstance(error, MemoryError) else "no reason")
    return text if isinstance(error, ValueError | OSError | MemoryError) else f"{type(error).__name__}: {text}"


def _figures(grid: Grid, config: RunConfig, log: Sequence[Mapping[str, str]], names: Iterable[str]) -> dict[str, Any]:
    """Return what a log says, of the columns with these names."""
    if not log:
        raise ValueError(f"{LOGS[0]} has no rows")
    found: dict[str, Any] = {"rounds": int(log[-1]["round_num"]), "epsilon": float(log[-1].get(PROMISE[0]) or "nan")}
    for measure in (main_measure(config), LOSS):
        evaluated = measure.reported(log, "evaluation")
        round_num, best = measure.best(evaluated)
        trained = measure.reported(log, "client_work/train")
        found[f"final_{measure.name}"] = evaluated[-1][1] if evaluated else None
        found[f"best_{measure.name}"], found[f"best_{measure.name}_round"] = best, round_num
        found[f"train_{measure.name}"] = trained[-1][1] if trained else None
    judge = main_measure(config)
    for target in grid.targets:
        reaching = (at for at, value in judge.reported(log, "evaluation") if judge.sign * (value - target) >= 0)
        reached = next(reaching, None)
        if reached is None:
            continue
        until, text = [row for row in log if int(row["round_num"]) <= reached], shown(target)
        found[f"rounds_to_{text}"] = reached
        found[f"bytes_up_to_{text}"] = sum(int(row[_UP]) for row in until if row.get(_UP))
        if config.network != NONE:
            found[f"seconds_to_{text}"] = math.fsum(float(row[_SECONDS]) for row in until if row.get(_SECONDS))
    return {name: found[name] for name in names if name in found}


def is_done(folder: Path, run: Planned) -> bool:
    """Return whether a run is whole in its folder below a study's; what is wrong with one shows when it goes on."""
    place = folder / run.name
    if not all((place / name).is_file() for name in (CONFIG, WEIGHTS, EVALUATION)):
        return False
    try:
        check_run_folder(place)
        read_object(place / EVALUATION)  # which is written last
        there: int = read_stored(place)["choices"]["rounds"]
        log = read_table(place / LOGS[0])[1]
        return there == run.config.rounds == int(log[-1]["round_num"])
    except (ValueError, LookupError, OSError):
        return False


def write_sweep(folder: Path, grid: Grid) -> None:
    """Write what a study varies, in the form of a file of a grid."""
    write_text(folder / SWEEP, json.dumps(grid.mapping, indent=2) + "\n", durable=True)


def read_study(folder: Path) -> Study:
    """Read a study's folder.

    Raises
    ------
    DataError
        If it is no study's, or its ``sweep.json`` or ``results.csv`` is damaged.
    """
    for name in (SWEEP, RESULTS):
        check_own(folder / name)
    path = str(folder / SWEEP)
    grid = Grid.of(read_config_file(path, _MOST_OF_SWEEP), path)
    told = {row.get("run"): row.get("status", TO_DO) for row in read_table(folder / RESULTS)[1]}
    rows = []
    for run in grid.runs:
        check_own(folder / run.name, folder=True)
        if not (status := DONE * is_done(folder, run)):
            before = told.get(run.name, TO_DO)
            status = before if before.startswith(BROKEN) else TO_DO
        rows.append(row_of(grid, run, folder, status))
    if not any(row["status"] == DONE for row in rows):
        raise data_error("must be a study's folder with a finished run", "none", path=folder)
    return Study(folder, grid, rows)
