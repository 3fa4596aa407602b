"""Simulated writers as client data: digits that are drawn when they are asked for, not stored.

How a digit is drawn is in `handwriting`; this module makes writers into clients. A population is a number of writers
and a seed: one of a million costs no more memory than one of a hundred, and any of its clients can be had at once.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, overload

from fedsim_np.datasets.caching import DEFAULT_CACHE_BYTES, keep
from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.handwriting import NUMBERS, SPLITS, check_split, draw_images, draw_labels, num_examples
from fedsim_np.datasets.schema import DIGITS
from fedsim_np.datasets.sources import Columns, ElementSpec, owned
from fedsim_np.errors import argument_error, check_bool, check_int
from fedsim_np.forking import cached_property
from fedsim_np.lru import LRU

EMNIST_CLIENTS = 3383


class _WriterSource:
    """One writer's rows of a split; they are drawn at first use, and not pickled."""

    def __init__(self, writer: int, split: str, seed: int, normalize: bool, kept: LRU | None = None) -> None:
        self._key = writer, split, seed, normalize
        self._drawing: Future[Columns] | None = None
        self._kept = None if kept is None else weakref.ref(kept)

    def __reduce__(self) -> tuple[type[_WriterSource], tuple[int, str, int, bool]]:
        return _WriterSource, self._key

    @cached_property
    def num_rows(self) -> int:
        writer, split, seed, _ = self._key
        return num_examples(writer, split, seed)

    @property
    def spec(self) -> ElementSpec:
        return DIGITS.spec

    @cached_property
    def _columns(self) -> Columns:
        writer, split, seed, normalize = self._key
        label = draw_labels(writer, split, self.num_rows, seed)
        pixels = draw_images(writer, split, label, seed, normalize)
        columns = owned(OrderedDict(label=label, pixels=pixels))
        keep(self, writer, self._kept, columns)
        return columns

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have the images drawn."""
        if self._drawing is None and "_columns" not in self.__dict__:
            self._drawing = submit(lambda: self._columns)

    def columns(self) -> Columns:
        if self._drawing is not None:
            with contextlib.suppress(CancelledError):  # of an executor that was shut down: drawn here
                self._drawing.result()
            self._drawing = None
        return self._columns


class ClientIds(Sequence[str]):
    """The ids of writers 0 to num_clients - 1, made when they are looked at: ``f0000_14``, ``f0001_21``, ...

    The digits after the underscore imitate NIST's series numbers and mean nothing. From 10,000 writers on, the order
    of their numbers is not the sorted order of their ids, in which a file has them.

    Examples
    --------
    >>> ids = ClientIds(1_000_000)
    >>> ids[987_654], ids.index("f0001_21"), ids[:2], "f0001_22" in ids
    ('f987654_42', 1, ['f0000_14', 'f0001_21'], False)
    """

    def __init__(self, num_clients: int) -> None:
        self._writers = range(num_clients)

    def __len__(self) -> int:
        return len(self._writers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return an id, or the list of a slice's."""
        chosen = self._writers[index]
        return _client_id(chosen) if isinstance(chosen, int) else [_client_id(writer) for writer in chosen]

    def __iter__(self) -> Iterator[str]:
        return map(_client_id, self._writers)

    def __contains__(self, client_id: object) -> bool:
        return self._writer(client_id) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the number of the writer with an id; ValueError if there is none."""
        writer = self._writer(value)
        if writer is None or writer not in self._writers[start:stop]:
            raise ValueError(f"{value!r} is not the id of a writer")
        return writer

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ClientIds):
            return len(self) == len(other)
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ClientIds({len(self)})"

    def _writer(self, client_id: object) -> int | None:
        number = client_id[1:].partition("_")[0] if isinstance(client_id, str) else ""
        if not (number.isascii() and number.isdecimal()) or len(number) > 18:
            return None
        writer = int(number)
        return writer if writer in self._writers and client_id == _client_id(writer) else None


def _client_id(writer: int) -> str:
    return f"f{writer:04d}_{(7 * writer + 14) % 50:02d}"


class SyntheticClientData(ClientData):
    """Simulated writers, each drawn when it is asked for.

    Parameters
    ----------
    num_clients : int
        Population, at most 2^32. Nothing is stored: a million writers cost what a hundred do.
    split : {"train", "test"}
        The same writers' other images.
    seed : int
        Below 2^32. Another seed is another population.
    normalize : bool
        Scale and centre digits as MNIST does, or leave size and place to the writer, as the EMNIST files do.
    cache_bytes : int
        How much of what has been drawn is kept, the writers that were read last: 1.25 GiB by default; 0 keeps none.

    Examples
    --------
    >>> data = SyntheticClientData(1_000_000)
    >>> data.client_ids[987_654]
    'f987654_42'
    >>> dataset = data.create_dataset_for_client("f987654_42")
    >>> next(iter(dataset))["pixels"].shape
    (28, 28)
    """

    def __init__(
        self,
        num_clients: int,
        split: str = "train",
        seed: int = 0,
        normalize: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        if check_int("num_clients", num_clients, minimum=1) > NUMBERS:
            raise argument_error("num_clients", f"at most {NUMBERS}", num_clients)
        if check_int("seed", seed, minimum=0) >= NUMBERS:
            raise argument_error("seed", f"an integer from 0 to {NUMBERS - 1}", seed)
        self._client_ids = ClientIds(num_clients)
        self._split, self._seed = check_split(split), int(seed)
        self._normalize = check_bool("normalize", normalize)
        self._kept = LRU(check_int("cache_bytes", cache_bytes, minimum=0))

    @property
    def client_ids(self) -> Sequence[str]:
        """The writers' ids, a sequence that makes them when they are looked at."""
        return self._client_ids

    @property
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec`: EMNIST's label and pixels."""
        return DIGITS.spec

    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the writer's `Dataset`; its images are drawn when they are first read."""
        if client_id not in self._client_ids:
            raise self._unknown(client_id)
        writer = self._client_ids.index(client_id)
        source: _WriterSource | None = self._kept.find(writer)
        if source is None:
            source = _WriterSource(writer, self._split, self._seed, self._normalize, self._kept)
        return Dataset(source, (), client_id)

    def __repr__(self) -> str:
        return (
            f"SyntheticClientData({len(self._client_ids)}, split={self._split!r}, seed={self._seed}, "
            f"normalize={self._normalize})"
        )


def load_data(
    num_clients: int = EMNIST_CLIENTS, seed: int = 0, normalize: bool = True
) -> tuple[SyntheticClientData, SyntheticClientData]:
    """Return (train, test) of simulated writers in EMNIST's shape.

    Parameters
    ----------
    num_clients : int
        3,383 by default, as many as EMNIST's digits have.
    seed : int
    normalize : bool
        See `SyntheticClientData`.

    Examples
    --------
    >>> train, test = load_data()
    >>> len(train.client_ids), list(train.client_ids[:1]) == test.client_ids[:1]
    (3383, True)
    """
    train, test = (SyntheticClientData(num_clients, split, seed, normalize) for split in SPLITS)
    return train, test
