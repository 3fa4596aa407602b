"""Dataset.cache: what stands before it is read once, whoever reads it how often."""

import copy
import itertools
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_select import ORDER, SAME, agrees, assert_same_elements, drawn, in_memory, transformed

import fedsim_np as fed
from fedsim_np.datasets import ArraySpec, Dataset, HDF5ClientData, InMemoryClientData, SyntheticClientData, write_hdf5
from fedsim_np.datasets.sources import ElementSource
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import read_columns


class Counted:
    """A map that doubles x and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, element):
        self.calls += 1
        time.sleep(0.001)
        return {"x": element["x"] + element["x"]}


def doubled(element):
    return {"x": element["x"] + element["x"]}


def numbers(n=5, client_id="ann"):
    return Dataset.from_arrays({"x": np.arange(n, dtype=np.float32)}, client_id)


def values(elements):
    return [element["x"].tolist() for element in elements]


@settings(max_examples=200)
@given(
    build=st.sampled_from([in_memory, drawn]),
    n=st.integers(0, 9),
    before=st.lists(st.one_of(ORDER, st.just(SAME)), max_size=4),
    after=st.lists(st.one_of(ORDER, st.just(SAME)), max_size=3),
    size=st.integers(1, 5),
    place=st.sampled_from(["before", "after", "never"]),
)
def test_it_is_a_stream_of_the_same_elements(build, n, before, after, size, place):
    before = [*before, *[("batch", size)] * (place == "before")]
    after = [*[("batch", size)] * (place == "after"), *after]
    upstream = transformed(build(n), before)
    cached = transformed(upstream.cache(), after)
    stream = ElementSource(upstream.batches, upstream.element_spec, upstream.is_batched)
    reference = transformed(Dataset(stream, (), upstream.client_id), after)
    assert cached.client_id == upstream.client_id
    assert cached.is_batched == reference.is_batched
    assert cached.element_spec == reference.element_spec
    assert cached.num_examples == reference.num_examples
    for iteration in range(3):
        elements = list(reference)
        assert_same_elements(cached, elements)
        assert_same_elements(cached.batches(iteration), elements)
        assert_same_elements(cached.skip_iterations(iteration).batches(), elements)
        assert all(agrees(cached.element_spec[name], e[name]) for e in elements for name in e)
    assert not cached.is_stream


@pytest.mark.parametrize("batched", [False, True])
def test_a_map_before_is_called_once_per_element(batched):
    mapped = Counted()
    upstream = numbers().batch(2) if batched else numbers()
    cached = upstream.shuffle(5, seed=1).map(mapped).cache()
    assert mapped.calls == 0
    for dataset in (cached, cached.take(2), cached.repeat(3), cached.shuffle(3, seed=1), cached.skip_iterations(2)):
        for _ in range(3):
            list(dataset)
        list(dataset.batches(4))
        dataset.to_arrays()
        assert dataset.num_examples
    assert mapped.calls == (3 if batched else 5)


def test_numbers_and_specs_are_known_without_reading():
    mapped = Counted()
    once = numbers().repeat(3).take(7).map(mapped).cache()
    assert once.num_examples == 7
    assert once.batch(2).row_batches().make_order().tolist() == [*range(7)]
    assert mapped.calls == 0
    assert once.element_spec == {"x": ArraySpec((), np.float32)}
    assert mapped.calls == 2  # on zeros, as without cache
    assert once.batch(2).element_spec == {"x": ArraySpec((None,), np.float32)}
    assert mapped.calls == 2


def test_a_map_that_refuses_zeros_is_shown_the_data():
    def refusing(element):
        if not np.all(element["x"]):
            raise ZeroDivisionError
        return {"y": 1 / element["x"]}

    ones = Dataset.from_arrays({"x": np.ones(3)}, "ann")
    assert ones.map(refusing).cache().element_spec == {"y": ArraySpec((), np.float64)}
    assert ones.batch(2).map(refusing).cache().element_spec == {"y": ArraySpec((None,), np.float64)}
    assert ones.map(refusing).cache().select(x="y").element_spec == {"x": ArraySpec((1,), np.float64)}
    with pytest.raises(ZeroDivisionError):
        list(numbers().map(refusing).cache())


def test_the_order_before_is_frozen_and_that_after_is_not():
    upstream = numbers().shuffle(3, seed=4)
    list(upstream)
    cached = upstream.cache()
    first = values(cached)
    assert first == values(numbers().shuffle(3, seed=4))
    assert values(cached) == values(cached.batches(3)) == first
    assert values(upstream) == values(numbers().shuffle(3, seed=4).batches(1))  # its iterations are not used up
    after, plain = (d.shuffle(3, seed=4) for d in (numbers().cache(), numbers()))
    assert [values(after) for _ in range(3)] == [values(plain) for _ in range(3)]


def test_rows_stay_rows():
    arrays = {"x": np.random.RandomState(0).randn(7, 4).astype(np.float32), "y": np.zeros((7, 1), np.int32)}
    cached = Dataset.from_arrays(arrays).map(lambda e: {"x": 2 * e["x"], "y": e["y"]}).cache()
    parts = cached.repeat(2).shuffle(9, seed=1).batch(3).row_batches()
    assert parts.maps == ()
    assert parts.source.columns()["x"] is cached.batch(2).row_batches().source.columns()["x"]
    assert parts.source.columns()["x"].tobytes() == (2 * arrays["x"]).tobytes()
    model = fed.learning.models.SoftmaxRegression(4, 3)
    client = read_columns(model, cached.batch(2), Cache(10**6))
    assert np.shares_memory(client.x, parts.source.columns()["x"])
    assert Dataset.from_arrays(arrays).cache().to_arrays()["x"].base is not None  # a view: nothing was copied
    assert np.shares_memory(Dataset.from_arrays(arrays).cache().to_arrays()["x"], arrays["x"])


def test_selected_and_cached_in_any_order():
    expected = list(in_memory(6).shuffle(4, seed=1).batch(4).select(x="pixels", y="label", scale=0.5))
    fields = {"x": "pixels", "y": "label", "scale": 0.5}
    for dataset in (
        in_memory(6).cache().shuffle(4, seed=1).batch(4).select(**fields),
        in_memory(6).select(**fields).cache().shuffle(4, seed=1).batch(4),
        in_memory(6).map(dict).select(**fields).cache().shuffle(4, seed=1).batch(4),
    ):
        assert dataset.row_batches().maps == ()
        assert_same_elements(dataset, expected)
    assert_same_elements(in_memory(6).shuffle(4, seed=1).batch(4).cache().select(**fields), expected)
    with pytest.raises(fed.DataError, match=r"client 'ann', field 'pix': must be there. Got only \['label', 'pixels'"):
        in_memory(6).cache().select(x="pix")


@pytest.mark.parametrize("batched", [False, True])
def test_threads_read_it_once(batched):
    mapped = Counted()
    cached = (numbers(20).batch(2) if batched else numbers(20)).map(mapped).cache()
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda _: values(cached.batches()), range(16)))
    assert all(one == read[0] for one in read)
    assert mapped.calls == (10 if batched else 20)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("batched", [False, True])
def test_copies(duplicate, batched):
    cached = (numbers().batch(2) if batched else numbers()).map(doubled).cache()
    shuffled = cached.shuffle(3, seed=4)
    unread = pickle.dumps(shuffled)
    expected = [values(shuffled.batches(i)) for i in range(2)]
    assert pickle.dumps(shuffled) == unread
    copied = duplicate(shuffled)
    assert [values(copied) for _ in range(2)] == expected
    assert copied.element_spec == shuffled.element_spec
    for dataset in (cached, duplicate(cached)):
        assert not any(element["x"].flags.writeable for element in dataset)


def total(dataset):
    return sum(float(element["x"].sum()) for element in dataset)


def test_other_processes_read_it_anew():
    cached = numbers().map(doubled).cache()
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert executor.submit(total, cached).result() == total(cached) == 20


def test_streams_are_read_once():
    reads = itertools.count()

    def read():
        next(reads)
        return ({"x": np.float32(i)} for i in range(4))

    stream = Dataset(ElementSource(read, {"x": ArraySpec((), np.float32)}, batched=False))
    cached = stream.cache().shuffle(2, seed=1).batch(3).cache().repeat(2)
    assert next(reads) == 0
    assert cached.num_examples == 8
    assert sorted(itertools.chain(*values(cached))) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert stream.cache().batch(3).row_batches().maps == ()
    assert stream.cache().num_examples == 4
    assert next(reads) == 4


def test_all_clients_can_be_kept():
    data = InMemoryClientData({"a": {"x": [1, 2]}, "b": {"x": [3]}})
    cached = pickle.loads(pickle.dumps(data.create_dataset_from_all_clients(seed=1).cache()))
    assert sorted(values(cached.repeat(2))) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("batched", [False, True])
def test_a_map_that_uses_its_memory_again(batched):
    memory = np.zeros(5, np.float32)

    def reusing(element):
        made = memory[: np.size(element["x"])] if batched else memory[:1]
        made[:] = element["x"]
        return {"x": made}

    mapped = (numbers().batch(2) if batched else numbers()).map(reusing)
    expected = [element["x"].tolist() for element in mapped]
    assert values(mapped.cache()) == expected


@pytest.mark.parametrize("dataset", [numbers(0), numbers(0).batch(2), numbers(3).take(0), Dataset.from_batches([])])
def test_clients_without_rows(dataset):
    cached = dataset.cache()
    assert list(cached.repeat(2)) == []
    assert cached.num_examples == 0
    assert list(cached.repeat().take(3)) == []
    assert cached.element_spec == dataset.element_spec
    assert cached.to_arrays().keys() == dataset.to_arrays().keys()


def test_files_and_drawings_can_be_loaded_ahead(folder):
    path = folder / "one.h5"
    write_hdf5(path, InMemoryClientData({"ann": {"x": np.random.RandomState(0).randn(300, 40)}}))
    with HDF5ClientData(path) as data, ThreadPoolExecutor(2) as threads:
        client = data.create_dataset_for_client("ann")
        writers = SyntheticClientData(1)
        for dataset in (client, writers.create_dataset_for_client(writers.client_ids[0])):
            cached = dataset.take(4).cache()
            cached.batch(3).row_batches().source.load_ahead(threads.submit)
            assert_same_elements(cached, dataset.take(4))
            cached.batch(3).row_batches().source.load_ahead(lambda read: pytest.fail("read again"))


def test_what_is_refused():
    with pytest.raises(ValueError, match="client 'ann' repeats for ever: use take"):
        numbers().repeat().cache()
    assert values(numbers(2).repeat().take(3).cache()) == [0, 1, 0]
    for dataset in (numbers(2), numbers(2).batch(2)):
        masked = dataset.map(lambda e: {"x": np.ma.masked_array([1, 2], [0, 1])})
        with pytest.raises(fed.DataError, match="client 'ann', field 'x': values must be there, none of them masked"):
            list(masked.cache())
    cached = numbers().map(doubled).cache()
    with pytest.raises(ValueError, match="read-only"):
        cached.to_arrays()["x"][0] = 9


def test_what_failed_is_tried_again():
    failures = [True]

    def failing(element):
        if failures and failures.pop():
            raise OSError
        return element

    cached = numbers(2).map(failing).cache()
    with pytest.raises(OSError):  # noqa: PT011
        list(cached)
    assert values(cached) == [0, 1]
