"""Compressed messages: what is sent, what is made up for, what it takes."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import random_cohort, toy_model
from hypothesis import given, settings

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import Attendance, compression
from fedsim_np.learning.models import LinearRegression, SoftmaxRegression
from fedsim_np.learning.optimizers import build_sgdm as sgd

EVERY = {
    "quantize": compression.quantize(4, seed=3),
    "quantize with feedback": compression.quantize(6, seed=3, error_feedback=True),
    "top_k": compression.top_k(0.3),
    "top_k without": compression.top_k(0.3, error_feedback=False),
    "random_k": compression.random_k(0.3, seed=3),
    "random_k without": compression.random_k(0.3, seed=3, error_feedback=False),
    "sign": compression.sign(),
    "sign without": compression.sign(error_feedback=False),
}
VECTOR = np.float32([3, 0, -4, 1e-3, 12, -0.5, 0.25, 7])


def streams(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


@pytest.mark.parametrize("name", ["quantize", "random_k without"])
def test_unbiased(name):
    """The mean of 20,000 messages is within five standard errors of the vector, in every coordinate."""
    draws = 20_000
    sent, _ = EVERY[name].compress(np.tile(VECTOR, (draws, 1)), [np.random.default_rng(0)] * draws)
    error = sent.mean(axis=0, dtype=np.float64) - VECTOR
    standard = sent.std(axis=0, dtype=np.float64) / np.sqrt(draws)
    assert (np.abs(error) <= 5 * standard + 1e-6).all()
    assert standard.max() > 0.001  # it is random


def test_quantize_against_the_paper():
    """Levels next to s |v| / |v|_2, signs kept, the variance of a coin between the two."""
    bits, draws = 3, 20_000
    s, norm = 2 ** (bits - 1) - 1, np.linalg.norm(VECTOR.astype(np.float64))
    sent, num_bytes = compression.quantize(bits).compress(
        np.tile(VECTOR, (draws, 1)), [np.random.default_rng(0)] * draws
    )
    levels, exact = sent / norm * s, VECTOR / norm * s
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)
    assert (np.abs(levels - exact) < 1 + 1e-5).all()
    share = np.abs(exact) - np.floor(np.abs(exact))
    np.testing.assert_allclose(levels.var(axis=0), share * (1 - share), atol=0.02)
    assert set(num_bytes.tolist()) == {3 + 4}  # 8 numbers of 3 bits, and the norm
    one = np.float32([[0, -5, 0]])  # the norm itself: its level is sure
    for _ in range(50):
        np.testing.assert_array_equal(compression.quantize(2).compress(one, streams(1))[0], one)
    assert not compression.quantize(2).compress(np.zeros((1, 3), np.float32), streams(1))[0].any()
    for number in (1e-30, 1e-45):
        tiny = np.float32([[number, 0, 0, -number]])
        assert np.isfinite(compression.quantize(8).compress(tiny, streams(1))[0]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_top_k(numbers, fraction):
    """The largest are kept as they are; what is left unsent is at most 1 - K/n of the square."""
    v = np.float32(numbers)
    (sent,), (num_bytes,) = compression.top_k(fraction).compress(v[np.newaxis], [])
    count = int(np.ceil(np.round(fraction * len(v), 6)))
    assert num_bytes == 8 * count
    kept = sent != 0
    assert kept.sum() <= count
    np.testing.assert_array_equal(sent[kept], v[kept])
    np.testing.assert_array_equal(np.sort(np.abs(sent))[::-1][:count], np.sort(np.abs(v))[::-1][:count])
    left = np.square(v.astype(np.float64) - sent).sum()
    assert left <= (1 - count / len(v)) * np.square(v.astype(np.float64)).sum() + 1e-9


def test_random_k_and_sign_by_hand():
    v = np.float32([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    (sent,), num_bytes = compression.random_k(0.25, error_feedback=False).compress(v, streams(1))
    kept = sent != 0
    assert kept.sum() == 3
    np.testing.assert_allclose(sent[kept], v[0, kept] * 10 / 3, rtol=1e-6)
    assert num_bytes.tolist() == [12]
    (sent,), _ = compression.random_k(0.25).compress(v, streams(1))
    np.testing.assert_array_equal(sent[sent != 0], v[0, sent != 0])
    sent, num_bytes = compression.sign().compress(np.float32([[1, -2, 3], [0, -2, 1]]), [])
    np.testing.assert_array_equal(sent, np.float32([[2, -2, 2], [0, -1, 1]]))
    assert num_bytes.tolist() == [5, 6]  # which are 0 takes another bit each


@pytest.mark.parametrize(("name", "up"), [("quantize", 8 + 4), ("top_k", 3 * 12), ("random_k", 3 * 8), ("sign", 8 + 2)])
def test_bytes_of_float64(name, up):
    """Numbers and scales take 8 bytes, places 4 and zeros a bit as ever."""
    sent, num_bytes = EVERY[name].compress(VECTOR[np.newaxis].astype(np.float64), streams(1))
    assert sent.dtype == np.float64
    assert num_bytes.tolist() == [up]


def process_of(compressor, engine="auto", model=None, **keywords):
    model = model or toy_model()
    return fed.learning.build_weighted_fed_avg(model, sgd(0.5), compressor=compressor, engine=engine, **keywords)


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
@pytest.mark.parametrize("has_feedback", [True, False])
def test_rounds_by_hand(engine, has_feedback):
    """Three rounds of top_k, written out: v = u + e, its largest numbers, their mean by examples, e = what is left."""
    fraction = 0.4
    compressor = compression.top_k(fraction, error_feedback=has_feedback)
    cohorts = [random_cohort([4, 9, 6], seed=r, batch=3) for r in range(3)]
    plain, process = process_of(None, engine), process_of(compressor, engine)
    state, w, left = process.initialize(), plain.initialize().global_model_weights, {}
    for cohort in cohorts:
        updates = fed.learning.client_updates(plain, plain.set_model_weights(plain.initialize(), w), cohort)
        total = [np.zeros(part.shape, np.float64) for part in w.trainable]
        for i, client in enumerate(cohort):
            e = left.get(client.client_id, [np.zeros_like(part) for part in w.trainable])
            new = []
            for t, part in enumerate(updates):
                v = part[i] + e[t] if has_feedback else part[i]
                count = int(np.ceil(fraction * v.size))
                order = np.argsort(-np.abs(v).ravel(), kind="stable")
                sent = np.zeros(v.size, v.dtype)
                sent[order[:count]] = v.ravel()[order[:count]]
                total[t] += client.num_examples * sent.reshape(v.shape).astype(np.float64)
                new.append(v - sent.reshape(v.shape))
            left[client.client_id] = new
        n = sum(client.num_examples for client in cohort)
        w = w._replace(trainable=tuple(np.float32(a - b / n) for a, b in zip(w.trainable, total, strict=True)))
        output = process.next(state, cohort)
        state = output.state
        for a, b in zip(state.global_model_weights.trainable, w.trainable, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        numbers = sum(8 * int(np.ceil(fraction * part.size)) for part in w.trainable)
        assert output.clients["bytes_up"].tolist() == [numbers] * 3
    kept = state.client_work.clients
    assert set(kept) == (set(left) if has_feedback else set())
    for client_id, e in kept.items():
        assert e["work"] is None
        for a, b in zip(e["residual"], left[client_id], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


def point(client_id, target):
    """A client whose loss is |b - target|^2 / 2 in the bias b."""
    batch = {"x": np.zeros((1, 1), np.float32), "y": np.float32([target])}
    return Dataset.from_batches([batch], client_id)


def test_feedback_converges_where_top_k_alone_does_not():
    """Two clients pull b_0 apart, and always send that: their means cancel, and b_1 never moves without feedback."""
    cohort, ends = [point("ann", (3, 1)), point("bob", (-3, 1))], {}
    for has_feedback in (True, False):
        compressor = compression.top_k(0.5, error_feedback=has_feedback)
        process = fed.learning.build_weighted_fed_avg(LinearRegression(1, 2), sgd(0.02), compressor=compressor)
        state = process.initialize()
        for _ in range(400):
            state, _ = process.next(state, cohort)
        ends[has_feedback] = state.global_model_weights.trainable[1]
    np.testing.assert_array_equal(ends[False], 0.0)
    np.testing.assert_allclose(ends[True], (0, 1), atol=0.08)  # steps are of 3 rates


def test_who_does_not_count_changes_nothing():
    cohort = random_cohort([4, 9, 6], batch=3)
    bad = [{name: a * np.float32(np.inf) if name == "x" else a for name, a in b.items()} for b in cohort[1].batches()]
    process = process_of(compression.top_k(0.3))
    state = process.next(process.initialize(), cohort).state
    before = state.client_work.clients
    strangers = [
        cohort[0],
        Dataset.from_batches(bad, cohort[1].client_id),
        Dataset.from_batches([], cohort[2].client_id),
    ]
    with np.errstate(all="ignore"):
        output = process.next(state, strangers)
    assert output.clients["status"] == ["ok", "non-finite update", "empty"]
    after = output.state.client_work.clients
    alone = process.next(state, cohort[:1]).state
    for i, is_same in enumerate((False, True, True)):
        for a, b in zip(after[cohort[i].client_id]["residual"], before[cohort[i].client_id]["residual"], strict=True):
            assert np.array_equal(a, b) is is_same
    for a, b in zip(output.state.global_model_weights.trainable, alone.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(a, b)
    unweighted = fed.learning.build_unweighted_fed_avg(toy_model(), sgd(0.5), compressor=compression.top_k(0.3))
    state = unweighted.next(unweighted.initialize(), cohort).state
    output = unweighted.next(state, [Dataset.from_batches([], client.client_id) for client in cohort])
    assert output.clients["update_norm"].tolist() == [0, 0, 0]


def test_the_same_bits_whoever_computes_and_wherever_it_stops(tmp_path):
    sizes = [3 + i % 5 for i in range(12)]

    def scaffold(**keywords):
        return fed.learning.build_scaffold(toy_model(), 0.5, num_clients=12, **keywords)

    def ditto(**keywords):
        return fed.learning.build_ditto(toy_model(), sgd(0.5), sgd(0.1), 0.1, num_clients=12, **keywords)

    def average(**keywords):
        return fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.5), **keywords)

    runs = [(name, average, compressor) for name, compressor in EVERY.items()]
    runs += [("scaffold", scaffold, EVERY["top_k"]), ("ditto", ditto, EVERY["random_k"])]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, ThreadPoolExecutor(3) as threads:
        for name, build, compressor in runs:
            results = []
            for stop, executor in ((4, "serial"), (2, threads), (3, pool)):
                process = build(compressor=compressor, executor=executor)
                manager = fed.program.FileProgramStateManager(tmp_path / f"{name}{stop}")
                for rounds in (stop, 4):
                    state = fed.program.run_training_process(
                        process,
                        lambda r: random_cohort(sizes, seed=r, batch=2),
                        rounds,
                        program_state_manager=manager,
                        metrics_managers=[],
                    )
                results.append(state)
            for other in results[1:]:
                for (path, a), (_, b) in zip(fed.trees.leaves(results[0]), fed.trees.leaves(other), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{name}: {path}")
            if name == "ditto":
                assert len(fed.learning.personal_weights(state, "c0").trainable) == 2


def test_random_numbers_are_of_seed_round_and_client():
    """Not of who else is there, nor of the place."""
    cohort = random_cohort([5, 5, 5], batch=5)
    process = process_of(compression.quantize(2, seed=1))
    first = process.initialize()
    norms = {
        c: n
        for order in (cohort, cohort[::-1])
        for c, n in zip(
            *(process.next(first, order).clients[name] for name in ("client_id", "update_norm")), strict=True
        )
    }
    alone = process.next(first, cohort[1:2]).clients["update_norm"]
    assert alone.tolist() == [norms["c1"]]
    other = process_of(compression.quantize(2, seed=2))
    assert other.next(other.initialize(), cohort[1:2]).clients["update_norm"].tolist() != alone.tolist()
    second = process.set_model_weights(process.next(first, cohort[1:2]).state, first.global_model_weights)
    assert process.next(second, cohort[1:2]).clients["update_norm"].tolist() != alone.tolist()


BYTES = {  # of 784 x 10 and 10 numbers, by hand
    "none": (None, 31_400),
    "quantize": (compression.quantize(8), (4 + 7840) + (4 + 10)),
    "two bits": (compression.quantize(2), (4 + 1960) + (4 + 3)),
    "top_k": (compression.top_k(0.1), 8 * (784 + 1)),
    "random_k": (compression.random_k(0.01), 4 * (79 + 1)),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name):
    compressor, up = BYTES[name]
    rng = np.random.default_rng(0)
    batch = {"x": rng.random((5, 784), np.float32), "y": rng.integers(0, 10, (5, 1)).astype(np.int32)}
    process = process_of(compressor, model=SoftmaxRegression())
    client = Dataset.from_batches([batch], "ann")
    output = process.next(process.initialize(), [Attendance("ann", client), Attendance("bob", None, "absent")])
    assert output.clients["bytes_up"].tolist() == [up, 0]
    assert output.clients["bytes_down"].tolist() == [31_400, 31_400]  # who drops out was sent the model
    assert output.communication == {"bytes_up": up, "bytes_down": 62_800}
    assert ("communication" in output.metrics) is (compressor is not None)
    logger = fed.program.MemoryLogger()
    fed.program.run_training_process(process, lambda _: [client], 2, metrics_managers=[logger])
    assert logger.history["communication/bytes_up"] == [up, up]
    assert logger.history["communication/bytes_down"] == [31_400, 31_400]


def test_bytes_of_what_else_is_sent():
    """A control variate goes down, its change up; an optimizer's state goes down; a gradient up."""
    cohort = random_cohort([4, 9], batch=3)
    weights = sum(w.nbytes for w in toy_model().initial_weights().trainable)
    first = [
        (fed.learning.build_scaffold(toy_model(), 0.1, num_clients=2), 2 * weights, 2 * weights),
        (fed.learning.build_fed_dyn(toy_model(), 0.1, 0.1, num_clients=2), weights, weights),
        (fed.learning.build_weighted_mime_lite(toy_model(), sgd(0.1, 0.9)), 2 * weights, 2 * weights),
        (fed.learning.build_weighted_fed_avg(toy_model(), fed.learning.optimizers.build_adam(0.1)), weights, weights),
        (fed.learning.build_fed_nova(toy_model(), sgd(0.1)), weights + 8, weights),
    ]
    mean = fed.learning.aggregators.quantized_mean_factory(7, threshold=0)
    packed = 4 * (3 + 2) + 4 * (1 + 2)  # of 12 and 3 numbers, four in 4 bytes, and the ranges
    first += [
        (fed.learning.build_fed_dyn(toy_model(), 0.1, 0.1, num_clients=2, model_aggregator=mean), packed, weights),
        (fed.learning.build_fed_nova(toy_model(), sgd(0.1), model_aggregator=mean), packed + 8, weights),
    ]
    for process, up, down in first:
        clients = process.next(process.initialize(), cohort).clients
        assert clients["bytes_up"].tolist() == [up, up]
        assert clients["bytes_down"].tolist() == [down, down]
    evaluation = fed.learning.build_fed_eval(toy_model())
    output = evaluation.next(evaluation.initialize(), cohort)
    assert "bytes_up" not in output.clients
    assert output.communication == {}


