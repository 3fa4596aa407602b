"""One static site: a page for each guide and each public module, and a search over both."""

from __future__ import annotations

import html
import importlib
import json
import posixpath
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from latex2mathml import converter
from pdoc import doc, render, search
from pdoc.render_helpers import to_html

from fedsim_np._version import __version__
from fedsim_np.docs import GUIDES
from fedsim_np.docs.checking import dead_links, found, missing_names
from fedsim_np.docs.names import public_modules, public_names

HERE = Path(__file__).parent

_MATH = re.compile(r":math:`([^`]+)`|^( *)\.\. math:: *(.+(?:\n+(?:\2 +\S.*))*)", re.MULTILINE)
_OF_NAMED_TUPLES = re.compile(r"Alias for field number \d+$|Create new instance of \w+\(")
_FORWARD = re.compile(
    r"""<span class="n">ForwardRef</span><span class="p">\(</span>"""
    r"""<span class="s\d">['"](.*?)['"]</span><span class="p">\)</span>"""
)
# What `npt.NDArray` is, as a text and as one that was coloured.
_ARRAY = re.compile(r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[[\w.]+\]\]")
_COLOURED_ARRAY = re.compile(
    r"""<span class="n">numpy</span><span class="o">\.</span><span class="n">ndarray</span><span class="p">\[</span>"""
    r"""<span class="nb">tuple</span>(?:(?!dtype|</?a).)*<span class="n">dtype</span><span class="p">\[</span>"""
    r"""(?:(?!class="p").)*<span class="p">\]\]"""
)
_TABLE = re.compile(r"^( *)(=+ +=[= ]*)\n((?:(?!\1\2).+\n)+)\1\2(?:\n((?:(?!\1\2).+\n)+)\1\2)?$", re.MULTILINE)
_TOKEN = re.compile(r"mathml(\d+)of(?:inline|block)")
_FENCE = re.compile(r"^```(\w+) .*$", re.MULTILINE)
_LINKED_OR_CODE = re.compile(r"(<a\b.*?</a>|<pre\b.*?</pre>|<nav\b.*?</nav>|<script\b.*?</script>)", re.DOTALL)
_NAME = re.compile(r"<code>((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(\(.*?\))?</code>")


@dataclass(frozen=True)
class Guide:
    """A page of a guide.

    Attributes
    ----------
    stem : str
        Its file's name without the ending, in the package and in the site.
    title, about : str
        Its heading, and its first paragraph as HTML.
    body, toc : str
        The page and its table of contents, as HTML.
    """

    stem: str
    title: str
    about: str
    body: str
    toc: str


class _Formulas:
    """Formulas in LaTeX that are drawn by the browser, from MathML: no script, and nothing that is loaded.

    Docstrings go through Markdown first, which would eat their backslashes: a word stands for each until then.
    """

    def __init__(self) -> None:
        self._made: list[str] = []

    def _taken_out(self, match: re.Match[str]) -> str:
        inline, indent, block = match.groups()
        latex = " ".join((inline or block).split())
        display = "inline" if inline else "block"
        self._made.append(converter.convert(latex, display=display))
        word = f"mathml{len(self._made) - 1}of{display}"
        return word if inline else f"{indent}{word}\n"

    def take_out(self, docstring: str) -> str:
        """Return a docstring with words for its formulas."""
        return _MATH.sub(self._taken_out, docstring)

    def put_back(self, page: str, escaped: Callable[[str], str] = str) -> str:
        """Return a page with the formulas in the place of these words."""
        return _TOKEN.sub(lambda match: escaped(self._made[int(match[1])]), page)


def _whole(name: str) -> ModuleType:
    """Import a module, with those of its names that are imported when they are first asked for."""
    module = importlib.import_module(name)
    vars(module).update({own: getattr(module, own) for own in public_names(module)})
    return module


def _documented(item: Any, seen: set[int]) -> Iterator[Any]:
    if id(item) not in seen and not isinstance(item, (doc.Module if seen else ())):
        seen.add(id(item))
        yield item
        for member in item.members.values() if isinstance(item, doc.Namespace) else ():
            yield from _documented(member, seen)


