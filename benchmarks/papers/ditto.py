"""Ditto, Li et al. 2021: point estimation, in closed form, and the best lambda.

usage: ditto.py [--json FILE] [--figure FILE] [--quick]

https://arxiv.org/abs/2012.04221, section 3.3: K = 10 devices, w_k ~ N(theta, tau^2), n = 5 examples each, of
N(w_k, sigma^2), sigma = 1, mean w^_k. Ditto's personal model is (lambda mean + w^_k) / (1 + lambda), the mean that of
all w^_k. The best lambda over benign devices, where K_a others are adversaries with w_k ~ N(theta, tau_a^2), is
(sigma^2 / n) K / (K tau^2 + K_a (tau_a^2 - tau^2) / (K - 1)); here K_a = 0 or 2, tau_a = 3. The problem in 2,000
dimensions is 2,000 draws of it, anew for each seed; lambdas are on a grid, each 3.7 % above the one before.
"""

import _paper
import _shared
import numpy as np

import fedsim_np as fed
from fedsim_np.datasets import Dataset
from fedsim_np.learning import optimizers

SEEDS, K, N, SIGMA, TAUS, TAU_A, ADVERSARIES = (0, 1, 2), 10, 5, 1.0, (0.2, 0.5, 1.0), 3.0, 2
LAMBDAS = tuple(float(f"{10**e:.4g}") for e in np.arange(-2, 2, 1 / 64))


def draws(seed, tau, adversaries, d):
    """Return w_k (K, d) and the examples (K, n, d); adversaries come last."""
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(K) < K - adversaries, tau, TAU_A)[:, np.newaxis]
    w = spread * rng.standard_normal((K, d))
    return w, (w[:, np.newaxis] + SIGMA * rng.standard_normal((K, N, d))).astype(np.float32)


def error_through_rounds(seed, strength, d):
    """Return how far Ditto's personal models, after rounds, are from the closed form, at most."""
    _, examples = draws(seed, 0.5, 0, d)
    sgd = optimizers.build_sgdm(0.2 / (1 + strength))
    process = fed.learning.build_ditto(_shared.Linear(1, d), optimizers.build_sgdm(0.2), sgd, strength, num_clients=K)
    x = np.zeros((N, 1), np.float32)
    cohort = [Dataset.from_batches([{"x": x, "y": y}] * 20, str(k)) for k, y in enumerate(examples)]
    state = process.initialize()
    for _ in range(40):
        state, _ = process.next(state, cohort)
    own = examples.astype(np.float64).mean(axis=1)
    expected = (strength * own.mean(axis=0) + own) / (1 + strength)
    found = [fed.learning.personal_weights(state, str(k)).trainable[1] for k in range(K)]
    return float(np.abs(np.array(found) - expected).max())


def errors(seed, tau, adversaries, d):
    """Return the benign devices' mean squared error at each lambda, by the closed form."""
    w, examples = draws(seed, tau, adversaries, d)
    own, benign = examples.astype(np.float64).mean(axis=1), K - adversaries
    models = ((strength * own.mean(axis=0) + own) / (1 + strength) for strength in LAMBDAS)
    return [float(f"{np.square(model - w)[:benign].mean():.5g}") for model in models]


def measure(quick):
    """Return the result."""
    seeds, d = (SEEDS[:1], 20) if quick else (SEEDS, 2000)
    through = [error_through_rounds(seed, strength, 10) for seed in seeds for strength in (0.1, 1.0, 10.0)]
    curves = {
        f"{adversaries} adversaries, tau = {tau:g}": [errors(seed, tau, adversaries, d) for seed in seeds]
        for adversaries in (0, ADVERSARIES)
        for tau in TAUS
    }
    best = {name: [LAMBDAS[int(np.argmin(curve))] for curve in of] for name, of in curves.items()}
    theory = {
        f"{a} adversaries, tau = {tau:g}": SIGMA**2 / N * K / (K * tau**2 + a * (TAU_A**2 - tau**2) / (K - 1))
        for a in (0, ADVERSARIES)
        for tau in TAUS
    }
    claims = [
        _paper.claim(
            "the personal models of rounds are (lambda mean + w_k) / (1 + lambda) (largest error)",
            "closed form",
            f"{max(through):.0e}",
            max(through) < 1e-6,
        ),
        *(
            _paper.claim(
                f"the best lambda, {name}, to 10 %",
                f"{theory[name]:.3f}",
                _paper.spread(values),
                [abs(value / theory[name] - 1) < 0.1 for value in values],
            )
            for name, values in best.items()
        ),
    ]
    return {"paper": "Ditto: Li et al. 2021", "seeds": seeds, "claims": claims, "squared errors": curves}


def draw(result):
    """Draw the error over lambda, as the paper's figure 2."""
    figure, (panels,) = _paper.figure(1, 2)
    for panel, adversaries in zip(panels, (0, ADVERSARIES), strict=True):
        for tau in TAUS:
            curve = np.mean(result["squared errors"][f"{adversaries} adversaries, tau = {tau:g}"], axis=0)
            (line,) = panel.loglog(LAMBDAS, curve, label=f"tau = {tau:g}")
            at = int(np.argmin(curve))
            panel.plot(LAMBDAS[at], curve[at], "o", color=line.get_color())
        panel.set(xlabel="lambda", ylabel="mean squared error", title=f"{adversaries} of {K} adversaries")
        panel.legend()
    return figure


if __name__ == "__main__":
    _paper.main(__doc__, measure, draw)
