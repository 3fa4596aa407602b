"""What is said in English and in Spanish."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """What is said, in every language.

    Examples
    --------
    >>> Text("yes", "sí").of("es")
    'sí'
    """

    en: str
    es: str

    def of(self, lang: str) -> str:
        """Return it in a language."""
        return self.es if lang == "es" else self.en
