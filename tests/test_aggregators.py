"""Aggregation rules on numbers that can be computed by hand."""

import itertools
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model
from hypothesis import given

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import aggregators
from fedsim_np.learning.fed_avg import FedAvgTraining
from fedsim_np.learning.metrics import finalize_then_sample

NO_NOISE = aggregators.PrivateQuantileEstimationProcess.no_noise


def once(aggregator, updates, weights=None):
    """The first round of an aggregator: state, aggregate, metrics."""
    updates = tuple(np.float32(u) for u in updates)
    weights = np.ones(len(updates[0])) if weights is None else np.asarray(weights, np.float64)
    return aggregator.next(aggregator.initialize(tuple(u[0] for u in updates)), updates, weights)


def test_weighted_mean_by_hand():
    updates = np.float32([[1, 2], [4, -2]]), np.float32([10, 40])
    _, mean, metrics = aggregators.MeanFactory().next(None, updates, np.array([2.0, 1.0]))
    assert [m.tolist() for m in mean] == [[2.0, 0.6666666865348816], 20.0]
    assert all(m.dtype == np.float32 for m in mean)
    assert metrics == OrderedDict(mean_value=(), mean_weight=())


def test_unweighted_mean_by_hand():
    _, mean, metrics = aggregators.UnweightedMeanFactory().next(((), ()), (np.float32([[1], [4]]),), np.array([2.0, 0]))
    assert mean[0].tolist() == [2.5]
    assert metrics == OrderedDict(mean_value=(), mean_count=())


@given(
    cuts=st.lists(st.integers(0, 12), max_size=3),
    seed=st.integers(0, 99),
    aggregator=st.sampled_from([aggregators.MeanFactory(), aggregators.UnweightedMeanFactory()]),
)
def test_sums_of_parts_add_up_to_the_mean_of_all(cuts, seed, aggregator):
    rng = np.random.default_rng(seed)
    updates, weights = (rng.normal(size=(12, 3, 2)).astype(np.float32),), rng.random(12)
    edges = sorted([0, *cuts, 12])
    parts = [aggregator.summed((updates[0][a:b],), weights[a:b])[0] for a, b in itertools.pairwise(edges)]
    state = aggregator.initialize((updates[0][0],))
    _, (mean,), metrics = aggregator.of_sums(state, (np.sum(parts, axis=0),), weights)
    _, (expected,), of_all = aggregator.next(state, updates, weights)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)
    assert mean.dtype == np.float64
    assert metrics == of_all


class MeanOfSquares(aggregators.Aggregator):
    """An aggregator of one's own that needs no more than sums; it may not be asked for anything else."""

    sees_all_clients = True

    def initialize(self, trainable):
        return ()

    def next(self, state, updates, client_weights):
        raise AssertionError("all updates at once")

    def summed(self, updates, client_weights):
        assert all(np.isfinite(u).all() for u in updates)
        assert len(client_weights) < 120  # a part
        return tuple(np.square(u, dtype=np.float64).sum(axis=0) for u in updates)

    def of_sums(self, state, sums, client_weights):
        return state, tuple(s / np.count_nonzero(client_weights) for s in sums), OrderedDict(of=len(client_weights))


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_updates_are_added_up_as_they_come(engine):
    # 120 clients are more than a chunk; one of them has an update that is not finite, one has no examples.
    sizes = [4, 0, *[3, 5] * 59]
    cohort = random_cohort(sizes, batch=2)
    cohort[2] = Dataset.from_batches([{"x": np.full((1, 4), 1e38, np.float32), "y": np.int32([[0]])}] * 3)
    output = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, ThreadPoolExecutor(3) as threads:
        executors = {"serial": "serial", "threads": threads, **({"processes": pool} if engine == "auto" else {})}
        for name, executor in executors.items():
            process = fed.learning.compose_learning_process(
                toy_model(), FedAvgTraining(sgd(0.5)), MeanOfSquares(), sgd(1.0), engine=engine, executor=executor
            )
            state = process.initialize()
            output[name] = process.next(state, cohort)
    updates = fed.learning.client_updates(process, state, cohort)
    assert output["serial"].clients["status"][1:3] == ["empty", "non-finite update"]
    good = [update[np.array(output["serial"].clients["status"]) == "ok"].astype(np.float64) for update in updates]
    for w0, w, u in zip(
        *(s.global_model_weights.trainable for s in (state, output["serial"].state)), good, strict=True
    ):
        np.testing.assert_allclose(w0 - w, np.square(u).mean(axis=0), rtol=1e-4, atol=1e-6)
    for name in executors:
        for a, b in zip(*(output[n].state.global_model_weights.trainable for n in (name, "serial")), strict=True):
            np.testing.assert_array_equal(a, b)


