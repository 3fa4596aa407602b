"""FedAvg's own table, McMahan et al. 2017: rounds to an accuracy, by batch size, fraction of clients and partition.

usage: fedavg_table.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1602.05629, table 1: the 2NN (two hidden layers of 200), E = 1, 100 clients of 600 MNIST images,
rounds to 97 %. MNIST has to be fetched, so that its digits cannot be checked here. Ours: 20 clients of 150 images of
simulated writers, rounds to 90 % on other writers', C = 0.2 or 1, rate the best of three: whether small batches speed
up, shards are slower than i.i.d. clients, and more clients a round save rounds.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import partition
from fedsim_np.learning import models, optimizers

CLIENTS, IMAGES, TARGET, LONGEST, RATES, SEED = 20, 150, 0.9, 150, (0.05, 0.15, 0.5), 0
CELLS = tuple((c, kind, b) for c in (0.2, 1.0) for kind in ("iid", "shards") for b in ("inf", 10))
THEIRS = {
    (0.1, "iid"): (1474, 87),
    (0.1, "shards"): (1796, 664),
    (1.0, "iid"): (None, 70),
    (1.0, "shards"): (None, 380),
}
"""(C, partition) -> rounds with B = inf and with B = 10; None where the paper has none."""


def rounds_needed(clients, fraction, batch, rate, longest, test):
    """Return rounds until the target is reached on test images; `longest` if that is not enough."""
    model = models.MLP(seed=SEED)
    process = fed.learning.build_weighted_fed_avg(model, optimizers.build_sgdm(rate))
    sample = fed.program.build_uniform_sampling_fn(clients.client_ids, random_seed=SEED)
    state, size = process.initialize(), max(1, round(fraction * len(clients.client_ids)))
    for r in range(1, longest + 1):
        cohort = []
        for c in sample(r, size):
            data = clients.create_dataset_for_client(c).shuffle(1000, seed=SEED)
            read = data.batch(1000 if batch == "inf" else batch)
            cohort.append(read.select(x="pixels", y="label", invert=True))
        state, _ = process.next(state, cohort, iteration=r - 1)
        found = models.evaluate(model, state.global_model_weights, test)
        if found["sparse_categorical_accuracy"] >= TARGET:
            return r
    return longest


def measure(quick):
    """Return the result."""
    k, longest, rates, writers = (4, 2, RATES[1:2], 10) if quick else (CLIENTS, LONGEST, RATES, 60)
    data = fed.datasets.SyntheticClientData(2 * writers)
    ids, create = data.client_ids, data.create_dataset_for_client
    images, unseen = (
        partition.pool(fed.datasets.ClientData.from_clients_and_fn(part, create))
        for part in (ids[:writers], ids[writers:])
    )
    rows = np.random.default_rng(SEED).permutation(len(images["label"]))[: k * IMAGES]
    images = {name: array[rows] for name, array in images.items()}
    test = [{"x": 1 - unseen["pixels"].reshape(-1, 784)[:1000], "y": unseen["label"].reshape(-1, 1)[:1000]}]
    dealt, found = {"iid": partition.iid(images, k, seed=SEED), "shards": partition.shards(images, k, seed=SEED)}, {}
    for fraction, kind, batch in CELLS:
        best = longest
        for rate in rates:
            best = min(best, rounds_needed(dealt[kind], fraction, batch, rate, best, test))
        found[f"C = {fraction:g}, {kind}, B = {batch}"] = best
    return {
        "paper": "FedAvg's table: McMahan et al. 2017",
        "seeds": (SEED,),
        "claims": claims_of(found, longest),
        f"rounds to {TARGET:.0%} ({longest}: or more)": found,
    }


def claims_of(found, longest):
    """Return orders; where neither has reached the target nothing can be said."""

    def compare(text, paper, slow, fast):
        pairs = [(found[a], found[b]) for a, b in zip(slow, fast, strict=True)]
        words = [f"{longest}+" if n >= longest else str(n) for pair in pairs for n in pair]
        both = ", ".join(f"{a} : {b}" for a, b in zip(words[::2], words[1::2], strict=True))
        return _paper.claim(text, paper, both, [a > b for a, b in pairs])

    def cells(c, kind, b):
        return [f"C = {x:g}, {y}, B = {z}" for x in c for y in kind for z in b]

    both, kinds = (0.2, 1.0), ("iid", "shards")
    return [
        _paper.claim("rounds to 97 % on MNIST", "C = 0.1: 1474 (inf), 87 (10)", "no MNIST here", None),
        compare(
            "B = 10 needs fewer rounds than B = inf (C = 0.2: i.i.d., shards; C = 1: likewise)",
            "C = 0.1: 1474 : 87, 1796 : 664",
            cells(both, kinds, ["inf"]),
            cells(both, kinds, [10]),
        ),
        compare(
            "shards need more rounds than i.i.d. clients (C = 0.2: B = inf, 10; C = 1: likewise)",
            "C = 0.1: 1796 : 1474, 664 : 87; C = 1, B = 10: 380 : 70",
            cells(both, ["shards"], ["inf", 10]),
            cells(both, ["iid"], ["inf", 10]),
        ),
        compare(
            "B = 10: all clients need fewer rounds than a few (C = 0.2 : C = 1; i.i.d., shards)",
            "C = 0.1 : C = 1: 87 : 70, 664 : 380",
            cells([0.2], kinds, [10]),
            cells([1.0], kinds, [10]),
        ),
    ]


def draw(result):
    """Draw the table: a row for C and partition, a column for B."""
    found = next(of for name, of in result.items() if name.startswith("rounds to"))
    values = np.reshape(list(found.values()), (-1, 2)).astype(float)
    figure, ((panel,),) = _paper.figure(width=5, height=3)
    panel.imshow(np.log(values), cmap="cividis_r", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if np.log(value) < np.log(values).mean() else "white"
        panel.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    panel.set_xticks((0, 1), ["B = inf", "B = 10"])
    panel.set_yticks(range(len(values)), [name.rpartition(",")[0] for name in list(found)[::2]])
    panel.set_title("rounds, simulated writers")
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
