"""Where a dataset's elements come from: rows of arrays, or a stream of ready elements.

A `Source` has rows. It says at once how many and of what shape, and has their columns when they are first asked for:

- `ArraySource`: arrays that are in memory already (those in files and those that are drawn are with their client data);
- `SelectedSource`: chosen fields of another source, renamed and flattened, as a `Selection` says;
- `CachedSource`: the examples that a dataset reads, read once.

An `ElementSource` has elements and no columns: ready batches (`BatchList`), the batches that a dataset reads, read once
(`CachedBatches`), or whatever a function makes one by one.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import argument_error, argument_type_error, check_float, data_error, naming_client
from fedsim_np.lru import LRU

if TYPE_CHECKING:
    from fedsim_np.datasets.dataset import Dataset

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


DEFAULT_CACHE_BYTES = 5 * 2**28
"""Of decoded columns that a `ClientData` keeps: those of EMNIST's 3,383 writers of digits take 1.2 GB."""


def keep(source: Source, client_id: Hashable, kept: weakref.ref[LRU] | None, columns: Columns) -> None:
    """Keep a client's source, whose columns are here now, where its `ClientData` looks for it; if that is there yet."""
    cache = None if kept is None else kept()
    if cache is not None:
        cache.put(client_id, source, sum(column.nbytes for column in columns.values()))


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


@dataclass(frozen=True)
class Selection:
    """Which fields to keep, by which names and in which order; each row is flattened to one axis.

    It acts on the columns of a source, (n, ...) -> (n, d), on a batch, (b, ...) -> (b, d), or on one example,
    (...) -> (d,), and then stands in the place of a map's function.

    Attributes
    ----------
    fields : tuple of (str, str)
        New name, name of a field that is there.
    scale, offset : float or None
        Of the new field `x`, in float32: ``float32(x) * float32(scale) + float32(offset)``; None leaves a step out.
    client_id : str or None
        For the texts of errors.
    batched : bool
        Whether there is an axis of rows, which stays.

    Examples
    --------
    >>> choice = Selection.of({"x": "pixels", "y": "label"}, scale=0.5)
    >>> batch = choice({"label": np.int32([3, 1]), "pixels": np.uint8([[[0, 1]], [[2, 3]]])})
    >>> batch["x"].tolist(), batch["y"].tolist()
    ([[0.0, 0.5], [1.0, 1.5]], [[3], [1]])
    """

    fields: tuple[tuple[str, str], ...]
    scale: float | None = None
    offset: float | None = None
    client_id: str | None = None
    batched: bool = True

    @classmethod
    def of(
        cls,
        fields: Mapping[str, str],
        scale: float | None = None,
        offset: float | None = None,
        client_id: str | None = None,
        batched: bool = True,
    ) -> Selection:
        """Check what a caller asks for.

        Raises
        ------
        ValueError
            If no field is named, `scale` or `offset` is not a finite float32, or is given without a field `x`.
        TypeError
            If a field is given as something else than a str.
        """
        if not fields:
            raise argument_error("fields", "at least one keyword, such as x='pixels'", fields)
        for new, old in fields.items():
            if not isinstance(old, str):
                raise argument_type_error(new, "the name of a field, a str", old)
        numbers = {"scale": scale, "offset": offset}
        for name, value in numbers.items():
            if value is not None and "x" not in fields:
                raise argument_error(name, f"left out where no field is called 'x', as of {list(fields)}", value)
            numbers[name] = None if value is None else _float32(name, value)
        return cls(tuple(fields.items()), numbers["scale"], numbers["offset"], client_id, batched)

    def _is_scaled(self, new: str) -> bool:
        return new == "x" and not (self.scale is None and self.offset is None)

    def check(self, found: Mapping[str, Any]) -> None:
        """Check fields for what is asked of them, by anything with a dtype: no value is looked at.

        Raises
        ------
        DataError
            If one is not there, or is to be scaled and holds no numbers.
        """
        for new, old in self.fields:
            place: dict[str, Any] = {"client_id": self.client_id, "field": old}
            if old not in found:
                raise data_error("must be there", f"only {list(found)}", **place)
            dtype = getattr(found[old], "dtype", None)
            if self._is_scaled(new) and dtype is not None and dtype.kind not in "biuf":
                raise data_error("must hold numbers to be scaled", f"dtype {dtype}", **place)

    def spec(self, rows: ElementSpec) -> ElementSpec:
        """Return what becomes of one example's shapes and dtypes."""
        selected: ElementSpec = OrderedDict()
        for new, old in self.fields:
            length = None if None in rows[old].shape else math.prod(d or 0 for d in rows[old].shape)
            selected[new] = ArraySpec((length,), np.float32 if self._is_scaled(new) else rows[old].dtype)
        return selected

    def __call__(self, element: Mapping[str, Any]) -> Element:
        """Return the chosen fields, in C order: views where that can be, new arrays where they are scaled."""
        self.check(element)
        with naming_client(self.client_id):
            return OrderedDict((new, self._flat(new, plain_array(element[old], old), old)) for new, old in self.fields)

    def _flat(self, new: str, values: npt.NDArray[Any], old: str) -> npt.NDArray[Any]:
        if self.batched and not values.ndim:
            raise data_error("a batch's arrays must have an examples axis", "a scalar", field=old)
        rows = values.shape[:1] if self.batched else ()
        flat = values.reshape(*rows, math.prod(values.shape[len(rows) :]))
        if not self._is_scaled(new):
            return np.ascontiguousarray(flat)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = flat.astype(np.float32, order="C")
            if self.scale is not None:
                scaled *= np.float32(self.scale)
            if self.offset is not None:
                scaled += np.float32(self.offset)
        beyond = ~np.isfinite(scaled)
        if beyond.any() and np.isfinite(flat[beyond]).any():
            found = flat[beyond & np.isfinite(flat)][0]
            raise data_error("values must be finite as float32", found, field=old)
        return scaled


