"""Epsilons: dp-accounting's figures, closed forms, and what a run says of itself."""

import importlib.util
import itertools
import json
import math
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import GOLDENS, random_cohort, sgd, toy_model
from hypothesis import given, settings

import fedsim_np as fed
from fedsim_np import privacy
from fedsim_np.learning import aggregators
from fedsim_np.privacy import epsilon, noise_multiplier

NONE, FIXED = {"sampling": "none"}, {"population": 3383, "clients_per_round": 100, "sampling": "fixed_size"}


def of(population, clients_per_round):
    return {"population": population, "clients_per_round": clients_per_round}


# Of dp-accounting 0.6.0: RDP and PLD.
TABLE = [
    ((1.0, 1, 1e-5), NONE, 4.728507, 4.377178),
    ((4.0, 1, 1e-5), NONE, 1.012551, 0.926342),
    ((1.0, 100, 1e-5), NONE, 96.116308, 91.817290),
    ((1.0, 1000, 1e-5), of(100, 1), 2.101367, 1.828244),
    ((4.0, 10_000, 1e-5), of(100, 1), 1.035490, 0.946999),
    ((1.0, 200, 1 / 3383), of(3383, 100), 2.410577, 2.016197),
    ((1.1, 14_062, 1e-5), of(60_000, 256), 2.596556, 2.381686),
    ((1.0, 200, 1 / 3383), FIXED, 24.966371, None),
    ((2.0, 200, 1 / 3383), FIXED, 4.140830, None),
]
NOISE = [((1.0, 1, 1e-5), NONE, 4.045385, 3.730632), ((2.0, 1000, 1e-5), of(100, 1), 1.022290, 0.959103)]


@pytest.mark.parametrize(("asked", "how", "rdp", "pld"), TABLE)
def test_the_table(asked, how, rdp, pld):
    assert epsilon(*asked, **how) == pytest.approx(rdp, abs=1e-4)


@pytest.mark.parametrize(("asked", "how", "rdp", "pld"), NOISE)
def test_the_noise_for_an_epsilon(asked, how, rdp, pld):
    assert noise_multiplier(*asked, **how) == pytest.approx(rdp, abs=1e-5)


with_dp_accounting = pytest.mark.skipif(
    importlib.util.find_spec("dp_accounting") is None, reason="dp-accounting is not installed"
)


@with_dp_accounting
@pytest.mark.filterwarnings("default")
def test_the_tables_by_privacy_loss_distributions():
    for asked, how, _, pld in TABLE[:-2]:
        assert epsilon(*asked, **how, accountant="pld") == pytest.approx(pld, abs=1e-3)
    asked, how, _, pld = NOISE[0]
    assert noise_multiplier(*asked, **how, accountant="pld") == pytest.approx(pld, abs=1e-3)
    (reached, *asked), how, _, pld = NOISE[1]  # the way back would take 20 s
    assert epsilon(pld, *asked, **how, accountant="pld") == pytest.approx(reached, abs=1e-3)


@with_dp_accounting
@pytest.mark.filterwarnings("default")
def test_dp_accounting_itself():
    dp = pytest.importorskip("dp_accounting")
    rdp = pytest.importorskip("dp_accounting.rdp")
    for noise, clients, rounds in itertools.product((0.7, 1.5), (30, 300), (10, 1000)):
        event = dp.PoissonSampledDpEvent(clients / 3000, dp.GaussianDpEvent(noise))
        theirs = rdp.RdpAccountant().compose(event, rounds).get_epsilon(1e-5)
        if theirs < 15:  # see the next test
            assert epsilon(noise, rounds, 1e-5, **of(3000, clients)) == pytest.approx(theirs, rel=0.01)


