"""Fast engines held to the reference loop, and the same bits whoever computes."""

import functools
import gc
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import TOY_X, TOY_Y, random_cohort, toy_batches, toy_model
from hypothesis import HealthCheck, given, settings

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.datasets.sources import ElementSource, sealed
from fedsim_np.demos import own_algorithm
from fedsim_np.learning import engines, optimizers
from fedsim_np.learning.engines.cache import Cache, Content, WeakKey
from fedsim_np.learning.engines.columns import function_key
from fedsim_np.learning.engines.host import _openblas, one_blas_thread

SGD = optimizers.build_sgdm(0.1)
BUILDERS = {
    "sgd": functools.partial(fed.learning.build_weighted_fed_avg, client_optimizer_fn=SGD),
    "momentum": functools.partial(
        fed.learning.build_weighted_fed_avg, client_optimizer_fn=optimizers.build_sgdm(0.05, 0.9)
    ),
    "nesterov": functools.partial(
        fed.learning.build_unweighted_fed_avg, client_optimizer_fn=optimizers.build_sgdm(0.05, 0.5, nesterov=True)
    ),
    "proximal": functools.partial(fed.learning.build_weighted_fed_prox, proximal_strength=0.7, client_optimizer_fn=SGD),
    "proximal momentum": functools.partial(
        fed.learning.build_unweighted_fed_prox,
        proximal_strength=1.5,
        client_optimizer_fn=optimizers.build_sgdm(0.05, 0.9),
    ),
    "scheduled": functools.partial(
        fed.learning.build_weighted_fed_avg_with_optimizer_schedule,
        client_learning_rate_fn=lambda t: 0.1 / (1 + t),
        client_optimizer_fn=optimizers.build_sgdm,
    ),
    "adam": functools.partial(
        fed.learning.build_weighted_fed_avg, client_optimizer_fn=optimizers.build_adam(0.01, epsilon=0.01)
    ),
    "scheduled adagrad": functools.partial(
        fed.learning.build_weighted_fed_avg,
        client_optimizer_fn=optimizers.schedule_learning_rate(optimizers.build_adagrad(1.0), lambda t: 0.1 / (1 + t)),
    ),
}
FAST = {name: ["cohort"] if "ada" in name else ["cohort", "gram", "presorted"] for name in BUILDERS}


def clients(sizes, seed=0, features=4, classes=3):
    """Client data with that many examples each."""
    rng = np.random.RandomState(seed)
    return [
        {
            "pixels": rng.rand(n, features // 2, 2).astype(np.float32),
            "label": rng.randint(0, classes, n).astype(np.int32),
        }
        for n in sizes
    ]


def flatten(element):
    """The tutorial's map."""
    n = len(element["label"])
    return {"x": element["pixels"].reshape(n, -1), "y": element["label"].reshape(n, 1)}


def cohort_of(data, epochs=2, batch=5, fn=flatten, buffer=100):
    """Datasets as the tutorial makes them."""
    return [
        Dataset.from_arrays(arrays, f"c{i}").repeat(epochs).shuffle(buffer, seed=1).batch(batch).map(fn)
        for i, arrays in enumerate(data)
    ]


def rounds(process, cohorts):
    """Weights, metrics and clients after some rounds."""
    state, outputs = process.initialize(), []
    for cohort in cohorts:
        outputs.append(process.next(state, cohort))
        state = outputs[-1].state
    return outputs


def assert_agree(outputs, reference):
    """Equal to rounding."""
    for got, expected in zip(outputs, reference, strict=True):
        for a, b in zip(
            got.state.global_model_weights.trainable, expected.state.global_model_weights.trainable, strict=True
        ):
            np.testing.assert_allclose(a, b, atol=5e-6)
            assert a.flags.c_contiguous
        train, of_loop = (o.metrics["client_work"]["train"] for o in (got, expected))
        assert list(train) == list(of_loop)
        n = of_loop["num_examples"]
        for name, value in of_loop.items():
            if name == "loss":
                assert train[name] == pytest.approx(value, rel=1e-5, abs=1e-6)
            elif "accuracy" in name:
                assert abs(train[name] - value) * n <= 2.01
            else:
                assert (train[name], type(train[name])) == (value, type(value))
        for column in ("client_id", "status"):
            assert got.clients[column] == expected.clients[column]
        for column in ("num_examples", "weight"):
            assert got.clients[column].tolist() == expected.clients[column].tolist()
        np.testing.assert_allclose(got.clients["update_norm"], expected.clients["update_norm"], rtol=1e-4, atol=1e-6)


def assert_same_bits(outputs, reference):
    for got, expected in zip(outputs, reference, strict=True):
        a, b = (o.state.global_model_weights.trainable for o in (got, expected))
        assert [w.tobytes() for w in a] == [w.tobytes() for w in b]
        assert got.metrics == expected.metrics
        for column, value in expected.clients.items():
            same = value.tobytes() == got.clients[column].tobytes() if isinstance(value, np.ndarray) else None
            assert got.clients[column] == value if same is None else same


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(0, 130), min_size=1, max_size=6),
    epochs=st.integers(1, 7),
    batch=st.sampled_from([1, 7, 20, 200]),
    buffer=st.sampled_from([1, 10, 1000]),
    loss=st.sampled_from(["keras", "stable", "tutorial"]),
    seed=st.integers(0, 99),
)
def test_fast_engines_agree_with_the_loop(name, sizes, epochs, batch, buffer, loss, seed):
    cohorts = [cohort_of(clients(sizes, seed + r), epochs, batch, buffer=buffer) for r in range(2)]
    make = functools.partial(BUILDERS[name], lambda: toy_model(loss))
    reference = rounds(make(engine="loop"), cohorts)
    for engine in FAST[name]:
        assert_agree(rounds(make(engine=engine), cohorts), reference)


def test_a_cohort_larger_than_a_chunk():
    cohort = cohort_of(clients([1 + i % 9 for i in range(70)]))
    for name, make in BUILDERS.items():
        reference = rounds(make(toy_model, engine="loop"), [cohort, cohort])
        for engine in FAST[name]:
            assert_agree(rounds(make(toy_model, engine=engine), [cohort, cohort]), reference)


def test_auto_says_which_engine_it_is():
    class Mine(fed.learning.models.SoftmaxRegression):
        def gradient(self, weights, batch, output):
            return tuple(2 * g for g in super().gradient(weights, batch, output))

    class OtherMetrics(fed.learning.models.SoftmaxRegression):
        def metric_finalizers(self):
            return {"n": lambda sums: sums[0]}

        def initial_metrics(self):
            return OrderedDict(n=[0])

        def unfinalized_metrics(self, batch, output):
            assert batch["x"].shape == (len(output.predictions), 4)
            return OrderedDict(n=[len(batch["y"])])

    found = {name: make(toy_model).engine for name, make in BUILDERS.items()}
    assert found == {name: "cohort" if "ada" in name else "gram" for name in BUILDERS}
    assert BUILDERS["sgd"](lambda: Mine(4, 3)).engine == "loop"
    assert BUILDERS["sgd"](lambda: OtherMetrics(4, 3)).engine == "cohort"
    assert fed.learning.build_fed_sgd(toy_model).engine == "cohort"
    assert fed.learning.build_fed_eval(toy_model).engine == "columns"
    assert fed.learning.build_fed_eval(toy_model, engine="loop").engine == "loop"
    assert fed.learning.build_fed_eval(lambda: OtherMetrics(4, 3), engine="gram").engine == "loop"
    cohort = cohort_of(clients([3, 8]))
    assert rounds(BUILDERS["sgd"](lambda: OtherMetrics(4, 3)), [cohort])[0].metrics["client_work"]["train"] == {"n": 22}
    doubled = [rounds(BUILDERS["sgd"](model), [cohort])[0] for model in (lambda: Mine(4, 3), toy_model)]
    assert (
        np.abs(doubled[0].state.global_model_weights.trainable[0]).sum()
        > 1.2 * np.abs(doubled[1].state.global_model_weights.trainable[0]).sum()
    )


