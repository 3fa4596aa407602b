"""The choices of ``fedsim-np train``: flags, a file, and what is stored with a run that is gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shlex
import subprocess
import sys
from typing import Any

from fedsim_np.algorithms import ALGORITHMS, is_dotted
from fedsim_np.datasets.named import NAMED_DATA, absolute_prefix
from fedsim_np.errors import CommandError, check_bool, check_int, data_error
from fedsim_np.learning.engines import ENGINES
from fedsim_np.runs.config import MODELS, OPTIMIZERS, RunConfig, read_config_file
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


_HELP = {
    "data": f"{', '.join(NAMED_DATA)}, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5",
    "population": "clients of synthetic and fedprox-synthetic; 0: 3383 and 30",
    "clients": "clients a round",
    "rounds": "how many",
    "epochs": "of each client in a round",
    "batch_size": "examples",
    "algorithm": "; ".join(f"{name}: {of.about}" for name, of in ALGORITHMS.items())
    + "; or package.module:name of your own, see fedsim_np.algorithms",
    "proximal_strength": "of " + _takers("proximal_strength"),
    "scaffold_option": "ii or i, of " + _takers("scaffold_option"),
    "alpha": "of " + _takers("alpha"),
    "q": "of " + _takers("q"),
    "lipschitz": f"of {_takers('lipschitz')}; 0: 1 over --client-lr",
    "client_optimizer": ", ".join(OPTIMIZERS),
    "client_lr": "learning rate of the clients",
    "client_momentum": "of sgdm on the clients",
    "server_optimizer": "as --client-optimizer",
    "server_lr": "learning rate of the server",
    "server_momentum": "of sgdm at the server",
    "personal_lr": f"learning rate of the personal models of {_takers('personal_lr')}, by sgdm; 0: --client-lr",
    "model": ", ".join(MODELS),
    "hidden": "units of the hidden layers of mlp",
    "l2": "regularisation of the other models",
    "classes": "of labels; 0: ten for handwriting, else as many as there are",
    "invert": "1 - x for x: where paper is 1, as in EMNIST, ink becomes 1",
    "engine": ", ".join(ENGINES),
    "seed": "of everything that is drawn",
    "evaluate_every": "rounds from one evaluation to the next",
    "evaluation_clients": "whose test examples are evaluated, at most",
    "checkpoint_every": "rounds from one checkpoint to the next",
    "dropout": "probability that a client is absent from a round",
    "stragglers": "probability that a client does fewer epochs",
    "min_epochs": "that stragglers do",
    "drop_stragglers": "stragglers are absent, too",
    "aggregator": f"what makes one update of all: {described([AGGREGATORS])}",
    "bucket_size": "clients whose mean it is given in the place of their updates",
    "clip": f"every update, {described([CLIPS])}",
    "noise_multiplier": "noise on a mean of clipped updates, over the clip (adaptive if there is none); 0: none. "
    f"Of {', '.join(name for name, of in ALGORITHMS.items() if of.private)}; --clip is then {described([NOISY_CLIPS])}",
    "delta": "of the privacy that noise promises; 0: 1 over all clients that there are",
    "attack": f"of updates: {described([ATTACKS])}. Of data: {described([DATA_ATTACKS])}",
    "attackers": "their share of all clients, below 1, or how many",
    "compress": f"what is sent of an update: {described([COMPRESSORS])}",
    "network": f"how fast clients are, each by its id, for the simulated seconds of a round: {described([NETWORKS])}",
    "sampling": "uniform: so many clients a round; poisson: each by a coin of its own, so many on average",
}


def add_choices(train: argparse.ArgumentParser) -> None:
    """Add the file and a flag for each choice."""
    train.add_argument("--config", metavar="FILE", help="JSON or TOML with these choices; flags go before it")
    types = {"int": int, "float": float, "str": str}
    for field in dataclasses.fields(RunConfig):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type == "bool":
            train.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=_HELP[field.name])
            continue
        train.add_argument(
            flag,
            metavar=field.name.split("_")[-1].upper(),
            type=types[str(field.type)],
            default=None,
            help=f"{_HELP[field.name]} (default: {field.default})",
        )


def _read_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the file sets; its workers and tensorboard, which change no result, are taken as flags."""
    given = read_config_file(arguments.config) if arguments.config is not None else {}
    if isinstance(given.get("choices"), dict) and set(given) <= {"command", "choices", "data", "versions", "privacy"}:
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
    for field in dataclasses.fields(RunConfig):
        if getattr(arguments, field.name) is not None:
            given[field.name] = getattr(arguments, field.name)
    if isinstance(given.get("data"), str):
        given["data"] = absolute_prefix(given["data"])  # the run is gone on with from anywhere
    try:
        config = RunConfig(**{**there, **given})
    except ValueError as error:
        raise CommandError(str(error)) from error
    if is_dotted(config.algorithm):
        if arguments.algorithm is None:  # no file runs code
            raise CommandError(f"to import a module of your own, name it here: --algorithm {config.algorithm}")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    return config


def command_to_resume(arguments: argparse.Namespace) -> str:
    """Return the command that goes on with a run, as one types it here."""
    words = ["fedsim-np", "train", "--out", arguments.out, "--resume"]
    words += ["--workers", str(arguments.workers)] * (arguments.workers is not None)
    words += ["--algorithm", str(arguments.algorithm)] * is_dotted(arguments.algorithm or "")
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
