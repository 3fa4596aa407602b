"""Weights in a file: NumPy's ``.npz``, without pickle."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import DataError, argument_error, data_error, no_such_file
from fedsim_np.files import replacing
from fedsim_np.learning.models.model import Model, ModelWeights


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
    with replacing(path, durable=True, through_links=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_weights(path: str | os.PathLike[str], model: Model | None = None) -> ModelWeights:
    """Load what `save_weights` saved, arrays in their order there.

    Names, shapes and sizes are looked at before an array is read: a small file may stand for very large ones.

    Parameters
    ----------
    path : path-like
    model : Model, optional
        Whose weights they must be, by their shapes.

    Raises
    ------
    DataError
        If the file is missing, not a whole ``.npz`` file of numbers, larger by far when it is unpacked (over 64 MB, and
        100 times), or holds the weights of another model. Nothing in it is ever unpickled.
    """
    if not Path(path).exists():
        raise no_such_file(path)
    if not Path(path).is_file():
        raise data_error("must be a file", "a folder, a pipe or a device", path=path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total, most = sum(info.file_size for info in members), max(2**26, 100 * os.path.getsize(path))
            if total > most:
                raise data_error(f"must hold arrays of at most {most} bytes", f"{total} bytes", path=path)
            shapes = {info.filename.removesuffix(".npy"): _shape(path, archive, info) for info in members}
            if len(shapes) < len(members):
                raise ValueError("a name twice")
            if model is not None:
                _check_shapes(path, shapes, model)
            arrays = {name: _read(archive, f"{name}.npy") for name in shapes}
    except DataError:
        raise
    except Exception as error:  # damaged archives are reported in many ways: zipfile's, zlib's, NumPy's
        raise data_error("must be a whole .npz file of arrays of numbers", error, path=path) from error
    trainable = tuple(array for name, array in arrays.items() if not _is_fixed(name))
    return ModelWeights(trainable, tuple(array for name, array in arrays.items() if _is_fixed(name)))


def _shape(path: str | os.PathLike[str], archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return the shape that a member's header says, and that the member's size agrees with."""
    if not info.filename.endswith(".npy"):
        raise data_error("must hold numbers", "no array", path=path, field=info.filename)
    # Of other methods of compression, zipfile unpacks more than it is asked for.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"the compression method {info.compress_type}")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"NumPy's format {version}")
        shape, _, dtype = _HEADERS[version](member)
        if dtype.kind not in "fiu":
            raise data_error("must hold numbers", dtype, path=path, field=info.filename.removesuffix(".npy"))
        if info.file_size - member.tell() != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{info.filename} of {info.file_size} bytes and the shape {shape}")
    return shape


_HEADERS: dict[Any, Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _check_shapes(path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]], model: Model) -> None:
    for are_fixed, expected in enumerate(model.initial_weights()):
        there = [shape for name, shape in shapes.items() if _is_fixed(name) == bool(are_fixed)]
        wanted = [np.shape(array) for array in expected]
        if there != wanted:
            kind = "non-trainable" if are_fixed else "trainable"
            rule = f"must hold the weights of {type(model).__name__}, {kind} arrays of the shapes {_listed(wanted)}"
            raise data_error(rule, _listed(there), path=path)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "none"


def _read(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(name) as member:
        array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


_NON_TRAINABLE = "non_trainable_"


def _is_fixed(name: str) -> bool:
    return name.startswith(_NON_TRAINABLE)
