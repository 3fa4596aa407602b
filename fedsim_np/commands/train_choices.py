"""The choices of ``fedsim-np train``: flags, a file, and what is stored with a run that is gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from fedsim_np.algorithms import ALGORITHMS, algorithm_of, is_dotted
from fedsim_np.commands.arguments import add_examples, allow_own
from fedsim_np.datasets.named import NAMED_DATA, absolute_prefix
from fedsim_np.errors import CommandError, check_bool, check_int, data_error, did_you_mean
from fedsim_np.learning.engines import ENGINES
from fedsim_np.runs.config import MODELS, OPTIMIZERS, RunConfig, read_config_file
from fedsim_np.runs.effects import NoEffectError, no_effect
from fedsim_np.runs.folder import CONFIG_KEYS
from fedsim_np.runs.updates import (
    AGGREGATORS,
    ATTACKS,
    CLIPS,
    COMPRESSORS,
    DATA_ATTACKS,
    NETWORKS,
    NOISY_CLIPS,
    described,
)


def _takers(parameter: str) -> str:
    return ", ".join(name for name, of in ALGORITHMS.items() if parameter in of.takes)


_PRIVATE = ", ".join(name for name, of in ALGORITHMS.items() if of.private)
_GROUPS = {
    "the data": {
        "data": f"Whose examples: {', '.join(NAMED_DATA)}, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5.",
        "population": "How many clients synthetic and fedprox-synthetic have; 0 stands for 3383 and 30.",
        "classes": "How many classes labels have; 0 stands for ten of handwriting, else for as many as there are.",
        "invert": "Take 1 - x for x: where paper is 1, as in EMNIST, ink becomes 1.",
    },
    "the rounds": {
        "rounds": "How many rounds there are.",
        "clients": "How many clients take part in a round.",
        "epochs": "How often each of them reads its examples in a round.",
        "batch_size": "How many examples a step is made on.",
        "sampling": "Who takes part. uniform: so many clients, drawn anew; poisson: each by a coin of its own, so "
        "many on average; first: the first so many, in every round.",
        "reshuffle": "Have clients read in another order in every round.",
        "dropout": "The probability that a client is absent from a round.",
        "stragglers": "The probability that a client does fewer epochs.",
        "min_epochs": "The fewest epochs that stragglers do.",
        "drop_stragglers": "Have the server not wait for stragglers: they are absent, too.",
        "seed": "The seed of everything that is drawn.",
    },
    "the algorithm": {
        "algorithm": "; ".join(f"{name}: {of.about}" for name, of in ALGORITHMS.items())
        + "; or package.module:name of your own, see fedsim_np.algorithms.",
        "proximal_strength": "How strongly clients are held near the server's model, by "
        f"{_takers('proximal_strength')}.",
        "scaffold_option": f"Where control variates come from, ii or i, in {_takers('scaffold_option')}.",
        "alpha": f"The strength of the regulariser of {_takers('alpha')}.",
        "q": f"How much more the worst-off count, in {_takers('q')}.",
        "lipschitz": f"The constant of {_takers('lipschitz')}; 0 stands for 1 over --client-lr.",
    },
    "the model and its optimizers": {
        "model": f"What is trained: {', '.join(MODELS)}.",
        "hidden": "The units of the hidden layers of mlp.",
        "l2": "The regularisation of the other models.",
        "client_optimizer": f"What makes the clients' steps: {', '.join(OPTIMIZERS)}.",
        "client_lr": "The learning rate of the clients.",
        "client_momentum": "The momentum of sgdm on the clients.",
        "server_optimizer": "What makes the server's steps, as --client-optimizer.",
        "server_lr": "The learning rate of the server.",
        "server_momentum": "The momentum of sgdm at the server.",
        "personal_lr": f"The learning rate of the personal models of {_takers('personal_lr')}; 0: --client-lr.",
    },
    "the updates": {
        "aggregator": f"What makes one update of all: {described([AGGREGATORS])}.",
        "bucket_size": "How many clients' mean the aggregator is given in the place of their updates.",
        "clip": f"Clip every update, {described([CLIPS])}.",
        "noise_multiplier": "Noise on a mean of clipped updates, over the clip (adaptive if there is none); 0: none. "
        f"It goes with {_PRIVATE}; --clip is then {described([NOISY_CLIPS])}.",
        "delta": "The delta of the privacy that noise promises, well below 1 over all clients that there are; 0: as "
        "much as that.",
        "attack": f"What attackers do to updates: {described([ATTACKS])}. Or to data: {described([DATA_ATTACKS])}.",
        "attackers": "The attackers' share of all clients, below 1, or how many they are.",
        "compress": f"What is sent of an update: {described([COMPRESSORS])}.",
        "network": "How fast clients are, each by its id, for the simulated seconds of a round: "
        f"{described([NETWORKS])}.",
    },
    "the evaluation and the computer": {
        "evaluate_every": "Rounds from one evaluation to the next; 0: at the end alone.",
        "evaluation_clients": "How many clients' test examples are evaluated, at most.",
        "evaluate_as_trained": "Evaluate examples as they are trained on, as often, as TFF's tutorial does.",
        "checkpoint_every": "Rounds from one checkpoint to the next.",
        "engine": f"How a round is computed: {', '.join(ENGINES)}.",
    },
}
_EXAMPLES = """\
  fedsim-np train --out run
      ten rounds of ten of the sample's thirty writers
  fedsim-np train --data emnist --clients 100 --rounds 200 --client-lr 0.1 --out run
      the real EMNIST, downloaded if need be
  fedsim-np train --algorithm scaffold --client-lr 0.05 --set epochs=1 --out run
      another algorithm; --set KEY=VALUE sets any choice, by its name in a file
  fedsim-np train --config choices.toml --rounds 50 --out run
      choices from a file; flags go before it
  fedsim-np train --resume --rounds 100 --out run
      the same run, to more rounds"""


def add_choices(train: argparse.ArgumentParser) -> None:
    """Add the file and a flag for each choice, in groups."""
    add_examples(train, _EXAMPLES)
    train.usage = "fedsim-np train [-h] [choices] [--resume | --overwrite] --out DIR"
    train.add_argument("--config", metavar="FILE", help="Take choices from JSON or TOML; flags go before it.")
    train.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="Set any choice, by its name in a file."
    )
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    for title, choices in _GROUPS.items():
        group = train.add_argument_group(title)
        for name, about in choices.items():
            field, flag = fields[name], f"--{name.replace('_', '-')}"
            if field.type == "bool":
                group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
                continue
            said, shown = f"{about} (default: {field.default})", name.split("_")[-1].upper()
            group.add_argument(flag, metavar=shown, type=_TYPES[str(field.type)], default=None, help=said)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "bool": _truth}


def _set(texts: Sequence[str]) -> dict[str, Any]:
    """Return what ``--set KEY=VALUE`` sets."""
    types, found = {field.name: str(field.type) for field in dataclasses.fields(RunConfig)}, dict[str, Any]()
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not equals or name not in types:
            hint = did_you_mean(name, types) if equals else ""
            raise CommandError(f"--set must be KEY=VALUE, with a choice of a run as the key. Got '{text[:50]}'.{hint}")
        try:
            found[name] = _TYPES[types[name]](value.strip())
        except ValueError as error:
            raise CommandError(f"--set {name} must be of type {types[name]}. Got '{value[:50]}'.") from error
    return found


def _read_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the file sets; its workers and tensorboard, which change no result, are taken as flags."""
    given = read_config_file(arguments.config) if arguments.config is not None else {}
    if isinstance(given.get("choices"), dict) and set(given) <= CONFIG_KEYS:
        given = dict(given["choices"])  # a run's own config.json
    try:
        for name, check in (("workers", functools.partial(check_int, minimum=1)), ("tensorboard", check_bool)):
            if name in given:
                value = check(name, given.pop(name))
                setattr(arguments, name, getattr(arguments, name) or value)
    except (ValueError, TypeError) as error:
        raise data_error("choices must be in range", str(error).rstrip("."), path=arguments.config) from error
    RunConfig.of(given, str(arguments.config))
    return given


