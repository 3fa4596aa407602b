"""One's own data as clients: every example once, the distributions that are promised, and what broken files get."""

import csv
import hashlib
import json
import os
import re
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np import tutorial
from fedsim_np.datasets import partition
from fedsim_np.datasets.partition import (
    assign_dirichlet,
    assign_iid,
    assign_quantity_skew,
    assign_shards,
    assign_similarity,
    from_arrays,
    from_csv,
    from_leaf_json,
    read_csv,
    split_examples,
)

SEEDS = st.integers(0, 2**70)


def table_of(assignment, labels, k):
    """Counts of labels, shape (k, c)."""
    counts = np.zeros((k, int(labels.max()) + 1), int)
    np.add.at(counts, (assignment, labels), 1)
    return counts


def assignments(labels, k, seed):
    """Every rule on the same examples."""
    n = len(labels)
    return {
        "iid": assign_iid(n, k, seed),
        "dirichlet": assign_dirichlet(labels, k, 0.3, seed),
        "shards": assign_shards(labels, k, 1, seed),
        "quantity": assign_quantity_skew(n, k, 0.5, seed),
        "similarity": assign_similarity(labels, k, 0.4, seed),
    }


@st.composite
def labelled(draw):
    k = draw(st.integers(1, 12))
    labels = draw(st.lists(st.integers(0, draw(st.integers(0, 7))), min_size=k, max_size=200))
    return np.array(labels), k


@given(labelled(), SEEDS)
def test_every_example_has_one_client_and_every_client_an_example(case, seed):
    labels, k = case
    for name, assignment in assignments(labels, k, seed).items():
        assert assignment.dtype == np.int64
        assert assignment.shape == labels.shape
        sizes = np.bincount(assignment, minlength=k)
        assert len(sizes) == k
        assert sizes.min() >= 1
        assert sizes.sum() == len(labels)
        if name != "quantity":
            assert sizes.max() - sizes.min() <= 1


@given(labelled(), SEEDS)
def test_the_same_seed_gives_the_same_partition(case, seed):
    labels, k = case
    again = assignments(labels.copy(), k, seed)
    for name, assignment in assignments(labels, k, seed).items():
        np.testing.assert_array_equal(assignment, again[name])


def test_another_seed_gives_another_partition_and_rules_draw_apart():
    labels = np.arange(1000) % 10
    one, two = assignments(labels, 10, 1), assignments(labels, 10, 2)
    for name, assignment in one.items():
        assert (assignment != two[name]).mean() > 0.5
    assert not np.array_equal(one["iid"], one["shards"])


@given(labelled(), SEEDS)
def test_no_example_is_lost_or_changed_on_its_way(case, seed):
    labels, k = case
    arrays = {"number": np.arange(len(labels), dtype=np.int64), "label": labels}
    for data in (
        partition.iid(arrays, k, seed),
        partition.dirichlet(arrays, k, 0.1, seed),
        partition.shards(arrays, k, 1, seed),
        partition.quantity_skew(arrays, k, 1.0, seed),
    ):
        pooled = partition.pool(data)
        order = np.argsort(pooled["number"])
        np.testing.assert_array_equal(pooled["number"][order], arrays["number"])
        np.testing.assert_array_equal(pooled["label"][order], labels)
        assert data.client_ids == sorted(data.client_ids)
        train, test = split_examples(data, 0.25, seed % 1000)
        for client_id in data.client_ids:
            parts = [d.create_dataset_for_client(client_id).to_arrays()["number"] for d in (train, test)]
            whole = data.create_dataset_for_client(client_id).to_arrays()["number"]
            np.testing.assert_array_equal(np.sort(np.concatenate(parts)), whole)
            assert len(parts[0]) >= 1
            assert len(parts[1]) >= (len(whole) > 1)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 5.0])
def test_dirichlet_shares_have_the_papers_mean_and_variance(alpha):
    # Of the shares of a client with m examples: E = p, Var = p (1 - p) (m + alpha) / (m (1 + alpha)), which is the
    # Dirichlet-multinomial distribution's. Four standard errors of 600 clients are 4 sqrt(2 / 600) = 23 % at most.
    labels = np.repeat(np.arange(4), [12000, 12000, 24000, 12000])
    shares = table_of(assign_dirichlet(labels, 600, alpha, seed=3), labels, 600) / 100
    p = np.array([0.2, 0.2, 0.4, 0.2])
    expected = p * (1 - p) * (100 + alpha) / (100 * (1 + alpha))
    np.testing.assert_allclose(shares.mean(axis=0), p, atol=1e-12)  # since every example went to someone
    np.testing.assert_allclose(shares.var(axis=0), expected, rtol=0.23)
    # Labels of one client exclude each other as they should: Cov = -p_a p_b (m + alpha) / (m (1 + alpha)).
    covariance = np.cov(shares.T, bias=True)
    np.testing.assert_allclose(covariance[0, 2], -0.2 * 0.4 * (100 + alpha) / (100 * (1 + alpha)), rtol=0.35)


def test_dirichlet_is_iid_in_the_limit_and_one_label_in_the_other():
    labels = np.repeat(np.arange(10), 1000)
    alike = table_of(assign_dirichlet(labels, 20, 1e6), labels, 20)
    assert np.abs(alike - 50).max() < 45  # 50 of each label, give or take six standard deviations
    apart = table_of(assign_dirichlet(labels, 1000, 1e-6), labels, 1000)
    assert np.mean((apart > 0).sum(axis=1) == 1) > 0.9


@pytest.mark.parametrize("k", [2, 5, 10])
def test_few_clients_have_as_few_labels_as_can_be(k):
    labels, counted = np.repeat(np.arange(10), 1000), []
    for alpha in (1e-300, 1e-3, 0.3, 3.0, 1e300):
        tables = [table_of(assign_dirichlet(labels, k, alpha, seed), labels, k) for seed in range(8)]
        counted.append(np.mean([(table > 0).sum(axis=1).mean() for table in tables]))
    assert counted[0] == 10 / k
    assert counted == sorted(counted)
    assert counted[-1] == 10


def test_quantity_skew_is_even_in_the_limit_and_all_for_one_in_the_other():
    assert np.ptp(np.bincount(assign_quantity_skew(1000, 10, 1.7e308))) <= 1
    assert sorted(np.bincount(assign_quantity_skew(1000, 10, 1e-300))) == [1] * 9 + [991]


