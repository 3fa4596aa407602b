"""The pictures of a run: its data, its rounds, its evaluation, its model."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fedsim_np import plots
from fedsim_np.datasets import ClientData, InMemoryClientData, describe
from fedsim_np.errors import data_error
from fedsim_np.learning import client_updates, confusion_counts
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.models import SoftmaxRegression
from fedsim_np.report.pictures import Picture
from fedsim_np.runs.config import MODELS, RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.stored import CLIENTS, WEIGHTS, Run
from fedsim_np.texts import Texts

_LOGGER = logging.getLogger(__name__)
Drawing = tuple[partial[Figure], str | Callable[[Figure], str], str]
"""What draws a picture, which is called after it; what it shows, and what to see in it."""

_DRAWN = 30  # clients in pictures that have a place for each
_MOST_CLASSES = 100  # whose weights are drawn


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
    are_images = "pixels" in fields and fields["pixels"].shape == (28, 28)
    sections = {
        "data": _data(experiment.train, client_ids, say) if are_images else (),
        "rounds": (*_curves(run, say), *_accuracy(run, say), *_drift(experiment, client_ids, say), *_costs(run, say)),
        "evaluation": _evaluation(experiment, run, say) if MODELS[experiment.config.model].classifies else (),
        "model": _model(run, say),
    }
    return _drawn(sections, lang)


def stored_pictures(run: Run, lang: str = "en", but: Collection[str] = ()) -> Iterator[Picture]:
    """Yield the pictures for which what is stored of a run suffices, without its data.

    Parameters
    ----------
    run : Run
    lang : {"en", "es"}
        The language of the pictures and of what is said of them.
    but : collection of str
        The names of those that are there already.
    """
    say = Texts(lang)
    rounds = (*_curves(run, say), *_accuracy(run, say), *_costs(run, say))
    return _drawn({"rounds": rounds, "model": _model(run, say)}, lang, but)


def _drawn(sections: Mapping[str, Iterable[Drawing]], lang: str, but: Collection[str] = ()) -> Iterator[Picture]:
    for section, drawings in sections.items():
        for draw, alt, caption in drawings:
            name = draw.func.__name__
            if name in but:
                continue
            try:
                figure = draw(lang=lang)
            except ValueError as error:  # of a run that has nothing to draw: no clients with examples, no finite loss
                _LOGGER.info("A figure is left out: %s", error)
                continue
            yield Picture.of(figure, name, section, alt if isinstance(alt, str) else alt(figure), caption, lang)


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


def _curves(run: Run, say: Texts) -> Iterator[Drawing]:
    history, rounds = run.history, say("rounds", run.rounds)
    moves = []
    for what in ("loss", "sparse_categorical_accuracy"):
        values = [value for value in history.get(f"client_work/train/{what}", ()) if np.isfinite(value)]
        if len(values) > 1:
            moves.append(say("goes_from", what=say.name("metric", what), first=values[0], last=values[-1]))
    alt = say("alt_curves", rounds=rounds, moves=", ".join(moves)) if moves else say("alt_stored_curves", rounds=rounds)
    yield partial(plots.learning_curves, {say("this_run"): history}), alt, say("caption_run_curves")


def _accuracy(run: Run, say: Texts) -> Iterator[Drawing]:
    accuracies = _accuracies(run)
    if not accuracies:
        return
    last = accuracies[-1][np.isfinite(accuracies[-1])]
    spread = say("last_spread", least=float(last.min()), greatest=float(last.max())) if last.size else say("nobody")
    yield (
        partial(plots.client_accuracy, accuracies),
        say("alt_accuracy", spread=spread),
        say("caption_accuracy", spread=spread),
    )


def _drift(experiment: Experiment, client_ids: Sequence[str], say: Texts) -> Iterator[Drawing]:
    process, cohort = experiment.training_process("serial"), experiment.cohort(1)
    state = process.initialize()
    if not client_ids or any(isinstance(client, Attendance) for client in cohort):
        return
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


def _costs(run: Run, say: Texts) -> Iterator[Drawing]:
    columns = (run.history.get(f"communication/bytes_{way}", ()) for way in ("down", "up"))
    bytes_ = [
        plots.RoundBytes(int(down), int(up))
        for down, up in zip(*columns, strict=False)
        if np.isfinite(down) and np.isfinite(up)
    ]
    if not run.seconds or len(bytes_) != len(run.seconds):
        return
    down, up = (sum(of) for of in zip(*bytes_, strict=True))
    yield (
        partial(plots.round_costs, run.seconds, bytes_),
        # Not the seconds: all but the picture and the page is the same in every run.
        say("alt_costs", amount=say.amount(down + up)),
        say("caption_costs", down=say.amount(down), up=say.amount(up)),
    )


def _title(figure: Figure) -> str:
    return figure.axes[0].get_title().replace("\n", " ")


def _accuracies(run: Run) -> list[npt.NDArray[np.float64]]:
    """Return each round's clients' accuracies; NaN of those that were left out."""
    clients, name = run.clients, "sparse_categorical_accuracy"
    if not {name, "round_num", "status"} <= set(clients):
        return []
    try:
        rounds, shares = (np.array(clients[column], np.float64) for column in ("round_num", name))
    except (TypeError, ValueError) as error:
        rule = f"columns 'round_num' and '{name}' must hold numbers"
        raise data_error(rule, error, path=run.folder / CLIENTS) from error
    shares[[status not in ("ok", "partial") for status in clients["status"]]] = np.nan
    order = np.argsort(rounds, kind="stable")
    starts = np.searchsorted(rounds[order], np.arange(1, run.rounds + 2))
    return [shares[order[start:end]] for start, end in itertools.pairwise(starts)]


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
    if not run.is_handwriting or not (run.folder / WEIGHTS).is_file():
        return
    chosen = run.choices
    entry, kernel = MODELS.get(str(chosen.get("model", "softmax"))), next(iter(run.weights.trainable), np.empty(0))
    if entry is None or kernel.ndim != 2 or not kernel.size or kernel.shape[1] > _MOST_CLASSES:
        return
    num_features, num_classes = kernel.shape
    if isinstance(entry.make(num_features, num_classes, RunConfig()), SoftmaxRegression):
        # Where the model was given 1 - x, brightness counts the other way round.
        shown = -kernel if chosen.get("invert", False) is True else kernel
        yield partial(plots.class_weights, shown), say("alt_weights"), say("caption_weights")
