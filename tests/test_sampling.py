"""Cohorts by round: TFF's choices, and evenly, whatever came before."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.program import build_sparse_sampling_fn, build_uniform_sampling_fn

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
