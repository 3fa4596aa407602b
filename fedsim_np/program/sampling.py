"""Which clients take part in a round: a function of the round number and a seed, and at most of the state.

So a run that was stopped and resumed samples what it would have sampled. `build_uniform_sampling_fn` makes TFF's own
choices; it shuffles the whole population every round. `build_sparse_sampling_fn` does work in proportion to the cohort,
for populations of millions, and makes other choices. Others do not sample evenly, or not so many every time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import ClientData, Dataset
from fedsim_np.errors import argument_error, argument_type_error, check_bool, check_int, check_type, unknown_name
from fedsim_np.learning import build_fed_eval
from fedsim_np.learning.models.checks import ClientBatches
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.state import LearningAlgorithmState

T = TypeVar("T")
SamplingFn = Callable[[int, int], list[T]]

# Lehmer's generator, which TFF steps from round to round.
_MODULUS = 2**31 - 1
_MULTIPLIER = 16807
# The first word of each sampler's streams.
_SPARSE, _POISSON, _BY_SIZE, _OF_CHOICE = range(2_000_001, 2_000_005)


def build_uniform_sampling_fn(
    sample_range: Sequence[T], replace: bool = False, random_seed: int | None = None
) -> SamplingFn[T]:
    r"""Return a function that samples clients evenly: TFF's choices for the same seed and round.

    With :math:`s` drawn from the seed, round r uses NumPy's ``RandomState`` with the seed
    :math:`16807^r s \bmod (2^{31} - 1)`.

    Parameters
    ----------
    sample_range : sequence
        What to sample from: clients' ids.
    replace : bool
        Whether a client may be sampled twice in a round.
    random_seed : int, optional
        From 0 to 2^32 - 1. None: other choices every time.

    Returns
    -------
    callable
        ``(round_num, size) -> list``.

    Examples
    --------
    >>> sample = build_uniform_sampling_fn(["ann", "bob", "cem", "dia"], random_seed=3)
    >>> sample(1, 2), sample(2, 2), sample(1, 2)
    (['dia', 'cem'], ['ann', 'cem'], ['dia', 'cem'])
    """
    population = _as_sequence(sample_range)
    check_bool("replace", replace)
    start = None
    if random_seed is not None:
        if check_int("random_seed", random_seed, minimum=0) >= 2**32:
            raise argument_error("random_seed", "an integer from 0 to 4294967295", random_seed)
        start = int(np.random.RandomState(int(random_seed)).randint(1, _MODULUS - 1))

    def sample(round_num: int, size: int) -> list[T]:
        check_int("round_num", round_num, minimum=0)
        check_int("size", size, minimum=0)
        seed = None if start is None else pow(_MULTIPLIER, int(round_num), _MODULUS) * start % _MODULUS
        try:
            chosen = np.random.RandomState(seed).choice(len(population), size=size, replace=replace)
        except ValueError as error:
            raise _too_many(size, len(population)) from error
        return [population[i] for i in chosen.tolist()]

    return sample


def build_sparse_sampling_fn(sample_range: Sequence[T], random_seed: int) -> SamplingFn[T]:
    """Return a function that samples clients evenly, without replacement, by work in proportion to the sample.

    Floyd's algorithm, on a stream keyed by seed and round; what it samples is put into random order. Nothing is done
    for each member of the population, which may be a sequence that makes its members when they are looked at
    (`SyntheticClientData.client_ids`).

    Parameters
    ----------
    sample_range : sequence
        What to sample from.
    random_seed : int
        At least 0.

    Returns
    -------
    callable
        ``(round_num, size) -> list``.

    References
    ----------
    J. Bentley, B. Floyd, "Programming pearls: a sample of brilliance", Communications of the ACM 30 (9), 1987

    Examples
    --------
    >>> sample = build_sparse_sampling_fn(range(1_000_000), random_seed=3)
    >>> len(set(sample(1, 1000))), sample(1, 5) == sample(1, 5), sample(1, 5) == sample(2, 5)
    (1000, True, False)
    """
    population = _as_sequence(sample_range)
    check_int("random_seed", random_seed, minimum=0)

    def sample(round_num: int, size: int) -> list[T]:
        count = len(population)
        if check_int("size", size, minimum=0) > count:
            raise _too_many(size, count)
        rng = _stream(_SPARSE, round_num, random_seed)
        chosen: dict[int, None] = {}
        last = np.arange(count - size, count)
        for j, drawn in zip(last.tolist(), rng.integers(0, last + 1).tolist(), strict=True):
            chosen[j if drawn in chosen else drawn] = None
        members = list(chosen)
        return [population[members[i]] for i in rng.permutation(size).tolist()]

    return sample


def build_poisson_sampling_fn(sample_range: Sequence[T], random_seed: int) -> SamplingFn[T]:
    r"""Return a function that lets each client take part by a coin of its own.

    .. math:: P(\text{client takes part}) = \text{size} / N

    So `size` is how many are expected, and a round may have more, fewer or none: what differential privacy's
    accountants call Poisson sampling.

    Parameters
    ----------
    sample_range : sequence
        What to sample from: N members.
    random_seed : int
        At least 0.

    Returns
    -------
    callable
        ``(round_num, size) -> list``, in the order of `sample_range`.

    Examples
    --------
    >>> sample = build_poisson_sampling_fn(range(1000), random_seed=3)
    >>> [len(sample(round_num, 100)) for round_num in (1, 2, 1)]
    [121, 120, 121]
    """
    population = _as_sequence(sample_range)
    check_int("random_seed", random_seed, minimum=0)

    def sample(round_num: int, size: int) -> list[T]:
        count = len(population)
        if check_int("size", size, minimum=0) > count:
            raise _too_many(size, count)
        tails = _stream(_POISSON, round_num, random_seed).random(count) * count >= size
        return [population[i] for i in np.flatnonzero(~tails).tolist()]

    return sample


def build_size_weighted_sampling_fn(client_data: ClientData, replace: bool = True, seed: int = 0) -> SamplingFn[str]:
    r"""Return a function that samples clients by how many examples they have.

    With replacement, and clients that count alike (`ClientWeighting.UNIFORM`), it is scheme I of Li et al. 2020: the
    mean update is then that of all clients, weighted by their examples, on average.

    Parameters
    ----------
    client_data : ClientData
        Every client's number of examples is looked up once, now.
    replace : bool
        Whether a client may be sampled twice in a round; an algorithm that keeps something of each client refuses that.
    seed : int
        At least 0.

    Returns
    -------
    callable
        ``(round_num, size) -> list`` of ids.

    References
    ----------
    Li et al., "On the convergence of FedAvg on non-IID data", ICLR 2020, https://arxiv.org/abs/1907.02189

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> data = InMemoryClientData({"ann": {"x": range(9)}, "bob": {"x": range(1)}})
    >>> sample = build_size_weighted_sampling_fn(data)
    >>> sample(1, 10).count("ann")
    8
    """
    ids, shares = _sizes(client_data)
    check_bool("replace", replace)
    check_int("seed", seed, minimum=0)

    def sample(round_num: int, size: int) -> list[str]:
        check_int("size", size, minimum=0)
        return _drawn_by_size(ids, shares, size, replace, _stream(_BY_SIZE, round_num, seed))

    return sample


def build_power_of_choice_sampling_fn(
    client_data: ClientData,
    preprocess: Callable[[Dataset], ClientBatches],
    evaluate: Callable[[LearningAlgorithmState, Sequence[ClientBatches]], Sequence[float]],
    num_candidates: int,
    seed: int = 0,
) -> Callable[[int, int, LearningAlgorithmState], list[str]]:
    """Return a function that takes, of some candidates, those with the largest loss (Cho et al. 2022).

    Candidates are drawn by their number of examples, without replacement, and evaluated at the current weights.

    Parameters
    ----------
    client_data : ClientData
        Every client's number of examples is looked up once, now.
    preprocess : callable
        A client's dataset -> batches to evaluate.
    evaluate : callable
        ``(state, datasets) -> losses``, one for each: `client_losses_fn` makes one.
    num_candidates : int
        d in the paper; at least as many as are asked for. All clients: the worst of all.
    seed : int
        At least 0.

    Returns
    -------
    callable
        ``(round_num, size, state) -> list`` of ids, the largest loss first.

    References
    ----------
    Cho, Wang, Joshi, "Towards understanding biased client selection in federated learning", AISTATS 2022,
    https://arxiv.org/abs/2010.01243

    Examples
    --------
    >>> import fedsim_np as fed
    >>> data = fed.datasets.InMemoryClientData({
    ...     name: {"x": np.zeros((1, 1), np.float32), "y": np.full((1, 1), y, np.float32)}
    ...     for name, y in {"ann": 1, "bob": 3, "cem": 2}.items()})
    >>> model = fed.learning.models.LinearRegression(1)
    >>> choose = build_power_of_choice_sampling_fn(
    ...     data, lambda dataset: dataset.batch(10), client_losses_fn(model), num_candidates=3)
    >>> process = fed.learning.build_weighted_fed_avg(model, fed.learning.optimizers.build_sgdm(0.1))
    >>> choose(1, 2, process.initialize())
    ['bob', 'cem']
    """
    ids, shares = _sizes(client_data)
    if check_int("num_candidates", num_candidates, minimum=1) > len(ids):
        raise argument_error("num_candidates", f"at most the number of clients, {len(ids)}", num_candidates)
    check_int("seed", seed, minimum=0)

    def sample(round_num: int, size: int, state: LearningAlgorithmState) -> list[str]:
        if check_int("size", size, minimum=0) > num_candidates:
            raise argument_error("size", f"at most num_candidates, {num_candidates}", size)
        rng = _stream(_OF_CHOICE, round_num, seed)
        candidates = _drawn_by_size(ids, shares, num_candidates, False, rng)
        datasets = [preprocess(client_data.create_dataset_for_client(client_id)) for client_id in candidates]
        losses = np.asarray(evaluate(state, datasets), np.float64)
        if losses.shape != (num_candidates,):
            raise argument_error("evaluate", "a function that returns a loss for each dataset", losses.shape)
        worst = np.argsort(np.where(np.isnan(losses), np.inf, -losses), kind="stable")[:size]
        return [candidates[i] for i in worst.tolist()]

    return sample


def client_losses_fn(
    model_fn: ModelFn, loss: str = "loss", **keywords: Any
) -> Callable[[LearningAlgorithmState, Sequence[ClientBatches]], list[float]]:
    """Return a function that gives each client's loss at a state's weights, for `build_power_of_choice_sampling_fn`.

    Parameters
    ----------
    model_fn : callable without arguments that returns a Model, or a Model
    loss : str
        Which of the model's metrics it is.
    keywords
        As for `learning.build_fed_eval`: engine, executor, cache_bytes.
    """
    process = build_fed_eval(model_fn, **keywords)
    finalizers = process.model.metric_finalizers()
    if loss not in finalizers:
        raise unknown_name("loss", list(finalizers), loss)

    def losses(state: LearningAlgorithmState, datasets: Sequence[ClientBatches]) -> list[float]:
        at = process.set_model_weights(process.initialize(), state.global_model_weights)
        return [float(finalizers[loss](sums[loss])) for sums in process.next(at, datasets).clients["metrics"]]

    return losses


def _sizes(client_data: ClientData) -> tuple[Sequence[str], npt.NDArray[np.float64]]:
    """Return clients' ids, and their shares of all examples."""
    check_type("client_data", client_data, ClientData, "a ClientData")
    ids = client_data.client_ids
    sizes = np.array([client_data.create_dataset_for_client(client_id).num_examples for client_id in ids], np.float64)
    if not sizes.any():
        raise argument_error("client_data", "clients with examples", client_data)
    return ids, sizes / sizes.sum()


