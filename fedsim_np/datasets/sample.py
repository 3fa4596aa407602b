"""The sample that comes with the package: handwriting of a few simulated writers, in two small files.

The files are in ``data/`` of the repository, and in the package where it is installed. ``data/README.md`` is their
data card, with the command that makes them again.
"""

from __future__ import annotations

from pathlib import Path

from fedsim_np.datasets.hdf5 import HDF5ClientData
from fedsim_np.datasets.schema import DIGITS
from fedsim_np.errors import data_error

_PACKAGE = Path(__file__).resolve().parents[1]


def sample_paths() -> tuple[Path, Path]:
    """Return the paths of the sample's train and test files.

    Raises
    ------
    DataError
        If they are neither in the package nor in the checkout beside it.
    """
    for folder in (_PACKAGE / "data", _PACKAGE.parent / "data"):
        paths = folder / "handwriting_train.h5", folder / "handwriting_test.h5"
        if all(path.is_file() for path in paths):
            return paths
    raise data_error("the sample's files must be there", "none", path=_PACKAGE / "data")


def load_sample() -> tuple[HDF5ClientData, HDF5ClientData]:
    """Return (train, test) of the sample: 30 simulated writers in EMNIST's shape.

    Examples
    --------
    >>> train, test = load_sample()
    >>> len(train.client_ids), train.client_ids == test.client_ids
    (30, True)
    """
    train, test = sample_paths()
    return HDF5ClientData(train, DIGITS), HDF5ClientData(test, DIGITS)
