"""Every algorithm against runs of TFF 0.87 on the project's own sample; see goldens/make_tff_runs.py."""

import json
from functools import partial

import numpy as np
import pytest
from configurations import RUNS, make
from conftest import GOLDENS

import fedsim_np as fed
from fedsim_np.learning import aggregators, optimizers

FOLDER = GOLDENS / "tff_runs"


class HandWrittenModel(fed.learning.models.SoftmaxRegression):
    """The tutorial's own model: the same arithmetic, metrics of its own."""

    def __init__(self):
        super().__init__(loss="tutorial")

    def initial_metrics(self):
        return {"num_examples": [0.0], "loss": [0.0, 0.0], "accuracy": [0.0, 0.0]}

    def unfinalized_metrics(self, batch, output):
        sums = super().unfinalized_metrics(batch, output)
        correct, n = sums["sparse_categorical_accuracy"]
        return {"num_examples": [n], "loss": sums["loss"], "accuracy": [correct, n]}

    def metric_finalizers(self):
        return {
            "num_examples": lambda sums: sums[0],
            "loss": lambda sums: sums[0] / sums[1],
            "accuracy": lambda sums: sums[0] / sums[1],
        }


MODELS = {"keras": fed.learning.models.SoftmaxRegression, "custom": HandWrittenModel}


def names(name):
    """The library's function of a name."""
    ours = {
        "no_noise": aggregators.PrivateQuantileEstimationProcess.no_noise,
        "inverse_time": lambda rate: lambda t: rate / (1.0 + 0.5 * t),
        "sgd_at": lambda: optimizers.build_sgdm,
        "debug_fn": lambda: aggregators.add_debug_measurements,
        "sampled": lambda: fed.learning.metrics.finalize_then_sample,
    }
    return ours.get(name) or getattr(optimizers, name, None) or getattr(aggregators, name)


def form(element):
    return {"x": element["pixels"].reshape(-1, 784), "y": element["label"].reshape(-1, 1)}


def datasets(client_data, configuration, first, last):
    epochs, buffer, seed, batch = (configuration[key] for key in ("epochs", "buffer", "seed", "batch"))
    return [
        client_data.create_dataset_for_client(c).repeat(epochs).shuffle(buffer, seed=seed).batch(batch).map(form)
        for c in client_data.client_ids[first:last]
    ]


def repeated(configuration, engine="loop"):
    """The run again: process, rounds' metrics, final weights, evaluations."""
    train, test = fed.datasets.load_sample()
    model_fn = MODELS[configuration["model"]]
    parts = {key: make(part, names) for key, part in configuration["parts"].items()}
    process = getattr(fed.learning, configuration["builder"])(model_fn, engine=engine, **parts)
    state, rounds = process.initialize(), []
    for first, last in configuration["cohorts"]:
        state, metrics = process.next(state, datasets(train, configuration, first, last))
        rounds.append(metrics)
    weights = process.get_model_weights(state)
    evaluation = fed.learning.build_fed_eval(model_fn, engine=engine)
    evaluated, evaluations = evaluation.set_model_weights(evaluation.initialize(), weights), {}
    for split, client_data in (("train", train), ("test", test)):
        output = evaluation.next(evaluated, datasets(client_data, configuration, *configuration["evaluated"]))
        evaluated, evaluations[split] = output.state, output.metrics["client_work"]["eval"]
    return process, rounds, weights, evaluations


def assert_close(stored, got, tolerance, examples=0, path=""):
    """Counts exact, an accuracy within two examples, all else within the tolerance."""
    if isinstance(stored, dict):
        assert list(stored) == list(got), path
        for name, value in stored.items():
            assert_close(value, got[name], tolerance, stored.get("num_examples", examples), f"{path}/{name}")
    elif isinstance(stored, list):
        assert len(stored) == len(got), path
        of = examples if isinstance(examples, list) else [examples] * len(stored)
        for i, value in enumerate(stored):
            assert_close(value, got[i], tolerance, of[i] if of else 0, f"{path}/{i}")
    elif isinstance(stored, int):
        assert stored == got, path
        assert isinstance(got, int | np.integer), path
    elif "accuracy" in path:
        assert abs(stored - got) * examples <= 2.01, path
    else:
        assert got == pytest.approx(stored, rel=tolerance, abs=tolerance * 1e-3), path


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_tff(name):
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert stored["configuration"] == RUNS[name], "the stored run is of another configuration: make it again"
    tolerance = RUNS[name]["tolerance"]
    process, rounds, weights, evaluations = repeated(RUNS[name])
    signatures = [p.type_signature.formatted_representation() for p in (process.initialize, process.next)]
    assert signatures == stored["signatures"]
    assert_close(stored["hparams"], process.get_hparams(process.initialize()), 1e-6)
    assert_close(stored["rounds"], rounds, tolerance)
    for split, evaluation in evaluations.items():
        assert_close(stored[f"evaluation_{split}"], evaluation, tolerance)
    with np.load(FOLDER / f"{name}.npz") as arrays:
        for got, expected in zip(weights.trainable, (arrays["kernel"], arrays["bias"]), strict=True):
            assert np.abs(got - expected).max() <= tolerance * max(0.1, np.abs(arrays["kernel"]).max())


