"""Secure aggregation, to be understood and not to be relied on (Bonawitz et al., CCS 2017).

Usage: python -m fedsim_np.demos.secure_aggregation     (the page for a class: fedsim_np/docs/secure_aggregation.md)

The server is to learn the sum of the clients' updates and no single one. All numbers are integers modulo 2^32. Every
pair of clients has a seed, and every client one of its own; client i uploads

    y_i = x_i + noise(s_ii) + sum of noise(s_ij) over j > i - sum of noise(s_ij) over j < i       (mod 2^32)

In the sum the pairs' noise cancels. Every seed is shared out so that any t clients know it together and fewer know
nothing. When the uploads are in, clients give their shares of s_ii for every i that uploaded, and of s_ij for every i
that uploaded and j that did not: what has not cancelled is taken off. Nobody ever gives shares of both s_ii and all
s_ij of a client: they give none if fewer than t have uploaded; and if a client is late, so that its s_ij are known when
its upload comes, s_ii still hides it.

This is no cryptography: one process draws all seeds, with NumPy's random numbers, and everybody is honest.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from math import prod

import numpy as np

import fedsim_np as fed
from fedsim_np.errors import argument_error, check_int

MODULUS = 2**32
PRIME = 2**61 - 1  # seeds and their shares are integers modulo it


def encode(update, clip, scale):
    """Return floats as integers modulo 2^32, in steps of 1 / scale; -1 is 2^32 - 1."""
    return np.rint(np.clip(np.asarray(update, np.float64), -clip, clip) * scale).astype(np.int64).astype(np.uint32)


def decode(total, scale, modulus=MODULUS):
    """Return sums as floats; integers outside [-modulus / 2, modulus / 2) have wrapped around and come out wrong."""
    total = total.astype(np.int64) % modulus
    return np.where(total < modulus // 2, total, total - modulus) / scale


def noise(seed, size):
    """Return the uniform integers modulo 2^32 that a seed stands for."""
    return np.random.default_rng(seed).integers(MODULUS, size=size, dtype=np.uint32)


def pair(i, j):
    """Return the name of two clients' seed, the same for both; pair(i, i) is client i's own."""
    return min(i, j), max(i, j)


def mask(i, others, seeds, expand):
    """Return what client i adds because of these others, itself among them: what i adds, a later j subtracts."""
    parts = ((expand(seeds[pair(i, j)]), i <= j) for j in others)
    return sum(part if adds else -part for part, adds in parts)


def share(coefficients, k, prime=PRIME):
    """Share out coefficients[0] to k clients: points (x, f(x)), x = 1..k, of a polynomial (Shamir 1979)."""
    return [(x, sum(c * x**power for power, c in enumerate(coefficients)) % prime) for x in range(1, k + 1)]


def reconstruct(points, prime=PRIME):
    """Return f(0), by Lagrange's formula: it takes as many points as f has coefficients."""
    secret = 0
    for x, y in points:
        others = [other for other, _ in points if other != x]
        secret += y * prod(others) * pow(prod(other - x for other in others), -1, prime)
    return secret % prime


def deal(k, threshold, rng):
    """Draw all seeds; return them, and for each client its shares of all of them."""
    names = list(combinations_with_replacement(range(k), 2))
    drawn = rng.integers(PRIME, size=(len(names), threshold), dtype=np.int64).tolist()
    points = zip(*(share(coefficients, k) for coefficients in drawn), strict=True)
    seeds = {name: coefficients[0] for name, coefficients in zip(names, drawn, strict=True)}
    return seeds, [dict(zip(names, of_client, strict=True)) for of_client in points]


def answer(shares, uploaded, threshold):
    """Return the shares that a client gives when it is told who uploaded. It answers once."""
    if len(set(uploaded)) < threshold:  # the sum of a single one would be its update
        raise argument_error("uploaded", f"at least {threshold} clients", sorted(uploaded))
    dropouts = {i for i, _ in shares}.difference(uploaded)
    return {pair(i, j): shares[pair(i, j)] for i in uploaded for j in {i} | dropouts}


def unmask(uploads, answers, k, threshold, expand):
    """Return the sum (mod 2^32) of those who uploaded, {client: y}, from what at least `threshold` clients answer."""
    if len(answers) < threshold:
        raise argument_error("answers", f"those of at least {threshold} clients", f"{len(answers)} of {k}")
    dropouts, total = set(range(k)).difference(uploads), sum(uploads.values())
    for i in uploads:
        left = {i} | dropouts
        seeds = {pair(i, j): reconstruct([given[pair(i, j)] for given in answers[:threshold]]) for j in left}
        total = total - mask(i, left, seeds, expand)
    return total


