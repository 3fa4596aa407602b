r"""What becomes of clients' updates in a run that is told by names: compression, attacks, clips, rules, noise.

::

    client data --> [data attack] --> training --> updates --> [compression] --> [attack] --> ...
    ... --> [clip] --> [buckets] --> rule,  or clip --> mean with noise

A part of a run is a text: ``NAME``, ``NAME:value`` or ``NAME:key=value,key=value``, which are parameters of the
function or class that makes it. So ``krum:2,num_selected=5`` stands for ``KrumFactory(2, num_selected=5)``. Each kind
of part is a table with a line for each name.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedsim_np.errors import argument_error, check_float, did_you_mean, unknown_name
from fedsim_np.learning import aggregators, attacks, compression
from fedsim_np.learning.aggregators.aggregator import Aggregator, aggregate, summing
from fedsim_np.learning.aggregators.private import DifferentiallyPrivateFactory
from fedsim_np.learning.aggregators.robust import adaptive_clipping
from fedsim_np.learning.cohort import Cohort
from fedsim_np.program import Network
from fedsim_np.tables import values_of

NONE = "none"
SAMPLINGS = ("uniform", "poisson", "first")
_MOST = 10_000  # of an integer, such as iterations: a text may be a stranger's, and a round shall end


class Part(NamedTuple):
    """A part of a run by its name.

    Attributes
    ----------
    make : callable
    about : str
        What it is, in few words.
    given : mapping of str to str
        The parameters of `make` that are no text's to set -> the run's name of what they are given; "" for nothing.
    """

    make: Callable[..., Any]
    about: str
    given: Mapping[str, str] = {}

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those that a text may set."""
        return {p: of for p, of in inspect.signature(self.make).parameters.items() if p not in self.given}

    def form(self, name: str) -> str:
        """Return how it is written, with its defaults.

        Examples
        --------
        >>> AGGREGATORS["krum"].form("krum")
        'krum:num_byzantine,num_selected=1'
        """
        words = [p if of.default in (of.empty, None) else f"{p}={of.default}" for p, of in self.parameters.items()]
        return f"{name}:{','.join(words)}" if words else name


def _mean(weighted: bool) -> Aggregator:
    return aggregators.MeanFactory() if weighted else aggregators.UnweightedMeanFactory()


_WEIGHTED = {"weighted": "weighted"}
AGGREGATORS = {
    "mean": Part(_mean, "of clients weighted as the algorithm has it", _WEIGHTED),
    "median": Part(aggregators.MedianFactory, "of each coordinate"),
    "trimmed_mean": Part(aggregators.TrimmedMeanFactory, "of each coordinate, without that share at either end"),
    "krum": Part(aggregators.KrumFactory, "the update nearest to its neighbours, or the mean of some"),
    "bulyan": Part(aggregators.BulyanFactory, "by Krum, and then of each coordinate those in the middle"),
    "geometric_median": Part(aggregators.GeometricMedianFactory, "the point that is nearest to all"),
    "centered_clipping": Part(aggregators.CenteredClippingFactory, "the last aggregate, moved by clipped differences"),
    "compression": Part(
        aggregators.compression_aggregator,
        "a mean of quantized tensors, what is far too large zeroed or clipped",
        {**_WEIGHTED, "seed": "seed", "min_max": ""},
    ),
    "robust": Part(
        aggregators.robust_aggregator,
        "a mean, what is far too large zeroed or clipped",
        {**_WEIGHTED, "debug_measurements_fn": ""},
    ),
}
"""Name -> rule."""

COMPRESSORS = {
    "quantize": Part(compression.quantize, "so many bits a number", {"seed": "seed"}),
    "top_k": Part(compression.top_k, "that share of the numbers, the largest"),
    "random_k": Part(compression.random_k, "that share of the numbers, drawn", {"seed": "seed"}),
    "sign": Part(compression.sign, "signs alone"),
}
"""Name -> what is sent of an update."""

NETWORKS = {"speeds": Part(Network, "medians of bytes a second up and down and examples a second", {"seed": "seed"})}
"""Name -> how fast clients are."""

CLIPS = {
    "fixed": Part(
        aggregators.clipping_factory, "to that l2 norm, as a number alone says, too", {"inner_agg_factory": "inner"}
    ),
    "adaptive": Part(adaptive_clipping, "to a quantile of the norms", {"inner": "inner"}),
}
"""Name -> clip, in front of a rule."""

_OF_NOISE = {"noise_multiplier": "noise_multiplier", "clients_per_round": "clients", "seed": "seed"}
NOISY_CLIPS = {
    "fixed": Part(DifferentiallyPrivateFactory.gaussian_fixed, "the same, with noise", _OF_NOISE),
    "adaptive": Part(DifferentiallyPrivateFactory.gaussian_adaptive, "a quantile found with noise", _OF_NOISE),
}
"""Name -> clip and mean, with noise."""

