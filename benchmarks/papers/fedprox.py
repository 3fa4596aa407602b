"""FedProx, Li et al. 2020: stragglers that are dropped, and stragglers that do what they can.

usage: fedprox.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1812.06127, recipe as in the authors' code. Synthetic(1,1), K = 30 devices, softmax regression
from zeros, SGD at 0.01 in batches of 10, E = 20, 10 of 30 devices a round, uniformly, weights n_k (however many epochs
are done), 200 rounds; 90/10 train and test. Of the ten 0, 5 or 9 are stragglers, as many each round: FedAvg drops them;
FedProx lets them do 1 to 19 epochs, with mu = 0 or 1. The paper shows one instance of the data; here are seeds 1 to 15
at 90 %, of which the first five have mu = 0 as well, and seed 1 at 0 and 50 %: one instance. Not run: the data sets of
figure 2 (i.i.d., (0,0), (0.5,0.5)). Accuracies are those of the pooled test data, means of the last 20 rounds;
dissimilarity is the unweighted mean of |grad F - grad F_k|^2.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np import analysis
from fedsim_np.learning import models
from fedsim_np.learning.client import Attendance

RATE, E, COHORT, ROUNDS, EVERY = 0.01, 20, 10, 200, 2
AVG, ZERO, ONE = "FedAvg", "FedProx, mu = 0", "FedProx, mu = 1"
PLAN = {"0 %": (range(1, 2), ()), "50 %": (range(1, 2), range(1, 2)), "90 %": (range(1, 16), range(1, 6))}
"""Stragglers -> the seeds, and those of which mu = 0 is run."""
MODEL = models.SoftmaxRegression(60, 10, "stable")


def run_of(name, seed, stragglers, rounds):
    """Return accuracy, loss and dissimilarity, on the way."""
    train, test = _shared.synthetic(30, seed)
    everything = [data.batch(10_000) for data in train.values()]
    of_all = _paper.accuracy_and_loss(MODEL, everything)
    of_test = _paper.accuracy_and_loss(MODEL, [data.batch(10_000) for data in test.values()])
    objective = analysis.Objective.of(MODEL, everything)
    sample = fed.program.build_uniform_sampling_fn(list(train), random_seed=seed)
    late = fed.program.Participation(stragglers=1.0, seed=seed, drop_stragglers=name == AVG)

    def reads(client_id, epochs):
        return train[client_id].repeat(epochs).shuffle(10_000, seed=seed).batch(10)

    def cohort(round_num):  # in an order of the draw's: the last of them are the stragglers
        chosen, there = sample(round_num, COHORT), round(COHORT * (1 - stragglers))
        on_time = [Attendance(client_id, reads(client_id, E)) for client_id in chosen[:there]]
        return on_time + late.cohort(round_num, chosen[there:], reads, E)

    process = _shared.by_own_examples(MODEL, RATE, 1.0 if name == ONE else 0.0)
    _, way = _paper.run(process, cohort, rounds, lambda s: (of_test(s)[0], of_all(s)[1], s), EVERY)
    return {
        "test accuracy": [round(a, 4) for a, _, _ in way],
        "loss": [round(loss, 4) for _, loss, _ in way],
        "dissimilarity": [round(dissimilarity(objective, s.global_model_weights), 3) for _, _, s in way[::10]],
    }


def dissimilarity(objective, weights):
    """Return the unweighted mean of |grad F - grad F_k|^2."""
    total, each = objective(weights)[1], [objective.of_client(weights, k)[1] for k in range(len(objective.clients))]
    return float(np.mean([sum(np.square(a - b).sum() for a, b in zip(of, total, strict=True)) for of in each]))


def measure(quick):
    """Return the result."""
    rounds, found = 4 if quick else ROUNDS, {}
    for share, (seeds, with_zero) in PLAN.items():
        found[share] = {seed: {} for seed in (seeds[:1] if quick else seeds)}
        for seed, of_seed in found[share].items():
            for name in (AVG, ONE, *((ZERO,) if seed in with_zero else ())):
                of_seed[name] = run_of(name, seed, int(share[:-2]) / 100, rounds)
    return {"paper": "FedProx: Li et al. 2020", "rounds": rounds, "claims": claims_of(found), "runs": found}


def gains(runs, name, a, b):
    """Return the differences of a to b, of the last 20 rounds, each seed."""
    last = [[np.mean(of[x][name][-20 // EVERY :]) for x in (a, b)] for of in runs.values() if a in of and b in of]
    return np.array([p - q for p, q in last])


def claims_of(found):
    """Return the claims."""
    accuracy, by_zero = (100 * gains(found["90 %"], "test accuracy", of, AVG) for of in (ONE, ZERO))
    many, ours = f"{len(accuracy)} instances", f"{_paper.spread(accuracy, 1)}, median {np.median(accuracy):.1f}"
    ratios = [np.mean(of[ONE]["dissimilarity"]) / np.mean(of[AVG]["dissimilarity"]) for of in found["0 %"].values()]
    better = (
        f"90 % stragglers: FedProx with mu = 1 has a better test accuracy than FedAvg (points, {many}; the paper's 22"
    )
    share = f"22 points are what an instance of Synthetic(1,1) gives (how many of {many} give 22 or more)"
    partial = f"90 %: partial work alone (mu = 0) is better than dropping it (points, {len(by_zero)} instances)"
    rows = [
        (f"{better} are a mean over its data sets)", "above 0 (+22)", ours, accuracy > 0),
        (share, "22", f"{(accuracy >= 22).sum()}", bool(np.mean(accuracy >= 22) >= 0.5)),
        (partial, "above 0", _paper.spread(by_zero, 1), by_zero > 0),
    ]
    for stragglers, runs in found.items():
        for rival in (AVG, ZERO):
            losses = gains(runs, "loss", ONE, rival)
            shown = "difference, one instance" if len(losses) == 1 else "difference"
            text = f"{stragglers}: the training loss with mu = 1 is below that of {rival} ({shown})"
            rows += [(text, "below 0", _paper.spread(losses), losses < 0)] if len(losses) else []
    text = "0 %: mu = 1 makes the gradients' dissimilarity smaller (ratio to FedAvg's, over the run, one instance)"
    rows.append((text, "below 1", _paper.spread(ratios, 2), np.array(ratios) < 1))
    return [_paper.claim(*row) for row in rows]


def draw(result):
    """Draw loss and accuracy over rounds, a column for each share of stragglers, as the paper's figure 1 does."""
    figure, panels = _paper.figure(2, len(result["runs"]), width=3.6, height=2.8)
    for column, (share, of_seeds) in enumerate(result["runs"].items()):
        for row, name in enumerate(("loss", "test accuracy")):
            for i, of_name in enumerate((AVG, ZERO, ONE)):
                ways = [of[of_name][name] for of in of_seeds.values() if of_name in of]
                for number, way in enumerate(ways):
                    label = of_name if number == 0 else None
                    style = {"color": f"C{i}", "linewidth": 0.8, "alpha": 0.6}
                    panels[row, column].plot(EVERY * np.arange(len(way)), way, label=label, **style)
            panels[row, column].set(xlabel="rounds", ylabel=name)
        panels[0, column].set(title=f"{share} stragglers, instances: {len(of_seeds)}", yscale="log")
        panels[0, column].legend(fontsize=7)
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
