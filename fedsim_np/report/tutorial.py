"""The pictures of the tutorial's run: its data, its rounds, its evaluation, its model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedsim_np import plots, tutorial
from fedsim_np.datasets import ClientData, InMemoryClientData, describe
from fedsim_np.learning import client_updates, confusion_counts
from fedsim_np.learning.models import SoftmaxRegression
from fedsim_np.report.pictures import Picture

_LOGGER = logging.getLogger(__name__)
Drawing = tuple[partial[Figure], str | Callable[[Figure], str], str]
"""What draws a picture, which is called after it; what it shows, and what to see in it."""

_DRAWN = 30  # clients in pictures that have a place for each


def tutorial_pictures(
    train: ClientData, test: ClientData, client_ids: Sequence[str], result: tutorial.Result
) -> Iterator[Picture]:
    """Yield the pictures of a run of the tutorial; what cannot be drawn is left out.

    Parameters
    ----------
    train, test : ClientData
        With ``pixels`` and ``label``.
    client_ids : sequence of str
        The cohort.
    result : tutorial.Result
    """
    sections = {
        "data": _data(train, client_ids),
        "rounds": _rounds(train, client_ids, result),
        "evaluation": _evaluation(test, client_ids, result),
        "model": _model(result),
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
        f"share of the client's examples. A client's labels are {distance:.2f} from the pooled ones on average."
        f"{first_ones}",
        f"Share of each label in each client's examples. Equal rows would be i.i.d. data; here a client's labels are "
        f"{distance:.2f} from the pooled ones (total variation, mean of all clients).{first_ones}",
    )


def _rounds(train: ClientData, client_ids: Sequence[str], result: tutorial.Result) -> Iterator[Drawing]:
    history = result.history
    accuracy = history["client_work/train/sparse_categorical_accuracy"]
    loss = history["client_work/train/loss"]
    yield (
        partial(plots.learning_curves, {"this run": history}),
        f"Curves over {len(loss)} rounds: the loss goes from {loss[0]:.3f} to {loss[-1]:.3f}, the accuracy from "
        f"{accuracy[0]:.3f} to {accuracy[-1]:.3f}.",
        "Loss and accuracy over the rounds, measured before each local step.",
    )
    accuracies = [plots.accuracy_of_clients(clients) for clients in result.clients]
    last = [share for share in accuracies[-1].tolist() if np.isfinite(share)]
    spread = f"In the last round from {min(last):.2f} to {max(last):.2f}." if last else "Nobody took part."
    yield (
        partial(plots.client_accuracy, accuracies),
        f"Bands over the rounds: the accuracies of all clients, of the middle half, and their median. {spread}",
        f"One figure for all hides how differently clients fare. {spread}",
    )
    process = tutorial.build_training_process()
    state, cohort = process.initialize(), tutorial.make_federated_data(train, client_ids)
    updates = client_updates(process, state, cohort[:_DRAWN])
    after, _ = process.next(state, cohort)
    old, new = (process.get_model_weights(s).trainable for s in (state, after))
    step = [before - now for before, now in zip(old, new, strict=True)]
    first_ones = _said_of_the_first(client_ids)
    star = f"{len(cohort[:_DRAWN])} clients, and a star where the server's model ended"
    yield (
        partial(plots.client_drift, updates, step, client_ids[:_DRAWN]),
        lambda figure: f"Lines from one start, one for each of {star}. {figure.axes[0].get_title()}.{first_ones}",
        "The first round, projected on two axes: where each client's model went from the server's, and where their "
        f"average ended. With i.i.d. data the lines would lie closer together.{first_ones}",
    )
    moved = plots.bytes_of_round(result.weights, len(client_ids))
    yield (
        partial(plots.round_costs, result.seconds, moved),
        # Not the seconds: all but the picture and the page is the same in every run.
        f"A line over the rounds, the milliseconds of each; and bars, the {moved.down + moved.up:,} bytes that each "
        "would send.",
        f"What a round costs: time on this machine, and the bytes that a real system would send ({moved.down:,} to the "
        f"clients, {moved.up:,} back).",
    )


def _evaluation(test: ClientData, client_ids: Sequence[str], result: tutorial.Result) -> Iterator[Drawing]:
    each_once = [
        test.create_dataset_for_client(client_id).batch(100).map(tutorial.batch_format_fn) for client_id in client_ids
    ]
    counts = confusion_counts(SoftmaxRegression(), result.weights, each_once)
    total, correct = int(counts.sum()), int(np.trace(counts))
    wrong: Any = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    alone = wrong.max() and np.count_nonzero(wrong == wrong.max()) == 1
    worst = f"The commonest mistake: {row} taken for {column}, {wrong.max()} times." if alone else ""
    yield (
        partial(plots.confusion_matrix, counts),
        f"True against predicted classes on the clients' {total} test examples; {correct} are right. {worst}",
        f"What was written (rows) and what the model read (columns), on the clients' test examples, each once. {worst}",
    )


def _model(result: tutorial.Result) -> Iterator[Drawing]:
    yield (
        partial(plots.class_weights, result.weights),
        "Ten images, one for each class: the model's weights at each pixel, dark where negative, light where positive.",
        "The weights of each class: dark where ink speaks for it, light where against it.",
    )
