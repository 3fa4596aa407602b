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

`TrainingProcess.run_round` is this picture; what it is given has been checked by `LearningProcess.next`.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_parts, check_type
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.aggregators.aggregator import KeepsTime, aggregate, aggregate_sums, bytes_up, summing
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.client_work import ClientWork, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.compression import Compressor, first_kept
from fedsim_np.learning.engines import DEFAULT_CACHE_BYTES, EngineName, ExecutorArgument, Runner, choose_engine
from fedsim_np.learning.engines.engine import ChunkResult, Reduce, check_shapes, without_non_finite
from fedsim_np.learning.hidden_state import unchanged
from fedsim_np.learning.learning_process import LearningProcess, Round, clients_table, cohort_of
from fedsim_np.learning.metrics import Finalizers, Metrics, Nobody, Unfinalized, sum_then_finalize
from fedsim_np.learning.models.checks import as_model, initial_weights
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer
from fedsim_np.learning.state import ClientWorkState, LearningAlgorithmState
from fedsim_np.learning.type_signatures import varying, with_int64
from fedsim_np.trees import Arrays

MetricsAggregator = Callable[[Finalizers], Callable[[Sequence[Mapping[str, Any]]], Metrics]]
"""Finalizers -> function from the clients' unfinalized metrics to the round's: `metrics.sum_then_finalize`."""


