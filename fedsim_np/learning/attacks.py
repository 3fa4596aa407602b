"""Attackers: clients that send what harms the model, or whose data are wrong, as parameters of a simulation.

::

    client data --> [poisoned] --> local training --> updates --> [attack_factory] --> aggregator
                     flip_labels, ...                              sign_flip, ...

Who attacks is given by ids, or by a share: each client by itself, drawn from (seed, client id), and so the same ones in
every round, and in the data as in the updates if the seeds are the same. `choose` takes an exact share of some clients.
Attackers know all updates of the round, if they look at them (`Oblivious`). One that has nothing to send (no examples)
sends nothing.
"""

from __future__ import annotations

import functools
import numbers
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.datasets import ClientData, Dataset
from fedsim_np.datasets.sources import owned
from fedsim_np.errors import (
    DataError,
    NamingClient,
    argument_error,
    argument_type_error,
    check_float,
    check_int,
    check_type,
    data_error,
)
from fedsim_np.learning.aggregators.aggregator import Aggregator, Wrapper, aggregate
from fedsim_np.learning.aggregators.mean import weighted_sums
from fedsim_np.learning.cohort import Cohort, client_stream
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Array, Arrays

Attackers = float | Collection[str]
"""The ids of those who attack, or their share of all clients."""


@dataclass(frozen=True)
class Seen:
    """What attackers know in a round: k clients that count, m attackers among them.

    Attributes
    ----------
    updates : tuple of ndarray, each (k, ...)
    weights : ndarray, shape (k,), float64
        What each counts for in the aggregate.
    attackers, honest : ndarray of int, shapes (m,) and (k - m,)
        Who is who.
    ids : list of str or None
    streams : list of Generator
        Each client's own of this round.
    """

    updates: Arrays
    weights: Array
    attackers: Array
    honest: Array
    ids: list[str | None]
    streams: list[np.random.Generator]

    def honest_mean(self) -> Arrays:
        """Return the plain mean of the honest clients' updates, in float64."""
        shares = np.zeros(len(self.weights))
        shares[self.honest] = 1 / len(self.honest)
        return weighted_sums(self.updates, shares)


Attack = Callable[[Seen], Arrays]
"""What attackers send: for each tensor an array (m, ...), or (...) if all send the same."""


class Oblivious(functools.partial[Arrays]):
    """An attack whose clients look at no update but their own: each sends the same whoever else is there.

    They attack in a round of attackers alone too; and noise on a sum of updates hides others as it would without them.
    One of your own is ``Oblivious(function)``.
    """


def sign_flip(scale: float = 1.0) -> Attack:
    """Return the attack of clients that send their own update in the other direction, `scale` times as long.

    A share a of them leaves 1 - a (1 + scale) of a mean: scale 1 slows it down, scale 1 / a - 1 stops it.
    """
    return Oblivious(_sign_flip, scale=check_float("scale", scale, minimum=0.0))


def _sign_flip(seen: Seen, scale: float) -> Arrays:
    return tuple(-scale * u[seen.attackers] for u in seen.updates)


def gaussian_noise(stddev: float = 1.0) -> Attack:
    """Return the attack of clients that send noise in place of an update, from (seed, round, client id)."""
    return Oblivious(_gaussian_noise, stddev=check_float("stddev", stddev, minimum=0.0))


def _gaussian_noise(seen: Seen, stddev: float) -> Arrays:
    def noise(shape: tuple[int, ...]) -> Array:
        return np.stack([seen.streams[i].normal(scale=stddev, size=shape) for i in seen.attackers])

    return tuple(noise(u.shape[1:]) for u in seen.updates)


def inner_product_manipulation(scale: float) -> Attack:
    """Return the attack of clients that send ``-scale`` times the honest mean (Xie et al. 2020).

    A small scale makes the aggregate's inner product with the true one negative where it hardly looks suspicious.

    References
    ----------
    Xie, Koyejo, Gupta, "Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation", UAI 2019,
    https://arxiv.org/abs/1903.03936
    """
    return functools.partial(_inner_product_manipulation, scale=check_float("scale", scale))


def _inner_product_manipulation(seen: Seen, scale: float) -> Arrays:
    return tuple(-scale * mean for mean in seen.honest_mean())