@dataclass(frozen=True)
class Halves(compression.Compressor):
    """float16: a compressor of one's own."""

    def compress(self, tensors, streams):
        assert streams == []
        return tensors.astype(np.float16).astype(np.float32), np.full(len(tensors), 2 * tensors.shape[1])


class Own(fed.learning.ClientWork):
    """One step, in a loop of its own."""

    def initialize(self):
        return ()

    def run(self, weights, dataset, state):
        (batch,) = dataset.batches()
        model = toy_model()
        output = model.forward_pass(weights, batch)
        gradient = model.gradient(weights, batch, output)
        return fed.learning.ClientResult(gradient, 1.0, model.unfinalized_metrics(batch, output))


def test_parts_of_ones_own():
    cohort = random_cohort([4, 4], batch=4)
    process = process_of(Halves(True))
    output = process.next(process.initialize(), cohort)
    count = sum(w.size for w in toy_model().initial_weights().trainable)
    assert output.clients["bytes_up"].tolist() == [2 * count] * 2
    mean = fed.learning.aggregators.MeanFactory()
    plain, halved = (
        fed.learning.compose_learning_process(toy_model(), Own(), mean, sgd(1.0), compressor=compressor)
        for compressor in (None, Halves(True))
    )
    a, b = (p.next(p.initialize(), cohort).state for p in (plain, halved))
    for one, other in zip(a.global_model_weights.trainable, b.global_model_weights.trainable, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
        assert not np.array_equal(one, other)
    assert set(b.client_work.clients) == {"c0", "c1"}


def test_a_message_that_is_not_finite_counts_for_nothing():
    """Beyond float16 an update is infinite once it is sent: neither it nor its weight is in the mean."""
    cohort = [point("ann", (1e7, 1e7)), point("bob", (1, 1))]
    process = fed.learning.build_weighted_fed_avg(LinearRegression(1, 2), sgd(0.5), compressor=Halves(True))
    output = process.next(process.initialize(), cohort)
    assert output.clients["status"] == ["non-finite update", "ok"]
    assert output.clients["weight"].tolist() == [0, 1]
    np.testing.assert_array_equal(output.state.global_model_weights.trainable[1], (0.5, 0.5))
    assert set(output.state.client_work.clients) == {"bob"}


@dataclass(frozen=True)
class Careless(compression.Compressor):
    """What compress gives is an argument."""

    give: object

    def compress(self, tensors, streams):
        return self.give(tensors)


def in_place(tensors):
    tensors[:] = 0
    return tensors, 4


@pytest.mark.parametrize(
    ("give", "text"),
    [
        (in_place, "read-only"),  # what is left unsent would be nothing
        (lambda tensors: tensors, r"'compress of Careless' must be \(decoded, num_bytes\)"),
        (lambda tensors: (tensors[:, :1], 4), "'decoded of compress of Careless' must be arrays of the shapes"),
        (lambda tensors: (tensors, -4), "'num_bytes of compress of Careless' must be integers >= 0, 2 or one for all"),
        (lambda tensors: (tensors, 2.5), "'num_bytes of compress"),
        (lambda tensors: (tensors, np.ones(3, int)), "'num_bytes of compress"),
    ],
)
def test_careless_compressors(give, text):
    process = process_of(Careless(True, give))
    with pytest.raises((ValueError, TypeError), match=text):
        process.next(process.initialize(), random_cohort([4, 4], batch=4))


class Odd(LinearRegression):
    """With a tensor that is a number, and one that is empty."""

    def initial_weights(self):
        weights = super().initial_weights()
        return weights._replace(trainable=(*weights.trainable, np.float32(3).reshape(()), np.zeros((0, 2), np.float32)))

    def forward_pass(self, weights, batch):
        return super().forward_pass(weights._replace(trainable=weights.trainable[:2]), batch)

    def gradient(self, weights, batch, output):
        gradients = super().gradient(weights._replace(trainable=weights.trainable[:2]), batch, output)
        return (*gradients, np.float32(1).reshape(()), np.zeros((0, 2), np.float32))


@pytest.mark.parametrize("name", EVERY)
def test_tensors_of_any_shape(name):
    process = process_of(EVERY[name], engine="loop", model=Odd(1))
    output = process.next(process.initialize(), [point("ann", (1,)), point("bob", (3,))])
    assert output.clients["status"] == ["ok", "ok"]
    assert output.state.global_model_weights.trainable[2] == np.float32(2.5)


def test_a_state_of_another_process():
    """Without what is counted and kept, feedback would be lost and each round draw the same."""
    cohort = random_cohort([4, 4], batch=4)
    plain, process = process_of(None), process_of(EVERY["top_k"])
    for one, other in ((plain, process), (process, plain)):
        with pytest.raises(ValueError, match="'state' must be this process's"):
            one.next(other.next(other.initialize(), cohort).state, cohort)
    plain, process = (
        fed.learning.build_scaffold(toy_model(), 0.5, num_clients=2, compressor=compressor)
        for compressor in (None, EVERY["top_k"])
    )
    for one, other in ((plain, process), (process, plain)):
        with pytest.raises(ValueError, match="'state' must be this process's, which keeps of a client"):
            one.next(other.next(other.initialize(), cohort).state, cohort)


def test_types():
    process = process_of(compression.top_k(0.1))
    assert "communication=<bytes_up=int64,bytes_down=int64>" in str(process.next.type_signature)
    assert str(process_of(None).initialize.type_signature) == str(
        fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.5)).initialize.type_signature
    )
    assert process.get_hparams(process.initialize())["client_work"] == {"learning_rate": 0.5}


