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
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_int
from fedsim_np.learning import metrics as metrics_lib
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.client_work import ClientWork
from fedsim_np.learning.engines import (
    DEFAULT_CACHE_BYTES,
    ChunkResult,
    ExecutorArgument,
    Runner,
    checked_engine,
    checked_executor,
    choose_engine,
)
from fedsim_np.learning.models import Array, Arrays, Model, ModelWeights, as_dataset, as_model
from fedsim_np.learning.optimizers import Optimizer, as_optimizer
from fedsim_np.learning.state import (
    LearningAlgorithmState,
    LearningProcessOutput,
    clients_table,
    frozen,
    initial_weights,
)
from fedsim_np.learning.type_signatures import (
    Type,
    TypedFunction,
    client_sequences,
    function,
    server,
    struct,
    type_of,
    varying,
)

ClientBatches = Dataset | Iterable[Mapping[str, npt.ArrayLike]]
"""One client's data in a call of `next`."""

MetricsAggregator = Callable[[metrics_lib.Finalizers], Callable[[Sequence[Mapping[str, Any]]], metrics_lib.Metrics]]
"""Finalizers -> function from the clients' unfinalized metrics to the round's: `metrics.sum_then_finalize`."""


class LearningProcess(abc.ABC):
    """A process of rounds: TFF's ``LearningProcess``.

    Use `compose_learning_process` or one of the builders to make one.

    Attributes
    ----------
    model : Model
    """

    model: Model

    @property
    @abc.abstractmethod
    def engine(self) -> str:
        """How a round is computed."""

    @abc.abstractmethod
    def _initialize(self) -> LearningAlgorithmState:
        """Return the state before the first round."""

    @abc.abstractmethod
    def _next(
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

    @abc.abstractmethod
    def _metrics_type(self) -> Type:
        """Return the type of a round's metrics."""

    @abc.abstractmethod
    def _state_type(self) -> Type:
        """Return the type of the state."""

    @cached_property
    def initialize(self) -> TypedFunction[[], LearningAlgorithmState]:
        """``initialize()`` returns the state before the first round."""
        return TypedFunction(self._initialize, self._initialize_signature)

    @cached_property
    def next(self) -> TypedFunction[..., LearningProcessOutput]:
        """``next(state, data, iteration=0)`` runs one round."""
        return TypedFunction(self._next, self._next_signature)

    def _initialize_signature(self) -> Type:
        return function(None, server(self._state_type()))

    def _next_signature(self) -> Type:
        state = server(self._state_type())
        data = client_sequences(type_of(self.model.input_spec))
        return function(
            struct(state=state, client_data=data), struct(state=state, metrics=server(self._metrics_type()))
        )

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
        weights = ModelWeights(*model_weights)
        parts = []
        for new, old in zip(weights, state.global_model_weights, strict=True):
            arrays = [np.asarray(array) for array in new]
            if [a.shape for a in arrays] != [np.shape(a) for a in old]:
                rule = f"arrays of the shapes {[np.shape(a) for a in old]}"
                raise argument_error("model_weights", rule, [a.shape for a in arrays])
            parts.append(tuple(a.astype(o.dtype) for a, o in zip(arrays, old, strict=True)))
        return state._replace(global_model_weights=frozen(ModelWeights(*parts)))

    def get_hparams(self, state: LearningAlgorithmState) -> OrderedDict[str, Any]:
        """Return ``{client_work: {...}, finalizer: {...}}``, the hyperparameters in a state."""
        return OrderedDict(client_work=OrderedDict(), finalizer=OrderedDict())

    def set_hparams(self, state: LearningAlgorithmState, hparams: Mapping[str, Any]) -> LearningAlgorithmState:
        """Return the state with other hyperparameters, of the form that `get_hparams` gives."""
        if any(hparams.values()):
            raise argument_error("hparams", "empty for this process", dict(hparams))
        return state


def as_cohort(data: Sequence[ClientBatches], iteration: int) -> list[Dataset]:
    """Return the clients' datasets, set to be read in the order of an iteration.

    Raises
    ------
    TypeError, ValueError
        If `data` is not a list with an entry per client, or an empty one.
    """
    if isinstance(data, Dataset | Mapping) or not isinstance(data, Iterable):
        raise argument_type_error("data", "a list with one Dataset or list of batches per client", data)
    cohort = [as_dataset(client) for client in data]
    if not cohort:
        raise argument_error("data", "a list with at least one client", [])
    iteration = check_int("iteration", iteration, minimum=0)
    return [dataset.skip_iterations(iteration) for dataset in cohort] if iteration else cohort


@dataclass(frozen=True, eq=False)
class _ComposedProcess(LearningProcess):
    """The process of `compose_learning_process`."""

    model: Model
    client_work: ClientWork
    aggregator: Aggregator
    finalizer: Optimizer
    metrics_aggregator: MetricsAggregator
    runner: Runner

    @property
    def engine(self) -> str:
        """How a round is computed."""
        return self.runner.engine.name

    def _initialize(self) -> LearningAlgorithmState:
        weights = initial_weights(self.model)
        return LearningAlgorithmState(
            global_model_weights=weights,
            distributor=(),
            client_work=frozen(self.client_work.initialize()),
            aggregator=frozen(self.aggregator.initialize(weights.trainable)),
            finalizer=frozen(self.finalizer.initialize(weights.trainable)),
        )

    def _next(
        self, state: LearningAlgorithmState, data: Sequence[ClientBatches], iteration: int = 0
    ) -> LearningProcessOutput:
        cohort = as_cohort(data, iteration)
        state = frozen(state)  # an unpickled one is writable
        weights = state.global_model_weights
        results = self.runner.run(weights, cohort, state.client_work)
        updates, client_weights, unfinalized, norms = self._leave_out_non_finite(results)
        aggregator_state, aggregate, aggregator_metrics = self.aggregator.next(
            state.aggregator, updates, client_weights
        )
        finalizer_state, trainable, finalizer_metrics = self._finalize(state, aggregate)
        client_work_state, server_metrics = self.client_work.finish_round(state.client_work)
        new_state = LearningAlgorithmState(
            global_model_weights=frozen(weights._replace(trainable=trainable)),
            distributor=(),
            client_work=frozen(client_work_state),
            aggregator=frozen(aggregator_state),
            finalizer=frozen(finalizer_state),
        )
        train = self.metrics_aggregator(self.model.metric_finalizers())(unfinalized)
        round_metrics = OrderedDict(
            distributor=(),
            client_work=OrderedDict(train=train, **server_metrics),
            aggregator=aggregator_metrics,
            finalizer=finalizer_metrics,
        )
        client_ids = [dataset.client_id for dataset in cohort]
        sizes = [d if n is None else n for d, n in zip(cohort, results.num_examples, strict=True)]
        return LearningProcessOutput(
            new_state,
            round_metrics,
            lambda: clients_table(client_ids, sizes, unfinalized, weight=client_weights, update_norm=norms),
        )

    def _leave_out_non_finite(self, results: ChunkResult) -> tuple[Arrays, Array, list[metrics_lib.Unfinalized], Array]:
        """Zero the update, the weight and the metrics of every client whose update is not finite."""
        updates, weights, unfinalized = results.updates, results.weights, results.metrics
        norms = results.norms
        bad = ~np.isfinite(norms)
        if bad.any():
            for update in updates:
                update[bad] = 0
            weights[bad] = 0
            unfinalized = [self.model.initial_metrics() if b else m for b, m in zip(bad, unfinalized, strict=True)]
        for array in (*updates, weights):
            array.flags.writeable = False
        return updates, weights, unfinalized, norms

    def _finalize(self, state: LearningAlgorithmState, aggregate: Arrays) -> tuple[Any, Arrays, metrics_lib.Metrics]:
        """Apply the aggregate; if it is not finite, keep weights and optimizer state as they are."""
        trainable = state.global_model_weights.trainable
        shapes = [np.shape(a) for a in aggregate]
        if shapes != [w.shape for w in trainable]:
            name = f"aggregate of {type(self.aggregator).__name__}"
            raise argument_error(name, f"arrays of the shapes {[w.shape for w in trainable]}", shapes)
        finalizer_state = state.finalizer
        with np.errstate(all="ignore"):
            # In C order whatever the engine's is: a matrix product's bits depend on the order.
            gradients = tuple(np.ascontiguousarray(a, np.float32).reshape(np.shape(a)) for a in aggregate)
            finite = all(np.isfinite(g).all() for g in gradients)
            if finite:
                finalizer_state, trainable = self.finalizer.next(finalizer_state, trainable, gradients)
        return finalizer_state, trainable, OrderedDict(update_non_finite=int(not finite))

    def get_hparams(self, state: LearningAlgorithmState) -> OrderedDict[str, Any]:
        return OrderedDict(
            client_work=self.client_work.get_hparams(state.client_work),
            finalizer=self.finalizer.get_hparams(state.finalizer),
        )

    def set_hparams(self, state: LearningAlgorithmState, hparams: Mapping[str, Any]) -> LearningAlgorithmState:
        if not isinstance(hparams, Mapping) or set(hparams) != {"client_work", "finalizer"}:
            raise argument_error("hparams", "of the form that get_hparams gives", hparams)
        return state._replace(
            client_work=self.client_work.set_hparams(state.client_work, hparams["client_work"]),
            finalizer=self.finalizer.set_hparams(state.finalizer, hparams["finalizer"]),
        )

    def _state_type(self) -> Type:
        return type_of(self._initialize())

    def _metrics_type(self) -> Type:
        # Two rounds of clients that have nothing to say: their metrics have the types of any round's, with lengths
        # that vary where theirs do. Ten clients and eleven, since an aggregation rule may need several.
        state = self._initialize()

        def metrics_of(k: int) -> tuple[metrics_lib.Metrics, metrics_lib.Metrics]:
            updates = tuple(np.broadcast_to(np.float32(0), (k, *w.shape)) for w in state.global_model_weights.trainable)
            # One client or ten: a sample of the clients varies where they are few.
            clients = [self.model.initial_metrics()] * (1 if k == 10 else k)
            train = self.metrics_aggregator(self.model.metric_finalizers())(clients)
            return train, self.aggregator.next(state.aggregator, updates, np.ones(k))[2]

        train, aggregator = varying(metrics_of(10), metrics_of(11))
        server_metrics = self.client_work.finish_round(state.client_work)[1]
        return struct(
            distributor=type_of(()),
            client_work=struct(
                train=type_of(train, integers="int64"),
                **{name: type_of(value) for name, value in server_metrics.items()},
            ),
            aggregator=type_of(aggregator),
            finalizer=type_of({"update_non_finite": 0}),
        )


def compose_learning_process(
    model_fn: Callable[[], Model] | Model,
    client_work: ClientWork,
    aggregator: Aggregator,
    finalizer: Optimizer | Callable[[], Optimizer],
    metrics_aggregator: MetricsAggregator | None = None,
    *,
    engine: str = "auto",
    executor: ExecutorArgument = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> LearningProcess:
    """Compose a learning process of its parts; the builders do no more than this.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
        Called once: for the first weights, the metrics and what a batch looks like.
    client_work : ClientWork
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
    >>> from fedsim_np.learning.client_work import LocalTraining
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> model = SoftmaxRegression(num_features=2, num_classes=3)
    >>> process = compose_learning_process(
    ...     model, LocalTraining(model, build_sgdm(0.1)), MeanFactory(), build_sgdm(1.0))
    >>> batch = {"x": np.ones((4, 2), np.float32), "y": np.zeros((4, 1), np.int32)}
    >>> state, metrics = process.next(process.initialize(), [[batch], [batch]])
    >>> print(metrics["client_work"]["train"]["num_examples"], state.global_model_weights.trainable[1].round(4))
    8 [ 0.0667 -0.0333 -0.0333]
    """
    if not isinstance(client_work, ClientWork):
        raise argument_type_error("client_work", "a ClientWork", client_work)
    if not isinstance(aggregator, Aggregator):
        raise argument_type_error("aggregator", "an Aggregator", aggregator)
    if metrics_aggregator is not None and not callable(metrics_aggregator):
        rule = "a function such as metrics.sum_then_finalize"
        raise argument_type_error("metrics_aggregator", rule, metrics_aggregator)
    model = as_model(model_fn)
    return _ComposedProcess(
        model=model,
        client_work=client_work,
        aggregator=aggregator,
        finalizer=as_optimizer(finalizer, "finalizer"),
        metrics_aggregator=metrics_aggregator or metrics_lib.sum_then_finalize,
        runner=Runner(
            choose_engine(checked_engine(engine), client_work, model),
            checked_executor(executor),
            check_int("cache_bytes", cache_bytes, minimum=0),
        ),
    )
