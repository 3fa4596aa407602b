"""Rounds on a real Dask cluster: two worker processes on loopback."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from conftest import toy_model
from test_engines import BUILDERS, SIZES, Stacked, assert_same_bits, clients, cohort_of, rounds

import fedsim_np as fed

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask and its dependencies warn of is theirs


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        client.run(_find_the_tests, os.path.dirname(__file__))
        yield client


def _find_the_tests(folder):
    import sys

    sys.path.insert(0, folder)


class Slow(Stacked):
    """A model that takes its time, and says where it has begun."""

    def __init__(self, flag):
        super().__init__()
        self.flag = flag

    def stacked_forward_and_gradient(self, weights, x, y, mask):
        open(self.flag, "a", encoding="utf-8").close()
        time.sleep(0.05)
        return super().stacked_forward_and_gradient(weights, x, y, mask)


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_the_same_bits_on_a_cluster(engine, cluster):
    cohorts = [cohort_of(clients(SIZES))] * 2
    make = BUILDERS["momentum"]
    reference = rounds(make(toy_model, engine=engine, executor="serial"), cohorts)
    assert_same_bits(rounds(make(toy_model, engine=engine, executor=cluster.get_executor()), cohorts), reference)


def test_control_variates_on_a_cluster(cluster):
    from test_local_training import bits, process_of, run

    reference = bits(run(process_of(executor="serial"), 3))
    assert bits(run(process_of(executor=cluster.get_executor()), 3)) == reference


def test_a_study_on_a_cluster(cluster, folder):
    choices = {"clients": 2, "epochs": 1, "rounds": 2, "evaluation_clients": 2}
    for place, executor in (("here", "serial"), ("there", cluster.get_executor())):
        fed.program.sweep(choices, {"client_lr": [0.02, 0.1]}, 1, folder / place, executor=executor, tell=None)
    assert (folder / "here" / "results.csv").read_bytes() == (folder / "there" / "results.csv").read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="nothing is frozen on Windows")
def test_frozen_workers_are_given_up_and_the_round_is_repeated(cluster):
    cohort = cohort_of(clients(SIZES))
    workers = fed.learning.Workers(cluster.get_executor(), timeout=0.5)
    process = BUILDERS["sgd"](toy_model, executor=workers)
    state = process.initialize()
    frozen = list(cluster.run(os.getpid).values())
    for number in frozen:
        os.kill(number, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match=r"ClientExecutor got no part of the round done in 0.5 s \(timeout\)"):
            process.next(state, cohort)
    finally:
        for number in frozen:
            os.kill(number, signal.SIGCONT)
    again = BUILDERS["sgd"](toy_model, executor=fed.learning.Workers(workers.executor, timeout=60))
    assert_same_bits([again.next(state, cohort)], rounds(BUILDERS["sgd"](toy_model, executor="serial"), [cohort]))


def test_a_client_that_is_closed_in_mid_round_is_an_error_that_says_so(cluster, folder):
    flag = os.fspath(folder / "begun")
    client = distributed.Client(cluster.cluster, set_as_default=False)
    process = BUILDERS["adam"](lambda: Slow(flag), executor=client.get_executor())

    def close():
        while not os.path.exists(flag):
            time.sleep(0.01)
        client.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(
        RuntimeError, match=r"ClientExecutor cancelled a round: .* its client, cluster or scheduler ended"
    ):
        process.next(process.initialize(), cohort_of(clients([20] * 80)))
    thread.join()


def test_a_worker_killed_in_mid_round(cluster, folder):
    flag = os.fspath(folder / "begun")
    cohort = cohort_of(clients([20] * 80))
    process = BUILDERS["adam"](lambda: Slow(flag), executor=cluster.get_executor())
    state, outcome = process.initialize(), []

    def run():
        try:
            outcome.append(process.next(state, cohort))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(1000):
        if os.path.exists(flag):
            break
        time.sleep(0.01)
    victim = next(iter(cluster.run(os.getpid).values()))
    os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))
    thread.join(timeout=120)
    assert not thread.is_alive()
    (result,) = outcome
    if isinstance(result, Exception):  # Dask gave up: then it says so, and nothing was changed
        assert "killed" in f"{type(result).__name__} {result}".lower()
        assert np.abs(state.global_model_weights.trainable[0]).max() == 0
    else:
        assert_same_bits([result], rounds(BUILDERS["adam"](lambda: Slow(flag), executor="serial"), [cohort]))
