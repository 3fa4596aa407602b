"""What the published tutorial prints for the real EMNIST files, and whether a run's figures agree with it.

The figures are those on the page https://www.tensorflow.org/federated/tutorials/federated_learning_for_image_classification
for the first ten clients of ``fed_emnist_digitsonly``: losses as printed, accuracies as correct answers, since an
accuracy is that many of so many. Only the real files can give them; they are known by their SHA-256.

The page trains two models, which are one and the same to rounding, and prints 79 figures. It counts batches for the
Keras model alone and evaluates its own model alone. The other model must come to the same: these 16 figures are
compared as well, and said to be not on the page.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedsim_np.datasets import ClientData
from fedsim_np.errors import argument_error
from fedsim_np.files import sha256
from fedsim_np.tutorial import Result, preprocess

NUM_CLIENTS_IN_FILE = 3383
FIRST_LABEL = 1
FIRST_BATCH_LABELS = (2, 1, 5, 7, 1, 7, 7, 1, 4, 7, 4, 2, 2, 5, 4, 1, 1, 0, 0, 9)
NUM_CLIENTS = 10
NUM_ROUNDS = 10
NUM_EXAMPLES = 4860
NUM_BATCHES = 248
# fmt: off
KERAS_LOSS = (3.1193733, 2.9851403, 2.8617127, 2.7401376, 2.6186547, 2.5006158, 2.3858356, 2.2757034, 2.17098, 2.072707)
CUSTOM_LOSS = (3.119374, 2.98514, 2.8617127, 2.740137, 2.6186547, 2.5006158, 2.3858361, 2.275704, 2.1709805, 2.0727067)
CORRECT = (600, 681, 773, 868, 977, 1086, 1205, 1320, 1438, 1580)
# fmt: on
EVALUATION = {"train": (4860, 1.6654209, 1760), "test": (580, 1.7750846, 195)}
"""Split -> examples, loss, correct answers."""

FILES = {
    "train": (108270697, "624e70419982f9efe42706f2b2c416bfd0af3f82822756f782d6e4d7f3b6e3ca"),
    "test": (34813048, "a145794aa494104852eb624a7ee8efd9b1209e92fea58f6c9f79d133579d15d9"),
}
"""Split -> bytes and SHA-256 of ``fed_emnist_digitsonly_{train,test}.h5``."""

LOSS_TOLERANCE = 2e-6
CORRECT_TOLERANCE = 2


@dataclass(frozen=True)
class Figure:
    """One figure beside this run's.

    Attributes
    ----------
    name : str
    published, here : object
        Numbers, or tuples of labels.
    agrees : bool
        Losses within 2e-6 relative, correct answers within 2 (near-ties), all else exactly.
    on_page : bool
        Whether the page prints it of this model; else it prints it of the other one.
    """

    name: str
    published: object
    here: object
    agrees: bool
    on_page: bool = True


def is_published(split: str, path: str | os.PathLike[str]) -> bool:
    """Return whether a file is the real one of a split ("train" or "test")."""
    size, digest = FILES[split]
    return os.path.getsize(path) == size and sha256(path) == digest


def compare(train: ClientData, keras: Result, custom: Result) -> Iterator[Figure]:
    """Yield every published figure with this run's, and those of the other model that must come to the same.

    Parameters
    ----------
    train : ClientData
        Of the real file.
    keras, custom : Result
        Ten rounds of ten clients with ``loss="keras"`` and ``loss="tutorial"``.

    Raises
    ------
    ValueError
        If a result is the other model's: their losses are too near each other for the figures to tell.
    """
    for name, loss, result in (("keras", "keras", keras), ("custom", "tutorial", custom)):
        if result.loss != loss:
            raise argument_error(name, f"a run with loss='{loss}'", result.loss)
    return _figures(train, keras, custom)


def _figures(train: ClientData, keras: Result, custom: Result) -> Iterator[Figure]:
    first = train.create_dataset_for_client(train.client_ids[0])
    label = int(next(first.batches())["label"])
    labels = tuple(int(label) for label in next(preprocess(first).batches())["y"].ravel())
    yield _exact("clients in the train file", NUM_CLIENTS_IN_FILE, len(train.client_ids))
    yield _exact("first label of the first client", FIRST_LABEL, label)
    yield _exact("labels of its first batch", FIRST_BATCH_LABELS, labels)
    for model, losses, result in (("Keras model", KERAS_LOSS, keras), ("own model", CUSTOM_LOSS, custom)):
        is_keras = result is keras
        column = {name.rsplit("/")[-1]: values for name, values in result.history.items()}
        for i, published in enumerate(losses):
            where, examples = f"{model}, round {i + 1}", column["num_examples"][i]
            yield _exact(f"{where}: examples", NUM_EXAMPLES, examples)
            yield replace(_exact(f"{where}: batches", NUM_BATCHES, column["num_batches"][i]), on_page=is_keras)
            yield _loss(f"{where}: loss", published, column["loss"][i])
            yield _correct(f"{where}: correct", CORRECT[i], column["sparse_categorical_accuracy"][i] * examples)
        for split, (published_examples, published_loss, published_correct) in EVALUATION.items():
            metrics, where = result.evaluation[split], f"{model}, evaluation on {split}"
            examples = metrics["num_examples"]
            correct = metrics["sparse_categorical_accuracy"] * examples
            for figure in (
                _exact(f"{where}: examples", published_examples, examples),
                _loss(f"{where}: loss", published_loss, metrics["loss"]),
                _correct(f"{where}: correct", published_correct, correct),
            ):
                yield replace(figure, on_page=not is_keras)


def _exact(name: str, published: object, here: object) -> Figure:
    return Figure(name, published, here, published == here)


def _loss(name: str, published: float, here: float) -> Figure:
    return Figure(name, published, here, abs(here - published) <= LOSS_TOLERANCE * published)


def _correct(name: str, published: int, here: float) -> Figure:
    answers = round(here) if math.isfinite(here) else here
    return Figure(name, published, answers, abs(answers - published) <= CORRECT_TOLERANCE)
