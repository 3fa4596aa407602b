"""What readers are told in reports and figures, in English and in Spanish.

`en` and `es` have the same keys; a template's placeholders are filled by name. Where what is one is told in another
form than what is many, a template is a pair, and ``n`` chooses. Numbers have one format (`numbers`).
"""

from __future__ import annotations

import re

from fedsim_np.errors import unknown_name
from fedsim_np.texts import en, es, numbers

_TABLES = {"en": en.TEXTS, "es": es.TEXTS}
LANGUAGES = tuple(_TABLES)


class Texts:
    """The texts of a language.

    Parameters
    ----------
    lang : {"en", "es"}

    Examples
    --------
    >>> say = Texts("es")
    >>> say("rounds", 1), say("rounds", 12000), say("median", value=0.5)
    ('1 ronda', '12\u202f000 rondas', 'mediana 0.5000')
    """

    def __init__(self, lang: str = "en") -> None:
        if not isinstance(lang, str) or lang not in _TABLES:
            raise unknown_name("lang", LANGUAGES, lang)
        self.lang = lang
        self._templates = _TABLES[lang]

    def __call__(self, key: str, n: int | None = None, /, **values: str | float) -> str:
        """Return a text; numbers among the values are written out."""
        template = self._templates[key]
        if isinstance(template, tuple):
            template = template[n != 1]
        given = values if n is None else {"n": n, **values}
        return template.format(**{k: v if isinstance(v, str) else self.number(v) for k, v in given.items()})

    def number(self, value: float) -> str:
        """Return a number as text."""
        return numbers.written(value, self.lang)

    def percent(self, share: float) -> str:
        """Return a share as a percentage."""
        return self("percent", value=100.0 * share)

    def amount(self, count: float) -> str:
        """Return a number of bytes with its unit."""
        return numbers.amount(count, self.lang)

    def name(self, kind: str, name: str) -> str:
        """Return what something is called; a name that has no text is read in English, and in Spanish it is a name."""
        found = self._templates.get(f"{kind}_{re.sub(r'[^a-z]', '_', name)}")
        return found if isinstance(found, str) else name.replace("_", " ") if self.lang == "en" else name

    def metric(self, path: str) -> str:
        """Return what a column of metrics is called, ``evaluation/loss``."""
        *groups, leaf = (self.name("metric", part) for part in path.split("/"))
        return self("metric_of_group", group=" ".join(groups), name=leaf) if groups else leaf

    def promise(self, text: str) -> str:
        """Return what noise promises, which is stored in English with a run, with its number written as all are."""
        text = re.sub(r"(?<=^epsilon )\S+", lambda found: self.number(float(found[0])), text)
        for key, said in en.TEXTS.items():
            if key.startswith("promise_") and isinstance(said, str):
                text = text.replace(said, self(key))
        return text
