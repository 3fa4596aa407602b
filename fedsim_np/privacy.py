r"""What noise on the clients' updates promises: the (epsilon, delta) of differential privacy.

Whoever sees all models of a run cannot tell whether a client took part, but by a factor of :math:`e^\varepsilon` and
but for a probability of :math:`\delta`:

.. math:: P(\text{run with the client}) \le e^\varepsilon P(\text{run without}) + \delta

That holds for each client, with all its examples, where each round adds up updates of norm at most C and noise of
standard deviation :math:`z C` (``DifferentiallyPrivateFactory``), and where clients are drawn as `Sampling` says and
nobody learns who was. It is about the models alone: training metrics, ``clients.csv`` and the zeroing of
``dp_aggregator`` have no noise. And a simulation keeps no secret: it holds all data, and whoever knows the seed can
take the noise off again. What is computed here is what a deployment with true randomness would promise, and numbers
that are not rounded: whoever knows how floats are drawn may learn more (Mironov 2012).

====================  =============================================  ==========================================
sampling              how clients are drawn                          neighbours, which shall not be told apart
====================  =============================================  ==========================================
``"poisson"``         each by itself, with probability k / N         one client added or removed
``"fixed_size"``      k of N without replacement                     one client replaced by another
``"none"``            all of them, in every round                    one client added or removed
====================  =============================================  ==========================================

The accountant ``"rdp"`` adds up Renyi divergences of many orders (Mironov 2017), and is computed here; ``"pld"``, the
distribution of the privacy loss, is tighter and needs the extra ``privacy`` (Google's dp-accounting).

References
----------
I. Mironov, "On significance of the least significant bits for differential privacy", CCS 2012

I. Mironov, K. Talwar, L. Zhang, "Renyi differential privacy of the sampled Gaussian mechanism", 2019,
https://arxiv.org/abs/1908.10530 (``"poisson"``)

Y.-X. Wang, B. Balle, S. Kasiviswanathan, "Subsampled Renyi differential privacy and analytical moments accountant",
AISTATS 2019, https://arxiv.org/abs/1808.00087 (``"fixed_size"``)

C. Canonne, G. Kamath, T. Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020,
https://arxiv.org/abs/2004.00010 (from divergences to epsilon: proposition 12)
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fedsim_np.errors import argument_error, check_float, check_int, unknown_name
from fedsim_np.trees import Array

Sampling = Literal["poisson", "fixed_size", "none"]
Accountant = Literal["rdp", "pld"]

# dp-accounting's.
_ORDERS = np.array([*(1 + np.arange(1, 100) / 10), *range(11, 64), 128, 256, 512, 1024])
_LEAST_NOISE = 0.01  # of a sampled Gaussian: below, sampling is as good as none
_NEIGHBOURS = {
    "poisson": "one client added or removed",
    "fixed_size": "one client replaced",
    "none": "one client added or removed",
}


def epsilon(
    noise_multiplier: float,
    rounds: int,
    delta: float,
    *,
    population: int | None = None,
    clients_per_round: float | None = None,
    sampling: Sampling = "poisson",
    accountant: Accountant = "rdp",
) -> float:
    r"""Return the :math:`\varepsilon` that so many rounds with noise promise each client.

    Parameters
    ----------
    noise_multiplier : float
        z: the noise's standard deviation over the clip; 0 promises nothing, and epsilon is infinite.
    rounds : int
    delta : float
        In (0, 1); less than 1 / `population` is usual.
    population : int
        N clients to draw from; not needed with ``sampling="none"``.
    clients_per_round : float
        k of them, for ``"poisson"`` on average.
    sampling : {"poisson", "fixed_size", "none"}
        How they are drawn, and with that who the neighbours are: see the table above.
    accountant : {"rdp", "pld"}
        ``"pld"`` knows no ``"fixed_size"``.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of range, or the accountant does not know the sampling.
    ImportError
        If ``"pld"`` is asked for and dp-accounting is not installed.

    Examples
    --------
    >>> round(epsilon(1.0, 200, 1 / 3383, population=3383, clients_per_round=100), 4)
    2.4106
    >>> round(epsilon(1.0, 1, 1e-5, sampling="none"), 4)
    4.7285
    """
    rate = _checked(noise_multiplier, delta, population, clients_per_round, sampling, accountant)
    return _epsilon(float(noise_multiplier), check_int("rounds", rounds, minimum=0), delta, rate, sampling, accountant)


def noise_multiplier(
    epsilon: float,
    rounds: int,
    delta: float,
    *,
    population: int | None = None,
    clients_per_round: float | None = None,
    sampling: Sampling = "poisson",
    accountant: Accountant = "rdp",
) -> float:
    r"""Return the least noise that promises :math:`\varepsilon`: the inverse of `epsilon`, to 1e-7 of itself.

    Parameters
    ----------
    epsilon : float
        > 0.
    rounds, delta, population, clients_per_round, sampling, accountant
        As for `epsilon`; `rounds` is at least 1.

    Returns
    -------
    float
        z; the epsilon of it is not above the one that is asked for.

    Examples
    --------
    >>> round(noise_multiplier(1.0, 1, 1e-5, sampling="none"), 4)
    4.0454
    """
    if check_float("epsilon", epsilon, minimum=0.0) == 0:
        raise argument_error("epsilon", "a finite float > 0", epsilon)
    check_int("rounds", rounds, minimum=1)
    rate = _checked(1.0, delta, population, clients_per_round, sampling, accountant)

    def of_noise(z: float) -> float:
        return _epsilon(z, rounds, delta, rate, sampling, accountant)

    enough = 1.0
    while of_noise(enough) > epsilon:
        enough *= 2
    little = enough / 2
    while of_noise(little) <= epsilon:
        enough, little = little, little / 2
    while enough - little > 1e-7 * enough:
        middle = (enough + little) / 2
        if of_noise(middle) <= epsilon:
            enough = middle
        else:
            little = middle
    return enough


@dataclass(frozen=True)
class Guarantee:
    """What a run with noise promises after each of its rounds, to be told beside its metrics.

    Parameters
    ----------
    noise_multiplier, delta, population, clients_per_round, sampling, accountant
        As for `epsilon`.
    sampled : {"poisson", "fixed_size", "none"}, optional
        How the run itself draws its clients, if that is not `sampling`: it is said then that the figure is not the
        run's own.
    doubts : tuple of str
        What else is in the run that the figure knows nothing of, to be said with it.

    Examples
    --------
    >>> guarantee = Guarantee(1.0, 1e-5, population=1000, clients_per_round=10, sampled="fixed_size")
    >>> promised = guarantee.after(100)
    >>> round(promised["epsilon"], 4), promised["meaning"]
    (1.2141, 'delta 1e-05; sampling: poisson; neighbours: one client added or removed; accountant: rdp; the run itself
    samples fixed_size, for which this does not hold')
    """

    noise_multiplier: float
    delta: float
    population: int | None = None
    clients_per_round: float | None = None
    sampling: Sampling = "poisson"
    accountant: Accountant = "rdp"
    sampled: Sampling | None = None
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the arguments."""
        _checked(
            self.noise_multiplier, self.delta, self.population, self.clients_per_round, self.sampling, self.accountant
        )
        if self.sampled is not None and self.sampled not in get_args(Sampling):
            raise unknown_name("sampled", get_args(Sampling), self.sampled)

    def after(self, rounds: int) -> OrderedDict[str, Any]:
        """Return ``epsilon`` after so many rounds, and its ``meaning``: delta, sampling, neighbours, accountant."""
        reached = epsilon(
            self.noise_multiplier,
            rounds,
            self.delta,
            population=self.population,
            clients_per_round=self.clients_per_round,
            sampling=self.sampling,
            accountant=self.accountant,
        )
        meaning = f"delta {self.delta:.4g}; sampling: {self.sampling}; neighbours: {_NEIGHBOURS[self.sampling]}; "
        meaning += f"accountant: {self.accountant}"
        if self.sampled not in (None, self.sampling):
            meaning += f"; the run itself samples {self.sampled}, for which this does not hold"
        return OrderedDict(epsilon=reached, meaning="; ".join([meaning, *self.doubts]))


def _checked(
    noise: float, delta: float, population: int | None, clients: float | None, sampling: str, accountant: str
) -> float:
    """Check arguments; return the share of the population that a round is drawn from."""
    check_float("noise_multiplier", noise, minimum=0.0)
    if check_float("delta", delta, minimum=0.0, below=1.0) == 0:
        raise argument_error("delta", "a float in (0, 1)", delta)
    for name, value, kinds in (("sampling", sampling, Sampling), ("accountant", accountant, Accountant)):
        if value not in get_args(kinds):
            raise unknown_name(name, get_args(kinds), value)
    if accountant == "pld" and sampling == "fixed_size":
        raise argument_error("accountant", "'rdp' for sampling='fixed_size'", accountant)
    if sampling == "none":
        return 1.0
    count = check_int("population", population, minimum=1)
    drawn = check_float("clients_per_round", clients, minimum=0.0)
    if not 0 < drawn <= count:
        raise argument_error("clients_per_round", f"> 0 and at most the population of {count}", clients)
    return drawn / count


def _epsilon(z: float, rounds: int, delta: float, rate: float, sampling: Sampling, accountant: Accountant) -> float:
    if rounds == 0:
        return 0.0
    if z < 1e-150:  # whose square is too small for a float
        return math.inf
    z = min(z, 1e150)
    if accountant == "pld":
        return _pld_epsilon(z, rounds, delta, rate)
    return _rdp_epsilon(rounds * np.array(_divergences(z, rate, sampling)), delta)


def _rdp_epsilon(divergences: Array, delta: float) -> float:
    """Return the least epsilon over the orders: Canonne et al., proposition 12."""
    if np.any(-np.expm1(-divergences) < delta**2):  # by Kullback and Leibler's divergence, which is no larger
        return 0.0
    a = _ORDERS
    return max(0.0, float(np.min(divergences + np.log1p(-1 / a) - np.log(delta * a) / (a - 1))))


@functools.lru_cache(maxsize=64)
def _divergences(noise: float, rate: float, sampling: Sampling) -> tuple[float, ...]:
    """Return a round's Renyi divergence at every order."""
    # Adding a client moves the sum by the clip, replacing one by twice the clip.
    sigma = noise / 2 if sampling == "fixed_size" else noise
    if rate == 1 or sigma < _LEAST_NOISE:
        return tuple((_ORDERS / (2 * sigma**2)).tolist())
    log_moments = _fixed_size(sigma, rate) if sampling == "fixed_size" else _poisson(sigma, rate)
    return tuple((np.maximum(log_moments, 0) / (_ORDERS - 1)).tolist())


def _poisson(sigma: float, rate: float) -> Array:
    r"""Return :math:`\log E[(1 - q + q e^w)^\alpha]` at every order: Mironov et al., equation (3).

    w is the log of the density of N(1, sigma^2) over that of N(0, sigma^2).
    """

    def log_ratio(w: Array) -> Array:
        mixed: Array = np.logaddexp(math.log1p(-rate), math.log(rate) + w)
        return mixed

    return np.array([_log_mean(log_ratio, a, sigma) for a in _ORDERS])


def _fixed_size(sigma: float, rate: float) -> Array:
    r"""Return a bound on the log moment at every order: Wang et al., theorem 27.

    .. math:: 1 + \sum_{i=2}^\alpha \binom{\alpha}{i} q^i
        \min\left(4 \sqrt{B_{2 \lfloor i/2 \rfloor} B_{2 \lceil i/2 \rceil}}, 2 e^{i (i-1) / 2 \sigma^2}\right)

    with :math:`B_l = E[(e^w - 1)^l]`; the log is interpolated between whole orders (corollary 10). As in dp-accounting,
    orders above 256 have the second bound alone.
    """
    most = 256

    def log_distance(w: Array) -> Array:
        with np.errstate(divide="ignore"):
            distance: Array = np.maximum(w, 0) + np.log(-np.expm1(-np.abs(w)))
        return distance

    b = {ell: _log_mean(log_distance, ell, sigma) for ell in range(2, most + 1, 2)}
    i = np.arange(2, int(_ORDERS[-1]) + 1)
    second = math.log(2) + i * (i - 1) / (2 * sigma**2)
    bounds = second.copy()
    pairs = [0.5 * (b[j - j % 2] + b[j + j % 2]) for j in range(2, most + 1)]
    bounds[: len(pairs)] = np.minimum(math.log(4) + np.array(pairs), bounds[: len(pairs)])
    log_factorials = np.concatenate([[0.0, 0.0], np.cumsum(np.log(i))])
    whole = [1, *(int(a) for a in _ORDERS if a % 1 == 0)]
    log_moments = []
    for a in whole:
        j = i[: a - 1]
        terms = (bounds if a <= most else second)[: a - 1] + j * math.log(rate)
        terms = terms + log_factorials[a] - log_factorials[j] - log_factorials[a - j]
        log_moments.append(float(np.logaddexp.reduce(terms, initial=0.0)))
    return np.asarray(np.interp(_ORDERS, whole, log_moments))


def _log_mean(log_values: Callable[[Array], Array], order: float, sigma: float) -> float:
    r"""Return :math:`\log E[e^{\alpha g(w)}]`, w the log likelihood ratio of z and z from N(0, sigma^2).

    By the trapezoidal rule, whose error falls exponentially with 1 / step for such functions: at a quarter of sigma it
    is rounding for whole orders, and below 1e-7 of the result for others. All in logs.
    """
    step = sigma / 4
    z = np.arange(-30 * sigma, order + 30 * sigma, step)
    logs = order * log_values((2 * z - 1) / (2 * sigma**2)) - z**2 / (2 * sigma**2)
    highest = logs.max()
    return float(highest + math.log(np.exp(logs - highest).sum() * step / (sigma * math.sqrt(2 * math.pi))))


def _pld_epsilon(noise: float, rounds: int, delta: float, rate: float) -> float:
    try:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        message = 'accountant="pld" needs dp-accounting: pip install "fedsim_np[privacy]"'
        raise ImportError(message) from error
    event: Any = GaussianDpEvent(noise)
    return float(
        PLDAccountant().compose(PoissonSampledDpEvent(rate, event) if rate < 1 else event, rounds).get_epsilon(delta)
    )
