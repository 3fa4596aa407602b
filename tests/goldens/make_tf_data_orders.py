"""Measure the orders of tf.data pipelines: run with TensorFlow 2.14 (see README.md), writes tf_data_orders.json."""

import json
import pathlib

import tensorflow as tf

# A pipeline: number of elements, then the transformations and their arguments.
PIPELINES = [
    (5, ["shuffle", 3, 4]),
    (12, ["shuffle", 5, 4], ["repeat", 3], ["batch", 5]),
    (30, ["repeat", 5], ["shuffle", 100, 1], ["batch", 20]),
    (3000, ["shuffle", 700, 3]),
    (7, ["shuffle", 1, 2]),
    (5, ["shuffle", 3, 4], ["repeat", 2]),
    (5, ["shuffle", 3, 4], ["repeat", 2], ["take", 7]),
    (5, ["shuffle", 3, 4], ["repeat", 2], ["take", 5]),
    (5, ["shuffle", 3, 4], ["repeat", -1], ["take", 7]),
    (5, ["shuffle", 3, 4], ["repeat", 1]),
    (5, ["shuffle", 3, 4], ["batch", 2], ["repeat", 2]),
    (5, ["shuffle", 3, 4], ["batch", 5], ["repeat", 1]),
    (5, ["shuffle", 3, 4], ["batch", 5], ["repeat", -1], ["take", 2]),
    (5, ["shuffle", 3, 4], ["batch", 5], ["repeat", 2], ["take", 1]),
    (5, ["shuffle", 3, 4], ["batch", 5], ["repeat", 2], ["repeat", 2]),
    (5, ["shuffle", 3, 4], ["repeat", 2], ["repeat", 2]),
    (5, ["shuffle", 3, 4], ["take", 4], ["repeat", 2]),
    (6, ["shuffle", 3, 4], ["shuffle", 2, 9]),
    (6, ["shuffle", 3, 4], ["batch", 2], ["shuffle", 2, 9]),
    (6, ["shuffle", 3, 4], ["repeat", 2], ["shuffle", 2, 9]),
    (5, ["shuffle", 3, 4], ["batch", 1], ["shuffle", 2, 4], ["repeat", 2]),
    (6, ["take", 3], ["shuffle", 3, 4], ["repeat", 2]),
    (7, ["batch", 3, True], ["repeat", 2]),
    (8, ["batch", 2], ["batch", 2]),
    (3, ["repeat", 0]),
    (3, ["take", 0], ["shuffle", 3, 4], ["repeat", 2], ["batch", 2]),
    (6, ["shuffle", 3, 2**31 - 1]),
    (6, ["shuffle", 3, -5]),
    (6, ["shuffle", 3, 2**40 + 7]),
    (6, ["shuffle", 3, 0]),
    (6, ["shuffle", 3, 4, False], ["repeat", 2]),
    (6, ["shuffle", 3, 4, False], ["batch", 2], ["repeat", 2]),
]


def build(n, *transformations):
    """Return the tf.data.Dataset of a pipeline over range(n)."""
    dataset = tf.data.Dataset.range(n)
    for name, *arguments in transformations:
        if name == "shuffle":
            size, seed, *flags = arguments
            dataset = dataset.shuffle(size, seed=seed, reshuffle_each_iteration=all(flags))
        else:
            dataset = getattr(dataset, name)(*arguments)
    return dataset


def main():
    """Write three iterations of every pipeline."""
    cases = []
    for pipeline in PIPELINES:
        dataset = build(*pipeline)
        iterations = [[element.numpy().tolist() for element in dataset] for _ in range(3)]
        cases.append({"pipeline": pipeline, "iterations": iterations})
    text = ",\n".join(json.dumps(case) for case in cases)
    path = pathlib.Path(__file__).with_name("tf_data_orders.json")
    about = f"tf.data over range(n), three iterations of one dataset object, TensorFlow {tf.__version__}"
    path.write_text(f'{{"about": "{about}", "cases": [\n{text}\n]}}\n', encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
