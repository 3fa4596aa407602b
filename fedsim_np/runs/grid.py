"""Which runs a study is made of: choices that all share, lists of values, cases, seeds; each run with a name."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedsim_np.datasets.named import absolute_prefix
from fedsim_np.errors import DataError, check_float, check_int, data_error, did_you_mean
from fedsim_np.forking import cached_property
from fedsim_np.runs.config import RunConfig
from fedsim_np.runs.effects import no_effect

_NAMES = tuple(field.name for field in dataclasses.fields(RunConfig))
_MOST_RUNS = 10_000
_MOST_LETTERS = 40, 120  # of a value in a folder's name, and of the whole name


@dataclass(frozen=True)
class Planned:
    """A run of a grid.

    Attributes
    ----------
    name : str
        Of its folder: what varies, as in ``algorithm=fedavg,client_lr=0.02,seed=0``.
    varied : dict of str to Any
        Key -> value, of its case and its place in the grid; the seed is the last.
    config : RunConfig
    """

    name: str
    varied: Mapping[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Grid:
    """What a study varies.

    Attributes
    ----------
    mapping : dict
        As it was given, see `of`.
    runs : tuple of Planned
        Case by case; in each every combination of the grid's values, the last key's the fastest; in each every seed.
    keys : tuple of str
        What varies, but for the seed: the keys of the cases, then those of the grid.
    axes : tuple of tuple of str
        The same as parameters: all keys of the cases are one, each of the grid's is one.
    targets : tuple of float
        What a run is to reach: an accuracy, or, where labels are numbers, a squared error.
    """

    mapping: Mapping[str, Any]
    runs: tuple[Planned, ...]
    keys: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]
    targets: tuple[float, ...]

    @classmethod
    def of(cls, mapping: Mapping[str, Any], source: str | None = None) -> Grid:
        """Make a grid of a mapping, such as a file's.

        Parameters
        ----------
        mapping : mapping
            Choices of a run, which all have; and "grid": key -> list of values, of which every combination is run;
            "cases": a list of mappings, each of which sets several keys; "seeds": how many, from 0 on, or a list;
            "targets": a list of accuracies.
        source : str, optional
            The file that it was read from, for errors.

        Raises
        ------
        DataError
            If a key is none of a run's, a value is out of its range, or two runs are the same: the message names
            file, key and run.

        Examples
        --------
        >>> grid = Grid.of({"rounds": 5, "grid": {"client_lr": [0.02, 0.1]}, "seeds": 2})
        >>> for run in grid.runs:
        ...     print(run.name)
        client_lr=0.02,seed=0
        client_lr=0.02,seed=1
        client_lr=0.1,seed=0
        client_lr=0.1,seed=1
        """
        choices = _table("choices", mapping, source)
        lists = _table("grid", choices.pop("grid", {}), source)
        given = choices.pop("cases", [])
        if not isinstance(given, list | tuple):
            raise data_error("must be a list of tables, [[cases]]", type(given).__name__, path=source, field="cases")
        cases = [_table("cases", case, source) for case in given]
        for name, keys in (("the file", choices), ("grid", lists), *(("cases", case) for case in cases)):
            _check_keys(keys, name, source)
        twice = sorted((set(choices) | {key for case in cases for key in case}) & set(lists))
        if twice:
            raise data_error("a key of the grid must be there once", f"{twice[0]!r} elsewhere too", path=source)
        for key, values in lists.items():
            if not isinstance(values, list | tuple) or not values:
                raise data_error("must be a list of values", repr(values)[:50], path=source, field=f"grid.{key}")
        targets = _targets(choices.pop("targets", []), source)
        seeds = _seeds(choices, lists, cases, source)
        count = max(1, len(cases)) * math.prod(map(len, lists.values())) * len(seeds)
        if count > _MOST_RUNS:
            raise data_error(f"a study must have at most {_MOST_RUNS:,} runs", f"{count:,}", path=source)
        runs = tuple(_planned(choices, cases or [{}], lists, seeds, source))
        named: dict[Any, str] = {}
        for run in runs:
            for same in (run.config, run.name):
                if same in named:
                    found = f"'{named[same]}' and '{run.name}'"
                    raise data_error("the runs of a study must differ", found, path=source)
                named[same] = run.name
        of_cases = tuple(dict.fromkeys(key for case in cases for key in case))
        axes = (of_cases,) * bool(of_cases) + tuple((key,) for key in lists)
        return cls(dict(mapping), runs, (*of_cases, *lists), axes, targets)

    def check_effect(self, source: str | None = None) -> None:
        """Refuse a key that changes nothing in any run that it is given for.

        That is not looked at where a grid is read back: earlier versions let such keys pass.

        Raises
        ------
        DataError
            It names the file, the key and beside what it changes nothing.
        """
        given = {_key(key): value for key, value in self.mapping.items()}
        cases = [{_key(key) for key in case} for case in given.get("cases") or ()]
        of_case = len(self.runs) // max(1, len(cases))
        effects = [run.config.without_effect() for run in self.runs]
        for name in (*given, *map(_key, given.get("grid") or ())):
            _check_effect(name, effects, source)
        for number, case in enumerate(cases):
            for name in case:
                _check_effect(name, effects[number * of_case : (number + 1) * of_case], source)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Those of the keys that have more than one value, or are not set in all cases."""
        return tuple(key for key in self.keys if len({shown(run.varied.get(key)) for run in self.runs}) > 1)

    def label(self, run: Planned) -> str:
        """Return what sets a run apart, but for its seed: the text of a legend, empty if that is nothing."""
        keys = [key for key in self.varying if key in run.varied]
        return ", ".join(f"{key}={shown(run.varied[key])}" for key in keys)