def _rewrite_docstrings(module: Any, formulas: _Formulas) -> None:
    """Make the docstrings what pdoc's reading of numpydoc expects."""
    for item in _documented(module, set()):
        text = formulas.take_out(item.docstring)
        # reStructuredText's mark of an indented block, which Markdown knows by its indent.
        text = re.sub(r"^::$", "", re.sub(r"(\S)::$", r"\1:", text, flags=re.MULTILINE), flags=re.MULTILINE)
        text = "" if _OF_NAMED_TUPLES.match(text) else _TABLE.sub(_markdown_table, text.replace("``", "\0`"))
        text = text.replace("\0", "")
        item.__dict__["docstring"] = text


def _markdown_table(match: re.Match[str]) -> str:
    """Return a simple table of reStructuredText's in Markdown; one without a heading has an empty one."""
    indent, rule, head, body = match.groups()
    columns = [slice(found.start(), found.end()) for found in re.finditer("=+", rule)]
    columns[-1] = slice(columns[-1].start, None)
    rows: list[list[str]] = []
    for line in (head + (body or "")).splitlines():
        cells = [line[len(indent) :][column].strip().replace("|", "&#124;") for column in columns]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # the rest of the row above
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    if body is None:
        rows.insert(0, [""] * len(columns))
    rows.insert(1, ["---"] * len(columns))
    return "\n".join(f"{indent}| {' | '.join(row)} |" for row in rows)


def _pictures(page: str, files: dict[str, str | bytes]) -> str:
    """Put the guides' pictures into the site; in an installed wheel there are none, and what they show is said."""

    def replaced(match: re.Match[str]) -> str:
        path = HERE / match[1]
        if not path.is_file():
            return f"<em>A picture, of a checkout: {match[2]}</em>"
        files[f"figures/{path.name}"] = path.read_bytes()
        return f'<img src="figures/{path.name}" alt="{match[2]}"'

    return re.sub(r'<img src="(\.\./[^"]+)" alt="([^"]*)"(?=[ />])(?: ?/?>)?', replaced, page)


def _guide(stem: str, files: dict[str, str | bytes]) -> Guide:
    made = to_html(_FENCE.sub(r"```\1", (HERE / f"{stem}.md").read_text(encoding="utf-8")))
    body = re.sub(r'href="(\w+)\.md([#"])', r'href="\1.html\2', _pictures(made, files))
    title, about = re.search(r"<h1[^>]*>(.*?)</h1>", body), re.search(r"<p>(.*?)</p>", body, re.DOTALL)
    assert title is not None
    assert about is not None
    return Guide(stem, html.unescape(re.sub("<.*?>", "", title[1])), about[1], body, made.toc_html or "")


def _places(pages: dict[str, str], names: dict[str, list[str]]) -> dict[str, str]:
    """Return what a name may be written as -> its place in the site, where that is one.

    A full name may be cut at the left (`attacks.choose`), down to a single word if that looks like no other word.
    """
    by_text: dict[str, dict[int, str]] = {}
    for module_name, own in names.items():
        page = module_name.replace(".", "/") + ".html"
        module = importlib.import_module(module_name)
        if "." in module_name:
            by_text.setdefault(module_name, {})[id(module)] = page
        for anchor in sorted(found(pages[page])[0]):
            value: Any = module
            first, *_ = anchor.split(".")
            if first not in own or isinstance(getattr(module, first, None), ModuleType):
                continue
            for part in anchor.split("."):
                value = getattr(value, part, None)
            full = f"{module_name}.{anchor}".split(".")
            for start in range(len(full)):
                # A single word is a name of the module's, and never an attribute.
                place = "" if "." in anchor and start == len(full) - 1 else f"{page}#{anchor}"
                by_text.setdefault(".".join(full[start:]), {}).setdefault(id(value), place)
    for text in list(by_text):
        by_text.setdefault(re.sub(r"^fedsim_np\b", "fed", text), by_text[text])
    found_once = {text: next(iter(places.values())) for text, places in by_text.items() if len(places) == 1}
    telling = re.compile(r"\.|[a-z0-9]_[a-z0-9]|[a-z][A-Z]|[A-Z]{2}")
    return {text: place for text, place in found_once.items() if place and telling.search(text)}