@dataclass(frozen=True, eq=False)
class TrainingProcess(LearningProcess):
    """The process of `compose_learning_process`."""

    client_work: LocalTraining | ClientWork
    aggregator: Aggregator
    finalizer: Optimizer
    metrics_aggregator: MetricsAggregator
    compressor: Compressor | None = None

    def first_state(self) -> LearningAlgorithmState:
        """Return the model's first weights, and every part's first state."""
        weights, work = initial_weights(self.model), self.client_work
        server = work.initialize(weights.trainable) if isinstance(work, LocalTraining) else work.initialize()
        own = ClientWorkState(0 if self._counts_rounds else None, server, {})
        return LearningAlgorithmState(
            global_model_weights=weights,
            distributor=(),
            client_work=own.stored(),
            aggregator=self.aggregator.initialize(weights.trainable),
            finalizer=self.finalizer.initialize(weights.trainable),
        )

    def run_round(self, state: LearningAlgorithmState, datasets: Sequence[Dataset]) -> Round:
        """Train on a cohort."""
        with unchanged(self.parts, self.runner.sends_pickles):
            of_parts = summing(self.aggregator)
            reduce = None if of_parts is None else of_parts.summed
            sent, results = self.run_clients(state, datasets, self.runner, reduce)
            cohort, unfinalized = self._cohort(sent, datasets, results, self.bytes_down(state))
            aggregator_state, update, aggregated = self._aggregate(state.aggregator, results, cohort)
            finalizer_state, trainable, finalized = self._finalize(state, update)
            finished = self.client_work.finish_round(sent.state, cohort)
            worker = type(self.client_work).__name__
            server, worked = check_parts(f"finish_round of {worker}", finished, "state", "metrics")
        new_state = LearningAlgorithmState(
            global_model_weights=sent.weights._replace(trainable=trainable),
            distributor=(),
            client_work=ClientWorkState.of(state).after(server, cohort, results.kept, worker).stored(),
            aggregator=aggregator_state,
            finalizer=finalizer_state,
        )
        metrics = OrderedDict(
            distributor=(),
            client_work=OrderedDict(train=self._aggregated(unfinalized), **worked),
            aggregator=aggregated,
            finalizer=finalized,
        )
        if isinstance(self.aggregator, KeepsTime):
            metrics["network"] = OrderedDict(seconds=self.aggregator.seconds(aggregated))
        return new_state, metrics, functools.partial(clients_table, cohort, unfinalized, self._finalizers)

    @property
    def parts(self) -> Mapping[str, Any]:
        """Model, client work, compressor, aggregator and finalizer."""
        names = "client work", "compressor", "aggregator", "finalizer"
        return {"model": self.model, **{name: getattr(self, name.replace(" ", "_")) for name in names}}

    @property
    def tells_communication(self) -> bool:
        """With a compressor."""
        return self.compressor is not None

    @property
    def _counts_rounds(self) -> bool:
        work = self.client_work
        return self.compressor is not None or (isinstance(work, LocalTraining) and work.counts_rounds)

    def bytes_down(self, state: LearningAlgorithmState) -> int:
        """Return what weights take, and the client work's arrays: a control variate, an optimizer's state."""
        server = trees.leaves(ClientWorkState.of(state).server)
        arrays = [leaf for _, leaf in server if isinstance(leaf, np.ndarray) and leaf.ndim]
        return super().bytes_down(state) + sum(array.nbytes for array in arrays)

    def run_clients(
        self, state: LearningAlgorithmState, datasets: Sequence[Dataset], runner: Runner, reduce: Reduce | None = None
    ) -> tuple[Broadcast, ChunkResult]:
        """Return what the server sends in a round, and what each client sends back; with `reduce`, updates added up."""
        work, of_work = self.client_work, ClientWorkState.of(state)
        round_num = None if of_work.round_num is None else of_work.round_num + 1
        if (round_num is None) is self._counts_rounds:
            rule = "this process's (weights of another one's are taken over by set_model_weights)"
            raise argument_error("state", rule, f"rounds counted: {round_num is not None}")
        sent, kept = Broadcast(state.global_model_weights, of_work.server, round_num), None
        if isinstance(work, LocalTraining) and work.first_iteration:
            datasets = [dataset.skip_iterations(work.first_iteration) for dataset in datasets]
        if self._counts_rounds:
            of_new = work.initialize_client(sent.weights.trainable) if isinstance(work, LocalTraining) else None
            first = first_kept(self.compressor, of_new, sent.weights.trainable)
            kept = of_work.kept_of([dataset.client_id for dataset in datasets], first, type(work).__name__)
            kept = [first] if kept == [] else kept  # what nobody keeps has the form of a new client's
        results = runner.run(sent, datasets, kept, reduce, self.compressor)
        if (results.kept is None) != (kept is None):
            rule = "what initialize_client gives of a new client, or None where that is None"
            raise argument_error(f"kept of the ClientResult of {type(work).__name__}", rule, results.kept)
        return sent, results

    def _aggregate(self, state: Any, results: ChunkResult, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Aggregate updates side by side, or what they have been added up to already."""
        of_parts = summing(self.aggregator)
        if of_parts is not None:
            return aggregate_sums(of_parts, state, results.updates, cohort)
        return aggregate(self.aggregator, state, trees.freeze(without_non_finite(results).updates), cohort)

    def _cohort(
        self, sent: Broadcast, datasets: Sequence[Dataset], results: ChunkResult, bytes_down: int
    ) -> tuple[Cohort, list[Unfinalized]]:
        """Return the cohort and its metrics, those of nothing for a client whose update is not finite."""
        bad, unfinalized = ~np.isfinite(results.norms), results.metrics.tolist()
        if bad.any():
            nothing = self.metrics_of_nothing()
            unfinalized = [nothing if b else sums for b, sums in zip(bad, unfinalized, strict=True)]
        of_update = bytes_up(self.aggregator, sent.weights.trainable)
        return cohort_of(datasets, results, sent.round_num, of_update, bytes_down), unfinalized

    def metrics_of_nothing(self) -> Unfinalized:
        """Return the model's and the work's."""
        return OrderedDict(self.model.initial_metrics(), **self.client_work.initial_metrics())

    @property
    def _finalizers(self) -> Finalizers:
        return OrderedDict(self.model.metric_finalizers(), **self.client_work.metric_finalizers())

    def _aggregated(self, unfinalized: Sequence[Unfinalized]) -> Metrics:
        return self.metrics_aggregator(self._finalizers)(unfinalized or Nobody(self.metrics_of_nothing()))

    def _finalize(self, state: LearningAlgorithmState, update: Arrays) -> tuple[Any, Arrays, Metrics]:
        """Apply the aggregate; if it is not finite, keep weights and optimizer state as they are.

        Aggregator and client work have moved on by then, as in TFF: they do not hear of it.
        """
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
        # What finalizers make of sums only they know. Of one client and of eleven: a sample of them may vary in length.
        few, many = (self._aggregated([self.metrics_of_nothing()] * k) for k in (1, 11))
        metrics: Metrics = OrderedDict(
            distributor=(),
            client_work=OrderedDict(train=with_int64(varying(few, many)), **self.client_work.round_metrics),
            aggregator=self.aggregator.initial_metrics(),
            finalizer=OrderedDict(update_non_finite=0),
        )
        if isinstance(self.aggregator, KeepsTime):
            metrics["network"] = OrderedDict(seconds=0.0)
        if self.tells_communication:
            metrics["communication"] = with_int64(OrderedDict(bytes_up=0, bytes_down=0))
        return metrics


def compose_learning_process(
    model_fn: ModelFn,
    client_work: LocalTraining | ClientWork,
    aggregator: Aggregator,
    finalizer: OptimizerFn,
    metrics_aggregator: MetricsAggregator | None = None,
    compressor: Compressor | None = None,
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
        `metrics.sum_then_finalize` by default. One of your own is given `metrics.Nobody`, an empty sequence, in a round
        without clients.
    compressor : Compressor, optional
        What becomes of updates on their way to the server, see `compression`: the data must have client ids where it
        draws or keeps something.
    engine : {"auto", "loop", "cohort", "gram", "presorted"}
        How a round is computed, see `fedsim_np.learning.engines`: "loop" is the reference, one client after the other;
        "auto" takes the fastest one that can do this configuration, and ``process.engine`` says which it is. A named
        engine that cannot is an error, now.
    executor : None, "serial", concurrent.futures.Executor or Workers
        Who computes. None takes the cores by threads where a round is wide enough, "serial" one thread; an executor's
        workers may be threads, processes or a cluster. ``Workers(executor, timeout=60)`` gives a round up once no part
        of it gets done in 60 seconds. It changes no bit of the result.
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
    check_type("compressor", compressor, Compressor | None, "a Compressor, such as compression.top_k(0.1), or None")
    model = as_model(model_fn)
    own, finalizers = set(client_work.initial_metrics()), set(client_work.metric_finalizers())
    if own != finalizers or own & set(model.metric_finalizers()):
        rule = "with initial_metrics and metric_finalizers of the same names, which the model's metrics do not have"
        raise argument_error("client_work", rule, f"{sorted(own)} and {sorted(finalizers)}")
    if isinstance(client_work, LocalTraining) and not client_work.counts_rounds:
        first = client_work.initialize_client(initial_weights(model).trainable)
        if first is not None:
            rule = "True for a local training that keeps something of its clients (initialize_client)"
            raise argument_error(f"counts_rounds of {type(client_work).__name__}", rule, False)
    return TrainingProcess(
        model=model,
        runner=Runner(choose_engine(engine, client_work, model), executor, cache_bytes),
        client_work=client_work,
        aggregator=aggregator,
        finalizer=as_optimizer(finalizer, "finalizer"),
        metrics_aggregator=metrics_aggregator or sum_then_finalize,
        compressor=compressor,
    )
