r"""FedBuff (Nguyen et al. 2022): rounds that wait for no slow client.

::

    M clients are under way at any time; each begins at the server's weights of its moment, w_s
        w_i = w_s;   t_i times:   w_i -= eta g_i(w_i);   u_i = w_s - w_i
    when one arrives, another begins; tau_i = the server's steps while it was under way
    when K have arrived:   w = server optimizer's step on w with  sum_K u_i / sqrt(1 + tau_i) / K  as the gradient

The clock is simulated: a client is under way for as long as a `Clock`, such as `program.Network`, says of it. All
clients that begin between two steps begin at the same weights, so that a round computes them together, and what is
under way waits in the state. Of the paper's letters, M is the concurrency and s(tau) the square root.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.aggregators.aggregator import Wrapper, aggregate
from fedsim_np.learning.builders import aggregator_or_mean, server_optimizer
from fedsim_np.learning.client import ClientWeighting
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument
from fedsim_np.learning.fed_avg import FedAvgTraining
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.metrics import Metrics
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import OptimizerFn, as_optimizer
from fedsim_np.learning.process import MetricsAggregator, compose_learning_process
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.trees import Array, Arrays


class Clock(Protocol):
    """How long clients are under way: `program.Network` is one."""

    def seconds(self, client_ids: Sequence[str], num_examples: Any, bytes_up: Any, bytes_down: Any) -> Array:
        """Return the seconds of each of k clients, (k,) float64: finite and >= 0."""


class BufferState(NamedTuple):
    """What is under way.

    Attributes
    ----------
    buffer_size, concurrency : int
        K and M.
    step : int
        How many the server has taken.
    seconds : float
        By the clock.
    num_begun : int
        Clients that have begun so far.
    under_way : mapping
        Number of a client -> ``id``, ``arrives`` (seconds), the server's ``step`` when it began, ``examples`` (0 if its
        update does not count) and ``update``.
    inner : tree
        The inner aggregator's state.
    """

    buffer_size: int
    concurrency: int
    step: int
    seconds: float
    num_begun: int
    under_way: Mapping[str, Any]
    inner: Any


@dataclass(frozen=True)
class BufferFactory(Wrapper):
    """The server's half: the clients of a round begin, and what arrives first is aggregated.

    Parameters
    ----------
    buffer_size, concurrency : int
        K and M.
    clock : Clock
    inner : Aggregator
        Of the K updates, each divided by the root of 1 + tau_i.
    """

    buffer_size: int
    concurrency: int
    clock: Clock
    inner: Aggregator

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_int("buffer_size", self.buffer_size, minimum=1)
        check_int("concurrency", self.concurrency, minimum=1)
        if not callable(getattr(self.clock, "seconds", None)):
            raise argument_type_error("clock", "something with a method seconds, such as program.Network", self.clock)

    def initialize(self, trainable: Arrays) -> BufferState:
        """Return the state where nobody has begun."""
        return BufferState(self.buffer_size, self.concurrency, 0, 0.0, 0, {}, self.inner.initialize(trainable))

    def next_of_cohort(
        self, state: BufferState, updates: Arrays, cohort: Cohort
    ) -> tuple[BufferState, Arrays, Metrics]:
        """Let the cohort begin, wait until K have arrived, and aggregate these."""
        if (state.buffer_size, state.concurrency) != (self.buffer_size, self.concurrency):
            rule = f"of a process with a buffer of {self.buffer_size} and a concurrency of {self.concurrency}"
            raise argument_error("state", rule, (state.buffer_size, state.concurrency))
        seconds, arrived, under_way = self._waited(state, updates, cohort)
        tau = state.step - np.array([of["step"] for of in arrived], np.float64)
        stacked = trees.stack([of["update"] for of in arrived])
        scaled = trees.freeze(trees.map(lambda u: u / trees.along(np.sqrt(1 + tau), u), stacked))
        examples = [of["examples"] for of in arrived]
        ones = np.ones(len(arrived))
        buffer = Cohort([of["id"] for of in arrived], state.step + 1, ones, ones, None, lambda: examples)
        inner, update, metrics = aggregate(self.inner, state.inner, scaled, buffer)
        after = state._replace(
            step=state.step + 1,
            seconds=seconds,
            num_begun=state.num_begun + len(cohort),
            under_way=under_way,
            inner=inner,
        )
        return after, update, OrderedDict(seconds=seconds - state.seconds, mean_staleness=tau.mean(), buffer=metrics)

    def _waited(
        self, state: BufferState, updates: Arrays, cohort: Cohort
    ) -> tuple[float, list[Mapping[str, Any]], dict[str, Any]]:
        """Return when the last of K arrived, these K in order, and who is under way then."""
        if None in cohort.ids:
            raise argument_error("data", "of clients with ids (Dataset.with_client_id), since each has its speed", None)
        k, counts, now = len(cohort), cohort.counts, state.seconds
        taken = self.clock.seconds([*map(str, cohort.ids)], cohort.num_examples, cohort.bytes_up, cohort.bytes_down)
        if np.shape(taken) != (k,) or not (np.isfinite(taken) & (np.asarray(taken) >= 0)).all():
            raise argument_error("clock", f"one that gives {k} finite seconds >= 0, one a client", taken)
        there = {int(number): of for number, of in state.under_way.items()}
        heap = [(of["arrives"], number) for number, of in there.items()]
        heapq.heapify(heap)
        begun, arrived = 0, list[Mapping[str, Any]]()
        while len(arrived) < self.buffer_size:
            for i in range(begun, min(k, begun + self.concurrency - len(heap))):
                there[state.num_begun + i] = {
                    "id": cohort.ids[i],
                    "arrives": float(now + taken[i]),
                    "step": state.step,
                    "examples": int(cohort.num_examples[i]) * int(counts[i]),
                    "update": tuple(np.array(u[i]) for u in updates),  # a view would hold the whole cohort's
                }
                heapq.heappush(heap, (now + taken[i], state.num_begun + i))
                begun = i + 1
            if not heap:
                rule = f"of so many clients that {self.buffer_size} arrive (see num_to_begin)"
                raise argument_error("data", rule, f"{k}, and {len(state.under_way)} under way")
            now, number = heapq.heappop(heap)
            arrived.append(there.pop(number))
        if begun < k:
            rule = f"of at most the {begun} clients that begin before the server's next step (see num_to_begin)"
            raise argument_error("data", rule, k)
        return float(now), arrived, {str(number): of for number, of in there.items()}

    def seconds(self, metrics: Metrics) -> float:
        """Return the seconds of a round, of its metrics."""
        return float(metrics["seconds"])

    def initial_metrics(self) -> Metrics | None:
        """Return what `next_of_cohort` reports of nothing."""
        inner = self.inner.initial_metrics()
        return None if inner is None else OrderedDict(seconds=0.0, mean_staleness=0.0, buffer=inner)


def num_to_begin(state: LearningAlgorithmState) -> int:
    """Return how many clients begin in the next round of `build_fed_buff`: those that `next` is to be given.

    Until the server's next step K - 1 places become free, beside those that are free now.
    """
    buffer = state.aggregator
    if not isinstance(buffer, BufferState):
        raise argument_type_error("state", "of build_fed_buff", type(buffer).__name__)
    return buffer.concurrency - len(buffer.under_way) + buffer.buffer_size - 1


def build_fed_buff(
    model_fn: ModelFn,
    client_optimizer_fn: OptimizerFn,
    server_optimizer_fn: OptimizerFn | None = None,
    *,
    buffer_size: int,
    concurrency: int,
    clock: Clock,
    model_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    r"""Build FedBuff, asynchronous federated averaging.

    .. math:: w \leftarrow \mathrm{server}\left(w, \frac{1}{K} \sum_{i=1}^{K} u_i / \sqrt{1 + \tau_i}\right)

    A round is a step of the server. `next` is given the clients that begin before it, `num_to_begin` of them: K, and in
    the first round M + K - 1. Metrics of training and the table are those of clients that begin; the aggregator's are
    the round's seconds and how many steps old the updates are. One that has no examples, or whose update is not finite,
    counts as an update of zero, as in the unweighted mean. One that is absent does not begin: more do in the next
    round. Nothing keeps a client from beginning again while it is under way (``state.aggregator.under_way``).

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    client_optimizer_fn : Optimizer or callable that returns one
    server_optimizer_fn : Optimizer or callable that returns one, optional
        SGD at rate 1 by default.
    buffer_size : int
        K.
    concurrency : int
        M. Of one client at a time nothing is ever stale.
    clock : Clock
        `program.Network`, say.
    model_aggregator : Aggregator, optional
        Of the buffer: an unweighted one, `aggregators.UnweightedMeanFactory` by default.
    metrics_aggregator, compressor, engine, executor, cache_bytes
        As for `build_weighted_fed_avg`.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Nguyen et al., "Federated learning with buffered asynchronous aggregation", AISTATS 2022,
    https://arxiv.org/abs/2106.06639

    Examples
    --------
    Of two clients one is five times as slow: while it is under way the server takes steps with the other's updates.

    >>> from fedsim_np.datasets import Dataset
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> class Seconds:
    ...     def seconds(self, client_ids, num_examples, bytes_up, bytes_down):
    ...         return np.array([{"ann": 1.0, "bob": 5.0}[i] for i in client_ids])
    >>> process = build_fed_buff(
    ...     LinearRegression(1), build_sgdm(0.1), buffer_size=1, concurrency=2, clock=Seconds())
    >>> def client(name):
    ...     return Dataset.from_batches([{"x": np.ones((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}], name)
    >>> state, cohort = process.initialize(), ["bob", "ann"]
    >>> for _ in range(6):
    ...     state, metrics = process.next(state, [client(name) for name in cohort])
    ...     print(state.aggregator.seconds, float(metrics["aggregator"]["mean_staleness"]))
    ...     cohort = ["ann"]
    1.0 0.0
    2.0 0.0
    3.0 0.0
    4.0 0.0
    5.0 4.0
    5.0 1.0
    """
    work = FedAvgTraining(as_optimizer(client_optimizer_fn, "client_optimizer_fn"), ClientWeighting.UNIFORM)
    inner, server = aggregator_or_mean(model_aggregator, weighted=False), server_optimizer(server_optimizer_fn)
    rule = BufferFactory(buffer_size, concurrency, clock, inner)
    return compose_learning_process(
        model_fn, work, rule, server, metrics_aggregator, compressor, engine, executor, cache_bytes
    )
