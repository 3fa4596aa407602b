"""Models: weights and a batch in, a loss and gradients out.

`Model` is the protocol for a model of one's own, `SoftmaxRegression` the tutorial's model; `MLP` and `LinearRegression`
stand beside it. A new one with a softmax or squares at its end is a `HeadedModel`: two methods, and every engine runs
it.
"""

from fedsim_np.learning.models.evaluation import evaluate
from fedsim_np.learning.models.layers import HeadedModel
from fedsim_np.learning.models.linear import LinearRegression, SoftmaxRegression
from fedsim_np.learning.models.mlp import MLP
from fedsim_np.learning.models.model import BatchOutput, Model, ModelWeights
from fedsim_np.learning.models.weights_file import load_weights, save_weights
from fedsim_np.learning.shortcuts import Stackable

__all__ = [
    "MLP",
    "BatchOutput",
    "HeadedModel",
    "LinearRegression",
    "Model",
    "ModelWeights",
    "SoftmaxRegression",
    "Stackable",
    "evaluate",
    "load_weights",
    "save_weights",
]
