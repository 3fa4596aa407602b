"""Update rules and means on numbers that can be computed by hand."""

from collections import OrderedDict

import numpy as np
import pytest
from conftest import sgd, toy_model

import fedsim_np as fed
from fedsim_np.learning import aggregators
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
    with pytest.raises(ValueError, match="'hparams' of set_hparams must be a mapping of"):
        optimizer.set_hparams(state, {"rate": 1.0})


@pytest.mark.parametrize("name", ["learning_rate", "momentum"])
@pytest.mark.parametrize("value", [-0.02, float("nan"), float("inf"), "0.1", True, 1j])
def test_rates_that_are_none(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' of build_sgdm must be a finite float >= 0"):
        fed.learning.optimizers.build_sgdm(**{name: value})


def test_momentum_below_one():
    with pytest.raises(ValueError, match=r"must be a finite float >= 0 and < 1. Got 1.0"):
        sgd(0.1, 1.0)


def test_an_optimizer_or_what_returns_one():
    optimizer = sgd(0.1)
    assert as_optimizer(optimizer, "a", "b") is optimizer
    assert as_optimizer(lambda: optimizer, "a", "b") is optimizer
    for wrong in (type(optimizer), lambda: 0.1, 0.1, None):
        with pytest.raises(TypeError, match="The 'a' of b must be an optimizer, or a callable without arguments"):
            as_optimizer(wrong, "a", "b")


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
    with pytest.raises(TypeError, match=f"The 'model_aggregator' of {builder} must be {kind}"):
        getattr(fed.learning, builder)(toy_model, sgd(0.1), model_aggregator=aggregator)
