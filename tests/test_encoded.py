"""Means of quantized updates: TFF's figures, and what its random rounding promises."""

import json
import math

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed
from fedsim_np.learning import aggregators, attacks
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.type_signatures import type_of_initialize


def quantized(updates, weights=None, ids=None, rounds=1, **arguments):
    """The aggregate of the last of some rounds of the same updates, one tensor (k, ...)."""
    aggregator = aggregators.quantized_mean_factory(**{"threshold": 0, **arguments})
    updates = np.asarray(updates)
    weights = np.ones(len(updates)) if weights is None else np.asarray(weights, np.float64)
    state = aggregator.initialize((updates[0],))
    cohort = Cohort(
        ids or [None] * len(updates), None, weights, np.zeros(len(updates)), None, lambda: [1] * len(updates)
    )
    for _ in range(rounds):
        state, (mean,), metrics = aggregators.aggregate(aggregator, state, (updates,), cohort)
        assert dict(metrics) == {"mean_value": (), "mean_weight": ()}
    return mean


def test_all_of_tffs_calls(shared):
    stored = json.loads((shared / "goldens" / "more" / "aggregators_on_arrays.json").read_text(encoding="utf-8"))
    shapes = [(3, 4), (2,)]
    for name, (_, arguments) in stored["aggregators"]["quantized"].items():
        for case, rounds in stored["calls"]["quantized"].items():
            if case == "nobody":
                continue  # a sum of 0, and no mean
            aggregator = aggregators.quantized_mean_factory(**arguments)
            state = aggregator.initialize(tuple(np.zeros(shape, np.float32) for shape in shapes))
            assert state == {"value_sum_process": ((), ()), "weight_sum_process": ()}
            for clients, expected in zip(rounds, stored["results"][name][case], strict=True):
                k = len(clients)
                updates = tuple(np.array([c[i] for c in clients], np.float32) for i in range(2))
                state, mean, _ = aggregator.next(state, updates, np.ones(k))
                for got, wanted in zip(mean, expected["result"], strict=True):
                    np.testing.assert_allclose(got * np.float32(k), np.float32(wanted), rtol=1e-6, atol=1e-6)
    for case in stored["packed"]:
        sent = {name.split("/")[-1]: shape[0] for name, (_, shape) in case["sent"].items()}
        aggregator = aggregators.quantized_mean_factory(case["bits"], threshold=0)
        assert aggregators.bytes_up(aggregator, (np.zeros(case["elements"], np.float32),)) == 4 * sum(sent.values())


def test_two_bits_by_hand():
    # 2 u = 0, 2, 5, 6 in steps of 2: 5 is half way, and goes to the even step
    assert quantized([[0.0, 1.0, 2.5, 3.0]], [2.0], quantization_bits=2, stochastic=False).tolist() == [0, 1, 2, 3]
    # a range from outside clips: 0, .25, 1, 1 in steps of 1/3
    given = quantized([[-1.0, 0.25, 1.5, 9.0]], quantization_bits=2, stochastic=False, min_max=[0.0, 1.0])
    np.testing.assert_allclose(given, [0, 1 / 3, 1, 1])


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_tensor_that_is_a_number(stochastic):
    given = {"stochastic": stochastic, "quantization_bits": 1}
    assert quantized(np.float32([1.0, 3.0]), min_max=[0.0, 1.0], **given) == 1
    assert quantized(np.float32([1.0, 3.0]), **given) == 2
    assert np.isnan(quantized(np.float32([1.0, np.nan]), **given))


def test_tensors_at_the_threshold_are_left_alone():
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(3, 12)).astype(np.float32), rng.normal(size=(3, 13)).astype(np.float32)
    weights, like = np.array([1.0, 2.0, 3.0]), tuple(np.zeros(n, np.float32) for n in (12, 13))
    aggregator, mean = aggregators.quantized_mean_factory(1, threshold=12), aggregators.MeanFactory()
    got, expected = (a.next(a.initialize(like), updates, weights)[1] for a in (aggregator, mean))
    np.testing.assert_array_equal(got[0], expected[0])
    assert (got[1] != expected[1]).any()


def test_below_the_threshold_it_is_the_robust_aggregator_to_the_bit():
    results = []
    for build in (aggregators.compression_aggregator, aggregators.robust_aggregator):
        process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.5), model_aggregator=build())
        state = process.initialize()
        for _ in range(3):
            state, metrics = process.next(state, random_cohort([4, 7, 0, 9], batch=3))
        results.append((state.global_model_weights.trainable, metrics))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("stochastic", [True, False])
def test_no_number_is_further_off_than_promised(bits, stochastic):
    value = np.random.default_rng(bits).normal(size=(1, 500))
    step = np.ptp(value) / (2**bits - 1)
    off = np.abs(quantized(value, quantization_bits=bits, stochastic=stochastic) - value[0])
    assert off.max() <= step * (1 if stochastic else 0.5) * (1 + 1e-9)
    assert off.max() > step * 0.4
    for end in (value[0].argmin(), value[0].argmax()):
        assert off[end] <= 1e-15


@pytest.mark.parametrize("stochastic", [True, False])
def test_constants_are_exact(stochastic):
    for constant in (np.float32(0.1), np.float32(-3e38), np.float32(1e-45), np.float32(0)):
        got = quantized(np.full((1, 7), constant), stochastic=stochastic, quantization_bits=3)
        assert got.tolist() == [float(constant)] * 7


