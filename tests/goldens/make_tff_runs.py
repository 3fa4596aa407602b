"""Repeat the runs of ../configurations.py with TFF 0.87.0 on the project's sample: writes tff_runs/.

usage: make_tff_runs.py [NAME ...]
"""

import collections
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

import h5py
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from configurations import RUNS, make  # noqa: E402

DATA = HERE.parent.parent / "data"
OUT = HERE / "tff_runs"
SPEC = collections.OrderedDict(x=tf.TensorSpec([None, 784], tf.float32), y=tf.TensorSpec([None, 1], tf.int32))


def correct_the_sign_of_fed_prox():
    """Load TFF's client work of FedProx with its proximal term pointing at the server's model, as in the paper."""
    from tensorflow_federated.python.learning.algorithms import fed_prox

    module = fed_prox.proximal_client_work
    source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
    wrong, right = "delta_l2_regularizer * (y - x)", "delta_l2_regularizer * (x - y)"
    assert source.count(wrong) == 2
    path = pathlib.Path(tempfile.mkdtemp()) / "proximal_client_work.py"  # autograph reads sources from files
    path.write_text(source.replace(wrong, right), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("corrected_proximal_client_work", path)
    corrected = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(corrected)
    fed_prox.proximal_client_work = corrected


def names(name):
    """Return TFF's function of a name."""
    ours = {
        "no_noise": tff.aggregators.PrivateQuantileEstimationProcess.no_noise,
        "inverse_time": lambda rate: lambda t: rate / (1.0 + 0.5 * tf.cast(t, tf.float32)),
        "sgd_at": lambda: tff.learning.optimizers.build_sgdm,
        "debug_fn": lambda: tff.learning.add_debug_measurements,
        "sampled": lambda: tff.learning.metrics.finalize_then_sample,
    }
    places = [tff.learning.optimizers, tff.aggregators, tff.learning]
    return ours.get(name) or next(getattr(place, name) for place in places if hasattr(place, name))


def keras_model():
    """The tutorial's Keras model."""
    model = tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(784,)),
            tf.keras.layers.Dense(10, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )
    return tff.learning.models.from_keras_model(
        model,
        input_spec=SPEC,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


class CustomModel(tff.learning.models.VariableModel):
    """The tutorial's hand-written model: softmax regression with the loss -mean(sum(onehot * log(softmax)))."""

    def __init__(self):
        zero = lambda: tf.Variable(0.0, trainable=False)  # noqa: E731
        self._weights = tf.Variable(tf.zeros((784, 10)), trainable=True)
        self._bias = tf.Variable(tf.zeros(10), trainable=True)
        self._num_examples, self._loss_sum, self._accuracy_sum = zero(), zero(), zero()

    @property
    def trainable_variables(self):
        return [self._weights, self._bias]

    @property
    def non_trainable_variables(self):
        return []

    @property
    def local_variables(self):
        return [self._num_examples, self._loss_sum, self._accuracy_sum]

    @property
    def input_spec(self):
        return SPEC

    @tf.function
    def predict_on_batch(self, x, training=True):
        del training
        return tf.nn.softmax(tf.matmul(x, self._weights) + self._bias)

    @tf.function
    def forward_pass(self, batch, training=True):
        del training
        y = self.predict_on_batch(batch["x"])
        labels = tf.reshape(batch["y"], [-1])
        loss = -tf.reduce_mean(tf.reduce_sum(tf.one_hot(labels, 10) * tf.math.log(y), axis=[1]))
        correct = tf.equal(tf.cast(tf.argmax(y, 1), tf.int32), labels)
        n = tf.cast(tf.size(batch["y"]), tf.float32)
        self._num_examples.assign_add(n)
        self._loss_sum.assign_add(loss * n)
        self._accuracy_sum.assign_add(tf.reduce_mean(tf.cast(correct, tf.float32)) * n)
        return tff.learning.models.BatchOutput(loss=loss, predictions=y, num_examples=tf.shape(y)[0])

    @tf.function
    def report_local_unfinalized_metrics(self):
        return collections.OrderedDict(
            num_examples=[self._num_examples],
            loss=[self._loss_sum, self._num_examples],
            accuracy=[self._accuracy_sum, self._num_examples],
        )

    def metric_finalizers(self):
        return collections.OrderedDict(
            num_examples=tf.function(func=lambda x: x[0]),
            loss=tf.function(func=lambda x: x[0] / x[1]),
            accuracy=tf.function(func=lambda x: x[0] / x[1]),
        )

    @tf.function
    def reset_metrics(self):
        for variable in self.local_variables:
            variable.assign(tf.zeros_like(variable))


def batches(split, configuration, first, last):
    """Return the tutorial's datasets of a slice of the sorted clients."""

    def form(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]), y=tf.reshape(element["label"], [-1, 1])
        )

    datasets = []
    with h5py.File(DATA / f"handwriting_{split}.h5", "r") as file:
        for client_id in sorted(file["examples"])[first:last]:
            arrays = {name: array[()] for name, array in file["examples"][client_id].items()}
            dataset = tf.data.Dataset.from_tensor_slices(arrays).repeat(configuration["epochs"])
            dataset = dataset.shuffle(configuration["buffer"], seed=configuration["seed"])
            datasets.append(dataset.batch(configuration["batch"]).map(form))
    return datasets


