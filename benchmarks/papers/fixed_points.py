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
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np import analysis

RATE, MU, STEPS = 0.05, 1.0, (1, 10, 100)
RATES = tuple(0.1 / 2**i for i in range(6))
CLAIMS = (
    ("FedGD(e), FedProx and SCAFFOLD settle where algebra says, through rounds (distance at most)", "to 1e-6"),
    ("e = 1, 10, 100: the distance to the optimum is 0 at 1 and rises towards the local optima's mean's", "0, rising"),
    ("FedProx (mu = 1) has a fixed point of its own, not the optimum (distance, e = 100)", "above 0"),
    ("logistic regression: FedAvg's bias is of order 1 in the rate (order to 0.1, from the smallest rates)", "1"),
    ("2 w_g - w_2g is of order 2 (order to 0.2, and at the smallest rate so many times as near as w_g)", "2"),
)


def least_squares_points(seed, m, all_steps, rounds):
    """Return errors against the closed forms, distances to the optimum, and the ways there."""
    model, clients = _shared.Linear(10), _shared.least_squares(seed, m)
    data = _shared.full(clients)
    optimum, sgd = analysis.minimize(model, data, tolerance=1e-11), fed.learning.optimizers.build_sgdm(RATE)
    own = analysis.minimize_each(model, data, tolerance=1e-11)
    shares = analysis.Objective.of(model, data).shares
    tensors = zip(*(each.weights.trainable for each in own), strict=True)
    mean = optimum.weights._replace(trainable=tuple(np.tensordot(shares, w, 1) for w in tensors))
    rate = float(np.float32(RATE))  # as the optimizer has it
    found = {"errors": {}, "distances": {}, "ways": {}, "mean of local optima": _shared.apart(mean, optimum.weights)}
    for steps in all_steps:
        for name, mu in (("FedGD", 0.0), ("FedProx", MU)):
            process, cohort = fed.learning.build_weighted_fed_prox(model, mu, sgd), _shared.full(clients, steps)
            # A round of one client's n rows counts e n examples: shares are those of the objective.
            weights, way = _shared.settle(process, cohort, rounds, optimum)
            expected = analysis.fed_prox_fixed_point(model, data, mu, rate, steps)
            key = f"{name}, e = {steps}"
            found["errors"][key] = _shared.apart(weights, expected)
            found["distances"][key] = analysis.distance_to_optimum(weights, optimum)
            found["ways"][key] = [float(f"{distance:.3g}") for distance in way[:150]]
    scaffold = fed.learning.build_scaffold(model, RATE, num_clients=m)
    weights, _ = _shared.settle(scaffold, _shared.full(clients, 10), 4 * rounds)
    plain = analysis.minimize(model, data, tolerance=1e-11, client_weighting=fed.learning.ClientWeighting.UNIFORM)
    found["errors"]["SCAFFOLD, e = 10: the optimum itself"] = analysis.distance_to_optimum(weights, plain)
    return found


def richardson_romberg(seed, rates, rounds):
    """Return rate -> distance to the optimum of w_g and of 2 w_g - w_2g."""
    model, clients = _shared.Logistic(5, 2, "stable", l2=0.1), _shared.logistic(seed, 10)
    optimum, points = analysis.minimize(model, _shared.full(clients), tolerance=1e-11), {}
    for rate in (2 * rates[0], *rates):
        process = fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(rate))
        points[rate], _ = _shared.settle(process, _shared.full(clients, 10), rounds)
    found = {}
    for rate in rates:
        both = zip(points[rate].trainable, points[2 * rate].trainable, strict=True)
        combined = points[rate]._replace(trainable=tuple(2 * a - b for a, b in both))
        found[f"{rate:g}"] = [analysis.distance_to_optimum(w, optimum) for w in (points[rate], combined)]
    return found


def measure(quick):
    """Return the result."""
    seeds, m, steps, rounds, rates = (0, 1, 2), 10, STEPS, 2000, RATES
    if quick:
        seeds, m, steps, rounds, rates = (0,), 5, STEPS[:2], 300, RATES[:2]
    points = [least_squares_points(seed, m, steps, rounds) for seed in seeds]
    combined = [richardson_romberg(seed, rates, 10 * rounds) for seed in seeds]
    return {
        "paper": "Fixed points: Pathak and Wainwright 2020; Mangold et al. 2024",
        "seeds": seeds,
        "claims": claims_of(points, combined, steps),
        "least squares": points,
        "richardson-romberg": combined,
    }


def claims_of(points, combined, steps):
    """Return the claims."""
    worst = max(max(of["errors"].values()) for of in points)
    gaps = [[of["distances"][f"FedGD, e = {e}"] for e in steps] for of in points]
    prox = [of["distances"][f"FedProx, e = {steps[-1]}"] for of in points]
    local = [of["mean of local optima"] for of in points]
    rising = [a[0] < 1e-6 and np.diff(a).min() > 0 and a[-1] < mean for a, mean in zip(gaps, local, strict=True)]
    smallest = np.array([[*of.values()][-2:] for of in combined])  # (seeds, 2 rates, 2 points)
    orders = np.log2(smallest[:, 0] / smallest[:, 1]).T
    nearer = _paper.spread(smallest[:, 1, 0] / smallest[:, 1, 1], 0)
    distances = "; ".join(map(_paper.spread, np.transpose(gaps)))
    ours = (
        (f"{worst:.0e}", worst < 1e-6),
        (f"{distances}; the mean's {_paper.spread(local)}", rising),
        (_paper.spread(prox), np.array(prox) > 1e-3),
        (_paper.spread(orders[0], 2), np.abs(orders[0] - 1) < 0.1),
        (f"{_paper.spread(orders[1], 2)}; {nearer}", np.abs(orders[1] - 2) < 0.2),
    )
    return [_paper.claim(*one, *of) for one, of in zip(CLAIMS, ours, strict=True)]


def draw(result):
    """Draw the distance to the optimum over rounds, as FedSplit's figure 1, and over the rate."""
    figure, ((left, right),) = _paper.figure(1, 2)
    for key, way in result["least squares"][0]["ways"].items():
        left.semilogy(range(len(way)), way, label=key, linestyle="-" if "GD" in key else "--")
    left.set(xlabel="communication rounds", ylabel="distance to the optimum", xlim=(0, 150), title="least squares")
    left.legend(fontsize=7)
    for which, (name, mark) in enumerate((("w_g", "o"), ("2 w_g - w_2g", "s"))):
        for i, of in enumerate(result["richardson-romberg"]):
            distances, label = [pair[which] for pair in of.values()], None if i else name
            right.loglog([*map(float, of)], distances, f"C{which}{mark}-", label=label, alpha=0.7)
    right.set(xlabel="rate g", ylabel="distance to the optimum", title="logistic regression, e = 10")
    right.legend()
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
