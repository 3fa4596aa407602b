"""A learning process: four parts composed into rounds.

::

    state.global_model_weights --+------------------------------------------+
                                 |                                          |
    client datasets --> [client work]  done by an engine, client by client  |
                                 |     or for many clients at once          |
                                 |  update, weight, unfinalized metrics     |
                         non-finite updates are left out                    |
                                 |             |                            |
                          [aggregator]   [sum, then finalize]               |
                                 |             |                            |
                         one update            |                            |
                                 |             |                            |
                           [finalizer] <-------|----------------------------+
                                 |             |
            new global_model_weights        metrics

`LearningProcess.next` is a function: state and data in, state and metrics out. What a round needs to know of the
rounds before it is in the state, a tuple of arrays and numbers that can be printed, pickled and stored.
"""

from __future__ import annotations

import abc
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.learning.aggregators import Aggregator, aggregate
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.engines import (
    DEFAULT_CACHE_BYTES,
    ChunkResult,
    EngineName,
    ExecutorArgument,
    Runner,
    choose_engine,
)
from fedsim_np.learning.engines.engine import check_shapes
from fedsim_np.learning.hidden_state import unchanged
from fedsim_np.learning.metrics import Finalizers, Metrics, Unfinalized, sum_then_finalize
from fedsim_np.learning.models.batches import ClientBatches, as_dataset
from fedsim_np.learning.models.model import Model, ModelFn, ModelWeights, as_model, initial_weights
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer
from fedsim_np.learning.signatures import initialize_signature, next_signature, typed_method
from fedsim_np.learning.state import (
    ClientWorkState,
    LearningAlgorithmState,
    LearningProcessOutput,
    clients_table,
    frozen,
)
from fedsim_np.learning.type_signatures import varying, with_int64
from fedsim_np.trees import Arrays

MetricsAggregator = Callable[[Finalizers], Callable[[Sequence[Mapping[str, Any]]], Metrics]]
"""Finalizers -> function from the clients' unfinalized metrics to the round's: `metrics.sum_then_finalize`."""