# MD5 of the assignments, as int64 in little-endian order: the same on NumPy 1.26.4 and 2.5.5, Linux x86-64. A new
# NumPy may draw otherwise, which would be worth knowing.
PINNED = {
    "iid": "23239e46eb7a853cba712819f98c315b",
    "dirichlet 0.1": "8c53f97011f7bc769dd248bd41f92769",
    "dirichlet 10": "9c1afe07ab12771b1108768eff65f4cc",
    "shards": "e9c5a30491087292663c2483c8cef378",
    "quantity": "5f3f153016777eae068a8e267ff23091",
}


def test_partitions_are_the_same_on_every_supported_numpy():
    labels = np.arange(5000) % 62
    made = {
        "iid": assign_iid(5000, 70, 3),
        "dirichlet 0.1": assign_dirichlet(labels, 70, 0.1, 3),
        "dirichlet 10": assign_dirichlet(labels, 70, 10.0, 3),
        "shards": assign_shards(labels, 70, 2, 3),
        "quantity": assign_quantity_skew(5000, 70, 0.5, 3),
    }
    assert {name: hashlib.md5(array.astype("<i8").tobytes()).hexdigest() for name, array in made.items()} == PINNED


def test_which_examples_of_a_label_a_client_gets_is_drawn():
    labels = np.repeat(np.arange(3), 1000)
    rows = np.flatnonzero(assign_dirichlet(labels, 10, 1.0, 0) == 0)
    mine = rows[labels[rows] == np.bincount(labels[rows]).argmax()] % 1000
    assert np.ptp(mine) > 800
    extra = [np.bincount(assign_iid(15, 10, seed), minlength=10) for seed in range(40)]
    assert (np.std(extra, axis=0) > 0).all()  # who has one more than others


def test_a_split_depends_on_seed_client_and_number_alone():
    x = np.arange(100)
    data = from_arrays({"x": np.tile(x, 2)}, np.repeat(["a", "b"], 100))

    def held_out(data, seed, client_id):
        test = split_examples(data, 0.255, seed)[1]
        return test.create_dataset_for_client(client_id).to_arrays()["x"].tolist()

    assert len(held_out(data, 0, "a")) == 26  # of 25.5
    assert held_out(data, 0, "a") != held_out(data, 1, "a")
    assert held_out(data, 0, "a") != held_out(data, 0, "b")
    assert held_out(from_arrays({"x": x}, ["b"] * 100), 0, "b") == held_out(data, 0, "b")


def test_ids_that_numpy_would_change_stay_apart():
    data = from_arrays({"x": [1, 2, 3]}, ["a\0", "a", "a\0"])
    assert data.client_ids == ["a", "a\0"]
    assert from_arrays({"x": [1, 2]}, np.array(["b", "a"], object)).client_ids == ["a", "b"]  # pandas' texts
    np.testing.assert_array_equal(assign_shards(np.array(["b", "a"], object), 2, 1), assign_shards([1, 0], 2, 1))


def test_no_clients_number_is_special():
    labels = np.repeat(np.arange(10), 100)
    last = [table_of(assign_dirichlet(labels, 10, 0.05, seed), labels, 10)[-1].max() for seed in range(60)]
    first = [table_of(assign_dirichlet(labels, 10, 0.05, seed), labels, 10)[0].max() for seed in range(60)]
    assert abs(np.mean(last) - np.mean(first)) < 12  # of 100; filled in order, the last clients would have far less


def test_shards_as_in_the_paper():
    # McMahan et al.: 60,000 examples in 200 shards of 300, two of them for each of 100 clients.
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    assignment = assign_shards(labels, 100, 2, seed=1)
    table = table_of(assignment, labels, 100)
    assert (table.sum(axis=1) == 600).all()
    assert set(np.unique(table)) == {0, 300, 600}
    # Two shards of 200 share their label with probability 19 / 199: about ten clients of a hundred have one label.
    one_label = int(((table > 0).sum(axis=1) == 1).sum())
    assert 1 <= one_label <= 22
    rows = np.flatnonzero(assignment == 0)
    assert np.diff(rows).min() >= 1
    assert np.ptp(rows) > 30000  # a shard is a sample of its label, not a stretch of the file


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_sizes_of_the_quantity_skew(beta):
    k, n, sizes = 20, 20_000, []
    for seed in range(150):
        sizes.append(np.bincount(assign_quantity_skew(n, k, beta, seed), minlength=k))
    shares = (np.array(sizes) - 1) / (n - k)
    variance = (1 / k) * (1 - 1 / k) / (k * beta + 1)
    np.testing.assert_allclose(shares.var(), variance, rtol=0.15)
    spread = np.abs(shares.mean(axis=0) - 1 / k)
    assert spread.max() < 5 * np.sqrt(variance / 150)  # nobody is favoured


