"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import data_error
from fedsim_np.plots.canvas import axes_or_new, whole
from fedsim_np.plots.checks import finite_array, names_or_numbers
from fedsim_np.plots.style import (
    SHARES,
    SHARES_SCALE,
    SMALL,
    TITLE,
    draw_shares,
    dress,
    fold,
    inches,
    room_for,
    shares_of_rows,
)
from fedsim_np.texts.numbers import column, percent, written

MOST_NUMBERS = 15
"""Classes up to which the counts are written into the cells."""


def confusion_matrix(counts: npt.ArrayLike, names: Iterable[str] | None = None, *, axes: Axes | None = None) -> Figure:
    """Draw a confusion matrix: a row a true class, a column a predicted one.

    The colour is the share of the *row*: classes with few examples compare with those with many. None is light. The
    scale, the same in all figures, goes with the square root, without which the rare confusions of a good model could
    not be seen. Up to 15 classes the cells have the counts in them. A class without examples is a hatched row.

    Parameters
    ----------
    counts : array-like, shape (c, c)
        Examples of each true class (row) and predicted class (column), from `fedsim_np.learning.confusion_counts`.
    names : iterable of str, optional
        Of the c classes; by default 0, 1, ...
    axes : matplotlib Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If `counts` are not numbers >= 0 of that shape.

    Examples
    --------
    >>> figure = confusion_matrix([[3, 1], [0, 4]])
    >>> figure.axes[0].images[0].get_array().tolist(), figure.axes[0].get_title()
    ([[0.75, 0.25], [0.0, 1.0]], '7 of 8 examples correct (87.50%)')
    """
    table = finite_array("counts", counts, 2, "(c, c)")
    c = len(table)
    if table.shape != (c, c) or np.min(table) < 0:
        raise data_error("'counts' must be numbers >= 0 of shape (c, c)", f"{table.shape}, from {np.min(table):g} on")
    texts = names_or_numbers(names, c)
    shares = shares_of_rows(table)
    has_counts = c <= MOST_NUMBERS
    side = max(2.6, 0.42 * c) if has_counts else 4.8
    room = room_for(texts, 2)
    axes = axes_or_new(axes, side + 1.9 + room, side + 0.9 + room)
    examples = float(table.sum())
    correct = float(np.trace(table))
    share = f" ({percent(correct / examples)})" if examples else ""
    told, of_all = (written(value) for value in column([correct, examples]))
    title = f"{told} of {of_all} examples correct{share}"
    title = fold(title, 0.8 * inches(axes)[0], TITLE)  # narrower by the colour bar
    dress(axes, title, "predicted class", "true class", grid=None)
    draw_shares(axes, shares, texts, texts, room > 0)
    if has_counts:
        for i, j in np.argwhere(table > 0):
            is_dark = sum(SHARES(SHARES_SCALE(shares[i, j]))[:3]) < 1.4
            colour = "white" if is_dark else "black"
            axes.text(j, i, _short(table[i, j]), ha="center", va="center", fontsize=SMALL, color=colour)
    return whole(axes)


def _short(count: float) -> str:
    """Return a number in at most five letters, for a cell."""
    if count < 9999.5:
        return f"{count:.4g}"
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if count < 999.5 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"
