"""The algorithms that a run is told by name: how each is built, and which of a run's choices it takes.

One of one's own has a dotted name, ``package.module:name``, of an `Algorithm`, or of a function that is called as
the builders are::

    name(model_fn, client_optimizer, server_optimizer, engine=..., executor=..., cache_bytes=...)
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedsim_np import learning
from fedsim_np.errors import argument_error, unknown_name
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
        ``engine``, ``executor`` and ``cache_bytes``; ``model_aggregator`` and ``compressor``, of a run
        that has one of its own.
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
        Which of `PARAMETERS`.
    ignores : tuple of str
        Those that may be given and say nothing: of runs that began before it was told who takes them.
    plain_steps : bool
        Whether clients take steps of plain SGD, at the rate ``client_lr``.
    takes_no_steps : bool
        Whether they take none at all: the clients' optimizer says nothing.
    weighted : bool or None
        Whether clients are weighted; None: it takes no aggregator. Others have one as ``model_aggregator`` among the
        keywords, if a run is told one.
    private : bool
        Whether clients count alike and send their update alone, so that noise on it covers all that models are made of.
    """

    build: Callable[[Parts], LearningProcess]
    about: str
    takes: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    plain_steps: bool = False
    takes_no_steps: bool = False
    weighted: bool | None = None
    private: bool = False

    @property
    def unused(self) -> tuple[str, ...]:
        """The choices that are for others."""
        return tuple(name for name in PARAMETERS if name not in (*self.takes, *self.ignores))


PARAMETERS = ("proximal_strength", "scaffold_option", "alpha", "q", "lipschitz", "personal_lr")
"""The choices that some take and others do not."""


def _averaging(build: Callable[..., LearningProcess], parts: Parts, *arguments: Any) -> LearningProcess:
    return build(parts.model_fn, *arguments, parts.client, parts.server, **parts.keywords)


def _proximal(build: Callable[..., LearningProcess], parts: Parts) -> LearningProcess:
    return _averaging(build, parts, parts.choices["proximal_strength"])


def _fed_sgd(parts: Parts) -> LearningProcess:
    return learning.build_fed_sgd(parts.model_fn, parts.server, **parts.keywords)


def _scaffold(parts: Parts) -> LearningProcess:
    rate, option = parts.choices["client_lr"], parts.choices["scaffold_option"]
    n = parts.num_clients
    return learning.build_scaffold(parts.model_fn, rate, parts.server, num_clients=n, option=option, **parts.keywords)


def _fed_dyn(parts: Parts) -> LearningProcess:
    rate, alpha, n = parts.choices["client_lr"], parts.choices["alpha"], parts.num_clients
    return learning.build_fed_dyn(parts.model_fn, rate, alpha, parts.server, num_clients=n, **parts.keywords)


def _fed_nova_prox(parts: Parts) -> LearningProcess:
    strength = parts.choices["proximal_strength"]
    return learning.build_fed_nova(
        parts.model_fn, parts.client, parts.server, proximal_strength=strength, **parts.keywords
    )


def _q_fed_avg(parts: Parts) -> LearningProcess:
    lipschitz = parts.choices["lipschitz"] or 1 / (parts.choices["client_lr"] or 1.0)
    q = parts.choices["q"]
    return learning.build_q_fed_avg(parts.model_fn, parts.client, q, lipschitz, parts.server, **parts.keywords)


def _ditto(parts: Parts) -> LearningProcess:
    personal = build_sgdm(parts.choices["personal_lr"] or parts.choices["client_lr"])
    strength, n = parts.choices["proximal_strength"], parts.num_clients
    return learning.build_ditto(
        parts.model_fn, parts.client, personal, strength, parts.server, num_clients=n, **parts.keywords
    )


def _of(build: Callable[..., LearningProcess], of: Callable[..., LearningProcess] = _averaging) -> Any:
    return functools.partial(of, build)


_EARLIER = ("proximal_strength",)

_Weighted = functools.partial(Algorithm, weighted=True)
_Unweighted = functools.partial(Algorithm, weighted=False)

ALGORITHMS: dict[str, Algorithm] = {
    "fedavg": _Weighted(_of(learning.build_weighted_fed_avg), "clients weighted by their examples", ignores=_EARLIER),
    "fedavg-unweighted": _Unweighted(
        _of(learning.build_unweighted_fed_avg), "all clients alike", ignores=_EARLIER, private=True
    ),
    "fedprox": _Weighted(
        _of(learning.build_weighted_fed_prox, _proximal), "held near the server's model", ("proximal_strength",)
    ),
    "fedprox-unweighted": _Unweighted(
        _of(learning.build_unweighted_fed_prox, _proximal),
        "the same, all clients alike",
        ("proximal_strength",),
        private=True,
    ),
    "fedsgd": _Weighted(_fed_sgd, "one step of the server a round", ignores=_EARLIER, takes_no_steps=True),
    "scaffold": _Weighted(_scaffold, "control variates against drift", ("scaffold_option",), plain_steps=True),
    "fed_dyn": _Weighted(_fed_dyn, "a dynamic regulariser", ("alpha",), plain_steps=True),
    "fed_nova": _Weighted(_of(learning.build_fed_nova), "updates over the number of steps"),
    "fed_nova_prox": _Weighted(_fed_nova_prox, "the same, held near the server's model", ("proximal_strength",)),
    "q_fed_avg": _Weighted(_q_fed_avg, "the worst-off count for more", ("q", "lipschitz")),
    "ditto": _Weighted(
        _ditto,
        "a personal model of each client beside the global one, which is in the checkpoints alone",
        ("proximal_strength", "personal_lr"),
    ),
    "mime_lite": _Weighted(_of(learning.build_weighted_mime_lite), "steps with the server's optimizer state"),
    "mime_lite-unweighted": _Unweighted(_of(learning.build_unweighted_mime_lite), "the same, all clients alike"),
}
"""Name -> algorithm."""


def is_dotted(name: str) -> bool:
    """Return whether an algorithm is one of one's own."""
    return ":" in name


def algorithm_of(name: str) -> Algorithm:
    """Return the algorithm of a name, a dotted one imported: that runs its module's code.

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
    if not is_dotted(name):
        if name not in ALGORITHMS:
            raise unknown_name("algorithm", [*ALGORITHMS, "package.module:name"], name)
        return ALGORITHMS[name]
    module, _, leaf = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), leaf)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise argument_error("algorithm", f"something that can be imported ({error})", name) from error
    if isinstance(found, Algorithm) and callable(found.build):
        return found
    try:
        inspect.signature(found).bind("model_fn", "client", "server", engine=None, executor=None, cache_bytes=None)
    except (TypeError, ValueError) as error:
        raise argument_error(
            "algorithm", f"an Algorithm, or a function called as the builders are ({error})", name
        ) from (error)
    return Algorithm(_of(found), f"of {module}")
