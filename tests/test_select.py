"""Dataset.select: a map that only chooses, renames and flattens, done to the columns where that is the same."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.datasets import ArraySpec, Dataset, HDF5ClientData, InMemoryClientData, SyntheticClientData, write_hdf5
from fedsim_np.datasets.selection import SelectedSource, Selection
from fedsim_np.datasets.sources import ArraySource, ElementSource
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import read_columns

TUTORIAL = {"x": "pixels", "y": "label"}


def arrays_of(n):
    rng = np.random.RandomState(n)
    return {
        "label": rng.randint(0, 10, n).astype(np.int32),
        "pixels": rng.randint(0, 256, (n, 2, 3)).astype(np.uint8),
        "turned": rng.randn(3, 2, n).astype(np.float32).T,  # not in C order
        "weight": rng.randn(n, 4),
    }


def in_memory(n):
    return Dataset.from_arrays(arrays_of(n), "ann")


@pytest.fixture(scope="module")
def from_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("select") / "clients.h5"
    write_hdf5(path, InMemoryClientData({str(n): arrays_of(n) for n in range(10)}))
    with HDF5ClientData(path) as data:
        yield lambda n: data.create_dataset_for_client(str(n))


def drawn(n):
    data = SyntheticClientData(10, "test", seed=n)
    return data.create_dataset_for_client(data.client_ids[n])


@pytest.fixture(scope="module")
def sources(from_file):
    return {"memory": in_memory, "file": from_file, "drawn": drawn}


def by_map(fields, scale, offset, batched):
    """Return what `select` stands for as a function for `map`."""

    def fn(element):
        made = {}
        for new, old in fields.items():
            rows = np.asarray(element[old])
            made[new] = rows.reshape(len(rows), -1) if batched else rows.reshape(-1)
            if new == "x" and scale is not None:
                made[new] = np.float32(made[new]) * np.float32(scale)
            if new == "x" and offset is not None:
                made[new] = np.float32(made[new]) + np.float32(offset)
        return made

    return fn


def in_threes(dataset):
    return dataset.batch(3)


def transformed(dataset, stages):
    for name, *arguments in stages:
        dataset = getattr(dataset, name)(*arguments)
    return dataset


def assert_same_elements(read, expected):
    read, expected = list(read), list(expected)
    assert len(read) == len(expected)
    for mine, theirs in zip(read, expected, strict=True):
        assert list(mine) == list(theirs)
        for name, array in theirs.items():
            assert (mine[name].shape, mine[name].dtype) == (array.shape, array.dtype)
            assert mine[name].tobytes() == array.tobytes()


def agrees(spec, array):
    fits = [wanted in (None, length) for wanted, length in zip(spec.shape, array.shape, strict=True)]
    return spec.dtype == array.dtype and all(fits)


ORDER = st.one_of(
    st.tuples(st.just("repeat"), st.integers(0, 2)),
    st.tuples(st.just("take"), st.integers(-1, 12)),
    st.tuples(st.just("shuffle"), st.integers(1, 12), st.integers(0, 9), st.booleans()),
)
SAME = ("map", dict)
NUMBERS = st.one_of(st.none(), st.sampled_from([1 / 255, -1, 0.1, 3]), st.floats(-10, 10, width=32))


@settings(max_examples=300)
@given(
    kind=st.sampled_from(["memory", "memory", "file", "drawn"]),
    n=st.integers(0, 9),
    before=st.lists(ORDER, max_size=3),
    after=st.lists(ORDER, max_size=3),
    size=st.integers(1, 5),
    place=st.sampled_from(["before", "after", "never"]),
    mapped=st.booleans(),
    chosen=st.permutations(["pixels", "label", "turned", "weight", "pixels"]),
    names=st.lists(st.sampled_from(["x", "y", "z", "label"]), min_size=1, unique=True),
    scale=NUMBERS,
    offset=NUMBERS,
)
def test_it_is_the_map_that_it_stands_for(
    sources, kind, n, before, after, size, place, mapped, chosen, names, scale, offset
):
    batched = place == "before"
    before = [*before, *[("batch", size)] * batched, *[SAME] * mapped]
    after = [*after, *[("batch", size)] * (place == "after")]
    fields = dict(zip(names, chosen, strict=False))
    if kind == "drawn":
        fields = {new: old if old == "label" else "pixels" for new, old in fields.items()}
    if "x" not in fields:
        scale = offset = None
    build = sources[kind]
    selected = transformed(transformed(build(n), before).select(scale=scale, offset=offset, **fields), after)
    reference = transformed(transformed(build(n), before).map(by_map(fields, scale, offset, batched)), after)
    assert selected.client_id == build(n).client_id
    assert selected.is_batched == reference.is_batched
    assert selected.num_examples == reference.num_examples
    unread = selected.element_spec
    for iteration in range(3):
        elements = list(reference)
        assert_same_elements(selected, elements)
        assert_same_elements(selected.batches(iteration), elements)
        for element in selected.batches(iteration):
            assert list(unread) == list(element)
            assert all(agrees(unread[name], array) for name, array in element.items())
    assert selected.element_spec == unread
    if not mapped:
        parts, plain = selected.row_batches(), transformed(build(n), [*before, *after]).row_batches()
        assert selected.maps == ()
        assert (parts is None) == (plain is None)
        if parts is not None:
            assert parts.maps == ()
            columns, order = parts.source.columns(), parts.make_order()
            for name, array in selected.to_arrays().items():
                assert columns[name][order].tobytes() == array.tobytes()


def test_a_repeat_after_it_starts_a_shuffle_before_it_as_often_as_after_a_map():
    def reads(choose):
        shuffled = Dataset.from_arrays({"i": np.arange(6)}).select(i="i").shuffle(6, seed=1)
        chosen = choose(shuffled)
        copies = [chosen, chosen.with_client_id("ann"), pickle.loads(pickle.dumps(chosen)), chosen.skip_iterations(1)]
        return [[values(d.repeat(2)) for _ in range(3)] for d in copies]

    def values(elements):
        return [element["i"].tolist() for element in elements]

    mapped = reads(lambda d: d.map(dict))
    assert reads(lambda d: d.select(i="i")) == mapped
    assert reads(lambda d: d.select(i="i").select(i="i")) == mapped
    assert reads(lambda d: d) != mapped


def test_engines_get_columns_as_they_are(from_file):
    for build in (in_memory, from_file):
        dataset = build(7).repeat(2).shuffle(9, seed=1).batch(3)
        parts = dataset.select(**TUTORIAL).row_batches()
        assert parts.maps == ()
        columns = parts.source.columns()
        assert columns["x"].shape == (7, 6)
        assert columns["y"].shape == (7, 1)


def test_views_where_that_can_be_one_new_array_where_not_and_read_only():
    arrays = arrays_of(5)
    dataset = Dataset.from_arrays(arrays).batch(2)
    columns = dataset.select(x="pixels", y="label", t="turned", w="weight").row_batches().source.columns()
    for new, old in {"x": "pixels", "y": "label", "w": "weight"}.items():
        assert np.shares_memory(columns[new], arrays[old])
    scaled = dataset.select(x="pixels", scale=1 / 255).row_batches().source
    assert scaled.columns()["x"] is scaled.columns()["x"]
    assert scaled.columns()["x"].dtype == np.float32
    for array in (*columns.values(), scaled.columns()["x"]):
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert arrays["pixels"].flags.writeable


def test_a_client_is_read_without_a_copy():
    arrays = {"pixels": np.zeros((5, 2, 2), np.float32), "label": np.zeros(5, np.int32)}
    model = fed.learning.models.SoftmaxRegression(4, 3)
    client = read_columns(model, Dataset.from_arrays(arrays).batch(2).select(**TUTORIAL), Cache(10**6))
    assert np.shares_memory(client.x, arrays["pixels"])


@pytest.mark.parametrize(("engine", "scale"), [("loop", 1 / 255), ("cohort", 1 / 255), ("gram", None)])
def test_engines_compute_what_they_compute_of_the_map(engine, scale):
    cohort = [in_memory(n).shuffle(9, seed=1).batch(3) for n in (7, 4)]
    fields = {"x": "pixels" if scale else "turned", "y": "label"}
    learned = []
    for datasets in (
        [dataset.select(scale=scale, **fields) for dataset in cohort],
        [dataset.map(by_map(fields, scale, None, True)) for dataset in cohort],
    ):
        process = fed.learning.build_unweighted_fed_avg(
            lambda: fed.learning.models.SoftmaxRegression(6, 10),
            fed.learning.optimizers.build_sgdm(0.1),
            engine=engine,
        )
        learned.append(process.next(process.initialize(), datasets).state.global_model_weights.trainable)
    for mine, theirs in zip(*learned, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_the_spec_is_known_without_a_call(monkeypatch):
    dataset = in_memory(5).batch(2).select(x="pixels", y="label", w="weight", scale=2)
    monkeypatch.setattr(Selection, "__call__", lambda self, element: pytest.fail("called"))
    assert dict(dataset.element_spec) == {
        "x": ArraySpec((None, 6), np.float32),
        "y": ArraySpec((None, 1), np.int32),
        "w": ArraySpec((None, 4), np.float64),
    }
    assert dataset.num_examples == 5


def test_lengths_that_vary_are_none_when_they_are_flattened():
    assert Selection.of({"z": "words"}).spec({"words": ArraySpec((None, 3), np.int32)})["z"].shape == (None,)
    spec = {"words": ArraySpec((None, 3), np.int32)}
    ragged = Dataset(ElementSource(lambda: ({"words": np.ones((n, 3), np.int32)} for n in (2, 4)), spec, batched=False))
    selected = ragged.select(z="words")
    assert selected.element_spec["z"] == ArraySpec((None,), np.int32)
    assert [element["z"].shape for element in selected] == [(6,), (12,)]


def test_rows_without_values_and_clients_without_rows():
    hollow = Dataset.from_arrays({"x": np.zeros((3, 0, 2))}).batch(2).select(x="x", scale=2)
    assert [batch["x"].shape for batch in hollow] == [(2, 0), (1, 0)]
    empty = in_memory(0).batch(2).select(**TUTORIAL)
    assert {name: array.shape for name, array in empty.to_arrays().items()} == {"x": (0, 6), "y": (0, 1)}
    assert empty.row_batches().source.columns()["x"].shape == (0, 6)


def test_ready_batches_and_streams():
    batches = [{"pixels": np.ones((b, 2, 2)), "label": np.zeros(b)} for b in (3, 1)]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in TUTORIAL.values()}
    batched = InMemoryClientData({"bob": joined}).preprocess(in_threes)
    for dataset in (Dataset.from_batches(batches, "bob"), batched.create_dataset_from_all_clients(seed=1)):
        selected = pickle.loads(pickle.dumps(dataset.select(**TUTORIAL)))
        assert [(e["x"].shape, e["y"].shape) for e in selected] == [((3, 4), (3, 1)), ((1, 4), (1, 1))]
        assert selected.element_spec["x"] == ArraySpec((None, 4), np.float64)
    examples = InMemoryClientData({"bob": arrays_of(2)}).create_dataset_from_all_clients(seed=1).select(**TUTORIAL)
    assert [e["x"].shape for e in examples] == [(6,), (6,)]
    assert examples.batch(2).element_spec["x"] == ArraySpec((None, 6), np.uint8)
    assert list(Dataset.from_batches([]).select(x="x")) == []


def test_a_batch_of_batches_has_batches_as_rows():
    twice = in_memory(8).batch(2).batch(2)
    assert_same_elements(twice.select(z="pixels"), twice.map(by_map({"z": "pixels"}, None, None, True)))
    assert next(iter(twice.select(z="pixels")))["z"].shape == (2, 12)


def test_a_second_one_composes():
    once = in_memory(6).select(x="pixels", y="label", scale=0.5)
    twice = once.batch(4).select(y="x", x="y", offset=1).select(x="y", scale=3)
    assert twice.row_batches().maps == ()
    expected = arrays_of(6)["pixels"].reshape(6, 6).astype(np.float32) * np.float32(0.5) * np.float32(3)
    assert twice.to_arrays()["x"].tobytes() == expected.tobytes()
    with pytest.raises(fed.DataError, match=r"client 'ann', field 'pixels': must be there. Got only \['x', 'y'\]"):
        once.select(x="pixels")


def test_zero_keeps_its_sign_where_nothing_is_added():
    zeros = Dataset.from_arrays({"x": np.float32([0, -0.0])})
    assert np.signbit(zeros.select(x="x", scale=1).to_arrays()["x"]).tolist() == [[False], [True]]
    assert not np.signbit(zeros.select(x="x", scale=1, offset=0).to_arrays()["x"]).any()


def test_shuffles_go_on_being_shared():
    def reads(choose):
        shuffled = Dataset.from_arrays({"i": np.arange(5)}).shuffle(3, seed=4)
        batched, chosen = shuffled.batch(5), choose(shuffled)
        return [next(iter(d))["x" if d is chosen else "i"].ravel().tolist() for d in (batched, chosen, batched, chosen)]

    assert reads(lambda d: d.batch(5).select(x="i")) == reads(lambda d: d.batch(5).map(lambda e: {"x": e["i"]}))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies(duplicate):
    dataset = in_memory(5).shuffle(3, seed=4).batch(2).select(x="pixels", y="label", scale=1 / 255)
    expected = list(dataset.batches())
    assert_same_elements(duplicate(dataset), expected)
    again = duplicate(dataset).row_batches().source.columns()
    assert not any(array.flags.writeable for array in again.values())


def test_pickles_are_the_data_and_the_choice():
    big = Dataset.from_arrays({"pixels": np.zeros((100, 784), np.uint8)}).select(x="pixels", scale=1 / 255)
    unread = pickle.dumps(big)
    big.to_arrays()
    assert pickle.dumps(big) == unread
    assert len(unread) < 100 * 784 + 2000
    mapped = Dataset.from_arrays({"pixels": np.zeros((3, 2))}).map(dict).select(x="pixels")
    assert pickle.loads(pickle.dumps(mapped)).maps[-1] == mapped.maps[-1]
    with pytest.raises(AttributeError, match="cannot assign"):
        mapped.maps[-1].scale = 2.0


def test_loading_ahead_is_the_inner_sources(from_file):
    dataset = from_file(9).batch(4).select(x="pixels", y="label", scale=1 / 255)
    with ThreadPoolExecutor(2) as threads:
        dataset.row_batches().source.load_ahead(threads.submit)
        read = list(dataset.batches())
    assert_same_elements(read, from_file(9).batch(4).map(by_map(TUTORIAL, 1 / 255, None, True)))
    dataset.row_batches().source.load_ahead(lambda read: pytest.fail("read again"))


def test_threads_share_one_selection():
    source = SelectedSource(ArraySource.of(arrays_of(9)), Selection.of({"x": "weight"}, scale=2))
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda _: source.columns()["x"], range(64)))
    assert all(array is read[0] for array in read)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda d: d.select(), ValueError, "'fields' must be at least one keyword, such as x='pixels'. Got {}"),
        (lambda d: d.select(y=3), TypeError, "'y' must be the name of a field, a str. Got 3"),
        (lambda d: d.select(y=None), TypeError, "'y' must be the name of a field, a str. Got None"),
        (
            lambda d: d.select(y="label", scale=2),
            ValueError,
            r"'scale' must be left out where no field .* \['y'\]. Got 2",
        ),
        (lambda d: d.select(y="label", offset=2), ValueError, "'offset' must be left out where no field is called 'x'"),
        (lambda d: d.select(x="label", scale=float("nan")), ValueError, "'scale' must be a finite float. Got nan"),
        (lambda d: d.select(x="label", offset="1"), ValueError, "'offset' must be a finite float. Got '1'"),
        (lambda d: d.select(x="label", scale=1e39), ValueError, "'scale' must be a finite float32. Got 1e[+]39"),
        (lambda d: d.select(x="pix"), fed.DataError, r"client 'ann', field 'pix': must be there. Got only \['label', "),
        (lambda d: d.batch(2).select(x="pix"), fed.DataError, "client 'ann', field 'pix': must be there"),
        (lambda d: list(d.map(dict).select(x="pix")), fed.DataError, "client 'ann', field 'pix': must be there"),
        (
            lambda d: d.select(x="name", scale=2),
            fed.DataError,
            "field 'name': must hold numbers to be scaled. Got dtype <U1",
        ),
        (
            lambda d: list(d.map(dict).select(x="name", scale=2)),
            fed.DataError,
            "'ann', field 'name': must hold numbers",
        ),
        (
            lambda d: list(d.batch(2).map(lambda e: {"x": 3}).select(x="x")),
            fed.DataError,
            "client 'ann', field 'x': a batch's arrays must have an examples axis",
        ),
        (
            lambda d: list(d.map(lambda e: {"x": np.ma.masked_array([1, 2], [0, 1])}).select(x="x")),
            fed.DataError,
            "client 'ann', field 'x': values must be there, none of them masked",
        ),
    ],
)
def test_what_is_refused(use, error, message):
    with pytest.raises(error, match=message):
        use(Dataset.from_arrays({"label": [1, 2], "pixels": np.zeros((2, 2, 2)), "name": np.array(["a", "b"])}, "ann"))
    bad = Dataset.from_batches([{"x": np.zeros(2)}], "bob")
    with pytest.raises(fed.DataError, match=r"client 'bob', field 'pix': must be there. Got only \['x'\]"):
        bad.select(x="pix")


def test_any_field_may_be_chosen_and_any_name_given():
    dataset = Dataset.from_arrays({"self": np.zeros((2, 2)), "no name": np.ones(2)})
    assert list(dataset.select(self="self", **{"another one": "no name"}).to_arrays()) == ["self", "another one"]


def test_invert_is_one_minus_x_in_every_engine():
    writers = fed.datasets.SyntheticClientData(3, "test")
    plain = [writers.create_dataset_for_client(client_id).batch(20) for client_id in writers.client_ids]
    inverted = [dataset.select(**TUTORIAL, invert=True) for dataset in plain]
    for mine, dataset in zip(inverted, plain, strict=True):
        assert mine.maps == ()  # row by row: no engine has to look at it
        paper = dataset.select(**TUTORIAL).to_arrays()
        np.testing.assert_array_equal(mine.to_arrays()["x"], np.float32(1) - paper["x"])
        np.testing.assert_array_equal(
            mine.to_arrays()["x"], dataset.select(**TUTORIAL, scale=-1, offset=1).to_arrays()["x"]
        )
        assert pickle.loads(pickle.dumps(mine)).to_arrays()["x"].tobytes() == mine.to_arrays()["x"].tobytes()
    by_map = [d.map(lambda e: {"x": 1 - e["pixels"].reshape(-1, 784), "y": e["label"].reshape(-1, 1)}) for d in plain]
    for engine in ("loop", "cohort", "gram"):
        process = fed.learning.build_weighted_fed_avg(
            fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), engine=engine
        )
        mine, theirs = (process.next(process.initialize(), data).state for data in (inverted, by_map))
        for one, other in zip(mine.global_model_weights.trainable, theirs.global_model_weights.trainable, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-7)


def test_what_cannot_be_inverted():
    dataset = in_memory(4)
    with pytest.raises(ValueError, match="'invert' must be given alone: it is scale=-1, offset=1. Got {'scale': 2"):
        dataset.select(x="turned", scale=2, invert=True)
    with pytest.raises(ValueError, match="'invert' must be left out where no field is called 'x'"):
        dataset.select(y="turned", invert=True)
    with pytest.raises(TypeError, match="'invert' must be True or False. Got 1."):
        dataset.select(x="turned", invert=1)
    with pytest.raises(fed.DataError, match="field 'pixels': must hold floats from 0 to 1 to be inverted"):
        dataset.select(x="pixels", invert=True)  # bytes
    with pytest.raises(fed.DataError, match="field 'pixels': must hold floats from 0 to 1 to be inverted"):
        dataset.map(dict).select(x="pixels", invert=True).to_arrays()
