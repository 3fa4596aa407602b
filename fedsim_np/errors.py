"""What bad data and bad arguments are answered with.

Two kinds of mistake are told apart. *Data* that break a rule (a file, a client, a field) raise `DataError`, which
names the place, the rule and what was found there. *Arguments* that break a rule raise a plain `ValueError` or
`TypeError` that names the parameter, the rule and the value. Both kinds are raised before anything is changed.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_LONGEST = 200  # characters of a value in a message
_LONGEST_MESSAGE = 2_000
# What a terminal obeys instead of showing it: control characters, and marks that turn the direction of writing.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shortened(text: str, most: int = _LONGEST_MESSAGE) -> str:
    """Return a text, or its start and how long it was: what a file holds may be megabytes.

    Examples
    --------
    >>> shortened("a" * 10**6, most=50)
    'aaaaaaaaaaaaaaaaaaaaaaaaaa... (1000000 characters)'
    """
    if len(text) <= most:
        return text
    end = f"... ({len(text)} characters)"
    return text[: max(0, most - len(end))] + end


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey written out.

    Examples
    --------
    >>> print(printable("ann\x1b[31m"))
    ann\x1b[31m
    """
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class CommandError(ValueError):
    """What was asked for cannot be done as it was given: for a command one line and status 2."""


class DataError(ValueError):
    """Data that break a rule: the message names file, client, field, rule and what was found.

    Examples
    --------
    >>> raise data_error("values must lie in [0, 1]", "1.5 at index (3, 0, 0)", client_id="f0000_14", field="pixels")
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: client 'f0000_14', field 'pixels': values must lie in [0, 1].
    Got 1.5 at index (3, 0, 0).
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def data_error(
    rule: str,
    found: object,
    *,
    path: str | os.PathLike[str] | None = None,
    client_id: str | None = None,
    field: str | None = None,
    hint: str = "",
) -> DataError:
    """Make the `DataError` for a rule that was broken at a place.

    Parameters
    ----------
    rule : str
        What must hold, as a clause: "values must be finite".
    found : object
        What was found instead; its text ends the message.
    path, client_id, field : optional
        Where it was found, as far as known.
    hint : str
        What follows, such as what `did_you_mean` returns.

    Returns
    -------
    DataError
        To be raised by the caller.

    Examples
    --------
    >>> str(data_error("must have 'examples'", "no such group", path="digits.h5"))
    "file 'digits.h5': must have 'examples'. Got no such group."
    """
    named = {"file": None if path is None else os.fspath(path), "client": client_id, "field": field}
    place = ", ".join(f"{kind} '{name}'" for kind, name in named.items() if name is not None)
    return DataError(f"{place}{': ' if place else ''}{rule}. Got {found}.{hint}")


def no_such_file(path: str | os.PathLike[str], hint: str = "") -> DataError:
    """Make the `DataError` for a file that is not there.

    Examples
    --------
    >>> str(no_such_file("digits.h5"))
    "file 'digits.h5' does not exist."
    """
    return DataError(f"file '{os.fspath(path)}' does not exist.{hint}")


class NamingClient:
    """Put the client into a `DataError` that comes from code that does not know whose data it has.

    Examples
    --------
    >>> with NamingClient("ann"):
    ...     raise data_error("labels must lie in [0, 9]", 10, field="y")
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: client 'ann', field 'y': labels must lie in [0, 9]. Got 10.
    """

    __slots__ = ("_client_id",)

    def __init__(self, client_id: str | None) -> None:
        self._client_id = client_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DataError) and self._client_id is not None and self._name not in str(error):
            raise DataError(f"{self._name}, {error}") from error

    @property
    def _name(self) -> str:
        return f"client '{self._client_id}'"


class NamingDataFile:
    """Put the file into a `DataError` that comes from code that does not know what it was read from.

    Examples
    --------
    >>> with NamingDataFile("a.csv"):
    ...     raise data_error("labels must lie in [0, 9]", 10, field="y")
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: file 'a.csv', field 'y': labels must lie in [0, 9]. Got 10.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DataError):
            raise DataError(f"file '{self._path}', {error}") from error


def argument_error(name: str, rule: str, value: object) -> ValueError:
    """Make the `ValueError` for an argument that breaks a rule.

    Examples
    --------
    >>> str(argument_error("learning_rate", "a finite float >= 0", -0.02))
    "'learning_rate' must be a finite float >= 0. Got -0.02."
    """
    return ValueError(shortened(f"'{name}' must be {rule}. Got {shown(value)}."))


def unknown_name(name: str, names: Iterable[str], value: object) -> ValueError:
    """Make the `ValueError` for an argument that is none of the names that there are.

    Examples
    --------
    >>> str(unknown_name("model", ["linear", "softmax"], "sofmax"))
    "'model' must be one of linear, softmax. Got 'sofmax'. Did you mean 'softmax'?"
    """
    names = list(names)
    rule = f"'{name}' must be one of {', '.join(names)}. Got {shown(value)}."
    return ValueError(shortened(rule + did_you_mean(value, names)))


