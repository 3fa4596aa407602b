"""Rounds: identities, TFF's figures, purity, and every way a client can fail."""

import collections
import json
import pickle
import time
from functools import partial

import numpy as np
import pytest
from conftest import TOY_X, TOY_Y, random_cohort, sgd, toy_batches, toy_model

import fedsim_np as fed
from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.demos import own_algorithm
from fedsim_np.learning import ClientResult, ClientWeighting, build_fed_eval, compose_learning_process, optimizers
from fedsim_np.learning.models import ModelWeights
from fedsim_np.profiling import PARTS


def weighted(client_rate=0.1, server=None, **keywords):
    return fed.learning.build_weighted_fed_avg(toy_model, sgd(client_rate), server, **keywords)


def unweighted(client_rate=0.1, server=None):
    return fed.learning.build_unweighted_fed_avg(toy_model, sgd(client_rate), server)


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights.trainable]).astype(np.float64)


def after(process, data, rounds=1, **keywords):
    state = process.initialize()
    for _ in range(rounds):
        state, _ = process.next(state, data, **keywords)
    return flat(process.get_model_weights(state))


def pooled_gradient(cohort, weights):
    """The gradient of the mean loss over all examples, in float64."""
    x = np.concatenate([d.to_arrays()["x"] for d in cohort]).astype(np.float64)
    y = np.concatenate([d.to_arrays()["y"] for d in cohort])
    model = toy_model("stable")
    return model.gradient(weights, {"x": x, "y": y}, model.forward_pass(weights, {"x": x, "y": y}))


# --- identities


def test_one_client_one_full_batch_one_epoch_is_one_sgd_step():
    cohort = random_cohort([7])
    start = toy_model().initial_weights()
    expected = -0.1 * flat(ModelWeights(pooled_gradient(cohort, start)))
    np.testing.assert_allclose(after(weighted(0.1), cohort), expected, rtol=1e-6, atol=1e-9)


def test_full_batch_weighted_averaging_is_the_pooled_gradient_step():
    cohort = random_cohort([7, 1, 12])
    start = toy_model().initial_weights()
    expected = -0.1 * flat(ModelWeights(pooled_gradient(cohort, start)))
    np.testing.assert_allclose(after(weighted(0.1), cohort), expected, rtol=1e-5, atol=1e-8)


def test_one_client_with_server_rate_one_is_local_sgd():
    (dataset,) = random_cohort([11], batch=4)
    model, weights = toy_model(), toy_model().initial_weights()
    for _ in range(3):
        for batch in dataset.batches():
            gradients = model.gradient(weights, batch, model.forward_pass(weights, batch))
            stepped = tuple(w - np.float32(0.1) * g for w, g in zip(weights.trainable, gradients, strict=True))
            weights = ModelWeights(stepped)
    np.testing.assert_allclose(after(weighted(0.1), [dataset], rounds=3), flat(weights), rtol=1e-6, atol=1e-8)


def test_unequal_weights():
    cohort = random_cohort([3, 9], batch=2)
    alone = [after(weighted(0.1), [dataset]) for dataset in cohort]
    np.testing.assert_allclose(after(weighted(0.1), cohort), (3 * alone[0] + 9 * alone[1]) / 12, rtol=1e-5, atol=1e-8)
    for even in (unweighted(0.1), weighted(0.1, client_weighting=ClientWeighting.UNIFORM)):
        np.testing.assert_allclose(after(even, cohort), (alone[0] + alone[1]) / 2, rtol=1e-5, atol=1e-8)


def test_weights_count_repetitions():
    short, long = random_cohort([3, 9], batch=100)
    np.testing.assert_allclose(
        after(weighted(0.0001), [short.repeat(3), long]),
        (after(weighted(0.0001), [short.repeat(3)]) + after(weighted(0.0001), [long])) / 2,
        rtol=1e-4,
        atol=1e-9,
    )


def test_permuting_the_clients_changes_results_by_rounding_only():
    cohort = random_cohort([3, 9, 1, 30, 8, 2], batch=4)
    process = weighted(0.3, sgd(1.0, 0.9))
    forward, backward = after(process, cohort, rounds=4), after(process, cohort[::-1], rounds=4)
    np.testing.assert_allclose(forward, backward, rtol=1e-6, atol=1e-7)


def test_server_momentum_by_hand():
    cohort = random_cohort([5])
    process = weighted(0.1, sgd(0.5, 0.5))
    state, accumulator = process.initialize(), 0.0
    for _ in range(3):
        before = flat(state.global_model_weights)
        update = before - flat(
            weighted(0.1)
            .next(weighted(0.1).initialize()._replace(global_model_weights=state.global_model_weights), cohort)
            .state.global_model_weights
        )
        accumulator = 0.5 * accumulator + update
        state, _ = process.next(state, cohort)
        np.testing.assert_allclose(flat(state.global_model_weights), before - 0.5 * accumulator, rtol=1e-5, atol=1e-7)


