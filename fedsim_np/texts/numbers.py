"""Numbers as readers see them, in one format: counts whole, everything else with four significant digits."""

from __future__ import annotations

import math

from fedsim_np.files import unit_of_bytes

_WRITTEN_OUT = 1e15  # beyond it there are powers of ten


def written(value: float) -> str:
    """Return a number as text: a count (an int) whole, a measure (a float) with four significant digits.

    Examples
    --------
    >>> [written(value) for value in (5080, 0.5, 2.3025851, 1016.4, 0.00001234, 0.0, 1e20, float("nan"))]
    ['5,080', '0.5000', '2.303', '1,016', '1.234e-05', '0', '1.000e+20', '-']
    """
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "-"
    if value == 0 or 999.95 <= abs(value) < _WRITTEN_OUT:
        return f"{value:,.0f}"
    return f"{value:#.4g}"


def percent(share: float) -> str:
    """Return a share as a percentage.

    Examples
    --------
    >>> percent(0.875), percent(1.0), percent(0.0)
    ('87.50%', '100.0%', '0%')
    """
    return f"{written(100.0 * share)}%"


def amount(count: float) -> str:
    """Return a number of bytes with its unit, powers of 1,000.

    Examples
    --------
    >>> amount(768), amount(6_280_000)
    ('768 bytes', '6.280 MB')
    """
    unit, size = unit_of_bytes(count)
    return f"{written(round(count) if size == 1 else count / size)} {unit}"


def column(values: list[float]) -> list[int | float]:
    """Return a column's values, as ints if all that are there are whole numbers: a count, and no measure.

    Examples
    --------
    >>> column([5080.0, float("nan")]), column([2.0, 2.5])
    ([5080, nan], [2.0, 2.5])
    """
    is_count = all(math.isnan(value) or (value.is_integer() and abs(value) < _WRITTEN_OUT) for value in values)
    return [int(value) if is_count and not math.isnan(value) else value for value in values]