def test_labels_may_be_texts_or_columns():
    labels = np.array(["b", "a", "b", "c"] * 5)
    np.testing.assert_array_equal(
        assign_shards(labels, 5, 2), assign_shards(np.array([1, 0, 1, 2] * 5)[:, np.newaxis], 5, 2)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assign_iid(5, 6), "'num_clients' must be at most the number of examples (5). Got 6."),
        (lambda: assign_iid(5, 0), "'num_clients' must be an integer >= 1. Got 0."),
        (lambda: assign_iid(5, 2, seed=-1), "'seed' must be an integer >= 0. Got -1."),
        (lambda: assign_shards([0] * 9, 5), "must be at most the number of examples (9) / 2. Got 5."),
        (lambda: assign_dirichlet([0, 1], 2, 0.0), "'alpha' must be a finite float > 0. Got 0.0"),
        (lambda: assign_dirichlet([0, 1], 2, float("inf")), "'alpha' must be a finite float > 0. Got inf."),
        (lambda: assign_dirichlet([0.5, 1.5], 2, 1.0), "'labels' must be integers or texts, one an example"),
        (lambda: assign_dirichlet(np.zeros((2, 2), int), 2, 1.0), "'labels' must be integers or texts, one an example"),
        (lambda: assign_quantity_skew(5, 2, -1), "'beta' must be a finite float > 0. Got -1."),
        (
            lambda: partition.dirichlet({"x": [1, 2]}, 2, 1.0),
            "there must be a field 'label' of labels, or 'y'. Got ['x'].",
        ),
        (lambda: partition.iid({}, 2), "there must be a field. Got none."),
        (lambda: partition.iid({"x": []}, 1), "there must be an example. Got none."),
        (lambda: partition.iid({"x": [1, 2], "y": [1]}, 1), "all fields must have the same length. Got"),
        (lambda: from_arrays({"x": ["a", "b"]}, [0, 1]), "field 'x': must hold numbers, one or more an example"),
        (lambda: from_arrays({"x": [[1], [2, 3]]}, [0, 1]), "field 'x': must be an array of numbers"),
        (lambda: from_arrays({"x": 3}, [0]), "field 'x': must hold numbers, one or more an example"),
        (lambda: from_arrays({"x": [1, 2]}, [0]), "each of the 2 examples must have a client. Got 1 clients' ids."),
        (lambda: from_arrays({"x": [1, 2]}, [0.5, 1]), "the 'client' must be integers or texts, one an example"),
        (
            lambda: from_arrays({"x": [1, np.nan]}, [0, 1]),
            "field 'x': values must be finite as float32. Got nan at index (1,)",
        ),
        (
            lambda: from_arrays({"x": [1, 1e39]}, [0, 1]),
            "field 'x': values must be finite as float32. Got 1e+39 at index",
        ),
        (
            lambda: from_arrays({"x": np.zeros((2, 0))}, [0, 1]),
            "field 'x': an example must have values. Got shape (2, 0).",
        ),
        (lambda: from_arrays({"x": [1, 2]}, ["a", 1]), "the 'client' must be integers or texts, one an example"),
        (lambda: from_arrays({"x": [1, 2]}, [["a"], ["b", "c"]]), "the 'client' must be integers or texts"),
        (
            lambda: from_arrays({"x": np.ma.masked_array([1, 2], [0, 1])}, [0, 1]),
            "field 'x': values must be there, none of them masked",
        ),
        (lambda: assign_dirichlet([[0], [1, 2]], 1, 1.0), "'labels' must be integers or texts, one an example"),
        (lambda: assign_iid(10**30, 3), "'num_examples' must be at most"),
        (lambda: split_examples(from_arrays({"x": [1]}, [0]), 1.0), "must be a finite float >= 0 and < 1. Got 1.0."),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_clients_are_sorted_as_what_they_are():
    assert from_arrays({"x": [1, 2, 3]}, [10, 9, 10]).client_ids == ["9", "10"]
    assert from_arrays({"x": [1, 2, 3]}, ["10", "9", "10"]).client_ids == ["10", "9"]


def test_float64_becomes_float32_and_integers_stay():
    data = from_arrays({"x": np.ones((2, 5)), "h": np.ones(2, np.float16), "y": np.ones(2, np.int64)}, [0, 0])
    assert {name: spec.dtype.name for name, spec in data.element_type_structure.items()} == {
        "x": "float32",
        "h": "float32",
        "y": "int32",
    }
    kept = from_arrays({"small": np.ones(2, np.uint8), "large": np.array([1, 2**40])}, [0, 0])
    assert [spec.dtype.name for spec in kept.element_type_structure.values()] == ["uint8", "int64"]
    other = from_arrays({"a": np.ones(2, np.uint64), "b": np.ones(2, ">i8")}, np.ma.masked_array([0, 0]))
    assert [spec.dtype for spec in other.element_type_structure.values()] == [np.int32, np.int32]


def test_masks_are_never_lost():
    masked = np.ma.masked_array([1, 2, 3], [0, 1, 0])
    for call in (
        lambda: fed.datasets.InMemoryClientData({"ann": {"x": masked}}),
        lambda: from_arrays({"x": [1, 2, 3]}, masked),
        lambda: assign_dirichlet(masked, 2, 1.0),
    ):
        with pytest.raises(fed.DataError, match="field '.*': values must be there, none of them masked"):
            call()


@pytest.mark.parametrize(
    "client",
    [
        [1, 2, 1],
        [np.int64(1), 2, 1],
        list(np.array([1, 2, 1])),
        np.array([1, 2, 1], object),
        ["1", "2", "1"],
        list(np.array(["1", "2", "1"])),
        np.array(["1", "2", "1"]),
    ],
)
def test_integers_and_texts_of_any_kind_are_clients(client):
    data = from_arrays({"x": [1, 2, 3]}, client)
    assert [type(client_id) for client_id in data.client_ids] == [str, str]
    assert data.create_dataset_for_client("1").to_arrays()["x"].tolist() == [1, 3]


def three_classes(n=120):
    """Five features, three classes, and who measured them."""
    rng = np.random.default_rng(5)
    y = np.arange(n) % 3
    return rng.standard_normal((n, 5)) + 3 * np.eye(5)[y], y, rng.integers(0, 6, n)


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "auto"])
def test_five_features_and_three_classes_are_learned(engine):
    x, y, client = three_classes()
    data = from_arrays({"x": x, "y": y[:, np.newaxis]}, client)
    model_fn = lambda: fed.learning.models.SoftmaxRegression(num_features=5, num_classes=3)  # noqa: E731
    process = fed.learning.build_weighted_fed_avg(model_fn, fed.learning.optimizers.build_sgdm(0.1), engine=engine)
    state = process.initialize()
    cohort = [data.create_dataset_for_client(c).repeat(3).batch(8) for c in data.client_ids]
    for _ in range(10):
        state, _ = process.next(state, cohort)
    weights = process.get_model_weights(state)
    assert weights.trainable[0].shape == (5, 3)
    metrics = fed.learning.models.evaluate(model_fn(), weights, data.create_dataset_from_all_clients(0).batch(20))
    assert metrics["sparse_categorical_accuracy"] > 0.9


def test_float64_that_nobody_cast_is_refused_by_the_model():
    x, y, _ = three_classes()
    data = fed.datasets.InMemoryClientData({"ann": {"x": x, "y": y[:, np.newaxis]}})
    process = fed.learning.build_weighted_fed_avg(
        lambda: fed.learning.models.SoftmaxRegression(5, 3), fed.learning.optimizers.build_sgdm(0.1)
    )
    message = "client 'ann', field 'x': a batch must be float32 of shape"
    with pytest.raises(fed.DataError, match=message):
        process.next(process.initialize(), [data.create_dataset_for_client("ann").batch(8)])