# --- TFF's figures


def test_type_signatures_are_tffs(tff_figures):
    processes = {
        "weighted": weighted(0.1, sgd(1.0)),
        "unweighted_momentum": fed.learning.build_unweighted_fed_avg(toy_model, sgd(0.1, 0.9), sgd(1.0, 0.5)),
        "eval": build_fed_eval(toy_model),
    }
    for name, (compact, formatted) in tff_figures["signatures"].items():
        process, part = name.split(".")
        signature = getattr(processes[process], part).type_signature
        assert signature.formatted_representation() == formatted
        assert str(signature) == compact


with np.errstate(invalid="ignore"):  # 0 * inf is NaN, as in the measurement
    INFINITE_X = TOY_X * np.float32(np.inf)

COHORTS = {
    "good": ["good"],
    "good_empty": ["good", "empty"],
    "good_bad": ["good", "bad"],
    "all_empty": ["empty", "empty"],
    "all_bad": ["bad", "bad"],
}


@pytest.mark.parametrize("kind", ["weighted", "unweighted"])
@pytest.mark.parametrize("name", COHORTS)
def test_non_finite_and_empty_clients_as_tff_measured(kind, name, tff_figures):
    expected = tff_figures["non_finite"][f"{kind}.{name}"]
    clients = {"good": toy_batches(), "bad": toy_batches(INFINITE_X), "empty": []}
    process = {"weighted": weighted, "unweighted": unweighted}[kind](0.1, sgd(1.0, 0.5))
    state, _ = process.next(process.initialize(), [clients["good"]])
    output = process.next(state, [clients[c] for c in COHORTS[name]])
    train = output.metrics["client_work"]["train"]
    assert list(train) == list(expected["train"])
    for metric, value in expected["train"].items():
        assert train[metric] == pytest.approx(value, rel=2e-6)
    assert output.metrics["finalizer"]["update_non_finite"] == expected["update_non_finite"]
    kernel, bias = output.state.global_model_weights.trainable
    np.testing.assert_allclose(kernel, expected["kernel"], atol=1e-6)
    np.testing.assert_allclose(bias, expected["bias"], atol=1e-6)
    np.testing.assert_allclose(output.state.finalizer["accumulator"][1], expected["accumulator_bias"], atol=1e-6)
    status = {"good": "ok", "bad": "non-finite update", "empty": "empty"}
    assert output.clients["status"] == [status[c] for c in COHORTS[name]]


def test_a_rate_that_overflows_leaves_the_model_alone():
    process = weighted(3e38)
    start = process.initialize()
    output = process.next(start, [toy_batches(TOY_X * 100), toy_batches(TOY_X * 1000)])
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    assert (flat(output.state.global_model_weights) == 0).all()
    assert output.clients["status"] == ["non-finite update"] * 2
    assert output.clients["weight"].tolist() == [0, 0]
    assert output.metrics["client_work"]["train"]["num_examples"] == 0
    assert not np.isfinite(output.clients["update_norm"]).any()


