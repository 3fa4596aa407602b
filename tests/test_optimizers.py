"""Update rules on numbers that can be computed by hand."""

from collections import OrderedDict

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import sgd
from hypothesis import given

import fedsim_np as fed
from fedsim_np.learning import optimizers
from fedsim_np.learning.optimizers import as_optimizer


def history(optimizer, gradients, start=1.0):
    """Weights after each step on a single number."""
    weights = (np.float32([start]),)
    state, seen = optimizer.initialize(weights), []
    for gradient in gradients:
        state, weights = optimizer.next(state, weights, (np.float32([gradient]),))
        seen.append(float(weights[0][0]))
    return seen, state


def test_sgd_by_hand():
    assert history(sgd(0.5), [1, 1, -2])[0] == [0.5, 0.0, 1.0]


def test_momentum_by_hand():
    # a: 1, 1.5, -1.25; w: 1 - a/2 each
    seen, state = history(sgd(0.5, 0.5), [1, 1, -2])
    assert seen == [0.5, -0.25, 0.375]
    assert state["accumulator"][0].tolist() == [-1.25]


def test_no_momentum_is_no_state():
    for optimizer in (sgd(0.1), sgd(0.1, None), sgd(0.1, 0.0)):
        assert optimizer.initialize((np.zeros(2),)) == OrderedDict(learning_rate=0.1)


def test_steps_change_neither_state_nor_weights_nor_gradients():
    optimizer, weights, gradients = sgd(0.5, 0.5), (np.ones(3, np.float32),), (np.ones(3, np.float32),)
    state = optimizer.initialize(weights)
    optimizer.next(state, weights, gradients)
    assert state["accumulator"][0].tolist() == [0, 0, 0]
    assert weights[0].tolist() == gradients[0].tolist() == [1, 1, 1]


def test_the_states_hyperparameters_count():
    optimizer, weights = sgd(0.5, 0.5), (np.float32([1.0]),)
    state = optimizer.set_hparams(optimizer.initialize(weights), {"learning_rate": 0.25, "momentum": 0.0})
    assert optimizer.get_hparams(state) == OrderedDict(learning_rate=0.25, momentum=0.0)
    assert optimizer.next(state, weights, weights)[1][0].tolist() == [0.75]
    with pytest.raises(ValueError, match="'hparams' must be a mapping of"):
        optimizer.set_hparams(state, {"rate": 1.0})


@pytest.mark.parametrize("name", ["learning_rate", "momentum"])
@pytest.mark.parametrize("value", [-0.02, float("nan"), float("inf"), "0.1", True, 1j])
def test_rates_that_are_none(name, value):
    with pytest.raises(ValueError, match=f"'{name}' must be a finite float >= 0"):
        fed.learning.optimizers.build_sgdm(**{name: value})


def test_momentum_below_one():
    with pytest.raises(ValueError, match=r"must be a finite float >= 0 and < 1. Got 1.0"):
        sgd(0.1, 1.0)


def test_an_optimizer_or_what_returns_one():
    optimizer = sgd(0.1)
    assert as_optimizer(optimizer, "a") is optimizer
    assert as_optimizer(lambda: optimizer, "a") is optimizer
    for wrong in (type(optimizer), lambda: 0.1, 0.1, None, optimizers.build_adam):
        with pytest.raises(TypeError, match="'a' must be an optimizer, or a callable without arguments"):
            as_optimizer(wrong, "a")


def test_nesterov_by_hand():
    # a: 1, 1.5; steps g + a/2: 1.5, 1.75
    optimizer = optimizers.build_sgdm(0.5, 0.5, nesterov=True)
    assert history(optimizer, [1, 1])[0] == [0.25, -0.625]
    for momentum in (None, 0.0):
        with pytest.raises(ValueError, match="'nesterov' must be False where there is no momentum"):
            optimizers.build_sgdm(0.1, momentum, nesterov=True)


def test_adagrad_by_hand():
    # s: 9, 25; then epsilon inside the root: 3 / sqrt(9 + 7)
    assert history(optimizers.build_adagrad(1.0, 0.0, 0.0), [3, 4])[0] == pytest.approx([0.0, -0.8])
    assert history(optimizers.build_adagrad(1.0, 0.0, 7.0), [3])[0] == [0.25]
    # a first value of 16 counts as a gradient of 4 that was never applied
    assert history(optimizers.build_adagrad(1.0, 16.0, 0.0), [3])[0] == pytest.approx([0.4])