def did_you_mean(value: object, names: Iterable[str], about: Mapping[str, str] | None = None) -> str:
    """Return what to add to an error: the names that a mistyped one may stand for, if there are any.

    Parameters
    ----------
    value : object
        What was found; anything but a text is like no name.
    names : iterable of str
    about : mapping of str to str, optional
        Name -> what it is said to be: "learning-rate" is found by its words.

    Examples
    --------
    >>> did_you_mean("tutoral", ["train", "tutorial"]), did_you_mean("xyz", ["train", "tutorial"])
    (" Did you mean 'tutorial'?", '')
    >>> did_you_mean("--lr", ["--l2", "--client-lr", "--server-lr"])
    " Did you mean '--client-lr' or '--server-lr'?"
    """
    names = [name for name in names if isinstance(name, str)]
    if not isinstance(value, str) or len(value) > _LONGEST or value in names:
        return ""
    import difflib  # where something has gone wrong already, and not in every program that starts

    found = value.strip().lower()
    words = _words(found)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.8)
    close = close or [name for name in names if words and words <= _words(name)]
    close = close or difflib.get_close_matches(found, names, n=2)
    close = close or [name for name in names if words and words <= _words((about or {}).get(name, ""))]
    return f" Did you mean {' or '.join(map(repr, close[:3]))}?" if close else ""


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z0-9]+", text.lower()))


def argument_type_error(name: str, rule: str, value: object) -> TypeError:
    """Make the `TypeError` for an argument of the wrong kind.

    Examples
    --------
    >>> str(argument_type_error("model_fn", "a callable that returns a Model", 3))
    "'model_fn' must be a callable that returns a Model. Got 3."
    """
    return TypeError(shortened(f"'{name}' must be {rule}. Got {shown(value)}."))


def shown(value: object) -> str:
    """Return a value as one short line: a table of numbers would hide what is said of it."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python writes
        text = "a number too long to be written"
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({type(value).__name__})"


def check_float(name: str, value: Any, *, minimum: float = -math.inf, below: float = math.inf) -> float:
    """Return `value` as a float, or raise if it is not finite and in [minimum, below).

    Examples
    --------
    >>> check_float("momentum", 0.9, minimum=0.0, below=1.0)
    0.9
    >>> check_float("momentum", 1, minimum=0.0, below=1.0)
    Traceback (most recent call last):
    ...
    ValueError: 'momentum' must be a finite float >= 0 and < 1. Got 1.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not _is_finite(value) or not minimum <= value < below:
        bounds = [f">= {minimum:g}"] * (minimum > -math.inf) + [f"< {below:g}"] * (below < math.inf)
        raise argument_error(name, " ".join(["a finite float", " and ".join(bounds)]).strip(), value)
    return float(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the floats
        return False


def check_type(name: str, value: T, kinds: Any, rule: str) -> T:
    """Return `value` if it is an instance of `kinds`, or raise.

    Examples
    --------
    >>> check_type("metrics", [2.5], dict, "a mapping")
    Traceback (most recent call last):
    ...
    TypeError: 'metrics' must be a mapping. Got [2.5].
    """
    if not isinstance(value, kinds):
        raise argument_type_error(name, rule, value)
    return value


def check_bool(name: str, value: bool) -> bool:
    """Return `value` if it is True or False, or raise: a text is true too.

    Examples
    --------
    >>> check_bool("nesterov", "no")
    Traceback (most recent call last):
    ...
    TypeError: 'nesterov' must be True or False. Got 'no'.
    """
    return check_type(name, value, bool, "True or False")


def check_int(name: str, value: Any, *, minimum: int | None = None) -> int:
    """Return `value` as an int, or raise if it is no integer or too small.

    Examples
    --------
    >>> check_int("batch_size", 0, minimum=1)
    Traceback (most recent call last):
    ...
    ValueError: 'batch_size' must be an integer >= 1. Got 0.
    """
    if type(value) is int and (minimum is None or value >= minimum):
        return value
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or (minimum is not None and value < minimum):
        bound = "" if minimum is None else f" >= {minimum}"
        raise argument_error(name, f"an integer{bound}", value)
    return int(value)


def check_parts(name: str, value: Any, *parts: str) -> Any:
    """Return a tuple of these parts, of which metrics are a mapping, or raise if it is none.

    Examples
    --------
    >>> check_parts("next of Mean", ({}, 4), "state", "aggregate", "metrics")
    Traceback (most recent call last):
    ...
    TypeError: 'next of Mean' must be (state, aggregate, metrics). Got ({}, 4).
    """
    fits = isinstance(value, tuple | list) and len(value) == len(parts)
    if not fits or (parts[-1] == "metrics" and not isinstance(value[-1], Mapping)):
        raise argument_type_error(name, f"({', '.join(parts)})", value)
    return value


def check_path(name: str, value: Any) -> str:
    """Return a path as a text, or raise if it is none, or empty.

    Examples
    --------
    >>> check_path("root_dir", None)
    Traceback (most recent call last):
    ...
    TypeError: 'root_dir' must be a path. Got None.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise argument_type_error(name, "a path", value)
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise argument_error(name, "a path, not empty and without NUL", value)
    return os.fspath(value)
