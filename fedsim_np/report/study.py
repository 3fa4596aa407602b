"""A study on one page: what varied, how its settings went over seeds, two parameters at a time, which was best."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsim_np.files import check_own, write_text
from fedsim_np.report import page
from fedsim_np.report.comparison import about_evaluation, curves
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.grid import Grid, Planned, shown
from fedsim_np.runs.stored import PAGE, Run, read_run
from fedsim_np.runs.study import DONE, LOSS, RESULTS, SWEEP, Measure, Study, main_measure, read_study
from fedsim_np.texts import Texts

_MOST_LINES, _OF_WORST = 7, 2  # as many as there are colours
_MOST_ROWS = 40
_MOST_MAPS = 3


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


def write_study_report(folder: Path, lang: str = "en") -> Path:
    """Make the page of a study from what is stored in its folder, and return its path.

    Parameters
    ----------
    folder : Path
    lang : {"en", "es"}
        The language of the page and its figures.

    Raises
    ------
    DataError
        If it is no study's folder, or a file in it is damaged.
    """
    check_own(folder / PAGE)
    write_text(folder / PAGE, _page(read_study(folder), Texts(lang)))
    return folder / PAGE


def _page(study: Study, say: Texts) -> str:
    grid = study.grid
    measures = {main_measure(run.config) for run in grid.runs}
    judge = measures.pop() if len(measures) == 1 else LOSS
    settings = _settings(study, judge, say)
    ranked = sorted(settings, key=_rank(judge))
    about = about_evaluation({setting.label: setting.runs for setting in settings}, say)
    done = sum(row["status"] == DONE for row in study.rows)
    lead = say("study_lead", runs=len(study.rows), settings=len(settings), seeds=_seeds(grid, say))
    lead += say("study_lead_done", done=done) if done < len(study.rows) else "."
    parts = [
        page.heading(say("heading_varied")),
        *_varied(study, say),
        page.heading(say("heading_went")),
        *_curves(ranked, judge, about, say),
        *_maps(grid, settings, judge, about, say),
        page.heading(say("heading_best")),
        *_best(grid, ranked, judge, about, say),
        page.heading(say("heading_repeat_study")),
        page.paragraph(say("command_of_study", file=SWEEP)),
        page.code(json.dumps(grid.mapping, indent=2)),
    ]
    return page.page(say("study_title", name=study.folder.resolve().name), lead, parts, say.lang)


def _rank(judge: Measure) -> Callable[[_Setting], tuple[bool, float]]:
    """Return what sorts settings, the best first, and last what is no number."""
    return lambda setting: (math.isnan(setting.mean), -judge.sign * setting.mean)


def _seeds(grid: Grid, say: Texts) -> str:
    return say("seeds", len({run.config.seed for run in grid.runs}))


def _settings(study: Study, judge: Measure, say: Texts) -> list[_Setting]:
    found: dict[str, _Setting] = {}
    for planned, row in zip(study.grid.runs, study.rows, strict=True):
        label = study.grid.label(planned) or say("all_runs")
        setting = found.setdefault(label, _Setting(label, planned, [], [], {}))
        if row["status"] == DONE:
            setting.rows.append(row)
            setting.runs.append(read_run(study.folder / planned.name))
            final = row[f"final_{judge.name}"]
            is_number = final is not None and math.isfinite(final)
            setting.by_seed[planned.config.seed] = final if is_number else math.nan
    return list(found.values())


def _varied(study: Study, say: Texts) -> Iterator[str]:
    grid = study.grid
    values = {key: dict.fromkeys(shown(run.varied[key]) for run in grid.runs if key in run.varied) for key in grid.keys}
    rows = [[key, ", ".join(of)] for key, of in values.items()]
    rows.append(["seed", ", ".join(dict.fromkeys(shown(run.config.seed) for run in grid.runs))])
    yield page.table(say, [say("head_choice"), say("head_values")], rows, say("runs_differ_in"))
    fixed = {key: value for key, value in grid.mapping.items() if not isinstance(value, dict | list)}
    fixed.pop("seeds", None)
    if fixed:
        rows = [[key, shown(value)] for key, value in fixed.items()]
        yield page.table(say, [say("head_choice"), say("head_value")], rows, say("runs_have"))
    if study.broken:
        rows = [[name, reason] for name, reason in study.broken.items()]
        yield page.table(say, [say("head_run"), say("head_why")], rows, say("runs_broke"))


def _curves(ranked: Sequence[_Setting], judge: Measure, about: str, say: Texts) -> list[str]:
    drawn = [setting for setting in ranked if setting.runs]
    caption = about
    if len(drawn) > _MOST_LINES:
        best = _MOST_LINES - _OF_WORST
        caption = say("best_and_worst", len(drawn), best=best, worst=_OF_WORST) + " " + about
        drawn = drawn[:best] + drawn[-_OF_WORST:]
    metric = say.name("metric", judge.name)
    ends = "; ".join(f"{setting.label}: {metric} {_text(setting.mean, say)}" for setting in drawn)
    histories = {setting.label: [run.history for run in setting.runs] for setting in drawn}
    return curves(histories, ends, say, caption)


def _maps(grid: Grid, settings: Sequence[_Setting], judge: Measure, about: str, say: Texts) -> Iterator[str]:
    """Yield a heat map for each pair of parameters: in a cell the best setting there is of it."""
    from fedsim_np import plots

    seeds, quantity = _seeds(grid, say), _quantity(judge, say)
    varying = [axis for axis in grid.axes if len({_value(axis, setting.planned) for setting in settings}) > 1]
    for pair in itertools.islice(itertools.combinations(varying, 2), _MOST_MAPS):
        cells: dict[tuple[str, ...], _Setting] = {}
        for setting in sorted(settings, key=_rank(judge), reverse=True):  # the best is the last to be put there
            cells[tuple(_value(axis, setting.planned) for axis in pair)] = setting
        names = tuple(axis[0] if all(axis[0] in run.varied for run in grid.runs) else say("case") for axis in pair)
        rows, columns = (list(dict.fromkeys(_value(axis, setting.planned) for setting in settings)) for axis in pair)
        means, spreads = (
            [[getattr(cells.get((row, column)), of, math.nan) for column in columns] for row in rows]
            for of in ("mean", "spread")
        )
        label = say("mean_and_sd", what=quantity, seeds=seeds) if np.isfinite(spreads).any() else quantity
        figure = plots.heat_map(
            means,
            rows,
            columns,
            names=(names[0], names[1]),
            label=label,
            spreads=spreads,
            lower_is_better=judge.sign < 0,
            lang=say.lang,
        )
        told = [say("caption_map", what=quantity, seeds=seeds), *[say("best_of_cell")] * (len(varying) > 2), about]
        alt = "; ".join(
            f"{names[0]} {row}, {names[1]} {column}: {_text(of.mean, say)}" for (row, column), of in cells.items()
        )
        picture = Picture.of(figure, "heat_map", "rounds", alt, " ".join(told), say.lang)
        yield page.picture(picture.png, picture.alt, picture.caption, picture.width)


def _value(axis: Sequence[str], run: Planned) -> str:
    """Return what a run has of a parameter; of a case of several keys, the first stands for itself."""
    values = {key: shown(run.varied[key]) for key in axis if key in run.varied}
    return ", ".join(value if key == axis[0] else f"{key}={value}" for key, value in values.items()) or "-"


def _best(grid: Grid, ranked: Sequence[_Setting], judge: Measure, about: str, say: Texts) -> Iterator[str]:
    most = max(len(setting.runs) for setting in ranked)
    whole = [setting for setting in ranked if len(setting.runs) == most and not math.isnan(setting.mean)]
    if not whole:
        yield page.paragraph(say("none_is_finite", metric=say.name("metric", judge.name)))
    else:
        yield page.paragraph(_words(whole, judge, say))
        yield page.paragraph(say("chosen_by_test"))
        yield from map(page.paragraph, _at_an_end(grid, whole[0], say))
    yield _table(grid, ranked, judge, about, say)
    yield page.paragraph(say("row_for_each", file=RESULTS))


def _words(whole: Sequence[_Setting], judge: Measure, say: Texts) -> str:
    best, *others = whole
    ends = {"least": _text(min(best.finals), say), "greatest": _text(max(best.finals), say)}
    told = {"label": best.label, "metric": say.name("metric", judge.name), "value": _text(best.mean, say)}
    first = say("final_over_seeds" if len(best.finals) > 1 else "final_of", len(best.finals), **told, **ends)
    if not others:
        return f"{first}."
    second, ours, theirs = others[0], best.by_seed, others[0].by_seed
    common = ours.keys() & theirs.keys()
    better = sum(judge.sign * (ours[seed] - theirs[seed]) > 0 for seed in common)
    words = say("best_of", len(whole), first=first, second=second.label, value=_text(second.mean, say))
    words += say("better_at_same_seed", len(common), better=better)
    return words if better == len(ours) else words + " " + say("not_told_apart")


def _at_an_end(grid: Grid, best: _Setting, say: Texts) -> Iterator[str]:
    """Yield a sentence for each number of the best setting that is the least or greatest that was tried."""
    for (key,) in (axis for axis in grid.axes if len(axis) == 1):
        values = {run.varied[key] for run in grid.runs if key in run.varied}
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < max(2, len(values)) or key not in best.planned.varied:
            continue
        for end, of in (("at_greatest", max(numbers)), ("at_least", min(numbers))):
            if best.planned.varied[key] == of:
                yield say(end, key=key, value=shown(of))


def _table(grid: Grid, ranked: Sequence[_Setting], judge: Measure, about: str, say: Texts) -> str:
    header = [say("head_setting"), say("head_runs"), _quantity(judge, say)]
    header += [say("head_sd"), say("head_least"), say("head_greatest")]
    costs = "head_reached", "head_rounds_to", "head_megabytes_to"
    header += [say(what, target=shown(of)) for of in grid.targets for what in costs]
    rows = []
    for setting in ranked[:_MOST_ROWS]:
        ends = (math.nan,) * 2 if math.isnan(setting.mean) else (min(setting.finals), max(setting.finals))
        cells: list[Any] = [len(setting.runs), setting.mean, setting.spread, *ends]
        for target in map(shown, grid.targets):
            there = [row for row in setting.rows if row[f"rounds_to_{target}"] is not None]
            rounds, sent = ([row[f"{cost}_to_{target}"] for row in there] for cost in ("rounds", "bytes_up"))
            cells.append(say("some_of_all", some=len(there), all=len(setting.rows)))
            cells += [statistics.fmean(rounds), statistics.fmean(sent) / 1e6] if there else ["-", "-"]
        rows.append([setting.label, *cells])
    told = [say("settings_ranked") if len(ranked) <= _MOST_ROWS else say("settings_ranked_part", rows=_MOST_ROWS)]
    told += [say("costs_of_reaching")] * bool(grid.targets)
    return page.table(say, header, rows, " ".join((*told, about)))


def _quantity(judge: Measure, say: Texts) -> str:
    return say("final_metric", metric=say.name("metric", judge.name))


def _text(value: float, say: Texts) -> str:
    return say("no_finite_number") if math.isnan(value) else say.number(value)
