"""What `gram` and `presorted` are given: gradient descent of softmax regression, on the data of a chunk's clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.losses import SoftmaxHead
from fedsim_np.learning.metrics import ExampleMetrics
from fedsim_np.learning.shortcuts import SGDSteps
from fedsim_np.trees import Arrays


class Descent(NamedTuple):
    """Steps of k clients, all from the server's weights.

    Attributes
    ----------
    head : SoftmaxHead
    metrics : ExampleMetrics
    steps : SGDSteps
        With the model's l2 in the pull and in the drift.
    server : tuple of ndarray
        W0 (d, c) and b0 (c,).
    drift : tuple of ndarray, shapes (k, d, c) and (k, c), or None
    columns : sequence of k ClientColumns
    """

    head: SoftmaxHead
    metrics: ExampleMetrics
    steps: SGDSteps
    server: Arrays
    drift: Arrays | None
    columns: Sequence[ClientColumns]