def test_errors():
    for make, text in (
        (lambda: compression.quantize(1), "'bits' must be an integer >= 2. Got 1."),
        (lambda: compression.quantize(17), "'bits' must be from 2 to 16. Got 17."),
        (lambda: compression.quantize(4, -1), "'seed' must be"),
        (lambda: compression.top_k(0.0), "'fraction' must be above 0 and at most 1. Got 0.0."),
        (lambda: compression.top_k(1.5), "'fraction'"),
        (lambda: compression.random_k(float("nan")), "'fraction'"),
        (lambda: compression.sign(error_feedback="no"), "'error_feedback' must be True or False"),
        (lambda: process_of("top_k"), "'compressor' must be a Compressor, such as"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            make()
    nameless = [Dataset.from_batches(list(client.batches())) for client in random_cohort([4], batch=4)]
    for compressor, rule in ((EVERY["top_k"], "kept of each"), (EVERY["quantize"], "draws random numbers")):
        process = process_of(compressor)
        with pytest.raises(ValueError, match=rule):
            process.next(process.initialize(), nameless)
    process = process_of(EVERY["top_k without"])
    assert process.next(process.initialize(), nameless).clients["status"] == ["ok"]
    assert process.next(process.initialize(), []).communication == {"bytes_up": 0, "bytes_down": 0}
