"""The choices that a training run is made of: what ``fedsim-np train`` takes as flags, reads from a file and stores."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fedsim_np.algorithms import ALGORITHMS, Algorithm, algorithm_of, is_dotted
from fedsim_np.errors import (
    argument_error,
    check_float,
    check_int,
    data_error,
    did_you_mean,
    no_such_file,
    unknown_name,
)
from fedsim_np.files import check_ends, parse_json
from fedsim_np.learning import optimizers
from fedsim_np.learning.engines import ENGINES
from fedsim_np.learning.losses import LossName
from fedsim_np.learning.models import MLP, LinearRegression, Model, SoftmaxRegression
from fedsim_np.program import Participation
from fedsim_np.runs.effects import NoEffectError, also_without_effect, without_effect
from fedsim_np.runs.updates import NONE, check_choices

OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "sgdm": optimizers.build_sgdm,
    "adagrad": optimizers.build_adagrad,
    "adam": optimizers.build_adam,
    "adamw": optimizers.build_adamw,
    "rmsprop": optimizers.build_rmsprop,
    "yogi": optimizers.build_yogi,
}
OF_UPDATES = (
    "aggregator",
    "bucket_size",
    "clip",
    "noise_multiplier",
    "delta",
    "attack",
    "attackers",
    "sampling",
    "compress",
    "network",
    "reshuffle",
    "evaluate_as_trained",
)
"""What becomes of updates, whose they are, and what the tutorial does otherwise: where all are left as they are,
neither a run's file nor its states say anything of them, as those of runs that began before they could be chosen."""