ATTACKS = {
    "sign_flip": Part(attacks.sign_flip, "their update in the other direction"),
    "gaussian_noise": Part(attacks.gaussian_noise, "noise in place of an update"),
    "inner_product_manipulation": Part(
        attacks.inner_product_manipulation, "so many times the honest mean, in the other direction"
    ),
    "a_little_is_enough": Part(attacks.a_little_is_enough, "so many deviations off the honest mean"),
    "mimic": Part(attacks.mimic, "all the update of one honest client"),
    "omniscient_negation": Part(attacks.omniscient_negation, "what turns the mean around"),
}
"""Name -> what attackers send."""

DATA_ATTACKS = {
    "flip_labels": Part(
        attacks.flip_labels, "labels c - 1 - y for y", {"num_classes": "num_classes", "field": "label"}
    ),
    "shuffle_labels": Part(attacks.shuffle_labels, "labels dealt out anew", {"field": "label"}),
    "invert_pixels": Part(attacks.invert_pixels, "features 1 - x for x", {"field": "features"}),
}
"""Name -> what is wrong with attackers' data."""


def part_of(flag: str, table: Mapping[str, Part], text: str, **given: Any) -> Any:
    """Return the part that a text stands for.

    Parameters
    ----------
    flag : str
        Which choice it is, for errors.
    table : mapping of str to Part
    text : str
    given
        What a run gives to its parts.

    Raises
    ------
    ValueError
        If it is none of them, or its parameters are none that it can have.

    Examples
    --------
    >>> part_of("aggregator", AGGREGATORS, "krum:2,num_selected=5")
    KrumFactory(num_byzantine=2, num_selected=5)
    >>> part_of("aggregator", AGGREGATORS, "trimmed_mean:0.5")
    Traceback (most recent call last):
    ...
    ValueError: 'aggregator', trimmed_mean: 'trim_fraction' must be a finite float >= 0 and < 0.5. Got 0.5.
    """
    name, colon, rest = text.partition(":")
    if name not in table:
        raise unknown_name(flag, table, name)
    part = table[name]
    parameters, arguments = part.parameters, {}
    for place, word in enumerate(rest.split(",") if colon else ()):
        key, equals, value = (side.strip() for side in word.partition("="))
        if not equals:
            key, value = "".join([*parameters][place : place + 1]), key
        if key not in parameters or key in arguments or not value:
            wrong = argument_error(flag, f"written as {part.form(name)}", text)
            raise ValueError(f"{wrong}{did_you_mean(key, parameters)}")
        arguments[key] = _value(value, str(parameters[key].annotation))
        if parameters[key].annotation == "int" and isinstance(arguments[key], int) and arguments[key] > _MOST:
            raise argument_error(flag, f"of a {key} of at most {_MOST}", text)
    if any(of.default is of.empty and p not in arguments for p, of in parameters.items()):
        raise argument_error(flag, f"written as {part.form(name)}", text)
    of_run = {p: given[of] for p, of in part.given.items() if of}
    try:
        return part.make(**arguments, **of_run)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{flag}', {name}: {error}") from error


def _value(text: str, annotation: str) -> Any:
    """Return the number, truth or text that a parameter is given."""
    if "str" in annotation:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return values_of([text])[0]


def described(tables: Iterable[Mapping[str, Part]]) -> str:
    """Return what there is, for a command's help."""
    return "; ".join(f"{part.form(name)}: {part.about}" for table in tables for name, part in table.items())


def is_on_data(attack: str) -> bool:
    """Return whether an attack is one on data.

    Examples
    --------
    >>> is_on_data("flip_labels"), is_on_data("sign_flip:5")
    (True, False)
    """
    return attack.partition(":")[0] in DATA_ATTACKS


def data_attack_of(
    choices: Mapping[str, Any], num_classes: int, features: str, label: str
) -> attacks.DataAttack | None:
    """Return what is wrong with the attackers' data in a run of these choices, if anything is."""
    if not is_on_data(choices["attack"]):
        return None
    found: attacks.DataAttack = part_of(
        "attack", DATA_ATTACKS, choices["attack"], num_classes=num_classes, features=features, label=label
    )
    return found


