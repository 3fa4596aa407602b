"""HDF5 files: what is written is read, lazily, in any process, and everything broken is named."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
import weakref
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from conftest import digits
from hypothesis import given
from hypothesis import strategies as st
from test_forking import a_thread_within

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.datasets import (
    Field,
    HDF5ClientData,
    InMemoryClientData,
    Schema,
    check_hdf5,
    emnist,
    hdf5,
    hdf5_check,
    write_hdf5,
)
from fedsim_np.datasets.hdf5_arrays import StoredArray, check_stored, reader
from fedsim_np.datasets.hdf5_file import SCHEMA


def write_file(path, clients):
    """A file by plain h5py: client id -> field -> array."""
    with h5py.File(path, "w") as file:
        for client_id, fields in clients.items():
            group = file.create_group(f"examples/{client_id}")
            for name, values in fields.items():
                group.create_dataset(name, data=values)
    return path


def good(n=3):
    return {"label": np.arange(n, dtype=np.int32), "pixels": np.full((n, 28, 28), 0.5, np.float32)}


def test_round_trip_and_tffs_layout(folder):
    data, path = digits([4, 0, 7]), folder / "a b.h5"
    write_hdf5(path, data)
    with h5py.File(path) as file:  # as TFF read it: examples/<client id>/<field>
        assert sorted(file["examples"]) == data.client_ids
        for client_id in data.client_ids:
            assert file["examples"][client_id]["pixels"].dtype == np.float32
    with HDF5ClientData(path, emnist.DIGITS) as read:
        assert read.client_ids == data.client_ids
        assert read.element_type_structure == data.element_type_structure
        for client_id in data.client_ids:
            expected = data.create_dataset_for_client(client_id).to_arrays()
            got = read.create_dataset_for_client(client_id).to_arrays()
            for name, values in expected.items():
                np.testing.assert_array_equal(got[name], values)
                assert got[name].dtype == values.dtype
                assert not got[name].flags.writeable
    assert [p.name for p in folder.iterdir()] == ["a b.h5"]


def test_preprocessed_data_can_be_written(folder):
    data = digits([4, 3]).preprocess(lambda d: d.batch(2).map(lambda b: {"x": b["pixels"].reshape(-1, 784)}))
    write_hdf5(folder / "x.h5", data)
    assert HDF5ClientData(folder / "x.h5").create_dataset_for_client("f0001_01").to_arrays()["x"].shape == (3, 784)


def test_a_failed_write_leaves_the_old_file(folder):
    path = folder / "kept.h5"
    write_hdf5(path, digits([2]))
    before = path.read_bytes()
    for bad in ("a/b", ".", ""):
        with pytest.raises(fed.DataError, match="a client's id must be a name in HDF5"):
            write_hdf5(path, InMemoryClientData({bad: {"x": [1]}}))
    assert path.read_bytes() == before
    assert [p.name for p in folder.iterdir()] == ["kept.h5"]


def test_opening_and_making_a_dataset_read_no_pixels(folder, monkeypatch):
    path = write_file(folder / "a.h5", {"ann": good()})
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("read values"))
    dataset = HDF5ClientData(path).create_dataset_for_client("ann").repeat(2).shuffle(9, seed=1).batch(2)
    assert dataset.num_examples == 6
    assert dataset.element_spec["pixels"].shape == (None, 28, 28)


def test_values_are_read_once(folder):
    path = write_file(folder / "a.h5", {"ann": good()})
    data = HDF5ClientData(path)
    dataset = data.create_dataset_for_client("ann")
    derived = dataset.batch(2)
    list(derived)
    data.close()
    assert len(list(derived.batches())) == 2
    assert len(list(dataset)) == 3


def test_closed(folder):
    with HDF5ClientData(write_file(folder / "a.h5", {"ann": good()})) as data:
        unread = data.create_dataset_for_client("ann")
    for use in (lambda: data.create_dataset_for_client("ann"), lambda: list(unread)):
        with pytest.raises(fed.DataError, match=r"a\.h5'.*: must be open to be read"):
            use()
    data.close()


def _sum_of_labels(dataset):
    return int(dataset.to_arrays()["label"].sum())


def test_other_processes_open_the_file_themselves(folder):
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": good(3), "bob": good(4)}))
    datasets = [data.create_dataset_for_client(c) for c in data.client_ids]
    list(datasets[0])
    assert len(pickle.dumps(datasets[0])) < 1000  # a description, whether or not it has been read
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_sum_of_labels, datasets)) == [3, 6]
    assert pickle.loads(pickle.dumps(data)).client_ids == ["ann", "bob"]


def test_threads_share_a_file(folder):
    data = HDF5ClientData(write_file(folder / "a.h5", {f"c{i}": good(3) for i in range(20)}))
    sums = []
    threads = [
        threading.Thread(target=lambda c=c: sums.append(_sum_of_labels(data.create_dataset_for_client(c))))
        for c in data.client_ids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [3] * 20


def test_labels_may_be_a_column_and_clients_empty(folder):
    column = {**good(), "label": np.arange(3, dtype=np.int32)[:, None]}
    big_endian = {"label": np.arange(3, dtype=">i4"), "pixels": np.zeros((3, 28, 28), ">f4")}
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": column, "bob": good(0), "cid": big_endian}))
    assert data.create_dataset_for_client("ann").to_arrays()["label"].tolist() == [0, 1, 2]
    assert data.create_dataset_for_client("bob").num_examples == 0
    assert list(data.create_dataset_for_client("bob").batch(2)) == []
    assert data.create_dataset_for_client("cid").to_arrays()["label"].dtype == np.dtype("=i4")


def test_other_data_follow_the_generic_rules(folder):
    table = {"a": np.arange(3.0), "b": np.zeros((3, 2), np.int64)}
    path = write_file(
        folder / "t.h5", {"ann": table, "bob": {**table, "a": np.array([0, np.inf, 0])}, "cid": {"a": np.arange(3.0)}}
    )
    data = HDF5ClientData(path)
    assert data.create_dataset_for_client("ann").to_arrays()["b"].shape == (3, 2)
    with pytest.raises(fed.DataError, match="'bob', field 'a': values must be finite. Got inf at index \\(1,\\)"):
        list(data.create_dataset_for_client("bob"))
    with pytest.raises(fed.DataError, match="client 'cid', field 'b': must be there"):
        data.create_dataset_for_client("cid")


def test_a_stated_schema_counts(folder):
    path = write_file(folder / "a.h5", {"ann": {**good(), "label": np.array([0, 10, 61], np.int32)}})
    list(HDF5ClientData(path).create_dataset_for_client("ann"))
    with pytest.raises(fed.DataError, match=r"field 'label': values must lie in \[0, 9\]. Got 10 at index \(1,\)"):
        list(HDF5ClientData(path, emnist.DIGITS).create_dataset_for_client("ann"))
    only_label = HDF5ClientData(path, Schema({"label": Field((), "int32", 0, 61)}))
    assert list(only_label.element_type_structure) == ["label"]
    with pytest.raises(TypeError, match="'schema' must be a Schema"):
        HDF5ClientData(path, {"label": "int32"})


def spoiled(**changes):
    fields = {**good(), **changes}
    return {"ann": {name: values for name, values in fields.items() if values is not None}, "bob": good()}


def pixels_with(value):
    pixels = np.zeros((3, 28, 28), np.float32)
    pixels[1, 2, 3] = value
    return pixels


BAD_CLIENTS = {
    "no labels": (spoiled(label=None), "field 'label': must be there. Got only \\['pixels'\\]"),
    "no pixels": (spoiled(pixels=None), "field 'pixels': must be there"),
    "different lengths": (spoiled(label=np.zeros(2, np.int32)), "all fields must have the same length"),
    "wrong dtype": (spoiled(pixels=np.zeros((3, 28, 28))), "'pixels': must have dtype float32. Got float64"),
    "labels of floats": (spoiled(label=np.zeros(3, np.float32)), "'label': must have dtype int32. Got float32"),
    "text": (spoiled(label=np.array([b"a", b"b", b"c"])), "'label': must hold numbers"),
    "wrong shape": (
        spoiled(pixels=np.zeros((3, 784), np.float32)),
        "must have shape \\(n, 28, 28\\). Got \\(3, 784\\)",
    ),
    "scalar": (spoiled(label=np.int32(3)), "'label': must have shape \\(n,\\). Got \\(\\)"),
    "label too large": (spoiled(label=np.array([0, 62, 1], np.int32)), "\\[0, 61\\]. Got 62 at index \\(1,\\)"),
    "label negative": (spoiled(label=np.array([0, 1, -1], np.int32)), "\\[0, 61\\]. Got -1 at index \\(2,\\)"),
    "NaN": (spoiled(pixels=pixels_with(np.nan)), "'pixels': values must be finite. Got nan at index \\(1, 2, 3\\)"),
    "infinite": (spoiled(pixels=pixels_with(-np.inf)), "values must be finite. Got -inf at index \\(1, 2, 3\\)"),
    "too bright": (spoiled(pixels=pixels_with(1.5)), "values must lie in \\[0, 1\\]. Got 1.5 at index \\(1, 2, 3\\)"),
    "too dark": (spoiled(pixels=pixels_with(-0.5)), "values must lie in \\[0, 1\\]. Got -0.5"),
}


@pytest.mark.parametrize("name", BAD_CLIENTS)
def test_a_bad_client_is_named_and_the_others_can_be_read(folder, name):
    clients, message = BAD_CLIENTS[name]
    path = write_file(folder / "bad.h5", clients)
    data = HDF5ClientData(path)
    with pytest.raises(fed.DataError, match=message) as caught:
        list(data.create_dataset_for_client("ann"))
    assert str(path) in str(caught.value)
    assert "client 'ann'" in str(caught.value)
    assert len(list(data.create_dataset_for_client("bob"))) == 3


def test_no_such_file(folder):
    with pytest.raises(fed.DataError, match="nowhere.h5' does not exist"):
        HDF5ClientData(folder / "nowhere.h5")


def test_not_hdf5(folder):
    path = folder / "text.h5"
    for content in (b"", b"label,pixels\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(fed.DataError, match="text.h5': must be a whole HDF5 file"):
            HDF5ClientData(path)
    with pytest.raises(fed.DataError, match="must be a whole HDF5 file"):
        HDF5ClientData(folder)


def test_truncated(folder):
    whole = write_file(folder / "whole.h5", {f"c{i}": good(30) for i in range(5)}).read_bytes()
    path = folder / "part.h5"
    for part in (0.9, 0.5, 0.01):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(fed.DataError, match="part.h5'"):
            HDF5ClientData(path)


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bytes_are_read_or_refused(folder, seed):
    path, rng = folder / "a.h5", np.random.RandomState(seed)
    write_hdf5(path, digits([6, 7]))
    whole = bytearray(path.read_bytes())
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.randint(0, len(whole), 8):
            damaged[place] ^= 1 << rng.randint(8)
        path.write_bytes(damaged)
        try:
            with HDF5ClientData(path) as data:
                for client_id in data.client_ids:
                    list(data.create_dataset_for_client(client_id))
        except fed.DataError as error:
            assert "a.h5" in str(error)  # noqa: PT017
        path.unlink()


def create(file, name, shape, **keywords):
    return file.create_dataset(f"examples/ann/{name}", shape, "f4", **keywords)


def partly(file):
    create(file, "x", (30, 2), chunks=(10, 2))[:10] = 1


def elsewhere(file, folder):
    layout = h5py.VirtualLayout(shape=(3,), dtype="f4")
    layout[:] = h5py.VirtualSource(str(folder / "gone.h5"), "x", shape=(3,))
    file.create_virtual_dataset("examples/ann/x", layout, fillvalue=0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file, _: create(file, "x", (10**6, 28, 28), chunks=True), "bytes claimed by one of"),
        (lambda file, _: create(file, "x", (10**11, 2), chunks=True), "bytes claimed by one of"),
        (lambda file, _: create(file, "x", (3,), maxshape=(None,), chunks=(10**8,)), "bytes claimed by one of"),
        (lambda file, _: create(file, "x", (3, 2), chunks=True), "some that never were"),
        (lambda file, _: create(file, "x", (3, 2)), "some that never were"),
        (lambda file, _: partly(file), "some that never were"),
        (lambda file, _: create(file, "x", (10**9, 0)), "an example must have values"),
        (elsewhere, "values must be stored in the file itself. Got a reference to others"),
        (lambda file, folder: create(file, "x", (3,), external=[(str(folder / "odd.h5"), 0, 12)]), "a reference to"),
    ],
)
def test_values_that_a_header_claims_and_the_file_has_not(folder, make, message):
    path = folder / "odd.h5"
    with h5py.File(path, "w") as file:
        make(file, folder)
    data = HDF5ClientData(path)
    with pytest.raises(fed.DataError, match=f"client 'ann', field 'x': .*{message}"):
        list(data.create_dataset_for_client("ann"))


def test_names_that_are_no_text(folder):
    for name in (b"caf\xe9", b"a\x07b"):
        with h5py.File(folder / "odd.h5", "w") as file:
            h5py.h5g.create(file.create_group("examples").id, name)
        with pytest.raises(fed.DataError, match="odd.h5': a client's id must be printable UTF-8"):
            HDF5ClientData(folder / "odd.h5")


def test_what_a_schema_does_not_name_is_ignored(folder):
    path = write_file(folder / "a.h5", {"ann": {**good(), "name": ["a"]}})
    with h5py.File(path, "a") as file:
        file.create_group("examples/ann/more")
        file.create_dataset("examples/ann/nothing", data=h5py.Empty("i4"))
    assert len(list(HDF5ClientData(path).create_dataset_for_client("ann"))) == 3


def test_big_endian_tables(folder):
    path = write_file(folder / "a.h5", {"ann": {"x": np.arange(3, dtype=">f8")}})
    assert HDF5ClientData(path).create_dataset_for_client("ann").to_arrays()["x"].tolist() == [0, 1, 2]


def test_only_numbers_are_written(folder):
    for values in (np.array(["a"]), np.array([None]), np.array(["2000-01-01"], "M8[D]")):
        with pytest.raises(fed.DataError, match="client 'ann', field 'x': must hold numbers"):
            write_hdf5(folder / "x.h5", InMemoryClientData({"ann": {"x": values}}))
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_even_if_a_thread_was_opening(folder):
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": good(3)}))
    with a_thread_within(data._file._lock):
        child = os.fork()
        if not child:
            os._exit(_sum_of_labels(data.create_dataset_for_client("ann")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert _sum_of_labels(data.create_dataset_for_client("ann")) == 3


@pytest.mark.parametrize("item", [h5py.Group, h5py.Empty("i4")])
def test_fields_that_are_no_arrays(folder, item):
    path = write_file(folder / "a.h5", {"ann": good(), "bob": good()})
    with h5py.File(path, "a") as file:
        del file["examples/ann/label"]
        if item is h5py.Group:
            file.create_group("examples/ann/label")
        else:
            file["examples/ann/label"] = item
    with pytest.raises(fed.DataError, match="client 'ann', field 'label': must be an array. Got (a group|no values)"):
        HDF5ClientData(path).create_dataset_for_client("ann")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "must have a group 'examples'. Got none"),
        (lambda file: file.create_dataset("examples", data=[1]), "Got something else by that name"),
        (lambda file: file.create_group("examples"), "must have at least one client"),
        (lambda file: file.create_dataset("examples/ann", data=[1]), "client 'ann': must have a group 'ann'"),
        (lambda file: file.create_group("examples/ann"), "client 'ann': must have a field"),
        (lambda file: file.create_group("examples/ann/label"), "client 'ann': must have a field"),
        (lambda file: file.create_dataset("examples/ann/x", data=["a"]), "field 'x': must hold numbers"),
        (lambda file: file.create_dataset("examples/ann/x", (2,), [("a", "i4")]), "field 'x': must hold numbers"),
    ],
)
def test_other_layouts(folder, make, message):
    path = folder / "odd.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(fed.DataError, match=message):
        HDF5ClientData(path)


# --- what leads out of a file, and what a file says of itself


@pytest.mark.parametrize("where", ["the group", "a client", "an array"])
@pytest.mark.parametrize("kind", ["a pipe", "another file", "an alias"])
def test_links_are_not_followed(folder, where, kind):
    """An external link to a pipe would be waited for without end."""
    write_file(folder / "other.h5", {"zoe": good()})
    target = folder / "other.h5"
    if kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes with names on this system")
        target = folder / "pipe"
        os.mkfifo(target)
    path = {"the group": "examples", "a client": "examples/zoe", "an array": "examples/zoe/pixels"}[where]
    link = h5py.SoftLink("/examples/bob") if kind == "an alias" else h5py.ExternalLink(str(target), path)
    write_file(folder / "a.h5", {name: good() for name in ("ann", "bob", "cid", "zoe")})
    with h5py.File(folder / "a.h5", "r+") as file:
        del file[path]
        file[path] = link
    with pytest.raises(fed.DataError, match="must be stored in the file itself. Got a link"):
        HDF5ClientData(folder / "a.h5").create_dataset_for_client("zoe")
    if where != "the group":
        assert len(list(HDF5ClientData(folder / "a.h5").create_dataset_for_client("bob"))) == 3


@pytest.mark.parametrize(
    ("pixels", "label"),
    [
        (np.zeros((3, 8, 8), np.float32), np.arange(3, dtype=np.int32)),
        (np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.int32)),
        (np.zeros((3, 28, 28), np.float32), np.arange(3, dtype=np.int64)),
    ],
)
def test_images_that_are_not_emnists_can_be_read_again(folder, pixels, label):
    arrays = {"pixels": pixels, "label": label}
    write_hdf5(folder / "a.h5", InMemoryClientData({"ann": arrays}))
    read = HDF5ClientData(folder / "a.h5").create_dataset_for_client("ann").to_arrays()
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)
    with pytest.raises(fed.DataError, match="field '(pixels|label)': must have"):
        HDF5ClientData(folder / "a.h5", emnist.CHARACTERS).create_dataset_for_client("ann")


def test_a_field_that_is_missing_is_said_beside_those_that_are_there(folder):
    path = write_file(folder / "a.h5", {"ann": {"lable": np.zeros(3, np.int32), "pixels": good()["pixels"]}})
    with pytest.raises(fed.DataError, match=r"'label': must be there. Got only \['lable', 'pixels'\]"):
        HDF5ClientData(path, emnist.DIGITS).create_dataset_for_client("ann")


@pytest.mark.parametrize("value", [np.zeros(0), 3, np.zeros(1, [("a", "i4")]), "another"])
def test_an_attribute_of_somebody_else_changes_nothing(folder, value):
    path = write_file(folder / "a.h5", {"ann": {**good(), "label": np.array([0, 1, 99], np.int32)}})
    with h5py.File(path, "r+") as file:
        file.attrs[SCHEMA] = value
    with pytest.raises(fed.DataError, match=r"values must lie in \[0, 61\]. Got 99"):
        list(HDF5ClientData(path).create_dataset_for_client("ann"))


def test_what_has_been_read_is_kept_within_a_budget(folder, monkeypatch):
    path = write_file(folder / "a.h5", {name: good() for name in ("ann", "bob", "cem")})
    one = sum(column.nbytes for column in HDF5ClientData(path).create_dataset_for_client("ann").to_arrays().values())

    def columns(data, name):
        return data.create_dataset_for_client(name).to_arrays()["pixels"]

    data = HDF5ClientData(path)
    first = {name: columns(data, name) for name in data.client_ids}
    checked = []
    monkeypatch.setattr(hdf5, "check_stored", lambda *arguments, **place: checked.append(place) or 0)
    assert all(columns(data, name) is first[name] for name in data.client_ids)
    data = HDF5ClientData(path, cache_bytes=2 * (one + 2000))
    first = {name: columns(data, name) for name in ("ann", "bob", "ann", "cem")}  # bob is out
    assert [columns(data, name) is first[name] for name in ("ann", "cem", "bob")] == [True, True, False]
    assert len(checked) == 2 * 3  # each client's two fields once
    data = HDF5ClientData(path, cache_bytes=0)
    assert columns(data, "ann") is not columns(data, "ann")
    assert pickle.loads(pickle.dumps(HDF5ClientData(path, cache_bytes=5)))._kept.budget == 5
    with pytest.raises(ValueError, match="'cache_bytes' must be an integer >= 0"):
        HDF5ClientData(path, cache_bytes=-1)


def test_what_is_kept_goes_with_its_client_data(folder):
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": good()}))
    data.create_dataset_for_client("ann").to_arrays()
    source = weakref.ref(data.create_dataset_for_client("ann")._source)
    assert source() is not None
    del data
    assert source() is None


def test_what_is_read_after_closing_is_not_kept(folder):
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": good()}))
    dataset = data.create_dataset_for_client("ann")
    with ThreadPoolExecutor(1) as threads:
        dataset._source.load_ahead(threads.submit)
    data.close()
    assert len(dataset.to_arrays()["label"]) == 3
    with pytest.raises(fed.DataError, match="must be open"):
        data.create_dataset_for_client("ann")


# --- what is stored in pieces is unpacked here


@st.composite
def stored_arrays(draw):
    """Values, and how h5py stores them."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(["?", "u1", "i1", "<u2", ">i2", "<f2", "<f4", ">f4", "<i8", ">f8"])))
    bits = np.random.RandomState(draw(st.integers(0, 99))).randint(
        0, draw(st.sampled_from([2, 256])), (*shape, dtype.itemsize)
    )
    values = bits.astype("u1").view(dtype).reshape(shape)
    if dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 1).astype(dtype)  # which others are refused
    how = {"chunks": tuple(draw(st.integers(1, n)) for n in shape) if draw(st.booleans()) else shape}
    if draw(st.booleans()):
        how = {"chunks": tuple(draw(st.integers(1, 50)) for _ in shape), "maxshape": (None,) * len(shape)}
    how["compression"] = draw(st.sampled_from([None, "gzip"]))
    how["shuffle"], how["fletcher32"] = draw(st.booleans()), draw(st.booleans())
    how["fillvalue"] = draw(st.sampled_from([None, 1]))
    return values, draw(st.sampled_from([{}, how, how, how]))


