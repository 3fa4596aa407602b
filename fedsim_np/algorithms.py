"""The algorithms that a run is told by name: how each is built, and which of a run's choices it takes.

One of one's own has a dotted name, ``package.module:function``. The function is called as the builders are::

    function(model_fn, client_optimizer, server_optimizer, engine=..., executor=..., cache_bytes=...)
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedsim_np import learning
from fedsim_np.errors import argument_error, check_type, unknown_name
from fedsim_np.learning.learning_process import LearningProcess
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import Optimizer, build_sgdm


class Parts(NamedTuple):
    """What an algorithm is built of.

    Attributes
    ----------
    model_fn : callable
    client, server : Optimizer
    num_clients : int
        All that there are.
    choices : mapping of str to number or text
        The run's.
    keywords : mapping
        ``engine``, ``executor`` and ``cache_bytes``.
    """

    model_fn: ModelFn
    client: Optimizer
    server: Optimizer
    num_clients: int
    choices: Mapping[str, Any]
    keywords: Mapping[str, Any]


class Algorithm(NamedTuple):
    """An algorithm by its name.

    Attributes
    ----------
    build : callable
        Parts -> process.
    about : str
        What it is, in few words.
    takes : tuple of str
        Choices beside those that all take.
    plain_steps : bool
        Whether clients take steps of plain SGD, at the rate ``client_lr``.
    """

    build: Callable[[Parts], LearningProcess]
    about: str
    takes: tuple[str, ...] = ()
    plain_steps: bool = False


def _averaging(build: Callable[..., LearningProcess], parts: Parts, *arguments: Any) -> LearningProcess:
    return build(parts.model_fn, *arguments, parts.client, parts.server, **parts.keywords)


def _with_state(build: Callable[..., LearningProcess], parts: Parts, *arguments: Any, **more: Any) -> LearningProcess:
    given = {"num_clients": parts.num_clients, **more, **parts.keywords}
    return build(parts.model_fn, *arguments, server_optimizer_fn=parts.server, **given)


def _q_fed_avg(parts: Parts) -> LearningProcess:
    lipschitz = parts.choices["lipschitz"] or 1 / (parts.choices["client_lr"] or 1.0)
    q = parts.choices["q"]
    return learning.build_q_fed_avg(parts.model_fn, parts.client, q, lipschitz, parts.server, **parts.keywords)


def _ditto(parts: Parts) -> LearningProcess:
    personal = build_sgdm(parts.choices["personal_lr"] or parts.choices["client_lr"])
    return _with_state(learning.build_ditto, parts, parts.client, personal, parts.choices["proximal_strength"])


ALGORITHMS: dict[str, Algorithm] = {
    "fedavg": Algorithm(
        functools.partial(_averaging, learning.build_weighted_fed_avg), "clients weighted by their examples"
    ),
    "fedavg-unweighted": Algorithm(functools.partial(_averaging, learning.build_unweighted_fed_avg), "all alike"),
    "fedprox": Algorithm(
        lambda p: _averaging(learning.build_weighted_fed_prox, p, p.choices["proximal_strength"]),
        "held near the server's model",
        ("proximal_strength",),
    ),
    "fedsgd": Algorithm(
        lambda p: learning.build_fed_sgd(p.model_fn, p.server, **p.keywords), "one step of the server a round"
    ),
    "scaffold": Algorithm(
        lambda p: _with_state(learning.build_scaffold, p, p.choices["client_lr"], option=p.choices["scaffold_option"]),
        "control variates against drift",
        ("scaffold_option",),
        plain_steps=True,
    ),
    "fed_dyn": Algorithm(
        lambda p: _with_state(learning.build_fed_dyn, p, p.choices["client_lr"], p.choices["alpha"]),
        "a dynamic regulariser",
        ("alpha",),
        plain_steps=True,
    ),
    "fed_nova": Algorithm(functools.partial(_averaging, learning.build_fed_nova), "updates over the number of steps"),
    "q_fed_avg": Algorithm(_q_fed_avg, "the worst-off count for more", ("q", "lipschitz")),
    "ditto": Algorithm(_ditto, "a personal model beside the global one", ("proximal_strength", "personal_lr")),
    "mime_lite": Algorithm(
        functools.partial(_averaging, learning.build_weighted_mime_lite), "steps with the server's optimizer state"
    ),
}
"""Name -> algorithm."""

PARAMETERS = tuple(dict.fromkeys(name for algorithm in ALGORITHMS.values() for name in algorithm.takes))
"""The choices that some take and others do not."""


def algorithm_of(name: str) -> Algorithm:
    """Return the algorithm of a name, a dotted one imported.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> algorithm_of("fed_dyn").takes
    ('alpha',)
    >>> algorithm_of("fedsim_np.learning:build_unweighted_fed_avg").about
    'of fedsim_np.learning'
    """
    if ":" not in name:
        if name not in ALGORITHMS:
            raise unknown_name("algorithm", [*ALGORITHMS, "package.module:function"], name)
        return ALGORITHMS[name]
    module, _, function = name.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise argument_error("algorithm", f"a function that can be imported ({error})", name) from error
    check_type("algorithm", build, Callable, f"a function, which '{name}' is not")
    return Algorithm(functools.partial(_averaging, build), f"of {module}", PARAMETERS)
