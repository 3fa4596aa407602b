"""What a learning process is, and what it gives: a first state, and rounds from state to state.

`LearningProcess.next` is a function: state and data in, state and metrics out. What a round needs to know of the
rounds before it is in the state, a tuple of arrays and numbers that can be printed, pickled and stored. A process is
a subclass that makes a first state and a round: `process` trains, `fed_eval` evaluates.
"""

from __future__ import annotations

import abc
import functools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_int, unknown_name
from fedsim_np.forking import cached_property
from fedsim_np.learning.client import STATUSES, Attendance
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.engines import ChunkResult, Runner
from fedsim_np.learning.engines.engine import check_shapes
from fedsim_np.learning.metrics import Finalizers, Metrics, Unfinalized, finalize_each
from fedsim_np.learning.models.checks import ClientBatches, as_dataset
from fedsim_np.learning.models.model import Model, ModelWeights
from fedsim_np.learning.state import LearningAlgorithmState, frozen
from fedsim_np.learning.type_signatures import type_of_initialize, type_of_next, typed_method
from fedsim_np.profiling import Profile, profiled
from fedsim_np.tables import ClientsTable

_BYTES = "bytes_up", "bytes_down"


class _StateAndMetrics(NamedTuple):
    state: LearningAlgorithmState
    metrics: Metrics


class LearningProcessOutput(_StateAndMetrics):
    """What a round gives: ``state, metrics = process.next(state, data)``, and the clients besides.

    Attributes
    ----------
    state : LearningAlgorithmState
        For the next round.
    metrics : OrderedDict
        Of the parts: ``distributor``, ``client_work``, ``aggregator``, ``finalizer``.
    clients : Table
        A table with a row per client in cohort order: ``client_id``, ``num_examples``, ``weight``, ``update_norm``
        (l2, as the client sent it), ``bytes_up`` and ``bytes_down`` (what its message takes, and the server's to it),
        ``status`` ("ok", "empty" or "non-finite update"; of an `Attendance` also "partial" and "absent") and
        ``metrics`` (unfinalized). It is made when it is asked for; ``clients.to_frame()`` and ``clients.to_csv(path)``
        have the metrics finalized.
    """

    _make_clients: Callable[[], ClientsTable] = ClientsTable

    def __new__(
        cls,
        state: LearningAlgorithmState,
        metrics: Metrics,
        clients: Callable[[], ClientsTable] | ClientsTable | None = None,
    ) -> LearningProcessOutput:
        """Take the parts; `clients` may be a function that makes the table."""
        self = super().__new__(cls, state, metrics)
        self._make_clients = clients if callable(clients) else lambda: clients or ClientsTable()
        return self

    @cached_property
    def clients(self) -> ClientsTable:
        """The table of the clients."""
        make, self._make_clients = self._make_clients, ClientsTable  # it holds what clients sent
        return make()

    @property
    def communication(self) -> OrderedDict[str, int]:
        """``bytes_up`` and ``bytes_down`` of all clients together, in a round of training.

        A message has the update as a compressor or an aggregator encodes it, else as it is, and what the algorithm has
        clients tell; from the server weights, and arrays of the algorithm's, as they are. What is one number for all,
        such as a learning rate, is not counted. A client that is empty, or whose update is not finite, sends as much as
        another one; who is absent sends nothing.
        """
        return OrderedDict((name, int(self.clients[name].sum())) for name in _BYTES if name in self.clients)

    def __reduce__(self) -> tuple[type[LearningProcessOutput], tuple[Any, Any, Any]]:
        return LearningProcessOutput, (self.state, self.metrics, self.clients)


def clients_table(cohort: Cohort, unfinalized: Sequence[Unfinalized], finalizers: Finalizers) -> ClientsTable:
    """Return `LearningProcessOutput.clients`; clients that are evaluated send no updates, and have no `bytes_down`."""
    columns = OrderedDict[str, Any](client_id=list(cohort.ids), num_examples=cohort.num_examples)
    wanted = {name: of for name, of in finalizers.items() if not name.startswith("num_")}  # which is a column already
    table = ClientsTable(columns, functools.partial(finalize_each, wanted))
    if cohort.bytes_down is not None:
        table.update(weight=cohort.client_weights, update_norm=cohort.update_norms)
        table.update(bytes_up=cohort.bytes_up, bytes_down=np.full(len(cohort), cohort.bytes_down, np.int64))
    table.update(status=cohort.status, metrics=list(unfinalized))
    return table


