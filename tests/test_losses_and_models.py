"""The three cross-entropies, softmax regression, central evaluation, saved weights."""

import math
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from conftest import TOY_X, TOY_Y, sgd, toy_batches, toy_model
from hypothesis import given, settings
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.datasets import ArraySpec
from fedsim_np.learning import metrics, models, optimizers
from fedsim_np.learning.models import ModelWeights, evaluation
from fedsim_np.learning.models.evaluation import Measured

LOSSES = ("keras", "stable", "tutorial")


def random_weights(seed, dtype=np.float64, scale=1.0):
    rng = np.random.RandomState(seed)
    return ModelWeights(((scale * rng.randn(4, 3)).astype(dtype), rng.randn(3).astype(dtype)))


def each_weight_moved(model, weights, batch):
    """Gradients of loss and penalty by central differences."""

    def objective(arrays):
        moved = ModelWeights(tuple(arrays))
        return model.forward_pass(moved, batch).loss + model.penalty(moved)

    for tensor, w in enumerate(weights.trainable):
        for index in np.ndindex(w.shape):
            values = []
            for step in (1e-6, -1e-6):
                arrays = [array.copy() for array in weights.trainable]
                arrays[tensor][index] += step
                values.append(objective(arrays))
            yield tensor, index, (values[0] - values[1]) / 2e-6


MODELS = {
    **{loss: lambda loss=loss: toy_model(loss) for loss in LOSSES},
    "l2": lambda: models.SoftmaxRegression(4, 3, l2=0.3),
    "linear": lambda: models.LinearRegression(4, num_targets=2),
    "linear, l2": lambda: models.LinearRegression(4, num_targets=2, l2=0.3),
    "mlp": lambda: models.MLP(4, (5, 6), 3, seed=1),
    "mlp, tanh": lambda: models.MLP(4, (5,), 3, activation="tanh"),
    "mlp, sigmoid": lambda: models.MLP(4, (3, 4, 5), 3, activation="sigmoid"),
    "mlp, no hidden layer": lambda: models.MLP(4, (), 3),
}


def random_batch(model, rng, *shape):
    """A batch of the model's fields in float64, any axes in front of the examples."""
    spec = model.input_spec["y"]
    y = rng.randn(*shape, spec.shape[1]) if spec.dtype.kind == "f" else rng.randint(0, 3, (*shape, 1))
    return {"x": rng.randn(*shape, 4), "y": y}


def random_weights_of(model, rng, *shape):
    return tuple(rng.randn(*shape, *w.shape) for w in model.initial_weights().trainable)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6))
def test_gradient_against_central_differences(name, seed, n):
    model, rng = MODELS[name](), np.random.RandomState(seed)
    weights, batch = ModelWeights(random_weights_of(model, rng)), random_batch(model, rng, n)
    analytic = model.gradient(weights, batch, model.forward_pass(weights, batch))
    assert [g.shape for g in analytic] == [w.shape for w in weights.trainable]
    for tensor, index, numeric in each_weight_moved(model, weights, batch):
        found = analytic[tensor][index]
        assert abs(numeric - found) < 2e-6, f"{name}, tensor {tensor}{index}: analytic {found}, numeric {numeric}"


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 4), b=st.integers(1, 5))
def test_a_stack_of_clients_is_each_client(name, seed, k, b):
    model, rng = MODELS[name](), np.random.RandomState(seed)
    batch, weights = random_batch(model, rng, k, b), random_weights_of(model, rng, k)
    lengths = rng.randint(0, b + 1, k)
    mask = np.arange(b) < lengths[:, np.newaxis]
    output, gradients = model.stacked_forward_and_gradient(weights, batch["x"], batch["y"], mask)
    for i, n in enumerate(lengths):
        own = ModelWeights(tuple(w[i] for w in weights))
        of_client = {field: array[i, :n] for field, array in batch.items()}
        expected = model.forward_pass(own, of_client)
        assert output.loss[i] == pytest.approx(expected.loss)
        np.testing.assert_allclose(output.predictions[i, :n], expected.predictions)
        for stacked, one in zip(gradients, model.gradient(own, of_client, expected), strict=True):
            np.testing.assert_allclose(stacked[i], one, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_every_engine_runs_every_model(name):
    model, rng = MODELS[name](), np.random.RandomState(0)
    cohort = []
    for i, n in enumerate([9, 0, 1, 17, 4]):
        arrays = random_batch(model, rng, n)
        arrays = {f: a.astype(model.input_spec[f].dtype) for f, a in arrays.items()}
        cohort.append(fed.datasets.Dataset.from_arrays(arrays, f"c{i}").repeat(3).shuffle(9, seed=1).batch(4))
    trained, evaluated = {}, {}
    is_softmax = isinstance(model, models.SoftmaxRegression)
    engines = ("loop", "cohort", "auto", "gram", "presorted") if is_softmax else ("loop", "cohort", "auto")
    for engine in engines:
        process = fed.learning.build_weighted_fed_avg(
            model, fed.learning.optimizers.build_sgdm(0.05, 0.5), engine=engine
        )
        state = process.initialize()
        for _ in range(3):
            state, metrics = process.next(state, cohort)
        trained[engine] = state.global_model_weights.trainable, metrics["client_work"]["train"]
        evaluation = fed.learning.build_fed_eval(model, engine=engine)
        state = evaluation.set_model_weights(evaluation.initialize(), state.global_model_weights)
        evaluated[engine] = evaluation.next(state, cohort).metrics["client_work"]["eval"]["current_round_metrics"]
    if not is_softmax:
        with pytest.raises(
            ValueError, match=f"engine='gram' cannot use {type(model).__name__}, which has no softmax_h"
        ):
            fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(0.1), engine="gram")
    for engine, (weights, metrics) in trained.items():
        for got, expected in zip(weights, trained["loop"][0], strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=engine)
        for found, of_loop in ((metrics, trained["loop"][1]), (evaluated[engine], evaluated["loop"])):
            assert list(found) == list(of_loop)
            for metric, value in of_loop.items():
                assert found[metric] == pytest.approx(value, rel=1e-5, abs=0.05 if "accuracy" in metric else 1e-7)
    central = models.evaluate(model, models.ModelWeights(weights), [b for d in cohort for b in d.batches()])
    assert central["loss"] == pytest.approx(evaluated["loop"]["loss"], rel=1e-6)


