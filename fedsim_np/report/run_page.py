"""The page of a single run, as the tutorial tells it: data, rounds, evaluation, model, and how to repeat it."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsim_np.files import write_text
from fedsim_np.report import page
from fedsim_np.report.pictures import Picture, read_pictures, save_pictures
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.stored import PAGE, Run, check_run_folder, clear_pictures, read_run
from fedsim_np.texts.numbers import amount, column, written

TRAIN = "client_work/train/"
_MOST_ROWS = 40  # of rounds that a table shows


def write_report(folder: Path, draw: bool = True) -> Path:
    """Make a run's page from what is stored with it, and return its path.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and ``metrics.csv``; and, as far as they are there, ``timings.csv``, ``evaluation.json``,
        ``clients.csv`` and ``figures``.
    draw : bool
        Draw the learning curves if none are stored.

    Raises
    ------
    DataError
        If it is no run's folder, a file in it is damaged, or one of a run's names there is a link.
    """
    check_run_folder(folder)
    run, pictures = read_run(folder), read_pictures(folder)
    if draw and not any(picture.name == "learning_curves" for picture in pictures):
        pictures += _curves(run)
    write_text(folder / PAGE, _page(run, pictures))
    return folder / PAGE


def write_pages(folder: Path, experiment: Experiment, *, figures: bool = True, svg: bool = False) -> Path:
    """Draw a finished run's figures, unless they are not wanted, and make its page; return the page's path."""
    (folder / PAGE).unlink(missing_ok=True)  # old figures beside new numbers would tell of no run at all
    clear_pictures(folder)
    if figures:
        # Here, and not at the top: matplotlib takes longer to import than a run without figures.
        from fedsim_np.report.run_pictures import run_pictures

        print("drawing the figures", flush=True)
        save_pictures(folder, run_pictures(experiment, read_run(folder)), svg=svg)
    return write_report(folder, draw=False)


def _page(run: Run, pictures: Sequence[Picture]) -> str:
    config = run.choices
    rounds = _counted(run.rounds, "round")
    lead = f"A run of {rounds} by {config.get('algorithm', 'federated averaging')}, in the folder {run.name}."
    if isinstance(config.get("clients"), int):
        about = "About " * (config.get("sampling") == "poisson")
        lead = (
            f"{about}{_counted(config['clients'], 'client')} a round trained one model together in {rounds}, without "
            "handing over their data: each trained on its own examples, and sent only what it had learned."
        )
    parts = [
        page.heading("The data"),
        *_data(run),
        *_shown(pictures, "data"),
        page.heading("The rounds"),
        *_training(run),
        *_shown(pictures, "rounds"),
        _round_table(run),
    ]
    if run.evaluation:
        parts += [page.heading("The evaluation"), *_evaluation(run), *_shown(pictures, "evaluation")]
    if any(picture.section == "model" for picture in pictures):
        parts += [page.heading("The model"), *_shown(pictures, "model")]
    parts += [page.heading("To repeat it"), *_config(run)]
    return page.page("Federated learning: a run", lead, parts)


def _curves(run: Run) -> list[Picture]:
    """Return the learning curves of a run that has no figures of its own."""
    alt = f"Curves of the metrics over {_counted(run.rounds, 'round')}; the table below has their values."
    try:
        return [Picture.of_curves({run.name: run.history}, alt)]
    except ValueError:  # nothing finite to draw
        return []


def _shown(pictures: Iterable[Picture], section: str) -> list[str]:
    return [page.picture(p.png, p.alt, p.caption, p.width) for p in pictures if p.section == section]


def _data(run: Run) -> Iterator[str]:
    who = (
        "A client is one writer, and an example is an image of a character that this writer wrote. Writers differ in "
        "how much they wrote, in what, and in how"
    )
    if not _is_handwriting(run):
        who = "A client is whoever has examples of its own. Clients differ in how many they have, of what, and in how"
    yield page.paragraph(
        f"{who}: their data are not samples of one distribution (not i.i.d.), which is what makes federated "
        "learning a subject of its own."
    )
    data = run.config.get("data")
    if isinstance(data, dict):
        rows = []
        for split, about in data.items():
            if isinstance(about, dict):
                sha = str(about.get("sha256", ""))[:12]
                rows.append([split, Path(str(about.get("file", ""))).name, about.get("clients", "-"), f"{sha}..."])
        yield page.table(["split", "file", "clients", "SHA-256"], rows)
    yield from map(page.paragraph, _cohorts(run))


def _is_handwriting(run: Run) -> bool:
    is_known = run.choices.get("data", "sample") in ("sample", "synthetic", "emnist")
    return is_known or run.config.get("command") == "tutorial"


def _cohorts(run: Run) -> Iterator[str]:
    """Yield who took part, how many examples a round counted, and of how many these are repetitions."""
    table = run.clients
    ids, sizes = table.get("client_id", []), table.get("num_examples", [])
    rounds = table.get("round_num", [1] * len(ids))
    shown = [row for row in zip(rounds, ids, sizes, strict=False) if isinstance(row[2], int) and row[0] != 0]
    if not shown:
        return
    totals = Counter[Any]()
    for number, _, size in shown:
        totals[number] += size
    of_round, of_client = _from_to(list(totals.values())), _from_to([size for *_, size in shown])
    who = _counted(len({client_id for _, client_id, _ in shown}), "client")
    same = ", the same in every round" * (run.choices.get("sampling") == "first" and len(totals) > 1)
    yield f"{who} took part{same}, with {of_round} examples a round, {of_client} a client."
    epochs, total = run.choices.get("epochs"), next(iter(totals.values()))
    if not isinstance(epochs, int) or epochs < 2 or run.choices.get("algorithm") == "fedsgd":
        return
    what = "image" if _is_handwriting(run) else "example"
    if len(set(totals.values())) == 1 and total % epochs == 0:
        yield (
            f"The {written(total)} examples a round are repetitions of {_counted(total // epochs, what)}: a client "
            f"reads each of its own {epochs} times, once an epoch, and each time counts."
        )
    else:
        yield (
            f"These counts have repetitions in them: a client reads each of its own {what}s {epochs} times, once an "
            "epoch, and each time counts."
        )


def _counted(count: int, what: str) -> str:
    return f"{written(count)} {what}{'s' * (count != 1)}"


def _from_to(counts: Sequence[int]) -> str:
    least, greatest = written(min(counts)), written(max(counts))
    return least if least == greatest else f"{least} to {greatest}"


def _training(run: Run) -> Iterator[str]:
    config = run.choices
    server = _optimizer(config, "server")
    if config.get("algorithm") == "fedsgd":
        what = (
            "In each round every client computes the gradient of the loss over all its examples, at the server's "
            f"weights. The server makes one step with their average ({server})."
        )
        when = "The training metrics are measured at the weights that a round starts from, before its step."
    else:
        what = (
            f"In each round every client starts from the server's weights and makes {_epochs(config)} "
            f"of steps on batches of {_said(config, 'batch_size')} ({_optimizer(config, 'client')}). The server "
            f"averages the clients' updates and makes one step with the average ({server})."
        )
        when = (
            "The training metrics are measured during local training: on each batch before the step that is made on "
            "it, with the client's own model as it moves. So they are not the new global model's. They begin where the "
            "last round ended, which makes them late; and each local model comes to fit the very examples that it is "
            "measured on, which makes them look good where clients train for long."
        )
    yield page.paragraph(what)
    yield page.paragraph(when)
    yield from map(page.paragraph, _updates(config))
    if run.promise:
        yield page.paragraph(
            f"After the last round, noise on the updates promises each client {run.promise}. That is of the models "
            "alone, in a deployment whose randomness nobody knows: no metric on this page has noise."
        )
    if run.seconds:
        median, total = 1e3 * statistics.median(run.seconds), sum(run.seconds)
        yield page.paragraph(f"A round took {written(median)} ms (median), all of them {written(total)} s.")
    if _total(run, "communication/bytes_up"):
        up, down = (amount(_total(run, f"communication/bytes_{way}")) for way in ("up", "down"))
        yield page.paragraph(
            f"In {_rounds_with(run, 'communication/bytes_up')} the clients would have sent {up} and been sent {down}: "
            "updates as they are encoded, and weights. (A simulation moves none of these bytes.)"
        )
    if _total(run, "network/seconds"):
        yield page.paragraph(
            f"On the clients' lines and machines that were assumed, {_rounds_with(run, 'network/seconds')} would have "
            f"taken {written(_total(run, 'network/seconds'))} s: each as long as its slowest client."
        )
    left_out = Counter(status for status in run.clients.get("status", ()) if status not in ("ok", "partial", "absent"))
    if left_out:
        counted = ", ".join(f"{count} {status}" for status, count in left_out.items())
        yield page.paragraph(f"Clients left out of a round's average: {counted} (clients.csv says which).")


def _total(run: Run, column: str) -> float:
    return float(sum(value for value in run.history.get(column, ()) if math.isfinite(value)))


def _rounds_with(run: Run, column: str) -> str:
    """Return how many rounds have a value: those before an older version's run was gone on with have none."""
    known = sum(math.isfinite(value) for value in run.history[column])
    return "all rounds" if known == run.rounds else f"{known} of the {run.rounds} rounds (it is not stored of others)"