Round = tuple[LearningAlgorithmState, Metrics, Callable[[], ClientsTable]]
"""A round's state, its metrics, and what makes the table of its clients."""


@dataclass(frozen=True, eq=False)
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
    def tells_communication(self) -> bool:
        """Whether `LearningProcessOutput.communication` is among the metrics: TFF's algorithms have none."""
        return False

    @property
    def engine(self) -> str:
        """How a round is computed."""
        return self.runner.engine.name

    @property
    def parts(self) -> Mapping[str, Any]:
        """What may be of the user's, by name; it must not change in a round."""
        return {"model": self.model}

    @abc.abstractmethod
    def first_state(self) -> LearningAlgorithmState:
        """Return the state before the first round, for `initialize`."""

    @abc.abstractmethod
    def run_round(self, state: LearningAlgorithmState, datasets: Sequence[Dataset]) -> Round:
        """Return what `next` gives, of arguments that it has checked."""

    @abc.abstractmethod
    def metrics_example(self) -> Metrics:
        """Return metrics of the types that a round's have, for type signatures."""

    def metrics_of_nothing(self) -> Unfinalized:
        """Return the unfinalized metrics of a client that has read nothing."""
        return self.model.initial_metrics()

    def bytes_down(self, state: LearningAlgorithmState) -> int:
        """Return what the server's message to a client takes in a round from this state."""
        return sum(w.nbytes for part in state.global_model_weights for w in part)

    def state_example(self) -> LearningAlgorithmState:
        """Return a state of the types that all states have, for type signatures."""
        return self.initialize()

    @typed_method(lambda self: type_of_initialize(self.state_example()))
    def initialize(self) -> LearningAlgorithmState:
        """Return the state before the first round."""
        return frozen(self.first_state())

    @typed_method(lambda self: type_of_next(self.model.input_spec, self.state_example(), self.metrics_example()))
    def next(
        self, state: LearningAlgorithmState, data: Sequence[ClientBatches] | Sequence[Attendance], iteration: int = 0
    ) -> LearningProcessOutput:
        """Run one round: of training, or of evaluation, whose totals in the state add up over the calls.

        Parameters
        ----------
        state : LearningAlgorithmState
            From `initialize` or the round before; it is not changed.
        data : sequence of Dataset, of lists of batches or of Attendance
            One entry per client of the cohort; a client that is absent counts for nothing, and is in the table. Without
            any who is there the model stays, and all sums of metrics are 0.
        iteration : int
            Which of tf.data's orders the datasets are read in. TFF reads a dataset handed to `next` in its first
            iteration's order, every round, and so does the default. For another order every round pass the round.

        Returns
        -------
        LearningProcessOutput
            ``(state, metrics)``, and the table ``clients``.

        Raises
        ------
        TypeError, ValueError
            If `data` is not such a list, or `iteration` no integer >= 0.
        DataError
            If a client's batches are not what the model takes.
        """
        entries = _as_list(data)
        # Numbers near 0 may become 0, whatever numpy.seterr says. The state that is given is frozen as well: an
        # unpickled one is writable.
        with np.errstate(under="ignore"):
            datasets, attendance = as_datasets(entries, iteration), attendance_of(entries)
            new_state, metrics, clients = self.run_round(frozen(state), datasets)
        if attendance:
            counts = Counter[str](entry.status for entry in attendance)
            metrics["participation"] = OrderedDict((word, counts[word]) for word in STATUSES)
            nothing, bytes_down = self.metrics_of_nothing(), self.bytes_down(state)
            clients = functools.partial(with_absent, clients, attendance, nothing, bytes_down)
        output = LearningProcessOutput(frozen(new_state), metrics, clients)
        if self.tells_communication:
            metrics["communication"] = output.communication
        return output

    def profile(
        self, state: LearningAlgorithmState, cohorts: Iterable[Sequence[ClientBatches] | Sequence[Attendance]]
    ) -> tuple[LearningAlgorithmState, Profile]:
        """Run a round on each of some cohorts; return the last state, and where the time went.

        Parameters
        ----------
        state : LearningAlgorithmState
        cohorts : iterable of cohorts
            Round i reads its data in the order of iteration i, as in training. If they are made as they are asked for,
            by a generator, making them is counted too. The first rounds of a process set up what later ones keep.

        Returns
        -------
        state : LearningAlgorithmState
        profile : Profile
            ``print(profile)`` shows a line a part.
        """

        def rounds() -> LearningAlgorithmState:
            reached = state
            for iteration, cohort in enumerate(cohorts):
                reached = self.next(reached, cohort, iteration).state
            return reached

        return profiled(rounds)

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
        for part, old in zip(given, there, strict=True):
            check_shapes("model_weights", part, [w.shape for w in old])
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


