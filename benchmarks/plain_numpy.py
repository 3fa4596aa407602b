"""The yardstick: federated averaging in plain NumPy, on ready arrays and orders. Usage: plain_numpy.py [--quick]."""

import sys
import time

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def train_client(kernel, bias, x, y, order, rate, batch):
    """Train on one client, metrics before each step; return update, examples, correct predictions, sum of losses."""
    w, b, correct, loss = kernel.copy(), bias.copy(), 0, 0.0
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        xb, yb, every = x[rows], y[rows], np.arange(len(rows))
        p = softmax(xb @ w + b)
        q = np.clip(p, 1e-7, 1 - 1e-7)
        loss += float((np.log(q.sum(axis=1)) - np.log(q[every, yb])).sum())
        correct += int((p.argmax(axis=1) == yb).sum())
        p[every, yb] -= 1
        p *= np.float32(rate / len(rows))
        w -= xb.T @ p
        b -= p.sum(axis=0)
    return kernel - w, bias - b, len(order), correct, loss


def round_of(kernel, bias, clients, orders, rate=0.02, batch=20):
    """Return the next weights, accuracy and loss."""
    results = [train_client(kernel, bias, x, y, o, rate, batch) for (x, y), o in zip(clients, orders, strict=True)]
    n = sum(r[2] for r in results)
    kernel, bias = (w - sum(r[i] * (r[2] / n) for r in results) for i, w in enumerate((kernel, bias)))
    return kernel, bias, sum(r[3] for r in results) / n, sum(r[4] for r in results) / n


def train_mlp(weights, x, y, order, rate, batch):
    """Train a perceptron (W_1, b_1, W_2, b_2, ...) with ReLU on one client; return what `train_client` returns."""
    local, correct, loss = [w.copy() for w in weights], 0, 0.0
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        yb, every, inputs = y[rows], np.arange(len(rows)), [x[rows]]
        for w, b in zip(local[:-2:2], local[1:-2:2], strict=True):
            inputs.append(np.maximum(inputs[-1] @ w + b, 0))
        p = softmax(inputs[-1] @ local[-2] + local[-1])
        q = np.clip(p, 1e-7, 1 - 1e-7)
        loss += float((np.log(q.sum(axis=1)) - np.log(q[every, yb])).sum())
        correct += int((p.argmax(axis=1) == yb).sum())
        p[every, yb] -= 1
        p *= np.float32(rate / len(rows))
        for layer in reversed(range(len(inputs))):
            before = (p @ local[2 * layer].T) * (inputs[layer] > 0) if layer else None
            local[2 * layer] -= inputs[layer].T @ p
            local[2 * layer + 1] -= p.sum(axis=0)
            p = before
    return [w0 - w for w0, w in zip(weights, local, strict=True)], len(order), correct, loss


def mlp_round(weights, clients, orders, rate=0.02, batch=20):
    """Return the next weights of a perceptron, accuracy and loss."""
    results = [train_mlp(weights, x, y, o, rate, batch) for (x, y), o in zip(clients, orders, strict=True)]
    n = sum(r[1] for r in results)
    weights = [w - sum(r[0][i] * (r[1] / n) for r in results) for i, w in enumerate(weights)]
    return weights, sum(r[2] for r in results) / n, sum(r[3] for r in results) / n


def evaluate(kernel, bias, clients, batch=20):
    """Return accuracy and loss."""
    n, correct, loss = 0, 0, 0.0
    for x, y in clients:
        for start in range(0, len(x), batch):
            xb, yb = x[start : start + batch], y[start : start + batch]
            p = np.clip(softmax(xb @ kernel + bias), 1e-7, 1 - 1e-7)
            loss += float((np.log(p.sum(axis=1)) - np.log(p[np.arange(len(yb)), yb])).sum())
            correct, n = correct + int((p.argmax(axis=1) == yb).sum()), n + len(yb)
    return correct / n, loss / n


if __name__ == "__main__":
    if "--help" in sys.argv:
        sys.exit(__doc__)
    rng, rounds = np.random.default_rng(0), 3 if "--quick" in sys.argv else 50
    data = [(rng.random((100, 784), np.float32), rng.integers(0, 10, 100)) for _ in range(10)]
    k, b, begin = np.zeros((784, 10), np.float32), np.zeros(10, np.float32), time.perf_counter()
    for _ in range(rounds):
        k, b, *_ = round_of(k, b, data, [rng.permutation(500) % 100 for _ in data])
    print(f"10 clients x 5 epochs: {(time.perf_counter() - begin) / rounds * 1e3:.1f} ms a round")
