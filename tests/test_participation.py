"""Who answers: absent and partial clients, in the round, in the table and in the costs."""

import functools

import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import Attendance, optimizers
from fedsim_np.learning.models import LinearRegression
from fedsim_np.program import Participation

IDS = [f"c{i}" for i in range(8)]


def data_of(client_id, epochs=1):
    n = 2 + int(client_id[1:])
    arrays = {"x": np.zeros((n, 1), np.float32), "y": np.full((n, 1), n, np.float32)}
    return Dataset.from_arrays(arrays, client_id).repeat(epochs).batch(2)


def built(**keywords):
    return fed.learning.build_weighted_fed_avg(LinearRegression(1), optimizers.build_sgdm(0.1), **keywords)


@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize("build", ["build_weighted_fed_avg", "build_unweighted_fed_avg"])
def test_a_round_of_those_who_are_there(build, engine):
    """Also in the unweighted mean, where an empty client counts as an update of zero."""
    process = getattr(fed.learning, build)(LinearRegression(1), optimizers.build_sgdm(0.1), engine=engine)
    cohort = [
        Attendance("c0", None, "absent"),
        Attendance("c1", data_of("c1", 3), "full"),
        Attendance("c2", data_of("c2"), "partial"),
        Attendance("c3", None, "absent"),
    ]
    output = process.next(process.initialize(), cohort)
    alone = process.next(process.initialize(), [data_of("c1", 3), data_of("c2")])
    for a, b in zip(*(o.state.global_model_weights.trainable for o in (output, alone)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert output.metrics["client_work"] == alone.metrics["client_work"]
    assert output.metrics["participation"] == {"full": 1, "partial": 1, "absent": 2}
    assert "participation" not in alone.metrics
    table = output.clients
    assert table["client_id"] == ["c0", "c1", "c2", "c3"]
    assert table["status"] == ["absent", "ok", "partial", "absent"]
    assert table["num_examples"].tolist() == [0, 9, 4, 0]
    np.testing.assert_array_equal(table["update_norm"][[1, 2]], alone.clients["update_norm"])
    assert table["update_norm"][[0, 3]].tolist() == [0, 0]
    assert table["metrics"][1] == alone.clients["metrics"][0]
    assert table["metrics"][0]["num_examples"] in (0, [0])


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_a_round_of_nobody(engine):
    process = built(engine=engine)
    first = process.next(process.initialize(), [data_of("c1")]).state
    output = process.next(first, [Attendance("c1", None, "absent")])
    assert output.metrics["finalizer"]["update_non_finite"] == 1
    assert output.clients["status"] == ["absent"]
    for a, b in zip(output.state.global_model_weights.trainable, first.global_model_weights.trainable, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_kept_of_an_absent_client_stays():
    process = fed.learning.build_scaffold(LinearRegression(1), 0.1, num_clients=2)
    first = process.next(process.initialize(), [data_of("c1"), data_of("c2")]).state
    output = process.next(first, [Attendance("c1", None, "absent"), Attendance("c2", data_of("c2"))])
    np.testing.assert_array_equal(output.state.client_work.clients["c1"][1], first.client_work.clients["c1"][1])
    assert output.state.client_work.clients["c2"][1] != first.client_work.clients["c2"][1]


def test_rates_and_what_they_depend_on():
    participation = Participation(dropout=0.3, stragglers=0.5, min_epochs=2, seed=3)
    drawn = np.array([[participation.num_epochs(r, f"c{i}", 6) for i in range(50)] for r in range(100)])
    n = drawn.size
    assert (drawn == 0).mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / n))
    assert (drawn == 6).mean() == pytest.approx(0.35, abs=5 * np.sqrt(0.23 / n))
    counts = np.bincount(drawn.ravel(), minlength=7)
    assert counts[1] == 0
    assert np.abs(counts[2:6] - n * 0.35 / 4).max() < 5 * np.sqrt(n * 0.0875)
    # Neither rounds nor clients go together.
    assert np.abs(np.corrcoef((drawn == 0)[:, :10], rowvar=False) - np.eye(10)).max() < 0.5
    assert (drawn[3] != drawn[4]).any()
    # Who is absent does not depend on how many epochs are asked for, or on the stragglers.
    other = Participation(dropout=0.3, seed=3)
    assert [other.num_epochs(5, f"c{i}", 9) == 0 for i in range(50)] == (drawn[5] == 0).tolist()
    dropping = Participation(dropout=0.3, stragglers=0.5, min_epochs=2, seed=3, drop_stragglers=True)
    assert [dropping.num_epochs(5, f"c{i}", 6) for i in range(50)] == [6 * (e == 6) for e in drawn[5].tolist()]


def test_a_cohort_and_its_run():
    participation = Participation(dropout=0.4, stragglers=0.5, seed=1)

    def select(round_num):
        return participation.cohort(round_num, IDS, data_of, epochs=4)

    for entry in select(2):
        done = participation.num_epochs(2, entry.client_id, 4)
        assert entry.is_there == (done > 0)
        if done:
            assert entry.data.num_examples == done * (2 + int(entry.client_id[1:]))
            assert entry.status == ("full" if done == 4 else "partial")
    log = fed.program.MemoryLogger()
    fed.program.run_training_process(built(), select, 5, metrics_managers=[log])
    for round_num in range(1, 6):
        absent = sum(not entry.is_there for entry in select(round_num))
        assert log.history["participation/absent"][round_num - 1] == absent


def test_a_stranger_answers_under_the_name_that_was_asked():
    process = fed.learning.build_scaffold(LinearRegression(1), 0.1, num_clients=2)
    unnamed = [{"x": np.zeros((2, 1), np.float32), "y": np.ones((2, 1), np.float32)}]
    state = process.next(process.initialize(), [Attendance("zoe", unnamed)]).state
    assert set(state.client_work.clients) == {"zoe"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Participation(dropout=1.5), ValueError, "'dropout' must be a probability, from 0 to 1. Got 1.5"),
        (lambda: Participation(stragglers=-0.1), ValueError, "'stragglers' must be a finite float >= 0"),
        (lambda: Participation(min_epochs=0), ValueError, "'min_epochs' must be an integer >= 1"),
        (
            lambda: built().next(built().initialize(), [Attendance("c1", data_of("c1")), data_of("c2")]),
            TypeError,
            "'data' must be an Attendance of each client, or of none",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_word_that_says_nothing_of_a_client_is_refused():
    data = [{"x": np.zeros((1, 1), np.float32), "y": np.zeros((1, 1), np.float32)}]
    sgd = fed.learning.optimizers.build_sgdm(0.1)
    process = fed.learning.build_weighted_fed_avg(fed.learning.models.LinearRegression(1), sgd)
    with pytest.raises(ValueError, match="abscent"):
        process.next(process.initialize(), [fed.learning.Attendance("ann", data, "abscent")])


@pytest.mark.parametrize("build", [fed.learning.build_scaffold, functools.partial(fed.learning.build_fed_dyn, alpha=1)])
def test_a_round_of_more_clients_than_there_are(build):
    data = [{"x": np.zeros((1, 1), np.float32), "y": np.zeros((1, 1), np.float32)}]
    process = build(fed.learning.models.LinearRegression(1), 0.1, num_clients=1)
    cohort = [Dataset.from_batches(data, name) for name in ("ann", "bob")]
    with pytest.raises(ValueError, match="'num_clients' must be all there are, at least the 2 of this round. Got 1"):
        process.next(process.initialize(), cohort)


def test_the_name_of_a_loss_is_one_of_the_models():
    with pytest.raises(ValueError, match="los"):
        fed.program.client_losses_fn(fed.learning.models.SoftmaxRegression(2, 2), "los")
