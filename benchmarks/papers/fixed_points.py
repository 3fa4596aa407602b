"""Where averaging settles, exactly: Pathak and Wainwright 2020, and Richardson-Romberg of Mangold et al. 2024.

usage: fixed_points.py [--json FILE] [--figure FILE] [--quick]

FedSplit, https://arxiv.org/abs/2005.05238: least squares, F_j(x) = |A_j x - b_j|^2 / (2 n_j) for m = 10 clients of 50
to 150 rows in R^10 (A_j of standard normals times a scale of the client's own, b_j = A_j x_j + noise / 2, x_j = x_0 +
a normal of the client's own), e deterministic steps of rate s = 0.05. FedGD(e) settles at
(sum p_j P_j Q_j)^-1 sum p_j P_j c_j and not at the optimum where e > 1; FedProx at another place.

Mangold et al., https://arxiv.org/abs/2412.01389: l2-logistic regression (2 classes, l2 = 0.1), ten clients, e = 10
steps of rate g: the fixed point w_g is off by a term in g, 2 w_g - w_2g by one in g^2.

Weights are in float64 (a model's first weights say so). Rounds go on until nothing moves any more.
"""

import _paper
import numpy as np

import fedsim_np as fed
from fedsim_np import analysis
from fedsim_np.datasets import Dataset
from fedsim_np.learning import models

RATE, MU, STEPS = 0.05, 1.0, (1, 10, 100)
RATES = tuple(0.1 / 2**i for i in range(6))


class InFloat64:
    """Trained in float64."""

    def initial_weights(self):
        """Return the model's own, wide."""
        weights = super().initial_weights()
        return weights._replace(trainable=tuple(w.astype(np.float64) for w in weights.trainable))


class Linear(InFloat64, models.LinearRegression):
    """Least squares."""


class Logistic(InFloat64, models.SoftmaxRegression):
    """Logistic regression, by two classes."""


def least_squares(seed, m):
    """Return the clients' data, (A_j, b_j) each."""
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


def least_squares_points(seed, m, all_steps, rounds):
    """Return errors against the closed forms, distances to the optimum, and the ways there."""
    model, data = Linear(10), full(least_squares(seed, m))
    optimum, sgd = analysis.minimize(model, data, tolerance=1e-11), fed.learning.optimizers.build_sgdm(RATE)
    own = analysis.minimize_each(model, data, tolerance=1e-11)
    shares = analysis.Objective.of(model, data).shares
    mean = optimum.weights._replace(
        trainable=tuple(np.tensordot(shares, w, 1) for w in zip(*(each.weights.trainable for each in own), strict=True))
    )
    rate = float(np.float32(RATE))  # as the optimizer has it
    found = {"errors": {}, "distances": {}, "ways": {}, "mean of local optima": apart(mean, optimum.weights)}
    for steps in all_steps:
        for name, mu in (("FedGD", 0.0), ("FedProx", MU)):
            process = fed.learning.build_weighted_fed_prox(model, mu, sgd)
            cohort = full(least_squares(seed, m), steps)
            # A round of one client's n rows counts e n examples: shares are those of the objective.
            weights, way = settle(process, cohort, rounds, optimum)
            expected = analysis.fed_prox_fixed_point(model, data, mu, rate, steps)
            key = f"{name}, e = {steps}"
            found["errors"][key] = apart(weights, expected)
            found["distances"][key] = analysis.distance_to_optimum(weights, optimum)
            found["ways"][key] = [float(f"{distance:.3g}") for distance in way[:150]]
    scaffold = fed.learning.build_scaffold(model, RATE, num_clients=m)
    weights, _ = settle(scaffold, full(least_squares(seed, m), 10), 4 * rounds)
    plain = analysis.minimize(model, data, tolerance=1e-11, client_weighting=fed.learning.ClientWeighting.UNIFORM)
    found["errors"]["SCAFFOLD, e = 10: the optimum itself"] = analysis.distance_to_optimum(weights, plain)
    return found


def richardson_romberg(seed, rates, rounds):
    """Return rate -> distance to the optimum of w_g and of 2 w_g - w_2g."""
    model, clients = Logistic(5, 2, "stable", l2=0.1), logistic(seed, 10)
    optimum, points = analysis.minimize(model, full(clients), tolerance=1e-11), {}
    for rate in (2 * rates[0], *rates):
        process = fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(rate))
        points[rate], _ = settle(process, full(clients, 10), rounds)
    found = {}
    for rate in rates:
        both = zip(points[rate].trainable, points[2 * rate].trainable, strict=True)
        combined = points[rate]._replace(trainable=tuple(2 * a - b for a, b in both))
        found[rate] = [analysis.distance_to_optimum(w, optimum) for w in (points[rate], combined)]
    return found