def test_sixty_two_classes(folder):
    rng = np.random.default_rng(0)
    labels = np.arange(310, dtype=np.int32) % 62
    pixels = (rng.integers(0, 255, (310, 28, 28)) / 255).astype(np.float32)
    pixels[np.arange(310), labels % 28, labels // 28] = 0.0
    data = partition.iid({"label": labels, "pixels": pixels}, 5)
    fed.datasets.write_hdf5(folder / "letters.h5", data)
    read = fed.datasets.HDF5ClientData(folder / "letters.h5", fed.datasets.emnist.CHARACTERS)
    digits = fed.datasets.HDF5ClientData(folder / "letters.h5", fed.datasets.emnist.DIGITS)
    with pytest.raises(fed.DataError, match=r"values must lie in \[0, 9\]"):
        digits.create_dataset_for_client("client_0").to_arrays()
    process = fed.learning.build_weighted_fed_avg(
        lambda: fed.learning.models.SoftmaxRegression(num_classes=62), fed.learning.optimizers.build_sgdm(0.02)
    )
    cohort = [tutorial.preprocess(read.create_dataset_for_client(c)) for c in read.client_ids]
    state, metrics = process.next(process.initialize(), cohort)
    assert metrics["client_work"]["train"]["num_examples"] == 5 * 310
    assert process.get_model_weights(state).trainable[0].shape == (784, 62)
    names = fed.datasets.emnist.LABEL_NAMES
    assert len(set(names)) == 62
    assert (names[9], names[10], names[35], names[36]) == ("9", "A", "Z", "a")


# --- CSV


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


FLOWERS = "garden,petal,sepal,kind\nnord é,1.5,5,rose\nsouth,4,6.5,lily\n\nnord é,-2e0,+5,rose\n"


def test_csv_columns_become_features_labels_and_clients(folder):
    for encoding in ("utf-8", "utf-8-sig"):  # Excel's has a mark at the start
        data = from_csv(write(folder / "fleurs é.csv", FLOWERS, encoding), client="garden", label="kind")
        assert data.client_ids == ["nord é", "south"]
        assert data.label_names == ("lily", "rose")
        arrays = data.create_dataset_for_client("nord é").to_arrays()
        np.testing.assert_array_equal(arrays["x"], np.float32([[1.5, 5], [-2, 5]]))
        np.testing.assert_array_equal(arrays["y"], np.int32([[1], [1]]))
        assert (arrays["x"].dtype, arrays["y"].dtype) == (np.float32, np.int32)


def test_csv_features_are_taken_in_the_order_asked_for(folder):
    table = read_csv(write(folder / "a.csv", FLOWERS), features=["sepal", "petal"])
    np.testing.assert_array_equal(table.arrays["x"][0], np.float32([5, 1.5]))
    assert table.client is None
    assert list(table.arrays) == ["x"]


def test_csv_columns_with_types_become_fields(folder):
    path = write(folder / "a.tsv", "who\tage\tvisits\tnote\nann\t41.5\t7\tx\nbob\t30\t255\ty\n")
    data = from_csv(path, client="who", types={"age": "float32", "visits": np.uint8}, delimiter="\t")
    assert {n: s.dtype.name for n, s in data.element_type_structure.items()} == {"age": "float32", "visits": "uint8"}
    assert data.create_dataset_for_client("bob").to_arrays()["visits"].tolist() == [255]


@pytest.mark.parametrize(
    ("cells", "labels", "names"),
    [
        (["3", "1", "3"], [3, 1, 3], ()),
        (["1.0", "0.0", "2.0"], [1, 0, 2], ()),
        (["b", "c 3", "b"], [0, 1, 0], ("b", "c 3")),
    ],
)
def test_csv_labels(folder, cells, labels, names):
    path = write(folder / "a.csv", "y,f\n" + "".join(f"{cell},1\n" for cell in cells))
    table = read_csv(path, label="y")
    assert table.arrays["y"].ravel().tolist() == labels
    assert table.label_names == names
    assert table.num_classes == max(labels) + 1


def test_csv_labels_by_given_names(folder):
    """A part of the data need not have every label, and "1" may be a name."""
    path = write(folder / "a.csv", "who,y,f\na,1b,1\nb,10,1\na,1b,1\n")
    table = read_csv(path, label="y", client="who", label_names=["10", "zero", "1b"])
    assert table.arrays["y"].tolist() == [[2], [0], [2]]
    assert (table.label_names, table.num_classes) == (("10", "zero", "1b"), 3)
    data = from_csv(path, "who", "y", label_names=["10", "zero", "1b"])
    assert (data.label_names, data.num_classes) == (("10", "zero", "1b"), 3)
    with pytest.raises(fed.DataError, match="line 3, column 'y': a label must be one of the 2 'label_names'. Got '10'"):
        read_csv(path, label="y", client="who", label_names=["1b", "c"])
    with pytest.raises(fed.DataError, match="line 2, column 'y': labels must all be integers, or none .* Got '1b'"):
        read_csv(path, label="y", client="who")
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="'label_names' must be different texts"):
            read_csv(path, label="y", client="who", label_names=names)


def test_a_decimal_comma_in_labels(folder):
    path = write(folder / "a.csv", "f;y\n1,5;0,0\n2,5;1,0\n")
    assert read_csv(path, label="y", delimiter=";", decimal=",").arrays["y"].tolist() == [[0], [1]]
    measured = write(folder / "b.csv", "f;y\n1,5;0,5\n2,5;1,7\n")
    with pytest.raises(fed.DataError, match="line 2, column 'y': labels must be integers below 2.31, or texts"):
        read_csv(measured, label="y", delimiter=";", decimal=",")


