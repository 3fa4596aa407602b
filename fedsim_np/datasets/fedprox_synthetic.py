r"""Synthetic(alpha, beta) of Li et al. 2020: clients whose data and whose labels' rule differ by as much as one says.

::

    client k has int(lognormal(4, 2)) + 50 examples;   u_k ~ N(0, alpha),  B_k ~ N(0, beta)
    v_k ~ N(B_k, 1) in R^60;   W_k ~ N(u_k, 1) in R^(60 x 10),  b_k ~ N(u_k, 1) in R^10
    x ~ N(v_k, diag(j^-1.2)),  j = 1..60;   y = argmax(x W_k + b_k)

alpha and beta are standard deviations. u_k moves all of a client's logits alike, by (sum of x + 1) u_k, and so no
label: *alpha changes nothing*, whatever it is called for. What makes labels differ is that each client draws a W_k of
its own; beta moves the clients' inputs apart. The i.i.d. variant has v_k = 0 and one W, b ~ N(0, 1) for all.
"""

from __future__ import annotations

import numpy as np

from fedsim_np.datasets.client_data import ClientData, InMemoryClientData
from fedsim_np.errors import argument_error, check_bool, check_float, check_int

NUM_FEATURES, NUM_CLASSES = 60, 10
_TRAIN = 0.9


def load_data(
    alpha: float = 1.0, beta: float = 1.0, iid: bool = False, num_clients: int = 30, seed: int = 0
) -> tuple[ClientData, ClientData]:
    """Return Synthetic(alpha, beta): train and test clients, nine of ten of each client's examples for training.

    The papers' data are draws of their own, which differ much from each other: show several seeds.

    Parameters
    ----------
    alpha : float
        Of the labels' rules, >= 0; it changes no label (see the module).
    beta : float
        How far the clients' inputs are from each other, a standard deviation, >= 0.
    iid : bool
        The same distribution and rule for all; `alpha` and `beta` do not count then.
    num_clients : int
    seed : int
        From 0 to 2^32 - 1.

    Returns
    -------
    (ClientData, ClientData)
        Fields ``x`` float32 (n, 60) and ``y`` int32 (n, 1), labels 0 to 9; ids ``f_00000``, ``f_00001``, ...

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, section 5.1,
    https://arxiv.org/abs/1812.06127; after Shamir et al., ICML 2014

    Examples
    --------
    >>> train, test = load_data(1.0, 1.0)
    >>> sizes = [train.create_dataset_for_client(client_id).num_examples for client_id in train.client_ids]
    >>> len(sizes), min(sizes), max(sizes)
    (30, 45, 4645)
    """
    alpha, beta = (check_float(name, value, minimum=0.0) for name, value in (("alpha", alpha), ("beta", beta)))
    check_bool("iid", iid)
    k = check_int("num_clients", num_clients, minimum=1)
    if check_int("seed", seed, minimum=0) >= 2**32:
        raise argument_error("seed", "an integer from 0 to 4294967295", seed)
    rng = np.random.RandomState(seed)
    sizes = rng.lognormal(4, 2, k).astype(np.int64) + 50
    u, b_mean = rng.normal(0, alpha, k), rng.normal(0, beta, k)
    v = np.zeros((k, NUM_FEATURES)) if iid else rng.normal(b_mean[:, np.newaxis], 1, (k, NUM_FEATURES))
    spread = np.arange(1, NUM_FEATURES + 1) ** -0.6  # of which the square is the variance
    common = (rng.normal(0, 1, (NUM_FEATURES, NUM_CLASSES)), rng.normal(0, 1, NUM_CLASSES)) if iid else None
    train, test = {}, {}
    for i, n in enumerate(sizes.tolist()):
        weights, bias = common or (rng.normal(u[i], 1, (NUM_FEATURES, NUM_CLASSES)), rng.normal(u[i], 1, NUM_CLASSES))
        x = v[i] + rng.standard_normal((n, NUM_FEATURES)) * spread
        y = (x @ weights + bias).argmax(axis=1)
        arrays = {"x": x.astype(np.float32), "y": y.astype(np.int32)[:, np.newaxis]}
        cut = int(_TRAIN * n)
        train[f"f_{i:05d}"] = {name: array[:cut] for name, array in arrays.items()}
        test[f"f_{i:05d}"] = {name: array[cut:] for name, array in arrays.items()}
    return InMemoryClientData(train), InMemoryClientData(test)
