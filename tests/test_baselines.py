"""The models that federated learning is compared with."""

import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import optimizers, train_centrally, train_locally
from fedsim_np.learning.models import LinearRegression, SoftmaxRegression


def examples(seed=0, n=23, client_id=None):
    rng = np.random.RandomState(seed)
    arrays = {"x": rng.randn(n, 4).astype(np.float32), "y": rng.randint(0, 3, (n, 1)).astype(np.int32)}
    return Dataset.from_arrays(arrays, client_id)


def test_one_epoch_is_a_round_of_one_client():
    data, sgd, model = examples().shuffle(9, seed=2).batch(4), optimizers.build_sgdm(0.2, 0.9), SoftmaxRegression(4, 3)
    process = fed.learning.build_weighted_fed_avg(model, sgd, engine="loop")
    output = process.next(process.initialize(), [data])
    trained = train_centrally(model, sgd, data)
    for a, b in zip(trained.weights.trainable, output.state.global_model_weights.trainable, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert trained.metrics == output.metrics["client_work"]["train"]


def test_epochs_go_on_with_the_optimizers_state_and_in_another_order():
    """Plain NumPy: momentum through both epochs, and tf.data's second iteration in the second."""
    data = examples().shuffle(9, seed=2).batch(4)
    w, a = np.zeros((5, 3)), np.zeros((5, 3))
    for epoch in range(2):
        for batch in data.batches(epoch):
            x1, y = np.hstack([batch["x"], np.ones((len(batch["x"]), 1))]), batch["y"][:, 0]
            p = np.exp(x1 @ w)
            p /= p.sum(axis=1, keepdims=True)
            a = 0.9 * a + x1.T @ (p - np.eye(3)[y]) / len(y)
            w = w - 0.2 * a
    trained = train_centrally(SoftmaxRegression(4, 3, "stable"), optimizers.build_sgdm(0.2, 0.9), data, num_epochs=2)
    np.testing.assert_allclose(np.vstack([trained.weights.trainable[0], trained.weights.trainable[1]]), w, atol=1e-6)


def test_loggers_are_told_by_the_names_of_a_federated_run():
    data, log = examples().batch(4), fed.program.MemoryLogger()
    sgd = optimizers.build_sgdm(0.2)
    trained = train_centrally(SoftmaxRegression(4, 3), sgd, data, data, num_epochs=3, metrics_managers=[log])
    assert len(log.history["client_work/train/loss"]) == 3
    assert log.history["evaluation/loss"][-1] == trained.metrics["loss"]
    assert trained.metrics == fed.learning.models.evaluate(SoftmaxRegression(4, 3), trained.weights, data)


def test_each_client_alone():
    model, sgd = SoftmaxRegression(4, 3), optimizers.build_sgdm(0.2)
    clients = [examples(seed, n, f"c{seed}").batch(4) for seed, n in enumerate((5, 9, 20))]
    alone = train_locally(model, sgd, clients, clients, num_epochs=4)
    for data, own in zip(clients, alone, strict=True):
        single = train_centrally(model, sgd, data, data, num_epochs=4)
        np.testing.assert_array_equal(own.weights.trainable[0], single.weights.trainable[0])
        assert own.metrics == single.metrics


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: train_centrally(LinearRegression(4), 0.1, d), TypeError, "'optimizer' must be an optimizer"),
        (
            lambda d: train_centrally(SoftmaxRegression(4, 3), optimizers.build_sgdm(), d, num_epochs=0),
            ValueError,
            "'num_epochs' must be an integer >= 1",
        ),
        (
            lambda d: train_locally(SoftmaxRegression(4, 3), optimizers.build_sgdm(), [d, d], [d]),
            ValueError,
            "'evaluation_datasets' must be one for each of 2 clients",
        ),
        (
            lambda d: train_centrally(SoftmaxRegression(4, 3), optimizers.build_sgdm(), d, metrics_managers=[print]),
            TypeError,
            "'metrics_managers' must be loggers",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(examples().batch(4))


def test_each_local_run_has_loggers_of_its_own():
    clients = [
        Dataset.from_batches([{"x": np.zeros((1, 1), np.float32), "y": np.float32([[y]])}], f"c{y}") for y in (1, 3)
    ]
    logs = {"c1": fed.program.MemoryLogger(), "c3": fed.program.MemoryLogger()}
    model, sgd = fed.learning.models.LinearRegression(1), fed.learning.optimizers.build_sgdm(0.5)
    fed.learning.train_locally(model, sgd, clients, clients, num_epochs=2, metrics_managers_fn=lambda i: [logs[i]])
    assert [log.history["evaluation/mean_squared_error"] for log in logs.values()] == [
        [0.25, 0.0625],
        [2.25, 0.5625],
    ]
    with pytest.raises(TypeError, match="'metrics_managers_fn' must be a function of a client's id"):
        fed.learning.train_locally(model, sgd, clients, metrics_managers_fn=3)
    with pytest.raises(TypeError, match="'metrics_managers' must be a list of loggers"):
        fed.learning.train_centrally(model, sgd, clients[0], metrics_managers=3)