@pytest.mark.parametrize("names", [["nan", "yes"], ["cat", "infinity"]])
def test_words_that_python_reads_as_numbers_are_words(folder, names):
    path = write(folder / "a.csv", "f,y\n" + "".join(f"1,{name}\n" for name in names))
    assert read_csv(path, label="y").label_names == tuple(names)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_read_once(folder):
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=(folder / "pipe").write_bytes, args=(b"f\n\xe1\n",))
    writer.start()
    with pytest.raises(fed.DataError, match="must be UTF-8 text .* Got 0xe1."):
        read_csv(folder / "pipe")
    writer.join()


def test_csv_with_a_decimal_comma(folder):
    path = write(folder / "a.csv", "f;g;y\n1,5;-2;1\n,25;1e1;0\n")
    assert read_csv(path, label="y", delimiter=";", decimal=",").arrays["x"].tolist() == [[1.5, -2], [0.25, 10]]
    bad = write(folder / "b.csv", "f;y\n1.000,5;1\n")
    with pytest.raises(fed.DataError, match="line 2, column 'f' must be a finite float32. Got '1.000,5'."):
        read_csv(bad, label="y", delimiter=";", decimal=",")
    for decimal in (";", "x"):
        with pytest.raises(ValueError, match="'decimal' must be '.' or ',', and not the delimiter"):
            read_csv(path, label="y", delimiter=";", decimal=decimal)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.integers(-(2**31), 2**31 - 1),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(",;\t|"),
)
def test_what_csv_writes_is_read(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["who", "value", "count"])
        writer.writerows((who, repr(value), count) for who, value, count in rows)
    table = read_csv(path, client="who", features=["value"], types={"count": "int32"}, delimiter=delimiter)
    assert table.client.tolist() == [who for who, _, _ in rows]
    np.testing.assert_array_equal(table.arrays["x"][:, 0], np.float32([value for _, value, _ in rows]))
    assert table.arrays["count"].tolist() == [count for _, _, count in rows]


def test_blocks_are_joined(folder, monkeypatch):
    monkeypatch.setattr("fedsim_np.datasets.partition.tables._CELLS", 6)
    path = write(folder / "a.csv", "c,y,f\n" + "".join(f"c{i % 3},{'ab'[i % 2]},{i}\n" for i in range(20)))
    table = read_csv(path, "y", "c")
    assert table.arrays["x"][:, 0].tolist() == list(range(20))
    assert table.client.tolist() == [f"c{i % 3}" for i in range(20)]
    assert table.arrays["y"][:, 0].tolist() == [i % 2 for i in range(20)]


BROKEN = {
    "": "the first line must name the columns",
    "c,f\n": "must have a row",
    "c;f\na;1\n": "is the delimiter ';'?",
    "c,f,f\na,1,2\n": "the columns' names must differ",
    "c,g\na,1\n": "must have the columns ['f']. Got ['c', 'g'].",
    "c,f\na,1\nb\n": "line 3 must have as many cells as there are columns (2). Got 1.",
    "c,f\na,1\nb,x\n": "line 3, column 'f' must be a finite float32. Got 'x'.",
    "c,f\na,\n": "line 2, column 'f' must be a finite float32. Got ''.",
    "c,f\na,nan\n": "line 2, column 'f' must be a finite float32. Got 'nan'.",
    "c,f\na,1e39\n": "line 2, column 'f' must be a finite float32. Got '1e39'.",
    "c,f\na,1_0\n": "line 2, column 'f' must be a finite float32. Got '1_0'.",
    "c,f\n,1\n": "line 2, column 'c' must be a text without NUL, and not empty. Got ''.",
    'c,f\n"a,1\n': "must be a CSV file. Got in line 2: unexpected end of data.",
    "c,f\na\0,1\n": "line ",  # Python 3.10's csv says that it cannot have NUL, ours says where it is
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_csv_is_refused_by_line_and_column(folder, text):
    path = write(folder / "a.csv", text)
    with pytest.raises(fed.DataError) as caught:
        from_csv(path, client="c", features=["f"])
    assert BROKEN[text] in str(caught.value)
    assert "a.csv" in str(caught.value)


def test_csv_is_read_without_the_text_staying(folder):
    rows = 20_000
    ids = [f"{i % 5:0200d}" for i in range(rows)]
    path = write(folder / "a.csv", "c,f\n" + "".join(f"{c},{i}\n" for i, c in enumerate(ids)))
    tracemalloc.start()
    try:
        from_csv(path, client="c", features=["f"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15e6  # NumPy's texts of 200 characters would be 16 MB, the lines of the file 4
    from_csv(path, client="c", features=(name for name in ["f"]))


def test_many_columns_take_their_time_once(folder):
    names = [f"f{i}" for i in range(20_000)]
    path = write(folder / "a.csv", ",".join(["c", *names]) + "\n" + ",".join(["a"] + ["1"] * len(names)) + "\n")
    assert from_csv(path, client="c").element_type_structure["x"].shape == (20_000,)


def test_a_column_without_a_name_is_no_feature_by_chance(folder):
    path = write(folder / "a.csv", ",c,f\n0,a,1\n")  # as pandas writes its index
    with pytest.raises(fed.DataError, match="a feature's column must have a name, or the features be named"):
        from_csv(path, client="c")
    assert from_csv(path, client="c", features=["f"]).element_type_structure["x"].shape == (1,)


def test_csv_of_another_encoding_and_no_csv(folder):
    with pytest.raises(fed.DataError, match="'CSV UTF-8'\\). Got 0xe9 in line 2"):
        read_csv(write(folder / "a.csv", FLOWERS, "latin-1"))
    with pytest.raises(fed.DataError, match="does not exist"):
        read_csv(folder / "b.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delimiter": ";;"}, "'delimiter' must be one character, no quote and no end of a line. Got ';;'."),
        ({"features": "petal"}, "'features' must be a sequence of texts. Got 'petal'."),
        ({"types": {"petal": str}}, "'types' must be one of NumPy's integers or floats for 'petal'."),
        ({"types": {"petal": "no such"}}, "must be one of NumPy's integers or floats for 'petal'. Got 'no such'."),
        ({"types": {"petal": "int8"}}, "line 2, column 'petal' must be a finite int8. Got '1.5'."),
        ({"label": "petal", "features": []}, "labels must be integers below 2^31, or texts. Got '1.5'."),
        ({"label": "kind", "client": "kind"}, "a column must be wanted once"),
        ({"features": 3}, "'features' must be a sequence of texts. Got 3."),
        ({"label": ["kind"]}, "'label' must be a column's name or None. Got ['kind']."),
        ({"client": ""}, "must have the columns ['']. Got ['petal', 'kind']."),
        ({"types": ["petal"]}, "'types' must be a mapping of columns' names to dtypes."),
        ({"types": {"petal": None}}, "must be one of NumPy's integers or floats for 'petal'. Got None."),
        ({"types": {"petal": "(1,2"}}, "must be one of NumPy's integers or floats for 'petal'."),
        ({"types": {"y": "int8"}, "label": "kind"}, "for columns of other names than x and y"),
    ],
)
def test_bad_arguments_of_csv(folder, arguments, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        read_csv(write(folder / "a.csv", "petal,kind\n1.5,rose\n"), **arguments)
    assert message in str(caught.value)


# --- LEAF


def leaf(users):
    return {"users": list(users), "num_samples": [len(u["y"]) for u in users.values()], "user_data": users}


ANN, BOB = {"x": [[0.5, 1], [0, 1]], "y": [1, 0]}, {"x": [[0, 1]], "y": [2]}


def test_leafs_files_and_folders(folder):
    for name, users in (("b.json", {"bob": BOB}), ("a.json", {"ann": ANN})):
        (folder / name).write_text(json.dumps(leaf(users)), encoding="utf-8")
    data = from_leaf_json(folder)
    assert data.client_ids == ["ann", "bob"]
    assert data.create_dataset_for_client("bob").to_arrays()["y"].tolist() == [[2]]
    # Bob's numbers are whole, but the field's are not.
    assert data.create_dataset_for_client("bob").to_arrays()["x"].dtype == np.float32
    assert from_leaf_json(folder / "b.json").client_ids == ["bob"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ('{"users": ["a"], "num_samples": [1], "user_data": {"a": {"y": [1]}, "a": {"y": [2]}}}', "the key 'a' twice"),
        ("[1]", "must be LEAF's JSON, an object with users, num_samples, user_data. Got list."),
        ({"users": []}, "must be LEAF's JSON"),
        ({**leaf({"ann": ANN}), "users": ["bob"]}, "'users' must be those in 'user_data'"),
        ({**leaf({"ann": ANN}), "num_samples": []}, "'num_samples' must be a number a user"),
        ({**leaf({"ann": ANN}), "num_samples": [3]}, "field 'x': must have 3 examples, as num_samples says. Got 2."),
        (leaf({"ann": {"x": ["to be", "or not"], "y": [0, 1]}}), "field 'x': must hold numbers"),
        (leaf({"ann": {"x": [[1], [1, 2]], "y": [0, 1]}}), "field 'x': must be an array of numbers"),
        (leaf({"ann": {"x": [float("nan")], "y": [0]}}), "field 'x': values must be finite as float32"),
        ({"users": ["ann"], "num_samples": [1], "user_data": {"ann": [1]}}, "must be an object of lists. Got list."),
        (leaf({}), "must have a user. Got none."),
        (leaf({"ann": ANN, "bob": {"y": [1]}}), "client 'bob': all clients must have the structure"),
    ],
)
def test_broken_leaf_files_are_refused(folder, content, message):
    path = folder / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(fed.DataError) as caught:
        from_leaf_json(path)
    assert str(caught.value).startswith(f"file '{path}'")
    assert message in str(caught.value)


