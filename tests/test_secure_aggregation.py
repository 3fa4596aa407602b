"""The demonstration of secure aggregation: masks that cancel, shares that tell nothing, and a mean that is right."""

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest
from conftest import toy_batches, toy_model
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.demos import secure_aggregation as demo
from fedsim_np.demos.secure_aggregation import PRIME, SecureMean, pair, reconstruct, share
from fedsim_np.learning.aggregators import UnweightedMeanFactory

# On the blackboard: numbers 2, -1 and 1 modulo 16, and seeds that are the masks themselves.
NUMBERS = np.array([[2], [15], [1]], np.uint32)
SEEDS = {(0, 0): 5, (1, 1): 9, (2, 2): 14, (0, 1): 11, (0, 2): 6, (1, 2): 13}


def itself(seed):
    return np.array([seed], np.uint32)


def on_the_blackboard():
    return {i: NUMBERS[i] + demo.mask(i, range(3), SEEDS, itself) for i in range(3)}


def test_three_clients_modulo_16():
    assert demo.encode([[2.0], [-1.0], [1.0]], clip=2, scale=1).tolist() == [[2], [2**32 - 1], [1]]
    uploads = on_the_blackboard()
    assert [int(y[0]) % 16 for y in uploads.values()] == [8, 10, 12]
    total = sum(uploads.values()) - sum(itself(SEEDS[i, i]) for i in range(3))
    assert demo.decode(total, scale=1, modulus=16) == 2


@pytest.mark.parametrize(("gone", "rest"), [({2}, 2 - 1), ({0}, -1 + 1), ({1}, 2 + 1), (set(), 2)])
def test_a_dropout_modulo_16(gone, rest):
    shares = {name: share([seed, 3], k=3) for name, seed in SEEDS.items()}
    uploads = {i: y for i, y in on_the_blackboard().items() if i not in gone}
    answers = [demo.answer({name: points[i] for name, points in shares.items()}, uploads, 2) for i in uploads]
    assert demo.decode(demo.unmask(uploads, answers, 3, 2, itself), scale=1, modulus=16) == rest


def test_a_late_client_modulo_16():
    late = on_the_blackboard()[2] + itself(SEEDS[0, 2]) + itself(SEEDS[1, 2])  # its pairs' seeds were told
    assert late % 16 == 1 + 14  # its own was not


def test_a_line_modulo_17():
    points = share([6, 5], k=3, prime=17)
    assert points == [(1, 11), (2, 16), (3, 4)]
    assert [reconstruct(two, prime=17) for two in itertools.permutations(points, 2)] == [6] * 6


@given(st.data())
def test_masks_cancel_whoever_drops_out(data):
    k = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(2, k))
    order = data.draw(st.permutations(range(k)))
    uploaded = order[: data.draw(st.integers(threshold, k))]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    integers = rng.integers(2**32, size=(k, 5), dtype=np.uint32)
    expected = integers[uploaded].sum(axis=0, dtype=np.uint32)

    seeds, shares = demo.deal(k, threshold, rng)
    assert len(seeds) == k * (k + 1) // 2
    for name, seed in seeds.items():
        points = [of_one[name] for of_one in data.draw(st.permutations(shares))]
        assert reconstruct(points[:threshold]) == seed != reconstruct(points[: threshold - 1])
    expand = partial(demo.noise, size=5)
    uploads = {i: integers[i] + demo.mask(i, range(k), seeds, expand) for i in uploaded}
    # Those who drop out between upload and answer are not needed, as long as enough are left.
    answering = data.draw(st.permutations(uploaded))[: data.draw(st.integers(threshold, len(uploaded)))]
    answers = [demo.answer(shares[i], uploaded, threshold) for i in answering]
    assert np.array_equal(demo.unmask(uploads, answers, k, threshold, expand), expected)
    with pytest.raises(ValueError, match=f"'answers' must be those of at least {threshold} clients"):
        demo.unmask(uploads, answers[: threshold - 1], k, threshold, expand)
    for i in range(k):  # nobody is asked for all that hides a client
        hiding = {pair(i, j) for j in range(k)}
        assert not hiding <= set(answers[0])
        assert (pair(i, i) in answers[0]) == (i in uploaded)
    # Nor by a server that says that nearly all are gone.
    with pytest.raises(ValueError, match=f"'uploaded' must be at least {threshold} clients. Got "):
        demo.answer(shares[0], [*uploaded[: threshold - 1], uploaded[0]], threshold)


