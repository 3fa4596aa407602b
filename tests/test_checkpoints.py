"""Checkpoints: whole or not at all, never run, and what does not fit is named."""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import tracemalloc
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model
from hypothesis import given, settings
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.program import FileProgramStateManager
from fedsim_np.program.serialization import describe_state, restore_state


class Pair(NamedTuple):
    left: object
    right: object


@dataclass(frozen=True)
class Box:
    value: object


def through_bytes(state, like=None):
    description, arrays = describe_state(state)
    text = json.dumps(description)
    return restore_state(json.loads(text), b"".join(a.tobytes() for a in arrays), state if like is None else like)


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, Box):
        assert_same(one.value, other.value)
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    elif isinstance(one, float):
        np.testing.assert_equal(one, other)
    else:
        assert one == other


ARRAYS = st.tuples(
    st.sampled_from(["float32", "float64", ">f4", "int8", "int64", "uint8", "bool"]),
    st.lists(st.integers(0, 3), max_size=3),
).map(
    lambda about: (np.arange(np.prod(about[1], dtype=int)).reshape(about[1]) % 2).astype(
        np.dtype(about[0]).newbyteorder("=")
    )
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    ARRAYS,
    ARRAYS.map(lambda a: a.sum(dtype=a.dtype)),
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(OrderedDict),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        inner.map(Box),
    ),
    max_leaves=8,
)


@given(STATES)
def test_a_state_comes_back_as_it_was(state):
    assert_same(through_bytes(state), state)


def test_what_fills_up_over_the_rounds_is_taken_as_it_is():
    filled = {"clients": {"ann": np.ones(2), "bob": (1, 2.5, None)}, "seen": ["ann"]}
    assert_same(through_bytes(filled, {"clients": {}, "seen": []}), filled)
    with pytest.raises(fed.DataError, match="the state at '/clients/ann' must be"):
        through_bytes({"clients": {"ann": Pair(1, 2)}}, {"clients": {}})  # whose class would that be?


@pytest.mark.parametrize(
    ("state", "like", "message"),
    [
        (np.zeros(3), np.zeros(2), "the state at '/' must be float64 of shape (2,). Got float64 of shape (3,)."),
        ((1, np.zeros(3, np.float32)), (1, np.zeros(3)), "at '/1' must be float64 of shape (3,). Got float32 of"),
        ((1, 2), (1, 2, 3), "must be a tuple of 3. Got a tuple of 2."),
        ([1], (1,), "must be a tuple of 1. Got a list of 1."),
        ({"a": 1}, {"b": 1}, "must be a mapping with the keys ['b']. Got a mapping with the keys ['a']."),
        (Pair(1, 2), Box(1), "must be Box with the fields ['value']. Got ['left', 'right']."),
        (Pair(1, 2), (1, 2), "must be a tuple of 2. Got one with named fields."),
        ({"a": 1}, Box(1), "must be Box with the fields ['value']. Got a mapping."),
        (1, 1.0, "must be of type float. Got 1."),
        (1, "1", "must be of type str. Got 1."),
        (True, 1, "must be of type int. Got True."),
        (np.zeros(1), 1.0, "must be of type float. Got float64 of shape (1,)."),
        ((1, 2), np.zeros(2), "must be float64 of shape (2,). Got a tuple of 2."),
    ],
)
def test_what_does_not_fit_is_named(state, like, message):
    with pytest.raises(fed.DataError) as caught:
        through_bytes(state, like)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": (1, object())}, "The state at '/a/1' cannot be stored: it must be arrays of numbers"),
        (np.array(["text"]), "The state at '/' cannot be stored"),
        (np.array([print], object), "Got an array of object."),
        ({1: 2}, "a mapping with keys that are no texts"),
        ({1, 2}, "Got a set."),
    ],
)
def test_what_cannot_be_stored_is_named(state, message):
    with pytest.raises(TypeError) as caught:
        describe_state(state)
    assert message in str(caught.value)


# --- files


def processes():
    """Processes whose states have everything that there is."""
    adam, momentum = fed.learning.optimizers.build_adam(0.1), sgd(0.1, 0.9)
    robust = fed.learning.aggregators.robust_aggregator()
    return {
        "fedavg": fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1)),
        "adam": fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1), adam),
        "robust": fed.learning.build_weighted_fed_avg(toy_model, momentum, momentum, model_aggregator=robust),
        "prox": fed.learning.build_weighted_fed_prox(toy_model, 0.5, sgd(0.1)),
        "sgd": fed.learning.build_fed_sgd(toy_model),
        "eval": fed.learning.build_fed_eval(toy_model),
    }