def test_leafs_clients_without_examples_and_of_other_integers(folder):
    users = {"ann": ANN, "none": {"x": [], "y": []}, "odd \ud800": {"x": [[1, 2]], "y": [2**40]}}
    (folder / "a.json").write_text(json.dumps(leaf(users)), encoding="utf-8")
    data = from_leaf_json(folder / "a.json")
    arrays = data.create_dataset_for_client("none").to_arrays()
    assert (arrays["x"].shape, arrays["y"].shape, arrays["y"].dtype) == ((0, 2), (0, 1), np.int64)
    train, _ = split_examples(data)
    assert train.client_ids == data.client_ids


def test_a_user_in_two_files_and_a_folder_without_any(folder):
    with pytest.raises(fed.DataError, match=r"must have a \*.json file"):
        from_leaf_json(folder)
    with pytest.raises(fed.DataError, match="does not exist"):
        from_leaf_json(folder / "a.json")
    for name in ("a.json", "b.json"):
        (folder / name).write_text(json.dumps(leaf({"ann": ANN})), encoding="utf-8")
    with pytest.raises(fed.DataError, match="client 'ann': a user must be in one file only"):
        from_leaf_json(folder)


# --- similarity


@given(labelled(), st.floats(0, 1), SEEDS)
def test_similarity_deals_both_kinds_evenly(case, similarity, seed):
    labels, k = case
    assignment = assign_similarity(labels, k, similarity, seed)
    assert np.ptp(np.bincount(assignment, minlength=k)) <= 1


def test_at_similarity_zero_clients_have_runs_of_the_sorted_labels():
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(10), 30))
    counts = table_of(assign_similarity(labels, 20, 0.0, seed=4), labels, 20)
    assert ((counts > 0).sum(axis=1) == 1).all()  # ten labels of 30, clients of 15
    order = counts.argmax(axis=1)
    assert sorted(order.tolist()) == [label for label in range(10) for _ in range(2)]


def test_a_share_of_every_client_is_a_sample_of_all():
    """Of 300 examples a client 10 %, so 3 a label, are of everybody's; the rest are of one label."""
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(10), 300))
    counts = table_of(assign_similarity(labels, 10, 0.1, seed=5), labels, 10)
    assert ((counts.max(axis=1) > 200) & (counts.max(axis=1) < 290)).all()
    assert np.delete(np.sort(counts, axis=1), [8, 9], axis=1).sum() == pytest.approx(10 * 8 / 9 * 27, rel=0.3)
    even = table_of(assign_similarity(labels, 10, 1.0, seed=5), labels, 10)
    assert even.min() > 10


def test_a_similarity_above_one_is_refused():
    with pytest.raises(ValueError, match="'similarity' must be a float from 0 to 1. Got 1.5"):
        assign_similarity([0, 1], 2, 1.5)


# --- Synthetic(alpha, beta)


def all_of(data):
    return {c: data.create_dataset_for_client(c).to_arrays() for c in data.client_ids}


