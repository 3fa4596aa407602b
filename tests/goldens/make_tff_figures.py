"""Measure TFF 0.87.0 on a toy: run as README.md says, writes tff_figures.json.

usage: make_tff_figures.py [NAME ...]

Of the entries that are named, the others staying as they are: on another processor the last digits may be others.
"""

import collections
import inspect
import json
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

X = np.arange(20, dtype=np.float32).reshape(5, 4) / 10
Y = np.array([[0], [1], [2], [1], [0]], np.int32)
SPEC = collections.OrderedDict(x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.int32))
IDS = [f"f{i:04d}_{i:02d}" for i in range(20)]


def model_fn(input_spec=SPEC):
    """Softmax regression with 4 features and 3 classes, as the tutorial makes it."""
    model = tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(4,)),
            tf.keras.layers.Dense(3, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )
    return tff.learning.models.from_keras_model(
        model,
        input_spec=input_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def client(x):
    """Return a dataset of five examples in batches of two."""
    return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=Y)).batch(2)


def plain(value):
    """Return nested results as JSON can hold them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def signatures():
    """Return the texts of several processes' types."""
    algorithms, sgdm = tff.learning.algorithms, tff.learning.optimizers.build_sgdm
    processes = {
        "weighted": algorithms.build_weighted_fed_avg(model_fn, sgdm(0.1), sgdm(1.0)),
        "unweighted_momentum": algorithms.build_unweighted_fed_avg(model_fn, sgdm(0.1, 0.9), sgdm(1.0, 0.5)),
        "eval": algorithms.build_fed_eval(model_fn),
    }
    texts = {}
    for name, process in processes.items():
        for part in ("initialize", "next"):
            signature = getattr(process, part).type_signature
            texts[f"{name}.{part}"] = [str(signature), signature.formatted_representation()]
    return texts


def non_finite_table():
    """Return the outcome of a round, after one good round, for every mix of good, empty and bad clients."""
    good, bad = client(X), client(X * np.inf)
    empty = good.take(0)
    cohorts = {
        "good": [good],
        "good_empty": [good, empty],
        "good_bad": [good, bad],
        "all_empty": [empty, empty],
        "all_bad": [bad, bad],
    }
    table = {}
    for kind in ("weighted", "unweighted"):
        builder = getattr(tff.learning.algorithms, f"build_{kind}_fed_avg")
        sgdm = tff.learning.optimizers.build_sgdm
        process = builder(model_fn, sgdm(0.1), sgdm(1.0, momentum=0.5))
        state = process.next(process.initialize(), [good]).state
        for name, cohort in cohorts.items():
            output = process.next(state, cohort)
            table[f"{kind}.{name}"] = {
                "train": plain(output.metrics["client_work"]["train"]),
                "update_non_finite": int(output.metrics["finalizer"]["update_non_finite"]),
                "kernel": plain(output.state.global_model_weights.trainable[0]),
                "bias": plain(output.state.global_model_weights.trainable[1]),
                "accumulator_bias": plain(output.state.finalizer["accumulator"][1]),
            }
    return table


def choices():
    """Return what TFF's random choices select out of IDS."""
    data = tff.simulation.datasets.TestClientData({c: {"x": [i]} for i, c in enumerate(IDS)})
    split = tff.simulation.datasets.ClientData.train_test_client_split(data, 6, seed=3)
    first = lambda datasets: [int(next(iter(d))["x"]) for d in datasets]  # noqa: E731
    return {
        "datasets_seed_7": first(data.datasets(seed=7)),
        "datasets_limit_4_seed_list": first(data.datasets(limit_count=4, seed=[1, 2, 3])),
        "all_clients_seed_5": [int(e["x"]) for e in data.create_tf_dataset_from_all_clients(seed=5)],
        "split_6_seed_3": [list(part.client_ids) for part in split],
    }


