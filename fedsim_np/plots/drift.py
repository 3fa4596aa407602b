r"""Client drift: where each client's local training goes, and where the server goes.

Updates are *initial minus final* weights, so that a client moves by :math:`-u_i`. The movements are drawn as seen in
the plane that keeps most of them: the first two right singular vectors of the (k, d) matrix of movements. It is not
centred: the origin is the server's model before the round, angles at it are those of the movements in the plane, and
the first axis is close to what the clients have in common. An axis' share is that of the sum of squared lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import data_error
from fedsim_np.plots.canvas import axes_or_new, whole
from fedsim_np.plots.checks import as_list, finite_array, names_or_numbers
from fedsim_np.plots.style import BLUE, GREY, SMALL, VERMILION, dress, foreground, shortened
from fedsim_np.texts.numbers import percent, written

Matrix = npt.NDArray[np.float64]


def client_drift(
    updates: npt.ArrayLike | Sequence[npt.ArrayLike],
    global_update: npt.ArrayLike | Sequence[npt.ArrayLike],
    names: Iterable[str] | None = None,
    *,
    axes: Axes | None = None,
) -> Figure:
    """Draw the clients' movements of one round and the server's step, projected on two axes.

    Parameters
    ----------
    updates : ndarray (k, d), or tuple of ndarrays, each (k, ...)
        Initial minus final weights of k clients: flat, or an array for each weight tensor, as
        `fedsim_np.learning.client_updates` returns them.
    global_update : ndarray (d,), or tuple of ndarrays, each (...)
        Old minus new weights of the server.
    names : iterable of str, optional
        Written at the right, joined to the points; readable up to about 30.
    axes : matplotlib Axes, optional

    Returns
    -------
    Figure
        The title has the mean cosine between a client's movement and the server's step, in all d dimensions: 1 if all
        go the same way.

    Raises
    ------
    DataError
        If the shapes do not fit, or an update is not finite.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> process = fed.learning.build_weighted_fed_avg(
    ...     lambda: fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.5))
    >>> cohort = [[{"x": np.float32([[1, 0], [0, 1]]), "y": np.int32([[label], [1]])}] for label in (0, 1)]
    >>> state = process.initialize()
    >>> updates = fed.learning.client_updates(process, state, cohort)
    >>> new_state, _ = process.next(state, cohort)
    >>> old, new = (process.get_model_weights(s).trainable for s in (state, new_state))
    >>> figure = client_drift(updates, [w0 - w for w0, w in zip(old, new)])
    >>> figure.axes[0].get_title()
    'Client drift: 2 clients, mean cosine with the global step 0.6830'
    """
    moves = -_flat(updates, "updates")
    step = -_flat(global_update, "global_update", clients=False)[0]
    k, d = moves.shape
    if len(step) != d:
        raise data_error(f"'global_update' must have as many weights as an update, {d}", len(step))
    texts = None if names is None else names_or_numbers(names, k)
    plane, shares = _plane(moves, step)
    ends, end = moves @ plane.T, step @ plane.T
    axes = axes_or_new(axes, 7.0, 4.8)
    paths = np.stack([np.zeros_like(ends), ends])
    axes.plot(paths[..., 0], paths[..., 1], color=BLUE, linewidth=1.0, alpha=0.6)
    dot: dict[str, Any] = {"s": 36, "color": BLUE, "edgecolors": "white", "linewidths": 0.6}
    star: dict[str, Any] = {"s": 190, "color": VERMILION, "edgecolors": "black", "linewidths": 0.8, "marker": "*"}
    axes.scatter(*ends.T, **dot, zorder=3, label="client after training")
    axes.plot([0, end[0]], [0, end[1]], color=VERMILION, linewidth=2.6, zorder=4)
    axes.scatter(*end, **star, zorder=5, label="server after the round")
    axes.scatter(0, 0, s=70, marker="P", color=foreground(), zorder=6, label="start: the server's model")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.15)
    if texts is not None:
        _write_names(axes, texts, ends)
    many = f"{k} client{'s' * (k != 1)}"
    cosine = _mean_cosine(moves, step)
    agreement = "no movement" if np.isnan(cosine) else f"mean cosine with the global step {written(cosine)}"
    dress(
        axes,
        f"Client drift: {many}, {agreement}",
        f"axis 1: change of the weights ({percent(float(shares[0]))} of the squared length)",
        f"axis 2: change of the weights ({percent(float(shares[1]))})",
    )
    axes.legend(fontsize=SMALL, loc="best", framealpha=0.9)
    return whole(axes)


def _flat(values: Any, name: str, clients: bool = True) -> Matrix:
    """Return (k, d) of an array or of an array for each weight tensor; without the clients' axis k is 1."""
    rule = f"'{name}' must be an array (k, d), or an array (k, ...) for each weight tensor"
    parts = [values] if isinstance(values, np.ndarray) else as_list(name, values, "arrays")
    try:
        tensors = [np.asarray(tensor) for tensor in parts]
    except ValueError as error:
        raise data_error(rule, "lists of different lengths") from error
    shapes = [tensor.shape for tensor in tensors]
    if not clients:
        tensors = [tensor[np.newaxis] for tensor in tensors]
    lengths = {tensor.shape[:1] for tensor in tensors}
    # A list of rows (d,) is refused: it would be taken for d clients.
    if len(lengths) != 1 or lengths & {(), (0,)} or (all(tensor.ndim < 2 for tensor in tensors) and clients):
        raise data_error(rule, f"the shapes {shapes}")
    rows = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    return finite_array(name, np.concatenate(rows, axis=1), 2, "(k, d)")


