"""Pictures of examples: one image, a client's first ones, the mean of each label.

Images have the polarity of EMNIST: 0 is ink, drawn black, 1 is paper, drawn white. The same grey always means the same
value: the scale is never stretched to an image's own range.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.datasets import ClientData, Dataset
from fedsim_np.errors import argument_error, check_int, check_type, data_error
from fedsim_np.plots import grid
from fedsim_np.plots.canvas import Canvas, axes_or_new, figure_or_new, whole
from fedsim_np.plots.checks import Array, as_list, chosen_clients, finite_array, flat_labels, read_fields
from fedsim_np.plots.style import PIXELS, SMALL, dress, shortened, whole_numbers, write_inside
from fedsim_np.texts import Texts


def image(pixels: npt.ArrayLike, title: str | None = None, *, axes: Axes | None = None, lang: str = "en") -> Figure:
    """Draw one image.

    Parameters
    ----------
    pixels : array-like, shape (h, w)
        In [0, 1]: 0 is ink, 1 is paper.
    title : str, optional
    axes : matplotlib Axes, optional
        Where to draw; by default in a new figure.
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If `pixels` are not finite numbers in [0, 1] of that shape.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> train, _ = fed.datasets.load_sample()
    >>> example = next(iter(train.create_dataset_for_client("f0000_14")))
    >>> figure = image(example["pixels"], f"label {example['label']}")
    >>> figure.axes[0].get_title(), figure.axes[0].images[0].get_array().shape
    ('label 8', (28, 28))
    """
    say = Texts(lang)
    picture = _checked(pixels)
    axes = axes_or_new(axes, 3.2, 3.4)
    _show(axes, picture)
    dress(axes, title, say("column_axis"), say("row_axis"), grid=None)
    whole_numbers(axes.xaxis)
    whole_numbers(axes.yaxis)
    return whole(axes)


def client_images(
    dataset: Dataset,
    rows: int = 4,
    columns: int = 10,
    *,
    pixels: str = "pixels",
    label: str | None = "label",
    figure: Canvas | None = None,
    lang: str = "en",
) -> Figure:
    """Draw a client's first images, each with its label above it.

    Parameters
    ----------
    dataset : Dataset
        Of one client, such as ``client_data.create_dataset_for_client(client_id)``. It is read in its first order.
    rows, columns : int
        Of the picture, >= 1. If the client has fewer images, the last frames stay empty.
    pixels, label : str
        The fields with images (h, w) and labels; no labels are written if `label` is None.
    figure : matplotlib Figure or SubFigure, optional
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure
        With ``rows * columns`` axes.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> train, _ = fed.datasets.load_sample()
    >>> figure = client_images(train.create_dataset_for_client("f0001_21"), rows=2, columns=5)
    >>> [axes.get_title() for axes in figure.axes[:5]]
    ['2', '5', '3', '2', '8']
    """
    say = Texts(lang)
    check_type("dataset", dataset, Dataset, "a Dataset, see ClientData.create_dataset_for_client")
    rows = check_int("rows", rows, minimum=1)
    columns = check_int("columns", columns, minimum=1)
    shown = rows * columns
    fields = {"pixels": pixels} if label is None else {"pixels": pixels, "label": label}
    pictures, *others = read_fields(dataset.take(shown), **fields)  # of batches too many are taken
    pictures = pictures[:shown]
    values = [""] * shown if label is None else flat_labels(others[0], label, dataset.client_id)
    checked = [_checked(picture, dataset.client_id) for picture in pictures]
    shape = checked[0].shape if checked else (1, 1)
    drawn = figure_or_new(figure, *grid.size(rows, columns, shape), layout="none")
    name = "" if dataset.client_id is None else say("client_named", name=shortened(dataset.client_id, 40))
    grid.head(drawn, name if len(pictures) else say("no_examples_of", name=name).removeprefix(": "))
    frames = grid.frames(drawn, rows, columns, shape)
    for number, axes in enumerate(frames):
        if number < len(checked):
            _show(axes, checked[number])
            axes.set_title(shortened(str(values[number]), 8), loc="center", fontsize=SMALL, pad=2)
        else:
            axes.set_axis_off()
    return whole(drawn)


def mean_images(
    client_data: ClientData,
    client_ids: Iterable[str] | None = None,
    *,
    labels: Iterable[Any] | None = None,
    pixels: str = "pixels",
    label: str = "label",
    figure: Canvas | None = None,
    lang: str = "en",
) -> Figure:
    """Draw the mean image of each label, for each of a few clients: writers differ.

    Parameters
    ----------
    client_data : ClientData
    client_ids : iterable of str, optional
        By default the first five clients.
    labels : iterable, optional
        By default the labels that any of these clients has, sorted.
    pixels, label : str
        The fields with images (h, w) and labels.
    figure : matplotlib Figure or SubFigure, optional
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure
        With a frame a client and label, client after client. A label that a client does not have is an empty frame
        with the label above it, as is every other.

    Examples
    --------
    >>> data = {"ann": {"pixels": np.ones((3, 8, 8), np.float32), "label": [0, 0, 1]}}
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> figure = mean_images(InMemoryClientData(data), labels=[0, 1, 2])
    >>> [(axes.get_title(), len(axes.images)) for axes in figure.axes]
    [('0', 1), ('1', 1), ('2', 0)]
    """
    say = Texts(lang)
    ids = chosen_clients(client_data, client_ids, 5)
    sizes: list[int] = []
    means: list[dict[Any, Array]] = []
    for client_id in ids:
        pictures, column = read_fields(client_data.create_dataset_for_client(client_id), pixels=pixels, label=label)
        values = flat_labels(column, label, client_id)
        rows_of: dict[Any, list[int]] = {}
        for row, value in enumerate(values):
            rows_of.setdefault(value, []).append(row)
        sizes.append(len(values))
        means.append({v: _checked(pictures[r].mean(axis=0), client_id) for v, r in rows_of.items()})
    shown = sorted({value for of in means for value in of})
    if labels is not None:
        shown = as_list("labels", labels, "labels")
        if not shown or not all(isinstance(value, Hashable) for value in shown):
            raise argument_error("labels", "labels, at least one", shown)
    if not any(sizes):
        raise data_error("at least one of the clients must have examples", f"none of {ids} has any")
    columns = len(shown) if len(shown) <= 12 else 16
    rows = math.ceil(len(shown) / columns)
    shape = next(mean.shape for of in means for mean in of.values())
    width, height = grid.size(rows, columns, shape)
    drawn = figure_or_new(figure, width, height * len(ids), layout="none")
    parts = drawn.subfigures(len(ids), 1, squeeze=False)[:, 0]
    for part, client_id, size, of in zip(parts, ids, sizes, means, strict=True):
        name = say("client_named", name=shortened(client_id, 40))
        grid.head(part, say("mean_by_label", name=name, examples=say("examples", size)))
        frames = grid.frames(part, rows, columns, shape)
        for axes, value in zip(frames, shown, strict=False):
            axes.set_title(shortened(str(value), 8), loc="center", fontsize=SMALL, pad=2)
            if value in of:
                _show(axes, of[value])
            else:
                write_inside(axes, say("none"))
        for axes in frames[len(shown) :]:
            axes.remove()
    return whole(drawn)


def _checked(pixels: npt.ArrayLike, client_id: str | None = None) -> npt.NDArray[np.float64]:
    """Return an image, or raise a `DataError` that says what is wrong with it."""
    picture = finite_array("pixels", pixels, 2, "(h, w)")
    least, greatest = np.min(picture), np.max(picture)
    if least < 0 or greatest > 1:
        found = f"values from {least:g} to {greatest:g}"
        raise data_error("pixels must lie in [0, 1]", found, client_id=client_id)
    return picture


def _show(axes: Axes, picture: npt.NDArray[np.float64]) -> None:
    axes.grid(False)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, **PIXELS)
