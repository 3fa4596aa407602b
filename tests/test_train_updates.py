"""fedsim-np train: attacks, clips, rules and noise by name; refused by name; resumed to the same bytes."""

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.algorithms import ALGORITHMS
from fedsim_np.cli import main
from fedsim_np.learning import aggregators, attacks, compression
from fedsim_np.runs import updates
from fedsim_np.runs.config import OF_UPDATES, RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.training import identity

SMALL = ["--clients", "6", "--epochs", "1", "--rounds", "2", "--batch-size", "50", "--evaluation-clients", "3"]  # of 30
PRIVATE = ["--algorithm", "fedavg-unweighted", "--noise-multiplier", "0.25"]


def train(out, *arguments):
    return ["train", "--out", str(out), *map(str, arguments)]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def result(folder):
    names = ("config.json", "metrics.csv", "metrics.jsonl", "weights.npz")
    return {name: (folder / name).read_bytes() for name in names}


def experiment(**choices):
    return Experiment(RunConfig(**{"clients": 6, "epochs": 1, "rounds": 2, **choices}))


GAUSSIAN = aggregators.DifferentiallyPrivateFactory
UNWEIGHTED = {"algorithm": "fedavg-unweighted"}
NO_NOISE = aggregators.PrivateQuantileEstimationProcess.no_noise


@pytest.mark.parametrize(
    ("choices", "rule"),
    [
        ({}, None),
        ({"attack": "flip_labels"}, None),
        ({"aggregator": "median"}, aggregators.MedianFactory()),
        ({"aggregator": "trimmed_mean:0.2"}, aggregators.TrimmedMeanFactory(0.2)),
        ({"aggregator": "krum:2"}, aggregators.KrumFactory(2)),
        ({"aggregator": "krum:num_selected=5,num_byzantine=2"}, aggregators.KrumFactory(2, 5)),
        ({"aggregator": "krum: 2, num_selected = 5"}, aggregators.KrumFactory(2, 5)),
        ({"aggregator": "bulyan:1"}, aggregators.BulyanFactory(1)),
        ({"aggregator": "geometric_median"}, aggregators.GeometricMedianFactory()),
        ({"aggregator": "geometric_median:8,1e-3"}, aggregators.GeometricMedianFactory(8, 1e-3)),
        ({"aggregator": "centered_clipping:1"}, aggregators.CenteredClippingFactory(1)),
        ({"aggregator": "robust"}, aggregators.robust_aggregator()),
        (
            {"aggregator": "robust:zeroing=false", **UNWEIGHTED},
            aggregators.robust_aggregator(zeroing=False, weighted=False),
        ),
        ({"bucket_size": 2, "seed": 3}, aggregators.bucketing_factory(2, aggregators.MeanFactory(), 3)),
        ({"clip": "0.5"}, aggregators.clipping_factory(0.5, aggregators.MeanFactory())),
        ({"clip": 2, **UNWEIGHTED}, aggregators.clipping_factory(2.0, aggregators.UnweightedMeanFactory())),
        (
            {"clip": "adaptive:target_quantile=0.5", "aggregator": "median"},
            aggregators.clipping_factory(NO_NOISE(1.0, 0.5, 0.2), aggregators.MedianFactory()),
        ),
        ({"clip": "adaptive"}, aggregators.robust_aggregator(zeroing=False)),
        (
            {"clip": "fixed:inf", "bucket_size": 3, "aggregator": "krum:1", "seed": 5},
            aggregators.clipping_factory(
                float("inf"), aggregators.bucketing_factory(3, aggregators.KrumFactory(1), seed=5)
            ),
        ),
        (
            {**UNWEIGHTED, "noise_multiplier": 0.5, "clip": "0.25", "seed": 4},
            GAUSSIAN.gaussian_fixed(0.5, 6, 0.25, seed=4),
        ),
        ({**UNWEIGHTED, "noise_multiplier": 0.25}, GAUSSIAN.gaussian_adaptive(0.25, 6)),
        (
            {**UNWEIGHTED, "noise_multiplier": 2.0, "clip": "adaptive:1,clipped_count_stddev=3"},
            GAUSSIAN.gaussian_adaptive(2.0, 6, 1, clipped_count_stddev=3),
        ),
    ],
)
def test_a_rule_by_name_is_the_library_s(choices, rule):
    assert experiment(**choices).rule == rule