def attendance_of(data: Sequence[Any]) -> list[Attendance]:
    """Return what became of the clients of a cohort, if that is said; an empty list if not.

    Raises
    ------
    TypeError
        If it is said of some and not of others.
    """
    attendance = [entry for entry in data if isinstance(entry, Attendance)]
    if attendance and len(attendance) < len(data):
        raise argument_type_error("data", "an Attendance of each client, or of none", data)
    for entry in attendance:
        if entry.status not in STATUSES:
            raise unknown_name("status", STATUSES, entry.status)
    return attendance


def with_absent(
    make: Callable[[], ClientsTable], attendance: Sequence[Attendance], nothing: Unfinalized, bytes_down: int
) -> ClientsTable:
    """Return the table of the clients with rows of those who are absent, in cohort order: they are sent the model."""
    table, is_there = make(), np.array([entry.is_there for entry in attendance])
    of_absent: dict[str, Any] = {"status": "absent", "metrics": nothing, "bytes_down": bytes_down}
    whole = table.without_rows()
    for name, column in table.items():
        values = iter(column)
        if isinstance(column, np.ndarray):
            whole[name] = np.full(len(attendance), of_absent.get(name, 0), column.dtype)
            whole[name][is_there] = column
        else:
            whole[name] = [next(values) if there else of_absent.get(name) for there in is_there.tolist()]
    whole["client_id"] = [entry.client_id for entry in attendance]
    whole["status"] = [
        "partial" if entry.status == "partial" and said == "ok" else said
        for entry, said in zip(attendance, whole["status"], strict=True)
    ]
    return whole


def as_datasets(data: Iterable[ClientBatches | Attendance], iteration: int) -> list[Dataset]:
    """Return the datasets of those clients who are there, set to be read in the order of an iteration.

    Raises
    ------
    TypeError, ValueError
        If `data` is not a list with an entry per client, or `iteration` no integer >= 0.
    """
    datasets = [
        _dataset_of(client) for client in _as_list(data) if not isinstance(client, Attendance) or client.is_there
    ]
    iteration = check_int("iteration", iteration, minimum=0)
    return [dataset.skip_iterations(iteration) for dataset in datasets] if iteration else datasets


def _as_list(data: Iterable[ClientBatches | Attendance]) -> list[ClientBatches | Attendance]:
    if isinstance(data, Dataset | Mapping) or not isinstance(data, Iterable):
        raise argument_type_error("data", "a list with one Dataset or list of batches per client", data)
    return list(data)


def _dataset_of(client: ClientBatches | Attendance) -> Dataset:
    if isinstance(client, Attendance):
        return as_dataset(client.data).with_client_id(client.client_id)
    return as_dataset(client)


def cohort_of(
    datasets: Sequence[Dataset],
    results: ChunkResult,
    round_num: int | None = None,
    bytes_of_update: int = 0,
    bytes_down: int | None = None,
) -> Cohort:
    """Return what a round knows of its clients; an update takes so many bytes where the results do not say it."""
    of_updates = bytes_of_update if results.num_bytes is None else results.num_bytes
    of_messages = sum(leaf[:1].nbytes for _, leaf in trees.leaves(results.messages) if leaf is not None)
    read = list(zip(datasets, results.num_examples, strict=True))
    return Cohort(
        ids=[dataset.client_id for dataset in datasets],
        round_num=round_num,
        client_weights=trees.freeze(results.client_weights),
        update_norms=results.norms,
        num_steps=None if None in results.num_steps else np.array(results.num_steps, np.int64),
        _count_examples=lambda: [dataset.num_examples if n is None else n for dataset, n in read],
        _sent=results.messages,
        bytes_up=np.broadcast_to(np.int64(of_updates + of_messages), len(datasets)),
        bytes_down=bytes_down,
    )
