"""What a client's arrays must look like, and the checks that hold them to it.

A `Schema` names the fields of an example with their shapes, dtypes and ranges. Structure (fields, lengths, shapes,
dtypes) can be checked from a file's headers alone; values only when they are read. `DIGITS` and `CHARACTERS` are the
real EMNIST's; data without a schema of their own follow the generic rules: fields of equal length, one structure for
all clients, finite floats.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.sources import ArraySpec, ElementSpec
from fedsim_np.errors import DataError, data_error


class ArrayHeader(Protocol):
    """An array's shape and dtype: of an array in memory or of one in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""


class Field(NamedTuple):
    """One field of an example.

    Parameters
    ----------
    shape : tuple of int
        Of one example.
    dtype : str
        NumPy's name of it, "float32".
    minimum, maximum : float, optional
        The least and the greatest value that is allowed.
    """

    shape: tuple[int, ...]
    dtype: str
    minimum: float | None = None
    maximum: float | None = None

    @property
    def spec(self) -> ArraySpec:
        """The field's `ArraySpec`."""
        return ArraySpec(self.shape, self.dtype)


class Schema(NamedTuple):
    """The fields of an example, and where in a file one client's arrays are.

    Parameters
    ----------
    fields : mapping of str to Field

    Examples
    --------
    >>> schema = Schema({"label": Field((), "int32", 0, 9)})
    >>> schema.check_structure({"label": np.zeros(3, np.int32)})
    3
    >>> schema.check_values("label", np.array([1, 10], np.int32), client_id="f0000_14")
    Traceback (most recent call last):
    ...
    fedsim_np.errors.DataError: client 'f0000_14', field 'label': values must lie in [0, 9]. Got 10 at index (1,).
    """

    fields: Mapping[str, Field]

    @classmethod
    def of_structure(cls, headers: Mapping[str, ArrayHeader]) -> Schema:
        """Return the generic rules for the structure that one client's arrays have."""
        fields = OrderedDict[str, Field]()
        for name, header in sorted(headers.items()):
            fields[name] = Field(tuple(header.shape[1:]), str(np.dtype(header.dtype).newbyteorder("=")))
        return cls(fields)

    @property
    def spec(self) -> ElementSpec:
        """Field name -> `ArraySpec` of one example."""
        return OrderedDict((name, field.spec) for name, field in self.fields.items())

    def check_structure(self, headers: Mapping[str, ArrayHeader], **place: Any) -> int:
        """Check one client's fields, lengths, shapes and dtypes without reading a value.

        Parameters
        ----------
        headers : mapping of str to anything with a shape and a dtype
            Fields that the schema does not name are ignored.
        **place
            ``path`` and ``client_id`` for the error's text.

        Returns
        -------
        int
            Number of examples (n).

        Raises
        ------
        DataError
            If a field is missing, or has another shape, dtype or length.
        """
        lengths = {}
        if not self.fields:
            raise data_error("the schema must have at least one field", "none", **place)
        for name, field in self.fields.items():
            if name not in headers:
                raise data_error("must be there", f"only {sorted(headers)}", field=name, **place)
            shape, dtype = tuple(headers[name].shape), np.dtype(headers[name].dtype)
            # A scalar a row may come as a column: shape (n, 1) for (n,).
            if not shape or (shape[1:] != field.shape and (field.shape or shape[1:] != (1,))):
                wanted = "(n" + "".join(f", {length}" for length in field.shape) + ("," * (not field.shape)) + ")"
                raise data_error(f"must have shape {wanted}", shape, field=name, **place)
            if dtype.kind not in "biuf":
                raise data_error("must hold numbers", f"dtype {dtype}", field=name, **place)
            if dtype.newbyteorder("=") != np.dtype(field.dtype):
                raise data_error(f"must have dtype {field.dtype}", dtype, field=name, **place)
            lengths[name] = shape[0]
        if len(set(lengths.values())) > 1:
            raise data_error("all fields must have the same length", lengths, **place)
        return next(iter(lengths.values()))

    def check_values(self, name: str, values: npt.NDArray[Any], **place: Any) -> None:
        """Check that a field's values are finite and in its range.

        Raises
        ------
        DataError
            Naming the first value that is not, and its index.
        """
        field = self.fields[name]
        if not values.size:
            return
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            self.check_finite(name, values, **place)
        minimum = -np.inf if field.minimum is None else field.minimum
        maximum = np.inf if field.maximum is None else field.maximum
        if low < minimum or high > maximum:
            bad = (values < minimum) | (values > maximum)
            raise _bad_value(f"values must lie in [{minimum:g}, {maximum:g}]", name, values, bad, place)

    @staticmethod
    def check_finite(name: str, values: npt.NDArray[Any], **place: Any) -> None:
        """Check that a field's floats are finite.

        Raises
        ------
        DataError
            Naming the first value that is not, and its index.
        """
        # A NaN makes both extremes NaN: two passes find every kind of bad value.
        if values.dtype.kind == "f" and values.size and not np.isfinite([values.min(), values.max()]).all():
            raise _bad_value("values must be finite", name, values, ~np.isfinite(values), place)


def _handwriting(num_classes: int) -> Schema:
    label, pixels = Field((), "int32", 0, num_classes - 1), Field((28, 28), "float32", 0.0, 1.0)
    return Schema(OrderedDict(label=label, pixels=pixels))


DIGITS = _handwriting(10)
"""Schema of EMNIST's digits: labels 0 to 9."""

CHARACTERS = _handwriting(62)
"""Schema of EMNIST's digits and letters: labels 0 to 61."""


def label_field(names: Container[str]) -> str | None:
    """Return the usual name of the field of labels among those that there are: `label`, or `y`, or None.

    Examples
    --------
    >>> label_field(["x", "y"]), label_field(["y", "label"]), label_field(["x"])
    ('y', 'label', None)
    """
    return next((name for name in ("label", "y") if name in names), None)


def _bad_value(
    rule: str, name: str, values: npt.NDArray[Any], bad: npt.NDArray[np.bool_], place: Mapping[str, Any]
) -> DataError:
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return data_error(rule, f"{values[index]} at index {index}", field=name, **place)