def plain(value):
    """Return nested results as JSON can hold them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def measure(configuration):
    """Return the figures of one run, and the final weights."""
    model_fn = {"keras": keras_model, "custom": CustomModel}[configuration["model"]]
    builder = getattr(tff.learning.algorithms, configuration["builder"])
    process = builder(model_fn, **{key: make(part, names) for key, part in configuration["parts"].items()})
    state, rounds = process.initialize(), []
    figures = {
        "signatures": [getattr(process, p).type_signature.formatted_representation() for p in ("initialize", "next")],
        "hparams": plain(process.get_hparams(state)),
    }
    for first, last in configuration["cohorts"]:
        output = process.next(state, batches("train", configuration, first, last))
        state = output.state
        rounds.append(plain(output.metrics))
    weights = process.get_model_weights(state)
    evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
    evaluated = evaluation.set_model_weights(evaluation.initialize(), weights)
    figures["rounds"] = rounds
    for split in ("train", "test"):
        output = evaluation.next(evaluated, batches(split, configuration, *configuration["evaluated"]))
        evaluated = output.state
        figures[f"evaluation_{split}"] = plain(output.metrics)["client_work"]["eval"]
    return figures, dict(zip(("kernel", "bias"), weights.trainable, strict=True))


def orders():
    """Return the order in which tf.data reads each client, for every way that a run shuffles."""
    found = {}
    for split in ("train", "test"):
        with h5py.File(DATA / f"handwriting_{split}.h5", "r") as file:
            sizes = {len(group["label"]) for group in file["examples"].values()}
        for configuration in RUNS.values():
            epochs, buffer, seed = (configuration[key] for key in ("epochs", "buffer", "seed"))
            for n in sizes:
                name = f"{n}_{epochs}_{buffer}_{seed}"
                if name not in found:
                    dataset = tf.data.Dataset.range(n).repeat(epochs).shuffle(buffer, seed=seed)
                    found[name] = np.fromiter(dataset.as_numpy_iterator(), np.int16)
    return found


def main():
    """Write the orders, and every run that is named."""
    correct_the_sign_of_fed_prox()
    OUT.mkdir(exist_ok=True)
    np.savez_compressed(OUT / "orders.npz", **orders())
    about = f"TensorFlow Federated {tff.__version__}, TensorFlow {tf.__version__}, by make_tff_runs.py"
    for name in sys.argv[1:] or RUNS:
        try:
            figures, weights = measure(RUNS[name])
        except Exception as error:  # the other runs are worth having
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        stored = {"about": about, "configuration": RUNS[name], **figures}
        text = json.dumps(stored, indent=1) + "\n"
        (OUT / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
        np.savez_compressed(OUT / f"{name}.npz", **weights)
        print(name, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # TFF's worker process would keep the interpreter alive
