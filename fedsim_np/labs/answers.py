"""Kinds of answers: what an exercise asks for, the forms that are taken for it, and when two are the same.

Every kind reads an answer into a value of its own (`Kind.read`); one that it cannot read is told what was asked for.
"""

from __future__ import annotations

import abc
import copy
import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import shown
from fedsim_np.labs.languages import Text
from fedsim_np.labs.reading import Array, UnansweredError, UnreadableError, is_open, numbers_of

_YES = {"yes", "y", "true", "t", "1", "sí", "si", "s", "verdadero", "cierto", "v"}
_NO = {"no", "n", "false", "f", "0", "falso"}
_CALLED_A_LETTER = re.compile(r"^\s*(?:answer|option|respuesta|opción)\s+", re.IGNORECASE)


class Kind(abc.ABC):
    """A kind of answer."""

    @property
    @abc.abstractmethod
    def asks(self) -> Text:
        """Return what is asked for, as a noun."""

    @property
    @abc.abstractmethod
    def sample(self) -> Text:
        """Return an answer of this kind, as code."""

    @abc.abstractmethod
    def read(self, answer: Any, lang: str) -> Any:
        """Return the value of an answer, or raise UnreadableError or UnansweredError."""

    @abc.abstractmethod
    def same(self, value: Any, other: Any) -> bool:
        """Return whether two values that were read are the same answer."""

    def is_rounded(self, value: Any, right: Any) -> bool:
        """Return whether a value would be the right one, had it not been rounded so far."""
        return False

    def shown(self, value: Any) -> str:
        """Return a value as a text."""
        return str(value)


@dataclass(frozen=True)
class Number(Kind):
    """A number; also as a text ("1/4", "25 %", "0,25", "w = 0.25"), a NumPy scalar, or an array of one.

    Attributes
    ----------
    rtol, atol : float
        The answer is right within ``rtol |right| + atol``; without both it is a whole number.
    units : tuple of str
        Words that may follow the number in a text, in either language.
    """

    rtol: float = 0.01
    atol: float = 0.0
    units: tuple[str, ...] = ()

    @property
    def asks(self) -> Text:
        """Return what is asked for."""
        if not self.rtol and not self.atol:
            return Text("a whole number", "un número entero")
        within = _within(self.rtol, self.atol)
        return Text(f"a number ({within.en})", f"un número ({within.es})")

    @property
    def sample(self) -> Text:
        """Return an answer of this kind."""
        return _in_both("0.25" if self.rtol or self.atol else "3")

    def read(self, answer: Any, lang: str) -> float:
        """Return the number.

        Examples
        --------
        >>> [Number().read(answer, "en") for answer in (0.25, "1/4", "25 %", "0,25", np.float32([[0.25]]), "1,000")]
        [0.25, 0.25, 0.25, 0.25, 0.25, 1000.0]
        >>> Number(units=("rounds", "rondas")).read("73 rounds", "en")
        73.0
        """
        given = answer
        if isinstance(answer, str) and self.units:
            answer = re.sub(rf"(?:\s*\b(?:{'|'.join(self.units)})\b)+\W*$", "", answer, flags=re.IGNORECASE)
        found = numbers_of(answer, lang)
        if len(found) != 1:
            raise UnreadableError(Text(f"These are {len(found)} numbers.", f"Son {len(found)} números."))
        number = float(found[0])
        if not (self.rtol or self.atol or number.is_integer()):
            raise UnreadableError(Text(f"Got {shown(given)}.", f"Se ha dado {shown(given)}."))
        return number

    def same(self, value: float, other: float) -> bool:
        """Return whether `value` is near `other`."""
        return abs(value - other) <= self.rtol * abs(other) + self.atol + 1e-12

    def is_rounded(self, value: float, right: float) -> bool:
        """Return whether `value` is `right` with few digits, and not far from it.

        Examples
        --------
        >>> [Number().is_rounded(value, 4.155) for value in (4.2, 4, 4.3)], Number().is_rounded(10, 14)
        ([True, True, False], False)
        """
        is_near = bool(self.rtol or self.atol) and abs(value - right) < 0.11 * abs(right)
        return is_near and any(value == float(f"{right:.{digits}g}") for digits in (1, 2, 3))

    def shown(self, value: float) -> str:
        """Return a number as a text."""
        return f"{value:.4g}"


