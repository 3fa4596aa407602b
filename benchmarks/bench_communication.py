"""The price of a message: accuracy against the bytes that clients send, and against simulated time.

usage: bench_communication.py [--rounds N] [--json FILE] [--quick]; figures.py draws what is stored

Softmax regression on 200 simulated writers, ten a round, five epochs in batches of 20, SGD at 0.02; the judge are other
images of all of them, once a round. Clients are on slow lines: 1 Mbit/s up and 8 down in the median, 2,000 examples a
second, each of these times e^z with z normal, so that a round waits for somebody. FedBuff has twenty clients under way
and a buffer of ten, so that as many updates make a step as in a round. Means over three seeds (cohorts, orders, lines).
"""

import argparse
import time

import common
import numpy as np

import fedsim_np as fed
from fedsim_np.learning import compression

CLIENTS, SEEDS, TARGET = 10, (0, 1, 2), 0.85
COMPRESSORS = {
    "float32": lambda seed: None,
    "8 bits": lambda seed: compression.quantize(8, seed),
    "3 bits": lambda seed: compression.quantize(3, seed),
    "top 5 %": lambda seed: compression.top_k(0.05),
    "top 5 %, no feedback": lambda seed: compression.top_k(0.05, error_feedback=False),
    "random 5 %": lambda seed: compression.random_k(0.05, seed, error_feedback=False),
    "signs": lambda seed: compression.sign(),
    "signs, no feedback": lambda seed: compression.sign(error_feedback=False),
}
ACCURACY, BYTES, SECONDS = "evaluation/sparse_categorical_accuracy", "communication/bytes_up", "network/seconds"


class Writers:
    """Simulated writers' datasets, and a judge."""

    def __init__(self, count):
        self.train = fed.datasets.SyntheticClientData(count)
        test = fed.datasets.SyntheticClientData(count, "test")
        self._tests = [self._batched(test.create_dataset_for_client(i), 100) for i in test.client_ids]
        self._evaluation = fed.learning.build_fed_eval(fed.learning.models.SoftmaxRegression)
        self._kept = {i: self.train.create_dataset_for_client(i) for i in self.train.client_ids}

    @staticmethod
    def _batched(dataset, size):
        return dataset.batch(size).select(x="pixels", y="label", invert=True)

    def read(self, client_id, seed):
        """Return what a client reads in a round."""
        return self._batched(self._kept[client_id].repeat(5).shuffle(100, seed=seed), 20)

    def evaluate(self, state, _):
        """Return the metrics of a state's model."""
        return fed.program.training.evaluate_weights(self._evaluation, state.global_model_weights, self._tests)


def history(writers, process, seed, rounds, network, num_clients):
    """Return a run's history; `num_clients` says how many begin in a round, of the state before it."""
    sample = fed.program.build_uniform_sampling_fn(writers.train.client_ids, random_seed=seed)
    logger = fed.program.MemoryLogger()

    def cohort(round_num, state):
        return [writers.read(client_id, seed) for client_id in sample(round_num, num_clients(state))]

    fed.program.run_training_process(
        process,
        cohort,
        rounds,
        writers.evaluate,
        lambda _: [],
        metrics_managers=[logger],
        reshuffle=True,
        network=network,
    )
    return logger.history


def measure(writers, rounds, seeds):
    """Return name -> histories, one a seed."""
    model, sgd = fed.learning.models.SoftmaxRegression, fed.learning.optimizers.build_sgdm(0.02)
    found = {name: [] for name in (*COMPRESSORS, "FedBuff", "FedBuff, 3 bits")}
    for seed in seeds:
        network = fed.program.Network(125_000, 1_000_000, 2_000, spread=1.0, seed=seed)
        for name, compressor in COMPRESSORS.items():
            process = fed.learning.build_unweighted_fed_avg(model, sgd, compressor=compressor(seed))
            found[name].append(history(writers, process, seed, rounds, network, lambda _: CLIENTS))
        for name, compressor in (("FedBuff", None), ("FedBuff, 3 bits", compression.quantize(3, seed))):
            process = fed.learning.build_fed_buff(
                model, sgd, buffer_size=CLIENTS, concurrency=2 * CLIENTS, clock=network, compressor=compressor
            )
            found[name].append(history(writers, process, seed, rounds, network, fed.learning.num_to_begin))
    return found


