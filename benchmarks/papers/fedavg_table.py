"""FedAvg's own table, McMahan et al. 2017: rounds to an accuracy, by batch size, fraction of clients and partition.

usage: fedavg_table.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/1602.05629, table 1: the 2NN (two hidden layers of 200), E = 1, 100 clients of 600 MNIST images,
rounds to 97 %, rates tuned. MNIST has to be fetched, so that its digits cannot be checked here. Ours: 20 clients of 150
images of simulated writers, rounds to 90 % on other writers', C = 0.2 or 1, each cell's rate the best of four: whether
small batches speed up, shards are slower than i.i.d. clients, and more clients a round save rounds. One run a cell.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import partition
from fedsim_np.learning import models, optimizers

CLIENTS, IMAGES, TARGET, LONGEST, RATES, SEED = 20, 150, 0.9, 150, (0.15, 0.5, 0.05, 1.5), 0
KINDS, CELLS = ("iid", "shards"), [(c, kind) for c in (0.2, 1.0) for kind in ("iid", "shards")]
THEIRS = {
    (0.1, "iid"): (1474, 87),
    (0.1, "shards"): (1796, 664),
    (1.0, "iid"): (None, 70),
    (1.0, "shards"): (None, 380),
}
"""(C, partition) -> rounds with B = inf and with B = 10; None where the paper has none."""


def needed(clients, fraction, batch, rate, longest, test):
    """Return rounds until the target is reached."""
    sample = fed.program.build_uniform_sampling_fn(clients.client_ids, random_seed=SEED)
    size, reads = max(1, round(fraction * len(clients.client_ids))), {}
    for c in clients.client_ids:
        reads[c] = _shared.read(clients.create_dataset_for_client(c).shuffle(1000, seed=SEED), batch)
    process = fed.learning.build_weighted_fed_avg(models.MLP(seed=SEED), optimizers.build_sgdm(rate))
    return _shared.rounds_to(TARGET, process, lambda r: [reads[c] for c in sample(r, size)], test, longest)


def measure(quick):
    """Return the result."""
    k, longest, rates, writers = (4, 2, RATES[:1], 10) if quick else (CLIENTS, LONGEST, RATES, 60)
    images, test = _shared.handwriting(writers, writers)
    rows = np.random.default_rng(SEED).permutation(len(images["label"]))[: k * IMAGES]
    images = {name: array[rows] for name, array in images.items()}
    test = [{name: array[:1000] for name, array in test[0].items()}]
    dealt = {"iid": partition.iid(images, k, seed=SEED), "shards": partition.shards(images, k, seed=SEED)}
    found, chosen = {}, {}
    for fraction, kind in CELLS:
        for batch, name in ((1000, "inf"), (10, "10")):
            key, best = f"C = {fraction:g}, {kind}, B = {name}", longest
            for rate in rates:  # no longer than the best so far
                rounds = needed(dealt[kind], fraction, batch, rate, best, test)
                if rounds < best or key not in chosen:
                    best, chosen[key] = rounds, rate
            found[key] = best
    return {
        "paper": "FedAvg's table: McMahan et al. 2017",
        "claims": claims_of(found, longest),
        f"rounds to {TARGET:.0%} ({longest}: or more)": found,
        "rates": chosen,
    }


def claims_of(found, longest):
    """Return orders; where neither has reached the target nothing can be said."""

    def compare(text, paper, slow, fast):
        pairs = [(found[a], found[b]) for a, b in zip(slow, fast, strict=True)]
        both = ", ".join(" : ".join(f"{n}+" if n >= longest else str(n) for n in pair) for pair in pairs)
        return _paper.claim(text, paper, both, [a > b for a, b in pairs])

    def cells(c, kind, b):
        return [f"C = {x:g}, {y}, B = {z}" for x in c for y in kind for z in b]

    return [
        _paper.claim("rounds to 97 % on MNIST", "C = 0.1: 1474 (inf), 87 (10)", "no MNIST here", None),
        compare(
            "B = 10 needs fewer rounds than B = inf (C = 0.2: i.i.d., shards; C = 1: likewise)",
            "C = 0.1: 1474 : 87, 1796 : 664",
            cells((0.2, 1.0), KINDS, ["inf"]),
            cells((0.2, 1.0), KINDS, [10]),
        ),
        compare(
            "shards need more rounds than i.i.d. clients (C = 0.2: B = inf, 10; C = 1: likewise)",
            "C = 0.1: 1796 : 1474, 664 : 87; C = 1, B = 10: 380 : 70",
            cells((0.2, 1.0), ["shards"], ["inf", 10]),
            cells((0.2, 1.0), ["iid"], ["inf", 10]),
        ),
        compare(
            "B = 10: all clients need fewer rounds than a few (C = 0.2 : C = 1; i.i.d., shards)",
            "C = 0.1 : C = 1: 87 : 70, 664 : 380",
            cells([0.2], KINDS, [10]),
            cells([1.0], KINDS, [10]),
        ),
    ]


def draw(result):
    """Draw the table: a row for C and partition, a column for B."""
    title, found = next((name, of) for name, of in result.items() if name.startswith("rounds to"))
    values = np.reshape(list(found.values()), (-1, 2))
    theirs = [THEIRS[c if c == 1 else 0.1, kind] for c, kind in CELLS]
    texts = [[f"{a} ({b or '-'})" for a, b in zip(*both, strict=True)] for both in zip(values, theirs, strict=True)]
    figure, ((panel,),) = _paper.figure(width=6.5, height=3)
    rows = [f"C = {c:g}{' (0.1)' if c < 1 else ''}, {kind}" for c, kind in CELLS]
    _shared.heat(panel, values, texts, ["B = inf", "B = 10"], rows, f"{title}; (the paper's, to 97 % of MNIST)")
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
