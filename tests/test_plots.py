"""What is in the figures: axes, texts, and the data in the artists. That they read well was seen, not tested."""

import itertools
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import random_cohort, sgd, toy_batches, toy_model
from matplotlib.figure import Figure

import fedsim_np as fed
from fedsim_np import plots
from fedsim_np.datasets import InMemoryClientData, describe
from fedsim_np.learning.models import ModelWeights

TRAIN, TEST = fed.datasets.load_sample()


def clients(**labels):
    """Client data with these labels, and images of 6 x 4 pixels that differ."""
    rng = np.random.default_rng(0)
    return InMemoryClientData(
        {c: {"label": np.int32(v), "pixels": rng.random((len(v), 6, 4), np.float32)} for c, v in labels.items()}
    )


def few():
    return clients(ann=[0, 0, 2], bob=[1], cid=[])


def heights(axes):
    return [int(bar.get_height()) for bar in axes.patches]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def tick_texts(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


# --- what is left alone


def test_pyplot_and_the_backend_are_left_alone():
    code = """
import sys
import fedsim_np as fed
assert "matplotlib" not in sys.modules, "import fedsim_np"
assert "plots" in dir(fed)
figure = fed.plots.image([[0.0, 1.0]])
assert figure._repr_png_().startswith(b"\\x89PNG")
import matplotlib
assert "matplotlib.pyplot" not in sys.modules, "making a figure"
assert matplotlib.rcParams._get_backend_or_none() is None, "a backend was chosen"
"""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr.decode()


def test_settings_are_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.label_counts(few())
    plots.confusion_matrix([[1, 0], [0, 1]])
    assert dict(matplotlib.rcParams) == before


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="module 'fedsim_np' has no attribute 'plot'"):
        fed.plot  # noqa: B018


def test_a_callers_axes_and_figures_are_drawn_on():
    figure = Figure()
    upper, lower = figure.subfigures(2, 1)
    left, right = upper.subplots(1, 2)
    described = describe(few())
    assert plots.image([[0.0, 1.0]], axes=left) is figure
    assert plots.client_sizes(described, axes=right) is figure
    assert plots.mean_images(few(), figure=lower) is figure
    assert left.images
    assert right.patches
    assert sum(len(axes.images) for part in lower.subfigs for axes in part.axes) == 3
    for draw in (
        lambda f: plots.client_images(few().create_dataset_for_client("ann"), rows=1, columns=2, figure=f),
        lambda f: plots.label_counts(few(), figure=f),
        lambda f: plots.learning_curves({"a": [{"round_num": [1], "loss": [1]}] * 2}, figure=f),
        lambda f: plots.class_weights(np.ones((4, 2)), (2, 2), figure=f),
        lambda f: plots.round_costs([1.0], figure=f),
    ):
        own = Figure(layout="constrained")
        part = own.subfigures(1, 2)[1]
        assert draw(part) is own
        assert part.axes
        own.draw_without_rendering()


# --- the data


def test_image():
    pixels = TRAIN.create_dataset_for_client(TRAIN.client_ids[0]).to_arrays()["pixels"][0]
    (axes,) = plots.image(pixels, "label 8").axes
    (picture,) = axes.images
    assert picture.get_array().tolist() == pixels.tolist()
    assert (picture.get_clim(), picture.get_cmap().name) == ((0, 1), "gray")  # 1 is paper: white
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("label 8", "column (pixels)", "row (pixels)")


def test_client_images():
    arrays = TRAIN.create_dataset_for_client("f0001_21").to_arrays()
    figure = plots.client_images(TRAIN.create_dataset_for_client("f0001_21"))
    assert len(figure.axes) == 40
    assert [axes.get_title() for axes in figure.axes] == [str(label) for label in arrays["label"][:40]]
    for axes, pixels in zip(figure.axes, arrays["pixels"], strict=False):
        assert axes.images[0].get_array().tolist() == pixels.tolist()
    assert figure.get_suptitle() == "client f0001_21"


def test_client_images_of_few_none_or_endless_examples():
    ann, cid = (few().create_dataset_for_client(c) for c in ("ann", "cid"))
    figure = plots.client_images(ann, rows=2, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]
    assert plots.client_images(cid, rows=1).get_suptitle() == "client cid: no examples"
    for endless in (ann.repeat(), ann.repeat().batch(2)):
        figure = plots.client_images(endless, rows=1, columns=5, label=None)
        assert [len(axes.images) for axes in figure.axes] == [1] * 5
        assert figure.axes[0].get_title() == ""


def test_label_counts():
    figure = plots.label_counts(TRAIN)
    described = describe(TRAIN)
    assert [axes.get_title() for axes in figure.axes] == described.client_ids[:6]
    assert [heights(axes) for axes in figure.axes] == described.counts[:6].tolist()
    assert tick_texts(figure.axes[5].xaxis) == [str(label) for label in range(10)]
    assert (figure.axes[3].get_xlabel(), figure.axes[3].get_ylabel()) == ("label", "examples")
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_label_counts_of_chosen_clients():
    figure = plots.label_counts(few(), ["cid", "ann"])
    assert [heights(axes) for axes in figure.axes] == [[0, 0], [2, 1]]
    assert texts(figure.axes[0]) == ["no examples"]
    many = plots.label_counts(clients(ann=range(62)))
    assert heights(many.axes[0]) == [1] * 62
    assert tick_texts(many.axes[0].xaxis)[:3] == ["0", "6", "12"]