def _updates(config: dict[str, Any]) -> Iterator[str]:
    """Yield what became of the updates, if they were not just averaged."""
    if config.get("aggregator", "mean") != "mean":
        buckets = f" of buckets of {config.get('bucket_size')}" * (config.get("bucket_size", 1) != 1)
        yield f"In the place of the average there was another rule: {config['aggregator']}{buckets}."
    clip, noise = config.get("clip", "none"), config.get("noise_multiplier")
    if clip != "none" or noise:
        clipped = "at an adaptive norm" if clip == "none" else f"(clip {clip})"
        yield f"Updates were clipped {clipped}{f', with noise of {noise} times the clip' * bool(noise)}."
    if config.get("compress", "none") != "none":
        yield f"Updates were compressed: {config['compress']}."
    if config.get("attack", "none") != "none":
        yield f"Some clients were attackers: {config['attack']}, attackers {_said(config, 'attackers')}."


def _epochs(config: dict[str, Any]) -> str:
    epochs = config.get("epochs")
    return _counted(epochs, "epoch") if isinstance(epochs, int) else "some epochs"


def _said(config: dict[str, Any], key: str) -> str:
    return str(config.get(key, "some"))


def _optimizer(config: dict[str, Any], who: str) -> str:
    if config.get(f"{who}_optimizer") is None:
        return "its optimizer is not stored"
    parts = [str(config[f"{who}_optimizer"])]
    for text, key in (("learning rate", f"{who}_lr"), ("momentum", f"{who}_momentum")):
        if config.get(key):
            parts.append(f"{text} {config[key]}")
    return ", ".join(parts)


