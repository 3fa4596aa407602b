"""Many runs: every one of a grid, some at a time, each in a folder of its own; what is there already is not run again.

A study may be killed at any moment: the same call goes on with it, and ends with the same table. What one run dies of
is said of that run, and the others go on.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedsim_np.errors import CommandError, argument_error, argument_type_error, check_int, check_path
from fedsim_np.files import check_own, folder_of
from fedsim_np.learning import end_with_parent
from fedsim_np.learning.engines.host import one_blas_thread
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.folder import locked, read_stored
from fedsim_np.runs.grid import Grid, Planned
from fedsim_np.runs.stored import CONFIG
from fedsim_np.runs.study import (
    BROKEN,
    DONE,
    RESULTS,
    SWEEP,
    TO_DO,
    Study,
    is_done,
    main_measure,
    reason_of,
    row_of,
    write_sweep,
)
from fedsim_np.runs.training import differing, train

_ENDED = "its process ended (killed, or not enough memory?)"
_NOT_BEGUN = (
    "the processes of 'executor' must begin, and ended before they did: were they killed, or is it a script that is no "
    "file, or calls sweep without if __name__ == '__main__': before it? 'serial' needs no processes."
)
_BETWEEN_WRITES = 1.0  # seconds
_MOST_PROCESSES = 61 if sys.platform == "win32" else 1024

Workers = Executor | int | Literal["serial"]
Outcome = tuple[Planned, str | None]
"""A run and why it broke: empty if it did not, None if its process ended."""


def sweep(
    choices: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    seeds: int | Sequence[int],
    out: str | os.PathLike[str],
    *,
    cases: Sequence[Mapping[str, Any]] = (),
    targets: Sequence[float] = (),
    executor: Workers = "serial",
    tell: Callable[[str], object] | None = print,
) -> Study:
    """Train every run of a grid, each in a folder below `out`, and write ``results.csv`` there.

    Runs that are there and whole are skipped; others go on from where they are. A grid may have grown since: more
    values, cases, seeds, rounds, targets. The same choices and values give the same table, whoever computes it,
    and however often it was interrupted.

    Parameters
    ----------
    choices : mapping
        What all runs have, by the names of `fedsim_np.runs.config.RunConfig`.
    grid : mapping of str to sequence
        Choice -> its values, of which every combination is run.
    seeds : int or sequence of int
        How many, from 0 on, or which.
    out : path-like
        The study's folder.
    cases : sequence of mappings
        Each sets several choices at once, such as an algorithm and its parameters.
    targets : sequence of float
        Accuracies: how many rounds and bytes each run took to reach them.
    executor : "serial", int or concurrent.futures.Executor
        Who trains: this process; so many new ones (of a script, below ``if __name__ == "__main__":``, as always with
        them); or the executor's workers, who must see the same folder. Each run takes one thread.
    tell : callable, optional
        Is given a line for every run that has ended.

    Returns
    -------
    Study
        With the table's rows; `Study.broken` names the runs that broke.

    Raises
    ------
    DataError
        If a choice is none, out of its range, or changes nothing in any run that it is given for: nothing was run then.
    CommandError
        If there is something else in the folder, or runs with other choices, or another process is at work there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = sweep({"rounds": 2}, {"client_lr": [0.02, 0.1]}, 1, folder, targets=[0.01], tell=None)
    >>> [(row["client_lr"], row["status"], row["rounds_to_0.01"]) for row in study.rows]
    [(0.02, 'done', 0), (0.1, 'done', 0)]
    """
    own = {"grid": grid, "cases": cases, "seeds": seeds, "targets": targets}
    if not isinstance(choices, Mapping):
        raise argument_type_error("choices", "a mapping", choices)
    if twice := [key for key in own if key in choices]:
        raise argument_error("choices", f"a run's alone: {', '.join(own)} are arguments", twice[0])
    planned = Grid.of(_plain({**choices, **own}))
    planned.check_effect()
    return run_grid(planned, Path(check_path("out", out)), executor, tell or (lambda line: None))


def _plain(value: Any) -> Any:
    """Return what a file could hold: lists for ranges, tuples and NumPy's arrays, Python's numbers for NumPy's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple | range) else value


def run_grid(grid: Grid, out: Path, executor: Workers, tell: Callable[[str], object]) -> Study:
    """Train every run of a grid; the arguments are those of `sweep`."""
    folder = folder_of("out", str(out)).absolute()
    is_workers = executor == "serial" or isinstance(executor, Executor)
    if not is_workers and (isinstance(executor, str) or check_int("executor", executor, minimum=1) > _MOST_PROCESSES):
        raise argument_type_error("executor", f"'serial', an Executor, or a count up to {_MOST_PROCESSES}", executor)
    _check_study_folder(folder)
    for run in grid.runs:
        _check_same(folder, run)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"another process is at work in '{folder}'"):
        for abandoned in (path for name in (SWEEP, RESULTS) for path in folder.glob(f".{name}.*.tmp")):
            abandoned.unlink()  # of a process that was killed
        write_sweep(folder, grid)
        done = {run.name for run in grid.runs if is_done(folder, run)}
        rows = {run.name: row_of(grid, run, folder, DONE if run.name in done else TO_DO) for run in grid.runs}
        study = Study(folder, grid, list(rows.values()))
        to_do = deque(run for run in grid.runs if run.name not in done)
        tell(f"{len(rows)} runs in {out}" + f", {len(done)} of them done already" * bool(done))
        started = written = time.monotonic()
        study.write()
        try:
            with contextlib.closing(_outcomes(to_do, folder, executor)) as outcomes:
                for ended, (run, reason) in enumerate(outcomes, 1):
                    status = DONE if reason == "" else f"{BROKEN}{_ENDED if reason is None else reason}"
                    rows[run.name].update(row_of(grid, run, folder, status))
                    now = time.monotonic()
                    left = len(rows) - len(done) - ended
                    tell(_line(rows[run.name], run, len(done) + ended, len(rows), (now - started) / ended * left))
                    if now - written > _BETWEEN_WRITES:
                        study.write()
                        written = time.monotonic()
        finally:
            study.write()
    if to_do:
        raise CommandError(f"the executor has broken with {len(to_do)} runs to do: the same call goes on.")
    return study