def test_mean_images():
    figure = plots.mean_images(TRAIN)
    assert len(figure.axes) == 5 * 10
    assert [axes.get_title() for axes in figure.axes] == [str(label) for label in range(10)] * 5
    for number, client_id in enumerate(TRAIN.client_ids[:5]):
        arrays = TRAIN.create_dataset_for_client(client_id).to_arrays()
        for label in range(10):
            mean = arrays["pixels"][arrays["label"] == label].mean(axis=0)
            shown = figure.axes[10 * number + label].images[0].get_array()
            np.testing.assert_allclose(shown, mean, rtol=1e-6)


def test_an_absent_label_is_an_empty_labelled_frame():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.mean_images(few())
        figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["0", "1", "2"] * 3
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 1, 0, 1, 0, 0, 0, 0]
    empty = [axes for axes in figure.axes if not axes.images]
    assert all(texts(axes) == ["none"] and axes.axison for axes in empty)
    assert len(plots.mean_images(few(), ["bob"], labels=range(20)).axes) == 20
    headings = [part.get_suptitle() for part in figure.subfigs]
    assert headings[1:] == ["client bob: 1 example, mean by label", "client cid: 0 examples, mean by label"]


def test_label_distribution():
    axes, bar = plots.label_distribution(describe(few())).axes
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[:2], [[2 / 3, 0, 1 / 3], [0, 1, 0]])
    assert shares.mask.tolist() == [[False] * 3, [False] * 3, [True] * 3]
    assert axes.get_title() == "Labels of 3 clients (1 hatched: no examples)"
    assert (tick_texts(axes.xaxis), tick_texts(axes.yaxis)) == (["0", "1", "2"], ["ann", "bob", "cid"])
    assert bar.get_ylabel().replace("\n", " ") == "share of the client's examples"
    assert axes.images[0].norm(0.25) == 0.5  # from none to all, by the root: the same in all figures
    long = {"a-client-with-a-very-long-id": [0], **{f"c{i}": [i] for i in range(1, 40)}}
    axes, _ = plots.label_distribution(describe(clients(**long))).axes
    assert tick_texts(axes.yaxis)[:2] == ["a-clien…ong-id", "c2"]


def test_client_sizes():
    for data in (TRAIN, few()):
        described = describe(data)
        (axes,) = plots.client_sizes(described).axes
        assert sum(heights(axes)) == len(described.sizes)
        for bar in axes.patches:
            inside = (described.sizes > bar.get_x()) & (described.sizes < bar.get_x() + bar.get_width())
            assert bar.get_height() == inside.sum()
        median, mean = axes.lines
        assert (median.get_xdata()[0], mean.get_xdata()[0]) == (np.median(described.sizes), described.sizes.mean())
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("examples of a client", "clients")


# --- a run

LOSS, ACCURACY = "client_work/train/loss", "client_work/train/sparse_categorical_accuracy"


def history(shift=0.0):
    nan = float("nan")
    return {
        "round_num": [0, 1, 2, 3],
        "evaluation/loss": [2.5, nan, 2.0 + shift, nan],
        "evaluation/total_rounds_metrics/loss": [2.5, nan, 2.0, nan],
        LOSS: [nan, 2.2 + shift, 2.0 + shift, 1.5 + shift],
        ACCURACY: [nan, 0.25, 0.5, 0.75],
        "client_work/train/num_examples": [nan, 5, 5, 5],
    }


def test_learning_curves():
    figure = plots.learning_curves({"tutorial": history()})
    assert [(axes.get_title(), axes.get_ylabel()) for axes in figure.axes] == [
        ("Training loss, before each step", "loss (nats)"),
        ("Training accuracy, before each step", "accuracy (share correct)"),
        ("Evaluation loss, after a round", "loss (nats)"),
    ]
    drawn = [(axes.lines[0].get_xdata().tolist(), axes.lines[0].get_ydata().tolist()) for axes in figure.axes]
    assert drawn == [([1, 2, 3], [2.2, 2.0, 1.5]), ([1, 2, 3], [0.25, 0.5, 0.75]), ([0, 2], [2.5, 2.0])]
    assert not figure.legends
    assert figure.axes[0].get_ylim() == figure.axes[2].get_ylim()
    assert figure.axes[0].get_ylim()[1] > 2.5


@pytest.mark.parametrize(("band", "low", "high"), [("range", 2.0, 2.75), ("sd", 2.375 - 0.375, 2.375 + 0.375)])
def test_mean_and_spread_over_seeds(band, low, high):
    shifts = (0.0, 0.75, 0.375)
    figure = plots.learning_curves({"a": [history(s) for s in shifts], "b": history()}, [LOSS], band=band)
    (axes,) = figure.axes
    mean, single = axes.lines
    np.testing.assert_allclose(mean.get_ydata(), [2.575, 2.375, 1.875])
    assert single.get_ydata().tolist() == [2.2, 2.0, 1.5]
    (area,) = axes.collections
    at_2 = [y for x, y in area.get_paths()[0].vertices if x == 2]
    np.testing.assert_allclose([min(at_2), max(at_2)], [low, high])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a (3 runs)", "b"]
    shown = {"range": "least to greatest", "sd": "one standard deviation"}[band]
    assert legend.get_title().get_text() == f"means; bands: {shown} of the runs"
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in axes.lines}
    assert len({look[0] for look in looks}) == len({look[1] for look in looks}) == len({look[2] for look in looks}) == 2


def test_legends():
    configs = [{"lr": lr, "model": {"d": 3}, "seed": seed} for lr in (0.02, 0.1) for seed in (1, 2)]
    assert plots.legend_from_configs(configs)[1] == "lr=0.02, seed=2"
    grouped = plots.histories_by_config(configs, [history(i) for i in range(4)])
    assert {text: len(of) for text, of in grouped.items()} == {"lr=0.02": 2, "lr=0.1": 2}
    assert plots.legend_from_configs([{"a": {"b": 1}}, {"a": {"b": 2}}]) == ["a/b=1", "a/b=2"]
    assert plots.legend_from_configs([{"a": 1}, {"a": 1}]) == ["all runs", "all runs"]


