"""Algorithms of one's own: what is written once is the same in every engine, executor and after every stop."""

import functools
import pickle
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pytest
from conftest import random_cohort, toy_batches, toy_model
from test_engines import Inline, Plain, Shuffled, Stacked

import fedsim_np as fed
from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.demos.own_algorithm import Scaffold, build_scaffold
from fedsim_np.learning import ClientResult, LocalTraining, SGDSteps, compose_learning_process, optimizers
from fedsim_np.learning.engines import lockstep
from fedsim_np.program import FileProgramStateManager, run_training_process

N, ETA, ROUNDS = 12, 0.1, 10
ENGINES = ("loop", "cohort", "gram", "presorted", "auto")
MEAN = fed.learning.aggregators.MeanFactory()


def population(seed=0):
    """Twelve clients of unequal sizes and labels."""
    rng = np.random.RandomState(seed)
    return {
        f"c{i}": {
            "x": (rng.randn(n, 4) + rng.randn(4)).astype(np.float32),
            "y": rng.choice(3, (n, 1), p=rng.dirichlet([0.5] * 3)).astype(np.int32),
        }
        for i, n in enumerate([9, 1, 30, 17, 3, 5, 40, 2, 21, 8, 13, 26])
    }


def sampled(round_num):
    """Five of the twelve."""
    return [f"c{i}" for i in np.random.RandomState(round_num).choice(N, 5, replace=False)]


def cohort(round_num):
    data = population()
    return [
        Dataset.from_arrays(data[c], c).repeat(2).shuffle(9, seed=3).batch(4, drop_remainder=False)
        for c in sampled(round_num)
    ]


def scaffold_by_the_paper():
    """Algorithm 1, option II, in plain float64 NumPy: x and c at the server, c_i by client."""
    model = toy_model("stable")
    x = [np.zeros((4, 3)), np.zeros(3)]
    c, c_i = [0 * w for w in x], {f"c{i}": [0 * w for w in x] for i in range(N)}
    for round_num in range(1, ROUNDS + 1):
        dy, dc = [], []
        for client, dataset in zip(sampled(round_num), cohort(round_num), strict=True):
            y, steps = [w.copy() for w in x], 0
            for batch in dataset.batches(round_num - 1):
                weights = fed.learning.models.ModelWeights(tuple(y))
                wide = {"x": batch["x"].astype(np.float64), "y": batch["y"]}
                gradients = model.gradient(weights, wide, model.forward_pass(weights, wide))
                y = [
                    w - ETA * (g - own + of_all) for w, g, own, of_all in zip(y, gradients, c_i[client], c, strict=True)
                ]
                steps += 1
            new = [own - s + (a - b) / (steps * ETA) for own, s, a, b in zip(c_i[client], c, x, y, strict=True)]
            dy.append([b - a for a, b in zip(x, y, strict=True)])
            dc.append([a - b for a, b in zip(new, c_i[client], strict=True)])
            c_i[client] = new
        x = [w + np.mean([d[j] for d in dy], axis=0) for j, w in enumerate(x)]
        c = [w + np.sum([d[j] for d in dc], axis=0) / N for j, w in enumerate(c)]
    return x, c, c_i


def process_of(**keywords):
    return build_scaffold(functools.partial(toy_model, "stable"), ETA, N, **keywords)


def run(process, rounds=ROUNDS, manager=None):
    return run_training_process(
        process, cohort, rounds, program_state_manager=manager, metrics_managers=[], reshuffle=True
    )


def bits(state):
    return [leaf.tobytes() if isinstance(leaf, np.ndarray) else leaf for _, leaf in trees.leaves(tuple(state))]


