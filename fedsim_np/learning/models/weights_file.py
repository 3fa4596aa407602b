"""Weights in a file: NumPy's ``.npz``, without pickle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedsim_np.errors import argument_error, data_error, no_such_file
from fedsim_np.files import replacing
from fedsim_np.learning.models.model import ModelWeights


def save_weights(path: str | os.PathLike[str], weights: ModelWeights, names: Sequence[str] | None = None) -> None:
    """Save weights to a NumPy ``.npz`` file, without pickle, whole or not at all.

    Parameters
    ----------
    path : path-like
        Used as it is: no ending is added.
    weights : ModelWeights
    names : sequence of str, optional
        Of the trainable arrays, such as ``SoftmaxRegression.weight_names``; otherwise ``trainable_0``, ...

    Examples
    --------
    >>> import tempfile
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> weights = SoftmaxRegression().initial_weights()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.npz")
    ...     save_weights(path, weights, SoftmaxRegression.weight_names)
    ...     [array.shape for array in load_weights(path).trainable]
    [(784, 10), (10,)]
    """
    if names is None:
        names = [f"trainable_{i}" for i in range(len(weights.trainable))]
    taken = {"file", "allow_pickle"}.intersection(names)  # numpy.savez's own parameters
    if len(names) != len(weights.trainable) or len(set(names)) < len(names) or any(map(_is_fixed, names)) or taken:
        rule = f"{len(weights.trainable)} different names, none starting with '{_NON_TRAINABLE}' or of numpy.savez's"
        raise argument_error("names", rule, names)
    arrays = dict(zip(names, weights.trainable, strict=True))
    arrays.update({f"{_NON_TRAINABLE}{i}": array for i, array in enumerate(weights.non_trainable)})
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_weights(path: str | os.PathLike[str]) -> ModelWeights:
    """Load what `save_weights` saved, arrays in their order there.

    Raises
    ------
    DataError
        If the file is missing, or not a whole ``.npz`` file of numbers. Nothing in it is ever unpickled.
    """
    if not Path(path).exists():
        raise no_such_file(path)
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # damaged archives are reported in many ways: zipfile's, zlib's, NumPy's
        raise data_error("must be a whole .npz file of arrays of numbers", error, path=path) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise data_error("must hold numbers", getattr(array, "dtype", "no array"), path=path, field=name)
    trainable = tuple(array for name, array in arrays.items() if not _is_fixed(name))
    return ModelWeights(trainable, tuple(array for name, array in arrays.items() if _is_fixed(name)))


_NON_TRAINABLE = "non_trainable_"


def _is_fixed(name: str) -> bool:
    return name.startswith(_NON_TRAINABLE)
