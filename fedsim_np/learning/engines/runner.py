"""From a cohort to its results: chunks, and who computes them.

::

    cohort --cut in cohort order--> chunks --> this thread, threads, processes or a cluster --> results, joined in order

The cut depends on the size of the cohort and the engine alone, and a chunk's result on the chunk alone: the number of
workers, and the order in which they finish, change nothing. A map that may give something else the next time is
called here, in cohort order and by one thread, and so is every map for the fast engines' threads. What goes to other
processes is pickled: a dataset as its description if that is possible (HDF5 files and simulated writers are), as
arrays otherwise.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_type_error, naming_client
from fedsim_np.learning.engines.blas import one_blas_thread, quick_switching
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, changes, read_columns
from fedsim_np.learning.engines.engine import ChunkResult, Client, Engine
from fedsim_np.learning.models import Array, ModelWeights

ExecutorArgument = Executor | Literal["serial"] | None
"""None for threads where a round is wide enough, "serial" for none, or any `concurrent.futures.Executor`."""


def checked_executor(executor: ExecutorArgument) -> ExecutorArgument:
    """Return an executor argument, or raise a TypeError."""
    if executor is None or executor == "serial" or isinstance(executor, Executor):
        return executor
    raise argument_type_error("executor", "None, 'serial' or a concurrent.futures.Executor", executor)


def cut(cohort: Sequence[Dataset], chunk_size: int) -> list[Sequence[Dataset]]:
    """Cut a cohort into chunks of nearly equal sizes: large ones cost least, but there should be some for every core.

    Examples
    --------
    >>> [[len(chunk) for chunk in cut(range(k), 100)] for k in (30, 100, 900)]
    [[30], [50, 50], [100, 100, 100, 100, 100, 100, 100, 100, 100]]
    """
    count = max(-(-len(cohort) // chunk_size), min(8, -(-2 * len(cohort) // chunk_size)))
    edges = [len(cohort) * i // count for i in range(count + 1)]
    return [cohort[a:b] for a, b in itertools.pairwise(edges)]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runner:
    """Runs an engine on cohorts; it keeps a cache, and threads once it needs them. Pickles without either.

    Parameters
    ----------
    engine : Engine
    executor : ExecutorArgument
    cache_bytes : int
        What may be kept between rounds.
    """

    def __init__(self, engine: Engine, executor: ExecutorArgument, cache_bytes: int) -> None:
        self.engine, self._executor, self._cache = engine, executor, Cache(cache_bytes)
        self._threads: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        executor = self._executor if self._executor == "serial" else None  # an executor cannot travel
        return Runner, (self.engine, executor, self._cache.budget)

    def run(self, weights: ModelWeights, cohort: Sequence[Dataset], state: Any) -> ChunkResult:
        """Return the results of all clients, in cohort order."""
        chunks = cut(cohort, self.engine.chunk_size)
        executor = self._executor_for(chunks)
        in_threads = isinstance(executor, ThreadPoolExecutor)
        with one_blas_thread(), quick_switching() if in_threads else contextlib.nullcontext():
            return _joined(self._results(executor, weights, chunks, state), len(cohort))

    def _executor_for(self, chunks: Sequence[Sequence[Dataset]]) -> Executor | None:
        if self._executor is None and len(chunks) > 1 and self.engine.takes_columns and _cores() > 1:
            return self._own_threads()
        return self._executor if isinstance(self._executor, Executor) else None

    def _results(
        self, executor: Executor | None, weights: ModelWeights, chunks: Sequence[Sequence[Dataset]], state: Any
    ) -> Iterator[ChunkResult]:
        if executor is None:
            return (self.engine.run_chunk(weights, chunk, state, self._cache) for chunk in chunks)
        if isinstance(executor, ThreadPoolExecutor):
            tasks = self._thread_tasks(executor, weights, chunks, state)
        else:
            tasks = self._pickled_tasks(executor, weights, chunks, state)
        return _finished(tasks, executor)

    def _own_threads(self) -> ThreadPoolExecutor:
        if self._threads is None or self._process != os.getpid():  # a forked child has none of its parent's threads
            self._process = os.getpid()
            self._threads = ThreadPoolExecutor(_cores(), thread_name_prefix="fedsim_np")
            weakref.finalize(self, self._threads.shutdown, wait=False)
        return self._threads

    def _thread_tasks(
        self, executor: Executor, weights: ModelWeights, chunks: Sequence[Sequence[Dataset]], state: Any
    ) -> Iterator[Future[ChunkResult]]:
        loads = self._load_ahead(executor, chunks) if self.engine.takes_columns else iter(())
        next(loads, None)
        for chunk in chunks:
            next(loads, None)
            clients = [self._read(d) if self.engine.takes_columns else _applied(d) for d in chunk]
            yield executor.submit(self.engine.run_chunk, weights, clients, state, self._cache)

    def _load_ahead(self, executor: Executor, chunks: Sequence[Sequence[Dataset]]) -> Iterator[None]:
        """Have the columns of the chunks loaded by the executor; each `next` starts one chunk more."""
        for chunk in chunks:
            for dataset in chunk:
                parts = None if self._cache.find_of(dataset) is not None else dataset.row_batches()
                if parts is not None:
                    with contextlib.suppress(Exception):  # it is raised again where the client is read, in order
                        parts.source.load_ahead(executor.submit)
            yield

    def _read(self, dataset: Dataset) -> Client:
        with naming_client(dataset.client_id):
            return read_columns(self.engine.model, dataset, self._cache)

    def _travelling(self, dataset: Dataset) -> Client:
        client = self._read(dataset)
        return client._replace(key=None, visits_key=None) if isinstance(client, ClientColumns) else client

    def _pickled_tasks(
        self, executor: Executor, weights: ModelWeights, chunks: Sequence[Sequence[Dataset]], state: Any
    ) -> Iterator[Future[ChunkResult]]:
        try:
            work = pickle.dumps((self.engine, weights, state))
        except Exception as error:  # pickling runs code of the user's: anything may be raised
            raise TypeError(
                f"The model {type(self.engine.model).__name__}, or its client work, cannot be pickled, and so not be "
                f"sent to the workers of {type(executor).__name__} ({error}). Define it at the top level of a module, "
                "without lambdas, or use threads: executor=concurrent.futures.ThreadPoolExecutor()."
            ) from error
        for chunk in chunks:
            yield executor.submit(_run_pickled, work, [self._pickled(dataset) for dataset in chunk])

    def _pickled(self, dataset: Dataset) -> bytes:
        """Return a dataset's description, or, if a map of it cannot be pickled, what it makes of the data."""
        if changes(dataset):
            return pickle.dumps(self._travelling(dataset) if self.engine.takes_columns else _applied(dataset))
        try:
            return pickle.dumps(dataset)
        except Exception:  # a lambda, a local function, an open file: each has an error of its own
            if self.engine.takes_columns:
                return pickle.dumps(self._travelling(dataset))
            return pickle.dumps(Dataset.from_batches(dataset.batches(), dataset.client_id))