def test_synthetic_is_the_recipe():
    """The authors' order of draws, with NumPy's own multivariate normal."""
    rng = np.random.RandomState(7)
    sizes = rng.lognormal(4, 2, 5).astype(int) + 50
    u, b_mean = rng.normal(0, 0.5, 5), rng.normal(0, 2.0, 5)
    v = np.stack([rng.normal(b_mean[i], 1, 60) for i in range(5)])
    train, test = map(all_of, fed.datasets.fedprox_synthetic.load_data(0.5, 2.0, num_clients=5, seed=7))
    for i, client in enumerate(train):
        weights, bias = rng.normal(u[i], 1, (60, 10)), rng.normal(u[i], 1, 10)
        x = rng.multivariate_normal(v[i], np.diag(np.arange(1, 61) ** -1.2), sizes[i])
        got = {name: np.concatenate([train[client][name], test[client][name]]) for name in ("x", "y")}
        np.testing.assert_array_equal(got["y"][:, 0], (got["x"].astype(np.float64) @ weights + bias).argmax(axis=1))
        np.testing.assert_allclose(np.abs(got["x"] - v[i]), np.abs(x - v[i]), atol=1e-5)  # its axes may point back
        assert len(train[client]["x"]) == int(0.9 * sizes[i])
    assert {arrays["x"].dtype.name for arrays in train.values()} == {"float32"}


def test_alpha_changes_no_label_and_iid_clients_share_one_rule():
    load = fed.datasets.fedprox_synthetic.load_data
    none, much = (all_of(load(alpha, 1.0, num_clients=4, seed=3)[0]) for alpha in (0.0, 5.0))
    for client in none:
        np.testing.assert_array_equal(none[client]["x"], much[client]["x"])
        np.testing.assert_array_equal(none[client]["y"], much[client]["y"])
    means = [arrays["x"].mean(axis=0) for arrays in all_of(load(iid=True, num_clients=4, seed=3)[0]).values()]
    apart = [arrays["x"].mean(axis=0) for arrays in none.values()]
    assert np.abs(means).max() < 0.5 < np.abs(apart).max()


# --- what a first evening found: frames, labels and clients by whatever they are


class Column:
    def __init__(self, values):
        self._values = values

    def to_numpy(self):
        return self._values


class Frame:
    """What pandas' and polars' frames have in common."""

    def __init__(self, **columns):
        self._columns = columns

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return Column(np.array(self._columns[name], getattr(self._columns[name], "dtype", None)))

    def __repr__(self):
        return "a table\n" * 100


def flowers(kinds=("rose", "lily", "rose")):
    texts = np.array(["north", "south", "north"], object)
    return Frame(garden=texts, petal=[1.5, 4.0, 2.0], sepal=np.array([5, 6, 5], object), kind=np.array(kinds, object))


def arrays_of(client_data):
    datasets = ((c, client_data.create_dataset_for_client(c).to_arrays()) for c in client_data.client_ids)
    return {client_id: {name: array.tolist() for name, array in arrays.items()} for client_id, arrays in datasets}


@pytest.mark.parametrize(
    ("kinds", "names"), [(("rose", "lily", "rose"), ("lily", "rose")), ((1, 0, 1), ()), (tuple("101"), ())]
)
def test_arrays_frames_files_and_leaf_make_the_same_clients(kinds, names, folder):
    frame = flowers(kinds)
    rows = [f"{g},{p},{s},{k}\n" for g, p, s, k in zip(*(frame[n].to_numpy() for n in frame.columns), strict=True)]
    (folder / "f.csv").write_text("garden,petal,sepal,kind\n" + "".join(rows), encoding="utf-8")
    x = np.stack([frame["petal"].to_numpy(), frame["sepal"].to_numpy().astype(float)], axis=1)
    y, gardens = frame["kind"].to_numpy(), frame["garden"].to_numpy()
    users = {g: {"x": x[gardens == g].tolist(), "y": y[gardens == g].tolist()} for g in ("north", "south")}
    leaf = {"users": ["north", "south"], "num_samples": [2, 1], "user_data": users}
    (folder / "l.json").write_text(json.dumps(leaf), encoding="utf-8")
    made = [
        from_csv(folder / "f.csv", client="garden", label="kind"),
        partition.from_dataframe(frame, client="garden", label="kind"),
        from_arrays({"x": x, "y": y}, client=gardens),
        from_arrays({"x": x, "garden": gardens, "y": y.reshape(-1, 1)}, client="garden"),
        from_leaf_json(folder / "l.json"),
    ]
    expected = {"north": {"x": [[1.5, 5], [2, 5]], "y": [[1], [1]]}, "south": {"x": [[4, 6]], "y": [[0]]}}
    for data in made:
        assert arrays_of(data) == expected
        assert (data.label_names, data.num_classes) == (names, 2)
        assert {name: spec.dtype.name for name, spec in data.element_type_structure.items()} == {
            "x": "float32",
            "y": "int32",
        }
        model = fed.learning.models.SoftmaxRegression(2, data.num_classes)
        process = fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(0.1))
        cohort = [data.create_dataset_for_client(client_id).batch(2) for client_id in data.client_ids]
        assert process.next(process.initialize(), cohort).metrics["client_work"]["train"]["num_examples"] == 3
        assert split_examples(data, 0.5)[1].label_names == names
        assert split_examples(data, 0.5)[0].num_classes == 2
    dealt = partition.dirichlet({"x": x, "y": y}, num_clients=3, alpha=1.0)
    assert (dealt.label_names, dealt.num_classes) == (names, 2)
    assert dealt.element_type_structure["y"].shape == (1,)
    table = partition.read_dataframe(frame, label="kind", features=["sepal"])
    assert table.client is None
    assert table.arrays["x"].tolist() == [[5], [6], [5]]
    assert partition.iid(table.arrays, 3).num_classes == 2


