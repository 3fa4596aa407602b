"""The federated EMNIST data set: handwriting, one client a writer.

========== ===========================================================================================
images     28 x 28, float32 in [0, 1], **1.0 is the background** (paper), ink is dark
labels     int32: digits 0-9; with letters 0-61 (0-9, then A-Z from 10, then a-z from 36)
digits     3,383 writers, 341,873 train and 40,832 test images (``fed_emnist_digitsonly``)
all        3,400 writers, 671,585 train and 77,483 test images (``fed_emnist``)
file       HDF5, ``examples/<client id>/{label,pixels}``; a client id is ``f<writer>_<NIST series>``
source     S. Caldas et al., "LEAF: a benchmark for federated settings", 2018; G. Cohen et al., "EMNIST: an
           extension of MNIST to handwritten letters", 2017; NIST Special Database 19
========== ===========================================================================================

Examples
--------
>>> DIGITS.spec["pixels"]
ArraySpec(shape=(28, 28), dtype=float32)
"""

from __future__ import annotations

from collections import OrderedDict

from fedsim_np.datasets.schema import Field, Schema


def _schema(num_classes: int) -> Schema:
    return Schema(
        OrderedDict(
            label=Field((), "int32", 0, num_classes - 1),
            pixels=Field((28, 28), "float32", 0.0, 1.0),
        )
    )


DIGITS = _schema(10)
"""Schema of the digits: labels 0 to 9."""

CHARACTERS = _schema(62)
"""Schema of digits and letters: labels 0 to 61."""
