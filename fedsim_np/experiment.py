"""A training run as data: every choice has a name and a value, and the run follows from them.

`RunConfig` is what ``fedsim-np train`` takes as flags, reads from a file and stores with a run; `Experiment` is what
it stands for: client data, cohorts, processes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import learning
from fedsim_np.datasets import ClientData, Dataset, HDF5ClientData, emnist, synthetic
from fedsim_np.datasets.describe import is_mostly_one
from fedsim_np.datasets.named import open_data
from fedsim_np.errors import (
    argument_error,
    check_float,
    check_int,
    data_error,
    did_you_mean,
    no_such_file,
    unknown_name,
)
from fedsim_np.files import check_ends, parse_json, sha256
from fedsim_np.forking import cached_property
from fedsim_np.learning import optimizers
from fedsim_np.learning.engines import ENGINES
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.losses import LossName
from fedsim_np.learning.models import MLP, LinearRegression, Model, ModelWeights, SoftmaxRegression
from fedsim_np.program import build_sparse_sampling_fn, build_uniform_sampling_fn
from fedsim_np.program.training import evaluate_weights

ALGORITHMS = ("fedavg", "fedavg-unweighted", "fedprox", "fedsgd")
OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "sgdm": optimizers.build_sgdm,
    "adagrad": optimizers.build_adagrad,
    "adam": optimizers.build_adam,
    "adamw": optimizers.build_adamw,
    "rmsprop": optimizers.build_rmsprop,
    "yogi": optimizers.build_yogi,
}
_SHUFFLE_BUFFER = 100
_MOST_CLASSES = 2**16
_MANY = 100_000  # clients: from here on, sampling does not look at all of them
_KEPT_BYTES, _TYPICAL_EXAMPLES = 2**28, 128
_CACHE_BYTES = 2**24
_EVALUATION_SEED = 3_000_001
_MOST_OF_CONFIG = 2**14  # bytes of a file of choices: TOML's dotted keys take memory by the square of their length
_JUDGED = 10  # clients, by whose sizes a round's is judged
# What a run may cost. Beyond it a choice is a slip, or a stranger's: such a run would not end, or take all memory.
_MOST_CLIENTS = 10**6  # at a time: choosing them takes a minute and 1.5 GB
_MOST_OF_CLIENT = 10**8  # examples that a client reads in a round: their order takes minutes and 8 GB
_MOST_OF_ROUND = 10**10  # examples: some hours
_MOST_PARAMETERS, _MOST_LAYERS = 2**28, 100  # of a model: 1 GB


class ModelEntry(NamedTuple):
    """A model that a run can train.

    Attributes
    ----------
    make : callable
        Number of features, number of outputs (classes, or 1) and configuration -> model.
    classifies : bool
        Whether labels are classes, rather than numbers.
    unused : tuple of str
        The choices that it does not take.
    """

    make: Callable[[int, int, RunConfig], Model]
    classifies: bool = True
    unused: tuple[str, ...] = ("hidden",)


def _softmax(loss: LossName) -> ModelEntry:
    return ModelEntry(lambda d, c, config: SoftmaxRegression(d, c, loss, config.l2))


MODELS = {
    "softmax": _softmax("keras"),
    "softmax-stable": _softmax("stable"),
    "softmax-tutorial": _softmax("tutorial"),
    "mlp": ModelEntry(lambda d, c, config: MLP(d, config.units, c, seed=config.seed), unused=("l2",)),
    "linear": ModelEntry(lambda d, c, config: LinearRegression(d, c, config.l2), classifies=False),
}
"""Name -> model."""


@dataclass(frozen=True)
class RunConfig:
    """What a run depends on, besides the library and the data.

    Attributes
    ----------
    data : str
        "sample", "synthetic", "emnist", or PREFIX of PREFIX_train.h5 and PREFIX_test.h5.
    population : int
        Simulated writers, for "synthetic".
    clients : int
        Clients a round.
    rounds, epochs, batch_size : int
    algorithm : str
        "fedavg", "fedavg-unweighted", "fedprox" or "fedsgd".
    proximal_strength : float
        For "fedprox".
    client_optimizer, server_optimizer : str
        "sgdm", "adagrad", "adam", "adamw", "rmsprop" or "yogi".
    client_lr, server_lr : float
    client_momentum, server_momentum : float
        For "sgdm"; 0: none.
    model : str
        "softmax", "softmax-stable" or "softmax-tutorial": softmax regression with one of three losses; "mlp";
        "linear": linear regression.
    hidden : str
        Units of the hidden layers of "mlp", with commas between them.
    l2 : float
        Regularisation of the others.
    classes : int
        0: ten for handwriting, else as many as the train labels have.
    invert : bool
        Whether to train on and evaluate 1 - x instead of x: where paper is 1, as in EMNIST, ink becomes 1.
    engine : str
    seed : int
        Of the population, of the cohorts, and of the order in which clients read.
    evaluate_every, checkpoint_every : int
        Rounds from one to the next.
    evaluation_clients : int
        How many clients' test examples are evaluated, at most; who they are is the same in all rounds.

    Raises
    ------
    ValueError
        If a value is out of its range: the message names it.

    Examples
    --------
    >>> RunConfig(rounds=3).client_lr
    0.02
    >>> RunConfig(rounds=-3)
    Traceback (most recent call last):
    ...
    ValueError: 'rounds' must be an integer >= 0. Got -3.
    """

    data: str = "sample"
    population: int = synthetic.EMNIST_CLIENTS
    clients: int = 10
    rounds: int = 10
    epochs: int = 5
    batch_size: int = 20
    algorithm: str = "fedavg"
    proximal_strength: float = 0.1
    client_optimizer: str = "sgdm"
    client_lr: float = 0.02
    client_momentum: float = 0.0
    server_optimizer: str = "sgdm"
    server_lr: float = 1.0
    server_momentum: float = 0.0
    model: str = "softmax"
    hidden: str = "200,200"
    l2: float = 0.0
    classes: int = 0
    invert: bool = False
    engine: str = "auto"
    seed: int = 0
    evaluate_every: int = 1
    evaluation_clients: int = 100
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        least = {"rounds": 0, "classes": 0, "seed": 0}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            checked: Any = value
            if field.type == "int":
                checked = check_int(field.name, value, minimum=least.get(field.name, 1))
                if field.name in ("seed", "population") and checked >= 2**32:
                    raise argument_error(field.name, "below 2^32", value)
                if checked >= 2**63:
                    raise argument_error(field.name, "below 2^63", value)
            elif field.type == "float":
                checked = check_float(field.name, value, minimum=0.0)
            elif field.type == "bool":
                if not isinstance(value, bool):
                    raise argument_error(field.name, "true or false", value)
            elif not isinstance(value, str) or not value:
                raise argument_error(field.name, "a text", value)
            object.__setattr__(self, field.name, checked)
        self._check_names()
        self._check_what_belongs_together()

    def _check_names(self) -> None:
        for name, allowed in (
            ("algorithm", ALGORITHMS),
            ("model", tuple(MODELS)),
            ("engine", ENGINES),
            ("client_optimizer", tuple(OPTIMIZERS)),
            ("server_optimizer", tuple(OPTIMIZERS)),
        ):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, allowed, getattr(self, name))

    def _check_what_belongs_together(self) -> None:
        for who in ("client", "server"):
            name, momentum = f"{who}_momentum", getattr(self, f"{who}_momentum")
            if momentum and getattr(self, f"{who}_optimizer") != "sgdm":
                raise argument_error(name, "0 unless the optimizer is sgdm", momentum)
        units = self.hidden.split(",")
        if len(units) > _MOST_LAYERS or not all(u.strip().isdecimal() and len(u) < 20 and int(u) for u in units):
            rule = f"integers above 0 with commas between them, at most {_MOST_LAYERS}"
            raise argument_error("hidden", rule, self.hidden)
        for name in self.unused:
            default = getattr(type(self), name)
            if getattr(self, name) != default:
                raise argument_error(name, f"{default} for the model {self.model}", getattr(self, name))

    @property
    def units(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        return tuple(map(int, self.hidden.split(",")))

    @property
    def unused(self) -> tuple[str, ...]:
        """The choices that the model does not take."""
        return MODELS[self.model].unused

    @classmethod
    def of(cls, mapping: Mapping[str, Any], source: str) -> RunConfig:
        """Make a configuration of a mapping, such as a file's.

        Raises
        ------
        DataError
            If a key is none of its own, or a value is out of its range: the message names the source.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in mapping if key not in names]
        if unknown:
            found, hint = ", ".join(map(repr, unknown)), did_you_mean(unknown[0], names)
            raise data_error(f"keys must be among {', '.join(names)}", found, path=source, hint=hint)
        try:
            return cls(**mapping)
        except ValueError as error:
            raise data_error("choices must be in range", str(error).rstrip("."), path=source) from error