def test_labels_that_were_known_before():
    frame = flowers()
    data = partition.from_dataframe(frame, "garden", "kind", label_names=["tulip", "rose", "lily"])
    assert (arrays_of(data)["south"]["y"], data.num_classes) == ([[2]], 3)
    data = from_arrays({"x": [1.0, 2.0], "digit": [7, 3]}, [0, 0], label="digit", label_names=["3", "7"])
    assert arrays_of(data) == {"0": {"x": [1, 2], "digit": [1, 0]}}
    for floats in (Frame(who=[1, 2], kind=[1.0, 0.0]), Frame(who=[1, 2], kind=np.array([1.0, 0], object))):
        data = partition.from_dataframe(floats, "who", "kind", label_names=["0", "1"])
        assert (arrays_of(data)["1"]["y"], data.num_classes) == ([[1]], 2)
        assert data.element_type_structure["y"].dtype == np.int32
    with pytest.raises(fed.DataError, match="one of the 2 'label_names'. Got '0.5' at index 1"):
        from_arrays({"x": [1, 2], "y": [1.0, 0.5]}, [0, 0], label_names=["0", "1"])
    measured = partition.from_dataframe(Frame(who=[1, 2], size=[1.5, 2.0], price=[10.0, 20.0]), "who", "price")
    assert arrays_of(measured)["1"] == {"x": [[1.5]], "y": [[10.0]]}
    assert measured.num_classes == 0
    assert from_arrays({"y": [True, False]}, [0, 0]).element_type_structure["y"].dtype == np.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: from_arrays(flowers(), [0, 1, 0]),
            "'arrays' must be a mapping of field names to arrays (of a data frame",
        ),
        (lambda: partition.iid(flowers(), 2), "from_dataframe, or read_dataframe(...).arrays). Got <class"),
        (lambda: from_csv(flowers(), "garden"), "'path' must be a path (of a data frame: from_dataframe"),
        (
            lambda: from_csv("a.csv", [0, 1, 0]),
            "'client' must be a column's name (ids, one an example, are for from_arrays)",
        ),
        (lambda: from_csv(3, "garden"), "'path' must be a path. Got 3."),
        (lambda: from_arrays({"x": [1], "who": [2]}, "whom"), "Got 'whom' and ['x', 'who']. Did you mean 'who'?"),
        (lambda: from_arrays({"x": [1], "digit": [2]}, [0], "digits"), "Got ['x', 'digit']. Did you mean 'digit'?"),
        (
            lambda: from_arrays({"x": [1], "y": [""]}, [0]),
            "field 'y': a label must be a text without NUL, and not empty",
        ),
        (
            lambda: from_arrays({"x": [1], "y": ["a"]}, [0], label_names=["b"]),
            "one of the 1 'label_names'. Got 'a' at index 0",
        ),
        (lambda: from_arrays({"y": ["a", "1"]}, [0, 0]), "labels must all be integers, or none"),
        (
            lambda: from_arrays({"y": np.array(["a", None], object)}, [0, 0]),
            "none of them missing. Got None.",
        ),
        (lambda: from_arrays({"y": [["a", "b"]]}, [0]), "field 'y': must hold numbers"),
        (lambda: from_arrays({"y": [[0, 1]]}, [0], label_names="01"), "labels must be one number an example"),
        (
            lambda: from_arrays({"x": [1]}, [0], label_names=["a"]),
            "there must be a field of labels to have 'label_names'",
        ),
        (lambda: partition.from_dataframe({"a": [1]}, "a"), "'frame' must be a data frame (of arrays: from_arrays"),
        (lambda: partition.from_dataframe(flowers(), None), "'client' must be a column's name (without clients"),
        (lambda: partition.from_dataframe(flowers(), "gardn"), "'sepal', 'kind']. Did you mean 'garden'?"),
        (lambda: partition.from_dataframe(flowers(), "garden"), "field 'kind': must hold numbers"),
        (
            lambda: partition.from_dataframe(flowers(), "garden", features="petal"),
            "'features' must be a list of columns'",
        ),
        (lambda: partition.from_dataframe(flowers(), "garden", "kind", ["kind"]), "a column must be wanted once"),
        (
            lambda: partition.from_dataframe(Frame(who=[1, 2], x=[1.0, np.nan]), "who"),
            "field 'x': values must be finite",
        ),
        (
            lambda: partition.from_dataframe(Frame(who=[1.0, 2.0], x=[1, 2]), "who"),
            "the 'client' must be integers or texts",
        ),
    ],
)
def test_what_frames_and_labels_must_be(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_leaf_labels_are_texts_with_all_or_with_none(folder):
    users = {"ann": {"x": [[1]], "y": ["b"]}, "bob": {"x": [[2], [3]], "y": ["a", "c"]}, "cid": {"x": [], "y": []}}
    leaf = {"users": list(users), "num_samples": [1, 2, 0], "user_data": users}
    (folder / "a.json").write_text(json.dumps(leaf), encoding="utf-8")
    data = from_leaf_json(folder / "a.json")
    assert [of["y"] for of in arrays_of(data).values()] == [[[1]], [[0], [2]], []]
    assert (data.label_names, data.num_classes) == (("a", "b", "c"), 3)
    users["bob"]["y"] = [0, 1]
    (folder / "a.json").write_text(json.dumps(leaf), encoding="utf-8")
    with pytest.raises(fed.DataError, match="a.json', field 'y': labels must be texts with all users, or with none"):
        from_leaf_json(folder / "a.json")
    users["bob"] = {"x": ["a", "b"], "y": ["a", "c"]}
    (folder / "a.json").write_text(json.dumps(leaf), encoding="utf-8")
    with pytest.raises(fed.DataError, match="client 'bob', field 'x': must hold numbers"):
        from_leaf_json(folder / "a.json")


@pytest.mark.parametrize("labels", [[-1, 2**64 - 1], [1, 2**63], [[-1], [2**64 - 1]]])
def test_integers_that_no_type_has_are_not_made_floats(labels, folder):
    user = {"x": [[0.5], [1.0]], "y": labels}
    (folder / "a.json").write_text(json.dumps(leaf({"ann": user})), encoding="utf-8")
    with pytest.raises(fed.DataError, match=r"a.json', client 'ann', field 'y': integers must fit into 64 bits"):
        from_leaf_json(folder / "a.json")
    with pytest.raises(fed.DataError, match="field 'y': integers must fit into 64 bits"):
        from_arrays({"y": labels}, client=["a", "b"])
    assert from_arrays({"y": [-1.0, 2.0**64]}, client=["a", "b"]).client_ids == ["a", "b"]
