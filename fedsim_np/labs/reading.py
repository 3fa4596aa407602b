"""What students write, as numbers: "1/4", "25 %", "0,25", "w = 2.6", "1 in 4", lists and arrays."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import shown
from fedsim_np.labs.languages import Text

Array = npt.NDArray[np.float64]

_BEFORE_A_NUMBER = re.compile(r"^(?:[^\W\d]\w*\s*=|[~\u2248\xd7])\s*")  # w = 2.6, about 2.6, times 2.6
_PERCENT = re.compile(r"\s*(?:%|per ?cent|por ciento)$", re.IGNORECASE)


class UnreadableError(Exception):
    """An answer that is not of the kind that was asked for; its one argument is the `Text` that says why."""

    def __init__(self, why: Text) -> None:
        super().__init__(why)
        self.why = why


class UnansweredError(Exception):
    """An answer that nobody has given yet."""


def is_open(answer: Any) -> bool:
    """Return whether an answer is still to be given: ``...``, None, an empty text, or a row of nothing else."""
    if isinstance(answer, list | tuple) and answer:
        return all(map(is_open, answer))
    return answer is None or answer is ... or (isinstance(answer, str) and answer.strip(" .") == "")


def numbers_of(answer: Any, lang: str) -> Array:
    """Return the finite numbers of an answer, in one row.

    Examples
    --------
    >>> numbers_of(["1/4", "w = 2,5", "25 %"], "es"), numbers_of("1,000", "en")
    (array([0.25, 2.5 , 0.25]), array([1000.]))
    """
    found = np.array(list(_flat(answer, lang)), np.float64)
    if not np.isfinite(found).all():
        raise UnreadableError(
            Text(f"{shown(answer)} is not finite.", f"{shown(answer)} no es finito."),
        )
    return found


def _flat(answer: Any, lang: str) -> Iterator[float]:
    if isinstance(answer, list | tuple) or (isinstance(answer, np.ndarray) and answer.ndim):
        for part in answer:
            yield from _flat(part, lang)
        return
    if isinstance(answer, np.ndarray):
        answer = answer.item()
    if isinstance(answer, str):
        yield _number_of(answer, lang)
    elif isinstance(answer, numbers.Real | Decimal) and not isinstance(answer, bool | np.bool_):
        try:
            yield float(answer)
        except OverflowError:
            yield math.inf
    elif isinstance(answer, np.number) and not isinstance(answer, np.complexfloating):
        yield float(answer)
    else:
        raise UnreadableError(Text(f"Got {shown(answer)}.", f"Se ha dado {shown(answer)}."))


def _number_of(text: str, lang: str) -> float:
    plain = _BEFORE_A_NUMBER.sub("", text.strip().replace("\N{MINUS SIGN}", "-"))
    plain, share = _PERCENT.subn("", plain)
    plain = re.sub(r"(?<=\d)\s(?=\d{3}(?:\D|$))|(?<=^[+-])\s+", "", plain)  # 1 000, - 2
    if lang == "en" and re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", plain):
        plain = plain.replace(",", "")
    plain = re.sub(r"\s*/\s*|\s+(?:in|out of|of|de|entre)\s+", "/", plain.replace(",", "."))  # 1 in 4
    mixed = re.match(r"(\d+)\s+(?=\d+/)", plain)  # 2 3/5
    above, slash, below = plain[mixed.end() if mixed else 0 :].rpartition("/")
    try:
        exact = Fraction(above) / Fraction(below) if slash else Fraction(below)
        number = float(exact + int(mixed[1]) if mixed else exact)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UnreadableError(Text(f"Got {text!r}.", f"Se ha dado {text!r}.")) from None
    return number / 100 if share else number