def a_little_is_enough(z: float) -> Attack:
    """Return the attack of clients that send the honest mean and `z` standard deviations (Baruch et al. 2019).

    Near enough to be taken for honest, always to the same side. The deviation is that of each coordinate over the
    honest clients, of h - 1 degrees of freedom as in ByzFL.

    References
    ----------
    Baruch, Baruch, Goldberg, "A little is enough: circumventing defenses for distributed learning", NeurIPS 2019,
    https://arxiv.org/abs/1902.06156
    """
    return functools.partial(_a_little_is_enough, z=check_float("z", z))


def _a_little_is_enough(seen: Seen, z: float) -> Arrays:
    freedom = min(1, len(seen.honest) - 1)
    deviations = (u[seen.honest].std(axis=0, ddof=freedom, dtype=np.float64) for u in seen.updates)
    return tuple(mean + z * s for mean, s in zip(seen.honest_mean(), deviations, strict=True))


def mimic(victim: str | None = None) -> Attack:
    """Return the attack of clients that all send one honest client's update (Karimireddy et al. 2022).

    Nothing about it looks wrong; that client's data count too much. The victim is the one with this id, or, if it is
    not there, the honest client of the round that comes first in the order of ids.

    References
    ----------
    Karimireddy, He, Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022,
    https://arxiv.org/abs/2006.09365
    """
    return functools.partial(_mimic, victim=victim)


def _mimic(seen: Seen, victim: str | None) -> Arrays:
    copied = min(seen.honest.tolist(), key=lambda i: (seen.ids[i] != victim, str(seen.ids[i])))
    return tuple(u[copied] for u in seen.updates)


def omniscient_negation() -> Attack:
    """Return the attack that turns the mean of all into its negative (Pillutla et al. 2019): all send the same.

    References
    ----------
    Pillutla, Kakade, Harchaoui, "Robust aggregation for federated learning", 2019, https://arxiv.org/abs/1912.13445
    """
    return _omniscient_negation


def _omniscient_negation(seen: Seen) -> Arrays:
    # sum_honest w u + W a = -(sum_honest w u + sum_attackers w u), W the attackers' weight
    shares = -2 * seen.weights
    shares[seen.attackers] /= 2
    return weighted_sums(seen.updates, shares / seen.weights[seen.attackers].sum())


def choose(client_ids: Iterable[str], share: float, seed: int = 0) -> frozenset[str]:
    """Return a share of clients, rounded to a whole number of them, drawn from the seed and their ids.

    Examples
    --------
    >>> sorted(choose([f"c{i}" for i in range(10)], 0.2))
    ['c4', 'c6']
    """
    ids = sorted(client_ids)
    check_int("seed", seed, minimum=0)
    ranking = sorted(ids, key={i: client_stream(i, 0, seed).random() for i in ids}.__getitem__)
    return frozenset(ranking[: round(_checked_share("share", share) * len(ids))])


def _checked_share(name: str, share: Any) -> float:
    if check_float(name, share, minimum=0.0) > 1:
        raise argument_error(name, "a share in [0, 1]", share)
    return float(share)


def _check_attackers(attackers: Attackers, seed: int) -> Attackers:
    check_int("seed", seed, minimum=0)
    if isinstance(attackers, numbers.Real):
        return _checked_share("attackers", attackers)
    if isinstance(attackers, str) or not isinstance(attackers, Collection):
        raise argument_type_error("attackers", "a share, a float in [0, 1], or a collection of clients' ids", attackers)
    return frozenset(attackers)


def _is_attacker(client_id: str | None, attackers: Attackers, seed: int) -> bool:
    if isinstance(attackers, float):
        return client_id is not None and client_stream(client_id, 0, seed).random() < attackers
    return client_id in attackers


def _check_sent(sent: Any, updates: Arrays, m: int) -> None:
    shapes = [u.shape[1:] for u in updates]
    if not isinstance(sent, Sequence) or len(sent) != len(shapes):
        raise argument_error("attack", f"a function that returns a tuple of {len(shapes)} arrays", sent)
    for found, shape in zip(map(np.shape, sent), shapes, strict=True):
        if found not in (shape, (m, *shape)):
            raise argument_error("attack", f"a function that returns arrays {shape} or {(m, *shape)}", found)


