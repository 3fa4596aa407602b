"""Power of Choice, Cho et al. 2022: clients with large losses first. Faster at the beginning, biased at the end.

usage: power_of_choice.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/2010.01243; the figures to meet are from stored logs of a reproduction with the authors' code, of
one seed. Synthetic(1,1), K = 30, logistic regression (the bias is their 61st feature), zero weights, SGD at 0.05, half
of it from rounds 300 and 600 on, tau = 30 local steps of batches of 50 drawn with replacement, L2 0.001 (theirs is
taken at the global weights, ours at the local ones), 800 rounds, m = 1 or 3 clients. rand: with replacement by p_k;
pow-d: of d candidates by p_k without replacement the m with the largest loss; adapow-d: d = 30, from round 400 d = m.
Plain mean. Instances of the data are others than theirs, and so is the loss that they reach: factors are of the rounds
to what rand has reached in as many rounds as rand needs there (327 and 143), and of those to their loss, 0.7.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset, fedprox_synthetic
from fedsim_np.learning import models, optimizers

ROUNDS, SEEDS, EVERY = 800, (0, 1, 2), 2
RULES = {1: ("rand", "pow-2", "pow-10", "adapow-30"), 3: ("rand", "pow-6", "pow-30", "adapow-30")}
RAND = {1: 327, 3: 143}
"""Rounds that rand takes to a loss of 0.7 in the logs."""
THEIRS = {
    1: {"rand": (327, 0.528), "pow-2": (151, 0.516), "pow-10": (62, 0.574), "adapow-30": (62, 0.531)},
    3: {"rand": (143, 0.501), "pow-6": (70, 0.548), "pow-30": (70, 0.604), "adapow-30": (70, 0.495)},
}
"""m -> rule -> first round with a training loss of at most 0.7, mean loss of the last 100 rounds."""


def losses(seed, m, rounds, num_clients):
    """Return rule -> training loss after every second round, from round 0 on."""
    train, _ = fedprox_synthetic.load_data(1.0, 1.0, num_clients=num_clients, seed=seed)
    model, ids = models.SoftmaxRegression(60, 10, "stable", l2=0.001), list(train.client_ids)
    arrays = {c: train.create_dataset_for_client(c).to_arrays() for c in ids}
    everything = [train.create_dataset_for_client(c).batch(10_000) for c in ids]
    of_all, loss_of = _paper.accuracy_and_loss(model, everything), fed.program.client_losses_fn(model)

    def sampler(rule):
        if rule == "rand":
            by_size = fed.program.build_size_weighted_sampling_fn(train, replace=True, seed=seed)
            return lambda r, size, state: by_size(r, size)
        if rule.startswith("adapow"):
            early, late = sampler(f"pow-{num_clients}"), sampler(f"pow-{m}")
            return lambda r, size, state: (early if r < 400 else late)(r, size, state)
        d = min(int(rule.partition("-")[2]), num_clients)
        return fed.program.build_power_of_choice_sampling_fn(train, lambda data: data.batch(10_000), loss_of, d, seed)

    def reads(client_id, round_num):
        rng = np.random.default_rng([seed, round_num, ids.index(client_id)])
        rows = rng.integers(len(arrays[client_id]["x"]), size=30 * 50)
        return Dataset.from_arrays({name: a[rows] for name, a in arrays[client_id].items()}, client_id).batch(50)

    found = {}
    for rule in RULES[m]:
        # Everybody reads as many examples: the mean is a plain one.
        process = fed.learning.build_weighted_fed_avg_with_optimizer_schedule(
            model, lambda r: 0.05 / 2 ** ((r >= 300) + (r >= 600)), optimizers.build_sgdm
        )
        sample = sampler(rule)

        def cohort(round_num, state, sample=sample):
            return [reads(client_id, round_num) for client_id in sample(round_num, m, state)]

        _, way = _paper.run(process, cohort, rounds, of_all, EVERY, reshuffle=False)
        found[rule] = [round(loss, 4) for _, loss in way]
    return found


def first(way, target):
    """Return the first round with at most this loss; infinite if there is none."""
    places = np.flatnonzero(np.array(way) <= target)
    return float(places[0] * EVERY) if len(places) else np.inf


def measure(quick):
    """Return the result."""
    seeds, rounds, k = (SEEDS[:1], 4, 10) if quick else (SEEDS, ROUNDS, 30)
    found = {m: {seed: losses(seed, m, rounds, k) for seed in seeds} for m in RULES}
    claims = []
    for m, of_seeds in found.items():
        to_rand, to_loss, ends = {}, {}, {}
        for rule in RULES[m]:
            to_rand[rule] = [
                RAND[m] / first(of[rule], min(of["rand"][: RAND[m] // EVERY + 1])) for of in of_seeds.values()
            ]
            to_loss[rule] = [first(of[rule], 0.7) for of in of_seeds.values()]
            ends[rule] = [float(np.mean(of[rule][-100 // EVERY :])) for of in of_seeds.values()]
        greedy, small = RULES[m][2], RULES[m][1]
        for rule in (small, greedy):
            their = THEIRS[m]["rand"][0] / THEIRS[m][rule][0]
            claims.append(
                _paper.claim(
                    f"m = {m}: {rule} is so many times as fast as rand at first",
                    f"{their:.1f}",
                    f"{_paper.spread(to_rand[rule], 1)}; rounds to 0.7, {rule}/rand: "
                    + ", ".join(f"{a:.0f}/{b:.0f}" for a, b in zip(to_loss[rule], to_loss["rand"], strict=True)),
                    [factor > 1.5 for factor in to_rand[rule]],
                )
            )
        bias, adaptive = (np.array(ends[rule]) - ends["rand"] for rule in (greedy, "adapow-30"))
        their, their_adaptive = (THEIRS[m][rule][1] - THEIRS[m]["rand"][1] for rule in (greedy, "adapow-30"))
        claims += [
            _paper.claim(
                f"m = {m}: {greedy} ends higher than rand, its bias (difference of the loss, last 100 rounds)",
                f"{their:+.3f}",
                _paper.spread(bias),
                bias > 0,
            ),
            _paper.claim(
                f"m = {m}: adapow has both: as fast (factor), and ends nearer to rand than {greedy} (difference)",
                f"{THEIRS[m]['rand'][0] / THEIRS[m]['adapow-30'][0]:.1f}; {their_adaptive:+.3f}",
                f"{_paper.spread(to_rand['adapow-30'], 1)}; {_paper.spread(adaptive)}",
                [f > 1.5 and a < b for f, a, b in zip(to_rand["adapow-30"], adaptive, bias, strict=True)],
            ),
        ]
    return {
        "paper": "Power of Choice: Cho et al. 2022",
        "seeds": seeds,
        "rounds": rounds,
        "claims": claims,
        f"training loss, every {EVERY} rounds": found,
    }


def draw(result):
    """Draw the training loss over rounds, as the paper's figure 4: the mean of the seeds."""
    figure, (panels,) = _paper.figure(1, len(RULES))
    for panel, (m, of_seeds) in zip(panels, result[f"training loss, every {EVERY} rounds"].items(), strict=True):
        for rule in RULES[int(m)]:
            mean = np.mean([of[rule] for of in of_seeds.values()], axis=0)
            panel.plot(EVERY * np.arange(len(mean)), mean, label=rule, linewidth=1)
        panel.set(xlabel="rounds", ylabel="training loss", title=f"m = {m}", yscale="log")
        panel.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
