"""Parts of one's own that are wrong, each as somebody would get it wrong: told by name, with what was found."""

from typing import NamedTuple

import numpy as np
import pytest
from conftest import random_cohort, toy_model

import fedsim_np as fed
from fedsim_np import trees
from fedsim_np.learning import ClientResult, LocalTraining, SGDSteps, compose_learning_process, optimizers

MEAN, PLAIN = fed.learning.aggregators.MeanFactory(), optimizers.build_sgdm(1.0)
RATE = np.float32(0.1)


class Right(LocalTraining):
    """Gradient descent."""

    def begin(self, client):
        return {"weights": client.weights}

    def step(self, local, gradients, batch):
        return {**local, "weights": trees.map(lambda w, g: w - RATE * g, local["weights"], gradients)}

    def end(self, client, local, trained):
        return ClientResult(trained.update, weight=trained.num_examples)


def cohort():
    return random_cohort([9, 4, 30, 17], batch=4)


def run(work, engine="auto", aggregator=MEAN, rounds=2):
    process = compose_learning_process(toy_model, work, aggregator, PLAIN, engine=engine)
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, cohort())
    return state, metrics


class NormOfAll(Right):
    """A metric of one client that is taken over all axes."""

    def initial_metrics(self):
        return {"norm": [0.0, 0]}

    def metric_finalizers(self):
        return {"norm": lambda sums: sums[0] / sums[1]}

    def end(self, client, local, trained):
        norm = [np.linalg.norm(trained.update[0]), np.ones_like(trained.num_examples)]
        return super().end(client, local, trained)._replace(metrics={"norm": norm})


class ClippedUpdate(Right):
    """An update that is clipped by a norm over all axes."""

    def end(self, client, local, trained):
        norm = np.sqrt(sum(np.square(u).sum() for u in trained.update))
        return ClientResult(trees.map(lambda u: u / norm, trained.update), weight=trained.num_examples)


class NormalisedStart(Right):
    """What is told to all clients is divided by a norm over all axes."""

    def initialize(self, weights):
        return trees.map(np.ones_like, weights)

    def begin(self, client):
        return {"weights": client.weights, "pull": trees.map(lambda s: s / np.linalg.norm(s), client.state)}

    def step(self, local, gradients, batch):
        weights = trees.map(lambda w, g, p: w - RATE * (g + p), local["weights"], gradients, local["pull"])
        return {**local, "weights": weights}


class OneMessage(Right):
    """A message that is a number for all clients."""

    def end(self, client, local, trained):
        return super().end(client, local, trained)._replace(message=np.linalg.norm(trained.update[0]))


class OtherRate(Right):
    """as_sgd with another rate than step's."""

    def as_sgd(self, state):
        return SGDSteps(0.05)


class ForgottenPull(Right):
    """A proximal term in step and not in as_sgd."""

    def step(self, local, gradients, batch):
        pulled = trees.map(lambda g, w, w0: g + np.float32(0.1) * (w - w0), gradients, local["weights"], local["start"])
        return super().step(local, pulled, batch)

    def begin(self, client):
        return {"weights": client.weights, "start": client.weights}

    def as_sgd(self, state):
        return SGDSteps(0.1)


@pytest.mark.parametrize("work", [NormOfAll, ClippedUpdate, NormalisedStart, OneMessage, OtherRate, ForgottenPull])
def test_what_is_not_the_same_for_one_client_and_for_many_is_found_in_the_first_round(work):
    run(work(), "loop")
    with pytest.raises(
        ValueError, match=f"client work {work.__name__} must come to the same for one client and for ma"
    ):
        run(work(), rounds=1)
    run(type("Fixed", (work,), {"is_elementwise": lambda self, state: False})())


class Scaffold(Right):
    """SCAFFOLD's drift, which is 0 in round 1."""

    def initialize(self, weights):
        return trees.map(np.zeros_like, weights)

    def initialize_client(self, weights):
        return trees.map(np.zeros_like, weights)

    def begin(self, client):
        return {"weights": client.weights, "d": trees.map(np.subtract, client.state, client.kept)}

    def step(self, local, gradients, batch):
        return super().step(local, trees.map(np.add, gradients, local["d"]), batch)

    def end(self, client, local, trained):
        by = np.float32(0.1) * np.maximum(trained.num_steps, 1)
        moved = trees.map(lambda u, d: u / trees.along(by, u) - d, trained.update, local["d"])
        kept = trees.map(lambda d, c, m: m - c + 0 * d, local["d"], client.state, moved)
        return ClientResult(trained.update, weight=1.0, kept=kept, message=moved)

    def finish_round(self, state, cohort):
        return trees.map(lambda c, m: c + m.mean(axis=0), state, cohort.messages), {}


