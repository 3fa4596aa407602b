"""From configurations to the texts of a legend: what runs differ in, and which are repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedsim_np.errors import argument_error, check_type
from fedsim_np.plots.checks import as_list
from fedsim_np.program import flatten
from fedsim_np.texts import Texts

History = Mapping[str, Sequence[Any]]
"""What `fedsim_np.program.MemoryLogger` keeps: ``round_num`` and a column a metric."""


def legend_from_configs(
    configs: Iterable[Mapping[str, Any]], ignore: Iterable[str] = (), *, lang: str = "en"
) -> list[str]:
    """Return a text for each of several configurations: only what they differ in.

    Parameters
    ----------
    configs : iterable of mappings
        May be nested; a key inside is named by its path, ``client/lr``.
    ignore : iterable of str
        Keys that are not looked at, such as "seed": whole paths, or their last parts.
    lang : {"en", "es"}

    Returns
    -------
    list of str
        Equal configurations have equal texts; if all are equal, each is "all runs".

    Examples
    --------
    >>> legend_from_configs([{"client_lr": 0.02, "rounds": 10}, {"client_lr": 0.1, "rounds": 10}])
    ['client_lr=0.02', 'client_lr=0.1']
    >>> legend_from_configs([{"algorithm": "FedAvg"}, {"algorithm": "FedProx", "mu": 0.1}])
    ['algorithm=FedAvg, no mu', 'algorithm=FedProx, mu=0.1']
    """
    say = Texts(lang)
    ignored = {check_type("ignore", key, str, "the name of a field") for key in as_list("ignore", ignore, "keys")}
    flat = []
    for config in as_list("configs", configs, "mappings"):
        check_type("configs", config, Mapping, "a list of mappings")
        kept = {key: value for key, value in flatten(config).items() if ignored.isdisjoint((key, key.split("/")[-1]))}
        flat.append({key: str(value) for key, value in kept.items()})
    keys = dict.fromkeys(key for config in flat for key in config)
    differing = [key for key in keys if len({config.get(key) for config in flat}) > 1]
    texts = [", ".join(f"{k}={c[k]}" if k in c else say("no_key", key=k) for k in differing) for c in flat]
    return [text or say("all_runs") for text in texts]


def histories_by_config(
    configs: Sequence[Mapping[str, Any]], histories: Sequence[History], seed: str = "seed", *, lang: str = "en"
) -> dict[str, list[History]]:
    """Group runs for `learning_curves`: those whose configurations differ in the seed alone are one line with a band.

    Parameters
    ----------
    configs : sequence of mappings
        One a run.
    histories : sequence of mappings
        One a run, in the same order.
    seed : str
        The key in which repetitions of a run differ.
    lang : {"en", "es"}

    Returns
    -------
    dict of str to list
        Legend text -> histories.

    Examples
    --------
    >>> configs = [{"lr": lr, "seed": seed} for lr in (0.02, 0.1) for seed in (1, 2)]
    >>> runs = [{"round_num": [1], "loss": [config["lr"] * config["seed"]]} for config in configs]
    >>> {text: [run["loss"] for run in group] for text, group in histories_by_config(configs, runs).items()}
    {'lr=0.02': [[0.02], [0.04]], 'lr=0.1': [[0.1], [0.2]]}
    """
    configs = as_list("configs", configs, "mappings")
    histories = as_list("histories", histories, "histories")
    check_type("seed", seed, str, "a key")
    if len(configs) != len(histories):
        raise argument_error("histories", f"as many as there are configs ({len(configs)})", len(histories))
    grouped: dict[str, list[History]] = {}
    for text, history in zip(legend_from_configs(configs, ignore=[seed], lang=lang), histories, strict=True):
        grouped.setdefault(text, []).append(history)
    return grouped