def test_who_overrides_next_is_given_all_updates():
    class Median(aggregators.MeanFactory):
        def next(self, state, updates, client_weights):
            seen.append(len(updates[0]))
            return state, tuple(np.median(u, axis=0) for u in updates), self.initial_metrics()

    seen = []
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.5), model_aggregator=Median())
    process.next(process.initialize(), random_cohort([4, 3, 6], batch=2))
    assert seen == [3]


class SquaredSums(aggregators.MeanFactory):
    """Overrides the sums alone, and cannot be pickled."""

    def summed(self, updates, client_weights):
        return tuple(np.square(u, dtype=np.float64).sum(axis=0) for u in updates)

    def __reduce__(self):
        raise TypeError("stays here")


def test_an_aggregator_that_overrides_sums_or_cannot_travel():
    cohort, results = random_cohort([4, 3, 6], batch=2), []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for aggregator, executor in (
            (SquaredSums(), "serial"),
            (SquaredSums(), pool),
            (aggregators.clipping_factory(1e9, SquaredSums()), "serial"),
        ):
            process = fed.learning.build_weighted_fed_avg(
                toy_model, sgd(0.5), model_aggregator=aggregator, executor=executor
            )
            results.append(process.next(process.initialize(), cohort).state.global_model_weights.trainable)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_wrapper_that_passes_everything_on_is_asked_itself():
    class Negated(aggregators.Aggregator):
        sees_all_clients = True

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def initialize(self, trainable):
            return self._inner.initialize(trainable)

        def next(self, state, updates, client_weights):
            state, mean, metrics = self._inner.next(state, updates, client_weights)
            return state, tuple(-m for m in mean), metrics

    def moved(aggregator):
        process = fed.learning.compose_learning_process(toy_model(), FedAvgTraining(sgd(0.5)), aggregator, sgd(1.0))
        return process.next(process.initialize(), random_cohort([4, 3], batch=2)).state.global_model_weights.trainable

    for a, b in zip(moved(aggregators.MeanFactory()), moved(Negated(aggregators.MeanFactory())), strict=True):
        np.testing.assert_array_equal(a, -b)


class OneNumber(fed.learning.models.LinearRegression):
    """A bias without axes."""

    def initial_weights(self):
        return fed.learning.models.ModelWeights((np.zeros((1, 1), np.float32), np.zeros((), np.float32)))

    def forward_pass(self, weights, batch):
        predictions = batch["x"] @ weights.trainable[0] + weights.trainable[1]
        return fed.learning.models.BatchOutput(np.square(predictions - batch["y"]).mean() / 2, predictions)

    def gradient(self, weights, batch, output):
        errors = (output.predictions - batch["y"]) / np.float32(len(batch["x"]))
        return batch["x"].T @ errors, errors.sum()


def test_weights_without_axes_come_back_from_processes():
    cohort = [[{"x": np.float32([[1], [2]]), "y": np.float32([[2], [5]])}]] * 2
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for executor in ("serial", pool):
            process = fed.learning.build_weighted_fed_avg(OneNumber(1), sgd(0.5), executor=executor)
            weights = process.next(process.initialize(), cohort).state.global_model_weights.trainable
            assert [w.tolist() for w in weights] == [[[3.0]], 1.75]


def test_sums_are_float64():
    # In float32, 1e8 + 1 - 1e8 is 0.
    updates = (np.float32([[1e8], [1.0], [-1e8]]),)
    for aggregator in (aggregators.MeanFactory(), aggregators.UnweightedMeanFactory()):
        _, mean, _ = aggregator.next(aggregator.initialize(updates), updates, np.ones(3))
        assert mean[0].tolist() == [np.float32(1 / 3)]