@given(stored_arrays(), st.sampled_from(["earliest", "latest"]))
def test_pieces_are_read_as_h5py_reads_them(tmp_path_factory, stored, libver):
    values, how = stored
    path = tmp_path_factory.mktemp("pieces") / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("examples/ann/x", data=values, **how)
    with h5py.File(path) as file, HDF5ClientData(path) as data:
        expected = file["examples/ann/x"][()]
        read = data.create_dataset_for_client("ann").to_arrays()["x"]
        ahead = data.create_dataset_for_client("ann")
        with ThreadPoolExecutor(2) as threads:
            ahead._source.load_ahead(threads.submit)
            assert ahead.to_arrays()["x"].tobytes() == read.tobytes()
    assert read.dtype == expected.dtype.newbyteorder("=")
    assert read.astype(expected.dtype).tobytes() == expected.tobytes()


def test_a_filter_that_a_piece_goes_without(folder):
    values = np.arange(12, dtype="f4").reshape(6, 2)
    with h5py.File(folder / "a.h5", "w") as file:
        made = create(file, "x", (6, 2), chunks=(3, 2), compression="gzip", shuffle=True)
        shuffled = values[:3].view("u1").reshape(-1, 4).T.tobytes()
        made.id.write_direct_chunk((0, 0), shuffled, filter_mask=2)
        made.id.write_direct_chunk((3, 0), zlib.compress(values[3:].tobytes()), filter_mask=1)
    np.testing.assert_array_equal(
        HDF5ClientData(folder / "a.h5").create_dataset_for_client("ann").to_arrays()["x"], values
    )


