"""Chosen fields of rows: renamed, flattened and scaled, row by row by construction (`Dataset.select`)."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.caching import Once
from fedsim_np.datasets.sources import (
    ArraySpec,
    Columns,
    Element,
    ElementSpec,
    Source,
    owned,
    plain_array,
    read_only_fields,
)
from fedsim_np.errors import (
    NamingClient,
    argument_error,
    argument_type_error,
    check_bool,
    check_float,
    data_error,
    did_you_mean,
)


@dataclass(frozen=True)
class Selection:
    """Which fields to keep, by which names and in which order; each row is flattened to one axis.

    It acts on the columns of a source, (n, ...) -> (n, d), on a batch, (b, ...) -> (b, d), or on one example,
    (...) -> (d,), and then stands in the place of a map's function.

    Attributes
    ----------
    fields : tuple of (str, str)
        New name, name of a field that is there.
    scale, offset : float or None
        Of the new field `x`, in float32: ``float32(x) * float32(scale) + float32(offset)``; None leaves a step out.
    invert : bool
        Whether that is ``1 - x``, which says nothing of bytes: then `x` must be made of floats.
    client_id : str or None
        For the texts of errors.
    batched : bool
        Whether there is an axis of rows, which stays.

    Examples
    --------
    >>> choice = Selection.of({"x": "pixels", "y": "label"}, scale=0.5)
    >>> batch = choice({"label": np.int32([3, 1]), "pixels": np.uint8([[[0, 1]], [[2, 3]]])})
    >>> batch["x"].tolist(), batch["y"].tolist()
    ([[0.0, 0.5], [1.0, 1.5]], [[3], [1]])
    """

    fields: tuple[tuple[str, str], ...]
    scale: float | None = None
    offset: float | None = None
    client_id: str | None = None
    batched: bool = True
    invert: bool = False

    @classmethod
    def of(
        cls,
        fields: Mapping[str, str],
        scale: float | None = None,
        offset: float | None = None,
        client_id: str | None = None,
        batched: bool = True,
        invert: bool = False,
    ) -> Selection:
        """Check what a caller asks for.

        Raises
        ------
        ValueError
            If no field is named, `scale` or `offset` is not a finite float32, or is given without a field `x`, or
            together with `invert`.
        TypeError
            If a field is given as something else than a str, or `invert` as something else than True or False.
        """
        if not fields:
            raise argument_error("fields", "at least one keyword, such as x='pixels'", fields)
        for new, old in fields.items():
            if not isinstance(old, str):
                raise argument_type_error(new, "the name of a field, a str", old)
        invert = check_bool("invert", invert)
        for name, value in (("scale", scale), ("offset", offset), ("invert", invert or None)):
            if value is not None and "x" not in fields:
                raise argument_error(name, f"left out where no field is called 'x', as of {list(fields)}", value)
        if invert and not (scale is None is offset):
            raise argument_error("invert", "given alone: it is scale=-1, offset=1", {"scale": scale, "offset": offset})
        if invert:
            scale, offset = -1.0, 1.0
        scale = None if scale is None else _float32("scale", scale)
        offset = None if offset is None else _float32("offset", offset)
        return cls(tuple(fields.items()), scale, offset, client_id, batched, invert)

    def _is_scaled(self, new: str) -> bool:
        return new == "x" and not (self.scale is None and self.offset is None)

    def check(self, found: Mapping[str, Any]) -> None:
        """Check fields for what is asked of them, by anything with a dtype: no value is looked at.

        Raises
        ------
        DataError
            If one is not there, or is to be scaled and holds no numbers.
        """
        for new, old in self.fields:
            if old not in found:
                hint = did_you_mean(old, found)
                raise data_error("must be there", f"only {list(found)}", client_id=self.client_id, field=old, hint=hint)
            dtype = getattr(found[old], "dtype", None) if self._is_scaled(new) else None
            if dtype is not None and dtype.kind not in ("bf" if self.invert else "biuf"):
                rule = "must hold numbers to be scaled"
                if self.invert:
                    rule = "must hold floats from 0 to 1 to be inverted (bytes: scale=-1/255, offset=1)"
                raise data_error(rule, f"dtype {dtype}", client_id=self.client_id, field=old)

    def spec(self, rows: ElementSpec) -> ElementSpec:
        """Return what becomes of one example's shapes and dtypes."""
        selected: ElementSpec = OrderedDict()
        for new, old in self.fields:
            length = None if None in rows[old].shape else math.prod(d or 0 for d in rows[old].shape)
            selected[new] = ArraySpec((length,), np.float32 if self._is_scaled(new) else rows[old].dtype)
        return selected

    def __call__(self, element: Mapping[str, Any]) -> Element:
        """Return the chosen fields, in C order: views where that can be, new arrays where they are scaled."""
        self.check(element)
        with NamingClient(self.client_id):
            return OrderedDict((new, self._flat(new, plain_array(element[old], old), old)) for new, old in self.fields)

    def _flat(self, new: str, values: npt.NDArray[Any], old: str) -> npt.NDArray[Any]:
        if self.batched and not values.ndim:
            raise data_error("a batch's arrays must have an examples axis", "a scalar", field=old)
        rows = values.shape[:1] if self.batched else ()
        flat = values.reshape(*rows, math.prod(values.shape[len(rows) :]))
        if not self._is_scaled(new):
            return np.ascontiguousarray(flat)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            scaled = flat.astype(np.float32, order="C")
            if self.scale is not None:
                scaled *= np.float32(self.scale)
            if self.offset is not None:
                scaled += np.float32(self.offset)
        beyond = ~np.isfinite(scaled)
        if beyond.any() and np.isfinite(flat[beyond]).any():
            found = flat[beyond & np.isfinite(flat)][0]
            raise data_error("values must be finite as float32", found, field=old)
        return scaled


