"""The state between rounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.errors import argument_error, argument_type_error
from fedsim_np.learning.cohort import Cohort
from fedsim_np.learning.models.model import ModelWeights


class LearningAlgorithmState(NamedTuple):
    """The state between rounds, a part for each part of the process."""

    global_model_weights: ModelWeights
    distributor: Any
    client_work: Any
    aggregator: Any
    finalizer: Any


class ClientWorkState(NamedTuple):
    """The client work's part of the state, where rounds are counted and something may be kept of the clients.

    Attributes
    ----------
    round_num : int or None
        Rounds that are over; None where the work's own state is all that is stored.
    server : tree
        The work's own state, the same for all clients.
    clients : mapping of str to tree of arrays
        Client id -> what is kept of it; where a compressor gives feedback, a dict of what the work keeps (``work``) and
        of what was left unsent (``residual``). Clients that have not been seen yet are not in it.
    """

    round_num: int | None
    server: Any
    clients: Mapping[str, Any]

    @classmethod
    def of(cls, state: LearningAlgorithmState) -> ClientWorkState:
        """Return what a state has of the client work, in this form; the inverse of `stored`."""
        stored = state.client_work
        return stored if isinstance(stored, ClientWorkState) else cls(None, stored, {})

    def stored(self) -> Any:
        """Return what ``state.client_work`` holds: all of this, or `server` alone where rounds are not counted."""
        return self.server if self.round_num is None else self

    def kept_of(self, ids: Sequence[str | None], first: Any, work: str) -> list[Any] | None:
        """Return what is kept of each client of a cohort, `first` of a new one; None where `first` is: nothing is kept.

        `work` is named in errors.

        Raises
        ------
        ValueError
            If something is kept, and a client has no id or is there twice, or what is kept of one is another process's.
        TypeError
            If what is kept of a new client is no tree that a checkpoint can restore without one to go by.
        """
        if first is None:
            return None
        if not trees.fold(_is_number, _is_plain, first):
            rule = "None, or arrays and numbers in tuples, lists and dicts"
            raise argument_type_error(f"what initialize_client of {work} gives", rule, first)
        if None in ids:
            raise argument_error(
                "data", "of clients with ids (Dataset.with_client_id), since something is kept of each", None
            )
        if len(set(ids)) < len(ids):
            twice = next(client_id for client_id in ids if ids.count(client_id) > 1)
            raise argument_error("data", "of different clients, since something is kept of each", f"{twice}, twice")
        kept = [trees.freeze(self.clients.get(str(client_id), first)) for client_id in ids]
        for of_client in kept:
            if _names(of_client) != _names(first):
                rule = f"this process's, which keeps of a client {_names(first)}"
                raise argument_error("state", rule, _names(of_client))
        return kept

    def after(self, server: Any, cohort: Cohort, kept: Any, work: str) -> ClientWorkState:
        """Return the state after a round: of clients that count, what they sent to be kept, (k, ...), by their ids.

        Raises
        ------
        ValueError
            If an array of the server's has changed its dtype: it would widen what clients compute with it.
        """
        before = {} if server is self.server else dict(trees.leaves(self.server))
        for path, leaf in trees.leaves(server) if before else ():
            old = before.get(path)
            if isinstance(leaf, np.ndarray) and isinstance(old, np.ndarray) and leaf.dtype != old.dtype:
                rule = f"{old.dtype}, as what initialize gives"
                raise argument_error(f"{path or 'state'} that finish_round of {work} gives", rule, leaf.dtype.name)
        if self.round_num is None:
            return self._replace(server=server)
        clients = dict(self.clients)
        for i in np.flatnonzero(cohort.counts).tolist() if kept is not None else ():
            # A copy: a view would hold what the whole cohort sent.
            clients[str(cohort.ids[i])] = trees.freeze(trees.map(lambda array, i=i: np.array(array[i]), kept))
        return ClientWorkState(self.round_num + 1, server, clients)


def frozen(state: LearningAlgorithmState) -> LearningAlgorithmState:
    """Return a state with read-only arrays; what is kept of clients, which may be much, is frozen where it is used."""
    work = ClientWorkState.of(state)
    rest = trees.freeze(state._replace(client_work=work.server))
    return rest._replace(client_work=work._replace(server=rest.client_work).stored())


def _names(tree: Any) -> list[str | None]:
    return [name for name, _ in trees.children(tree) or ()]


def _is_number(leaf: Any) -> bool:
    return leaf is None or np.asarray(leaf).dtype.kind in "biufc"


def _is_plain(node: Any, parts: list[tuple[str | None, bool]]) -> bool:
    return type(node) in (tuple, list, dict, OrderedDict) and all(fits for _, fits in parts)
