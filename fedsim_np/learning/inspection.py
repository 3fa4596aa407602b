"""Looking inside: what a round and an evaluation sum away.

A round shows no client's update, only their aggregate; an evaluation counts right answers, not which wrong ones were
given. These functions compute both, client by client and batch by batch, by the protocols alone (`ClientWork`,
`Model`): they are for pictures and questions, not for speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedsim_np.errors import argument_type_error, data_error
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.engines import LoopEngine, Runner
from fedsim_np.learning.engines.engine import check_shapes
from fedsim_np.learning.learning_process import LearningProcess, as_datasets
from fedsim_np.learning.models.checks import ClientBatches, read_batches
from fedsim_np.learning.models.model import Model, ModelWeights
from fedsim_np.learning.process import TrainingProcess
from fedsim_np.learning.state import LearningAlgorithmState
from fedsim_np.trees import Arrays


def client_updates(
    process: LearningProcess,
    state: LearningAlgorithmState,
    data: Sequence[ClientBatches | Attendance],
    iteration: int = 0,
) -> Arrays:
    """Return what each client would send in a round: the updates before they are aggregated.

    Parameters
    ----------
    process : LearningProcess
        One that trains: of any builder but `build_fed_eval`, or of `compose_learning_process`.
    state : LearningAlgorithmState
        Before the round; it is not changed.
    data, iteration
        As for ``process.next``.

    Returns
    -------
    tuple of ndarray, each (k, ...) float32
        Initial minus final weights, an array for each trainable tensor, k clients in cohort order, those who are there:
        what an `Aggregator` is given, to rounding (engines differ in it). An update that is not finite is there as it
        is. With a compressor they are what the server decodes, and zeros for who does not count.

    Raises
    ------
    TypeError
        If the process does not train.

    Examples
    --------
    >>> import fedsim_np as fed
    >>> process = fed.learning.build_weighted_fed_avg(
    ...     lambda: fed.learning.models.SoftmaxRegression(2, 2), fed.learning.optimizers.build_sgdm(0.5))
    >>> cohort = [[{"x": np.float32([[1, 0], [0, 1]]), "y": np.int32([[label], [1]])}] for label in (0, 1)]
    >>> kernels, biases = client_updates(process, process.initialize(), cohort)
    >>> kernels.shape, biases.round(2).tolist()
    ((2, 2, 2), [[0.0, 0.0], [0.25, -0.25]])
    """
    if not isinstance(process, TrainingProcess):
        raise argument_type_error("process", "a LearningProcess that trains", process)
    if not isinstance(state, LearningAlgorithmState):
        raise argument_type_error("state", "the process's state", state)
    plain = Runner(LoopEngine(process.client_work, process.model), "serial", cache_bytes=0)
    return process.run_clients(state, as_datasets(data, iteration), plain)[1].updates


def confusion_counts(model: Model, weights: ModelWeights, data: Sequence[ClientBatches]) -> npt.NDArray[np.int64]:
    """Count which class is predicted for examples of which class.

    Parameters
    ----------
    model : Model
        A classifier: its predictions are (b, c), its labels the field ``y``.
    weights : ModelWeights
    data : sequence of Dataset or of lists of batches
        One entry per client; batches are predicted one at a time.

    Returns
    -------
    ndarray of int64, shape (c, c)
        Row: true class; column: predicted class, the lowest one of a tie.

    Raises
    ------
    DataError
        If a batch is not what the model takes, or a label is no class.

    Examples
    --------
    >>> from fedsim_np.learning.models import SoftmaxRegression
    >>> model = SoftmaxRegression(num_features=2, num_classes=2)
    >>> weights = ModelWeights((np.eye(2, dtype=np.float32), np.zeros(2, np.float32)))
    >>> batch = {"x": np.float32([[1, 0], [0, 1], [0, 1]]), "y": np.int32([[0], [0], [1]])}
    >>> confusion_counts(model, weights, [[batch], [batch]]).tolist()
    [[2, 2], [0, 2]]
    """
    if not isinstance(model, Model):
        raise argument_type_error("model", "a Model", model)
    if not isinstance(weights, ModelWeights):
        raise argument_type_error("weights", "ModelWeights", weights)
    check_shapes("weights", weights.trainable, [np.shape(array) for array in model.initial_weights().trainable])
    spec = model.input_spec["x"]
    one = np.zeros([1 if length is None else length for length in spec.shape], spec.dtype)
    shape = np.shape(model.predict_on_batch(weights, one))
    if len(shape) != 2 or "y" not in model.input_spec:
        raise argument_type_error("model", "a classifier: predictions (b, c), labels in the field y", shape)
    c = shape[1]
    counts = np.zeros(c * c, np.int64)
    for dataset in as_datasets(data, 0):
        for batch in read_batches(model, dataset):
            labels = np.reshape(batch["y"], -1)
            if labels.size and not 0 <= labels.min() <= labels.max() < c:
                bad = labels[(labels < 0) | (labels >= c)][0]
                rule = f"labels must lie in [0, {c - 1}]"
                raise data_error(rule, bad, client_id=dataset.client_id, field="y")
            with np.errstate(all="ignore"):  # a model that has diverged is seen in the counts
                predicted = np.asarray(model.predict_on_batch(weights, batch["x"])).argmax(axis=1)
            counts += np.bincount(labels.astype(np.intp) * c + predicted, minlength=c * c)
    return counts.reshape(c, c)