class ForgottenDrift(Scaffold):
    def as_sgd(self, state):
        return SGDSteps(0.1)

    begin, step = Scaffold.begin, Scaffold.step


def test_a_drift_that_as_sgd_forgets_is_found_in_the_second_round():
    run(ForgottenDrift(), "loop")
    run(ForgottenDrift(), rounds=1)
    with pytest.raises(ValueError, match="client work ForgottenDrift must come to the same"):
        run(ForgottenDrift())


class WideServer(Scaffold):
    def finish_round(self, state, cohort):
        return trees.map(lambda c, m: m.sum(axis=0, dtype=np.float64), state, cohort.messages), {}


class UncountedRounds(Scaffold):
    counts_rounds = False


class NoMessage(Scaffold):
    def end(self, client, local, trained):
        return super().end(client, local, trained)._replace(message=None)


class ManyStates(Scaffold):
    def finish_round(self, state, cohort):
        return state


def test_what_is_right_passes_also_where_rounding_leads_astray():
    class Wild(Right):
        """A map that stretches a last digit to all, and a last digit that is another one in lockstep."""

        def step(self, local, gradients, batch):
            rate = RATE * np.float32(1 + 1e-7 * np.ndim(batch.num_examples))
            descend = lambda w, g: np.sin(4000 * w) - rate * g  # noqa: E731
            return {**local, "weights": trees.map(descend, local["weights"], gradients)}

    assert distance(Right()) < 1e-6
    assert distance(Wild()) > 1e-2


def distance(work):
    """How far lockstep and the loop are apart after a round."""
    (kernel, _), (other, _) = (run(work, e, rounds=1)[0].global_model_weights.trainable for e in ("loop", "cohort"))
    return np.abs(kernel - other).max()


class Elsewhere(Right):
    """as_sgd, and a start that is not the server's weights."""

    def begin(self, client):
        return {"weights": trees.map(lambda w: w + 1, client.weights)}

    step = Right.step

    def as_sgd(self, state):
        return SGDSteps(0.1)


class NoWeights(Right):
    def begin(self, client):
        return {"weight": client.weights}


class TupleOfLocal(Right):
    def step(self, local, gradients, batch):
        return local, gradients


class NoResult(Right):
    def end(self, client, local, trained):
        return {"update": trained.update}


class WideRate(Right):
    """A rate of np.float64, as np.linspace gives it."""

    def step(self, local, gradients, batch):
        rate = np.asarray(0.1, np.float64).reshape(())
        return {"weights": trees.map(lambda w, g: w - rate * g.astype(np.float64), local["weights"], gradients)}


class Keeping(Right):
    def initialize_client(self, weights):
        return trees.map(np.zeros_like, weights)


class KeptOfAnotherShape(Keeping):
    def end(self, client, local, trained):
        return super().end(client, local, trained)._replace(kept=trained.update[:1])


class KeptFirst(Right):
    def end(self, client, local, trained):
        return super().end(client, local, trained)._replace(kept=trained.update)


class NoWeight(Right):
    def end(self, client, local, trained):
        return ClientResult(trained.update, weight=None)


class UnknownMetric(Right):
    def end(self, client, local, trained):
        return super().end(client, local, trained)._replace(metrics={"norm": [trained.num_examples, 1]})


class StateAlone(Right):
    def finish_round(self, state, cohort):
        return state


