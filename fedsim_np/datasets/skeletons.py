"""The shapes of the ten digits, as strokes through a few control points.

People write the same digit in different forms: a 1 with or without a foot, a 4 open or closed, a 7 with or without a
bar. A *form* is a list of strokes, a stroke a list of points (x, y) in a unit box, y downwards; a point that is given
twice is a corner. `skeletons` turns the table into arrays of one shape for all forms, so that a client's images are
drawn at once, whatever they show:

====================  ===============  ==========================================================
``points``            (f, p, 2)        control points of every form, centred, height 1
``spline``, ``bend``  (f, s, p)        samples along the strokes are ``(spline + t * bend) @ points``
``joined``            (f, s)           1 where a sample continues the stroke before it, else 0
``smooth``            (f, p, p)        mixes white noise into noise that neighbouring points share
====================  ===============  ==========================================================

A curve through points is a Hermite spline whose tangents are ``t * (next - previous)``: t = 0.5 is Catmull and Rom's,
less is angular, more is round. It is linear in its points, and that makes the drawing a few matrix products.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SAMPLES = 60
"""s, the number of samples along a digit's strokes: about one a pixel."""

_REACH = 0.2  # how far along the paper neighbouring points move together, in heights of a digit

# fmt: off
_FORMS = {
    0: [
        [[(.5, .02), (.2, .14), (.07, .5), (.2, .87), (.5, .98), (.8, .86), (.93, .5), (.8, .14), (.5, .02)]],
        [[(.66, .04), (.3, .08), (.08, .42), (.14, .84), (.46, .99), (.83, .82), (.93, .42), (.74, .08), (.42, .05)]],
        [[(.6, 0), (.25, .25), (.1, .65), (.3, .97), (.65, .88), (.88, .5), (.8, .12), (.5, .06)]],
    ],
    1: [
        [[(.5, 0), (.5, .33), (.5, .67), (.5, 1)]],
        [[(.5, 0), (.52, .33), (.5, .67), (.48, 1)]],
        [[(.26, .24), (.4, .14), (.54, 0), (.54, 0), (.53, .33), (.52, .67), (.51, 1)]],
        [[(.24, .22), (.4, .12), (.52, 0), (.52, 0), (.52, .33), (.52, .67), (.52, .98)],
         [(.2, .98), (.5, .98), (.82, .98)]],
    ],
    2: [
        [[(.12, .22), (.3, .03), (.6, .01), (.8, .18), (.72, .45), (.42, .72), (.04, .97), (.04, .97), (.5, .96),
          (.96, .95)]],
        [[(.12, .18), (.4, 0), (.74, .12), (.7, .42), (.4, .78), (.14, .97), (.02, .85), (.18, .74), (.5, .86),
          (1, .96)]],
        [[(.1, .2), (.36, 0), (.72, .08), (.74, .36), (.48, .72), (.2, .97), (.02, .92), (.1, .76), (.4, .8),
          (.7, .93), (1.02, .9)]],
        [[(.14, .16), (.42, 0), (.76, .12), (.74, .4), (.46, .7), (.1, .95), (.1, .95), (.36, .84), (.62, .94),
          (.98, .86)]],
        [[(.18, .12), (.46, 0), (.78, .14), (.68, .42), (.36, .66), (.06, .9), (.06, .9), (.5, .93), (.96, .99)]],
    ],
    3: [
        [[(.12, .14), (.42, 0), (.76, .12), (.72, .36), (.38, .46), (.38, .46), (.76, .56), (.88, .78), (.6, .98),
          (.08, .9)]],
        [[(.12, .08), (.45, .05), (.82, .04), (.82, .04), (.62, .24), (.42, .42), (.42, .42), (.82, .55), (.86, .85),
          (.5, .99), (.1, .9)]],
        [[(.18, .1), (.5, 0), (.78, .16), (.6, .4), (.3, .47), (.62, .5), (.86, .74), (.62, .97), (.15, .92)]],
    ],
    4: [
        [[(.2, .04), (.14, .28), (.1, .52), (.1, .52), (.5, .53), (.92, .5)],
         [(.76, 0), (.74, .35), (.72, .68), (.7, 1)]],
        [[(.66, 0), (.38, .32), (.06, .66), (.06, .66), (.5, .66), (.95, .64)],
         [(.66, 0), (.66, .35), (.65, .68), (.64, 1)]],
        [[(.15, .03), (.09, .25), (.14, .46), (.42, .54), (.68, .5), (.84, .42)],
         [(.86, 0), (.84, .35), (.81, .68), (.78, 1)]],
    ],
    5: [
        [[(.26, .06), (.23, .24), (.2, .44), (.2, .44), (.52, .38), (.82, .55), (.8, .84), (.5, .99), (.08, .9)],
         [(.26, .06), (.58, .05), (.92, .03)]],
        [[(.92, .03), (.6, .05), (.3, .07), (.3, .07), (.26, .25), (.22, .43), (.22, .43), (.56, .4), (.82, .6),
          (.74, .88), (.42, .99), (.06, .88)]],
        [[(.88, .06), (.5, .03), (.24, .16), (.3, .38), (.6, .48), (.78, .7), (.6, .95), (.1, .94)]],
    ],
    6: [
        [[(.68, 0), (.38, .2), (.12, .52), (.1, .84), (.42, 1), (.8, .9), (.92, .66), (.62, .52), (.14, .74)]],
        [[(.5, 0), (.26, .32), (.08, .66), (.2, .96), (.58, 1), (.92, .8), (.8, .56), (.42, .6), (.12, .8)]],
        [[(.8, .06), (.46, .06), (.16, .34), (.06, .7), (.28, .98), (.74, .97), (.94, .72), (.62, .52), (.16, .66)]],
        [[(.52, 0), (.22, .3), (.04, .68), (.28, .99), (.66, .97), (.86, .78), (.66, .66), (.34, .78), (.3, .9)]],
    ],
    7: [
        [[(.08, .06), (.45, .06), (.88, .05), (.88, .05), (.66, .36), (.5, .66), (.4, 1)]],
        [[(.08, .06), (.45, .06), (.88, .05), (.88, .05), (.66, .36), (.5, .66), (.4, 1)],
         [(.3, .5), (.52, .49), (.78, .47)]],
        [[(.06, .24), (.1, .08), (.45, .08), (.9, .05), (.9, .05), (.68, .34), (.5, .66), (.42, 1)]],
        [[(.1, .1), (.5, .02), (.84, .1), (.78, .35), (.6, .65), (.5, 1)]],
    ],
    8: [
        [[(.86, .12), (.52, 0), (.14, .14), (.34, .42), (.76, .66), (.72, .94), (.38, 1), (.1, .84), (.36, .56),
          (.84, .3), (.86, .12)]],
        [[(.5, .47), (.22, .36), (.22, .12), (.5, .01), (.8, .12), (.78, .36), (.5, .47)],
         [(.5, .47), (.14, .6), (.12, .88), (.46, .99), (.82, .88), (.84, .6), (.5, .47)]],
        [[(.6, .02), (.24, .1), (.22, .34), (.56, .52), (.8, .76), (.46, 1), (.1, .82), (.34, .54), (.74, .3),
          (.8, .06)]],
        [[(.9, .06), (.5, .02), (.2, .2), (.44, .44), (.7, .66), (.6, .95), (.3, .98), (.14, .8), (.44, .52),
          (.94, .1)]],
    ],
    9: [
        [[(.82, .16), (.5, 0), (.16, .18), (.2, .44), (.54, .48), (.82, .2), (.82, .2), (.79, .48), (.74, .74),
          (.7, 1)]],
        [[(.78, .12), (.42, .02), (.14, .26), (.32, .48), (.66, .4), (.8, .14), (.8, .14), (.8, .5), (.66, .84),
          (.26, .98)]],
        [[(.7, .05), (.34, .06), (.14, .3), (.36, .5), (.68, .34), (.76, .08), (.7, .45), (.56, .75), (.44, 1)]],
    ],
}
_WIDTHS = {0: .84, 1: .42, 2: .86, 3: .74, 4: .8, 5: .8, 6: .76, 7: .74, 8: .7, 9: .66}  # in heights
# fmt: on