@dataclass(frozen=True)
class _Attacked(Wrapper):
    """Made by `attack_factory`."""

    attack: Attack
    attackers: Attackers
    inner: Aggregator
    seed: int

    @property
    def looks_at_one(self) -> bool:
        """If the attack does not look at others."""
        return isinstance(self.attack, Oblivious)

    def initialize(self, trainable: Arrays) -> Any:
        """Return the number of rounds that are over, and the inner aggregator's state."""
        return OrderedDict(round_num=0, inner_agg=self.inner.initialize(trainable))

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Put what attackers send in the place of their updates, and let the inner aggregator make one of all."""
        round_num = int(state["round_num"]) + 1
        attacks = np.array([_is_attacker(i, self.attackers, self.seed) for i in cohort.ids], np.bool_) & cohort.counts
        honest = np.flatnonzero(cohort.counts & ~attacks)
        if attacks.any() and (len(honest) or isinstance(self.attack, Oblivious)):
            updates, cohort = self._forged(round_num, updates, cohort, np.flatnonzero(attacks), honest)
        inner, total, metrics = aggregate(self.inner, state["inner_agg"], updates, cohort)
        return OrderedDict(round_num=round_num, inner_agg=inner), total, self._metrics(metrics, int(attacks.sum()))

    def _forged(
        self, round_num: int, updates: Arrays, cohort: Cohort, attackers: Array, honest: Array
    ) -> tuple[Arrays, Cohort]:
        weights = cohort.counts * (1.0 if self.is_weighted is False else cohort.client_weights)
        streams = list(cohort.streams(round_num, self.seed))
        forged, bad = tuple(u.copy() for u in updates), np.zeros(len(attackers), np.bool_)
        with np.errstate(over="ignore", invalid="ignore"):  # 0 times infinity
            sent = self.attack(Seen(updates, weights, attackers, honest, list(cohort.ids), streams))
            _check_sent(sent, updates, len(attackers))
            for update, of_attackers in zip(forged, sent, strict=True):
                update[attackers] = of_attackers
                bad |= ~np.isfinite(update[attackers]).all(axis=tuple(range(1, update.ndim)))
        # As any other client's, what is not finite is left out: who sends NaN stops no rule.
        for update in forged:
            update[attackers[bad]] = 0
            update.flags.writeable = False
        return forged, cohort.without(attackers[bad]) if bad.any() else cohort

    def initial_metrics(self) -> Metrics | None:
        """Return the inner aggregator's metrics, and a count."""
        inner = self.inner.initial_metrics()
        return None if inner is None else self._metrics(inner, 0)

    def _metrics(self, inner: Metrics, count: int) -> Metrics:
        return OrderedDict(attacked=inner, num_attackers=count)


def attack_factory(attack: Attack, attackers: Attackers, inner: Aggregator, seed: int = 0) -> Aggregator:
    """Build an aggregator some of whose clients attack another one.

    It is to stand in front of all that defends. The metrics are the inner aggregator's under ``attacked``, and
    ``num_attackers``, how many of the round's clients they were. In a round of attackers alone those who would look at
    the honest send their own updates. One who sends what is not finite is left out, as any client is.

    Parameters
    ----------
    attack : callable
        `sign_flip`, `gaussian_noise`, `inner_product_manipulation`, `a_little_is_enough`, `mimic`,
        `omniscient_negation`, each called with its strength; or a function of one's own from `Seen` to what is sent.
    attackers : float or collection of str
        A share of all clients, or ids. Clients without ids are honest.
    inner : Aggregator
        The result is weighted if this is.
    seed : int
        >= 0.

    Returns
    -------
    Aggregator

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> from fedsim_np.learning.aggregators import MeanFactory
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> from fedsim_np.learning import build_weighted_fed_avg, optimizers
    >>> rule = attack_factory(sign_flip(10.0), {"bob"}, MeanFactory())
    >>> process = build_weighted_fed_avg(SoftmaxRegression(2, 2), optimizers.build_sgdm(1.0), model_aggregator=rule)
    >>> batch = {"x": np.ones((1, 2), np.float32), "y": np.zeros((1, 1), np.int32)}
    >>> cohort = [Dataset.from_batches([batch], client_id) for client_id in ("ann", "bob", "cem")]
    >>> state, metrics = process.next(process.initialize(), cohort)
    >>> print(state.global_model_weights.trainable[1], metrics["aggregator"]["num_attackers"])
    [-1.3333334  1.3333334] 1
    """
    if not callable(attack):
        raise argument_type_error("attack", "a function such as sign_flip()", attack)
    check_type("inner", inner, Aggregator, "an Aggregator")
    return _Attacked(attack, _check_attackers(attackers, seed), inner, seed)


