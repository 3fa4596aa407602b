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
from fedsim_np.texts import Texts

_LOGGER = logging.getLogger(__name__)
Drawing = tuple[partial[Figure], str | Callable[[Figure], str], str]
"""What draws a picture, which is called after it; what it shows, and what to see in it."""

_DRAWN = 30  # clients in pictures that have a place for each


def run_pictures(experiment: Experiment, run: Run, lang: str = "en") -> Iterator[Picture]:
    """Yield the pictures of a finished run; what cannot be drawn is left out.

    Parameters
    ----------
    experiment : Experiment
        Whose first round's clients are shown.
    run : Run
        What is stored of it.
    lang : {"en", "es"}
        The language of the pictures and of what is said of them.
    """
    say = Texts(lang)
    client_ids = experiment.sample(1)
    fields = experiment.train.element_type_structure
    is_handwriting = "pixels" in fields and fields["pixels"].shape == (28, 28)
    sections: dict[str, Iterable[Drawing]] = {
        "data": _data(experiment.train, client_ids, say) if is_handwriting else (),
        "rounds": _rounds(experiment, client_ids, run, say),
        "evaluation": _evaluation(experiment, run, say) if MODELS[experiment.config.model].classifies else (),
        "model": _model(run, say) if is_handwriting and isinstance(experiment.model_fn(), SoftmaxRegression) else (),
    }
    for section, drawings in sections.items():
        for draw, alt, caption in drawings:
            try:
                figure = draw(lang=lang)
            except ValueError as error:  # of a run that has nothing to draw: no clients with examples, no finite loss
                _LOGGER.info("A figure is left out: %s", error)
                continue
            said = alt if isinstance(alt, str) else alt(figure)
            yield Picture.of(figure, draw.func.__name__, section, said, caption, lang)


def _said_of_the_first(client_ids: Sequence[str], say: Texts) -> str:
    return "" if len(client_ids) <= _DRAWN else say("first_ones", len(client_ids), shown=_DRAWN)


def _data(train: ClientData, client_ids: Sequence[str], say: Texts) -> Iterator[Drawing]:
    arrays = {c: dict(train.create_dataset_for_client(c).to_arrays()) for c in client_ids}
    with_examples = [c for c in client_ids if len(arrays[c]["label"])]
    if not with_examples:
        return
    cohort, first = InMemoryClientData(arrays), with_examples[0]
    labels = [str(label) for label in arrays[first]["label"][:40]]
    yield (
        partial(plots.image, arrays[first]["pixels"][0], title=say("label_named", label=labels[0])),
        say("alt_image", label=labels[0]),
        say("caption_image"),
    )
    yield (
        partial(plots.client_images, cohort.create_dataset_for_client(first)),
        say("alt_images", len(labels), client=first, labels=" ".join(labels)),
        say("caption_images", client=first),
    )
    described = describe(cohort)
    commonest = []
    for client_id in with_examples[:6]:
        counts = described.counts[described.client_ids.index(client_id)]
        often = say("and").join(str(label) for label in described.labels[counts == counts.max()])
        told = {"count": int(counts.max()), "all": int(counts.sum())}
        commonest.append(say("commonest", client=client_id, labels=often, **told))
    yield (
        partial(plots.label_counts, cohort, with_examples[:6]),
        say("alt_counts", len(commonest), each="; ".join(commonest)),
        say("caption_counts"),
    )
    yield (
        partial(plots.mean_images, cohort, with_examples[:5]),
        say("alt_means", min(5, len(with_examples))),
        say("caption_means"),
    )
    drawn = describe(InMemoryClientData({c: arrays[c] for c in client_ids[:_DRAWN]}))
    distance = float(np.nanmean(described.label_distance))
    first_ones = _said_of_the_first(client_ids, say)
    rows, columns = len(drawn.client_ids), len(drawn.labels)
    yield (
        partial(plots.label_distribution, drawn),
        say("alt_labels", rows=rows, columns=columns, distance=distance, first=first_ones),
        say("caption_labels", distance=distance, first=first_ones),
    )


def _rounds(experiment: Experiment, client_ids: Sequence[str], run: Run, say: Texts) -> Iterator[Drawing]:
    history = run.history
    moves = []
    for what in ("loss", "sparse_categorical_accuracy"):
        values = [value for value in history.get(f"client_work/train/{what}", ()) if np.isfinite(value)]
        if values:
            name = say.name("metric", "accuracy" if "accuracy" in what else what)
            moves.append(say("goes_from", what=name, first=values[0], last=values[-1]))
    yield (
        partial(plots.learning_curves, {say("this_run"): history}),
        say("alt_curves", rounds=say("rounds", run.rounds), moves=", ".join(moves)),
        say("caption_run_curves"),
    )
    accuracies = _accuracies(run)
    if accuracies:
        last = [share for share in accuracies[-1].tolist() if np.isfinite(share)]
        spread = say("last_spread", least=min(last), greatest=max(last)) if last else say("nobody")
        yield (
            partial(plots.client_accuracy, accuracies),
            say("alt_accuracy", spread=spread),
            say("caption_accuracy", spread=spread),
        )
    process, cohort = experiment.training_process("serial"), experiment.cohort(1)
    state = process.initialize()
    if client_ids and not any(isinstance(client, Attendance) for client in cohort):
        datasets = cohort[:_DRAWN]
        updates = client_updates(process, state, datasets)
        after, _ = process.next(state, cohort)
        old, new = (process.get_model_weights(s).trainable for s in (state, after))
        step = [before - now for before, now in zip(old, new, strict=True)]
        first_ones = _said_of_the_first(client_ids, say)
        yield (
            partial(plots.client_drift, updates, step, client_ids[:_DRAWN]),
            lambda figure: say("alt_drift", len(datasets), title=_title(figure), first=first_ones),
            say("caption_drift", first=first_ones),
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
            say("alt_costs", amount=say.amount(down + up)),
            say("caption_costs", down=say.amount(down), up=say.amount(up)),
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


def _evaluation(experiment: Experiment, run: Run, say: Texts) -> Iterator[Drawing]:
    counts = confusion_counts(experiment.model_fn(), run.weights, experiment.each_test_example_once())
    wrong: Any = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    worst, most = "", int(wrong.max())
    if most and np.count_nonzero(wrong == most) == 1:
        worst = say("commonest_mistake", most, true=str(row), predicted=str(column))
    yield (
        partial(plots.confusion_matrix, counts),
        say("alt_confusion", examples=int(counts.sum()), correct=int(np.trace(counts)), worst=worst).rstrip(),
        say("caption_confusion", worst=worst).rstrip(),
    )


def _model(run: Run, say: Texts) -> Iterator[Drawing]:
    yield partial(plots.class_weights, run.weights), say("alt_weights"), say("caption_weights")
