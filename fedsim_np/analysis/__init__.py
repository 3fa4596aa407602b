"""What a convex model lets one know exactly: its optimum, and how far from it rounds are, and why.

`Objective` is what federated learning minimises, in float64; `minimize` finds its optimum. `measures` says how far
weights are from it, and how much clients differ there; `fixed_points` where averaging settles on linear regression
instead, in closed form.
"""

from fedsim_np.analysis.fixed_points import fed_avg_fixed_point, fed_prox_fixed_point
from fedsim_np.analysis.measures import (
    Dissimilarity,
    RoundStep,
    average_drift_at_optimum,
    distance_to_optimum,
    gradient_dissimilarity,
    round_step,
    suboptimality,
    suboptimality_fn,
)
from fedsim_np.analysis.objective import Objective, Optimum, minimize, minimize_each

__all__ = [
    "Dissimilarity",
    "Objective",
    "Optimum",
    "RoundStep",
    "average_drift_at_optimum",
    "distance_to_optimum",
    "fed_avg_fixed_point",
    "fed_prox_fixed_point",
    "gradient_dissimilarity",
    "minimize",
    "minimize_each",
    "round_step",
    "suboptimality",
    "suboptimality_fn",
]