def _with_names_linked(path: str, page: str, places: dict[str, str]) -> str:
    folder = posixpath.dirname(path)

    def linked(match: re.Match[str]) -> str:
        place = places.get(match[1])
        if place is None:
            return match[0]
        target, _, anchor = place.partition("#")
        link = ("" if target == path else posixpath.relpath(target, folder or ".")) + (anchor and f"#{anchor}")
        return f'<a href="{link or posixpath.basename(path)}">{match[0]}</a>'

    parts = _LINKED_OR_CODE.split(page)
    return "".join(part if i % 2 else _NAME.sub(linked, part) for i, part in enumerate(parts))


def _searched(modules: dict[str, Any], guides: list[Guide]) -> str:
    """Return the script of the search: of every name, and every section of a guide."""
    items = search.make_index(modules, lambda item: not item.name.startswith("_"), "numpy")
    for guide in guides:
        heads = re.split(r'<h[12] id="([^"]+)">(.*?)</h[12]>', guide.body)
        for anchor, title, text in zip(heads[1::3], heads[2::3], heads[3::3], strict=True):
            item = {"fullname": f"{guide.title}: {title}", "modulename": guide.stem, "qualname": anchor}
            items.append({**item, "kind": "guide", "doc": _without_links(text)})
    script: str = render.env.get_template("search.js.jinja2").render(search_index=json.dumps(items))
    return script


def _without_links(text: str) -> str:
    # A result is shown on any page, where a link or a picture of another page would lead elsewhere.
    return re.sub(r"</?a\b[^>]*>|<img\b[^>]*>", "", text)


def build() -> tuple[dict[str, str | bytes], list[str]]:
    """Make the site.

    Returns
    -------
    files : dict of str to str or bytes
        Path in the site -> text, or bytes.
    faults : list of str
        A line for each link inside the site that leads nowhere, and for each public name without a place.
    """
    render.configure(docformat="numpy", template_directory=HERE / "templates")
    with warnings.catch_warnings():
        # pdoc evaluates the annotations of NamedTuples where they are used, and shows their text if that fails.
        warnings.filterwarnings("ignore", "Error parsing type annotation", UserWarning)
        return _build()


def _build() -> tuple[dict[str, str | bytes], list[str]]:
    formulas, files, pages = _Formulas(), dict[str, str | bytes](), dict[str, str]()
    modules = {name: doc.Module(_whole(name)) for name in public_modules()}
    for module in modules.values():
        _rewrite_docstrings(module, formulas)
    guides = [_guide(stem, files) for stem in GUIDES]
    render.env.globals.update(guides=guides, all_modules=modules, version=__version__)
    for name, module in modules.items():
        page = _ARRAY.sub("ndarray", _FORWARD.sub(r"\1", render.html_module(module, modules)))
        page = _COLOURED_ARRAY.sub(r'<span class="n">ndarray</span><span class="p">', page)
        pages[name.replace(".", "/") + ".html"] = formulas.put_back(page)
    template = render.env.get_template("guide.html.jinja2")
    for guide in [_index(guides, modules), *guides]:
        pages[f"{guide.stem}.html"] = template.render(guide=guide)
    names = {name: public_names(module.obj) for name, module in modules.items()}
    places = _places(pages, names)
    for path, page in pages.items():
        wrapped = page.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
        files[path] = _with_names_linked(path, wrapped, places)
    files["search.js"] = formulas.put_back(_searched(modules, guides), lambda text: json.dumps(text)[1:-1])
    missing = [f"{name} has no place in the site" for name in missing_names(files, names)]
    return files, [*dead_links(files), *missing]


def _index(guides: list[Guide], modules: dict[str, Any]) -> Guide:
    """Return the first page: what there is."""
    about = importlib.import_module("fedsim_np").__doc__ or ""
    # The rest are examples, which the module's own page has.
    body = to_html("# fedsim_np\n\n" + "\n\n".join(about.split("\n\n")[:2]))
    rows = [f'<dt><a href="{guide.stem}.html">{guide.title}</a></dt><dd>{guide.about}</dd>' for guide in guides]
    body += f'<h2 id="guides">Guides</h2><dl>{"".join(rows)}</dl><h2 id="modules">Modules</h2><dl>'
    for name, module in modules.items():
        first = to_html(module.docstring.split("\n\n")[0])
        body += f'<dt><a href="{name.replace(".", "/")}.html"><code>{name}</code></a></dt><dd>{first}</dd>'
    return Guide("index", "fedsim_np", "", body + "</dl>", "")
