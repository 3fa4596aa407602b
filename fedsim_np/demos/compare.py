"""FedAvg against an aggregator of one's own, three seeds each: python -m fedsim_np.demos.compare writes compare.png."""

import numpy as np

import fedsim_np as fed


class TrimmedMean(fed.learning.aggregators.Aggregator):  # leaves out the two largest and the two smallest updates
    def initialize(self, weights):
        return ()

    def next(self, state, updates, weights):
        return state, tuple(np.sort(u, axis=0)[2:-2].mean(axis=0, dtype=np.float32) for u in updates), {"trimmed": 4}


def batches(dataset, epochs=5, negative=False):
    x = (lambda e: 1 - e["pixels"].reshape(-1, 784)) if negative else (lambda e: e["pixels"].reshape(-1, 784))
    return dataset.repeat(epochs).batch(20).map(lambda e: {"x": x(e), "y": e["label"].reshape(-1, 1)})


def run(aggregator, seed):
    """Train on ten of twenty writers a round, two of whom have faulty scanners (negatives); evaluate on ten others."""
    model, optimizer = fed.learning.models.SoftmaxRegression(), fed.learning.optimizers.build_sgdm(0.02)
    process = fed.learning.build_weighted_fed_avg(lambda: model, optimizer, model_aggregator=aggregator)
    state, logger, rng = process.initialize(), fed.program.MemoryLogger(), np.random.default_rng(seed)
    writers = list(fed.datasets.load_sample()[0].datasets(seed=0))
    strangers = [batch for writer in writers[20:] for batch in batches(writer, epochs=1).batches()]
    for round_num in range(1, 21):
        cohort = [batches(writers[i], negative=n < 2) for n, i in enumerate(rng.choice(20, 10, replace=False))]
        state, _ = process.next(state, cohort)
        metrics = fed.learning.models.evaluate(model, process.get_model_weights(state), strangers)
        logger.release({"evaluation": metrics}, round_num)
    return logger.history


if __name__ == "__main__":
    ideas = (fed.learning.aggregators.MeanFactory(), TrimmedMean())
    histories = {type(idea).__name__: [run(idea, seed) for seed in range(3)] for idea in ideas}
    fed.plots.learning_curves(histories).savefig("compare.png", dpi=150)