def _float32(name: str, value: float) -> float:
    checked = check_float(name, value)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(checked)):
            raise argument_error(name, "a finite float32", value)
    return checked


_T = TypeVar("_T")


class _Once(Generic[_T]):
    """What a function returns, made at the first call and then remembered; threads may share it."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make, self._made = make, list[_T]()
        self._lock, self._process = threading.RLock(), os.getpid()

    @property
    def is_made(self) -> bool:
        """Whether it is there already."""
        return bool(self._made)

    def __call__(self) -> _T:
        if not self._made:
            if self._process != os.getpid():  # a forked child: a thread that it has not got may hold the lock
                self._lock, self._process = threading.RLock(), os.getpid()
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]


class SelectedSource:
    """Chosen fields of another source's rows, made at first use and then remembered; they are not pickled.

    Parameters
    ----------
    inner : Source
    selection : Selection
    after : int
        How many of the dataset's stages stand before the choice.

    Examples
    --------
    >>> source = SelectedSource(ArraySource.of({"pixels": np.zeros((3, 2, 2))}), Selection.of({"x": "pixels"}))
    >>> source.spec["x"], source.columns()["x"].shape
    (ArraySpec(shape=(4,), dtype=float64), (3, 4))
    """

    def __init__(self, inner: Source, selection: Selection, after: int = 0) -> None:
        self._inner, self._selection, self.after = inner, selection, after
        # Not a method of this object: the columns shall go with the last reference to it.
        self._columns = _Once(functools.partial(_select, inner, selection))

    def __reduce__(self) -> tuple[type[SelectedSource], tuple[Source, Selection, int]]:
        return SelectedSource, (self._inner, self._selection, self.after)

    @property
    def num_rows(self) -> int:
        """Number of examples (n)."""
        return self._inner.num_rows

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one example's fields."""
        return self._selection.spec(self._inner.spec)

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have the other source's columns loaded."""
        if not self._columns.is_made:
            self._inner.load_ahead(submit)

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, d)."""
        return self._columns()


def _select(source: Source, selection: Selection) -> Columns:
    columns = source.columns()
    chosen = {old: columns.get(old) for _, old in selection.fields}
    if selection.scale is None is selection.offset and all(
        column is not None and column.flags.c_contiguous for column in chosen.values()
    ):  # views, as read-only as what they are of
        return OrderedDict((new, _rows(columns[old])) for new, old in selection.fields)
    return read_only_fields(selection(columns))


def _rows(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return column.reshape(len(column), math.prod(column.shape[1:]))


class CachedSource:
    """The examples that a dataset reads, read at first use and then remembered; they are not pickled.

    Parameters
    ----------
    upstream : Dataset
        Finite, and not batched.
    rows : Source or None
        Where it reads from; None is a stream, of which only reading tells how many examples it has.

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> rows = ArraySource.of({"x": [1, 2]})
    >>> source = CachedSource(Dataset(rows).repeat(2), rows)
    >>> source.num_rows, source.columns()["x"].tolist()
    (4, [1, 2, 1, 2])
    """

    def __init__(self, upstream: Dataset, rows: Source | None) -> None:
        self._upstream, self._rows = upstream, rows
        self._num_rows: int | None = None
        self._spec: ElementSpec | None = None
        self._columns = _Once(functools.partial(_read_rows, upstream))

    def __reduce__(self) -> tuple[type[CachedSource], tuple[Dataset, Source | None]]:
        return CachedSource, (self._upstream, self._rows)

    @property
    def num_rows(self) -> int:
        """Number of examples (n), repetitions included."""
        if self._num_rows is None:
            of_stream = self._rows is None
            self._num_rows = ArraySource(self.columns()).num_rows if of_stream else self._upstream.num_examples
        return self._num_rows

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one example's fields."""
        if self._spec is None:
            self._spec = _spec_of(self._upstream, lambda: ArraySource(self.columns()).spec)
        return self._spec

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have the columns loaded that are read; maps are left for `columns`, which calls them in order."""
        if self._rows is not None and not self._columns.is_made:
            self._rows.load_ahead(submit)

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, ...)."""
        return self._columns()