def test_a_grid_of_dp_accounting():
    stored = json.loads((GOLDENS / "dp_accounting.json").read_text(encoding="utf-8"))
    for row in stored["rows"]:
        how = {**of(stored["population"], row["clients_per_round"]), "sampling": row["sampling"]}
        ours = epsilon(row["noise_multiplier"], row["rounds"], stored["delta"], **how)
        assert ours == pytest.approx(row["rdp 0.4.3"], rel=1e-9, abs=1e-12)
        # 0.6.0 is too large at fractional orders, which are best where epsilon is large.
        assert ours <= row["rdp 0.6.0"] * (1 + 1e-9)
        assert ours >= row["rdp 0.6.0"] * 0.99 or row["rdp 0.6.0"] > 15
        assert ours >= row.get("pld", 0)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.0), (0.3, 0.5), (0.5, 4.0), (0.001, 0.2)])
def test_whole_orders_have_a_closed_form(q, sigma):
    divergences = dict(zip(privacy._ORDERS.tolist(), privacy._divergences(sigma, q, "poisson"), strict=True))
    for a in (2, 3, 8):
        terms = [
            math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp(k * (k - 1) / 2 / sigma**2) for k in range(a + 1)
        ]
        assert divergences[a] == pytest.approx(math.log(math.fsum(terms)) / (a - 1), rel=1e-9, abs=1e-14)


def test_moments_of_the_distance_have_a_closed_form():
    # E[(e^w - 1)^2] = e^(1/sigma^2) - 1, by hand; theorem 27 at order 2 is q^2 min(4 of it, 2 e^(1/sigma^2)).
    for z, q in ((1.0, 0.1), (8.0, 0.1)):
        moment = math.exp(4 / z**2)
        expected = math.log1p(q**2 * min(4 * (moment - 1), 2 * moment))
        at_two = privacy._divergences(z, q, "fixed_size")[list(privacy._ORDERS).index(2)]
        assert at_two == pytest.approx(expected, rel=1e-9)


samplings = st.sampled_from(["poisson", "fixed_size", "none"])


@given(st.floats(0.3, 8), st.integers(1, 500), st.sampled_from([1e-6, 1e-3]), st.integers(1, 99), samplings)
@settings(max_examples=15)
def test_more_noise_fewer_rounds_and_fewer_clients_promise_more(z, rounds, delta, clients, sampling):
    how = {**of(100, clients), "sampling": sampling}
    reached = epsilon(z, rounds, delta, **how)
    assert 0 <= epsilon(z * 1.1, rounds, delta, **how) <= reached <= epsilon(z, rounds + 1, delta, **how)
    assert reached <= epsilon(z, rounds, delta / 2, **how)
    assert reached <= epsilon(z, rounds, delta, **{**how, "clients_per_round": clients + 1}) * (1 + 1e-12) or (
        sampling == "fixed_size"  # whose bound is loose where nearly all are sampled
    )


def test_identities():
    gaussian = epsilon(1.3, 7, 1e-5, **NONE)
    assert epsilon(1.3, 7, 1e-5, **of(50, 50)) == gaussian
    # Replacing is removing and adding: twice the distance. And 7 rounds are one with noise over sqrt(7).
    assert epsilon(2.6, 7, 1e-5, **of(50, 50), sampling="fixed_size") == gaussian
    assert epsilon(1.3 / math.sqrt(7), 1, 1e-5, **NONE) == pytest.approx(gaussian)
    assert epsilon(1.0, 0, 1e-5, **NONE) == 0
    assert epsilon(0.0, 1, 1e-5, **of(10, 1)) == math.inf
    for how in (NONE, of(10, 1), {**of(10, 1), "sampling": "fixed_size"}):
        assert [epsilon(z, 1, 1e-5, **how) for z in (1e9, 1e200, 1e-200, 5e-324)] == [0, 0, math.inf, math.inf]
    for how in (NONE, of(1000, 20), {**of(1000, 20), "sampling": "fixed_size"}):
        z = noise_multiplier(1.5, 50, 1e-5, **how)
        assert 1.5 * (1 - 1e-5) < epsilon(z, 50, 1e-5, **how) <= 1.5
    # Noise so small that sampling does not count.
    assert epsilon(0.005, 1, 1e-5, **of(10, 1)) == epsilon(0.005, 1, 1e-5, **NONE)


