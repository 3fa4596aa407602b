"""Robust rules: figures of ByzFL, writings of their own from the papers, breakdown points, the order of the clients."""

import json
import math
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import GOLDENS, random_cohort, sgd, toy_model
from hypothesis import given, settings

import fedsim_np as fed
from fedsim_np.learning import aggregators
from fedsim_np.learning.cohort import Cohort

RULES = {
    "median": aggregators.MedianFactory(),
    "trimmed_mean": aggregators.TrimmedMeanFactory(0.25),
    "krum": aggregators.KrumFactory(2),
    "multi_krum": aggregators.KrumFactory(2, num_selected=4),
    "geometric_median": aggregators.GeometricMedianFactory(),
    "centred_clipping": aggregators.CenteredClippingFactory(0.7, num_iterations=2),
    "bulyan": aggregators.BulyanFactory(2),
}


def once(rule, updates, weights=None, state=None):
    """The first round: the aggregate."""
    updates = fed.trees.freeze(tuple(np.asarray(u, np.float32) for u in updates))  # read-only, as in a round
    weights = np.ones(len(updates[0])) if weights is None else np.asarray(weights, np.float64)
    state = rule.initialize(tuple(u[0] for u in updates)) if state is None else state
    return rule.next(state, updates, weights)[1]


def test_byzfl():
    rows = json.loads((GOLDENS / "byzfl.json").read_text(encoding="utf-8"))
    assert len(rows) == 20
    for row in rows:
        x, f = np.array(row["x"]), row["f"]
        k = len(x)
        for name, rule in {
            "median": aggregators.MedianFactory(),
            "trimmed_mean": aggregators.TrimmedMeanFactory((f + 0.5) / k),
            "krum": aggregators.KrumFactory(f),
            "multi_krum": aggregators.KrumFactory(f, num_selected=k - f - 1),
        }.items():
            np.testing.assert_allclose(once(rule, [x])[0], row[name], atol=1e-6)
        centred = x - x.mean(axis=0)
        rfa = aggregators.GeometricMedianFactory(3, smoothing=0.1)
        np.testing.assert_allclose(once(rfa, [centred])[0], row["geometric_median"], atol=1e-6)
        clipping = aggregators.CenteredClippingFactory(1.5, num_iterations=3)
        state, (moved,), _ = clipping.next(clipping.initialize((np.float32(x[0]),)), (np.float32(x),), np.ones(k))
        np.testing.assert_allclose(moved, row["centred_clipping"], atol=1e-6)
        again = once(clipping, [x[:-1]], state=state)[0]
        np.testing.assert_allclose(again, row["centred_clipping_again"], atol=1e-6)


# Written from the papers, one client and one coordinate after the other, in float64.


