"""Weights in, weights out: from a model and the clients' datasets to rounds of federated learning.

To read it in the order of the computation: `models`, `losses`, `metrics`, `optimizers`, `client_work`,
`aggregators`, `process`, `fed_avg`, `fed_eval`.
"""

from fedsim_np.learning import aggregators, losses, metrics, models, optimizers
from fedsim_np.learning.client_work import ClientResult, ClientWeighting, ClientWork
from fedsim_np.learning.fed_avg import build_unweighted_fed_avg, build_weighted_fed_avg
from fedsim_np.learning.fed_eval import build_fed_eval
from fedsim_np.learning.process import LearningProcess, compose_learning_process
from fedsim_np.learning.state import LearningAlgorithmState, LearningProcessOutput

__all__ = [
    "ClientResult",
    "ClientWeighting",
    "ClientWork",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "aggregators",
    "build_fed_eval",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "compose_learning_process",
    "losses",
    "metrics",
    "models",
    "optimizers",
]