def nobody_processes():
    learning, aggregators = fed.learning, fed.learning.aggregators
    rates, mean = (optimizers.build_sgdm(0.1), sgd(1.0, 0.5)), aggregators.MeanFactory()
    adaptive = aggregators.PrivateQuantileEstimationProcess.no_noise(0.3, 0.5, 0.4)
    fed_avg = partial(learning.build_weighted_fed_avg, toy_model, *rates)
    return {
        "weighted": fed_avg,
        "unweighted": partial(learning.build_unweighted_fed_avg, toy_model, *rates),
        "proximal": partial(learning.build_weighted_fed_prox, toy_model, 0.3, *rates),
        "sgd": partial(learning.build_fed_sgd, toy_model, rates[1]),
        "scheduled": partial(
            learning.build_weighted_fed_avg_with_optimizer_schedule,
            toy_model,
            lambda t: 0.1,
            optimizers.build_sgdm,
            rates[1],
        ),
        "no_nan": partial(fed_avg, model_aggregator=aggregators.MeanFactory(no_nan_division=True)),
        "clipped": partial(fed_avg, model_aggregator=aggregators.clipping_factory(adaptive, mean)),
        "zeroed": partial(fed_avg, model_aggregator=aggregators.zeroing_factory(2.0, mean)),
        "robust": partial(fed_avg, model_aggregator=aggregators.robust_aggregator()),
        "debugged": partial(fed_avg, model_aggregator=aggregators.add_debug_measurements(mean)),
        "sampled": partial(fed_avg, metrics_aggregator=fed.learning.metrics.finalize_then_sample),
        "eval": partial(build_fed_eval, toy_model),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", nobody_processes())
@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_a_round_without_clients_as_tff_measured(name, engine, tff_figures):
    expected, process = tff_figures["nobody"][name], nobody_processes()[name](engine=engine)
    before = process.next(process.initialize(), [toy_batches()]).state
    after = process.next(before, [])
    got = json.loads(json.dumps(after.metrics, default=lambda array: array.tolist()))
    assert list(trees.leaves(got)) == [
        (path, pytest.approx(value, rel=1e-6, nan_ok=True) if isinstance(value, float) else value)
        for path, value in trees.leaves(expected["metrics"])
    ]
    kept = [
        [w.tobytes() for _, w in trees.leaves(old) if isinstance(w, np.ndarray)]
        == [w.tobytes() for _, w in trees.leaves(new) if isinstance(w, np.ndarray)]
        for old, new in (
            (before.global_model_weights, after.state.global_model_weights),
            (before.finalizer, after.state.finalizer),
        )
    ]
    assert kept == [expected["model_kept"], expected["optimizer_kept"]]
    assert after.clients["client_id"] == []
    assert after.clients["num_examples"].tolist() == []
    assert process.next(after.state, [toy_batches()]).clients["status"] == ["ok"]


def test_nobody_moves_an_adaptive_limit(tff_figures):
    process = nobody_processes()["clipped"]()
    before = process.next(process.initialize(), [toy_batches()]).state
    after = process.next(before, []).state
    estimates = [state.aggregator["clipping_norm"][0].current_estimate for state in (before, after)]
    of_tff = tff_figures["nobody"]["clipped"]["estimates"]
    assert estimates == [pytest.approx(of_tff[0], rel=1e-6)] * 2
    assert np.isnan(of_tff[1])  # and clips nothing, from there on


def test_a_round_without_clients_in_a_run_that_keeps_something_of_each():
    x = np.random.default_rng(0).random((6, 4), np.float32)
    cohort = [fed.datasets.Dataset.from_arrays({"x": x, "y": TOY_Y[[0, 1, 2, 0, 1, 2]]}, "ann").batch(2)]
    ends = []
    for engine in ("loop", "cohort", "gram", "auto"):
        process = own_algorithm.build_scaffold(toy_model, 0.1, 3, engine=engine)
        state = process.initialize()
        for data in ([], cohort, [], cohort, []):
            before, state = state, process.next(state, data).state
            if not data:
                assert flat(before.global_model_weights).tolist() == flat(state.global_model_weights).tolist()
                assert str(before.client_work[1:]) == str(state.client_work[1:])  # c, and every c_i
        assert state.client_work.round_num == 5
        ends.append(flat(state.global_model_weights))
    for end in ends:
        np.testing.assert_allclose(end, ends[0], atol=1e-6)


def test_a_metrics_aggregator_of_ones_own_is_told_that_nobody_was_there():
    def aggregator(finalizers):
        of_sums, of_each = (
            aggregator(finalizers)
            for aggregator in (fed.learning.metrics.sum_then_finalize, fed.learning.metrics.finalize_then_sample)
        )
        return lambda clients: {
            **of_sums(clients),
            "clients": len(clients),
            "worst": min(of_each(clients)["loss"], default=None),
            "names": [list(client) for client in clients],
        }

    process = weighted(0.1, metrics_aggregator=aggregator)
    nobody, one = (
        process.next(process.initialize(), cohort).metrics["client_work"]["train"] for cohort in ([], [toy_batches()])
    )
    assert nobody == {**nobody, "num_examples": 0, "num_batches": 0, "clients": 0, "worst": None, "names": []}
    assert (one["clients"], one["worst"]) == (1, pytest.approx(one["loss"]))


def test_nobody_is_shown_to_an_aggregator_of_clients_that_count():
    class Median(fed.learning.aggregators.Aggregator):
        def initialize(self, trainable):
            return ()

        def next(self, state, updates, client_weights):
            return state, tuple(np.median(u, axis=0).astype(u.dtype) for u in updates), {"clients": len(client_weights)}

    process = weighted(0.1, model_aggregator=Median())
    state, metrics = process.next(process.initialize(), [])
    assert metrics["aggregator"] == {}
    assert metrics["finalizer"]["update_non_finite"] == 1
    assert (flat(state.global_model_weights) == 0).all()


# --- the output


def test_metrics_have_tffs_keys_and_python_numbers():
    output = weighted().next(weighted().initialize(), random_cohort([4, 5], batch=2))
    assert isinstance(output.metrics, collections.OrderedDict)
    assert list(output.metrics) == ["distributor", "client_work", "aggregator", "finalizer"]
    train = output.metrics["client_work"]["train"]
    assert list(train) == ["sparse_categorical_accuracy", "loss", "num_examples", "num_batches"]
    assert [type(value) for value in train.values()] == [float, float, int, int]
    assert (train["num_examples"], train["num_batches"]) == (9, 5)
    assert train["loss"] == float(str(np.float32(train["loss"])))
    assert "loss', 1." in str(output.metrics) or "'loss': 1." in str(output.metrics)


def test_metrics_are_measured_before_each_step():
    (dataset,) = random_cohort([6], batch=6)
    output = weighted(0.5).next(weighted().initialize(), [dataset])
    assert output.metrics["client_work"]["train"]["loss"] == pytest.approx(np.log(3))


def test_the_output_is_two_values_and_a_table():
    cohort = random_cohort([4, 0, 5], batch=2)
    process = weighted()
    output = process.next(process.initialize(), cohort)
    state, metrics = output
    assert metrics is output.metrics
    assert state is output.state
    table = output.clients
    of_bytes = ["bytes_up", "bytes_down"]
    assert list(table) == ["client_id", "num_examples", "weight", "update_norm", *of_bytes, "status", "metrics"]
    assert table["client_id"] == ["c0", "c1", "c2"]
    assert table["num_examples"].tolist() == table["weight"].tolist() == [4, 0, 5]
    assert table["status"] == ["ok", "empty", "ok"]
    alone = process.next(process.initialize(), cohort[:1])
    assert table["update_norm"][0] == pytest.approx(np.linalg.norm(flat(alone.state.global_model_weights)), rel=1e-6)
    assert table["metrics"][1] == toy_model().initial_metrics()


def test_nothing_in_a_clients_result_has_an_examples_axis():
    n = 37
    (dataset,) = random_cohort([n], batch=5)
    output = weighted().next(weighted().initialize(), [dataset])

    def lengths(value):
        if isinstance(value, dict):
            return [n for v in value.values() for n in lengths(v)]
        if isinstance(value, list | tuple):
            return [len(value)] + [n for v in value for n in lengths(v)]
        return list(np.shape(value))

    assert n not in lengths(output.clients)
    assert n not in lengths(tuple(output))
    assert max(lengths(output.clients)) <= 6


def test_next_changes_neither_state_nor_data():
    process = weighted(0.1, sgd(1.0, 0.9))
    cohort = [toy_batches(), toy_batches(TOY_X + 1)]
    state, _ = process.next(process.initialize(), cohort)
    before, data_before = pickle.dumps(state), pickle.dumps(cohort)
    first = process.next(state, cohort)
    second = process.next(state, cohort)
    assert pickle.dumps(state) == before
    assert pickle.dumps(cohort) == data_before
    assert pickle.dumps(first.state) == pickle.dumps(second.state)
    for array in (*first.state.global_model_weights.trainable, *first.state.finalizer["accumulator"]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_what_an_aggregator_gets_is_read_only_float32():
    class Nosy(fed.learning.aggregators.Aggregator):
        def initialize(self, weights):
            return ()

        def next(self, state, updates, weights):
            assert [u.shape for u in updates] == [(2, 4, 3), (2, 3)]
            assert all(u.dtype == np.float32 and not u.flags.writeable for u in updates)
            assert weights.tolist() == [4, 5]
            return state, tuple(u[0] for u in updates), collections.OrderedDict()

    process = weighted(model_aggregator=Nosy())
    process.next(process.initialize(), random_cohort([4, 5]))


def test_state_output_and_process_pickle():
    process, cohort = weighted(0.1, sgd(1.0, 0.9)), random_cohort([4, 5], batch=2)
    output = process.next(process.initialize(), cohort)
    copied_output, copied_data = pickle.loads(pickle.dumps((output, cohort)))
    assert copied_output.metrics == output.metrics
    assert copied_output.clients["client_id"] == output.clients["client_id"]
    module_level = fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.1), sgd(1.0, 0.9))
    assert module_level.next.type_signature
    copied = pickle.loads(pickle.dumps(module_level))
    again = copied.next(copied_output.state, copied_data)
    expected = process.next(output.state, cohort)
    np.testing.assert_array_equal(flat(again.state.global_model_weights), flat(expected.state.global_model_weights))
    assert again.metrics == expected.metrics