def test_the_2nn_of_the_paper():
    weights = models.MLP().initial_weights().trainable
    assert sum(w.size for w in weights) == 199_210
    assert [w.dtype for w in weights] == [np.float32] * 6
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        limit = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert not bias.any()
    again, other = models.MLP().initial_weights(), models.MLP(seed=1).initial_weights()
    assert all(map(np.array_equal, again.trainable, weights))
    assert not np.array_equal(other.trainable[0], weights[0])


def test_linear_regression_by_hand():
    model = models.LinearRegression(1, l2=0.5)
    weights = ModelWeights((np.float64([[2.0]]), np.float64([1.0])))
    batch = {"x": np.float64([[1], [3]]), "y": np.float64([[1], [2]])}
    output = model.forward_pass(weights, batch)
    assert output.predictions.tolist() == [[3], [7]]
    assert output.loss == pytest.approx((2**2 + 5**2) / 4)  # without the penalty
    assert model.penalty(weights) == pytest.approx(0.25 * 5)
    kernel, bias = model.gradient(weights, batch, output)
    assert (kernel.item(), bias.item()) == (pytest.approx((2 * 1 + 5 * 3) / 2 + 1), pytest.approx(3.5 + 0.5))
    assert model.unfinalized_metrics(batch, output) == {
        "mean_squared_error": [29, 2],
        "loss": [14.5, 2],
        "num_examples": [2],
        "num_batches": [1],
    }


def logits_case(loss, logits, label):
    """Loss and logit gradients of one example whose logits are given (through the bias)."""
    model = models.SoftmaxRegression(num_features=1, num_classes=len(logits), loss=loss)
    weights = ModelWeights((np.zeros((1, len(logits)), np.float32), np.float32(logits)))
    batch = {"x": np.zeros((1, 1), np.float32), "y": np.array([[label]], np.int32)}
    with np.errstate(all="ignore"):
        output = model.forward_pass(weights, batch)
        return float(output.loss), model.gradient(weights, batch, output)[1]


def test_losses_agree_where_nothing_is_clipped():
    losses = [logits_case(loss, [0.5, -1.0, 2.0], 1) for loss in LOSSES]
    for value, gradient in losses:
        assert value == pytest.approx(np.log(np.exp([0.5, -1, 2]).sum()) + 1, rel=1e-6)
        np.testing.assert_allclose(gradient, losses[0][1], rtol=1e-6)
        assert gradient.sum() == pytest.approx(0, abs=1e-7)