def test_every_stored_run_is_repeated():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(RUNS)


def test_the_orders_of_the_runs():
    with np.load(FOLDER / "orders.npz") as orders:
        assert len(orders.files) > 100
        for name in orders.files:
            n, epochs, buffer, seed = map(int, name.split("_"))
            elements = fed.datasets.Dataset.from_arrays({"i": np.arange(n)}).repeat(epochs).shuffle(buffer, seed=seed)
            (batch,) = elements.batch(n * epochs)
            assert batch["i"].tolist() == orders[name].tolist(), name


def small_run(builder, *arguments, rounds=3, **keywords):
    """Weights after some rounds of ten clients of the sample."""
    process = getattr(fed.learning, builder)(fed.learning.models.SoftmaxRegression, *arguments, **keywords)
    train, _ = fed.datasets.load_sample()
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, datasets(train, RUNS["fed_prox"], 0, 5))
    return process.get_model_weights(state).trainable, metrics


def assert_same_bits(a, b):
    assert [x.tobytes() for x in a] == [x.tobytes() for x in b]


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_fed_prox_without_a_proximal_term_is_fed_avg_to_the_bit(momentum):
    optimizer = optimizers.build_sgdm(0.02, momentum)
    for kind in ("weighted", "unweighted"):
        average, metrics = small_run(f"build_{kind}_fed_avg", optimizer)
        proximal, same_metrics = small_run(f"build_{kind}_fed_prox", 0.0, optimizer)
        assert_same_bits(average, proximal)
        assert metrics == same_metrics


def test_clipping_at_infinity_is_the_plain_mean_to_the_bit():
    mean, _ = small_run("build_weighted_fed_avg", optimizers.build_sgdm(0.1))
    clipped, metrics = small_run(
        "build_weighted_fed_avg",
        optimizers.build_sgdm(0.1),
        model_aggregator=aggregators.clipping_factory(np.inf, aggregators.MeanFactory()),
    )
    assert_same_bits(mean, clipped)
    assert metrics["aggregator"]["clipped_count"] == 0
    assert metrics["aggregator"]["clipping_norm"] == np.inf


def test_the_proximal_term_pulls_towards_the_servers_model():
    moved = [
        np.abs(small_run("build_weighted_fed_prox", mu, optimizers.build_sgdm(0.05), rounds=1)[0][0]).sum()
        for mu in (0.0, 1.0, 10.0)
    ]
    assert moved[0] > moved[1] > moved[2]


def test_fed_sgd_is_one_step_on_the_gradient_of_all_examples():
    train, _ = fed.datasets.load_sample()
    model = fed.learning.models.SoftmaxRegression()
    process = fed.learning.build_fed_sgd(model, optimizers.build_sgdm(1.0))
    cohort = [train.create_dataset_for_client(c).batch(7).map(form) for c in train.client_ids[:4]]
    got = process.next(process.initialize(), cohort).state.global_model_weights.trainable
    pooled = [train.create_dataset_for_client(c).to_arrays() for c in train.client_ids[:4]]
    everything = form({name: np.concatenate([p[name] for p in pooled]) for name in ("pixels", "label")})
    weights = model.initial_weights()
    gradient = model.gradient(weights, everything, model.forward_pass(weights, everything))
    for w, g in zip(got, gradient, strict=True):
        np.testing.assert_allclose(w, -g, atol=1e-6)


