"""FedNova, Wang et al. 2020: the objective that averaging minimises where clients do different numbers of steps.

usage: fednova.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/2007.07481. Quadratics F_i = |x - e_i|^2 / 2, tau_i steps of gradient descent at eta = 0.1, in
float64: FedAvg settles at sum p_i (1 - (1 - eta)^tau_i) e_i / sum p_i (1 - (1 - eta)^tau_i); FedNova at that of
(1 - (1 - eta)^tau_i) / tau_i, nearer sum p_i e_i. Then Synthetic(1,1), all of 30 clients, E_i = 5 for all, or 1 to 5
drawn anew each round, SGD at 0.02 in batches of 20; p_i by the clients' own examples, whatever E_i is.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import models, optimizers

SEEDS, ROUNDS, ETA, STEPS = (0, 1, 2), 100, 0.1, (1, 2, 5, 20, 60)
EQUAL, VARIED = KINDS = ("E_i = 5", "E_i in 1..5")


def process_of(name, model, rate):
    """Return an algorithm's process, p_i by own examples."""
    if name == "FedNova":
        return fed.learning.build_fed_nova(model, optimizers.build_sgdm(rate))
    return _shared.by_own_examples(model, rate)


def quadratics(seed):
    """Return algorithm -> error against the closed form, and distance to sum p_i e_i."""
    rng = np.random.default_rng(seed)
    e, n = rng.standard_normal((len(STEPS), 4)), rng.integers(1, 5, len(STEPS))
    clients = []
    for i, tau in enumerate(STEPS):
        arrays = {"x": np.zeros((n[i], 1), np.float32), "y": np.tile(e[i].astype(np.float32), (n[i], 1))}
        clients.append(Dataset.from_arrays(arrays, str(i)).repeat(tau).batch(int(n[i])))
    e, p, tau = e.astype(np.float32).astype(np.float64), n / n.sum(), np.array(STEPS)
    done = 1 - (1 - float(np.float32(ETA))) ** tau
    model, found = _shared.Linear(1, 4), {}
    for name, shares in (("FedAvg", p * done), ("FedNova", p * done / tau)):
        weights, _ = _shared.settle(process_of(name, model, ETA), clients, 2000)
        settled, expected = weights.trainable[1], shares @ e / shares.sum()
        found[name] = [float(np.abs(settled - expected).max()), float(np.linalg.norm(settled - p @ e))]
    return found


def synthetic(seed, rounds, num_clients):
    """Return (algorithm, epochs) -> the training loss over rounds."""
    train, model = _shared.synthetic(num_clients, seed)[0], models.SoftmaxRegression(60, 10, "stable")
    of_all, found = _paper.accuracy_and_loss(model, [data.batch(10_000) for data in train.values()]), {}

    def reads(epochs):
        each = zip(train.values(), epochs.tolist(), strict=True)
        return [data.repeat(e).shuffle(10_000, seed=seed).batch(20) for data, e in each]

    for kind, fewest in ((EQUAL, 5), (VARIED, 1)):
        for name in ("FedAvg", "FedNova"):

            def cohort(round_num, fewest=fewest):
                return reads(np.random.default_rng([seed, round_num]).integers(fewest, 6, len(train)))

            _, way = _paper.run(process_of(name, model, 0.02), cohort, rounds, of_all, every=2)
            found[f"{name}, {kind}"] = [round(loss, 4) for _, loss in way]
    return found


def measure(quick):
    """Return the result."""
    seeds, rounds, k = (SEEDS[:1], 4, 5) if quick else (SEEDS, ROUNDS, 30)
    exact, found = [quadratics(seed) for seed in seeds], [synthetic(seed, rounds, k) for seed in seeds]
    worst = max(of[name][0] for of in exact for name in of)
    nearer = "quadratics: FedNova's point is nearer to the optimum (distances, FedAvg; FedNova)"
    distances = [[of[name][1] for of in exact] for name in ("FedAvg", "FedNova")]
    claims = [
        _paper.claim(
            "quadratics: FedAvg and FedNova settle at their closed forms (largest error)",
            "closed form, to 1e-12",
            f"{worst:.0e}",
            worst < 1e-12,
        ),
        _paper.claim(nearer, "nearer", "; ".join(map(_paper.spread, distances)), np.greater(*distances)),
    ]
    for kind in KINDS:
        text = f"Synthetic(1,1), {kind}: FedAvg's loss ends above FedNova's (FedAvg; FedNova, last 20 rounds)"
        floors = [[np.mean(of[f"{name}, {kind}"][-10:]) for of in found] for name in ("FedAvg", "FedNova")]
        claims.append(_paper.claim(text, "above", "; ".join(map(_paper.spread, floors)), np.greater(*floors)))
    return {
        "paper": "FedNova: Wang et al. 2020",
        "seeds": seeds,
        "claims": claims,
        "quadratics: error, distance": exact,
        "training loss, every 2 rounds": found,
    }


def draw(result):
    """Draw the training loss over rounds, as the paper's figure 5: the mean of the seeds."""
    figure, (panels,) = _paper.figure(1, 2)
    ways = result["training loss, every 2 rounds"]
    for panel, name in zip(panels, KINDS, strict=True):
        for algorithm in ("FedAvg", "FedNova"):
            mean = np.mean([of[f"{algorithm}, {name}"] for of in ways], axis=0)
            panel.plot(2 * np.arange(len(mean)), mean, label=algorithm)
        panel.set(xlabel="communication rounds", ylabel="training loss", title=f"Synthetic(1,1), {name}", yscale="log")
        panel.legend()
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