ATTACKS_BY_NAME = [
    ("sign_flip", attacks.sign_flip()),
    ("sign_flip:5", attacks.sign_flip(5)),
    ("gaussian_noise:stddev=0.5", attacks.gaussian_noise(0.5)),
    ("inner_product_manipulation:-1", attacks.inner_product_manipulation(-1)),
    ("a_little_is_enough:1.5", attacks.a_little_is_enough(1.5)),
    ("mimic", attacks.mimic()),
    ("mimic:7", attacks.mimic("7")),  # an id, and no number
    ("flip_labels", attacks.flip_labels(10, "y")),
    ("shuffle_labels", attacks.shuffle_labels("y")),
    ("invert_pixels", attacks.invert_pixels("x")),
]


def test_a_compressor_by_name_is_the_library_s():
    for text, made in (
        ("quantize:4", compression.quantize(4, seed=5)),
        ("top_k:0.1", compression.top_k(0.1)),
        ("random_k:0.1,error_feedback=false", compression.random_k(0.1, 5, error_feedback=False)),
        ("sign", compression.sign()),
    ):
        run = experiment(compress=text, seed=5)
        assert run.training_process().compressor == made
    of_run = experiment(network="speeds:1e5,1e6,2000,spread=1", seed=5)
    assert of_run.network == fed.program.Network(1e5, 1e6, 2000, 1, seed=5)
    assert of_run.training_process().compressor is None


@pytest.mark.parametrize(("text", "attack"), ATTACKS_BY_NAME)
def test_an_attack_by_name_is_the_library_s(text, attack):
    tables = {**updates.ATTACKS, **updates.DATA_ATTACKS}
    made = updates.part_of("attack", tables, text, num_classes=10, features="x", label="y")
    assert (made.func, made.keywords) == (attack.func, attack.keywords)


def test_attackers_stand_in_front_of_what_defends():
    chosen = experiment(attack="omniscient_negation", attackers=3, aggregator="median", clip="1", seed=2)
    ids = chosen.train.client_ids
    assert chosen.attackers == attacks.choose(ids, 3 / 30, seed=2)
    assert experiment(attackers=0.11, attack="mimic", seed=2).attackers == chosen.attackers  # 3.3 of 30
    inner = aggregators.clipping_factory(1.0, aggregators.MedianFactory())
    assert chosen.rule == attacks.attack_factory(attacks.omniscient_negation(), chosen.attackers, inner, seed=2)


@pytest.mark.parametrize("name", updates.DATA_ATTACKS)
def test_attackers_data_are_wrong_and_no_others(name):
    plain, wrong = experiment(clients=30), experiment(clients=30, attack=name, attackers=3)
    assert len(wrong.attackers) == 3
    differing = set()
    for one, other in zip(plain.cohort(1), wrong.cohort(1), strict=True):
        a, b = one.to_arrays(), other.to_arrays()
        if not all(np.array_equal(a[field], b[field]) for field in ("x", "y")):
            differing.add(one.client_id)
        if name == "flip_labels" and one.client_id in wrong.attackers:
            assert np.array_equal(b["y"], 9 - a["y"])
    assert differing
    assert differing <= wrong.attackers
    assert np.array_equal(wrong.evaluation_cohort[0].to_arrays()["y"], plain.evaluation_cohort[0].to_arrays()["y"])


