"""How unlike each other the clients are: their labels and their sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.datasets import ClientData, Description
from fedsim_np.errors import data_error
from fedsim_np.plots.canvas import Canvas, axes_or_new, columns_that_fit, figure_or_new, panels, whole
from fedsim_np.plots.checks import checked_description, chosen_clients, flat_labels, read_fields
from fedsim_np.plots.style import (
    BLUE,
    SKY,
    SMALL,
    VERMILION,
    draw_shares,
    dress,
    foreground,
    name_ticks,
    room_for,
    say,
    shares_of_rows,
    shortened,
    whole_numbers,
)
from fedsim_np.texts.numbers import written


def label_counts(
    client_data: ClientData,
    client_ids: Iterable[str] | None = None,
    *,
    label: str = "label",
    figure: Canvas | None = None,
) -> Figure:
    """Draw how many examples of each label a few clients have, three clients in a row if there is room.

    Parameters
    ----------
    client_data : ClientData
    client_ids : iterable of str, optional
        By default the first six clients.
    label : str
        The field that holds the label.
    figure : matplotlib Figure or SubFigure, optional

    Returns
    -------
    Figure
        With axes for each client, on common scales; a bar for each label that any of these clients has.

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> figure = label_counts(InMemoryClientData({"ann": {"label": [0, 0, 1]}, "bob": {"label": [1]}}))
    >>> [[int(bar.get_height()) for bar in axes.patches] for axes in figure.axes]
    [[2, 1], [0, 1]]
    """
    ids = chosen_clients(client_data, client_ids, 6)
    counted: list[Counter[Any]] = []
    for client_id in ids:
        (column,) = read_fields(client_data.create_dataset_for_client(client_id), label=label)
        counted.append(Counter(flat_labels(column, label, client_id)))
    labels = sorted(set().union(*counted))
    columns = min(3, len(ids))
    names = [str(value) for value in labels]
    room = room_for(names, 3)
    drawn = figure_or_new(figure, max(4.0, 2.5 * columns), 2.0 * math.ceil(len(ids) / columns) + 0.3 + room)
    columns = columns_that_fit(drawn, columns, 1.5)
    shown = panels(drawn, len(ids), columns, sharex=True, sharey=True)
    for number, axes in enumerate(shown):
        below = number + columns >= len(ids)
        heights = [float(counted[number][value]) for value in labels]
        axes.bar(range(len(labels)), heights, color=BLUE, width=0.8)
        dress(axes, shortened(ids[number], 24), "label" * below, "examples" * (number % columns == 0), grid="y")
        axes.tick_params(labelbottom=below)
        if not any(heights):
            say(axes, "no examples")
    name_ticks(shown[0].xaxis, names, room > 0)  # they are shared
    whole_numbers(shown[0].yaxis)
    return whole(drawn)


def label_distribution(description: Description, *, axes: Axes | None = None) -> Figure:
    """Draw the clients' label distributions: a row a client, a column a label.

    The colour is the share of the *client's* examples, so that clients of all sizes compare; rows of one colour would
    be i.i.d. data with even labels. Its scale is the same in all figures, from none to all, by the square root. A
    client without examples is a hatched row.

    Parameters
    ----------
    description : Description
        Of k clients and c labels, from ``fed.datasets.describe(client_data)``.
    axes : matplotlib Axes, optional

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If there are no labels.

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData, describe
    >>> data = InMemoryClientData({"ann": {"label": [0, 0, 1]}, "bob": {"label": [1]}})
    >>> figure = label_distribution(describe(data))
    >>> figure.axes[0].images[0].get_array().round(2).tolist()
    [[0.67, 0.33], [0.0, 1.0]]
    """
    checked_description(description)
    k, c = description.counts.shape
    if not c:
        raise data_error("there must be labels to draw their distribution", "none")
    names = [str(value) for value in description.labels.tolist()]
    room = room_for(names, 3)
    axes = axes_or_new(axes, min(7.6, max(4.6, 3.2 + 0.34 * c)), min(7.0, max(2.4, 1.4 + 0.19 * k)) + room)
    empty = int((description.counts.sum(axis=1) == 0).sum())
    blank = f" ({empty} hatched: no examples)" if empty else ""
    dress(axes, f"Labels of {k} client{'s' * (k != 1)}{blank}", "label", "client", grid=None)
    shares = shares_of_rows(description.counts)
    draw_shares(axes, shares, description.client_ids, names, room > 0, aspect="auto")
    return whole(axes)


def client_sizes(description: Description, *, axes: Axes | None = None) -> Figure:
    """Draw a histogram of the clients' sizes, with their median and mean.

    Parameters
    ----------
    description : Description
        From ``fed.datasets.describe(client_data)``.
    axes : matplotlib Axes, optional

    Returns
    -------
    Figure
        Bars over whole numbers of examples, all equally wide.

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData, describe
    >>> data = InMemoryClientData({"ann": {"label": [0, 0, 1]}, "bob": {"label": [1]}})
    >>> [int(bar.get_height()) for bar in client_sizes(describe(data)).axes[0].patches]
    [1, 0, 1]
    """
    sizes = checked_description(description).sizes
    least, greatest = int(np.min(sizes)), int(np.max(sizes))
    step = math.ceil((greatest - least + 1) / min(30, max(5, 2 * math.isqrt(len(sizes)))))
    edges = np.arange(least, greatest + step + 1, step) - 0.5  # between whole numbers: no size is on an edge
    axes = axes_or_new(axes, 5.6, 3.4)
    axes.hist(sizes, bins=edges.tolist(), color=SKY, edgecolor="white", linewidth=0.8)
    median, mean = float(np.median(sizes)), float(sizes.mean())
    axes.axvline(median, color=foreground(), linewidth=1.8, label=f"median {written(median)}")
    axes.axvline(mean, color=VERMILION, linewidth=1.8, linestyle=(0, (4, 2)), label=f"mean {written(mean)}")
    k = len(sizes)
    title = f"Sizes of {k:,} client{'s' * (k != 1)}, {int(sizes.sum()):,} examples"
    dress(axes, title, "examples of a client", "clients", grid="y")
    whole_numbers(axes.xaxis)
    whole_numbers(axes.yaxis)
    axes.legend(fontsize=SMALL, framealpha=0.9)
    return whole(axes)