def with_filter(*filters, dtype="i4"):
    """Make a file by h5py's lower level, which takes any filter."""

    def make(file):
        values = np.arange(64, dtype=dtype)
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((64,))
        for code, parameters in filters:
            layout.set_filter(code, h5py.h5z.FLAG_OPTIONAL, parameters)
        group, space = file.create_group("examples/ann").id, h5py.h5s.create_simple((64,))
        h5py.h5d.create(group, b"x", h5py.h5t.py_create(values.dtype), space, layout).write(
            h5py.h5s.ALL, h5py.h5s.ALL, values
        )

    return make


def of_12_bits(file):
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    space = h5py.h5s.create_simple((3,))
    h5py.h5d.create(file.create_group("examples/ann").id, b"x", kind, space).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype="i2")
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            with_filter((h5py.h5z.FILTER_NBIT, ())),
            "have no filters but gzip, shuffle, fletcher32. Got filter 5, 'nbit'",
        ),
        (with_filter((h5py.h5z.FILTER_SCALEOFFSET, (2, 0))), "have no filters but .* Got filter 6, 'scaleoffset'"),
        (with_filter((h5py.h5z.FILTER_LZF, ())), "have no filters but .* Got filter 32000, 'lzf'"),
        (with_filter(*[(h5py.h5z.FILTER_DEFLATE, (4,))] * 2), "have no filters but .* Got one twice"),
        (of_12_bits, "be stored in a type that NumPy has. Got another one, like int16"),
    ],
)
def test_what_only_hdf5_could_unpack_is_refused_by_name(folder, make, message):
    with h5py.File(folder / "odd.h5", "w") as file:
        make(file)
    data = HDF5ClientData(folder / "odd.h5")
    with pytest.raises(fed.DataError, match=f"client 'ann', field 'x': values must {message}"):
        data.create_dataset_for_client("ann")