@pytest.mark.parametrize(
    ("engine", "builder", "model_fn", "message"),
    [
        (
            "gram",
            "adam",
            toy_model,
            "engine='gram' cannot take the steps of FedAvgTraining, only gradient descent's that as_sgd declares: use",
        ),
        ("gram", "sgd", "Plain", "engine='gram' cannot use Plain, which has no stacked_forward_and_grad"),
        ("cohort", "sgd", "Plain", "engine='cohort' cannot use Plain, which has no stacked_forward_and_grad"),
    ],
)
def test_a_named_engine_that_cannot(engine, builder, model_fn, message):
    with pytest.raises(ValueError, match=message):
        BUILDERS[builder](Plain if model_fn == "Plain" else model_fn, engine=engine)


def test_a_client_work_of_ones_own_is_looped():
    class Work(fed.learning.ClientWork):
        def initialize(self):
            return ()

        def run(self, weights, dataset, state):
            raise NotImplementedError

    parts = (fed.learning.aggregators.MeanFactory(), SGD)
    assert fed.learning.compose_learning_process(toy_model, Work(), *parts).engine == "loop"
    with pytest.raises(
        ValueError, match="engine='cohort' cannot do the client work Work, which is no LocalTraining: use engine='auto'"
    ):
        fed.learning.compose_learning_process(toy_model, Work(), *parts, engine="cohort")


class Plain(fed.learning.models.Model):
    """Softmax regression by its plain methods alone."""

    def __init__(self):
        self._model = toy_model()
        self.input_spec = self._model.input_spec

    def initial_weights(self):
        return self._model.initial_weights()

    def predict_on_batch(self, weights, x):
        return self._model.predict_on_batch(weights, x)

    def forward_pass(self, weights, batch):
        return self._model.forward_pass(weights, batch)

    def gradient(self, weights, batch, output):
        return self._model.gradient(weights, batch, output)

    def initial_metrics(self):
        return self._model.initial_metrics()

    def unfinalized_metrics(self, batch, output):
        return self._model.unfinalized_metrics(batch, output)

    def metric_finalizers(self):
        return self._model.metric_finalizers()


class Stacked(Plain):
    """A model of one's own that can step a cohort, and has nothing else that is fast."""

    def stacked_forward_and_gradient(self, weights, x, y, mask):
        return self._model.stacked_forward_and_gradient(weights, x, y, mask)


def test_a_model_of_ones_own_with_a_stacked_method():
    cohort = cohort_of(clients([3, 8, 0, 21]))
    process = BUILDERS["adam"](Stacked)
    assert process.engine == "cohort"
    assert_agree(rounds(process, [cohort] * 2), rounds(BUILDERS["adam"](Plain), [cohort] * 2))


class WholeTensor(fed.learning.optimizers.Optimizer):
    """Steps of unit length: not elementwise, so it cannot be stepped for all clients at once."""

    hparam_names = ()

    def initialize(self, weights):
        return OrderedDict()

    def next(self, state, weights, gradients):
        norm = np.sqrt(sum(np.square(g).sum() for g in gradients)) + 1e-6
        return state, tuple(w - np.float32(0.1) * g / norm for w, g in zip(weights, gradients, strict=True))


def test_an_optimizer_that_is_not_elementwise():
    cohort = cohort_of(clients([3, 8, 0, 21]))
    make = functools.partial(fed.learning.build_weighted_fed_avg, toy_model, WholeTensor())
    assert make().engine == "loop"
    with pytest.raises(ValueError, match="engine='cohort' cannot take the steps of FedAvgTraining, which are not ele"):
        make(engine="cohort")
    assert rounds(make(), [cohort])[0].clients["status"] == ["ok", "ok", "empty", "ok"]


# --- maps


def minus_the_mean(element):
    batch = flatten(element)
    return {"x": batch["x"] - batch["x"].mean(axis=0), "y": batch["y"]}


def in_place(element):
    element["pixels"] *= 2
    return flatten(element)


def sometimes_reversed(element):
    batch = flatten(element)
    return {"x": batch["x"][::-1] if batch["x"].sum() > 9 else batch["x"], "y": batch["y"]}


@pytest.mark.parametrize("fn", [minus_the_mean, in_place, sometimes_reversed])
def test_maps_that_do_not_work_row_by_row(fn):
    data = clients([3, 8, 0, 31, 12])
    cohorts = [cohort_of(data, fn=fn)] * 3
    reference = rounds(BUILDERS["sgd"](toy_model, engine="loop"), cohorts)
    plain = rounds(BUILDERS["sgd"](toy_model, engine="loop"), [cohort_of(data)] * 3)
    difference = reference[0].state.global_model_weights.trainable[0] - plain[0].state.global_model_weights.trainable[0]
    assert np.abs(difference).max() > 1e-4
    for engine in ("auto", "cohort", "gram", "presorted"):
        assert_agree(rounds(BUILDERS["sgd"](toy_model, engine=engine), cohorts), reference)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("wide", [False, True])
def test_a_map_that_draws_random_numbers_is_called_as_the_loop_calls_it(epochs, wide):
    data = clients([3, 8, 0, 31, 12] * (8 if wide else 1))

    def outputs(engine):
        rng = np.random.RandomState(7)

        def noisy(element):
            batch = flatten(element)
            return {"x": batch["x"] + rng.randn(*batch["x"].shape).astype(np.float32), "y": batch["y"]}

        return rounds(BUILDERS["sgd"](toy_model, engine=engine), [cohort_of(data, epochs, fn=noisy)] * 3)

    reference = outputs("loop")
    for engine in ("auto", "cohort", "gram", "presorted"):
        assert_agree(outputs(engine), reference)


def test_a_flip_by_chance_is_not_remembered():
    rng = np.random.RandomState(0)

    def flipping(element):
        batch = flatten(element)
        return {"x": batch["x"][:, ::-1] if rng.rand() < 0.5 else batch["x"], "y": batch["y"]}

    cohorts = [cohort_of(clients([30, 30]), fn=flipping)] * 3
    got = rounds(BUILDERS["sgd"](toy_model), cohorts)
    rng = np.random.RandomState(0)
    assert_agree(got, rounds(BUILDERS["sgd"](toy_model, engine="loop"), cohorts))


def test_data_that_change_between_rounds_are_seen():
    data = clients([30, 12])
    cohort = cohort_of(data)
    process, reference = BUILDERS["sgd"](toy_model), BUILDERS["sgd"](toy_model, engine="loop")
    state = process.initialize()
    for _ in range(3):
        process.next(state, cohort)
    data[0]["pixels"][3] += 1
    data[1]["label"][:] = 2
    assert_agree([process.next(state, cohort)], [reference.next(state, cohort)])


def test_functions_with_equal_code_are_told_apart_by_what_they_capture():
    def make(n, other=None):
        return lambda element: {"x": np.reshape(element["x"], [-1, n]), "y": other}

    assert function_key(make(2)) == function_key(make(2)) is not None
    for other in (make(2.0), make(3), make(True), make(2, "a")):
        assert function_key(make(2)) != function_key(other)


SETTINGS = {"factor": 1}