def test_random_rounding_is_right_on_average():
    value = np.float32([[0.0, 0.125, 0.25, 0.5, 0.9375, 1.0]])
    draws, share = 2000, value[0].astype(np.float64)  # one bit: 0 or 1
    aggregator = aggregators.quantized_mean_factory(1, threshold=0, seed=3)
    state, rows = aggregator.initialize((value[0],)), []
    for _ in range(draws):
        state, (mean,), _ = aggregator.next(state, (value,), np.ones(1))
        rows.append(mean)
    rows = np.array(rows)
    assert set(np.unique(rows)) == {0, 1}
    spread = np.sqrt(share * (1 - share))
    np.testing.assert_array_less(np.abs(rows.mean(axis=0) - share), 4 * spread / math.sqrt(draws) + 1e-12)
    # Rounds and coordinates have nothing to do with each other.
    unit = (rows - share)[:, 1:5] / spread[1:5]
    assert np.abs(unit.T @ unit / draws - np.eye(4)).max() < 0.12
    assert np.abs((unit[1:] * unit[:-1]).mean(axis=0)).max() < 4 / math.sqrt(draws)


def test_roundings_are_of_seed_round_and_client():
    value = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    first = quantized(value, ids=["a", "b"], seed=1)
    np.testing.assert_array_equal(first, quantized(value, ids=["a", "b"], seed=1))
    np.testing.assert_allclose(first, quantized(value[::-1], ids=["b", "a"], seed=1), rtol=1e-6)
    for other in ({"seed": 2}, {"rounds": 2}, {"ids": ["a", "c"]}):
        assert (first != quantized(value, **{"ids": ["a", "b"], "seed": 1, **other})).mean() > 0.1


def test_what_is_not_finite_makes_its_tensor_nan():
    for bad in (np.nan, np.inf, -np.inf):
        assert np.isnan(quantized(np.float32([[0.0, 1.0, bad], [0.0, 1.0, 2.0]]))).all()
    assert np.isnan(quantized(np.float32([[3e38, -3e38, 0.0]]))).all()  # a range beyond float32


@pytest.mark.parametrize("weighted", [True, False])
def test_signatures_are_tffs_where_nothing_is_drawn(weighted):
    build = fed.learning.build_weighted_fed_avg if weighted else fed.learning.build_unweighted_fed_avg
    sums = "value_sum_process=<<>,<>>,weight_sum_process=<>" if weighted else "<<>,<>>,<>"
    for arguments, drawn in (({"stochastic": False, "threshold": 0}, False), ({}, False), ({"threshold": 0}, True)):
        rule = aggregators.compression_aggregator(zeroing=False, clipping=False, weighted=weighted, **arguments)
        process = build(toy_model, sgd(0.5), model_aggregator=rule)
        of_rule = f"<round_num=int32,mean=<{sums}>>" if drawn else f"<{sums}>"
        assert f"aggregator={of_rule}," in str(process.initialize.type_signature)
        assert process.initialize.type_signature == type_of_initialize(
            process.next(process.initialize(), random_cohort([3, 4])).state
        )
    assert aggregators.quantized_mean_factory(stochastic=False).initialize((np.zeros(3),))["value_sum_process"] == ()


def test_rounds_without_anybody_keep_the_model():
    rule = aggregators.compression_aggregator(threshold=0)
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.5), model_aggregator=rule)
    for cohort in ([], random_cohort([0, 0])):
        state, metrics = process.next(process.initialize(), cohort)
        assert metrics["finalizer"]["update_non_finite"] == 1
        assert not any(w.any() for w in state.global_model_weights.trainable)


def test_what_is_refused():
    for wrong, message in [
        ({"quantization_bits": 0}, "'quantization_bits' must be an integer >= 1"),
        ({"quantization_bits": 17}, r"'quantization_bits' must be an integer in \[1, 16\]"),
        ({"threshold": -1}, "'threshold' must be an integer >= 0"),
        ({"stochastic": "no"}, "'stochastic' must be True or False"),
        ({"min_max": [1.0, 1.0]}, "'min_max' must be None or two floats, the smaller one first"),
        ({"min_max": 1.0}, "'min_max' must be None or two floats"),
        ({"min_max": [0.0, math.inf]}, "'min_max' must be a finite float"),
        ({"seed": -1}, "'seed' must be an integer >= 0"),
    ]:
        for build in (aggregators.quantized_mean_factory, aggregators.compression_aggregator):
            with pytest.raises((ValueError, TypeError), match=message):
                build(**wrong)
    with pytest.raises(TypeError, match="'model_aggregator' must be an unweighted Aggregator"):
        fed.learning.build_unweighted_fed_avg(
            toy_model, sgd(0.5), model_aggregator=aggregators.quantized_mean_factory()
        )


def test_what_a_message_takes_goes_through_what_stands_in_front():
    rule, weights = (
        aggregators.quantized_mean_factory(8, threshold=100),
        (np.zeros((784, 10), np.float32), np.zeros(10, np.float32)),
    )
    packed = 4 * (2240 + 2 + 10)
    for wrapped in (
        rule,
        aggregators.clipping_factory(1.0, rule),
        aggregators.zeroing_factory(1.0, aggregators.add_debug_measurements(rule)),
        attacks.attack_factory(attacks.sign_flip(), 0.1, rule),
        aggregators.compression_aggregator(threshold=100),
    ):
        assert isinstance(wrapped, aggregators.SaysBytes)
        assert aggregators.bytes_up(wrapped, weights) == packed
    assert aggregators.bytes_up(aggregators.quantized_mean_factory(8, 100, min_max=[-1, 1]), weights) == packed - 8
    for plain in (aggregators.MeanFactory(), aggregators.bucketing_factory(2, rule), aggregators.robust_aggregator()):
        assert aggregators.bytes_up(plain, weights) == 4 * 7850