def slope(found, which):
    """Return the order in g of a distance, from the two smallest rates."""
    (a, of_a), (b, of_b) = list(found.items())[-2:]
    return float(np.log(of_a[which] / of_b[which]) / np.log(a / b))


def measure(quick):
    """Return the result."""
    seeds, m, steps, rounds, rates = (0, 1, 2), 10, STEPS, 2000, RATES
    if quick:
        seeds, m, steps, rounds, rates = (0,), 5, STEPS[:2], 500, RATES[:2]
    points = [least_squares_points(seed, m, steps, rounds) for seed in seeds]
    combined = [richardson_romberg(seed, rates, 10 * rounds) for seed in seeds]
    worst = max(max(of["errors"].values()) for of in points)
    gaps = {e: [of["distances"][f"FedGD, e = {e}"] for of in points] for e in steps}
    prox = [of["distances"][f"FedProx, e = {steps[-1]}"] for of in points]
    local, rates_gain = [of["mean of local optima"] for of in points], [of[rates[-1]] for of in combined]
    rising = all(np.diff([of["distances"][f"FedGD, e = {e}"] for e in steps]).min() > 0 for of in points)
    orders = [[slope(of, which) for of in combined] for which in (0, 1)]
    claims = [
        _paper.claim(
            "FedGD(e), FedProx and SCAFFOLD settle where algebra says, through rounds (ours: distance at most)",
            "closed form, to 1e-6",
            f"{worst:.0e}",
            worst < 1e-6,
        ),
        _paper.claim(
            f"e = {', '.join(map(str, steps))}: the distance to the optimum is 0 at 1 and rises towards that of the "
            f"mean of local optima ({_paper.spread(local)})",
            "0, rising",
            "; ".join(_paper.spread(gap) for gap in gaps.values()),
            rising and max(gaps[1]) < 1e-6 and max(a / b for a, b in zip(gaps[steps[-1]], local, strict=True)) < 1,
        ),
        _paper.claim(
            f"FedProx (mu = {MU:g}) has a fixed point of its own, not the optimum (distance, e = {steps[-1]})",
            "above 0",
            _paper.spread(prox),
            min(prox) > 1e-3,
        ),
        _paper.claim(
            "logistic regression: FedAvg's bias is of order 1 in the rate (order, from the smallest rates)",
            "1",
            _paper.spread(orders[0], 2),
            np.abs(np.array(orders[0]) - 1).max() < 0.1,
        ),
        _paper.claim(
            f"2 w_g - w_2g is of order 2 (and at g = {rates[-1]:g} so many times as near as w_g: "
            f"{_paper.spread([a / b for a, b in rates_gain], 0)})",
            "2",
            _paper.spread(orders[1], 2),
            np.abs(np.array(orders[1]) - 2).max() < 0.2,
        ),
    ]
    return {
        "paper": "Fixed points: Pathak and Wainwright 2020; Mangold et al. 2024",
        "seeds": seeds,
        "claims": claims,
        "least squares": points,
        "richardson-romberg": [{f"{rate:g}": pair for rate, pair in of.items()} for of in combined],
    }


def draw(result):
    """Draw the distance to the optimum over rounds, as FedSplit's figure 1, and over the rate."""
    figure, ((left, right),) = _paper.figure(1, 2)
    for key, way in result["least squares"][0]["ways"].items():
        left.semilogy(range(len(way)), way, label=key, linestyle="-" if "GD" in key else "--")
    left.set(xlabel="communication rounds", ylabel="distance to the optimum", xlim=(0, 150), title="least squares")
    left.legend(fontsize=7)
    for which, (name, mark) in enumerate((("w_g", "o"), ("2 w_g - w_2g", "s"))):
        for i, of in enumerate(result["richardson-romberg"]):
            rates = [float(rate) for rate in of]
            label = name if i == 0 else None
            right.loglog(rates, [pair[which] for pair in of.values()], f"C{which}{mark}-", label=label, alpha=0.7)
    right.set(xlabel="rate g", ylabel="distance to the optimum", title="logistic regression, e = 10")
    right.legend()
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
