"""What a run's choices stand for: client data, cohorts, processes; the run follows from them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from fedsim_np import learning
from fedsim_np.algorithms import Parts
from fedsim_np.datasets import ClientData, Dataset, HDF5ClientData, emnist
from fedsim_np.datasets.describe import is_mostly_one
from fedsim_np.datasets.named import open_data
from fedsim_np.errors import argument_error, data_error
from fedsim_np.files import sha256
from fedsim_np.forking import cached_property
from fedsim_np.learning import attacks, optimizers
from fedsim_np.learning.aggregators import Aggregator
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models import Model, ModelWeights
from fedsim_np.privacy import Guarantee, Sampling
from fedsim_np.program import build_poisson_sampling_fn, build_sparse_sampling_fn, build_uniform_sampling_fn
from fedsim_np.program.training import evaluate_weights
from fedsim_np.runs.config import MODELS, OPTIMIZERS, RunConfig
from fedsim_np.runs.updates import (
    NONE,
    check_cohort,
    compressor_of,
    data_attack_of,
    network_of,
    rule_of,
    sees_all_at_once,
)
from fedsim_np.tables import Table

_SHUFFLE_BUFFER = 100
_MOST_CLASSES = 2**16
_MANY = 100_000  # clients: from here on, sampling does not look at all of them
_KEPT_BYTES, _TYPICAL_EXAMPLES = 2**28, 128
_CACHE_BYTES = 2**24
_EVALUATION_SEED = 3_000_001
_LOOKED_AT = 100_000  # clients times rounds: whether a rule can do with those who are there; 2 s
_JUDGED = 10  # clients, by whose sizes a round's is judged
# What a run may cost. Beyond it a choice is a slip, or a stranger's: such a run would not end, or take all memory.
_MOST_CLIENTS = 10**6  # at a time: choosing them takes a minute and 1.5 GB
_MOST_OF_CLIENT = 10**8  # examples that a client reads in a round: their order takes minutes and 8 GB
_MOST_OF_ROUND = 10**10  # examples: some hours
_MOST_PARAMETERS = 2**28  # of a model: 1 GB
_MOST_OF_UPDATES = 2**30  # numbers of a round's updates, or pairs of them twice in float64, all at once: 4 GB
_MOST_COINS = 10**7  # tossed in a round of Poisson sampling: 0.2 s and 170 MB


class Experiment:
    """The data, cohorts and processes that a configuration stands for.

    Parameters
    ----------
    config : RunConfig
    client_data : pair of ClientData, optional
        Train and test data instead of those that the configuration names.
    executor : as for the builders
        Who evaluates.

    Attributes
    ----------
    train, test : ClientData
        As they are, whatever attackers do to theirs.
    privacy : Guarantee or None
        What noise promises, if there is any.

    Raises
    ------
    DataError
        If there are no such data, or too few clients in them.
    """

    def __init__(
        self, config: RunConfig, client_data: tuple[ClientData, ClientData] | None = None, executor: Any = None
    ) -> None:
        self.config, self._executor = config, executor
        self.train, self.test = client_data or open_data(config.data, config.population, config.seed)
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
        self._num_parameters = sum((above + 1) * below for above, below in itertools.pairwise(layers))
        if self._num_parameters > _MOST_PARAMETERS:
            found = f"{self._num_parameters} in layers of {', '.join(map(str, layers))}"
            raise data_error(f"a model must have at most {_MOST_PARAMETERS} parameters (1 GB)", found)
        # What has been read or drawn stays, of so many clients as fit: a client comes again before long.
        most = max(1, _KEPT_BYTES // (self.num_features * 4 * _TYPICAL_EXAMPLES))
        attack = data_attack_of(dataclasses.asdict(config), self.num_outputs, field, label)
        train = self.train
        if attack is not None:
            pixels = np.zeros((1, self.num_features), spec[field].dtype)
            attack({field: pixels, label: np.zeros(1, spec[label].dtype)}, np.random.default_rng(0))  # or an error
            train = attacks.poisoned(train, attack, self.attackers, config.seed)
        self._train_dataset = functools.lru_cache(most)(train.create_dataset_for_client)
        if config.sampling == "poisson" and population > _MOST_COINS:
            raise data_error(f"clients must be at most {_MOST_COINS} for Poisson sampling, a coin for each", population)
        even = build_sparse_sampling_fn if population > _MANY else build_uniform_sampling_fn
        build = build_poisson_sampling_fn if config.sampling == "poisson" else even
        self._sample = build(self.train.client_ids, random_seed=config.seed)
        if config.sampling == "first":
            self._sample = self._first
        self.privacy, self.network = self._promised(), network_of(dataclasses.asdict(config))

    def _first(self, round_num: int, size: int) -> list[str]:
        return list(self.train.client_ids[:size])

    def _count_classes(self) -> int:
        if dict(self.train.element_type_structure) == dict(emnist.DIGITS.spec):
            return 10
        if self.config.noise_multiplier:
            rule = "given with noise: to look for them would tell of a single client that has one more"
            raise argument_error("classes", rule, self.config.classes)
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
        clients, parameters = self.config.clients, self._num_parameters
        if sees_all_at_once(self.rule) and (in_memory := clients * max(parameters, 4 * clients)) > _MOST_OF_UPDATES:
            rule = f"a rule that looks at all updates at once may be given at most {_MOST_OF_UPDATES} numbers (4 GB)"
            raise data_error(rule, f"{in_memory} of {clients} clients and {parameters} parameters")
        few = self._sample(1, clients)[:_JUDGED] or [self.train.client_ids[0]]
        sizes = [self._train_dataset(client_id).num_examples * self.config.epochs for client_id in few]
        in_all = sum(sizes) * self.config.clients // len(sizes)
        for whose, found, most in (("a client", max(sizes), _MOST_OF_CLIENT), ("a round", in_all, _MOST_OF_ROUND)):
            if found > most:
                said = f"about {found:.2g} with 'epochs' {self.config.epochs} and 'clients' {self.config.clients}"
                raise data_error(f"{whose} must read at most {most:,} examples (or it takes hours)", said)

    def dry_run(self, process: LearningProcess) -> None:
        """Have one client train and one be evaluated, and forget it: what is wrong with the data shows before a run."""
        first, *_ = [*self._sample(1, self.config.clients), self.train.client_ids[0]]
        if self.rule is not None:  # which may need more than one
            check_cohort(self.rule, *self._smallest_cohort(), self.config.aggregator)
            process = self._process(None, None)
        process.next(process.initialize(), [self._trained_on(first, self.config.epochs)])
        self.evaluation_process.next(self.evaluation_process.initialize(), self.evaluation_cohort[:1])

    def _smallest_cohort(self) -> tuple[int, int]:
        """Return how many clients the smallest of the first rounds has that has any, and which round that is."""
        config, smallest = self.config, (self.config.clients, 1)
        if config.sampling != "poisson" and not config.dropout and not (config.stragglers and config.drop_stragglers):
            return smallest
        for round_num in range(1, min(config.rounds, _LOOKED_AT // len(self.train.client_ids)) + 1):
            chosen = self._sample(round_num, config.clients)
            there = sum(config.participation.num_epochs(round_num, i, config.epochs) > 0 for i in chosen)
            smallest = min(smallest, (there or config.clients, round_num))
        return smallest

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
        return self._process(executor, self.rule)

    def _process(self, executor: Executor | str | None, rule: Aggregator | None) -> LearningProcess:
        config = self.config
        client, server = self._optimizer("client"), self._optimizer("server")
        # Orders are new in every round: what is kept of them should soon be out again.
        keywords: dict[str, Any] = {"engine": config.engine, "executor": executor, "cache_bytes": _CACHE_BYTES}
        if rule is not None:
            keywords["model_aggregator"] = rule
        if config.compress != NONE:
            keywords["compressor"] = compressor_of(dataclasses.asdict(config))
        choices, num_clients = dataclasses.asdict(config), len(self.train.client_ids)
        parts = Parts(self.model_fn, client, server, num_clients, choices, keywords)
        process = config.imported().build(parts)
        if not isinstance(process, LearningProcess):
            raise argument_error("algorithm", "one that builds a LearningProcess", process)
        return process

    @cached_property
    def rule(self) -> Aggregator | None:
        """What makes one update of the clients'; None: the algorithm's own mean."""
        weighted = self.config.imported().weighted
        attackers = self.attackers if self.config.attack != NONE else frozenset()
        return None if weighted is None else rule_of(dataclasses.asdict(self.config), weighted, attackers)

    @cached_property
    def attackers(self) -> attacks.Attackers:
        """Who attacks, if there is an attack: ids, or of very many clients a share."""
        asked, count = self.config.attackers, len(self.train.client_ids)
        share = asked if asked < 1 else asked / count
        if share > 1:
            raise argument_error("attackers", f"at most the {count} train clients", asked)
        if count > _MANY:
            return share
        chosen = attacks.choose(self.train.client_ids, share, self.config.seed)
        if asked and not chosen:
            raise argument_error("attackers", f"enough for one of the {count} train clients", asked)
        return chosen

    def _promised(self) -> Guarantee | None:
        config, population = self.config, len(self.train.client_ids)
        if not config.noise_multiplier:
            return None
        sampling: Sampling = "poisson" if config.sampling == "poisson" else "fixed_size"
        delta = config.delta or 1 / population
        return Guarantee(config.noise_multiplier, delta, population, config.clients, sampling, sampled=sampling)

    @cached_property
    def evaluation_process(self) -> LearningProcess:
        """The process that evaluates."""
        return learning.build_fed_eval(self.model_fn, executor=self._executor)

    def evaluate(self, weights: ModelWeights) -> Mapping[str, Any]:
        """Return the metrics of weights on the clients that are evaluated."""
        return evaluate_weights(self.evaluation_process, weights, self.evaluation_cohort)

    def final_evaluation(self, weights: ModelWeights) -> dict[str, Mapping[str, Any]]:
        """Return split -> metrics of weights, on the train and on the test examples of clients that are evaluated."""
        train = evaluate_weights(self.evaluation_process, weights, self._evaluated_on(self.train))
        return {"train": train, "test": self.evaluate(weights)}

    def evaluate_clients(self, weights: ModelWeights) -> Table:
        """Return the same of each client: columns ``split``, ``client_id``, ``num_examples``, and a metric each."""
        tables = {
            split: learning.evaluate_clients(self.model_fn, weights, datasets)
            for split, datasets in (("train", self._evaluated_on(self.train)), ("test", self.evaluation_cohort))
        }
        splits = [split for split, table in tables.items() for _ in range(table.num_rows)]
        columns = {name: [v for table in tables.values() for v in table[name]] for name in tables["test"]}
        return Table(split=splits, **columns)

    def is_mostly_paper(self) -> bool:
        """Return whether what the model reads lies in [0, 1], and nearer to 1: `RunConfig.invert` may help."""
        x = self.evaluation_cohort[0].to_arrays()["x"]
        return bool(x.size) and is_mostly_one(float(x.min()), float(x.mean(dtype=np.float64)), float(x.max()))

    def _optimizer(self, who: str) -> optimizers.Optimizer:
        name, rate = getattr(self.config, f"{who}_optimizer"), getattr(self.config, f"{who}_lr")
        momentum = getattr(self.config, f"{who}_momentum")
        return OPTIMIZERS[name](rate, momentum) if momentum else OPTIMIZERS[name](rate)

    def sample(self, round_num: int) -> list[str]:
        """Return the ids of a round's clients."""
        return list(self._sample(round_num, self.config.clients))

    def each_test_example_once(self) -> list[Dataset]:
        """Return the test datasets of the clients that are evaluated, whatever else they are evaluated on."""
        return self._evaluated_on(self.test, once=True)

    def cohort(self, round_num: int) -> list[Dataset] | list[Attendance]:
        """Return the datasets of the clients of a round; where some may be absent, what becomes of each."""
        config = self.config
        chosen = self.sample(round_num)
        if config.dropout or config.stragglers:
            return config.participation.cohort(round_num, chosen, self._trained_on, config.epochs)
        return [self._trained_on(client_id, config.epochs) for client_id in chosen]

    def _trained_on(self, client_id: str, epochs: int) -> Dataset:
        """Return what a client reads in a round."""
        return self._as_trained(self._train_dataset(client_id), epochs, self.train)

    def _as_trained(self, dataset: Dataset, epochs: int, client_data: ClientData) -> Dataset:
        shuffled = dataset.repeat(epochs).shuffle(_SHUFFLE_BUFFER, seed=self.config.seed)
        return self._batched(shuffled, self.config.batch_size, client_data)

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
        return self._evaluated_on(self.test)

    def _evaluated_on(self, client_data: ClientData, once: bool = False) -> list[Dataset]:
        client_ids: Sequence[str] = client_data.client_ids
        size = min(len(client_ids), self.config.evaluation_clients)
        if self.config.sampling == "first":
            chosen: Sequence[str] = self._first(0, self.config.clients)
            if absent := sorted({*chosen} - {*client_ids}):
                raise data_error("the train clients that take part must be among the test clients", f"no {absent}")
        else:
            sample = build_sparse_sampling_fn(client_ids, random_seed=_EVALUATION_SEED)
            chosen = client_ids if size == len(client_ids) else sample(0, size)
        create = client_data.create_dataset_for_client
        if self.config.evaluate_as_trained and not once:
            return [self._as_trained(create(client_id), self.config.epochs, client_data) for client_id in chosen]
        return [self._batched(create(client_id), 100, client_data) for client_id in chosen]


def _with_float32_labels(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"x": batch["x"], "y": np.asarray(batch["y"], np.float32)}


def _path(client_data: ClientData) -> str | None:
    return client_data.path if isinstance(client_data, HDF5ClientData) else None