def _round_table(run: Run) -> str:
    names = [name for name in run.history if name.startswith((TRAIN, "evaluation/"))]
    names = [name for name in names or run.history if name != "round_num" and not _is_constant_count(run, name)]
    names.sort(key=lambda name: not name.startswith(TRAIN))
    header = [name.removeprefix(TRAIN).replace("/", " ").replace("_", " ") for name in names]
    numbers = range(len(run.history["round_num"]))
    caption = "Metrics of each round (all of them, with all digits: metrics.csv)"
    if len(numbers) > _MOST_ROWS:
        step = math.ceil(len(numbers) / _MOST_ROWS)
        caption += f"; one row in {step} of {len(numbers)}"
        numbers = [*numbers[:-1:step], numbers[-1]]  # type: ignore[assignment]
    columns = [column(run.history[name]) for name in ("round_num", *names)]
    rows = [["-" if math.isnan(of[i]) else of[i] for of in columns] for i in numbers]
    return page.table(["round", *header], rows, caption)


def _is_constant_count(run: Run, name: str) -> bool:
    """Return whether a column counts the same examples or batches in every round."""
    return name.rpartition("/")[2].startswith("num_") and len({v for v in run.history[name] if not math.isnan(v)}) < 2


def _evaluation(run: Run) -> Iterator[str]:
    columns = list(dict.fromkeys(name for metrics in run.evaluation.values() for name in metrics))
    rows = [[split, *(metrics.get(name) for name in columns)] for split, metrics in run.evaluation.items()]
    header = ["examples of", *(name.replace("_", " ") for name in columns)]
    config, who = run.choices, "the same clients"
    is_as_trained = config.get("evaluate_as_trained", run.config.get("command") == "tutorial")
    counts = (
        f"counted {config.get('epochs', 5)} times, once an epoch, as in training" if is_as_trained else "counted once"
    )
    if isinstance(config.get("evaluation_clients"), int) and not is_as_trained:
        who = f"at most {_counted(config['evaluation_clients'], 'client')}"
    yield page.paragraph(
        f"The final model on the train examples of {who}, and on examples of theirs that nobody trained on, each "
        f"{counts}. A gap between the two is overfitting."
    )
    yield page.table(header, rows)


def _config(run: Run) -> Iterator[str]:
    versions = run.config.get("versions", {})
    if isinstance(run.config.get("command_line"), str):
        yield page.paragraph("The command:")
        yield page.code(run.config["command_line"])
    elif isinstance(run.config.get("choices"), dict):
        yield page.paragraph("The command, in the run's folder:")
        yield page.code("fedsim-np train --config config.json --out again")
    if isinstance(versions, dict) and versions:
        yield page.table(["with", "version"], [[name, str(version)] for name, version in versions.items()])
    yield page.paragraph("The whole configuration, config.json:")
    yield page.code(json.dumps(run.config, indent=2, ensure_ascii=False))