@dataclass(frozen=True)
class Numbers(Kind):
    """Some numbers, in order: a list, a tuple, an array of any shape, or a text with spaces or semicolons between.

    Attributes
    ----------
    count : int
    rtol, atol : float
        As for `Number`, each of them.
    """

    count: int
    rtol: float = 0.01
    atol: float = 0.0

    @property
    def asks(self) -> Text:
        """Return what is asked for."""
        within = _within(self.rtol, self.atol)
        return Text(f"{self.count} numbers in order ({within.en})", f"una lista de {self.count} números ({within.es})")

    @property
    def sample(self) -> Text:
        """Return an answer of this kind."""
        return _in_both(str([0.25] * self.count))

    def read(self, answer: Any, lang: str) -> Array:
        """Return the numbers, flat.

        Examples
        --------
        >>> Numbers(3).read("[0, 1/4, 0.5]", "en"), Numbers(2).read("0,5; 2", "es")
        (array([0.  , 0.25, 0.5 ]), array([0.5, 2. ]))
        """
        if isinstance(answer, str):
            answer = [part for part in re.split(r"\s*;\s*|,?\s+|,$", answer.strip(" ()[]")) if part]
        found = numbers_of(answer, lang)
        if len(found) != self.count:
            got = len(found)
            raise UnreadableError(Text(f"{got} were given.", f"Se {'ha dado' if got == 1 else 'han dado'} {got}."))
        return found

    def same(self, value: Array, other: Array) -> bool:
        """Return whether all of `value` are near those of `other`."""
        return bool(np.all(np.abs(value - other) <= self.rtol * np.abs(other) + self.atol + 1e-12))

    def shown(self, value: Array) -> str:
        """Return numbers as a text."""
        return _listed(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of the letters of a question.

    Attributes
    ----------
    letters : str
        Such as "ABC".
    """

    letters: str

    @property
    def asks(self) -> Text:
        """Return what is asked for."""
        *first, last = list(self.letters)
        return Text(f"a letter: {', '.join(first)} or {last}", f"una letra: {', '.join(first)} o {last}")

    @property
    def sample(self) -> Text:
        """Return an answer of this kind."""
        return _in_both(f'"{self.letters[0]}"')

    def read(self, answer: Any, lang: str) -> str:
        """Return the letter as a capital.

        Examples
        --------
        >>> [Choice("AB").read(answer, "en") for answer in ("b", " B ", "b)", ["B"], "answer B")]
        ['B', 'B', 'B', 'B', 'B']
        """
        if isinstance(answer, list | tuple) and len(answer) == 1:
            answer = answer[0]
        letter = _CALLED_A_LETTER.sub("", answer).strip(" ().\"'").upper() if isinstance(answer, str) else ""
        if len(letter) != 1 or letter not in self.letters:
            raise UnreadableError(Text(f"Got {shown(answer)}.", f"Se ha dado {shown(answer)}."))
        return letter

    def same(self, value: str, other: str) -> bool:
        """Return whether two letters are the same."""
        return value == other


@dataclass(frozen=True)
class YesNo(Kind):
    """Yes or no, in either language, or True or False."""

    @property
    def asks(self) -> Text:
        """Return what is asked for."""
        return Text("yes or no", "sí o no")

    @property
    def sample(self) -> Text:
        """Return an answer of this kind."""
        return Text('"yes"', '"sí"')

    def read(self, answer: Any, lang: str) -> bool:
        """Return True for yes.

        Examples
        --------
        >>> [YesNo().read(answer, "es") for answer in ("Sí", "si", np.True_, "no", 0, "No, porque...")]
        [True, True, True, False, False, False]
        """
        word = re.split(r"[,;:.]\s", str(answer), maxsplit=1)[0].strip(" .!¡").lower()
        if not isinstance(answer, str | bool | np.bool_ | numbers.Integral) or word not in _YES | _NO:
            raise UnreadableError(Text(f"Got {shown(answer)}.", f"Se ha dado {shown(answer)}."))
        return word in _YES

    def same(self, value: bool, other: bool) -> bool:
        """Return whether both are yes, or both no."""
        return value is other

    def shown(self, value: bool) -> str:
        """Return yes or no in no language."""
        return str(value)


@dataclass(frozen=True)
class Function(Kind):
    """A function, known by what it returns.

    Attributes
    ----------
    signature : str
        How it is called, such as "mean(values, weights)".
    inputs : tuple of tuples
        The arguments with which it is called.
    rtol, atol : float
        As for `Number`, of each number that it returns.
    """

    signature: str
    inputs: tuple[tuple[Any, ...], ...]
    rtol: float = 1e-3
    atol: float = 1e-6

    @property
    def asks(self) -> Text:
        """Return what is asked for."""
        return Text(f"a function, {self.signature}", f"una función, {self.signature}")

    @property
    def sample(self) -> Text:
        """Return an answer of this kind."""
        return _in_both(self.name)

    @property
    def name(self) -> str:
        """Return what the function is called."""
        return self.signature.partition("(")[0]

    def read(self, answer: Any, lang: str) -> tuple[Array, ...]:
        """Return the numbers that the function returns, for each of the inputs.

        Examples
        --------
        >>> Function("f(x)", ((1.0,), (2.0,))).read(lambda x: [x, x * x], "en")
        (array([1., 1.]), array([2., 4.]))
        """
        if not callable(answer):
            raise UnreadableError(
                Text(
                    f"Got {shown(answer)}. Give the function itself, without calling it.",
                    f"Se ha dado {shown(answer)}. Pase la función misma, sin llamarla.",
                )
            )
        returned = [self._call(answer, arguments) for arguments in self.inputs]
        if all(value is None for value in returned):
            call = self.call(self.inputs[0])
            raise UnreadableError(
                Text(
                    f"{call} returned nothing. Does the function end with `return`?",
                    f"{call} no ha devuelto nada. ¿Termina la función con `return`?",
                )
            )
        if all(is_open(value) for value in returned):
            raise UnansweredError
        found = []
        for value, arguments in zip(returned, self.inputs, strict=True):
            try:
                found.append(numbers_of(value, lang))
            except UnreadableError:
                call = self.call(arguments)
                raise UnreadableError(
                    Text(
                        f"{call} returned {shown(value)}, where numbers are needed.",
                        f"{call} ha devuelto {shown(value)}, y hacen falta números.",
                    )
                ) from None
        return tuple(found)

    def _call(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        try:
            with np.errstate(all="ignore"):
                return function(*copy.deepcopy(arguments))
        except Exception as error:
            said, call = f"{type(error).__name__}: {error}".rstrip("."), self.call(arguments)
            raise UnreadableError(Text(f"{call} raised {said}.", f"{call} ha fallado con {said}.")) from error

    def call(self, arguments: Sequence[Any]) -> str:
        """Return a call as it is written."""
        return f"{self.name}({', '.join(map(_argument, arguments))})"

    def same(self, value: tuple[Array, ...], other: tuple[Array, ...]) -> bool:
        """Return whether two functions returned the same for all inputs."""
        return self.differs_at(value, other) is None

    def differs_at(self, value: tuple[Array, ...], other: tuple[Array, ...]) -> int | None:
        """Return the first input for which two functions returned other numbers, or None."""
        for i, (a, b) in enumerate(zip(value, other, strict=True)):
            if a.shape != b.shape or not np.all(np.abs(a - b) <= self.rtol * np.abs(b) + self.atol):
                return i
        return None

    def shown(self, value: tuple[Array, ...]) -> str:
        """Return what was returned for the first input."""
        return _listed(value[0])


def _within(rtol: float, atol: float) -> Text:
    parts = [f"{100 * rtol:.3g} %"] * (rtol > 0) + [f"{atol:.3g}"] * (atol > 0)
    return Text(
        f"right within {' and '.join(parts)}", f"con un margen del {' más '.join(parts)}".replace("del 0", "de 0")
    )


def _argument(argument: Any) -> str:
    if isinstance(argument, np.ndarray) and argument.size > 20:
        return f"array of {' x '.join(map(str, argument.shape))}"
    return shown(argument)


def _in_both(code: str) -> Text:
    return Text(code, code)


def _listed(values: Array) -> str:
    texts = [f"{value:.4g}" for value in values[:8]] + ["..."] * (len(values) > 8)
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
