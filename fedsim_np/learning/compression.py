r"""Compressed messages: what clients send of their updates, in fewer bytes, and what is made up for later.

::

    v = u_i + e_i                  the update, and what was left unsent so far (error feedback; e_i = 0 at first)
    C(v)                           what the server decodes: the client's update from there on
    e_i = v - C(v)                 kept for the client, by its id

A `Compressor` works tensor by tensor, and says how many bytes its message takes: indices and scales included, for
float32 (a number or scale of float64 takes 8 instead of 4). Random numbers are drawn from (seed, round, client id). A
client that does not count keeps its e_i.

e_i is of the update as it is sent, before the server weighs it: it counts by the weight of the round in which it goes.
What the server does with C(v) nobody tells the client; an update that a robust rule leaves out is sent for all that.

What is unbiased (`quantize`, and `random_k` times n / K) needs no feedback: the errors of many clients cancel. What
always errs to the same side (`top_k`, `sign`) does. With it the error that is carried along must shrink: a quantization
whose error may be longer than the vector (bits few, tensors large) piles up, and so has none unless it is asked for.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, check_bool, check_float, check_int
from fedsim_np.trees import Array, Arrays

WORK, RESIDUAL = "work", "residual"
"""Where feedback is given, this is what is kept of a client: what its work keeps, and e_i."""


@dataclass(frozen=True)
class Compressor(abc.ABC):
    """The protocol for a compressor; one of your own is a frozen dataclass with `compress`.

    Attributes
    ----------
    error_feedback : bool
        Whether what is left unsent is added to the client's next update.
    """

    error_feedback: bool

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_bool("error_feedback", self.error_feedback)

    @property
    def seed(self) -> int | None:
        """Of the clients' random streams; None where nothing is drawn."""
        return None

    @abc.abstractmethod
    def compress(self, tensors: Array, streams: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        """Compress a tensor of each of k clients.

        Parameters
        ----------
        tensors : ndarray, shape (k, n), read-only
            A row a client; n is at least 1.
        streams : sequence of k Generators
            The clients' own; none without a seed.

        Returns
        -------
        decoded : ndarray, shape (k, n)
            What the server has of them.
        num_bytes : ndarray of int, shape (k,), or one for all
            What each message takes.
        """


def first_kept(compressor: Compressor | None, of_work: Any, weights: Arrays) -> Any:
    """Return what is kept of a client that has not been seen yet."""
    if compressor is None or not compressor.error_feedback:
        return of_work
    return {WORK: of_work, RESIDUAL: trees.map(np.zeros_like, weights)}


def kept_by_work(kept: Any) -> Any:
    """Return what a client's work keeps, of what is kept of the client."""
    return kept[WORK] if isinstance(kept, dict) and set(kept) == {WORK, RESIDUAL} else kept


@dataclass(frozen=True)
class _Quantize(Compressor):
    bits: int
    stream_seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= check_int("bits", self.bits, minimum=2) <= 16:
            raise argument_error("bits", "from 2 to 16", self.bits)
        check_int("seed", self.stream_seed, minimum=0)

    @property
    def seed(self) -> int:
        return self.stream_seed

    def compress(self, tensors: Array, streams: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        k, n = tensors.shape
        levels = 2 ** (self.bits - 1) - 1
        steps = (_norms(tensors) / levels).astype(tensors.dtype)[:, np.newaxis]
        steps[steps == 0] = 1  # of zeros, and of what is as good as that
        decoded = np.abs(tensors)
        decoded /= steps
        for row, stream in zip(decoded, streams, strict=True):
            np.add(row, stream.random(n, np.float32), out=row)
        np.floor(decoded, out=decoded)
        np.minimum(decoded, levels, out=decoded)  # a sum may be rounded up to the next level
        decoded *= steps
        return np.copysign(decoded, tensors, out=decoded), np.full(k, tensors.itemsize + -(-n * self.bits // 8))


@dataclass(frozen=True)
class _TopK(Compressor):
    fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction(self.fraction)

    def compress(self, tensors: Array, streams: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        k, n = tensors.shape
        count = _count(self.fraction, n)
        places = np.argpartition(-np.abs(tensors), count - 1, axis=1)[:, :count]
        return _only(tensors, places), np.full(k, (4 + tensors.itemsize) * count)


@dataclass(frozen=True)
class _RandomK(Compressor):
    fraction: float
    stream_seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction(self.fraction)
        check_int("seed", self.stream_seed, minimum=0)

    @property
    def seed(self) -> int:
        return self.stream_seed

    def compress(self, tensors: Array, streams: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        k, n = tensors.shape
        count = _count(self.fraction, n)
        places = [stream.choice(n, count, replace=False, shuffle=False) for stream in streams]
        sent = _only(tensors, np.array(places, np.int64).reshape(k, count))
        if not self.error_feedback:
            sent *= tensors.dtype.type(n / count)
        return sent, np.full(k, tensors.itemsize * count)


@dataclass(frozen=True)
class _Sign(Compressor):
    def compress(self, tensors: Array, streams: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        n = tensors.shape[1]
        means = np.abs(tensors).mean(axis=1, dtype=np.float64).astype(tensors.dtype)
        planes = 1 + (tensors == 0).any(axis=1)  # another bit each says which are 0, where any is
        return np.sign(tensors) * means[:, np.newaxis], tensors.itemsize + planes * -(-n // 8)


def quantize(bits: int, seed: int = 0, *, error_feedback: bool = False) -> Compressor:
    r"""Return QSGD: each number rounded to one of some levels at random, so that it stays right on average.

    .. math:: C(v)_j = |v|_2 \, \mathrm{sign}(v_j) \, \xi_j / s, \qquad s = 2^{bits - 1} - 1

    with :math:`\xi_j` one of the two integers next to :math:`s |v_j| / |v|_2` and that on average; a tensor has one
    norm. A message has `bits` a number, and 4 bytes a tensor.

    Parameters
    ----------
    bits : int
        From 2 to 16, the sign's included.
    seed : int
    error_feedback : bool
        Off: it is unbiased. The error is up to :math:`\sqrt{n} / s` times as long as the tensor of n numbers; where
        that is more than 1, feedback makes errors pile up until training diverges.

    Returns
    -------
    Compressor

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Alistarh et al., "QSGD: Communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017,
    https://arxiv.org/abs/1610.02132

    Examples
    --------
    >>> decoded, num_bytes = quantize(3).compress(np.float32([[3, 0, -4, 0]]), [np.random.default_rng(1)])
    >>> np.round(decoded * 3 / 5), num_bytes  # in levels; on average 1.8 and -2.4
    (array([[ 2.,  0., -3.,  0.]], dtype=float32), array([6]))
    """
    return _Quantize(error_feedback, bits, seed)


def top_k(fraction: float, *, error_feedback: bool = True) -> Compressor:
    """Return the compressor that sends the largest numbers of each tensor, and zeros for the others.

    A message has 8 bytes a number that is sent: it, and its place.

    Parameters
    ----------
    fraction : float
        Above 0 and at most 1: how many of a tensor's n numbers are sent, rounded up.
    error_feedback : bool
        On: small numbers would never be sent.

    Returns
    -------
    Compressor

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Stich et al., "Sparsified SGD with memory", NeurIPS 2018, https://arxiv.org/abs/1809.07599

    Examples
    --------
    >>> top_k(0.5).compress(np.float32([[3, 0, -4, 1]]), [])
    (array([[ 3.,  0., -4.,  0.]], dtype=float32), array([16]))
    """
    return _TopK(error_feedback, fraction)


def random_k(fraction: float, seed: int = 0, *, error_feedback: bool = True) -> Compressor:
    """Return the compressor that sends some numbers of each tensor, drawn at random, and zeros for the others.

    A message has 4 bytes a number that is sent: places follow from the seed, the round and the client's id, which the
    server has as well.

    Parameters
    ----------
    fraction : float
        Above 0 and at most 1: how many of a tensor's n numbers are sent, rounded up to K.
    seed : int
    error_feedback : bool
        Without it what is sent is multiplied by n / K, and so right on average.

    Returns
    -------
    Compressor

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Stich et al., "Sparsified SGD with memory", NeurIPS 2018, https://arxiv.org/abs/1809.07599

    Examples
    --------
    >>> unbiased = random_k(0.5, error_feedback=False)
    >>> unbiased.compress(np.float32([[3, 1, -4, 2]]), [np.random.default_rng(2)])
    (array([[ 0.,  2., -8.,  0.]], dtype=float32), array([8]))
    """
    return _RandomK(error_feedback, fraction, seed)


def sign(*, error_feedback: bool = True) -> Compressor:
    r"""Return the compressor that sends signs, and the mean size of each tensor's numbers.

    .. math:: C(v) = \mathrm{sign}(v) \, |v|_1 / n

    A message has a bit a number and 4 bytes a tensor, and where any number is 0 another bit each that says which.

    Parameters
    ----------
    error_feedback : bool
        On: signs alone need not even lead downhill.

    Returns
    -------
    Compressor

    Raises
    ------
    TypeError
        If the argument is no bool.

    References
    ----------
    Karimireddy et al., "Error feedback fixes SignSGD and other gradient compression schemes", ICML 2019,
    https://arxiv.org/abs/1901.09847

    Examples
    --------
    >>> sign().compress(np.float32([[3, 1, -4, 2]]), [])
    (array([[ 2.5,  2.5, -2.5,  2.5]], dtype=float32), array([5]))
    """
    return _Sign(error_feedback)


def _check_fraction(fraction: float) -> None:
    if not 0 < check_float("fraction", fraction, minimum=0.0) <= 1:
        raise argument_error("fraction", "above 0 and at most 1", fraction)


def _count(fraction: float, n: int) -> int:
    return min(n, math.ceil(fraction * n - 1e-9))  # 0.1 * 30 is above 3


def _only(tensors: Array, places: Array) -> Array:
    sent = np.zeros_like(tensors)
    np.put_along_axis(sent, places, np.take_along_axis(tensors, places, axis=1), axis=1)
    return sent


def _norms(tensors: Array) -> Array:
    """Return each row's l2 norm, in float64."""
    return np.asarray(np.sqrt(np.einsum("kn,kn->k", tensors, tensors, dtype=np.float64, casting="safe")))