def test_clipping_as_keras_does():
    # p = (1, e^-40): the label's probability is clipped to 1e-7 and its gradient vanishes.
    value, gradient = logits_case("keras", [0.0, -40.0], 1)
    assert value == pytest.approx(np.log(1 + 1e-7 - 1e-7) - np.log(1e-7), rel=1e-6)
    assert gradient.tolist() == [0, 0]
    # ... and with the label on the other side, 1 is clipped to 1 - 1e-7: a small loss, no gradient.
    value, gradient = logits_case("keras", [0.0, -40.0], 0)
    assert 0 <= value < 3e-7
    assert gradient.tolist() == [0, 0]
    # A clipped probability that is not the label's leaves p - onehot.
    _, gradient = logits_case("keras", [0.0, 0.0, -40.0], 0)
    np.testing.assert_allclose(gradient, [-0.5, 0.5, 0], atol=1e-7)


def test_a_subnormal_probability_counts_as_an_underflow():
    """Measured on TensorFlow 2.14: softmax([0, 0, -87])[2] is 0 and sum(onehot * log p) NaN; at -86 neither."""
    assert np.isfinite(logits_case("tutorial", [0.0, 0.0, -86.0], 0)[0])
    assert np.isnan(logits_case("tutorial", [0.0, 0.0, -87.0], 0)[0])
    value, gradient = logits_case("tutorial", [0.0, 0.0, -87.0], 2)
    assert value == np.inf
    assert np.isnan(gradient).all()


def logits_of_tff():
    """What make_tff_figures.py gave TFF."""
    draw = np.random.RandomState
    special = draw(0).choice(np.float32([np.inf, -np.inf, np.nan, 0, 1, -1]), (40, 4))
    large = draw(1).choice(np.float32([-4, -1, 0, 1, 4]), (200, 4))
    kernel = draw(2).choice(np.float32([-3e38, 3e38, -1, 1, 0]), (4, 3))
    labels = draw(3).randint(0, 3, (200, 1)).astype(np.int32)
    return special, large, kernel, labels, (draw(4).standard_normal((60, 4)) * 1e-4).astype(np.float32)


def test_the_largest_of_special_numbers_is_tensorflows(tff_figures):
    special = logits_of_tff()[0]
    for order in "CF":
        z = np.array(special, order=order)
        found = [metrics.is_correct(z, np.full((len(z), 1), label)) for label in range(4)]
        assert np.argmax(found, axis=0).tolist() == tff_figures["logits"]["argmax"]
        assert (np.sum(found, axis=0) == 1).all()


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_accuracy_of_infinite_logits_is_tffs(engine, tff_figures):
    _, x, kernel, y, _ = logits_of_tff()
    model = models.SoftmaxRegression(4, 3, loss="stable")
    evaluation = fed.learning.build_fed_eval(model, engine=engine)
    state = evaluation.initialize()._replace(global_model_weights=models.ModelWeights((kernel, np.zeros(3, "f4"))))
    data = fed.datasets.Dataset.from_arrays({"x": x, "y": y}).batch(20)
    evaluated = evaluation.next(state, [data]).metrics["client_work"]["eval"]["current_round_metrics"]
    expected = tff_figures["logits"]["large"]
    assert dict(evaluated) == {name: pytest.approx(value, nan_ok=True) for name, value in expected.items()}
    centrally = models.evaluate(model, state.global_model_weights, data)
    assert centrally["sparse_categorical_accuracy"] == evaluated["sparse_categorical_accuracy"]


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_accuracy_is_of_logits_where_probabilities_tie(engine, tff_figures):
    *_, y, x = logits_of_tff()
    data = fed.datasets.Dataset.from_arrays({"x": x, "y": y[:60]}).repeat(3).batch(10)
    train, confident = {}, fed.learning.metrics.CLASSIFICATION.plus(confidence=lambda p, y: p.max(axis=-1))
    for loss in ("stable", "keras"):
        model = models.SoftmaxRegression(4, 3, loss=loss)
        model.metrics = confident
        process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(0.1), engine=engine)
        train[loss] = process.next(process.initialize(), [data]).metrics["client_work"]["train"]
        assert train[loss].pop("confidence") == pytest.approx(1 / 3, abs=5e-3)  # of probabilities, not of logits
    assert dict(train["stable"]) == {n: pytest.approx(v, rel=2e-6) for n, v in tff_figures["logits"]["tiny"].items()}
    assert train["stable"]["sparse_categorical_accuracy"] != train["keras"]["sparse_categorical_accuracy"]


def test_stable_stays_exact_and_tutorial_breaks_when_probabilities_underflow():
    value, gradient = logits_case("stable", [0.0, -200.0], 1)
    assert value == 200
    np.testing.assert_allclose(gradient, [1, -1])
    for label, loss in ((0, np.nan), (1, np.inf)):  # 0 * log(0), and 1 * log(0)
        value, gradient = logits_case("tutorial", [0.0, -200.0], label)
        np.testing.assert_equal(float(value), loss)
        assert np.isnan(gradient).all()