def test_fewer_shares_than_the_threshold_tell_nothing():
    """Of all polynomials with three coefficients just one goes through any two points and any secret."""
    for xs in itertools.combinations(range(4), 2):
        secrets_by_points = Counter()
        for coefficients in itertools.product(range(7), repeat=3):
            points = share(coefficients, 4, prime=7)
            assert reconstruct(points[1:], prime=7) == coefficients[0]
            secrets_by_points[(coefficients[0], *(points[x] for x in xs))] += 1
        assert len(secrets_by_points) == 7 * 7**2
        assert set(secrets_by_points.values()) == {1}


@given(st.lists(st.integers(0, PRIME - 1), min_size=2, max_size=6), st.integers(0, PRIME - 1))
def test_one_share_more_makes_any_secret_of_the_rest(coefficients, wanted):
    k = len(coefficients) + 2
    points = share(coefficients, k)
    assert reconstruct(points) == reconstruct(points[2:]) == coefficients[0]
    known, x = points[: len(coefficients) - 1], k
    at_0, at_1 = (reconstruct([*known, (x, y)]) for y in (0, 1))
    y = (wanted - at_0) * pow(at_1 - at_0, -1, PRIME) % PRIME
    assert reconstruct([*known, (x, y)]) == wanted


def test_an_upload_is_uniform_and_an_update_is_not():
    rng = np.random.default_rng(5)
    encoded = demo.encode(rng.normal(scale=0.01, size=(6, 20_000)), 4.0, 2**16)
    _, uploads = demo.secure_sum(encoded, range(4), 3, rng)
    below = 0.0
    for i, y in uploads.items():
        counts, statistic = demo.chi_square(y)
        assert counts.sum() == 20_000
        assert statistic < 44.3  # exceeded once in 10,000 by uniform ones
        assert demo.chi_square(encoded[i])[1] > 100_000
        below += statistic
    assert 0.5 < below / (4 * 15) < 1.6
    together = uploads[0] + uploads[1]  # all but their own pair's mask is left
    assert demo.chi_square(together)[1] < 44.3
    assert len({y.tobytes() for y in uploads.values()}) == 4


@pytest.mark.parametrize(("scale", "k"), [(2.0**16, 10), (1000.0, 3), (1.0, 5)])
def test_the_mean_is_off_by_half_a_step_at_most(scale, k):
    rng = np.random.default_rng(3)
    updates = rng.uniform(-2, 2, (k, 40, 5)), rng.uniform(-2, 2, (k, 7))
    aggregator = SecureMean(threshold=2, clip=2.0, scale=scale)
    state, mean, metrics = aggregator.next(aggregator.initialize(updates), updates, np.ones(k))
    plain = UnweightedMeanFactory().next(((), ()), updates, np.ones(k))[1]
    assert [m.shape for m in mean] == [(40, 5), (7,)]
    assert state == 1
    assert metrics == {"uploaded": k}
    off = max(np.abs(a - b).max() for a, b in zip(mean, plain, strict=True))
    assert off <= 0.5 / scale + 1e-12
    assert off > 0.05 / scale
    whole = np.rint(updates[1] * scale) / scale  # in whole steps it is exact, but for the division
    mean = aggregator.next(7, (whole,), np.ones(k))[1]
    np.testing.assert_allclose(mean[0], whole.mean(axis=0), rtol=0, atol=1e-15)


def test_a_sum_must_not_wrap_around():
    one = np.ones((4, 3))
    just_right = SecureMean(threshold=2, clip=1.0, scale=2.0**29 - 1)  # 4 (2^29 - 1) < 2^31
    for sign in (1, -1):
        assert just_right.next(0, (sign * one,), np.ones(4))[1][0].tolist() == [sign] * 3
    for scale in (2.0**29, 2.0**40, 0.0, -1.0, float("nan"), float("inf")):
        rule = r"'scale' must be > 0 and such that k \* clip \* scale < 2\^31, with k = 4 and clip = 1. Got "
        with pytest.raises(ValueError, match=rule):
            SecureMean(threshold=2, clip=1.0, scale=scale).next(0, (one,), np.ones(4))
    # What it is refused for: 4 x 2^29 is -2^31.
    assert demo.decode(demo.encode(one, 1.0, 2.0**29).sum(axis=0, dtype=np.uint32), 2.0**29).tolist() == [-4.0] * 3


