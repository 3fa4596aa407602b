"""The federated EMNIST data set: handwriting, one client a writer.

========== ===========================================================================================
images     28 x 28, float32 in [0, 1], **1.0 is the background** (paper), ink is dark
labels     int32: digits 0-9; with letters 0-61 (0-9, then A-Z from 10, then a-z from 36): `LABEL_NAMES`
digits     3,383 writers, 341,873 train and 40,832 test images (``fed_emnist_digitsonly``)
all        3,400 writers, 671,585 train and 77,483 test images (``fed_emnist``)
file       HDF5, ``examples/<client id>/{label,pixels}``; a client id is ``f<writer>_<NIST series>``
source     S. Caldas et al., "LEAF: a benchmark for federated settings", 2018; G. Cohen et al., "EMNIST: an
           extension of MNIST to handwritten letters", 2017; NIST Special Database 19
========== ===========================================================================================

Every writer's images are split in two: all writers have train and test images. The files are TFF's published
archives; nothing of them is a part of this package. They are downloaded once (`load_data`) and kept in a cache folder.

Examples
--------
>>> DIGITS.spec["pixels"]
ArraySpec(shape=(28, 28), dtype=float32)
>>> LABEL_NAMES[0], LABEL_NAMES[10], LABEL_NAMES[61]
('0', 'A', 'z')
"""

from __future__ import annotations

import contextlib
import os
import string
from pathlib import Path
from typing import NamedTuple

from fedsim_np.datasets.hdf5 import HDF5ClientData
from fedsim_np.datasets.schema import CHARACTERS, DIGITS, Schema
from fedsim_np.errors import DataError, check_bool, check_type, data_error

__all__ = ["CHARACTERS", "DIGITS", "LABEL_NAMES", "download", "load_data"]

LABEL_NAMES = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
"""Label -> the character that it stands for; the digits' are the first ten."""

_ADDRESS = "https://storage.googleapis.com/tff-datasets-public"


class Release(NamedTuple):
    """One of the two published sets: an archive of two files."""

    name: str
    sha256: str
    schema: Schema
    num_clients: int

    @property
    def url(self) -> str:
        """Where the archive is published."""
        return f"{_ADDRESS}/{self.name}.tar.bz2"

    @property
    def files(self) -> tuple[str, str]:
        """The names of the train and the test file in it."""
        return f"{self.name}_train.h5", f"{self.name}_test.h5"


RELEASES = {
    True: Release(
        "fed_emnist_digitsonly", "55333deb8546765427c385710ca5e7301e16f4ed8b60c1dc5ae224b42bd5b14b", DIGITS, 3383
    ),
    False: Release("fed_emnist", "fe1ed5a502cea3a952eb105920bff8cffb32836b5173cb18a57a32c3606f3ea0", CHARACTERS, 3400),
}
"""``only_digits`` -> what is published."""


def download(
    only_digits: bool = True, cache_dir: str | os.PathLike[str] | None = None, url: str | None = None
) -> tuple[Path, Path]:
    """Return the paths of the train and the test file, downloaded if they are not in the cache folder yet.

    Parameters
    ----------
    only_digits : bool
        False: digits and letters.
    cache_dir : path-like, optional
        By default the folder that the environment variable FEDSIM_NP_CACHE names, else the platform's usual one. Files
        that are there already, by these names, are used as they are, and without any network.
    url : str, optional
        Of a mirror. Whatever it gives must have the published archive's SHA-256.

    Raises
    ------
    DownloadError
        If the archive cannot be had (an OSError); the message says what can be done instead.
    DataError
        If what was downloaded is not the published archive.
    """
    # Here, and not at the top: what it takes to download need not be imported to read a file.
    from fedsim_np.datasets.download import DownloadError, cache_folder, fetch

    release = RELEASES[check_bool("only_digits", only_digits)]
    check_type("url", url, str | None, "an address or None")
    folder = cache_folder(cache_dir)
    try:
        train, test = fetch(release.url if url is None else url, release.sha256, release.files, folder)
    except (DownloadError, DataError) as error:
        instead = (
            "Instead, fed.datasets.synthetic.load_data() gives as many simulated writers (in a shell: fedsim-np train "
            "--data synthetic --out run); or have fedsim-np data download fetch the files where there is a network, "
            f"and put {' and '.join(release.files)} into '{folder}'."
        )
        raise type(error)(f"{error} {instead}") from error
    return train, test


def load_data(
    only_digits: bool = True, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[HDF5ClientData, HDF5ClientData]:
    """Return (train, test) of the federated EMNIST, as TFF's function of this name does.

    Parameters
    ----------
    only_digits : bool
        True: 3,383 writers, labels 0 to 9. False: 3,400 writers, labels 0 to 61.
    cache_dir : path-like, optional
        See `download`.

    Returns
    -------
    (HDF5ClientData, HDF5ClientData)
        The same writers' train and test images, read when they are needed.

    Raises
    ------
    DownloadError, DataError
        See `download`; a DataError too if a file in the cache folder is damaged, or has another number of writers.
    """
    release = RELEASES[check_bool("only_digits", only_digits)]
    again = "(remove it to have it downloaded again)"
    with contextlib.ExitStack() as opened:
        splits = []
        for path in download(only_digits, cache_dir):
            try:
                client_data = opened.enter_context(HDF5ClientData(path, release.schema))
            except DataError as error:
                raise DataError(f"{error} {again}") from error
            found = len(client_data.client_ids)
            if found != release.num_clients:
                raise data_error(f"must have {release.num_clients} clients {again}", found, path=path)
            splits.append(client_data)
        opened.pop_all()  # both stay open
    train, test = splits
    return train, test
