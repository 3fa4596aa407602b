"""How the figures look: colours, markers, sizes, and the few things done to all axes.

The colours are Okabe and Ito's, without their yellow, which is lost on white. Their order alternates dark and light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.ticker import MaxNLocator

from fedsim_np.plots.canvas import whole

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#767676"
COLOURS = (BLUE, ORANGE, None, SKY, VERMILION, GREEN, PINK)  # None: the text's colour
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))

PIXELS: Mapping[str, Any] = {"interpolation": "nearest", "origin": "upper"}
"""How `imshow` shows a table of numbers: a square for each, as they are written."""

SEQUENTIAL = "viridis"
DIVERGING = "cividis"  # from blue over grey to yellow, and from dark to light: a print in grey keeps the signs

_MOST_LETTERS = 14  # of a name
TITLE, LABEL, SMALL = 11, 10, 9
"""Font sizes in points: of titles, of axes' names, and of everything else."""


def line_style(number: int) -> dict[str, Any]:
    """Return the look of a line among several: with 7 colours, 8 markers and 5 dashes, the first 280 all differ."""
    return {
        "color": COLOURS[number % len(COLOURS)] or foreground(),
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 1.8,
        "markersize": 5,
    }


def dress(axes: Axes, title: str | None, xlabel: str, ylabel: str, grid: str | None = "both") -> None:
    """Give axes their texts, a light grid behind the data, and no box around them."""
    if title is not None:
        axes.set_title(title, fontsize=TITLE, loc="center")
    axes.set_xlabel(xlabel, fontsize=LABEL)
    axes.set_ylabel(ylabel, fontsize=LABEL)
    axes.tick_params(labelsize=SMALL)
    if grid is None:
        axes.grid(False)
    else:
        axes.grid(True, axis=grid, color=GREY, alpha=0.3, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def fill_band(axes: Axes, rounds: Sequence[float], low: Any, high: Any, **look: Any) -> None:
    """Fill between two curves; of a single round a band is a bar, or nothing would be seen."""
    if len(rounds) == 1:
        rounds, low, high = [rounds[0] - 0.25, rounds[0] + 0.25], [low[0]] * 2, [high[0]] * 2
    axes.fill_between(rounds, low, high, linewidth=0, **look)


def whole_numbers(axis: Axis) -> None:
    """Put ticks at whole numbers only: rounds, examples, clients."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def room_for(texts: Sequence[str], letters: int) -> float:
    """Return the inches that texts below an axis take when they are turned; 0 if all have so few letters as to stay."""
    longest = max(map(len, texts), default=0)
    return 0.085 * min(longest, _MOST_LETTERS) if longest > letters else 0.0


def name_ticks(axis: Axis, texts: Sequence[str], most: int) -> None:
    """Name the positions 0, 1, ...: all of them, or every second, third, ... so that at most `most` are named."""
    step = max(1, math.ceil(len(texts) / most))
    axis.set_ticks(range(0, len(texts), step), [shortened(text) for text in texts[::step]], fontsize=SMALL)


def literal(text: str) -> str:
    r"""Return a text of somebody else's for matplotlib, which takes what is between two dollar signs for a formula.

    Examples
    --------
    >>> literal("price$5$6")
    'price\\$5\\$6'
    """
    return text.replace("$", r"\$")


def foreground() -> str:
    """Return the colour of text in the user's style: black, or white on a dark ground."""
    return str(matplotlib.rcParams["text.color"])


def shortened(text: str, most: int = _MOST_LETTERS) -> str:
    """Return a text without its middle, if it is long, its dollar signs as they are.

    Examples
    --------
    >>> shortened("f0000_14"), shortened("3b1f9a7c-5d2e-4c1a-9e77-0a1b2c3d4e5f")
    ('f0000_14', '3b1f9a7…3d4e5f')
    """
    front = most // 2
    return literal(text if len(text) <= most else f"{text[:front]}…{text[front + 1 - most :]}")


def say(axes: Axes, text: str) -> None:
    """Write into the middle of axes that have nothing to show."""
    ground = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.5}  # over the lines of a grid
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL, color=GREY, bbox=ground
    )


def shares_of_rows(counts: npt.NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """Return what share of its row each count is; a row of zeros is masked.

    Examples
    --------
    >>> shares_of_rows(np.array([[1, 3], [0, 0]])).tolist()
    [[0.25, 0.75], [None, None]]
    """
    totals = counts.sum(axis=1, keepdims=True)
    return np.ma.masked_array(counts / np.where(totals, totals, 1), np.repeat(totals == 0, counts.shape[1], axis=1))


def draw_shares(
    axes: Axes, shares: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str], turned: bool, **look: Any
) -> Colorbar:
    """Draw shares with the names of rows and columns, masked ones blank, and return their colour bar."""
    colours = matplotlib.colormaps[SEQUENTIAL].with_extremes(bad="none")
    picture = axes.imshow(shares, cmap=colours, **PIXELS, **look)
    name_ticks(axes.yaxis, rows, 31)
    name_ticks(axes.xaxis, columns, 31)
    if turned:
        axes.tick_params(axis="x", rotation=90)
    bar = whole(axes).colorbar(picture, ax=axes)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(f"share of the {axes.get_ylabel()}'s examples", fontsize=LABEL)
    return bar
