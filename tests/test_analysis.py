"""What convex models let one know exactly, held to closed forms, to SciPy, and to rounds that settle."""

import functools

import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np import analysis
from fedsim_np.analysis import Objective, fed_avg_fixed_point, fed_prox_fixed_point, minimize, minimize_each
from fedsim_np.datasets import Dataset
from fedsim_np.learning import ClientWeighting, optimizers
from fedsim_np.learning.models import LinearRegression, ModelWeights, SoftmaxRegression


class InFloat64:
    """Trained in float64."""

    def initial_weights(self):
        weights = super().initial_weights()
        return weights._replace(trainable=tuple(w.astype(np.float64) for w in weights.trainable))


class WideLinear(InFloat64, LinearRegression):
    pass


class WideSoftmax(InFloat64, SoftmaxRegression):
    pass


@functools.cache
def regression():
    """Four clients of unequal sizes, inputs and rules: three features, two targets."""
    rng, clients = np.random.RandomState(0), []
    for i, n in enumerate((5, 12, 30, 8)):
        x = (rng.randn(n, 3) * (0.3 + 0.4 * i) + rng.randn(3)).astype(np.float32)
        y = (x @ rng.randn(3, 2) + rng.randn(2) + 0.1 * rng.randn(n, 2)).astype(np.float32)
        clients.append(Dataset.from_arrays({"x": x, "y": y}, f"c{i}").batch(n))
    return clients


@functools.cache
def shards():
    """Five clients with two labels each."""
    rng = np.random.RandomState(1)
    centres, clients = rng.randn(5, 3), []
    for i in range(5):
        n = 8 + 3 * i
        y = rng.choice([i, (i + 1) % 5], n)
        x = (centres[y] + rng.randn(n, 3)).astype(np.float32)
        clients.append(Dataset.from_arrays({"x": x, "y": y[:, None].astype(np.int32)}, f"c{i}").batch(n))
    return clients


def pooled_least_squares(shares):
    """Of the normal equations, float64: (4, 2), the bias last."""
    left, right = np.zeros((4, 4)), np.zeros((4, 2))
    for share, data in zip(shares, regression(), strict=True):
        (batch,) = data.batches()
        a = np.hstack([batch["x"].astype(np.float64), np.ones((len(batch["x"]), 1))])
        left += share * a.T @ a / len(a)
        right += share * a.T @ batch["y"] / len(a)
    return np.linalg.solve(left, right)


def one(weights):
    kernel, bias = weights.trainable
    return np.vstack([kernel, bias[None]])


@pytest.mark.parametrize(
    ("weighting", "shares"),
    [(ClientWeighting.NUM_EXAMPLES, np.array([5, 12, 30, 8]) / 55), (ClientWeighting.UNIFORM, np.full(4, 0.25))],
)
def test_the_optimum_of_linear_regression_is_that_of_the_normal_equations(weighting, shares):
    optimum = minimize(LinearRegression(3, 2), regression(), client_weighting=weighting)
    np.testing.assert_allclose(one(optimum.weights), pooled_least_squares(shares), atol=1e-7)
    assert optimum.gradient_norm <= 1e-8
    assert one(optimum.weights).dtype == np.float64


def test_each_clients_own_optimum():
    # The first has five examples for four weights: its residuals are small but it has one optimum.
    for i, optimum in enumerate(minimize_each(LinearRegression(3, 2), regression())):
        shares = np.eye(4)[i]
        np.testing.assert_allclose(one(optimum.weights), pooled_least_squares(shares), atol=1e-5)


def softmax_objective(flat, l2):
    """Plain NumPy: loss and gradient of all examples, weights (4, 5)."""
    w = flat.reshape(4, 5)
    batches = [next(iter(data.batches())) for data in shards()]
    x = np.concatenate([batch["x"] for batch in batches]).astype(np.float64)
    y = np.concatenate([batch["y"][:, 0] for batch in batches])
    a = np.hstack([x, np.ones((len(x), 1))])
    z = a @ w
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean() + l2 / 2 * (w**2).sum()
    return loss, (a.T @ (p - np.eye(5)[y]) / len(y) + l2 * w).ravel()


@pytest.mark.parametrize("loss", ["keras", "stable"])
@pytest.mark.parametrize("where", ["model", "argument"])
def test_the_optimum_of_softmax_regression_has_no_gradient_whoever_computes_it(where, loss):
    of_model, of_argument = (0.01, 0.0) if where == "model" else (0.0, 0.01)
    optimum = minimize(SoftmaxRegression(3, 5, loss, l2=of_model), shards(), of_argument)
    value, gradient = softmax_objective(one(optimum.weights).ravel(), 0.01)
    assert np.linalg.norm(gradient) < 2e-8
    assert optimum.loss == pytest.approx(value, abs=1e-12)


def test_the_optimum_is_scipys():
    scipy_optimize = pytest.importorskip("scipy.optimize")
    found = scipy_optimize.minimize(
        softmax_objective, np.zeros(20), args=(0.01,), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 0}
    )
    optimum = minimize(SoftmaxRegression(3, 5, "stable"), shards(), 0.01)
    np.testing.assert_allclose(one(optimum.weights).ravel(), found.x, atol=1e-5)
    assert optimum.loss <= found.fun + 1e-12


