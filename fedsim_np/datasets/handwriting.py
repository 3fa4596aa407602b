r"""Handwriting: how a simulated writer's digits are drawn.

A *writer* is a persistent style: slant, proportions, pen width, roundness, a way of shaping each digit, a preferred
form of it, a fondness for some digits. An *image* is that style with a little variation of its own, rasterised to
28 x 28 pixels, 1.0 for the paper. Both are functions of numbers alone::

    (seed, writer) -> style            (seed, writer, split, number) -> label, image

so a population of a million writers costs no more memory than one of a hundred, the order of access changes nothing,
and image i does not depend on how many there are. Style, size, labels and images have random streams of their own;
they take uniform numbers from ``Generator.random`` and transform them here, since NumPy's distributions carry no
promise across releases.

How an image comes about, for all n images of a client at once:

1. Control points of the digit's form (`skeletons`) are displaced: by the writer's offsets, the same in all images of
   that form, and by the image's own. Offsets of neighbouring points go together.
2. The strokes are sampled at s points, sheared by the slant, turned, stretched.
3. ``normalize=True`` scales the ink to a box of 20 pixels and puts its centre of mass in the middle, both to whole
   pixels, as MNIST does. ``normalize=False`` leaves size and place to the writer, as the EMNIST files do.
4. A sample is a Gaussian dot, and a Gaussian is a product of one in x and one in y: an image's ink density is a
   (28 x s)(s x 28) matrix product. The density across a straight stroke is exp(-d^2 / 2 sigma^2), so the distance d
   from its middle line is read off it, and ink is what lies within the pen's half-width, with an edge of one pixel.

All of it is float64, rounded to k/255 at the end and only then float32, which gives the same bytes whatever the BLAS
library's last digits are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.skeletons import Skeletons, skeletons
from fedsim_np.errors import argument_error, unknown_name

Array = npt.NDArray[Any]

SPLITS = ("train", "test")

# How much writers differ from each other, and images of one writer. Tuned until simulated and real handwriting
# were hard to tell apart: benchmarks/realism.py. Lengths are in heights of a digit, pen widths in pixels.
_SLANT, _SLANT_OF_WRITER, _SLANT_OF_IMAGE = 0.23, 0.22, 0.08
_TURN_OF_WRITER, _TURN_OF_IMAGE = 0.05, 0.06
_STRETCH_OF_WRITER, _STRETCH_OF_IMAGE = 0.14, 0.09
_PEN, _PEN_OF_WRITER, _PEN_OF_IMAGE = 1.35, 0.22, 0.08
_ROUNDNESS, _ROUNDNESS_OF_WRITER = 0.5, 0.08
_SHAPE_OF_WRITER, _SHAPE_OF_IMAGE, _TREMOR_OF_WRITER = 0.055, 0.062, 0.35
_PREFERENCE, _FONDNESS = 2.5, 0.2
_DOT, _EDGE, _INK = 0.62, 1.15, 0.993
_HEIGHT, _HEIGHT_OF_WRITER, _HEIGHT_OF_IMAGE, _PLACE_OF_WRITER, _PLACE_OF_IMAGE = 20.0, 0.1, 0.05, 0.8, 0.8

_AT_ONCE = 16  # images whose arrays of dots fit into a processor's cache together

# The random streams, each keyed by one of these words beside writer and seed.
_STYLE, _SIZE, _LABELS, _IMAGES = 11, 12, {"train": 13, "test": 14}, {"train": 15, "test": 16}


NUMBERS = 2**32
"""Writers and seeds are below it: NumPy keys a stream with 32-bit words, and longer numbers would share words."""


def _uniform(stream: int, writer: int, seed: int, *shape: int) -> Array:
    for name, value in (("writer", writer), ("seed", seed)):
        if not 0 <= value < NUMBERS:
            raise argument_error(name, f"an integer from 0 to {NUMBERS - 1}", value)
    uniform: Array = np.random.default_rng([stream, writer, seed]).random(shape)
    return uniform


def _normal(uniform: Array) -> Array:
    """Turn an even number of uniform columns into as many normal ones (Box and Muller 1958)."""
    half = uniform.shape[-1] // 2
    radius = np.sqrt(-2 * np.log1p(-uniform[..., :half]))
    angle = 2 * np.pi * uniform[..., half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _pick(weights: Array, uniform: Array) -> Array:
    """Pick indices with probabilities proportional to weights."""
    steps = np.cumsum(weights)
    picked: Array = np.searchsorted(steps, uniform * steps[-1], side="right")
    return np.minimum(picked, len(weights) - 1)


def check_split(split: str) -> str:
    """Return `split` if it is one, or raise."""
    if split not in SPLITS:
        raise unknown_name("split", SPLITS, split)
    return split


class Style(NamedTuple):
    """A writer's hand; f forms, p control points.

    Attributes
    ----------
    slant, turn, stretch, pen, roundness, tremor, height, right, down : float
        Shear, angle (radians), width over height, half-width of the pen (pixels), the spline's t, unsteadiness, and
        for ``normalize=False`` a digit's height and place (pixels).
    preference : ndarray, shape (f,)
        How often the writer takes a form, relative to the digit's other forms.
    shape : ndarray, shape (f, p, 2)
        Offsets of the forms' control points.
    fondness : ndarray, shape (10,)
        How often the writer writes a digit, relative to the others.
    """

    slant: float
    turn: float
    stretch: float
    pen: float
    roundness: float
    tremor: float
    height: float
    right: float
    down: float
    preference: Array
    shape: Array
    fondness: Array


def writer_style(writer: int, seed: int = 0) -> Style:
    """Return the style of a writer.

    Parameters
    ----------
    writer : int
        Number of the writer, from 0.
    seed : int

    Examples
    --------
    >>> writer_style(3).pen == writer_style(3).pen, writer_style(3).pen == writer_style(4).pen
    (True, False)
    """
    forms = skeletons()
    f, p, _ = forms.points.shape
    count = 10 + f + 2 * f * p + 10
    z = _normal(_uniform(_STYLE, writer, seed, count + count % 2))
    scalars, preference, shape, fondness = z[:10], z[10 : 10 + f], z[10 + f : count - 10], z[count - 10 : count]
    slant, turn, stretch, pen, roundness, tremor, height, right, down, _ = scalars.tolist()
    return Style(
        slant=_SLANT + _SLANT_OF_WRITER * slant,
        turn=_TURN_OF_WRITER * turn,
        stretch=math.exp(_STRETCH_OF_WRITER * stretch),
        pen=_PEN * math.exp(_PEN_OF_WRITER * pen),
        roundness=min(max(_ROUNDNESS + _ROUNDNESS_OF_WRITER * roundness, 0.2), 0.8),
        tremor=math.exp(_TREMOR_OF_WRITER * tremor),
        height=_HEIGHT * math.exp(_HEIGHT_OF_WRITER * height),
        right=_PLACE_OF_WRITER * right,
        down=_PLACE_OF_WRITER * down,
        preference=np.exp(_PREFERENCE * preference),
        shape=_SHAPE_OF_WRITER * (forms.smooth @ shape.reshape(f, p, 2)),
        fondness=np.exp(_FONDNESS * fondness),
    )


def num_examples(writer: int, split: str, seed: int = 0) -> int:
    """Return how many images a writer has in a split: sizes as in EMNIST, about 101 in train and 12 in test.

    A form of NIST's has 130 digits; what the segmentation lost is missing, mostly a little, sometimes most of it.

    Examples
    --------
    >>> num_examples(0, "train") + num_examples(0, "test") <= 130
    True
    """
    check_split(split)
    lost, shared = _uniform(_SIZE, writer, seed, 2).tolist()
    total: int = max(12, 127 - round(-14.0 * math.log1p(-lost)))
    test: int = max(1, round(total * (0.085 + 0.045 * shared)))
    return test if split == "test" else total - test


def draw_labels(writer: int, split: str, num_images: int, seed: int = 0) -> Array:
    """Return the labels (n,) int32 of a writer's first images in a split.

    Examples
    --------
    >>> draw_labels(7, "train", 50)[:20].tolist() == draw_labels(7, "train", 20).tolist()
    True
    """
    check_split(split)
    uniform = _uniform(_LABELS[split], writer, seed, num_images)
    return _pick(writer_style(writer, seed).fondness, uniform).astype(np.int32)


@np.errstate(under="ignore")  # ink that is far from a stroke is 0
def draw_images(writer: int, split: str, labels: Array, seed: int = 0, normalize: bool = True) -> Array:
    """Return a writer's images of digits.

    Parameters
    ----------
    writer : int
    split : {"train", "test"}
    labels : ndarray of int, shape (n,)
        What the images show.
    seed : int
    normalize : bool
        Scale and centre as MNIST does, or leave size and place to the writer.

    Returns
    -------
    ndarray of float32, shape (n, 28, 28)
        Multiples of 1/255; 1.0 is paper.

    Examples
    --------
    >>> images = draw_images(3, "train", np.array([4, 2]))
    >>> images.shape, images.dtype, float(images.max())
    ((2, 28, 28), dtype('float32'), 1.0)
    """
    check_split(split)
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        raise argument_error("labels", "digits from 0 to 9", labels)
    forms, style = skeletons(), writer_style(writer, seed)
    n, (_, p, _) = len(labels), forms.points.shape
    uniform = _uniform(_IMAGES[split], writer, seed, n, 9 + 2 * p)
    z = _normal(uniform[:, 1:])
    form = _forms_of(labels, forms, style, uniform[:, 0])
    strokes = _strokes(form, forms, style, z[:, :3], z[:, 8:].reshape(n, p, 2))
    pen = style.pen * np.exp(_PEN_OF_IMAGE * z[:, 3])
    joined = forms.joined[form]
    if normalize:
        dots = _boxed(strokes, pen, joined)
    else:
        height = style.height * np.exp(_HEIGHT_OF_IMAGE * z[:, 4])
        dots = _placed(strokes, pen, height, style, _PLACE_OF_IMAGE * z[:, 5:7])
    images = np.empty((n, 28, 28), np.float32)
    for first in range(0, n, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        ink = _ink(dots[:, some], pen[some], joined[some])
        images[some] = np.round(255 * (1 - ink)) / 255
    return images


def _forms_of(labels: Array, forms: Skeletons, style: Style, uniform: Array) -> Array:
    """Return the form (n,) in which each digit is written: mostly the writer's favourite one."""
    form = np.zeros(len(labels), np.int64)
    for digit in np.unique(labels):
        first, end = forms.first[digit], forms.first[digit + 1]
        shown = labels == digit
        form[shown] = first + _pick(style.preference[first:end], uniform[shown])
    return form