def test_client_accuracy():
    process = fed.learning.build_weighted_fed_avg(toy_model, sgd(0.5))
    output = process.next(process.initialize(), random_cohort([4, 0, 6]))
    accuracies = plots.accuracy_of_clients(output.clients)
    sums = [m["sparse_categorical_accuracy"] for m in output.clients["metrics"]]
    np.testing.assert_array_equal(accuracies, [sums[0][0] / 4, np.nan, sums[2][0] / 6])
    rounds = [[0.0, 0.5, 1.0, np.nan], [np.nan], [0.25, 0.75]]
    figure = plots.client_accuracy(rounds, [5, 10, 15])
    (axes,) = figure.axes
    median, mean = axes.lines
    assert (median.get_xdata().tolist(), median.get_ydata().tolist()) == ([5, 15], [0.5, 0.5])
    assert mean.get_ydata().tolist() == [0.5, 0.5]
    spread = [{y for x, y in area.get_paths()[0].vertices if x == 5} for area in axes.collections]
    assert spread == [{0.0, 1.0}, {0.25, 0.75}]
    assert axes.get_title() == "Accuracy by client, 2 to 3 clients a round"
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())  # where it would cover a band
    given = Figure().subplots()
    assert not plots.client_accuracy(rounds, axes=given).legends
    assert len(given.get_legend().get_texts()) == 4


def test_round_costs():
    weights = toy_model().initial_weights()
    moved = plots.bytes_of_round(weights._replace(non_trainable=(np.zeros(2, np.float32),)), 3)
    assert moved == (3 * (15 + 2) * 4, 3 * 15 * 4)
    left, right = plots.round_costs([0.5, 0.25], moved).axes
    assert left.lines[0].get_ydata().tolist() == [500, 250]
    assert left.get_ylabel() == "time of the round (ms)"
    assert heights(right) == [204, 204, 180, 180]
    assert (right.get_title(), right.get_ylabel()) == ("Bytes: 768 bytes in all", "bytes of the round")
    _, right = plots.round_costs([0.5, 0.25], [plots.RoundBytes(2_000_000, 0), plots.RoundBytes(0, 1_000_000)]).axes
    assert (right.get_title(), heights(right)) == ("Bytes: 3.000 MB in all", [2, 0, 0, 1])
    assert len(plots.round_costs([0.5], rounds=[7]).axes) == 1


def test_a_late_first_round_does_not_flatten_the_others():
    left = plots.round_costs([10.0, 0.2, 0.25], rounds=[4, 5, 6]).axes[0]
    assert left.lines[0].get_xydata().tolist() == [[5, 200], [6, 250]]
    assert 250 < left.get_ylim()[1] < 500
    assert [text.get_text() for text in left.get_legend().get_texts()][1] == "round 4: 10,000 ms, off the scale"
    left = plots.round_costs([0.3, 0.2, 0.25]).axes[0]
    assert left.lines[0].get_ydata().tolist() == [300, 200, 250]
    assert len(left.get_legend().get_texts()) == 1
    assert plots.round_costs([0.001, 0.001, 5.0, 0.001]).axes[0].get_yscale() == "log"
    assert plots.round_costs([0.0, 0.0, 5.0]).axes[0].get_yscale() == "linear"


def test_a_loss_that_explodes_does_not_flatten_the_others():
    runs = {"a": {"round_num": [1, 2, 3], "loss": [2.0, 1.0, 0.5]}}
    assert plots.learning_curves(runs).axes[0].get_yscale() == "linear"
    runs["b"] = {"round_num": [1, 2, 3], "loss": [2.0, 1.5, 1e5]}
    assert plots.learning_curves(runs).axes[0].get_yscale() == "log"


def test_a_legend_of_many_lines_takes_less_than_half():
    names = [f"algorithm={name}, client_lr={rate}" for name in ("fedavg", "scaffold") for rate in (0.1, 0.2, 0.3, 0.4)]
    for many, size in (
        (names, None),
        (names[:6], (3.15, 5)),
        ([f"{name}, and more of it" * 2 for name in names], None),
    ):
        own = Figure(size, layout="constrained") if size else None
        figure = plots.learning_curves({name: [history()] * 3 for name in many}, [LOSS], figure=own)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.height < 0.5 * figure.bbox.height
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert (
            legend.get_title().get_text().replace("\n", " ") == "means of 3 runs; bands: least to greatest of the runs"
        )
        assert [text.get_text().replace("\n", " ") for text in legend.get_texts()] == many


@pytest.mark.parametrize("inches", [3.15, 6.3])
def test_texts_stay_in_a_narrow_figure_and_names_do_not_touch(inches):
    def boxes(texts):
        return [text.get_window_extent() for text in texts if text.get_text()]

    described = describe(clients(**{f"a-client-with-a-long-id-{i:02d}": range(26) for i in range(40)}))
    counts = np.full((26, 26), 1000)
    figures = [Figure((inches, 4), layout="constrained") for _ in range(5)]
    plots.label_distribution(described, axes=figures[0].subplots())
    plots.confusion_matrix(counts, [f"class {i}" for i in range(26)], axes=figures[1].subplots())
    plots.learning_curves({"a": history()}, figure=figures[2])
    plots.round_costs([9.0, 0.2, 0.3], plots.RoundBytes(3000, 1000), figure=figures[3])
    plots.class_weights(np.ones((8, 10)), (4, 2), figure=figures[4])
    for figure in figures:
        figure.draw_without_rendering()
        for axes in figure.axes:
            (title,) = boxes([axes.title]) or [axes.bbox]
            assert figure.bbox.x0 - 1 <= title.x0
            assert title.x1 <= figure.bbox.x1 + 1
            for axis, side in ((axes.xaxis, "x"), (axes.yaxis, "y")):
                if axes.get_label() != "<colorbar>":
                    edges = sorted(
                        (getattr(box, side + "0"), getattr(box, side + "1")) for box in boxes(axis.get_ticklabels())
                    )
                    assert all(before[1] <= after[0] for before, after in itertools.pairwise(edges))