class CachedBatches:
    """The batches that a dataset reads, read at first use and then remembered; they are not pickled.

    Parameters
    ----------
    upstream : Dataset
        Finite and batched.

    Examples
    --------
    >>> from fedsim_np.datasets import Dataset
    >>> batches = CachedBatches(Dataset.from_arrays({"x": [1, 2, 3]}).batch(2))
    >>> batches.spec()["x"].shape, [batch["x"].tolist() for batch in batches()]
    ((None,), [[1, 2], [3]])
    """

    def __init__(self, upstream: Dataset) -> None:
        self._upstream = upstream
        self._spec: ElementSpec | None = None
        self._batches = _Once(functools.partial(_read_batches, upstream))

    def __reduce__(self) -> tuple[type[CachedBatches], tuple[Dataset]]:
        return CachedBatches, (self._upstream,)

    def spec(self) -> ElementSpec:
        """Return shape and dtype of a batch's fields."""
        if self._spec is None:
            self._spec = _spec_of(self._upstream, lambda: spec_of_batches(self._batches()))
        return self._spec

    def __call__(self) -> Iterator[Columns]:
        """Return the batches."""
        return iter(self._batches())


def _read_rows(upstream: Dataset) -> Columns:
    with naming_client(upstream.client_id):
        return read_only_fields(upstream.to_arrays())


def _read_batches(upstream: Dataset) -> list[Columns]:
    with naming_client(upstream.client_id):
        return [read_only_fields(copied(batch)) for batch in upstream.batches()]


def _spec_of(upstream: Dataset, read: Callable[[], ElementSpec]) -> ElementSpec:
    try:
        return upstream.element_spec
    except Exception:  # a map may refuse zeros: then only the data show what it makes of them
        return read()


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
    view.flags.writeable = False
    return cast(npt.NDArray[Any], view)


def stack(elements: Sequence[Mapping[str, Any]]) -> Element:
    """Stack single elements into a batch, field by field."""
    return OrderedDict((name, np.stack([e[name] for e in elements])) for name in elements[0])
