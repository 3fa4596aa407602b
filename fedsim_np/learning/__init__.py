"""Weights in, weights out: from a model and the clients' datasets to rounds of federated learning.

To read it in the order of the computation: `models`, `losses`, `metrics`, `optimizers`, `client_work`,
`aggregators`, `process`, `fed_avg`, `fed_eval`; then `fed_prox`, `fed_sgd`, `fed_avg_schedule`. `engines` does the same
faster, and is read last. `inspection` shows what a round sums away.
"""

from fedsim_np.learning import aggregators, losses, metrics, models, optimizers
from fedsim_np.learning.aggregators import add_debug_measurements, robust_aggregator
from fedsim_np.learning.client_work import ClientResult, ClientWeighting, ClientWork
from fedsim_np.learning.fed_avg import build_unweighted_fed_avg, build_weighted_fed_avg
from fedsim_np.learning.fed_avg_schedule import build_weighted_fed_avg_with_optimizer_schedule
from fedsim_np.learning.fed_eval import build_fed_eval
from fedsim_np.learning.fed_prox import build_unweighted_fed_prox, build_weighted_fed_prox
from fedsim_np.learning.fed_sgd import build_fed_sgd
from fedsim_np.learning.inspection import client_updates, confusion_counts
from fedsim_np.learning.process import LearningProcess, compose_learning_process
from fedsim_np.learning.state import LearningAlgorithmState, LearningProcessOutput

__all__ = [
    "ClientResult",
    "ClientWeighting",
    "ClientWork",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "add_debug_measurements",
    "aggregators",
    "build_fed_eval",
    "build_fed_sgd",
    "build_unweighted_fed_avg",
    "build_unweighted_fed_prox",
    "build_weighted_fed_avg",
    "build_weighted_fed_avg_with_optimizer_schedule",
    "build_weighted_fed_prox",
    "client_updates",
    "compose_learning_process",
    "confusion_counts",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "robust_aggregator",
]
