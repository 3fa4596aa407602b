"""What is read once and then remembered: what a dataset reads (`Dataset.cache`), and the clients of a `ClientData`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fedsim_np.datasets.sources import (
    ArraySource,
    Columns,
    ElementSpec,
    Source,
    copied,
    owned,
    read_only_fields,
    spec_of_batches,
)
from fedsim_np.errors import NamingClient
from fedsim_np.forking import ProcessLock
from fedsim_np.lru import LRU

if TYPE_CHECKING:
    from fedsim_np.datasets.dataset import Dataset

DEFAULT_CACHE_BYTES = 5 * 2**28
"""Of decoded columns that a `ClientData` keeps: those of EMNIST's 3,383 writers of digits take 1.2 GB."""


def keep(source: Source, client_id: Hashable, kept: weakref.ref[LRU] | None, columns: Columns) -> None:
    """Keep a client's source, whose columns are here now, where its `ClientData` looks for it; if that is there yet."""
    cache = None if kept is None else kept()
    if cache is not None:
        cache.put(client_id, source, sum(column.nbytes for column in columns.values()))


_T = TypeVar("_T")


class Once(Generic[_T]):
    """What a function returns, made at the first call and then remembered; threads may share it."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._made: list[_T] = []
        self._make = make
        self._lock = ProcessLock()

    @property
    def is_made(self) -> bool:
        """Whether it is there already."""
        return bool(self._made)

    def __call__(self) -> _T:
        """Return it."""
        if not self._made:
            with self._lock():
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]


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
        self._columns = Once(functools.partial(_read_rows, upstream))

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
        self._batches = Once(functools.partial(_read_batches, upstream))

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
    with NamingClient(upstream.client_id):
        return read_only_fields(owned(upstream.to_arrays()))


def _read_batches(upstream: Dataset) -> list[Columns]:
    with NamingClient(upstream.client_id):
        return [read_only_fields(owned(copied(batch))) for batch in upstream.batches()]


def _spec_of(upstream: Dataset, read: Callable[[], ElementSpec]) -> ElementSpec:
    try:
        return upstream.element_spec
    except Exception:  # a map may refuse zeros: then only the data show what it makes of them
        return read()
