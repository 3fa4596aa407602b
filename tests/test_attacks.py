"""Attackers, on numbers that can be computed by hand; and that all of it is a function of seed, round and ids."""

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from conftest import GOLDENS, random_cohort, sgd, toy_model

import fedsim_np as fed
from fedsim_np.learning import aggregators, attacks
from fedsim_np.learning.cohort import Cohort

MEAN = aggregators.MeanFactory()
IDS = ["ann", "bob", "cem", "dia", "eve"]
UPDATES = (np.float32([[1, 2], [3, 4], [5, 0], [7, 2], [9, 2]]), np.float32([1, 2, 3, 4, 5]))


def cohort_of(ids=IDS, weights=None, empty=()):
    k = len(ids)
    counts = [0 if i in empty else 1 for i in ids]
    weights = np.array(counts if weights is None else weights, np.float64)
    return Cohort(ids, None, weights, np.ones(k), None, lambda: counts)


class Looks(aggregators.CohortAggregator):
    """Shows what came in."""

    def __init__(self, is_weighted=None):
        self.is_weighted = is_weighted

    def initialize(self, trainable):
        return ()

    def next_of_cohort(self, state, updates, cohort):
        return state, updates, {}


def sent(attack, attackers, cohort=None, seed=0, state=None, inner=None):
    rule = attacks.attack_factory(attack, attackers, inner or Looks(), seed)
    state = rule.initialize(tuple(u[0] for u in UPDATES)) if state is None else state
    state, updates, metrics = rule.next_of_cohort(state, UPDATES, cohort or cohort_of())
    return updates, metrics, state


def test_sign_flip():
    (kernel, bias), metrics, _ = sent(attacks.sign_flip(3.0), {"bob", "eve"})
    assert kernel.tolist() == [[1, 2], [-9, -12], [5, 0], [7, 2], [-27, -6]]
    assert bias.tolist() == [1, -6, 3, 4, -15]
    assert dict(metrics) == {"attacked": {}, "num_attackers": 2}
    assert UPDATES[1].tolist() == [1, 2, 3, 4, 5]


def test_attacks_on_the_mean():
    # the honest ones' mean is (4, 2) and 2; their deviations, of three, are 2, 2 and 1
    updates = np.float32([[2, 4], [4, 2], [6, 0], [9, 9], [9, 9]]), np.float32([1, 2, 3, 9, 9])
    for attack, kernel, bias in [
        (attacks.inner_product_manipulation(1.5), [-6, -3], -3),
        (attacks.a_little_is_enough(0.5), [5, 3], 2.5),
        (attacks.a_little_is_enough(-1.0), [2, 0], 1),
        (attacks.mimic(), [2, 4], 1),
        (attacks.mimic("cem"), [6, 0], 3),
    ]:
        rule = attacks.attack_factory(attack, {"dia", "eve"}, Looks())
        _, forged, _ = rule.next_of_cohort(rule.initialize(()), updates, cohort_of())
        assert forged[0][3:].tolist() == [kernel, kernel]
        assert forged[1].tolist() == [1, 2, 3, bias, bias]


@pytest.mark.parametrize("inner", [MEAN, aggregators.UnweightedMeanFactory()])
def test_the_mean_becomes_its_negative(inner):
    cohort = cohort_of(weights=[3, 1, 4, 1, 5])
    rule = attacks.attack_factory(attacks.omniscient_negation(), {"bob", "dia"}, inner)
    _, mean, _ = rule.next_of_cohort(rule.initialize(UPDATES), UPDATES, cohort)
    _, true, _ = inner.next(inner.initialize(UPDATES), UPDATES, cohort.client_weights)
    for a, b in zip(mean, true, strict=True):
        np.testing.assert_allclose(a, -b, rtol=1e-6)


def test_byzfl():
    for row in json.loads((GOLDENS / "byzfl.json").read_text(encoding="utf-8")):
        x, f = np.float32(row["x"]), row["f"]
        ids = [f"c{i}" for i in range(len(x))]
        for name, attack in {
            "inner_product_manipulation": attacks.inner_product_manipulation(1.5),
            "a_little_is_enough": attacks.a_little_is_enough(1.2),
        }.items():
            rule = attacks.attack_factory(attack, ids[:f], Looks())
            _, (forged,), _ = rule.next_of_cohort(rule.initialize(()), (x,), cohort_of(ids))
            np.testing.assert_allclose(forged[:f], np.tile(row[name], (f, 1)), atol=2e-6)
            np.testing.assert_array_equal(forged[f:], x[f:])


