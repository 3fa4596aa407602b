"""Client data: TFF's interface, choices and words."""

import pickle

import numpy as np
import pytest
from conftest import digits

import fedsim_np as fed
from fedsim_np.datasets import ArraySpec, ClientData, Dataset, InMemoryClientData

IDS = [f"f{i:04d}_{i:02d}" for i in range(20)]


@pytest.fixture
def numbered():
    return InMemoryClientData({client_id: {"x": [i]} for i, client_id in enumerate(IDS)})


def firsts(datasets):
    return [int(next(iter(dataset))["x"]) for dataset in datasets]


def test_random_choices_are_tffs(numbered, tff_figures):
    choices = tff_figures["choices"]
    assert firsts(numbered.datasets(seed=7)) == choices["datasets_seed_7"]
    assert firsts(numbered.datasets(limit_count=4, seed=[1, 2, 3])) == choices["datasets_limit_4_seed_list"]
    pooled = numbered.create_dataset_from_all_clients(seed=5)
    assert [int(e["x"]) for e in pooled] == choices["all_clients_seed_5"]
    split = ClientData.train_test_client_split(numbered, 6, seed=3)
    assert [part.client_ids for part in split] == choices["split_6_seed_3"]


def test_the_list_of_ids_is_the_callers_own(numbered):
    numbered.client_ids.clear()
    assert numbered.client_ids == IDS


def test_structure_and_datasets():
    data = digits([3, 0, 2])
    assert dict(data.element_type_structure) == {
        "label": ArraySpec((), np.int32),
        "pixels": ArraySpec((28, 28), np.float32),
    }
    example = next(iter(data.create_dataset_for_client("f0000_00")))
    assert example["pixels"].shape == (28, 28)
    assert example["label"].shape == ()
    assert data.create_dataset_for_client("f0001_01").num_examples == 0


def test_all_clients_are_read_one_by_one_and_can_be_batched(numbered):
    pooled = numbered.create_dataset_from_all_clients(seed=5).repeat(2).shuffle(10, seed=1).batch(8)
    assert pooled.num_examples == 40
    assert sorted(np.concatenate([b["x"] for b in pooled])) == sorted([*range(20)] * 2)
    assert pickle.loads(pickle.dumps(pooled)).num_examples == 40


def test_preprocess(numbered):
    doubled = numbered.preprocess(lambda dataset: dataset.repeat(2).batch(2))
    assert doubled.client_ids == IDS
    assert doubled.element_type_structure["x"] == ArraySpec((None,), np.int32)
    assert [b["x"].tolist() for b in doubled.create_dataset_for_client(IDS[3])] == [[3, 3]]
    assert doubled.create_dataset_from_all_clients(seed=1).num_examples == 40
    with pytest.raises(TypeError, match="'preprocess_fn' must be a callable"):
        numbered.preprocess(3)


def test_split_skips_clients_without_data_and_keeps_them_for_training(caplog):
    data = digits([0, 2, 0, 2, 0, 2])
    train, test = ClientData.train_test_client_split(data, 2, seed=1)
    assert all(test.create_dataset_for_client(c).num_examples for c in test.client_ids)
    assert sorted(train.client_ids + test.client_ids) == data.client_ids
    pickle.loads(pickle.dumps(train)).create_dataset_for_client(train.client_ids[0])
    with pytest.raises(ValueError, match="Encountered too many clients with no data"):
        ClientData.train_test_client_split(data, 4, seed=1)
    assert "had no data, skipping" in caplog.text


def test_tffs_words(numbered):
    with pytest.raises(
        ValueError, match=r"ID \[nobody\] is not a client in this ClientData. See property `client_ids`"
    ):
        numbered.create_dataset_for_client("nobody")
    with pytest.raises(ValueError, match="Please specify num_test_clients > 0"):
        ClientData.train_test_client_split(numbered, 0)
    with pytest.raises(ValueError, match="has only 20 clients, but 20 test clients were requested"):
        ClientData.train_test_client_split(numbered, 20)
    with pytest.raises(ValueError, match="At least one client_id is required"):
        ClientData.from_clients_and_fn([], lambda client_id: None)
    for use in (numbered.datasets, numbered.create_dataset_from_all_clients):
        for seed in (-1, 2**32, 0.5, [1, -1], "7x"):
            with pytest.raises(TypeError, match="must be a nonnegative 32-bit integer"):
                use(seed=seed)


def test_from_clients_and_fn_knows_its_clients():
    data = ClientData.from_clients_and_fn(["a", "b"], lambda client_id: Dataset.from_arrays({"x": [1]}, client_id))
    assert data.create_dataset_for_client("b").client_id == "b"
    with pytest.raises(ValueError, match=r"ID \[c\] is not a client"):
        data.create_dataset_for_client("c")


@pytest.mark.parametrize(
    ("clients", "error", "message"),
    [
        ({}, fed.DataError, "there must be at least one client"),
        ([], TypeError, "'client_arrays' must be a mapping"),
        ({1: {"x": [1]}}, TypeError, "keyed by str"),
        ({"a": [1]}, fed.DataError, "client 'a': a client's data must be a mapping"),
        ({"a": {"x": [1]}, "b": {"y": [1]}}, fed.DataError, "client 'b': all clients must have the structure"),
        ({"a": {"x": [1]}, "b": {"x": [0.5]}}, fed.DataError, "client 'b': all clients must have the structure"),
    ],
)
def test_bad_clients(clients, error, message):
    with pytest.raises(error, match=message):
        InMemoryClientData(clients)


def test_clients_in_memory_are_finite():
    with pytest.raises(fed.DataError, match=r"client 'b', field 'x': values must be finite. Got inf at index \(1,\)"):
        InMemoryClientData({"a": {"x": [0.5]}, "b": {"x": [0.5, float("inf")]}})


def test_client_ids_are_put_back_where_a_function_loses_them(numbered):
    made = ClientData.from_clients_and_fn(["a"], lambda client_id: Dataset.from_arrays({"x": [1]}))
    assert made.create_dataset_for_client("a").client_id == "a"
    rebuilt = numbered.preprocess(lambda dataset: Dataset.from_batches([{"y": [1, 2]}]))
    assert rebuilt.create_dataset_for_client(IDS[2]).client_id == IDS[2]


def test_all_clients_of_fixed_batches_are_counted_right():
    data = digits([5, 4]).preprocess(lambda dataset: dataset.batch(2, drop_remainder=True))
    pooled = data.create_dataset_from_all_clients(seed=1)
    assert pooled.num_examples == 8
    assert pooled.to_arrays()["label"].shape == (8,)