def read_config_file(path: str) -> dict[str, Any]:
    """Return the keys and values of a JSON or TOML file; ``-`` in a key stands for ``_``.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, too large, or a pipe or a device.
    """
    check_ends(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_OF_CONFIG + 1)
        if len(content) > _MOST_OF_CONFIG:
            raise data_error(f"must have at most {_MOST_OF_CONFIG} bytes, as choices", "more", path=path)
        if path.lower().endswith(".toml"):
            if sys.version_info < (3, 11):
                raise data_error("TOML needs Python 3.11 or later (JSON does not)", sys.version.split()[0], path=path)
            tomllib = importlib.import_module("tomllib")
            found: Any = tomllib.loads(content.decode("utf-8-sig"))
        else:
            found = parse_json(content)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (ValueError, RecursionError) as error:
        raise data_error("must be JSON, or TOML if it is called .toml", error, path=path) from error
    if not isinstance(found, dict):
        raise data_error("must be an object of keys and values", type(found).__name__, path=path)
    keys = [str(key).replace("-", "_") for key in found]
    if len(set(keys)) < len(keys):
        raise data_error("a key must be there once, with - or _ in it", keys, path=path)
    return dict(zip(keys, found.values(), strict=True))


class Experiment:
    """The data, cohorts and processes that a configuration stands for.

    Parameters
    ----------
    config : RunConfig

    Raises
    ------
    DataError
        If there are no such data, or too few clients in them.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.train, self.test = open_data(config.data, config.population, config.seed)
        population = len(self.train.client_ids)
        if config.clients > population:
            raise data_error(f"there must be at least {config.clients} train clients", population)
        evaluated = min(config.evaluation_clients, len(self.test.client_ids))
        for name, size in (("clients", config.clients), ("evaluation_clients", evaluated)):
            if size > _MOST_CLIENTS:
                raise argument_error(name, f"at most {_MOST_CLIENTS}, which takes a minute and 1.5 GB to choose", size)
        spec = self.train.element_type_structure
        is_handwriting = {"pixels", "label"} <= set(spec)
        if not is_handwriting and not {"x", "y"} <= set(spec):
            raise data_error("examples must have the fields pixels and label, or x and y", list(spec))
        self._fields = field, label = ("pixels", "label") if is_handwriting else ("x", "y")
        shape = spec[field].shape
        for data in (self.train, self.test):
            here = {name: of.shape for name, of in data.element_type_structure.items()}
            if here.get(field) != shape or None in shape:
                rule = f"train and test examples must have one shape, {shape}"
                raise data_error(rule, here.get(field, f"only {list(here)}"), field=field, path=_path(data))
            if here.get(label) not in ((), (1,)):
                rule = "labels must be one number an example"
                raise data_error(rule, here.get(label, f"only {list(here)}"), field=label, path=_path(data))
        self.num_features = math.prod(length or 0 for length in shape)
        self.num_outputs = (config.classes or self._count_classes()) if MODELS[config.model].classifies else 1
        units = () if "hidden" in config.unused else config.units
        layers = [self.num_features, *units, self.num_outputs]
        parameters = sum((above + 1) * below for above, below in itertools.pairwise(layers))
        if parameters > _MOST_PARAMETERS:
            found = f"{parameters} in layers of {', '.join(map(str, layers))}"
            raise data_error(f"a model must have at most {_MOST_PARAMETERS} parameters (1 GB)", found)
        # What has been read or drawn stays, of so many clients as fit: a client comes again before long.
        most = max(1, _KEPT_BYTES // (self.num_features * 4 * _TYPICAL_EXAMPLES))
        self._train_dataset = functools.lru_cache(most)(self.train.create_dataset_for_client)
        build = build_sparse_sampling_fn if population > _MANY else build_uniform_sampling_fn
        self._sample = build(self.train.client_ids, random_seed=config.seed)

    def _count_classes(self) -> int:
        if dict(self.train.element_type_structure) == dict(emnist.DIGITS.spec):
            return 10
        field = self._fields[1]
        greatest = 0
        for client_id in self.train.client_ids:
            labels = self.train.create_dataset_for_client(client_id).to_arrays()[field]
            here = labels.max(initial=0)
            if labels.dtype.kind not in "iu" or here >= _MOST_CLASSES:
                rule = f"labels must be integers below {_MOST_CLASSES}, or --classes be given"
                found = labels.dtype if labels.dtype.kind not in "iu" else here
                raise data_error(rule, found, path=_path(self.train), client_id=client_id, field=field)
            greatest = max(greatest, int(here))
        return greatest + 1

    def check_cost(self) -> None:
        """Raise a `DataError` if a round would not end, judged by some clients of the first."""
        few = self._sample(1, self.config.clients)[:_JUDGED]
        sizes = [self._train_dataset(client_id).num_examples * self.config.epochs for client_id in few]
        in_all = sum(sizes) * self.config.clients // len(sizes)
        for whose, found, most in (("a client", max(sizes), _MOST_OF_CLIENT), ("a round", in_all, _MOST_OF_ROUND)):
            if found > most:
                said = f"about {found:.2g} with 'epochs' {self.config.epochs} and 'clients' {self.config.clients}"
                raise data_error(f"{whose} must read at most {most:,} examples (or it takes hours)", said)

    def dry_run(self, process: LearningProcess) -> None:
        """Have one client train and one be evaluated, and forget it: what is wrong with the data shows before a run."""
        process.next(process.initialize(), self.cohort(1)[:1])
        self.evaluation_process.next(self.evaluation_process.initialize(), self.evaluation_cohort[:1])

    def files(self) -> dict[str, dict[str, Any]]:
        """Return split -> file and SHA-256, of data that are files."""
        return {
            split: {"file": data.path, "sha256": sha256(data.path), "clients": len(data.client_ids)}
            for split, data in (("train", self.train), ("test", self.test))
            if isinstance(data, HDF5ClientData)
        }

    def model_fn(self) -> Model:
        """Return the model."""
        return MODELS[self.config.model].make(self.num_features, self.num_outputs, self.config)

    def training_process(self, executor: Executor | str | None = None) -> LearningProcess:
        """Return the process that trains."""
        config = self.config
        client, server = self._optimizer("client"), self._optimizer("server")
        # Orders are new in every round: what is kept of them should soon be out again.
        keywords: dict[str, Any] = {"engine": config.engine, "executor": executor, "cache_bytes": _CACHE_BYTES}
        if config.algorithm == "fedsgd":
            return learning.build_fed_sgd(self.model_fn, server, **keywords)
        if config.algorithm == "fedprox":
            return learning.build_weighted_fed_prox(self.model_fn, config.proximal_strength, client, server, **keywords)
        build = learning.build_weighted_fed_avg
        if config.algorithm == "fedavg-unweighted":
            build = learning.build_unweighted_fed_avg  # type: ignore[assignment]
        return build(self.model_fn, client, server, **keywords)

    @cached_property
    def evaluation_process(self) -> LearningProcess:
        """The process that evaluates."""
        return learning.build_fed_eval(self.model_fn)

    def evaluate(self, weights: ModelWeights) -> Mapping[str, Any]:
        """Return the metrics of weights on the clients that are evaluated."""
        return evaluate_weights(self.evaluation_process, weights, self.evaluation_cohort)

    def is_mostly_paper(self) -> bool:
        """Return whether what the model reads lies in [0, 1], and nearer to 1: `RunConfig.invert` may help."""
        x = self.evaluation_cohort[0].to_arrays()["x"]
        return bool(x.size) and is_mostly_one(float(x.min()), float(x.mean(dtype=np.float64)), float(x.max()))

    def _optimizer(self, who: str) -> optimizers.Optimizer:
        name, rate = getattr(self.config, f"{who}_optimizer"), getattr(self.config, f"{who}_lr")
        momentum = getattr(self.config, f"{who}_momentum")
        return OPTIMIZERS[name](rate, momentum) if momentum else OPTIMIZERS[name](rate)

    def cohort(self, round_num: int) -> list[Dataset]:
        """Return the datasets of the clients of a round."""
        chosen = self._sample(round_num, self.config.clients)
        repeated = (self._train_dataset(client_id).repeat(self.config.epochs) for client_id in chosen)
        shuffled = (dataset.shuffle(_SHUFFLE_BUFFER, seed=self.config.seed) for dataset in repeated)
        return [self._batched(dataset, self.config.batch_size, self.train) for dataset in shuffled]

    def _batched(self, dataset: Dataset, batch_size: int, client_data: ClientData) -> Dataset:
        x, y = self._fields
        # Pixels may be bytes, and one's own file may hold float64: a model refuses to choose, a run does not.
        is_float32 = client_data.element_type_structure[x].dtype == np.float32
        scale = None if is_float32 or self.config.invert else 1.0
        batches = dataset.batch(batch_size).select(x=x, y=y, scale=scale, invert=self.config.invert)
        return batches if MODELS[self.config.model].classifies else batches.map(_with_float32_labels)

    @cached_property
    def evaluation_cohort(self) -> list[Dataset]:
        """The test datasets of the clients that are evaluated."""
        client_ids = self.test.client_ids
        size = min(len(client_ids), self.config.evaluation_clients)
        sample = build_sparse_sampling_fn(client_ids, random_seed=_EVALUATION_SEED)
        chosen = client_ids if size == len(client_ids) else sample(0, size)
        create = self.test.create_dataset_for_client
        return [self._batched(create(client_id), 100, self.test) for client_id in chosen]


def _with_float32_labels(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"x": batch["x"], "y": np.asarray(batch["y"], np.float32)}


def _path(client_data: ClientData) -> str | None:
    return client_data.path if isinstance(client_data, HDF5ClientData) else None