def test_what_is_refused(monkeypatch):
    for wrong, message in [
        ({"noise_multiplier": -1.0}, "'noise_multiplier' must be a finite float >= 0"),
        ({"rounds": 1.5}, "'rounds' must be an integer >= 0"),
        ({"delta": 0.0}, r"'delta' must be a float in \(0, 1\)"),
        ({"population": None}, "'population' must be an integer >= 1"),
        ({"clients_per_round": 11}, "'clients_per_round' must be > 0 and at most the population of 10"),
        ({"sampling": "possion"}, "Did you mean 'poisson'"),
        ({"accountant": "pdl"}, "'accountant' must be one of rdp, pld"),
        ({"accountant": "pld", "sampling": "fixed_size"}, "'accountant' must be 'rdp' for sampling='fixed_size'"),
    ]:
        asked = {"noise_multiplier": 1.0, "rounds": 1, "delta": 1e-5, **of(10, 1), **wrong}
        with pytest.raises(ValueError, match=message):
            epsilon(**asked)
    with pytest.raises(ValueError, match="'epsilon' must be a finite float > 0"):
        noise_multiplier(0.0, 1, 1e-5, **NONE)
    with pytest.raises(ValueError, match="'sampled' must be one of"):
        privacy.Guarantee(1.0, 1e-5, sampling="none", sampled="uniform")
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r'accountant="pld" needs dp-accounting: pip install "fedsim_np\[privacy\]"'):
        epsilon(1.0, 1, 1e-5, **NONE, accountant="pld")


def test_a_run_says_what_it_promises(folder, capsys):
    guarantee = privacy.Guarantee(1.0, 1e-3, **of(20, 2), sampled="fixed_size")
    noisy = aggregators.clipping_factory(9.0, aggregators.DifferentiallyPrivateFactory.gaussian_fixed(1.0, 2.0, 0.5))
    process = fed.learning.build_unweighted_fed_avg(toy_model, sgd(0.5), model_aggregator=noisy)
    cohort, memory = random_cohort([4, 3]), fed.program.MemoryLogger()
    with pytest.raises(TypeError, match="'privacy' must be a Guarantee or None"):
        fed.program.run_training_process(process, lambda _: cohort, 3, privacy=1.0)
    with pytest.raises(ValueError, match=r"'privacy' must be of the aggregator's noise_multiplier, 1.0. Got 2.0."):
        fed.program.run_training_process(
            process, lambda _: cohort, 3, privacy=privacy.Guarantee(2.0, 1e-3, **of(20, 2))
        )
    fed.program.run_training_process(
        process,
        lambda _: cohort,
        3,
        metrics_managers=[memory, fed.program.ConsoleLogger(3), fed.program.CSVLogger(folder / "metrics.csv")],
        privacy=guarantee,
    )
    expected = [epsilon(1.0, rounds, 1e-3, **of(20, 2)) for rounds in (1, 2, 3)]
    assert memory.history["privacy/epsilon"] == expected
    meaning = (
        "delta 0.001; sampling: poisson; neighbours: one client added or removed; accountant: rdp; "
        "the run itself samples fixed_size, for which this does not hold"
    )
    assert memory.history["privacy/meaning"] == [meaning] * 3
    assert f"epsilon {expected[2]:.4f} ({meaning})" in capsys.readouterr().out.splitlines()[2]
    assert (folder / "metrics.csv").read_text(encoding="utf-8").count(meaning) == 3
    honest = privacy.Guarantee(1.0, 1e-3, **of(20, 2), sampled="poisson").after(1)["meaning"]
    assert honest == meaning.partition("; the run itself")[0]
    # Of an aggregator of one's own it is not known.
    plain, memory = fed.learning.build_unweighted_fed_avg(toy_model, sgd(0.5)), fed.program.MemoryLogger()
    fed.program.run_training_process(plain, lambda _: cohort, 1, metrics_managers=[memory], privacy=guarantee)
    assert memory.history["privacy/meaning"] == [meaning + "; whether the aggregator adds that noise is not known"]


