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

import itertools
import os
import pickle
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_type_error, check_float, check_int, check_type
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns, read_columns
from fedsim_np.learning.engines.engine import ChunkResult, Engine, Reduce, Task, reduced
from fedsim_np.learning.engines.host import cores, end_with_parent, keep_freed_memory, one_blas_thread, quick_switching
from fedsim_np.learning.engines.maps import changes
from fedsim_np.learning.engines.messages import compressed
from fedsim_np.learning.hidden_state import unchanged
from fedsim_np.trees import Array


@dataclass(frozen=True)
class Workers:
    """Any executor, for which a round does not wait for ever: of workers that are gone or frozen nothing may be heard.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    timeout : float
        Seconds in which no part of a cohort gets done, after which the round is a `TimeoutError`: more than the largest
        part takes. Nothing is changed then, and what has not begun is cancelled.

    Raises
    ------
    TypeError, ValueError
        If the executor is none, or the timeout no finite number >= 0.001.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> Workers(ThreadPoolExecutor(2), timeout=60).timeout
    60.0
    """

    executor: Executor
    timeout: float

    def __post_init__(self) -> None:
        check_type("executor", self.executor, Executor, "a concurrent.futures.Executor")
        object.__setattr__(self, "timeout", check_float("timeout", self.timeout, minimum=0.001))


ExecutorArgument = Executor | Workers | Literal["serial"] | None
"""None for threads where a round is wide enough, "serial" for none, any `concurrent.futures.Executor`, or `Workers`."""