def test_a_schedule_by_round_is_a_loop_by_hand():
    rates = [0.05, 0.02, 0.0, 0.1]
    scheduled = fed.learning.build_weighted_fed_avg_with_optimizer_schedule(
        fed.learning.models.SoftmaxRegression, lambda t: rates[t], optimizers.build_sgdm
    )
    train, _ = fed.datasets.load_sample()
    state, weights = scheduled.initialize(), None
    for t, rate in enumerate(rates):
        cohort = datasets(train, RUNS["fed_prox"], t, t + 3)
        state, metrics = scheduled.next(state, cohort)
        assert (state.client_work, metrics["client_work"]["client_learning_rate"]) == (t + 1, rate)
        by_hand = fed.learning.build_weighted_fed_avg(
            fed.learning.models.SoftmaxRegression, optimizers.build_sgdm(rate)
        )
        start = by_hand.initialize()
        if weights is not None:
            start = by_hand.set_model_weights(start, weights)
        weights = by_hand.next(start, cohort).state.global_model_weights
        assert_same_bits(weights.trainable, state.global_model_weights.trainable)


def test_a_schedule_by_step_is_a_loop_by_hand():
    rates = [0.1, 0.05, 0.2]
    rng = np.random.RandomState(0)
    batches = [
        {"x": rng.rand(4, 784).astype(np.float32), "y": rng.randint(0, 10, (4, 1)).astype(np.int32)} for _ in rates
    ]
    optimizer = optimizers.schedule_learning_rate(optimizers.build_sgdm(), lambda t: (rates * 2)[t])
    model = fed.learning.models.SoftmaxRegression()
    process = fed.learning.build_weighted_fed_avg(model, optimizer)
    got = process.next(process.initialize(), [batches]).state.global_model_weights.trainable
    weights = model.initial_weights()
    for batch, rate in zip(batches, rates, strict=True):
        gradients = model.gradient(weights, batch, model.forward_pass(weights, batch))
        weights = weights._replace(
            trainable=tuple(w - np.float32(rate) * g for w, g in zip(weights.trainable, gradients, strict=True))
        )
    for w, expected in zip(got, weights.trainable, strict=True):
        np.testing.assert_allclose(w, expected, atol=1e-7)


SGD = optimizers.build_sgdm(0.1)


