"""What it costs to train a chunk in each way, by shapes alone, so that every machine makes the same choice.

A way's cost is a sum of counts, each times what one of them took where it was measured: `benchmarks/bench_shapes.py`
times all ways on a grid of shapes, moves these numbers to where the choices are best, on grids of two machines
(``--fit``), and tells how near the choice is to the fastest. What matters are their proportions. A way whose arrays
would take more than the data allow is not chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.trees import Array

Way = Literal["cohort", "gram", "presorted"]


class Shapes(NamedTuple):
    """What a chunk's cost depends on.

    Attributes
    ----------
    rows, visits, steps : ndarray, shape (k,)
        Of each client: rows, rows that are read (repetitions included), batches.
    batch_size, num_features, num_classes : int
    """

    rows: Array
    visits: Array
    steps: Array
    batch_size: int
    num_features: int
    num_classes: int

    @classmethod
    def of(cls, columns: Sequence[ClientColumns], num_features: int, num_classes: int) -> Shapes:
        """Return the shapes of a chunk."""
        counts = [(len(client.x), len(client.rows), len(client.lengths)) for client in columns]
        rows, visits, steps = np.array(counts, np.float64).T
        largest = int(np.concatenate([client.lengths for client in columns]).max(initial=0))
        return cls(rows, visits, steps, largest, num_features, num_classes)


# Microseconds: of a chunk, and of each of the counts. What all ways have in common is left out.
_PRESORTED = {
    "clients": 33.0,
    "steps": 19.2,
    "laid out": 0.00086,
    "probabilities": 0.0061,
    "weights": 0.0031,
    "far weights": 0.0041,
}
_COHORT = {"steps": 144.0, "products": 0.00083, "probabilities": 0.0078, "weights": 0.0036, "far weights": 0.0039}
_GRAM = {
    "chunk": 250.0,
    "steps": 27.9,
    "data": 0.00054,
    "products": 0.00013,
    "moved": 5.4e-5,
    "gathered": 0.00052,
    "probabilities": 0.0106,
    "matrices": 5e-6,
}
OF_ONE: dict[Way, dict[str, float]] = {"presorted": _PRESORTED, "cohort": _COHORT, "gram": _GRAM}
_NEAR = 2**18  # numbers that a core's cache has room for


def counts(shapes: Shapes) -> dict[Way, dict[str, float]]:
    """Return what each way does how often."""
    rows, visits, steps, b, d, c = shapes
    k, n, v, t, longest, most = len(rows), rows.sum(), visits.sum(), steps.sum(), steps.max(), rows.max()
    padded, places = t * b, longest * k * b  # of clients that are cut off when they have finished, and of all
    return {
        "presorted": {
            "clients": k,
            "steps": t,
            "laid out": (n + v) * (d + 1),  # numbers that are copied
            "probabilities": v * c,
            "weights": t * d * c,  # that are moved
            "far weights": t * d * c * (d * c > _NEAR),
        },
        "cohort": {
            "steps": longest,
            "products": padded * d,
            "probabilities": padded * c,
            "weights": t * d * c,
            "far weights": t * d * c * (k * d * c > _NEAR),
        },
        "gram": {
            "chunk": 1,
            "steps": longest,
            "data": n * d,  # that are read twice
            "products": n * d * c,
            "moved": places * most * c,  # multiplications that move the logits
            "gathered": places * most,
            "probabilities": places * c,
            "matrices": (rows**2).sum() * d,  # at an eighth of their price: they are kept
        },
    }


def costs(shapes: Shapes) -> dict[Way, float]:
    """Return what each way costs, in microseconds on the machine that was measured.

    Examples
    --------
    >>> even, ragged = np.full(10, 50), np.array([50] * 9 + [5000])
    >>> [min(found, key=found.get) for found in (costs(Shapes(n, 5 * n, n / 4, 20, 60, 10)) for n in (even, ragged))]
    ['gram', 'presorted']
    """
    return {way: sum(OF_ONE[way][name] * n for name, n in of_way.items()) for way, of_way in counts(shapes).items()}


def memory(shapes: Shapes) -> dict[Way, float]:
    """Return how many numbers of 4 bytes each way's largest arrays have, beside the data, the updates and a few MB."""
    rows, _, steps, b, d, c = shapes
    k, longest, most = len(rows), steps.max(), rows.max()
    places = longest * k * b
    return {
        "presorted": rows.max() * (d + 1),
        "cohort": 6 * places + k * b * (d + 2 * c),
        "gram": k * most * most + (6 + 3 * c) * places,
    }


def cheapest(columns: Sequence[ClientColumns], num_features: int, num_classes: int) -> Way:
    """Return the way that costs least, of those that take no more memory than the data twice, or 64 MB."""
    if not columns or not any(len(client.rows) for client in columns):
        return "cohort"
    shapes = Shapes.of(columns, num_features, num_classes)
    most = max(2 * shapes.rows.sum() * num_features, 2**24)
    taken = memory(shapes)
    allowed: dict[Way, float] = {way: cost for way, cost in costs(shapes).items() if taken[way] <= most}
    return min(allowed, key=lambda way: allowed[way], default="presorted")