def test_rmsprop_by_hand():
    # s: 4, 4; epsilon outside the root: steps 4/3, 2/3
    seen, state = history(optimizers.build_rmsprop(1.0, decay=0.75, epsilon=1.0), [4, 2])
    assert seen == pytest.approx([-1 / 3, -1.0])
    assert state["preconditioner"][0].tolist() == [4.0]


SECOND = np.sqrt(1 - 0.75**2) / (1 - 0.5**2)  # Adam's correction in step 2, for decays of 1/2 and 3/4


def test_adam_by_hand():
    # a: 2, 1; s: 4, 3; corrections: 1, SECOND
    seen, state = history(optimizers.build_adam(1.0, 0.5, 0.75, 0.0), [4, 0])
    assert seen == pytest.approx([0.0, -SECOND / np.sqrt(3)], rel=1e-6)
    assert state["step"] == 2
    assert (state["accumulator"][0].tolist(), state["preconditioner"][0].tolist()) == ([1.0], [3.0])
    assert history(optimizers.build_adam(1.0, 0.5, 0.75, 2.0), [4])[0] == [0.5]  # epsilon outside the root


def test_adamw_by_hand():
    # as Adam, and each step takes rate * decay * the weight before it: 1/8 of 1, then of 3/8
    seen, state = history(optimizers.build_adamw(0.5, 0.5, 0.75, 0.0, weight_decay=0.25), [4, 0])
    first = 1 - 0.5 - 0.125
    assert seen == pytest.approx([first, first - 0.5 * SECOND / np.sqrt(3) - 0.125 * first], rel=1e-6)
    assert list(state)[-1] == "weight_decay"


def test_yogi_by_hand():
    # s: 0 + 16/4, then 4 - 1/4, since 1 < 4; a: 2, 1.5
    seen, state = history(optimizers.build_yogi(1.0, 0.5, 0.75, 1.0, 0.0), [4, 1])
    first = 1 - 2 / 3
    assert seen == pytest.approx([first, first - SECOND * 1.5 / (np.sqrt(3.75) + 1)], rel=1e-6)
    assert state["preconditioner"][0].tolist() == [3.75]