@pytest.mark.parametrize(
    ("work", "engines", "message"),
    [
        (
            Elsewhere,
            ["auto", "gram", "presorted"],
            "'weights of Elsewhere' must be where begin leaves them, at client.weights",
        ),
        (NoWeights, ["loop", "auto"], "'begin of NoWeights' must be a mapping with 'weights' in it. Got {'weight'"),
        (TupleOfLocal, ["loop", "auto"], "'step of TupleOfLocal' must be a mapping with 'weights' in it"),
        (NoResult, ["loop", "auto"], "'end of NoResult' must be a ClientResult. Got {'update'"),
        (
            WideServer,
            ["loop", "auto"],
            r"'0 that finish_round of WideServer gives' must be float32, as what initialize gi",
        ),
        (
            UncountedRounds,
            ["loop", "auto"],
            "'counts_rounds of UncountedRounds' must be True for a local training that",
        ),
        (
            NoMessage,
            ["loop", "auto"],
            "'message' must be given in the ClientResult of a work that asks for cohort.messa",
        ),
        (ManyStates, ["loop", "auto"], r"'finish_round of ManyStates' must be \(state, metrics\)"),
        (WideRate, ["loop", "auto"], r"'weights of WideRate' must be float32, as the model's .* Got 'float64'"),
        (
            KeptOfAnotherShape,
            ["loop", "auto"],
            "'kept of the ClientResult of KeptOfAnotherShape' must be what initiali",
        ),
        (KeptFirst, ["loop", "auto"], "'kept of the ClientResult of KeptFirst' must be what initialize_client gives"),
        (NoWeight, ["loop", "auto"], "'weight of client c0' must be a finite float >= 0. Got None"),
        (UnknownMetric, ["loop", "auto"], r"'metrics of the ClientResult of UnknownMetric' must be of the names that "),
        (StateAlone, ["loop", "auto"], r"'finish_round of StateAlone' must be \(state, metrics\). Got \(\)"),
    ],
)
def test_what_own_functions_give_is_checked(work, engines, message):
    for engine in engines:
        with pytest.raises((ValueError, TypeError), match=message):
            run(work(), engine)


def test_metrics_of_a_work_have_one_set_of_names():
    class Half(Right):
        def metric_finalizers(self):
            return {"norm": lambda sums: sums[0]}

    with pytest.raises(
        ValueError, match=r"'client_work' must be with initial_metrics and metric_finalizers of the same"
    ):
        run(Half())


def test_an_aggregator_gives_three_things():
    class Two(fed.learning.aggregators.MeanFactory):
        def next(self, state, updates, client_weights):
            return super().next(state, updates, client_weights)[:2]

    with pytest.raises(TypeError, match=r"'next of Two' must be \(state, aggregate, metrics\)"):
        run(Right(), aggregator=Two())


def test_a_client_whose_kept_is_not_finite_does_not_count():
    class Overflowing(Keeping):
        def end(self, client, local, trained):
            kept = trees.map(lambda u: np.where(np.abs(u) >= 0, np.inf, u).astype(u.dtype), trained.update)
            return super().end(client, local, trained)._replace(kept=kept)

    for engine in ("loop", "cohort"):
        process = compose_learning_process(toy_model, Overflowing(), MEAN, PLAIN, engine=engine)
        output = process.next(process.initialize(), cohort())
        assert set(output.clients["status"]) == {"non-finite update"}
        assert not output.state.client_work.clients


def test_what_is_kept_has_the_dtypes_of_the_first():
    class Wide(Keeping):
        def end(self, client, local, trained):
            kept = trees.map(lambda u: u.astype(np.float64), trained.update)
            return super().end(client, local, trained)._replace(kept=kept)

    for engine in ("loop", "cohort"):
        kept = run(Wide(), engine)[0].client_work.clients
        assert {w.dtype.name for of_client in kept.values() for w in of_client} == {"float32"}


class Pair(NamedTuple):
    lamb: np.ndarray
    count: int


@pytest.mark.parametrize("first", [Pair(np.zeros(2), 0), {"name": "ann"}, object()])
def test_what_is_kept_is_what_a_checkpoint_restores(first):
    class Odd(Right):
        def initialize_client(self, weights):
            return first

        def end(self, client, local, trained):
            return super().end(client, local, trained)._replace(kept=client.kept)

    with pytest.raises(
        TypeError, match="'what initialize_client of Odd gives' must be None, or arrays and numbers in tuples"
    ):
        run(Odd())


class ReadOnly(Right):
    """Sends arrays that nobody may write to; those of clients with fewer than five examples are not finite."""

    def end(self, client, local, trained):
        factor = np.sqrt(np.asarray(trained.num_examples) - 5.0)
        update = trees.map(lambda u: trees.along(factor, u) * u, trained.update)
        return super().end(client, local, trained)._replace(update=trees.freeze(update))


@pytest.mark.parametrize("aggregator", [MEAN, fed.learning.aggregators.clipping_factory(1.0, MEAN)])
@pytest.mark.parametrize("engine", ["loop", "cohort"])
def test_read_only_updates_that_are_not_finite_are_left_out(engine, aggregator):
    process = compose_learning_process(toy_model, ReadOnly(), aggregator, PLAIN, engine=engine)
    output = process.next(process.initialize(), cohort())
    assert output.clients["status"] == ["ok", "non-finite update", "ok", "ok"]
    assert all(np.isfinite(w).all() for w in output.state.global_model_weights.trainable)
