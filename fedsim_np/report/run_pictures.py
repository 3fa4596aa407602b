"""The pictures of a run: its data, its rounds, its evaluation, its model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedsim_np import plots
from fedsim_np.datasets import ClientData, InMemoryClientData, describe
from fedsim_np.learning import client_updates, confusion_counts
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.models import SoftmaxRegression
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.config import MODELS
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.stored import Run
from fedsim_np.texts.numbers import amount, written

_LOGGER = logging.getLogger(__name__)
Drawing = tuple[partial[Figure], str | Callable[[Figure], str], str]
"""What draws a picture, which is called after it; what it shows, and what to see in it."""

_DRAWN = 30  # clients in pictures that have a place for each


def run_pictures(experiment: Experiment, run: Run) -> Iterator[Picture]:
    """Yield the pictures of a finished run; what cannot be drawn is left out.

    Parameters
    ----------
    experiment : Experiment
        Whose first round's clients are shown.
    run : Run
        What is stored of it.
    """
    client_ids = experiment.sample(1)
    fields = experiment.train.element_type_structure
    is_handwriting = "pixels" in fields and fields["pixels"].shape == (28, 28)
    sections: dict[str, Iterable[Drawing]] = {
        "data": _data(experiment.train, client_ids) if is_handwriting else (),
        "rounds": _rounds(experiment, client_ids, run),
        "evaluation": _evaluation(experiment, run) if MODELS[experiment.config.model].classifies else (),
        "model": _model(run) if is_handwriting and isinstance(experiment.model_fn(), SoftmaxRegression) else (),
    }
    for section, drawings in sections.items():
        for draw, alt, caption in drawings:
            try:
                figure = draw()
            except ValueError as error:  # of a run that has nothing to draw: no clients with examples, no finite loss
                _LOGGER.info("A figure is left out: %s", error)
                continue
            said = alt if isinstance(alt, str) else alt(figure)
            yield Picture.of(figure, draw.func.__name__, section, said, caption)


def _said_of_the_first(client_ids: Sequence[str]) -> str:
    return "" if len(client_ids) <= _DRAWN else f" The first {_DRAWN} of {len(client_ids)} clients are shown."


def _data(train: ClientData, client_ids: Sequence[str]) -> Iterator[Drawing]:
    arrays = {c: dict(train.create_dataset_for_client(c).to_arrays()) for c in client_ids}
    with_examples = [c for c in client_ids if len(arrays[c]["label"])]
    if not with_examples:
        return
    cohort, first = InMemoryClientData(arrays), with_examples[0]
    labels = [int(label) for label in arrays[first]["label"][:40]]
    yield (
        partial(plots.image, arrays[first]["pixels"][0], title=f"label {labels[0]}"),
        f"One image of 28 by 28 pixels: the character with label {labels[0]}, dark ink on white paper.",
        "One example: an image and its label.",
    )
    yield (
        partial(plots.client_images, cohort.create_dataset_for_client(first)),
        f"The first {len(labels)} images of client {first}. Their labels: {' '.join(map(str, labels))}.",
        f"Examples of one client, {first}: one person's hand.",
    )
    described = describe(cohort)
    commonest = []
    for client_id in with_examples[:6]:
        counts = described.counts[described.client_ids.index(client_id)]
        often = " and ".join(str(label) for label in described.labels[counts == counts.max()])
        commonest.append(f"{client_id}: most often {often} ({counts.max()} of {counts.sum()})")
    yield (
        partial(plots.label_counts, cohort, with_examples[:6]),
        f"Bar charts of how many examples of each label {len(commonest)} clients have. {'; '.join(commonest)}.",
        "How many examples of each label clients have: some labels are common with one client and rare with another.",
    )
    yield (
        partial(plots.mean_images, cohort, with_examples[:5]),
        f"For each of {min(5, len(with_examples))} clients a row of images, the mean of its images of each label.",
        "Mean image of each label, a row a client: what one person's characters have in common. The more these vary, "
        "the more blurred; an empty frame is a label that the client has not got.",
    )
    drawn = describe(InMemoryClientData({c: arrays[c] for c in client_ids[:_DRAWN]}))
    distance = float(np.nanmean(described.label_distance))
    first_ones = _said_of_the_first(client_ids)
    yield (
        partial(plots.label_distribution, drawn),
        f"A picture of {len(drawn.client_ids)} rows (clients) by {len(drawn.labels)} columns (labels), coloured by the "
        f"share of the client's examples. A client's labels are {written(distance)} from the pooled ones on average."
        f"{first_ones}",
        f"Share of each label in each client's examples. Equal rows would be i.i.d. data; here a client's labels are "
        f"{written(distance)} from the pooled ones (total variation, mean of all clients).{first_ones}",
    )


def _rounds(experiment: Experiment, client_ids: Sequence[str], run: Run) -> Iterator[Drawing]:
    history = run.history
    shown = [
        name for name in ("client_work/train/loss", "client_work/train/sparse_categorical_accuracy") if name in history
    ]
    moved = [[value for value in history[name] if np.isfinite(value)] for name in shown]
    words = [
        f"the {name} goes from {written(values[0])} to {written(values[-1])}"
        for name, values in zip(("loss", "accuracy"), moved, strict=False)
        if values
    ]
    yield (
        partial(plots.learning_curves, {"this run": history}),
        f"Curves over {run.rounds} round{'s' * (run.rounds != 1)}: {', '.join(words)}.",
        "Loss and accuracy over the rounds: of training before each local step, of an evaluation after the round.",
    )
    accuracies = _accuracies(run)
    if accuracies:
        last = [share for share in accuracies[-1].tolist() if np.isfinite(share)]
        spread = (
            f"In the last round from {written(min(last))} to {written(max(last))}." if last else "Nobody took part."
        )
        yield (
            partial(plots.client_accuracy, accuracies),
            f"Bands over the rounds: the accuracies of all clients, of the middle half, and their median. {spread}",
            f"One figure for all hides how differently clients fare. {spread}",
        )
    process, cohort = experiment.training_process("serial"), experiment.cohort(1)
    state = process.initialize()
    if client_ids and not any(isinstance(client, Attendance) for client in cohort):
        datasets = cohort[:_DRAWN]
        updates = client_updates(process, state, datasets)
        after, _ = process.next(state, cohort)
        old, new = (process.get_model_weights(s).trainable for s in (state, after))
        step = [before - now for before, now in zip(old, new, strict=True)]
        first_ones = _said_of_the_first(client_ids)
        star = f"{len(datasets)} clients, and a star where the server's model ended"
        yield (
            partial(plots.client_drift, updates, step, client_ids[:_DRAWN]),
            lambda figure: f"Lines from one start, one for each of {star}. {_title(figure)}.{first_ones}",
            "The first round, projected on two axes: where each client's model went from the server's, and where their "
            f"average ended. With i.i.d. data the lines would lie closer together.{first_ones}",
        )
    bytes_ = [
        plots.RoundBytes(int(down), int(up))
        for down, up in zip(
            history.get("communication/bytes_down", ()), history.get("communication/bytes_up", ()), strict=True
        )
        if np.isfinite(down)
    ]
    if run.seconds and len(bytes_) == len(run.seconds):
        down, up = (sum(of) for of in zip(*bytes_, strict=True))
        yield (
            partial(plots.round_costs, run.seconds, bytes_),
            # Not the seconds: all but the picture and the page is the same in every run.
            "A line over the rounds, the milliseconds of each; and bars, the bytes that each would send, "
            f"{amount(down + up)} in all.",
            "What a round costs: time on this machine, and the bytes that a real system would send (in all "
            f"{amount(down)} to the clients, {amount(up)} back).",
        )


def _title(figure: Figure) -> str:
    return figure.axes[0].get_title().replace("\n", " ")


def _accuracies(run: Run) -> list[Any]:
    """Return each round's clients' accuracies; NaN of those that were left out."""
    clients = run.clients
    if "sparse_categorical_accuracy" not in clients:
        return []
    rounds, shares = np.array(clients["round_num"]), np.array(clients["sparse_categorical_accuracy"], np.float64)
    counts = np.array([status in ("ok", "partial") for status in clients["status"]])
    return [np.where(counts, shares, np.nan)[rounds == number] for number in range(1, run.rounds + 1)]


def _evaluation(experiment: Experiment, run: Run) -> Iterator[Drawing]:
    counts = confusion_counts(experiment.model_fn(), run.weights, experiment.each_test_example_once())
    total, correct = int(counts.sum()), int(np.trace(counts))
    wrong: Any = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    alone = wrong.max() and np.count_nonzero(wrong == wrong.max()) == 1
    worst = f"The commonest mistake: {row} taken for {column}, {wrong.max()} times." if alone else ""
    yield (
        partial(plots.confusion_matrix, counts),
        f"True against predicted classes on the clients' {written(total)} test examples; {written(correct)} are right. "
        f"{worst}",
        f"What was written (rows) and what the model read (columns), on the clients' test examples, each once. {worst}",
    )


def _model(run: Run) -> Iterator[Drawing]:
    yield (
        partial(plots.class_weights, run.weights),
        "An image for each class: the model's weights at each pixel, blue and outlined where negative, orange where "
        "positive.",
        "The weights of each class: blue and outlined where ink speaks for it, orange where against it.",
    )