def test_maps_that_refer_to_what_can_change_are_called_in_every_round():
    class Frozen:
        def __hash__(self):
            raise TypeError

        def __call__(self, element):
            return element

    def myself(element):
        return myself and element

    rng = np.random.RandomState(0)
    for fn in (
        lambda e: rng and e,
        lambda e: SETTINGS and e,
        lambda e: np.random.rand() and e,
        lambda e, d=[]: d or e,
        functools.partial(flatten),
        Frozen(),
        myself,
    ):
        assert function_key(fn) is None
    assert function_key(flatten) is not None
    assert function_key(eval("lambda element: element", {})) is not None  # of no module


def test_a_map_that_is_switched_between_rounds():
    switch = {"on": False}

    def poisoned(element):
        batch = flatten(element)
        return {"x": batch["x"], "y": 2 - batch["y"]} if switch["on"] else batch

    cohort = cohort_of(clients([9, 30]), fn=poisoned)
    outputs = {}
    for engine in ("loop", "auto", "cohort"):
        process = BUILDERS["sgd"](toy_model, engine=engine)
        state = process.initialize()
        outputs[engine] = []
        for switch["on"] in (False, False, True):
            outputs[engine].append(process.next(state, cohort))
            state = outputs[engine][-1].state
    assert_agree(outputs["auto"], outputs["loop"])
    assert_agree(outputs["cohort"], outputs["loop"])


def test_a_map_that_looks_at_values_through_their_text():
    def switched(element):
        label = element["other"] if f"{element['label']}" == "[2]" else element["label"]
        return {"x": element["pixels"].reshape(len(label), -1), "y": label.reshape(-1, 1)}

    data = [{**arrays, "other": 2 - arrays["label"]} for arrays in clients([9, 5])]
    cohort = cohort_of(data, batch=1, fn=switched)
    reference = rounds(BUILDERS["sgd"](toy_model, engine="loop"), [cohort])
    for engine in ("auto", "cohort"):
        assert_agree(rounds(BUILDERS["sgd"](toy_model, engine=engine), [cohort]), reference)


def test_a_map_that_uses_its_memory_again():
    memory = np.empty((5, 4), np.float32)

    def reusing(element):
        batch = flatten(element)
        n = len(batch["y"])
        np.multiply(batch["x"], 2, out=memory[:n])
        return {"x": memory[:n], "y": batch["y"]}

    data = clients([12, 7])
    spec = {"x": fed.datasets.ArraySpec((None, 4), np.float32), "y": fed.datasets.ArraySpec((None, 1), np.int32)}
    stream = Dataset(ElementSource(lambda: map(reusing, Dataset.from_arrays(data[0]).batch(5)), spec, batched=True))
    for cohort in (cohort_of(data, fn=reusing), [stream]):
        reference = rounds(BUILDERS["sgd"](toy_model, engine="loop"), [cohort] * 2)
        for engine in ("auto", "cohort"):
            assert_agree(rounds(BUILDERS["sgd"](toy_model, engine=engine), [cohort] * 2), reference)


def test_clients_that_share_one_column_and_differ_in_another():
    def scaled(element):
        batch = flatten(element)
        return {"x": batch["x"] if (element["s"] == 1).all() else batch["x"] * element["s"][:, None], "y": batch["y"]}

    (data,) = clients([9])
    cohort = cohort_of([{**data, "s": np.full(9, s, np.float32)} for s in (1, 3)], fn=scaled)
    reference = rounds(BUILDERS["sgd"](toy_model, engine="loop"), [cohort] * 2)
    assert_agree(rounds(BUILDERS["sgd"](toy_model), [cohort] * 2), reference)


def test_labels_that_are_not_read_may_be_anything():
    (data,) = clients([12])
    data["label"][8] = -1
    cohort = [Dataset.from_arrays(data).take(5).batch(5).map(flatten)]
    reference = rounds(BUILDERS["sgd"](toy_model, engine="loop"), [cohort] * 2)
    for engine in ("cohort", "gram", "presorted"):
        assert_agree(rounds(BUILDERS["sgd"](toy_model, engine=engine), [cohort] * 2), reference)
    results = []
    for engine in ("loop", "auto"):
        process = fed.learning.build_fed_eval(toy_model, engine=engine)
        state = process.initialize()
        results.append(process.next(state, cohort).metrics["client_work"]["eval"]["current_round_metrics"])
        if engine == "auto":
            data["label"][3] = -1
            with pytest.raises(fed.DataError, match=r"labels must lie in \[0, 2\]. Got -1"):
                process.next(state, cohort)
    assert results[1]["num_examples"] == results[0]["num_examples"]
    assert results[1]["loss"] == pytest.approx(results[0]["loss"])


def test_bad_labels_name_the_client_in_every_engine():
    data = clients([5, 5])
    data[1]["label"][2] = 3
    for engine in engines.ENGINES:
        process = BUILDERS["sgd"](toy_model, engine=engine)
        with pytest.raises(fed.DataError, match=r"client 'c1', field 'y': labels must lie in \[0, 2\]. Got 3"):
            process.next(process.initialize(), cohort_of(data))
        evaluation = fed.learning.build_fed_eval(toy_model, engine=engine)
        with pytest.raises(fed.DataError, match=r"client 'c1', field 'y': labels must lie in \[0, 2\]. Got 3"):
            evaluation.next(evaluation.initialize(), cohort_of(data))


def test_bad_batches_name_the_client_in_every_engine():
    cohort = [Dataset.from_arrays({"x": TOY_X[:, :3], "y": TOY_Y}, "ann").batch(2)]
    for engine in engines.ENGINES:
        process = BUILDERS["sgd"](toy_model, engine=engine)
        with pytest.raises(fed.DataError, match="client 'ann', field 'x': a batch must be float32 of shape"):
            process.next(process.initialize(), cohort)


def test_clients_that_diverge_are_left_out_by_every_engine():
    bad = {"pixels": np.full((9, 2, 2), np.inf, np.float32), "label": np.zeros(9, np.int32)}
    cohort = cohort_of([clients([8])[0], bad, *clients([0, 3])])
    reference = rounds(BUILDERS["momentum"](toy_model, engine="loop"), [cohort] * 2)
    assert reference[0].clients["status"] == ["ok", "non-finite update", "empty", "ok"]
    for engine in ("cohort", "gram", "presorted"):
        assert_agree_but_norms(rounds(BUILDERS["momentum"](toy_model, engine=engine), [cohort] * 2), reference)


def assert_agree_but_norms(outputs, reference):
    for output, expected in zip(outputs, reference, strict=True):
        output.clients["update_norm"] = expected.clients["update_norm"]
    assert_agree(outputs, reference)


def scaled_rows(rng, n, d):
    """Rows of any size: all, one number, each row or each feature is scaled, up to where float32 ends."""
    x, top = rng.standard_normal((n, d)), rng.uniform(10, 37.5)
    if rng.random() < 0.25:
        x[rng.integers(n), rng.integers(d)] = 10**top
        return x.astype(np.float32)
    shape = [(1, 1), (n, 1), (1, d)][rng.integers(3)]
    return (x * 10 ** np.where(np.prod(shape) == 1, top, rng.uniform(-10, top, shape))).astype(np.float32)


def agree_where_the_loop_is_finite(make, cohort, engines_to_try=("cohort", "gram", "presorted")):
    """Hold engines to the loop; return what became of each client there."""
    process = make(engine="loop")
    state = process.initialize()
    expected = process.next(state, cohort)
    for engine in engines_to_try:
        got = make(engine=engine).next(state, cohort)
        assert got.clients["status"] == expected.clients["status"], engine
        for a, b in zip(
            got.state.global_model_weights.trainable, expected.state.global_model_weights.trainable, strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()), err_msg=engine)
    return expected.clients["status"]