def test_ties_count_for_the_lowest_class():
    model = toy_model()
    batch = {"x": TOY_X, "y": TOY_Y}
    output = model.forward_pass(model.initial_weights(), batch)
    sums = model.unfinalized_metrics(batch, output)
    assert sums["sparse_categorical_accuracy"] == [2.0, 5.0]  # all probabilities are equal: class 0
    assert sums["num_examples"] == [5]
    assert sums["loss"] == [pytest.approx(5 * np.log(3)), 5.0]


@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1])
def test_labels_that_are_no_class(bad):
    model, labels = toy_model(), TOY_Y.copy()
    labels[1] = bad
    with pytest.raises(fed.DataError, match=rf"field 'y': labels must lie in \[0, 2\]. Got {bad}"):
        model.forward_pass(model.initial_weights(), {"x": TOY_X, "y": labels})


def test_evaluate_is_the_same_in_any_batches():
    model, weights = toy_model(), random_weights(3, np.float32)
    one = models.evaluate(model, weights, toy_batches(size=5))
    two = models.evaluate(model, weights, fed.datasets.Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).batch(2))
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-6)
    assert (one["num_examples"], one["num_batches"], two["num_batches"]) == (5, 1, 3)
    nothing = models.evaluate(model, weights, [])
    assert dict(nothing) == {"sparse_categorical_accuracy": 0.0, "loss": 0.0, "num_examples": 0, "num_batches": 0}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": TOY_X}, r"a batch must have the fields \['x', 'y'\]"),
        ({"pixels": TOY_X, "label": TOY_Y}, r"Got \['pixels', 'label'\]"),
        ({"x": TOY_X[0], "y": TOY_Y}, r"field 'x': a batch must be float32 of shape \(None, 4\)"),
        ({"x": TOY_X[:, :3], "y": TOY_Y}, r"Got float32 of shape \(5, 3\)"),
        ({"x": TOY_X.astype(np.float64), "y": TOY_Y}, "Got float64 of shape"),
        ({"x": TOY_X, "y": TOY_Y.repeat(2, axis=1)}, "field 'y': a batch must be int32"),
        ({"x": TOY_X, "y": TOY_Y, "weight": TOY_Y}, r"field 'weight': a batch must have the fields \['x', 'y'\]"),
        ({"x": TOY_X, "y": TOY_Y.astype(np.float32)}, "Got float32 of shape"),
    ],
)
def test_batches_that_the_model_does_not_take(batch, message):
    with pytest.raises(fed.DataError, match=message):
        models.evaluate(toy_model(), toy_model().initial_weights(), [batch])


@pytest.mark.parametrize(
    "y",
    [
        ArraySpec((3, 1), np.int32),
        ArraySpec((None, 2), np.int32),
        ArraySpec((None, 1), np.float32),
        ArraySpec((), "i4"),
    ],
)
def test_an_input_spec_must_be_of_batches_that_the_model_takes(y):
    with pytest.raises(ValueError, match="'input_spec' must be a dataset's element_spec of batches that fit"):
        models.SoftmaxRegression(4, 3, input_spec={"x": ArraySpec((None, 4), np.float32), "y": y})
    with pytest.raises(TypeError, match="'input_spec' must be a dataset's element_spec"):
        models.MLP(4, (2,), 3, input_spec={"x": (None, 4), "y": (None, 1)})


@pytest.mark.parametrize(
    ("of_x", "of_y"), [(4, None), (None, 1), (4, 2), (-1, -1), (2**70, 2**70), ("a", "a"), (1.5, 1.5)]
)
def test_an_input_spec_fixes_one_length(of_x, of_y):
    spec = {"x": ArraySpec((of_x, 4), np.float32), "y": ArraySpec((of_y, 1), np.int32)}
    with pytest.raises(ValueError, match="'input_spec' must be "):
        models.SoftmaxRegression(4, 3, input_spec=spec)


def test_rows_that_may_differ_in_number_are_not_laid_side_by_side():
    class Own(models.SoftmaxRegression):
        def __init__(self):
            super().__init__(3, 3)
            self.input_spec = {**self.input_spec, "x": ArraySpec((4, 3), np.float32)}

    sgd = fed.learning.optimizers.build_sgdm(0.1)
    assert fed.learning.build_weighted_fed_avg(Own, sgd).engine == "loop"
    with pytest.raises(ValueError, match="engine='cohort' cannot use Own"):
        fed.learning.build_weighted_fed_avg(Own, sgd, engine="cohort")


