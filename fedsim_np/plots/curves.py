"""Metrics over rounds, of one run or of several compared.

A *history* is what `fedsim_np.program.MemoryLogger` keeps: a mapping of columns, ``round_num`` and one a metric, NaN
where a round did not report it (an evaluation every tenth round, say). Lines join the values that there are.

Training metrics are measured before each step, while the local models move: they are a round behind the evaluation of
the round's new weights, and the title of their axes says so.
"""

from __future__ import annotations

import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from fedsim_np.errors import argument_error, argument_type_error, data_error, did_you_mean
from fedsim_np.plots.canvas import Canvas, columns_that_fit, figure_or_new, panels, whole
from fedsim_np.plots.checks import as_list
from fedsim_np.plots.legends import History
from fedsim_np.plots.style import LINE, SMALL, dress, fill_band, fold, letters_in, line_style, literal, whole_numbers

_ROUND = "round_num"
_BYTES = "communication/bytes_up", "communication/bytes_down"
_HANDLE = 7  # letters as wide as a line's look in the legend
_COSTS = {
    _ROUND: "round",
    "communication/bytes_up": "bytes that clients have sent",
    "communication/bytes_down": "bytes that clients were sent",
    "network/seconds": "seconds, simulated",
}

Curve = tuple[dict[str, Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Style, rounds (r,) and values (runs, r)."""


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
        so do the rounds. That of losses is logarithmic if one is more than 100 times as large as their median.

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
    runs, columns = _checked(histories, metrics, band)
    curves = {metric: _curves(runs, metric, over) for metric in columns}
    ends = [rounds.max() for of in curves.values() for _, rounds, values in of.values() if rounds.any()]
    is_wide = over != _ROUND and bool(ends) and max(ends) >= 10 * min(ends)
    wide = min(2, len(columns))
    rows = math.ceil(len(columns) / wide)
    drawn = figure_or_new(figure, 8.0 if wide > 1 else 5.0, 2.7 * rows)
    legend = _Legend.of({text: len(of) for text, of in runs.items()}, band, drawn.bbox.width / drawn.dpi)
    if figure is None and isinstance(drawn, Figure):
        drawn.set_figheight(max(2.7 * rows, 1.2 * legend.height) + legend.height)
    wide = columns_that_fit(drawn, wide, 2.8)
    is_regression = any(str(name).endswith(_SQUARES) for of in runs.values() for run in of for name in run)
    far_apart = _far_apart(curves, is_regression)
    same_scale: dict[str, Axes] = {}
    handles: dict[str, Any] = {}
    for metric, axes in zip(columns, panels(drawn, len(columns), wide), strict=True):
        quantity = _quantity(metric, is_regression)
        # Before anything is drawn: scales that are shared later are the first axes' own.
        for shared, share in (("round", axes.sharex), (quantity, axes.sharey)):
            if shared in same_scale:
                share(same_scale[shared])
            same_scale.setdefault(shared, axes)
        for text, (style, rounds, values) in curves[metric].items():
            every = max(1, len(rounds) // 12)  # of hundreds of points, a dozen have markers
            (line,) = axes.plot(rounds, values.mean(axis=0), **style, label=literal(text), markevery=every)
            handles.setdefault(text, line)
            if len(values) > 1:
                fill_band(axes, rounds.tolist(), *_edges(values, band), color=style["color"], alpha=0.2)
        dress(axes, literal(_title(metric)), literal(_COSTS.get(over, over)), literal(quantity))
        if quantity in far_apart:
            axes.set_yscale("log", nonpositive="mask")
        if is_wide:
            axes.set_xscale("log", nonpositive="mask")
        if over in _BYTES:
            axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        elif over == _ROUND:
            whole_numbers(axes.xaxis)
    legend.draw(drawn, handles)
    return whole(drawn)


def _checked(histories: Any, metrics: Any, band: str) -> tuple[dict[str, list[History]], list[str]]:
    """Return runs by text, and columns."""
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
    return runs, columns


def _far_apart(curves: Mapping[str, Mapping[str, Curve]], is_regression: bool) -> set[str]:
    """Return the quantities, but for accuracies, of which some value would flatten all others."""
    found: dict[str, list[Any]] = {}
    for metric, of in curves.items():
        found.setdefault(_quantity(metric, is_regression), []).extend(
            values.reshape(-1) for _, _, values in of.values()
        )
    far = set()
    for quantity, parts in found.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if "accuracy" not in quantity and values.min() > 0 and values.max() > 100 * np.median(values):
            far.add(quantity)
    return far


class _Legend(NamedTuple):
    """A legend below the curves: texts that are wrapped to the figure's width, in as many columns as go into it."""

    texts: dict[str, str]
    columns: int
    caption: str | None
    is_drawn: bool

    @classmethod
    def of(cls, counts: Mapping[str, int], band: str, width: float) -> _Legend:
        """Make the legend of lines that are means of so many runs, for so many inches."""
        caption, are_alike = None, len(set(counts.values())) == 1
        if max(counts.values()) > 1:
            shown = {"range": "least to greatest", "sd": "one standard deviation"}[band]
            means = f"means of {next(iter(counts.values()))} runs" if are_alike else "means"
            caption = f"{means}; bands: {shown} of the runs"
            caption = fold(caption, width, SMALL)
        room = letters_in(width, SMALL)
        texts = {}
        for text, count in counts.items():
            of = f" ({count} runs)" if count > 1 and not are_alike else ""
            texts[text] = "\n".join(textwrap.wrap(text + of, max(10, room - _HANDLE))) or text
        lengths = [max(map(len, text.split("\n"))) + _HANDLE for text in texts.values()]
        fitting = (n for n in range(len(lengths), 1, -1) if sum(map(max, np.array_split(lengths, n))) <= room)
        columns = next(fitting, 1)
        return cls(texts, columns, caption, len(counts) > 1 or caption is not None)

    @property
    def height(self) -> float:
        """In inches."""
        lines = sum(text.count("\n") + 1 for text in self.texts.values()) / self.columns
        return LINE * (math.ceil(lines) + (self.caption or "").count("\n") + 2) * self.is_drawn

    def draw(self, drawn: Canvas, handles: Mapping[str, Any]) -> None:
        """Draw it, of those texts that have a line."""
        if not self.is_drawn:
            return
        legend = drawn.legend(
            list(handles.values()),
            [literal(self.texts[text]) for text in handles],
            loc="outside lower center" if drawn.get_layout_engine() is not None else "lower center",
            ncols=self.columns,
            fontsize=SMALL,
            frameon=False,
            handlelength=2.8,
            handletextpad=0.6,
            columnspacing=1.0,
            labelspacing=0.3,
            title=self.caption,
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
    wanted = [n for n in names if _is_judged(n) and "total_rounds_metrics" not in n]
    groups = list(dict.fromkeys(n.rpartition("/")[0] for n in wanted))
    groups.sort(key=lambda group: f"{group}/".startswith("evaluation/"))
    return sorted(wanted, key=lambda n: (groups.index(n.rpartition("/")[0]), _leaf(n) != "loss"))


_SQUARES = "mean_squared_error"  # where it is, the loss is regression's


def _is_judged(metric: str) -> bool:
    """Return whether a metric is a loss or an accuracy."""
    leaf = _leaf(metric)
    return leaf in ("loss", _SQUARES) or "accuracy" in leaf


def _leaf(metric: str) -> str:
    return metric.rpartition("/")[2]


def _quantity(metric: str, is_regression: bool = False) -> str:
    """Return the quantity's name with its unit."""
    leaf = _leaf(metric)
    if leaf == "loss":
        return "loss" if is_regression else "loss (nats)"
    return "accuracy (share correct)" if "accuracy" in leaf else leaf.replace("_", " ")


def _title(metric: str) -> str:
    """Return what is measured, of what, and when."""
    leaf, group = _leaf(metric), metric.rpartition("/")[0]
    what = "accuracy" if "accuracy" in leaf else leaf.replace("_", " ")
    if group == "client_work/train":
        return f"Training {what}, before each step"
    if metric.startswith("evaluation/"):
        return f"Evaluation {what}, after a round"
    return f"{group}: {what}" if group else what.capitalize()


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
