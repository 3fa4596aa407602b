"""Gradient descent of softmax regression, in the shortest way that shapes allow.

A local training that declares its steps to be `SGDSteps` is trained by `gram`, in the span of the data, or by
`presorted`, client by client, whatever it does before and after them. Which of the two it is, or lockstep on stacked
weights, is either said or chosen chunk by chunk, by `costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error
from fedsim_np.learning.client import Broadcast
from fedsim_np.learning.engines import gram, presorted
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.engines.costs import cheapest
from fedsim_np.learning.engines.descent import Descent
from fedsim_np.learning.engines.engine import ChunkResult, Task
from fedsim_np.learning.engines.lockstep import Lazy, LockstepEngine, Stack
from fedsim_np.learning.shortcuts import IsSoftmaxRegression


@dataclass(frozen=True, kw_only=True)
class SGDEngine(LockstepEngine):
    """`SGDSteps` of softmax regression.

    Parameters
    ----------
    softmax : Model
        The model, as what it offers.
    name : {"gram", "presorted"}
        The way, or of an automatic choice the one that suits most.
    is_auto : bool
        Whether a chunk may be trained in any way. Which one depends on configuration, state and shapes alone: so it is
        the same on every machine.
    """

    softmax: IsSoftmaxRegression
    name: str = "gram"
    is_auto: bool = False
    chunk_size: int = 100

    def _train(
        self, sent: Broadcast, tasks: Sequence[Task], columns: Sequence[ClientColumns], cache: Cache
    ) -> ChunkResult:
        steps, server = self.work.as_sgd(sent.state), sent.weights.trainable
        way = cheapest(columns, *server[0].shape) if self.is_auto else self.name
        if self.is_auto and (steps is None or way == "cohort"):
            return super()._train(sent, tasks, columns, cache)
        if steps is None:  # a schedule by round may change from it
            raise ValueError(f"engine='{way}' cannot take steps that are not gradient descent's: use engine='auto'.")
        stack = Stack(self, sent, tasks, columns)
        client, l2 = stack.client(), self.softmax.l2
        local = self._begin(client)
        if any(a is not b for a, b in zip(local["weights"], client.weights, strict=True)):
            rule = "where begin leaves them, at client.weights, or as_sgd return None"
            raise argument_error(f"weights of {type(self.work).__name__}", rule, "other arrays")
        # In float32, as optimizers have it.
        rate, momentum, pull = (float(np.float32(h)) for h in (steps.learning_rate, steps.momentum, steps.pull + l2))
        drift = None if steps.drift is None else local[steps.drift]
        if l2:  # l2 w is a pull towards the server's weights, and a drift of l2 times these
            of_l2 = trees.map(lambda w: np.float32(l2) * w, client.weights)
            drift = of_l2 if drift is None else trees.map(np.add, drift, of_l2)
        steps, metrics = steps._replace(learning_rate=rate, momentum=momentum, pull=pull), self.model.declared_metrics
        assert metrics is not None  # or the engine would not have been chosen
        descent = Descent(self.softmax.softmax_head(), metrics, steps, server, drift, columns)
        of_gram = gram.train(descent, cache) if way == "gram" else None
        update, measured = of_gram or presorted.train(descent)  # whose numbers are no larger than the loop's

        def left(name: str) -> Any:
            return trees.map(np.subtract, client.weights, update) if name == "weights" else local[name]

        return stack.end(client, Lazy(local, left), lambda: update, measured)
