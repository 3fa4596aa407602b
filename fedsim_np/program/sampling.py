"""Which clients take part in a round: a function of the round number and a seed, and of nothing else.

So a run that was stopped and resumed samples what it would have sampled. `build_uniform_sampling_fn` makes TFF's own
choices; it shuffles the whole population every round. `build_sparse_sampling_fn` does work in proportion to the cohort,
for populations of millions, and makes other choices. `build_poisson_sampling_fn` leaves the size to chance as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from fedsim_np.errors import argument_error, argument_type_error, check_bool, check_int

T = TypeVar("T")
SamplingFn = Callable[[int, int], list[T]]

# Lehmer's generator, which TFF steps from round to round.
_MODULUS = 2**31 - 1
_MULTIPLIER = 16807
# The first words of streams.
_SPARSE = 2_000_001
_POISSON = 2_000_002


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
        check_int("round_num", round_num, minimum=0)
        count = len(population)
        if check_int("size", size, minimum=0) > count:
            raise _too_many(size, count)
        rng = np.random.default_rng([_SPARSE, *_words(round_num), *_words(random_seed)])
        chosen: dict[int, None] = {}
        last = np.arange(count - size, count)
        for j, drawn in zip(last.tolist(), rng.integers(0, last + 1).tolist(), strict=True):
            chosen[j if drawn in chosen else drawn] = None
        members = list(chosen)
        return [population[members[i]] for i in rng.permutation(size).tolist()]

    return sample


def build_poisson_sampling_fn(sample_range: Sequence[T], random_seed: int) -> SamplingFn[T]:
    """Return a function that takes each client by itself, with the probability that gives `size` of them on average.

    It is the sampling that differential privacy gains most from (`fed.privacy`). How many clients a round has is a
    binomial number, perhaps 0; work is in proportion to it.

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

    Examples
    --------
    >>> sample = build_poisson_sampling_fn(range(1_000_000), random_seed=3)
    >>> [len(sample(round_num, 100)) for round_num in range(5)]
    [87, 88, 98, 100, 98]
    """
    population, of_size = _as_sequence(sample_range), build_sparse_sampling_fn(sample_range, random_seed)

    def sample(round_num: int, size: int) -> list[T]:
        check_int("round_num", round_num, minimum=0)
        count = len(population)
        if check_int("size", size, minimum=0) > count:
            raise _too_many(size, count)
        rng = np.random.default_rng([_POISSON, *_words(round_num), *_words(random_seed)])
        # So many independent choices as one number, and then who.
        return of_size(round_num, int(rng.binomial(count, size / count))) if count else []

    return sample


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
