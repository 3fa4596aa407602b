"""Exercises: a kind of answer, the right one, and what is said of it and of the usual mistakes.

Answers are functions without arguments, so that nothing is computed before somebody asks, and the right one comes from
the library. A mistake is known by the answer that it leads to (`Mistake.answer`; of a function, another function), or
by a condition on the value that was read (`Mistake.when`).

In every text ``{got}`` is what was answered, and in `Exercise.right` the right answer. In an exercise's `otherwise`
about a function, ``{call}`` is the first call that returns something else than it should, ``{got}`` what it returned,
``{right}`` what it should have returned.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedsim_np.labs.answers import Function, Kind
from fedsim_np.labs.languages import Text
from fedsim_np.labs.reading import UnansweredError, UnreadableError, is_open

_RIGHT = Text("Right.", "Correcto.")
_WRONG = Text("Not yet.", "Todavía no.")
_OPEN = Text("Not answered yet.", "Sin responder todavía.")
_ASKS = Text("It asks for", "Se pide")
_SUCH_AS = Text("such as", "por ejemplo")
_OTHER_COUNT = Text(
    "{call} returns {got}: that is not how many numbers were asked for ({count}, not {asked}).",
    "{call} devuelve {got}: no es la cantidad de números que se pide ({count}, no {asked}).",
)
_ROUNDED = Text("Near, but rounded too far.", "Se acerca, pero está demasiado redondeado.")


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer, and what it suggests.

    Attributes
    ----------
    text : Text
    answer : callable without arguments, optional
        Returns the wrong answer.
    when : callable, optional
        Says of the value that was read whether it is this mistake.
    """

    text: Text
    answer: Callable[[], Any] | None = None
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be checked.

    Attributes
    ----------
    kind : Kind
    answer : callable without arguments
        Returns the right answer, in any form that the kind reads.
    right : Text
        Why it is right, and why that matters.
    mistakes : tuple of Mistake
        The first that fits is told.
    otherwise : Text
        Said of all other wrong answers: where to look.
    """

    kind: Kind
    answer: Callable[[], Any]
    right: Text
    mistakes: tuple[Mistake, ...]
    otherwise: Text

    def judge(self, name: str, answer: Any, lang: str) -> Verdict:
        """Return what is to be said of an answer."""
        if is_open(answer):
            return self._open(name, lang)
        try:
            value = self.kind.read(answer, lang)
        except UnansweredError:
            return self._open(name, lang)
        except UnreadableError as error:
            said = f"{self._asks(lang)}. {error.why.of(lang)}"
            return Verdict(name, False, _WRONG.of(lang), said)
        right = self.kind.read(self.answer(), lang)
        if self.kind.same(value, right):
            return Verdict(name, True, _RIGHT.of(lang), self.right.of(lang).format(got=self.kind.shown(right)))
        facts = {"got": self.kind.shown(value)}
        text = next((mistake.text for mistake in self.mistakes if self._fits(mistake, value, lang)), None)
        if text is None and self.kind.is_rounded(value, right):
            return Verdict(name, False, _WRONG.of(lang), f"{_ROUNDED.of(lang)} {self._asks(lang)}.")
        text = text or self.otherwise
        if isinstance(self.kind, Function):
            at = self.kind.differs_at(value, right)
            assert at is not None  # it is not the same
            got, wanted = (self.kind.shown(of[at : at + 1]) for of in (value, right))
            facts = {"call": self.kind.call(self.kind.inputs[at]), "got": got, "right": wanted}
            facts |= {"count": str(value[at].size), "asked": str(right[at].size)}
            if value[at].shape != right[at].shape:
                text = _OTHER_COUNT
        return Verdict(name, False, _WRONG.of(lang), text.of(lang).format(**facts))

    def _fits(self, mistake: Mistake, value: Any, lang: str) -> bool:
        if mistake.when is not None and mistake.when(value):
            return True
        return mistake.answer is not None and self.kind.same(value, self.kind.read(mistake.answer(), lang))

    def _asks(self, lang: str) -> str:
        return f"{_ASKS.of(lang)} {self.kind.asks.of(lang)}"

    def _open(self, name: str, lang: str) -> Verdict:
        sample = self.kind.sample.of(lang)
        said = f'{self._asks(lang)}, {_SUCH_AS.of(lang)} check("{name}", {sample}).'
        return Verdict(name, None, _OPEN.of(lang), said)


@dataclass(frozen=True, repr=False)
class Verdict:
    """What is said of an answer; a notebook shows it as a cell's value.

    Attributes
    ----------
    exercise : str
    is_right : bool or None
        None of an exercise that is not answered yet.
    heading : str
    explanation : str

    Examples
    --------
    >>> Verdict("1.1", True, "Right.", "Each client counts by its curvature.")
    1.1: Right. Each client counts by its curvature.
    """

    exercise: str
    is_right: bool | None
    heading: str
    explanation: str

    def __repr__(self) -> str:
        return textwrap.fill(f"{self.exercise}: {self.heading} {self.explanation}", 110, break_long_words=False)

    def _repr_markdown_(self) -> str:
        return f"**{self.exercise}: {self.heading}** {self.explanation}"
