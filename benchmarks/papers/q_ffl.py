"""Fairness, q-FFL, Li et al. 2020: the worst-off gain, the spread shrinks, the mean hardly moves.

usage: q_ffl.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1905.10497, table 1 (figures by memory): Synthetic(1,1), 100 devices, logistic regression, test
accuracy of each device: mean, worst 10 %, variance (in points squared). q-FedAvg with q = 0 and 1, 10 devices a round,
one epoch of SGD at 0.1 in batches of 10, L = 1 / 0.1. The authors' code draws devices by p_k and goes on for 20,000
rounds; here devices are drawn uniformly, which takes a third of the time, for 1,000. Three instances of the data.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.learning import models, optimizers
from fedsim_np.learning.fed_eval import evaluate_clients

SEEDS, ROUNDS, RATE, QS, DEVICES = (1, 2, 3), 1000, 0.1, (0.0, 1.0), 10
THEIRS = {
    0.0: {"mean": 80.8, "worst 10 %": 18.8, "variance": 724},
    1.0: {"mean": 79.0, "worst 10 %": 31.1, "variance": 472},
}


def accuracies(seed, q, rounds, num_clients):
    """Return the devices' test accuracies, in %."""
    train, test = _shared.synthetic(num_clients, seed)
    model = models.SoftmaxRegression(60, 10, "stable")
    process = fed.learning.build_q_fed_avg(model, optimizers.build_sgdm(RATE), q, 1 / RATE)
    sample = fed.program.build_uniform_sampling_fn(list(train), random_seed=seed)
    reads = {c: data.shuffle(10_000, seed=seed).batch(10) for c, data in train.items()}
    state, _ = _paper.run(process, lambda r: [reads[c] for c in sample(r, DEVICES)], rounds)
    found = evaluate_clients(model, state.global_model_weights, [data.batch(1000) for data in test.values()])
    return [round(100 * float(a), 2) for a in found["sparse_categorical_accuracy"]]


def summary(values):
    """Return the table's row."""
    ordered, tenth = np.sort(values), max(1, len(values) // 10)
    return {"mean": ordered.mean(), "worst 10 %": ordered[:tenth].mean(), "variance": ordered.var()}


def measure(quick):
    """Return the result."""
    seeds, rounds, k = (SEEDS[:1], 3, 20) if quick else (SEEDS, ROUNDS, 100)
    found = {f"q = {q:g}": {seed: accuracies(seed, q, rounds, k) for seed in seeds} for q in QS}
    rows = [[summary(of[seed]) for seed in seeds] for of in found.values()]
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
    return {"paper": paper, "seeds": seeds, "rounds": rounds, "claims": claims, "test accuracies": found}


def draw(result):
    """Draw the distribution of accuracies, as the paper's figure 1: all seeds."""
    figure, ((panel,),) = _paper.figure()
    for name, of_seeds in result["test accuracies"].items():
        panel.hist(np.concatenate([*of_seeds.values()]), bins=20, range=(0, 100), histtype="step", label=name)
    panel.set(xlabel="test accuracy of a device, %", ylabel="devices", title="Synthetic(1,1)")
    panel.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
