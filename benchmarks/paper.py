"""What it does to training that paper is 1.0: three clients that do not differ, one epoch a round.

usage: paper.py [--json FILE] [--quick]

Beside it the same with ink as 1. The data are those that everyone has: the sample that comes with the package, and
simulated writers; the examples of all are dealt out anew (`partition.iid`) to three clients, with several seeds.
Model, rate (0.02) and batches (20) are the tutorial's. Measured on the pooled test examples after each round: the
accuracy, how often it fell by more than 0.01 from one round to the next, and by how much at most.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import partition

CLIENTS, RATE, BATCH = 3, 0.02, 20


def accuracies(train, test, rounds, seed, invert):
    """Accuracy on the pooled test examples after each round."""
    process = fed.learning.build_weighted_fed_avg(
        fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(RATE)
    )
    fields = {"x": "pixels", "y": "label", "invert": invert}
    clients = partition.iid(partition.pool(train), CLIENTS, seed)
    cohort = [
        clients.create_dataset_for_client(c).shuffle(10_000, seed=seed).batch(BATCH).select(**fields)
        for c in clients.client_ids
    ]
    unseen = test.create_dataset_from_all_clients(seed=0).batch(100).select(**fields)
    state, found = process.initialize(), []
    for number in range(rounds):
        state, _ = process.next(state, cohort, iteration=number)
        metrics = fed.learning.models.evaluate(
            fed.learning.models.SoftmaxRegression(), process.get_model_weights(state), unseen
        )
        found.append(float(metrics["sparse_categorical_accuracy"]))
    return found


def falls(runs):
    """How often and how far the accuracy fell from a round to the next, and where it ended, over runs."""
    steps = np.diff(np.array(runs), axis=1)
    ends = [run[-1] for run in runs]
    return {
        "first": sorted(round(run[0], 3) for run in runs),
        "share_of_rounds_that_fell": round(float(np.mean(steps < -0.01)), 3),
        "largest_fall": round(float(-steps.min()), 3),
        "ends": [round(min(ends), 3), round(float(np.median(ends)), 3), round(max(ends), 3)],
    }


def main():
    """Measure, print, and store if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--quick", action="store_true", help="few rounds and one seed, to see that it runs")
    arguments = parser.parse_args()
    rounds, seeds = (2, 1) if arguments.quick else (20, 5)
    data = {"sample": fed.datasets.load_sample()}
    data["synthetic, 100 writers"] = fed.datasets.synthetic.load_data(5 if arguments.quick else 100)
    found = {"clients": CLIENTS, "rate": RATE, "batch_size": BATCH, "rounds": rounds, "seeds": seeds, "data": {}}
    for name, (train, test) in data.items():
        of = found["data"][name] = {}
        for word, invert in (("paper is 1", False), ("ink is 1", True)):
            runs = [accuracies(train, test, rounds, seed, invert) for seed in range(seeds)]
            of[word] = {**falls(runs), "accuracies": [[round(a, 4) for a in run] for run in runs]}
            print(f"{name}, {word}: {falls(runs)}", flush=True)
            print("  ", *(f"{a:.2f}" for a in runs[0]))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
