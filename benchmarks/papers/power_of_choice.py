"""Power of Choice, Cho et al. 2022: clients with large losses first. Faster at the beginning, biased at the end.

usage: power_of_choice.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/2010.01243; the figures to meet are from stored logs of a reproduction with the authors' code, of
one seed. Synthetic(1,1), K = 30, logistic regression (the bias is their 61st feature), zero weights, SGD at 0.05, half
of it from rounds 300 and 600 on, 30 local steps of batches of 50 drawn with replacement, L2 0.001 at the global
weights, 800 rounds, m = 1 or 3 clients. rand: with replacement by p_k; pow-d: of d candidates by p_k without
replacement the m with the largest loss; adapow: d = 30, from round 400 d = m. Plain mean.
Loss: of all training data. Each seed is an instance of the data, and its losses are on a level of their own: factors
are given to the logs' target, 0.7, and to what rand has reached in as many rounds as it needs for that in the logs.
The paper has three to four times as fast; asked for is twice, which is the least that the logs have.
"""

from dataclasses import dataclass

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import aggregators, models, optimizers
from fedsim_np.learning.fed_avg_schedule import ScheduledTraining

ROUNDS, SEEDS, EVERY, STEPS, BATCH, TARGET = 800, (0, 1, 2), 4, 30, 50, 0.7
THEIRS = {
    1: {"rand": (327, 0.528), "pow-2": (151, 0.516), "pow-10": (62, 0.574), "adapow-30": (62, 0.531)},
    3: {"rand": (143, 0.501), "pow-6": (70, 0.548), "pow-30": (70, 0.604), "adapow-30": (70, 0.495)},
}
"""m -> rule -> first round with a training loss of at most 0.7, mean loss of the last 100 rounds."""
MODEL, L2 = models.SoftmaxRegression(60, 10, "stable"), np.float32(0.001)
WAYS = f"training loss, every {EVERY} rounds"


@dataclass(frozen=True)
class GlobalL2(ScheduledTraining):
    """Every step has the penalty's gradient at the global weights beside its own."""

    def begin(self, client):
        """Remember it."""
        return {**super().begin(client), "penalty": tuple(L2 * w for w in client.weights)}

    def step(self, local, gradients, batch):
        """Add it."""
        return super().step(local, tuple(map(np.add, gradients, local["penalty"])), batch)

    def is_elementwise(self, state):
        """Say that the steps are."""
        return True

    def as_sgd(self, state):
        """Say that it is a drift that stays."""
        return super().as_sgd(state)._replace(drift="penalty")


def losses(seed, m, rounds):
    """Return rule -> training loss on the way, from round 0 on."""
    data, _ = _shared.synthetic(30, seed)
    ids, train = list(data), fed.datasets.ClientData.from_clients_and_fn(list(data), data.get)
    arrays, everything = [d.to_arrays() for d in data.values()], {c: d.batch(10_000) for c, d in data.items()}
    of_all = _paper.accuracy_and_loss(MODEL, [*everything.values()])
    loss_of = fed.program.client_losses_fn(MODEL, executor="serial")

    def sampler(rule):
        if rule == "rand":
            by_size = fed.program.build_size_weighted_sampling_fn(train, replace=True, seed=seed)
            return lambda r, size, state: by_size(r, size)
        choice, d = fed.program.build_power_of_choice_sampling_fn, int(rule.partition("-")[2])
        early = choice(train, lambda one: everything[one.client_id], loss_of, d, seed)
        late = sampler(f"pow-{m}") if rule.startswith("adapow") else early
        return lambda r, size, state: (early if r < 400 else late)(r, size, state)

    def reads(client_id, round_num):
        i = ids.index(client_id)
        rows = np.random.default_rng([seed, round_num, i]).integers(len(arrays[i]["x"]), size=STEPS * BATCH)
        return Dataset.from_arrays({name: a[rows] for name, a in arrays[i].items()}, client_id).batch(BATCH)

    found = {}
    for rule in THEIRS[m]:
        # Everybody reads as many examples: the weighted mean is a plain one.
        work = GlobalL2(lambda r: 0.05 / 2 ** ((r >= 300) + (r >= 600)), optimizers.build_sgdm)
        process = fed.learning.compose_learning_process(
            MODEL, work, aggregators.MeanFactory(), optimizers.build_sgdm(1.0), executor="serial"
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
    return max(1.0, float(places[0]) * EVERY) if len(places) else np.inf


def measure(quick):
    """Return the result."""
    seeds, rounds = (SEEDS[:1], 4) if quick else (SEEDS, ROUNDS)
    found = {m: {seed: losses(seed, m, rounds) for seed in seeds} for m in THEIRS}
    claims = [claim for m, of_seeds in found.items() for claim in claims_of(m, list(of_seeds.values()))]
    return {"paper": "Power of Choice: Cho et al. 2022", "seeds": seeds, "claims": claims, WAYS: found}


def claims_of(m, ways):
    """Return what holds with m clients a round, of each seed's ways."""
    theirs, (_, small, greedy, adaptive) = THEIRS[m], THEIRS[m]
    (needed, end), claims = theirs["rand"], []
    level = [min(of["rand"][: needed // EVERY + 1]) for of in ways]

    def factor(rule, targets):
        return np.array([first(of["rand"], t) / first(of[rule], t) for of, t in zip(ways, targets, strict=True)])

    def above(rule):
        return np.array([np.mean(np.subtract(of[rule], of["rand"])[-100 // EVERY :]) for of in ways])

    for rule in (small, greedy, adaptive):
        needs = ([first(of[x], TARGET) for x in ("rand", rule)] for of in ways)
        rounds = ", ".join("/".join(f"{n:.0f}" if n < np.inf else f"{ROUNDS}+" for n in pair) for pair in needs)
        ours = f"{rounds}; {_paper.spread(factor(rule, level), 1)}"
        text = f"m = {m}: {rule} needs half of rand's rounds or fewer at first (rounds to {TARGET}, rand/{rule}; factor"
        holds = factor(rule, [TARGET] * len(ways)) >= 2
        claims.append(_paper.claim(f"{text} to rand's own level)", f"{needed}/{theirs[rule][0]}", ours, holds))
    for rule, text, holds in (
        (greedy, f"{greedy} ends higher than rand: its bias", above(greedy) > 0),
        (adaptive, f"{adaptive} ends lower than {greedy}", above(adaptive) < above(greedy)),
    ):
        words, paper = f"m = {m}: {text} (loss above rand's, last 100 rounds)", f"{theirs[rule][1] - end:+.3f}"
        claims.append(_paper.claim(words, paper, _paper.spread(above(rule)), holds))
    return claims


def draw(result):
    """Draw the training loss over rounds, as the paper's figure 4: the mean of the seeds."""
    figure, (panels,) = _paper.figure(1, len(THEIRS))
    for panel, (m, of_seeds) in zip(panels, result[WAYS].items(), strict=True):
        for rule in THEIRS[int(m)]:
            mean = np.mean([of[rule] for of in of_seeds.values()], axis=0)
            panel.plot(EVERY * np.arange(len(mean)), mean, label=rule, linewidth=1)
        panel.set(xlabel="rounds", ylabel="training loss", title=f"m = {m}", yscale="log")
        panel.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