class LearningProcess(abc.ABC):
    """A process of rounds: TFF's ``LearningProcess``.

    Use `compose_learning_process` or one of the builders to make one. ``process.initialize.type_signature`` and
    ``process.next.type_signature`` are TFF's.

    Attributes
    ----------
    model : Model
    engine : str
        How a round is computed.
    """

    model: Model
    runner: Runner

    @property
    def engine(self) -> str:
        """How a round is computed."""
        return self.runner.engine.name

    @abc.abstractmethod
    def metrics_example(self) -> Metrics:
        """Return metrics of the types that a round's have, for type signatures."""

    @property
    def integers(self) -> str:
        """The type of the integers in the state."""
        return "int32"

    @property
    def parts(self) -> Mapping[str, Any]:
        """What may be of the user's, by name; it must not change in a round."""
        return {"model": self.model}

    @typed_method(initialize_signature)
    @abc.abstractmethod
    def initialize(self) -> LearningAlgorithmState:
        """Return the state before the first round."""

    @typed_method(next_signature)
    @abc.abstractmethod
    def next(
        self, state: LearningAlgorithmState, data: Sequence[ClientBatches], iteration: int = 0
    ) -> LearningProcessOutput:
        """Run one round.

        Parameters
        ----------
        state : LearningAlgorithmState
            From `initialize` or the round before; it is not changed.
        data : sequence of Dataset or of lists of batches
            One entry per client of the cohort.
        iteration : int
            Which of tf.data's orders the datasets are read in. TFF reads a dataset handed to `next` in its first
            iteration's order, every round, and so does the default. For another order every round pass the round.

        Returns
        -------
        LearningProcessOutput
            ``(state, metrics)``, and the table ``clients``.

        Raises
        ------
        ValueError
            If there are no clients.
        DataError
            If a client's batches are not what the model takes.
        """

    def get_model_weights(self, state: LearningAlgorithmState) -> ModelWeights:
        """Return the model weights in a state."""
        return state.global_model_weights

    def set_model_weights(self, state: LearningAlgorithmState, model_weights: ModelWeights) -> LearningAlgorithmState:
        """Return the state with other model weights.

        Parameters
        ----------
        state : LearningAlgorithmState
        model_weights : ModelWeights
            Arrays of the shapes that the state has; they are cast to its dtypes.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        given, there = ModelWeights(*model_weights), state.global_model_weights
        shapes = [[np.shape(array) for array in part] for part in there]
        found = [[np.shape(array) for array in part] for part in given]
        if found != shapes:
            raise argument_error("model_weights", f"arrays of the shapes {shapes}", found)
        cast = trees.map(lambda old, new: np.asarray(new).astype(old.dtype), there, given)
        return state._replace(global_model_weights=trees.freeze(cast))

    def get_hparams(self, state: LearningAlgorithmState) -> OrderedDict[str, Any]:
        """Return ``{client_work: {...}, finalizer: {...}}``, the hyperparameters in a state."""
        return OrderedDict(client_work=OrderedDict(), finalizer=OrderedDict())

    def set_hparams(self, state: LearningAlgorithmState, hparams: Mapping[str, Any]) -> LearningAlgorithmState:
        """Return the state with other hyperparameters, of the form that `get_hparams` gives."""
        if any(hparams.values()):
            raise argument_error("hparams", "empty for this process", dict(hparams))
        return state


def as_datasets(data: Sequence[ClientBatches], iteration: int) -> list[Dataset]:
    """Return the clients' datasets, set to be read in the order of an iteration.

    Raises
    ------
    TypeError, ValueError
        If `data` is not a list with an entry per client, or an empty one.
    """
    if isinstance(data, Dataset | Mapping) or not isinstance(data, Iterable):
        raise argument_type_error("data", "a list with one Dataset or list of batches per client", data)
    datasets = [as_dataset(client) for client in data]
    if not datasets:
        raise argument_error("data", "a list with at least one client", [])
    iteration = check_int("iteration", iteration, minimum=0)
    return [dataset.skip_iterations(iteration) for dataset in datasets] if iteration else datasets


@dataclass(frozen=True, eq=False)
class TrainingProcess(LearningProcess):
    """The process of `compose_learning_process`."""

    model: Model
    client_work: LocalTraining | ClientWork
    aggregator: Aggregator
    finalizer: Optimizer
    metrics_aggregator: MetricsAggregator
    runner: Runner

    @typed_method(initialize_signature)
    def initialize(self) -> LearningAlgorithmState:  # noqa: D102
        weights, work = initial_weights(self.model), self.client_work
        if isinstance(work, LocalTraining):
            own = ClientWorkState(0 if work.counts_rounds else None, work.initialize(weights.trainable), {})
        else:
            own = ClientWorkState(None, work.initialize(), {})
        return frozen(
            LearningAlgorithmState(
                global_model_weights=weights,
                distributor=(),
                client_work=own.stored(),
                aggregator=self.aggregator.initialize(weights.trainable),
                finalizer=self.finalizer.initialize(weights.trainable),
            )
        )

    @typed_method(next_signature)
    def next(  # noqa: D102
        self, state: LearningAlgorithmState, data: Sequence[ClientBatches], iteration: int = 0
    ) -> LearningProcessOutput:
        datasets = as_datasets(data, iteration)
        state = frozen(state)  # an unpickled one is writable
        with unchanged(self.parts, self.runner.sends_pickles):
            sent, results = self.run_clients(state, datasets, self.runner)
            cohort, updates, unfinalized = self._leave_out_non_finite(sent, datasets, results)
            aggregator_state, update, aggregated = aggregate(self.aggregator, state.aggregator, updates, cohort)
            finalizer_state, trainable, finalized = self._finalize(state, update)
            server, worked = self.client_work.finish_round(sent.state, cohort)
        finalizers = OrderedDict(self.model.metric_finalizers(), **self.client_work.metric_finalizers())
        new_state = LearningAlgorithmState(
            global_model_weights=sent.weights._replace(trainable=trainable),
            distributor=(),
            client_work=ClientWorkState.of(state).after(server, cohort, results.kept).stored(),
            aggregator=aggregator_state,
            finalizer=finalizer_state,
        )
        metrics = OrderedDict(
            distributor=(),
            client_work=OrderedDict(train=self.metrics_aggregator(finalizers)(unfinalized), **worked),
            aggregator=aggregated,
            finalizer=finalized,
        )
        clients = functools.partial(clients_table, cohort, unfinalized)
        return LearningProcessOutput(frozen(new_state), metrics, clients)

    @property
    def parts(self) -> Mapping[str, Any]:
        """Model, client work, aggregator and finalizer."""
        work, aggregator, finalizer = self.client_work, self.aggregator, self.finalizer
        return {"model": self.model, "client work": work, "aggregator": aggregator, "finalizer": finalizer}

    def run_clients(
        self, state: LearningAlgorithmState, datasets: Sequence[Dataset], runner: Runner
    ) -> tuple[Broadcast, ChunkResult]:
        """Return what the server sends in a round, and what each client sends back."""
        work, of_work = self.client_work, ClientWorkState.of(state)
        sent, kept = of_work.broadcast(state.global_model_weights), None
        if isinstance(work, LocalTraining) and work.counts_rounds:
            first = work.initialize_client(sent.weights.trainable)
            kept = of_work.kept_of([dataset.client_id for dataset in datasets], first)
        results = runner.run(sent, datasets, kept)
        if (results.kept is None) != (kept is None):
            rule = "what initialize_client gives of a new client, or None where that is None"
            raise argument_error(f"kept of the ClientResult of {type(work).__name__}", rule, results.kept)
        return sent, results

    def _leave_out_non_finite(
        self, sent: Broadcast, datasets: Sequence[Dataset], results: ChunkResult
    ) -> tuple[Cohort, Arrays, list[Unfinalized]]:
        """Zero the update and the metrics of each client whose update is not finite, and all that do not count send."""
        bad, unfinalized = ~np.isfinite(results.norms), results.metrics.tolist()
        if bad.any():
            for update in results.updates:
                update[bad] = 0
            nothing = OrderedDict(self.model.initial_metrics(), **self.client_work.initial_metrics())
            unfinalized = [nothing if b else sums for b, sums in zip(bad, unfinalized, strict=True)]
        read = list(zip(datasets, results.num_examples, strict=True))
        cohort = Cohort(
            ids=[dataset.client_id for dataset in datasets],
            round_num=sent.round_num,
            client_weights=trees.freeze(results.client_weights),
            update_norms=results.norms,
            num_steps=None if None in results.num_steps else np.array(results.num_steps, np.int64),
            _count_examples=lambda: [dataset.num_examples if n is None else n for dataset, n in read],
            _sent=results.messages,
        )
        return cohort, trees.freeze(results.updates), unfinalized

    def _finalize(self, state: LearningAlgorithmState, update: Arrays) -> tuple[Any, Arrays, Metrics]:
        """Apply the aggregate; if it is not finite, keep weights and optimizer state as they are."""
        trainable, finalizer_state = state.global_model_weights.trainable, state.finalizer
        check_shapes(f"aggregate of {type(self.aggregator).__name__}", update, [w.shape for w in trainable])
        with np.errstate(all="ignore"):
            # In C order whatever the engine's is: a matrix product's bits depend on the order.
            gradients = trees.map(lambda w, u: np.ascontiguousarray(u, w.dtype).reshape(w.shape), trainable, update)
            finite = all(np.isfinite(g).all() for g in gradients)
            if finite:
                finalizer_state, trainable = self.finalizer.next(finalizer_state, trainable, gradients)
        return finalizer_state, trainable, OrderedDict(update_non_finite=int(not finite))

    def get_hparams(self, state: LearningAlgorithmState) -> OrderedDict[str, Any]:
        """Return the hyperparameters of the client work and of the finalizer."""
        return OrderedDict(
            client_work=self.client_work.get_hparams(ClientWorkState.of(state).server),
            finalizer=self.finalizer.get_hparams(state.finalizer),
        )

    def set_hparams(self, state: LearningAlgorithmState, hparams: Mapping[str, Any]) -> LearningAlgorithmState:
        """Return the state with other hyperparameters, of the form that `get_hparams` gives."""
        if not isinstance(hparams, Mapping) or set(hparams) != {"client_work", "finalizer"}:
            raise argument_error("hparams", "of the form that get_hparams gives", hparams)
        of_work = ClientWorkState.of(state)
        server = self.client_work.set_hparams(of_work.server, hparams["client_work"])
        return state._replace(
            client_work=of_work._replace(server=server).stored(),
            finalizer=self.finalizer.set_hparams(state.finalizer, hparams["finalizer"]),
        )

    def metrics_example(self) -> Metrics:
        """Return metrics of the types that a round's have; "?" where an aggregator does not say what it reports."""
        work, finalizers = self.client_work, OrderedDict(self.model.metric_finalizers())
        finalizers.update(work.metric_finalizers())
        nothing = OrderedDict(self.model.initial_metrics(), **work.initial_metrics())
        # What finalizers make of sums only they know. Of one client and of eleven: a sample of them may vary in length.
        few, many = (self.metrics_aggregator(finalizers)([nothing] * k) for k in (1, 11))
        return OrderedDict(
            distributor=(),
            client_work=OrderedDict(train=with_int64(varying(few, many)), **work.round_metrics),
            aggregator=self.aggregator.initial_metrics(),
            finalizer=OrderedDict(update_non_finite=0),
        )