def _float32(name: str, value: float) -> float:
    checked = check_float(name, value)
    with np.errstate(over="ignore", under="ignore"):
        if not np.isfinite(np.float32(checked)):
            raise argument_error(name, "a finite float32", value)
    return checked


class SelectedSource:
    """Chosen fields of another source's rows, made at first use and then remembered; they are not pickled.

    Parameters
    ----------
    inner : Source
    selection : Selection
    after : int
        How many of the dataset's stages stand before the choice.

    Examples
    --------
    >>> from fedsim_np.datasets.sources import ArraySource
    >>> source = SelectedSource(ArraySource.of({"pixels": np.zeros((3, 2, 2))}), Selection.of({"x": "pixels"}))
    >>> source.spec["x"], source.columns()["x"].shape
    (ArraySpec(shape=(4,), dtype=float64), (3, 4))
    """

    def __init__(self, inner: Source, selection: Selection, after: int = 0) -> None:
        self._inner, self._selection, self.after = inner, selection, after
        # Not a method of this object: the columns shall go with the last reference to it.
        self._columns = Once(functools.partial(_select, inner, selection))

    def __reduce__(self) -> tuple[type[SelectedSource], tuple[Source, Selection, int]]:
        return SelectedSource, (self._inner, self._selection, self.after)

    @property
    def num_rows(self) -> int:
        """Number of examples (n)."""
        return self._inner.num_rows

    @property
    def spec(self) -> ElementSpec:
        """Shape and dtype of one example's fields."""
        return self._selection.spec(self._inner.spec)

    def load_ahead(self, submit: Callable[..., Future[Any]]) -> None:
        """Have the other source's columns loaded."""
        if not self._columns.is_made:
            self._inner.load_ahead(submit)

    def columns(self) -> Columns:
        """Return the read-only arrays, each of shape (n, d)."""
        return self._columns()


def _select(source: Source, selection: Selection) -> Columns:
    columns = source.columns()
    if selection.scale is None is selection.offset:
        selection.check(columns)
        chosen = [columns[old] for _, old in selection.fields]
        if all(column.flags.c_contiguous for column in chosen):  # views, as read-only as what they are of
            views = [c if c.ndim == 2 else c.reshape(len(c), math.prod(c.shape[1:])) for c in chosen]
            return OrderedDict(zip([new for new, _ in selection.fields], views, strict=True))
    return read_only_fields(owned(selection(columns)))