def test_the_counter_of_a_dataset_is_left_alone():
    dataset = random_cohort([9])[0].shuffle(5, seed=1)
    process = weighted()
    process.next(process.initialize(), [dataset])
    fresh = [b["y"].tolist() for b in random_cohort([9])[0].shuffle(5, seed=1)]
    assert [b["y"].tolist() for b in dataset] == fresh


def test_iteration_reads_another_order():
    arrays = {"x": TOY_X, "y": TOY_Y}
    dataset = Dataset.from_arrays(arrays, "ann").shuffle(5, seed=1).batch(2)
    process = weighted(0.5)
    second = [dict(batch) for batch in dataset.batches(1)]
    np.testing.assert_allclose(after(process, [dataset], iteration=1), after(process, [second]), atol=1e-6)
    assert (after(process, [dataset], iteration=1) != after(process, [dataset])).any()


def test_plain_lists_of_batches_are_clients():
    dataset = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).batch(2)
    np.testing.assert_array_equal(after(weighted(), [dataset]), after(weighted(), [toy_batches()]))
    output = weighted().next(weighted().initialize(), [toy_batches()])
    assert output.clients["client_id"] == [None]


# --- weights and hyperparameters in the state


def test_weights_can_be_set():
    process = weighted()
    weights = ModelWeights((np.ones((4, 3)), np.arange(3)))
    state = process.set_model_weights(process.initialize(), weights)
    got = process.get_model_weights(state)
    assert [w.dtype for w in got.trainable] == [np.float32, np.float32]
    assert got.trainable[1].tolist() == [0, 1, 2]
    assert not got.trainable[0].flags.writeable
    with pytest.raises(ValueError, match=r"'model_weights' must be arrays of the shapes"):
        process.set_model_weights(state, ModelWeights((np.ones((4, 2)), np.ones(2))))