def test_an_optimum_that_is_not_found_is_an_error():
    with pytest.raises(RuntimeError, match="after 3 iterations the gradient's norm is"):
        minimize(SoftmaxRegression(3, 5, "stable"), shards(), max_iterations=3)


def test_a_client_without_examples_is_refused_by_name():
    empty = Dataset.from_arrays({"x": np.zeros((0, 3), np.float32), "y": np.zeros((0, 2), np.float32)}, "zoe").batch(4)
    with pytest.raises(fed.DataError, match="client 'zoe': a client must have examples"):
        minimize(LinearRegression(3, 2), [*regression(), empty])


# --- where averaging settles


def settled(process, cohort, rounds):
    state = process.initialize()
    for _ in range(rounds):
        state = process.next(state, cohort).state
    return process.get_model_weights(state)


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_averaging_settles_where_the_closed_form_says_and_not_at_the_optimum(mu):
    steps, rate, model = 6, 0.15, WideLinear(3, 2)
    optimum = minimize(model, regression())
    cohort = [_repeated(data, steps) for data in regression()]
    sgd = optimizers.build_sgdm(rate)
    if mu:
        process = fed.learning.build_weighted_fed_prox(model, mu, sgd, engine="loop")
        expected = fed_prox_fixed_point(model, regression(), mu, float(np.float32(rate)), steps)
    else:
        process = fed.learning.build_weighted_fed_avg(model, sgd, engine="loop")
        expected = fed_avg_fixed_point(model, regression(), float(np.float32(rate)), steps)
    weights = settled(process, cohort, 100)
    np.testing.assert_allclose(one(weights), one(expected), atol=1e-6)
    distance = analysis.distance_to_optimum(expected, optimum)
    assert distance > 0.01
    assert analysis.distance_to_optimum(weights, optimum) == pytest.approx(distance, abs=1e-6)


def _repeated(data, steps):
    (batch,) = data.batches()
    return [batch] * steps


def test_one_step_settles_at_the_optimum_and_very_many_at_the_mean_of_the_clients_own():
    optimum = minimize(LinearRegression(3, 2), regression(), client_weighting=ClientWeighting.UNIFORM)
    point = functools.partial(
        fed_avg_fixed_point, LinearRegression(3, 2), regression(), 0.05, client_weighting=ClientWeighting.UNIFORM
    )
    np.testing.assert_allclose(one(point(1)), one(optimum.weights), atol=1e-7)
    own = [one(each.weights) for each in minimize_each(LinearRegression(3, 2), regression())]
    np.testing.assert_allclose(one(point(200_000)), np.mean(own, axis=0), atol=1e-4)


def test_scaffold_settles_at_the_pooled_optimum_of_label_shards_and_averaging_does_not():
    model = WideSoftmax(3, 5, "stable", l2=0.05)
    optimum = minimize(model, shards(), client_weighting=ClientWeighting.UNIFORM)
    cohort = [Dataset.from_batches(_repeated(data, 5), data.client_id) for data in shards()]
    scaffold = settled(fed.learning.build_scaffold(model, 0.5, num_clients=5, engine="loop"), cohort, 90)
    averaging = settled(fed.learning.build_unweighted_fed_avg(model, optimizers.build_sgdm(0.5)), cohort, 90)
    assert analysis.distance_to_optimum(scaffold, optimum) < 1e-6
    assert analysis.distance_to_optimum(averaging, optimum) > 0.05


# --- measures


def test_suboptimality_as_a_metric_of_a_run():
    model = LinearRegression(3, 2)
    objective, optimum = Objective.of(model, regression()), minimize(model, regression())
    log = fed.program.MemoryLogger()
    process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(0.1))
    measure = analysis.suboptimality_fn(objective, optimum)
    state = fed.program.run_training_process(
        process, lambda _: regression(), 5, measure, lambda _: [], metrics_managers=[log]
    )
    values = log.history["evaluation/suboptimality"]
    assert len(values) == 6
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    assert values[-1] == pytest.approx(analysis.suboptimality(objective, state.global_model_weights, optimum), rel=1e-6)


def test_dissimilarity_at_the_optimum_and_of_clients_that_are_alike():
    model = LinearRegression(3, 2)
    optimum = minimize(model, regression())
    found = analysis.gradient_dissimilarity(Objective.of(model, regression()), optimum.weights)
    assert found.squared_norm < 1e-15
    assert found.zeta_squared == pytest.approx(found.mean_squared_norm, rel=1e-9)
    assert found.zeta_squared > 0.1
    alike = Objective.of(model, [regression()[0]] * 3)
    same = analysis.gradient_dissimilarity(alike, model.initial_weights())
    assert same.zeta_squared == pytest.approx(0.0, abs=1e-20)
    assert same.b == pytest.approx(1.0)


