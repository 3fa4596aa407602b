"""Cohorts by round: TFF's choices, and evenly, whatever came before."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.program import (
    build_poisson_sampling_fn,
    build_power_of_choice_sampling_fn,
    build_size_weighted_sampling_fn,
    build_sparse_sampling_fn,
    build_uniform_sampling_fn,
    client_losses_fn,
)

IDS = [f"f{i:04d}_{i % 50:02d}" for i in range(200)]

# Of tff.simulation.build_uniform_sampling_fn of TFF 0.87.0 over these 200 ids.
MEASURED = [
    (0, 0, ["f0115_15", "f0068_18", "f0070_20", "f0172_22", "f0032_32"]),
    (0, 1000000, ["f0046_46", "f0069_19", "f0158_08"]),
    (7, 0, ["f0072_22", "f0123_23", "f0056_06", "f0167_17", "f0128_28"]),
]


@pytest.mark.parametrize(("seed", "round_num", "expected"), MEASURED)
def test_tffs_choices(seed, round_num, expected):
    sample = build_uniform_sampling_fn(IDS, random_seed=seed)
    assert sample(round_num, len(expected)) == expected
    assert build_uniform_sampling_fn(tuple(IDS), random_seed=np.int64(seed))(round_num, len(expected)) == expected


def test_all_of_tffs_choices(shared):
    golden = json.loads((shared / "goldens" / "sampling.json").read_text(encoding="utf-8"))
    for case in golden["cases"]:
        sample = build_uniform_sampling_fn(IDS, case["replace"], case["random_seed"])
        assert sample(case["round_num"], case["size"]) == case["sample"]


SAMPLERS = [lambda r, s: build_uniform_sampling_fn(r, random_seed=s), build_sparse_sampling_fn]


@pytest.mark.parametrize("build", SAMPLERS)
@given(data=st.data())
def test_a_round_is_sampled_whatever_came_before(build, data):
    population = data.draw(st.integers(1, 60))
    size = data.draw(st.integers(0, population))
    seed, round_num = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 2**40))
    sample = build(range(population), seed)
    chosen = sample(round_num, size)
    sample(round_num + 1, size)
    assert chosen == sample(round_num, size) == build(range(population), seed)(round_num, size)
    assert len(set(chosen)) == size
    assert set(chosen) <= set(range(population))


@pytest.mark.parametrize("build", SAMPLERS)
def test_everybody_is_as_likely_and_in_every_place(build):
    sample, counts = build(range(10), 5), np.zeros((3, 10), int)
    for round_num in range(6000):
        for place, member in enumerate(sample(round_num, 3)):
            counts[place, member] += 1
    expected = 6000 / 10
    chi_squared = ((counts - expected) ** 2 / expected).sum(axis=1)
    assert (chi_squared < 27.9).all()  # nine degrees of freedom, once in a thousand


def test_sparse_sampling_looks_at_nobody_else():
    class Population:
        looked = 0

        def __len__(self):
            return 10**12

        def __getitem__(self, i):
            Population.looked += 1
            return i

    assert len(set(build_sparse_sampling_fn(Population(), 0)(3, 100))) == 100
    assert Population.looked == 100
    ids = fed.datasets.SyntheticClientData(1_000_000).client_ids
    assert all(client_id in ids for client_id in build_sparse_sampling_fn(ids, 0)(1, 10))


def test_seeds_and_rounds_do_not_share_streams():
    seen = set()
    for seed in (0, 1, 2**32, 2**32 + 1, 2**64):
        for round_num in (0, 1, 2**32, 2**33):
            seen.add(tuple(build_sparse_sampling_fn(range(10**9), seed)(round_num, 4)))
    assert len(seen) == 20


def test_without_a_seed_choices_differ():
    sample = build_uniform_sampling_fn(range(10**6))
    assert sample(0, 5) != sample(0, 5)
    assert len(build_uniform_sampling_fn([1], replace=True)(0, 5)) == 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: build_uniform_sampling_fn(IDS)(0, 201),
            ValueError,
            "Failed to sample 201 clients from population of size 200.",
        ),
        (lambda: build_sparse_sampling_fn(IDS, 0)(0, 201), ValueError, "Failed to sample 201 clients from population"),
        (
            lambda: build_uniform_sampling_fn([])(0, 1),
            ValueError,
            "Failed to sample 1 clients from population of size 0.",
        ),
        (
            lambda: build_uniform_sampling_fn(IDS, random_seed=2**32),
            ValueError,
            "from 0 to 4294967295. Got 4294967296.",
        ),
        (lambda: build_uniform_sampling_fn(IDS, random_seed=0.5), ValueError, "must be an integer >= 0. Got 0.5."),
        (lambda: build_uniform_sampling_fn(IDS, random_seed=0)(-1, 1), ValueError, "must be an integer >= 0. Got -1."),
        (lambda: build_uniform_sampling_fn("abc"), TypeError, "must be a sequence of clients' ids. Got 'abc'."),
        (lambda: build_uniform_sampling_fn(IDS, replace=1), TypeError, "must be True or False. Got 1."),
        (lambda: build_sparse_sampling_fn(iter(IDS), 0), TypeError, "must be a sequence of clients' ids."),
        (lambda: build_sparse_sampling_fn(IDS, None), ValueError, "must be an integer >= 0. Got None."),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_a_mapping_is_no_sequence():
    for build in (
        lambda population: build_uniform_sampling_fn(population, random_seed=0),
        lambda population: build_sparse_sampling_fn(population, 0),
    ):
        for population in ({"a": 1}, np.array(3), np.zeros((2, 2))):
            with pytest.raises(TypeError, match="must be a sequence of clients' ids"):
                build(population)


# --- not evenly, or not so many every time


def sized(sizes):
    return fed.datasets.InMemoryClientData({name: {"x": np.zeros((n, 1), np.float32)} for name, n in sizes.items()})


def test_poisson_sampling_is_a_coin_for_each():
    sample = build_poisson_sampling_fn(range(50), 3)
    cohorts = [sample(round_num, 10) for round_num in range(3000)]
    sizes = np.array([len(cohort) for cohort in cohorts])
    counts = np.bincount(np.concatenate(cohorts), minlength=50)
    assert sizes.mean() == pytest.approx(10, abs=5 * np.sqrt(8 / 3000))
    assert sizes.var() == pytest.approx(8, rel=0.15)  # of a binomial, and not of a fixed size
    assert np.abs(counts - 600).max() < 5 * np.sqrt(3000 * 0.2 * 0.8)
    assert all(cohort == sorted(set(cohort)) for cohort in cohorts)
    assert sample(7, 10) == cohorts[7]
    assert sample(1, 50) == list(range(50))
    assert sample(1, 0) == []


@pytest.mark.parametrize("replace", [True, False])
def test_sampling_by_size(replace):
    """Of 6, 3 and 1 examples; without replacement the second of two is drawn of what is left."""
    sample = build_size_weighted_sampling_fn(sized({"a": 6, "b": 3, "c": 1, "none": 0}), replace, 5)
    drawn = [sample(round_num, 2) for round_num in range(4000)]
    share = {name: sum(cohort.count(name) for cohort in drawn) / 4000 for name in ("a", "b", "c", "none")}
    p = {"a": 0.6, "b": 0.3, "c": 0.1}
    for name, of in p.items():
        second = sum(other * of / (1 - other) for key, other in p.items() if key != name)
        assert share[name] == pytest.approx(2 * of if replace else of + second, abs=0.04)
    assert share["none"] == 0
    assert any(len(set(cohort)) == 1 for cohort in drawn) is replace
    assert sample(3, 2) == drawn[3]
    if not replace:
        with pytest.raises(ValueError, match="Failed to sample 4 clients from population of size 3"):
            sample(0, 4)


def choosing(num_candidates, random_seed=0):
    """Clients whose loss is (w - y)^2 / 2: far ones are worse off."""
    data = fed.datasets.InMemoryClientData(
        {
            f"c{y}": {"x": np.zeros((n, 1), np.float32), "y": np.full((n, 1), y, np.float32)}
            for y, n in enumerate((5, 9, 1, 3, 2, 7))
        }
    )
    model = fed.learning.models.LinearRegression(1)
    process = fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(0.5))
    choose = build_power_of_choice_sampling_fn(
        data, lambda dataset: dataset.batch(4), client_losses_fn(model), num_candidates, random_seed
    )
    return data, process, choose


def test_the_worst_of_the_candidates_are_chosen():
    _, process, choose = choosing(6)
    state = process.initialize()
    assert choose(1, 3, state) == ["c5", "c4", "c3"]
    moved = process.set_model_weights(state, ((np.zeros((1, 1)), np.float32([4.4])), ()))
    assert choose(1, 2, moved) == ["c0", "c1"]
    _, _, choose = choosing(3)
    chosen = [choose(round_num, 2, state) for round_num in range(200)]
    assert all(sorted(pair, reverse=True) == pair for pair in chosen)
    assert {name for pair in chosen for name in pair} == {f"c{y}" for y in range(6)} - {"c0"}
    assert choose(7, 2, state) == chosen[7]
    with pytest.raises(ValueError, match="'size' must be at most num_candidates, 3. Got 4"):
        choose(1, 4, state)


def test_a_selection_that_sees_the_state_is_resumed_to_the_bit(folder):
    """A selection function with a second parameter is given the state."""
    data, process, choose = choosing(4)

    def select(round_num, state):
        return [data.create_dataset_for_client(c).batch(4) for c in choose(round_num, 2, state)]

    def run(rounds, manager=None):
        return fed.program.run_training_process(
            process, select, rounds, program_state_manager=manager, metrics_managers=[]
        )

    whole = run(6)
    manager = fed.program.FileProgramStateManager(folder / "states")
    run(3, manager)
    for a, b in zip(run(6, manager).global_model_weights.trainable, whole.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_parameter_with_a_default_is_not_for_the_state():
    data, process, _ = choosing(4)
    cohort = [data.create_dataset_for_client("c1").batch(4)]
    seen = []

    def select(round_num, rest="mine"):
        seen.append(rest)
        return cohort

    fed.program.run_training_process(process, select, 1, metrics_managers=[])
    assert seen == ["mine"]


def test_samplers_name_wrong_arguments():
    with pytest.raises(ValueError, match="'num_candidates' must be at most the number of clients, 6"):
        choosing(7)
    with pytest.raises(ValueError, match="'client_data' must be clients with examples"):
        build_size_weighted_sampling_fn(sized({"a": 0}))
    with pytest.raises(TypeError, match="'client_data' must be a ClientData"):
        build_size_weighted_sampling_fn(["a"])