def stream(folder, raw, shape=(98, 250), **how):
    path = folder / "odd.h5"
    with h5py.File(path, "w") as file:
        create(file, "x", shape, chunks=shape, **how).id.write_direct_chunk((0,) * len(shape), raw)
    return HDF5ClientData(path).create_dataset_for_client("ann")


@pytest.mark.parametrize("declared", [98_000, 980])
def test_a_stream_is_unpacked_as_far_as_declared(folder, declared):
    dataset = stream(folder, zlib.compress(bytes(2**24)), (declared // 4,), compression="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(
            fed.DataError, match=f"odd.h5', client 'ann', field 'x'.* a gzipped piece that is not of {declared}"
        ):
            list(dataset)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("raw", "how", "message"),
    [
        (zlib.compress(bytes(97_996)), {"compression": "gzip"}, "a gzipped piece that is not of 98000 bytes"),
        (zlib.compress(bytes(98_000))[:-1], {"compression": "gzip"}, "a gzipped piece that is not of 98000 bytes"),
        (zlib.compress(bytes(98_000))[:-4] + b"sums", {"compression": "gzip"}, "incorrect data check"),
        (bytes(98_000) + b"sums", {"fletcher32": True}, "a piece with another checksum than its bytes have"),
        (zlib.compress(bytes(98_000)), {"compression": "gzip", "fletcher32": True}, "another checksum"),
    ],
)
def test_damaged_pieces(folder, raw, how, message):
    with pytest.raises(fed.DataError, match=f"odd.h5', client 'ann', field 'x': values must be .*{message}"):
        list(stream(folder, raw, **how))


