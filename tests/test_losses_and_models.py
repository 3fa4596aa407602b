"""The three cross-entropies, softmax regression, central evaluation, saved weights."""

import numpy as np
import pytest
from conftest import TOY_X, TOY_Y, toy_batches, toy_model
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.learning import models
from fedsim_np.learning.models import ModelWeights

LOSSES = ("keras", "stable", "tutorial")


def random_weights(seed, dtype=np.float64, scale=1.0):
    rng = np.random.RandomState(seed)
    return ModelWeights(((scale * rng.randn(4, 3)).astype(dtype), rng.randn(3).astype(dtype)))


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6))
def test_gradient_against_central_differences(loss, seed, n):
    model, weights = toy_model(loss), random_weights(seed % 1000)
    rng = np.random.RandomState(seed)
    batch = {"x": rng.randn(n, 4), "y": rng.randint(0, 3, (n, 1))}
    analytic = model.gradient(weights, batch, model.forward_pass(weights, batch))
    for tensor, gradient in enumerate(analytic):
        for index in np.ndindex(gradient.shape):
            moved = []
            for step in (1e-6, -1e-6):
                arrays = [w.copy() for w in weights.trainable]
                arrays[tensor][index] += step
                moved.append(model.forward_pass(ModelWeights(tuple(arrays)), batch).loss)
            numeric = (moved[0] - moved[1]) / 2e-6
            assert abs(numeric - gradient[index]) < 1e-6, (
                f"{loss}, tensor {tensor}{index}: analytic {gradient[index]}, numeric {numeric}"
            )


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
        ({"x": TOY_X, "y": TOY_Y[:, 0]}, "field 'y': a batch must be int32"),
        ({"x": TOY_X, "y": TOY_Y.astype(np.float32)}, "Got float32 of shape"),
    ],
)
def test_batches_that_the_model_does_not_take(batch, message):
    with pytest.raises(fed.DataError, match=message):
        models.evaluate(toy_model(), toy_model().initial_weights(), [batch])


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
    with pytest.raises(fed.DataError, match="w.npz': must exist"):
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
        ({"loss": "mse"}, r"'loss' must be one of \['keras', 'stable', 'tutorial'\]. Got 'mse'."),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.SoftmaxRegression(**arguments)
