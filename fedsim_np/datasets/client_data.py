"""Many clients' data: client id -> `Dataset`.

A `ClientData` knows its clients' ids and the structure of their examples, and makes a client's dataset when it is
asked for. The random choices (`datasets`, `create_dataset_from_all_clients`, `train_test_client_split`) are TFF's,
drawn from NumPy's legacy ``RandomState`` exactly as TFF draws them, so that a seed selects the same clients.
"""

from __future__ import annotations

import abc
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets.dataset import Dataset
from fedsim_np.datasets.schema import Schema
from fedsim_np.datasets.sources import Element, ElementSource, ElementSpec
from fedsim_np.errors import argument_type_error, check_int, data_error

_LOGGER = logging.getLogger(__name__)

Seed = int | Sequence[int] | None


def check_random_seed(seed: Seed) -> None:
    """Raise a TypeError, in TFF's words, unless `seed` is one for ``np.random.RandomState``.

    Examples
    --------
    >>> check_random_seed(-1)
    Traceback (most recent call last):
    ...
    TypeError: The seed must be a nonnegative 32-bit integer, a sequence of such integers, or None.
    Found <class 'int'> instead.
    """

    def is_nonnegative_32_bit_int(value: object) -> bool:
        return isinstance(value, int) and 0 <= value < 2**32

    listed = isinstance(seed, Sequence) and all(map(is_nonnegative_32_bit_int, seed))
    if seed is None or is_nonnegative_32_bit_int(seed) or listed:
        return
    raise TypeError(
        "The seed must be a nonnegative 32-bit integer, a sequence of such integers, or None. "
        f"Found {type(seed)} instead."
    )


class ClientData(abc.ABC):
    """The clients of a federated data set.

    A subclass has three methods to write: `client_ids`, `element_type_structure` and `create_dataset_for_client`.
    """

    @property
    @abc.abstractmethod
    def client_ids(self) -> Sequence[str]:
        """The clients' ids: a list of its own for every caller, or an immutable sequence."""

    @property
    @abc.abstractmethod
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec` of the elements of every client's dataset."""

    @abc.abstractmethod
    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the client's `Dataset`; ValueError if there is no such client."""

    def _unknown(self, client_id: object) -> ValueError:
        return ValueError(
            f"ID [{client_id}] is not a client in this ClientData. See property `client_ids` for the list of valid ids."
        )

    def datasets(self, limit_count: int | None = None, seed: Seed = None) -> Iterator[Dataset]:
        """Yield the clients' datasets in random order.

        Parameters
        ----------
        limit_count : int, optional
            The most datasets to yield.
        seed : int, sequence of int or None
            For ``RandomState``: the same seed gives TFF's order. None: another order every time.

        Yields
        ------
        Dataset
        """
        check_random_seed(seed)
        if limit_count is not None:
            check_int("limit_count", limit_count, minimum=0)
        return map(self.create_dataset_for_client, _permuted(self.client_ids, seed)[:limit_count])

    def create_dataset_from_all_clients(self, seed: Seed = None) -> Dataset:
        """Return one dataset of all clients' examples, one client after another in random order.

        Clients are read as they are reached, so that memory holds one of them. For training on pooled data, shuffle.

        Parameters
        ----------
        seed : int, sequence of int or None
            For ``RandomState``, as in `datasets`.
        """
        check_random_seed(seed)
        read = functools.partial(_read_all, self, _permuted(self.client_ids, seed))
        batched = self.create_dataset_for_client(self.client_ids[0]).is_batched
        return Dataset(ElementSource(read, self.element_type_structure, batched))

    def preprocess(self, preprocess_fn: Callable[[Dataset], Dataset]) -> ClientData:
        """Return client data whose datasets are ``preprocess_fn(dataset)``.

        Examples
        --------
        >>> data = InMemoryClientData({"ann": {"x": [1, 2, 3]}}).preprocess(lambda dataset: dataset.batch(2))
        >>> [batch["x"].tolist() for batch in data.create_dataset_for_client("ann")]
        [[1, 2], [3]]
        """
        return PreprocessedClientData(self, preprocess_fn)

    @classmethod
    def from_clients_and_fn(cls, client_ids: Iterable[str], create_dataset_fn: Callable[[str], Dataset]) -> ClientData:
        """Make client data of ids and a function that makes a client's dataset.

        Examples
        --------
        >>> data = ClientData.from_clients_and_fn(["a", "b"], lambda id: Dataset.from_arrays({"x": [1]}, id))
        >>> data.create_dataset_for_client("b").client_id
        'b'
        """
        return SelectedClientData(client_ids, create_dataset_fn)

    @classmethod
    def train_test_client_split(
        cls, client_data: ClientData, num_test_clients: int, seed: Seed = None
    ) -> tuple[ClientData, ClientData]:
        """Split the clients into two sets, choosing the test clients at random among those that have data.

        Parameters
        ----------
        client_data : ClientData
            At least ``num_test_clients + 1`` clients.
        num_test_clients : int
            Clients to hold out.
        seed : int, sequence of int or None
            For ``RandomState``: the same seed gives TFF's choice.

        Returns
        -------
        (ClientData, ClientData)
            Train and test clients. Clients without data are among the train clients.

        Raises
        ------
        ValueError
            If there are too few clients, or too many without data.
        """
        if num_test_clients <= 0:
            raise ValueError("Please specify num_test_clients > 0.")
        client_ids = client_data.client_ids
        if len(client_ids) <= num_test_clients:
            raise ValueError(
                f"The client_data supplied has only {len(client_ids)} clients, but "
                f"{num_test_clients} test clients were requested."
            )
        check_random_seed(seed)
        train = _permuted(client_ids, seed)
        without_data: list[str] = []
        test: list[str] = []
        while len(test) < num_test_clients:
            # TFF gives up here too: the search for clients with data could go on for long.
            if not train or len(without_data) > 5 * num_test_clients + 10:
                raise ValueError("Encountered too many clients with no data.")
            client_id = train.pop()
            empty = next(client_data.create_dataset_for_client(client_id).batches(), None) is None
            if empty:
                _LOGGER.warning("Client %s had no data, skipping.", client_id)
            (without_data if empty else test).append(client_id)
        create = client_data.create_dataset_for_client
        return cls.from_clients_and_fn(train + without_data, create), cls.from_clients_and_fn(test, create)


def _read_all(client_data: ClientData, client_ids: Iterable[str]) -> Iterator[Element]:
    """Read clients one after another, each in the order in which its dataset is first read."""
    for client_id in client_ids:
        yield from client_data.create_dataset_for_client(client_id).batches()


def _permuted(client_ids: Iterable[str], seed: Seed) -> list[str]:
    """Shuffle a list of ids as TFF does."""
    permuted = list(client_ids)
    np.random.RandomState(seed).shuffle(permuted)
    return permuted


class SelectedClientData(ClientData):
    """Clients given by their ids and a function that makes a client's dataset."""

    def __init__(self, client_ids: Iterable[str], create_dataset_fn: Callable[[str], Dataset]) -> None:
        self._client_ids = dict.fromkeys(client_ids)  # a dict finds an id at once, and keeps the order
        if not self._client_ids:
            raise ValueError("At least one client_id is required.")
        self._create_dataset = create_dataset_fn
        self._spec = create_dataset_fn(next(iter(self._client_ids))).element_spec

    @property
    def client_ids(self) -> list[str]:
        """The clients' ids."""
        return list(self._client_ids)

    @property
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec`, taken from the first client."""
        return self._spec

    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the client's `Dataset`."""
        if client_id not in self._client_ids:
            raise self._unknown(client_id)
        return self._create_dataset(client_id).with_client_id(client_id)


