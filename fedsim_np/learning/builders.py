"""What the builders of algorithms have in common: their defaults, and what is asked of their arguments."""

from __future__ import annotations

from fedsim_np.errors import argument_type_error
from fedsim_np.learning.aggregators import Aggregator, MeanFactory, UnweightedMeanFactory
from fedsim_np.learning.optimizers import Optimizer, OptimizerFn, as_optimizer, build_sgdm


def aggregator_or_mean(aggregator: Aggregator | None, *, weighted: bool, name: str = "model_aggregator") -> Aggregator:
    """Return the aggregator that a builder is given by this name, by default the mean.

    Raises
    ------
    TypeError
        If it is none, or one for unweighted clients where they are weighted, or the reverse.
    """
    if aggregator is None:
        return MeanFactory() if weighted else UnweightedMeanFactory()
    if not isinstance(aggregator, Aggregator) or aggregator.is_weighted is (not weighted):
        kind = "a weighted Aggregator" if weighted else "an unweighted Aggregator"
        raise argument_type_error(name, f"{kind} (is_weighted not {not weighted})", aggregator)
    return aggregator


def server_optimizer(server_optimizer_fn: OptimizerFn | None, learning_rate: float = 1.0) -> Optimizer:
    """Return the optimizer that a builder is given for the server, by default SGD at a rate."""
    return as_optimizer(server_optimizer_fn or build_sgdm(learning_rate), "server_optimizer_fn")
