"""Where to draw: what the caller gives, or a new figure.

A figure that pyplot did not make shows itself in a notebook only once ``%matplotlib inline`` or an import of pyplot has
told IPython how. `NotebookFigure` needs neither: it knows its own picture, by IPython's protocol ``_repr_png_``. Where
a backend has registered a way to show figures, IPython prefers that one, so that a user's settings still hold.
"""

from __future__ import annotations

import io
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from fedsim_np.errors import argument_error, check_type

Canvas = Figure | SubFigure
"""What a function with several axes draws on."""


class NotebookFigure(Figure):
    r"""A figure that a notebook shows without pyplot.

    Examples
    --------
    >>> NotebookFigure(figsize=(1, 1))._repr_png_()[:4]
    b'\x89PNG'
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def new_figure(width: float, height: float, layout: str = "constrained") -> NotebookFigure:
    """Return an empty figure of that many inches."""
    figure = NotebookFigure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.08, h_pad=0.08)  # type: ignore[call-arg]  # inches around every part
    return figure


def axes_or_new(axes: Axes | None, width: float, height: float) -> Axes:
    """Return the caller's axes, or those of a new figure of that many inches."""
    if axes is None:
        return new_figure(width, height).subplots()
    check_type("axes", axes, Axes, "matplotlib Axes or None")
    if axes.figure is None:
        raise argument_error("axes", "a part of a figure, not removed from it", axes)
    return axes


def figure_or_new(figure: Canvas | None, width: float, height: float, layout: str = "constrained") -> Canvas:
    """Return the caller's figure or part of a figure, or a new figure of that many inches."""
    if figure is None:
        return new_figure(width, height, layout)
    return check_type("figure", figure, Canvas, "a matplotlib Figure, SubFigure or None")


def panels(figure: Canvas, count: int, columns: int, **shared: Any) -> list[Axes]:
    """Return that many axes, so many in a row."""
    axes = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False, **shared).flat)
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def columns_that_fit(figure: Canvas, most: int, width: float) -> int:
    """Return how many panels of that many inches, or wider, go side by side: one at least, `most` at most."""
    return max(1, min(most, int(figure.bbox.width / figure.dpi / width)))


def whole(part: Axes | Canvas) -> Figure:
    """Return the figure that axes or a part of a figure belong to."""
    while not isinstance(part, Figure):
        above = part.figure
        assert above is not None  # axes that were removed from their figure cannot be drawn on
        part = above
    return part
