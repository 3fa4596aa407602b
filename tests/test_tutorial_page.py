"""The tutorial's page, cell by cell: what it prints, and that what is printed here differs where the page says."""

import re
import sys

import numpy as np
import pytest
from conftest import PAGES

import fedsim_np as fed
from fedsim_np import tutorial
from fedsim_np.learning.models import SoftmaxRegression

PAGE = (PAGES / "tff.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Where the texts differ")[1].split("\n## ")[0]

# As printed on https://www.tensorflow.org/federated/tutorials/federated_learning_for_image_classification
STRUCTURE = (
    "OrderedDict([('label', TensorSpec(shape=(), dtype=tf.int32, name=None)), "
    "('pixels', TensorSpec(shape=(28, 28), dtype=tf.float32, name=None))])"
)
DATASET = (
    "<_PrefetchDataset element_spec=OrderedDict([('x', TensorSpec(shape=(None, 784), dtype=tf.float32, name=None)), "
    "('y', TensorSpec(shape=(None, 1), dtype=tf.int32, name=None))])>"
)
BATCH_X = """array([[1., 1., 1., ..., 1., 1., 1.],
       [1., 1., 1., ..., 1., 1., 1.],
       [1., 1., 1., ..., 1., 1., 1.],
       ...,
       [1., 1., 1., ..., 1., 1., 1.],
       [1., 1., 1., ..., 1., 1., 1.],
       [1., 1., 1., ..., 1., 1., 1.]], dtype=float32)"""
ROUND = (
    "round  1, metrics=OrderedDict([('distributor', ()), ('client_work', OrderedDict([('train', OrderedDict(["
    "('sparse_categorical_accuracy', 0.12345679), ('loss', 3.1193733), ('num_examples', 4860), ('num_batches', 248)]))"
    "])), ('aggregator', OrderedDict([('mean_value', ()), ('mean_weight', ())])), "
    "('finalizer', OrderedDict([('update_non_finite', 0)]))])"
)
INITIALIZE = """( -> <
  global_model_weights=<
    trainable=<
      float32[784,10],
      float32[10]
    >,
    non_trainable=<>
  >,
  distributor=<>,
  client_work=<>,
  aggregator=<
    value_sum_process=<>,
    weight_sum_process=<>
  >,
  finalizer=<
    int64
  >
>@SERVER)"""


@pytest.fixture(scope="module")
def cells():
    """What the cells make, of ten writers of the sample."""
    train, _ = fed.datasets.load_sample()
    example_dataset = train.create_dataset_for_client(train.client_ids[0])
    data = tutorial.make_federated_data(train, train.client_ids[:10])
    return train, example_dataset, data, tutorial.build_training_process()


def here(text):
    """Return a text of the page as it is printed here, by that page's table."""
    text = re.sub(r"TensorSpec\((.*?), dtype=tf\.(\w+), name=None\)", r"ArraySpec(\1, dtype=\2)", text)
    text = re.sub(
        r"<_PrefetchDataset element_spec=OrderedDict\(\[\('x', (.*)\), \('y', (.*)\)\]\)>",
        r"<Dataset client_id='f0000_14' element_spec={'x': \1, 'y': \2}>",
        text,
    )
    if np.lib.NumpyVersion(np.__version__) >= "2.2.0":
        text = text.replace("]], dtype=float32)", "]], shape=(20, 784), dtype=float32)")
    while sys.version_info >= (3, 12) and "OrderedDict([" in text:  # the innermost first
        inner = re.search(r"OrderedDict\(\[((?:(?!OrderedDict\(\[).)*?)\]\)", text, flags=re.DOTALL)
        members = re.sub(r"\(('\w+'), (.*?)\)(?=, \('|$)", r"\1: \2", inner[1], flags=re.DOTALL)
        text = text[: inner.start()] + "OrderedDict({" + members + "})" + text[inner.end() :]
    return text


def without_numbers(text):
    return re.sub(r"\b\d+\.?\d*(?:e-\d+)?\b", "#", text)


def test_the_readme_lists_the_texts_that_are_tried_here():
    table = [row for row in SECTION.splitlines() if row.startswith("| `")]
    assert len(table) == 6
    for page in (
        "TensorSpec(",
        "<_PrefetchDataset",
        ".numpy()",
        "sample_batch",
        "OrderedDict([('loss'",
        "Hello, World!",
    ):
        assert sum(page in row for row in table) >= 1


def test_element_type_structure(cells):
    assert repr(cells[0].element_type_structure) == here(STRUCTURE)


def test_one_element(cells):
    label = next(iter(cells[1]))["label"]
    before_2 = np.lib.NumpyVersion(np.__version__) < "2.0.0"
    assert repr(label) == (f"{int(label)}" if before_2 else f"np.int32({int(label)})")
    assert isinstance(next(iter(cells[1]))["pixels"], np.ndarray)


def test_one_batch(cells):
    batch = next(iter(tutorial.preprocess(cells[1])))
    assert repr(batch["x"]) == here(BATCH_X)
    assert repr(batch["y"]).startswith("array([[")
    assert list(batch) == ["x", "y"]


def test_the_datasets(cells):
    assert f"Number of client datasets: {len(cells[2])}" == "Number of client datasets: 10"
    assert str(cells[2][0]) == here(DATASET)


def test_the_type_signature(cells):
    rates = "<\n    learning_rate=float32\n  >"
    expected = INITIALIZE.replace("<\n    int64\n  >", rates).replace("client_work=<>", f"client_work={rates}")
    assert cells[3].initialize.type_signature.formatted_representation() == expected


def test_a_round_and_an_evaluation(cells):
    _, _, data, process = cells
    state, metrics = process.next(process.initialize(), data)
    printed = f"round {1:2d}, metrics={metrics}"
    assert without_numbers(printed) == without_numbers(here(ROUND))
    evaluation = fed.learning.build_fed_eval(SoftmaxRegression)
    weights = process.get_model_weights(state)
    measured = evaluation.next(evaluation.set_model_weights(evaluation.initialize(), weights), data).metrics
    figures = (
        "OrderedDict([('sparse_categorical_accuracy', 0.5), ('loss', 1.5), ('num_examples', 9), ('num_batches', 9)])"
    )
    page = (
        "OrderedDict([('distributor', ()), ('client_work', OrderedDict([('eval', OrderedDict(["
        "('current_round_metrics', FIGURES), ('total_rounds_metrics', FIGURES)]))])), "
        "('aggregator', OrderedDict([('mean_value', ()), ('mean_weight', ())])), ('finalizer', ())])"
    ).replace("FIGURES", figures)
    assert without_numbers(str(measured)) == without_numbers(here(page))