def _line(row: Mapping[str, Any], run: Planned, ended: int, count: int, seconds: float) -> str:
    measure = main_measure(run.config)
    final = row[f"final_{measure.name}"]
    what = row["status"] if row["status"] != DONE else "" if final is None else f"{measure.name} {final:.4f}"
    left = f"{datetime.timedelta(seconds=round(seconds))} left" if ended < count else ""
    return "  ".join(filter(None, [f"{ended:{len(str(count))}d} of {count}", run.name, what, left]))


def _check_study_folder(folder: Path) -> None:
    """Refuse a folder with something else in it."""
    for name in (SWEEP, RESULTS):
        check_own(folder / name)
    others = [] if not folder.is_dir() else [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others and SWEEP not in others:
        raise CommandError(f"'{folder}' must be a new folder, an empty one or a study's. Got one with {others[0]}.")


def _check_same(folder: Path, run: Planned) -> None:
    """Refuse a run by the same name with other choices, and a link; what is damaged is said when it goes on."""
    place = folder / run.name
    check_own(place, folder=True)
    if not (place / CONFIG).is_file():
        return
    others: list[str] = []
    with contextlib.suppress(ValueError, OSError):
        others = differing(run.config, read_stored(place))
    if others:
        what = f"'{place}' is there with other choices than this grid's: {', '.join(others)}"
        raise CommandError(f"{what}. Take another folder for the study, or remove that one.")


def _outcomes(to_do: deque[Planned], folder: Path, executor: Workers) -> Generator[Outcome, None, None]:
    """Yield each run as it ends."""
    if isinstance(executor, Executor):
        yield from _ended(to_do, folder, executor, len(to_do))
    elif executor == "serial":
        yield from _ended(to_do, folder, _Here(), 1)
    else:
        yield from _by_processes(to_do, folder, int(executor))


def _by_processes(to_do: deque[Planned], folder: Path, count: int) -> Generator[Outcome, None, None]:
    """Yield each run as it ends, in processes; where one of them has ended, the runs under way are tried one by one."""
    suspected: deque[Planned] = deque()
    context = multiprocessing.get_context("spawn")
    while to_do or suspected:
        alone = bool(suspected)
        these = deque([suspected.popleft()]) if alone else to_do
        begun = context.Event()
        with _processes(min(count, len(these)), context, begun) as pool:
            for run, reason in _ended(these, folder, pool, count):
                if reason is None and not begun.is_set():
                    raise CommandError(_NOT_BEGUN)
                if reason is None and not alone:
                    suspected.append(run)
                else:
                    yield run, reason


def _ended(to_do: deque[Planned], folder: Path, executor: Executor, at_once: int) -> Generator[Outcome, None, None]:
    """Yield each run as it ends, so many under way; what is left in `to_do` when the executor breaks stays there."""
    under_way: dict[Future[str], Planned] = {}
    is_broken = False
    try:
        while under_way or (to_do and not is_broken):
            while to_do and len(under_way) < at_once and not is_broken:
                try:
                    under_way[executor.submit(_train, to_do[0].config, str(folder / to_do[0].name))] = to_do[0]
                    to_do.popleft()
                except BrokenExecutor:
                    is_broken = True
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                run = under_way.pop(future)
                try:
                    yield run, future.result()
                except BrokenExecutor:
                    is_broken = True
                    yield run, None
                except Exception as error:  # an executor's own, of a worker that was lost
                    yield run, reason_of(error)
    finally:
        for future in under_way:
            future.cancel()


def _train(config: RunConfig, folder: str) -> str:
    """Train a run, or go on with it; return why it broke, or an empty text. This is what travels to a worker."""
    try:
        with one_blas_thread():
            train(config, Path(folder), resume=True, executor="serial")
    except Exception as error:  # data, a full disk, an algorithm of one's own: the others go on
        return reason_of(error)
    return ""


class _Here(Executor):
    """An executor that does at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextlib.contextmanager
def _processes(count: int, context: SpawnContext, begun: Event) -> Iterator[Executor]:
    """Give new processes, which are killed if something is raised: their runs go on another time."""
    before = set(multiprocessing.active_children())
    pool = _Processes(count, mp_context=context, initializer=_begin, initargs=(begun,))
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Processes(ProcessPoolExecutor):
    """New processes that Ctrl-C waits for while they are made: they inherit that until they `_begin`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it done, by a new process if need be."""
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(begun: Event) -> None:
    """Make a process one that trains: it ends with its parent, which alone is told of Ctrl-C."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun.set()