@pytest.mark.parametrize("loss", ["keras", "stable"])
def test_engines_agree_wherever_the_loop_is_finite(loss):
    seen, names = set(), itertools.cycle(["sgd", "momentum", "nesterov", "proximal", "proximal momentum"])
    for seed, name in zip(range(25), names, strict=False):
        rng = np.random.default_rng(seed)
        (n, d), c = rng.integers(1, 12, 2), 3
        arrays = {"x": scaled_rows(rng, n, d), "y": rng.integers(0, c, (n, 1), np.int32)}
        fine = {"x": rng.standard_normal((4, d)).astype(np.float32), "y": np.zeros((4, 1), np.int32)}
        cohort = [
            Dataset.from_arrays(data, f"{i}").repeat(3).shuffle(9, seed=1).batch(int(rng.integers(1, 6)))
            for i, data in enumerate((arrays, fine))
        ]
        model = fed.learning.models.SoftmaxRegression(int(d), c, loss, l2=[0.0, 0.1][seed % 2])
        statuses = agree_where_the_loop_is_finite(functools.partial(BUILDERS[name], model), cohort)
        seen |= {(np.abs(arrays["x"]).max() > 1.8e19, status) for status in statuses[:1]}
    assert (True, "ok") in seen  # rows whose squares overflow, of which the loop makes something


@pytest.mark.parametrize("value", [2e19, 1e25])
@pytest.mark.parametrize("clients_of_a_chunk", [1, 12])
def test_a_fill_value_whose_square_overflows(value, clients_of_a_chunk):
    data = clients([20] * clients_of_a_chunk)
    data[0]["pixels"][7, 0, 1] = value
    make = functools.partial(
        fed.learning.build_weighted_fed_avg, toy_model, client_optimizer_fn=optimizers.build_sgdm(1e-20)
    )
    statuses = agree_where_the_loop_is_finite(make, cohort_of(data))
    assert statuses == ["ok"] * clients_of_a_chunk


def test_plain_batches_and_single_elements():
    cohort = [toy_batches(), [], toy_batches(size=5), [*toy_batches(), {"x": TOY_X[:0], "y": TOY_Y[:0]}]]
    for name, make in BUILDERS.items():
        reference = rounds(make(toy_model, engine="loop"), [cohort] * 2)
        for engine in FAST[name]:
            assert_agree(rounds(make(toy_model, engine=engine), [cohort] * 2), reference)


def test_a_map_that_leaves_nothing():
    def without_the_first(element):
        return {name: array[1:] for name, array in flatten(element).items()}

    for sizes, batch in (([1, 7], 3), ([1], 3), ([2, 3], 1)):
        cohort = cohort_of(clients(sizes), epochs=1, batch=batch, fn=without_the_first)
        for name, make in BUILDERS.items():
            reference = rounds(make(toy_model, engine="loop"), [cohort] * 2)
            for engine in FAST[name]:
                assert_agree(rounds(make(toy_model, engine=engine), [cohort] * 2), reference)


def test_labels_that_are_not_batched_row_by_row():
    dataset = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).take(3).repeat(2).batch(2, drop_remainder=True)
    shuffled = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).batch(2).shuffle(3, seed=2).repeat(2)
    cohort = [dataset, shuffled]
    reference = rounds(BUILDERS["momentum"](toy_model, engine="loop"), [cohort] * 2)
    for engine in ("cohort", "gram", "presorted"):
        assert_agree(rounds(BUILDERS["momentum"](toy_model, engine=engine), [cohort] * 2), reference)


def test_clients_with_many_rows_are_stepped_under_auto():
    cohort = cohort_of(clients([2000, 30]), epochs=1, batch=50)
    reference = rounds(BUILDERS["momentum"](toy_model, engine="loop"), [cohort])
    assert_agree(rounds(BUILDERS["momentum"](toy_model), [cohort]), reference)
    assert_same_bits(
        rounds(BUILDERS["momentum"](toy_model), [cohort]),
        rounds(BUILDERS["momentum"](toy_model, engine="presorted"), [cohort]),
    )


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    epochs=st.integers(1, 3),
    take=st.sampled_from([-1, 0, 3]),
    loss=st.sampled_from(["keras", "stable", "tutorial"]),
    seed=st.integers(0, 99),
)
def test_evaluation_on_columns_agrees_with_the_loop(sizes, epochs, take, loss, seed):
    cohort = [
        Dataset.from_arrays(arrays).repeat(epochs).shuffle(10, seed=1).take(take).batch(4).map(flatten)
        for arrays in clients(sizes, seed)
    ]
    model = toy_model(loss)
    rng = np.random.RandomState(seed)
    weights = fed.learning.models.ModelWeights((rng.randn(4, 3), rng.randn(3)))
    results = []
    for engine in ("loop", "auto"):
        process = fed.learning.build_fed_eval(model, engine=engine)
        state = process.set_model_weights(process.initialize(), weights)
        results.append(process.next(state, cohort).metrics["client_work"]["eval"]["current_round_metrics"])
    for name, value in results[0].items():
        exact = "num" in name
        assert results[1][name] == (value if exact else pytest.approx(value, rel=2e-6, abs=1e-6)), name


# --- what is kept


def test_a_budget_is_kept_and_the_least_recently_used_goes():
    cache = Cache(10_000)  # an entry takes a little more than its value
    for key in "abc":
        cache.put(key, key, 3000)
    assert [key for key in "abc" if key in cache] == ["b", "c"]
    cache.find("b")
    cache.put("d", "d", 3000)
    assert [key for key in "abcd" if key in cache] == ["b", "d"]
    cache.put("e", "e", 10_001)
    assert "e" not in cache
    assert "b" in cache


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=60))
def test_a_cache_never_exceeds_its_budget(entries):
    cache = Cache(100)
    for key, size in entries:
        cache.put(key, key, size)
        assert sum(size for _, size in cache._entries.values()) == cache._bytes <= 100
        assert cache.find(key) in (key, None)


def test_a_weak_key_does_not_keep_its_array():
    array = np.zeros(5)
    key, gone = WeakKey(array), weakref.ref(array)
    assert key == WeakKey(array)
    del array
    gc.collect()
    assert gone() is None
    assert key != WeakKey(np.zeros(5))


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_clients_are_not_kept_by_a_process(engine):
    process = BUILDERS["sgd"](toy_model, engine=engine)
    data = clients([8, 9])
    gone = [weakref.ref(arrays["pixels"]) for arrays in data]
    state = process.initialize()
    gc.disable()  # they go when the round is over, not when garbage is collected
    try:
        for _ in range(3):
            state = process.next(state, cohort_of(data)).state
        del data, state
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_the_same_bits_whatever_is_kept(engine):
    data = clients([1 + i % 40 for i in range(60)])
    cohorts = [cohort_of(data), cohort_of(data[:30]), cohort_of(data), cohort_of(data[:30]), cohort_of(data)]
    make = functools.partial(BUILDERS["momentum"], toy_model, engine=engine)
    reference = rounds(make(), cohorts)
    assert_same_bits(rounds(make(cache_bytes=0), cohorts), reference)
    assert_same_bits(rounds(make(cache_bytes=20_000), cohorts), reference)
    fresh, state = make(), reference[1].state
    for cohort, expected in zip(cohorts[2:], reference[2:], strict=True):  # a process started in mid-run
        output = fresh.next(pickle.loads(pickle.dumps(state)), cohort)
        assert_same_bits([output], [expected])
        state = output.state


def rows_of_one_projection(count=4):
    """Two arrays (count, 2) whose rows have the same products with the numbers by which rows were once known."""
    a, b = np.random.default_rng([2]).standard_normal(2, np.float32)
    pairs = []
    for first in np.float32(3 + np.arange(1000) / 64):
        second = np.float32(first * a / b)
        if first * a == second * b:
            pairs.append((first, second))
    first, second = np.float32(pairs[:count]).T
    nothing = np.zeros(count, np.float32)
    return np.stack([first, nothing], axis=1), np.stack([nothing, second], axis=1)


