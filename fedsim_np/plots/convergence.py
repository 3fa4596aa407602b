"""How far from the optimum a run is, and what its steps are made of: `fedsim_np.analysis`, drawn.

Distances shrink by factors, so their axis is logarithmic; one that is zero or below, by rounding, has no place on it
and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim_np.errors import argument_error, check_type
from fedsim_np.plots.canvas import axes_or_new, whole
from fedsim_np.plots.checks import checked_rounds, finite_array
from fedsim_np.plots.style import SMALL, dress, line_style, literal, whole_numbers, write_inside
from fedsim_np.texts import Texts


def suboptimality_curves(
    values: Mapping[str, npt.ArrayLike],
    rounds: Iterable[int] | None = None,
    *,
    measure: str = "F(w) - F(w*)",
    axes: Axes | None = None,
    lang: str = "en",
) -> Figure:
    """Draw a measure that goes to zero at the optimum, over the rounds, a line for each run.

    Parameters
    ----------
    values : mapping of str to array-like, shape (r,)
        A run's name -> its measure round by round: `analysis.suboptimality`, `analysis.distance_to_optimum`, or zeta
        squared of `analysis.gradient_dissimilarity`. NaN is a round that was not evaluated.
    rounds : iterable of int, optional
        The rounds' numbers; by default 1, 2, ...
    measure : str
        What is measured: the vertical axis' name.
    axes : matplotlib Axes, optional
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If a value is infinite, or no number.

    Examples
    --------
    >>> figure = suboptimality_curves({"FedAvg": [1.0, 0.3, 0.2], "SCAFFOLD": [1.0, 0.1, 0.01]})
    >>> figure.axes[0].get_yscale(), figure.axes[0].lines[1].get_ydata().tolist()
    ('log', [1.0, 0.1, 0.01])
    """
    check_type("values", values, Mapping, "a mapping of runs' names to values")
    if not values:
        raise argument_error("values", "of at least one run", values)
    arrays = {str(name): finite_array(f"values[{name!r}]", of, 1, "(r,)", nan=True) for name, of in values.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise argument_error("values", "of equally many rounds", {name: len(of) for name, of in arrays.items()})
    numbers = checked_rounds(rounds, len(next(iter(arrays.values()))))
    axes = axes_or_new(axes, 6.4, 4.0)
    say = Texts(lang)
    _draw(axes, numbers, arrays, say)
    dress(axes, say("title_optimum"), say("round"), measure)
    return whole(axes)


def round_parts(
    norms: Sequence[Mapping[str, float]],
    rounds: Iterable[int] | None = None,
    *,
    axes: Axes | None = None,
    lang: str = "en",
) -> Figure:
    """Draw what the step of each round is made of.

    Parameters
    ----------
    norms : sequence of mappings
        Of each round what `analysis.RoundStep.norms` gives.
    rounds : iterable of int, optional
        The rounds' numbers; by default 1, 2, ...
    axes : matplotlib Axes, optional
    lang : {"en", "es"}
        The language of what is written.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If a norm is not a finite number.

    Examples
    --------
    >>> steps = [{"centralized": size, "sampling": 0.2, "drift": 0.1} for size in (1.0, 0.5)]
    >>> [line.get_label() for line in round_parts(steps).axes[0].lines]
    ['centralized', 'sampling', 'drift']
    """
    if not norms or not all(isinstance(step, Mapping) and step.keys() == norms[0].keys() for step in norms):
        raise argument_error("norms", "mappings with the same parts, one for each round", norms)
    arrays = {str(name): finite_array(name, [step[name] for step in norms], 1, "(r,)") for name in norms[0]}
    say = Texts(lang)
    axes = axes_or_new(axes, 6.4, 4.0)
    named = {say.name("part", name): array for name, array in arrays.items()}
    _draw(axes, checked_rounds(rounds, len(norms)), named, say)
    dress(axes, say("title_step"), say("round"), say("length_axis"))
    return whole(axes)


def _draw(axes: Axes, rounds: Sequence[int], arrays: Mapping[str, npt.NDArray[np.float64]], say: Texts) -> None:
    axes.set_yscale("log")
    for number, (name, values) in enumerate(arrays.items()):
        look = {**line_style(number), "markevery": max(1, len(rounds) // 20)}
        seen = ~np.isnan(values)
        drawn = np.where(values[seen] > 0, values[seen], np.nan)
        axes.plot(np.asarray(rounds)[seen], drawn, label=literal(name), **look)
    if not any((values > 0).any() for values in arrays.values()):
        write_inside(axes, say("all_zero"))
    whole_numbers(axes.xaxis)
    axes.legend(fontsize=SMALL, framealpha=0.9)
