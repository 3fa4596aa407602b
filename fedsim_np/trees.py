"""Trees: mappings, tuples and lists within each other, with arrays and numbers as their leaves.

A model's weights, an optimizer's state, metrics, what the server keeps of a client: all of these are trees. The code
that walks them stands here, and nowhere else.

::

    {"weights": (kernel, bias), "step": 3}        a tree with three leaves
    stack([tree of ann, tree of bob])             the same tree, each array with the clients' axis in front

Named tuples are nodes by their fields. Everything else is a leaf, None as well: it stands for what is not there, and
`map` leaves it alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = tuple[Array, ...]
Tree = Any
T = TypeVar("T")


def children(tree: Tree) -> list[tuple[str | None, Any]] | None:
    """Return the names and values of a node, None for names that it has not; None if it is a leaf.

    Examples
    --------
    >>> children({"loss": [2.5, 1.0]}), children((1, 2)), children(3.5)
    ([('loss', [2.5, 1.0])], [(None, 1), (None, 2)], None)
    """
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, tuple | list):
        names = getattr(tree, "_fields", None) or (None,) * len(tree)
        return list(zip(names, tree, strict=True))
    return None


def map(function: Callable[..., Any], tree: T, *others: Tree) -> T:
    """Apply a function leaf by leaf to trees of one structure; where a leaf is None, the first tree's stays.

    Examples
    --------
    >>> map(lambda w, g: w - 2 * g, (3.0, [1.0]), (1.0, [0.5]))
    (1.0, [0.0])
    >>> map(lambda w, g: w - 2 * g, (3.0, 1.0), (1.0, None))
    (1.0, 1.0)
    """
    mapped: T = _mapped(function, tree, *others)
    return mapped


def _mapped(function: Callable[..., Any], tree: Tree, *others: Tree) -> Any:
    kind = type(tree)
    if kind is np.ndarray:  # most are
        for other in others:
            if other is None:
                return tree
        return function(tree, *others)
    if isinstance(tree, (tuple, list)):
        values = [_mapped(function, *parts) for parts in zip(tree, *others, strict=True)]
        return kind(*values) if kind is not tuple and hasattr(kind, "_fields") else kind(values)
    if isinstance(tree, Mapping):
        kind = dict if kind is dict else OrderedDict
        return kind((name, _mapped(function, tree[name], *(other[name] for other in others))) for name in tree)
    for part in (tree, *others):
        if part is None:
            return tree
    return function(tree, *others)


def fold(leaf: Callable[[Any], T], node: Callable[[Any, list[tuple[str | None, T]]], T], tree: Tree) -> T:
    """Make one thing of a tree, from its leaves to its root: ``node`` is given a node, and its names and results.

    Examples
    --------
    >>> fold(len, lambda node, parts: sum(length for _, length in parts), {"a": "xy", "b": ["z", "xyz"]})
    6
    """
    nodes = children(tree)
    if nodes is None:
        return leaf(tree)
    return node(tree, [(name, fold(leaf, node, value)) for name, value in nodes])


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of every leaf.

    Examples
    --------
    >>> list(leaves({"weights": (1, 2), "step": 3}))
    [('weights/0', 1), ('weights/1', 2), ('step', 3)]
    """
    nodes = children(tree)
    if nodes is None:
        yield path, tree
        return
    for place, (name, value) in enumerate(nodes):
        here = str(place) if name is None else name
        yield from leaves(value, f"{path}/{here}" if path else here)


def stack(trees: Sequence[T]) -> T:
    """Return trees of one structure as one, with an axis for them in front of every array.

    Numbers become an array of them.

    Examples
    --------
    >>> stack([{"w": np.zeros(2), "n": 1}, {"w": np.ones(2), "n": 2}])
    {'w': array([[0., 0.],
           [1., 1.]]), 'n': array([1, 2])}
    """
    return map(lambda *parts: np.stack(parts), *trees)


def concatenate(trees: Sequence[T], lengths: Sequence[int]) -> T:
    """Return trees of one structure, each of so many clients, as one: arrays are joined along the clients' axis.

    A number that differs becomes an array with an entry for each client.

    Examples
    --------
    >>> ann_and_bob, cem = {"w": np.zeros((2, 1)), "step": 3}, {"w": np.ones((1, 1)), "step": 1}
    >>> concatenate([ann_and_bob, cem], [2, 1])
    {'w': array([[0.],
           [0.],
           [1.]]), 'step': array([3, 3, 1])}
    """

    def joined(*parts: Any) -> Any:
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts)
        return parts[0] if all(part == parts[0] for part in parts) else np.repeat(np.asarray(parts), lengths)

    return trees[0] if len(trees) == 1 else map(joined, *trees)


def take(tree: T, index: Any) -> T:
    """Return the same tree with ``array[index]`` in the place of every array.

    Examples
    --------
    >>> take({"w": np.arange(6).reshape(3, 2), "step": 4}, slice(2))
    {'w': array([[0, 1],
           [2, 3]]), 'step': 4}
    """
    return map(lambda leaf: leaf[index] if isinstance(leaf, np.ndarray) and leaf.ndim else leaf, tree)


def freeze(tree: T) -> T:
    """Return a tree with every array in it read-only; the arrays of the tree that is given stay as they are."""

    def frozen(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or not leaf.flags.writeable:
            return leaf
        view = leaf.view()
        view.flags.writeable = False
        return view

    return map(frozen, tree)


def along(numbers: npt.ArrayLike, array: Array) -> Any:
    """Lay numbers, one a client, beside an array that has the clients' axis in front; one number stays as it is.

    They take the array's dtype, so that float32 stays float32.

    Examples
    --------
    >>> along([1, 2], np.zeros((2, 4), np.float32)).shape, float(along(3, np.zeros((2, 4), np.float32)))
    ((2, 1), 3.0)
    """
    given = np.asarray(numbers, array.dtype)
    return given.reshape(-1, *[1] * (array.ndim - 1)) if given.ndim else given[()]
