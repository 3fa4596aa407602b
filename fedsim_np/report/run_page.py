"""The page of a single run, as the tutorial tells it: data, rounds, evaluation, model, and how to repeat it."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsim_np.errors import data_error
from fedsim_np.files import write_text
from fedsim_np.report import page
from fedsim_np.report.pictures import Picture, read_pictures, save_pictures
from fedsim_np.runs.experiment import Experiment
from fedsim_np.runs.stored import FIGURES, PAGE, Run, check_run_folder, clear_pictures, read_run
from fedsim_np.texts import Texts
from fedsim_np.texts.numbers import column

TRAIN = "client_work/train/"
_MOST_ROWS = 40  # of rounds that a table shows


def write_report(folder: Path, draw: bool = True, lang: str | None = None) -> Path:
    """Make a run's page from what is stored with it, and return its path.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and ``metrics.csv``; and, as far as they are there, ``timings.csv``, ``evaluation.json``,
        ``clients.csv`` and ``figures``.
    draw : bool
        Draw that for which no data are needed, if no learning curves are stored.
    lang : {"en", "es"}, optional
        The language of the page; by default that of the stored figures, or English. Figures in another one are left out
        (see `redraw`).

    Raises
    ------
    DataError
        If it is no run's folder, a file in it is damaged, or one of a run's names there is a link.
    """
    check_run_folder(folder)
    run, pictures = read_run(folder), read_pictures(folder)
    say = Texts(lang or (pictures[0].lang if pictures else "en"))
    pictures = [picture for picture in pictures if picture.lang == say.lang]
    if draw and not any(picture.name == "learning_curves" for picture in pictures):
        from fedsim_np.report.run_pictures import stored_pictures

        pictures += stored_pictures(run, say.lang, [picture.name for picture in pictures])
    write_text(folder / PAGE, _page(run, pictures, say))
    return folder / PAGE


def write_pages(
    folder: Path,
    experiment: Experiment,
    *,
    figures: bool = True,
    svg: bool = False,
    lang: str = "en",
    tell: Callable[[str], object] = print,
) -> Path:
    """Draw a finished run's figures, unless they are not wanted, and make its page; return the page's path."""
    (folder / PAGE).unlink(missing_ok=True)  # old figures beside new numbers would tell of no run at all
    clear_pictures(folder)
    if figures:
        # Here, and not at the top: matplotlib takes longer to import than a run without figures.
        from fedsim_np.report.run_pictures import run_pictures

        tell("drawing the figures")
        save_pictures(folder, run_pictures(experiment, read_run(folder), lang), svg=svg)
    return write_report(folder, draw=False, lang=lang)


def redraw(folder: Path, lang: str) -> None:
    """Draw a stored run's figures again in another language, from its data; nothing is done if they are in it.

    Raises
    ------
    DataError
        If the data are not there any more, or are others, or the run is of another version.
    """
    check_run_folder(folder)
    run, pictures = read_run(folder), read_pictures(folder)
    if all(picture.lang == lang for picture in pictures):
        return
    from fedsim_np.report.run_pictures import run_pictures

    experiment = Experiment(run.configuration)
    if experiment.files() != run.config.get("data", {}):
        raise data_error("the data must be those of the run", "others")
    drawn = list(run_pictures(experiment, run, lang))  # before those that are there are removed
    save_pictures(folder, drawn, svg=any((folder / FIGURES).glob("*.svg")))


def _page(run: Run, pictures: Sequence[Picture], say: Texts) -> str:
    config = run.choices
    rounds = say("rounds", run.rounds)
    algorithm = str(config.get("algorithm", "federated averaging"))
    lead = say("page_lead_short", rounds=rounds, algorithm=algorithm, folder=run.name)
    if isinstance(config.get("clients"), int):
        counted = say("about_clients" if config.get("sampling") == "poisson" else "clients", config["clients"])
        lead = say("page_lead", config["clients"], clients=counted, rounds=rounds)
    parts = [
        page.heading(say("heading_data")),
        *_data(run, say),
        *_shown(pictures, "data"),
        page.heading(say("heading_rounds")),
        *_training(run, say),
        *_shown(pictures, "rounds"),
        _round_table(run, say),
    ]
    if run.evaluation:
        parts += [page.heading(say("heading_evaluation")), *_evaluation(run, say), *_shown(pictures, "evaluation")]
    if any(picture.section == "model" for picture in pictures):
        parts += [page.heading(say("heading_model")), *_shown(pictures, "model")]
    parts += [page.heading(say("heading_repeat")), *_config(run, say)]
    return page.page(say("page_title"), lead, parts, say.lang)


def _shown(pictures: Iterable[Picture], section: str) -> list[str]:
    return [page.picture(p.png, p.alt, p.caption, p.width) for p in pictures if p.section == section]


def _data(run: Run, say: Texts) -> Iterator[str]:
    yield page.paragraph(say("who_writers" if run.is_handwriting else "who_anybody"))
    data = run.config.get("data")
    if isinstance(data, dict):
        rows = []
        for split, about in data.items():
            if isinstance(about, dict):
                sha, name = str(about.get("sha256", ""))[:12], Path(str(about.get("file", ""))).name
                rows.append([say.name("metric", split), name, about.get("clients", "-"), f"{sha}..."])
        if rows:  # what is drawn from a seed has no files
            yield page.table(say, [say("head_split"), say("head_file"), say("head_clients"), "SHA-256"], rows)
    yield from map(page.paragraph, _cohorts(run, say))


def _cohorts(run: Run, say: Texts) -> Iterator[str]:
    """Yield who took part, how many examples a round counted, and of how many these are repetitions."""
    table = run.clients
    ids, sizes = table.get("client_id", []), table.get("num_examples", [])
    rounds, statuses = (table.get(name, [default] * len(ids)) for name, default in (("round_num", 1), ("status", "ok")))
    rows = zip(rounds, ids, sizes, statuses, strict=False)
    shown = [row[:3] for row in rows if isinstance(row[2], int) and row[0] != 0 and row[3] != "absent"]
    if not shown:
        return
    totals = Counter[Any]()
    for number, _, size in shown:
        totals[number] += size
    is_same = run.choices.get("sampling") == "first" and len(totals) > 1
    yield say(
        "took_part_same" if is_same else "took_part",
        clients=say("clients", len({client_id for _, client_id, _ in shown})),
        of_round=_from_to(list(totals.values()), say),
        of_client=_from_to([size for *_, size in shown], say),
    )
    epochs, total = run.choices.get("epochs"), next(iter(totals.values()))
    if not isinstance(epochs, int) or epochs < 2 or run.choices.get("algorithm") == "fedsgd":
        return
    is_partial = "partial" in statuses
    if len(set(totals.values())) == 1 and total % epochs == 0 and not is_partial:
        what = say("images" if run.is_handwriting else "examples", total // epochs)
        yield say("repetitions", epochs, total=total, images=what)
    else:
        key = "repetitions_at_most" if is_partial else "repetitions_vary"
        yield say(key, epochs, what=say("own_images" if run.is_handwriting else "own_examples"))


def _from_to(counts: Sequence[int], say: Texts) -> str:
    least, greatest = min(counts), max(counts)
    return say.number(least) if least == greatest else say("from_to", least=least, greatest=greatest)


def _training(run: Run, say: Texts) -> Iterator[str]:
    config = run.choices
    server = _optimizer(config, "server", say)
    if config.get("algorithm") == "fedsgd":
        yield page.paragraph(say("training_fedsgd", server=server))
        yield page.paragraph(say("measured_fedsgd"))
    else:
        epochs, batch = config.get("epochs"), str(config.get("batch_size", say("some")))
        told = say("epochs", epochs) if isinstance(epochs, int) else say("some_epochs")
        client = _optimizer(config, "client", say)
        yield page.paragraph(say("training", epochs=told, batch=batch, client=client, server=server))
        yield page.paragraph(say("measured"))
    yield from map(page.paragraph, (*_participation(config, say), *_updates(config, say)))
    if run.promise:
        yield page.paragraph(say("promised", promise=say.promise(run.promise)))
    if run.seconds:
        yield page.paragraph(say("took_time", median=1e3 * statistics.median(run.seconds), total=sum(run.seconds)))
    if _total(run, "communication/bytes_up"):
        up, down = (say.amount(_total(run, f"communication/bytes_{way}")) for way in ("up", "down"))
        yield page.paragraph(say("sent", up=up, down=down, rounds=_rounds_with(run, "communication/bytes_up", say)))
    if _total(run, "network/seconds"):
        seconds, rounds = _total(run, "network/seconds"), _rounds_with(run, "network/seconds", say)
        yield page.paragraph(say("simulated_time", seconds=seconds, rounds=rounds))
    left_out = Counter(status for status in run.clients.get("status", ()) if status not in ("ok", "partial", "absent"))
    if left_out:
        counts = ", ".join(f"{say.number(n)} {say.name('status', str(status))}" for status, n in left_out.items())
        yield page.paragraph(say("left_out", counts=counts))


def _total(run: Run, column: str) -> float:
    return float(sum(value for value in run.history.get(column, ()) if math.isfinite(value)))


def _rounds_with(run: Run, column: str, say: Texts) -> str:
    """Return how many rounds have a value: those before an older version's run was gone on with have none."""
    known = sum(math.isfinite(value) for value in run.history[column])
    return say("all_rounds") if known == run.rounds else say("some_rounds", known=known, rounds=run.rounds)


