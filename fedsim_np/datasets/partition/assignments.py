r"""Who gets which example: rules that deal n examples out to k clients.

A rule returns an *assignment*, an int64 array (n,) with the number of the client of each example: every example has
one client by construction. It is a function of the labels, the rule's parameters and the seed alone.

The rules that look at labels work on the table of counts, shape (k, c): how many examples of each label each client
gets. Its rows add up to the clients' sizes, its columns to the labels' counts. Which ones of a label a client gets is
then drawn evenly.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.sources import plain_array
from fedsim_np.errors import DataError, argument_error, check_float, check_int, data_error

Assignment = npt.NDArray[np.int64]

_MOST = 2**40  # examples: far beyond what memory holds

# The first word of a stream's key, so that rules with the same seed draw independently.
_IID, _DIRICHLET, _SHARDS, _QUANTITY, _SIMILARITY = range(1_000_001, 1_000_006)


def even_array(values: npt.ArrayLike, name: str, rule: str, dtype: Any = None, field: str | None = None) -> Any:
    """Return values as an array; lists of different lengths are a `DataError`."""
    try:
        return plain_array(values, name, dtype)
    except DataError:
        raise
    except ValueError as error:
        raise data_error(rule, error, field=field) from error


def _generator(word: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([word, check_int("seed", seed, minimum=0)])


def _check_clients(num_clients: int, num_examples: int, each: int = 1) -> int:
    k = check_int("num_clients", num_clients, minimum=1)
    if num_examples > _MOST:
        raise argument_error("num_examples", f"at most {_MOST}", num_examples)
    if k * each > num_examples:
        rule = f"at most the number of examples ({num_examples})" + f" / {each}" * (each > 1)
        raise argument_error("num_clients", rule, num_clients)
    return k


def _label_numbers(labels: npt.ArrayLike) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return labels as numbers 0..c-1, and how often each occurs."""
    rule = "'labels' must be integers or texts, one an example"
    array = even_array(labels, "labels", rule)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    texts = array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat)
    if array.ndim != 1 or not len(array) or not (texts or array.dtype.kind in "biuU"):
        raise data_error(rule, f"{array.dtype} of shape {array.shape}")
    _, numbers, counts = np.unique(array, return_inverse=True, return_counts=True)
    return numbers, counts.astype(np.int64)


