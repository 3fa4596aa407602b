r"""How large, how uneven, how non-i.i.d. client data are, in numbers.

The label distribution :math:`p_i` of client i is compared with that of all examples, :math:`p`: by its entropy
:math:`-\sum_c p_{ic} \log_2 p_{ic}` (bits; less than p's if a client sees fewer labels), and by the total variation
distance :math:`\frac12 \sum_c |p_{ic} - p_c|` (0 if a client's labels are like everybody's, near 1 if it has one that
is rare elsewhere).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.client_data import ClientData
from fedsim_np.datasets.schema import label_field
from fedsim_np.datasets.sources import ElementSpec
from fedsim_np.errors import data_error, unknown_name

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_HINT = ": mostly near 1; if that is paper, train on 1 - x: train --invert, select(..., invert=True)"


def is_mostly_one(least: float, mean: float, greatest: float) -> bool:
    """Return whether values in [0, 1] are nearer to 1 than to 0 on average, as pixels are of which paper is 1.

    Examples
    --------
    >>> is_mostly_one(0.0, 0.85, 1.0), is_mostly_one(0.0, 0.15, 1.0), is_mostly_one(0.0, 200.0, 255.0)
    (True, False, False)
    """
    return least >= 0.0 and greatest <= 1.0 and mean > 0.5


class Description(NamedTuple):
    """What `describe` returns; k clients, c labels. Its text is a summary.

    Attributes
    ----------
    client_ids : list of str
    labels : ndarray, shape (c,)
        The labels that occur, sorted; none if there is no such field.
    counts : ndarray of int64, shape (k, c)
        Examples of each client and label.
    sizes : ndarray of int64, shape (k,)
        Examples of each client.
    size_quantiles : OrderedDict of float to float
        Least, quartiles and greatest of the sizes.
    label_entropy : ndarray, shape (k,)
        Bits; NaN for a client without examples, and for all if there are no labels.
    pooled_label_entropy : float
        Bits, of all examples together.
    label_distance : ndarray, shape (k,)
        Total variation distance of each client's label distribution from the pooled one; NaN likewise.
    num_duplicates : int
        Examples that equal an earlier one in every field.
    values : OrderedDict of str to (float, float, float)
        Field -> least, mean and greatest of its values, of all fields but the label; none without examples.
    """

    client_ids: list[str]
    labels: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    size_quantiles: OrderedDict[float, float]
    label_entropy: npt.NDArray[np.float64]
    pooled_label_entropy: float
    label_distance: npt.NDArray[np.float64]
    num_duplicates: int
    values: OrderedDict[str, tuple[float, float, float]]

    def __str__(self) -> str:
        quantiles = "  ".join(f"{value:g}" for value in self.size_quantiles.values())
        lines = [
            f"clients             {len(self.client_ids)} ({int((self.sizes == 0).sum())} without examples)",
            f"examples            {int(self.sizes.sum())}, {self.sizes.mean():.1f} a client",
            f"sizes               {quantiles}  (least, quartiles, greatest)",
            f"duplicates          {self.num_duplicates}",
        ]
        if len(self.labels) and self.sizes.any():
            shares = self.counts.sum(axis=0) / self.sizes.sum()
            pairs = "  ".join(f"{label}: {share:.1%}" for label, share in zip(self.labels, shares, strict=True))
            lines += [
                f"labels              {pairs}",
                f"label entropy       {np.nanmean(self.label_entropy):.3f} bits a client, "
                f"{self.pooled_label_entropy:.3f} pooled",
                f"label distance      {np.nanmean(self.label_distance):.3f} a client "
                "(total variation from the pooled labels: 0 is i.i.d.)",
            ]
        for name, (least, mean, greatest) in self.values.items():
            hint = _HINT * is_mostly_one(least, mean, greatest)
            lines.append(f"{'values of ' + name:18}  {least:g} to {greatest:g}, mean {mean:.3g}{hint}")
        return "\n".join(lines)


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(shares > 0, -shares * np.log2(shares), shares * 0.0)
    entropy: npt.NDArray[np.float64] = bits.sum(axis=-1) if shares.shape[-1] else np.full(shares.shape[:-1], np.nan)
    return entropy


def _labels_of(fields: ElementSpec, wanted: str | None) -> str | None:
    """Return the field of labels: the one that is wanted, or the usual one that is there."""
    if wanted is not None:
        if wanted not in fields:
            raise unknown_name("label", list(fields), wanted)
        return wanted
    usual = label_field(fields)
    measured = usual == "y" and (fields["y"].dtype.kind == "f" or any(n not in (1, None) for n in fields["y"].shape))
    return None if measured else usual


def describe(client_data: ClientData, label: str | None = None) -> Description:
    """Count a data set's clients, examples, labels and duplicates.

    Every client is read once, one at a time.

    Parameters
    ----------
    client_data : ClientData
    label : str, optional
        The field that holds the label. By default `label`, or `y` if there is no such field and it holds classes, which
        is to say integers, one an example.

    Returns
    -------
    Description

    Raises
    ------
    ValueError
        If there is no field of that name.
    DataError
        If a client's labels are not one number an example.

    Examples
    --------
    >>> from fedsim_np.datasets import InMemoryClientData
    >>> described = describe(InMemoryClientData({"ann": {"label": [0, 0, 1]}, "bob": {"label": [1]}}))
    >>> described.counts.tolist(), described.num_duplicates, described.label_entropy.round(3).tolist()
    ([[2, 1], [0, 1]], 2, [0.918, 0.0])
    """
    client_ids = list(client_data.client_ids)
    label = _labels_of(client_data.element_type_structure, label)
    counted: list[dict[Any, int]] = []
    ranges: OrderedDict[str, list[float]] = OrderedDict()
    sizes = np.zeros(len(client_ids), np.int64)
    seen: set[bytes] = set()
    for number, client_id in enumerate(client_ids):
        arrays = client_data.create_dataset_for_client(client_id).to_arrays()
        sizes[number] = len(next(iter(arrays.values())))
        shown = np.empty(0) if label is None else arrays[label]
        if shown.size != len(shown):
            raise data_error("labels must be one number an example", shown.shape, client_id=client_id, field=label)
        values, numbers = np.unique(shown, return_counts=True)
        counted.append(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        for name, array in arrays.items():
            if name != label and array.size and array.dtype.kind in "biuf":
                of = ranges.setdefault(name, [np.inf, 0.0, 0.0, -np.inf])
                least, greatest = min(of[0], float(array.min())), max(of[3], float(array.max()))
                of[:] = least, of[1] + float(array.sum(dtype=np.float64)), of[2] + array.size, greatest
        for row in range(sizes[number]):
            digest = hashlib.blake2b(digest_size=16)
            for array in arrays.values():
                digest.update(array[row].tobytes())
            seen.add(digest.digest())
    labels = sorted(set().union(*counted))
    counts = np.array([[of.get(value, 0) for value in labels] for of in counted], np.int64).reshape(len(sizes), -1)
    with np.errstate(invalid="ignore"):
        shares = counts / np.where(sizes, sizes, np.nan)[:, np.newaxis]
    pooled = counts.sum(axis=0) / max(1, int(sizes.sum()))
    return Description(
        client_ids=client_ids,
        labels=np.array(labels),
        counts=counts,
        sizes=sizes,
        size_quantiles=OrderedDict((q, float(np.quantile(sizes, q))) for q in QUANTILES),
        label_entropy=_entropy(shares),
        pooled_label_entropy=float(_entropy(pooled)),
        label_distance=0.5 * np.abs(shares - pooled).sum(axis=1) + (0.0 if labels else np.nan),
        num_duplicates=int(sizes.sum()) - len(seen),
        values=OrderedDict((name, (of[0], of[1] / of[2], of[3])) for name, of in ranges.items()),
    )