@pytest.mark.parametrize("engine", ENGINES)
def test_scaffold_is_the_papers(engine):
    state = run(process_of(engine=engine))
    x, c, c_i = scaffold_by_the_paper()
    for got, expected in zip(state.global_model_weights.trainable, x, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert np.abs(expected).max() > 0.1
    for got, expected in zip(state.client_work.server, c, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert state.client_work.round_num == ROUNDS
    assert set(state.client_work.clients) == {client for r in range(1, ROUNDS + 1) for client in sampled(r)}
    for client, kept in state.client_work.clients.items():
        for got, expected in zip(kept, c_i[client], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_control_variate_makes_a_difference():
    averaging = fed.learning.build_weighted_fed_avg(functools.partial(toy_model, "stable"), optimizers.build_sgdm(ETA))
    a, b = (run(p).global_model_weights.trainable[0] for p in (averaging, process_of()))
    assert np.abs(a - b).max() > 1e-2


@pytest.fixture(scope="module")
def two_processes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("engine", ["loop", "cohort", "gram", "presorted"])
def test_the_same_bits_whoever_computes_and_wherever_it_stops(engine, two_processes, folder):
    reference = bits(run(process_of(engine=engine, executor="serial")))
    assert bits(run(process_of(engine=engine))) == reference
    assert bits(run(process_of(engine=engine, executor=two_processes))) == reference
    assert bits(run(process_of(engine=engine, executor=Inline()))) == reference
    with Shuffled(3) as executor:
        assert bits(run(process_of(engine=engine, executor=executor))) == reference
    for stop in range(ROUNDS):
        place = folder / f"{engine}{stop}"
        run(process_of(engine=engine), stop, FileProgramStateManager(place))
        assert bits(run(process_of(engine=engine), ROUNDS, FileProgramStateManager(place))) == reference


def test_pictures_and_questions_change_nothing():
    process = process_of()
    state = run(process, 4)
    before = pickle.dumps(state)
    expected = process.next(state, cohort(5), iteration=4)
    updates = fed.learning.client_updates(process, state, cohort(5), iteration=4)
    old, new = (s.global_model_weights.trainable for s in (state, expected.state))
    for update, a, b in zip(updates, old, new, strict=True):
        np.testing.assert_allclose(update.mean(axis=0), a - b, atol=1e-6)
    fed.plots.client_drift(updates, [a - b for a, b in zip(old, new, strict=True)])
    assert pickle.dumps(state) == before
    assert bits(process.next(state, cohort(5), iteration=4).state) == bits(expected.state)


# --- what is kept of the clients


def test_clients_that_do_not_count_change_nothing_that_is_kept():
    process = process_of()
    state = process.next(process.initialize(), cohort(1)).state
    kept = dict(state.client_work.clients)
    infinite = {"x": np.full((3, 4), np.inf, np.float32), "y": np.zeros((3, 1), np.int32)}
    empty = {"x": np.zeros((0, 4), np.float32), "y": np.zeros((0, 1), np.int32)}
    seen, *_ = sampled(1)
    data = [Dataset.from_arrays(infinite, seen).batch(2), Dataset.from_arrays(empty, "new").batch(2)]
    output = process.next(state, [*data, cohort(1)[1]])
    alone = process.next(state, [cohort(1)[1]])
    assert output.clients["status"] == ["non-finite update", "empty", "ok"]
    assert "new" not in output.state.client_work.clients
    assert all(map(np.array_equal, output.state.client_work.clients[seen], kept[seen]))
    for together, one in zip(trees.leaves(output.state), trees.leaves(alone.state), strict=True):
        assert together[0] == one[0]
        np.testing.assert_allclose(together[1], one[1], atol=1e-7)


def test_a_round_shares_what_is_kept_with_the_state_before():
    process = process_of()
    states = [process.initialize()]
    for round_num in (1, 2):
        states.append(process.next(states[-1], cohort(round_num)).state)
    before, after = (state.client_work.clients for state in states[1:])
    untouched = set(sampled(1)) - set(sampled(2))
    assert untouched
    assert all(after[client] is before[client] for client in untouched)
    for client in sampled(2):
        for array in after[client]:
            assert array.base is None or array.base.size == array.size  # not a view of all that the cohort sent
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: [toy_batches()], "'data' must be of clients with ids"),
        (lambda: [*cohort(1), cohort(1)[2]], r"'data' must be of different clients.* Got 'c\d+, twice'"),
    ],
)
def test_clients_must_be_known_where_something_is_kept_of_them(data, message):
    for engine in ENGINES:
        process = process_of(engine=engine)
        with pytest.raises(ValueError, match=message):
            process.next(process.initialize(), data())