class Uncounted:
    """An array's identifier without what HDF5 finds by going through all pieces, in a damaged file without end."""

    def __init__(self, identifier):
        self._identifier = identifier

    def __getattr__(self, name):
        forbidden = ("get_num_chunks", "get_chunk_info", "get_chunk_info_by_coord", "chunk_iter", "get_storage_size")
        return pytest.fail(name) if name in forbidden else getattr(self._identifier, name)


def test_pieces_are_not_counted_by_hdf5(folder):
    values = np.arange(60, dtype="f4").reshape(30, 2)
    with h5py.File(folder / "a.h5", "w") as file:
        made = file.create_dataset("x", data=values, chunks=(7, 2), compression="gzip")
        stored = StoredArray(Uncounted(made.id))
        assert check_stored(stored, 5000) == values.nbytes
        np.testing.assert_array_equal(reader(stored, 5000)(), values)


def test_pieces_that_are_claimed_take_no_memory(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        made = create(file, "x", (10**6, 2), chunks=(1, 1), compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(4)))
        file.create_dataset("filler", data=np.zeros(10_000, "u1"))
    dataset = HDF5ClientData(folder / "a.h5").create_dataset_for_client("ann")
    tracemalloc.start()
    try:
        with pytest.raises(fed.DataError, match="some that never were"):
            list(dataset)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_pieces_that_are_all_the_same_bytes(folder):
    """Their sum is what is in memory at once."""
    with h5py.File(folder / "a.h5", "w") as file:
        made = file.create_dataset("x", data=np.arange(60), chunks=(20,))
        with pytest.raises(fed.DataError, match="field 'x': values must be stored once. Got pieces of more bytes than"):
            reader(StoredArray(made.id), 400, field="x")