# --- one round


def test_client_updates_are_those_that_are_aggregated():
    class Keeping(fed.learning.aggregators.MeanFactory):
        def next(self, state, updates, weights):
            kept.append(updates)
            return super().next(state, updates, weights)

    kept = []
    model = toy_model()
    for work in (
        fed.learning.fed_avg.FedAvgTraining(sgd(0.5)),
        fed.learning.fed_prox.FedProxTraining(sgd(0.5), proximal_strength=0.1),
    ):
        process = fed.learning.compose_learning_process(model, work, Keeping(), sgd(1.0))
        cohort = [dataset.shuffle(9, seed=1) for dataset in random_cohort([4, 0, 6], batch=2)]
        state, _ = process.next(process.initialize(), cohort)
        updates = fed.learning.client_updates(process, state, cohort, iteration=3)
        process.next(state, cohort, iteration=3)
        for update, seen in zip(updates, kept[-1], strict=True):
            np.testing.assert_allclose(update, seen, atol=1e-6)
    with pytest.raises(TypeError, match="'process' must be a LearningProcess that trains"):
        fed.learning.client_updates(fed.learning.build_fed_eval(model), state, cohort)


def test_suboptimality_curves():
    (axes,) = plots.suboptimality_curves({"a$b$": [1.0, 0.0, 1e-9], "b": [2.0, 1.0, 0.5]}, [0, 5, 10]).axes
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), [1.0, np.nan, 1e-9])  # 0 has no place on a logarithmic axis
    assert second.get_xdata().tolist() == [0, 5, 10]
    assert axes.get_yscale() == "log"
    plots.suboptimality_curves({"exact": [0.0, 0.0]}).savefig(os.devnull, format="png")
    (axes,) = plots.suboptimality_curves({"now and then": [1.0, np.nan, 0.5]}).axes  # as a log has it
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 1.0], [3.0, 0.5]]


def test_round_parts():
    (axes,) = plots.round_parts([{"centralized": 1.0, "drift": 0.1}, {"centralized": 0.5, "drift": 0.2}]).axes
    assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == {
        "centralized": [1.0, 0.5],
        "drift": [0.1, 0.2],
    }


def test_client_drift():
    updates = -np.array([[3.0, 0, 4, 0], [3, 0, -4, 0]])
    (axes,) = plots.client_drift(updates, -np.array([3.0, 0, 0, 0]), ["ann", "bob"]).axes
    clients_at, server_at, start = (points.get_offsets() for points in axes.collections)
    np.testing.assert_allclose(np.linalg.norm(clients_at, axis=1), [5, 5])
    np.testing.assert_allclose(np.linalg.norm(server_at), 3)
    assert start.tolist() == [[0, 0]]
    assert axes.get_title() == "Client drift: 2 clients, mean cosine with the global step 0.6000"
    assert "64.00% of the squared length" in axes.get_xlabel()
    assert "36.00%" in axes.get_ylabel()
    assert sorted(texts(axes)) == ["ann", "bob"]


def test_client_drift_keeps_what_is_in_the_plane():
    rng = np.random.default_rng(0)
    tensors = rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 3))
    step = tuple(tensor.mean(axis=0) for tensor in tensors)
    (axes,) = plots.client_drift(tensors, step).axes
    clients_at, server_at, _ = (points.get_offsets() for points in axes.collections)
    np.testing.assert_allclose(clients_at.mean(axis=0), server_at[0])  # a projection is linear
    assert server_at[0, 0] > 0
    flat = np.concatenate([tensor.reshape(6, -1) for tensor in tensors], axis=1)
    singular = np.linalg.svd(flat, compute_uv=False)
    np.testing.assert_allclose(np.sort(np.linalg.norm(clients_at, axis=0)), np.sort(singular[:2]))
    flat_axes = plots.client_drift(flat, flat.mean(axis=0)).axes[0]
    np.testing.assert_allclose(flat_axes.collections[0].get_offsets(), clients_at)


@pytest.mark.parametrize("updates", [np.zeros((3, 4)), np.ones((1, 4)), np.ones((3, 1)), np.ones((2, 4))])
def test_client_drift_of_less_than_two_dimensions(updates):
    figure = plots.client_drift(updates, updates.mean(axis=0))
    assert ("no movement" in figure.axes[0].get_title()) == (not updates.any())


# --- a model


