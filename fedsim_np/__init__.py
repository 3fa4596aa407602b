"""fedsim_np: a federated averaging simulator in pure NumPy.

It does what TensorFlow Federated's tutorial "Federated Learning for Image Classification" does, and gives the numbers
that the tutorial prints.

::

    HDF5 -> ClientData -> Dataset (repeat.shuffle.batch.map) -> [Dataset, ...]      fed.datasets
      server weights --+-> client work -> (update, weight, unfinalized metrics)     fed.learning
                       |        |  cohort order
      new weights <- finalizer <- aggregator          metrics: sum, then finalize
      LearningProcessOutput(state, metrics) -> loggers                              fed.program

What goes through a round are trees of arrays (`trees`). Imports go one way: `datasets`, then `learning`, then
`program`, then what is known exactly (`analysis`), figures (`plots`), labs (`labs`), runs as data (`runs`), pages
(`report`) and the command line (`cli`). What noise promises is computed apart (`privacy`).

Examples
--------
>>> import numpy as np
>>> import fedsim_np as fed
>>> data = fed.datasets.InMemoryClientData({
...     "ann": {"x": np.float32([[1, 0], [0, 1]]), "y": np.int32([[0], [1]])},
...     "bob": {"x": np.float32([[1, 1]]), "y": np.int32([[1]])}})
>>> cohort = [data.create_dataset_for_client(client_id).repeat(5).batch(2) for client_id in data.client_ids]
>>> process = fed.learning.build_weighted_fed_avg(
...     lambda: fed.learning.models.SoftmaxRegression(num_features=2, num_classes=2),
...     client_optimizer_fn=lambda: fed.learning.optimizers.build_sgdm(learning_rate=0.5))
>>> state = process.initialize()
>>> for round_num in range(1, 4):
...     state, metrics = process.next(state, cohort)
...     print(round_num, round(metrics["client_work"]["train"]["loss"], 4))
1 0.4651
2 0.3033
3 0.2332
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from fedsim_np import analysis, datasets, learning, privacy, program, trees
from fedsim_np._version import __version__
from fedsim_np.errors import DataError

if TYPE_CHECKING:
    from fedsim_np import labs, plots
    from fedsim_np import sklearn as sklearn

__all__ = [
    "DataError",
    "__version__",
    "analysis",
    "datasets",
    "labs",
    "learning",
    "plots",
    "privacy",
    "program",
    "trees",
]


def __getattr__(name: str) -> ModuleType:
    # matplotlib takes several times as long to import as everything else here, and a run without pictures does without
    # it: `plots`, and `labs`, are imported when they are first asked for. `sklearn` is as well, and is not listed:
    # scikit-learn may be missing, and `help` and `import *` ask for all that is.
    if name in ("labs", "plots", "sklearn"):
        return importlib.import_module(f"fedsim_np.{name}")
    raise AttributeError(f"module 'fedsim_np' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
