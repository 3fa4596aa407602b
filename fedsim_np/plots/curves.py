"""Metrics over rounds, of one run or of several compared.

A *history* is what `fedsim_np.program.MemoryLogger` keeps: a mapping of columns, ``round_num`` and one a metric, NaN
where a round did not report it (an evaluation every tenth round, say). Lines join the values that there are.

Training metrics are measured before each step, while the local models move: they are a round behind the evaluation of
the round's new weights, and the title of their axes says so.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, argument_type_error, data_error, did_you_mean
from fedsim_np.plots.canvas import Canvas, figure_or_new, panels, whole
from fedsim_np.plots.checks import as_list
from fedsim_np.plots.legends import History
from fedsim_np.plots.style import SMALL, dress, fill_band, line_style, literal, whole_numbers

_ROUND = "round_num"
_COSTS = {
    _ROUND: "round",
    "communication/bytes_up": "bytes that clients have sent",
    "communication/bytes_down": "bytes that clients were sent",
    "network/seconds": "seconds, simulated",
}


def learning_curves(
    histories: Mapping[str, History | Sequence[History]],
    metrics: Iterable[str] | None = None,
    *,
    band: str = "range",
    over: str = "round_num",
    figure: Canvas | None = None,
) -> Figure:
    """Draw loss and accuracy over rounds, or over what these have cost so far.

    Parameters
    ----------
    histories : mapping of str to history, or to a list of histories
        Legend text -> a run, or runs that differ in their seed: their mean is a line, their spread a band. A round
        that not all of these runs reported is left out.
    metrics : iterable of str, optional
        Columns to draw, each in axes of its own. By default every loss and accuracy that is in a history; an
        evaluation's totals over all rounds are not.
    band : {"range", "sd"}
        What a band shows: least to greatest of the runs, or one standard deviation (n - 1) on either side.
    over : str
        A column whose sum up to a round is drawn to the right, such as "communication/bytes_up" or "network/seconds";
        the rounds themselves by default. Where runs of one line differ in it, it is their mean. The scale is
        logarithmic if some line's end is ten times as far as another's.
    figure : matplotlib Figure or SubFigure, optional

    Returns
    -------
    Figure
        One legend, below the curves, says how many runs a line is the mean of. Losses share a scale, accuracies do, and
        so do the rounds.

    Raises
    ------
    DataError
        If a history has no such column, no ``round_num``, or values that are not numbers.

    Examples
    --------
    >>> runs = {"lr=0.02": [{"round_num": [1, 2], "loss": [2.0, 1.5]}, {"round_num": [1, 2], "loss": [1.0, 1.5]}]}
    >>> figure = learning_curves(runs)
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[0].get_ylabel()
    ([1.5, 1.5], 'loss (nats)')
    """
    if not isinstance(histories, Mapping) or not histories:
        raise argument_type_error("histories", "a mapping of legend texts to histories", histories)
    if not isinstance(band, str) or band not in ("range", "sd"):
        raise argument_error("band", "one of ['range', 'sd']", band)
    runs = {str(text): _as_runs(value) for text, value in histories.items()}
    if len(runs) < len(histories):
        raise argument_error("histories", "a mapping of different texts to histories", list(histories))
    columns = _default_metrics(runs) if metrics is None else as_list("metrics", metrics, "columns' names")
    if not columns or not all(isinstance(column, str) for column in columns):
        raise argument_error("metrics", "columns of the histories, at least one", columns)
    curves = {metric: _curves(runs, metric, over) for metric in columns}
    ends = [rounds.max() for of in curves.values() for _, rounds, values in of.values() if rounds.any()]
    is_wide = over != _ROUND and bool(ends) and max(ends) >= 10 * min(ends)
    wide = min(2, len(columns))
    rows = math.ceil(len(columns) / wide)
    drawn = figure_or_new(figure, 4.6 * wide + 0.4, 3.0 * rows + 0.3 * math.ceil(len(runs) / wide) + 0.2)
    is_regression = any(str(name).endswith(_SQUARES) for of in runs.values() for run in of for name in run)
    same_scale: dict[str, Axes] = {}
    handles: dict[str, Any] = {}
    for metric, axes in zip(columns, panels(drawn, len(columns), wide), strict=True):
        title, quantity = _texts(metric, is_regression)
        # Before anything is drawn: scales that are shared later are the first axes' own.
        for shared, share in (("round", axes.sharex), (quantity, axes.sharey)):
            if shared in same_scale:
                share(same_scale[shared])
            same_scale.setdefault(shared, axes)
        for text, (style, rounds, values) in curves[metric].items():
            count = len(values)
            of = f" (mean of {count} runs)" if count > 1 else ""
            label, every = literal(text) + of, max(1, len(rounds) // 12)  # of hundreds of points, a dozen have markers
            (line,) = axes.plot(rounds, values.mean(axis=0), **style, label=label, markevery=every)
            handles.setdefault(label, line)
            if count > 1:
                fill_band(axes, rounds.tolist(), *_edges(values, band), color=style["color"], alpha=0.2)
        dress(axes, literal(title), literal(_COSTS.get(over, over)), literal(quantity))
        if is_wide:
            axes.set_xscale("log", nonpositive="mask")
        elif over == _ROUND:
            whole_numbers(axes.xaxis)
    if len(handles) > 1 or any(len(of) > 1 for of in runs.values()):
        shown = {"range": "least to greatest", "sd": "one standard deviation"}[band]
        caption = f"bands: {shown} of the runs" if any(len(of) > 1 for of in runs.values()) else None
        _legend(drawn, handles, wide, caption)
    return whole(drawn)


def _legend(drawn: Canvas, handles: Mapping[str, Any], wide: int, caption: str | None) -> None:
    legend = drawn.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center" if drawn.get_layout_engine() is not None else "lower center",
        ncols=wide if max(map(len, handles)) < 50 else 1,
        fontsize=SMALL,
        frameon=False,
        handlelength=3.6,
        title=caption,
        title_fontsize=SMALL,
    )
    legend.set_in_layout(True)


def _as_runs(value: History | Sequence[History]) -> list[History]:
    is_several = isinstance(value, Iterable) and not isinstance(value, Mapping | np.ndarray)
    runs = [value] if isinstance(value, Mapping) else list(value) if is_several else []
    if not runs or not all(isinstance(run, Mapping) for run in runs):
        rule = "a mapping of legend texts to histories or lists of histories (MemoryLogger.history)"
        raise argument_type_error("histories", rule, value)
    for run in runs:
        if _ROUND not in run:
            raise data_error(f"a history must have the column '{_ROUND}'", list(run))
    return runs


def _default_metrics(runs: Mapping[str, Sequence[History]]) -> list[str]:
    """Return the columns of losses and accuracies, training first, a loss and its accuracy side by side."""
    names = dict.fromkeys(name for of in runs.values() for run in of for name in run if isinstance(name, str))
    wanted = [n for n in names if _texts(n)[1] != _leaf(n) and "total_rounds_metrics" not in n]
    groups = list(dict.fromkeys(n.rpartition("/")[0] for n in wanted))
    groups.sort(key=lambda group: f"{group}/".startswith("evaluation/"))
    return sorted(wanted, key=lambda n: (groups.index(n.rpartition("/")[0]), _leaf(n) != "loss"))


_SQUARES = "mean_squared_error"  # where it is, the loss is regression's


def _leaf(metric: str) -> str:
    return metric.rpartition("/")[2]


def _texts(metric: str, is_regression: bool = False) -> tuple[str, str]:
    """Return a title and the quantity's name with its unit."""
    leaf, group = _leaf(metric), metric.rpartition("/")[0]
    loss = "loss" if is_regression else "loss (nats)"
    quantity = loss if leaf == "loss" else "accuracy (share correct)" if "accuracy" in leaf else leaf
    quantity = _SQUARES.replace("_", " ") if leaf == _SQUARES else quantity
    if group == "client_work/train":
        return "Training, before each step", quantity
    if metric.startswith("evaluation/"):
        return "Evaluation, after the round", quantity
    return group or leaf.replace("_", " ").capitalize(), quantity