def test_an_array_of_many_clients_counts_for_each(folder):
    path, piece = folder / "links.h5", zlib.compress(bytes(2**20))
    with h5py.File(path, "w") as file:
        made = create(file, "x", (64, 2**18), chunks=(1, 2**18), compression="gzip")
        for row in range(64):
            made.id.write_direct_chunk((row, 0), piece)
        for i in range(30):
            file[f"examples/c{i:02d}/x"] = made
    data = HDF5ClientData(path)
    for client_id in data.client_ids[:20]:
        assert data.create_dataset_for_client(client_id).num_examples == 64
    with pytest.raises(
        fed.DataError, match="client 'c19'.* at most 250 times the file's bytes, or 'cache_bytes'. Got more"
    ):
        data.create_dataset_for_client("c19")
    data.create_dataset_for_client("c18")
    for client_ids in (data.client_ids[::-1], data.client_ids[15:] + data.client_ids[:15]):  # in whatever order
        with HDF5ClientData(path) as data:
            refused = []
            for client_id in client_ids:
                try:
                    data.create_dataset_for_client(client_id)
                except fed.DataError:
                    refused.append(client_id)
            assert sorted(refused) == [f"c{i:02d}" for i in range(19, 30)]
    with HDF5ClientData(path, cache_bytes=2**31) as data:
        assert sum(data.create_dataset_for_client(client_id).num_examples for client_id in data.client_ids) == 64 * 31


