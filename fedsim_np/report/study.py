"""A study on one page: what varied, how its settings went over seeds, two parameters at a time, which was best."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.files import check_own, write_text
from fedsim_np.report import page
from fedsim_np.report.comparison import curves
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.grid import Grid, Planned, shown
from fedsim_np.runs.stored import PAGE, Run, read_run
from fedsim_np.runs.study import DONE, LOSS, RESULTS, SWEEP, Measure, Study, main_measure, read_study
from fedsim_np.texts import Texts

_MOST_LINES, _OF_WORST = 7, 2  # as many as there are colours
_MOST_ROWS = 40
_MOST_MAPS = 3
_SAY = Texts()  # in English


@dataclass(frozen=True)
class _Setting:
    """Runs that differ in their seed alone, as far as they are done."""

    label: str
    planned: Planned
    rows: list[dict[str, Any]]
    runs: list[Run]
    by_seed: dict[int, float]

    @property
    def finals(self) -> list[float]:
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        return statistics.fmean(self.finals) if self.finals else math.nan

    @property
    def spread(self) -> float:
        is_one = len(self.finals) > 1 and math.isfinite(self.mean)
        return statistics.stdev(self.finals) if is_one else math.nan


def write_study_report(folder: Path) -> Path:
    """Make the page of a study from what is stored in its folder, and return its path.

    Raises
    ------
    DataError
        If it is no study's folder, or a file in it is damaged.
    """
    check_own(folder / PAGE)
    write_text(folder / PAGE, _page(read_study(folder)))
    return folder / PAGE


def _page(study: Study) -> str:
    grid = study.grid
    measures = {main_measure(run.config) for run in grid.runs}
    judge = measures.pop() if len(measures) == 1 else LOSS
    settings = _settings(study, judge)
    ranked = sorted(settings, key=_rank(judge))
    about = _test_clients(settings)
    done = sum(row["status"] == DONE for row in study.rows)
    lead = f"{len(study.rows)} runs: {len(settings)} settings, {_seeds(grid)} of each"
    lead += f"; {done} of the runs are done." if done < len(study.rows) else "."
    parts = [
        page.heading("What varied"),
        *_varied(study),
        page.heading("How they went"),
        *_curves(ranked, judge, about),
        *_maps(grid, settings, judge, about),
        page.heading("Which was best"),
        *_best(grid, ranked, judge, about),
        page.heading("To repeat it"),
        page.paragraph(f"fedsim-np sweep {SWEEP} --out another, with {SWEEP} of this folder, which is:"),
        page.code(json.dumps(grid.mapping, indent=2)),
    ]
    return page.page(f"Federated learning: the study {study.folder.resolve().name}", lead, parts)


def _rank(judge: Measure) -> Callable[[_Setting], tuple[bool, float]]:
    """Return what sorts settings, the best first, and last what is no number."""
    return lambda setting: (math.isnan(setting.mean), -judge.sign * setting.mean)


def _seeds(grid: Grid) -> str:
    count = len({run.config.seed for run in grid.runs})
    return f"{count} seeds" if count > 1 else "one seed"


def _settings(study: Study, judge: Measure) -> list[_Setting]:
    found: dict[str, _Setting] = {}
    for planned, row in zip(study.grid.runs, study.rows, strict=True):
        label = study.grid.label(planned)
        setting = found.setdefault(label, _Setting(label, planned, [], [], {}))
        if row["status"] == DONE:
            setting.rows.append(row)
            setting.runs.append(read_run(study.folder / planned.name))
            final = row[f"final_{judge.name}"]
            is_number = final is not None and math.isfinite(final)
            setting.by_seed[planned.config.seed] = final if is_number else math.nan
    return list(found.values())


def _varied(study: Study) -> Iterator[str]:
    grid = study.grid
    values = {key: dict.fromkeys(shown(run.varied[key]) for run in grid.runs if key in run.varied) for key in grid.keys}
    rows = [[key, ", ".join(of)] for key, of in values.items()]
    rows.append(["seed", ", ".join(dict.fromkeys(shown(run.config.seed) for run in grid.runs))])
    yield page.table(_SAY, ["choice", "values"], rows, "What the runs differ in")
    fixed = {key: value for key, value in grid.mapping.items() if not isinstance(value, dict | list)}
    fixed.pop("seeds", None)
    if fixed:
        yield page.table(
            _SAY, ["choice", "value"], [[key, shown(value)] for key, value in fixed.items()], "What all have"
        )
    if study.broken:
        rows = [[name, reason] for name, reason in study.broken.items()]
        yield page.table(_SAY, ["run", "why"], rows, "Runs that broke: they are in none of the figures")


def _curves(ranked: Sequence[_Setting], judge: Measure, about: str) -> list[str]:
    drawn = [setting for setting in ranked if setting.runs]
    caption = about
    if len(drawn) > _MOST_LINES:
        best = _MOST_LINES - _OF_WORST
        caption = f"Of {len(drawn)} settings the {best} best and the {_OF_WORST} worst. {about}"
        drawn = drawn[:best] + drawn[-_OF_WORST:]
    ends = "; ".join(f"{setting.label}: {judge.name} {_text(setting.mean)}" for setting in drawn)
    histories = {setting.label: [run.history for run in setting.runs] for setting in drawn}
    return curves(histories, ends, _SAY, caption)


def _maps(grid: Grid, settings: Sequence[_Setting], judge: Measure, about: str) -> Iterator[str]:
    """Yield a heat map for each pair of parameters: in a cell the best setting there is of it."""
    from fedsim_np import plots

    seeds, quantity = _seeds(grid), f"final {judge.words}"
    varying = [axis for axis in grid.axes if len({_value(axis, setting.planned) for setting in settings}) > 1]
    for pair in itertools.islice(itertools.combinations(varying, 2), _MOST_MAPS):
        cells: dict[tuple[str, ...], _Setting] = {}
        for setting in sorted(settings, key=_rank(judge), reverse=True):  # the best is the last to be put there
            cells[tuple(_value(axis, setting.planned) for axis in pair)] = setting
        names = tuple(axis[0] if all(axis[0] in run.varied for run in grid.runs) else "case" for axis in pair)
        rows, columns = (list(dict.fromkeys(_value(axis, setting.planned) for setting in settings)) for axis in pair)
        means, spreads = (
            [[getattr(cells.get((row, column)), of, math.nan) for column in columns] for row in rows]
            for of in ("mean", "spread")
        )
        label = f"{quantity}, mean ± sd of {seeds}" if np.isfinite(spreads).any() else quantity
        figure = plots.heat_map(
            means,
            rows,
            columns,
            names=(names[0], names[1]),
            label=label,
            spreads=spreads,
            lower_is_better=judge.sign < 0,
        )
        caption = f"The {quantity} of each pair: the mean over {seeds}, and below it the standard deviation (n - 1). "
        caption += "In each cell is the best over all other keys. " * (len(varying) > 2)
        alt = "; ".join(
            f"{names[0]} {row}, {names[1]} {column}: {_text(of.mean)}" for (row, column), of in cells.items()
        )
        picture = Picture.of(figure, "heat_map", "rounds", alt, caption + about)
        yield page.picture(picture.png, picture.alt, picture.caption, picture.width)


def _value(axis: Sequence[str], run: Planned) -> str:
    """Return what a run has of a parameter; of a case of several keys, the first stands for itself."""
    values = {key: shown(run.varied[key]) for key in axis if key in run.varied}
    return ", ".join(value if key == axis[0] else f"{key}={value}" for key, value in values.items()) or "-"


def _best(grid: Grid, ranked: Sequence[_Setting], judge: Measure, about: str) -> Iterator[str]:
    most = max(len(setting.runs) for setting in ranked)
    whole = [setting for setting in ranked if len(setting.runs) == most and not math.isnan(setting.mean)]
    if not whole:
        yield page.paragraph(f"No setting has a finite {judge.words} in all of its runs.")
    else:
        yield page.paragraph(_words(whole, judge))
        yield page.paragraph(
            "It was chosen by the test clients' own figure, which therefore flatters it, the more the more settings "
            "were tried: what it is worth, other clients or other seeds can tell."
        )
        yield from map(page.paragraph, _at_an_end(grid, whole[0]))
    yield _table(grid, ranked, judge, about)
    yield page.paragraph(f"{RESULTS} beside this page has a row for each run.")


def _words(whole: Sequence[_Setting], judge: Measure) -> str:
    best, *others = whole
    words = f"{best.label}: a final {judge.words} of {_text(best.mean)}"
    if len(best.finals) > 1:
        words += f", the mean over {len(best.finals)} seeds ({_text(min(best.finals))} to {_text(max(best.finals))})"
    if not others:
        return f"{words}."
    second = others[0]
    words += f", is the best of {len(whole)} settings. The next, {second.label}, has {_text(second.mean)}"
    ours, theirs = best.by_seed, second.by_seed
    better = sum(judge.sign * (ours[seed] - theirs[seed]) > 0 for seed in ours.keys() & theirs.keys())
    words += f"; at the same seed the first was better {better} of {len(ours.keys() & theirs.keys())} times."
    return words + " So these runs do not tell the two apart." * (better < len(ours))


def _at_an_end(grid: Grid, best: _Setting) -> Iterator[str]:
    """Yield a sentence for each number of the best setting that is the least or greatest that was tried."""
    for (key,) in (axis for axis in grid.axes if len(axis) == 1):
        values = {run.varied[key] for run in grid.runs if key in run.varied}
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < max(2, len(values)) or key not in best.planned.varied:
            continue
        for end, of in (("greater", max(numbers)), ("smaller", min(numbers))):
            if best.planned.varied[key] == of:
                yield f"Its {key}, {shown(of)}, is at the end of those that were tried: {end} ones may be better."


def _table(grid: Grid, ranked: Sequence[_Setting], judge: Measure, about: str) -> str:
    header = ["setting", "runs", f"final {judge.words}", "sd", "least", "greatest"]
    header += [what.format(shown(of)) for of in grid.targets for what in ("reached {}", "rounds to {}", "MB up to {}")]
    rows = []
    for setting in ranked[:_MOST_ROWS]:
        ends = (math.nan,) * 2 if math.isnan(setting.mean) else (min(setting.finals), max(setting.finals))
        cells: list[Any] = [len(setting.runs), *map(_number, (setting.mean, setting.spread, *ends))]
        for target in map(shown, grid.targets):
            there = [row for row in setting.rows if row[f"rounds_to_{target}"] is not None]
            rounds, sent = ([row[f"{cost}_to_{target}"] for row in there] for cost in ("rounds", "bytes_up"))
            cells.append(f"{len(there)} of {len(setting.rows)}")
            cells += [_number(statistics.fmean(rounds)), _number(statistics.fmean(sent) / 1e6)] if there else ["-", "-"]
        rows.append([setting.label, *cells])
    caption = f"Means over seeds, the best first{f', the first {_MOST_ROWS}' * (len(ranked) > _MOST_ROWS)}. "
    caption += "Rounds and megabytes (of all clients) are means over the runs that reached the target. " * bool(
        grid.targets
    )
    return page.table(_SAY, header, rows, caption + about)


def _number(value: float) -> float | str:
    return "-" if math.isnan(value) else float(f"{value:.4g}")


def _text(value: float) -> str:
    return "no finite number" if math.isnan(value) else f"{value:.4g}"


def _test_clients(settings: Sequence[_Setting]) -> str:
    """Say whether all were evaluated on the same clients: else their figures do not compare."""
    by_seed: dict[Any, dict[Any, str]] = {}
    for setting in settings:
        for run in setting.runs:
            by_seed.setdefault(run.choices.get("seed"), {})[_tested_on(run.config, run.choices)] = setting.label
    apart = next((of for of in by_seed.values() if len(of) > 1), None)
    if apart is not None:
        first, second, *_ = apart.values()
        return (
            f"Warning: not all settings were evaluated on the same test clients ({first} and {second} were not): what "
            "differs here is not the settings' doing alone."
        )
    if len({tested for of in by_seed.values() for tested in of}) > 1:
        return "Every seed draws clients of its own, for training and test; for one seed all settings have the same."
    return "All runs were evaluated on the same test clients."


def _tested_on(config: Mapping[str, Any], choices: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two runs have in common that were evaluated on the same clients."""
    data = config.get("data")
    test = data.get("test") if isinstance(data, dict) else None
    size = choices.get("evaluation_clients")
    if isinstance(test, dict):
        return test.get("sha256"), size
    return choices.get("data"), choices.get("population"), choices.get("seed"), size