@pytest.mark.parametrize(
    ("builder", "arguments", "error", "message"),
    [
        ("build_weighted_fed_prox", (-0.1, SGD), ValueError, "'proximal_strength' must be a fin"),
        ("build_weighted_fed_prox", ("0.1", SGD), ValueError, "Got '0.1'"),
        ("build_unweighted_fed_prox", (float("nan"), SGD), ValueError, "'proximal_strength' must"),
        ("build_weighted_fed_prox", (0.1, optimizers.SGDM), TypeError, "'client_optimizer_fn' must"),
        ("build_fed_sgd", (optimizers.SGDM,), TypeError, "'server_optimizer_fn' must be an optimizer"),
        (
            "build_weighted_fed_avg_with_optimizer_schedule",
            (0.1, optimizers.build_sgdm),
            TypeError,
            "'client_learning_rate_fn' must be a callable",
        ),
        (
            "build_weighted_fed_avg_with_optimizer_schedule",
            (lambda t: 0.1, SGD),
            TypeError,
            "'client_optimizer_fn' must be a callable that takes a",
        ),
        (
            "build_weighted_fed_avg_with_optimizer_schedule",
            (lambda t: -0.1, optimizers.build_sgdm),
            ValueError,
            "'learning rate of round 0' must be a finite float >= 0",
        ),
        (
            "build_weighted_fed_avg_with_optimizer_schedule",
            (lambda t: 0.1, lambda rate: rate),
            TypeError,
            "'client_optimizer_fn' must be an optimizer, or",
        ),
    ],
)
def test_arguments_of_builders_that_are_wrong(builder, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(fed.learning, builder)(fed.learning.models.SoftmaxRegression, *arguments)


@pytest.mark.parametrize("builder", ["build_weighted_fed_avg", "build_unweighted_fed_avg", "build_fed_sgd"])
def test_an_unknown_engine(builder):
    with pytest.raises(ValueError, match="'engine' must be .* Got 'warp'"):
        getattr(fed.learning, builder)(fed.learning.models.SoftmaxRegression, SGD, engine="warp")
    with pytest.raises(ValueError, match="'engine' must be .* Got 'warp'"):
        fed.learning.build_fed_eval(fed.learning.models.SoftmaxRegression, engine="warp")


@pytest.mark.parametrize("builder", ["build_unweighted_fed_avg", "build_unweighted_fed_prox"])
def test_a_weighted_aggregator_where_an_unweighted_one_is_needed(builder):
    arguments = (SGD,) if builder.endswith("avg") else (0.1, SGD)
    with pytest.raises(TypeError, match="'model_aggregator' must be an unweighted Aggregator"):
        getattr(fed.learning, builder)(
            fed.learning.models.SoftmaxRegression, *arguments, model_aggregator=aggregators.MeanFactory()
        )


def test_a_client_that_is_left_out_of_fed_sgd_and_fed_prox():
    """TFF lets such a client's NaN into the metrics; here it is left out of them, as in federated averaging."""
    good = {"x": np.ones((2, 784), np.float32), "y": np.zeros((2, 1), np.int32)}
    bad = {"x": np.full((2, 784), np.inf, np.float32), "y": np.zeros((2, 1), np.int32)}
    model_fn = fed.learning.models.SoftmaxRegression
    for process in (
        fed.learning.build_fed_sgd(model_fn),
        fed.learning.build_weighted_fed_prox(model_fn, 0.5, SGD),
    ):
        state = process.initialize()
        alone = process.next(state, [[good]])
        output = process.next(state, [[good], [bad], []])
        assert output.metrics == alone.metrics
        assert output.clients["status"] == ["ok", "non-finite update", "empty"]
        assert_same_bits(output.state.global_model_weights.trainable, alone.state.global_model_weights.trainable)


def toy_clients(sizes):
    rng = np.random.RandomState(3)
    return [
        [{"x": rng.rand(n, 784).astype(np.float32), "y": rng.randint(0, 10, (n, 1)).astype(np.int32)}] for n in sizes
    ]


def test_client_weighting():
    cohort, model_fn = toy_clients([1, 9]), fed.learning.models.SoftmaxRegression
    uniform = {"client_weighting": fed.learning.ClientWeighting.UNIFORM}
    for process, weights in (
        (fed.learning.build_weighted_fed_prox(model_fn, 0.5, SGD), [1, 9]),
        (fed.learning.build_weighted_fed_prox(model_fn, 0.5, SGD, **uniform), [1, 1]),
        (fed.learning.build_unweighted_fed_prox(model_fn, 0.5, SGD), [1, 1]),
        (fed.learning.build_weighted_fed_avg(model_fn, SGD, **uniform), [1, 1]),
        (fed.learning.build_unweighted_fed_avg(model_fn, SGD), [1, 1]),
        (fed.learning.build_fed_sgd(model_fn), [1, 9]),
    ):
        assert process.next(process.initialize(), cohort).clients["weight"].tolist() == weights


def test_fed_sgd_with_a_single_example():
    model = fed.learning.models.SoftmaxRegression()
    ((batch,),) = cohort = toy_clients([1])
    process = fed.learning.build_fed_sgd(model, optimizers.build_sgdm(1.0))
    got = process.next(process.initialize(), cohort).state.global_model_weights.trainable
    weights = model.initial_weights()
    expected = model.gradient(weights, batch, model.forward_pass(weights, batch))
    for w, g in zip(got, expected, strict=True):
        np.testing.assert_array_equal(w, -g)


def test_fed_prox_has_no_hyperparameters_on_the_clients():
    process = fed.learning.build_weighted_fed_prox(fed.learning.models.SoftmaxRegression, 0.5, SGD)
    state = process.initialize()
    hparams = process.get_hparams(state)
    assert hparams == {"client_work": {}, "finalizer": {"learning_rate": 1.0}}
    hparams["client_work"] = {"learning_rate": 0.5}
    with pytest.raises(ValueError, match="'hparams' must be empty for this client work"):
        process.set_hparams(state, hparams)
    for wrong in (None, {}, {"client_work": 3, "finalizer": {"learning_rate": 1.0}}):
        with pytest.raises(ValueError, match="'hparams' must be"):
            process.set_hparams(state, wrong)


def test_the_type_of_a_small_sample():
    sampled = partial(fed.learning.metrics.finalize_then_sample, sample_size=2)
    process = fed.learning.build_weighted_fed_avg(MODELS["keras"], SGD, metrics_aggregator=sampled)
    assert "loss=float32[?]," in process.next.type_signature.formatted_representation()