def _drawn_by_size(
    ids: Sequence[str], shares: npt.NDArray[np.float64], size: int, replace: bool, rng: np.random.Generator
) -> list[str]:
    if not replace and size > np.count_nonzero(shares):
        raise _too_many(size, int(np.count_nonzero(shares)))
    return [ids[i] for i in rng.choice(len(ids), size, replace, shares).tolist()]


def _stream(word: int, round_num: int, random_seed: int) -> np.random.Generator:
    """Return the stream of a round, of one of the samplers."""
    check_int("round_num", round_num, minimum=0)
    return np.random.default_rng([word, *_words(round_num), *_words(random_seed)])


def _words(number: int) -> list[int]:
    """Return a number as 32-bit words and their count before them, so that no two lists of numbers share a key."""
    words = [int(number) >> shift & 0xFFFFFFFF for shift in range(0, max(1, int(number).bit_length()), 32)]
    return [len(words), *words]


def _as_sequence(sample_range: Sequence[T]) -> Sequence[T]:
    """Return clients' ids as something that is indexed by place: a pandas Series is indexed by its labels."""
    is_sequence = hasattr(sample_range, "__len__") and hasattr(sample_range, "__getitem__")
    if not is_sequence or isinstance(sample_range, str | bytes | Mapping) or getattr(sample_range, "ndim", 1) != 1:
        raise argument_type_error("sample_range", "a sequence of clients' ids", sample_range)
    return list(sample_range) if hasattr(sample_range, "iloc") else sample_range


def _too_many(size: int, count: int) -> ValueError:
    return ValueError(f"Failed to sample {size} clients from population of size {count}.")