def test_labels_of_any_integer_type():
    for dtype in (np.int64, np.uint8):
        metrics = models.evaluate(toy_model(), toy_model().initial_weights(), toy_batches(y=TOY_Y.astype(dtype)))
        assert metrics["sparse_categorical_accuracy"] == pytest.approx(0.4)


def test_weights_survive_a_file(folder):
    weights = random_weights(1, np.float32)._replace(non_trainable=(np.arange(3),))
    for names in (None, ("kernel", "bias")):
        models.save_weights(folder / "w.npz", weights, names)
        read = models.load_weights(folder / "w.npz")
        for part, expected in zip(read, weights, strict=True):
            for array, other in zip(part, expected, strict=True):
                np.testing.assert_array_equal(array, other)
                assert array.dtype == other.dtype
    assert sorted(np.load(folder / "w.npz").files) == ["bias", "kernel", "non_trainable_0"]
    assert [p.name for p in folder.iterdir()] == ["w.npz"]
    for names in (("a",), ("a", "a"), ("a", "non_trainable_9")):
        with pytest.raises(ValueError, match="'names' must be 2 different names"):
            models.save_weights(folder / "w.npz", weights, names)


def test_bad_weights_files(folder):
    path = folder / "w.npz"
    with pytest.raises(fed.DataError, match="w.npz' does not exist"):
        models.load_weights(path)
    models.save_weights(path, random_weights(1))
    whole = path.read_bytes()
    np.savez(folder / "pickled.npz", kernel=np.array([{"a": 1}], dtype=object))
    np.save(folder / "plain.npy", np.zeros(3))
    for content in (
        b"",
        b"text",
        whole[:100],
        (folder / "pickled.npz").read_bytes(),
        (folder / "plain.npy").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(
            fed.DataError, match="w.npz.*: must (be a whole .npz file of arrays of numbers|hold numbers)"
        ):
            models.load_weights(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "'num_features' must be an integer >= 1. Got 0."),
        ({"num_classes": 2.5}, "'num_classes' must"),
        ({"l2": -1.0}, "'l2' must be a finite float >= 0. Got -1.0."),
        ({"loss": "mse"}, r"'loss' must be one of keras, stable, tutorial. Got 'mse'."),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.SoftmaxRegression(**arguments)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.MLP(hidden=3), TypeError, "'hidden' must be a sequence of integers. Got 3."),
        (lambda: models.MLP(hidden=(3, 0)), ValueError, "'hidden' must be an integer >= 1. Got 0."),
        (
            lambda: models.MLP(activation="gelu"),
            ValueError,
            r"'activation' must be one of relu, tanh, sigmoid",
        ),
        (lambda: models.MLP(seed=-1), ValueError, "'seed' must be an integer >= 0"),
        (lambda: models.LinearRegression(3, num_targets=0), ValueError, "'num_targets' must be an integer >= 1"),
        (lambda: models.LinearRegression(3, l2=float("inf")), ValueError, "'l2' must be a finite float >= 0"),
    ],
)
def test_wrong_arguments_of_the_other_models(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- models of one's own


class Own(models.Model):
    """Least squares in four methods and a line for the metrics."""

    input_spec = {
        "x": fed.datasets.ArraySpec((None, 2), np.float32),
        "y": fed.datasets.ArraySpec((None, 1), np.float32),
    }
    metrics = fed.learning.metrics.REGRESSION.plus(bias=lambda predictions, y: (predictions - y)[..., 0])
    dtype = np.float32

    def initial_weights(self):
        return ModelWeights((np.zeros((2, 1), self.dtype), np.ones(3, self.dtype)))

    def predict_on_batch(self, weights, x):
        return x @ weights.trainable[0]

    def forward_pass(self, weights, batch):
        predictions = self.predict_on_batch(weights, batch["x"])
        return models.BatchOutput(np.square(predictions - batch["y"]).mean() / 2, predictions)

    def gradient(self, weights, batch, output):
        return batch["x"].T @ (output.predictions - batch["y"]) / len(batch["x"]), None


OWN_BATCHES = [
    {"x": np.float32([[1, 2], [0, 1]]), "y": np.float32([[1], [3]])},
    {"x": np.float32([[2, 2]]), "y": np.float32([[1]])},
]
OPTIMIZERS = {
    "sgd": fed.learning.optimizers.build_sgdm(0.1),
    "momentum": fed.learning.optimizers.build_sgdm(0.1, 0.9, nesterov=True),
    "adagrad": fed.learning.optimizers.build_adagrad(0.1),
    "adam": fed.learning.optimizers.build_adam(0.1),
    "adamw": fed.learning.optimizers.build_adamw(0.1, weight_decay=0.1),
    "yogi": fed.learning.optimizers.build_yogi(0.1),
    "rmsprop": fed.learning.optimizers.build_rmsprop(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_of_none_leaves_that_weight_alone(name):
    process = fed.learning.build_weighted_fed_avg(Own, OPTIMIZERS[name])
    assert process.engine == "loop"
    state = process.initialize()
    for _ in range(2):
        state, metrics = process.next(state, [OWN_BATCHES, OWN_BATCHES[:1]])
    kernel, other = state.global_model_weights.trainable
    assert other.tolist() == [1, 1, 1]
    assert np.abs(kernel).min() > 0.01
    train = metrics["client_work"]["train"]
    assert list(train) == ["mean_squared_error", "bias", "loss", "num_examples", "num_batches"]
    assert train["mean_squared_error"] == pytest.approx(2 * train["loss"])
    for build in (
        lambda: fed.learning.build_weighted_fed_prox(Own, 0.5, OPTIMIZERS[name]),
        lambda: fed.learning.build_fed_sgd(Own, OPTIMIZERS[name]),
    ):
        process = build()
        state, _ = process.next(process.initialize(), [OWN_BATCHES])
        assert np.abs(state.global_model_weights.trainable[0]).min() > 0.01


def test_metrics_on_top_are_measured_by_every_engine():
    def confidence(predictions, y):
        return predictions.max(axis=-1)

    class Confident(models.SoftmaxRegression):
        metrics = models.SoftmaxRegression.metrics.plus(confidence=confidence)

    cohort = [toy_batches(), toy_batches(size=5), []]
    found = {}
    for engine in ("loop", "cohort", "gram", "presorted", "auto"):
        process = fed.learning.build_weighted_fed_avg(
            lambda: Confident(4, 3), fed.learning.optimizers.build_sgdm(0.5), engine=engine
        )
        state, metrics = process.next(process.initialize(), cohort)
        evaluation = fed.learning.build_fed_eval(lambda: Confident(4, 3), engine=engine)
        assert evaluation.engine == ("loop" if engine == "loop" else "columns")
        evaluation_state = evaluation.set_model_weights(evaluation.initialize(), state.global_model_weights)
        evaluated = evaluation.next(evaluation_state, cohort).metrics["client_work"]["eval"]["current_round_metrics"]
        found[engine] = [*metrics["client_work"]["train"].values(), *evaluated.values()]
    assert list(evaluated) == ["sparse_categorical_accuracy", "confidence", "loss", "num_examples", "num_batches"]
    for values in found.values():
        assert values == pytest.approx(found["loop"], rel=1e-5)
    assert found["loop"][1] > 1 / 3


def test_a_model_without_metrics():
    class Silent(Own):
        metrics = None

    with pytest.raises(TypeError, match=r"'metrics of Silent' must be an attribute such as metrics.CLASSIFICATION"):
        fed.learning.build_weighted_fed_avg(Silent, OPTIMIZERS["sgd"])


class Wide(Own):
    """In float64 throughout."""

    input_spec = {name: fed.datasets.ArraySpec(s.shape, np.float64) for name, s in Own.input_spec.items()}
    dtype = np.float64


WIDE_BATCHES = [{name: array.astype(np.float64) for name, array in batch.items()} for batch in OWN_BATCHES]


def test_a_float64_model_stays_float64():
    process = fed.learning.build_weighted_fed_avg(Wide, fed.learning.optimizers.build_sgdm(0.125))
    state = process.initialize()
    assert "global_model_weights=<trainable=<float64[2,1]" in str(process.initialize.type_signature)
    kernel = np.zeros((2, 1))
    for _ in range(50):
        state = process.next(state, [WIDE_BATCHES]).state
        for batch in WIDE_BATCHES:
            kernel -= 0.125 * batch["x"].T @ (batch["x"] @ kernel - batch["y"]) / len(batch["x"])
    got = state.global_model_weights.trainable[0]
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, kernel, rtol=1e-14)
    clipped = fed.learning.aggregators.robust_aggregator()
    for keywords in ({"model_aggregator": clipped}, {"server_optimizer_fn": OPTIMIZERS["adam"]}):
        process = fed.learning.build_weighted_fed_avg(Wide, OPTIMIZERS["adam"], **keywords)
        assert process.next(process.initialize(), [WIDE_BATCHES]).state.global_model_weights.trainable[0].dtype == "f8"


class WideStack(models.HeadedModel):
    """Float64 weights on float32 data, in lockstep."""

    metrics = fed.learning.metrics.REGRESSION

    def __init__(self):
        super().__init__(fed.learning.losses.SquaresHead(), 2, 1, np.float32)

    def initial_weights(self):
        return ModelWeights((np.zeros((2, 1)),))

    def outputs(self, trainable, x):
        return x @ trainable[0], None

    def backward(self, trainable, x, hidden, errors):
        return (np.swapaxes(x, -1, -2) @ errors,)


def test_float64_weights_in_lockstep():
    results = []
    for engine in ("loop", "cohort"):
        process = fed.learning.build_weighted_fed_avg(
            WideStack, fed.learning.optimizers.build_sgdm(0.125), engine=engine
        )
        assert process.engine == engine
        (w,) = process.next(process.initialize(), [OWN_BATCHES, OWN_BATCHES[:1]]).state.global_model_weights.trainable
        assert w.dtype == np.float64
        results.append(w)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_weights_of_other_types_are_refused_by_name(dtype):
    class Narrow(Own):
        pass

    Narrow.dtype = dtype
    with pytest.raises(TypeError, match=r"'trainable\[0\] of Narrow.initial_weights' must be float32 or float64"):
        fed.learning.build_weighted_fed_avg(Narrow, OPTIMIZERS["sgd"]).initialize()


class Doubling:
    """Overrides a method from beside the model, which knows nothing of models."""

    def gradient(self, weights, batch, output):
        return tuple(2 * g for g in super().gradient(weights, batch, output))


class Doubled(Doubling, models.SoftmaxRegression):
    pass


def test_shortcuts_are_not_inherited_past_a_method_of_another_base_class():
    process = fed.learning.build_weighted_fed_avg(Doubled(4, 3), OPTIMIZERS["sgd"])
    plain = fed.learning.build_weighted_fed_avg(toy_model, fed.learning.optimizers.build_sgdm(0.2), engine="loop")
    assert process.engine == "loop"
    got, expected = (p.next(p.initialize(), [toy_batches(size=5)]).state for p in (process, plain))
    np.testing.assert_allclose(got.global_model_weights.trainable[0], expected.global_model_weights.trainable[0])


class OneBuffer(fed.learning.models.SoftmaxRegression):
    """A model that uses the memory of its predictions again."""

    def forward_pass(self, weights, batch):
        output = super().forward_pass(weights, batch)
        buffer[: len(output.predictions)] = output.predictions
        return output._replace(predictions=buffer[: len(output.predictions)])


buffer = np.empty((5, 3), np.float32)


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8), seed=st.integers(0, 99), limit=st.sampled_from([0, 99])
)
def test_metrics_of_many_batches_are_those_of_each_added_up(lengths, seed, limit):
    rng = np.random.default_rng(seed)
    model, plain = OneBuffer(4, 3), fed.learning.models.SoftmaxRegression(4, 3)
    model.metrics = plain.metrics = metrics.CLASSIFICATION.plus(top=lambda p, y: p.max(axis=-1))
    weights = fed.learning.models.ModelWeights((rng.normal(size=(4, 3)).astype(np.float32), np.zeros(3, np.float32)))
    assert model.declared_metrics is not None
    measured, sums = Measured(model), plain.initial_metrics()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_WAITING_BYTES", limit)
        for n in lengths:
            batch = {"x": rng.normal(size=(n, 4)).astype(np.float32), "y": rng.integers(0, 3, (n, 1)).astype(np.int32)}
            measured.add(batch, model.forward_pass(weights, batch))
            sums = metrics.add(sums, plain.unfinalized_metrics(batch, plain.forward_pass(weights, batch)))
    assert measured.total() == sums  # to the bit


