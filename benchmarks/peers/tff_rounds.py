"""The tutorial's processes in TensorFlow Federated 0.87; see README.md."""

import collections
import os

import tensorflow as tf
import tensorflow_federated as tff
from peers import BATCH, RATE, load, report

SPEC = collections.OrderedDict(x=tf.TensorSpec([None, 784], tf.float32), y=tf.TensorSpec([None, 1], tf.int32))


def model_fn():
    """Return the tutorial's Keras model."""
    layers = [
        tf.keras.layers.InputLayer(input_shape=(784,)),
        tf.keras.layers.Dense(10, kernel_initializer="zeros"),
        tf.keras.layers.Softmax(),
    ]
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(layers),
        input_spec=SPEC,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def datasets(clients, epochs):
    """Return the tutorial's datasets."""
    made = []
    for x, y in clients:
        columns = collections.OrderedDict(x=x, y=y.reshape(-1, 1).astype("int32"))
        dataset = tf.data.Dataset.from_tensor_slices(columns).repeat(epochs).shuffle(100, seed=1).batch(BATCH)
        made.append(dataset.prefetch(10))
    return made


if __name__ == "__main__":
    data = load()
    optimizers = tff.learning.optimizers
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, optimizers.build_sgdm(RATE), optimizers.build_sgdm(1.0)
    )
    evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
    state, evaluated = process.initialize(), evaluation.initialize()
    cohorts = datasets(data[:10], 5), datasets(data[:100], 1), datasets(data, 1)
    report(
        "tensorflow-federated",
        {
            "tutorial": lambda: process.next(state, cohorts[0]),
            "wide": lambda: process.next(state, cohorts[1]),
            "evaluation": lambda: evaluation.next(evaluated, cohorts[2]),
        },
        repeats=5,
    )
    os._exit(0)  # TFF's worker process would keep the interpreter alive
