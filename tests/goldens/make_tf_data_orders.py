"""Measure the orders of tf.data pipelines: run with TensorFlow 2.14 (see README.md), writes tf_data_orders.json."""

import itertools
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

# A pipeline and how it is used: an iterator is opened and not read, or so many elements of it are read, or all (-1).
# TensorFlow's own prefetching is off: it reads ahead of an iterator that is dropped, how far is a matter of timing.
USES = [
    ((6, ["shuffle", 3, 4], ["shuffle", 5, 2]), [0, -1, -1]),
    ((6, ["shuffle", 3, 4], ["shuffle", 5, 2], ["repeat", 3]), [-1, 0, -1]),
    ((6, ["shuffle", 3, 4], ["shuffle", 5, 2], ["repeat", -1], ["take", 8]), [-1, -1, -1]),
    ((4, ["shuffle", 3, 4], ["shuffle", 30, 2], ["repeat", 9]), [1, -1]),
    ((6, ["shuffle", 3, 4], ["repeat", 3]), [7, -1]),
    ((6, ["shuffle", 3, 4], ["batch", 2], ["repeat", 3], ["take", 4]), [-1, 2, -1]),
    ((6, ["shuffle", 3, 4], ["batch", 4], ["repeat", 3]), [2, -1, 3, -1]),
    ((6, ["shuffle", 3, 4], ["repeat", 2], ["shuffle", 6, 2]), [6, -1]),
    ((6, ["shuffle", 3, 4], ["repeat", 1], ["repeat", 2]), [-1, -1]),
    ((6, ["shuffle", 3, 4], ["shuffle", 9, 2], ["repeat", 2], ["repeat", 2]), [-1, -1]),
    ((6, ["shuffle", 3, 4], ["take", 0], ["repeat", 2], ["shuffle", 2, 1]), [-1, -1]),
    ((3, ["shuffle", 1, 4], ["repeat", -1], ["shuffle", 4, 2], ["take", 5]), [0, 2, -1]),
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


def read(dataset, count):
    """Return the first `count` elements of a new iterator, or all."""
    return [element.numpy().tolist() for element in itertools.islice(iter(dataset), None if count == -1 else count)]


def main():
    """Write three iterations of every pipeline, and the uses."""
    cases = []
    for pipeline in PIPELINES:
        dataset = build(*pipeline)
        iterations = [[element.numpy().tolist() for element in dataset] for _ in range(3)]
        cases.append({"pipeline": pipeline, "iterations": iterations})
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    uses = []
    for pipeline, counts in USES:
        dataset = build(*pipeline).with_options(options)
        uses.append({"pipeline": pipeline, "counts": counts, "read": [read(dataset, count) for count in counts]})
    text, more = (",\n".join(json.dumps(case) for case in part) for part in (cases, uses))
    path = pathlib.Path(__file__).with_name("tf_data_orders.json")
    about = f"tf.data over range(n), three iterations of one dataset object, TensorFlow {tf.__version__}"
    path.write_text(
        f'{{"about": "{about}", "cases": [\n{text}\n], "uses": [\n{more}\n]}}\n', encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