@pytest.mark.parametrize("shown", ["writable", "read-only for a while", "read-only, with an older view"])
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_kept_matrices_are_known_by_their_rows_and_no_projection(again, doubled, shown):
    one, other = rows_of_one_projection()
    assert len(one) == 4

    def last_round(engine, cache_bytes):
        x, y = one.copy(), np.int32([[0], [1], [2], [0]])
        view, x.flags.writeable = x[:], shown == "writable"
        fn = (lambda e: {"x": 2 * e["x"], "y": e["y"]}) if doubled else (lambda e: {"x": e["x"], "y": e["y"]})
        make = lambda: [Dataset.from_arrays({"x": x, "y": y}, "ann").repeat(5).batch(2).map(fn)]  # noqa: E731
        process = BUILDERS["sgd"](lambda: toy_model_of(2), engine=engine, cache_bytes=cache_bytes)
        cohort, state = make(), process.initialize()
        for _ in range(3):
            process.next(state, cohort if again else make())
        if shown == "read-only for a while":
            x.flags.writeable = True
        (view if shown == "read-only, with an older view" else x)[:] = other
        x.flags.writeable = shown == "writable"
        return process.next(state, cohort if again else make())

    kept, fresh = (last_round("gram", cache_bytes) for cache_bytes in (2**28, 0))
    assert_same_bits([kept], [fresh])
    assert_agree([kept], [last_round("loop", 0)])


def rebind(fn):
    globals()["_FIELD"] = "c"


def set_defaults(fn):
    fn.__defaults__ = ("c",)


def set_code(fn):
    fn.__code__ = (lambda e, field="a": {"x": e["c"], "y": e["y"]}).__code__


def refer_to_itself(fn):
    globals()["_FIELD"] = fn


_FIELD = "a"


@pytest.mark.parametrize("engine", ["cohort", "gram", "presorted", "auto"])
@pytest.mark.parametrize("change", [rebind, set_defaults, set_code, refer_to_itself])
def test_a_map_that_was_changed_between_rounds_is_seen(engine, change, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((30, 4)).astype(np.float32) for name in "ac"}
    arrays["y"] = rng.integers(0, 3, (30, 1), np.int32)

    def losses(engine):
        monkeypatch.setitem(globals(), "_FIELD", "a")
        if change in (rebind, refer_to_itself):
            fn = lambda e: {"x": e[_FIELD if isinstance(_FIELD, str) else "c"], "y": e["y"]}  # noqa: E731
        else:
            fn = lambda e, field="a": {"x": e[field], "y": e["y"]}  # noqa: E731
        cohort = [Dataset.from_arrays(arrays, "ann").batch(8).map(fn)]
        process = BUILDERS["sgd"](toy_model, engine=engine)
        state, found = process.initialize(), []
        for _ in range(4):
            state, metrics = process.next(state, cohort)
            found.append(metrics["client_work"]["train"]["loss"])
            if len(found) == 2:
                change(fn)
        return found

    assert losses(engine) == pytest.approx(losses("loop"), rel=1e-5)


def toy_model_of(features):
    return fed.learning.models.SoftmaxRegression(num_features=features, num_classes=3)


def test_content_is_the_array_where_nobody_can_write_to_it():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    own = sealed(values.copy())
    assert Content(own).nbytes == Content(own.reshape(3, 2)).nbytes == 0
    assert Content(np.frombuffer(values.tobytes(), np.float32)).nbytes == 0
    assert Content(own).is_of(own[:])
    assert not Content(own).is_of(own.copy())
    assert not Content(own).is_of(own.reshape(3, 2))
    view, of_user = values.view(), values.copy()
    view.flags.writeable = of_user.flags.writeable = False
    for array in (
        values,
        view,
        of_user,
        sealed(view),
        np.frombuffer(bytearray(values), np.float32).reshape(2, 3),
        values[:, ::2],
    ):
        was = Content(array)
        assert was.nbytes == array.nbytes
        assert was.is_of(array.copy())
        assert not was.is_of(array.reshape(-1))
        assert not was.is_of(array.view(np.int32))
        assert not was.is_of(-array)  # -0.0 is another number
    was = Content(view)
    values[1, 2] = np.nan
    assert not was.is_of(view)
    assert Content(view).is_of(view)


def test_rows_of_one_array_that_are_repeated_are_told_apart():
    array = sealed(np.arange(6.0)).reshape(2, 3)
    first, second = (np.broadcast_to(row, (2, 3)) for row in array)
    assert WeakKey(first) != WeakKey(second)
    assert not Content(first).is_of(second)


def test_the_librarys_own_arrays_cannot_change(folder):
    arrays = {"x": np.random.default_rng(0).random((9, 4)), "y": np.arange(9, dtype=np.int32).reshape(9, 1) % 3}
    whole = fed.datasets.partition.from_arrays(arrays, np.arange(9) % 2)
    chunked, contiguous = folder / "chunked.h5", folder / "contiguous.h5"
    fed.datasets.write_hdf5(chunked, whole)
    with h5py.File(contiguous, "w") as file:
        for name, values in arrays.items():
            file[f"examples/ann/{name}"] = np.asarray(values, np.float32 if name == "x" else np.int32)
    own = Dataset.from_arrays(arrays)
    datasets = [own.select(x="x", scale=0.5), own.shuffle(9, seed=1).cache(), own.map(dict).cache()]
    with fed.datasets.HDF5ClientData(chunked) as one, fed.datasets.HDF5ClientData(contiguous) as two:
        for data in (
            whole,
            *fed.datasets.partition.split_examples(whole),
            fed.datasets.InMemoryClientData({"ann": {"x": [[1.0]], "y": [1]}}),
            fed.datasets.SyntheticClientData(2),
            one,
            two,
        ):
            datasets += [data.create_dataset_for_client(data.client_ids[0])]
        for dataset in datasets:
            for array in dataset.batch(2).row_batches().source.columns().values():
                assert Content(array).nbytes == 0
                with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                    array.flags.writeable = True
    assert Content(own.to_arrays()["x"]).nbytes  # the caller's


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64])
def test_labels_of_any_type_that_change_are_seen(engine, dtype):
    x, y = np.random.default_rng(0).random((8, 4), np.float32), np.zeros((8, 1), dtype)
    cohort = [Dataset.from_arrays({"x": x, "y": y}, "ann").batch(4)]
    process = BUILDERS["sgd"](toy_model, engine=engine)
    state = process.initialize()
    for _ in range(3):
        process.next(state, cohort)
    y[:5] = 2
    fresh = BUILDERS["sgd"](toy_model, engine=engine, cache_bytes=0)
    assert_same_bits([process.next(state, cohort)], [fresh.next(state, cohort)])


@pytest.mark.parametrize("value", [-1, 1.5, None])
def test_a_budget_that_is_none(value):
    with pytest.raises(ValueError, match="'cache_bytes' must be an integer >= 0"):
        BUILDERS["sgd"](toy_model, cache_bytes=value)


def test_a_process_pickles_without_what_it_keeps():
    process = fed.learning.build_weighted_fed_avg(toy_model, SGD, executor=ThreadPoolExecutor(1))
    cohort = cohort_of(clients([8, 30]))
    output = rounds(process, [cohort])[0]
    copied = pickle.loads(pickle.dumps(process))
    assert copied.engine == "gram"
    assert_same_bits([copied.next(copied.initialize(), cohort)], [output])


# --- executors


