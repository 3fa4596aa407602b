"""Rows and columns of images with titles, under a heading.

Where each image goes is known beforehand, so that nothing has to be laid out: hundreds of axes stay fast.
"""

from __future__ import annotations

from matplotlib.axes import Axes

from fedsim_np.plots.canvas import Canvas
from fedsim_np.plots.style import GREY, LABEL

_CELL, _SPACE, _TITLE, _HEADING, _EDGE = 0.72, 0.06, 0.23, 0.24, 0.1
"""Inches: an image's width, the space to the next, the heights of an image's title and of a heading, the margin."""


def size(rows: int, columns: int, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the inches of a grid of images with a heading."""
    cell = _CELL * _aspect(shape)
    return max(3.0, columns * (_CELL + _SPACE) - _SPACE + 2 * _EDGE), rows * (cell + _TITLE) + _HEADING + _EDGE


def _aspect(shape: tuple[int, ...]) -> float:
    """Return height over width of a frame: the image's own, within reason."""
    return min(4.0, max(0.25, shape[0] / shape[1]))


def head(part: Canvas, text: str) -> None:
    """Write a heading at the upper left, whatever the size of the part of the figure."""
    width, height = part.bbox.width / part.dpi, part.bbox.height / part.dpi
    part.suptitle(text, x=_EDGE / width, y=1 - 0.05 / height, ha="left", va="top", fontsize=LABEL)


def frames(part: Canvas, rows: int, columns: int, shape: tuple[int, ...]) -> list[Axes]:
    """Return axes without ticks for a grid of images, row by row: where each goes is known, so nothing is laid out."""
    width, height = part.bbox.width / part.dpi, part.bbox.height / part.dpi
    least_width, least_height = size(rows, columns, shape)
    scale = min(1.0, width / least_width, height / least_height)  # on a caller's figure there may be less room
    used = scale * (columns * (_CELL + _SPACE) - _SPACE)
    cells = part.add_gridspec(
        rows,
        columns,
        left=_EDGE / width,
        right=min(1.0, (_EDGE + used) / width),
        bottom=_EDGE / height,
        top=1 - (_HEADING + _TITLE) / height,
        hspace=_TITLE / (_CELL * _aspect(shape)),
        wspace=_SPACE / _CELL,
    )
    frames = [part.add_subplot(cells[row, column]) for row in range(rows) for column in range(columns)]
    for axes in frames:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_box_aspect(_aspect(shape))
        axes.spines[:].set_color(GREY)
        axes.spines[:].set_linewidth(0.6)
    return frames
