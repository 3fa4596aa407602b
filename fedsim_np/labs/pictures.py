"""Pictures for labs: axes to draw on, and sliders where a notebook has them.

`sliders` draws with what the sliders say. Beside that it has a static picture, with a panel for several values of each
slider: it is what is seen without ipywidgets, outside a notebook, and where a notebook is read and not run.
"""

from __future__ import annotations

import base64
import importlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.plots.canvas import new_figure
from fedsim_np.plots.style import GREY

WIDTH, HEIGHT = 5.2, 3.4
"""Inches of one panel alone."""
_SMALL_WIDTH, _SMALL_HEIGHT = 3.0, 2.6
_IN_A_ROW = 4


def panels(columns: int = 1, rows: int = 1, *, width: float = WIDTH, height: float = HEIGHT) -> list[Axes]:
    """Return axes of a new figure, row by row, each of so many inches; a notebook shows ``axes[0].figure``.

    Examples
    --------
    >>> left, right = panels(2)
    >>> left.figure is right.figure
    True
    """
    columns, rows = check_int("columns", columns, minimum=1), check_int("rows", rows, minimum=1)
    found = new_figure(columns * width, rows * height).subplots(rows, columns, squeeze=False)
    for axes in found.flat:
        axes.grid(True, color=GREY, alpha=0.3, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return list(found.flat)


class Sliders:
    """What `sliders` returns; a notebook shows the widget, or the picture where it cannot.

    Attributes
    ----------
    figure : Figure
        The static picture.
    widget : object or None
        Of ipywidgets: sliders above the picture that follows them; None where there are none.
    """

    def __init__(self, figure: Figure, widget: Any = None) -> None:
        self.figure = figure
        self.widget = widget

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        bundle = {"text/plain": "sliders", "image/png": base64.b64encode(_png(self.figure)).decode()}
        if self.widget is not None:
            # A frontend takes the first that it knows: the widget, or else the picture.
            widget = self.widget._repr_mimebundle_()
            bundle = {**bundle, **(widget[0] if isinstance(widget, tuple) else widget), "text/plain": "sliders"}
        return bundle


def sliders(
    draw: Callable[..., object],
    *,
    labels: Mapping[str, str] | None = None,
    start: Mapping[str, Any] | None = None,
    **values: Sequence[Any],
) -> Sliders:
    """Draw with values that sliders choose.

    Parameters
    ----------
    draw : callable
        ``draw(axes, **values)``, with one value of each slider.
    labels : mapping of str to str, optional
        Slider -> what is written beside it.
    start : mapping of str to object, optional
        Slider -> the value that it starts at; by default its first.
    **values : sequence
        Slider -> the values that it can have.

    Returns
    -------
    Sliders
        As the last value of a cell it is shown.

    Examples
    --------
    >>> def draw(axes, steps, rate):
    ...     axes.plot([(1 - rate) ** step for step in range(steps + 1)])
    >>> shown = sliders(draw, steps=[10, 20, 50], rate=[0.1, 0.5])
    >>> [axes.get_title() for axes in shown.figure.axes]
    ['steps = 10', 'steps = 20', 'steps = 50', 'rate = 0.1', 'rate = 0.5']
    """
    if not callable(draw):
        raise argument_type_error("draw", "a function of axes and of one value for each slider", draw)
    if not values or not all(len(of) for of in values.values()):
        raise argument_error("values", "at least one slider, each with at least one value", values)
    names = {name: (labels or {}).get(name, name.replace("_", " ")) for name in values}
    start = {name: (start or {}).get(name, of[0]) for name, of in values.items()}
    for name, value in start.items():
        if value not in values[name]:
            raise argument_error(f"start[{name!r}]", f"one of {list(values[name])}", value)
    return Sliders(_static(draw, names, start, values), _widget(draw, names, start, values))


def _static(
    draw: Callable[..., object], names: Mapping[str, str], start: Mapping[str, Any], values: Mapping[str, Sequence[Any]]
) -> Figure:
    rows = {
        name: [of[i] for i in np.unique(np.linspace(0, len(of) - 1, min(len(of), _IN_A_ROW)).round().astype(int))]
        for name, of in values.items()
    }
    columns = max(map(len, rows.values()))
    grid = iter(panels(columns, len(rows), width=_SMALL_WIDTH, height=_SMALL_HEIGHT))
    for name, some in rows.items():
        for value in some:
            axes = next(grid)
            draw(axes, **{**start, name: value})
            axes.set_title(f"{names[name]} = {value}", fontsize=10)
        for _ in range(columns - len(some)):
            next(grid).remove()
    figure: Figure = axes.figure  # type: ignore[assignment]
    return figure


def _widget(
    draw: Callable[..., object], names: Mapping[str, str], start: Mapping[str, Any], values: Mapping[str, Sequence[Any]]
) -> Any:
    widgets = _ipywidgets()
    if widgets is None:
        return None

    def picture() -> bytes:
        axes = panels()[0]
        draw(axes, **{name: slider.value for name, slider in chosen.items()})
        figure: Figure = axes.figure  # type: ignore[assignment]
        return _png(figure)

    def redraw(change: object) -> None:
        image.value = picture()

    chosen = {
        name: widgets.SelectionSlider(
            options=list(of),
            value=start[name],
            description=names[name],
            continuous_update=False,
            style={"description_width": "initial"},
        )
        for name, of in values.items()
    }
    image = widgets.Image(value=picture(), format="png")
    for slider in chosen.values():
        slider.observe(redraw, names="value")
    return widgets.VBox([*chosen.values(), image])


def _ipywidgets() -> Any:
    """Return ipywidgets where it is installed and a kernel runs this, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    try:
        return importlib.import_module("ipywidgets")
    except ImportError:
        return None


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