_MOST_DRAWN = 10_000  # clients
_MOST_OF_CONFIG = 2**14  # bytes of a file of choices: TOML's dotted keys take memory by the square of their length
_MOST_LAYERS = 100  # of a model


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
        "sample", "synthetic", "fedprox-synthetic", "emnist", or PREFIX of PREFIX_train.h5 and PREFIX_test.h5.
    population : int
        Clients of "synthetic" and "fedprox-synthetic"; 0: 3,383 and 30.
    clients : int
        Clients a round.
    rounds, epochs, batch_size : int
    algorithm : str
        One of `algorithms.ALGORITHMS`, or ``package.module:function`` of one's own.
    proximal_strength, alpha, q, lipschitz : float
        For those that take them; a lipschitz of 0 stands for 1 over the clients' rate.
    scaffold_option : str
        "ii" or "i".
    client_optimizer, server_optimizer : str
        "sgdm", "adagrad", "adam", "adamw", "rmsprop" or "yogi".
    client_lr, server_lr, personal_lr : float
        The last for "ditto"; 0: the clients'.
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
        Rounds from one to the next; an `evaluate_every` of 0 leaves the evaluation for the end.
    evaluation_clients : int
        How many clients' test examples are evaluated, at most; who they are is the same in all rounds.
    dropout, stragglers : float
        Probabilities that a client is absent, or does fewer epochs, see `program.Participation`.
    min_epochs : int
        Of stragglers.
    drop_stragglers : bool
        Whether those are absent, too.
    aggregator : str
        What makes one update of the clients': one of `updates.AGGREGATORS`, with its parameters after a colon.
    bucket_size : int
        Clients whose mean it is given in the place of their updates.
    clip : str
        "none", an l2 norm that no update exceeds, or one of `updates.CLIPS`.
    noise_multiplier : float
        Noise over the clip, see `fedsim_np.privacy`; 0: none. Without a clip it is an adaptive one.
    delta : float
        Of the privacy that noise promises; 0: 1 over the number of clients.
    attack : str
        "none", or one of `updates.ATTACKS` or `updates.DATA_ATTACKS`.
    attackers : float
        A share of all clients, or from 1 on how many; of more than 100,000 clients each attacks with that probability.
    sampling : str
        "uniform": so many clients in every round; "poisson": each with a probability, so many on average; "first": the
        first so many, in all rounds, who are evaluated, too.
    compress : str
        "none", or one of `updates.COMPRESSORS`.
    network : str
        "none", or one of `updates.NETWORKS`.
    reshuffle : bool
        Whether clients read in another order in every round.
    evaluate_as_trained : bool
        Whether evaluations read examples as training does, as often, as TFF's tutorial does; or each once.

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
    population: int = 0
    clients: int = 10
    rounds: int = 10
    epochs: int = 5
    batch_size: int = 20
    algorithm: str = "fedavg"
    proximal_strength: float = 0.1
    scaffold_option: str = "ii"
    alpha: float = 0.1
    q: float = 1.0
    lipschitz: float = 0.0
    client_optimizer: str = "sgdm"
    client_lr: float = 0.02
    client_momentum: float = 0.0
    server_optimizer: str = "sgdm"
    server_lr: float = 1.0
    server_momentum: float = 0.0
    personal_lr: float = 0.0
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
    dropout: float = 0.0
    stragglers: float = 0.0
    min_epochs: int = 1
    drop_stragglers: bool = False
    aggregator: str = "mean"
    bucket_size: int = 1
    clip: str = NONE
    noise_multiplier: float = 0.0
    delta: float = 0.0
    attack: str = NONE
    attackers: float = 0.2
    sampling: str = "uniform"
    compress: str = NONE
    network: str = NONE
    reshuffle: bool = True
    evaluate_as_trained: bool = False

    def __post_init__(self) -> None:
        least = {"rounds": 0, "evaluate_every": 0, "classes": 0, "seed": 0, "population": 0}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "clip" and isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)  # as a file has it
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
        if self.data == "fedprox-synthetic" and self.population > _MOST_DRAWN:
            rule = f"at most {_MOST_DRAWN} of fedprox-synthetic, which are drawn at once and take 1.1 GB"
            raise argument_error("population", rule, self.population)
        self._check_names()
        self._check_what_belongs_together()

    def _check_names(self) -> None:
        for name, allowed in (
            ("model", tuple(MODELS)),
            ("engine", ENGINES),
            ("client_optimizer", tuple(OPTIMIZERS)),
            ("server_optimizer", tuple(OPTIMIZERS)),
            ("scaffold_option", ("ii", "i")),
        ):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, allowed, getattr(self, name))

    def _check_what_belongs_together(self) -> None:
        # A module of one's own is not imported by who reads what a stranger has chosen.
        algorithm = None if is_dotted(self.algorithm) else algorithm_of(self.algorithm)
        self._check_algorithm(algorithm)
        weighted = algorithm is None or algorithm.weighted is not False
        check_choices(dataclasses.asdict(self), weighted, MODELS[self.model].classifies)
        _ = self.participation  # or an error
        units = self.hidden.split(",")
        if len(units) > _MOST_LAYERS or not all(u.strip().isdecimal() and len(u) < 20 and int(u) for u in units):
            rule = f"integers above 0 with commas between them, at most {_MOST_LAYERS}"
            raise argument_error("hidden", rule, self.hidden)

    def _check_algorithm(self, algorithm: Algorithm | None) -> None:
        unused = without_effect(dataclasses.asdict(self), algorithm, MODELS[self.model].unused)
        for name, where in unused.items():
            if getattr(self, name) != getattr(type(self), name):
                raise NoEffectError(name, where)
        if algorithm is None:
            return
        if algorithm.plain_steps and (self.client_optimizer, self.client_momentum) != ("sgdm", 0.0):
            found = f"{self.client_optimizer}, momentum {self.client_momentum}"
            raise argument_error("client_optimizer", f"sgdm without momentum for {self.algorithm}", found)
        if self.noise_multiplier and not algorithm.private:
            able = ", ".join(name for name, of in ALGORITHMS.items() if of.private)
            rule = f"0 with {self.algorithm}: noise is for clients that count alike and send nothing else, as in {able}"
            raise argument_error("noise_multiplier", rule, self.noise_multiplier)

    @property
    def stored(self) -> dict[str, Any]:
        """The choices as a run's file has them: those of `OF_UPDATES` if one of them is made."""
        choices = dataclasses.asdict(self)
        is_made = any(choices[name] != getattr(RunConfig, name) for name in OF_UPDATES)
        return {name: value for name, value in choices.items() if is_made or name not in OF_UPDATES}

    @property
    def units(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        return tuple(map(int, self.hidden.split(",")))

    @property
    def participation(self) -> Participation:
        """Who of a round's clients is there."""
        return Participation(self.dropout, self.stragglers, self.min_epochs, self.seed, self.drop_stragglers)

    @property
    def unused(self) -> tuple[str, ...]:
        """The choices that the model or the algorithm does not take."""
        parameters = () if is_dotted(self.algorithm) else algorithm_of(self.algorithm).unused
        return (*MODELS[self.model].unused, *parameters)

    def without_effect(self, algorithm: Algorithm | None = None) -> dict[str, str]:
        """Return the choices that change nothing beside the others -> beside what; of one's own algorithm if given."""
        if algorithm is None and not is_dotted(self.algorithm):
            algorithm = algorithm_of(self.algorithm)
        choices, model = dataclasses.asdict(self), MODELS[self.model]
        more = also_without_effect(choices, algorithm, model.classifies)
        return {**without_effect(choices, algorithm, model.unused), **more}

    def imported(self) -> Algorithm:
        """Return the algorithm: one of one's own is imported, which runs its module's code.

        Raises
        ------
        ValueError
            If it cannot be imported, or does not take a choice that is made.
        """
        algorithm = algorithm_of(self.algorithm)
        self._check_algorithm(algorithm)
        return algorithm

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


def read_config_file(path: str, most: int = _MOST_OF_CONFIG) -> dict[str, Any]:
    """Return the keys and values of a JSON or TOML file of at most so many bytes; ``-`` in a key stands for ``_``.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, too large, or a pipe or a device.
    """
    check_ends(path)
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    if len(content) > most:
        raise data_error(f"must have at most {most} bytes, as choices", "more", path=path)
    is_toml = path.lower().endswith(".toml")
    if is_toml and sys.version_info < (3, 11):
        raise data_error("TOML needs Python 3.11 or later (JSON does not)", sys.version.split()[0], path=path)
    try:
        if is_toml:
            tomllib = importlib.import_module("tomllib")
            found: Any = tomllib.loads(content.decode("utf-8-sig"))
        else:
            found = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise data_error("must be JSON, or TOML if it is called .toml", error, path=path) from error
    if not isinstance(found, dict):
        raise data_error("must be an object of keys and values", type(found).__name__, path=path)
    keys = [str(key).replace("-", "_") for key in found]
    if len(set(keys)) < len(keys):
        raise data_error("a key must be there once, with - or _ in it", keys, path=path)
    return dict(zip(keys, found.values(), strict=True))