def test_noise_is_of_seed_round_and_id():
    attack, attackers = attacks.gaussian_noise(2.0), {"bob", "dia"}
    first, _, state = sent(attack, attackers)
    second, _, _ = sent(attack, attackers, state=state)
    other, _, _ = sent(attack, attackers, seed=1)
    turned, _, _ = sent(attack, attackers, cohort_of(IDS[::-1]))
    for tensor in (0, 1):
        assert (first[tensor][[1, 3]] != second[tensor][[1, 3]]).all()
        assert (first[tensor][[1, 3]] != other[tensor][[1, 3]]).all()
        np.testing.assert_array_equal(first[tensor][[1, 3]], turned[tensor][[3, 1]])
        np.testing.assert_array_equal(first[tensor][[0, 2, 4]], UPDATES[tensor][[0, 2, 4]])
    rule = attacks.attack_factory(attack, {"bob"}, Looks())
    wide = (np.zeros((2, 100_000), np.float32),)
    _, (noise,), _ = rule.next_of_cohort(rule.initialize(()), wide, cohort_of(["ann", "bob"]))
    assert abs(noise[1].std() / 2 - 1) < 4 / np.sqrt(200_000)


def test_shares():
    ids = [f"c{i}" for i in range(600)]
    who = attacks.choose(ids, 0.2, seed=3)
    assert len(who) == 120
    assert attacks.choose(ids[::-1], 0.2, seed=3) == who != attacks.choose(ids, 0.2, seed=4)
    assert attacks.choose(ids, 0.1, seed=3) < who
    # By a share each is drawn by itself, the same in data and updates, in every round.
    wide = (np.ones((600, 1), np.float32),)
    rule = attacks.attack_factory(attacks.sign_flip(), 0.2, Looks(), seed=3)
    state, (forged,), metrics = rule.next_of_cohort(rule.initialize(()), wide, cohort_of(ids))
    assert abs(metrics["num_attackers"] - 120) < 4 * np.sqrt(600 * 0.2 * 0.8)
    _, (again,), _ = rule.next_of_cohort(state, wide, cohort_of(ids))
    np.testing.assert_array_equal(forged, again)
    data = fed.datasets.InMemoryClientData({i: {"x": [0.0], "label": [0]} for i in ids})
    wrong = attacks.poisoned(data, attacks.flip_labels(2), 0.2, seed=3)
    labels = [int(wrong.create_dataset_for_client(i).to_arrays()["label"][0]) for i in ids]
    assert labels == (forged[:, 0] < 0).tolist()
    assert sent(attacks.sign_flip(), 0.0)[1]["num_attackers"] == 0
    assert (
        sent(attacks.sign_flip(), 1)[1]["num_attackers"]
        == sent(attacks.sign_flip(), np.float32(1))[1]["num_attackers"]
        == 5
    )
    # Nobody knows who a client without an id is.
    assert sent(attacks.sign_flip(), 1.0, cohort_of([None] * 5))[1]["num_attackers"] == 0


def test_clients_that_do_not_count_neither_attack_nor_are_looked_at():
    cohort = cohort_of(empty={"ann", "bob"})
    (kernel, _), metrics, _ = sent(attacks.inner_product_manipulation(1.0), {"bob", "cem"}, cohort)
    assert kernel.tolist() == [[1, 2], [3, 4], [-8, -2], [7, 2], [9, 2]]
    assert metrics["num_attackers"] == 1
    for attack in (attacks.omniscient_negation(), attacks.mimic(), attacks.a_little_is_enough(1.0)):
        updates, _, _ = sent(attack, 1.0)
        np.testing.assert_array_equal(updates[0], UPDATES[0])  # nobody honest
        updates, _, _ = sent(attack, {"ann", "bob", "cem", "dia"})
        assert np.isfinite(updates[0]).all()  # one


def test_in_a_round_of_attackers_alone_those_attack_who_look_at_no_others():
    everybody = set(cohort_of().ids)
    flipped, drawn = (sent(attack, everybody)[0] for attack in (attacks.sign_flip(2.0), attacks.gaussian_noise()))
    np.testing.assert_array_equal(flipped[0], -2 * UPDATES[0])
    some = sent(attacks.gaussian_noise(), everybody - {"cem"})[0]
    assert [np.array_equal(a, b) for a, b in zip(drawn[0], some[0], strict=True)] == [True, True, False, True, True]

    def own(seen):
        return tuple(0 * u[seen.attackers] for u in seen.updates)

    # One's own attacks by its word; any other is not asked.
    np.testing.assert_array_equal(sent(own, everybody)[0][0], UPDATES[0])
    assert not sent(attacks.Oblivious(own), everybody)[0][0].any()