@pytest.mark.parametrize("name", sorted(processes()))
def test_a_process_goes_on_from_a_file_to_the_bit(name, folder):
    process, cohort = processes()[name], random_cohort([4, 3, 6], batch=2)
    manager = FileProgramStateManager(folder / "checkpoints")
    state = process.initialize()
    for version in range(1, 4):
        state = process.next(state, cohort).state
        manager.save(state, version)
    fresh = processes()[name]
    loaded, version = FileProgramStateManager(folder / "checkpoints").load_latest(fresh.initialize())
    assert version == 3
    assert pickle.dumps(loaded) == pickle.dumps(state) or str(loaded) == str(state)
    one, other = process.next(state, cohort), fresh.next(loaded, cohort)
    assert str(one.metrics) == str(other.metrics)
    describe = lambda s: [a.tobytes() for a in describe_state(s)[1]]  # noqa: E731
    assert describe(one.state) == describe(other.state)


def test_another_process_is_told_both_shapes(folder):
    manager = FileProgramStateManager(folder)
    manager.save(processes()["fedavg"].initialize(), 0)
    other = fed.learning.build_weighted_fed_avg(lambda: fed.learning.models.SoftmaxRegression(5, 3), sgd(0.1))
    with pytest.raises(fed.DataError, match=r"program_state_0': the state at .* shape \(5, 3\). Got .* shape \(4, 3\)"):
        manager.load_latest(other.initialize())
    with pytest.raises(fed.DataError, match="program_state_0': the state at '/finalizer"):
        manager.load_latest(processes()["adam"].initialize())


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({}, [0, 6, 7, 8, 9]),
        ({"keep_total": 0}, list(range(10))),
        ({"keep_total": 3}, [0, 8, 9]),
        ({"keep_total": 3, "keep_first": False}, [7, 8, 9]),
        ({"keep_total": 1}, [9]),
        ({"keep_total": 0, "keep_every_k": 4}, [0, 4, 8, 9]),
        ({"keep_total": 2, "keep_every_k": 4, "keep_first": False}, [8, 9]),
    ],
)
def test_what_is_kept(folder, arguments, kept):
    manager = FileProgramStateManager(folder, **arguments)
    for version in range(10):
        manager.save(version, version)
    assert manager.get_versions() == kept
    assert manager.load_latest(0) == (9, 9)


def test_a_folder_without_checkpoints(folder):
    manager = FileProgramStateManager(folder / "new" / "er")
    assert manager.get_versions() == []
    assert manager.load_latest(0) == (None, 0)
    (folder / "new" / "er" / "program_state_x").write_bytes(b"")
    (folder / "new" / "er" / "notes.txt").write_bytes(b"")
    assert manager.get_versions() == []


def damaged(content, seed):
    """A file with a few bytes changed, cut, or doubled."""
    rng = np.random.default_rng(seed)
    place, kind = int(rng.integers(len(content))), rng.integers(3)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :]
    return content[:place] + content[place : place + 7] + content[place:]


def test_a_damaged_newest_version_is_reported_and_the_one_before_is_used(folder, caplog):
    manager, state = FileProgramStateManager(folder), processes()["adam"].initialize()
    for version in (1, 2):
        manager.save(state, version)
    good = manager.path(2).read_bytes()
    for seed in range(200):
        bad = damaged(good, seed)
        if bad == good:
            continue
        manager.path(2).write_bytes(bad)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            _, version = manager.load_latest(state)
        assert version == 1
        assert "program_state_2" in caplog.text
        with pytest.raises(fed.DataError, match="program_state_2'"):
            manager.load(2, state)
    manager.save(state, 2)  # a damaged one may be replaced, a whole one not
    assert manager.load_latest(state)[1] == 2
    with pytest.raises(ValueError, match="must be new in"):
        manager.save(state, 2)
    manager.path(1).write_bytes(b"")
    manager.path(2).write_bytes(b"")
    assert manager.load_latest(state) == (None, 0)


@settings(max_examples=300)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-9, 2**70),
            st.floats(),
            st.text(max_size=6),
            st.sampled_from(
                [
                    "array",
                    "scalar",
                    "tuple",
                    "list",
                    "dict",
                    "ordered",
                    "fields",
                    "plain",
                    "int",
                    "float",
                    "<f4",
                    "O",
                    "<U9",
                    "1e9",
                ]
            ),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(["kind", "items", "value", "dtype", "shape", "place"]), inner, max_size=6),
        ),
        max_leaves=12,
    )
)
def test_no_description_does_harm(description):
    for like in (None, np.zeros(2, np.float32), {"a": 1}, Pair(1, 2), (1, 2.0)):
        with contextlib.suppress(fed.DataError):
            restore_state(description, bytes(16), like)