def test_no_weight_at_all_is_nan():
    _, mean, _ = aggregators.MeanFactory().next(None, (np.zeros((2, 3), np.float32),), np.zeros(2))
    assert np.isnan(mean[0]).all()


@pytest.mark.parametrize(
    ("builder", "aggregator", "kind"),
    [
        ("build_weighted_fed_avg", aggregators.UnweightedMeanFactory(), "a weighted Aggregator"),
        ("build_unweighted_fed_avg", aggregators.MeanFactory(), "an unweighted Aggregator"),
        ("build_weighted_fed_avg", aggregators.MeanFactory, "a weighted Aggregator"),
    ],
)
def test_aggregators_of_the_wrong_kind(builder, aggregator, kind):
    with pytest.raises(TypeError, match=f"'model_aggregator' must be {kind}"):
        getattr(fed.learning, builder)(toy_model, sgd(0.1), model_aggregator=aggregator)


def test_no_weight_at_all_without_nan():
    mean = aggregators.MeanFactory(no_nan_division=True)
    assert once(mean, [[[1.0], [2.0]]], [0, 0])[1][0].tolist() == [0.0]
    assert once(mean, [[[1.0], [2.0]]], [1, 0])[1][0].tolist() == [1.0]


def test_clipping_by_hand():
    # norms over both tensors: 5, 1, 13; the limit of 2.5 halves the first, and 13 / 2.5 = 5.2 divides the third
    updates = [[3.0, 0.0], [1.0, 0.0], [5.0, 0.0]], [[4.0], [0.0], [12.0]]
    aggregator = aggregators.clipping_factory(2.5, aggregators.UnweightedMeanFactory())
    state, aggregate, metrics = once(aggregator, updates)
    assert aggregate[0].tolist() == pytest.approx([(1.5 + 1 + 5 / 5.2) / 3, 0.0])
    assert aggregate[1].tolist() == pytest.approx([(2 + 0 + 12 / 5.2) / 3])
    assert dict(metrics) == {"clipping": {"mean_value": (), "mean_count": ()}, "clipping_norm": 2.5, "clipped_count": 2}
    assert dict(state) == {"clipping_norm": (), "inner_agg": ((), ()), "clipped_count_agg": ()}


def test_a_norm_at_the_limit_is_let_through():
    updates = [[[3.0, 4.0]]]
    for build in (aggregators.clipping_factory, partial(aggregators.zeroing_factory, norm_order=2.0)):
        metrics = once(build(5.0, aggregators.MeanFactory()), updates)[2]
        assert 0 in metrics.values()


@pytest.mark.parametrize(("order", "zeroed"), [(1.0, [1, 1, 1]), (2.0, [1, 0, 1]), (np.inf, [1, 0, 0])])
def test_zeroing_by_hand(order, zeroed):
    # norms (1, 2, inf): (7, 5, 4), (4, 2, 1), (5, 3.6, 3)
    updates = [[3.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.0, 0.0]], [[4.0], [1.0], [3.0]]
    aggregator = aggregators.zeroing_factory(3.5, aggregators.MeanFactory(), order)
    _, aggregate, metrics = once(aggregator, updates, [1, 1, 2])
    kept = np.array([[3, 1, 2]]) * (1 - np.array(zeroed))
    assert aggregate[0][0] == (kept * [1, 1, 2]).sum() / 4  # the weights stay
    assert metrics["zeroed_count"] == sum(zeroed)
    assert metrics["zeroing_norm"] == 3.5


def test_the_updates_that_are_passed_in_stay():
    updates = (np.float32([[3.0], [4.0]]),)
    updates[0].flags.writeable = False
    once(aggregators.clipping_factory(0.1, aggregators.MeanFactory()), updates)
    assert updates[0].tolist() == [[3.0], [4.0]]


def test_a_quantile_by_hand():
    # one of four bits: C * exp(-log(2) * (1/4 - 3/4)) = C * sqrt(2); what is reported is 2 C + 1
    estimate = NO_NOISE(1.0, 0.75, np.log(2.0), multiplier=2.0, increment=1.0)
    state = estimate.initialize()
    assert estimate.report(state) == 3.0
    state = estimate.next(state, np.float32([0.5, 2, 3, 4]))
    assert state[0].current_estimate == pytest.approx(np.sqrt(2))
    assert estimate.report(state) == pytest.approx(2 * np.sqrt(2) + 1)