class Skeletons(NamedTuple):
    """Every form as arrays, see the module's table; f forms, p points, s samples.

    Attributes
    ----------
    first : ndarray, shape (11,)
        The forms of digit d are number ``first[d]`` to ``first[d + 1] - 1``.
    """

    points: Array
    spline: Array
    bend: Array
    joined: Array
    smooth: Array
    first: Array


def _hermite(num_points: int, positions: Array) -> tuple[Array, Array]:
    """Return the weights (len(positions), p) of points and of half-tangents at positions in [0, p - 1]."""
    spline, bend = np.zeros((2, len(positions), num_points))
    left = np.clip(np.floor(positions).astype(np.int64), 0, num_points - 2)
    u, rows = positions - left, np.arange(len(positions))
    spline[rows, left] = 1 - u * u * (3 - 2 * u)
    spline[rows, left + 1] = u * u * (3 - 2 * u)
    for tangent, weight in ((left, u * (1 - u) ** 2), (left + 1, -u * u * (1 - u))):
        # A stroke's end has no neighbour beyond it: its own place stands in.
        np.add.at(bend, (rows, np.minimum(tangent + 1, num_points - 1)), weight)
        np.add.at(bend, (rows, np.maximum(tangent - 1, 0)), -weight)
    return spline, bend


