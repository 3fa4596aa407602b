"""200 rounds in PyTorch, start to end: one client after the other, kept in memory once read; see README.md."""

import torch
from peers import BATCH, RATE, drawn, read_and_kept, report_run

LOSS = torch.nn.CrossEntropyLoss()


def train(model, optimizer, x, y):
    """Train for an epoch in a new order; return the sum of losses and the correct predictions, before each step."""
    order, loss_sum, correct = torch.randperm(len(x)), 0, 0
    for xb, yb in zip(x[order].split(BATCH), y[order].split(BATCH), strict=True):
        optimizer.zero_grad()
        logits = model(xb)
        loss = LOSS(logits, yb)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(yb)
        correct += (logits.argmax(1) == yb).sum()
    return loss_sum, correct


def run(path, rounds, clients):
    """Return the last model's loss and accuracy on the last clients."""
    torch.set_num_threads(1)  # two are slower: the matrices are small
    ids, client = read_and_kept(path, lambda x, y: (torch.from_numpy(x.reshape(-1, 784)), torch.from_numpy(y)))
    model, local = torch.nn.Linear(784, 10), torch.nn.Linear(784, 10)
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    optimizer = torch.optim.SGD(local.parameters(), lr=RATE)
    for cohort in drawn(ids, rounds, clients):
        sums, total, loss, correct = [torch.zeros_like(p) for p in model.parameters()], 0, 0, 0
        for x, y in map(client, cohort):
            local.load_state_dict(model.state_dict())
            of_client = train(local, optimizer, x, y)
            loss, correct, total = loss + of_client[0], correct + of_client[1], total + len(x)
            for s, p in zip(sums, local.parameters(), strict=True):
                s.add_(p.detach(), alpha=len(x))
        with torch.no_grad():
            for p, s in zip(model.parameters(), sums, strict=True):
                p.copy_(s / total)
    with torch.no_grad():
        x, y = map(torch.cat, zip(*map(client, cohort), strict=True))
        logits = model(x)
        return LOSS(logits, y), (logits.argmax(1) == y).float().mean()


if __name__ == "__main__":
    report_run(["torch", "numpy", "h5py"], run)