def test_hyperparameters_are_in_the_state():
    process, cohort = weighted(0.1), random_cohort([5, 6])
    state = process.initialize()
    assert process.get_hparams(state) == {"client_work": {"learning_rate": 0.1}, "finalizer": {"learning_rate": 1.0}}
    hparams = {"client_work": {"learning_rate": 0.3}, "finalizer": {"learning_rate": 0.5}}
    changed = process.next(process.set_hparams(state, hparams), cohort).state
    built = weighted(0.3, sgd(0.5))
    np.testing.assert_array_equal(flat(changed.global_model_weights), after(built, cohort))
    assert process.get_hparams(changed) == hparams
    for wrong in ({}, {"client_work": {}, "finalizer": {"learning_rate": 1.0}}):
        with pytest.raises(ValueError, match="'hparams' must be"):
            process.set_hparams(state, wrong)
    evaluation = build_fed_eval(toy_model)
    assert evaluation.get_hparams(evaluation.initialize()) == {"client_work": {}, "finalizer": {}}


# --- evaluation


def test_evaluation_totals_add_up_over_calls():
    evaluation, cohort = build_fed_eval(toy_model), random_cohort([4, 5, 6], batch=2)
    state = evaluation.set_model_weights(evaluation.initialize(), ModelWeights((np.eye(4, 3), np.arange(3))))
    parts = []
    for dataset in cohort:
        output = evaluation.next(state, [dataset])
        state = output.state
        parts.append(output.metrics["client_work"]["eval"])
    at_once = evaluation.next(
        evaluation.set_model_weights(evaluation.initialize(), evaluation.get_model_weights(state)), cohort
    )
    everything = at_once.metrics["client_work"]["eval"]["current_round_metrics"]
    assert parts[-1]["total_rounds_metrics"] == everything
    assert parts[0]["current_round_metrics"] == parts[0]["total_rounds_metrics"]
    assert [p["current_round_metrics"]["num_examples"] for p in parts] == [4, 5, 6]
    assert at_once.clients["num_examples"].tolist() == [4, 5, 6]
    assert list(at_once.metrics) == ["distributor", "client_work", "aggregator", "finalizer"]


def test_evaluation_of_nothing_is_zero():
    evaluation = build_fed_eval(toy_model)
    output = evaluation.next(evaluation.initialize(), [[]])
    assert output.metrics["client_work"]["eval"]["current_round_metrics"]["loss"] == 0.0
    assert output.clients["status"] == ["empty"]


# --- one's own parts


class HandMade(fed.learning.models.Model):
    """A mean of numbers: one trainable scalar, one constant, metrics of the tutorial's form."""

    input_spec = collections.OrderedDict(v=fed.datasets.ArraySpec((None,), np.float32))

    def initial_weights(self):
        return ModelWeights((np.zeros((), np.float32),), (np.float32([7]),))

    def predict_on_batch(self, weights, x):
        return np.full(len(x), weights.trainable[0])

    def forward_pass(self, weights, batch):
        assert weights.non_trainable[0].tolist() == [7]
        predictions = self.predict_on_batch(weights, batch["v"])
        return fed.learning.models.BatchOutput(np.mean((predictions - batch["v"]) ** 2) / 2, predictions)

    def gradient(self, weights, batch, output):
        return (np.mean(output.predictions - batch["v"]),)

    def initial_metrics(self):
        return collections.OrderedDict(num_examples=[0.0], loss=[0.0, 0.0])

    def unfinalized_metrics(self, batch, output):
        n = float(len(batch["v"]))
        return collections.OrderedDict(num_examples=[n], loss=[float(output.loss) * n, n])

    def metric_finalizers(self):
        return collections.OrderedDict(num_examples=lambda s: s[0], loss=lambda s: s[0] / s[1])