def test_metrics_of_predictions_that_are_not_one_a_row():
    class Whole(fed.learning.models.LinearRegression):
        metrics = metrics.ExampleMetrics({"largest": lambda p, y: np.max(p)})

        def forward_pass(self, weights, batch):
            return super().forward_pass(weights, batch)._replace(predictions=np.float32(len(batch["x"])))

    model = Whole(1)
    batches = [{"x": np.ones((n, 1), np.float32), "y": np.ones((n, 1), np.float32)} for n in (2, 3)]
    measured = Measured(model)
    for batch in batches:
        measured.add(batch, model.forward_pass(model.initial_weights(), batch))
    assert measured.total()["largest"] == [5.0, 5.0]


def test_metrics_of_tuples_and_of_whole_batches():
    class Pair(fed.learning.models.LinearRegression):
        metrics = metrics.ExampleMetrics({"first": lambda p, y: p[0]})

        def forward_pass(self, weights, batch):
            output = super().forward_pass(weights, batch)
            return output._replace(
                predictions=(np.ones(len(batch["x"])), np.zeros((2, 2))), num_examples=len(batch["x"])
            )

    class Whole(fed.learning.models.LinearRegression):
        metrics = metrics.ExampleMetrics({"batches": lambda p, y: np.float32(1)})

    for model, expected in ((Pair(1), {"first": [7.0, 7.0]}), (Whole(1), {"batches": [3.0, 7.0]})):
        measured = Measured(model)
        for n in (2, 3, 2):
            batch = {"x": np.ones((n, 1), np.float32), "y": np.ones((n, 1), np.float32)}
            measured.add(batch, model.forward_pass(model.initial_weights(), batch))
        assert dict(measured.total()).items() >= expected.items()