def test_the_drift_at_the_optimum_is_the_closed_forms():
    """|sum_i p_i P_i (Q_i w* - c_i)| / H."""
    model, steps, rate = WideLinear(3, 2), 7, 0.1
    objective, optimum = Objective.of(model, regression()), minimize(model, regression())
    cohort, total = [_repeated(data, steps) for data in regression()], 0.0
    for share, data in zip(objective.shares, regression(), strict=True):
        (batch,) = data.batches()
        a = np.hstack([batch["x"].astype(np.float64), np.ones((len(batch["x"]), 1))])
        q, c = a.T @ a / len(a), a.T @ batch["y"] / len(a)
        p = sum(np.linalg.matrix_power(np.eye(4) - np.float32(rate) * q, j) for j in range(steps))
        total = total + share * p @ (q @ one(optimum.weights) - c) / steps
    found = analysis.average_drift_at_optimum(objective, cohort, optimum, rate)
    assert found == pytest.approx(np.linalg.norm(total), rel=1e-5)
    alike = [_repeated(regression()[2], steps)] * 3
    own = minimize(model, alike)
    assert analysis.average_drift_at_optimum(Objective.of(model, alike), alike, own, rate) < 1e-6


def test_a_rounds_step_is_the_sum_of_its_parts():
    model, rate = WideLinear(3, 2), 0.1
    objective, weights = Objective.of(model, regression()), model.initial_weights()
    chosen = [0, 2]
    cohort = [_repeated(regression()[i], steps) for i, steps in zip(chosen, (4, 4), strict=True)]
    parts = analysis.round_step(objective, weights, chosen, cohort, rate)
    process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(rate), engine="loop")
    state = process.next(process.initialize(), cohort).state
    for w, *of_parts in zip(state.global_model_weights.trainable, *parts, strict=True):
        np.testing.assert_allclose(-w, sum(of_parts), atol=1e-7)
    everybody = [_repeated(data, 1) for data in regression()]
    norms = analysis.round_step(objective, weights, range(4), everybody, rate).norms()
    assert norms["sampling"] < 1e-7
    assert norms["drift"] < 1e-7
    assert norms["centralized"] > 0.1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: minimize(LinearRegression(3, 2), regression(), -1.0), ValueError, "'l2' must be a finite float >= 0"),
        (lambda: minimize(LinearRegression(3, 2), regression(), tolerance=0.0), ValueError, "'tolerance' must be abo"),
        (
            lambda: Objective.of(LinearRegression(3, 2), regression(), client_weighting="uniform"),
            TypeError,
            "'client_weighting' must be a member of ClientWeighting",
        ),
        (
            lambda: fed_avg_fixed_point(SoftmaxRegression(3, 5), shards(), 0.1, 3),
            TypeError,
            "'model_fn' must be a LinearRegression",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_weights_are_left_as_they_are():
    weights = ModelWeights((np.ones((3, 2), np.float32), np.ones(2, np.float32)))
    Objective.of(LinearRegression(3, 2), regression())(weights)
    assert weights.trainable[0].dtype == np.float32


@pytest.mark.parametrize("l2_of", ["model", "objective"])
@pytest.mark.parametrize("rate", [1e-2, 1e-6])
def test_one_full_step_does_not_drift_at_the_optimum(l2_of, rate):
    rng = np.random.default_rng(0)
    clients = [
        [{"x": rng.standard_normal((n, 3)).astype(np.float32), "y": np.full((n, 1), 1000 + n, np.float32)}]
        for n in (3, 5, 8)
    ]
    model, l2 = fed.learning.models.LinearRegression(3, l2=0.3 * (l2_of == "model")), 0.3 * (l2_of == "objective")
    objective, optimum = analysis.Objective.of(model, clients, l2), analysis.minimize(model, clients, l2)
    assert analysis.average_drift_at_optimum(objective, clients, optimum, rate) < 1e-6
    step = analysis.round_step(objective, optimum.weights, [0, 1, 2], clients, rate)
    assert step.norms()["drift"] < 1e-6 * rate


def test_what_does_not_fit_an_objective_is_named():
    clients = [[{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}] for y in (1, 3)]
    model = fed.learning.models.LinearRegression(1)
    objective, optimum = analysis.Objective.of(model, clients), analysis.minimize(model, clients)
    other = fed.learning.models.LinearRegression(1, 2).initial_weights()
    for call, message in (
        (lambda: analysis.minimize(model, []), "'datasets' must be of at least one client"),
        (lambda: analysis.distance_to_optimum(other, optimum), "'weights' must be of the shapes"),
        (lambda: analysis.average_drift_at_optimum(objective, clients[:1], optimum, 0.1), "'datasets' must be one for"),
        (lambda: analysis.round_step(objective, optimum.weights, [2], clients[:1], 0.1), "'cohort' must be clients of"),
        (lambda: analysis.round_step(objective, optimum.weights, [0], clients, 0.1), "'datasets' must be one for each"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("rate", [0.0, 10.0])
def test_no_fixed_point_where_steps_are_not_stable(rate):
    clients = [[{"x": np.ones((2, 1), np.float32), "y": np.ones((2, 1), np.float32)}]]
    with pytest.raises(ValueError, match="'learning_rate' must be above 0 and below 1, for a client's steps"):
        fed_avg_fixed_point(LinearRegression(1), clients, rate, 3)