def _participation(config: dict[str, Any], say: Texts) -> Iterator[str]:
    """Yield who of a round's clients was not there, or not for long."""
    if config.get("dropout"):
        yield say("clients_absent", share=str(config["dropout"]))
    if config.get("stragglers"):
        key = "stragglers_dropped" if config.get("drop_stragglers") is True else "stragglers"
        yield say(key, share=str(config["stragglers"]), least=str(config.get("min_epochs", 1)))


def _updates(config: dict[str, Any], say: Texts) -> Iterator[str]:
    """Yield what became of the updates, if they were not just averaged."""
    if config.get("aggregator", "mean") != "mean":
        rule, size = str(config["aggregator"]), config.get("bucket_size", 1)
        yield say("another_rule", rule=rule if size == 1 else say("of_buckets", rule=rule, size=str(size)))
    clip, noise = config.get("clip", "none"), config.get("noise_multiplier")
    if noise:
        yield say("clipped_adaptive" if clip == "none" else "clipped_noise", clip=str(clip), noise=str(noise))
    elif clip != "none":
        yield say("clipped", clip=str(clip))
    if config.get("compress", "none") != "none":
        yield say("compressed", how=str(config["compress"]))
    if config.get("attack", "none") != "none":
        yield say("attacked", attack=str(config["attack"]), who=str(config.get("attackers", say("some"))))