def until(run, column):
    """Return the sum of a column's values up to the first round with the accuracy asked for; None if there is none."""
    reached = np.flatnonzero(np.array(run[ACCURACY]) >= TARGET)
    return float(np.nansum(run[column][: reached[0] + 1])) if len(reached) else None


def summary(runs):
    """Return a row of the table, means over the seeds."""
    row = {
        "kB a client and round": round(float(np.mean([np.nanmedian(run[BYTES]) for run in runs])) / CLIENTS / 1e3, 2),
        "accuracy after the last round": round(float(np.mean([run[ACCURACY][-1] for run in runs])), 3),
    }
    for name, column, unit in (("MB up", BYTES, 1e6), ("simulated seconds", SECONDS, 1.0)):
        needed = [until(run, column) for run in runs]
        row[f"{name} to {TARGET:.0%}"] = None if None in needed else round(float(np.mean(needed)) / unit, 2)
    return row


def curves(runs):
    """Return what a curve needs, from round 1 on: each seed's accuracy, and the means over seeds of what it cost."""

    def rounds(column):
        return np.array([run[column][1:] for run in runs])  # before it is the evaluation of the first model

    costs = {column: rounds(column).mean(axis=0).tolist() for column in (BYTES, SECONDS)}
    return {
        "accuracy": rounds(ACCURACY).round(4).tolist(),
        "bytes up": [round(value) for value in costs[BYTES]],
        "simulated seconds": [round(value, 4) for value in costs[SECONDS]],
    }


def histories_of(stored):
    """Return the histories, one a seed, that stored curves were made of."""
    accuracies = np.array(stored["accuracy"])
    costs = {BYTES: stored["bytes up"], SECONDS: stored["simulated seconds"]}
    rounds = range(1, accuracies.shape[1] + 1)
    return [{"round_num": rounds, ACCURACY: accuracy, **costs} for accuracy in accuracies]


def figures(result):
    """Return the figures of a result by their names."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    found = {name: histories_of(stored) for name, stored in result["curves"].items()}
    synchronous = {f"updates as {name}": found[name] for name in COMPRESSORS}
    waiting = {f"rounds that wait, {name}": found[name] for name in ("float32", "3 bits")}
    waiting |= {"FedBuff, float32": found["FedBuff"], "FedBuff, 3 bits": found["FedBuff, 3 bits"]}
    drawn = {}
    for name, over, runs in (("bytes", BYTES, synchronous), ("simulated_time", SECONDS, waiting)):
        figure = Figure(figsize=(8.0, 4.8), layout="constrained")
        fed.plots.learning_curves(runs, [ACCURACY], over=over, figure=figure)
        figure.axes[0].set_xscale("log", nonpositive="mask")
        figure.axes[0].set_ylim(0.5, 0.95)
        if over == BYTES:
            figure.axes[0].xaxis.set_major_formatter(EngFormatter(unit="B"))
        else:
            figure.axes[0].xaxis.set_major_formatter("{x:g}")
        drawn[f"accuracy_over_{name}"] = figure
    return drawn


def main():
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--json", help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="two rounds of thirty writers, to see that it runs")
    arguments = parser.parse_args()
    rounds, writers, seeds = (2, 30, SEEDS[:1]) if arguments.quick else (arguments.rounds, 200, SEEDS)
    started = time.perf_counter()
    found = measure(Writers(writers), rounds, seeds)
    result = {
        "what": "accuracy against bytes up and simulated time, means over seeds",
        "writers": writers,
        "clients a round": CLIENTS,
        "rounds": rounds,
        "seeds": seeds,
        "runs": {name: summary(runs) for name, runs in found.items()},
        "curves": {name: curves(runs) for name, runs in found.items()},
        "seconds": round(time.perf_counter() - started),
    }
    common.store(result | common.origin(), arguments.json)


if __name__ == "__main__":
    main()