def test_clipping_is_by_coordinate():
    updates = (np.float32([[9.0, -9.0, 0.5], [1.0, -1.0, 0.5], [np.inf, -np.inf, 0.5]]),)
    assert SecureMean(threshold=2, clip=3.0).next(0, updates, np.ones(3))[1][0].round(4).tolist() == [
        np.float32(7 / 3).round(4),
        -np.float32(7 / 3).round(4),
        0.5,
    ]


def built(aggregator=None):
    optimizer = fed.learning.optimizers.build_sgdm(0.5)
    return fed.learning.build_unweighted_fed_avg(toy_model, optimizer, model_aggregator=aggregator)


@pytest.fixture(scope="module")
def clients():
    rng = np.random.default_rng(2)
    data = {c: {"x": rng.normal(size=(6, 4)).astype("f4"), "y": rng.integers(0, 3, (6, 1), "i4")} for c in "abcdefgh"}
    client_data = fed.datasets.InMemoryClientData(data)
    return [client_data.create_dataset_for_client(c).batch(2) for c in client_data.client_ids]


@pytest.mark.parametrize("dropouts", [(), ("h",), ("a", "d", "g")])
def test_a_process_comes_out_at_the_plain_mean(clients, dropouts):
    there = [dataset for dataset in clients if dataset.client_id not in dropouts]
    process, plain = built(SecureMean(threshold=5, scale=2.0**20, dropouts=dropouts)), built()
    state = process.initialize()
    for _ in range(3):
        before = plain.set_model_weights(plain.initialize(), process.get_model_weights(state))
        expected = plain.get_model_weights(plain.next(before, there).state).trainable
        state, metrics = process.next(state, clients)
        assert metrics["aggregator"]["uploaded"] == len(there)
        for a, b in zip(process.get_model_weights(state).trainable, expected, strict=True):
            assert np.abs(a - b).max() <= 0.5 / 2**20 + 3e-7
    assert state.aggregator == 3


def test_no_seed_serves_twice(clients, monkeypatch):
    drawn, deal = [], demo.deal
    monkeypatch.setattr(demo, "deal", lambda *args: drawn.append(deal(*args)) or drawn[-1])
    for seed in (0, 1):
        process = built(SecureMean(threshold=5, seed=seed))
        state = process.initialize()
        for _ in range(2):
            state, _ = process.next(state, clients)
    assert len({value for seeds, _ in drawn for value in seeds.values()}) == 4 * 36


def test_too_many_dropouts_are_refused_by_name(clients):
    process = built(SecureMean(threshold=5, dropouts=["a", "d", "g", "h"]))
    rule = r"'dropouts' must be few enough to leave 5 of the round's 8 clients. Got \['a', 'd', 'g', 'h'\]"
    with pytest.raises(ValueError, match=rule):
        process.next(process.initialize(), clients)
    with pytest.raises(ValueError, match="few enough to leave 5 of the round's 0 clients"):
        process.next(process.initialize(), [])
    with pytest.raises(ValueError, match="'threshold' must be an integer >= 2. Got 1"):
        built(SecureMean(threshold=1)).next(process.initialize(), clients)


def test_lists_of_batches_have_no_names():
    process = built(SecureMean(threshold=2, dropouts=["a"]))
    assert process.next(process.initialize(), [toy_batches()] * 2).metrics["aggregator"]["uploaded"] == 2


def test_stopped_and_resumed(clients, folder):
    def run(rounds, manager=None):
        process = built(SecureMean(threshold=5, dropouts=["c"]))
        state = fed.program.run_training_process(
            process, lambda round_num: clients, rounds, program_state_manager=manager, metrics_managers=[]
        )
        return state.aggregator, [w.tobytes() for w in process.get_model_weights(state).trainable]

    whole = run(3)
    run(1, fed.program.FileProgramStateManager(folder))
    assert run(3, fed.program.FileProgramStateManager(folder)) == whole


def test_the_demonstration_runs(capsys):
    demo.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("True")
    assert sum("10 of 10" in line for line in lines) == sum("6 of 10" in line for line in lines) == 3
    assert lines[-1].startswith("refused: 'dropouts' must be few enough to leave 6 of the round's 10 clients. Got [")