def test_a_model_of_ones_own():
    process = fed.learning.build_weighted_fed_avg(HandMade, sgd(1.0))
    data = [[{"v": np.float32([1, 2, 3])}], [{"v": np.float32([10])}]]
    state, metrics = process.next(process.initialize(), data)
    assert float(state.global_model_weights.trainable[0]) == 4.0  # (3 * 2 + 1 * 10) / 4
    assert state.global_model_weights.non_trainable[0].tolist() == [7]
    assert metrics["client_work"]["train"]["num_examples"] == 4.0
    assert isinstance(metrics["client_work"]["train"]["num_examples"], float)
    assert "train=<num_examples=float32,loss=float32>" in str(process.next.type_signature)


def test_its_finalizers_get_numpy_scalars_so_that_nothing_over_nothing_is_nan():
    process = fed.learning.build_weighted_fed_avg(HandMade, sgd(1.0))
    _, metrics = process.next(process.initialize(), [[]])
    assert np.isnan(metrics["client_work"]["train"]["loss"])


class Fixed(fed.learning.ClientWork):
    """Sends what it is told to."""

    def __init__(self, update):
        self.update = update

    def initialize(self):
        return ()

    def run(self, weights, dataset, state):
        list(dataset.batches())
        return ClientResult(self.update, 1.0, toy_model().initial_metrics())


def compose(update, **keywords):
    parts = {"aggregator": fed.learning.aggregators.MeanFactory(), "finalizer": sgd(1.0), **keywords}
    return compose_learning_process(toy_model, Fixed(update), **parts)


def test_client_work_of_ones_own():
    process = compose((np.ones((4, 3)), np.ones(3)))
    output = process.next(process.initialize(), random_cohort([4, 5], batch=2))
    assert (flat(output.state.global_model_weights) == -1).all()
    assert output.clients["num_examples"].tolist() == [4, 5]
    assert "client_work=<>" in str(process.initialize.type_signature)
    assert process.get_hparams(output.state)["client_work"] == {}


def test_updates_and_aggregates_of_the_wrong_shape():
    process = compose((np.ones((4, 3)),))
    with pytest.raises(ValueError, match="'update of client c0' must be arrays of the shapes"):
        process.next(process.initialize(), random_cohort([4]))

    class Flat(fed.learning.aggregators.MeanFactory):
        def next(self, state, updates, weights):
            return state, (np.zeros(3),), {}

    process = compose((np.ones((4, 3)), np.ones(3)), aggregator=Flat())
    with pytest.raises(ValueError, match="'aggregate of Flat' must be arrays of the shapes"):
        process.next(process.initialize(), random_cohort([4]))


def test_metrics_whose_names_do_not_match():
    class Mismatched(HandMade):
        def metric_finalizers(self):
            return {"loss": lambda s: s[0]}

    process = fed.learning.build_weighted_fed_avg(Mismatched, sgd(1.0))
    with pytest.raises(ValueError, match=r"must have the unfinalized metrics' names \['loss', 'num_examples'\]"):
        process.next(process.initialize(), [[{"v": np.float32([1])}]])


class Iterating(fed.learning.ClientWork):
    """Reads its dataset as tf.data's users do, with a plain for."""

    def initialize(self):
        return {"seen": np.zeros(1)}

    def run(self, weights, dataset, state):
        first = next(iter(dataset))["y"].ravel()
        return ClientResult((np.full((4, 3), first[0]), np.zeros(3)), 1.0, toy_model().initial_metrics())


def test_a_client_work_that_iterates_leaves_the_callers_dataset_alone():
    dataset = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}, "ann").shuffle(5, seed=1).batch(2)
    process = compose_learning_process(toy_model, Iterating(), fed.learning.aggregators.MeanFactory(), sgd(1.0))
    np.testing.assert_array_equal(after(process, [dataset]), after(process, [dataset]))
    np.testing.assert_array_equal(next(iter(dataset))["y"], next(dataset.batches())["y"])


class Remembering(fed.learning.aggregators.Aggregator):
    """Has arrays in its state, and tries to change them in place."""

    def __init__(self, careless):
        self.careless = careless

    def initialize(self, weights):
        return [np.zeros(2)]

    def next(self, state, updates, weights):
        if len(weights) < 3 and not self.careless:
            raise ValueError("needs three clients")
        if self.careless:
            state[0] += 1
        return state, tuple(u.mean(axis=0) for u in updates), collections.OrderedDict(of=len(weights))


def test_states_of_ones_own_are_read_only_also_when_unpickled():
    process = weighted(model_aggregator=Remembering(careless=True))
    for state in (process.initialize(), pickle.loads(pickle.dumps(process.initialize()))):
        with pytest.raises(ValueError, match="read-only"):
            process.next(state, random_cohort([3]))


