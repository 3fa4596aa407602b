"""What a round costs: time, and bytes between server and clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, check_int, check_type, data_error
from fedsim_np.files import unit_of_bytes
from fedsim_np.learning.models import ModelWeights
from fedsim_np.plots.canvas import Canvas, columns_that_fit, figure_or_new, panels, whole
from fedsim_np.plots.checks import checked_rounds, finite_array
from fedsim_np.plots.style import BLUE, ORANGE, SMALL, VERMILION, dress, foreground, inches, whole_numbers
from fedsim_np.texts.numbers import amount, written

_MOST_BARS = 60  # that have gaps between them
_MANY_MEDIANS = 20  # beyond them a scale is logarithmic


class RoundBytes(NamedTuple):
    """Bytes of a round.

    Attributes
    ----------
    down : int
        From the server to all clients of the round.
    up : int
        From these clients to the server.
    """

    down: int
    up: int


def bytes_of_round(weights: ModelWeights, num_clients: int, num_absent: int = 0) -> RoundBytes:
    """Return the bytes that a round of federated averaging would move over a network.

    Every client gets all weights and sends back an update of the trainable ones. Its weight and its metrics, a few
    numbers, are not counted, and nothing is compressed. (A simulation moves none of these bytes.)

    Parameters
    ----------
    weights : ModelWeights
    num_clients : int
        Clients of the round, >= 0.
    num_absent : int
        How many of them got the weights and sent nothing back.

    Returns
    -------
    RoundBytes

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> bytes_of_round(SoftmaxRegression().initial_weights(), num_clients=10)
    RoundBytes(down=314000, up=314000)
    >>> bytes_of_round(SoftmaxRegression().initial_weights(), num_clients=10, num_absent=2)
    RoundBytes(down=314000, up=251200)
    """
    check_type("weights", weights, ModelWeights, "ModelWeights")
    k = check_int("num_clients", num_clients, minimum=0)
    trainable, fixed = (sum(np.asarray(array).nbytes for array in part) for part in weights)
    if check_int("num_absent", num_absent, minimum=0) > k:
        raise argument_error("num_absent", f"at most num_clients, {k}", num_absent)
    return RoundBytes(k * (trainable + fixed), (k - num_absent) * trainable)


def round_costs(
    seconds: npt.ArrayLike,
    bytes_per_round: RoundBytes | Sequence[RoundBytes] | None = None,
    rounds: Iterable[int] | None = None,
    *,
    figure: Canvas | None = None,
) -> Figure:
    """Draw the time of each round, and the bytes that it would move.

    Parameters
    ----------
    seconds : array-like, shape (r,)
        Wall time of each round, such as ``history["training_time_in_seconds"]``.
    bytes_per_round : RoundBytes, or sequence of r of them, optional
        Of all rounds alike, or of each, see `bytes_of_round`. Without it only times are drawn.
    rounds : iterable of int, optional
        The rounds' numbers; by default 1, 2, ...
    figure : matplotlib Figure or SubFigure, optional

    Returns
    -------
    Figure
        With one or two axes: time in ms, bytes in kB, MB or GB (powers of 1,000). A first round of twice the time of
        every other, which reads the data and starts what there is to start, is told at the upper edge, and the scale is
        that of the others. If one of these takes 20 times as long as the median, it is logarithmic.

    Raises
    ------
    DataError
        If a time or a number of bytes is not a finite number >= 0.

    Examples
    --------
    >>> figure = round_costs([0.004, 0.005], RoundBytes(314000, 314000))
    >>> figure.axes[0].lines[0].get_ydata().tolist(), figure.axes[1].get_ylabel()
    ([4.0, 5.0], 'kB of the round')
    """
    times = 1e3 * _at_least_zero("seconds", finite_array("seconds", seconds, 1, "(r,)"))
    numbers = checked_rounds(rounds, len(times))
    moved = None
    if bytes_per_round is not None:
        try:
            moved = np.asarray(bytes_per_round, np.float64)
        except (TypeError, ValueError):
            moved = np.empty(0)
        if moved.shape == (2,):
            moved = np.tile(moved, (len(times), 1))
        if moved.shape != (len(times), 2):
            rule = f"a RoundBytes, or one for each of the {len(times)} rounds"
            raise argument_error("bytes_per_round", rule, bytes_per_round)
        _at_least_zero("bytes_per_round", moved)
    count = 1 if moved is None else 2
    drawn = figure_or_new(figure, 3.9 * count + 0.1, 3.1)
    grid = panels(drawn, count, columns_that_fit(drawn, count, 2.8))
    _draw_times(grid[0], numbers, times)
    if moved is not None:
        _draw_bytes(grid[1], numbers, moved)
    for axes in grid:
        axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
        whole_numbers(axes.xaxis)
    return whole(drawn)


def _at_least_zero(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not (np.isfinite(values) & (values >= 0)).all():
        bad = values[~(np.isfinite(values) & (values >= 0))][0]
        raise data_error(f"'{name}' must be finite numbers >= 0", bad)
    return values


def _draw_times(axes: Axes, rounds: Sequence[int], times: npt.NDArray[np.float64]) -> None:
    median, first = float(np.median(times)), float(times[0])
    is_late = first > 2 * float(np.max(times[1:], initial=0.0)) > 0
    shown = times[1:] if is_late else times
    line = {"linewidth": 1.2, "markersize": 5, "markevery": max(1, len(rounds) // 50)}
    axes.plot(rounds[-len(shown) :], shown, color=BLUE, marker="o", **line)  # type: ignore[arg-type]
    dashes = (0, (4, 2))
    axes.axhline(median, color=foreground(), linewidth=1.4, linestyle=dashes, label=f"median {written(median)} ms")
    dress(axes, "Time", "round", "time of the round (ms)")
    if np.min(shown) > 0 and np.max(shown) > _MANY_MEDIANS * median:
        axes.set_yscale("log")
    else:
        _scale(axes, float(np.max(shown)), 1 + is_late)
    if is_late:
        mark = {"color": VERMILION, "marker": "^", "markersize": 8, "linestyle": "none", "clip_on": False}
        text = f"round {rounds[0]}: {written(first)} ms, off the scale"
        axes.plot([rounds[0]], [1], transform=axes.get_xaxis_transform(), label=text, **mark)  # type: ignore[arg-type]
    axes.legend(fontsize=SMALL, framealpha=0.9, loc="best" if axes.get_yscale() == "log" else "upper right")


def _scale(axes: Axes, most: float, lines: int) -> None:
    """Let the axes reach from 0 to above the data, where there is room for a legend of so many lines."""
    taken = (0.2 + 0.19 * lines) / inches(axes)[1]
    axes.set_ylim(0, most / (1 - min(taken, 0.6)) or 1.0)


def _draw_bytes(axes: Axes, rounds: Sequence[int], moved: npt.NDArray[np.float64]) -> None:
    sums = moved.sum(axis=1)
    unit, size = unit_of_bytes(float(np.max(sums)))
    down, up = moved.T / size
    # Of many rounds the bars touch: gaps, hatches and edges would be wider than they are.
    few = len(rounds) <= _MOST_BARS
    look: dict[str, Any] = {"hatch": "///", "edgecolor": "white"} if few else {"linewidth": 0}
    width = 0.8 if few else 1.0
    axes.bar(rounds, down, color=BLUE, width=width, linewidth=0, label="down: weights to the clients")
    axes.bar(rounds, up, bottom=down, color=ORANGE, width=width, label="up: updates", **look)
    dress(axes, f"Bytes: {amount(float(sums.sum()))} in all", "round", f"{unit} of the round", grid="y")
    _scale(axes, float(np.max(down + up)), 2)
    axes.legend(fontsize=SMALL, framealpha=0.9, loc="upper right")
