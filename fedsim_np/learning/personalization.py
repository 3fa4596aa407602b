"""How much clients gain by training on from the federated model, each on its own data.

::

    each client:
        baseline = metrics of the server's weights on its test data
        for each strategy:
            w_i = the server's weights after some steps on its train data
            figures = metrics of w_i on its test data

Nothing goes back to the server but the figures: an array for each, with an entry per client, in cohort order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import ArraySpec, Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_bool, check_int, check_type
from fedsim_np.learning import metrics
from fedsim_np.learning.engines.engine import check_shapes
from fedsim_np.learning.models.checks import as_model, forward_and_gradient, initial_weights, read_batches
from fedsim_np.learning.models.evaluation import evaluate
from fedsim_np.learning.models.model import Model, ModelFn, ModelWeights
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer
from fedsim_np.learning.type_signatures import (
    Type,
    fields,
    function,
    server,
    type_of,
    varying,
    with_int64,
)

Strategy = Callable[[Model, ModelWeights, Dataset, Dataset], Mapping[str, Any]]
"""Model, the server's weights, and a client's examples to train and to test on, unbatched -> figures, nested or not."""

BASELINE = "baseline_metrics"


@dataclass(frozen=True)
class FineTuning:
    """Training on from the server's weights, with a fresh optimizer.

    Parameters
    ----------
    optimizer : Optimizer or callable that returns one
    epochs, batch : int
        The data are read as ``repeat(epochs)``, shuffled if `buffer` is given, and batched: batches run across epochs.
    buffer, seed : int, optional
        Of the shuffle.
    by_epoch : bool
        Whether the client is evaluated after every epoch, and batches end with it. Every epoch has the same order then.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.
    """

    optimizer: OptimizerFn
    epochs: int
    batch: int
    buffer: int | None = None
    seed: int | None = None
    by_epoch: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        as_optimizer(self.optimizer, "optimizer")
        for name in ("epochs", "batch"):
            check_int(name, getattr(self, name), minimum=1)
        check_bool("by_epoch", self.by_epoch)
        if self.buffer is not None:
            check_int("buffer", self.buffer, minimum=1)
        if self.seed is not None:
            check_int("seed", self.seed, minimum=0)

    def trained(self, model: Model, weights: ModelWeights, examples: Dataset) -> list[ModelWeights]:
        """Return a client's weights after its training; `by_epoch` those after each epoch."""
        optimizer: Optimizer = as_optimizer(self.optimizer, "optimizer")
        state, after = optimizer.initialize(weights.trainable), []
        shuffled = examples if self.by_epoch else examples.repeat(self.epochs)
        if self.buffer is not None:
            shuffled = shuffled.shuffle(self.buffer, seed=self.seed)
        for _ in range(self.epochs if self.by_epoch else 1):
            with np.errstate(all="ignore"):  # who diverges is seen by the figures
                for batch in read_batches(model, shuffled.batch(self.batch)):
                    _, gradients = forward_and_gradient(model, weights, batch)
                    state, trainable = optimizer.next(state, weights.trainable, gradients)
                    weights = weights._replace(trainable=trainable)
            after.append(weights)
        return after

    def figures(self, of_weights: Sequence[Any]) -> Any:
        """Return what was measured at the weights of `trained`, by epoch if that is wanted."""
        if not self.by_epoch:
            return of_weights[0]
        return OrderedDict((f"epoch_{i}", figures) for i, figures in enumerate(of_weights, start=1))


