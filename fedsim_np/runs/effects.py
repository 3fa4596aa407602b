"""Which of a run's choices change nothing beside the others.

Who makes such a choice expects something of it, and is told. On a command line and in a study's grid what is given
counts, whatever its value. In Python and in files of choices, such as a run's own ``config.json``, which names all of
them, a value counts that is not the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsim_np.algorithms import Algorithm
from fedsim_np.runs.updates import NONE, is_on_data

_OF_RULES = ("aggregator", "bucket_size", "clip", "noise_multiplier", "compress")
_OF_STEPS = ("client_optimizer", "client_lr", "client_momentum")


def without_effect(
    choices: Mapping[str, Any], algorithm: Algorithm | None, of_others: tuple[str, ...]
) -> dict[str, str]:
    """Return the choices that change nothing -> beside what.

    Parameters
    ----------
    choices : mapping of str to number or text
        All of a run's.
    algorithm : Algorithm or None
        None: what it takes is not known.
    of_others : tuple of str
        What the model does not take.

    Examples
    --------
    >>> choices = {"attack": "none", "noise_multiplier": 1.0, "model": "softmax"}
    >>> optimizers = {"client_optimizer": "sgdm", "server_optimizer": "adam"}
    >>> for name, where in without_effect({**choices, **optimizers}, None, ("hidden",)).items():
    ...     print(no_effect(name, where))
    attackers changes nothing with the attack none: leave it out.
    server_momentum changes nothing with the server_optimizer adam: leave it out.
    hidden changes nothing with the model softmax: leave it out.
    """
    found = {}
    if algorithm is not None:
        unused = algorithm.unused
        if algorithm.weighted is None:
            is_on_updates = choices["attack"] != NONE and not is_on_data(choices["attack"])
            unused = (*unused, *_OF_RULES, *["attack"] * is_on_updates)
        found.update(dict.fromkeys(unused, f"the algorithm {choices['algorithm']}"))
    if choices["attack"] == NONE:
        found["attackers"] = "the attack none"
    if not choices["noise_multiplier"]:
        found["delta"] = "a noise_multiplier of 0"
    for who in ("client", "server"):
        if choices[f"{who}_optimizer"] != "sgdm":
            found[f"{who}_momentum"] = f"the {who}_optimizer {choices[f'{who}_optimizer']}"
    return {**found, **dict.fromkeys(of_others, f"the model {choices['model']}")}


def also_without_effect(choices: Mapping[str, Any], algorithm: Algorithm | None, classifies: bool) -> dict[str, str]:
    """Return more of them, which earlier versions let pass: files may have them.

    Examples
    --------
    >>> choices = {"data": "synthetic", "stragglers": 0.1, "sampling": "uniform", "model": "linear"}
    >>> also_without_effect(choices, None, classifies=False)
    {'classes': 'the model linear'}
    """
    found = {}
    if choices["data"] not in ("synthetic", "fedprox-synthetic"):
        found["population"] = f"the data '{choices['data']}'"
    if not choices["stragglers"]:
        found.update(dict.fromkeys(("min_epochs", "drop_stragglers"), "stragglers of 0"))
    if choices["sampling"] == "first":
        found["evaluation_clients"] = "the sampling first, whose clients are evaluated"
    if not classifies:
        found["classes"] = f"the model {choices['model']}"
    if algorithm is not None:
        names = (*algorithm.ignores, *_OF_STEPS * algorithm.takes_no_steps)
        found.update(dict.fromkeys(names, f"the algorithm {choices['algorithm']}"))
    return found


def no_effect(name: str, where: str) -> str:
    """Return what is said of such a choice."""
    return f"{name} changes nothing with {where}: leave it out."


class NoEffectError(ValueError):
    """A choice that changes nothing, by its name, and beside what."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(name, where)
        self.name, self.where = name, where

    def __str__(self) -> str:
        return no_effect(repr(self.name), self.where)