def test_clients_within_their_share_are_read_alone(folder, monkeypatch):
    """However many there are: of a large one, all before it are looked at once, and those that are damaged left out."""
    sizes = {f"c{i}": 10 for i in range(8)} | {"c5": 4000}
    write_hdf5(folder / "a.h5", InMemoryClientData({c: {"x": np.zeros(n, np.int64)} for c, n in sizes.items()}))
    with h5py.File(folder / "a.h5", "r+") as file:
        del file["examples/c2/x"]
    monkeypatch.setattr(hdf5, "DEFAULT_CACHE_BYTES", 0)
    monkeypatch.setattr(hdf5, "_MOST_DECODED", 4)
    headers, real = [], HDF5ClientData._headers
    monkeypatch.setattr(
        HDF5ClientData, "_headers", lambda self, client_id: headers.append(client_id) or real(self, client_id)
    )
    with HDF5ClientData(folder / "a.h5", cache_bytes=0) as data:
        data.create_dataset_for_client("c7")
        assert headers == ["c7"]
        data.create_dataset_for_client("c5")
        assert headers == ["c7", "c5", *(f"c{i}" for i in range(6))]


def test_an_empty_client_with_room_for_many(folder):
    """Nothing of a piece is read where there is none."""
    for shape, how in (((0, 2), {"compression": "gzip"}), ((0, 2), {})):
        with h5py.File(folder / "a.h5", "w") as file:
            create(file, "x", shape, maxshape=(None, 2), chunks=(10**8, 2), **how)
        with HDF5ClientData(folder / "a.h5") as data:
            assert data.create_dataset_for_client("ann").to_arrays()["x"].shape == (0, 2)


def test_a_file_that_cannot_be_closed_in_peace(folder, monkeypatch):
    data = HDF5ClientData(write_file(folder / "a.h5", {"ann": good()}))
    close = h5py.File.close

    def fail(file):
        close(file)
        raise RuntimeError("can't decrement id ref count")

    monkeypatch.setattr(h5py.File, "close", fail)
    data.close()


# --- files that change


def same_size(path, first):
    """A file of two clients with that first label."""
    labels = np.full(3, first, np.int32)
    return write_file(path, {name: {"label": labels, "pixels": good()["pixels"]} for name in ("ann", "bob")})


def replaced(path, folder):
    os.replace(same_size(folder / "new.h5", 2), path)


def rewritten(path, folder):
    path.write_bytes(same_size(folder / "new.h5", 2).read_bytes())
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def touched(path, folder):
    os.utime(path, ns=(1, 1))


def copied(path, folder):
    shutil.copyfile(path, folder / "new.h5")
    os.replace(folder / "new.h5", path)


def removed(path, folder):
    path.unlink()


needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows does not let an open file be replaced")


@needs_posix
@pytest.mark.parametrize("change", [replaced, rewritten, touched, copied, removed])
def test_a_file_that_changes_while_it_is_read(folder, change):
    path = same_size(folder / "a.h5", 1)
    data = HDF5ClientData(path)
    ann, bob = (data.create_dataset_for_client(name) for name in data.client_ids)
    assert _sum_of_labels(ann) == 3
    change(path, folder)
    assert _sum_of_labels(ann) == 3  # was read before
    for read in (lambda: list(bob), lambda: list(data.create_dataset_for_client("bob")), lambda: pickle.dumps(bob)):
        with pytest.raises(fed.DataError, match="a.h5'.*: must stay as it was when it was opened"):
            read()


