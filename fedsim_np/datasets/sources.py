"""Where a dataset's elements come from: rows of arrays, or a stream of ready elements.

A `Source` has rows. It says at once how many and of what shape, and has their columns when they are first asked for:

- `ArraySource`: arrays that are in memory already (those in files and those that are drawn are with their client data);
- `selection.SelectedSource`: chosen fields of another source, renamed and flattened;
- `caching.CachedSource`: the examples that a dataset reads, read once.

An `ElementSource` has elements and no columns: ready batches (`BatchList`), the batches that a dataset reads, read once
(`caching.CachedBatches`), or whatever a function makes one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import data_error

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

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have an executor's `submit` do in other threads what `columns` would do; it waits for them then."""

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

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Do nothing: all is here."""

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, ...)."""
        return self.arrays

    @classmethod
    def of(cls, arrays: Mapping[str, npt.ArrayLike]) -> ArraySource:
        """Make a source of arrays, which are not copied."""
        return cls(read_only_fields(arrays))

    def __reduce__(self) -> tuple[Callable[..., ArraySource], tuple[Columns]]:
        return ArraySource.of, (self.arrays,)  # what is unpickled is read-only too


class ElementSource(NamedTuple):
    """A stream of ready elements, made anew by each call of `read`: batches, or the examples of many clients.

    Attributes
    ----------
    read : callable
        Returns an iterable of mappings.
    structure : ElementSpec or callable
        The elements' spec, or what returns it when it is asked for.
    batched : bool
        Whether an element is a batch.

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> spec = OrderedDict(x=ArraySpec((), np.int64))
    >>> stream = ElementSource(lambda: ({"x": np.int64(i)} for i in range(3)), spec, batched=False)
    >>> [batch["x"].tolist() for batch in Dataset(stream).batch(2)]
    [[0, 1], [2]]
    """

    read: Callable[[], Iterable[Mapping[str, Any]]]
    structure: ElementSpec | Callable[[], ElementSpec]
    batched: bool

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one element's fields."""
        return self.structure() if callable(self.structure) else self.structure


class BatchList:
    """Ready batches, to be read as often as one likes; they stay read-only when pickled."""

    def __init__(self, batches: Sequence[Mapping[str, npt.ArrayLike]]) -> None:
        self._batches = [read_only_fields(batch) for batch in batches]

    def __call__(self) -> Iterator[Columns]:
        """Return the batches."""
        return iter(self._batches)

    def __reduce__(self) -> tuple[type[BatchList], tuple[list[Columns]]]:
        return BatchList, (self._batches,)


def common_spec(elements: Sequence[Mapping[str, Any]]) -> ElementSpec:
    """Return the spec of elements, None where their lengths differ."""
    spec: ElementSpec = OrderedDict()
    for name in elements[0]:
        arrays = [np.asarray(element[name]) for element in elements]
        axes = zip(*(array.shape for array in arrays), strict=False)
        shape = [lengths[0] if len(set(lengths)) == 1 else None for lengths in axes]
        spec[name] = ArraySpec(shape, arrays[0].dtype)
    return spec


def spec_of_batches(batches: Sequence[Columns]) -> ElementSpec:
    """Return the spec of batches, of any number of examples each; without fields if there is none."""
    spec: ElementSpec = common_spec(batches) if batches else OrderedDict()
    return OrderedDict((name, ArraySpec((None, *found.shape[1:]), found.dtype)) for name, found in spec.items())


def copied(element: Mapping[str, Any]) -> Columns:
    """Return copies of an element's arrays: whoever made them may use the same memory again."""
    return OrderedDict((name, np.array(plain_array(values, name))) for name, values in element.items())


def read_only_fields(arrays: Mapping[str, npt.ArrayLike]) -> Columns:
    """Return arrays as read-only views, in the machine's byte order.

    Numbers in lists become what TensorFlow makes of them: float32, and int32 where they fit.
    """
    return OrderedDict((name, _read_only(plain_array(array, name), array)) for name, array in arrays.items())


def owned(columns: Columns) -> Columns:
    """Return arrays that nobody else has, `sealed`, beside views of others' memory as they are."""
    return OrderedDict((name, sealed(array)) for name, array in columns.items())


class _Memory:
    """The memory of an array, for reading only: NumPy makes no view of it writeable again."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, True)}


def sealed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that nobody else has as one that nobody can write to; a view as a read-only view.

    A read-only flag says less: whoever set it may take it back, or write through an older view.

    Examples
    --------
    >>> array = sealed(np.arange(3.0))
    >>> array.flags.writeable = True
    Traceback (most recent call last):
    ValueError: cannot set WRITEABLE flag to True of this array
    >>> is_sealed(array[1:]), is_sealed(np.arange(3.0))
    (True, False)
    """
    if array.base is None and not array.dtype.hasobject:
        return np.asarray(_Memory(array))
    array.flags.writeable = False
    return array


def is_sealed(array: npt.NDArray[Any]) -> bool:
    """Return whether an array's memory was `sealed`, or is that of bytes, which nobody can write to either."""
    part: Any = array
    while isinstance(part, np.ndarray):
        part = part.base
    return isinstance(part, _Memory | bytes)


def plain_array(
    values: npt.ArrayLike, field: str | None = None, dtype: npt.DTypeLike | None = None
) -> npt.NDArray[Any]:
    """Return values as an array; masked ones are refused, since the mask would be lost and what it hides be used."""
    if np.ma.is_masked(values):
        raise data_error("values must be there, none of them masked", "a masked array", field=field)
    return np.asarray(values, dtype)


def _read_only(values: npt.NDArray[Any], array: npt.ArrayLike) -> npt.NDArray[Any]:
    view = values.view()
    if not isinstance(array, np.ndarray | np.generic):
        if view.dtype.kind == "f":
            view = view.astype(np.float32)
        elif view.dtype.kind == "i":
            fits = not view.size or (view.min() >= -(2**31) and view.max() < 2**31)
            view = view.astype(np.int32 if fits else np.int64)
    if not view.dtype.isnative:
        view = view.astype(view.dtype.newbyteorder("="))
    return sealed(view)


def stack(elements: Sequence[Mapping[str, Any]]) -> Element:
    """Stack single elements into a batch, field by field."""
    return OrderedDict((name, np.stack([e[name] for e in elements])) for name in elements[0])
