"""`FederatedClassifier`: what scikit-learn asks of an estimator, and the same run as ``fedsim-np train``'s."""

import dataclasses
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.runs.config import RunConfig


def test_scikit_learn_is_imported_when_it_is_asked_for():
    code = """if True:
        import pydoc
        import sys
        import fedsim_np
        from fedsim_np import *
        pydoc.render_doc(fedsim_np)
        assert "sklearn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "fedsim_np.sklearn", raising=False)
    monkeypatch.delattr(fed, "sklearn", raising=False)
    with pytest.raises(ImportError, match=r'1\.6 or later: pip install "fedsim_np\[sklearn\]"'):
        _ = fed.sklearn


sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import make_classification  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

FederatedClassifier = fed.sklearn.FederatedClassifier


@pytest.fixture(scope="module")
def table():
    """X (120, 5), y of three classes, and the clients of the rows, 0..7."""
    X, y = make_classification(120, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    return X, y, np.random.default_rng(0).integers(0, 8, len(y))


def small(**parameters):
    return FederatedClassifier(**{"rounds": 3, "clients": 4, "epochs": 2, "random_state": 1, **parameters})


def same(a, b):
    return all(map(np.array_equal, a.weights_.trainable, b.weights_.trainable))


@pytest.mark.parametrize(
    "classifier",
    [FederatedClassifier(), FederatedClassifier(model="mlp", hidden=(8,), rounds=4, client_lr=0.1)],
    ids=["softmax", "mlp"],
)
def test_all_of_scikit_learns_checks_pass(classifier):
    results = check_estimator(classifier, on_skip=None)
    assert len(results) > 50
    skipped = {result["check_name"] for result in results if result["status"] != "passed"}
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}  # which ask for packages


def test_every_choice_of_a_training_run_is_a_parameter():
    own = {name: p.default for name, p in inspect.signature(FederatedClassifier).parameters.items()}
    of_runs = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    of_runs["hidden"] = tuple(map(int, of_runs["hidden"].split(",")))
    elsewhere = {"data", "population", "classes", "invert", "seed"}  # what X, y and random_state say
    elsewhere |= {"evaluate_every", "evaluation_clients", "checkpoint_every", "evaluate_as_trained"}
    elsewhere |= {"network", "reshuffle"}  # which change no model, or are the tutorial's
    assert own.pop("random_state") is None
    assert own == {name: default for name, default in of_runs.items() if name not in elsewhere}


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ("--algorithm fedprox --l2 0.01 --dropout 0.3", {"algorithm": "fedprox", "l2": 0.01, "dropout": 0.3}),
        ("--model mlp --hidden 6,4 --client-momentum 0.5", {"model": "mlp", "hidden": [6, 4], "client_momentum": 0.5}),
    ],
)
def test_it_is_the_run_of_the_command(table, folder, flags, parameters):
    X, y, clients = table
    data = fed.datasets.partition.from_arrays({"x": X, "y": y}, client=clients)
    for split in ("train", "test"):
        fed.datasets.write_hdf5(folder / f"own_{split}.h5", data)
    common = f"--clients 4 --rounds 3 --epochs 2 --client-lr 0.1 --seed 5 {flags}".split()
    assert main(["train", "--data", str(folder / "own"), "--out", str(folder / "run"), *common]) == 0
    classifier = small(client_lr=0.1, random_state=5, **parameters).fit(X, y, groups=clients)
    stored = fed.learning.models.load_weights(folder / "run" / "weights.npz", classifier._model)
    assert all(map(np.array_equal, stored.trainable, classifier.weights_.trainable))


def test_without_groups_it_is_training_in_one_place(table):
    X, y, _ = table
    alone = small(rounds=1).fit(X, y)
    assert (alone.n_clients_, alone.n_iter_) == (1, 1)
    assert same(alone, small(rounds=1).fit(X, y, groups=["all"] * len(y)))
    arrays = {"x": X.astype(np.float32), "y": y.astype(np.int32)}
    batches = fed.datasets.Dataset.from_arrays(arrays).repeat(2).shuffle(100, seed=1).batch(20)
    model = fed.learning.models.SoftmaxRegression(5, 3)
    central = fed.learning.train_centrally(model, fed.learning.optimizers.build_sgdm(0.02), batches)
    for a, b in zip(alone.weights_.trainable, central.weights.trainable, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_groups_are_any_hashables(table):
    X, y, clients = table
    numbers = small().fit(X, y, groups=clients)
    assert numbers.n_clients_ == 8
    assert not same(numbers, small().fit(X, y))
    for named in (
        clients * 10,
        list(map("hospital {}".format, clients)),
        np.array([f"h{i}" for i in clients], object),
        [("ward", int(i)) for i in clients],
        clients / 2,
    ):
        assert same(numbers, small().fit(X, y, groups=named))
    mixed = ["x" if i == 0 else int(i) for i in clients]
    assert small().fit(X, y, groups=mixed).n_clients_ == 8
    rows = np.argsort(clients, kind="stable")  # who has which rows is what counts, and their order
    assert same(numbers, small().fit(X[rows], y[rows], groups=clients[rows]))


def test_groups_that_cannot_be(table):
    X, y, clients = table
    rule = r"'groups' must be the client of each row \(that of row 7 is missing\)"
    for missing in (None, float("nan"), np.datetime64("NaT", "ns")):
        groups = np.array(clients, object)
        groups[7] = missing
        with pytest.raises(ValueError, match=rule):
            small().fit(X, y, groups=groups)
    with pytest.raises(TypeError, match="'groups' must be an array of hashables, one a row"):
        small().fit(X, y, groups=np.stack([clients, clients], axis=1))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[120, 119\]"):
        small().fit(X, y, groups=clients[1:])


def test_missing_groups_of_pandas(table):
    pandas = pytest.importorskip("pandas")
    X, y, clients = table
    frame = pandas.DataFrame(X, columns=list("abcde"))
    groups = pandas.Series(clients, dtype="Int64")
    classifier = small().fit(frame, y, groups=groups)
    assert same(classifier, small().fit(X, y, groups=clients))
    assert classifier.feature_names_in_.tolist() == list("abcde")
    groups[7] = pandas.NA
    with pytest.raises(ValueError, match="that of row 7 is missing"):
        small().fit(frame, y, groups=groups)


@pytest.mark.parametrize(
    "labels",
    [["no", "yes", "so-so"], [10, -3, 7], [0.0, 1.0, 2.0], np.array(["a", "b", "c"], object), [True, False, True]],
    ids=["texts", "integers", "whole floats", "objects", "booleans"],
)
def test_labels_of_any_kind(table, labels):
    X, y, clients = table
    named = np.asarray(labels)[y]
    classifier = small().fit(X, named, groups=clients)
    assert classifier.classes_.tolist() == sorted(set(named.tolist()))
    p = classifier.predict_proba(X)
    assert p.dtype == np.float64
    assert p.shape == (120, len(classifier.classes_))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-15)
    found = classifier.predict(X)
    assert found.dtype == named.dtype
    assert np.array_equal(found, classifier.classes_[p.argmax(axis=1)])
    assert classifier.score(X, named) == np.mean(found == named) > 0.5


def test_one_class(table):
    X, _, clients = table
    classifier = small().fit(X, ["all"] * 120, groups=clients)
    assert classifier.predict_proba(X).tolist() == [[1.0]] * 120
    assert set(classifier.predict(X)) == {"all"}


def test_coefficients(table):
    X, y, _ = table
    classifier = small().fit(X, y)
    assert classifier.coef_.shape == (3, 5)
    z = np.exp(X @ classifier.coef_.T + classifier.intercept_)
    np.testing.assert_allclose(classifier.predict_proba(X), z / z.sum(axis=1, keepdims=True), rtol=1e-6)
    assert small().fit(X, y > 0).coef_.shape == (2, 5)
    perceptron = small(model="mlp", hidden=[4]).fit(X, y)
    assert [w.shape for w in perceptron.weights_.trainable] == [(5, 4), (4,), (4, 3), (3,)]
    for without in (perceptron, small()):
        assert not hasattr(without, "coef_")
        assert not hasattr(without, "intercept_")


def test_history(table):
    X, y, clients = table
    history = small().fit(X, y, groups=clients).history_
    assert history["round_num"] == [1, 2, 3]
    assert len(history["client_work/train/loss"]) == 3
    assert history["client_work/train/loss"][-1] < history["client_work/train/loss"][0]
    assert small(rounds=0).fit(X, y).history_["round_num"] == []


def test_random_state(table):
    X, y, clients = table

    def fit(random_state):
        return small(random_state=random_state).fit(X, y, groups=clients)

    assert same(fit(3), fit(3))
    assert same(fit(3), fit(np.int64(3)))
    assert not same(fit(3), fit(4))
    assert same(fit(np.random.RandomState(0)), fit(np.random.RandomState(0)))
    state = np.random.RandomState(0)
    assert not same(fit(state), fit(state))
    assert not same(fit(None), fit(None))


def test_clone_and_pickle(table):
    X, y, clients = table
    classifier = small(model="mlp", hidden=[4]).fit(X, y, groups=clients)
    again = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(again.predict_proba(X), classifier.predict_proba(X))
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)


def test_a_search_in_a_pipeline_without_routing(table):
    X, y, clients = table
    pipeline = Pipeline([("scale", StandardScaler()), ("classifier", small())])
    grid = {"classifier__client_lr": [1e-6, 0.1], "classifier__algorithm": ["fedavg", "scaffold"]}
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(2), scoring="neg_log_loss")
    search.fit(X, y, groups=clients, classifier__groups=clients)
    assert search.best_params_["classifier__client_lr"] == 0.1
    assert search.best_estimator_["classifier"].n_clients_ == 8
    # The splitter's alone.
    search.fit(X, y, groups=clients)
    assert search.best_estimator_["classifier"].n_clients_ == 1


class Seen(FederatedClassifier):
    """Tells how many clients each fit had."""

    told = []

    def fit(self, X, y, groups=None):
        super().fit(X, y, groups)
        self.told.append(self.n_clients_)
        return self


def test_a_search_with_routing(table):
    X, y, clients = table
    with sklearn.config_context(enable_metadata_routing=True):
        classifier = Seen(rounds=2, random_state=0).set_fit_request(groups=True)
        for splitter, each in ((GroupKFold(2), 4), (KFold(3), 8)):
            Seen.told.clear()
            GridSearchCV(classifier, {"client_lr": [0.1]}, cv=splitter).fit(X, y, groups=clients)
            assert Seen.told == [each] * splitter.get_n_splits() + [8]
        Seen.told.clear()
        pipeline = Pipeline([("scale", StandardScaler()), ("classifier", classifier)])
        assert cross_val_score(pipeline, X, y, cv=GroupKFold(2), params={"groups": clients}).mean() > 0.5
        assert Seen.told == [4, 4]
        Seen.told.clear()
        aliased = clone(classifier).set_fit_request(groups="client")
        GridSearchCV(aliased, {"client_lr": [0.1]}, cv=GroupKFold(2)).fit(X, y, groups=clients % 2, client=clients)
        assert Seen.told == [4, 4, 8]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"clients": 0}, "'clients' must be an integer >= 1. Got 0"),
        ({"client_lr": -1.0}, "'client_lr' must be a finite float >= 0"),
        ({"algorithm": "fedavgg"}, "'algorithm' must be one of .* Did you mean 'fedavg'"),
        ({"model": "linear"}, "'model' must be one of softmax, .*mlp. Got 'linear'"),
        ({"hidden": "200,200", "model": "mlp"}, "'hidden' must be a sequence of integers"),
        ({"hidden": [], "model": "mlp"}, "'hidden' must be a sequence of integers"),
        ({"hidden": [0], "model": "mlp"}, "'hidden' must be integers above 0"),
        ({"hidden": [5]}, "'hidden' changes nothing with the model softmax"),
        ({"l2": 0.1, "model": "mlp", "hidden": [5]}, "'l2' changes nothing with the model mlp"),
        ({"q": 2.0}, "'q' changes nothing with the algorithm fedavg"),
        ({"random_state": -1}, "Seed must be between"),
        ({"random_state": "x"}, "cannot be used to seed"),
    ],
)
def test_parameters_out_of_range_are_named(table, parameters, message):
    X, y, _ = table
    classifier = small().fit(X, y)
    before = classifier.predict(X)
    with pytest.raises((ValueError, TypeError), match=message):
        classifier.set_params(**parameters).fit(X, y % 2)
    assert np.array_equal(classifier.predict(X), before)


def test_what_is_not_supported_is_refused(table):
    sparse = pytest.importorskip("scipy.sparse")
    X, y, _ = table
    with pytest.raises(TypeError, match="sample_weight"):
        small().fit(X, y, sample_weight=np.ones(120))
    with pytest.raises(TypeError, match="[Ss]parse"):
        small().fit(sparse.csr_matrix(X), y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        small().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="infinity or a value too large for dtype"), np.errstate(all="ignore"):
        small().fit(X * 1e300, y)


def test_a_run_that_diverges_warns(table):
    X, y, clients = table
    with pytest.warns(ConvergenceWarning, match="a smaller 'client_lr', or scaled features, may help"):
        classifier = small(client_lr=1e30).fit(X * 1e20, y, groups=clients)
    assert np.isfinite(classifier.predict_proba(X)).all()
