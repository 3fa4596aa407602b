"""Aggregators: the clients' updates in, one update out.

`MeanFactory` and `UnweightedMeanFactory` end a chain, and so do rules that bear attackers (`MedianFactory`,
`KrumFactory`), means with noise and means of what a few bits hold; clipping, zeroing, buckets and measurements go in
front of another one. A new one is a class with `Aggregator.initialize` and `Aggregator.next`, like those in `mean`; one
that wants to know its clients is a `CohortAggregator`.
"""

from fedsim_np.learning.aggregators.aggregator import Aggregator, CohortAggregator, SaysBytes, aggregate, bytes_up
from fedsim_np.learning.aggregators.bucketing import bucketing_factory
from fedsim_np.learning.aggregators.coordinates import MedianFactory, TrimmedMeanFactory
from fedsim_np.learning.aggregators.distances import (
    BulyanFactory,
    CenteredClippingFactory,
    GeometricMedianFactory,
    KrumFactory,
)
from fedsim_np.learning.aggregators.encoded import compression_aggregator, quantized_mean_factory
from fedsim_np.learning.aggregators.mean import MeanFactory, UnweightedMeanFactory
from fedsim_np.learning.aggregators.measurements import add_debug_measurements
from fedsim_np.learning.aggregators.private import DifferentiallyPrivateFactory, dp_aggregator
from fedsim_np.learning.aggregators.quantile import PrivateQuantileEstimationProcess
from fedsim_np.learning.aggregators.robust import clipping_factory, robust_aggregator, update_norms, zeroing_factory

__all__ = [
    "Aggregator",
    "BulyanFactory",
    "CenteredClippingFactory",
    "CohortAggregator",
    "DifferentiallyPrivateFactory",
    "GeometricMedianFactory",
    "KrumFactory",
    "MeanFactory",
    "MedianFactory",
    "PrivateQuantileEstimationProcess",
    "SaysBytes",
    "TrimmedMeanFactory",
    "UnweightedMeanFactory",
    "add_debug_measurements",
    "aggregate",
    "bucketing_factory",
    "bytes_up",
    "clipping_factory",
    "compression_aggregator",
    "dp_aggregator",
    "quantized_mean_factory",
    "robust_aggregator",
    "update_norms",
    "zeroing_factory",
]