@pytest.mark.parametrize("first", [np.float32(1.5), np.asarray(1.5, np.float32)])
def test_a_number_of_numpy_and_an_array_without_axes_stand_for_each_other(first):
    for moved in (np.float32(2.5), np.asarray(2.5, np.float32)):
        restored = through_bytes({"rate": moved}, {"rate": first})["rate"]
        assert type(restored) is type(first)
        assert restored == moved


def test_a_file_that_claims_too_much_is_refused(folder):
    # With a right checksum: somebody made it so.
    state = {"kind": "array", "dtype": "<f8", "shape": [2**40, 2**20], "place": 0}
    text = json.dumps({"version": 1, "config": None, "state": state}).encode()
    body = f"{len(text)}\n".encode() + text
    manager = FileProgramStateManager(folder)
    manager.path(1).write_bytes(b"fedsim_np checkpoint 1\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(fed.DataError, match="program_state_1': the state at '/' must be stored"):
        manager.load_latest(None)


def test_a_failed_write_leaves_the_versions_before(folder, monkeypatch):
    manager = FileProgramStateManager(folder)
    manager.save(1, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="program_state_2"):
        manager.save(2, 2)
    assert [path.name for path in folder.iterdir()] == ["program_state_1"]
    assert manager.load_latest(0) == (1, 1)


def test_another_configuration_is_named_by_its_keys(folder):
    FileProgramStateManager(folder, config={"rate": 0.1, "rounds": 5}).save(1, 1)
    assert FileProgramStateManager(folder, config={"rate": 0.1, "rounds": 5}).load_latest(0) == (1, 1)
    assert FileProgramStateManager(folder).load_latest(0) == (1, 1)
    with pytest.raises(
        fed.DataError, match=r"same configuration.*rate: 0\.1 there, 0\.2 here; extra: None there, 1 here"
    ):
        FileProgramStateManager(folder, config={"rate": 0.2, "rounds": 5, "extra": 1}).load_latest(0)


def test_bad_arguments(folder):
    for arguments, message in (
        ({"keep_total": 1.5}, "'keep_total' must be an integer. Got 1.5."),
        ({"keep_first": "no"}, "must be True or False. Got 'no'."),
        ({"keep_every_k": 0}, "must be an integer >= 1. Got 0."),
        ({"config": {"a": {1}}}, "must be a mapping that JSON can hold."),
        ({"config": {"a": float("nan")}}, "must be a mapping that JSON can hold."),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            FileProgramStateManager(folder, **arguments)
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="'root_dir' must be a path, not empty"):
        FileProgramStateManager("")
    with pytest.raises(ValueError, match="must be an integer >= 0. Got -1."):
        FileProgramStateManager(folder).save(1, -1)
    with pytest.raises(fed.DataError, match="program_state_5' does not exist"):
        FileProgramStateManager(folder).load(5, 1)


def test_damaged_newer_versions_do_not_push_a_good_one_out(folder):
    manager = FileProgramStateManager(folder, keep_total=1)
    manager.save(1, 1)
    manager.path(20).write_bytes(b"x")
    manager.save(2, 2)
    assert manager.get_versions() == [2]
    assert manager.load_latest(0) == (2, 2)


def test_what_could_not_be_loaded_again_is_not_saved(folder):
    manager = FileProgramStateManager(folder)
    manager.load_latest({"clients": {"ann": 0}})
    with pytest.raises(fed.DataError, match="the state at '/clients' must be"):
        manager.save({"clients": {"ann": 1, "bob": 2}}, 1)
    assert manager.get_versions() == []


@dataclass
class Hidden:
    shown: int
    hidden: int = field(init=False, default=0)


@pytest.mark.parametrize(
    "state", [Hidden(1), np.ma.masked_array([1]), defaultdict(int), IntEnum("Some", "a").a, np.str_("a"), [[[0]]] * 2]
)
def test_what_would_lose_something_is_not_stored(state):
    if isinstance(state, list):
        for _ in range(60):
            state = [state]
    with pytest.raises(TypeError, match="cannot be stored"):
        describe_state(state)


def test_foreign_byte_order_comes_back():
    assert_same(through_bytes(np.arange(3, dtype=">f4")), np.arange(3, dtype="<f4"))


def test_a_version_is_what_its_file_says(folder, caplog):
    manager = FileProgramStateManager(folder)
    manager.save(2, 2)
    manager.path(2).replace(manager.path(7))
    assert manager.load_latest(0) == (None, 0)
    assert "Got version 2." in caplog.text
    with pytest.raises(fed.DataError, match="program_state_7': must be a whole checkpoint of this version. Got"):
        manager.load(7, 0)
    manager.save(3, 3)
    assert manager.path(7).exists()  # somebody's copy


def test_what_is_no_version_is_left_alone(folder):
    manager = FileProgramStateManager(folder, keep_total=1)
    (folder / "program_state_02").write_bytes(b"mine")
    (folder / "program_state_9").mkdir()
    manager.save(1, 1)
    assert manager.get_versions() == [1]
    assert manager.load_latest(0) == (1, 1)
    assert (folder / "program_state_02").read_bytes() == b"mine"
    for version in ("1", True, 1.0):
        with pytest.raises(ValueError, match="'version' must be an integer"):
            manager.load(version, 0)


@pytest.mark.parametrize("shape", [[0, 2**70], [1] * 70, [0, 2**62, 2**62]])
def test_a_shape_that_numpy_has_not_is_refused(shape):
    about = {"kind": "array", "dtype": "<f4", "shape": shape, "place": 0}
    with pytest.raises(fed.DataError, match="the state at '/' must be"):
        restore_state(about, bytes(4), None)


def test_a_name_may_have_slashes():
    state = {"a/" * 60: 1, "b": {"c/" * 60: (2.0, None)}}
    assert through_bytes(state) == state


def made_so(manager, state, content=b"", version=1):
    """Write a checkpoint that says this of its state, with a right checksum."""
    text = json.dumps({"version": version, "config": None, "state": state}).encode()
    body = f"{len(text)}\n".encode() + text + content
    digest = hashlib.sha256(body).hexdigest().encode()
    manager.path(version).write_bytes(b"fedsim_np checkpoint 1\n" + digest + b"\n" + body)


def test_bytes_belong_to_one_array(folder):
    """3,000 arrays in the same megabyte would take three gigabytes."""
    array = {"kind": "array", "dtype": "|u1", "shape": [2**20], "place": 0}
    manager = FileProgramStateManager(folder)
    made_so(manager, {"kind": "list", "items": [array] * 3000}, bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(
            fed.DataError, match="state at '/1' must be stored in bytes of its own, from 1048576. Got 0"
        ):
            manager.load_latest(None)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", [-4, 1, 3, 4, 2**70])
def test_ranges_that_overlap_or_lie_elsewhere_are_refused(place):
    arrays = [{"kind": "array", "dtype": "|u1", "shape": [4], "place": here} for here in (0, place)]
    about = {"kind": "tuple", "items": arrays}
    if place == 4:
        assert len(restore_state(about, bytes(8), None)[1]) == 4
        return
    with pytest.raises(fed.DataError, match="the state at '/1' must be"):
        restore_state(about, bytes(8), None)


@pytest.mark.parametrize("stored", ["0x" + "f" * 5000, [[1]], {"a": 1}, 3, None])
def test_what_a_stored_number_says_is_told_in_few_words(stored):
    for kind in ("int", "float", "plain"):
        with pytest.raises(fed.DataError) as caught:
            restore_state({"kind": kind, "value": stored}, b"", 2j)
        assert len(str(caught.value)) < 400


def test_a_run_reads_its_checkpoint_once(folder, monkeypatch):
    assert main(["train", "--out", str(folder / "run"), "--rounds", "1", "--clients", "2"]) == 0
    (folder / "run" / "checkpoints" / "program_state_1").unlink()
    loaded, real = [], FileProgramStateManager.load_latest
    monkeypatch.setattr(FileProgramStateManager, "load_latest", lambda *of: loaded.append(1) or real(*of))
    assert main(["train", "--out", str(folder / "run"), "--resume"]) == 0
    assert len(loaded) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_version_that_is_a_link_is_replaced_and_not_what_it_leads_to(folder):
    manager = FileProgramStateManager(folder / "states")
    (folder / "mine").write_bytes(b"mine")
    manager.path(1).symlink_to(folder / "mine")
    manager.save(5, 1)
    assert (folder / "mine").read_bytes() == b"mine"
    assert manager.load(1, 0) == 5
    os.mkfifo(manager.path(3))
    assert manager.get_versions() == [1]
    with pytest.raises(fed.DataError, match="program_state_3' does not exist"):
        manager.load(3, 0)
    manager.save(6, 3)
    assert manager.load_latest(0) == (6, 3)
