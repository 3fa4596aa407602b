"""A client's examples, and the order in which they are read.

A `Dataset` is *columns plus a lazy order*. The columns are arrays whose first axis counts the examples (n): they stay
as they are, shared by every dataset derived from them. The order is a chain of *stages* (repeat, shuffle, batch, map,
take), a few small frozen objects. Reading starts the chain on the row numbers 0..n-1: repeat, shuffle and take pass
them on in another order, batch gathers a batch's rows out of each column at once, and only then does map see arrays.
No example is touched one by one, however often it is repeated. What select does to each row is done to the columns.

The semantics are tf.data's, down to which order a shuffle has in which iteration (`shuffle`). TensorFlow counts a
shuffle's iterations in a *seed generator* that every dataset derived from that shuffle shares; starting an iterator
uses one number up, read or not. ``for batch in dataset`` does the same here, and that counter is the one mutable
thing in a Dataset. `Dataset.batches` neither reads nor moves it: it computes the order of a stated iteration.

One thing is TensorFlow's alone: it reads ahead in other threads, at the end of a pipeline and in its maps. After an
iterator that was given up halfway, its next order depends on how far it had got by then; here nothing is read ahead.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.caching import CachedBatches, CachedSource
from fedsim_np.datasets.reading import RowBatches, applied, counter, elements, sliced_batches, whole_order
from fedsim_np.datasets.selection import SelectedSource, Selection
from fedsim_np.datasets.sources import (
    ArraySource,
    BatchList,
    Columns,
    Element,
    ElementSource,
    ElementSpec,
    Source,
    common_spec,
    copied,
    read_only_fields,
    spec_of_batches,
    stack,
)
from fedsim_np.datasets.stages import (
    Batch,
    Map,
    Reader,
    Repeat,
    SeedGenerator,
    Shuffle,
    Stage,
    Take,
    counted,
    is_infinite,
    split_order,
    start,
)
from fedsim_np.errors import argument_error, argument_type_error, check_int, data_error


class Dataset:
    """Examples of one client and the order of reading them, like a ``tf.data.Dataset``.

    Datasets come from a `ClientData`, from `Dataset.from_arrays` or from `Dataset.from_batches`. Every transformation
    returns a new Dataset and leaves this one as it is.

    Attributes
    ----------
    client_id : str or None
        The client whose examples these are, carried through every transformation.

    Examples
    --------
    >>> dataset = Dataset.from_arrays({"x": np.arange(7)})
    >>> [batch["x"].tolist() for batch in dataset.repeat(2).shuffle(100, seed=1).batch(5)]
    [[4, 0, 2, 5, 0], [2, 6, 4, 1, 5], [1, 6, 3, 3]]
    """

    def __init__(
        self,
        source: Source | ElementSource,
        stages: tuple[Stage, ...] = (),
        client_id: str | None = None,
    ) -> None:
        self._source, self._recipe, self.client_id = source, stages, client_id
        self._skipped: int | None = None  # iterations of the recipe that come before this dataset's first
        self._own_stages: tuple[Stage, ...] | None = None
        # The order that `batches` read last, by the numbers that its shuffles started with.
        self._orders: dict[tuple[int, ...], npt.NDArray[np.intp]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}, "_own_stages": None}

    def __copy__(self) -> Dataset:
        return self.skip_iterations(0)

    @property
    def _stages(self) -> tuple[Stage, ...]:
        """The stages, with counters of this dataset's own where iterations were skipped: made when they are needed."""
        if self._skipped is None:
            return self._recipe
        if self._own_stages is None:
            numbers = self._numbers(self._recipe, self._skipped)
            self._own_stages = tuple(
                stage._replace(generator=SeedGenerator(numbers.get(stage.generator, stage.generator.first)))
                if isinstance(stage, Shuffle)
                else stage
                for stage in self._recipe
            )
        return self._own_stages

    # --- making one

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.ArrayLike], client_id: str | None = None) -> Dataset:
        """Make a dataset of the rows of arrays.

        Parameters
        ----------
        arrays : mapping of str to array-like, each of shape (n, ...)
            One array a field. They are not copied.
        client_id : str, optional

        Raises
        ------
        DataError
            If there is no field, or the arrays differ in length.

        Examples
        --------
        >>> Dataset.from_arrays({"x": np.zeros((3, 2), np.float32)}).element_spec["x"]
        ArraySpec(shape=(2,), dtype=float32)
        """
        columns = read_only_fields(arrays)
        if not columns:
            raise data_error("must have at least one field", "none", client_id=client_id)
        for name, column in columns.items():
            if not column.ndim:
                raise data_error("must have an examples axis", "a scalar", client_id=client_id, field=name)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise data_error("all fields must have the same length", lengths, client_id=client_id)
        return cls(ArraySource(columns), (), client_id)

    @classmethod
    def from_batches(cls, batches: Iterable[Mapping[str, npt.ArrayLike]], client_id: str | None = None) -> Dataset:
        """Make a dataset of ready batches.

        Parameters
        ----------
        batches : iterable of mappings of str to array-like
            Read once, here; the batches may differ in length.
        client_id : str, optional

        Raises
        ------
        DataError
            If a batch is not a mapping, or the batches differ in their fields.

        Examples
        --------
        >>> dataset = Dataset.from_batches([{"x": np.zeros((3, 2))}, {"x": np.zeros((1, 2))}])
        >>> dataset.element_spec["x"], dataset.num_examples
        (ArraySpec(shape=(None, 2), dtype=float64), 4)
        """
        ready: list[Columns] = []
        for batch in batches:
            if not isinstance(batch, Mapping) or not batch:
                found = "an empty one" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
                raise data_error("a batch must be a mapping of field names to arrays", found, client_id=client_id)
            arrays = read_only_fields(batch)
            for name, array in arrays.items():
                if not array.ndim:
                    rule = "a batch's arrays must have an examples axis"
                    raise data_error(rule, "a scalar", client_id=client_id, field=name)
            if ready and list(arrays) != list(ready[0]):
                rule = f"every batch must have the fields {list(ready[0])}"
                raise data_error(rule, list(arrays), client_id=client_id)
            ready.append(arrays)
        return cls(ElementSource(BatchList(ready), spec_of_batches(ready), batched=True), (), client_id)

    # --- transformations

    def _then(self, stage: Stage) -> Dataset:
        return Dataset(self._source, (*self._stages, stage), self.client_id)

    def repeat(self, count: int | None = None) -> Dataset:
        """Read everything `count` times; for ever if `count` is None or -1.

        Examples
        --------
        >>> [int(e["x"]) for e in Dataset.from_arrays({"x": [1, 2]}).repeat(2)]
        [1, 2, 1, 2]
        """
        checked = None if count is None else check_int("count", count, minimum=-1)
        if checked == 1:
            return self
        times = None if checked == -1 else checked
        # As after a map: a shuffle that a choice of fields follows is not fused with what comes then.
        between = isinstance(self._source, SelectedSource) and self._source.after == len(self._stages)
        if not between and self._stages and isinstance(shuffle := self._stages[-1], Shuffle) and shuffle.times == 1:
            return Dataset(self._source, (*self._stages[:-1], shuffle._replace(times=times)), self.client_id)
        return self._then(Repeat(times))

    def shuffle(self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True) -> Dataset:
        """Read in tf.data's shuffled order.

        Parameters
        ----------
        buffer_size : int
            Elements to pick from; at least the number of elements for a uniform shuffle.
        seed : int
            Required: an order without a seed could not be repeated. Reduced modulo 2^31 - 1, as TensorFlow does.
        reshuffle_each_iteration : bool
            False gives every iteration the same order.

        Raises
        ------
        ValueError
            If `seed` is None or the buffer is empty.

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"x": range(5)}).shuffle(3, seed=4)
        >>> [int(e["x"]) for e in dataset], [int(e["x"]) for e in dataset]
        ([1, 0, 4, 3, 2], [1, 0, 4, 2, 3])
        """
        size = check_int("buffer_size", buffer_size, minimum=1)
        if seed is None:
            raise argument_error("seed", "an integer, so that the order can be repeated", seed)
        checked = check_int("seed", seed)
        return self._then(Shuffle(size, checked, bool(reshuffle_each_iteration), SeedGenerator()))

    def batch(self, batch_size: int, drop_remainder: bool = False) -> Dataset:
        """Join `batch_size` elements into one; the last batch may be smaller.

        Examples
        --------
        >>> [e["x"].tolist() for e in Dataset.from_arrays({"x": range(5)}).batch(2)]
        [[0, 1], [2, 3], [4]]
        """
        size = check_int("batch_size", batch_size, minimum=1)
        return self._then(Batch(size, bool(drop_remainder)))

    def map(self, fn: Callable[[Element], Mapping[str, Any]]) -> Dataset:
        """Apply `fn` to every element: to a batch's arrays after `batch`, to one example's before.

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"x": range(3)}).batch(2).map(lambda batch: {"y": batch["x"] * 10})
        >>> [e["y"].tolist() for e in dataset]
        [[0, 10], [20]]
        """
        if not callable(fn):
            raise argument_type_error("fn", "a callable that takes and returns a mapping", fn)
        return self._then(Map(fn))

    def select(
        self, /, *, scale: float | None = None, offset: float | None = None, invert: bool = False, **fields: str
    ) -> Dataset:
        """Choose, rename and flatten fields, row by row; all others are dropped.

        A row of shape () becomes (1,), one of (28, 28) becomes (784,), one of (d,) stays: a batch of b rows has the
        shape (b, d), an example (d,). Unlike a map's, what it does is known: where only `repeat`, `shuffle`, `take` and
        one `batch` come before it, it is done to the columns, once, and whoever reads rows has them as they will be.

        Parameters
        ----------
        scale, offset : float, optional
            Of the field that is called `x`, which becomes float32::

                x = float32(x) * float32(scale) + float32(offset)

            One that is left out is not applied; without both every field keeps its dtype. ``scale=1/255`` is for bytes.
            What is computed is remembered: arrays that are changed later do not show in it.
        invert : bool
            Turn `x`, floats from 0 to 1, into ``1 - x``, which is ``scale=-1, offset=1``: of EMNIST's pixels paper is 1
            and ink is 0. Nearly all pixels are paper, so that steps of a rate that suits ink are far too long.
        **fields : str
            New name -> name of a field that is there, in the order that the new ones shall have.

        Raises
        ------
        DataError
            If there is no such field, or what is to be scaled holds no numbers: at once, but after a map when it is
            read.
        ValueError
            If no field is named, `scale` or `offset` is not finite, one of them or `invert` has no `x` to act on, or
            they come together.
        TypeError
            If a field is given as something else than a str, or `invert` as something else than True or False.

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"label": [3, 1, 2], "pixels": np.uint8([[[0, 255]], [[255, 0]], [[0, 0]]])})
        >>> for batch in dataset.batch(2).select(x="pixels", y="label", scale=1 / 255):
        ...     print(batch["x"].tolist(), batch["y"].tolist())
        [[0.0, 1.0], [1.0, 0.0]] [[3], [1]]
        [[0.0, 0.0]] [[2]]
        >>> paper = Dataset.from_arrays({"pixels": np.float32([[1.0, 0.75]]), "label": [3]})
        >>> next(iter(paper.select(x="pixels", y="label", invert=True)))["x"].tolist()
        [0.0, 0.25]
        """
        source, batches = self._source, sum(isinstance(stage, Batch) for stage in self._recipe)
        has_maps = any(isinstance(stage, Map) for stage in self._recipe)
        rows = None if isinstance(source, ElementSource) or has_maps or batches > 1 else source
        choice = Selection.of(fields, scale, offset, self.client_id, rows is not None or self.is_batched, invert)
        found = source.arrays if isinstance(source, ArraySource) else source.spec
        if not has_maps and found:
            choice.check(found)
        if rows is None:
            return self.map(choice)
        # Reordering rows and choosing of each commute; the shuffles, and with them their counters, stay the same.
        return Dataset(SelectedSource(rows, choice, len(self._stages)), self._stages, self.client_id)

    def take(self, count: int) -> Dataset:
        """Read only the first `count` elements; all of them if `count` is -1.

        Examples
        --------
        >>> len(list(Dataset.from_arrays({"x": range(5)}).take(2)))
        2
        """
        checked = check_int("count", count, minimum=-1)
        return self if checked == -1 else self._then(Take(checked))

    def cache(self) -> Dataset:
        """Read what stands before once, and then from memory, as tf.data does.

        At first use all of it is read, decoded and mapped. The order of a shuffle before is that of iteration 0 from
        then on, and uses up none of its iterations; a shuffle after goes on as ever. Examples become rows again, which
        can be used as columns whatever maps came before; batches stay batches. The arrays are read-only.

        They stay in memory as long as the dataset does, and any dataset derived from it. A `ClientData` makes a new
        dataset at each call of `create_dataset_for_client`, with nothing read: keep the datasets. Pickles, too, travel
        without what was read; in another process it is read again, by maps that may then draw other random numbers.

        Raises
        ------
        ValueError
            If the dataset repeats for ever.

        Examples
        --------
        >>> def decoded(element):
        ...     print("decoding", element["x"])
        ...     return element
        >>> [int(e["x"]) for e in Dataset.from_arrays({"x": [1, 2]}).map(decoded).cache().repeat(3)]
        decoding 1
        decoding 2
        [1, 2, 1, 2, 1, 2]
        """
        self._check_finite()
        source = self._source
        if self.is_batched:
            batches = CachedBatches(self)
            return Dataset(ElementSource(batches, batches.spec, batched=True), (), self.client_id)
        return Dataset(CachedSource(self, None if isinstance(source, ElementSource) else source), (), self.client_id)

    def prefetch(self, buffer_size: int | None = None) -> Dataset:
        """Return the same dataset: there is nothing to wait for, so nothing is read ahead.

        Examples
        --------
        >>> len(list(Dataset.from_arrays({"x": range(5)}).prefetch(2)))
        5
        """
        if buffer_size is not None:
            check_int("buffer_size", buffer_size, minimum=-1)
        return self

    def skip_iterations(self, count: int) -> Dataset:
        """Return a copy with counters of its own, as a fresh dataset is after `count` whole iterations.

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"x": range(5)}).shuffle(3, seed=4)
        >>> [int(e["x"]) for e in dataset.skip_iterations(1)]
        [1, 0, 4, 2, 3]
        """
        count = check_int("count", count, minimum=0)
        if count:
            self._check_finite()
        skipped = Dataset(self._source, self._stages, self.client_id)
        skipped._skipped = count
        skipped._orders = self._orders  # the stages are the same, so that the orders are
        return skipped

    @property
    def starts_later(self) -> bool:
        """Whether this is a copy that `skip_iterations` made."""
        return self._skipped is not None

    def with_client_id(self, client_id: str) -> Dataset:
        """Return the same dataset as one of this client, unless it is some client's already.

        Examples
        --------
        >>> Dataset.from_arrays({"x": range(5)}).with_client_id("ann").with_client_id("bob").client_id
        'ann'
        """
        return self if self.client_id is not None else Dataset(self._source, self._stages, client_id)

    # --- reading

    def __iter__(self) -> Iterator[Element]:
        """Read in the next iteration's order, as ``for element in tf_dataset`` does."""
        return elements(self._source, self._stages, SeedGenerator.draw)

    def batches(self, iteration: int = 0) -> Iterator[Element]:
        """Read in the order of a stated iteration, without touching any counter.

        Parameters
        ----------
        iteration : int
            0 is the order in which a fresh dataset is first read, 1 the next one, and so on.

        Yields
        ------
        OrderedDict of str to array

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"x": range(5)}).shuffle(3, seed=4).batch(5)
        >>> [batch["x"].tolist() for batch in dataset.batches(1)]
        [[1, 0, 4, 2, 3]]
        """
        stages = self._stages
        numbers = self._numbers(stages, check_int("iteration", iteration, minimum=0))
        draw = counter(numbers)
        depth = split_order(stages)
        if isinstance(self._source, ElementSource) or not depth:
            return elements(self._source, stages, draw)
        shuffles = [stage.generator for stage in stages[:depth] if isinstance(stage, Shuffle)]
        key = tuple(numbers.get(generator, generator.first) for generator in shuffles)
        order = self._orders.get(key)
        if order is None:
            order = whole_order(stages[:depth], self._source.num_rows, numbers)
            self._orders.clear()
            self._orders[key] = order
        batch, *maps = stages[depth:] or [None]
        if isinstance(batch, Batch) and all(isinstance(stage, Map) for stage in maps):
            return sliced_batches(self._source, order, batch, self.maps)
        return elements(self._source, stages[depth:], draw, order.tolist())

    def row_batches(self) -> RowBatches | None:
        """Return the parts of a dataset that reads rows, batches them once and then maps the batches; else None.

        Examples
        --------
        >>> parts = Dataset.from_arrays({"x": np.arange(3)}).repeat(2).shuffle(9, seed=1).batch(4).row_batches()
        >>> parts.make_order().tolist(), parts.batch_size
        ([1, 2, 1, 2, 0, 0], 4)
        """
        source = self._source
        if isinstance(source, ElementSource):
            return None
        key: list[Any] = [source.num_rows, self._skipped]
        maps: list[Callable[..., Any]] = []
        batch: Batch | None = None
        for stage in self._recipe:
            if isinstance(stage, Map) != (batch is not None):  # a map before the batch, or anything else after it
                return None
            if isinstance(stage, Map):
                maps.append(stage.fn)
            elif isinstance(stage, Shuffle):  # of its generator the number of the first iteration is all that counts
                key += (*stage[:3], stage.times, stage.generator.first)
            else:
                key += (type(stage), *stage)
                batch = stage if isinstance(stage, Batch) else None
        if batch is None or self.is_infinite:
            return None
        return RowBatches(source, tuple(key), self._whole_order, batch.batch_size, batch.drop_remainder, tuple(maps))

    def _whole_order(self) -> npt.NDArray[np.intp]:
        """Return the order of a dataset that has `row_batches`."""
        assert not isinstance(self._source, ElementSource)
        numbers = self._numbers(self._recipe, self._skipped or 0)
        reordering = [stage for stage in self._recipe if not isinstance(stage, Batch | Map)]
        return whole_order(reordering, self._source.num_rows, numbers)

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have an executor's `submit` do in other threads what reading would do; reading waits for them then."""
        if not isinstance(self._source, ElementSource):
            self._source.load_ahead(submit)

    def _numbers(self, stages: Sequence[Stage], iteration: int) -> dict[SeedGenerator, int]:
        """Return the numbers with which an iteration's shuffles start, where they are not their first."""
        if not iteration:
            return {}
        # Every iteration starts each shuffle equally often: where this one begins is a product.
        return {shuffle: shuffle.first + iteration * n for shuffle, n in self._counted(stages)[1].items()}

    def _counted(self, stages: Sequence[Stage]) -> tuple[int, dict[SeedGenerator, int]]:
        """Return the number of examples of one whole iteration, and how often it starts each shuffle."""
        self._check_finite()
        source = self._source
        known = None if isinstance(source, ElementSource) else counted(stages, source.num_rows)
        if known is not None:
            return known
        numbers: dict[SeedGenerator, int] = {}
        count = sum(start(stages, Reader(self._lengths, sum, lambda fn, count: count, counter(numbers))))
        return count, {shuffle: n - shuffle.first for shuffle, n in numbers.items()}

    def _lengths(self) -> Iterator[int]:
        """Return how many examples each of the source's elements holds."""
        source = self._source
        if not isinstance(source, ElementSource):
            return itertools.repeat(1, source.num_rows)
        return (len(next(iter(e.values()))) if source.batched else 1 for e in source.read())

    def _check_finite(self) -> None:
        if self.is_infinite:
            raise ValueError(f"{self._named()} repeats for ever: use take() or give repeat() a count.")

    @property
    def num_examples(self) -> int:
        """Number of examples that the first iteration reads, repetitions included."""
        return self._counted(self._stages)[0]

    @property
    def num_own_examples(self) -> int:
        """Number of examples that are there to be read, each counted once, whatever the order makes of them.

        Ready batches are counted by their lengths, a stream by reading it once. What `cache` keeps is there as often as
        it was read, and what a `take` before all repetitions leaves out is not there.

        Examples
        --------
        >>> dataset = Dataset.from_arrays({"x": range(3)}).repeat(2).take(4)
        >>> dataset.num_own_examples, dataset.num_examples
        (3, 4)
        >>> Dataset.from_arrays({"x": range(9)}).take(5).repeat(2).num_own_examples
        5
        """
        source, per_element, lengths = self._source, 1, None
        if isinstance(source, ElementSource):
            lengths = list(self._lengths())
            found = sum(lengths)
        else:
            found = source.num_rows
        for stage in self._recipe:
            if isinstance(stage, Repeat | Shuffle) and stage.times != 1:
                break
            if isinstance(stage, Batch):
                per_element, lengths = per_element * stage.batch_size, None
            elif isinstance(stage, Take):
                found = min(found, stage.num * per_element if lengths is None else sum(lengths[: stage.num]))
        return found

    @property
    def is_infinite(self) -> bool:
        """Whether reading never ends: ``repeat()`` without a count, and no ``take`` after it."""
        if not is_infinite(self._recipe):  # asked first: the number of rows may not be known without reading
            return False
        return isinstance(self._source, ElementSource) or self._source.num_rows > 0

    @property
    def is_stream(self) -> bool:
        """Whether the elements come from code that makes them, rather than from arrays."""
        return isinstance(self._source, ElementSource) and not isinstance(self._source.read, BatchList | CachedBatches)

    @property
    def maps(self) -> tuple[Callable[..., Any], ...]:
        """The functions of all maps, in order."""
        return tuple(stage.fn for stage in self._recipe if isinstance(stage, Map))

    @property
    def is_batched(self) -> bool:
        """Whether an element is a batch rather than one example."""
        from_batches = isinstance(self._source, ElementSource) and self._source.batched
        return from_batches or any(isinstance(stage, Batch) for stage in self._recipe)

    def to_arrays(self, iteration: int = 0) -> Columns:
        """Read one iteration and return it as arrays, batches joined along their first axis.

        Examples
        --------
        >>> Dataset.from_arrays({"x": range(3)}).repeat(2).batch(4).to_arrays()["x"].tolist()
        [0, 1, 2, 0, 1, 2]
        """
        self._check_finite()
        source = self._source
        if not self._recipe and not isinstance(source, ElementSource):
            return OrderedDict(source.columns())
        made = bool(self.maps) or self.is_stream
        elements = [copied(element) if made else element for element in self.batches(iteration)]
        if not elements:
            spec = self.element_spec
            inner = {k: s.shape[1:] if self.is_batched else s.shape for k, s in spec.items()}
            return OrderedDict((k, np.empty((0, *(d or 0 for d in inner[k])), s.dtype)) for k, s in spec.items())
        if self.is_batched:
            return OrderedDict((name, np.concatenate([e[name] for e in elements])) for name in elements[0])
        return stack(elements)

    @property
    def element_spec(self) -> ElementSpec:
        """Shape and dtype of an element's fields, None for lengths that vary.

        A `map` is tried on zeros to see what it makes of them; no data are read.
        """
        return common_spec([self._probe(1), self._probe(2)]) if self._recipe else self._source.spec

    def _probe(self, length: int) -> Element:
        """Return what becomes of an element of zeros, with `length` for every length that varies."""
        fixed = self._source.spec
        element: Element = OrderedDict(
            (name, np.zeros([length if d is None else d for d in spec.shape], spec.dtype))
            for name, spec in fixed.items()
        )
        with np.errstate(all="ignore"):
            for stage in self._recipe:
                if isinstance(stage, Batch):
                    element = stack([element] * (stage.batch_size if stage.drop_remainder else length))
                elif isinstance(stage, Map):
                    element = applied(stage.fn, element)
        return element

    def _named(self) -> str:
        return "A dataset" if self.client_id is None else f"The dataset of client '{self.client_id}'"

    def __repr__(self) -> str:
        try:
            spec = str(dict(self.element_spec))
        except Exception as error:  # a map may refuse zeros; a text must not
            spec = f"unknown ({type(error).__name__} in map)"
        named = "" if self.client_id is None else f"client_id={self.client_id!r} "
        return f"<Dataset {named}element_spec={spec}>"
