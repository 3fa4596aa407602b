"""Fairness, q-FFL, Li et al. 2020: the worst-off gain, the spread shrinks, the mean hardly moves.

usage: q_ffl.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1905.10497, table 1 (figures by memory): Synthetic(1,1), 100 devices, logistic regression, test
accuracy of each device: mean, worst 10 %, variance (in points squared). q-FedAvg with q = 0 and 1, 10 devices a round,
one epoch of SGD at 0.1 in batches of 10, L = 1 / 0.1, as in the authors' code. That draws devices by p_k and goes on
for 20,000 rounds, on five splits of one instance (80 % to train on). Here devices are drawn uniformly, on three
instances (90 %), for 3,000 rounds: a round by p_k takes three times as long, and 500 of them (seed 1, q = 1) come to a
mean of 22 %, uniform ones to 70. So the objective is another one: every device counts alike. 3,000 is what four minutes
allow: q = 0 stands from about 1,500 on, q = 1 still rises, in the worst 10 % most. A round moves these by points: what
is compared are means over the last 500 rounds, of an evaluation every 50.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.learning import models, optimizers
from fedsim_np.learning.fed_eval import evaluate_clients

SEEDS, ROUNDS, RATE, QS, DEVICES = (1, 2, 3), 3000, 0.1, (0.0, 1.0), 10
EVERY, LAST, BY_SIZE, BY_P_K = 50, 500, 500, "one run, q = 1, devices drawn by p_k"
THEIRS = {
    0.0: {"mean": 80.8, "worst 10 %": 18.8, "variance": 724},
    1.0: {"mean": 79.0, "worst 10 %": 31.1, "variance": 472},
}


def run_of(seed, q, rounds, num_clients, by_size=False):
    """Return the devices' test accuracies at the end, in %, and the table's row on the way."""
    train, test = _shared.synthetic(num_clients, seed)
    model, tests = models.SoftmaxRegression(60, 10, "stable"), [data.batch(1000) for data in test.values()]
    process = fed.learning.build_q_fed_avg(model, optimizers.build_sgdm(RATE), q, 1 / RATE)
    sample = fed.program.build_uniform_sampling_fn(list(train), random_seed=seed)
    if by_size:
        clients = fed.datasets.ClientData.from_clients_and_fn(list(train), train.get)
        sample = fed.program.build_size_weighted_sampling_fn(clients, seed=seed)
    reads = {c: data.shuffle(10_000, seed=seed).batch(10) for c, data in train.items()}

    def accuracies(state):
        found = evaluate_clients(model, state.global_model_weights, tests)
        return [round(100 * float(a), 2) for a in found["sparse_categorical_accuracy"]]

    _, way = _paper.run(process, lambda r: [reads[c] for c in sample(r, DEVICES)], rounds, accuracies, EVERY)
    return {"accuracies": way[-1], "way": [summary(values) for values in way]}


def summary(values):
    """Return the table's row."""
    ordered, tenth = np.sort(values), max(1, len(values) // 10)
    row = {"mean": ordered.mean(), "worst 10 %": ordered[:tenth].mean(), "variance": ordered.var()}
    return {name: round(float(value), 2) for name, value in row.items()}


def last(run):
    """Return the row's mean over the last rounds."""
    rows = run["way"][-LAST // EVERY :]
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def measure(quick):
    """Return the result."""
    seeds, rounds, by_size, k = (SEEDS[:1], 3, 2, 20) if quick else (SEEDS, ROUNDS, BY_SIZE, 100)
    found = {f"q = {q:g}": {seed: run_of(seed, q, rounds, k) for seed in seeds} for q in QS}
    rows = [[last(run) for run in of_seeds.values()] for of_seeds in found.values()]
    ways = {"runs": found, BY_P_K: run_of(seeds[0], QS[1], by_size, k, by_size=True)["way"]}
    wanted = (
        ("the worst 10 % gain", "worst 10 %", lambda a, b: b > a),
        ("the variance shrinks", "variance", lambda a, b: b < a),
        ("the mean moves by less than 5 points", "mean", lambda a, b: abs(b - a) < 5),
    )
    claims = [
        _paper.claim(
            f"{text} with q = 1 ({name}, q = 0; q = 1)",
            f"{THEIRS[0.0][name]}; {THEIRS[1.0][name]}",
            "; ".join(_paper.spread([row[name] for row in of_seeds], 1) for of_seeds in rows),
            [bool(holds(a[name], b[name])) for a, b in zip(*rows, strict=True)],
        )
        for text, name, holds in wanted
    ]
    paper = "q-FFL: Li et al. 2020"
    return {"paper": paper, "seeds": seeds, "rounds": rounds, "claims": claims, **ways}


def draw(result):
    """Draw the distribution of accuracies, as the paper's figure 1: all seeds; and mean and worst 10 % over rounds."""
    figure, ((left, right),) = _paper.figure(1, 2)
    for i, (name, of_seeds) in enumerate(result["runs"].items()):
        values = np.concatenate([run["accuracies"] for run in of_seeds.values()])
        left.hist(values, bins=20, range=(0, 100), histtype="step", label=name)
        for row, line in (("mean", "-"), ("worst 10 %", "--")):
            way = np.mean([[of[row] for of in run["way"]] for run in of_seeds.values()], axis=0)
            right.plot(EVERY * np.arange(len(way)), way, f"C{i}{line}", label=f"{name}: {row}", linewidth=1)
    way = [of["mean"] for of in result[BY_P_K]]
    right.plot(EVERY * np.arange(len(way)), way, "k:", label="q = 1, drawn by p_k: mean")
    left.set(xlabel="test accuracy of a device, %", ylabel="devices", title="Synthetic(1,1), at the end")
    right.set(xlabel="rounds", ylabel="test accuracy, %", title="the mean of the seeds", ylim=(0, 100))
    left.legend(loc="upper left")
    right.legend(fontsize=7, ncol=2, loc="upper right")
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