def test_what_the_figure_does_not_know_is_said():
    noise = aggregators.DifferentiallyPrivateFactory.gaussian_fixed(1.0, 2.0, 0.5)
    adaptive = aggregators.PrivateQuantileEstimationProcess.no_noise(1.0, 0.5, 0.2)
    several = "what the aggregator makes of several clients' updates before the noise is not counted"
    kept = "what clients keep between rounds is not counted with fixed_size"
    told = "what else clients tell the server is not counted"
    attack = fed.learning.attacks.attack_factory
    mean = fed.learning.build_unweighted_fed_avg
    ids = [f"c{i}" for i in range(20)]
    for rule, doubts in (
        (noise, []),
        (aggregators.add_debug_measurements(aggregators.clipping_factory(1.0, noise)), []),
        (attack(fed.learning.attacks.sign_flip(), ids[:3], noise), []),
        (attack(fed.learning.attacks.mimic(), ids[:3], noise), [several]),
        (aggregators.bucketing_factory(2, noise), [several]),
        (aggregators.clipping_factory(adaptive, noise), [several]),
        (aggregators.clipping_factory(1.0, aggregators.zeroing_factory(adaptive, noise)), [several]),
    ):
        assert doubts_of(mean(toy_model, sgd(0.5), model_aggregator=rule), "poisson") == doubts
    top_k, quantize = fed.learning.compression.top_k(0.5), fed.learning.compression.quantize(4)
    for compressor, sampling, doubts in (
        (top_k, "poisson", []),
        (top_k, "fixed_size", [kept]),
        (quantize, "fixed_size", []),
    ):
        process = mean(toy_model, sgd(0.5), model_aggregator=noise, compressor=compressor)
        assert doubts_of(process, sampling) == doubts
    mime = fed.learning.build_unweighted_mime_lite(toy_model, sgd(0.5), model_aggregator=noise)
    assert doubts_of(mime, "poisson") == [told]


def doubts_of(process, sampling):
    memory = fed.program.MemoryLogger()
    guarantee = privacy.Guarantee(1.0, 1e-3, **of(20, 2), sampling=sampling)
    plain = guarantee.after(1)["meaning"]
    data = fed.datasets.InMemoryClientData({"c0": {"x": np.ones((2, 4), np.float32), "y": np.zeros((2, 1), np.int32)}})
    cohort = [data.create_dataset_for_client("c0").batch(2)]
    fed.program.run_training_process(process, lambda _: cohort, 1, metrics_managers=[memory], privacy=guarantee)
    (meaning,) = memory.history["privacy/meaning"]
    assert meaning.startswith(plain)
    return meaning.removeprefix(plain).split("; ")[1:]


def test_poisson_sampling_is_independent_choices():
    sample = fed.program.build_poisson_sampling_fn(range(30), 5)
    there = np.zeros((2000, 30))
    for round_num, row in enumerate(there):
        row[sample(round_num, 6)] = 1
    sizes = there.sum(axis=1)
    # Binomial: mean 6, variance 30 * 0.2 * 0.8 = 4.8; standard errors 0.05 and 0.15. (A fixed size has variance 0.)
    assert abs(sizes.mean() - 6) < 0.17
    assert abs(sizes.var() - 4.8) < 0.6
    assert np.abs(np.corrcoef(there.T) - np.eye(30)).max() < 0.1  # of 435 pairs, standard error 0.022
    again = fed.program.build_poisson_sampling_fn(range(30), 5)
    assert again(17, 6) == sample(17, 6)
    assert set(sample(17, 6)) == set(np.flatnonzero(there[17]).tolist())
    assert sample(3, 0) == []
    assert sorted(sample(3, 30)) == list(range(30))
    with pytest.raises(ValueError, match="Failed to sample 31 clients"):
        sample(0, 31)