@given(seed=st.integers(0, 100), quantile=st.sampled_from([0.2, 0.5, 0.8]))
def test_a_quantile_is_found(seed, quantile):
    values = np.random.RandomState(seed).lognormal(1.0, 0.5, 200).astype(np.float32)
    estimate = NO_NOISE(0.1, quantile, 0.2)
    state = estimate.initialize()
    for _ in range(150):
        state = estimate.next(state, values)
    below = (values <= estimate.report(state)).mean()
    assert abs(below - quantile) < 0.05


def test_adaptive_clipping_uses_the_norm_from_before_the_round():
    aggregator = aggregators.clipping_factory(NO_NOISE(1.0, 0.5, np.log(4.0)), aggregators.MeanFactory())
    updates = (np.float32([[2.0], [2.0]]),)
    state, limits = aggregator.initialize(updates), []
    for _ in range(4):
        state, aggregate, metrics = aggregator.next(state, updates, np.ones(2))
        limits.append((metrics["clipping_norm"], metrics["clipped_count"], float(aggregate[0][0])))
    # above 1: doubled; equal to 2 counts as below: halved, and so on
    assert limits == [(1.0, 2, 1.0), (2.0, 0, 2.0), (1.0, 2, 1.0), (2.0, 0, 2.0)]


def test_the_robust_aggregator_zeroes_then_clips():
    aggregator = aggregators.robust_aggregator()
    updates = (np.float32([[100.0, 0.0], [3.0, 4.0], [0.3, 0.4]]),)
    state, aggregate, metrics = once(aggregator, updates)
    assert aggregate[0].tolist() == pytest.approx([(0 + 0.6 + 0.3) / 3, (0 + 0.8 + 0.4) / 3])
    assert (metrics["zeroing_norm"], metrics["zeroed_count"]) == (21.0, 1)
    inner = metrics["zeroing"]
    assert (inner["clipping_norm"], inner["clipped_count"]) == (1.0, 1)
    # The zeroed client's norm counts for the clip as 0: two of three below; of the zeroing's too, with its 100 above.
    clip = state["inner_agg"]["clipping_norm"][0].current_estimate
    assert clip == pytest.approx(np.exp(-0.2 * (2 / 3 - 0.8)))
    assert state["zeroing_norm"][0].current_estimate == pytest.approx(10 * 10 ** -(2 / 3 - 0.98))
    plain = aggregators.robust_aggregator(zeroing=False, clipping=False, weighted=False)
    assert plain == aggregators.UnweightedMeanFactory()


def test_debug_measurements_by_hand():
    # norms 3 and 1 with weights 1 and 3: mean 1.5, biased variance 0.75, times 16 / (16 - 10)
    aggregator = aggregators.add_debug_measurements(aggregators.MeanFactory())
    _, aggregate, metrics = once(aggregator, [[[3.0, 0.0], [0.0, -1.0]]], [1, 3])
    assert aggregate[0].tolist() == [0.75, -0.75]
    assert list(metrics) == [
        "mean_value",
        "mean_weight",
        "average_client_norm",
        "std_dev_client_norm",
        "server_update_max",
        "server_update_norm",
        "server_update_min",
    ]
    assert metrics["average_client_norm"] == 1.5
    assert metrics["std_dev_client_norm"] == pytest.approx(np.sqrt(2.0))
    assert metrics["server_update_norm"] == pytest.approx(0.75 * np.sqrt(2))
    assert (metrics["server_update_max"], metrics["server_update_min"]) == (0.75, -0.75)


def test_debug_measurements_of_one_client_and_of_none():
    aggregator = aggregators.add_debug_measurements(aggregators.MeanFactory())
    assert once(aggregator, [[[3.0, 4.0]]])[2]["std_dev_client_norm"] == 0.0
    metrics = once(aggregator, [[[3.0], [4.0]]], [0, 0])[2]
    assert np.isnan(metrics["average_client_norm"])
    assert np.isnan(metrics["server_update_max"])


