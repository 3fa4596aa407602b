"""Several runs on one page: in what they differ, how they went, where they ended."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim_np.errors import DataError
from fedsim_np.files import write_text
from fedsim_np.report import page
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.stored import Run, read_run
from fedsim_np.texts import Texts
from fedsim_np.texts.numbers import column

_COSTS = {"round_num": "over_rounds", "communication/bytes_up": "over_bytes", "network/seconds": "over_seconds"}
_NOT_CHOICES = ("versions", "command_line", "client_ids")


def write_comparison(folders: Sequence[Path], path: Path, lang: str = "en") -> Path:
    """Make a page that compares stored runs, and return its path.

    Parameters
    ----------
    folders : sequence of Path
        Two or more runs' folders, see `read_run`.
    path : Path
        The file to make or to replace.
    lang : {"en", "es"}
        The language of the page.

    Raises
    ------
    DataError
        If one is no run's folder, or a file in it is damaged.
    """
    runs = [read_run(folder) for folder in folders]
    write_text(path, _page(runs, Texts(lang)), through_links=True)
    return path


def _page(runs: Sequence[Run], say: Texts) -> str:
    names = _names(runs)
    parts = [
        page.heading(say("heading_differ")),
        *_differences(runs, names, say),
        page.heading(say("heading_went")),
        *_curves(runs, names, say),
        page.heading(say("heading_ended")),
        _ends(runs, names, say),
    ]
    if any(run.evaluation for run in runs):
        parts.append(_evaluations(runs, names, say))
    return page.page(
        say("comparison_title"), say("comparison_lead", len(runs), names=", ".join(names)), parts, say.lang
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the folders' names, longer where two are the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key} / "))
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[prefix + key] = f"{text[:12]}..." if key == "sha256" else text
    return flat


def _differences(runs: Sequence[Run], names: Sequence[str], say: Texts) -> list[str]:
    configs = [
        _flat({k: v for k, v in {**_choices(run), "data": run.config.get("data")}.items() if k not in _NOT_CHOICES})
        for run in runs
    ]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    if not differing:
        return [page.paragraph(say("same_configurations"))]
    rows = [[key.replace("_", " "), *(config.get(key, say("not_set")) for config in configs)] for key in differing]
    return [page.table(say, [say("head_choice"), *names], rows)]


def _choices(run: Run) -> dict[str, Any]:
    """Return all that was chosen, also what a run does not store since it was not asked for, where that is known."""
    try:
        return dataclasses.asdict(run.configuration)
    except DataError:  # of another version
        return run.choices


def _curves(runs: Sequence[Run], names: Sequence[str], say: Texts) -> list[str]:
    histories = {name: run.history for name, run in zip(names, runs, strict=True)}
    ends = "; ".join(f"{name}: {_last(run, say)}" for name, run in zip(names, runs, strict=True))
    drawn = []
    for over, what in _COSTS.items():
        totals = {_mean(history.get(over, ())) for history in histories.values()}
        if over != "round_num" and (len(totals) < 2 or not all(over in history for history in histories.values())):
            continue  # where rounds cost the same it tells nothing that they do not
        alt = say("alt_comparison", len(runs), over=say(what), ends=ends)
        try:
            picture = Picture.of_curves(histories, alt, say, over)
        except ValueError as error:  # no run has a finite loss
            return [page.paragraph(say("nothing_to_draw", error=str(error)))]
        drawn.append(page.picture(picture.png, picture.alt, picture.caption, picture.width))
    return drawn


def _mean(column: Sequence[float]) -> float:
    values = [value for value in column if math.isfinite(value)]
    return sum(values) / max(len(values), 1)


def _last(run: Run, say: Texts) -> str:
    shown = [name for name in run.history if name.endswith(("/loss", "accuracy", "_error"))]
    return ", ".join(
        f"{say.name('metric', name.rsplit('/')[-1])} {_written(run.history[name], say)}" for name in shown[:2]
    )


def _ends(runs: Sequence[Run], names: Sequence[str], say: Texts) -> str:
    metrics = dict.fromkeys(name for run in runs for name in run.history if name != "round_num")
    rows: list[list[Any]] = [[say("metric_rounds"), *(run.rounds for run in runs)]]
    for metric in metrics:
        shown = say.metric(metric.removeprefix("client_work/"))
        rows.append([shown, *(_last_value(run.history.get(metric, [])) for run in runs)])
    return page.table(say, [say("head_metric"), *names], rows, say("last_metrics"))


def _last_value(values: Sequence[float]) -> float | str:
    return next((value for value in reversed(column(list(values))) if not math.isnan(value)), "-")


def _written(values: Sequence[float], say: Texts) -> str:
    last = _last_value(values)
    return last if isinstance(last, str) else say.number(last)


def _evaluations(runs: Sequence[Run], names: Sequence[str], say: Texts) -> str:
    found = dict.fromkeys(
        (split, metric) for run in runs for split, metrics in run.evaluation.items() for metric in metrics
    )
    rows = [
        [_named(split, metric, say), *(run.evaluation.get(split, {}).get(metric, "-") for run in runs)]
        for split, metric in found
    ]
    return page.table(say, [say("head_evaluation"), *names], rows, say("last_evaluation"))


def _named(split: str, metric: str, say: Texts) -> str:
    return say("split_metric", split=say.name("metric", split), metric=say.name("metric", metric))
