"""What an object of the user's keeps in itself, found out: it would be lost.

A client work, a model or an aggregator is given its state and returns the next one. What it writes into itself instead
is not in a checkpoint, and what it writes in another process is gone with that. So where processes or checkpoints are
used, the pickle of each part is compared before and after a round.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def unchanged(parts: Mapping[str, Any], is_checked: bool = True) -> Iterator[None]:
    """Raise a ValueError if one of the parts of a process has changed within the block.

    Examples
    --------
    >>> import collections
    >>> rule = collections.Counter()
    >>> with unchanged({"aggregator": rule}):
    ...     rule["rounds"] += 1
    Traceback (most recent call last):
    ...
    ValueError: The aggregator Counter changed itself in a round. What it keeps in itself is in no checkpoint and does
    not come back from other processes: return it as state instead (of a client, as ClientResult.kept), or leave it out
    of the pickle (__getstate__) if it can be computed again.
    """
    before = {name: _pickled(part) for name, part in parts.items()} if is_checked else {}
    yield
    for name, pickled in before.items():
        if pickled is not None and _pickled(parts[name]) != pickled:
            raise ValueError(
                f"The {name} {type(parts[name]).__name__} changed itself in a round. What it keeps in itself is in no "
                "checkpoint and does not come back from other processes: return it as state instead (of a client, as "
                "ClientResult.kept), or leave it out of the pickle (__getstate__) if it can be computed again."
            )


def _pickled(part: Any) -> bytes | None:
    try:
        return pickle.dumps(part, pickle.HIGHEST_PROTOCOL)
    except Exception:  # pickling runs code of the user's: anything may be raised
        return None