def _strokes(form: Array, forms: Skeletons, style: Style, posture: Array, noise: Array) -> Array:
    """Return x and y (2, n, s) of the strokes' samples, in heights of a digit, y downwards."""
    own = _SHAPE_OF_IMAGE * style.tremor * (forms.smooth[form] @ noise)
    points = forms.points[form] + style.shape[form] + own
    samples = (forms.spline + style.roundness * forms.bend)[form] @ points
    slant = style.slant + _SLANT_OF_IMAGE * posture[:, 0, np.newaxis]
    turn = style.turn + _TURN_OF_IMAGE * posture[:, 1, np.newaxis]
    stretch = style.stretch * np.exp(_STRETCH_OF_IMAGE * posture[:, 2, np.newaxis])
    x, y = samples[..., 0] * stretch, samples[..., 1]
    x = x - slant * y
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([cos * x - sin * y, sin * x + cos * y])


def _margins(dots: Array, pen: Array) -> Array:
    """Return how far ink reaches beyond each sample in x and in y: a stroke is wide across, and short at its end."""
    steps = np.abs(np.gradient(dots, axis=2))
    margins: Array = pen[:, np.newaxis] * (steps[::-1] + 0.38 * steps) / (np.hypot(*steps) + 1e-12)
    return margins


def _extent(dots: Array, margins: Array) -> tuple[Array, Array]:
    """Return the least and the greatest coordinates (2, n, 1) that ink reaches."""
    return (dots - margins).min(axis=2, keepdims=True), (dots + margins).max(axis=2, keepdims=True)


