"""What becomes of updates on their way to the server: compressed, with what earlier rounds left unsent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error, check_parts
from fedsim_np.learning.cohort import client_stream
from fedsim_np.learning.compression import RESIDUAL, WORK, Compressor
from fedsim_np.learning.engines.engine import ChunkResult, Task, check_shapes, update_norms
from fedsim_np.trees import Array, Arrays

_COMPRESSION = 4_000_002  # a word of the streams, so that they are nobody else's


def compressed(
    compressor: Compressor, round_num: int, tasks: Sequence[Task], run: Callable[[Sequence[Task]], ChunkResult]
) -> ChunkResult:
    """Run a chunk, and return what the server decodes of what its clients send.

    An update that does not count is neither compressed nor added to: in its place there are zeros.
    """
    has_feedback = compressor.error_feedback
    result = run([task._replace(kept=task.kept[WORK]) for task in tasks] if has_feedback else tasks)
    examples = [_num_examples(task) if n is None else n for task, n in zip(tasks, result.num_examples, strict=True)]
    finite = np.isfinite(result.norms)
    counts = finite & (np.array(examples, np.int64) > 0)
    residual = trees.stack([task.kept[RESIDUAL] for task in tasks]) if has_feedback else None
    streams = [] if compressor.seed is None else _streams(tasks, round_num, compressor.seed)
    kept = result.kept
    with np.errstate(all="ignore"):  # what overflows is left out by the server, as an update that does
        vectors = result.updates if residual is None else trees.map(np.add, result.updates, residual)
        sent, num_bytes = _encoded(compressor, [_where(counts, v) for v in vectors], streams)
        if residual is not None:
            left = trees.map(
                lambda e, v, s: np.where(trees.along(counts, v).astype(bool), v - s, e), residual, vectors, sent
            )
            kept = {WORK: kept, RESIDUAL: left}
    norms = np.where(finite, update_norms(sent, len(tasks)), result.norms)
    weights = np.where(np.isfinite(norms), result.client_weights, 0.0)
    return result._replace(updates=sent, client_weights=weights, norms=norms, kept=kept, num_bytes=num_bytes)


def _encoded(
    compressor: Compressor, vectors: Sequence[Array], streams: Sequence[np.random.Generator]
) -> tuple[Arrays, Array]:
    """Return what the server decodes of each client's tensors, (k, ...), and the bytes of all of a client's."""
    method, k = f"compress of {type(compressor).__name__}", len(vectors[0])
    sent, total = [], np.zeros(k, np.int64)
    for tensor in vectors:
        rows: Array = trees.freeze(tensor.reshape(k, -1))
        got = compressor.compress(rows, streams) if rows.size else (rows, 0)
        decoded, num_bytes = check_parts(method, got, "decoded", "num_bytes")
        check_shapes(f"decoded of {method}", (decoded,), [rows.shape])
        sent.append(np.asarray(decoded, tensor.dtype).reshape(tensor.shape))
        lengths = np.asarray(num_bytes)
        if lengths.shape not in ((), (k,)) or lengths.dtype.kind not in "iu" or (lengths < 0).any():
            raise argument_error(f"num_bytes of {method}", f"integers >= 0, {k} or one for all", num_bytes)
        total += lengths.astype(np.int64)
    return tuple(sent), total


def _num_examples(task: Task) -> int:
    assert isinstance(task.data, Dataset)
    return task.data.num_examples


def _where(counts: Array, tensor: Array) -> Array:
    if counts.all():
        return tensor
    return np.where(trees.along(counts, tensor).astype(bool), tensor, np.zeros((), tensor.dtype))


def _streams(tasks: Sequence[Task], round_num: int, seed: int) -> list[np.random.Generator]:
    if any(task.client_id is None for task in tasks):
        rule = "of clients with ids (Dataset.with_client_id), since their compressor draws random numbers"
        raise argument_error("data", rule, None)
    return [client_stream(str(task.client_id), _COMPRESSION, round_num, seed) for task in tasks]
