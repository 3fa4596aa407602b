"""Simulated time: what rounds would take, and rounds that do not wait."""

import heapq
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from conftest import random_cohort, toy_model

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import Attendance
from fedsim_np.learning.models import LinearRegression
from fedsim_np.learning.optimizers import build_sgdm as sgd
from fedsim_np.program import Network


def test_seconds_by_hand():
    network = Network(up=100, down=200, compute=10)
    taken = network.seconds(["ann", "bob"], [20, 5], [50, 300], [400, 400])
    np.testing.assert_allclose(taken, [2 + 2 + 0.5, 2 + 0.5 + 3])
    assert Network(np.inf, 200, np.inf).seconds(["ann"], [20], 50, 400).tolist() == [2.0]
    table = {"client_id": ["ann", "bob"], "num_examples": [20, 5], "bytes_up": np.array([50, 300])}
    table["bytes_down"] = np.array([400, 400])
    assert network.round({**table, "status": ["ok", "ok"]}) == {"seconds": 5.5}
    assert network.round({**table, "status": ["ok", "absent"]}) == {"seconds": 4.5}  # nobody waits for who is gone
    assert network.round({name: [] for name in (*table, "status")}) == {"seconds": 0.0}


def test_speeds_are_of_seed_and_client():
    ids = [f"c{i}" for i in range(4000)]
    network = Network(1e5, 1e6, 2e3, spread=0.5, seed=3)

    def up(of, clients):
        return 1e5 / of.seconds(clients, 0, 1e5, 0)  # one byte a second and client, as a share of the median

    speeds = up(network, ids) / 1e5
    assert np.log(speeds).mean() == pytest.approx(0, abs=0.04)
    assert np.log(speeds).std() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(up(network, ids[7:9]), up(network, ids)[7:9])
    assert not np.allclose(up(Network(1e5, 1e6, 2e3, spread=0.5, seed=4), ids), up(network, ids))
    # The three speeds of a client are drawn apart.
    down = 1e6 / network.seconds(ids, 0, 0, 1e6)
    assert abs(np.corrcoef(np.log(speeds), np.log(down))[0, 1]) < 0.06


def test_in_a_run():
    network, logger = Network(1e3, 1e4, 50, spread=1.0, seed=1), fed.program.MemoryLogger()
    process = fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.5))
    cohort = random_cohort([4, 9, 6], batch=3)
    fed.program.run_training_process(process, lambda _: cohort, 2, metrics_managers=[logger], network=network)
    clients = process.next(process.initialize(), cohort).clients
    taken = network.seconds(*(clients[name] for name in ("client_id", "num_examples", "bytes_up", "bytes_down")))
    assert logger.history["network/seconds"] == [taken.max()] * 2


@pytest.mark.parametrize(
    "change",
    [
        *({"up": 0}, {"up": 10**400}, {"down": -1.0}, {"compute": "fast"}, {"compute": float("nan")}),
        *({"spread": -1.0}, {"spread": 1000.0}, {"seed": -1}),
    ],
)
def test_wrong_arguments(change):
    with pytest.raises(ValueError, match=f"'{next(iter(change))}' must be"):
        Network(**{"up": 1.0, "down": 1.0, "compute": 1.0, **change})


def test_who_has_no_id_has_no_speed():
    """All of them would have the same one."""
    with pytest.raises(ValueError, match="'client_ids' must be of clients with ids"):
        Network(1.0, 1.0, 1.0, spread=1.0).seconds(["ann", None], 1, 1, 1)
    assert Network(np.float32(1), np.int64(1), 1).seconds(["ann", None], 1, 1, 1).tolist() == [3, 3]


def named(cohort, seconds):
    """The same clients, called ``c0-SECONDS``, ``c1-SECONDS``, ..."""
    return [
        Dataset.from_batches(list(client.batches()), f"c{i}-{s}")
        for i, (client, s) in enumerate(zip(cohort, seconds, strict=True))
    ]


class Seconds:
    """A clock: the seconds are in the id, ``name-seconds``."""

    def seconds(self, client_ids, num_examples, bytes_up, bytes_down):
        return np.array([float(client_id.partition("-")[2]) for client_id in client_ids])