class Shuffled(ThreadPoolExecutor):
    """An executor whose workers finish in a random order."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(_after_a_while, fn, *args, **kwargs)


def _after_a_while(fn, *args, **kwargs):
    time.sleep(random.random() / 100)
    return fn(*args, **kwargs)


class Inline(fed.learning.engines.runner.Executor):
    """Any other executor: what it is given must be picklable."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        try:
            future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        except Exception as error:
            future.set_exception(error)
        return future


SIZES = [1 + 7 * i % 40 for i in range(60)]


class Noise:
    """A map that can be pickled, and changes."""

    def __init__(self):
        self.rng = np.random.RandomState(0)

    def __call__(self, element):
        batch = flatten(element)
        return {"x": batch["x"] + self.rng.rand(*batch["x"].shape).astype(np.float32), "y": batch["y"]}


@pytest.mark.parametrize("engine", ["loop", "gram", "presorted"])
def test_a_map_that_changes_is_called_here(engine, two_processes):
    results = []
    with ThreadPoolExecutor(4) as threads:
        for executor in ("serial", two_processes, threads):
            process = BUILDERS["sgd"](toy_model, engine=engine, executor=executor)
            results.append(rounds(process, [cohort_of(clients([9] * 40), fn=Noise())] * 2))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.fixture(scope="module")
def two_processes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
@pytest.mark.parametrize("fn", [flatten, lambda element: {**flatten(element)}, minus_the_mean])
def test_the_same_bits_whoever_computes(engine, fn, two_processes):
    cohorts = [cohort_of(clients(SIZES), fn=fn)] * 2
    make = functools.partial(BUILDERS["momentum"], toy_model, engine=engine)
    reference = rounds(make(executor="serial"), cohorts)
    assert_same_bits(rounds(make(), cohorts), reference)
    assert_same_bits(rounds(make(executor=Inline()), cohorts), reference)
    assert_same_bits(rounds(make(executor=two_processes), cohorts), reference)
    for workers in (1, 2, 3, 4):
        with Shuffled(workers) as executor:
            assert_same_bits(rounds(make(executor=executor), cohorts), reference)


def test_evaluation_has_the_same_bits_whoever_computes(two_processes):
    cohort = cohort_of(clients(SIZES))
    for engine in ("loop", "auto"):
        results = []
        for executor in ("serial", None, two_processes, Inline()):
            process = fed.learning.build_fed_eval(toy_model, engine=engine, executor=executor)
            results.append(process.next(process.initialize(), cohort).metrics)
        assert all(result == results[0] for result in results)


def test_clients_of_files_and_simulated_ones_travel_as_their_description(folder, two_processes):
    source = fed.datasets.SyntheticClientData(30)
    fed.datasets.write_hdf5(folder / "writers.h5", source)
    model_fn = fed.learning.models.SoftmaxRegression
    with fed.datasets.HDF5ClientData(folder / "writers.h5") as file:
        for data in (source, file):
            cohort = [data.create_dataset_for_client(c).batch(20).map(flatten) for c in data.client_ids]
            assert max(len(pickle.dumps(dataset)) for dataset in cohort) < 2000
            reference = rounds(BUILDERS["sgd"](model_fn, executor="serial"), [cohort])
            again = [data.create_dataset_for_client(c).batch(20).map(flatten) for c in data.client_ids]
            assert_same_bits(rounds(BUILDERS["sgd"](model_fn, executor=two_processes), [again]), reference)


def test_a_model_that_cannot_be_pickled():
    class Local(fed.learning.models.SoftmaxRegression):
        pass

    process = BUILDERS["sgd"](lambda: Local(4, 3), executor=Inline())
    with pytest.raises(TypeError, match=r"The model Local, its client work or .*cannot be pickled.* or use threads"):
        process.next(process.initialize(), cohort_of(clients([5])))
    with ThreadPoolExecutor(1) as executor:
        assert rounds(BUILDERS["sgd"](lambda: Local(4, 3), executor=executor), [cohort_of(clients([5]))])


@pytest.mark.parametrize("executor", ["threads", 2, ThreadPoolExecutor])
def test_what_is_no_executor(executor):
    for build in (BUILDERS["sgd"], fed.learning.build_fed_eval):
        with pytest.raises(TypeError, match="'executor' must be None, 'serial' or a concurrent.futures"):
            build(toy_model, executor=executor)


def test_errors_in_workers_arrive(two_processes):
    data = clients([5] * 60)
    data[40]["label"][2] = 3
    for executor in (None, two_processes, Inline()):
        process = BUILDERS["sgd"](toy_model, executor=executor)
        with pytest.raises(fed.DataError, match=r"client 'c40', field 'y': labels must lie in \[0, 2\]. Got 3"):
            process.next(process.initialize(), cohort_of(data))


class Fatal(Stacked):
    """Ends the worker in which its gradient is computed."""

    def stacked_forward_and_gradient(self, weights, x, y, mask):
        import os

        os._exit(1)


def test_a_worker_that_dies_in_a_round_is_an_error_that_says_so():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        process = BUILDERS["adam"](Fatal, executor=executor)
        state = process.initialize()
        with pytest.raises(RuntimeError, match="A worker of ProcessPoolExecutor ended while a round was computed"):
            process.next(state, cohort_of(clients([5] * 40)))


