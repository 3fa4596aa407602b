"""Weights in, weights out: from a model and the clients' datasets to rounds of federated learning.

To read a round of federated averaging in the order of the computation: `models.model`, `metrics`, `losses`,
`models.layers`, `models.linear`, `optimizers.optimizer`, `optimizers.sgdm`, `client`, `client_work`, `cohort`,
`aggregators.aggregator`, `aggregators.mean`, `state`, `learning_process`, `process`, `builders`, `fed_avg`.

Beside that path: `engines.engine` has what engines give (`ChunkResult`), `models.checks` is what is asked of users'
models and data, `type_signatures` tells types, `shortcuts` is what engines may ask for, and `inspection` shows what a
round sums away. Then `fed_eval`, `fed_prox`, `fed_sgd`, `fed_avg_schedule`, and the models, optimizers and
aggregators beside the tutorial's. `engines` does the same faster, and is read last.

An algorithm is a file like `fed_prox`: a `LocalTraining`, and what the server does with what it sends.
"""

from fedsim_np.learning import aggregators, attacks, compression, losses, metrics, models, optimizers
from fedsim_np.learning.aggregators import add_debug_measurements, robust_aggregator
from fedsim_np.learning.baselines import TrainedModel, train_centrally, train_locally
from fedsim_np.learning.client import Attendance, Client, ClientResult, ClientWeighting, StepBatch, Trained
from fedsim_np.learning.client_work import ClientWork, Local, LocalTraining
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.ditto import build_ditto, personal_weights
from fedsim_np.learning.engines import EngineName, ExecutorArgument, Workers, end_with_parent
from fedsim_np.learning.fed_avg import build_unweighted_fed_avg, build_weighted_fed_avg
from fedsim_np.learning.fed_avg_schedule import build_weighted_fed_avg_with_optimizer_schedule
from fedsim_np.learning.fed_buff import build_fed_buff, num_to_begin
from fedsim_np.learning.fed_dyn import build_fed_dyn
from fedsim_np.learning.fed_eval import build_fed_eval, evaluate_clients
from fedsim_np.learning.fed_nova import build_fed_nova
from fedsim_np.learning.fed_prox import build_unweighted_fed_prox, build_weighted_fed_prox
from fedsim_np.learning.fed_sgd import build_fed_sgd
from fedsim_np.learning.inspection import client_updates, confusion_counts
from fedsim_np.learning.learning_process import LearningProcess, LearningProcessOutput
from fedsim_np.learning.mime_lite import (
    build_mime_lite_with_optimizer_schedule,
    build_unweighted_mime_lite,
    build_weighted_mime_lite,
)
from fedsim_np.learning.models.model import ModelFn
from fedsim_np.learning.optimizers import SGDSteps
from fedsim_np.learning.personalization import FineTuning, build_personalization_eval
from fedsim_np.learning.process import compose_learning_process
from fedsim_np.learning.q_fed_avg import build_q_fed_avg
from fedsim_np.learning.scaffold import build_scaffold
from fedsim_np.learning.state import ClientWorkState, LearningAlgorithmState

__all__ = [
    "Attendance",
    "Client",
    "ClientResult",
    "ClientWeighting",
    "ClientWork",
    "ClientWorkState",
    "Cohort",
    "EngineName",
    "ExecutorArgument",
    "FineTuning",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "Local",
    "LocalTraining",
    "ModelFn",
    "SGDSteps",
    "StepBatch",
    "Trained",
    "TrainedModel",
    "Workers",
    "add_debug_measurements",
    "aggregators",
    "attacks",
    "build_ditto",
    "build_fed_buff",
    "build_fed_dyn",
    "build_fed_eval",
    "build_fed_nova",
    "build_fed_sgd",
    "build_mime_lite_with_optimizer_schedule",
    "build_personalization_eval",
    "build_q_fed_avg",
    "build_scaffold",
    "build_unweighted_fed_avg",
    "build_unweighted_fed_prox",
    "build_unweighted_mime_lite",
    "build_weighted_fed_avg",
    "build_weighted_fed_avg_with_optimizer_schedule",
    "build_weighted_fed_prox",
    "build_weighted_mime_lite",
    "client_updates",
    "compose_learning_process",
    "compression",
    "confusion_counts",
    "end_with_parent",
    "evaluate_clients",
    "losses",
    "metrics",
    "models",
    "num_to_begin",
    "optimizers",
    "personal_weights",
    "robust_aggregator",
    "train_centrally",
    "train_locally",
]