def chosen(arguments: argparse.Namespace, stored: dict[str, Any] | None) -> RunConfig:
    """Return flags before the file before what is stored with the run that is resumed."""
    given = _read_config(arguments)
    there = {} if stored is None else stored["choices"]
    typed = _set(arguments.set)
    as_typed = {name: f"--set {name}" for name in typed}
    for field in dataclasses.fields(RunConfig):
        if (value := getattr(arguments, field.name)) is not None:
            typed[field.name] = value
            as_typed[field.name] = f"--{'no-' * (value is False)}{field.name.replace('_', '-')}"
    given.update(typed)
    arguments.algorithm = typed.get("algorithm")
    if isinstance(given.get("data"), str):
        given["data"] = absolute_prefix(given["data"])  # the run is gone on with from anywhere
    try:
        config = RunConfig(**{**there, **given})
    except NoEffectError as error:
        raise CommandError(no_effect(as_typed.get(error.name, repr(error.name)), error.where)) from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    allow_own([config.algorithm], [arguments.algorithm])
    for name, where in config.without_effect(algorithm_of(config.algorithm)).items():
        if name in typed:  # with whatever value
            raise CommandError(no_effect(as_typed[name], where))
    return config


def command_to_resume(arguments: argparse.Namespace) -> str:
    """Return the command that goes on with a run, as one types it here."""
    words = ["fedsim-np", "train", "--out", arguments.out, "--resume"]
    words += ["--workers", str(arguments.workers)] * (arguments.workers is not None)
    words += ["--algorithm", str(arguments.algorithm)] * is_dotted(arguments.algorithm or "")
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
