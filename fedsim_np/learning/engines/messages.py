"""What becomes of updates on their way to the server: compressed, with what earlier rounds left unsent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedsim_np import trees
from fedsim_np.datasets import Dataset
from fedsim_np.errors import argument_error
from fedsim_np.learning.cohort import client_stream
from fedsim_np.learning.compression import RESIDUAL, WORK, Compressor
from fedsim_np.learning.engines.engine import ChunkResult, Task, check_shapes, update_norms
from fedsim_np.trees import Array, Arrays

_COMPRESSION = 4_000_002  # a word of the streams, so that they are nobody else's


def compressed(
    compressor: Compressor, round_num: int, tasks: Sequence[Task], run: Callable[[Sequence[Task]], ChunkResult]
) -> ChunkResult:
    """Run a chunk, and return what the server decodes of what its clients send.

    An update that does not count is neither compressed nor added to: nothing is sent of an empty client.
    """
    has_feedback = compressor.error_feedback
    result = run([task._replace(kept=task.kept[WORK]) for task in tasks] if has_feedback else tasks)
    examples = [_num_examples(task) if n is None else n for task, n in zip(tasks, result.num_examples, strict=True)]
    finite = np.isfinite(result.norms)
    counts = finite & (np.array(examples, np.int64) > 0)
    residual = trees.stack([task.kept[RESIDUAL] for task in tasks]) if has_feedback else None
    vectors = result.updates if residual is None else trees.map(np.add, result.updates, residual)
    streams = [] if compressor.seed is None else _streams(tasks, round_num, compressor.seed)
    sent, num_bytes = _encoded(compressor, [_where(counts, v) for v in vectors], streams)
    norms = np.where(finite, update_norms(sent, len(tasks)), result.norms)
    kept = result.kept
    if residual is not None:
        left = trees.map(
            lambda e, v, s: np.where(trees.along(counts, v).astype(bool), v - s, e), residual, vectors, sent
        )
        kept = {WORK: kept, RESIDUAL: left}
    return result._replace(updates=sent, norms=norms, kept=kept, num_bytes=num_bytes)


def _encoded(
    compressor: Compressor, vectors: Sequence[Array], streams: Sequence[np.random.Generator]
) -> tuple[Arrays, Array]:
    """Return what the server decodes of each client's tensors, (k, ...), and the bytes of all of a client's."""
    sent, total = [], np.zeros((), np.int64)
    for tensor in vectors:
        rows = tensor.reshape(len(tensor), -1)
        decoded, num_bytes = compressor.compress(rows, streams)
        check_shapes(f"what compress of {type(compressor).__name__} gives", (decoded,), [rows.shape])
        sent.append(np.asarray(decoded, tensor.dtype).reshape(tensor.shape))
        total = total + np.asarray(num_bytes, np.int64)
    return tuple(sent), np.broadcast_to(total, len(vectors[0]))


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