class Cancelling(Inline):
    """An executor that was shut down: what it was given is cancelled."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_a_cancelled_round_says_so():
    process = BUILDERS["sgd"](toy_model, executor=Cancelling())
    with pytest.raises(
        RuntimeError, match=r"Cancelling cancelled a round: .* no state was changed: repeat it"
    ) as raised:
        process.next(process.initialize(), cohort_of(clients(SIZES)))
    assert isinstance(raised.value.__cause__, CancelledError)


class Frozen(Inline):
    """An executor of which nothing is heard once it has done some work."""

    def __init__(self, done):
        self.left, self.silent = done, []

    def submit(self, fn, /, *args, **kwargs):
        self.left -= 1
        if self.left >= 0:
            return super().submit(fn, *args, **kwargs)
        self.silent.append(Future())
        return self.silent[-1]


@pytest.mark.parametrize("build", [BUILDERS["sgd"], fed.learning.build_fed_eval])
def test_workers_that_are_silent_are_given_up(build):
    cohort = cohort_of(clients(SIZES))
    executor = Frozen(done=1)
    process = build(toy_model, executor=fed.learning.Workers(executor, timeout=0.01))
    state = process.initialize()
    with pytest.raises(
        TimeoutError, match=r"Frozen got no part of the round done in 0.01 s \(timeout\), and .* of \d+ p"
    ):
        process.next(state, cohort)
    assert executor.silent
    assert all(future.cancelled() for future in executor.silent)
    executor.left = 1000  # it is back: the state is as it was
    assert_same_bits([process.next(state, cohort)], rounds(build(toy_model, executor="serial"), [cohort]))


def test_threads_that_are_busy_with_something_else_are_given_up(folder):
    path, busy = folder / "some.h5", threading.Event()
    fed.datasets.write_hdf5(path, fed.datasets.InMemoryClientData({"ann": clients([2000])[0]}))
    with ThreadPoolExecutor(1) as threads, fed.datasets.HDF5ClientData(path) as data:
        threads.submit(busy.wait)
        process = BUILDERS["sgd"](toy_model, executor=fed.learning.Workers(threads, timeout=0.01))
        try:
            cohort = [data.create_dataset_for_client("ann").batch(5).map(flatten)]
            with pytest.raises(TimeoutError, match="ThreadPoolExecutor got no part"):
                process.next(process.initialize(), cohort)
        finally:
            busy.set()


def test_a_slow_part_is_waited_for_while_others_get_done(monkeypatch):
    futures, waits = [Future() for _ in range(6)], []

    def one_gets_done(waiting, timeout, return_when):
        waits.append((len(waiting), timeout))
        done = futures[len(waits) - 1]  # the last is the one that is awaited
        done.set_result(None)
        return {done}, waiting - {done}

    monkeypatch.setattr(fed.learning.engines.runner, "wait", one_gets_done)
    assert fed.learning.engines.runner._wait_for_last(futures, timeout=60.0)
    assert waits == [(k, 60.0) for k in (6, 5, 4, 3, 2, 1)]


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), "60"])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(ValueError, match="'timeout' must be a finite float >= 0.001. Got"):
        fed.learning.Workers(Inline(), timeout)
    with pytest.raises(TypeError, match=r"'executor' must be a concurrent.futures.Executor. Got 'serial'"):
        fed.learning.Workers("serial", 60)


_PARENT = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np
import fedsim_np as fed

count, initializer = {"idle": (2, fed.learning.end_with_parent), "busy": (1, None)}[sys.argv[1]]
with ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=initializer) as pool:
    model, sgd = fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.1)
    process = fed.learning.build_weighted_fed_avg(model, sgd, executor=pool)
    batch = {"x": np.ones((2, 2), np.float32), "y": np.zeros((2, 1), np.int32)}
    process.next(process.initialize(), [[batch]])
    print("computed", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")
@pytest.mark.parametrize(("workers", "signal_name"), [("busy", "SIGKILL"), ("idle", "SIGTERM")])
def test_workers_end_with_a_parent_that_is_killed(workers, signal_name):
    process = subprocess.Popen([sys.executable, "-c", _PARENT, workers], stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout.readline() == "computed\n"
    process.send_signal(getattr(signal, signal_name))
    process.communicate(timeout=30)  # until nobody has its output any more


def test_blas_threads_are_lowered_and_restored():
    functions = _openblas()
    if functions is None:
        pytest.skip("NumPy's BLAS is not OpenBLAS here")
    get, set_ = functions
    before = get()
    try:
        set_(2)
        with one_blas_thread():
            assert get() == 1
            with one_blas_thread():
                assert get() == 1
            assert get() == 1
        assert get() == 2
    finally:
        set_(before)


def test_random_cohorts_of_the_other_tests_agree_too():
    cohort = random_cohort([0, 3, 17, 40], batch=6)
    for name, make in BUILDERS.items():
        reference = rounds(make(toy_model, engine="loop"), [cohort])
        for engine in FAST[name]:
            assert_agree(rounds(make(toy_model, engine=engine), [cohort]), reference)


def test_a_model_that_does_both_at_once():
    class Both(Plain):
        calls = 0

        def forward_and_gradient(self, weights, batch):
            Both.calls += 1
            output = self._model.forward_pass(weights, batch)
            return output, self._model.gradient(weights, batch, output)

    class Left(Both):
        def gradient(self, weights, batch, output):
            return tuple(2 * g for g in super().gradient(weights, batch, output))

    cohort = [toy_batches()]
    assert_same_bits(rounds(BUILDERS["sgd"](Both), [cohort]), rounds(BUILDERS["sgd"](Plain), [cohort]))
    assert Both.calls == len(toy_batches())
    rounds(BUILDERS["sgd"](Left), [cohort])
    assert Both.calls == len(toy_batches())


def test_an_optimizer_that_changes_with_the_round():
    rates = [0.1, 0.01]
    make = functools.partial(
        fed.learning.build_weighted_fed_avg_with_optimizer_schedule,
        toy_model,
        lambda t: rates[min(t, 1)],
        lambda rate: SGD if rate == rates[0] else optimizers.build_adam(rate, epsilon=0.01),
    )
    cohort = cohort_of(clients([9, 30]))
    assert make().engine == "gram"
    assert_agree(rounds(make(), [cohort] * 3), rounds(make(engine="loop"), [cohort] * 3))
    with pytest.raises(
        ValueError, match="engine='gram' cannot take steps that are not gradient descent's: use engine='auto'"
    ):
        rounds(make(engine="gram"), [cohort] * 3)


def test_a_subclass_of_sgd_is_not_taken_for_it():
    class Doubled(optimizers.SGDM):
        def next(self, state, weights, gradients):
            return super().next(state, weights, tuple(2 * g for g in gradients))

    cohort = cohort_of(clients([9, 30]))
    make = functools.partial(fed.learning.build_weighted_fed_avg, toy_model, Doubled(0.1))
    assert make().engine == "loop"
    by_hand = functools.partial(fed.learning.build_weighted_fed_avg, toy_model, optimizers.build_sgdm(0.2))
    assert_agree(rounds(make(), [cohort]), rounds(by_hand(), [cohort]))

    class Elementwise(Doubled):
        is_elementwise = True

    process = fed.learning.build_weighted_fed_avg(toy_model, Elementwise(0.1))
    assert process.engine == "cohort"
    assert_agree(rounds(process, [cohort]), rounds(by_hand(), [cohort]))


@pytest.mark.parametrize("builder", ["sgd", "adam"])
def test_labels_of_another_width_at_every_client_and_in_every_batch(builder):
    model = lambda: fed.learning.models.SoftmaxRegression(4, 400)  # noqa: E731
    x = np.random.RandomState(0).randn(4, 4).astype(np.float32)
    narrow, wide = np.int8([[0], [1], [2], [1]]), np.full((4, 1), 300, np.uint32)
    mixed = [{"x": x, "y": wide.astype(np.int64)}, {"x": x, "y": wide.astype(np.uint64)}]
    cohort = [Dataset.from_arrays({"x": x, "y": y}).batch(2) for y in (narrow, wide, narrow.astype(np.uint8))]
    cohort.append(Dataset.from_batches(mixed))
    optimizer = {"sgd": optimizers.build_sgdm, "adam": optimizers.build_adam}[builder](0.1)
    make = lambda engine: fed.learning.build_weighted_fed_avg(model, optimizer, engine=engine)  # noqa: E731
    reference = rounds(make("loop"), [cohort] * 2)
    for engine in ["cohort", "auto", *(["gram", "presorted"] if builder == "sgd" else [])]:
        assert_agree(rounds(make(engine), [cohort] * 2), reference)


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_labels_that_have_changed_are_checked_again(engine):
    y = np.zeros((20, 1), np.int32)
    cohort = [Dataset.from_arrays({"x": np.ones((20, 4), np.float32), "y": y}, "ann").batch(4)]
    process = BUILDERS["sgd"](toy_model, engine=engine)
    state = process.next(process.initialize(), cohort).state
    for wrong in (-1, 77):
        y[3] = wrong
        with pytest.raises(fed.DataError, match=f"labels must lie in .* Got {wrong}"):
            process.next(state, cohort)


@pytest.mark.parametrize("engine", ["cohort", "gram", "presorted", "auto"])
@pytest.mark.parametrize("bias", [0, 10, 1000])
def test_the_audit_knows_the_rounding_of_large_weights(engine, bias):
    class Far(fed.learning.models.SoftmaxRegression):
        def initial_weights(self):
            kernel, zeros = super().initial_weights().trainable
            return fed.learning.models.ModelWeights((kernel, zeros + np.float32(bias)))

    process = own_algorithm.build_scaffold(Far(20, 10), 0.5, 10, engine=engine)
    rng = np.random.default_rng(17)
    few = {"x": rng.standard_normal((2, 20)).astype(np.float32), "y": rng.integers(0, 10, (2, 1), np.int32)}
    cohort, state = [Dataset.from_arrays(few, "c").shuffle(100, seed=1).batch(1)], process.initialize()
    for _ in range(3):
        state = process.next(state, cohort).state


def test_gram_knows_how_many_rows_a_kept_matrix_is_of():
    # A map that computes is called for the rows that are read, which are not always as many.
    data = Dataset.from_arrays({"x": np.float32([[1, 2], [0, 0], [0, 0]]), "y": np.int32([[0], [1], [2]])})
    pipelines = [data.take(1).repeat(3).batch(1), data.repeat(2).batch(1)]
    doubled = [pipeline.map(lambda batch: {"x": 2 * batch["x"], "y": batch["y"]}) for pipeline in pipelines]
    ragged = [
        Dataset.from_arrays({"x": np.random.default_rng(n).random((n, 2), np.float32), "y": np.zeros((n, 1), np.int32)})
        .repeat(2)
        .shuffle(100, seed=1)
        .batch(20, drop_remainder=True)
        .map(lambda batch: {"x": 1 - batch["x"], "y": batch["y"]})
        for n in (35, 45, 55)
    ]
    cohorts = [[doubled[0]], [doubled[1]], *([client.skip_iterations(i) for client in ragged] for i in range(3))]
    weights = {}
    for engine in ("loop", "gram", "auto"):
        model, sgd = fed.learning.models.SoftmaxRegression(2, 3), optimizers.build_sgdm(0.1)
        process = fed.learning.build_weighted_fed_avg(model, sgd, engine=engine)
        state = process.initialize()
        for cohort in cohorts:
            state, _ = process.next(state, cohort)
        weights[engine] = state.global_model_weights.trainable
    for engine in ("gram", "auto"):
        for a, b in zip(weights[engine], weights["loop"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def all_renamed(batch):
    return {"x": batch["x"], "y": batch["y"], "z": batch["z"]}


def forms_of_batches(flatten=None):
    """The toy client as TFF's figures have it: labels of other forms, and batches of one length."""
    labels = {"columns": TOY_Y, "int64": TOY_Y.astype(np.int64), "flat": TOY_Y[:, 0]}
    found = {name: Dataset.from_arrays({"x": TOY_X, "y": y}).batch(2) for name, y in labels.items()}
    found["dropped"] = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y}).batch(2, drop_remainder=True)
    return {name: data if flatten is None else data.map(flatten) for name, data in found.items()}