def secure_sum(encoded, uploaded, threshold, rng):
    """Run the protocol on integers (k, size), with uploads of some; return their sum, and the uploads."""
    k, size = encoded.shape
    expand = partial(noise, size=size)
    seeds, shares = deal(k, threshold, rng)
    uploads = {i: encoded[i] + mask(i, range(k), seeds, expand) for i in uploaded}
    return unmask(uploads, [answer(shares[i], uploaded, threshold) for i in uploaded], k, threshold, expand), uploads


def flat(updates):
    """Return the updates' tensors side by side, (k, size)."""
    return np.concatenate([u.reshape(len(u), -1) for u in updates], axis=1)


@dataclass(frozen=True)
class SecureMean(fed.learning.aggregators.CohortAggregator):
    """The unweighted mean of those who uploaded; clients of the ids `dropouts` have dealt their seeds and are gone."""

    threshold: int
    clip: float = 4.0
    scale: float = 2.0**16
    dropouts: Collection[str] = ()
    seed: int = 0
    is_weighted = False

    def initialize(self, trainable):
        """Return the number of rounds that are over: no seed serves twice."""
        return 0

    def next_of_cohort(self, state, updates, cohort):
        """Return the mean, or raise if too few uploaded or the sum could wrap around."""
        k, threshold = len(cohort), check_int("threshold", self.threshold, minimum=2)
        gone = [client_id for client_id in cohort.ids if client_id in self.dropouts]
        if k - len(gone) < threshold:
            raise argument_error("dropouts", f"few enough to leave {threshold} of the round's {k} clients", gone)
        if not 0 < k * np.rint(self.clip * self.scale) < MODULUS // 2:
            rule = f"> 0 and such that k * clip * scale < 2^31, with k = {k} and clip = {self.clip:g}"
            raise argument_error("scale", rule, self.scale)
        uploaded = [i for i, client_id in enumerate(cohort.ids) if client_id not in self.dropouts]
        encoded = encode(flat(updates), self.clip, self.scale)
        total, _ = secure_sum(encoded, uploaded, threshold, np.random.default_rng([self.seed, state]))
        parts = np.split(decode(total, self.scale) / len(uploaded), np.cumsum([u[0].size for u in updates])[:-1])
        mean = tuple(part.reshape(u.shape[1:]).astype(u.dtype) for part, u in zip(parts, updates, strict=True))
        return state + 1, mean, OrderedDict(uploaded=len(uploaded))


def chi_square(integers):
    """Return how many lie in each sixteenth of the range, and chi-square: below 25 for 95 % of uniform vectors."""
    counts = np.bincount(integers >> np.uint32(28), minlength=16)
    return counts, float(((counts - counts.mean()) ** 2).sum() / counts.mean())


def build(aggregator=None):
    """Compose unweighted federated averaging, by default with the plain mean."""
    model, optimizer = fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02)
    return fed.learning.build_unweighted_fed_avg(model, optimizer, model_aggregator=aggregator)


def load_cohort():
    """Return the ids of ten of the sample's writers, and their batches."""
    writers, _ = fed.datasets.load_sample()
    ids = writers.client_ids[:10]
    return ids, [writers.create_dataset_for_client(c).batch(20).select(x="pixels", y="label") for c in ids]


def main():
    """Show one round as the server sees it, then three rounds beside the plain mean, with and without dropouts."""
    ids, cohort = load_cohort()
    encoded = encode(flat(fed.learning.client_updates(build(), build().initialize(), cohort)), 4.0, 2**16)
    total, uploads = secure_sum(encoded, range(10), 6, np.random.default_rng(1))
    for what, integers in (("update of client 0", encoded[0]), ("its upload", uploads[0])):
        counts, statistic = chi_square(integers)
        print(f"{what}: in each sixteenth of the range {counts.tolist()}, chi-square {statistic:.0f}")
    print(f"the server's sum is the sum of the integers: {np.array_equal(total, encoded.sum(axis=0, dtype=np.uint32))}")
    for gone in (), ids[4:8]:
        plain, secure = build(), build(SecureMean(threshold=6, dropouts=gone))
        state, there = secure.initialize(), [data for data in cohort if data.client_id not in gone]
        for round_num in range(1, 4):
            same = plain.set_model_weights(plain.initialize(), secure.get_model_weights(state))
            state, metrics = secure.next(state, cohort)
            models = secure.get_model_weights(state), plain.get_model_weights(plain.next(same, there).state)
            off = max(float(np.abs(a - b).max()) for a, b in zip(*(m.trainable for m in models), strict=True))
            print(f"round {round_num}, {metrics['aggregator']['uploaded']} of 10: off the plain mean by {off:.1e}")
            assert off < 0.5 / 2**16 + 1e-6  # 1 / (2 scale), and float32's rounding
    try:
        build(SecureMean(threshold=6, dropouts=ids[4:9])).next(secure.initialize(), cohort)
    except ValueError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main()