def _key(key: object) -> str:
    return str(key).replace("-", "_")


def _table(name: str, table: Any, source: str | None) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise data_error("must be a table of keys and values", type(table).__name__, path=source, field=name)
    keys = [*map(_key, table)]
    if len(set(keys)) < len(keys):
        raise data_error("a key must be there once, with - or _ in it", keys, path=source, field=name)
    return dict(zip(keys, table.values(), strict=True))


def _check_keys(table: Mapping[str, Any], name: str, source: str | None) -> None:
    more = ("grid", "cases", "seeds", "targets") if name == "the file" else ()
    for key in table:
        if key not in (*_NAMES, *more):
            rule = f"keys of {name} must be a run's choices{', grid, cases, seeds or targets' * bool(more)}"
            raise data_error(rule, repr(key)[:50], path=source, hint=did_you_mean(key, (*_NAMES, *more)))
        if key == "seed" and not more:
            raise data_error(f"keys of {name} must be none of the seeds'", "'seed': use 'seeds'", path=source)


def _check_effect(name: str, effects: list[dict[str, str]], source: str | None) -> None:
    beside = [where[name] for where in effects if name in where]
    if len(beside) == len(effects):
        place = "" if source is None else f"file '{source}': "
        raise DataError(place + no_effect(repr(name), " or ".join(sorted(set(beside))[:3])))


def _targets(given: Any, source: str | None) -> tuple[float, ...]:
    try:
        targets = tuple(check_float("targets", value, minimum=0.0) for value in given)
    except (TypeError, ValueError) as error:
        rule = "must be a list of numbers"
        raise data_error(rule, str(error).rstrip("."), path=source, field="targets") from error
    if len(set(targets)) < len(targets):
        raise data_error("must differ", given, path=source, field="targets")
    return targets


def _seeds(
    choices: dict[str, Any], lists: Mapping[str, Any], cases: list[dict[str, Any]], source: str | None
) -> list[int]:
    """Return the seeds, and take them out of the choices."""
    given = choices.pop("seeds", None)
    if given is None:
        return [choices.pop("seed", RunConfig.seed)]
    if "seed" in choices:
        raise data_error("must be left out where there are 'seeds'", choices["seed"], path=source, field="seed")
    try:
        if not isinstance(given, list | tuple):
            count = check_int("seeds", given, minimum=1)
            return list(range(min(count, _MOST_RUNS + 1)))
        seeds = [check_int("seeds", seed, minimum=0) for seed in given]
    except (TypeError, ValueError) as error:
        raise data_error("must be a count or a list", str(error).rstrip("."), path=source, field="seeds") from error
    if not seeds or len(set(seeds)) < len(seeds):
        raise data_error("must be different integers, at least one", seeds[:20], path=source, field="seeds")
    return seeds


def _planned(
    choices: Mapping[str, Any],
    cases: list[dict[str, Any]],
    lists: Mapping[str, Any],
    seeds: list[int],
    source: str | None,
) -> Iterator[Planned]:
    for case, *values, seed in itertools.product(cases, *lists.values(), seeds):
        asked = {**case, **dict(zip(lists, values, strict=True)), "seed": seed}
        chosen = {**choices, **asked}
        if isinstance(chosen.get("data"), str):
            chosen["data"] = absolute_prefix(chosen["data"])
        try:
            config = RunConfig(**chosen)
        except ValueError as error:
            which = ", ".join(f"{key}={value!r}" for key, value in asked.items())[:200]
            rule = f"the choices of every run must be in range, also of {which}"
            raise data_error(rule, str(error).rstrip("."), path=source) from error
        varied = {key: value if key == "data" else getattr(config, key) for key, value in asked.items()}
        yield Planned(_name(varied), varied, config)


def shown(value: Any) -> str:
    """Return a value as it is written in a file of choices, numbers as shortly as they can be.

    Examples
    --------
    >>> [shown(value) for value in (0.02, 1.0, 1e-5, True, "mlp")]
    ['0.02', '1', '1e-05', 'true', 'mlp']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _name(varied: Mapping[str, Any]) -> str:
    """Return a folder's name that all systems can have; what is left out or changed is known by a hash."""
    of_value, of_name = _MOST_LETTERS
    name = ",".join(f"{key}={_portable(shown(value), of_value)}" for key, value in varied.items())
    return name if len(name) <= of_name else f"{name[: of_name - 13]}_{_digest(name, 12)}"


def _portable(text: str, most: int) -> str:
    # Lower case alone: to Windows and macOS two names that differ in case are one.
    plain = re.sub("[^a-z0-9._+-]", "-", text.lower())
    return text if text == plain and len(text) <= most else f"{plain[: most - 7]}_{_digest(text, 6)}"


def _digest(text: str, letters: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:letters]