def _evenly(points: Array, count: int) -> Array:
    """Return `count` positions that cut a stroke into pieces of equal length."""
    positions = np.linspace(0, len(points) - 1, 50 * len(points))
    spline, bend = _hermite(len(points), positions)
    drawn = (spline + 0.5 * bend) @ points
    lengths = np.cumsum(np.hypot(*np.diff(drawn, axis=0, prepend=drawn[:1]).T))
    return np.interp(np.linspace(0, lengths[-1], count), lengths, positions)


@functools.cache
def skeletons() -> Skeletons:
    """Return all forms of all digits.

    Examples
    --------
    >>> forms = skeletons()
    >>> len(forms.points) == len(forms.spline) == int(forms.first[10])
    True
    """
    listed = [(digit, [np.array(s, np.float64) for s in form]) for digit, forms in _FORMS.items() for form in forms]
    f, p = len(listed), max(sum(map(len, strokes)) for _, strokes in listed)
    points, smooth = np.zeros((f, p, 2)), np.zeros((f, p, p))
    spline, bend = np.zeros((2, f, SAMPLES, p))
    joined = np.ones((f, SAMPLES))
    for number, (digit, strokes) in enumerate(listed):
        lengths = [np.abs(np.diff(stroke, axis=0)).sum() for stroke in strokes]
        row = column = 0
        for i, stroke in enumerate(strokes):
            last = i == len(strokes) - 1
            count = SAMPLES - row if last else round(SAMPLES * lengths[i] / sum(lengths))
            rows, columns = slice(row, row + count), slice(column, column + len(stroke))
            spline[number, rows, columns], bend[number, rows, columns] = _hermite(len(stroke), _evenly(stroke, count))
            points[number, columns] = (stroke - 0.5) * (_WIDTHS[digit], 1.0)
            joined[number, row] = 0
            row, column = row + count, column + len(stroke)
        between = points[number, :column, np.newaxis] - points[number, np.newaxis, :column]
        kernel = np.exp(-0.5 * (between**2).sum(axis=-1) / _REACH**2)
        smooth[number, :column, :column] = kernel / np.sqrt((kernel**2).sum(axis=1, keepdims=True))
    first = np.cumsum([0, *(len(_FORMS[digit]) for digit in range(10))])
    return Skeletons(points, spline, bend, joined, smooth, first)
