"""How well the model serves each client, over rounds: a mean hides those that it serves badly."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, check_type, data_error, did_you_mean
from fedsim_np.plots.canvas import axes_or_new, whole
from fedsim_np.plots.checks import as_list, checked_rounds
from fedsim_np.plots.style import BLUE, SMALL, VERMILION, dress, fill_band, whole_numbers
from fedsim_np.texts import Texts

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def accuracy_of_clients(
    clients: Mapping[str, Any], metric: str = "sparse_categorical_accuracy"
) -> npt.NDArray[np.float64]:
    """Return each client's accuracy in a round.

    Parameters
    ----------
    clients : mapping
        ``output.clients`` of a training round or of `build_fed_eval`'s: of its columns only ``metrics`` is read, the
        clients' unfinalized metrics.
    metric : str
        A metric whose sums are ``[correct, examples]``.

    Returns
    -------
    ndarray, shape (k,)
        Shares; NaN for a client without examples, or whose update was left out.

    Raises
    ------
    DataError
        If there is no such column or metric.

    Examples
    --------
    >>> accuracy_of_clients({"metrics": [{"accuracy": [3.0, 4.0]}, {"accuracy": [0.0, 0.0]}]}, "accuracy").tolist()
    [0.75, nan]
    """
    check_type("clients", clients, Mapping, "the table output.clients")
    if "metrics" not in clients:
        raise data_error("a table of clients must have the column 'metrics'", list(clients))
    check_type("metric", metric, str, "the name of a field")
    column = as_list("clients", clients["metrics"], "metrics, one a client")
    shares = np.full(len(column), np.nan)
    for number, unfinalized in enumerate(column):
        sums = _sums(unfinalized.get(metric)) if isinstance(unfinalized, Mapping) else []
        if len(sums) != 2:
            found = list(unfinalized) if isinstance(unfinalized, Mapping) else type(unfinalized).__name__
            hint = did_you_mean(metric, found) if isinstance(found, list) else ""
            rule = f"a client's metrics must have '{metric}' as [correct, examples]"
            raise data_error(rule, found, field="metrics", hint=hint)
        if sums[1]:
            shares[number] = sums[0] / sums[1]
    return shares


def _sums(of: Any) -> list[Any]:
    """Return a list of numbers as it is, and anything else as an empty one."""
    values = list(of) if isinstance(of, Sequence) or (isinstance(of, np.ndarray) and of.ndim) else []
    return values if all(isinstance(value, numbers.Real) for value in values) else []


def client_accuracy(
    accuracies: Sequence[npt.ArrayLike],
    rounds: Iterable[int] | None = None,
    *,
    axes: Axes | None = None,
    lang: str = "en",
) -> Figure:
    """Draw the distribution of the clients' accuracies over rounds.

    Parameters
    ----------
    accuracies : sequence of array-like, each (k,)
        A round's accuracies in [0, 1], one a client, see `accuracy_of_clients`; k may differ from round to round. NaN
        is no client; a round without any is left out.
    rounds : iterable of int, optional
        The rounds' numbers; by default 1, 2, ...
    axes : matplotlib Axes, optional
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure
        Bands from the least to the greatest and from the lower to the upper quartile; lines for median and mean, in
        which every client counts alike.

    Raises
    ------
    DataError
        If an accuracy is not in [0, 1], or there is none at all.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> process = fed.learning.build_weighted_fed_avg(
    ...     lambda: fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.5))
    >>> cohort = [[{"x": np.float32([[1, 0], [0, 1]]), "y": np.int32([[label], [1]])}] for label in (0, 1)]
    >>> state, accuracies = process.initialize(), []
    >>> for _ in range(3):
    ...     output = process.next(state, cohort)
    ...     state, _ = output
    ...     accuracies.append(accuracy_of_clients(output.clients))
    >>> figure = client_accuracy(accuracies)
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['median client', 'mean of the clients']
    """
    say = Texts(lang)
    values = [_checked(of_round) for of_round in as_list("accuracies", accuracies, "arrays, one a round")]
    numbers = checked_rounds(rounds, len(values))
    kept = [(number, of_round) for number, of_round in zip(numbers, values, strict=True) if of_round.size]
    if not kept:
        raise argument_error("accuracies", "those of at least one round and client", accuracies)
    shown = [number for number, _ in kept]
    least, lower, median, upper, greatest = np.array([np.quantile(v, QUANTILES) for _, v in kept]).T
    is_ours, axes = axes is None, axes_or_new(axes, 6.0, 4.2)
    fill_band(axes, shown, least, greatest, color=BLUE, alpha=0.18, label=say("all_clients"))
    fill_band(axes, shown, lower, upper, color=BLUE, alpha=0.38, label=say("middle_clients"))
    every = max(1, len(shown) // 12)
    axes.plot(
        shown, median, color=BLUE, marker="o", markersize=5, linewidth=2, markevery=every, label=say("median_client")
    )
    means = [float(of_round.mean()) for _, of_round in kept]
    dashes = (0, (4, 2))
    marks: dict[str, Any] = {"marker": "D", "markersize": 5, "markevery": every}
    axes.plot(shown, means, color=VERMILION, linestyle=dashes, linewidth=1.8, label=say("mean_of_clients"), **marks)
    counts = sorted({of_round.size for _, of_round in kept})
    many = say.number(counts[0]) if len(counts) == 1 else say("from_to", least=counts[0], greatest=counts[-1])
    dress(axes, say("title_accuracy", counts[-1], many=many), say("round"), say("accuracy"))
    whole_numbers(axes.xaxis)
    if len(shown) == 1:
        axes.set_xlim(shown[0] - 1, shown[0] + 1)
    drawn = whole(axes)
    if is_ours:  # there is room below the axes; within them the bands leave none
        drawn.legend(fontsize=SMALL, frameon=False, loc="outside lower center", ncols=2)
    else:
        axes.legend(fontsize=SMALL, framealpha=0.9, loc="best")
    return drawn


def _checked(accuracies: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a round's accuracies without NaN."""
    try:
        values = np.asarray(accuracies, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise data_error("a round's accuracies must be numbers, one a client", type(accuracies).__name__) from error
    values = values[~np.isnan(values)]
    bad = values[(values < 0) | (values > 1)]
    if bad.size:
        raise data_error("accuracies must lie in [0, 1]", bad[0])
    return values