@dataclass(frozen=True, eq=False)
class PersonalizationEval:
    """What `build_personalization_eval` returns: call it with weights and clients."""

    model: Model
    strategies: Mapping[str, FineTuning | Strategy]
    test_batch: int
    max_num_clients: int
    seed: int

    def __call__(
        self, model_weights: ModelWeights, clients: Sequence[Mapping[str, Dataset]]
    ) -> OrderedDict[str, metrics.Metrics]:
        """Evaluate the weights on every client, as they are and after each strategy.

        Parameters
        ----------
        model_weights : ModelWeights
        clients : sequence of mappings
            ``train_data`` and ``test_data`` of each, datasets that are not batched.

        Returns
        -------
        OrderedDict
            ``baseline_metrics`` and a part for each strategy: figures, each an array with an entry per client, in the
            clients' order; of more than `max_num_clients`, of a sample of them.
        """
        weights, k = ModelWeights(*model_weights), len(clients)
        check_shapes("model_weights", weights.trainable, [w.shape for w in initial_weights(self.model).trainable])
        chosen = sorted(np.random.default_rng([k, self.seed]).permutation(k)[: self.max_num_clients].tolist())
        measured = [self.of_client(weights, *self._data(clients[i])) for i in chosen]
        if not measured:
            nothing = self.of_client(weights, *[Dataset.from_arrays(self._no_examples())] * 2)
            return trees.map(lambda figure: _figures(figure)[:0], nothing)
        return trees.map(_figures, *measured)

    def _data(self, client: Mapping[str, Dataset]) -> tuple[Dataset, Dataset]:
        if not isinstance(client, Mapping) or set(client) != {"train_data", "test_data"}:
            raise argument_error("clients", "mappings of train_data and test_data", client)
        train, test = client["train_data"], client["test_data"]
        for name, data in (("train_data", train), ("test_data", test)):
            if not isinstance(data, Dataset):
                raise argument_type_error(name, "a Dataset that is not batched", data)
        return train, test

    def of_client(self, weights: ModelWeights, train: Dataset, test: Dataset) -> OrderedDict[str, Any]:
        """Return one client's figures, the parts of the result."""
        tests = test.batch(self.test_batch)

        def measured(at: ModelWeights) -> metrics.Metrics:
            return evaluate(self.model, at, tests)

        parts: OrderedDict[str, Any] = OrderedDict({BASELINE: measured(weights)})
        for name, strategy in self.strategies.items():
            if isinstance(strategy, FineTuning):
                parts[name] = strategy.figures([*map(measured, strategy.trained(self.model, weights, train))])
            else:
                parts[name] = strategy(self.model, weights, train, test)
        return parts

    def _no_examples(self) -> dict[str, Any]:
        return {name: np.empty((0, *spec.shape[1:]), spec.dtype) for name, spec in self.model.input_spec.items()}

    @property
    def type_signature(self) -> Type:
        """Return TFF's type of it; "?" where a function of one's own does not say what it gives."""
        example = {name: ArraySpec(spec.shape[1:], spec.dtype) for name, spec in self.model.input_spec.items()}
        examples = type_of(example).between("", "*")
        client = fields([("train_data", examples), ("test_data", examples)]).between("{", "}@CLIENTS")
        weights = server(type_of(initial_weights(self.model)))
        nothing = with_int64(metrics.finalize(self.model.metric_finalizers(), self.model.initial_metrics()))
        one, two = (trees.map(lambda figure, k=k: _figures(*[figure] * k), nothing) for k in (1, 2))
        figures = varying(one, two)
        results: OrderedDict[str, Any] = OrderedDict({BASELINE: figures})
        for name, strategy in self.strategies.items():
            results[name] = strategy.figures([figures] * strategy.epochs) if isinstance(strategy, FineTuning) else None
        parameter = fields([("server_model_weights", weights), ("federated_client_input", client)])
        return function(parameter, server(type_of(results)))


def _figures(*values: Any) -> Any:
    """Return a figure of each client as an array, float32 or int64."""
    array = np.asarray(values)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def build_personalization_eval(
    model_fn: ModelFn,
    strategies: Mapping[str, FineTuning | Strategy],
    *,
    test_batch: int,
    max_num_clients: int = 100,
    seed: int = 0,
) -> PersonalizationEval:
    """Build the evaluation of personal models: TFF's ``build_personalization_eval_computation``.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    strategies : mapping of str to FineTuning or callable
        By name; a function of one's own is called as ``(model, weights, train_data, test_data)`` with unbatched
        datasets, and returns figures, by name, nested if it likes.
    test_batch : int
        Test data are evaluated in batches of so many.
    max_num_clients : int
        Of more clients a sample without replacement is evaluated. TFF's is seeded with the time.
    seed : int
        Of the sample.

    Returns
    -------
    PersonalizationEval
        A function: ``(model_weights, [{train_data, test_data}, ...]) -> metrics``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    References
    ----------
    Wang et al., "Federated evaluation of on-device personalization", 2019, https://arxiv.org/abs/1910.10252

    Examples
    --------
    >>> from fedsim_np.learning.models import LinearRegression
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> model = LinearRegression(1)
    >>> evaluation = build_personalization_eval(model, {"tuned": FineTuning(build_sgdm(0.5), 2, 1)}, test_batch=10)
    >>> client = Dataset.from_arrays({"x": np.zeros((3, 1), np.float32), "y": np.full((3, 1), 2, np.float32)})
    >>> result = evaluation(model.initial_weights(), [{"train_data": client, "test_data": client}])
    >>> for name, figures in result.items():
    ...     print(name, figures["mean_squared_error"])
    baseline_metrics [4.]
    tuned [0.00097656]
    """
    check_type("strategies", strategies, Mapping, "a mapping of names to FineTuning or functions")
    for name, strategy in strategies.items():
        if not isinstance(name, str) or name == BASELINE:
            raise argument_error("strategies", f"named by texts other than {BASELINE!r}", name)
        if not callable(strategy) and not isinstance(strategy, FineTuning):
            raise argument_type_error(f"strategies[{name!r}]", "a FineTuning, or a function", strategy)
    return PersonalizationEval(
        as_model(model_fn),
        OrderedDict(strategies),
        check_int("test_batch", test_batch, minimum=1),
        check_int("max_num_clients", max_num_clients, minimum=1),
        check_int("seed", seed, minimum=0),
    )