def small_file_of(path, shape, header=None, method=zipfile.ZIP_DEFLATED, copies=1):
    """Write an .npz of one array of zeros, or of copies of it that have names of their own."""
    text = header or f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice
        for i in range(copies):
            name = f"a{i}.npy" if copies < 99 else "a.npy"
            archive.writestr(name, start + (bytes(math.prod(shape)) if header is None else bytes(9)))


def test_a_small_file_of_large_weights_is_refused_unread(folder):
    path = folder / "w.npz"
    small_file_of(path, (2**25,), copies=3)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(fed.DataError, match="w.npz': must hold arrays of at most 67108864 bytes. Got 100663"):
            models.load_weights(path)
        small_file_of(path, (2**25,))
        tracemalloc.reset_peak()
        with pytest.raises(fed.DataError, match="w.npz': must hold the weights of SoftmaxRegression"):
            models.load_weights(path, toy_model())
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f8', 'fortran_order': True, 'shape': (-1, 3), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4611686018427387904), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': 1, }",
        "(" * 3000,
    ],
)
def test_a_header_is_not_believed(header, folder):
    small_file_of(folder / "w.npz", (), header)
    with pytest.raises(fed.DataError, match="w.npz.*: must"):
        models.load_weights(folder / "w.npz")


def test_other_archives_are_refused(folder):
    path = folder / "w.npz"
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # of which zipfile unpacks more than is asked for
        small_file_of(path, (9,), method=method)
        with pytest.raises(fed.DataError, match="compression method"):
            models.load_weights(path)
    small_file_of(path, (9,), copies=100)
    with pytest.raises(fed.DataError, match="a name twice"):
        models.load_weights(path)
    small_file_of(path, (9,), method=zipfile.ZIP_STORED)
    whole = path.read_bytes()
    place = whole.index(b"PK\x01\x02") + 8  # of the flag of encryption
    path.write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    with pytest.raises(fed.DataError, match="must be a whole .npz"):
        models.load_weights(path)
    np.savez_compressed(path, kernel=np.zeros((4, 3), np.float32, "F"), bias=np.zeros((), np.float32))
    assert [array.shape for array in models.load_weights(path).trainable] == [(4, 3), ()]
    with pytest.raises(fed.DataError, match=r"shapes \(4, 3\), \(3,\). Got \(4, 3\), \(\)."):
        models.load_weights(path, toy_model())