class PreprocessedClientData(ClientData):
    """Another's clients, each dataset passed through a function."""

    def __init__(self, client_data: ClientData, preprocess_fn: Callable[[Dataset], Dataset]) -> None:
        if not callable(preprocess_fn):
            raise argument_type_error("preprocess_fn", "a callable that takes and returns a Dataset", preprocess_fn)
        self._client_data, self._preprocess = client_data, preprocess_fn
        self._spec = self.create_dataset_for_client(client_data.client_ids[0]).element_spec

    @property
    def client_ids(self) -> Sequence[str]:
        """The clients' ids."""
        return self._client_data.client_ids

    @property
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec` after preprocessing."""
        return self._spec

    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the client's `Dataset`, preprocessed."""
        return self._preprocess(self._client_data.create_dataset_for_client(client_id)).with_client_id(client_id)


class InMemoryClientData(ClientData):
    """Clients whose arrays are in memory: TFF's ``TestClientData``.

    Parameters
    ----------
    client_arrays : mapping of str to mapping of str to array-like, each of shape (n, ...)
        Client id -> field -> array. Arrays are not copied; lists become float32 and int32, as in TensorFlow.

    Raises
    ------
    DataError
        If there are no clients, a client's fields differ in number, shape or dtype from the first one's, or a float
        is not finite.

    Examples
    --------
    >>> data = InMemoryClientData({"ann": {"x": [1, 2], "y": [0, 1]}, "bob": {"x": [3], "y": [1]}})
    >>> data.client_ids
    ['ann', 'bob']
    >>> [int(example["x"]) for example in data.create_dataset_for_client("ann")]
    [1, 2]
    """

    def __init__(self, client_arrays: Mapping[str, Mapping[str, npt.ArrayLike]]) -> None:
        if not isinstance(client_arrays, Mapping):
            raise argument_type_error("client_arrays", "a mapping of client ids to mappings of arrays", client_arrays)
        if not client_arrays:
            raise data_error("there must be at least one client", "no clients")
        self._datasets: dict[str, Dataset] = {}
        for client_id, arrays in client_arrays.items():
            if not isinstance(client_id, str):
                raise argument_type_error("client_arrays", "keyed by str", client_id)
            if not isinstance(arrays, Mapping):
                rule = "a client's data must be a mapping of field names to arrays"
                raise data_error(rule, f"a {type(arrays).__name__}", client_id=client_id)
            dataset = Dataset.from_arrays(arrays, client_id)
            self._datasets[client_id] = dataset
            for name, values in dataset.to_arrays().items():
                Schema.check_finite(name, values, client_id=client_id)
            spec, first = dict(dataset.element_spec), dict(self.element_type_structure)
            if spec != first:
                raise data_error(f"all clients must have the structure {first}", spec, client_id=client_id)

    @property
    def client_ids(self) -> list[str]:
        """The clients' ids, in the mapping's order."""
        return list(self._datasets)

    @property
    def element_type_structure(self) -> ElementSpec:
        """Field name -> `ArraySpec` of one example."""
        return next(iter(self._datasets.values())).element_spec

    def create_dataset_for_client(self, client_id: str) -> Dataset:
        """Return the client's `Dataset`."""
        if client_id not in self._datasets:
            raise self._unknown(client_id)
        return self._datasets[client_id]
