"""Check the answer to an exercise of a lab."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsim_np.errors import did_you_mean, shown, unknown_name
from fedsim_np.labs.exercises import Exercise, Verdict
from fedsim_np.labs.source import labs
from fedsim_np.texts import LANGUAGES


class LabError(ValueError):
    """An exercise, a lab or a language that there is not; a notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"LabError: {self}"]


def exercises(lab: str) -> Mapping[str, Exercise]:
    """Return a lab's exercises by their names.

    Examples
    --------
    >>> list(exercises("1"))[:2]
    ['1.1', '1.2']
    """
    found: Mapping[str, Exercise] = importlib.import_module(f"fedsim_np.labs.lab_{_known_lab(lab)}").EXERCISES
    return found


@dataclass(frozen=True)
class Checker:
    """`check`, of one lab and in one language.

    Attributes
    ----------
    lab : str
    lang : str
    """

    lab: str
    lang: str = "en"

    def __call__(self, exercise: str, answer: Any = ...) -> Verdict:
        """Return what is to be said of an answer, see `check`."""
        known = exercises(self.lab)
        name = str(exercise).strip() if isinstance(exercise, str | int | float) else shown(exercise)
        if name not in known:
            names = list(known)
            there = f"lab {self.lab} has the exercises {', '.join(names)}"
            raise LabError(
                f"'exercise' must be a text that names one: {there}. Got {shown(exercise)}." + did_you_mean(name, names)
            )
        return known[name].judge(name, answer, self.lang)


def checker(lab: str | int, lang: str = "en") -> Checker:
    """Return `check` for one lab, in one language: what a notebook's first cell makes.

    Parameters
    ----------
    lab : str or int
        Its number.
    lang : str
        "en" or "es".

    Returns
    -------
    Checker
        Called as ``check(exercise, answer)``.

    Raises
    ------
    LabError
        If there is no such lab or language.

    Examples
    --------
    >>> checker("1", lang="es")("1.1", ...).heading
    'Sin responder todavía.'
    """
    if lang not in LANGUAGES:
        raise LabError(str(unknown_name("lang", LANGUAGES, lang)))
    return Checker(_known_lab(lab), lang)


def check(exercise: str, answer: Any = ..., lang: str = "en") -> Verdict:
    """Check the answer to an exercise.

    Parameters
    ----------
    exercise : str
        Such as "1.3": the third of lab 1.
    answer : object
        In any form that says it: 0.25, "1/4", an array of one number; "b" or "B"; yes, "sí" or True; a function where
        one is asked for. ``...`` is no answer yet.
    lang : str
        "en" or "es".

    Returns
    -------
    Verdict
        Whether it is right, and why; shown by a notebook, or by ``print``.

    Raises
    ------
    LabError
        If there is no such exercise or language.

    Examples
    --------
    >>> check("1.1", "none").is_right
    False
    >>> check("1.99", 0.5)
    Traceback (most recent call last):
    ...
    fedsim_np.labs.checking.LabError: 'exercise' must be a text that names one: lab 1 has the exercises 1.1, 1.2, 1.3,
    1.4, 1.5, 1.6, 1.7, 1.8. Got '1.99'.
    """
    return checker(str(exercise).strip().partition(".")[0], lang)(exercise, answer)


def _known_lab(lab: str | int) -> str:
    names = [found.number for found in labs()]
    if str(lab) not in names:
        raise LabError(str(unknown_name("lab", names, lab)))
    return str(lab)