def test_class_weights():
    kernel = np.arange(-12.0, 12).reshape(8, 3)
    for weights in (kernel, ModelWeights((kernel, np.zeros(3)))):
        *frames, bar = plots.class_weights(weights, (4, 2), ["a", "b", "c"]).axes
        assert [axes.get_title() for axes in frames] == ["a", "b", "c"]
        for number, axes in enumerate(frames):
            assert axes.images[0].get_array().tolist() == kernel[:, number].reshape(4, 2).tolist()
            assert axes.images[0].get_clim() == (-12, 12)
        assert bar.get_ylabel() == "weight (logit per brightness)"
    assert len(plots.class_weights(np.ones((1, 22)), (1, 1)).axes) == 23
    picture = plots.class_weights(np.linspace(-1, 3, 8)[:, np.newaxis], (4, 2)).axes[0].images[0]
    assert picture.cmap(picture.norm(0.0))[:3] == (1, 1, 1)
    assert picture.get_clim() == (-3, 3)
    *frames, bar = plots.class_weights(np.zeros((8, 2)), (4, 2)).axes
    assert tick_texts(bar.yaxis) == ["0"]


def test_confusion_counts():
    model = toy_model()
    weights = ModelWeights((np.eye(4, 3, dtype=np.float32), np.zeros(3, np.float32)))
    cohort = [toy_batches(), random_cohort([7])[0]]
    counts = fed.learning.confusion_counts(model, weights, cohort)
    process = fed.learning.build_fed_eval(model)
    state = process.set_model_weights(process.initialize(), weights)
    metrics = process.next(state, cohort).metrics["client_work"]["eval"]["current_round_metrics"]
    assert counts.sum() == metrics["num_examples"]
    assert np.trace(counts) / counts.sum() == pytest.approx(metrics["sparse_categorical_accuracy"])
    labels = np.concatenate([dataset["y"].reshape(-1) for dataset in [*toy_batches(), *cohort[1].batches()]])
    assert counts.sum(axis=1).tolist() == np.bincount(labels, minlength=3).tolist()
    assert fed.learning.confusion_counts(model, weights, random_cohort([0])).tolist() == [[0] * 3] * 3
    bad = [{"x": np.zeros((1, 4), np.float32), "y": np.int32([[3]])}]
    with pytest.raises(fed.DataError, match=r"labels must lie in \[0, 2\]. Got 3"):
        fed.learning.confusion_counts(model, weights, [bad])


def test_heat_map():
    values, spreads = [[0.5, 0.75], [np.inf, 0.25]], [[0.125, np.nan], [0.5, 0.0]]
    figure = plots.heat_map(
        values, ["a$b$", "c"], [0.1, 1], names=("algorithm", "rate"), label="accuracy", spreads=spreads
    )
    axes, bar = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.500\n± 0.125", "0.750", "not finite", "0.250\n± 0.000"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a\\$b\\$", "c"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "1"]
    assert (axes.get_ylabel(), axes.get_xlabel(), bar.get_ylabel()) == ("algorithm", "rate", "accuracy")
    assert axes.patches[0].get_xy() == pytest.approx((0.53, -0.45))  # around the best
    assert plots.heat_map(values, [*"ab"], [*"cd"], lower_is_better=True).axes[0].patches[0].get_xy()[1] > 0
    assert [axes.texts[i].get_color() for i in (1, 3)] == ["black", "white"]  # on the lightest, and the darkest
    blank = plots.heat_map([[np.nan]], ["a"], ["b"])
    assert len(blank.axes) == 1
    own = Figure(layout="constrained")
    assert plots.heat_map([[1.0] * 13] * 2, range(2), range(13), axes=own.subplots()) is own
    assert not own.axes[0].texts
    own.draw_without_rendering()


def test_confusion_matrix():
    axes, bar = plots.confusion_matrix([[3, 1, 0], [0, 0, 0], [2, 0, 6]], ["cat", "dog", "owl"]).axes
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[[0, 2]], [[0.75, 0.25, 0], [0.25, 0, 0.75]])
    assert shares.mask[1].all()
    assert texts(axes) == ["3", "1", "2", "6"]
    assert axes.get_title() == "9 of 12 examples correct (75.00%)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert tick_texts(axes.yaxis) == ["cat", "dog", "owl"]
    assert bar.get_ylabel() == "share of the true class's examples"
    axes, _ = plots.confusion_matrix(np.eye(62, dtype=int)).axes
    assert not axes.texts
    assert tick_texts(axes.xaxis)[:3] == ["0", "4", "8"]
    assert axes.images[0].cmap(axes.images[0].norm(0.0))[:3] == (1, 1, 1)  # none is white
    assert plots.confusion_matrix(np.zeros((2, 2))).axes[0].get_title() == "0 of 0 examples correct"


# --- bad arguments