@needs_posix
@pytest.mark.parametrize("change", [replaced, rewritten, removed, touched, copied])
def test_who_is_sent_a_file_knows_it(folder, change):
    """Other processes open the file anew: another one is refused, a copy is not."""
    path = same_size(folder / "a.h5", 1)
    data = HDF5ClientData(path, cache_bytes=0)
    sent = pickle.dumps(data), pickle.dumps(data.create_dataset_for_client("bob"))
    change(path, folder)
    receive = (
        lambda: _sum_of_labels(pickle.loads(sent[0]).create_dataset_for_client("bob")),
        lambda: _sum_of_labels(pickle.loads(sent[1])),
        lambda: _sum_of_labels(data.create_dataset_for_client("bob")),
    )
    for read in receive:
        if change in (touched, copied):
            assert read() == 3
        else:
            with pytest.raises(fed.DataError, match=r"a.h5'.*: must stay as it was.*Got (another one|no such file)"):
                read()


@needs_posix
def test_a_round_of_workers_notices_another_file(folder):
    path = same_size(folder / "a.h5", 1)
    data = HDF5ClientData(path, cache_bytes=0)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        process = fed.learning.build_weighted_fed_avg(
            fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02), executor=pool
        )

        def cohort():
            datasets = [data.create_dataset_for_client(client_id).batch(2) for client_id in data.client_ids]
            return [dataset.select(x="pixels", y="label") for dataset in datasets]

        first = cohort()
        state, _ = process.next(process.initialize(), first)
        touched(path, folder)
        state, _ = process.next(state, first)
        replaced(path, folder)
        with pytest.raises(fed.DataError, match="a.h5'.*: must stay as it was when it was opened"):
            process.next(state, first)


# --- strangers' files, in a process of their own


def test_check_reads_a_file_whole(folder, capsys):
    fine, bad = same_size(folder / "fine.h5", 1), same_size(folder / "bad.h5", 99)
    schema = Schema({"label": Field((), "int32", 0, np.float32(0.5))})
    with pytest.raises(
        fed.DataError, match=r"fine.h5', client 'ann', field 'label': values must lie in \[0, 0.5\]. Got 1"
    ):
        check_hdf5(fine, schema)
    assert main(["data", "check", str(bad), str(fine)]) == 2
    out, error = capsys.readouterr()
    assert out == f"{fine}: fine, 2 clients, 6 examples\n"
    assert error.count("\n") == 1
    assert "bad.h5', client 'ann', field 'label': values must lie in [0, 61]. Got 99" in error


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("os.kill(os.getpid(), 11)", r"Got a crash \((SIGSEGV|status 0x.*)\)"),
        ("os._exit(3)", r"Got a crash \(status 0x3\)"),
        ("time.sleep(60)", "Got no end within 0.3 s"),
    ],
)
def test_check_survives_what_a_file_does_to_its_reader(folder, monkeypatch, does, message):
    path = same_size(folder / "a.h5", 1)
    script = f"import os, time; print('began', flush=True); {does}"
    monkeypatch.setattr(hdf5_check, "_CHILD", ("-c", script))
    with pytest.raises(fed.DataError, match=f"a.h5': must be readable by a process of its own. {message}"):
        check_hdf5(path, timeout=0.3 if "sleep" in does else 60.0)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there are no alarms")
def test_a_check_ends_though_its_parent_was_killed():
    """Nobody reads what it says, or ends it; HDF5 waits, and uses no time of the processor."""
    script = "import time; from fedsim_np.datasets import hdf5_check_child as child\n"
    script += "child.HDF5ClientData = lambda *a, **k: time.sleep(60)\nchild.main()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.communicate(pickle.dumps(("a.h5", None, -0.9, 2**32)), timeout=30)
    assert process.returncode == -signal.SIGALRM


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "a.h5")
    for read in (HDF5ClientData, check_hdf5):
        with pytest.raises(fed.DataError, match="a.h5': must be a file. Got a pipe or a device"):
            read(folder / "a.h5")


def test_check_says_if_it_could_not_begin(folder, monkeypatch):
    monkeypatch.setattr(hdf5_check, "_CHILD", ("-c", "import nothing_of_that_name"))
    with pytest.raises(RuntimeError, match="could not begin: .*nothing_of_that_name"):
        check_hdf5(folder / "a.h5")


@pytest.mark.skipif(sys.platform != "linux", reason="others do not limit memory")
def test_check_limits_memory(folder):
    write_hdf5(folder / "a.h5", InMemoryClientData({"ann": {"x": np.zeros((40, 2**18), np.float32)}}))
    with pytest.raises(fed.DataError, match="Got no end within 33554432 bytes of memory"):
        check_hdf5(folder / "a.h5", memory=2**25)


@pytest.mark.parametrize(("argument", "value"), [("timeout", 0), ("memory", 5), ("path", "")])
def test_check_names_its_arguments(argument, value):
    with pytest.raises(ValueError, match=f"'{argument}' must be"):
        check_hdf5(**{"path": "a.h5", argument: value})
