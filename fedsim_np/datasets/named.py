"""Data by their names: what stands for train and test clients on a command line or in a configuration."""

from __future__ import annotations

import os

from fedsim_np.datasets import emnist, fedprox_synthetic, synthetic
from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.hdf5 import HDF5ClientData
from fedsim_np.datasets.sample import sample_paths
from fedsim_np.errors import did_you_mean, no_such_file

NAMED_DATA = ("sample", "synthetic", "fedprox-synthetic", "emnist")
_SUFFIXES = "_train.h5", "_test.h5"


def prefix_paths(prefix: str) -> tuple[str, str]:
    """Return the paths of the train and the test file that a prefix stands for."""
    train, test = (f"{prefix}{suffix}" for suffix in _SUFFIXES)
    return train, test


def absolute_prefix(name: str) -> str:
    """Return a name of data so that it means the same from any folder.

    Examples
    --------
    >>> absolute_prefix("sample"), os.path.isabs(absolute_prefix("mine"))
    ('sample', True)
    """
    if name in ("", *NAMED_DATA):
        return name
    parts = name.split(",")
    is_pair = len(parts) == 2 and all(map(os.path.isfile, parts))
    return ",".join(os.path.join(os.getcwd(), part) for part in (parts if is_pair else [name]))


def data_paths(name: str) -> tuple[str, str]:
    """Return the paths of the train and the test file that a name stands for, unless its data are made up.

    Raises
    ------
    DataError
        If there are no such files.

    Examples
    --------
    >>> data_paths("mnist")
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: file 'mnist_train.h5' does not exist. Data are sample, synthetic,
    fedprox-synthetic, emnist, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5. Did you mean 'emnist'?
    """
    if name in ("sample", "emnist"):
        train, test = map(str, sample_paths() if name == "sample" else emnist.download())
        return train, test
    paths = prefix_paths(name)
    if name.count(",") == 1 and not any(map(os.path.exists, paths)):  # two files
        train, _, test = name.partition(",")
        paths = train, test
    for path in paths:
        if not os.path.exists(path):
            what = f" Data are {', '.join(NAMED_DATA)}, or PREFIX of PREFIX_train.h5 and PREFIX_test.h5."
            prefix = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), None)
            meant = did_you_mean(os.path.basename(name), NAMED_DATA) if prefix is None else f" Did you mean '{prefix}'?"
            raise no_such_file(path, what + meant)
    return paths


def open_data(name: str, population: int, seed: int) -> tuple[ClientData, ClientData]:
    """Return (train, test) of what a name stands for.

    Parameters
    ----------
    name : str
        "sample", "synthetic", "fedprox-synthetic", "emnist", or PREFIX of PREFIX_train.h5 and PREFIX_test.h5.
    population, seed : int
        Of those that are made up, see `synthetic.load_data` and `fedprox_synthetic.load_data`; a population of 0 stands
        for 3,383 and 30.

    Raises
    ------
    DataError
        If there are no such files.

    Examples
    --------
    >>> train, test = open_data("synthetic", population=4, seed=0)
    >>> len(train.client_ids)
    4
    """
    if name == "synthetic":
        return synthetic.load_data(population or synthetic.EMNIST_CLIENTS, seed)
    if name == "fedprox-synthetic":
        return fedprox_synthetic.load_data(num_clients=population or 30, seed=seed)
    if name == "emnist":
        return emnist.load_data()
    train, test = data_paths(name)
    return HDF5ClientData(train), HDF5ClientData(test)