@pytest.mark.parametrize(
    ("draw", "kind", "message"),
    [
        (lambda: plots.image([1.0]), fed.DataError, r"'pixels' must have the shape \(h, w\)"),
        (lambda: plots.image([[255.0]]), fed.DataError, r"pixels must lie in \[0, 1\]"),
        (lambda: plots.image([[0.5]], axes=Figure()), TypeError, "'axes' must be matplotlib Axes or None"),
        (lambda: plots.client_images(few()), TypeError, "'dataset' must be a Dataset"),
        (
            lambda: plots.client_images(few().create_dataset_for_client("ann"), rows=0),
            ValueError,
            "'rows' must be an integer >= 1. Got 0.",
        ),
        (
            lambda: plots.client_images(few().create_dataset_for_client("ann"), label="lable"),
            fed.DataError,
            "client 'ann': the examples must have the field 'lable'",
        ),
        (lambda: plots.label_counts(TRAIN.client_ids), TypeError, "'client_data' must be a ClientData"),
        (lambda: plots.label_counts(few(), "ann"), TypeError, "'client_ids' must be a list"),
        (lambda: plots.label_counts(few(), []), ValueError, "'client_ids' must be at least one"),
        (lambda: plots.label_counts(few(), ["dan"]), ValueError, r"ID \[dan\] is not a client"),
        (lambda: plots.label_counts(few(), figure=3), TypeError, "'figure' must be a matplotlib"),
        (lambda: plots.mean_images(few(), ["cid"]), fed.DataError, "at least one of the clients must have examples"),
        (lambda: plots.mean_images(few(), labels=[]), ValueError, "'labels' must be labels, at least one"),
        (lambda: plots.label_distribution(few()), TypeError, "'description' must be the result"),
        (
            lambda: plots.label_distribution(describe(InMemoryClientData({"ann": {"x": [1]}}))),
            fed.DataError,
            "there must be labels to draw",
        ),
        (lambda: plots.learning_curves([history()]), TypeError, "'histories' must be a mapping"),
        (lambda: plots.learning_curves({"a": []}), TypeError, "'histories' must be a mapping"),
        (lambda: plots.learning_curves({"a": {"loss": [1]}}), fed.DataError, "must have the column 'round_num'"),
        (lambda: plots.learning_curves({"a": history()}, ["lost"]), fed.DataError, "must have values of 'lost'"),
        (lambda: plots.learning_curves({"a": history()}, band="se"), ValueError, "'band' must be"),
        (
            lambda: plots.learning_curves({"a": {"round_num": [1], "loss": ["x"]}}),
            fed.DataError,
            "field 'loss': a history's values must be numbers",
        ),
        (lambda: plots.legend_from_configs([3]), TypeError, "'configs' must be"),
        (lambda: plots.histories_by_config([{}], []), ValueError, "'histories' must be"),
        (lambda: plots.client_accuracy([[1.5]]), fed.DataError, r"accuracies must lie in \[0, 1\]"),
        (lambda: plots.client_accuracy([[np.nan]]), ValueError, "'accuracies' must be"),
        (lambda: plots.client_accuracy([[0.5]], [1, 2]), ValueError, "'rounds' must be 1 different round"),
        (lambda: plots.accuracy_of_clients({}), fed.DataError, "must have the column 'metrics'"),
        (lambda: plots.client_drift([[1.0, 2.0]] * 3, [1.0, 2.0]), fed.DataError, r"must be an array \(k, d\)"),
        (lambda: plots.suboptimality_curves({}), ValueError, "'values' must be of at least one run"),
        (lambda: plots.suboptimality_curves({"a": [1.0], "b": [1.0, 2.0]}), ValueError, "of equally many rounds"),
        (lambda: plots.suboptimality_curves({"a": [np.inf]}), fed.DataError, "must be finite"),
        (lambda: plots.round_parts([{"a": 1.0}, {"b": 1.0}]), ValueError, "'norms' must be mappings with the same"),
        (lambda: plots.client_drift(np.ones((2, 3)), np.ones(2)), fed.DataError, "as many weights as an update, 3"),
        (lambda: plots.client_drift(np.full((2, 3), np.nan), np.ones(3)), fed.DataError, "must be finite"),
        (lambda: plots.client_drift(np.ones((2, 3)), np.ones(3), ["a"]), ValueError, "'names' must be"),
        (lambda: plots.class_weights(np.ones((8, 2)), (3, 3)), ValueError, "'image_shape' must be"),
        (lambda: plots.class_weights(np.ones(8), (4, 2)), fed.DataError, r"must have the shape \(d, c\)"),
        (lambda: plots.confusion_matrix([[1, 2]]), fed.DataError, r"must be numbers >= 0 of shape \(c, c\)"),
        (lambda: plots.confusion_matrix([[-1]]), fed.DataError, r"must be numbers >= 0 of shape \(c, c\)"),
        (lambda: plots.round_costs([-1.0]), fed.DataError, "'seconds' must be finite numbers >= 0"),
        (lambda: plots.round_costs([1.0], [(1, 2)] * 3), ValueError, "'bytes_per_round' must be"),
        (lambda: plots.bytes_of_round([1], 1), TypeError, "'weights' must be ModelWeights"),
    ],
)
def test_bad_arguments(draw, kind, message):
    with pytest.raises(kind, match=message):
        draw()


def test_an_infinite_value_breaks_the_line_and_a_missing_one_does_not():
    history = {"round_num": [1, 2, 3, 4], "loss": [1.0, np.inf, np.nan, 2.0]}
    (line,) = fed.plots.learning_curves({"a": history}).axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 4])
    np.testing.assert_array_equal(line.get_ydata(), [1.0, np.nan, 2.0])
    with pytest.raises(fed.DataError, match="all histories of 'a' must have 'loss'. Got 1 of 2."):
        fed.plots.learning_curves({"a": [history, {"round_num": [1], "other": [1.0]}]}, ["loss"])


def test_the_user_s_style_is_followed():
    import matplotlib

    sample, _ = fed.datasets.load_sample()
    with matplotlib.rc_context(
        {"text.color": "white", "figure.facecolor": "black", "image.origin": "lower", "axes.grid": True}
    ):
        figure = fed.plots.client_sizes(fed.datasets.describe(sample))
        assert figure.get_facecolor() == (0.0, 0.0, 0.0, 1.0)
        assert figure.axes[0].title.get_color() == "white"
        assert figure.axes[0].lines[0].get_color() == "white"  # the median
        weights = fed.plots.class_weights(np.zeros((784, 10), np.float32))
        assert weights.axes[0].images[0].origin == "upper"