def rule_of(choices: Mapping[str, Any], weighted: bool, attackers: attacks.Attackers) -> Aggregator | None:
    """Return the aggregator of a run of these choices; None where they leave the algorithm its mean.

    Parameters
    ----------
    choices : mapping of str to number or text
        The run's.
    weighted : bool
        Whether the algorithm's clients are weighted.
    attackers : float or collection of str
        As for `attacks.attack_factory`.

    Raises
    ------
    ValueError
        As for `part_of`.

    Examples
    --------
    >>> choices = {"aggregator": "median", "bucket_size": 1, "clip": "none", "noise_multiplier": 0.0, "attack": "none"}
    >>> choices["seed"] = 0
    >>> rule_of(choices, True, 0.2), rule_of({**choices, "aggregator": "mean"}, True, 0.2)
    (MedianFactory(), None)
    """
    clip, attack, size = choices["clip"], choices["attack"], choices["bucket_size"]
    is_attacked = attack != NONE and not is_on_data(attack)
    if choices["noise_multiplier"]:
        rule: Aggregator = part_of("clip", NOISY_CLIPS, "adaptive" if clip == NONE else _named(clip), **choices)
    else:
        if (choices["aggregator"], size, clip, is_attacked) == ("mean", 1, NONE, False):
            return None
        rule = part_of("aggregator", AGGREGATORS, choices["aggregator"], weighted=weighted, seed=choices["seed"])
        if size > 1:
            rule = aggregators.bucketing_factory(size, rule, choices["seed"])
        if clip != NONE:
            rule = part_of("clip", CLIPS, _named(clip), inner=rule)
    if is_attacked:
        sent = part_of("attack", {**ATTACKS, **DATA_ATTACKS}, attack)
        rule = attacks.attack_factory(sent, attackers, rule, choices["seed"])
    return rule


def _named(clip: str) -> str:
    """Return a clip with its name, which a number alone has not."""
    with contextlib.suppress(ValueError):
        float(clip)
        return f"fixed:{clip}"
    if clip.partition(":")[0] not in CLIPS:
        raise unknown_name("clip", [NONE, "a number", *CLIPS], clip)
    return clip


def compressor_of(choices: Mapping[str, Any]) -> compression.Compressor | None:
    """Return what is sent of updates in a run of these choices; None: all."""
    if choices["compress"] == NONE:
        return None
    found: compression.Compressor = part_of("compress", COMPRESSORS, choices["compress"], seed=choices["seed"])
    return found


def network_of(choices: Mapping[str, Any]) -> Network | None:
    """Return how fast clients are in a run of these choices, if it is said."""
    if choices["network"] == NONE:
        return None
    found: Network = part_of("network", NETWORKS, choices["network"], seed=choices["seed"])
    return found


def check_choices(choices: Mapping[str, Any], weighted: bool, has_classes: bool) -> None:
    """Raise a `ValueError` if parts are none that there are, or do not go together."""
    attack, noise = choices["attack"], choices["noise_multiplier"]
    name = attack.partition(":")[0]
    if choices["sampling"] not in SAMPLINGS:
        raise unknown_name("sampling", SAMPLINGS, choices["sampling"])
    check_float("delta", choices["delta"], minimum=0.0, below=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who builds the rule of a run is warned
        rule_of(choices, weighted, frozenset())
    data_attack_of(choices, 2, "x", "y")
    compressor = compressor_of(choices)
    network_of(choices)
    if name == "flip_labels" and not has_classes:
        raise argument_error("attack", "another one for a model whose labels are numbers, no classes", attack)
    if choices["attackers"] >= 1 and choices["attackers"] % 1:
        raise argument_error("attackers", "a share below 1, or a whole number of clients", choices["attackers"])
    if not noise:
        return
    for flag, default in (("aggregator", "mean"), ("bucket_size", 1)):
        if choices[flag] != default:
            raise argument_error(flag, f"left at {default} with noise, which is for a mean", choices[flag])
    if compressor is not None and compressor.error_feedback and choices["sampling"] != "poisson":
        rule = "one with error_feedback=false, with noise and this sampling: what clients keep is counted with poisson"
        raise argument_error("compress", rule, choices["compress"])
    if name in ATTACKS and not isinstance(part_of("attack", ATTACKS, attack), attacks.Oblivious):
        rule = "one of attackers who know nothing of others, with noise: it hides nobody whose update they send on"
        raise argument_error("attack", rule, attack)


def check_cohort(rule: Aggregator, num_clients: int, round_num: int, aggregator: str) -> None:
    """Raise a `ValueError` if a rule cannot do with so many clients as a round has."""
    nothing = rule.initialize((np.zeros(1, np.float32),)), (np.zeros((num_clients, 1), np.float32),)
    try:
        aggregate(rule, *nothing, Cohort.of_weights(np.ones(num_clients)))
    except ValueError as error:
        raise ValueError(f"'aggregator', {aggregator.partition(':')[0]}, in round {round_num}: {error}") from error


def sees_all_at_once(rule: Aggregator | None) -> bool:
    """Return whether all updates of a round are in memory at once, instead of being added up as they come."""
    return rule is not None and summing(rule) is None
