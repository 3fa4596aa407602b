"""Several runs on one page: in what they differ, how they went, where they ended."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim_np.files import write_text
from fedsim_np.report import page
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.config import OF_UPDATES, RunConfig
from fedsim_np.runs.stored import Run, read_run
from fedsim_np.texts import Texts
from fedsim_np.texts.numbers import column

if TYPE_CHECKING:
    from fedsim_np.plots.legends import History

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
    defaults = {name: getattr(RunConfig, name) for name in OF_UPDATES}  # where a run of `train` does not say
    configs = []
    for run in runs:
        unsaid = defaults if isinstance(run.config.get("choices"), dict) else {}
        told = {**unsaid, **run.choices}
        told.update((name, run.config[name]) for name in ("data", "privacy") if name in run.config)
        if isinstance(told.get("privacy"), str):
            told["privacy"] = say.promise(told["privacy"])
        configs.append(_flat({name: value for name, value in told.items() if name not in _NOT_CHOICES}))
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    if not differing:
        return [page.paragraph(say("same_configurations"))]
    rows = [[say.name("choice", key), *(config.get(key, say("not_set")) for config in configs)] for key in differing]
    return [page.table(say, [say("head_choice"), *names], rows)]


def _curves(runs: Sequence[Run], names: Sequence[str], say: Texts) -> list[str]:
    ends = "; ".join(f"{name}: {_last(run, say)}" for name, run in zip(names, runs, strict=True))
    about = about_evaluation({name: [run] for name, run in zip(names, runs, strict=True)}, say)
    return curves({name: [run.history] for name, run in zip(names, runs, strict=True)}, ends, say, about)


def curves(histories: Mapping[str, Sequence[History]], ends: str, say: Texts, about: str = "") -> list[str]:
    """Return pictures of the curves of runs, or of means over several: over rounds, and over what these have cost.

    Parameters
    ----------
    histories : mapping of str to sequence of histories
    ends : str
        Where they ended, for those who cannot see the pictures.
    say : Texts
    about : str
        What else is to be known of the pictures, beside them.
    """
    drawn: list[str] = []
    of_all = [history for runs in histories.values() for history in runs]
    for over, what in _COSTS.items():
        if over != "round_num" and not _is_told_by(of_all, over):
            continue
        alt = say("alt_comparison", len(of_all), over=say(what), ends=ends)
        try:
            picture = Picture.of_curves(histories, alt, say, over)
        except ValueError as error:  # no run has a finite loss
            return [*drawn, page.paragraph(say("nothing_to_draw", error=str(error)))]
        drawn.append(page.picture(picture.png, picture.alt, f"{picture.caption} {about}".strip(), picture.width))
    return drawn


def about_evaluation(runs: Mapping[str, Sequence[Run]], say: Texts) -> str:
    """Say whether all runs were evaluated on the same clients: else their figures do not compare.

    Parameters
    ----------
    runs : mapping of str to sequence of Run
        What they are called -> runs, of which some may share a name.
    say : Texts
    """
    told = [(name, *_tested_on(run)) for name, of in runs.items() for run in of]
    names = {clients: name for name, clients, _ in told}
    if len(names) > 1:
        first, second, *_ = names.values()
        return say("tested_on_others", first=first, second=second)
    return say("tested_by_seed" if len({seed for *_, seed in told}) > 1 else "tested_on_the_same")


def _tested_on(run: Run) -> tuple[str, str]:
    """Return on which clients a run was evaluated; and, where these are drawn from its seed, the seed."""
    choices, data = run.choices, run.config.get("data")
    is_first = choices.get("sampling") == "first" or run.config.get("command") == "tutorial"
    chosen = is_first, choices.get("clients" if is_first else "evaluation_clients")
    test = data.get("test") if isinstance(data, dict) else None
    if isinstance(test, dict):
        return repr((test.get("sha256"), chosen)), ""
    return repr((choices.get("data"), choices.get("population"), chosen)), repr(choices.get("seed"))


def _is_told_by(histories: Sequence[History], column: str) -> bool:
    """Return whether all rounds of all runs have a finite cost, and not the same: that tells no more than rounds do."""
    costs = [[value for value in history.get(column, ()) if math.isfinite(value)] for history in histories]
    rounds = [sum(number >= 1 for number in history["round_num"]) for history in histories]
    means = {sum(of) / max(len(of), 1) for of in costs}
    return [len(of) for of in costs] == rounds and len(means) > 1


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