def _log_shares(concentrations: npt.NDArray[np.float64], k: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw from a Dirichlet distribution k times, as logarithms (k, c) up to a constant in each row.

    A small concentration makes shares that no float can hold, and yet it matters which of them is larger. So gamma
    variables are drawn by their logarithms: if G is Gamma(a + 1) and U uniform, G U^(1/a) is Gamma(a).
    """
    a = np.clip(concentrations, 1e-300, 1e300)
    size = (k, len(a))
    logs: npt.NDArray[np.float64] = np.log(rng.standard_gamma(a + 1, size)) + np.log1p(-rng.random(size)) / a
    return logs


def _positive(name: str, value: float) -> float:
    with contextlib.suppress(ValueError):
        if number := check_float(name, value, minimum=0.0):
            return number
    raise argument_error(name, "a finite float > 0", value)


def _even_sizes(num_examples: int, k: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return sizes that differ by one at most; who has one more is drawn."""
    sizes = np.full(k, num_examples // k, np.int64)
    sizes[rng.permutation(k)[: num_examples % k]] += 1
    return sizes


def _deal(numbers: npt.NDArray[np.intp], table: npt.NDArray[np.int64], rng: np.random.Generator) -> Assignment:
    """Deal examples out so that each client gets its row of a table of counts (k, c)."""
    by_label = _by_label(numbers, rng)
    clients = np.arange(len(table))
    assignment = np.empty(len(numbers), np.int64)
    assignment[by_label] = np.concatenate([np.repeat(clients, column) for column in table.T])
    return assignment


def _by_label(numbers: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the examples sorted by their labels, those of a label in an order that is drawn."""
    drawn = rng.permutation(len(numbers))
    return drawn[np.argsort(numbers[drawn], kind="stable")]


def assign_iid(num_examples: int, num_clients: int, seed: int = 0) -> Assignment:
    """Deal examples out evenly: all clients' data are samples of the same distribution.

    Parameters
    ----------
    num_examples : int
        n, at least `num_clients`.
    num_clients : int
        k. Sizes differ by one at most.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The client of each example, 0..k-1.

    Examples
    --------
    >>> np.bincount(assign_iid(10, num_clients=3)).tolist()
    [3, 4, 3]
    """
    n = check_int("num_examples", num_examples, minimum=1)
    k = _check_clients(num_clients, n)
    rng = _generator(_IID, seed)
    return rng.permutation(np.repeat(np.arange(k, dtype=np.int64), _even_sizes(n, k, rng)))


def assign_dirichlet(labels: npt.ArrayLike, num_clients: int, alpha: float, seed: int = 0) -> Assignment:
    r"""Deal examples out so that clients differ in their labels, as much as `alpha` says.

    Client i's label distribution is drawn from a Dirichlet distribution around that of all examples,
    :math:`q_i \sim \mathrm{Dir}(\alpha p)`, and its labels from :math:`q_i`; all clients have equally many examples
    (or one more). So :math:`E\,q_{ic} = p_c` and :math:`\mathrm{Var}\,q_{ic} = p_c (1 - p_c) / (\alpha + 1)`: with
    :math:`\alpha \to \infty` clients are alike, with :math:`\alpha \to 0` each has one label.

    Clients are filled one after another, in an order that is drawn too. Every example goes to someone, so a label may
    run out: a share counts in proportion to how much of its label is left. (The paper renormalises the shares when a
    label is gone; then the last clients get left-overs that are nobody's distribution, even with a large alpha.) With
    fewer clients than labels a client cannot have one label alone, and the variance is less than stated.

    Parameters
    ----------
    labels : array-like of int or str, shape (n,) or (n, 1)
    num_clients : int
        k, at most n.
    alpha : float
        Concentration, above 0. The paper's experiments have 0.05 to 100.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The client of each example, 0..k-1.

    References
    ----------
    T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, https://arxiv.org/abs/1909.06335

    Examples
    --------
    >>> labels = np.repeat([0, 1, 2], 100)
    >>> np.bincount(labels[assign_dirichlet(labels, num_clients=6, alpha=0.01) == 0], minlength=3).tolist()
    [0, 0, 50]
    """
    numbers, counts = _label_numbers(labels)
    k = _check_clients(num_clients, len(numbers))
    concentration = _positive("alpha", alpha)
    rng = _generator(_DIRICHLET, seed)
    sizes = _even_sizes(len(numbers), k, rng)
    log_shares = _log_shares(concentration * (counts / counts.sum()), k, rng)
    return _deal(numbers, _counts_of_labels(log_shares, sizes, counts, rng), rng)


@np.errstate(under="ignore")  # of shares
def _counts_of_labels(
    log_shares: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Draw a table (k, c) with rows of those sizes from the clients' label shares, its columns adding up to counts."""
    table = np.zeros(log_shares.shape, np.int64)
    left = counts.copy()
    for client in rng.permutation(len(sizes)):
        while missing := int(sizes[client] - table[client].sum()):  # once, unless a label is used up
            logs = np.where(left > 0, log_shares[client], -np.inf)
            wanted = np.exp(logs - logs.max()) * (left / counts)
            drawn = np.minimum(rng.multinomial(missing, wanted / wanted.sum()), left)
            table[client] += drawn
            left -= drawn
    return table


def assign_shards(labels: npt.ArrayLike, num_clients: int, shards_per_client: int = 2, seed: int = 0) -> Assignment:
    """Sort examples by label, cut them into equal shards, and give each client a few of these.

    With two shards most clients have examples of two labels only. Sizes of shards differ by one at most.

    Parameters
    ----------
    labels : array-like of int or str, shape (n,) or (n, 1)
    num_clients : int
        k; ``k * shards_per_client`` is at most n.
    shards_per_client : int
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The client of each example, 0..k-1.

    References
    ----------
    H. B. McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017, section 3,
    https://arxiv.org/abs/1602.05629

    Examples
    --------
    >>> labels = np.arange(1000) % 10
    >>> assignment = assign_shards(labels, num_clients=50)
    >>> max(len(set(labels[assignment == client])) for client in range(50))
    2
    """
    numbers, _ = _label_numbers(labels)
    each = check_int("shards_per_client", shards_per_client, minimum=1)
    k = _check_clients(num_clients, len(numbers), each)
    rng = _generator(_SHARDS, seed)
    by_label = _by_label(numbers, rng)
    owners = rng.permutation(np.repeat(np.arange(k), each))
    cuts = np.arange(k * each + 1, dtype=np.int64) * len(numbers) // (k * each)
    assignment = np.empty(len(numbers), np.int64)
    assignment[by_label] = np.repeat(owners, np.diff(cuts))
    return assignment


@np.errstate(under="ignore")  # of shares
def assign_quantity_skew(num_examples: int, num_clients: int, beta: float, seed: int = 0) -> Assignment:
    r"""Deal examples out so that clients differ in how many they have.

    The clients' shares are :math:`q \sim \mathrm{Dir}(\beta, \ldots, \beta)`, of what is left when everybody has one
    example; labels are as in all examples. With :math:`\beta \to \infty` all have equally many.

    Parameters
    ----------
    num_examples : int
        n, at least `num_clients`.
    num_clients : int
        k.
    beta : float
        Concentration, above 0. The paper's experiments have 0.5.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The client of each example, 0..k-1.

    References
    ----------
    Q. Li, Y. Diao, Q. Chen, B. He, "Federated learning on non-IID data silos: an experimental study", 2022,
    https://arxiv.org/abs/2102.02079

    Examples
    --------
    >>> np.bincount(assign_quantity_skew(1000, num_clients=5, beta=0.5)).tolist()
    [10, 166, 17, 280, 527]
    """
    n = check_int("num_examples", num_examples, minimum=1)
    k = _check_clients(num_clients, n)
    concentration = _positive("beta", beta)
    rng = _generator(_QUANTITY, seed)
    logs = _log_shares(np.full(k, concentration), 1, rng)[0]
    ends = np.cumsum(np.exp(logs - logs.max()))
    sizes = 1 + np.diff(np.rint(ends / ends[-1] * (n - k)).astype(np.int64), prepend=0)
    return rng.permutation(np.repeat(np.arange(k, dtype=np.int64), sizes))


def assign_similarity(labels: npt.ArrayLike, num_clients: int, similarity: float, seed: int = 0) -> Assignment:
    """Deal a share of the examples out evenly, and the rest sorted by label.

    At 1 clients are samples of the same distribution, at 0 each has a run of the sorted labels. Sizes differ by one at
    most, and so do the numbers of examples of either kind.

    Parameters
    ----------
    labels : array-like of int or str, shape (n,) or (n, 1)
    num_clients : int
        k, at most n.
    similarity : float
        From 0 to 1. The papers' "10 %" is 0.1.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The client of each example, 0..k-1.

    References
    ----------
    T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, https://arxiv.org/abs/1909.06335; as used by Karimireddy et al., "SCAFFOLD", 2020, section 7,
    https://arxiv.org/abs/1910.06378

    Examples
    --------
    >>> labels = np.repeat([0, 1], 50)
    >>> for similarity in (0.0, 0.2, 1.0):
    ...     assignment = assign_similarity(labels, 2, similarity)
    ...     print(similarity, sorted(np.bincount(labels[assignment == 0], minlength=2).tolist()))
    0.0 [0, 50]
    0.2 [4, 46]
    1.0 [24, 26]
    """
    numbers, _ = _label_numbers(labels)
    n = len(numbers)
    k = _check_clients(num_clients, n)
    if check_float("similarity", similarity, minimum=0.0) > 1:
        raise argument_error("similarity", "a float from 0 to 1", similarity)
    rng = _generator(_SIMILARITY, seed)
    clients, drawn = rng.permutation(k), rng.permutation(n)
    mixed, rest = np.split(drawn, [round(similarity * n)])
    in_order = rest[np.argsort(numbers[rest], kind="stable")]
    # The first ones have one more of what is mixed, the last ones of the rest.
    of_mixed, of_rest = (np.full(k, len(kind) // k) for kind in (mixed, rest))
    of_mixed[: len(mixed) % k] += 1
    of_rest[k - len(rest) % k :] += 1
    assignment = np.empty(n, np.int64)
    assignment[mixed], assignment[in_order] = np.repeat(clients, of_mixed), np.repeat(clients, of_rest)
    return assignment
