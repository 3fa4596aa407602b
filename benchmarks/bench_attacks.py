"""Attacks against robust rules, where clients are alike and where they differ: test accuracies.

usage: bench_attacks.py [--rounds N] [--json FILE] [--quick]; figures.py draws what is stored

Images of simulated writers are pooled and dealt out to 25 clients: evenly ("iid"), by a Dirichlet distribution of
labels of alpha 0.3 ("dirichlet"), or two labels each ("shards"). All take part in every round, one epoch in batches of
20, SGD at 0.05; five of them, 20 %, attack, the same five everywhere; the model is softmax regression, the judge are
images of other writers. Rules that are told a number of attackers are told five, in rounds without any as well.
Each figure is the mean of two seeds (of the partition, who attacks, the order of the data, the buckets).
"""

import argparse
import functools
import textwrap
import time

import common
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import partition
from fedsim_np.learning import aggregators, attacks

CLIENTS, BYZANTINE, SEEDS = 25, 5, (0, 1)
ATTACKS = {
    "none": None,
    "sign flip x 1": attacks.sign_flip(1.0),
    "sign flip x 5": attacks.sign_flip(5.0),
    "Gaussian noise": attacks.gaussian_noise(1.0),
    "inner product x 1.5": attacks.inner_product_manipulation(1.5),
    "a little is enough, z 1": attacks.a_little_is_enough(1.0),
    "mimic": attacks.mimic(),
    "omniscient negation": attacks.omniscient_negation(),
    "flipped labels": attacks.flip_labels(10),
}
HETEROGENEITY = {
    "iid": partition.iid,
    "dirichlet": functools.partial(partition.dirichlet, alpha=0.3),
    "shards": partition.shards,
}
TITLES = {
    "iid": "Clients that are alike (iid)",
    "dirichlet": "Clients that differ in their labels (Dirichlet, alpha 0.3)",
    "shards": "Clients of two labels each (shards)",
}


def rules(seed):
    """Return the rules by their names."""
    krum = aggregators.KrumFactory(BYZANTINE)
    return {
        "mean": aggregators.MeanFactory(),
        "median": aggregators.MedianFactory(),
        "trimmed mean": aggregators.TrimmedMeanFactory(0.2),
        "Krum": krum,
        "Krum, buckets of 2": aggregators.bucketing_factory(2, krum, seed),
        "Multi-Krum": aggregators.KrumFactory(BYZANTINE, CLIENTS - BYZANTINE),
        "geometric median": aggregators.GeometricMedianFactory(),
        "centred clipping": aggregators.CenteredClippingFactory(1.0, 3),
        "Bulyan": aggregators.BulyanFactory(BYZANTINE),
    }


def accuracy(clients, attack, rule, seed, rounds, test):
    """Train, and return the accuracy on test images."""
    model, who = fed.learning.models.SoftmaxRegression(), attacks.choose(clients.client_ids, BYZANTINE / CLIENTS, seed)
    if attack is ATTACKS["flipped labels"]:
        clients = attacks.poisoned(clients, attack, who)
    elif attack is not None:
        rule = attacks.attack_factory(attack, who, rule, seed)
    process = fed.learning.build_weighted_fed_avg(
        model, fed.learning.optimizers.build_sgdm(0.05), model_aggregator=rule
    )
    state, cohort = process.initialize(), []
    for client_id in clients.client_ids:
        dataset = clients.create_dataset_for_client(client_id).shuffle(1000, seed=seed).batch(20)
        cohort.append(dataset.select(x="pixels", y="label", invert=True))
    for round_num in range(rounds):
        with np.errstate(all="ignore"):
            state, _ = process.next(state, cohort, iteration=round_num)
    metrics = fed.learning.models.evaluate(model, process.get_model_weights(state), test)
    return metrics["sparse_categorical_accuracy"]


def table(rounds, writers, seeds, kinds):
    """Return heterogeneity -> attack -> rule -> accuracy."""
    data = fed.datasets.SyntheticClientData(2 * writers)
    ids = data.client_ids
    pools = [
        partition.pool(fed.datasets.ClientData.from_clients_and_fn(part, data.create_dataset_for_client))
        for part in (ids[:writers], ids[writers:])
    ]
    test = [{"x": 1 - pools[1]["pixels"].reshape(-1, 784), "y": pools[1]["label"].reshape(-1, 1)}]
    found = {}
    for kind in kinds:
        dealt = {seed: HETEROGENEITY[kind](pools[0], CLIENTS, seed=seed) for seed in seeds}
        found[kind] = {}
        for name, attack in ATTACKS.items():
            found[kind][name] = {
                rule: round(
                    float(np.mean([accuracy(dealt[s], attack, rules(s)[rule], s, rounds, test) for s in seeds])), 3
                )
                for rule in rules(0)
            }
    return found


def draw(found):
    """Return a figure of the table: a panel for each kind of heterogeneity, an attack a row, a rule a column."""
    from matplotlib.figure import Figure

    from fedsim_np.plots.style import LABEL, SMALL, TITLE

    figure = Figure(figsize=(8.0, 2.6 * len(found) + 1.4), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (kind, of_attacks) in zip(panels, found.items(), strict=True):
        values = np.array([list(of_rules.values()) for of_rules in of_attacks.values()])
        panel.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > 0.45 else "white"  # whichever stands out more
            text = f"{100 * value:.0f}"
            panel.text(column, row, text, ha="center", va="center_baseline", color=colour, fontsize=LABEL)
        names = [textwrap.fill(name, 9) for name in next(iter(of_attacks.values()))]
        panel.set_xticks(range(len(names)), names, fontsize=SMALL)
        panel.set_yticks(range(len(of_attacks)), list(of_attacks), fontsize=SMALL)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(f"{TITLES[kind]}: test accuracy, %", fontsize=TITLE)
        panel.set_ylabel("attack", fontsize=LABEL)
    panels[0].tick_params(labeltop=True)
    panels[-1].set_xlabel("rule", fontsize=LABEL)
    return figure


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="a round, on shards alone, to see that it runs")
    arguments = parser.parse_args()
    rounds, writers, seeds, kinds = arguments.rounds, 100, SEEDS, list(HETEROGENEITY)
    if arguments.quick:
        rounds, writers, seeds, kinds = 1, 10, SEEDS[:1], kinds[-1:]
    started = time.perf_counter()
    found = table(rounds, writers, seeds, kinds)
    result = {
        "what": "accuracy on unseen writers' images after the last round, mean over seeds",
        "clients": CLIENTS,
        "attackers": BYZANTINE,
        "rounds": rounds,
        "seeds": seeds,
        "accuracy": found,
        "seconds": round(time.perf_counter() - started),
    }
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