def _optimizer(config: dict[str, Any], who: str, say: Texts) -> str:
    if config.get(f"{who}_optimizer") is None:
        return say("no_optimizer")
    parts = [str(config[f"{who}_optimizer"])]
    for text, key in (("learning_rate", f"{who}_lr"), ("momentum", f"{who}_momentum")):
        if config.get(key):
            parts.append(say(text, value=str(config[key])))  # as it is typed
    return ", ".join(parts)


def _round_table(run: Run, say: Texts) -> str:
    names = [name for name in run.history if name.startswith((TRAIN, "evaluation/"))]
    names = [name for name in names or run.history if name != "round_num" and not _is_constant_count(run, name)]
    names.sort(key=lambda name: not name.startswith(TRAIN))
    header = [say.metric(name.removeprefix(TRAIN)) for name in names]
    count = len(run.history["round_num"])
    numbers, caption = list(range(count)), say("round_table")
    if count > _MOST_ROWS:
        step = math.ceil(count / _MOST_ROWS)
        caption = say("round_table_part", step=step, rows=count)
        numbers = [*numbers[:-1:step], numbers[-1]]
    columns = [column(run.history[name]) for name in ("round_num", *names)]
    rows = [["-" if math.isnan(of[i]) else of[i] for of in columns] for i in numbers]
    return page.table(say, [say("round"), *header], rows, caption)


def _is_constant_count(run: Run, name: str) -> bool:
    """Return whether a column counts the same examples or batches in every round."""
    return name.rpartition("/")[2].startswith("num_") and len({v for v in run.history[name] if not math.isnan(v)}) < 2


def _evaluation(run: Run, say: Texts) -> Iterator[str]:
    columns = list(dict.fromkeys(name for metrics in run.evaluation.values() for name in metrics))
    rows = [
        [say.name("metric", split), *(metrics.get(name) for name in columns)]
        for split, metrics in run.evaluation.items()
    ]
    config = run.choices
    most, epochs = config.get("evaluation_clients"), config.get("epochs")
    if config.get("evaluate_as_trained", run.config.get("command") == "tutorial") and isinstance(epochs, int):
        yield page.paragraph(say("evaluated_as_trained", epochs))
    elif isinstance(most, int):
        yield page.paragraph(say("evaluated_some", clients=say("clients", most)))
    else:
        yield page.paragraph(say("evaluated_once"))
    yield page.table(say, [say("head_examples_of"), *(say.name("metric", name) for name in columns)], rows)


def _config(run: Run, say: Texts) -> Iterator[str]:
    versions = run.config.get("versions", {})
    if isinstance(run.config.get("command_line"), str):
        yield page.paragraph(say("command"))
        yield page.code(run.config["command_line"])
    elif isinstance(run.config.get("choices"), dict):
        yield page.paragraph(say("command_in_folder"))
        yield page.code("fedsim-np train --config config.json --out " + say("another_folder"))
    if isinstance(versions, dict) and versions:
        rows = [[name, str(version)] for name, version in versions.items()]
        yield page.table(say, [say("head_with"), say("head_version")], rows)
    yield page.paragraph(say("whole_configuration"))
    yield page.code(json.dumps(run.config, indent=2, ensure_ascii=False))