class Halving(LocalTraining):
    """Sends 1, and from the ninth client on a half."""

    def begin(self, client):
        return {"weights": client.weights}

    def step(self, local, gradients, batch):
        return local

    def end(self, client, local, trained):
        return ClientResult(trained.update, 1.0, message={"share": 1 if int(client.ids[0][1:]) < 8 else 0.5})

    def finish_round(self, state, cohort):
        return state, {"shares": cohort.messages["share"].tolist()}


def test_messages_of_several_chunks_may_be_of_several_types():
    process = compose_learning_process(toy_model, Halving(), MEAN, optimizers.build_sgdm(1.0), engine="loop")
    data = [Dataset.from_arrays(arrays, client).batch(4) for client, arrays in population().items()]
    metrics = process.next(process.initialize(), data).metrics
    assert metrics["client_work"]["shares"] == [1] * 8 + [0.5] * 4


# --- what hides state


@dataclass(frozen=True)
class Hiding(Scaffold):
    """Keeps the control variates in itself."""

    def __post_init__(self):
        object.__setattr__(self, "seen", {})

    def end(self, client, local, trained):
        self.seen[client.ids] = trained.update
        return super().end(client, local, trained)


class HidingModel(Plain):
    def forward_pass(self, weights, batch):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward_pass(weights, batch)


class HidingRule(fed.learning.aggregators.MeanFactory):
    def __init__(self):
        super().__init__()
        object.__setattr__(self, "last", 0)

    def next(self, state, updates, weights):
        object.__setattr__(self, "last", self.last + 1)
        return super().next(state, updates, weights)


def hiding(kind, **keywords):
    sgd = optimizers.build_sgdm(1.0)
    if kind == "client work":
        return compose_learning_process(toy_model, Hiding(ETA, N), MEAN, sgd, engine="loop", **keywords)
    if kind == "model":
        return fed.learning.build_weighted_fed_avg(HidingModel, sgd, **keywords)
    return fed.learning.build_weighted_fed_avg(toy_model, sgd, model_aggregator=HidingRule(), **keywords)


@pytest.mark.parametrize("kind", ["client work", "model", "aggregator"])
def test_what_hides_state_is_refused_by_processes_and_checkpoints(kind, folder):
    message = f"The {kind} Hiding.* changed itself in a round.*return it as state instead"
    process = hiding(kind, executor=Inline())
    with pytest.raises(ValueError, match=message):
        process.next(process.initialize(), cohort(1))
    with pytest.raises(ValueError, match=message):
        run_training_process(
            hiding(kind),
            cohort,
            3,
            program_state_manager=FileProgramStateManager(folder / "checkpoints"),
            metrics_managers=[],
        )
    run_training_process(hiding(kind), cohort, 3, metrics_managers=[])  # nobody else is concerned


# --- what a client may know


class OptionOne(Scaffold):
    """The gradient of all of a client's data, at the server's weights, as its control variate."""

    reads_all_data = True

    def end(self, client, local, trained):
        result = super().end(client, local, trained)
        loss, new = client.objective(client.weights)
        sums = OrderedDict(first_loss=[loss, np.ones_like(loss)], own=[client.num_own_examples])
        return result._replace(kept=new, message=trees.map(np.subtract, new, client.kept), metrics=sums)

    def initial_metrics(self):
        return OrderedDict(first_loss=[0.0, 0.0], own=[0])

    def metric_finalizers(self):
        return OrderedDict(first_loss=lambda sums: sums[0] / sums[1], own=lambda sums: sums[0])