def test_a_signature_runs_no_aggregator():
    process = weighted(model_aggregator=Remembering(careless=False))
    assert "aggregator=?,finalizer" in str(process.next.type_signature)

    class Saying(Remembering):
        def initial_metrics(self):
            return collections.OrderedDict(of=0)

    process = weighted(model_aggregator=Saying(careless=False))
    assert "aggregator=<of=int32>" in str(process.next.type_signature)


class Float32Sums(HandMade):
    """Hands in NumPy's float32, and an array as a metric."""

    own = np.zeros((), np.float32)

    def initial_weights(self):
        return ModelWeights([self.own], [])

    def forward_pass(self, weights, batch):
        return fed.learning.models.BatchOutput(np.float32(0), self.predict_on_batch(weights, batch["v"]))

    def initial_metrics(self):
        return collections.OrderedDict(n=[0.0], table=[np.zeros(2)])

    def unfinalized_metrics(self, batch, output):
        return collections.OrderedDict(n=[np.float32(batch["v"][0])], table=[np.ones(2, np.float32)])

    def metric_finalizers(self):
        return collections.OrderedDict(n=lambda s: s[0], table=lambda s: s[0])


def test_sums_are_float64_whatever_a_model_hands_in():
    evaluation = build_fed_eval(Float32Sums)
    data = [[{"v": np.float32([2**24])}]] + [[{"v": np.float32([1])}]] * 1000
    state, metrics = evaluation.next(evaluation.initialize(), data)
    assert state.client_work[1]["n"] == [2**24 + 1000]
    assert type(state.client_work[1]["n"][0]) is float
    metrics["client_work"]["eval"]["total_rounds_metrics"]["table"] += 100
    assert state.client_work[1]["table"][0].tolist() == [1001, 1001]


def test_the_state_owns_its_weights():
    state = fed.learning.build_weighted_fed_avg(Float32Sums, sgd(0.1)).initialize()
    assert not np.shares_memory(state.global_model_weights.trainable[0], Float32Sums.own)
    assert not state.global_model_weights.trainable[0].flags.writeable


def test_finalizers_may_return_tuples_and_sums_may_be_nested():
    Pair = collections.namedtuple("Pair", "a b")
    finalized = fed.learning.metrics.sum_then_finalize({"m": lambda s: Pair(s["x"][0], s["x"][1])})
    assert finalized([{"m": {"x": [1, 2]}}, {"m": {"x": [3, 4]}}]) == {"m": Pair(4, 6)}


def test_weights_of_clients_are_numbers():
    for wrong in (float("nan"), -1.0, "3", None):
        process = compose((np.ones((4, 3)), np.ones(3)))
        process.client_work.run = lambda *_, w=wrong: ClientResult((np.ones((4, 3)), np.ones(3)), w, {})
        with pytest.raises(ValueError, match="'weight of client c0' must be a finite float >= 0"):
            process.next(process.initialize(), random_cohort([3]))


def test_gradients_of_the_wrong_shape():
    class Broadcast(HandMade):
        def gradient(self, weights, batch, output):
            return (np.ones(1, np.float32),)

    process = fed.learning.build_weighted_fed_avg(Broadcast, sgd(1.0))
    with pytest.raises(ValueError, match="'gradient of Broadcast' must be shaped as the trainable weights"):
        process.next(process.initialize(), [[{"v": np.float32([1])}]])


def test_replacing_parts_of_an_output():
    output = weighted().next(weighted().initialize(), random_cohort([3]))
    assert output._replace(metrics={}).clients == {}


# --- wrong arguments


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(TOY_X, TOY_Y), (TOY_X.astype(np.float64), TOY_Y)], "client 'ann', field 'x': a batch must be float32"),
        ([(TOY_X, TOY_Y), (TOY_X[:, :2], TOY_Y)], r"Got float32 of shape \(5, 2\)"),
        ([(TOY_X, TOY_Y[:1])], "client 'ann': a batch's fields must have the same length"),
        ([(TOY_X, TOY_Y), (TOY_X, TOY_Y + 30)], r"client 'ann', field 'y': labels must lie in \[0, 2\]. Got 30"),
    ],
)
def test_every_batch_is_checked(batches, message):
    dataset = Dataset.from_batches([{"x": x, "y": y} for x, y in batches], "ann")
    for process in (weighted(), build_fed_eval(toy_model)):
        with pytest.raises(fed.DataError, match=message):
            process.next(process.initialize(), [dataset])


def test_batches_of_foreign_byte_order_name_it():
    dataset = (
        Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).batch(2).map(lambda b: {"x": b["x"], "y": b["y"].astype(">i4")})
    )
    with pytest.raises(fed.DataError, match="Got int32 in foreign byte order of shape"):
        weighted().next(weighted().initialize(), [dataset])