def compose_learning_process(
    model_fn: ModelFn,
    client_work: LocalTraining | ClientWork,
    aggregator: Aggregator,
    finalizer: OptimizerFn,
    metrics_aggregator: MetricsAggregator | None = None,
    *,
    engine: EngineName = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Compose a learning process of its parts; the builders do no more than this.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
        Called once: for the first weights, the metrics and what a batch looks like.
    client_work : LocalTraining or ClientWork
        What each client does.
    aggregator : Aggregator
        How the clients' updates become one.
    finalizer : Optimizer or callable that returns one
        How that update moves the server's weights. SGD at rate 1 subtracts it: plain averaging.
    metrics_aggregator : callable, optional
        `metrics.sum_then_finalize` by default.
    engine : {"auto", "loop", "cohort", "gram"}
        How a round is computed, see `fedsim_np.learning.engines`: "loop" is the reference, one client after the other;
        "auto" takes the fastest one that can do this configuration, and ``process.engine`` says which it is. A named
        engine that cannot is an error, now.
    executor : None, "serial" or concurrent.futures.Executor
        Who computes. None takes the cores by threads where a round is wide enough, "serial" one thread; an executor's
        workers may be threads, processes or a cluster. It changes no bit of the result.
    cache_bytes : int
        How much may be kept between rounds. It changes no bit of the result.

    Returns
    -------
    LearningProcess

    Raises
    ------
    TypeError, ValueError
        If a part is not what it should be, or the engine cannot do this configuration.

    Examples
    --------
    >>> from fedsim_np.learning.aggregators import MeanFactory
    >>> from fedsim_np.learning.fed_avg import FedAvgTraining
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> process = compose_learning_process(
    ...     model, FedAvgTraining(build_sgdm(0.1)), MeanFactory(), build_sgdm(1.0))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> state, metrics = process.next(process.initialize(), [[batch], [batch]])
    >>> print(metrics["client_work"]["train"]["num_examples"], state.global_model_weights.trainable[1].round(4))
    8 [ 0.0667 -0.0333 -0.0333]
    """
    if not isinstance(client_work, LocalTraining | ClientWork):
        raise argument_type_error("client_work", "a LocalTraining or a ClientWork", client_work)
    if not isinstance(aggregator, Aggregator):
        raise argument_type_error("aggregator", "an Aggregator", aggregator)
    if metrics_aggregator is not None and not callable(metrics_aggregator):
        rule = "a function such as metrics.sum_then_finalize"
        raise argument_type_error("metrics_aggregator", rule, metrics_aggregator)
    model = as_model(model_fn)
    return TrainingProcess(
        model=model,
        client_work=client_work,
        aggregator=aggregator,
        finalizer=as_optimizer(finalizer, "finalizer"),
        metrics_aggregator=metrics_aggregator or sum_then_finalize,
        runner=Runner(choose_engine(engine, client_work, model), executor, cache_bytes),
    )
