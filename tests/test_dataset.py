"""Dataset: tf.data's semantics beyond the order, and what a Dataset must never do."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.datasets import ArraySpec, Dataset


def flatten(batch):
    return {"x": batch["pixels"].reshape(-1, 4), "y": batch["label"].reshape(-1, 1)}


def tutorial_like(n=7):
    arrays = {"pixels": np.arange(4 * n, dtype=np.float32).reshape(n, 2, 2), "label": np.arange(n, dtype=np.int32)}
    return Dataset.from_arrays(arrays, client_id="ann").repeat(2).shuffle(5, seed=1).batch(3).map(flatten).prefetch(1)


def test_rows_stay_together_through_the_pipeline():
    for batch in tutorial_like():
        assert (batch["x"][:, 0] == 4 * batch["y"][:, 0]).all()


def test_element_spec_without_reading():
    assert dict(tutorial_like().element_spec) == {
        "x": ArraySpec((None, 4), np.float32),
        "y": ArraySpec((None, 1), np.int32),
    }
    dropped = Dataset.from_arrays({"x": np.zeros((5, 2))}).batch(3, drop_remainder=True)
    assert dropped.element_spec["x"] == ArraySpec((3, 2), np.float64)
    assert Dataset.from_arrays({"x": np.zeros((5, 2))}).batch(3).batch(2).element_spec["x"].shape == (None, None, 2)


def test_the_text_names_client_and_structure_even_if_a_map_refuses_zeros():
    assert "client_id='ann'" in repr(tutorial_like())
    assert "ArraySpec(shape=(None, 4), dtype=float32)" in repr(tutorial_like())
    refusing = Dataset.from_arrays({"x": np.ones(3)}).map(lambda element: {"y": 1 // int(element["x"])})
    assert "ZeroDivisionError" in repr(refusing)


def test_client_id_travels():
    assert tutorial_like().take(2).skip_iterations(1).client_id == "ann"


def test_columns_are_read_only_and_not_copied():
    array = np.arange(3)
    dataset = Dataset.from_arrays({"x": array})
    assert np.shares_memory(dataset.to_arrays()["x"], array)
    with pytest.raises(ValueError, match="read-only"):
        dataset.to_arrays()["x"][0] = 9
    assert array.flags.writeable


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_start_anew_and_leave_the_counter_alone(duplicate):
    dataset = Dataset.from_arrays({"x": np.arange(5)}, "ann").shuffle(3, seed=4).batch(5)
    iter(dataset)
    copied = duplicate(dataset)
    assert copied.client_id == "ann"
    assert next(iter(copied))["x"].tolist() == [1, 0, 4, 3, 2]
    assert next(iter(dataset))["x"].tolist() == [1, 0, 4, 2, 3]


def test_num_examples_and_arrays():
    dataset = tutorial_like(7)
    assert dataset.num_examples == 14
    assert dataset.to_arrays()["x"].shape == (14, 4)
    assert dataset.take(2).num_examples == 6
    empty = tutorial_like(0)
    assert empty.num_examples == 0
    assert empty.to_arrays()["x"].shape == (0, 4)
    assert Dataset.from_arrays({"x": np.arange(3)}).take(2).to_arrays()["x"].tolist() == [0, 1]


def test_own_examples_are_counted_once():
    for dataset in (tutorial_like(7), tutorial_like(7).take(1), Dataset.from_arrays({"x": np.zeros(7)}).repeat()):
        assert dataset.num_own_examples == 7
    for dataset in (
        Dataset.from_arrays({"x": np.zeros(9)}).take(7),
        Dataset.from_arrays({"x": np.zeros(9)}).batch(7).take(1),
    ):
        assert dataset.repeat(2).num_own_examples == dataset.num_own_examples == 7
    assert Dataset.from_batches([{"x": np.zeros(n)} for n in (3, 1, 4)]).take(2).repeat(2).num_own_examples == 4
    assert tutorial_like(0).num_own_examples == 0
    assert tutorial_like(7).select(z="x").num_own_examples == 7
    assert Dataset.from_batches([{"x": np.zeros(n)} for n in (3, 1)]).repeat(2).take(1).num_own_examples == 4
    data = fed.datasets.InMemoryClientData({"ann": {"x": [1, 2]}, "bob": {"x": [3]}})
    for pooled in (data, data.preprocess(lambda dataset: dataset.batch(2))):
        assert pooled.create_dataset_from_all_clients(seed=1).repeat(3).num_own_examples == 3
    cached = Dataset.from_arrays({"x": np.zeros(7)}).take(5)
    assert cached.cache().repeat(2).num_own_examples == cached.batch(2).cache().repeat(2).num_own_examples == 5


def test_infinite_datasets_say_so():
    endless = Dataset.from_arrays({"x": np.arange(3)}, "ann").repeat().batch(2)
    assert endless.is_infinite
    assert not endless.take(2).is_infinite
    assert not endless.repeat(0).is_infinite
    assert [b["x"].tolist() for b in endless.take(2).batches(3)] == [[0, 1], [2, 0]]
    for ask in (lambda: endless.num_examples, endless.to_arrays, lambda: next(endless.batches(1))):
        with pytest.raises(ValueError, match="client 'ann' repeats for ever"):
            ask()


def test_ready_batches():
    batches = [{"x": np.zeros((3, 2)), "y": [0, 1, 2]}, {"x": np.ones((1, 2)), "y": [3]}]
    dataset = Dataset.from_batches(batches, "bob")
    assert dataset.num_examples == 4
    assert dataset.to_arrays()["y"].tolist() == [0, 1, 2, 3]
    assert dataset.element_spec["y"] == ArraySpec((None,), np.int32)  # a list's integers are TensorFlow's
    assert [len(b["x"]) for b in pickle.loads(pickle.dumps(dataset)).repeat(2)] == [3, 1, 3, 1]
    assert Dataset.from_batches([]).num_examples == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset.from_arrays({}, "ann"), "client 'ann': must have at least one field"),
        (lambda: Dataset.from_arrays({"x": 3}, "ann"), "field 'x': must have an examples axis"),
        (lambda: Dataset.from_arrays({"x": [1], "y": [1, 2]}, "ann"), "client 'ann': all fields must have the same"),
        (lambda: Dataset.from_batches([np.zeros(3)], "ann"), "client 'ann': a batch must be a mapping"),
        (lambda: Dataset.from_batches([{}]), "a batch must be a mapping"),
        (lambda: Dataset.from_batches([{"x": 3}]), "field 'x': a batch's arrays must have an examples axis"),
        (lambda: Dataset.from_batches([{"x": [1]}, {"y": [1]}]), r"every batch must have the fields \['x'\]"),
    ],
)
def test_bad_data(make, message):
    with pytest.raises(fed.DataError, match=message):
        make()


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda d: d.batch(0), ValueError, "'batch_size' must be an integer >= 1. Got 0."),
        (lambda d: d.batch(2.0), ValueError, "Got 2.0"),
        (lambda d: d.batch(True), ValueError, "Got True"),
        (lambda d: d.shuffle(0, seed=1), ValueError, "'buffer_size' must be an integer >= 1"),
        (lambda d: d.shuffle(10), ValueError, "'seed' must be an integer, so that"),
        (lambda d: d.shuffle(10, seed="a"), ValueError, "'seed' must be an integer. Got 'a'"),
        (lambda d: d.repeat(-2), ValueError, "'count' must be an integer >= -1"),
        (lambda d: d.take(None), ValueError, "'count' must"),
        (lambda d: d.prefetch("a"), ValueError, "'buffer_size' must"),
        (lambda d: d.map(3), TypeError, "'fn' must be a callable"),
        (lambda d: list(d.map(lambda e: 3)), TypeError, "a callable that returns a mapping"),
        (lambda d: d.batches(-1), ValueError, "'iteration' must be an integer >= 0"),
    ],
)
def test_wrong_arguments(use, error, message):
    with pytest.raises(error, match=message):
        use(Dataset.from_arrays({"x": [1, 2]}))


STAGES = st.one_of(
    st.tuples(st.just("repeat"), st.integers(0, 2)),
    st.tuples(st.just("take"), st.integers(-1, 20)),
    st.tuples(st.just("shuffle"), st.integers(1, 12), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("map"), st.just(lambda element: {"i": element["i"]})),
)


@example(n=3, before=[], size=2, after=[("shuffle", 2, 0, True), ("take", 1)])
@given(
    n=st.integers(0, 9), before=st.lists(STAGES, max_size=4), size=st.integers(1, 5), after=st.lists(STAGES, max_size=3)
)
def test_kept_orders_fresh_ones_and_counted_ones_agree(n, before, size, after):
    def build():
        dataset = Dataset.from_arrays({"i": np.arange(n)})
        for name, *arguments in [*before, ("batch", size), *after]:
            dataset = getattr(dataset, name)(*arguments)
        return dataset

    advancing, asked = build(), build()
    for iteration in range(3):
        read = [e["i"].tolist() for e in advancing]
        assert [e["i"].tolist() for e in asked.batches(iteration)] == read
        assert [e["i"].tolist() for e in build().skip_iterations(iteration).batches()] == read
        assert build().skip_iterations(iteration).num_examples == sum(map(len, read))
        later = build().skip_iterations(iteration)
        assert [e["i"].tolist() for e in later] == read
        assert [e["i"].tolist() for e in later] == [e["i"].tolist() for e in build().batches(iteration + 1)]
        assert [e["i"].tolist() for e in build().skip_iterations(1).skip_iterations(iteration).batches()] == [
            e["i"].tolist() for e in build().batches(iteration + 1)
        ]


def test_a_copy_that_begins_later_has_counters_of_its_own():
    dataset = Dataset.from_arrays({"x": np.arange(5)}).shuffle(3, seed=4).batch(5)
    copied = dataset.skip_iterations(1)
    assert [next(iter(copied))["x"].tolist() for _ in range(2)] == [[1, 0, 4, 2, 3], [0, 2, 4, 1, 3]]
    assert next(pickle.loads(pickle.dumps(copied)).batches())["x"].tolist() == [1, 0, 4, 2, 3]
    assert next(copied.take(1).batches())["x"].tolist() == [1, 0, 4, 2, 3]
    assert next(iter(dataset))["x"].tolist() == [1, 0, 4, 3, 2]


def test_lists_are_what_tensorflow_makes_of_them():
    made = Dataset.from_arrays({"i": [1, 2], "f": [0.5, 1.5], "big": [2**40, 1], "a": np.array([1, 2], np.int16)})
    assert [spec.dtype.name for spec in made.element_spec.values()] == ["int32", "float32", "int64", "int16"]


def test_foreign_byte_order_is_turned():
    made = Dataset.from_arrays({"x": np.array([1, 2], ">i4")})
    assert made.element_spec["x"] == ArraySpec((), np.int32)
    assert [int(e["x"]) for e in made] == [1, 2]


def test_what_is_unpickled_is_read_only():
    columns, batches = Dataset.from_arrays({"x": np.arange(3)}), Dataset.from_batches([{"x": np.arange(3)}])
    assert not pickle.loads(pickle.dumps(columns)).to_arrays()["x"].flags.writeable
    assert not next(pickle.loads(pickle.dumps(batches)).batches())["x"].flags.writeable


def test_skipped_iterations_may_be_any_integer():
    dataset = Dataset.from_arrays({"x": np.arange(5)}).shuffle(3, seed=4).repeat(2).batch(5)
    expected = dataset.skip_iterations(200).to_arrays()["x"].tolist()
    assert dataset.skip_iterations(np.uint8(200)).to_arrays()["x"].tolist() == expected
    with pytest.raises(ValueError, match="repeats for ever"):
        dataset.repeat().skip_iterations(1)


def test_reading_a_copy_does_not_change_its_pickle():
    copied = Dataset.from_arrays({"x": np.arange(5)}).shuffle(3, seed=4).batch(5).skip_iterations(3)
    before = pickle.dumps(copied)
    list(copied.batches())
    assert pickle.dumps(copied) == before
