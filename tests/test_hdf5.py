"""HDF5 files: what is written is read, lazily, in any process, and everything broken is named."""

import multiprocessing
import os
import pickle
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from conftest import digits
from test_forking import a_thread_within

import fedsim_np as fed
from fedsim_np.datasets import Field, HDF5ClientData, InMemoryClientData, Schema, emnist, hdf5, write_hdf5
from fedsim_np.datasets.hdf5 import SCHEMA


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
    with pytest.raises(fed.DataError, match="nowhere.h5': must exist. Got no such file"):
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
        data.create_dataset_for_client("ann")


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
    monkeypatch.setattr(hdf5, "_check_stored", lambda *arguments, **place: checked.append(place))
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