def _lengths(dots: Array, joined: Array) -> Array:
    """Return the length (n, s) of stroke that each sample stands for: half the way to both its neighbours."""
    steps = np.hypot(*np.diff(dots, axis=2)) * joined[:, 1:]
    lengths = np.zeros(joined.shape)
    lengths[:, 1:] += 0.5 * steps
    lengths[:, :-1] += 0.5 * steps
    return lengths


def _boxed(strokes: Array, pen: Array, joined: Array) -> Array:
    """Scale ink to a box of 20 pixels and centre it by mass, to whole pixels: MNIST's normalisation."""
    margins, size = _margins(strokes, pen), np.ptp(strokes, axis=2).max(axis=0)[:, np.newaxis]
    scale = (20 - 2 * pen[:, np.newaxis]) / size
    for _ in range(2):  # the margins are in pixels, so that the scale that fills the box is found by correction
        low, high = _extent(scale * strokes, margins)
        scale = scale + (20 - (high - low).max(axis=0)) / size
    low, high = _extent(scale * strokes, margins)
    whole = np.maximum(np.round(high - low), 2)
    dots = scale * strokes * (1 + (whole - (high - low)) / np.maximum(high - low, 3))
    mass = _lengths(dots, joined)
    low, high = _extent(dots, margins)
    centre = (mass * dots).sum(axis=2, keepdims=True) / mass.sum(axis=1, keepdims=True)
    # A long thin tail could push the box off the paper; MNIST's images have it all.
    first_pixel = np.clip(np.round(14 - (centre - low - 0.5)), 0, 28 - np.round(high - low))
    centred: Array = dots - low + first_pixel - 0.5
    return centred


