"""Personalization: what a client gains by training on, held to plain NumPy and to TFF's edge cases."""

import json

import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import FineTuning, build_personalization_eval, optimizers
from fedsim_np.learning.models import LinearRegression, ModelWeights, SoftmaxRegression

SGD = optimizers.build_sgdm(0.5)


def examples(targets):
    y = np.float32(targets).reshape(-1, 1)
    return Dataset.from_arrays({"x": np.zeros((len(y), 1), np.float32), "y": y})


def clients(*pairs):
    return [{"train_data": examples(train), "test_data": examples(test)} for train, test in pairs]


def test_by_hand():
    """The bias moves half of the way to the batch's mean in each step: 0 -> 1 -> 1.5 of a target of 2."""
    strategies = {
        "two": FineTuning(SGD, epochs=2, batch=2),
        "each": FineTuning(SGD, epochs=2, batch=2, by_epoch=True),
        "own": lambda model, weights, train, test: {"sizes": {"train": train.num_examples}, "first": weights[0][1][0]},
    }
    evaluation = build_personalization_eval(LinearRegression(1), strategies, test_batch=10)
    result = evaluation(LinearRegression(1).initial_weights(), clients(([2, 2], [2]), ([-4], [0])))
    assert list(result) == ["baseline_metrics", "two", "each", "own"]
    assert result["baseline_metrics"]["mean_squared_error"].tolist() == [4.0, 0.0]
    assert result["two"]["mean_squared_error"].tolist() == [0.25, 4.0]  # the second one has a step of a batch of two
    assert list(result["each"]) == ["epoch_1", "epoch_2"]
    assert result["each"]["epoch_1"]["mean_squared_error"].tolist() == [1.0, 4.0]
    assert result["each"]["epoch_2"]["mean_squared_error"].tolist() == [0.25, 9.0]
    assert result["own"]["sizes"]["train"].tolist() == [2, 1]
    assert result["two"]["num_examples"].dtype == np.int64


def test_batches_run_across_epochs_unless_it_goes_by_epoch():
    """Three examples in batches of two: three steps of two epochs in a row, four by epoch."""
    strategies = {"row": FineTuning(SGD, 2, 2), "epoch": FineTuning(SGD, 2, 2, by_epoch=True)}
    evaluation = build_personalization_eval(LinearRegression(1), strategies, test_batch=10)
    result = evaluation(LinearRegression(1).initial_weights(), clients(([1, 1, 1], [1])))
    assert result["row"]["mean_squared_error"][0] == pytest.approx((1 / 2**3) ** 2)
    assert result["epoch"]["epoch_2"]["mean_squared_error"][0] == pytest.approx((1 / 2**4) ** 2)


def test_a_shuffle_is_the_datasets():
    rng = np.random.RandomState(0)
    arrays = {"x": rng.randn(9, 2).astype(np.float32), "y": rng.randint(0, 3, (9, 1))}
    data, model = Dataset.from_arrays(arrays), SoftmaxRegression(2, 3)
    evaluation = build_personalization_eval(model, {"tuned": FineTuning(SGD, 2, 4, buffer=9, seed=5)}, test_batch=4)
    weights = model.initial_weights()
    expected = fed.learning.build_weighted_fed_avg(model, SGD, engine="loop")
    state = expected.next(expected.initialize(), [data.repeat(2).shuffle(9, seed=5).batch(4)]).state
    after = fed.learning.models.evaluate(model, expected.get_model_weights(state), data.batch(4))
    result = evaluation(weights, [{"train_data": data, "test_data": data}])
    assert result["tuned"]["loss"][0] == pytest.approx(after["loss"], rel=1e-6)


def test_tffs_edge_cases():
    """What TFF 0.87.0 gives of a client without examples, and of bad ones."""
    evaluation = build_personalization_eval(LinearRegression(1), {"tuned": FineTuning(SGD, 1, 2)}, test_batch=2)
    weights = LinearRegression(1).initial_weights()
    result = evaluation(weights, clients(([], [2]), ([2], []), ([np.nan], [2]), ([2], [np.nan])))
    tuned, baseline = result["tuned"]["mean_squared_error"], result["baseline_metrics"]["mean_squared_error"]
    np.testing.assert_array_equal(baseline, np.float32([4, 0, 4, np.nan]))
    np.testing.assert_array_equal(tuned, np.float32([4, 0, np.nan, np.nan]))
    assert result["tuned"]["num_examples"].tolist() == [1, 0, 1, 1]
    nobody = evaluation(weights, [])
    assert nobody["tuned"]["mean_squared_error"].shape == (0,)
    assert nobody["tuned"]["num_examples"].dtype == np.int64


