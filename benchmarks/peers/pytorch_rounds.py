"""Federated averaging as a plain PyTorch loop; see README.md."""

import copy

import torch
from peers import BATCH, RATE, load, report

torch.set_num_threads(1)
CLIENTS = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in load()]
LOSS = torch.nn.CrossEntropyLoss()


def round_of(model, clients, epochs):
    """Train on the clients, average by examples."""
    total, sums = 0, [torch.zeros_like(p) for p in model.parameters()]
    for x, y in clients:
        local = copy.deepcopy(model)
        optimizer = torch.optim.SGD(local.parameters(), lr=RATE)
        order = torch.randperm(len(x) * epochs) % len(x)
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            logits = local(x[rows])
            LOSS(logits, y[rows]).backward()
            (logits.argmax(1) == y[rows]).sum()
            optimizer.step()
        total += len(order)
        for s, p in zip(sums, local.parameters(), strict=True):
            s.add_(p.detach(), alpha=len(order))
    averaged = copy.deepcopy(model)
    with torch.no_grad():
        for p, s in zip(averaged.parameters(), sums, strict=True):
            p.copy_(s / total)
    return averaged


def evaluate(model, clients):
    """Return accuracy and loss."""
    n, correct, loss = 0, 0, 0.0
    with torch.no_grad():
        for x, y in clients:
            for xb, yb in zip(x.split(BATCH), y.split(BATCH), strict=True):
                logits = model(xb)
                loss += float(LOSS(logits, yb)) * len(yb)
                correct, n = correct + int((logits.argmax(1) == yb).sum()), n + len(yb)
    return correct / n, loss / n


if __name__ == "__main__":
    start = torch.nn.Linear(784, 10)
    report(
        "torch",
        {
            "tutorial": lambda: round_of(start, CLIENTS[:10], 5),
            "wide": lambda: round_of(start, CLIENTS[:100], 1),
            "evaluation": lambda: evaluate(start, CLIENTS),
        },
    )