def buff(clock, k, m, model=None, rate=0.5, **keywords):
    return fed.learning.build_fed_buff(
        model or toy_model(), sgd(rate), buffer_size=k, concurrency=m, clock=clock, **keywords
    )


@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 4), (3, 2), (2, 7), (4, 4)])
def test_against_a_plain_simulation(engine, k, m):
    """Client by client: each begins when a place is free, at the weights of that moment, and trains by itself."""
    rng = np.random.default_rng(10 * k + m)
    seconds = rng.integers(1, 12, 60)
    data = random_cohort([3 + i % 4 for i in range(60)], batch=2)
    people = named(data, seconds)
    plain = fed.learning.build_unweighted_fed_avg(toy_model(), sgd(0.5))
    start = plain.initialize()
    w, clock, step, heap, buffer, steps = start.global_model_weights, 0.0, 0, [], [], []
    line = iter(enumerate(people))

    def begin():
        i, client = next(line)
        update = fed.learning.client_updates(plain, plain.set_model_weights(start, w), [client])
        heapq.heappush(heap, (clock + seconds[i], i, step, [part[0] for part in update]))

    for _ in range(m):
        begin()
    while len(steps) < 8:
        clock, _, began, update = heapq.heappop(heap)
        buffer.append((step - began, update))
        if len(buffer) == k:
            moved = [
                np.mean([u[t].astype(np.float64) / np.sqrt(1 + tau) for tau, u in buffer], axis=0)
                for t in range(len(w.trainable))
            ]
            w = w._replace(trainable=tuple(np.float32(a - b) for a, b in zip(w.trainable, moved, strict=True)))
            steps.append((clock, np.mean([tau for tau, _ in buffer]), w))
            step, buffer = step + 1, []
        begin()
    process, line = buff(Seconds(), k, m, engine=engine), iter(people)
    state, total = process.initialize(), 0.0
    for clock, staleness, w in steps:
        cohort = [next(line) for _ in range(fed.learning.num_to_begin(state))]
        state, metrics = process.next(state, cohort)
        total += metrics["network"]["seconds"]
        assert state.aggregator.seconds == pytest.approx(clock)
        assert total == pytest.approx(clock)
        assert metrics["aggregator"]["mean_staleness"] == pytest.approx(staleness)
        assert len(state.aggregator.under_way) == m - 1
        for a, b in zip(state.global_model_weights.trainable, w.trainable, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_where_all_take_the_same_time():
    """The first step is federated averaging's; K - 1 have begun before it by then, and are a step old in the next."""
    data = named(random_cohort([5] * 12, batch=2), [1] * 12)
    average = fed.learning.build_unweighted_fed_avg(toy_model(), sgd(0.5))
    process = buff(Seconds(), 4, 4)
    a, (b, metrics) = average.next(average.initialize(), data[:4]).state, process.next(process.initialize(), data[:7])
    for x, y in zip(a.global_model_weights.trainable, b.global_model_weights.trainable, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-7)
    assert metrics["aggregator"]["mean_staleness"] == 0
    assert process.next(b, data[7:11]).metrics["aggregator"]["mean_staleness"] == 0.75
    alone = buff(Seconds(), 2, 1)  # nobody else is there to take a step meanwhile
    state = alone.initialize()
    for cohort in (data[:2], data[2:4]):
        state, metrics = alone.next(state, cohort)
        assert metrics["aggregator"]["mean_staleness"] == 0


def test_same_bits_for_everyone_stopped_and_resumed(tmp_path):
    clock = Network(1e4, 1e5, 100, spread=1.0, seed=2)

    def select(round_num, state):
        n = fed.learning.num_to_begin(state)
        return random_cohort([3 + i % 5 for i in range(n)], seed=round_num, batch=2)

    results = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, ThreadPoolExecutor(3) as threads:
        for stop, executor in ((6, "serial"), (2, threads), (5, pool)):
            manager = fed.program.FileProgramStateManager(tmp_path / str(stop))
            logger = fed.program.CSVLogger(
                tmp_path / f"{stop}.csv", lambda name: not fed.program.training.is_timing(name)
            )
            compressor = fed.learning.compression.top_k(0.5)
            process = buff(clock, 3, 5, executor=executor, compressor=compressor)
            for rounds in (stop, 6):
                state = fed.program.run_training_process(
                    process, select, rounds, program_state_manager=manager, metrics_managers=[logger]
                )
            results.append((state, (tmp_path / f"{stop}.csv").read_text(encoding="utf-8")))
    for state, log in results[1:]:
        assert log == results[0][1]
        for (path, a), (_, b) in zip(fed.trees.leaves(results[0][0]), fed.trees.leaves(state), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=path)
    assert "network/seconds" in results[0][1]


def test_it_is_sooner_there_than_rounds_that_wait():
    """A quadratic, half of the clients ten times as slow: by the clock FedBuff is as near in a fraction of the time."""

    def client(i):
        batch = {"x": np.zeros((1, 1), np.float32), "y": np.float32([[1.0]])}
        return Dataset.from_batches([batch] * 3, f"c{i}-{10 if i % 2 else 1}")

    def seconds_until(process, synchronous):
        state, at, number = process.initialize(), 0.0, 0
        while abs(state.global_model_weights.trainable[1][0] - 1) > 0.05:
            n = 10 if synchronous else fed.learning.num_to_begin(state)
            cohort = [client(number + i) for i in range(n)]
            number += n
            state, metrics = process.next(state, cohort)
            at += 10.0 if synchronous else metrics["network"]["seconds"]
        return at

    average = fed.learning.build_unweighted_fed_avg(LinearRegression(1), sgd(0.02))
    waited = seconds_until(average, True)
    buffered = seconds_until(buff(Seconds(), 5, 10, LinearRegression(1), 0.02), False)
    assert buffered < 0.6 * waited


def test_what_next_asks_for():
    data = named(random_cohort([5] * 9, batch=2), range(1, 10))
    process = buff(Seconds(), 3, 2)
    first = process.initialize()
    assert fed.learning.num_to_begin(first) == 4
    with pytest.raises(ValueError, match="at most the 4 clients that begin before"):
        process.next(first, data[:5])
    with pytest.raises(ValueError, match=r"so many clients that 3 arrive.*Got '?2"):
        process.next(first, data[:2])
    with pytest.raises(ValueError, match="clients with ids"):
        process.next(first, [Dataset.from_batches(list(client.batches())) for client in data[:4]])
    empty = [data[0], Dataset.from_batches([], "c1-1"), *data[2:4]]
    output = process.next(first, [Attendance("gone", None, "absent"), *(Attendance(d.client_id, d) for d in empty)])
    assert output.clients["status"] == ["absent", "ok", "empty", "ok", "ok"]
    assert np.isfinite(output.state.global_model_weights.trainable[0]).all()
    with pytest.raises(TypeError, match="'state' must be of build_fed_buff"):
        fed.learning.num_to_begin(fed.learning.build_weighted_fed_avg(toy_model(), sgd(0.1)).initialize())
    for change in ({"k": 0}, {"m": 0}, {"clock": None}, {"model_aggregator": fed.learning.aggregators.MeanFactory()}):
        with pytest.raises((ValueError, TypeError)):
            buff(**{"clock": Seconds(), "k": 1, "m": 1, **change})
    other = buff(Seconds(), 2, 3)
    with pytest.raises(ValueError, match="'state' must be of a process with a buffer of 2 and a concurrency of 3"):
        other.next(first, data[: fed.learning.num_to_begin(first)])
    robust = buff(Seconds(), 3, 2, model_aggregator=fed.learning.aggregators.MedianFactory())
    assert robust.next(robust.initialize(), data[:4]).metrics["finalizer"]["update_non_finite"] == 0
    assert "network=<seconds=float32>" in str(process.next.type_signature)


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf"])
def test_clocks_that_go_wrong(seconds):
    process = buff(Seconds(), 1, 2)
    with pytest.raises(ValueError, match="'clock' must be one that gives 2 finite seconds >= 0"):
        process.next(process.initialize(), named(random_cohort([4, 4], batch=2), ["1", seconds]))


def test_bytes_as_the_buffers_rule_has_them():
    mean = fed.learning.aggregators.compression_aggregator(weighted=False, threshold=0, quantization_bits=7)
    process = buff(Seconds(), 1, 1, model_aggregator=mean)
    output = process.next(process.initialize(), named(random_cohort([4], batch=2), [1]))
    assert output.clients["bytes_up"].tolist() == [4 * (3 + 2) + 4 * (1 + 2)]