def test_pixels_that_are_bytes_are_not_inverted():
    # Whoever attacks: a client that does not would not tell.
    data = fed.datasets.InMemoryClientData({"ann": {"x": np.zeros((2, 3), np.uint8), "y": np.int32([0, 1])}})
    with pytest.raises(fed.DataError, match=r"field 'x': must be floats in \[0, 1\] to be inverted. Got uint8"):
        Experiment(RunConfig(clients=1, attack="invert_pixels", attackers=0, classes=2), (data, data))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_takes_them(name):
    weights = []
    for more in ({}, {"aggregator": "median", "clip": 10.0}):
        chosen = experiment(algorithm=name, attack="sign_flip:5", attackers=15, batch_size=500, **more)
        process = chosen.training_process()
        state, metrics = process.next(process.initialize(), chosen.cohort(1))
        weights.append(state.global_model_weights.trainable)
        attackers = sum(dataset.client_id in chosen.attackers for dataset in chosen.cohort(1))
        assert metrics["aggregator"]["num_attackers"] == attackers > 0
    assert not np.array_equal(*(trainable[0] for trainable in weights))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aggregator", "krm:1"], "'aggregator' must be one of mean, median, trimmed_mean, krum, bulyan, "),
        (["--aggregator", "krm:1"], "Got 'krm'. Did you mean 'krum'?"),
        (["--aggregator", "krum"], "'aggregator' must be written as krum:num_byzantine,num_selected=1. Got 'krum'."),
        (["--aggregator", "krum:"], "'aggregator' must be written as krum:num_byzantine,num_selected=1. Got 'krum:'."),
        (["--aggregator", "krum:num_byzantin=1"], "Got 'krum:num_byzantin=1'. Did you mean 'num_byzantine'?"),
        (["--aggregator", "krum:1,num_byzantine=1"], "'aggregator' must be written as krum:num_byzantine,"),
        (["--aggregator", "krum:1.5"], "'aggregator', krum: 'num_byzantine' must be an integer >= 0. Got 1.5."),
        (["--aggregator", "krum:two"], "'aggregator', krum: 'num_byzantine' must be an integer >= 0. Got 'two'."),
        (
            ["--aggregator", "krum:2"],
            "'aggregator', krum, in round 1: 'num_byzantine' must be so small that ",
        ),
        (["--aggregator", "krum:1", "--bucket-size", "2"], "'1, and a cohort of 3 clients that count'"),
        (
            ["--aggregator", "krum:1", "--dropout", "0.5", "--rounds", "50"],
            "in round 3: 'num_byzantine' must be so small that there are the 5 clients that Krum needs. Got '1, and ",
        ),
        (["--aggregator", "bulyan:0", "--sampling", "poisson", "--rounds", "9"], "bulyan, in round 7: "),
        (["--aggregator", "median:1"], "'aggregator' must be written as median. Got 'median:1'."),
        (["--aggregator", "mean:weighted=true"], "'aggregator' must be written as mean."),
        (["--aggregator", "robust:zeroing=3"], "'aggregator', robust: 'zeroing' must be True or False. Got 3."),
        (["--aggregator", "trimmed_mean:0.5"], "'trim_fraction' must be a finite float >= 0 and < 0.5. Got 0.5."),
        (["--aggregator", "geometric_median:99999"], "'aggregator' must be of a num_iterations of at most 10000."),
        (["--bucket-size", "0"], "'bucket_size' must be an integer >= 1. Got 0."),
        (["--clip", "adaptve"], "'clip' must be one of none, a number, fixed, adaptive. Got 'adaptve'. Did you mean"),
        (["--clip", "0"], "'clip', fixed: 'clipping_norm' must be a float > 0"),
        (["--clip", "nan"], "'clip', fixed: 'clipping_norm' must be a float > 0"),
        (["--clip", "adaptive:clipped_count_stddev=1"], "'clip' must be written as adaptive:initial_estimate=1.0,"),
        (["--attack", "sign_flp"], "Got 'sign_flp'. Did you mean 'sign_flip'?"),
        (["--attack", "sign_flip:-1"], "'attack', sign_flip: 'scale' must be a finite float >= 0. Got -1."),
        (["--attack", "flip_labels:y"], "'attack' must be written as flip_labels. Got 'flip_labels:y'."),
        (["--attack", "flip_labels", "--model", "linear"], "'attack' must be another one for a model whose labels are"),
        (["--attack", "mimic", "--attackers", "31"], "'attackers' must be at most the 30 train clients. Got 31.0."),
        (["--attack", "mimic", "--attackers", "1.5"], "'attackers' must be a share below 1, or a whole number"),
        (["--attack", "mimic", "--attackers", "0.01"], "'attackers' must be enough for one of the 30 train clients."),
        (["--attackers", "0.5"], "'attackers' must be left at 0.2: a run without an attack does not take it."),
        (["--delta", "0.1"], "'delta' must be left at 0.0: a run without noise does not take it."),
        ([*PRIVATE, "--delta", "1"], "'delta' must be a finite float >= 0 and < 1. Got 1.0."),
        (
            ["--sampling", "poison"],
            "'sampling' must be one of uniform, poisson, first. Got 'poison'. Did you mean 'poisson'?",
        ),
        (["--noise-multiplier", "1", "--clip", "1"], "'noise_multiplier' must be 0 with fedavg: "),
        (["--noise-multiplier", "1"], "alike and send nothing else, as in fedavg-unweighted, fedprox-unweighted. Got"),
        (
            ["--noise-multiplier", "0.2", "--algorithm", "mime_lite-unweighted"],
            "'noise_multiplier' must be 0 with mime_lite-unweighted: ",
        ),
        (
            ["--compress", "topk"],
            "'compress' must be one of quantize, top_k, random_k, sign. Got 'topk'. Did you mean 't",
        ),
        (["--compress", "top_k"], "'compress' must be written as top_k:fraction,error_feedback=True. Got 'top_k'."),
        (["--compress", "quantize:1"], "'compress', quantize: 'bits' must be an integer >= 2. Got 1."),
        (["--compress", "quantize:4,seed=3"], "'compress' must be written as quantize:bits,error_feedback=False. Got"),
        (["--network", "speeds:1,2"], "'network' must be written as speeds:up,down,compute,spread=0.0. Got"),
        (["--network", "speeds:1,2,-3"], "'network', speeds: 'compute' must be a number of at least 1e-09. Got -3."),
        (["--network", "speeds:1,1,1,spread=99"], "'network', speeds: 'spread' must be from 0 to 10. Got 99."),
        (
            ["--clip", "adaptive:1e39"],
            "'initial_estimate' must be a finite float > 0, within float32's range. Got 1e+39.",
        ),
        (
            [*PRIVATE, "--compress", "top_k:0.1"],
            "'compress' must be one with error_feedback=false, with noise and this sampling: what clients keep is "
            "counted with poisson. Got 'top_k:0.1'.",
        ),
        (
            [*PRIVATE, "--data", "fedprox-synthetic"],
            "'classes' must be given with noise: to look for them would tell of a single client that has one more.",
        ),
        ([*PRIVATE, "--aggregator", "median"], "'aggregator' must be left at mean with noise, which is for a mean."),
        ([*PRIVATE, "--bucket-size", "2"], "'bucket_size' must be left at 1 with noise"),
        ([*PRIVATE, "--attack", "mimic"], "'attack' must be one of attackers who know nothing of others, with noise"),
        ([*PRIVATE, "--clip", "inf"], "'clip', fixed: 'clip' must be a finite float >= 0. Got inf."),
        ([*PRIVATE, "--noise-multiplier", "1"], "'clip', adaptive: 'clipped_count_stddev' must be more than half"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, message, folder, capsys):
    assert main(train(folder / "run", *SMALL, *arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()


@given(st.text(alphabet="krumean:,=.-+ 0123e_fixdptvsflgNoT", max_size=30), st.sampled_from(["aggregator", "clip"]))
def test_any_text_is_a_part_or_refused(text, name):
    for start in ("", "krum:", "fixed:", "adaptive:", "centered_clipping:"):
        said = "'clip', ..."
        try:
            RunConfig(**{name: start + text})
        except ValueError as error:
            said = str(error)
        assert re.match("'(aggregator|clip)'[, ]", said)


def test_help_is_made_from_the_tables(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = "".join(capsys.readouterr().out.split())
    of_updates = updates.AGGREGATORS, updates.CLIPS, updates.NOISY_CLIPS, updates.COMPRESSORS, updates.NETWORKS
    for table in (*of_updates, updates.ATTACKS, updates.DATA_ATTACKS):
        for name, part in table.items():
            assert "".join(f"{part.form(name)}: {part.about}".split()) in said


@pytest.mark.parametrize("sampling", ["uniform", "poisson"])
def test_every_round_says_what_noise_promises(sampling, folder, capsys):
    chosen = [*PRIVATE, "--clip", "0.5", "--delta", "0.01", "--sampling", sampling]
    assert main(train(folder / "run", *SMALL, "--rounds", "3", *chosen)) == 0
    out = capsys.readouterr().out.splitlines()
    how = {"sampling": "poisson" if sampling == "poisson" else "fixed_size", "population": 30, "clients_per_round": 6}
    neighbours = {"uniform": "one client replaced", "poisson": "one client added or removed"}[sampling]
    meaning = f"delta 0.01; sampling: {how['sampling']}; neighbours: {neighbours}; accountant: rdp"
    for row in rows(folder / "run")[1:]:
        assert row["privacy/epsilon"] == fed.privacy.epsilon(0.25, row["round_num"], 0.01, **how)
        assert row["privacy/meaning"] == meaning
    promised = f"epsilon {fed.privacy.epsilon(0.25, 3, 0.01, **how):.4f} ({meaning})"
    assert out[-2] == f"promised: {promised}"
    assert json.loads((folder / "run" / "config.json").read_bytes())["privacy"] == meaning
    # A run's own file is a choice of the same run.
    again = ["--config", folder / "run" / "config.json"]
    assert main(train(folder / "again", *again)) == 0
    assert result(folder / "again") == result(folder / "run")


def test_the_report_says_what_became_of_updates(folder):
    assert main(train(folder / "run", *SMALL, *PRIVATE, "--attack", "flip_labels")) == 0
    assert main(["report", str(folder / "run")]) == 0
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    last = rows(folder / "run")[-1]
    assert f"promises each client epsilon {last['privacy/epsilon']} ({last['privacy/meaning']})" in page
    assert "Updates were clipped at an adaptive norm, with noise of 0.25 times the clip." in page
    assert "Some clients were attackers: flip_labels, attackers 0.2." in page
    assert "In all rounds the clients would have sent 376.8 kB and been sent 376.8 kB" in page
    assert main(train(folder / "other", *SMALL, *RESUMED["compressed"])) == 0
    assert main(["report", str(folder / "other")]) == 0
    other = (folder / "other" / "report.html").read_text(encoding="utf-8")
    assert "Updates were compressed: top_k:0.1." in other
    assert "all rounds would have taken" in other
    assert main(["report", str(folder / "run"), str(folder / "other"), "--out", str(folder / "both.html")]) == 0
    assert "over the bytes sent by clients" in (folder / "both.html").read_text(encoding="utf-8")
    choices = {"aggregator": ["<b>"], "attack": {"a": 1}, "bucket_size": None}  # a stranger's
    (folder / "run" / "config.json").write_text(json.dumps({"choices": choices}), encoding="utf-8")
    assert main(["report", str(folder / "run")]) == 0
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "there was another rule: [&#x27;&lt;b&gt;&#x27;] of buckets of None." in page


def test_delta_is_one_over_all_clients():
    assert experiment(**UNWEIGHTED, noise_multiplier=0.25).privacy.delta == 1 / 30
    assert experiment().privacy is None


def test_a_run_with_noise_is_the_library_s(folder):
    assert main(train(folder / "run", *SMALL, *PRIVATE, "--clip", "0.5", "--seed", "3")) == 0
    chosen = experiment(batch_size=50, seed=3)
    process = fed.learning.build_unweighted_fed_avg(
        chosen.model_fn,
        fed.learning.optimizers.build_sgdm(0.02),
        model_aggregator=GAUSSIAN.gaussian_fixed(0.25, 6, 0.5, seed=3),
    )
    state = fed.program.run_training_process(process, chosen.cohort, 2, metrics_managers=[], reshuffle=True)
    with np.load(folder / "run" / "weights.npz") as weights:
        for mine, theirs in zip(state.global_model_weights.trainable, weights.values(), strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_poisson_sampling_is_the_library_s():
    chosen = experiment(sampling="poisson", clients=2, seed=3)
    sample = fed.program.build_poisson_sampling_fn(chosen.train.client_ids, random_seed=3)
    cohorts = [[dataset.client_id for dataset in chosen.cohort(r)] for r in range(1, 20)]
    assert cohorts == [sample(r, 2) for r in range(1, 20)]
    assert {len(cohort) for cohort in cohorts} >= {0, 1, 2, 3}


def test_rounds_of_nobody(folder):
    chosen = [*SMALL, "--clients", "1", "--sampling", "poisson", "--rounds", "6", "--seed", "3"]
    assert main(train(folder / "mean", *chosen)) == 0
    assert main(train(folder / "noise", *chosen, *PRIVATE, "--clip", "0.1")) == 0
    empty = [r for r, row in enumerate(rows(folder / "mean")) if row.get("client_work/train/num_examples") == 0]
    assert empty
    for name, is_same in (("mean", True), ("noise", False)):  # nobody is hidden by noise as well
        losses = [row["evaluation/loss"] for row in rows(folder / name)]
        assert all((losses[r] == losses[r - 1]) is is_same for r in empty)


RESUMED = {
    "fixed": [*PRIVATE, "--clip", "0.5"],
    "adaptive": [*PRIVATE, "--clip", "adaptive"],
    "buckets": ["--aggregator", "krum:0", "--bucket-size", "2"],
    "centre": ["--aggregator", "centered_clipping:1", "--clip", "adaptive"],
    "attack": ["--attack", "gaussian_noise", "--attackers", "0.5", "--aggregator", "median"],
    "data": ["--attack", "shuffle_labels", "--algorithm", "scaffold"],
    "compressed": ["--compress", "top_k:0.1", "--network", "speeds:1e5,1e6,2000,spread=1"],
    "drawn": [
        "--compress",
        "quantize:3",
        "--algorithm",
        "fed_dyn",
        "--aggregator",
        "compression:quantization_bits=4,threshold=100",
    ],
    "poisson": ["--sampling", "poisson", "--clients", "2", "--attack", "mimic"],
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_to_the_same_bytes(name, folder, monkeypatch, capsys):
    choices = [*SMALL, "--rounds", "4", "--checkpoint-every", "2", "--evaluate-every", "4", *RESUMED[name]]
    assert main(train(folder / "whole", *choices, "--workers", "2")) == 0
    cohort = Experiment.cohort

    def stopped(self, round_num):
        if round_num == 4:
            raise MemoryError("here")
        return cohort(self, round_num)

    monkeypatch.setattr(Experiment, "cohort", stopped)
    assert main(train(folder / "run", *choices, "--workers", "1")) == 2
    monkeypatch.setattr(Experiment, "cohort", cohort)
    assert main(train(folder / "run", "--resume", "--workers", "2")) == 0
    assert "round 3 of" in capsys.readouterr().out
    assert result(folder / "run") == result(folder / "whole")


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_hardly_any(folder):
    chosen = ["--clip", "adaptive:1,0.8,1e6", "--attack", "sign_flip:1e300", "--network", "speeds:1e-9,1,1,spread=10"]
    assert main(train(folder / "run", *SMALL, *chosen)) == 0
    assert all(np.isfinite(row["network/seconds"]) for row in rows(folder / "run")[1:])
    assert main(train(folder / "other", *SMALL, "--clip", "adaptive:1e-37,0,1e6")) == 0


def test_an_attack_of_attackers_alone_is_told_no_other_way_by_one_more_client(folder):
    # Sampled or not, a client moves a sum of clipped updates by one clip: attackers do not heed whether it is there.
    run = experiment(**UNWEIGHTED, noise_multiplier=0.25, clip="1", attack="sign_flip", attackers=29)
    (honest,) = set(run.train.client_ids) - run.attackers
    process, sums = run.training_process(), []
    for ids in ([*run.attackers][:5], [*[*run.attackers][:5], honest]):
        data = [run._trained_on(client_id, 1) for client_id in ids]
        state, _ = process.next(process.initialize(), data)
        sums.append(np.concatenate([6 * w.ravel() for w in state.global_model_weights.trainable]))
    assert 0.1 < np.linalg.norm(sums[1] - sums[0]) <= 1 + 1e-4


def test_other_choices_do_not_go_on(folder, capsys):
    assert main(train(folder / "run", *SMALL, "--clip", "1")) == 0
    assert main(train(folder / "run", "--resume", "--clip", "2", "--aggregator", "median")) == 2
    error = capsys.readouterr().err
    assert "Got others for aggregator ('mean' there, 'median' here), clip ('1' there, '2' here)." in error


def test_a_run_without_any_says_nothing_of_them(folder):
    assert main(train(folder / "run", *SMALL)) == 0
    config = json.loads((folder / "run" / "config.json").read_bytes())
    assert list(config) == ["command", "choices", "data", "versions"]
    assert list(config["choices"])[-1] == "drop_stragglers"
    assert not set(OF_UPDATES) & {*config["choices"]}
    assert not set(OF_UPDATES) & {*identity(RunConfig(), {})}
    assert all("privacy" not in key for row in rows(folder / "run") for key in row)


def test_in_a_file(folder, capsys):
    path = folder / "choices.json"
    path.write_text(json.dumps({"clip": 0.5, "bucket-size": 2, "aggregator": "median"}), encoding="utf-8")
    assert main(train(folder / "file", *SMALL, "--config", path)) == 0
    flags = ["--clip", "0.5", "--bucket-size", "2", "--aggregator", "median"]
    assert main(train(folder / "flags", *SMALL, *flags)) == 0
    assert result(folder / "file") == result(folder / "flags")
    for wrong, message in (
        ({"clip": True}, "'clip' must be a text. Got True."),
        ({"aggregator": ["median"]}, "'aggregator' must be a text. Got ['median']."),
        ({"aggregator": "os:system"}, "'aggregator' must be one of mean, "),
        ({"attackers": "all"}, "'attackers' must be a finite float >= 0. Got 'all'."),
    ):
        capsys.readouterr()
        path.write_text(json.dumps(wrong), encoding="utf-8")
        assert main(train(folder / "wrong", *SMALL, "--config", path)) == 2
        error = capsys.readouterr().err
        assert "choices.json" in error
        assert message.rstrip(".") in error
        assert error.count("\n") == 1


OWN = """
from fedsim_np.algorithms import Algorithm
from fedsim_np.learning import build_unweighted_fed_avg

def build(model_fn, client, server, **keywords):
    return build_unweighted_fed_avg(model_fn, client, server, **keywords)

entry = Algorithm(lambda p: build(p.model_fn, p.client, p.server, **p.keywords), "mine", weighted=False, private=True)
"""


def test_one_s_own_algorithm_says_whether_it_takes_them(folder, monkeypatch, capsys):
    (folder / "own_updates.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for flags in (["--aggregator", "median"], ["--attack", "mimic"], PRIVATE[2:]):
        assert main(train(folder / "run", *SMALL, "--algorithm", "own_updates:build", *flags)) == 2
        name = flags[0].removeprefix("--").replace("-", "_")
        assert f"'{name}' must be left at " in capsys.readouterr().err
    noise = [*PRIVATE, "--clip", "1"]
    assert main(train(folder / "theirs", *SMALL, *noise)) == 0
    assert main(train(folder / "mine", *SMALL, *noise, "--algorithm", "own_updates:entry")) == 0
    assert rows(folder / "mine") == rows(folder / "theirs")
    assert experiment(algorithm="own_updates:build", attack="flip_labels").rule is None
    sys.modules.pop("own_updates", None)


def test_what_is_said_of_costs_and_of_losses(folder, capsys):
    chosen = [*SMALL, *PRIVATE, "--noise-multiplier", "0.55", "--server-lr", "0", "--attack", "sign_flip"]
    assert main(train(folder / "run", *chosen)) == 0
    costs, losses = capsys.readouterr().err.splitlines()
    assert costs.startswith("note: clipped_count_stddev=0.3 leaves a noise of 1.38 clips to updates")
    assert "; more --clients (here 6), which have the same noise" in losses
    assert "; an --aggregator that bears attackers (here mean)" in losses


def test_updates_that_are_all_in_memory_are_bounded(folder, capsys):
    chosen = ["--data", "synthetic", "--population", "200000", "--clients", "140000"]
    assert main(train(folder / "run", *chosen, "--aggregator", "median")) == 2
    assert "a rule that looks at all updates at once may be given at most 1073741824 numbers" in capsys.readouterr().err
    chosen = ["--data", "synthetic", "--population", "20000", "--clients", "16385"]  # and their distances
    assert main(train(folder / "run", *chosen, "--aggregator", "krum:1")) == 2
    assert "numbers (4 GB). Got 1073872900 of 16385 clients and 7850 parameters" in capsys.readouterr().err
    chosen = ["--data", "synthetic", "--population", "10000001", "--sampling", "poisson"]
    assert main(train(folder / "run", *chosen)) == 2
    assert "clients must be at most 10000000 for Poisson sampling, a coin for each" in capsys.readouterr().err
    assert not (folder / "run").exists()