def only_renamed(batch):
    return {"x": batch["x"], "y": batch["y"]}


def computed(batch):
    return {"x": batch["x"] * 1, "y": batch["y"] * 1}


@pytest.mark.parametrize("flatten", [None, only_renamed, computed])
@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted", "auto"])
@pytest.mark.parametrize("name", ["columns", "int64", "flat", "dropped"])
def test_batches_of_other_forms_are_trained_and_typed_as_tffs_are(name, engine, flatten, tff_figures):
    expected, data = tff_figures["input_specs"][name], forms_of_batches(flatten)[name]
    for input_spec in (None, data.element_spec):
        model = fed.learning.models.SoftmaxRegression(4, 3, input_spec=input_spec)
        process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(0.1), engine=engine)
        state = process.initialize()
        for _ in range(3):
            state, metrics = process.next(state, [data])
        assert metrics["client_work"]["train"] == pytest.approx(expected["train"], rel=2e-6)
        np.testing.assert_allclose(state.global_model_weights.trainable[0], expected["kernel"], atol=1e-6)
        measured = fed.learning.models.evaluate(model, state.global_model_weights, data)
        assert measured == pytest.approx(expected["eval"], rel=2e-6)
        evaluation = fed.learning.build_fed_eval(model, engine=engine)
        evaluated = evaluation.set_model_weights(evaluation.initialize(), state.global_model_weights)
        figures = evaluation.next(evaluated, [data]).metrics["client_work"]["eval"]["current_round_metrics"]
        assert figures == pytest.approx(expected["eval"], rel=2e-6)
    # Labels (b,) are read as (b, 1), and the signature says so.
    assert str(process.next.type_signature) == expected["next"].replace("y=int32[?]", "y=int32[?,1]")


@pytest.mark.parametrize("flatten", [None, all_renamed, lambda batch: {**batch, "x": batch["x"] * 1}])
@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted", "auto"])
def test_a_field_that_the_model_does_not_take_is_refused_by_name(engine, flatten, tff_figures):
    assert tff_figures["input_specs"]["surplus"] == "TypeError"
    data = Dataset.from_arrays({"x": TOY_X, "y": TOY_Y, "z": TOY_Y}, "ann").batch(2)
    process = fed.learning.build_weighted_fed_avg(toy_model, optimizers.build_sgdm(0.1), engine=engine)
    with pytest.raises(fed.DataError, match=r"client 'ann', field 'z': a batch must have the fields \['x', 'y'\]"):
        process.next(process.initialize(), [data if flatten is None else data.map(flatten)])


@pytest.mark.parametrize("flatten", [None, only_renamed, computed])
@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted", "auto"])
def test_a_batch_of_another_length_than_was_declared_is_refused(engine, flatten):
    whole, cut = forms_of_batches(flatten)["columns"], forms_of_batches()["dropped"]
    model = fed.learning.models.SoftmaxRegression(4, 3, input_spec=cut.element_spec)
    process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(0.1), engine=engine)
    with pytest.raises(fed.DataError, match=r"of shape \(2, 4\). Got float32 of shape \(1, 4\)"):
        process.next(process.initialize(), [whole])


def test_targets_of_a_regression_may_be_flat():
    process = fed.learning.build_weighted_fed_avg(
        lambda: fed.learning.models.LinearRegression(num_features=4), optimizers.build_sgdm(0.1)
    )
    y = TOY_Y.astype(np.float32)
    flat, columns = (Dataset.from_arrays({"x": TOY_X, "y": targets}).batch(2) for targets in (y[:, 0], y))
    first, second = (process.next(process.initialize(), [data]).state for data in (flat, columns))
    for a, b in zip(first.global_model_weights.trainable, second.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("engine", ["cohort", "gram", "presorted", "auto"])
def test_rows_that_a_map_must_copy_are_seen_when_they_change(engine):
    """A reshape of Fortran's order is a copy, which would not change with the data."""
    rng = np.random.default_rng(0)
    x, y = np.asfortranarray(rng.random((20, 2, 3), np.float32)), rng.integers(0, 3, (20, 1)).astype(np.int32)
    data = Dataset.from_arrays({"x": x, "y": y}).repeat(2).batch(5).map(flat_six)
    model, losses = fed.learning.models.SoftmaxRegression(6, 3), []
    processes = [
        fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(0.5), engine=engine, cache_bytes=size)
        for size in (2**28, 0)
    ]
    for process in processes:
        x[:] = np.abs(x)
        state = process.initialize()
        for _ in range(3):
            state, metrics = process.next(state, [data])
            x *= -1
        losses.append(metrics["client_work"]["train"]["loss"])
    assert losses[0] == losses[1]


def flat_six(batch):
    return {"x": batch["x"].reshape(-1, 6), "y": batch["y"]}


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted", "auto"])
def test_a_client_that_reads_nothing_may_have_anything(engine):
    ann = Dataset.from_arrays({"x": np.ones((4, 3), np.float32), "y": np.zeros((4, 1), np.int32)}, "ann").batch(2)
    bob = Dataset.from_arrays({"x": np.empty((0, 5)), "y": np.empty((0, 1), np.int64)}, "bob").batch(2)
    process = fed.learning.build_weighted_fed_avg(
        fed.learning.models.SoftmaxRegression(3, 2), optimizers.build_sgdm(0.1), engine=engine
    )
    alone, both = (process.next(process.initialize(), data).state for data in ([ann], [ann, bob]))
    for a, b in zip(*(state.global_model_weights.trainable for state in (alone, both)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