def _plane(moves: Matrix, step: Matrix) -> tuple[Matrix, Matrix]:
    """Return two orthonormal axes (2, d), the server's step to the right of the first, and their shares."""
    _, singular, directions = np.linalg.svd(moves, full_matrices=False)
    plane, shares = np.zeros((2, moves.shape[1])), np.zeros(2)
    rank = min(2, int((singular > singular[0] * 1e-12).sum()))
    plane[:rank] = directions[:rank]
    if rank:
        shares[:rank] = singular[:rank] ** 2 / (singular**2).sum()
    # A singular vector's sign means nothing: the step is made to point right, the greatest entry of axis 2 up.
    signs = plane[0] @ step or 1.0, plane[1][np.abs(plane[1]).argmax()] or 1.0
    return plane * np.sign(signs)[:, np.newaxis], shares


def _mean_cosine(moves: Matrix, step: Matrix) -> float:
    """Return the mean cosine of those movements that have a direction; NaN if there is none."""
    lengths = np.linalg.norm(moves, axis=1) * np.linalg.norm(step)
    moving = lengths > 0
    return float(np.mean((moves @ step)[moving] / lengths[moving])) if moving.any() else float("nan")


def _write_names(axes: Axes, names: Sequence[str], ends: Matrix) -> None:
    """Write the names in a column right of the axes, in the order of the points' heights, with lines to the points."""
    axes.apply_aspect()
    order = np.argsort(ends[:, 1], kind="stable")
    wanted = axes.transAxes.inverted().transform(axes.transData.transform(ends[order]))[:, 1]
    points = axes.bbox.height * 72 / whole(axes).dpi
    steps = np.arange(len(names)) * min(1.3 * SMALL / points, 1 / max(1, len(names) - 1))
    heights = steps + np.maximum.accumulate(wanted - steps)  # not closer than a step
    heights = np.minimum(heights, 1 - steps[::-1])  # and not above the axes
    for client, height in zip(order.tolist(), heights.tolist(), strict=True):
        axes.annotate(
            shortened(names[client]),
            xy=(ends[client, 0], ends[client, 1]),
            xytext=(1.02, height),
            textcoords=axes.transAxes,
            fontsize=SMALL,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "linestyle": ":", "shrinkB": 3},
        )