def nobody():
    """Return what a round without clients gives, after one good round, of every kind of process."""
    algorithms, sgdm, aggregators = tff.learning.algorithms, tff.learning.optimizers.build_sgdm, tff.aggregators
    rates, mean = (sgdm(0.1), sgdm(1.0, momentum=0.5)), aggregators.MeanFactory()
    adaptive = aggregators.PrivateQuantileEstimationProcess.no_noise(0.3, 0.5, 0.4)
    weighted = algorithms.build_weighted_fed_avg
    processes = {
        "weighted": weighted(model_fn, *rates),
        "unweighted": algorithms.build_unweighted_fed_avg(model_fn, *rates),
        "proximal": algorithms.build_weighted_fed_prox(model_fn, 0.3, *rates),
        "sgd": algorithms.build_fed_sgd(model_fn, rates[1]),
        "scheduled": algorithms.build_weighted_fed_avg_with_optimizer_schedule(model_fn, lambda t: 0.1, sgdm, rates[1]),
        "no_nan": weighted(model_fn, *rates, model_aggregator=aggregators.MeanFactory(no_nan_division=True)),
        "clipped": weighted(model_fn, *rates, model_aggregator=aggregators.clipping_factory(adaptive, mean)),
        "zeroed": weighted(model_fn, *rates, model_aggregator=aggregators.zeroing_factory(2.0, mean)),
        "robust": weighted(model_fn, *rates, model_aggregator=tff.learning.robust_aggregator()),
        "debugged": weighted(model_fn, *rates, model_aggregator=tff.learning.add_debug_measurements(mean)),
        "sampled": weighted(model_fn, *rates, metrics_aggregator=tff.learning.metrics.finalize_then_sample),
        "eval": algorithms.build_fed_eval(model_fn),
    }
    found = {}
    for name, process in processes.items():
        before = process.next(process.initialize(), [client(X)]).state
        after = process.next(before, [])
        parts = [(s.global_model_weights.trainable, s.finalizer) for s in (before, after.state)]
        same = [str(plain(old)) == str(plain(new)) for old, new in zip(*parts, strict=True)]
        found[name] = {"metrics": plain(after.metrics), "model_kept": same[0], "optimizer_kept": same[1]}
        if name == "clipped":
            states = [s.aggregator["clipping_norm"][0] for s in (before, after.state)]
            found[name]["estimates"] = [float(s.current_estimate) for s in states]
    return found


SPECIAL = np.random.RandomState(0).choice(np.float32([np.inf, -np.inf, np.nan, 0, 1, -1]), (40, 4))
LARGE_X = np.random.RandomState(1).choice(np.float32([-4, -1, 0, 1, 4]), (200, 4))
LARGE_KERNEL = np.random.RandomState(2).choice(np.float32([-3e38, 3e38, -1, 1, 0]), (4, 3))
LARGE_Y = np.random.RandomState(3).randint(0, 3, (200, 1)).astype(np.int32)
TINY_X = (np.random.RandomState(4).standard_normal((60, 4)) * 1e-4).astype(np.float32)


