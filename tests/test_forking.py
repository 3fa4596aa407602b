"""A child that is forked while threads compute: it has not got them, and waits for none of them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_model

import fedsim_np as fed
from fedsim_np.datasets import Dataset, HDF5ClientData, InMemoryClientData, SyntheticClientData, synthetic, write_hdf5
from fedsim_np.datasets.caching import Once
from fedsim_np.forking import ProcessLock
from fedsim_np.learning.engines import host
from fedsim_np.learning.engines.cache import Cache

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(work):
    """Do something in a forked child, which is killed after some seconds; its assertions hold."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextlib.contextmanager
def a_thread_within(context):
    """Have a thread stay within a context for as long as this block lasts."""
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with context():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(10)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def run_round(executor="serial"):
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1), executor=executor)
    return process.next(process.initialize(), random_cohort([3, 8, 5], batch=4))


@pytest.mark.parametrize("is_held", [True, False])
def test_a_child_has_a_lock_of_its_own_and_is_told_once_of_its_parents(is_held):
    lock, told = ProcessLock(), []

    def child():
        for _ in range(2):
            with lock(told.append), lock(told.append):
                pass
        threads = [threading.Thread(target=lambda: lock(told.append).__enter__()) for _ in range(3)]
        threads[0].start()
        threads[0].join()
        assert told == [is_held]
        in_child(grandchild)  # a thread of the child's has it now

    def grandchild():
        with lock(told.append):
            assert told == [is_held, True]

    with a_thread_within(lock if is_held else contextlib.nullcontext):
        in_child(child)
    with lock(told.append):
        assert told == []


@pytest.mark.parametrize("is_held", [True, False])
def test_what_is_kept_may_be_half_changed_where_a_thread_is_at_it(is_held):
    cache, owner = Cache(5000), np.zeros(3)
    cache.put("a", 1, size=100)
    owner_key = Owner()
    cache.put_of(owner_key, 2)

    def child():
        assert (cache.find("a"), cache.find_of(owner_key)) == ((None, None) if is_held else (1, 2))
        for key in range(9):
            cache.put(key, owner, size=100)
        assert [key in cache for key in range(9)] == [False] * 6 + [True] * 3

    with a_thread_within(cache._locked if is_held else contextlib.nullcontext):
        in_child(child)
    assert (cache.find("a"), cache.find_of(owner_key)) == (1, 2)


class Owner:
    pass


def test_what_a_thread_is_making_is_made_by_the_child_itself():
    making, go_on = threading.Event(), threading.Event()

    def make():
        if threading.current_thread() is not threading.main_thread():
            making.set()
            go_on.wait()
        return 3

    once = Once(make)
    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(once)
        assert making.wait(10)

        def child():
            assert once() == 3

        try:
            in_child(child)
        finally:
            go_on.set()
        assert made.result() == 3


@pytest.mark.parametrize("setting", ["one_blas_thread", "quick_switching"])
def test_a_round_in_a_child_while_a_thread_begins_one(setting):
    with a_thread_within(getattr(host, setting)._lock):
        in_child(lambda: run_round(ThreadPoolExecutor(1)))


def test_a_setting_is_restored_in_a_child_whose_parent_computes():
    value = [4]
    setting = host._Setting(lambda: (lambda: value[0], lambda new: value.__setitem__(0, new)), 1)

    def child():
        with setting():
            assert value == [1]
        assert value == [4]

    with a_thread_within(setting):
        assert value == [1]
        in_child(child)
    assert value == [4]


def test_a_writer_is_drawn_while_a_thread_draws_another(monkeypatch):
    drawing, go_on, draw = threading.Event(), threading.Event(), synthetic.draw_images

    def slowly(*arguments):
        if threading.current_thread() is not threading.main_thread():
            drawing.set()
            go_on.wait()
        return draw(*arguments)

    monkeypatch.setattr(synthetic, "draw_images", slowly)
    ann, bob = (SyntheticClientData(2).create_dataset_for_client(name) for name in SyntheticClientData(2).client_ids)
    with ThreadPoolExecutor(1) as threads:
        drawn = threads.submit(ann.to_arrays)
        assert drawing.wait(10)
        try:
            in_child(bob.to_arrays)
            in_child(ann.to_arrays)
        finally:
            go_on.set()
        drawn.result()


@pytest.mark.parametrize("kind", ["file", "writers"])
def test_what_a_thread_was_to_read_ahead_is_read_by_the_child_itself(kind, folder):
    path, rng = folder / "some.h5", np.random.RandomState(0)
    clients = {f"c{i}": {"x": rng.randn(200, 40).astype("f4"), "y": np.zeros((200, 1), "i4")} for i in range(3)}
    write_hdf5(path, InMemoryClientData(clients))
    data = HDF5ClientData(path) if kind == "file" else SyntheticClientData(3)
    x, y = list(data.element_type_structure) if kind == "file" else ("pixels", "label")
    cohort = [data.create_dataset_for_client(name).batch(50).select(x=x, y=y) for name in data.client_ids]
    features = 40 if kind == "file" else 784
    # The only thread is busy: what it is given is never begun.
    busy = threading.Event()
    threads = ThreadPoolExecutor(1)
    threads.submit(busy.wait)

    def process(executor):
        model = fed.learning.models.SoftmaxRegression(features, 10)
        return fed.learning.build_weighted_fed_avg(model, sgd(0.1), executor=executor)

    waiting, serial = process(threads), process("serial")
    computing = threading.Thread(target=lambda: waiting.next(waiting.initialize(), cohort))
    computing.start()
    while not threads._work_queue.qsize():
        pass

    def child():
        for each in (serial, waiting):  # the executor's threads are the parent's
            each.next(each.initialize(), cohort)

    try:
        in_child(child)
    finally:
        busy.set()
        computing.join()
        threads.shutdown()


def test_a_child_lets_go_of_its_parents_threads(monkeypatch):
    monkeypatch.setattr(fed.learning.engines.runner, "cores", lambda: 2)
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1))
    process.next(process.initialize(), [Dataset.from_batches(d.batches()) for d in random_cohort([3] * 300, batch=2)])
    (threads,) = process.runner._threads.values()

    def child():
        nonlocal process
        del process  # shuts its own threads down

    with a_thread_within(lambda: threads._shutdown_lock):
        in_child(child)


_FIRST_ROUND = """
import sys
import fedsim_np as fed

process = fed.learning.build_weighted_fed_avg(
    fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.1), executor="serial"
)
writers = fed.datasets.SyntheticClientData(2)
cohort = [writers.create_dataset_for_client(name).select(x="pixels", y="label") for name in writers.client_ids]
there = set(sys.modules)
process.next(process.initialize(), [dataset.shuffle(100, seed=1).batch(20) for dataset in cohort])
print(sorted(set(sys.modules) - there))
"""


def test_a_round_imports_nothing_for_which_a_child_could_wait():
    ended = subprocess.run([sys.executable, "-c", _FIRST_ROUND], stdout=subprocess.PIPE, check=True)
    assert ended.stdout.split() == [b"[]"]
