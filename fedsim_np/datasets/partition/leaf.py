"""LEAF's JSON files -> clients.

A file is ``{"users": [...], "num_samples": [...], "user_data": {user: {"x": [...], "y": [...]}}}``; a data set is a
folder of them. See S. Caldas et al., "LEAF: a benchmark for federated settings", 2018, https://arxiv.org/abs/1812.01097.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.partition.arrays import LabelledClientData, count_classes, labels_of_array, numbers_of, texts_of
from fedsim_np.errors import NamingClient, NamingDataFile, data_error, no_such_file
from fedsim_np.files import parse_json


def from_leaf_json(path: str | os.PathLike[str]) -> LabelledClientData:
    """Make clients of a JSON file in LEAF's form, or of a folder of such files.

    Parameters
    ----------
    path : path-like
        A file, or a folder, of which all ``*.json`` are read.

    Returns
    -------
    LabelledClientData
        In the order of the files and of their users. ``x`` is what it is in the file, as float32 if any client has
        floats in it; ``y``, where it is one number an example, has shape (n, 1): batches of these are what
        `SoftmaxRegression` takes. Texts in ``y`` are numbered as `read_csv` numbers them.

    Raises
    ------
    DataError
        If a file is not of this form, holds texts instead of numbers in a field other than ``y``, or has a user that
        another one has.

    Examples
    --------
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "all_data.json")
    ...     with open(path, "w", encoding="utf-8") as file:
    ...         users = {"ann": {"x": [[0.5, 1.0], [0.0, 0.25]], "y": [1, 0]}}
    ...         json.dump({"users": ["ann"], "num_samples": [2], "user_data": users}, file)
    ...     data = from_leaf_json(folder)
    >>> data.create_dataset_for_client("ann").to_arrays()["y"].tolist()
    [[1], [0]]
    """
    path = Path(path)
    files = sorted(file for file in path.glob("*.json") if file.is_file()) if path.is_dir() else [path]
    if not files:
        raise data_error("must have a *.json file", "none", path=path)
    clients: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for file in files:
        for user, arrays in _read(file).items():
            if user in clients:
                found = "one that was read before"
                raise data_error("a user must be in one file only", found, path=file, client_id=user)
            clients[user] = arrays
    if not clients:
        raise data_error("must have a user", "none", path=path)
    label_names = _number_texts(clients, path)
    for name in {name for arrays in clients.values() for name in arrays}:
        having = [arrays for arrays in clients.values() if name in arrays]
        # JSON writes 1.0 as it likes: one client's whole numbers do not make the field one of integers.
        filled = [arrays[name] for arrays in having if len(arrays[name])]
        floats = any(values.dtype.kind == "f" for values in filled)
        whole = [values.dtype for values in filled]
        dtype = np.dtype(np.float32) if floats else np.result_type(*whole) if whole else None
        if dtype is not None and dtype.kind == "f" and not floats:
            found = "some below 0 and some above 2^63"
            raise data_error("integers must fit into 64 bits", found, path=path, field=name)
        for arrays in having:
            if len(arrays[name]) or not filled:
                arrays[name] = arrays[name].astype(dtype or np.float32, copy=False)
            else:  # an empty list says nothing of its examples' shape
                arrays[name] = np.empty((0, *filled[0].shape[1:]), dtype)
    num_classes = max(count_classes(arrays.get("y"), label_names) for arrays in clients.values())
    with NamingDataFile(path):
        return LabelledClientData(clients, label_names, num_classes)


def _number_texts(clients: Mapping[str, dict[str, npt.NDArray[Any]]], path: Path) -> tuple[str, ...]:
    """Put numbers in the place of labels that are texts, of all clients alike; return what they stand for."""
    having = [arrays for arrays in clients.values() if len(arrays.get("y", ()))]
    texts = [arrays for arrays in having if arrays["y"].dtype.kind == "O"]
    if not texts:
        return ()
    if len(texts) < len(having):
        raise data_error("labels must be texts with all users, or with none", "both", path=path, field="y")
    with NamingDataFile(path):
        numbers, names = labels_of_array("y", np.concatenate([arrays["y"] for arrays in texts]))
    ends = np.cumsum([len(arrays["y"]) for arrays in texts])[:-1]
    for arrays, labels in zip(texts, np.split(numbers[:, np.newaxis], ends), strict=True):
        arrays["y"] = labels
    return names


def _read(path: Path) -> dict[str, dict[str, npt.NDArray[Any]]]:
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (ValueError, RecursionError) as error:
        raise data_error("must be JSON", error, path=path) from error
    parts = ("users", "num_samples", "user_data")
    if not isinstance(content, dict) or not all(part in content for part in parts):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise data_error(f"must be LEAF's JSON, an object with {', '.join(parts)}", found, path=path)
    users, sizes, data = (content[part] for part in parts)
    if not isinstance(data, dict) or not isinstance(users, list) or sorted(map(str, users)) != sorted(data):
        raise data_error("'users' must be those in 'user_data'", "others", path=path)
    if not isinstance(sizes, list) or len(sizes) != len(users):
        raise data_error("'num_samples' must be a number a user", type(sizes).__name__, path=path)
    return {user: _client(path, user, size, data.pop(user)) for user, size in zip(map(str, users), sizes, strict=True)}


def _client(path: Path, user: str, size: object, fields: object) -> dict[str, npt.NDArray[Any]]:
    place: dict[str, Any] = {"path": path, "client_id": user}
    if not isinstance(fields, Mapping) or not fields:
        raise data_error("a user's data must be an object of lists", type(fields).__name__, **place)
    arrays = {}
    for name, values in fields.items():
        with NamingDataFile(path), NamingClient(user):
            texts = texts_of(values, name) if name == "y" else None
            array = numbers_of(name, values) if texts is None else np.array(texts, object)
        if len(array) != size:
            raise data_error(f"must have {size!r} examples, as num_samples says", len(array), field=name, **place)
        arrays[name] = array[:, np.newaxis] if name == "y" and array.ndim == 1 else array
    return arrays