def test_wrappers_are_as_weighted_as_what_they_wrap():
    for inner in (aggregators.MeanFactory(), aggregators.UnweightedMeanFactory()):
        for wrapped in (
            aggregators.clipping_factory(1.0, inner),
            aggregators.zeroing_factory(1.0, inner),
            aggregators.add_debug_measurements(inner),
        ):
            assert wrapped.is_weighted is inner.is_weighted
    with pytest.raises(TypeError, match="'model_aggregator' must be an unweighted"):
        fed.learning.build_unweighted_fed_avg(toy_model, sgd(0.1), model_aggregator=aggregators.robust_aggregator())


MEAN = aggregators.MeanFactory()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: aggregators.clipping_factory(0.0, MEAN), ValueError, "'clipping_norm' must be a flo"),
        (
            lambda: aggregators.clipping_factory(-1.0, MEAN),
            ValueError,
            "> 0 or a PrivateQuantileEstimationProcess. Got -1.0",
        ),
        (lambda: aggregators.clipping_factory(float("nan"), MEAN), ValueError, "Got nan"),
        (lambda: aggregators.clipping_factory("1", MEAN), ValueError, "Got '1'"),
        (lambda: aggregators.clipping_factory(1.0, None), TypeError, "'inner_agg_factory' must be an"),
        (lambda: aggregators.clipping_factory(1.0, aggregators.MeanFactory), TypeError, "must be an Aggregator"),
        (lambda: aggregators.zeroing_factory(-1.0, MEAN), ValueError, "'zeroing_norm' must be a float"),
        (lambda: aggregators.zeroing_factory(1.0, MEAN, 3.0), ValueError, "'norm_order' must be 1.0"),
        (lambda: aggregators.add_debug_measurements(3), TypeError, "'aggregation_factory' must"),
        (lambda: NO_NOISE(0.0, 0.5, 0.1), ValueError, "'initial_estimate' must"),
        (lambda: NO_NOISE(1.0, 1.5, 0.1), ValueError, r"'target_quantile' must be a float in \[0, 1\]. Got 1.5"),
        (lambda: NO_NOISE(1.0, 0.5, 0.0), ValueError, "'learning_rate' must"),
        (lambda: NO_NOISE(1.0, 0.5, 0.1, multiplier=-1.0), ValueError, "'multiplier' must"),
        (lambda: NO_NOISE(1.0, 0.5, 0.1, increment=-1.0), ValueError, "'increment' must"),
        (lambda: aggregators.PrivateQuantileEstimationProcess(-1.0, 0.5, 0.1), ValueError, "'initial_estimate' must"),
        (lambda: aggregators.MeanFactory("no"), TypeError, "'no_nan_division' must be True or False"),
        (lambda: aggregators.robust_aggregator(zeroing="no"), TypeError, "'zeroing' must be True or"),
        (lambda: aggregators.robust_aggregator(debug_measurements_fn=3), TypeError, "'debug_measurements_fn' must"),
        (lambda: aggregators.zeroing_factory(1.0, MEAN, True), ValueError, "'norm_order' must be"),
        (lambda: aggregators.clipping_factory(1e-60, MEAN), ValueError, "'clipping_norm' must"),
        (
            lambda: aggregators.robust_aggregator(debug_measurements_fn=lambda _: aggregators.UnweightedMeanFactory()),
            TypeError,
            "'debug_measurements_fn' must be a function that returns a weighted Aggregator",
        ),
    ],
)
def test_arguments_of_aggregators_that_are_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_clients_metrics_one_by_one():
    finalizers = {"loss": lambda sums: sums[0] / sums[1], "n": lambda sums: sums[0]}
    clients = [{"loss": [float(i), 2.0], "n": [i]} for i in range(10)]
    everyone = finalize_then_sample(finalizers)(clients)
    assert everyone["loss"].tolist() == [i / 2 for i in range(10)]
    assert (everyone["loss"].dtype, everyone["n"].dtype) == (np.float32, np.int64)
    some = finalize_then_sample(finalizers, sample_size=4)(clients)
    assert len(some["n"]) == 4
    assert sorted(set(some["n"].tolist())) == some["n"].tolist()  # each once, in cohort order
    assert (some["loss"] * 2).tolist() == some["n"].tolist()  # the same clients in every metric
    assert finalize_then_sample(finalizers, sample_size=4)(clients)["n"].tolist() == some["n"].tolist()
    others = {tuple(finalize_then_sample(finalizers, sample_size=4, seed=s)(clients)["n"].tolist()) for s in range(9)}
    assert len(others) > 1