@pytest.mark.parametrize("sends", [np.nan, np.inf, 1e39])
def test_who_sends_what_is_not_finite_is_left_out(sends):
    # As the process leaves out any other such client; 0 * NaN would be in every mean, and stay in a centre for good.
    rng = np.random.default_rng(0)
    ids = [f"c{i}" for i in range(13)]
    updates = rng.normal(size=(13, 3, 2)).astype(np.float32), rng.normal(size=(13, 2)).astype(np.float32)
    there, weights = np.arange(13) != 4, rng.integers(1, 9, 13).astype(np.float64)

    def attack(seen):
        assert seen.ids[4] == "c4"
        return np.zeros((3, 2)), np.array([sends, 0])

    for rule in (
        MEAN,
        aggregators.MedianFactory(),
        aggregators.KrumFactory(2, 3),
        aggregators.BulyanFactory(2),
        aggregators.GeometricMedianFactory(),
        aggregators.CenteredClippingFactory(0.5),
        aggregators.add_debug_measurements(aggregators.bucketing_factory(2, aggregators.MedianFactory())),
    ):
        attacked = attacks.attack_factory(attack, {"c4"}, rule)
        state = attacked.initialize(tuple(u[0] for u in updates))
        _, got, metrics = attacked.next_of_cohort(state, updates, cohort_of(ids, weights))
        assert metrics["num_attackers"] == 1
        others = cohort_of([i for i in ids if i != "c4"], weights[there])
        _, expected, _ = aggregators.aggregate(rule, state["inner_agg"], tuple(u[there] for u in updates), others)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_wrong_data():
    arrays = {"pixels": np.float32([[0, 1], [0.25, 0.5], [0, 0]]), "label": np.int32([0, 1, 9])}
    data = fed.datasets.InMemoryClientData({"ann": arrays, "bob": arrays})

    def made(attack):
        wrong = attacks.poisoned(data, attack, {"bob"})
        np.testing.assert_equal(dict(wrong.create_dataset_for_client("ann").to_arrays()), arrays)
        assert wrong.element_type_structure == data.element_type_structure
        return wrong.create_dataset_for_client("bob").to_arrays()

    assert made(attacks.flip_labels(10))["label"].tolist() == [9, 8, 0]
    assert made(attacks.invert_pixels())["pixels"].tolist() == [[1, 0], [0.75, 0.5], [1, 1]]
    assert sorted(made(attacks.shuffle_labels())["label"].tolist()) == [0, 1, 9]
    many = fed.datasets.InMemoryClientData({"bob": {"x": np.zeros(100, np.float32), "y": np.arange(100)}})
    shuffled = [attacks.poisoned(many, attacks.shuffle_labels("y"), {"bob"}, seed) for seed in (0, 0, 1)]
    a, b, c = (list(data.create_dataset_for_client("bob").to_arrays()["y"]) for data in shuffled)
    assert a == b
    assert len({tuple(a), tuple(c), tuple(range(100))}) == 3
    with pytest.raises(fed.DataError, match="client 'bob': must have the field 'y' that the attack changes"):
        made(attacks.flip_labels(10, field="y"))
    with pytest.raises(fed.DataError, match="client 'bob': must have the field 'lable' that the attack changes"):
        made(lambda fields, rng: {"lable": fields["label"]})
    with pytest.raises(fed.DataError, match="client 'bob', field 'label': must be floats in .0, 1. to be inverted"):
        made(attacks.invert_pixels("label"))
    batched = attacks.poisoned(data.preprocess(lambda dataset: dataset.batch(2)), attacks.flip_labels(10), {"bob"})
    assert len(list(batched.create_dataset_for_client("ann"))) == 2
    with pytest.raises(fed.DataError, match="client 'bob': must be examples: poison first, then batch"):
        batched.create_dataset_for_client("bob")
    nothing = fed.datasets.InMemoryClientData({"bob": {"label": np.zeros(0, np.int32)}})
    for attack in (attacks.shuffle_labels(), attacks.flip_labels(10)):
        assert not len(attacks.poisoned(nothing, attack, {"bob"}).create_dataset_for_client("bob").to_arrays()["label"])


