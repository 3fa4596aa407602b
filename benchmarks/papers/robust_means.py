"""Robust means, Yin et al. 2018 and Karimireddy, He, Jaggi 2022: against attackers, and on honest clients that differ.

usage: robust_means.py [--json FILE] [--figure FILE] [--quick]

Yin et al., https://arxiv.org/abs/1803.01498 (figures by memory): softmax regression, m = 40 machines with i.i.d. data,
5 % of them with labels 9 - y, full gradients. Karimireddy et al., https://arxiv.org/abs/2006.09365 (figures from their
stored logs, a CNN on MNIST): no attackers at all, robust rules lose where honest clients' labels differ.
Ours are images of simulated writers, not MNIST, 100 rounds of full gradients at rate 0.5, tested on other writers:
orders can be compared, digits not. Clients that differ: 25 of two labels each (shards), against i.i.d. ones; Krum is
told five attackers, trimmed means cut 10 % off each end.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import partition
from fedsim_np.learning import aggregators, attacks, models, optimizers

SEEDS, ROUNDS, RATE = (0, 1, 2), 100, 0.5
YIN = {"mean, clean": 88.0, "mean": 76.8, "median": 87.2, "trimmed mean": 86.9}
HONEST = {
    "Krum": (98.10, 82.97),
    "median": (97.82, 80.36),
    "geometric median": (98.72, 84.76),
    "centred clipping": (98.76, 98.15),
}


def rules():
    """Return the rules by their names."""
    return {
        "mean": aggregators.MeanFactory(),
        "median": aggregators.MedianFactory(),
        "trimmed mean": aggregators.TrimmedMeanFactory(0.1),
        "Krum": aggregators.KrumFactory(5),
        "geometric median": aggregators.GeometricMedianFactory(),
        "centred clipping": aggregators.CenteredClippingFactory(1.0, 3),
    }


def accuracy(clients, rule, rounds, test):
    """Return the test accuracy after training, in %."""
    process = fed.learning.build_weighted_fed_avg(
        models.SoftmaxRegression, optimizers.build_sgdm(RATE), model_aggregator=rule
    )
    cohort = [
        clients.create_dataset_for_client(c).batch(10_000).select(x="pixels", y="label", invert=True)
        for c in clients.client_ids
    ]
    state, _ = _paper.run(process, lambda _: cohort, rounds, reshuffle=False)
    found = models.evaluate(models.SoftmaxRegression(), state.global_model_weights, test)
    return round(100 * float(found["sparse_categorical_accuracy"]), 2)


def measure(quick):
    """Return the result."""
    seeds, rounds, writers, m, k = (SEEDS[:1], 2, 10, 20, 15) if quick else (SEEDS, ROUNDS, 60, 40, 25)
    data = fed.datasets.SyntheticClientData(2 * writers)
    ids, create = data.client_ids, data.create_dataset_for_client
    images, unseen = (
        partition.pool(fed.datasets.ClientData.from_clients_and_fn(part, create))
        for part in (ids[:writers], ids[writers:])
    )
    test = [{"x": 1 - unseen["pixels"].reshape(-1, 784), "y": unseen["label"].reshape(-1, 1)}]
    attacked, honest = {name: [] for name in YIN}, {name: {"iid": [], "shards": []} for name in rules()}
    for seed in seeds:
        clean = partition.iid(images, m, seed=seed)
        who = attacks.choose(clean.client_ids, 0.05, seed)
        wrong = attacks.poisoned(clean, attacks.flip_labels(10), who)
        for name, found in attacked.items():
            rule = rules()[name.partition(",")[0]]
            found.append(accuracy(clean if "clean" in name else wrong, rule, rounds, test))
        for kind, deal in (("iid", partition.iid), ("shards", partition.shards)):
            clients = deal(images, k, seed=seed)
            for name, rule in rules().items():
                honest[name][kind].append(accuracy(clients, rule, rounds, test))
    lost = np.subtract(attacked["mean, clean"], attacked["mean"])
    claims = [
        _paper.claim(
            "Yin: 5 % flipped labels cost the mean more than 5 points of accuracy",
            "88.0 to 76.8",
            f"{_paper.spread(attacked['mean, clean'], 1)} to {_paper.spread(attacked['mean'], 1)}",
            lost > 5,
        ),
        *(
            _paper.claim(
                f"Yin: the {name} loses less than the mean does (accuracy)",
                f"{YIN[name]}",
                _paper.spread(attacked[name], 1),
                np.array(attacked[name]) > attacked["mean"],
            )
            for name in ("median", "trimmed mean")
        ),
    ]
    for name, (iid, shards) in HONEST.items():
        losses = {rule: np.subtract(of["iid"], of["shards"]) for rule, of in honest.items()}
        keeps = name == "centred clipping"
        claims.append(
            _paper.claim(
                f"nobody attacks: {name} loses {'at most 5' if keeps else 'more than 5'} points by clients that differ",
                f"{iid:.1f} to {shards:.1f}",
                f"{_paper.spread(honest[name]['iid'], 1)} to {_paper.spread(honest[name]['shards'], 1)} (the mean: "
                f"{_paper.spread(honest['mean']['iid'], 1)} to {_paper.spread(honest['mean']['shards'], 1)})",
                losses[name] <= 5 if keeps else losses[name] > 5,
            )
        )
    return {
        "paper": "Robust means: Yin et al. 2018; Karimireddy, He, Jaggi 2022",
        "seeds": seeds,
        "rounds": rounds,
        "claims": claims,
        "5 % flipped labels": attacked,
        "nobody attacks": honest,
    }


def draw(result):
    """Draw accuracies: with attackers, and without, where clients are alike and where they differ."""
    figure, ((left, right),) = _paper.figure(1, 2)
    attacked, honest = result["5 % flipped labels"], result["nobody attacks"]
    left.bar(range(len(attacked)), [np.mean(values) for values in attacked.values()])
    left.plot(range(len(attacked)), [YIN[name] for name in attacked], "k_", markersize=20, label="the paper's")
    left.set_xticks(range(len(attacked)), [*attacked], rotation=30, ha="right")
    left.set(ylabel="test accuracy, %", title="5 % of clients with labels 9 - y", ylim=(50, 100))
    left.legend()
    for i, kind in enumerate(("iid", "shards")):
        right.bar(
            np.arange(len(honest)) + 0.4 * i - 0.2, [np.mean(of[kind]) for of in honest.values()], 0.4, label=kind
        )
        their = [(HONEST[name][i] if name in HONEST else np.nan) for name in honest]
        label = "theirs (CNN, MNIST)" if i == 0 else None
        right.plot(np.arange(len(honest)) + 0.4 * i - 0.2, their, "k_", markersize=12, label=label)
    right.set_xticks(range(len(honest)), [*honest], rotation=30, ha="right")
    right.set(ylabel="test accuracy, %", title="nobody attacks", ylim=(0, 100))
    right.legend(fontsize=7, loc="lower left")
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
