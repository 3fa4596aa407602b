"""Figures stored with a run: PNG files, and beside them what each shows, in words."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fedsim_np.errors import data_error
from fedsim_np.files import replacing, write_text
from fedsim_np.runs.stored import FIGURES, FIGURES_INDEX, clear_pictures, is_picture_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 200
_MOST_PIXELS = 20_000  # of a figure's width or height
_CSS_DPI = 96  # how large an inch is on a screen


class Picture(NamedTuple):
    """A figure and what is said of it.

    Attributes
    ----------
    name : str
        Of its file, without the ending.
    section : str
        The part of the page that it belongs to: "data", "rounds", "evaluation", "model".
    alt : str
        What it shows, for those who cannot see it.
    caption : str
        What to see in it.
    png : bytes
    figure : Figure, optional
        As long as it has not been stored.
    """

    name: str
    section: str
    alt: str
    caption: str
    png: bytes
    figure: Figure | None = None

    @classmethod
    def of(cls, figure: Figure, name: str, section: str, alt: str, caption: str) -> Picture:
        """Make a picture of a figure."""
        return cls(name, section, alt, caption, _saved(figure, format="png", dpi=_DPI), figure)

    @classmethod
    def of_curves(cls, histories: Mapping[str, Any], alt: str, over: str = "round_num") -> Picture:
        """Make a picture of runs' learning curves; a ValueError if there is nothing finite to draw."""
        from fedsim_np import plots

        caption = "Training is measured before each local step, an evaluation after the round."
        name = "learning_curves" if over == "round_num" else f"learning_curves_over_{over.rpartition('/')[2]}"
        return cls.of(plots.learning_curves(histories, over=over), name, "rounds", alt, caption)

    @property
    def width(self) -> int:
        """In CSS pixels, so that a point is a point."""
        pixels: int = struct.unpack(">I", self.png[16:20])[0]
        place = self.png.find(b"pHYs", 0, 4096) + 4  # pixels a metre
        density = struct.unpack(">I", self.png[place : place + 4])[0] * 0.0254 if place > 4 else _DPI
        return round(pixels * _CSS_DPI / max(density, 1))


def save_pictures(folder: Path, pictures: Iterable[Picture], svg: bool = False) -> None:
    """Store a run's pictures in ``figures`` below its folder, instead of those that `clear_pictures` removes.

    Parameters
    ----------
    folder : Path
        The run's.
    pictures : iterable of Picture
    svg : bool
        As SVG too.
    """
    clear_pictures(folder)
    pictures = list(pictures)
    place = folder / FIGURES
    place.mkdir(exist_ok=True)
    for picture in pictures:
        with replacing(place / f"{picture.name}.png") as temporary:
            temporary.write_bytes(picture.png)
        if svg and picture.figure is not None:
            with replacing(place / f"{picture.name}.svg") as temporary:
                temporary.write_bytes(_svg(picture.figure))
    index = [{"name": p.name, "section": p.section, "alt": p.alt, "caption": p.caption} for p in pictures]
    write_text(place / FIGURES_INDEX, json.dumps(index, indent=2) + "\n")


def _saved(figure: Figure, **how: Any) -> bytes:
    """Return what `Figure.savefig` writes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A client's id may have letters that the font has not: they are boxes in the picture, and no warning.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(stream, **how)
    return stream.getvalue()


def _svg(figure: Figure) -> bytes:
    import matplotlib

    # Ids that do not depend on chance, and no date: the same figure is the same file.
    with matplotlib.rc_context({"svg.hashsalt": "fedsim_np"}):
        return _saved(figure, format="svg", metadata={"Date": None})


def _is_png(content: bytes) -> bool:
    """Return whether a picture has its first and last part whole, and a size that a figure may have."""
    start, end = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND\xaeB`\x82"
    if not content.startswith(start) or not content.endswith(end) or len(content) < 33 + 12:
        return False
    width, height, checksum = struct.unpack(">II5xI", content[16:33])
    is_size = 0 < width <= _MOST_PIXELS and 0 < height <= _MOST_PIXELS
    return bool(is_size and zlib.crc32(content[12:29]) == checksum)


def read_pictures(folder: Path) -> list[Picture]:
    """Return the pictures that are stored with a run; none if it has none.

    Raises
    ------
    DataError
        If the index or a picture is damaged or missing.
    """
    index = folder / FIGURES / FIGURES_INDEX
    if not index.exists():
        return []
    pictures = []
    try:
        entries: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
        for entry in entries:
            name, section, alt, caption = (str(entry[key]) for key in ("name", "section", "alt", "caption"))
            if not is_picture_name(name):
                raise ValueError(f"the name {name!r}")
            alt.encode(), caption.encode()
            png = (folder / FIGURES / f"{name}.png").read_bytes()
            if not _is_png(png):
                raise ValueError(f"no whole PNG in {name}.png")
            pictures.append(Picture(name, section, alt, caption, png))
    except (ValueError, KeyError, TypeError, FileNotFoundError, RecursionError) as error:
        raise data_error("must list pictures that are there", error, path=index) from error
    return pictures
