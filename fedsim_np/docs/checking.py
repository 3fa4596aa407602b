"""What is wrong with a site: links that lead nowhere, and public names without a page."""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

# By patterns: these pages are well-formed, and the parser of the standard library takes twice as long as making them.
_TEXTS = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[a-zA-Z][^<>]*>")
_ATTRIBUTE = re.compile(r'\s(id|href|src)="([^"]*)"')


def found(page: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the anchors and the links of a page.

    Examples
    --------
    >>> found('<h1 id="top">A</h1><a href="b.html#c">B</a>')
    (frozenset({'top'}), ('b.html#c',))
    """
    anchors, links = set(), []
    for tag in _TAG.findall(_TEXTS.sub("", page)):
        for name, value in _ATTRIBUTE.findall(tag):
            if name == "id":
                anchors.add(html.unescape(value))
            else:
                links.append(html.unescape(value))
    return frozenset(anchors), tuple(links)


def dead_links(files: Mapping[str, str | bytes]) -> list[str]:
    """Return a line for each link inside a site that leads to no file, or to no anchor of it.

    Parameters
    ----------
    files : mapping of str to str or bytes
        Path in the site -> text of a page, or bytes of what is no page.

    Returns
    -------
    list of str

    Examples
    --------
    >>> dead_links({"a.html": '<a href="b/c.html#d">', "b/c.html": '<p id="e"><a href="../x.html">'})
    ["a.html: 'b/c.html#d' leads to no anchor", "b/c.html: '../x.html' leads to no file"]
    """
    pages = {path: found(text) for path, text in files.items() if isinstance(text, str) and path.endswith(".html")}
    dead = []
    for path, (_, links) in pages.items():
        for link in dict.fromkeys(links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), parts.path)) if parts.path else path
            if target not in files:
                dead.append(f"{path}: {link!r} leads to no file")
            elif parts.fragment and unquote(parts.fragment) not in (pages[target][0] if target in pages else ()):
                dead.append(f"{path}: {link!r} leads to no anchor")
    return dead


def missing_names(files: Mapping[str, str | bytes], names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the public names that have no place in a site.

    Parameters
    ----------
    files : mapping of str to str or bytes
        As for `dead_links`.
    names : mapping of str to iterable of str
        Module -> its public names.

    Returns
    -------
    list of str

    Examples
    --------
    >>> missing_names({"p/m.html": '<p id="f">'}, {"p.m": ["f", "g"], "p.n": ["h"]})
    ['p.m.g', 'p.n', 'p.n.h']
    """
    missing = []
    for module, own in names.items():
        page = files.get(module.replace(".", "/") + ".html")
        anchors = found(page)[0] if isinstance(page, str) else frozenset()
        missing += [] if page is not None else [module]
        missing += [f"{module}.{name}" for name in own if name not in anchors]
    return missing
