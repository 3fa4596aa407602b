"""Where a dataset's elements come from: rows of arrays, or a stream of ready elements."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

Element = OrderedDict[str, Any]
"""What iteration gives: field name -> array, of one example (n absent) or of one batch (b first)."""

Columns = OrderedDict[str, npt.NDArray[Any]]


@dataclass(frozen=True, repr=False)
class ArraySpec:
    """Shape and dtype of an array; None stands for any length.

    Parameters
    ----------
    shape : tuple of (int or None)
    dtype : dtype-like

    Examples
    --------
    >>> ArraySpec((None, 784), np.float32)
    ArraySpec(shape=(None, 784), dtype=float32)
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __init__(self, shape: Iterable[int | None], dtype: npt.DTypeLike) -> None:
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "dtype", np.dtype(dtype))

    def __repr__(self) -> str:
        return f"ArraySpec(shape={self.shape}, dtype={self.dtype.name})"


ElementSpec = OrderedDict[str, ArraySpec]


class Source(Protocol):
    """Where rows come from: known by number and shape at once, read when they are first needed."""

    @property
    def num_rows(self) -> int:
        """Number of examples (n)."""

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one example's fields."""

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, ...)."""


class ArraySource(NamedTuple):
    """Rows that are in memory already."""

    arrays: Columns

    @property
    def num_rows(self) -> int:
        """Number of examples (n)."""
        return len(next(iter(self.arrays.values())))

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one example's fields."""
        return OrderedDict((name, ArraySpec(a.shape[1:], a.dtype)) for name, a in self.arrays.items())

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, ...)."""
        return self.arrays


class ElementSource(NamedTuple):
    """A stream of ready elements, made anew by each call of `read`: batches, or the examples of many clients."""

    read: Callable[[], Iterable[Mapping[str, Any]]]
    spec: ElementSpec

    @property
    def batched(self) -> bool:
        """Whether an element is a batch: lengths that vary along the first axis."""
        return bool(self.spec) and all(spec.shape[:1] == (None,) for spec in self.spec.values())


def read_only(array: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return a read-only view; integers in lists are int64 on every platform."""
    view = np.asarray(array).view()
    if not isinstance(array, np.ndarray) and view.dtype.kind == "i":
        view = view.astype(np.int64)
    view.flags.writeable = False
    return cast(npt.NDArray[Any], view)


def stack(elements: Sequence[Mapping[str, Any]]) -> Element:
    """Stack single elements into a batch, field by field."""
    return OrderedDict((name, np.stack([e[name] for e in elements])) for name in elements[0])
