"""Measure TFF 0.87.0 on a toy: run as README.md says, writes tff_figures.json."""

import collections
import json
import os
import pathlib

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
    """Write everything."""
    figures = {
        "about": f"TensorFlow Federated {tff.__version__}, TensorFlow {tf.__version__}, by make_tff_figures.py",
        "signatures": signatures(),
        "non_finite": non_finite_table(),
        "choices": choices(),
        "input_specs": input_specs(),
    }
    path = pathlib.Path(__file__).with_name("tff_figures.json")
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
    os._exit(0)  # TFF's worker process would keep the interpreter alive