def plain_median(x, weights):
    middle = [sorted(column) for column in x.T]
    k = len(x)
    return [c[k // 2] if k % 2 else (c[k // 2 - 1] + c[k // 2]) / 2 for c in middle]


def plain_trimmed_mean(x, weights):
    off = len(x) // 4
    return [sum(sorted(column)[off : len(x) - off]) / (len(x) - 2 * off) for column in x.T]


def krum_scores(x, f):
    distances = [sorted(sum((a - b) ** 2) for j, b in enumerate(x) if j != i) for i, a in enumerate(x)]
    return [sum(row[: len(x) - f - 2]) for row in distances]


def plain_krum(x, weights, f=2, selected=1):
    scores = krum_scores(x, f)
    best = sorted(range(len(x)), key=scores.__getitem__)[:selected]
    return sum(x[i] for i in best) / selected


def plain_bulyan(x, weights, f=2):
    scores, k = krum_scores(x, f), len(x)
    chosen = x[sorted(range(k), key=scores.__getitem__)[: k - 2 * f]]
    result = []
    for column in chosen.T:
        middle = np.median(column)
        result.append(np.mean(sorted(sorted(column), key=lambda v, m=middle: abs(v - m))[: k - 4 * f]))
    return result


def plain_geometric_median(x, weights):
    alphas = weights / sum(weights)
    v = sum(a * u for a, u in zip(alphas, x, strict=True))
    for _ in range(3):
        betas = [a / max(1e-6, math.sqrt(sum((v - u) ** 2))) for a, u in zip(alphas, x, strict=True)]
        v = sum(b * u for b, u in zip(betas, x, strict=True)) / sum(betas)
    return v


def plain_centred_clipping(x, weights):
    v = np.zeros(x.shape[1])
    for _ in range(2):
        v = v + sum((u - v) * min(1, 0.7 / math.sqrt(sum((u - v) ** 2))) for u in x) / len(x)
    return v


PLAIN = {
    "median": plain_median,
    "trimmed_mean": plain_trimmed_mean,
    "krum": plain_krum,
    "multi_krum": lambda x, weights: plain_krum(x, weights, selected=4),
    "geometric_median": plain_geometric_median,
    "centred_clipping": plain_centred_clipping,
    "bulyan": plain_bulyan,
}


@pytest.mark.parametrize("name", RULES)
def test_plain_writings(name):
    for seed in range(20):
        rng = np.random.default_rng([7, seed])
        k = int(rng.integers(11, 17))
        updates = tuple(rng.normal(size=(k, *shape)).astype(np.float32) for shape in ((3, 2), (2,), ()))
        weights = rng.integers(1, 9, k).astype(np.float64)
        x = np.concatenate([u.reshape(k, -1) for u in updates], axis=1).astype(np.float64)
        got = np.concatenate([a.ravel() for a in once(RULES[name], updates, weights)])
        np.testing.assert_allclose(got, PLAIN[name](x, weights), atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_blocks_change_nothing_but_memory(name, monkeypatch):
    rng = np.random.default_rng(3)
    updates = rng.normal(size=(13, 40, 5)).astype(np.float32), rng.normal(size=(13, 7)).astype(np.float32)
    whole = once(RULES[name], updates)
    monkeypatch.setattr(aggregators.coordinates, "_BLOCK", 150)
    for a, b in zip(whole, once(RULES[name], updates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    in_fortran_order = tuple(np.asfortranarray(u) for u in updates)
    for a, b in zip(whole, once(RULES[name], in_fortran_order), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_no_second_copy(name, monkeypatch):
    monkeypatch.setattr(aggregators.coordinates, "_BLOCK", 2**14)
    updates = (np.random.default_rng(0).normal(size=(100, 100, 120)).astype(np.float32),)
    tracemalloc.start()
    once(RULES[name], updates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < updates[0].nbytes / 2


@given(st.integers(1, 5), st.lists(st.integers(0, 7), max_size=4).map(tuple), st.integers(1, 40))
def test_blocks_are_small_whatever_the_shape(k, shape, most):
    seen, before = np.zeros(shape, np.int64), aggregators.coordinates._BLOCK
    updates = np.arange(k * seen.size).reshape(k, *shape)
    try:
        aggregators.coordinates._BLOCK = most
        for index, block in aggregators.coordinates.blocks(updates):
            assert block.size <= max(most, k)  # a number of each client at least
            seen[index] += 1
            np.testing.assert_array_equal(block[0], np.ravel(updates[0][index]))
    finally:
        aggregators.coordinates._BLOCK = before
    assert (seen == 1).all()


@given(st.sampled_from(sorted(RULES)), st.integers(0, 99), st.integers(11, 20))
def test_the_order_of_the_clients_changes_nothing(name, seed, k):
    rng = np.random.default_rng(seed)
    updates, order = (rng.normal(size=(k, 5)).astype(np.float32),), rng.permutation(k)
    weights = rng.integers(1, 9, k)
    a, b = once(RULES[name], updates, weights)[0], once(RULES[name], (updates[0][order],), weights[order])[0]
    if name in ("median", "trimmed_mean", "bulyan"):
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_two_nearest_to_each_other_tie():
    # Of three clients each has one neighbour: the first two have the same score, and the smaller norm decides.
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        assert once(aggregators.KrumFactory(0), [np.array([[1.0], [1.5], [9.0]])[order]])[0].tolist() == [1.0]


@given(st.integers(0, 99), st.floats(1e2, 1e8), st.booleans())
@settings(max_examples=30)
def test_breakdown_points(seed, far, together):
    # As many attackers as each rule promises to bear do not take it out of the honest clients' ball of radius 4 (six
    # coordinates of standard deviation 1/3); one more takes a median wherever they want.
    rng = np.random.default_rng(seed)
    k = 15
    honest = rng.normal(scale=1 / 3, size=(k, 6))

    def attacked(f):
        x = honest.copy()
        x[:f] = far * (1 if together else rng.normal(size=(f, 6)))
        return x

    for rule, bears in [
        (aggregators.MedianFactory(), 7),
        (aggregators.TrimmedMeanFactory(0.4), 6),
        (aggregators.KrumFactory(6), 6),
        (aggregators.KrumFactory(6, num_selected=9), 6),
        (aggregators.BulyanFactory(3), 3),
        (aggregators.GeometricMedianFactory(200), 7),
        (aggregators.CenteredClippingFactory(1.0, 10), 6),
    ]:
        moved = np.linalg.norm(once(rule, [attacked(bears)])[0])
        # Clipped differences of f attackers move by at most tau f / k an iteration, those of the others pull back.
        assert moved < (10 if isinstance(rule, aggregators.CenteredClippingFactory) else 4), (rule, moved)
    if together:
        for rule in (aggregators.MedianFactory(), aggregators.TrimmedMeanFactory(0.4)):
            assert np.linalg.norm(once(rule, [attacked(8)])[0]) > far / 10
        assert np.linalg.norm(once(aggregators.MeanFactory(), [attacked(1)])[0]) > far / 10


def test_identities():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(9, 4)), rng.integers(1, 9, 9)
    mean = x.mean(axis=0)
    for rule in (
        aggregators.TrimmedMeanFactory(0.0),
        aggregators.KrumFactory(0, num_selected=9),
        aggregators.BulyanFactory(0),
        aggregators.CenteredClippingFactory(1e9),
    ):
        np.testing.assert_allclose(once(rule, [x], weights)[0], mean, atol=1e-6)
    # Far apart in comparison with the smoothing's length, all at one point, or so smooth that it is the weighted mean.
    smooth = aggregators.GeometricMedianFactory(1, smoothing=1e9)
    np.testing.assert_allclose(once(smooth, [x], weights)[0], np.average(x, axis=0, weights=weights), atol=1e-6)
    for rule in RULES.values():
        same = np.tile(np.float32([[0.25, -0.5]]), (11, 1))
        np.testing.assert_allclose(once(rule, [same])[0], [0.25, -0.5], atol=1e-6)
    # 29 of 100, though 0.29 * 100 is a bit less in floats.
    assert once(aggregators.TrimmedMeanFactory(0.29), [[[0.0]] * 71 + [[1e9]] * 29])[0].tolist() == [0.0]
    # Something is left, however near to a half.
    almost = aggregators.TrimmedMeanFactory(np.nextafter(0.5, 0))
    assert [once(almost, [[[1.0], [2.0], [9.0]][:k]])[0].tolist() for k in (1, 2, 3)] == [[1.0], [1.5], [2.0]]


def cohort_of(ids, weights):
    k = len(ids)
    return Cohort(ids, None, np.asarray(weights, np.float64), np.ones(k), None, lambda: [1] * k)


def test_buckets():
    rng = np.random.default_rng(2)
    x, weights, ids = rng.normal(size=(10, 3)).astype(np.float32), rng.integers(1, 5, 10), [f"c{i}" for i in range(10)]
    seen = []

    class Looks(aggregators.MedianFactory):
        def next(self, state, updates, client_weights):
            seen.append((updates[0], client_weights))
            return super().next(state, updates, client_weights)

    rule = aggregators.bucketing_factory(3, Looks(), seed=4)
    first = rule.initialize((x[0],))
    state, (a,), _ = rule.next_of_cohort(first, (x,), cohort_of(ids, weights))
    order = rng.permutation(10)
    _, (b,), _ = rule.next_of_cohort(first, (x[order],), cohort_of([ids[i] for i in order], weights[order]))
    np.testing.assert_array_equal(a, b)  # who shares a bucket is a matter of ids
    rule.next_of_cohort(state, (x,), cohort_of(ids, weights))
    (buckets, of_buckets), _, (others, _) = seen
    assert len(buckets) == 4
    np.testing.assert_allclose(
        np.average(buckets, axis=0, weights=of_buckets), np.average(x, axis=0, weights=weights), 1e-5
    )
    assert of_buckets.sum() == weights.sum()
    assert not np.isclose(buckets[0], others).all(axis=1).any()  # the next round's are others
    # One client a bucket is the rule itself; all in one, the mean.
    for inner in RULES.values():
        alone = aggregators.bucketing_factory(1, inner)
        wide = np.concatenate([x, x + 1])
        np.testing.assert_allclose(once(alone, [wide])[0], once(inner, [wide])[0], rtol=1e-5, atol=1e-7)
    all_in_one = aggregators.bucketing_factory(10, aggregators.MedianFactory())
    np.testing.assert_allclose(once(all_in_one, [x], weights)[0], np.average(x, axis=0, weights=weights), rtol=1e-5)


def test_what_is_refused():
    x = [np.zeros((10, 2))]
    for rule, message in [
        (aggregators.KrumFactory(4), "'num_byzantine' must be so small that there are the 11 clients that Krum needs"),
        (aggregators.BulyanFactory(2), "the 11 clients that Bulyan needs. Got '2, and a cohort of 10 clients"),
        (aggregators.KrumFactory(3, num_selected=8), "'num_selected' must be at most 7, the honest ones of 10 clients"),
        (aggregators.bucketing_factory(2, aggregators.KrumFactory(2)), "the 7 clients that Krum needs"),
    ]:
        with pytest.raises(ValueError, match=message):
            once(rule, x)
    for build, message in [
        (lambda: aggregators.TrimmedMeanFactory(0.5), "'trim_fraction' must be a finite float >= 0 and < 0.5"),
        (lambda: aggregators.KrumFactory(-1), "'num_byzantine' must be an integer >= 0"),
        (lambda: aggregators.KrumFactory(1, 0), "'num_selected' must be an integer >= 1"),
        (lambda: aggregators.BulyanFactory(1.5), "'num_byzantine' must be an integer >= 0"),
        (lambda: aggregators.GeometricMedianFactory(0), "'num_iterations' must be an integer >= 1"),
        (lambda: aggregators.GeometricMedianFactory(3, 0.0), "'smoothing' must be a finite float > 0"),
        (lambda: aggregators.CenteredClippingFactory(0.0), "'clipping_norm' must be a finite float > 0"),
        (lambda: aggregators.bucketing_factory(0, RULES["krum"]), "'bucket_size' must be an integer >= 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError, match="'inner' must be an Aggregator"):
        aggregators.bucketing_factory(2, aggregators.MedianFactory)


def test_clients_that_do_not_count_are_not_seen():
    # Three of ten have no examples: as updates of zero they would draw a median towards zero.
    sizes = [4, 0, 5, 0, 6, 0, 4, 5, 6, 7]
    for rule in (
        aggregators.MedianFactory(),
        aggregators.clipping_factory(1e9, aggregators.MedianFactory()),
        aggregators.bucketing_factory(1, aggregators.add_debug_measurements(aggregators.MedianFactory())),
    ):
        for build in (fed.learning.build_weighted_fed_avg, fed.learning.build_unweighted_fed_avg):
            process = build(toy_model, sgd(0.5), model_aggregator=rule)
            state, cohort = process.initialize(), random_cohort(sizes, batch=3)
            with_all = process.next(state, cohort).state.global_model_weights.trainable
            without = process.next(state, [c for c, n in zip(cohort, sizes, strict=True) if n])
            for a, b in zip(with_all, without.state.global_model_weights.trainable, strict=True):
                np.testing.assert_array_equal(a, b)
            nobody = process.next(state, random_cohort([0, 0]))
            assert nobody.metrics["finalizer"]["update_non_finite"] == 1
