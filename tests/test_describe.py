"""The numbers behind "how non-i.i.d. is this"."""

import numpy as np
import pytest
from conftest import digits

import fedsim_np as fed
from fedsim_np.datasets import InMemoryClientData, describe
from fedsim_np.datasets.describe import QUANTILES


def test_by_hand():
    data = InMemoryClientData(
        {
            "ann": {"label": [0, 0, 1, 1], "x": [1, 2, 3, 3]},
            "bob": {"label": [2, 2, 2, 2], "x": [1, 1, 1, 1]},
            "cid": {"label": np.empty(0, np.int32), "x": np.empty(0, np.int32)},
        }
    )
    described = describe(data)
    assert described.client_ids == ["ann", "bob", "cid"]
    assert described.labels.tolist() == [0, 1, 2]
    assert described.counts.tolist() == [[2, 2, 0], [0, 0, 4], [0, 0, 0]]
    assert described.sizes.tolist() == [4, 4, 0]
    assert list(described.size_quantiles.items()) == list(zip(QUANTILES, [0, 2, 4, 4, 4], strict=True))
    assert described.label_entropy[:2].tolist() == [1, 0]
    assert np.isnan(described.label_entropy[2])
    assert described.pooled_label_entropy == pytest.approx(1.5)
    assert described.label_distance[:2].tolist() == [0.5, 0.5]
    assert described.num_duplicates == 1 + 3  # (1, 3) once more, (2, 1) three times more
    text = str(described)
    assert "3 (1 without examples)" in text
    assert "0: 25.0%  1: 25.0%  2: 50.0%" in text


def test_equal_rows_of_different_clients_are_duplicates():
    one = digits([6]).create_dataset_for_client("f0000_00").to_arrays()
    assert describe(InMemoryClientData({"ann": one, "bob": one})).num_duplicates == 6


def test_data_without_labels():
    described = describe(InMemoryClientData({"ann": {"x": [1, 2]}}))
    assert described.counts.shape == (1, 0)
    assert "label entropy" not in str(described)


def test_i_i_d_labels_have_no_distance():
    data = InMemoryClientData({str(i): {"label": [0, 1, 2]} for i in range(3)})
    assert describe(data).label_distance.tolist() == [0, 0, 0]


def test_the_label_field_has_any_name():
    assert describe(InMemoryClientData({"ann": {"digit": [7]}}), label="digit").labels.tolist() == [7]


def test_what_cannot_be_counted():
    empty = describe(InMemoryClientData({"ann": {"label": np.empty(0, np.int32)}}))
    assert np.isnan(empty.label_entropy).all()
    assert np.isnan(empty.label_distance).all()
    assert np.isnan(describe(InMemoryClientData({"ann": {"x": [1]}})).label_distance).all()
    with pytest.raises(ValueError, match="'label' must be one of x, label. Got 'lable'. Did you mean 'label'"):
        describe(InMemoryClientData({"ann": {"x": [1], "label": [1]}}), label="lable")
    column = describe(InMemoryClientData({"ann": {"label": [[0], [1]]}}))
    assert column.counts.tolist() == [[1, 1]]
    with pytest.raises(fed.DataError, match="client 'ann', field 'label': labels must be one number an example"):
        describe(InMemoryClientData({"ann": {"label": [[0, 1], [1, 0]]}}))


def test_labels_called_y_are_labels_where_they_are_classes():
    data = InMemoryClientData({"ann": {"x": [0.5, 0.25], "y": [[0], [0]]}, "bob": {"x": [0.75, 0.5], "y": [[1], [1]]}})
    described = describe(data)
    assert described.counts.tolist() == [[2, 0], [0, 2]]
    assert described.label_distance.tolist() == [0.5, 0.5]
    assert "labels              0: 50.0%  1: 50.0%" in str(described)
    assert describe(InMemoryClientData({"ann": {"x": [1], "y": [0.5]}})).labels.tolist() == []  # a measured number
    both = InMemoryClientData({"ann": {"label": [7], "y": [1]}})
    assert describe(both).labels.tolist() == [7]
    assert describe(both, label="y").labels.tolist() == [1]


def test_paper_that_is_one_is_said():
    pixels = np.float32([[1.0, 1.0, 0.0, 0.5]])
    data = InMemoryClientData({"ann": {"pixels": pixels, "label": [3]}, "bob": {"pixels": pixels, "label": [4]}})
    described = describe(data)
    assert dict(described.values) == {"pixels": (0.0, 0.625, 1.0)}
    said = "values of pixels    0 to 1, mean 0.625: mostly near 1; if that is paper, train on 1 - x: train --invert"
    assert said in str(described)
    inverted = data.preprocess(lambda dataset: dataset.select(x="pixels", y="label", invert=True))
    assert str(describe(inverted)).endswith("values of x         0 to 1, mean 0.375")
    assert describe(InMemoryClientData({"ann": {"x": np.empty((0, 2))}})).values == {}