DataAttack = Callable[[Mapping[str, Array], np.random.Generator], dict[str, Array]]
"""Fields of a client's examples and its own random stream -> fields that take their place, (n, ...)."""


def flip_labels(num_classes: int, field: str = "label") -> DataAttack:
    """Return the attack on data whose labels y become ``num_classes - 1 - y``."""
    return functools.partial(_flip_labels, num_classes=check_int("num_classes", num_classes, minimum=1), field=field)


def _flip_labels(
    fields: Mapping[str, Array], rng: np.random.Generator, num_classes: int, field: str
) -> dict[str, Array]:
    labels = fields[field]
    return {field: (num_classes - 1 - labels).astype(labels.dtype)}


def shuffle_labels(field: str = "label") -> DataAttack:
    """Return the attack on data whose labels are dealt out to the client's examples anew."""
    return functools.partial(_shuffle_labels, field=field)


def _shuffle_labels(fields: Mapping[str, Array], rng: np.random.Generator, field: str) -> dict[str, Array]:
    return {field: fields[field][rng.permutation(len(fields[field]))]}


def invert_pixels(field: str = "pixels") -> DataAttack:
    """Return the attack on data whose features x, floats in [0, 1], become ``1 - x``: a faulty scanner."""
    return functools.partial(_invert_pixels, field=field)


def _invert_pixels(fields: Mapping[str, Array], rng: np.random.Generator, field: str) -> dict[str, Array]:
    pixels = fields[field]
    if pixels.dtype.kind != "f":  # 1 - x of an unsigned integer is no darker one
        raise data_error("must be floats in [0, 1] to be inverted", pixels.dtype, field=field)
    return {field: 1 - pixels}


def poisoned(client_data: ClientData, attack: DataAttack, attackers: Attackers, seed: int = 0) -> ClientData:
    """Return client data of which the attackers' are wrong.

    Parameters
    ----------
    client_data : ClientData
        Of examples, not of batches.
    attack : callable
        `flip_labels`, `shuffle_labels` or `invert_pixels`, each called, perhaps with the name of the field; or a
        function of one's own.
    attackers : float or collection of str
        As for `attack_factory`.
    seed : int
        >= 0.

    Returns
    -------
    ClientData

    Raises
    ------
    DataError
        When an attacker's data are asked for, if they have no such field, or are batches.

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> data = InMemoryClientData({"ann": {"x": [0.0], "y": [2]}, "bob": {"x": [0.0], "y": [2]}})
    >>> wrong = poisoned(data, flip_labels(10, field="y"), {"bob"})
    >>> [wrong.create_dataset_for_client(client_id).to_arrays()["y"].tolist() for client_id in data.client_ids]
    [[2], [7]]
    """
    if not callable(attack):
        raise argument_type_error("attack", "a function such as flip_labels(10)", attack)
    check_type("client_data", client_data, ClientData, "a ClientData")
    return client_data.preprocess(
        functools.partial(_poisoned, attack=attack, attackers=_check_attackers(attackers, seed), seed=seed)
    )


def _poisoned(dataset: Dataset, attack: DataAttack, attackers: Attackers, seed: int) -> Dataset:
    if not _is_attacker(dataset.client_id, attackers, seed):
        return dataset
    rng = client_stream(str(dataset.client_id), 0, seed)
    rng.random()  # by which attackers are drawn
    if dataset.is_batched:
        raise data_error("must be examples: poison first, then batch", "batches", client_id=dataset.client_id)
    fields = dataset.to_arrays()

    def no_field(name: object) -> DataError:
        rule = f"must have the field {name} that the attack changes"
        return data_error(rule, f"the fields {list(fields)}", client_id=dataset.client_id)

    with NamingClient(dataset.client_id):
        try:
            wrong = attack(fields, rng)
        except KeyError as error:
            raise no_field(error) from error
    for name in set(wrong) - set(fields):
        raise no_field(repr(name))
    return Dataset.from_arrays(owned(OrderedDict(fields, **wrong)), dataset.client_id)