def test_defaults_are_tffs():
    weights = (np.zeros(1, np.float32),)
    hparams = {
        "adagrad": {"learning_rate": 1.0, "epsilon": 1e-7},
        "adam": {"learning_rate": 1.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        "adamw": {"learning_rate": 1.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
        "yogi": {"learning_rate": 1.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3},
        "rmsprop": {"learning_rate": 1.0, "decay": 0.9, "epsilon": 1e-7},
    }
    firsts = {"adagrad": 0.1, "yogi": 1e-6}
    for name, expected in hparams.items():
        optimizer = getattr(optimizers, f"build_{name}")(1.0)
        state = optimizer.initialize(weights)
        assert dict(optimizer.get_hparams(state)) == expected
        assert state["preconditioner"][0].tolist() == [np.float32(firsts.get(name, 0.0))]


OPTIMIZERS = {
    "sgdm": optimizers.build_sgdm(0.1, 0.9),
    "nesterov": optimizers.build_sgdm(0.1, 0.9, nesterov=True),
    "adagrad": optimizers.build_adagrad(0.1),
    "adam": optimizers.build_adam(0.1),
    "adamw": optimizers.build_adamw(0.1),
    "yogi": optimizers.build_yogi(0.1),
    "rmsprop": optimizers.build_rmsprop(0.1),
    "scheduled": optimizers.schedule_learning_rate(optimizers.build_adam(1.0), lambda t: 0.1 / (1 + t)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@given(k=st.integers(1, 4), steps=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_cohort_at_once_is_each_client_alone(optimizer, k, steps, seed):
    rng = np.random.RandomState(seed)
    weights = tuple(rng.randn(*shape).astype(np.float32) for shape in ((3, 2), (2,)))
    gradients = [tuple(rng.randn(k, *w.shape).astype(np.float32) for w in weights) for _ in range(steps)]
    stacked = tuple(np.stack([w] * k) for w in weights)
    state = optimizer.initialize(stacked)
    before = [w.copy() for w in stacked]
    moved = stacked
    for g in gradients:
        state, moved = optimizer.next(state, moved, g)
    assert all((a == b).all() for a, b in zip(before, stacked, strict=True))
    for i in range(k):
        alone, state = weights, optimizer.initialize(weights)
        for g in gradients:
            state, alone = optimizer.next(state, alone, tuple(x[i] for x in g))
        assert all(w.dtype == np.float32 for w in alone)
        assert [w.tobytes() for w in alone] == [w[i].tobytes() for w in moved]


@pytest.mark.parametrize(
    ("builder", "arguments", "message"),
    [
        ("adagrad", {"learning_rate": -0.1}, "'learning_rate' must be a finite float >= 0. Got -0.1"),
        ("adagrad", {"learning_rate": 1, "epsilon": -1e-7}, "'epsilon' must be"),
        ("adagrad", {"learning_rate": 1, "initial_preconditioner_value": -1}, "'initial_preconditioner_value' must"),
        ("adam", {"learning_rate": float("nan")}, "'learning_rate' must be"),
        ("adam", {"learning_rate": 1, "beta_1": 1.0}, "'beta_1' must be a finite float >= 0 and < 1"),
        ("adam", {"learning_rate": 1, "beta_2": -0.1}, "'beta_2' must be"),
        ("adamw", {"learning_rate": 1, "weight_decay": -0.1}, "'weight_decay' must be"),
        ("yogi", {"learning_rate": 1, "initial_preconditioner_value": "0"}, "'initial_preconditioner_value' must"),
        ("rmsprop", {"learning_rate": 1, "decay": 1.5}, "'decay' must be a finite float >= 0 and < 1"),
    ],
)
def test_hyperparameters_out_of_range(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(optimizers, f"build_{builder}")(**arguments)


def test_set_hparams_checks_the_range():
    optimizer = optimizers.build_adam(0.1)
    state = optimizer.initialize(())
    with pytest.raises(ValueError, match="'beta_2' must be a finite float >= 0 and < 1. Got 1.0"):
        optimizer.set_hparams(state, dict(optimizer.get_hparams(state), beta_2=1.0))


def test_schedules_by_hand():
    optimizer = optimizers.schedule_learning_rate(sgd(7.0, 0.5), lambda t: [1.0, 0.5, 0.25, 0.0][t])
    seen, state = history(optimizer, [1, 1, 1])  # a: 1, 1.5, 1.75
    assert seen == [0.0, -0.75, -1.1875]
    assert (state["round_num"], state["optimizer"]["learning_rate"]) == (3, 0.0)
    assert optimizer.get_hparams(state) == {}


def test_schedules_that_are_none():
    with pytest.raises(TypeError, match="'optimizer' must be an optimizer"):
        optimizers.schedule_learning_rate(lambda: sgd(0.1), lambda t: 0.1)
    with pytest.raises(TypeError, match="'schedule_fn' must be a callable"):
        optimizers.schedule_learning_rate(sgd(0.1), 0.1)
    with pytest.raises(ValueError, match="'optimizer' must be an optimizer with a learning"):
        optimizers.schedule_learning_rate(OPTIMIZERS["scheduled"], lambda t: 1.0)
    for rate in (-1.0, None, float("inf")):
        optimizer = optimizers.schedule_learning_rate(sgd(0.1), lambda t, rate=rate: rate)
        with pytest.raises(ValueError, match="'learning rate of step 0' must be a finite float"):
            history(optimizer, [1])


def test_the_rate_after_the_last_step_is_not_used():
    optimizer = optimizers.schedule_learning_rate(sgd(0.1), lambda t: np.where(t < 2, 0.5, -1.0))
    assert history(optimizer, [1, 1])[0] == [0.5, 0.0]
    with pytest.raises(ValueError, match=r"'learning rate of step 2' must be .* Got -1.0"):
        history(optimizer, [1, 1, 1])


def test_hyperparameters_count_in_float32():
    for build, name in (
        (lambda: optimizers.build_adam(0.1, 0.99999999), "beta_1"),
        (lambda: sgd(1e39), "learning_rate"),
    ):
        with pytest.raises(ValueError, match=f"'{name}' must be .* in float32. Got"):
            build()
    with pytest.raises(ValueError, match="must be a finite float >= 0. Got 1000"):
        sgd(10**400)
    with pytest.raises(TypeError, match="'nesterov' must be True or False. Got 'no'"):
        optimizers.build_sgdm(0.1, 0.9, nesterov="no")