def test_what_is_refused():
    for build, error, message in [
        (lambda: attacks.attack_factory("sign_flip", 0.2, MEAN), TypeError, r"'attack' must be a function such as"),
        (lambda: attacks.attack_factory(attacks.sign_flip(), 1.2, MEAN), ValueError, "'attackers' must be"),
        (lambda: attacks.attack_factory(attacks.sign_flip(), "ann", MEAN), TypeError, "'attackers' must be a share"),
        (lambda: attacks.attack_factory(attacks.sign_flip(), 0.2, "mean"), TypeError, "'inner' must be an Aggregator"),
        (lambda: attacks.choose(IDS, 1.5), ValueError, "'share' must be a share in"),
        (lambda: attacks.choose(IDS, 0.5, seed=-1), ValueError, "'seed' must be an integer >= 0"),
        (lambda: sent(lambda seen: None, {"bob"}), ValueError, "'attack' must be a function that returns a tuple of 2"),
        (lambda: sent(lambda seen: UPDATES, {"bob"}), ValueError, r"returns arrays \(2,\) or \(1, 2\). Got '?\(5, 2\)"),
        (lambda: attacks.sign_flip(-1.0), ValueError, "'scale' must be a finite float >= 0"),
        (lambda: attacks.poisoned({}, attacks.invert_pixels(), 0.2), TypeError, "'client_data' must be a ClientData"),
    ]:
        with pytest.raises(error, match=message):
            build()


K = 14
EVERYTHING = {
    "noise": aggregators.dp_aggregator(0.5, 20.0, seed=3),
    "median": attacks.attack_factory(attacks.gaussian_noise(), 0.2, aggregators.MedianFactory(), seed=1),
    "bulyan": attacks.attack_factory(attacks.mimic(), {"c3"}, aggregators.BulyanFactory(2)),
    "buckets": attacks.attack_factory(
        attacks.a_little_is_enough(1.0),
        {"c3", "c5"},
        aggregators.bucketing_factory(2, aggregators.CenteredClippingFactory(0.5), seed=2),
    ),
    "krum": aggregators.clipping_factory(1.0, aggregators.bucketing_factory(2, aggregators.KrumFactory(1))),
    "quantized": aggregators.compression_aggregator(weighted=False, threshold=4, seed=5),
    "rfa": attacks.attack_factory(attacks.omniscient_negation(), {"c1"}, aggregators.GeometricMedianFactory()),
}


def test_the_same_bits_whoever_computes_and_wherever_it_stops(folder):
    cohort = random_cohort([3 + i % 5 for i in range(K)], batch=2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, ThreadPoolExecutor(3) as threads:
        for name, rule in EVERYTHING.items():
            results = []
            for stop, executor in ((4, "serial"), (2, threads), (3, pool)):
                process = fed.learning.build_unweighted_fed_avg(
                    toy_model(), sgd(0.5), model_aggregator=rule, executor=executor
                )
                manager = fed.program.FileProgramStateManager(folder / f"{name}{stop}")
                for rounds in (stop, 4):
                    state = fed.program.run_training_process(
                        process, lambda _: cohort, rounds, program_state_manager=manager, metrics_managers=[]
                    )
                results.append(state)
            for other in results[1:]:
                for (path, a), (_, b) in zip(fed.trees.leaves(results[0]), fed.trees.leaves(other), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"{name}: {path}")


def test_the_mean_breaks_where_the_median_holds():
    # Forty clients with the same optimum, eight of whom send five times the opposite.
    rng = np.random.default_rng(0)
    truth = np.float32([[2.0], [-1.0], [0.5]])
    cohort = []
    for i in range(40):
        x = rng.normal(size=(20, 3)).astype(np.float32)
        batch = {"x": x, "y": x @ truth + rng.normal(scale=0.1, size=(20, 1)).astype(np.float32)}
        cohort.append(fed.datasets.Dataset.from_batches([batch], client_id=f"c{i}"))
    who, away = attacks.choose([c.client_id for c in cohort], 0.2), {}
    for name, rule in {"mean": MEAN, "median": aggregators.MedianFactory()}.items():
        process = fed.learning.build_weighted_fed_avg(
            fed.learning.models.LinearRegression(3),
            sgd(0.3),
            model_aggregator=attacks.attack_factory(attacks.sign_flip(5.0), who, rule),
        )
        state = process.initialize()
        for _ in range(30):
            state, _ = process.next(state, cohort)
        away[name] = np.linalg.norm(state.global_model_weights.trainable[0] - truth)
    assert away["median"] < 0.1
    assert away["mean"] > 2