def test_tffs_stored_run(shared):
    """Every client's figures of TFF 0.87.0, after three strategies."""
    golden = shared / "goldens" / "more" / "personalization.json"
    stored = json.loads(golden.read_text(encoding="utf-8"))
    config, strategies = stored["config"], {}
    for name, arguments in stored["config"]["strategies"].items():
        kind, rates = arguments["optimizer"]
        strategies[name] = FineTuning(**{**arguments, "optimizer": getattr(optimizers, f"build_{kind}")(**rates)})
    evaluation = build_personalization_eval(SoftmaxRegression, strategies, test_batch=config["test_batch"])
    with np.load(golden.with_name(f"{config['initial_weights']}.npz")) as arrays:
        weights = ModelWeights((arrays["kernel"], arrays["bias"]))
    splits = {
        f"{split}_data": fed.datasets.HDF5ClientData(shared / "data" / f"mnist_by_writer_{split}.h5")
        for split in ("train", "test")
    }
    for result in stored["results"]:
        cohort = [
            {
                name: data.create_dataset_for_client(client).select(x="pixels", y="label")
                for name, data in splits.items()
            }
            for client in result["client_ids"]
        ]
        found, expected = (dict(fed.trees.leaves(of)) for of in (evaluation(weights, cohort), result["metrics"]))
        assert len(expected) == len(cohort) * len(found)
        for path, value in expected.items():
            name, _, client = path.rpartition("/")
            n = expected[f"{name.rpartition('/')[0]}/num_examples/{client}"]
            off = 2.01 / n if "accuracy" in name else 0 if "num" in name else 2e-5 * max(1, value)
            assert abs(found[name][int(client)] - value) <= off, path


def test_many_clients_are_sampled_alike_in_all_figures():
    of_ten = clients(*[([i], [i]) for i in range(10)])
    evaluations = [
        build_personalization_eval(
            LinearRegression(1), {"tuned": FineTuning(SGD, 1, 1)}, test_batch=1, max_num_clients=4, seed=seed
        )
        for seed in (0, 0, 1)
    ]
    first, again, other = (e(LinearRegression(1).initial_weights(), of_ten) for e in evaluations)
    errors = first["baseline_metrics"]["mean_squared_error"]
    assert len(errors) == 4
    np.testing.assert_array_equal(first["tuned"]["mean_squared_error"], errors / 4)
    np.testing.assert_array_equal(errors, again["baseline_metrics"]["mean_squared_error"])
    assert errors.tolist() != other["baseline_metrics"]["mean_squared_error"].tolist()


def test_the_type_is_tffs():
    strategies = {"sgd": FineTuning(SGD, 1, 2), "by_epoch": FineTuning(SGD, 1, 2, by_epoch=True)}
    text = str(build_personalization_eval(SoftmaxRegression, strategies, test_batch=2).type_signature)
    figures = "<sparse_categorical_accuracy=float32[?],loss=float32[?],num_examples=int64[?],num_batches=int64[?]>"
    assert text == (
        "(<server_model_weights=<trainable=<float32[784,10],float32[10]>,non_trainable=<>>@SERVER,"
        "federated_client_input={<train_data=<x=float32[784],y=int32[1]>*,test_data=<x=float32[784],y=int32[1]>*>}"
        f"@CLIENTS> -> <baseline_metrics={figures},sgd={figures},by_epoch=<epoch_1={figures}>>@SERVER)"
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FineTuning(SGD, 0, 1), ValueError, "'epochs' must be an integer >= 1"),
        (lambda: FineTuning(0.1, 1, 1), TypeError, "'optimizer' must be an optimizer"),
        (
            lambda: build_personalization_eval(LinearRegression(1), {"baseline_metrics": len}, test_batch=1),
            ValueError,
            "'strategies' must be named",
        ),
        (
            lambda: build_personalization_eval(LinearRegression(1), {"a": 3}, test_batch=1),
            TypeError,
            r"'strategies\['a'\]' must be a FineTuning",
        ),
        (
            lambda: build_personalization_eval(LinearRegression(1), {}, test_batch=1)(
                ModelWeights((np.zeros((2, 1)), np.zeros(1))), []
            ),
            ValueError,
            "model_weights",
        ),
        (
            lambda: build_personalization_eval(LinearRegression(1), {}, test_batch=1)(
                LinearRegression(1).initial_weights(), [{"train": 1}]
            ),
            ValueError,
            "'clients' must be mappings of train_data and test_data",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