Curve = tuple[dict[str, Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Style, rounds (r,) and values (runs, r)."""


def _curves(runs: Mapping[str, Sequence[History]], metric: str, over: str) -> dict[str, Curve]:
    """Return the curves of a metric: the rounds that all runs of a text reported, or what they have cost by then."""
    curves: dict[str, Curve] = {}
    for number, (text, of) in enumerate(runs.items()):
        reported = [_reported(run, metric) for run in of if metric in run]
        if not reported:
            continue
        if len(reported) < len(of):
            raise data_error(f"all histories of '{text}' must have '{metric}'", f"{len(reported)} of {len(of)}")
        common = sorted(set(reported[0]).intersection(*reported))
        values = np.array([[run[r] for r in common] for run in reported]).reshape(len(of), len(common))
        places = np.array(common, np.float64)
        if over != _ROUND:
            totals = [_totals(run, over, text) for run in of]
            places = np.array([[of_run[r] for r in common] for of_run in totals]).reshape(values.shape).mean(axis=0)
        curves[text] = line_style(number), places, values
    if not any(np.isfinite(values).any() for _, _, values in curves.values()):
        names = dict.fromkeys(name for of in runs.values() for run in of for name in run if isinstance(name, str))
        hint = "" if metric in names else did_you_mean(metric, names)
        raise data_error(f"a history must have values of '{metric}', in rounds that its runs share", "none", hint=hint)
    return curves


def _reported(run: History, metric: str) -> dict[float, float]:
    """Return round -> value, where there is one; one that is infinite breaks the line, as NaN does in matplotlib."""
    rounds, values = (_numbers(run[name], name) for name in (_ROUND, metric))
    if len(values) != len(rounds):
        raise data_error("a history's columns must have the same length", [len(rounds), len(values)], field=metric)
    if not all(map(math.isfinite, rounds)) or len(set(rounds)) < len(rounds):
        raise data_error("a history's rounds must be different finite numbers", rounds[:10], field=_ROUND)
    shown = ((r, value) for r, value in zip(rounds, values, strict=True) if not math.isnan(value))
    return {r: value if math.isfinite(value) else math.nan for r, value in shown}


def _totals(run: History, column: str, text: str) -> dict[float, float]:
    """Return round -> the sum of a column's values up to it; a round without one adds nothing."""
    if column not in run:
        raise data_error(f"all histories must have '{column}', to be drawn over it", f"'{text}' without")
    costs, rounds = _reported(run, column), sorted(_numbers(run[_ROUND], _ROUND))
    wrong = [value for value in costs.values() if not value >= 0]  # an infinite one is NaN here
    if wrong:
        raise data_error("what curves are drawn over must be finite and >= 0", wrong[0], field=column)
    return dict(zip(rounds, np.cumsum([costs.get(r, 0.0) for r in rounds]).tolist(), strict=True))


def _numbers(column: Any, name: str) -> list[float]:
    is_one = isinstance(column, str | Mapping) or (isinstance(column, np.ndarray) and not column.ndim)
    if is_one or not isinstance(column, Iterable):
        raise data_error("a history's columns must be lists", f"a {type(column).__name__}", field=name)
    return [_number(value, name) for value in column]


def _number(value: Any, name: str) -> float:
    """Return a value as a float; of a file it is a text, and empty where there was none."""
    if value is None or (isinstance(value, str) and not value):
        return math.nan
    plain = value.item() if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0 else value
    try:
        if not isinstance(plain, numbers.Real | str) or "_" in str(plain):
            raise TypeError
        return float(plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise data_error("a history's values must be numbers", repr(value)[:50], field=name) from error


def _edges(values: npt.NDArray[np.float64], band: str) -> tuple[Any, Any]:
    if band == "range":
        return values.min(axis=0), values.max(axis=0)
    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
    return mean - deviation, mean + deviation