def test_integers_that_are_too_large_for_a_sample():
    with pytest.raises(fed.DataError, match="a metric's integers must fit in 64 bits. Got 18446744073709551616"):
        finalize_then_sample({"n": lambda sums: 2 ** sums[0].item()})([{"n": [1]}, {"n": [64]}])


def test_sampled_metrics_have_tffs_types(tff_figures):
    sums = {
        **{name: [np.dtype(name).type(3)] for name in ("int32", "int64", "float32", "uint8")},
        "compared": [np.int32(3)],
        "mean": [np.float32(1), np.float32(3)],
    }
    finalizers = {
        **dict.fromkeys(sums, lambda sums: sums[0]),
        "compared": lambda sums: sums[0] > 1,
        "mean": lambda sums: sums[0] / sums[1],
    }
    sampled = finalize_then_sample(finalizers)([sums, sums])
    assert {name: array.dtype.name for name, array in sampled.items()} == tff_figures["sampled_types"]


@pytest.mark.parametrize("engine", ["loop", "cohort"])
def test_a_models_own_int32_metric_stays_int32_in_a_sample(engine):
    class Counting(fed.learning.models.SoftmaxRegression):
        def initial_metrics(self):
            return {"seen": [np.int32(0)]}

        def unfinalized_metrics(self, batch, output):
            return {"seen": [np.int32(len(batch["y"]))]}

        def metric_finalizers(self):
            return {"seen": lambda sums: sums[0]}

    process = fed.learning.build_weighted_fed_avg(
        Counting(4, 3), sgd(0.1), metrics_aggregator=finalize_then_sample, engine=engine
    )
    seen = process.next(process.initialize(), random_cohort([3, 5])).metrics["client_work"]["train"]["seen"]
    assert (seen.tolist(), seen.dtype) == ([3, 5], np.int32)
    assert "train=<seen=int32[?]>" in str(process.next.type_signature).replace("\n", "")


def test_every_client_is_sampled_as_often():
    counts = np.zeros(6)
    for seed in range(600):
        chosen = finalize_then_sample({"n": lambda s: s[0]}, sample_size=2, seed=seed)([{"n": [i]} for i in range(6)])
        counts[chosen["n"]] += 1
    assert np.abs(counts - 200).max() < 50  # four standard deviations


def test_sampled_metrics_of_a_process():
    process = fed.learning.build_weighted_fed_avg(
        toy_model, sgd(0.1), metrics_aggregator=partial(finalize_then_sample, sample_size=2)
    )
    train = process.next(process.initialize(), random_cohort([3, 5, 7])).metrics["client_work"]["train"]
    assert len(train["num_examples"]) == 2
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="'sample_size' must be an integer >= 1"):
            finalize_then_sample({}, sample_size=wrong)
    with pytest.raises(TypeError, match="'metrics_aggregator' must be a function such as"):
        fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1), metrics_aggregator=3)


def test_a_norm_beyond_float32_is_infinite_as_in_tff():
    """Measured on TFF 0.87: clipping at 0.5 gives [0.15, 0.2], and the debug measurements inf and NaN."""
    updates = [[[3e19, 0.0], [0.3, 0.4]]]
    _, aggregate, _ = once(aggregators.clipping_factory(0.5, aggregators.UnweightedMeanFactory()), updates)
    assert aggregate[0].tolist() == pytest.approx([0.15, 0.2])
    metrics = once(aggregators.add_debug_measurements(aggregators.UnweightedMeanFactory()), updates)[2]
    assert metrics["average_client_norm"] == np.inf
    assert np.isnan(metrics["std_dev_client_norm"])


def test_unweighted_debug_measurements_count_a_client_that_is_left_out_as_zero():
    aggregator = aggregators.add_debug_measurements(aggregators.UnweightedMeanFactory())
    assert once(aggregator, [[[4.0], [0.0]]], [1, 0])[2]["average_client_norm"] == 2.0
