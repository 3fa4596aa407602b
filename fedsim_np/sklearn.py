"""Federated training as a scikit-learn classifier: `FederatedClassifier`.

Needs the extra ``sklearn``, and is imported when it is first asked for, as ``fed.sklearn`` or by an ``import``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    message = 'fedsim_np.sklearn needs scikit-learn 1.6 or later: pip install "fedsim_np[sklearn]"'
    raise ImportError(message) from error

from fedsim_np.datasets.partition import from_arrays
from fedsim_np.errors import argument_error, argument_type_error, unknown_name
from fedsim_np.learning.models import ModelWeights, SoftmaxRegression
from fedsim_np.program import MemoryLogger, run_training_process
from fedsim_np.runs.config import MODELS, RunConfig
from fedsim_np.runs.experiment import Experiment
from fedsim_np.trees import Arrays

__all__ = ["FederatedClassifier"]

_LOSS, _NON_FINITE = "client_work/train/loss", "finalizer/update_non_finite"


class FederatedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is not typed
    """A classifier that clients train together: `fit` is a run of ``fedsim-np train`` on one's own arrays.

    Features should be of similar size for one rate to suit them all: put a `StandardScaler` in front. (It sees all rows
    at once, which no client could.)

    Parameters
    ----------
    algorithm : str
        A name in `fedsim_np.algorithms.ALGORITHMS`, or ``package.module:function`` of one's own. Predictions are the
        global model's, with "ditto" too.
    rounds : int
    clients : int
        Clients a round, sampled evenly; all of them where there are fewer.
    epochs, batch_size : int
        Of a client in a round.
    client_lr, server_lr : float
        Learning rates.
    l2 : float
        Regularisation of the softmax models.
    model : {"softmax", "softmax-stable", "softmax-tutorial", "mlp"}
    hidden : sequence of int
        Units of the hidden layers of "mlp".
    client_optimizer, server_optimizer : {"sgdm", "adagrad", "adam", "adamw", "rmsprop", "yogi"}
    client_momentum, server_momentum : float
        For "sgdm".
    proximal_strength, scaffold_option, alpha, q, lipschitz, personal_lr
        For the algorithms that take them.
    dropout, stragglers : float
        Probabilities that a client is absent, or does fewer epochs.
    min_epochs : int
    drop_stragglers : bool
    aggregator, bucket_size, clip, noise_multiplier, delta, attack, attackers, sampling, compress
        See `fedsim_np.runs.config.RunConfig` for these and all the others.
    engine : str
    random_state : int, RandomState instance or None
        Of the cohorts, of the order in which clients read, and of the first weights of "mlp". An int is the ``--seed``
        of ``fedsim-np train``; None is another one each time, of NumPy's global state, as scikit-learn has it.

    Attributes
    ----------
    classes_ : ndarray, shape (c,)
        The labels, sorted.
    n_features_in_ : int
        d.
    feature_names_in_ : ndarray of str, shape (d,)
        Where X had column names, all of them texts.
    n_clients_ : int
        How many groups there were; 1 without any.
    n_iter_ : int
        Rounds.
    history_ : OrderedDict of str to list
        Every round's metrics, see `fedsim_np.program.MemoryLogger`.
    weights_ : ModelWeights
        Of the global model, float32.
    coef_, intercept_ : ndarray, shapes (c, d) and (c,)
        Of the softmax models: a row per class, of two classes too. "mlp" has none.

    Notes
    -----
    In a search the clients who train (`fit`'s `groups`) are one thing, and the groups that a splitter keeps together
    another: `GroupKFold` tests on clients who did not train, other splitters on other examples of the same clients.
    scikit-learn passes them on by two rules:

    - By default ``GridSearchCV(...).fit(X, y, groups=g)`` and ``cross_val_score(..., groups=g)`` tell the splitter
      alone: every fit is then without groups, of one client. In a pipeline the step's own parameter reaches the
      classifier, cut to each fold's rows: ``search.fit(X, y, groups=g, classifier__groups=g)``, where the step is
      called "classifier".
    - With ``sklearn.set_config(enable_metadata_routing=True)`` and ``.set_fit_request(groups=True)`` one
      ``groups=g`` goes to the classifier, and to the splitter if it is one of groups.

    Weights of examples are not supported: there is no `sample_weight`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = np.where(X[:, 0] + X[:, 1] > 0, "up", "down")
    >>> hospitals = rng.choice(["A", "B", "C", "D"], 200)
    >>> classifier = FederatedClassifier(clients=2, rounds=5, client_lr=0.1, random_state=0)
    >>> classifier.fit(X, y, groups=hospitals).score(X, y) > 0.95
    True
    >>> classifier.predict([[1.0, 1.0]]), classifier.n_clients_
    (array(['up'], dtype='<U4'), 4)
    """

    def __init__(
        self,
        algorithm: str = "fedavg",
        *,
        rounds: int = 10,
        clients: int = 10,
        epochs: int = 5,
        batch_size: int = 20,
        client_lr: float = 0.02,
        server_lr: float = 1.0,
        l2: float = 0.0,
        model: str = "softmax",
        hidden: Sequence[int] = (200, 200),
        client_optimizer: str = "sgdm",
        client_momentum: float = 0.0,
        server_optimizer: str = "sgdm",
        server_momentum: float = 0.0,
        proximal_strength: float = 0.1,
        scaffold_option: str = "ii",
        alpha: float = 0.1,
        q: float = 1.0,
        lipschitz: float = 0.0,
        personal_lr: float = 0.0,
        dropout: float = 0.0,
        stragglers: float = 0.0,
        min_epochs: int = 1,
        drop_stragglers: bool = False,
        aggregator: str = "mean",
        bucket_size: int = 1,
        clip: str = "none",
        noise_multiplier: float = 0.0,
        delta: float = 0.0,
        attack: str = "none",
        attackers: float = 0.2,
        sampling: str = "uniform",
        compress: str = "none",
        engine: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.rounds = rounds
        self.clients = clients
        self.epochs = epochs
        self.batch_size = batch_size
        self.client_lr = client_lr
        self.server_lr = server_lr
        self.l2 = l2
        self.model = model
        self.hidden = hidden
        self.client_optimizer = client_optimizer
        self.client_momentum = client_momentum
        self.server_optimizer = server_optimizer
        self.server_momentum = server_momentum
        self.proximal_strength = proximal_strength
        self.scaffold_option = scaffold_option
        self.alpha = alpha
        self.q = q
        self.lipschitz = lipschitz
        self.personal_lr = personal_lr
        self.dropout = dropout
        self.stragglers = stragglers
        self.min_epochs = min_epochs
        self.drop_stragglers = drop_stragglers
        self.aggregator = aggregator
        self.bucket_size = bucket_size
        self.clip = clip
        self.noise_multiplier = noise_multiplier
        self.delta = delta
        self.attack = attack
        self.attackers = attackers
        self.sampling = sampling
        self.compress = compress
        self.engine = engine
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> FederatedClassifier:
        """Train, from the beginning each time.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Finite numbers; they are computed in float32.
        y : array-like, shape (n,)
            Labels: integers, texts, booleans.
        groups : array-like of hashables, shape (n,), optional
            The client of each row, none missing. None: one client has all rows, which is training in one place,
            ``rounds * epochs`` epochs long.

        Returns
        -------
        FederatedClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter is out of range, or the data are not as above.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        clients = np.zeros(len(X), np.int64) if groups is None else _numbered(groups, X)
        config = self._config(len(classes), num_clients := int(clients.max()) + 1)
        data = from_arrays({"x": X, "y": labels.astype(np.int32)}, client=clients)
        experiment = Experiment(config, (data, data))
        process, memory = experiment.training_process(), MemoryLogger()
        state = run_training_process(
            process,
            experiment.cohort,
            config.rounds,
            metrics_managers=[memory],
            reshuffle=True,
            privacy=experiment.privacy,
        )
        self.classes_, self.n_clients_, self.n_iter_ = classes, num_clients, config.rounds
        self.history_, self._model = memory.history, experiment.model_fn()
        self.weights_ = process.get_model_weights(state)
        last = {name: column[-1] for name, column in self.history_.items() if column}
        if last.get(_NON_FINITE) or not np.isfinite(last.get(_LOSS, 0.0)):
            found = f"the last round had no finite {'update' if last.get(_NON_FINITE) else 'loss'}"
            warnings.warn(f"{found}: a smaller 'client_lr', or scaled features, may help", ConvergenceWarning, 2)
        return self

    def _config(self, num_classes: int, num_clients: int) -> RunConfig:
        """Return the parameters as a run's choices, checked."""
        classifying = [name for name, entry in MODELS.items() if entry.classifies]
        if self.model not in classifying:
            raise unknown_name("model", classifying, self.model)
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence) or not self.hidden:
            raise argument_type_error("hidden", "a sequence of integers", self.hidden)
        choices = self.get_params(deep=False)
        units, given = ",".join(map(str, choices.pop("hidden"))), choices.pop("random_state")
        rng = check_random_state(given)  # or an error
        seed = int(given) if isinstance(given, Integral) else rng.randint(2**31 - 1)
        config = RunConfig(**choices, hidden=units, seed=seed, classes=num_classes)
        return dataclasses.replace(config, clients=min(config.clients, num_clients))

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the classes' probabilities.

        Parameters
        ----------
        X : array-like, shape (n, d)

        Returns
        -------
        ndarray of float64, shape (n, c)
            A row sums to 1; columns are in the order of `classes_`. Computed in float64.
        """
        check_is_fitted(self, "weights_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        weights = ModelWeights(tuple(w.astype(np.float64) for w in self.weights_.trainable))
        p: npt.NDArray[np.float64] = self._model.predict_on_batch(weights, X)
        p /= p.sum(axis=1, keepdims=True)
        return p

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each row, the first of equals.

        Parameters
        ----------
        X : array-like, shape (n, d)

        Returns
        -------
        ndarray, shape (n,)
        """
        p = self.predict_proba(X)
        found: npt.NDArray[Any] = self.classes_[p.argmax(axis=1)]
        return found

    @property
    def coef_(self) -> npt.NDArray[np.float32]:
        """The kernel of softmax regression, a row per class."""
        kernel: npt.NDArray[np.float32] = self._softmax_weights()[0].T
        return kernel

    @property
    def intercept_(self) -> npt.NDArray[np.float32]:
        """The bias of softmax regression."""
        return self._softmax_weights()[1]

    def _softmax_weights(self) -> Arrays:
        if not isinstance(getattr(self, "_model", None), SoftmaxRegression):
            raise AttributeError("only a fitted softmax model has coef_ and intercept_")
        return self.weights_.trainable


def _numbered(groups: Any, X: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the clients of rows as numbers 0..k-1 (n,), in sorted order where they have one."""
    check_consistent_length(X, groups)
    ids = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    try:
        different = list(dict.fromkeys(ids))
    except TypeError as error:
        raise argument_type_error("groups", "an array of hashables, one a row", groups) from error
    for missing in filter(_is_missing, different):
        row = next(row for row, client in enumerate(ids) if client is missing)
        raise argument_error("groups", f"the client of each row (that of row {row} is missing)", missing)
    with contextlib.suppress(TypeError):  # of several kinds: in the order in which they come
        different = sorted(different)
    number = {client: i for i, client in enumerate(different)}
    return np.array([number[client] for client in ids], np.int64)


def _is_missing(client: Any) -> bool:
    try:
        return client is None or bool(client != client)  # noqa: PLR0124 # as NaN
    except TypeError:  # pandas' NA, which is neither
        return True