ODD = [None, 3, "x", [], [None], ["a", "b"], [[1, 2], [3]], {"a": 1}, 1j, np.array(3), [float("nan")], object()]
LOGGER = fed.program.MemoryLogger()
CALLS = {
    "image": plots.image,
    "client_images": lambda odd: plots.client_images(few().create_dataset_for_client("ann"), pixels=odd, label=odd),
    "mean_images": lambda odd: plots.mean_images(few(), odd, pixels=odd, label=odd),
    "mean_images' labels": lambda odd: plots.mean_images(few(), labels=odd),
    "label_counts": lambda odd: plots.label_counts(few(), odd, label=odd),
    "histories": lambda odd: plots.learning_curves({"a": odd}),
    "columns": lambda odd: plots.learning_curves({"a": {"round_num": [1, 2], "loss": odd}}),
    "rounds of a history": lambda odd: plots.learning_curves({"a": {"round_num": odd, "loss": [1, 2]}}),
    "metrics": lambda odd: plots.learning_curves({"a": history()}, odd if odd is not None else [None]),
    "band": lambda odd: plots.learning_curves({"a": history()}, band=odd),
    "client_accuracy": plots.client_accuracy,
    "rounds": lambda odd: plots.client_accuracy([[0.5], [0.25]], odd if odd is not None else 3),
    "metrics of clients": lambda odd: plots.accuracy_of_clients({"metrics": odd}),
    "sums": lambda odd: plots.accuracy_of_clients({"metrics": [{"accuracy": odd}]}, "accuracy"),
    "a metric": lambda odd: plots.accuracy_of_clients({"metrics": [{"accuracy": [1, 2]}]}, odd),
    "updates": lambda odd: plots.client_drift(odd, np.ones(3)),
    "global_update": lambda odd: plots.client_drift(np.ones((2, 3)), odd),
    "names": lambda odd: plots.confusion_matrix([[1]], odd if odd is not None else 3),
    "counts": plots.confusion_matrix,
    "values": lambda odd: plots.heat_map(odd, ["a"], ["b"]),
    "values of a parameter": lambda odd: plots.heat_map([[1]], odd, ["b"]),
    "names of parameters": lambda odd: plots.heat_map([[1]], ["a"], ["b"], names=odd),
    "weights": lambda odd: plots.class_weights(odd, (1, 1)),
    "image_shape": lambda odd: plots.class_weights(np.ones((8, 2)), odd),
    "seconds": plots.round_costs,
    "bytes": lambda odd: plots.round_costs([1.0, 2.0], odd if odd is not None else 3),
    "configs": plots.legend_from_configs,
    "ignore": lambda odd: plots.legend_from_configs([{"a": 1}], odd),
    "histories by config": lambda odd: plots.histories_by_config(odd, odd, odd),
    "client_updates": lambda odd: fed.learning.client_updates(
        fed.learning.build_weighted_fed_avg(toy_model, sgd(0.1)), odd, random_cohort([3], 2)
    ),
    "confusion_counts": lambda odd: fed.learning.confusion_counts(toy_model(), odd, random_cohort([3], 2)),
}
FINE = {
    *(("mean_images' labels", odd) for odd in ("None", "[None]", "['a', 'b']", "[nan]")),
    ("metrics of clients", "[]"),
    ("names", "[None]"),
    *(("values of a parameter", odd) for odd in ("[None]", "[nan]")),
    ("names of parameters", "['a', 'b']"),
    ("names", "[nan]"),
    ("global_update", "[[1, 2], [3]]"),
    ("configs", "[]"),
    ("ignore", "[]"),
    ("ignore", "['a', 'b']"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", range(len(ODD)), ids=lambda number: repr(ODD[number])[:12])
def test_odd_arguments_are_answered_in_our_words(call, number):
    """That is: by an error of this package's, in one line, that names what was given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            CALLS[call](ODD[number])
        except (ValueError, TypeError) as error:
            text = str(error)
            assert text.endswith(".")
            assert " Got " in text or "is not a client" in text
            assert len(text) < 400
            return
    assert (call, repr(ODD[number])) in FINE


def test_a_logger_is_no_history():
    with pytest.raises(
        TypeError, match=r"a mapping of legend texts to histories or lists of histories \(MemoryLogger.his"
    ):
        plots.learning_curves({"a": LOGGER})
    with pytest.raises(ValueError, match="'histories' must be a mapping of different texts"):
        plots.learning_curves({1: history(), "1": history()})
    with pytest.raises(fed.DataError, match="a history's rounds must be different finite numbers"):
        plots.learning_curves({"a": {"round_num": [1, 1], "loss": [1.0, 2.0]}})


def test_axes_that_were_removed():
    axes = Figure().subplots()
    axes.remove()
    with pytest.raises(ValueError, match="'axes' must be a part of a figure, not removed from it"):
        plots.image([[0.5]], axes=axes)


def test_many_rounds_are_bars_without_gaps():
    figure = plots.round_costs([0.01] * 200, plots.RoundBytes(3000, 1000))
    bars = figure.axes[1].patches
    assert {bar.get_width() for bar in bars} == {1.0}
    assert {bar.get_linewidth() for bar in bars} == {0}
    few_bars = plots.round_costs([54.321] * 3, plots.RoundBytes(3000, 1000))
    assert {bar.get_hatch() for bar in few_bars.axes[1].patches} == {None, "///"}
    assert "median 54,321 ms" in [text.get_text() for text in few_bars.axes[0].get_legend().get_texts()]


def test_a_single_round_is_seen():
    figure = plots.client_accuracy([[0.2, 0.4, 0.9]])
    for band, edges in zip(figure.axes[0].collections, ([0.2, 0.9], [0.3, 0.65]), strict=True):
        vertices = band.get_paths()[0].vertices
        assert np.ptp(vertices[:, 0]) == 0.5
        np.testing.assert_allclose([vertices[:, 1].min(), vertices[:, 1].max()], edges)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", "D"]
    figure = plots.learning_curves({"a": [{"round_num": [1], "loss": [1.0]}, {"round_num": [1], "loss": [3.0]}]})
    (band,) = figure.axes[0].collections
    assert np.ptp(band.get_paths()[0].vertices[:, 1]) == 2.0


def test_large_counts_are_written_out_or_short():
    figure = plots.confusion_matrix([[8_888_889, 10_500], [11, 0]])
    assert figure.axes[0].get_title().replace("\n", " ") == "8,888,889 of 8,899,400 examples correct (99.88%)"
    assert texts(figure.axes[0]) == ["8.89M", "10.5k", "11"]
    nearly = plots.confusion_matrix([[999_999, 999_999_999], [9_999, 12_345]])
    assert texts(nearly.axes[0]) == ["1M", "1G", "9999", "12.3k"]


@pytest.mark.parametrize("names", [["aeroplane", "automobile", "ship"], ["$\\frac$", "5$ and 6$", "ok"]])
def test_names_of_labels_are_short_and_no_formulas(names):
    numbers = {"ann": {"label": np.array(names + names[:1]), "pixels": np.full((4, 5, 5), 0.5, np.float32)}}
    data = fed.datasets.ClientData.from_clients_and_fn(
        ["ann"], lambda client_id: fed.datasets.Dataset.from_arrays(numbers[client_id], client_id)
    )
    for figure in (
        plots.client_images(data.create_dataset_for_client("ann"), 1, 4),
        plots.mean_images(data),
        plots.label_counts(data),
        plots.learning_curves({"a": {"round_num": [1], "$\\frac$": [1.0]}}, ["$\\frac$"]),
    ):
        figure.draw_without_rendering()
    assert all(len(axes.get_title().replace("\\", "")) <= 8 for axes in plots.mean_images(data).axes)


def test_the_seed_of_a_training_run_s_configuration_is_found():
    configs = [{"choices": {"seed": seed, "lr": lr}} for lr in (1, 2) for seed in (3, 4)]
    assert {text: len(of) for text, of in plots.histories_by_config(configs, [history()] * 4).items()} == {
        "choices/lr=1": 2,
        "choices/lr=2": 2,
    }


def test_the_layout_of_a_figure_of_one_s_own_is_left_alone():
    figure = Figure(layout="none")
    plots.label_counts(few(), figure=figure)
    assert figure.get_layout_engine() is None


def test_a_history_may_come_from_a_file_or_have_numpy_s_numbers():
    logger = fed.program.MemoryLogger()
    for round_num in (1, 2):
        logger.release({"loss": np.array(0.5)}, round_num)
    from_file = {"round_num": ["1", "2", "3"], "loss": ["0.5", "0.25", ""]}
    figure = plots.learning_curves({"a": logger.history, "b": from_file, "c": (run for run in [from_file])})
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0.5, 0.5], [0.5, 0.25], [0.5, 0.25]]


def test_labels_that_nobody_has_are_empty_frames():
    figure = plots.mean_images(few(), ["bob"], labels=[7])
    assert [(axes.get_title(), texts(axes), len(axes.images)) for axes in figure.axes] == [("7", ["none"], 0)]


@pytest.mark.parametrize("column", [np.array([1 + 2j, 2], np.complex64), ["1_000", 2], [[1], [2]], np.ones((2, 1))])
def test_what_is_no_real_number_is_not_drawn(column):
    with pytest.raises(fed.DataError, match="field 'loss': a history's values must be numbers. Got"):
        plots.learning_curves({"a": {"round_num": [1, 2], "loss": column}})


BYTES = "communication/bytes_up"


def curves_over(*histories):
    figure = fed.plots.learning_curves({f"run {i}": h for i, h in enumerate(histories)}, ["loss"], over=BYTES)
    return figure.axes[0]


def test_curves_over_what_rounds_have_cost():
    """The sum up to each round, in whatever order they are listed; an evaluation before the first one is at 0."""
    near = {"round_num": [0, 1, 2], "loss": [3.0, 2.0, 1.0], BYTES: [np.nan, 10, 30]}
    axes = curves_over(near)
    assert axes.lines[0].get_xdata().tolist() == [0, 10, 40]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("bytes that clients have sent", "linear")
    shuffled = {name: [column[i] for i in (2, 0, 1)] for name, column in near.items()}
    assert curves_over(shuffled).lines[0].get_xdata().tolist() == [0, 10, 40]
    far = {**near, BYTES: ["", "100", "300"]}
    assert curves_over(near, far).get_xscale() == "log"
    assert curves_over([near, far]).lines[0].get_xdata().tolist() == [0, 55, 220]  # two seeds


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        (None, "all histories must have 'communication/bytes_up'"),
        ([1.0, 2.0], "a history's columns must have the same length"),
        ([1.0, -1.0, 1.0], "must be finite and >= 0. Got -1.0"),
        ([1.0, np.inf, 1.0], "must be finite and >= 0"),
    ],
)
def test_what_curves_cannot_be_drawn_over(column, rule):
    history = {"round_num": [0, 1, 2], "loss": [3.0, 2.0, 1.0]}
    with pytest.raises(fed.DataError, match=rule):
        curves_over(history if column is None else {**history, BYTES: column})


def test_a_low_heat_map_has_room_for_what_its_colours_mean():
    figure = plots.heat_map([[0.1, 0.2]], ["fedavg"], [0.1, 1.0], label="final accuracy, mean ± sd of 2 seeds")
    figure.draw_without_rendering()
    box, label = figure.bbox, figure.axes[1].yaxis.label.get_window_extent()
    assert box.y0 <= label.y0
    assert label.y1 <= box.y1
