"""A linear model's weights as pictures: what each class looks for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, check_int, data_error
from fedsim_np.learning.models import ModelWeights
from fedsim_np.plots.canvas import Canvas, figure_or_new, panels, whole
from fedsim_np.plots.checks import finite_array, names_or_numbers
from fedsim_np.plots.style import DIVERGING, GREY, LABEL, PIXELS, SMALL, fold, shortened

_OUTLINE: dict[str, Any] = {"colors": "black", "linewidths": 0.6, "linestyles": "solid"}


def class_weights(
    weights: ModelWeights | npt.ArrayLike,
    image_shape: tuple[int, int] = (28, 28),
    names: Iterable[str] | None = None,
    *,
    figure: Canvas | None = None,
) -> Figure:
    """Draw the weights of each class as an image, all on one scale around 0, which is white.

    A weight multiplies a pixel's brightness, 1 for paper and 0 for ink. So where it is negative (blue) ink speaks for
    the class, and where it is positive (orange) ink speaks against it. Beyond a quarter of the scale what is negative
    has an outline, so that a print in grey keeps the signs.

    Parameters
    ----------
    weights : ModelWeights, or array-like of shape (d, c)
        Of softmax regression: the kernel is ``weights.trainable[0]``; the biases are not drawn.
    image_shape : (int, int)
        Height and width of the images; their product is d.
    names : iterable of str, optional
        Of the c classes; by default 0, 1, ...
    figure : matplotlib Figure or SubFigure, optional

    Returns
    -------
    Figure
        With axes for each class and, last, for the colour bar.

    Raises
    ------
    DataError
        If the weights are not finite, or not (d, c).

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> figure = class_weights(SoftmaxRegression().initial_weights())
    >>> len(figure.axes), figure.axes[9].get_title()
    (11, '9')
    """
    if not isinstance(image_shape, tuple | list) or len(image_shape) != 2:
        raise argument_error("image_shape", "a height and a width", image_shape)
    height, width = (check_int("image_shape", n, minimum=1) for n in image_shape)
    kernel = finite_array("weights", _kernel(weights), 2, "(d, c)")
    d, c = kernel.shape
    if d != height * width:
        raise argument_error("image_shape", f"a height and a width whose product is {d}", tuple(image_shape))
    titles = names_or_numbers(names, c)
    columns = min(c, 5 if c <= 20 else 10)
    rows = math.ceil(c / columns)
    cell = 1.15 if c <= 20 else 0.66
    tall = cell * min(4.0, max(0.25, height / width))
    drawn = figure_or_new(figure, max(5.0, columns * cell + 1.3), max(3.0, rows * (tall + 0.1) + 0.6))
    greatest = float(np.abs(kernel).max())
    reach = greatest or 1.0
    outline = -reach / 4
    letters = 14 if c > 1 else 40
    shown = panels(drawn, c, columns)
    for number, axes in enumerate(shown):
        image = kernel[:, number].reshape(height, width)
        picture = axes.imshow(image, cmap=DIVERGING, vmin=-reach, vmax=reach, **PIXELS)
        if np.min(image) < outline and min(height, width) > 1:
            axes.contour(image, levels=[outline], **_OUTLINE)
        axes.grid(False)
        text = shortened(titles[number], letters if c <= 20 else 7)
        axes.set_title(text, loc="center", fontsize=LABEL if c <= 20 else SMALL, pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(GREY)
    bar = drawn.colorbar(picture, ax=shown, fraction=0.05, aspect=30)
    wide, high = drawn.bbox.width / drawn.dpi, drawn.bbox.height / drawn.dpi
    bar.set_label(fold("weight (logit per brightness)", 0.8 * high, LABEL), fontsize=LABEL)
    bar.ax.tick_params(labelsize=SMALL)
    if not greatest:
        bar.set_ticks([0])
    bar.ax.axhline(outline, color=_OUTLINE["colors"], linewidth=_OUTLINE["linewidths"])
    legend = "ink speaks for the class where blue and outlined, against it where orange"
    drawn.supxlabel(fold(legend, 0.9 * wide, SMALL), fontsize=SMALL)
    return whole(drawn)


def _kernel(weights: ModelWeights | npt.ArrayLike) -> npt.ArrayLike:
    if not isinstance(weights, ModelWeights):
        return weights
    if not weights.trainable:
        raise data_error("'weights' must have trainable arrays", "none")
    return weights.trainable[0]