def _applied(dataset: Dataset) -> Client:
    """Return a dataset whose maps may share something that changes as the batches that they make, here and in order."""
    return Dataset.from_batches(map(_copied, dataset.batches()), dataset.client_id) if changes(dataset) else dataset


def _copied(batch: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.array(array) for name, array in batch.items()}


def _run_pickled(work: bytes, clients: Iterable[bytes]) -> Any:
    """Run a chunk in another process; return its `ChunkResult`, with updates that keep their memory order."""
    engine, weights, state = pickle.loads(work)
    with one_blas_thread():
        result: ChunkResult = engine.run_chunk(weights, [pickle.loads(client) for client in clients], state, Cache(0))
    travelling: Any = tuple(_Travelling.of(update) for update in result.updates)
    return result._replace(updates=travelling)


class _Travelling(NamedTuple):
    """An array that keeps its memory order when it is pickled: sums over it have the same bits everywhere."""

    array: Array
    axes: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> _Travelling:
        axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        return cls(np.ascontiguousarray(array.transpose(axes)), tuple(np.argsort(axes).tolist()))

    def arrived(self) -> Array:
        """Return the array."""
        return np.asarray(self.array.transpose(self.axes))


def _finished(tasks: Iterator[Future[ChunkResult]], executor: Executor) -> Iterator[ChunkResult]:
    """Yield results in order; if one fails, the others are cancelled."""
    futures: list[Future[ChunkResult]] = []
    try:
        futures.extend(tasks)
        futures.reverse()
        while futures:
            result = futures.pop().result()
            arrived = (u.arrived() if isinstance(u, _Travelling) else u for u in result.updates)
            yield result._replace(updates=tuple(arrived))
    except BrokenExecutor as error:
        raise RuntimeError(
            f"A worker of {type(executor).__name__} ended while a round was computed ({error}). The round was not "
            "finished and no state was changed: repeat it with a new executor."
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _joined(results: Iterator[ChunkResult], k: int) -> ChunkResult:
    """Join the results of all chunks as they arrive, so that no update is held twice."""
    first = next(results)
    if len(first.weights) == k:
        return first
    updates = tuple(np.empty_like(u, shape=(k, *u.shape[1:])) for u in first.updates)
    weights, norms, sums, examples = np.empty(k), np.empty(k), [*first.metrics], [*first.num_examples]
    start, result = 0, first
    while True:
        end = start + len(result.weights)
        weights[start:end], norms[start:end] = result.weights, result.norms
        for whole, part in zip(updates, result.updates, strict=True):
            whole[start:end] = part
        if end == k:
            return ChunkResult(updates, weights, sums, examples, norms)
        start, result = end, next(results)
        sums += result.metrics
        examples += result.num_examples