def test_hyperparameters_are_checked_when_set():
    process = weighted(0.1)
    for wrong in (float("nan"), -1.0, "x"):
        hparams = {"client_work": {"learning_rate": wrong}, "finalizer": {"learning_rate": 1.0}}
        with pytest.raises(ValueError, match="'learning_rate' must be a finite float >= 0"):
            process.set_hparams(process.initialize(), hparams)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Dataset.from_arrays({"x": [1]}), TypeError, "a list with one Dataset or list of batches per client"),
        ({"ann": []}, TypeError, "a list with one Dataset or list of batches per client"),
        (3, TypeError, "a list with one Dataset"),
        ([3], TypeError, "a list with a Dataset or a list of batches per client"),
        ([{"x": TOY_X, "y": TOY_Y}], TypeError, "a list with a Dataset or a list of batches per client"),
        ([Dataset.from_arrays({"x": TOY_X}).repeat()], ValueError, "datasets that end"),
        (
            [Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}, "ann")],
            fed.DataError,
            "client 'ann': a dataset must be batched",
        ),
        ([[{"pixels": TOY_X}]], fed.DataError, r"a batch must have the fields \['x', 'y'\]"),
    ],
)
def test_data_that_are_no_cohort(data, error, message):
    for process in (weighted(), build_fed_eval(toy_model)):
        with pytest.raises(error, match=message):
            process.next(process.initialize(), data)


def test_iteration_must_be_a_number():
    with pytest.raises(ValueError, match="'iteration' must be an integer >= 0. Got -1."):
        weighted().next(weighted().initialize(), random_cohort([3]), iteration=-1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fed.learning.build_weighted_fed_avg(3, sgd(1)), "'model_fn' must be"),
        (lambda: fed.learning.build_weighted_fed_avg(lambda: 3, sgd(1)), "a callable that returns a Model. Got 3"),
        (lambda: fed.learning.build_weighted_fed_avg(toy_model, type(sgd(1))), "'client_optimizer_fn' must"),
        (lambda: fed.learning.build_unweighted_fed_avg(toy_model, 0.1), "'client_optimizer_fn' must"),
        (lambda: weighted(server=lambda: 3), "'server_optimizer_fn' must be an optimizer"),
        (lambda: weighted(client_weighting="uniform"), "'client_weighting' must be a member"),
        (lambda: build_fed_eval(None), "'model_fn' must"),
        (lambda: compose((), aggregator=3), "'aggregator' must be an Aggregator"),
        (lambda: compose((), finalizer=3), "'finalizer' must be an optimizer"),
        (
            lambda: compose_learning_process(toy_model, 3, fed.learning.aggregators.MeanFactory(), sgd(1)),
            "'client_work' must be a LocalTraining or a ClientWork",
        ),
    ],
)
def test_parts_of_the_wrong_kind(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_a_profile_says_where_the_time_went():
    def slow(batch):
        deadline = time.perf_counter() + 0.01
        while time.perf_counter() < deadline:
            pass
        return batch

    process = fed.learning.build_weighted_fed_avg(toy_model, fed.learning.optimizers.build_sgdm(0.1), engine="loop")
    cohort = [dataset.map(slow) for dataset in random_cohort([9, 4], batch=4)]
    state, profile = process.profile(process.initialize(), [cohort, cohort])
    assert_same = process.initialize()
    for iteration in range(2):
        assert_same = process.next(assert_same, cohort, iteration).state
    assert repr(state) == repr(assert_same)
    assert 0.07 < profile.seconds["your functions"] < profile.total  # of 8 batches
    assert max(profile.seconds, key=profile.seconds.get) == "your functions"
    assert {"read", "train", "aggregate"} <= set(profile.seconds) <= {*PARTS, "other"}
    assert "your functions" in str(profile)


def test_single_examples_are_told_to_be_batched():
    sample, _ = fed.datasets.load_sample()
    unbatched = [sample.create_dataset_for_client(client_id) for client_id in sample.client_ids[:2]]
    model = fed.learning.models.SoftmaxRegression()
    for engine in ("auto", "gram", "loop"):
        process = fed.learning.build_weighted_fed_avg(model, sgd(0.1), engine=engine)
        for cohort in (unbatched, [dataset.select(x="pixels", y="label") for dataset in unbatched]):
            with pytest.raises(
                fed.DataError, match=r"client 'f0000_14': a dataset must be batched, as .batch\(20\) does"
            ):
                process.next(process.initialize(), cohort)
            with pytest.raises(fed.DataError, match="must be batched"):
                fed.learning.models.evaluate(model, model.initial_weights(), cohort[0])
    # One that makes its axis itself is no less a dataset of batches.
    alone = unbatched[0].map(lambda e: {"x": e["pixels"].reshape(1, -1), "y": e["label"].reshape(1, 1)})
    assert process.next(process.initialize(), [alone]).metrics["client_work"]["train"]["num_examples"] == 107
