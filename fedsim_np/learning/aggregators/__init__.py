"""Aggregators: the clients' updates in, one update out.

`MeanFactory` and `UnweightedMeanFactory` end a chain; clipping, zeroing and measurements go in front of another one. A
new one is a class with `Aggregator.initialize` and `Aggregator.next`, like those in `mean`.
"""

from fedsim_np.learning.aggregators.aggregator import Aggregator
from fedsim_np.learning.aggregators.mean import MeanFactory, UnweightedMeanFactory
from fedsim_np.learning.aggregators.measurements import add_debug_measurements
from fedsim_np.learning.aggregators.quantile import EstimationProcess, PrivateQuantileEstimationProcess
from fedsim_np.learning.aggregators.robust import clipping_factory, robust_aggregator, update_norms, zeroing_factory

__all__ = [
    "Aggregator",
    "EstimationProcess",
    "MeanFactory",
    "PrivateQuantileEstimationProcess",
    "UnweightedMeanFactory",
    "add_debug_measurements",
    "clipping_factory",
    "robust_aggregator",
    "update_norms",
    "zeroing_factory",
]
