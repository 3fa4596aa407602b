"""Bucketing: means of a few clients each, in front of a rule that would take clients who differ for attackers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import check_int, check_type
from fedsim_np.learning.aggregators.aggregator import Aggregator, Wrapper, aggregate
from fedsim_np.learning.aggregators.mean import MeanFactory
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.metrics import Metrics
from fedsim_np.trees import Arrays


@dataclass(frozen=True)
class _Bucketing(Wrapper):
    """Made by `bucketing_factory`."""

    bucket_size: int
    inner: Aggregator
    seed: int

    def initialize(self, trainable: Arrays) -> Any:
        """Return the number of rounds that are over, and the inner aggregator's state."""
        return OrderedDict(round_num=0, inner_agg=self.inner.initialize(trainable))

    def next_of_cohort(self, state: Any, updates: Arrays, cohort: Cohort) -> tuple[Any, Arrays, Metrics]:
        """Put the clients that count into buckets, and let the inner aggregator make one update of the means."""
        round_num = int(state["round_num"]) + 1
        streams = cohort.streams(round_num, self.seed)
        order = sorted(np.flatnonzero(cohort.counts).tolist(), key=[rng.random() for rng in streams].__getitem__)
        buckets = [order[i : i + self.bucket_size] for i in range(0, len(order), self.bucket_size)]
        means = tuple(np.empty((len(buckets), *u.shape[1:]), u.dtype) for u in updates)
        weights = np.array([cohort.client_weights[bucket].sum() for bucket in buckets])
        for b, bucket in enumerate(buckets):
            of_bucket = tuple(u[bucket] for u in updates)
            _, mean, _ = MeanFactory().next((), of_bucket, cohort.client_weights[bucket])
            for out, m in zip(means, mean, strict=True):
                out[b] = m
        inner, total, metrics = aggregate(self.inner, state["inner_agg"], means, Cohort.of_weights(weights))
        return OrderedDict(round_num=round_num, inner_agg=inner), total, metrics

    def bytes_up(self, weights: Arrays) -> int:
        """Return the bytes of a whole update: the inner aggregator sees means, which nobody sends."""
        return sum(w.nbytes for w in weights)

    def initial_metrics(self) -> Metrics | None:
        """Return the inner aggregator's."""
        return self.inner.initial_metrics()


def bucketing_factory(bucket_size: int, inner: Aggregator, seed: int = 0) -> Aggregator:
    """Build an aggregator that gives another one the means of a few clients each, in place of their updates.

    Means differ less from each other than the clients do: a rule such as Krum then takes fewer honest ones for
    attackers. An attacker spoils its whole bucket, so that the inner rule must bear as many of k / s as before of k.
    Who shares a bucket is drawn anew every round, from (seed, round, client id).

    Parameters
    ----------
    bucket_size : int
        s >= 1; the last bucket may have fewer clients.
    inner : Aggregator
        What the buckets' means are given to, each of the weight of all its clients, which are weighted in the mean.
        The result is weighted if this is.
    seed : int
        >= 0.

    Returns
    -------
    Aggregator

    References
    ----------
    Karimireddy, He, Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR 2022,
    https://arxiv.org/abs/2006.09365

    Examples
    --------
    >>> from fedsim_np.learning.aggregators import MedianFactory
    >>> rule = bucketing_factory(2, MedianFactory(), seed=0)
    >>> updates = (np.float32([[1.0], [2.0], [3.0], [4.0], [99.0]]),)
    >>> rule.next(rule.initialize((np.zeros(1, np.float32),)), updates, np.ones(5))[1]
    (array([4.], dtype=float32),)
    """
    check_int("bucket_size", bucket_size, minimum=1)
    check_int("seed", seed, minimum=0)
    return _Bucketing(bucket_size, check_type("inner", inner, Aggregator, "an Aggregator"), seed)