@pytest.mark.parametrize(("l2", "block_bytes"), [(0.0, 2**20), (0.1, 200)])  # all batches at once; a few
def test_gradient_and_loss_of_all_of_a_clients_data(l2, block_bytes, monkeypatch):
    monkeypatch.setattr(lockstep, "_BLOCK_BYTES", block_bytes)
    model = fed.learning.models.SoftmaxRegression(4, 3, "stable", l2=l2)
    outputs = {}
    for engine in ENGINES:
        process = compose_learning_process(model, OptionOne(ETA, N), MEAN, optimizers.build_sgdm(1.0), engine=engine)
        state = process.initialize()
        for round_num in range(1, 5):
            weights = process.get_model_weights(state)
            output = process.next(state, cohort(round_num), iteration=round_num - 1)
            state = output.state
        outputs[engine] = output
    for dataset in cohort(4):
        x, y = dataset.to_arrays(3).values()
        wide = fed.learning.models.ModelWeights(tuple(w.astype(np.float64) for w in weights.trainable))
        batch = {"x": x.astype(np.float64), "y": y}
        expected = model.gradient(wide, batch, model.forward_pass(wide, batch))
        for got, gradient in zip(state.client_work.clients[dataset.client_id], expected, strict=True):
            np.testing.assert_allclose(got, gradient, atol=1e-6)
    for output in outputs.values():
        for (path, a), (_, b) in zip(trees.leaves(output.state), trees.leaves(outputs["loop"].state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=path)
        train, of_loop = (o.metrics["client_work"]["train"] for o in (output, outputs["loop"]))
        assert train["first_loss"] == pytest.approx(of_loop["first_loss"], rel=1e-5)
        assert train["own"] == of_loop["own"] == sum(len(population()[c]["x"]) for c in sampled(4))
    assert "first_loss=float32,own=int64" in str(process.next.type_signature)


class Centred(fed.learning.models.SoftmaxRegression):
    """Subtracts the batch's mean: what it makes of a row depends on the batch."""

    def forward_pass(self, weights, batch):
        return super().forward_pass(weights, self.centred(batch))

    def gradient(self, weights, batch, output):
        return super().gradient(weights, self.centred(batch), output)

    def centred(self, batch):
        return {**batch, "x": batch["x"] - batch["x"].mean(axis=0)}

    def stacked_forward_and_gradient(self, weights, x, y, mask):
        n = np.maximum(mask.sum(axis=1), 1)[:, np.newaxis, np.newaxis]
        mean = np.where(mask[..., np.newaxis], x, 0).sum(axis=1, keepdims=True) / n
        return super().stacked_forward_and_gradient(weights, (x - mean).astype(np.float32), y, mask)


@pytest.mark.parametrize("make", [Centred, fed.learning.models.SoftmaxRegression])
def test_all_data_batch_by_batch_where_the_batch_matters_and_of_rows_that_are_not_read_equally_often(make):
    some = [
        Dataset.from_arrays(population()[c], c).repeat(2).shuffle(9, seed=3).batch(4, drop_remainder=True)
        for c in ("c0", "c1", "c4", "c7", "c10")
    ]
    kept = {}
    for engine in ("loop", "cohort"):
        process = compose_learning_process(
            make(4, 3), OptionOne(ETA, N), MEAN, optimizers.build_sgdm(1.0), engine=engine
        )
        kept[engine] = process.next(process.initialize(), some).state.client_work.clients
    assert [*kept["loop"]] == [*kept["cohort"]] == ["c0", "c4", "c7", "c10"]  # c1 has no batch of four
    for one in kept["loop"]:
        for a, b in zip(*(kept[engine][one] for engine in kept), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_all_of_a_clients_data_has_to_be_asked_for():
    class Undeclared(OptionOne):
        reads_all_data = False

    process = compose_learning_process(toy_model, Undeclared(ETA, N), MEAN, optimizers.build_sgdm(1.0))
    with pytest.raises(ValueError, match="'reads_all_data' must be True for a local training that asks for"):
        process.next(process.initialize(), cohort(1))


class Noisy(LocalTraining):
    """A noise of its own for each client and round, added to each gradient; and a pull towards a second model."""

    def initialize_client(self, weights):
        return {"own": weights}

    def begin(self, client):
        noise = trees.map(
            lambda w: client.draw(5, lambda rng: rng.normal(size=w.shape[client.is_many :])), client.weights
        )
        return {"weights": client.weights, "noise": noise, "own": client.kept["own"], "rounds": client.round_num}

    def step(self, local, gradients, batch):
        rate = np.float32(0.1)
        w = trees.map(
            lambda w, g, z: w - rate * (g + z.astype(np.float32)), local["weights"], gradients, local["noise"]
        )
        own = trees.map(lambda v, g: v - rate * g, local["own"], batch.gradient_at(local["own"]))
        return {**local, "weights": w, "own": own}

    def end(self, client, local, trained):
        return ClientResult(trained.update, trained.num_examples, kept={"own": local["own"]})


def test_streams_of_clients_and_gradients_elsewhere_are_the_same_in_all_engines(two_processes):
    states = {}
    for name, keywords in {
        "loop": {"engine": "loop"},
        "cohort": {"engine": "cohort"},
        "processes": {"engine": "cohort", "executor": two_processes},
    }.items():
        process = compose_learning_process(toy_model, Noisy(), MEAN, optimizers.build_sgdm(1.0), **keywords)
        states[name] = run(process, 4)
    for path_and_leaf, other in zip(trees.leaves(states["cohort"]), trees.leaves(states["loop"]), strict=True):
        np.testing.assert_allclose(path_and_leaf[1], other[1], atol=1e-6, err_msg=path_and_leaf[0])
    assert bits(states["processes"]) == bits(states["cohort"])
    first, second = (process.next(process.initialize(), [c]).state for c in cohort(1)[:2])
    a, b = (s.global_model_weights.trainable[0] for s in (first, second))
    assert np.abs(a - b).max() > 1e-3
    by_sgd = fed.learning.build_weighted_fed_avg(toy_model, optimizers.build_sgdm(0.1))
    (one,) = random_cohort([9], batch=3)
    (own,) = process.next(process.initialize(), [one]).state.client_work.clients.values()
    expected = by_sgd.next(by_sgd.initialize(), [one]).state.global_model_weights.trainable
    for got, w in zip(own["own"], expected, strict=True):
        np.testing.assert_allclose(got, w, atol=1e-6)


def test_random_numbers_need_client_ids():
    process = compose_learning_process(toy_model, Noisy(), MEAN, optimizers.build_sgdm(1.0))
    with pytest.raises(ValueError, match="'data' must be of clients with ids"):
        process.next(process.initialize(), [toy_batches()])


# --- what is declared


class Clipped(LocalTraining):
    """Steps that look at all weights at once: not elementwise."""

    def begin(self, client):
        return {"weights": client.weights}

    def step(self, local, gradients, batch):
        norm = np.sqrt(sum(np.square(g).sum() for g in gradients))
        return {"weights": trees.map(lambda w, g: w - g / norm, local["weights"], gradients)}

    def end(self, client, local, trained):
        return ClientResult(trained.update, trained.num_examples)


class Declared(Clipped):
    def is_elementwise(self, state):
        return False


def test_steps_that_are_not_elementwise_are_found_out():
    make = functools.partial(compose_learning_process, toy_model)
    parts = MEAN, optimizers.build_sgdm(1.0)
    process = make(Clipped(), *parts)
    assert process.engine == "cohort"
    with pytest.raises(
        ValueError, match=r"work Clipped must come to the same .*'update/0' .* 56.7% off what the loop has"
    ):
        process.next(process.initialize(), cohort(1))
    declared, loop = make(Declared(), *parts), make(Clipped(), *parts, engine="loop")
    assert declared.engine == "loop"
    assert bits(declared.next(declared.initialize(), cohort(1)).state) == bits(
        loop.next(loop.initialize(), cohort(1)).state
    )
    with pytest.raises(
        ValueError, match="engine='cohort' cannot take the steps of Declared, which are not elementwise"
    ):
        make(Declared(), *parts, engine="cohort")


class Bare(Scaffold):
    """SCAFFOLD that declares nothing of its steps."""

    def step(self, local, gradients, batch):
        return super().step(local, gradients, batch)


def test_what_is_declared_of_steps_is_not_inherited_by_other_steps():
    assert process_of().engine == "gram"
    process = compose_learning_process(toy_model, Bare(ETA, N), MEAN, optimizers.build_sgdm(1.0))
    assert process.engine == "cohort"
    reference = compose_learning_process(toy_model, Bare(ETA, N), MEAN, optimizers.build_sgdm(1.0), engine="loop")
    a, b = (trees.leaves(run(p, 3)) for p in (process, reference))
    for (path, got), (_, expected) in zip(a, b, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6, err_msg=path)


class Misshapen(Clipped):
    def begin(self, client):
        return {"weights": client.weights, "table": np.zeros((7, 2))}


def test_what_begin_gives_has_the_clients_axis_in_front():
    process = compose_learning_process(toy_model, Misshapen(), MEAN, optimizers.build_sgdm(1.0))
    with pytest.raises(ValueError, match=r"'table of Misshapen.begin' must be with the clients' axis in front"):
        process.next(process.initialize(), cohort(1))


@dataclass(frozen=True)
class Pulled(LocalTraining):
    """Momentum, a pull and a drift that is the same for all clients: all that `gram` knows, at once."""

    momentum: float
    pull: float

    def initialize(self, weights):
        rng = np.random.RandomState(0)
        return trees.map(lambda w: 0.1 * rng.randn(*w.shape).astype(np.float32), weights)

    def begin(self, client):
        zeros = trees.map(lambda w: np.zeros(w.shape, w.dtype), client.weights)
        return {"weights": client.weights, "start": client.weights, "drift": client.state, "momentum": zeros}

    def step(self, local, gradients, batch):
        rate, m, mu = np.float32(0.05), np.float32(self.momentum), np.float32(self.pull)
        g = trees.map(
            lambda g, w, w0, d: g + mu * (w - w0) + d, gradients, local["weights"], local["start"], local["drift"]
        )
        a = trees.map(lambda a, g: m * a + g, local["momentum"], g)
        return {**local, "weights": trees.map(lambda w, a: w - rate * a, local["weights"], a), "momentum": a}

    def end(self, client, local, trained):
        moved = trees.map(np.subtract, client.weights, local["weights"])  # computed again by those who ask for weights
        return ClientResult(moved, trained.num_examples, metrics=OrderedDict(steps=[trained.num_steps]))

    def initial_metrics(self):
        return OrderedDict(steps=[0])

    def metric_finalizers(self):
        return OrderedDict(steps=lambda sums: sums[0])

    def as_sgd(self, state):
        return SGDSteps(0.05, momentum=self.momentum, pull=self.pull, drift="drift")


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize(("momentum", "pull"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7), (0.8, 0.7)])
def test_momentum_pull_and_drift_in_the_span(momentum, pull, l2):
    model = fed.learning.models.SoftmaxRegression(4, 3, l2=l2)
    states = {}
    for engine in ("loop", "cohort", "gram", "presorted"):
        process = compose_learning_process(
            model, Pulled(momentum, pull), MEAN, optimizers.build_sgdm(1.0), engine=engine
        )
        states[engine] = run(process, 3)
    for engine in ("cohort", "gram", "presorted"):
        for (path, a), (_, b) in zip(trees.leaves(states[engine]), trees.leaves(states["loop"]), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6, err_msg=f"{engine} {path}")


# --- the server's half


def test_the_server_half_sees_the_cohort():
    seen = []

    class Watching(fed.learning.fed_avg.FedAvgTraining):
        counts_rounds = True

        def end(self, client, local, trained):
            return super().end(client, local, trained)._replace(message=(local["weights"][1],))

        def finish_round(self, state, cohort):
            seen.append(cohort)
            return state, OrderedDict(clients=len(cohort))

        @property
        def round_metrics(self):
            return OrderedDict(clients=0)

    class Asking(fed.learning.aggregators.CohortAggregator):
        def initialize(self, trainable):
            return ()

        def next_of_cohort(self, state, updates, cohort):
            seen.append(cohort)
            return state, tuple(u[cohort.counts].sum(axis=0) for u in updates), OrderedDict()

    data = [
        *random_cohort([4, 0, 5], batch=2),
        [{"x": np.full((2, 4), np.nan, np.float32), "y": np.zeros((2, 1), int)}],
    ]
    for engine in ENGINES:
        process = compose_learning_process(
            toy_model, Watching(optimizers.build_sgdm(0.1)), Asking(), optimizers.build_sgdm(1.0), engine=engine
        )
        output = process.next(process.initialize(), data)
        assert output.metrics["client_work"]["clients"] == 4
        assert "client_work=<train=" in str(process.next.type_signature)
        of_rule, of_work = seen[-2:]
        assert of_rule is of_work
        assert (of_work.ids, of_work.round_num) == (["c0", "c1", "c2", None], 1)
        assert of_work.client_weights.tolist() == [4, 0, 5, 0]
        assert of_work.num_examples.tolist() == [4, 0, 5, 2]
        assert of_work.num_steps.tolist() == [2, 0, 3, 1]
        assert of_work.status == ["ok", "empty", "ok", "non-finite update"]
        assert of_work.counts.tolist() == [True, False, True, False]
        (messages,) = of_work.messages
        assert messages.shape == (4, 3)
        assert (messages[[1, 3]] == 0).all()
        assert (messages[[0, 2]] != 0).any(axis=1).all()


def test_a_rule_that_is_no_mean_is_not_shown_clients_that_do_not_count():
    class Median(fed.learning.aggregators.Aggregator):
        def initialize(self, trainable):
            return ()

        def next(self, state, updates, weights):
            return state, tuple(np.median(u, axis=0) for u in updates), OrderedDict(of=len(weights))

    good, bad = (
        random_cohort([4, 6, 5], batch=2),
        [{"x": np.full((2, 4), np.inf, np.float32), "y": np.zeros((2, 1), int)}],
    )
    for build in (fed.learning.build_weighted_fed_avg, fed.learning.build_unweighted_fed_avg):
        for rule in (Median(), fed.learning.aggregators.clipping_factory(1e9, Median())):
            process = build(toy_model, optimizers.build_sgdm(0.1), model_aggregator=rule, engine="loop")
            state = process.initialize()
            with_bad, without = (process.next(state, data) for data in ([*good, bad, []], good))
            for a, b in zip(trees.leaves(with_bad.state), trees.leaves(without.state), strict=True):
                np.testing.assert_array_equal(a[1], b[1])
            nobody = process.next(state, [bad, []])
            assert nobody.metrics["finalizer"]["update_non_finite"] == 1
            assert bits(nobody.state) == bits(state)


def test_a_plain_work_keeps_nothing_of_clients():
    class Keeping(fed.learning.ClientWork):
        def initialize(self):
            return ()

        def run(self, weights, dataset, state):
            return ClientResult((np.zeros((4, 3)), np.zeros(3)), 1.0, toy_model().initial_metrics(), kept=(np.ones(1),))

    process = compose_learning_process(toy_model, Keeping(), MEAN, optimizers.build_sgdm(1.0))
    with pytest.raises(ValueError, match="'kept of the ClientResult of Keeping' must be what initialize_client gives"):
        process.next(process.initialize(), random_cohort([3]))


def test_threads_of_ones_own_model_without_a_stack():
    with ThreadPoolExecutor(2) as threads:
        processes = [build_scaffold(Plain, ETA, N, executor=executor) for executor in ("serial", threads)]
        assert processes[0].engine == "loop"
        a, b = (run(process, 3) for process in processes)
    assert bits(a) == bits(b)
    process = build_scaffold(Stacked, ETA, N)
    assert process.engine == "cohort"
    for (path, got), (_, expected) in zip(trees.leaves(run(process, 3)), trees.leaves(a), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6, err_msg=path)
