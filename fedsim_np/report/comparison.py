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
from fedsim_np.runs.stored import Run, read_run
from fedsim_np.texts.numbers import column, written

if TYPE_CHECKING:
    from fedsim_np.plots.legends import History

_COSTS = {"communication/bytes_up": "the bytes sent by clients", "network/seconds": "the simulated seconds"}
_NOT_CHOICES = ("versions", "command_line", "client_ids")


def write_comparison(folders: Sequence[Path], path: Path, defaults: Mapping[str, Any] | None = None) -> Path:
    """Make a page that compares stored runs, and return its path.

    Parameters
    ----------
    folders : sequence of Path
        Two or more runs' folders, see `read_run`.
    path : Path
        The file to make or to replace.
    defaults : mapping, optional
        What was chosen where a run of ``fedsim-np train`` does not say.

    Raises
    ------
    DataError
        If one is no run's folder, or a file in it is damaged.
    """
    runs = [read_run(folder) for folder in folders]
    write_text(path, _page(runs, defaults or {}), through_links=True)
    return path


def _page(runs: Sequence[Run], defaults: Mapping[str, Any]) -> str:
    names = _names(runs)
    parts = [
        page.heading("In what they differ"),
        *_differences(runs, names, defaults),
        page.heading("How they went"),
        *_curves(runs, names),
        page.heading("Where they ended"),
        _ends(runs, names),
    ]
    if any(run.evaluation for run in runs):
        parts.append(_evaluations(runs, names))
    return page.page("Federated learning: runs compared", f"{len(runs)} runs: {', '.join(names)}.", parts)


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


def _differences(runs: Sequence[Run], names: Sequence[str], defaults: Mapping[str, Any]) -> list[str]:
    configs = []
    for run in runs:
        unsaid = defaults if isinstance(run.config.get("choices"), dict) else {}
        told = {**unsaid, **run.choices}
        told.update((name, run.config[name]) for name in ("data", "privacy") if name in run.config)
        configs.append(_flat({name: value for name, value in told.items() if name not in _NOT_CHOICES}))
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    if not differing:
        return [page.paragraph("Their configurations are the same.")]
    rows = [[key.replace("_", " "), *(config.get(key, "not set") for config in configs)] for key in differing]
    return [page.table(["choice", *names], rows)]


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    ends = "; ".join(f"{name}: {_last(run)}" for name, run in zip(names, runs, strict=True))
    return curves({name: [run.history] for name, run in zip(names, runs, strict=True)}, ends)


def curves(histories: Mapping[str, Sequence[History]], ends: str, about: str = "") -> list[str]:
    """Return pictures of the curves of runs, or of means over several: over rounds, and over what these have cost.

    Parameters
    ----------
    histories : mapping of str to sequence of histories
    ends : str
        Where they ended, for those who cannot see the pictures.
    about : str
        What else is to be known of the pictures, beside them.
    """
    drawn: list[str] = []
    of_all = [history for runs in histories.values() for history in runs]
    for over, what in (("round_num", "the rounds"), *_COSTS.items()):
        if over != "round_num" and not _is_told_by(of_all, over):
            continue
        alt = f"Curves of loss and accuracy over {what} of {len(of_all)} runs. At the end, {ends}."
        try:
            picture = Picture.of_curves(histories, alt, over)
        except ValueError as error:  # no run has a finite loss
            return [*drawn, page.paragraph(f"Nothing to draw: {error}")]
        drawn.append(page.picture(picture.png, picture.alt, f"{picture.caption} {about}".strip(), picture.width))
    return drawn


def _is_told_by(histories: Sequence[History], column: str) -> bool:
    """Return whether all rounds of all runs have a finite cost, and not the same: that tells no more than rounds do."""
    costs = [[value for value in history.get(column, ()) if math.isfinite(value)] for history in histories]
    rounds = [sum(number >= 1 for number in history["round_num"]) for history in histories]
    means = {sum(of) / max(len(of), 1) for of in costs}
    return [len(of) for of in costs] == rounds and len(means) > 1


def _last(run: Run) -> str:
    shown = [name for name in run.history if name.endswith(("/loss", "accuracy", "_error"))]
    return ", ".join(f"{name.rsplit('/')[-1].replace('_', ' ')} {_written(run.history[name])}" for name in shown[:2])


def _ends(runs: Sequence[Run], names: Sequence[str]) -> str:
    metrics = dict.fromkeys(name for run in runs for name in run.history if name != "round_num")
    rows: list[list[Any]] = [["rounds", *(run.rounds for run in runs)]]
    for metric in metrics:
        shown = metric.removeprefix("client_work/").replace("/", " ").replace("_", " ")
        rows.append([shown, *(_last_value(run.history.get(metric, [])) for run in runs)])
    return page.table(["metric", *names], rows, "Metrics of the last round that has them")


def _last_value(values: Sequence[float]) -> float | str:
    return next((value for value in reversed(column(list(values))) if not math.isnan(value)), "-")


def _written(values: Sequence[float]) -> str:
    last = _last_value(values)
    return last if isinstance(last, str) else written(last)


def _evaluations(runs: Sequence[Run], names: Sequence[str]) -> str:
    found = dict.fromkeys(
        (split, metric) for run in runs for split, metrics in run.evaluation.items() for metric in metrics
    )
    rows = [
        [f"{split}: {metric.replace('_', ' ')}", *(run.evaluation.get(split, {}).get(metric, "-") for run in runs)]
        for split, metric in found
    ]
    return page.table(["evaluation", *names], rows, "Evaluation of the final model")