def test_numbers_near_zero_are_no_error_whatever_numpy_is_set_to():
    """1e-40 squared is 0 in float32, as anywhere."""
    x = np.full((6, 4), 1e-40, np.float64)
    with np.errstate(all="raise"):
        clients = fed.datasets.partition.from_arrays({"x": x, "y": [0, 1, 2, 0, 1, 2]}, client=[0, 0, 0, 1, 1, 1])
        cohort = [clients.create_dataset_for_client(c).batch(2).select(x="x", y="y", scale=1e-3) for c in "01"]
        cohort = [dataset.map(lambda b: {"x": b["x"], "y": b["y"]}) for dataset in cohort]
        for engine in ("auto", "loop", "cohort"):
            process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1), engine=engine)
            state, metrics = process.next(process.initialize(), cohort)
            assert metrics["client_work"]["train"]["num_examples"] == 6
        evaluation = fed.learning.build_fed_eval(toy_model)
        evaluation.next(evaluation.set_model_weights(evaluation.initialize(), state.global_model_weights), cohort)
        assert np.isfinite(models.evaluate(toy_model(), state.global_model_weights, cohort[0])["loss"])
        train, _ = fed.datasets.synthetic.load_data(3)
        assert train.create_dataset_for_client(train.client_ids[0]).to_arrays()["pixels"].max() == 1.0
        labels = np.arange(100) % 10
        fed.datasets.partition.assign_dirichlet(labels, 10, 0.01)
        fed.datasets.partition.assign_quantity_skew(100, 10, 1e-4)