def _placed(strokes: Array, pen: Array, height: Array, style: Style, shift: Array) -> Array:
    """Write at the writer's size and place, shrunk and moved as far as it takes to stay on the paper."""
    margins = _margins(strokes, pen)
    margin = 2 * margins.max(axis=(0, 2))
    room = (26 - margin) / np.ptp(strokes, axis=2).max(axis=0)
    dots = np.minimum(height - margin, room)[:, np.newaxis] * strokes
    low, high = _extent(dots, margins)
    offset = (np.array([style.right, style.down]) + shift).T[..., np.newaxis]
    placed: Array = dots + np.clip(13.5 + offset, (high - low) / 2, 27 - (high - low) / 2) - (low + high) / 2
    return placed


def _ink(dots: Array, pen: Array, joined: Array) -> Array:
    """Return ink (n, 28, 28) in [0, 1]; rows are y."""
    pixels = np.arange(28.0)[:, np.newaxis]
    sigma = _DOT * pen[:, np.newaxis, np.newaxis]
    columns, rows = (np.exp(-0.5 * ((pixels - along[:, np.newaxis]) / sigma) ** 2) for along in dots)
    rows *= _lengths(dots, joined)[:, np.newaxis] / (np.sqrt(2 * np.pi) * sigma)
    density = rows @ columns.transpose(0, 2, 1)
    distance = sigma * np.sqrt(-2 * np.log(np.clip(density, 1e-9, 1.0)))
    ink: Array = np.clip(0.5 + (pen[:, np.newaxis, np.newaxis] - distance) / _EDGE, 0.0, 1.0)
    return _INK * ink
