"""What is kept between rounds, of data that change: crafted rows, rows and labels that are changed in place."""

import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset

L, SGDM = fed.learning, fed.learning.optimizers.build_sgdm


def huge_rows(seed):
    """Return the engines that differ from the loop in who counts; and those whose weights are far off, by how much."""
    rng = np.random.default_rng(seed)
    (n, d), c, top = rng.integers(1, 12, 2), int(rng.integers(2, 5)), rng.uniform(-5, 37.5)
    x = rng.standard_normal((n, d)).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        x *= np.float32(10**top)
    elif kind == 1:
        x[rng.integers(n), rng.integers(d)] = np.float32(10**top)
    else:
        x *= np.float32(10.0) ** rng.uniform(-10, top, [(n, 1), (1, d)][kind - 2]).astype(np.float32)
    y, b, rate = rng.integers(0, c, (n, 1), np.int32), int(rng.integers(1, 6)), float(10 ** rng.uniform(-6, 1))
    loss, l2 = ["keras", "stable", "tutorial"][rng.integers(3)], [0.0, 0.1][rng.integers(2)]
    optimizer = [SGDM(rate), SGDM(rate, 0.9), SGDM(rate, 0.5, nesterov=True)][rng.integers(3)]
    proximal, epochs = rng.random() < 0.3, int(rng.integers(1, 5))

    def run(engine):
        model = L.models.SoftmaxRegression(int(d), c, loss, l2)
        if proximal:
            process = L.build_weighted_fed_prox(model, 0.7, optimizer, engine=engine)
        else:
            process = L.build_weighted_fed_avg(model, optimizer, engine=engine)
        fine = {"x": np.ones((4, d), np.float32), "y": np.zeros((4, 1), np.int32)}
        cohort = [
            Dataset.from_arrays(data, name).repeat(epochs).shuffle(5, seed=1).batch(b)
            for name, data in (("huge", {"x": x, "y": y}), ("fine", fine))
        ]
        return process.next(process.initialize(), cohort)

    expected, bad = run("loop"), {}
    of_loop = np.concatenate([w.ravel() for w in expected.state.global_model_weights.trainable])
    for engine in ("cohort", "gram", "presorted", "auto"):
        got = run(engine)
        if got.clients["status"] != expected.clients["status"]:
            bad[engine] = "status"
            continue
        weights = np.concatenate([w.ravel() for w in got.state.global_model_weights.trainable])
        off = float(np.abs(weights - of_loop).max() / max(1e-30, np.abs(of_loop).max()))
        if off > 1e-3:
            bad[engine] = off
    return bad


def rows_of_one_projection(seed):
    """Return the losses with and without a cache, if they differ."""
    rng = np.random.default_rng(seed)
    a, b = np.random.default_rng([2]).standard_normal(2, np.float32)  # what rows were known by
    first = np.float32(3 + rng.integers(0, 1000, 400) / 64)
    second = np.float32(first * a / b)
    same = np.flatnonzero(first * a == second * b)[:4]
    nothing = np.zeros(4, np.float32)
    one, other = np.stack([first[same], nothing], 1), np.stack([nothing, second[same]], 1)

    def loss(cache_bytes):
        x = one.copy()
        make = lambda: [Dataset.from_arrays({"x": x, "y": np.int32([[0], [1], [2], [0]])}, "a").repeat(5).batch(2)]  # noqa: E731
        model = L.models.SoftmaxRegression(2, 3)
        process = L.build_weighted_fed_avg(model, SGDM(1.0), engine="gram", cache_bytes=cache_bytes)
        state = process.initialize()
        for _ in range(3):
            process.next(state, make())
        x[:] = other
        return process.next(state, make()).metrics["client_work"]["train"]["loss"]

    found = loss(2**28), loss(0)
    return {} if found[0] == found[1] else {"losses": found}


def changed_at_random(seed):
    """Return the rounds in which what is kept changed a bit."""
    rng = np.random.default_rng(seed)
    engine = ["gram", "presorted", "cohort"][seed % 3]
    kept, fresh = (
        L.build_weighted_fed_avg(L.models.SoftmaxRegression(3, 3), SGDM(0.1), engine=engine, cache_bytes=cache_bytes)
        for cache_bytes in (2**28, 0)
    )
    x = rng.standard_normal((12, 3)).astype(np.float32)
    y = rng.integers(0, 3, (12, 1)).astype([np.int8, np.int32, np.int64, np.uint16][seed % 4])
    make = lambda: [Dataset.from_arrays({"x": x, "y": y}, "a").repeat(2).batch(5)]  # noqa: E731
    older, cohort, state, bad = x[:], make(), kept.initialize(), {}
    for round_num in range(8):
        change = rng.integers(5)
        if change == 0:  # whatever the flag says
            older[rng.integers(12), rng.integers(3)] += 1
        elif change == 1:
            y[rng.integers(12)] = rng.integers(3)
        elif change == 2:
            x.flags.writeable = not x.flags.writeable
        elif change == 3:
            cohort = make()
        got, expected = kept.next(state, cohort), fresh.next(state, make())
        same = [
            a.tobytes() == b.tobytes()
            for a, b in zip(*(o.state.global_model_weights.trainable for o in (got, expected)), strict=True)
        ]
        if not all(same) or got.metrics != expected.metrics:
            bad[round_num] = int(change)
        state = got.state
    return bad


def kept_rows(folder, quick):
    """Compare what is kept with nothing kept, to the bit; and engines with the loop on rows of any size."""
    del folder
    count = 10 if quick else 500
    found = {}
    with np.errstate(all="ignore"):
        for attack in (huge_rows, rows_of_one_projection, changed_at_random):
            found[attack.__name__] = {seed: bad for seed in range(count) if (bad := attack(seed))}
    return {
        "seeds": count,
        "came through": [f"{name} {seed}: {bad}" for name, of in found.items() for seed, bad in of.items()],
    }
