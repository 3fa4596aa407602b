"""How the figures look: colours, markers, sizes, and the few things done to all axes.

The colours are Okabe and Ito's, without their yellow, which is lost on white. Their order alternates dark and light.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import MaxNLocator

from fedsim_np.plots.canvas import whole

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#767676"
COLOURS = (BLUE, ORANGE, None, SKY, VERMILION, GREEN, PINK)  # None: the text's colour
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))

PIXELS: Mapping[str, Any] = {"interpolation": "nearest", "origin": "upper"}
"""How `imshow` shows a table of numbers: a square for each, as they are written."""

SHARES = LinearSegmentedColormap.from_list(
    "white, green, blue",
    [
        (0, "#ffffff"),
        (0.1, "#e8f6bb"),
        (0.22, "#b4e0b6"),
        (0.35, "#62bfc1"),
        (0.5, "#2a8cbe"),
        (0.7, "#23539f"),
        (1, "#081d58"),
    ],
)
"""Of shares: none is white, all is dark."""
SHARES_SCALE = PowerNorm(0.5, vmin=0, vmax=1)
"""From none to all, in every figure; by the square root, without which what is rare could not be seen."""
_SHARES_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
DIVERGING = LinearSegmentedColormap.from_list(
    "blue, white, orange", ["#00264d", BLUE, "#a6d3ee", "#ffffff", "#fbdca6", ORANGE, "#d98200"], N=257
)
"""Of signed numbers: 0 is white."""

_MOST_LETTERS = 14  # of a name
LETTER, LINE = 0.085, 0.17
"""Inches: how wide a letter of a small text is at most, and how far apart lines are."""
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
    width, height = inches(axes)
    if title is not None:
        axes.set_title(fold(title, width, TITLE), fontsize=TITLE, loc="center")
    axes.set_xlabel(fold(xlabel, 1.2 * width, LABEL), fontsize=LABEL)
    axes.set_ylabel(fold(ylabel, 1.2 * height, LABEL), fontsize=LABEL)
    axes.tick_params(labelsize=SMALL)
    if grid is None:
        axes.grid(False)
    else:
        axes.grid(True, axis=grid, color=GREY, alpha=0.3, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def inches(axes: Axes) -> tuple[float, float]:
    """Return the width and height of axes, before a layout has made room for what is around them."""
    dpi = whole(axes).dpi
    return axes.bbox.width / dpi, axes.bbox.height / dpi


def letters_in(width: float, size: float) -> int:
    """Return how many letters of so many points go into so many inches, on average."""
    return max(10, int(width / (0.0072 * size)))


def fold(text: str, width: float, size: float) -> str:
    """Return a text in lines of at most so many inches, all about as long."""
    letters = letters_in(width, size)
    lines = math.ceil(len(text) / letters)
    widths = range(math.ceil(len(text) / lines), letters) if lines else ()
    folded = [textwrap.wrap(text, most, break_long_words=False) for most in (*widths, letters)]
    return "\n".join(next((found for found in folded if len(found) <= lines), folded[-1]))


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
    return LETTER * min(longest, _MOST_LETTERS) if longest > letters else 0.0


def name_ticks(axis: Axis, texts: Sequence[str], turned: bool = False, taken: float = 0.0) -> None:
    """Name the positions 0, 1, ...: all of them, or every second, third, ... where the names would touch.

    Those of a horizontal axis may be `turned`, so that each takes a line; so many inches of the axes are `taken`.
    """
    texts = [shortened(text) for text in texts]
    is_row = axis is axis.axes.xaxis
    one = LETTER * (max(map(len, texts)) + 1) if is_row and not turned else LINE
    width, height = inches(axis.axes)
    length = width - taken if is_row else height
    if axis.axes.get_aspect() == 1:  # cells are squares
        length = min(width - taken, height)
    fit = int(length / one)
    step = max(1, math.ceil(len(texts) / max(1, fit)))
    axis.set_ticks(range(0, len(texts), step), texts[::step], fontsize=SMALL)
    if turned:
        axis.set_tick_params(rotation=90)


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
    """Draw shares with the names of rows and columns, masked ones hatched, and return their colour bar."""
    axes.patch.set(facecolor="white", edgecolor="#cccccc", hatch="///", linewidth=0)
    picture = axes.imshow(shares, cmap=SHARES.with_extremes(bad="none"), norm=SHARES_SCALE, **PIXELS, **look)
    taken = 0.3 + LETTER * min(max(map(len, rows)), _MOST_LETTERS)  # by the rows' names and the colour bar
    name_ticks(axes.yaxis, rows, taken=taken)
    name_ticks(axes.xaxis, columns, turned, taken)
    bar = whole(axes).colorbar(picture, ax=axes)
    bar.set_ticks(_SHARES_TICKS, labels=[f"{tick:.0%}" for tick in _SHARES_TICKS], fontsize=SMALL)
    bar.set_label(fold(f"share of the {axes.get_ylabel()}'s examples", inches(axes)[1], LABEL), fontsize=LABEL)
    return bar
