"""Parts that several papers' scripts are made of: data, models, processes, ways to run them."""

from dataclasses import dataclass

import numpy as np

import fedsim_np as fed
from fedsim_np import analysis
from fedsim_np.datasets import Dataset, fedprox_synthetic, partition
from fedsim_np.learning import aggregators, models, optimizers
from fedsim_np.learning.client import ClientResult
from fedsim_np.learning.fed_prox import FedProxTraining


class InFloat64:
    """Trained in float64."""

    def initial_weights(self):
        """Return the model's own, wide."""
        weights = super().initial_weights()
        return weights._replace(trainable=tuple(w.astype(np.float64) for w in weights.trainable))


class Linear(InFloat64, models.LinearRegression):
    """Least squares."""


class Logistic(InFloat64, models.SoftmaxRegression):
    """Logistic regression, by classes."""


@dataclass(frozen=True)
class ByOwnExamples(FedProxTraining):
    """FedAvg or FedProx whose clients count for their own examples, however often they read them."""

    def end(self, client, local, trained):
        """Send the update."""
        return ClientResult(trained.update, client.num_own_examples)


def by_own_examples(model, rate, mu=0.0):
    """Return the process of FedAvg, or of FedProx, with weights n_k whatever the number of epochs is."""
    return fed.learning.compose_learning_process(
        model,
        ByOwnExamples(optimizers.build_sgdm(rate), proximal_strength=mu),
        aggregators.MeanFactory(),
        optimizers.build_sgdm(1.0),
    )


def synthetic(num_clients, seed, alpha=1.0, beta=1.0):
    """Return FedProx's synthetic data: client -> dataset, of training and of test data."""
    both = fedprox_synthetic.load_data(alpha, beta, num_clients=num_clients, seed=seed)
    return [{c: data.create_dataset_for_client(c) for c in data.client_ids} for data in both]


def least_squares(seed, m):
    """Return the clients' data (A_j, b_j): see fixed_points.py."""
    rng = np.random.default_rng(seed)
    x_0 = rng.standard_normal(10)
    clients = []
    for j in range(m):
        a = rng.standard_normal((int(rng.integers(50, 151)), 10)) * rng.uniform(0.3, 1.7)
        b = a @ (x_0 + rng.standard_normal(10)) + rng.standard_normal(len(a)) / 2
        arrays = {"x": a.astype(np.float32), "y": b.astype(np.float32)[:, np.newaxis]}
        clients.append(Dataset.from_arrays(arrays, f"{j:02}"))
    return clients


def logistic(seed, m):
    """Return data of clients whose inputs and rules differ."""
    rng, clients = np.random.default_rng(seed), []
    rule = rng.standard_normal(5)
    for j in range(m):
        x = rng.standard_normal((100, 5)) * rng.uniform(0.5, 2) + rng.standard_normal(5)
        y = (rng.random(100) < 1 / (1 + np.exp(-x @ (rule + rng.standard_normal(5))))).astype(np.int32)
        clients.append(Dataset.from_arrays({"x": x.astype(np.float32), "y": y[:, np.newaxis]}, f"{j:02}"))
    return clients


def handwriting(writers, unseen):
    """Return images of simulated writers, and a test batch of others'."""
    data = fed.datasets.SyntheticClientData(writers + unseen)
    images, others = (
        partition.pool(fed.datasets.ClientData.from_clients_and_fn(ids, data.create_dataset_for_client))
        for ids in (data.client_ids[:writers], data.client_ids[writers:])
    )
    return images, [{"x": 1 - others["pixels"].reshape(-1, 784), "y": others["label"].reshape(-1, 1)}]


def read(data, batch):
    """Return what a client reads of images: black is 1."""
    return data.batch(batch).select(x="pixels", y="label", invert=True)


def accuracy(model, state, test):
    """Return the accuracy on a central test batch."""
    return float(models.evaluate(model, state.global_model_weights, test)["sparse_categorical_accuracy"])


def full(clients, steps=1):
    """Return what clients read for so many steps, each of all their data."""
    return [Dataset.from_batches([*data.batch(data.num_examples)] * steps, data.client_id) for data in clients]


def settle(process, cohort, rounds, optimum=None):
    """Run rounds until weights stand still; return them, and the distance to the optimum on the way."""
    state, way = process.initialize(), []
    for _ in range(rounds):
        before = state.global_model_weights
        if optimum is not None:
            way.append(analysis.distance_to_optimum(before, optimum))
        state, _ = process.next(state, cohort)
        moved = zip(before.trainable, state.global_model_weights.trainable, strict=True)
        if sum(np.abs(a - b).sum() for a, b in moved) < 1e-13:
            break
    return state.global_model_weights, way


def apart(a, b):
    """Return the l2 distance of two models."""
    return float(np.sqrt(sum(np.square(p - q).sum() for p, q in zip(a.trainable, b.trainable, strict=True))))


def rounds_to(target, process, cohort, test, longest):
    """Return rounds until an accuracy is reached on test images; `longest` if that is not enough."""
    state = process.initialize()
    for r in range(1, longest + 1):
        state, _ = process.next(state, cohort(r), iteration=r - 1)
        if accuracy(process.model, state, test) >= target:
            return r
    return longest


def heat(panel, values, texts, columns, rows, title):
    """Draw a table of rounds, on a logarithmic scale of colours."""
    values = np.log(values)
    panel.imshow(values, cmap="cividis_r", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value < values.mean() else "white"
        panel.text(column, row, texts[row][column], ha="center", va="center", fontsize=9, color=colour)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_title(title, fontsize=9)
