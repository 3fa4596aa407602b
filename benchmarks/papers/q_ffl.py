"""Fairness, q-FFL, Li et al. 2020: the worst-off gain, the spread shrinks, the mean hardly moves.

usage: q_ffl.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1905.10497, table 1 (figures by memory): Synthetic(1,1), 100 devices, logistic regression, test
accuracy of each device: mean, worst 10 %, variance (in points squared). q-FedAvg with q = 0 and 1, 10 devices a round,
uniformly, one epoch of SGD at 0.1 in batches of 10, L = 1 / 0.1, 500 rounds. Three instances of the data.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import fedprox_synthetic
from fedsim_np.learning import models, optimizers
from fedsim_np.learning.fed_eval import evaluate_clients

SEEDS, ROUNDS, RATE, QS = (0, 1, 2), 500, 0.1, (0.0, 1.0)
THEIRS = {
    0.0: {"mean": 80.8, "worst 10 %": 18.8, "variance": 724},
    1.0: {"mean": 79.0, "worst 10 %": 31.1, "variance": 472},
}


def accuracies(seed, q, rounds, num_clients):
    """Return the devices' test accuracies, in %."""
    train, test = fedprox_synthetic.load_data(1.0, 1.0, num_clients=num_clients, seed=seed)
    model = models.SoftmaxRegression(60, 10, "stable")
    process = fed.learning.build_q_fed_avg(model, optimizers.build_sgdm(RATE), q, 1 / RATE)
    sample = fed.program.build_uniform_sampling_fn(train.client_ids, random_seed=seed)

    def cohort(round_num):
        chosen = sample(round_num, min(10, num_clients))
        return [train.create_dataset_for_client(c).shuffle(10_000, seed=seed).batch(10) for c in chosen]

    state, _ = _paper.run(process, cohort, rounds)
    data = [test.create_dataset_for_client(c).batch(1000) for c in test.client_ids]
    found = evaluate_clients(model, state.global_model_weights, data)
    return [round(100 * float(a), 2) for a in found["sparse_categorical_accuracy"]]


def summary(values):
    """Return the table's row."""
    ordered, tenth = np.sort(values), max(1, len(values) // 10)
    worst, best = ordered[:tenth].mean(), ordered[-tenth:].mean()
    return {"mean": ordered.mean(), "worst 10 %": worst, "best 10 %": best, "variance": ordered.var()}


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
    return {
        "paper": "q-FFL: Li et al. 2020",
        "seeds": seeds,
        "rounds": rounds,
        "claims": claims,
        "test accuracies": found,
    }


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
