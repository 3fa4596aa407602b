"""An algorithm of one's own, in one file: SCAFFOLD (Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378).

Usage: python -m fedsim_np.demos.own_algorithm

Federated averaging drifts where clients differ: each goes towards its own optimum. SCAFFOLD corrects every local step
by what the clients do on average, the server's control variate c, and what this client does, its own c_i:

    y_i = x;   K times:   y_i -= eta (g_i(y_i) - c_i + c)
    c_i+ = c_i - c + (x - y_i) / (K eta)                                          (option II of algorithm 1)
    x -= mean of (x - y_i);   c += sum of (c_i+ - c_i) / N

`Scaffold` is these lines. c is the state of the client work, c_i is what the server keeps of each client, and
c_i+ - c_i the message of a client to the server's half: all of it in the state, so that it goes through processes and
checkpoints. The steps are gradient descent's with a constant drift d = c - c_i, which is declared, so that the fastest
engine can take them. What this file runs holds it to `fed.learning.build_scaffold`, in every engine.
"""

from dataclasses import dataclass

import numpy as np

import fedsim_np as fed
from fedsim_np import trees


@dataclass(frozen=True)
class Scaffold(fed.learning.LocalTraining):
    """The clients' half, and c."""

    eta: float
    num_clients: int

    def initialize(self, weights):
        return trees.map(np.zeros_like, weights)  # c

    def initialize_client(self, weights):
        return trees.map(np.zeros_like, weights)  # c_i

    def begin(self, client):
        return {"weights": client.weights, "drift": trees.map(np.subtract, client.state, client.kept)}

    def step(self, local, gradients, batch):
        y = trees.map(lambda y, g, d: y - np.float32(self.eta) * (g + d), local["weights"], gradients, local["drift"])
        return {**local, "weights": y}

    def end(self, client, local, trained):
        k_eta = self.eta * trained.num_steps
        new = trees.map(lambda u, d: u / trees.along(k_eta, u) - d, trained.update, local["drift"])
        change, counts = trees.map(np.subtract, new, client.kept), np.minimum(trained.num_examples, 1)
        return fed.learning.ClientResult(trained.update, weight=counts, kept=new, message=change)

    def finish_round(self, state, cohort):
        return trees.map(lambda c, m: c + m.sum(axis=0) / np.float32(self.num_clients), state, cohort.messages), {}

    def is_elementwise(self, state):
        return True

    def as_sgd(self, state):
        return fed.learning.SGDSteps(self.eta, drift="drift")


def build_scaffold(model_fn, eta, num_clients, **keywords):
    """Compose the process: clients that count weigh alike, and the server takes their mean."""
    mean, average = fed.learning.aggregators.MeanFactory(), fed.learning.optimizers.build_sgdm(1.0)
    return fed.learning.compose_learning_process(model_fn, Scaffold(eta, num_clients), mean, average, **keywords)


def train(build, rounds=6, **keywords):
    """Train on ten of the sample's thirty writers a round; return the final state."""
    writers, _ = fed.datasets.load_sample()
    process = build(fed.learning.models.SoftmaxRegression, 0.02, num_clients=len(writers.client_ids), **keywords)
    sample = fed.program.build_uniform_sampling_fn(writers.client_ids, random_seed=1)

    def cohort(round_num):
        datasets = (writers.create_dataset_for_client(client_id) for client_id in sample(round_num, 10))
        return [d.repeat(2).shuffle(100, seed=1).batch(20).select(x="pixels", y="label") for d in datasets]

    return fed.program.run_training_process(process, cohort, rounds, metrics_managers=[], reshuffle=True)


def main():
    """Show that it holds."""
    library = train(fed.learning.build_scaffold).global_model_weights.trainable
    for engine in ("loop", "cohort", "gram", "auto"):
        state = train(build_scaffold, engine=engine)
        weights = state.global_model_weights.trainable
        off = max(float(np.abs(a - b).max()) for a, b in zip(library, weights, strict=True))
        print(f"engine {engine:6}  weights differ from the library's by {off:.1e}")
        assert off < 1e-5
    kept = state.client_work.clients
    print(f"after {state.client_work.round_num} rounds the server keeps the control variates of {len(kept)} clients")


if __name__ == "__main__":
    main()