def cut(tasks: Sequence[Task], chunk_size: int) -> list[Sequence[Task]]:
    """Cut a cohort into chunks of nearly equal sizes: large ones cost least, but there should be some for every core.

    Examples
    --------
    >>> [[len(chunk) for chunk in cut(range(k), 100)] for k in (30, 100, 900)]
    [[30], [50, 50], [100, 100, 100, 100, 100, 100, 100, 100, 100]]
    >>> [len(chunk) for chunk in cut(range(3), 1)]
    [1, 1, 1]
    """
    count = max(-(-len(tasks) // chunk_size), min(8, len(tasks), -(-2 * len(tasks) // chunk_size)))
    edges = [len(tasks) * i // count for i in range(count + 1)]
    return [tasks[a:b] for a, b in itertools.pairwise(edges)]


class Runner:
    """Runs an engine on cohorts; it keeps a cache, and threads once it needs them. Pickles without either.

    Parameters
    ----------
    engine : Engine
    executor : ExecutorArgument
    cache_bytes : int
        What may be kept between rounds.

    Raises
    ------
    TypeError, ValueError
        If the executor is none, or the number of bytes no integer >= 0.
    """

    def __init__(self, engine: Engine, executor: ExecutorArgument, cache_bytes: int) -> None:
        if not (executor is None or executor == "serial" or isinstance(executor, Executor | Workers)):
            rule = "None, 'serial' or a concurrent.futures.Executor, or Workers around one"
            raise argument_type_error("executor", rule, executor)
        # NumPy imports these at first use: in a thread, a child that is forked meanwhile would wait for it for ever.
        import numpy.ma
        import numpy.random  # noqa: F401

        self.engine, self._timeout, self._process = engine, None, os.getpid()
        self._executor: Executor | Literal["serial"] | None
        if isinstance(executor, Workers):
            self._executor, self._timeout = executor.executor, executor.timeout
        else:
            self._executor = executor
        self._cache = Cache(check_int("cache_bytes", cache_bytes, minimum=0))
        self._threads: dict[int, ThreadPoolExecutor] = {}  # by process: a forked child has none of its parent's

    def __reduce__(self) -> tuple[Any, ...]:
        executor = self._executor if self._executor == "serial" else None  # an executor cannot travel
        return Runner, (self.engine, executor, self._cache.budget)

    @property
    def sends_pickles(self) -> bool:
        """Whether clients' work is done by other processes, on copies of model and work."""
        return isinstance(self._executor, Executor) and not isinstance(self._executor, ThreadPoolExecutor)

    def run(
        self,
        sent: Broadcast,
        datasets: Sequence[Dataset],
        kept: Sequence[Any] | None = None,
        reduce: Reduce | None = None,
        compressor: Compressor | None = None,
    ) -> ChunkResult:
        """Return the results of all clients, in cohort order.

        Parameters
        ----------
        sent : Broadcast
        datasets : sequence of Dataset
        kept : sequence of trees, optional
            What the server keeps of each client; of nobody, what it keeps of a new one.
        reduce : callable, optional
            What becomes of a chunk's updates, those that are not finite being zeros; the results are added up.
        compressor : Compressor, optional
            What becomes of them before that: `sent` has a round's number then.
        """
        of_each = itertools.repeat(None) if kept is None else kept
        # What nobody sends has the form of what a client without data does.
        cohort = datasets or [Dataset.from_batches([], "nobody")]
        tasks = [Task(dataset, dataset.client_id, own) for dataset, own in zip(cohort, of_each, strict=False)]
        chunks = cut(tasks, self.engine.chunk_size)
        executor = self._workers(len(chunks))
        keep_freed_memory()
        with one_blas_thread(), quick_switching() if isinstance(executor, ThreadPoolExecutor) else nullcontext():
            work = _Work(self.engine, sent, reduce, compressor)
            results: Iterator[ChunkResult]
            if executor is None:
                results = map(work.do, chunks, itertools.repeat(self._cache))
            elif not self.sends_pickles:
                results = self._finished(self._thread_tasks(executor, work, chunks), executor)
            elif reduce is None or _pickles(reduce):
                results = self._finished(self._pickled_tasks(executor, work, chunks), executor)
            else:  # of an aggregator that cannot travel: the updates come back
                updates = self._pickled_tasks(executor, work._replace(reduce=None), chunks)
                results = map(reduced, self._finished(updates, executor), itertools.repeat(reduce))
            joined = _joined(results, len(tasks), reduce is not None)
        return joined if datasets else _without_clients(joined, reduce is not None)

    def _workers(self, num_chunks: int) -> Executor | None:
        process = os.getpid()
        # A forked child has none of the threads that its parent's executor had.
        is_left = isinstance(self._executor, ThreadPoolExecutor) and process != self._process
        if isinstance(self._executor, Executor) and not is_left:
            return self._executor
        if self._executor == "serial" or num_chunks == 1 or not self.engine.takes_columns or cores() == 1:
            return None
        if process not in self._threads:
            threads = ThreadPoolExecutor(cores(), thread_name_prefix="fedsim_np")
            self._threads = {process: threads}
            weakref.finalize(self, _end, threads, process)
        return self._threads[process]

    def _thread_tasks(
        self, executor: Executor, work: _Work, chunks: Sequence[Sequence[Task]]
    ) -> Iterator[Future[ChunkResult]]:
        self._load_ahead(executor, chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], ()], strict=True):
            self._load_ahead(executor, following)
            ready = [task._replace(data=self._read(task)) for task in chunk]
            yield executor.submit(work.do, ready, self._cache)

    def _load_ahead(self, executor: Executor, chunk: Sequence[Task]) -> None:
        """Have the executor load the columns of a chunk that are not here yet."""
        with suppress(Exception):  # it is raised again where the client is read, in order
            # What is read ahead is waited for by reading, which knows of no timeout.
            for task in chunk if self.engine.takes_columns and self._timeout is None else ():
                if isinstance(task.data, Dataset):
                    task.data.load_ahead(lambda *call: _Ahead(executor.submit(*call)))

    def _read(self, task: Task) -> Dataset | ClientColumns:
        """Return a client read, by this thread and in order; for an engine of batches, what its maps make of it."""
        assert isinstance(task.data, Dataset)
        if self.engine.takes_columns:
            return read_columns(self.engine.model, task.data, self._cache)
        return _applied(task.data) if changes(task.data) else task.data

    def _pickled_tasks(
        self, executor: Executor, work: _Work, chunks: Sequence[Sequence[Task]]
    ) -> Iterator[Future[bytes]]:
        try:
            pickled = pickle.dumps(work)
        except Exception as error:  # pickling runs code of the user's: anything may be raised
            raise TypeError(
                f"The model {type(self.engine.model).__name__}, its client work or its compressor cannot be pickled, "
                f"and so not be sent to the workers of {type(executor).__name__} ({error}). Define it at the top level "
                "of a module, without lambdas, or use threads: executor=concurrent.futures.ThreadPoolExecutor()."
            ) from error
        attempt = os.urandom(8)  # Dask knows work by its arguments: a repeated round is not the one that was cancelled
        for chunk in chunks:
            yield executor.submit(_run_pickled, pickled, [self._pickled(task) for task in chunk], attempt)

    def _pickled(self, task: Task) -> bytes:
        """Return a task with its dataset's description; if a map cannot be pickled, with what it makes of the data."""
        assert isinstance(task.data, Dataset)
        if not changes(task.data):
            # A lambda, a local function, an open file: each has an error of its own.
            with suppress(Exception):
                return pickle.dumps(task)
        data = self._read(task) if self.engine.takes_columns else _applied(task.data)
        return pickle.dumps(task._replace(data=data))

    def _finished(self, futures_to_be: Iterator[Future[Any]], executor: Executor) -> Iterator[ChunkResult]:
        """Yield results, pickled ones or not, in order; if one fails, the others are cancelled."""
        futures: list[Future[Any]] = []
        name, repeat = type(executor).__name__, "The round was not finished and no state was changed: repeat it"
        try:
            futures.extend(futures_to_be)
            futures.reverse()
            while futures:
                if self._timeout is not None and not _wait_for_last(futures, self._timeout):
                    raise TimeoutError(
                        f"{name} got no part of the round done in {self._timeout:g} s (timeout), and the results of "
                        f"{sum(not future.done() for future in futures)} parts were awaited: workers may be gone or "
                        f"frozen, or need longer. {repeat} with a new executor or a longer timeout."
                    )
                result = futures.pop().result()
                yield pickle.loads(result) if isinstance(result, bytes) else result
        except BrokenExecutor as error:
            raise RuntimeError(
                f"A worker of {name} ended while a round was computed ({error}). {repeat} with a new executor."
            ) from error
        except CancelledError as error:
            raise RuntimeError(
                f"{name} cancelled a round: it was shut down or restarted, or its client, cluster or scheduler ended. "
                f"{repeat}, with a new executor if this one has ended."
            ) from error
        finally:
            for future in futures:
                future.cancel()


class _Work(NamedTuple):
    """What is to be done with every chunk."""

    engine: Engine
    sent: Broadcast
    reduce: Reduce | None
    compressor: Compressor | None

    def do(self, tasks: Sequence[Task], cache: Cache) -> ChunkResult:
        """Compute a chunk."""

        def run(tasks: Sequence[Task]) -> ChunkResult:
            return self.engine.run_chunk(self.sent, tasks, cache)

        if self.compressor is None:
            result = run(tasks)
        else:
            result = compressed(self.compressor, self.sent.round_num or 0, tasks, run)
        return result if self.reduce is None else reduced(result, self.reduce)

    @property
    def parts(self) -> Mapping[str, Any]:
        """What of the user's is in it: it must not change in a round."""
        return {
            **self.engine.parts,
            "aggregator": getattr(self.reduce, "__self__", None),
            "compressor": self.compressor,
        }


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # pickling runs code of the user's: anything may be raised
        return False
    return True


def _applied(dataset: Dataset) -> Dataset:
    """Return a dataset as the batches that its maps make, here and in order: copies, a map may use memory again."""
    batches = ({name: np.array(array) for name, array in batch.items()} for batch in dataset.batches())
    return Dataset.from_batches(batches, dataset.client_id)


def _run_pickled(work: bytes, tasks: Iterable[bytes], attempt: bytes) -> bytes:
    """Run a chunk in another process; return its pickled result."""
    del attempt
    end_with_parent()
    loaded: _Work = pickle.loads(work)
    keep_freed_memory()
    with one_blas_thread(), unchanged(loaded.parts):
        result = loaded.do([pickle.loads(task) for task in tasks], Cache(0))
    return pickle.dumps(trees.map(_Travelling, result))


class _Travelling:
    """An array that arrives in its memory order: sums over it have the same bits everywhere."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        axes = sorted(range(self._array.ndim), key=lambda axis: -self._array.strides[axis])
        return np.transpose, (np.array(self._array.transpose(axes), order="C"), np.argsort(axes).tolist())


class _Ahead(Future[Any]):
    """What a thread does ahead; to a forked child, which has not got that thread, it is cancelled."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self._future, self._process = future, os.getpid()

    def result(self, timeout: float | None = None) -> Any:
        """Return what the thread returns."""
        if self._process != os.getpid():
            raise CancelledError
        return self._future.result(timeout)


def _wait_for_last(futures: Sequence[Future[Any]], timeout: float) -> bool:
    """Wait until the last of the futures is done; return False once none of them gets done for so many seconds."""
    waiting = {future for future in futures if not future.done()}
    while futures[-1] in waiting:
        done, waiting = wait(waiting, timeout, FIRST_COMPLETED)
        if not done:
            return False
    return True


def _end(threads: ThreadPoolExecutor, process: int) -> None:
    if process == os.getpid():  # in a forked child a lock of theirs may be held by one that it has not got
        threads.shutdown(wait=False)


def _without_clients(result: ChunkResult, is_reduced: bool) -> ChunkResult:
    nobody: ChunkResult = trees.take(result, slice(0))
    return nobody._replace(updates=result.updates) if is_reduced else nobody


def _joined(results: Iterator[ChunkResult], k: int, is_reduced: bool) -> ChunkResult:
    """Join the results of all chunks as they arrive, so that no update is held twice; reduced ones are added up."""
    first = next(results)
    if len(first.norms) == k:
        return first

    def placed(whole: Array, part: Array) -> Array:
        # What is kept, or a message, may be integers in one chunk and floats in another.
        whole = whole.astype(np.result_type(whole.dtype, part.dtype), copy=False)
        whole[start:end] = part
        return whole

    sums = trees.map(np.zeros_like, first.updates)
    without = first._replace(updates=()) if is_reduced else first
    joined: ChunkResult = trees.map(lambda part: np.empty_like(part, shape=(k, *part.shape[1:])), without)
    end = 0
    for result in itertools.chain([first], results):
        start, end = end, end + len(result.norms)
        if is_reduced:
            sums = trees.map(np.add, sums, result.updates)
        joined = trees.map(placed, joined, result._replace(updates=()) if is_reduced else result)
    return joined._replace(updates=sums) if is_reduced else joined
