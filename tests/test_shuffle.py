"""tf.data's orders: against TensorFlow's, and what holds for any shuffle."""

import itertools
import json

import numpy as np
import pytest
from conftest import GOLDENS
from hypothesis import given
from hypothesis import strategies as st

from fedsim_np.datasets import Dataset
from fedsim_np.datasets.shuffle import fixed_key, iteration_key, random_words, shuffled, shuffled_array

STORED = json.loads((GOLDENS / "tf_data_orders.json").read_text(encoding="utf-8"))
CASES = STORED["cases"]


def build(n, *transformations):
    dataset = Dataset.from_arrays({"i": np.arange(n)})
    for name, *arguments in transformations:
        dataset = getattr(dataset, name)(*arguments)
    return dataset


def values(elements):
    return [element["i"].tolist() for element in elements]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["pipeline"]))
def test_iteration_is_tensorflows(case):
    dataset = build(*case["pipeline"])
    assert [values(dataset) for _ in range(3)] == case["iterations"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["pipeline"]))
def test_batches_are_tensorflows_in_any_order_of_asking(case):
    dataset = build(*case["pipeline"])
    for iteration in (2, 0, 1, 0):
        assert values(dataset.batches(iteration)) == case["iterations"][iteration]


@pytest.mark.parametrize("use", STORED["uses"], ids=lambda use: json.dumps(use["pipeline"]))
def test_what_comes_after_iterators_that_were_opened_or_read_in_part_is_tensorflows(use):
    dataset = build(*use["pipeline"])
    read = [values(itertools.islice(iter(dataset), None if count == -1 else count)) for count in use["counts"]]
    assert read == use["read"]


def test_stored_orders_of_the_tutorial(shared):
    stored = json.loads((shared / "goldens" / "shuffle_orders.json").read_text(encoding="utf-8"))
    checked = 0
    for name, case in stored.items():
        if not isinstance(case, dict):
            continue
        _, size, _, seed, *flags = name.split("_")
        for number, iteration in enumerate(("first_iteration", "second_iteration")):
            for n, order in case[iteration].items():
                dataset = build(int(n), ["repeat", case["epochs"]], ["shuffle", int(size), int(seed), not flags])
                assert values(dataset.batches(number)) == order
                checked += 1
    assert checked == 50


def test_datasets_of_one_shuffle_share_its_iterations():
    # The figures are TensorFlow 2.14's, printed by the same four reads.
    shuffled_once = build(5, ["shuffle", 3, 4])
    batched, mapped = shuffled_once.batch(2), shuffled_once.map(lambda element: element)
    assert values(batched) == [[1, 0], [4, 3], [2]]
    assert values(mapped) == [1, 0, 4, 2, 3]
    assert values(batched) == [[0, 2], [4, 1], [3]]
    assert values(shuffled_once) == [2, 0, 3, 4, 1]


def test_starting_an_iterator_uses_an_order_up_read_or_not():
    dataset = build(5, ["shuffle", 3, 4])
    started = iter(dataset)
    assert values(dataset) == [1, 0, 4, 2, 3]
    assert values(started) == [1, 0, 4, 3, 2]


def test_batches_neither_read_nor_move_the_counter():
    dataset = build(5, ["shuffle", 3, 4])
    iter(dataset)
    assert values(dataset.batches()) == [1, 0, 4, 3, 2]
    assert values(dataset) == [1, 0, 4, 2, 3]


@given(n=st.integers(0, 60), size=st.integers(1, 70), seed=st.integers(-(2**70), 2**70), iteration=st.integers(0, 9))
def test_a_shuffle_reads_everything_once_and_no_further_ahead_than_its_buffer(n, size, seed, iteration):
    order = list(shuffled(lambda: iter(range(n)), size, iter([iteration_key(seed, iteration)])))
    assert sorted(order) == list(range(n))
    assert all(element < position + size for position, element in enumerate(order))


@given(seed=st.integers(0, 2**31), iteration=st.integers(0, 2**40))
def test_words_are_a_function_of_key_and_position(seed, iteration):
    key = iteration_key(seed, iteration)
    words = random_words(key, 64).tolist()
    assert words[40:] == random_words(key, 24, start=10).tolist()
    assert all(0 <= word < 2**32 for word in words)
    assert iteration_key(seed + 2**31 - 1, iteration) == key


def test_an_iterations_key_is_its_two_words_of_the_seed_generators_stream():
    words = random_words(fixed_key(7), 20).tolist()
    assert [iteration_key(7, i) for i in range(10)] == list(zip(words[::2], words[1::2], strict=True))


@given(n=st.integers(0, 300), buffer_size=st.integers(1, 320), seed=st.integers(0, 99))
def test_a_whole_array_is_shuffled_as_a_stream_is(n, buffer_size, seed):
    key = iteration_key(seed, seed % 3)
    streamed = shuffled(lambda: iter(range(n)), buffer_size, iter([key]))
    assert shuffled_array(np.arange(n), buffer_size, key).tolist() == list(streamed)
