"""One figure over two parameters: a table of numbers, with colours."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedsim_np.errors import argument_error, check_bool, check_type, data_error
from fedsim_np.plots.canvas import axes_or_new, whole
from fedsim_np.plots.checks import as_list
from fedsim_np.plots.style import GREY, LABEL, PIXELS, SMALL, dress, literal, shortened

_MOST_LETTERS = 40  # of a name
_MOST_NUMBERS = 12  # columns up to which cells have their numbers in them


def heat_map(
    values: npt.ArrayLike,
    rows: Iterable[object],
    columns: Iterable[object],
    *,
    names: tuple[str, str] = ("", ""),
    label: str = "",
    spreads: npt.ArrayLike | None = None,
    lower_is_better: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Draw what came out at each pair of values of two parameters.

    Light is better, whichever way that is, and the best cell has a frame. What is not finite is left blank, and said.

    Parameters
    ----------
    values : array-like, shape (r, c)
        Such as means over seeds.
    rows, columns : iterable
        The parameters' values, r and c of them, as they are to be named.
    names : (str, str)
        Of the parameters, that of the rows first.
    label : str
        What the values are.
    spreads : array-like, shape (r, c), optional
        How far runs lie apart, such as standard deviations; NaN where there is none. They are written below the values.
    lower_is_better : bool
    axes : matplotlib Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If values or spreads are not numbers of that shape.

    Examples
    --------
    >>> figure = heat_map([[0.81, 0.87], [0.84, float("nan")]], ["FedAvg", "SCAFFOLD"], [0.02, 0.1])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.810', '0.870', '0.840', 'not finite']
    """
    row_texts, column_texts = (
        [str(value) for value in as_list(name, of, "values of a parameter")]
        for name, of in (("rows", rows), ("columns", columns))
    )
    if len(as_list("names", names, "two names")) != 2 or not all(isinstance(name, str) for name in names):
        raise argument_error("names", "two texts", names)
    check_type("label", label, str, "a text")
    check_bool("lower_is_better", lower_is_better)
    shape = len(row_texts), len(column_texts)
    table = _table("values", values, shape)
    spread = np.full(shape, np.nan) if spreads is None else _table("spreads", spreads, shape)
    width = 1.9 + 0.075 * min(max(map(len, row_texts)), _MOST_LETTERS) + 0.78 * min(shape[1], _MOST_NUMBERS)
    axes = axes_or_new(axes, max(4.0, width), max(2.4, 1.3 + 0.55 * min(shape[0], 16)))
    dress(axes, None, literal(names[1]), literal(names[0]), grid=None)
    finite = np.isfinite(table)
    colours = matplotlib.colormaps[f"viridis{'_r' * lower_is_better}"].with_extremes(bad="none")
    picture = axes.imshow(np.ma.masked_array(table, ~finite), cmap=colours, aspect="auto", **PIXELS)
    for axis, texts in ((axes.yaxis, row_texts), (axes.xaxis, column_texts)):
        axis.set_ticks(range(len(texts)), [shortened(text, _MOST_LETTERS) for text in texts], fontsize=SMALL)
    if max(map(len, column_texts)) > 9:
        axes.tick_params(axis="x", rotation=30)
    if finite.any():
        bar = whole(axes).colorbar(picture, ax=axes)
        bar.ax.tick_params(labelsize=SMALL)
        bar.set_label(literal(label), fontsize=LABEL)
    if shape[1] <= _MOST_NUMBERS:
        for row, column in np.ndindex(shape):
            text, colour = "not finite", GREY
            if finite[row, column]:
                text = _written(table[row, column])
                text += f"\n± {_written(spread[row, column])}" if np.isfinite(spread[row, column]) else ""
                colour = _contrast(picture.to_rgba(np.array([[table[row, column]]]))[0, 0])
            axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=colour)
    if finite.sum() > 1:
        of_best = np.nanargmin if lower_is_better else np.nanargmax
        best = np.unravel_index(of_best(np.where(finite, table, np.nan)), shape)
        corner = best[1] - 0.47, best[0] - 0.45
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor="white", linewidth=4, clip_on=False))
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor="black", linewidth=2, clip_on=False))
    return whole(axes)


def _table(name: str, values: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return numbers of a shape, of which some may be NaN or infinite."""
    try:
        table = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise data_error(f"'{name}' must be numbers", error) from error
    if table.shape != shape or not table.size:
        rule = (
            f"'{name}' must have a row for each of {shape[0]} and a column for each of {shape[1]} values, at least one"
        )
        raise data_error(rule, f"the shape {table.shape}")
    return table


def _written(value: float) -> str:
    return f"{value:.3f}" if 1e-3 <= abs(value) < 100 or not value else f"{value:.2g}"


def _contrast(colour: npt.NDArray[np.float64]) -> str:
    """Return black or white, whichever is read better on a colour."""
    linear = np.where(colour[:3] <= 0.04045, colour[:3] / 12.92, ((colour[:3] + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"
