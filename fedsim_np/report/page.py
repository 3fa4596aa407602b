"""Pieces of a page: HTML as text, every text of others escaped, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from fedsim_np.texts import Texts

_BROAD = 560  # CSS pixels from which a figure is too broad for a phone
_STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #595959; --line: #d0d0d0; --shade: #f4f4f2; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 58rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 3px solid var(--mark); }
p { max-width: 44rem; margin: .6rem 0; }
.lead { color: var(--soft); }
figure { margin: 1.2rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .92rem; max-width: 44rem; margin-top: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
td { overflow-wrap: anywhere; }
th, td { padding: .28rem .8rem .28rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
td.number, th.number { text-align: right; overflow-wrap: normal; }
td.number { white-space: nowrap; }
tbody th { font-weight: 400; }
pre { background: var(--shade); padding: .8rem; overflow-x: auto; font-size: .85rem; line-height: 1.4;
  white-space: pre-wrap; overflow-wrap: anywhere; }
/* On a phone a broad figure is moved sideways: scaled down its texts could not be read. */
@media screen and (max-width: 36rem) {
  body { padding: 1rem .7rem 3rem; } h1 { font-size: 1.35rem; }
  .broad { overflow-x: auto; } .broad img { max-width: none; width: 38rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; } figure img { max-height: 20cm; }
  .wide { overflow: visible; } table { font-size: 8.5pt; } th, td { padding-right: .5rem; }
  thead { break-after: avoid; } pre { border: 1px solid var(--line); background: none; }
}
"""


def page(title: str, lead: str, parts: Iterable[str], lang: str = "en") -> str:
    """Return a whole page.

    Parameters
    ----------
    title, lead : str
        Plain texts.
    parts : iterable of str
        HTML.
    lang : {"en", "es"}
    """
    body = "\n".join(parts)
    whole = f"""<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{body}
</main>
</body>
</html>
"""
    return whole.encode("utf-8", "backslashreplace").decode()  # a folder's name need not be text


def heading(text: str) -> str:
    """Return a section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Return text as it is typed."""
    return f"<pre>{escape(text)}</pre>"


def picture(png: bytes, alt: str, caption: str, width: int) -> str:
    """Return a picture inside the page, at most `width` CSS pixels wide, with its text for those who cannot see it."""
    data = base64.b64encode(png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(alt, quote=True)}" width="{width}">'
    # Reachable by keyboard, since it may have to be moved sideways.
    broad = f' class="broad" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}"'
    kind = broad if width > _BROAD else ""
    return f"<figure><div{kind}>{image}</div><figcaption>{escape(caption)}</figcaption></figure>"


def table(say: Texts, header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Return a table; the first cell of a row names it, numbers stand to the right.

    Examples
    --------
    >>> html = table(Texts("en"), ["what", "how much"], [["a < b", 0.5]])
    >>> '<th scope="row">a &lt; b</th><td class="number">0.5000</td>' in html
    True
    """
    rows = [list(row) for row in rows]
    numeric = [i > 0 and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    columns = zip(header, numeric, strict=True)
    head = "".join(f'<th scope="col"{_number_class(number)}>{escape(name)}</th>' for name, number in columns)
    lines = []
    for row in rows:
        cells = "".join(f"<td{_number_class(_is_number(cell))}>{escape(_text(cell, say))}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{escape(_text(row[0], say))}</th>{cells}</tr>')
    about = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "\n".join(lines)
    inside = f"{about}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    return f'<div class="wide" tabindex="0"><table>{inside}</table></div>'


def _is_number(value: Any) -> bool:
    return value == "-" or (isinstance(value, int | float) and not isinstance(value, bool))


def _number_class(number: bool) -> str:
    return ' class="number"' if number else ""


def _text(value: Any, say: Texts) -> str:
    if value is None:
        return say("not_finite")
    return say.number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