def logits_model_fn():
    """Softmax regression whose loss and accuracy are of logits."""
    model = tf.keras.Sequential(
        [tf.keras.layers.InputLayer(input_shape=(4,)), tf.keras.layers.Dense(3, kernel_initializer="zeros")]
    )
    return tff.learning.models.from_keras_model(
        model,
        input_spec=SPEC,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def logits():
    """Return TensorFlow's argmax of special numbers, and accuracies of infinite logits and of such that nearly tie."""
    evaluation = tff.learning.algorithms.build_fed_eval(logits_model_fn)
    weights = tff.learning.models.ModelWeights([LARGE_KERNEL, np.zeros(3, np.float32)], [])
    state = evaluation.set_model_weights(evaluation.initialize(), weights)
    large = collections.OrderedDict(x=LARGE_X, y=LARGE_Y)
    evaluated = evaluation.next(state, [tf.data.Dataset.from_tensor_slices(large).batch(20)]).metrics
    process = tff.learning.algorithms.build_weighted_fed_avg(
        logits_model_fn, tff.learning.optimizers.build_sgdm(0.1), tff.learning.optimizers.build_sgdm(1.0)
    )
    tiny = collections.OrderedDict(x=TINY_X, y=LARGE_Y[:60])
    trained = process.next(process.initialize(), [tf.data.Dataset.from_tensor_slices(tiny).repeat(3).batch(10)]).metrics
    return {
        "argmax": tf.argmax(SPECIAL, 1).numpy().tolist(),
        "large": plain(evaluated["client_work"]["eval"]["current_round_metrics"]),
        "tiny": plain(trained["client_work"]["train"]),
    }


def sampled_types():
    """Return the dtypes of sampled metrics, by those of their sums and what a finalizer makes of these."""
    first = tf.function(lambda sums: sums[0])
    sums = {
        "int32": [np.int32(3)],
        "int64": [np.int64(3)],
        "float32": [np.float32(3)],
        "uint8": [np.uint8(3)],
        "compared": [np.int32(3)],
        "mean": [np.float32(1), np.float32(3)],
    }
    finalizers = collections.OrderedDict.fromkeys(sums, first)
    finalizers["compared"] = tf.function(lambda sums: sums[0] > 1)
    finalizers["mean"] = tf.function(lambda sums: sums[0] / sums[1])
    client_type = tff.to_type(collections.OrderedDict((k, [v.dtype.type for v in vs]) for k, vs in sums.items()))
    sample = tff.learning.metrics.finalize_then_sample(finalizers)
    of_clients = tff.federated_computation(tff.FederatedType(client_type, tff.CLIENTS))(lambda of_each: sample(of_each))  # noqa: PLW0108
    found = of_clients([collections.OrderedDict(sums)] * 2)
    return {name: str(array.dtype) for name, array in found.items()}


def parameters():
    """Return the parameters of functions that go by the same names here, and those defaults that are plain."""
    places = {
        tff.learning.algorithms: (
            "build_weighted_fed_avg build_unweighted_fed_avg build_weighted_fed_prox build_unweighted_fed_prox "
            "build_fed_sgd build_weighted_fed_avg_with_optimizer_schedule build_fed_eval"
        ),
        tff.learning.optimizers: (
            "build_sgdm build_adagrad build_adam build_adamw build_yogi build_rmsprop schedule_learning_rate"
        ),
        tff.aggregators: "MeanFactory UnweightedMeanFactory clipping_factory zeroing_factory",
        tff.aggregators.PrivateQuantileEstimationProcess: "no_noise",
        tff.learning: "robust_aggregator add_debug_measurements",
        tff.learning.metrics: "sum_then_finalize finalize_then_sample",
        tff.simulation: "build_uniform_sampling_fn run_training_process",
        tff.program: "FileProgramStateManager",
    }
    found = {}
    for place, names in places.items():
        for name in names.split():
            of_function = inspect.signature(getattr(place, name)).parameters.values()
            found[name] = {
                p.name: repr(p.default) if isinstance(p.default, (bool, int, float, str, type(None))) else None
                for p in of_function
            }
    return found


def input_specs():
    """Return what batches of other forms make of a round: its signature, metrics and weights, or TFF's error."""
    rows = {
        "columns": collections.OrderedDict(x=X, y=Y),
        "int64": collections.OrderedDict(x=X, y=Y.astype(np.int64)),
        "flat": collections.OrderedDict(x=X, y=Y[:, 0]),
    }
    kinds = {name: tf.data.Dataset.from_tensor_slices(arrays).batch(2) for name, arrays in rows.items()}
    kinds["dropped"] = tf.data.Dataset.from_tensor_slices(rows["columns"]).batch(2, drop_remainder=True)
    sgdm, found = tff.learning.optimizers.build_sgdm, {}
    for name, data in kinds.items():
        spec = data.element_spec
        process = tff.learning.algorithms.build_weighted_fed_avg(lambda s=spec: model_fn(s), sgdm(0.1), sgdm(1.0))
        state = process.initialize()
        for _ in range(3):
            state, metrics = process.next(state, [data])
        evaluation = tff.learning.algorithms.build_fed_eval(lambda s=spec: model_fn(s))
        evaluation_state = evaluation.set_model_weights(evaluation.initialize(), process.get_model_weights(state))
        found[name] = {
            "next": str(process.next.type_signature),
            "train": plain(metrics["client_work"]["train"]),
            "eval": plain(
                evaluation.next(evaluation_state, [data]).metrics["client_work"]["eval"]["current_round_metrics"]
            ),
            "kernel": plain(state.global_model_weights.trainable[0]),
        }
    process = tff.learning.algorithms.build_weighted_fed_avg(model_fn, sgdm(0.1), sgdm(1.0))
    others = {
        "surplus": client(X).map(lambda e: collections.OrderedDict(**e, z=e["x"])),
        "flat_where_columns_are_declared": kinds["flat"],
        "int64_where_int32_is_declared": kinds["int64"],
    }
    for name, data in others.items():
        try:
            process.next(process.initialize(), [data])
            found[name] = "taken"
        except Exception as error:
            found[name] = type(error).__name__
    return found


def main():
    """Write everything, or what is named."""
    parts = {
        "signatures": signatures,
        "non_finite": non_finite_table,
        "choices": choices,
        "nobody": nobody,
        "logits": logits,
        "sampled_types": sampled_types,
        "parameters": parameters,
        "input_specs": input_specs,
    }
    path = pathlib.Path(__file__).with_name("tff_figures.json")
    about = f"TensorFlow Federated {tff.__version__}, TensorFlow {tf.__version__}, by make_tff_figures.py"
    figures = {**json.loads(path.read_text(encoding="utf-8")), "about": about}
    for name in sys.argv[1:] or parts:
        figures[name] = parts[name]()
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
    os._exit(0)  # TFF's worker process would keep the interpreter alive
