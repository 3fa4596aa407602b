"""Flower's clients and strategy in one process; the clients' arithmetic is plain NumPy; see README.md."""

import sys
from pathlib import Path

import numpy as np
from flwr.client import NumPyClient
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg
from peers import BATCH, RATE, load, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import plain_numpy


class Client(NumPyClient):
    """One writer."""

    def __init__(self, x, y):
        self.x, self.y, self.rng = x, y, np.random.default_rng(0)

    def fit(self, parameters, config):
        """Train; return weights, examples and metrics."""
        order = self.rng.permutation(len(self.x) * config["epochs"]) % len(self.x)
        updates = plain_numpy.train_client(*parameters, self.x, self.y, order, RATE, BATCH)
        weights = [w - u for w, u in zip(parameters, updates[:2], strict=True)]
        return weights, len(order), {"loss": updates[4]}

    def evaluate(self, parameters, config):
        """Return loss, examples and metrics."""
        accuracy, loss = plain_numpy.evaluate(*parameters, [(self.x, self.y)], BATCH)
        return loss, len(self.x), {"accuracy": accuracy}


CLIENTS = [Client(x, y) for x, y in load()]
START = ndarrays_to_parameters([np.zeros((784, 10), np.float32), np.zeros(10, np.float32)])


def round_of(count, epochs):
    """Send weights, train, aggregate, as Flower's server does with its messages."""
    results = []
    for client in CLIENTS[:count]:
        weights, examples, metrics = client.fit(parameters_to_ndarrays(START), {"epochs": epochs})
        parameters = ndarrays_to_parameters(weights)
        results.append((None, FitRes(Status(Code.OK, ""), parameters, examples, metrics)))
    return FedAvg().aggregate_fit(1, results, [])


if __name__ == "__main__":
    report(
        "flwr",
        {
            "tutorial": lambda: round_of(10, 5),
            "wide": lambda: round_of(100, 1),
            "evaluation": lambda: [client.evaluate(parameters_to_ndarrays(START), {}) for client in CLIENTS],
        },
    )
