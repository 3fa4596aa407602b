"""Means with noise: TFF's figures without any, and the noise itself by statistics with a fixed seed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed
from fedsim_np.learning import Cohort, aggregators

DP = aggregators.DifferentiallyPrivateFactory


def make(kind, arguments):
    return getattr(DP, kind)(**arguments) if kind.startswith("gaussian") else getattr(aggregators, kind)(**arguments)


def close(got, expected, tolerance=1e-6):
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected, np.float32), rtol=tolerance, atol=tolerance)


def dp_part(state):
    return state.get("inner_agg", state)


def test_all_of_tffs_calls(shared):
    stored = json.loads((shared / "goldens" / "more" / "aggregators_on_arrays.json").read_text(encoding="utf-8"))
    for name, spec in stored["aggregators"]["dp"].items():
        for case, rounds in stored["calls"]["dp"].items():
            aggregator = make(*spec)
            state = aggregator.initialize((np.zeros((3, 4), np.float32), np.zeros(2, np.float32)))
            for clients, expected in zip(rounds, stored["results"][name][case], strict=True):
                updates = tuple(
                    np.array([client[i] for client in clients], np.float32).reshape(-1, *shape)
                    for i, shape in enumerate([(3, 4), (2,)])
                )
                state, mean, metrics = aggregator.next(state, updates, np.ones(len(clients)))
                query = dp_part(expected["state"])["query_state"]["numerator_state"]
                close(dp_part(state)["l2_norm_clip"], query.get("sum_state", query)["l2_norm_clip"])
                if np.isnan(expected["measurements"].get("zeroing_norm", 0)):
                    assert case == "nobody"
                    continue  # TFF zeroes nothing any more after a round without clients
                for got, wanted in zip(mean, expected["result"], strict=True):
                    close(got, wanted)
                flat, wanted = (fed.program.flatten(m) for m in (metrics, expected["measurements"]))
                assert list(flat) == list(wanted)
                close(list(flat.values()), list(wanted.values()))


def batches_of(data):
    x, y = np.float32(data["x"]).reshape(-1, 3), np.int32(data["y"]).reshape(-1, 1)
    return [{"x": x[i : i + 3], "y": y[i : i + 3]} for i in range(0, len(y), 3)]


def test_tffs_rounds_with_bad_and_empty_clients(shared):
    stored = json.loads((shared / "goldens" / "more" / "edges.json").read_text(encoding="utf-8"))
    for name in ("dp_fixed", "dp_adaptive", "dp_aggregator"):
        config = stored["processes"][name]
        for case, cohorts in stored["rounds"].items():
            process = fed.learning.build_unweighted_fed_avg(
                fed.learning.models.SoftmaxRegression(3, 2),
                fed.learning.optimizers.build_sgdm(**config["client"][1]),
                fed.learning.optimizers.build_sgdm(**config["server"][1]),
                model_aggregator=make(*config["aggregator"]),
            )
            state = process.initialize()
            for cohort, expected in zip(cohorts, stored["results"][name][case], strict=True):
                state, metrics = process.next(state, [batches_of(stored["data"][client]) for client in cohort])
                for got, wanted in zip(state.global_model_weights.trainable, expected["weights"], strict=True):
                    close(got, wanted)
                wanted = fed.program.flatten(expected["metrics"]["aggregator"])
                if not any(np.isnan(value) for value in wanted.values()):  # TFF's limit after a round of nobody
                    close(list(fed.program.flatten(metrics["aggregator"]).values()), list(wanted.values()))


def first(aggregator, *updates):
    """The first round."""
    updates = tuple(np.float32(u) for u in updates)
    return aggregator.next(aggregator.initialize(tuple(u[0] for u in updates)), updates, np.ones(len(updates[0])))


def test_a_fixed_clip_by_hand():
    # norms over both tensors: 5, 1; the clip of 2.5 halves the first; over 4, though there are two
    state, mean, metrics = first(DP.gaussian_fixed(0.0, 4, 2.5), [[3.0], [1.0]], [[4.0], [0.0]])
    assert [m.tolist() for m in mean] == [[(1.5 + 1) / 4], [2 / 4]]
    assert dict(metrics) == {"dp_query_metrics": {}, "dp": ()}
    assert dict(state) == {"l2_norm_clip": 2.5, "round_num": 1}


def test_an_adaptive_clip_by_hand():
    rule = DP.gaussian_adaptive(0.0, 4, 2.5, target_unclipped_quantile=0.75, learning_rate=math.log(2))
    # one of two at most 2.5: (1/2 - 1/2) / 4 + 1/2 = 1/2, a quarter below the target: 2.5 * 2^(1/4)
    state, _, metrics = first(rule, [[3.0], [1.0]], [[4.0], [0.0]])
    assert state["l2_norm_clip"] == pytest.approx(2.5 * 2**0.25)
    assert metrics["dp_query_metrics"]["clip"] == pytest.approx(2.5 * 2**0.25, rel=1e-6)
    # a norm at the clip is at most the clip: 2.5 * 2^-(1/2 + 1 / 8 - 3 / 4)
    assert first(rule, [[2.5]])[0]["l2_norm_clip"] == pytest.approx(2.5 * 2**0.125)
    # twelve of twelve: 6 / 4 + 1/2 is clamped to 1
    assert first(rule, [[0.0]] * 12)[0]["l2_norm_clip"] == pytest.approx(2.5 * 2**-0.25)


def test_without_noise_and_clip_it_is_the_mean_to_the_bit():
    cohort = random_cohort([4, 7, 1, 9], batch=3)
    results = []
    for aggregator in (aggregators.UnweightedMeanFactory(), DP.gaussian_fixed(0.0, 4, math.inf)):
        process = fed.learning.build_unweighted_fed_avg(toy_model, sgd(0.5), model_aggregator=aggregator)
        state = process.initialize()
        for _ in range(3):
            state, _ = process.next(state, cohort)
        results.append(state.global_model_weights.trainable)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_clip_stays_a_positive_number():
    zeros, far = [[0.0, 0.0]] * 8, [[9.0, 0.0]] * 8
    for updates, limit in ((zeros, 2.0**-63), (far, 3.0)):
        rule = DP.gaussian_adaptive(
            0.0, 8, 1.0, learning_rate=1e3
        )  # exp(500) is beyond float32, exp(1e3) beyond float64
        state = rule.initialize((np.zeros(2, np.float32),))
        for _ in range(5):
            state, (mean,), _ = rule.next(state, (np.float32(updates),), np.ones(8))
            assert np.isfinite(mean).all()
            assert 0 < state["l2_norm_clip"] < math.inf
        assert state["l2_norm_clip"] <= limit or updates is far


@pytest.mark.parametrize("size", [1e-25, 1e-18, 1e-12, 1.0, 1e18, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("clip", [2.0**-63, 1e-12, 1.0, 1e18, 1e30, 3e38])
def test_no_client_moves_the_sum_by_more_than_the_clip(size, clip):
    # A norm is a float32 in TFF, whose square may be infinite, which made all NaN, or zero, which is no limit.
    rule = DP.gaussian_fixed(0.0, 1, clip)
    updates = (np.float32([[size] * 50, [1e-3] * 50]),)
    state = rule.initialize(tuple(u[0] for u in updates))
    (both,), (other,) = (
        rule.next_of_cohort(state, tuple(u[first:] for u in updates), Cohort.of_weights(np.ones(2 - first)))[1]
        for first in (0, 1)
    )
    moved = np.linalg.norm(both.astype(np.float64) - other)
    assert moved <= clip * (1 + 1e-6) + 1e-6 * np.linalg.norm(other.astype(np.float64))


def draws(aggregator, rounds, shapes, clients=0):
    """Aggregates of zeros, (rounds, coordinates), and the clips, one more."""
    updates = tuple(np.zeros((clients, *shape), np.float32) for shape in shapes)
    state, rows = aggregator.initialize(tuple(u[:0].sum(axis=0) for u in updates)), []
    clips = [state["l2_norm_clip"]]
    for _ in range(rounds):
        state, mean, _ = aggregator.next(state, updates, np.ones(clients))
        rows.append(np.concatenate([m.ravel() for m in mean]))
        clips.append(state["l2_norm_clip"])
    return np.array(rows, np.float64), np.array(clips)


@pytest.mark.parametrize("clients", [0, 3])
def test_the_noise_of_a_fixed_clip(clients):
    rows, _ = draws(DP.gaussian_fixed(0.7, 10, 0.5, seed=3), 400, [(20, 4), (20,)], clients)
    unit = rows / (0.7 * 0.5 / 10)
    assert abs(unit.std() - 1) < 4 / math.sqrt(2 * unit.size)
    assert abs(unit.mean()) < 4 / math.sqrt(unit.size)
    # Each coordinate by itself, and each round: chi squared, standardised; 500 of them.
    for axis, count in ((0, 400), (1, 100)):
        chi = ((unit**2).sum(axis=axis) - count) / math.sqrt(2 * count)
        assert np.abs(chi).max() < 4.5
    # Nor do coordinates, tensors or rounds have anything to do with each other.
    assert np.abs(np.corrcoef(unit.T) - np.eye(100)).max() < 5 / math.sqrt(400)
    assert np.abs(np.corrcoef(unit) - np.eye(400)).max() < 0.55  # of 79,800 pairs, standard error 0.1
    # Gaussian: kurtosis 3.
    assert abs((unit**4).mean() - 3) < 4 * math.sqrt(96 / unit.size)


def test_the_noise_of_an_adaptive_clip():
    rule = DP.gaussian_adaptive(2.0, 20.0, 0.5, learning_rate=0.2, clipped_count_stddev=1.5, seed=1)
    rows, clips = draws(rule, 1000, [(50,)])
    of_updates = (2.0**-2 - 3.0**-2) ** -0.5
    unit = rows / (of_updates * clips[:-1, np.newaxis] / 20)
    assert abs(unit.std() - 1) < 4 / math.sqrt(2 * unit.size)
    # Nobody there: the share is 1/2 and noise of 1.5 / 20.
    moves = np.diff(np.log(clips)) / (0.2 * 1.5 / 20)
    assert abs(moves.std() - 1) < 4 / math.sqrt(2 * 1000)
    assert abs(moves.mean()) < 4 / math.sqrt(1000)
    assert abs(np.corrcoef(moves, unit[:, 0])[0, 1]) < 4 / math.sqrt(1000)


def test_noise_is_of_seed_and_round():
    rule, shape = DP.gaussian_fixed(1.0, 10, 1.0, seed=5), [(3, 2), (2,)]
    rows, _ = draws(rule, 3, shape)
    np.testing.assert_array_equal(rows, draws(DP.gaussian_fixed(1.0, 10, 1.0, seed=5), 3, shape)[0])
    assert (rows != draws(DP.gaussian_fixed(1.0, 10, 1.0, seed=6), 3, shape)[0]).all()
    assert (rows[0] != rows[1]).all()


def test_both_noises_together_are_worth_the_multiplier():
    with pytest.warns(UserWarning, match=r"clipped_count_stddev=0.5 leaves a noise of 2.06 clips"):
        rule = DP.gaussian_adaptive(0.9, 10.0)
    assert rule.noise_multiplier == 0.9
    assert rule.update_noise_multiplier == pytest.approx(2.0647, abs=1e-4)
    assert rule.update_noise_multiplier**-2 + (2 * rule.clipped_count_stddev) ** -2 == pytest.approx(0.9**-2)
    assert DP.gaussian_adaptive(0.0, 10.0).clipped_count_stddev == 0
    assert DP.gaussian_adaptive(1.0, 20).clipped_count_stddev == 1
    assert aggregators.dp_aggregator(0.5, 100, zeroing=False, seed=4) == DP.gaussian_adaptive(0.5, 100, seed=4)


def test_what_is_refused():
    for build, message in [
        (lambda: DP.gaussian_fixed(-1.0, 10.0, 1.0), "'noise_multiplier' must be a finite float >= 0"),
        (lambda: DP.gaussian_fixed(1.0, 0.0, 1.0), "'clients_per_round' must be a finite float > 0"),
        (lambda: DP.gaussian_fixed(1.0, 10.0, 0.0), "'clip' must be a finite float > 0"),
        (lambda: DP.gaussian_fixed(1.0, 10.0, math.inf), "'clip' must be a finite float"),
        (lambda: DP.gaussian_fixed(1.0, 10.0, 1e39), "'clip' must be a finite float > 0, within float32's range"),
        (
            lambda: DP.gaussian_fixed(1.0, 10.0, 1e-20),
            "'clip' must be a finite float > 0, within float32's range, and",
        ),
        (lambda: replace(DP.gaussian_adaptive(1.0, 30.0), noise_multiplier=4.0), "'clipped_count_stddev' must be more"),
        (lambda: DP.gaussian_fixed(1.0, 10.0, 1.0, seed=-1), "'seed' must be an integer >= 0"),
        (lambda: DP.gaussian_adaptive(1.0, 10.0), "'clipped_count_stddev' must be more than half the noise_multiplier"),
        (lambda: DP.gaussian_adaptive(1.0, 10.0, clipped_count_stddev=0.4), "'clipped_count_stddev' must be more than"),
        (lambda: DP.gaussian_adaptive(0.0, 10.0, target_unclipped_quantile=1.5), r"must be a float in \[0, 1\]"),
        (lambda: DP.gaussian_adaptive(0.0, 10.0, learning_rate=-0.1), "'learning_rate' must be a finite float >= 0"),
        (lambda: DP.gaussian_adaptive(0.0, 10.0, initial_l2_norm_clip=0.0), "'initial_l2_norm_clip' must be a finite"),
        (lambda: aggregators.dp_aggregator(1.0, 10), "'clipped_count_stddev' must be more than half"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
    for builder in ("build_weighted_fed_avg", "build_fed_sgd"):
        arguments = [sgd(0.1)] if builder == "build_weighted_fed_avg" else []
        with pytest.raises(TypeError, match="'model_aggregator' must be a weighted Aggregator"):
            getattr(fed.learning, builder)(toy_model, *arguments, model_aggregator=DP.gaussian_fixed(0.0, 10, 1.0))
