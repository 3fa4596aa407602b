"""Evaluation: fixed weights, so every row is computed once, however often and in whatever order it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.datasets import Dataset
from fedsim_np.errors import naming_client
from fedsim_np.learning.engines.cache import Cache
from fedsim_np.learning.engines.columns import columns_of, stacks
from fedsim_np.learning.engines.engine import ChunkResult, Client, Engine
from fedsim_np.learning.engines.gram import correct_predictions
from fedsim_np.learning.losses import softmax
from fedsim_np.learning.metrics import Unfinalized
from fedsim_np.learning.models import Model, ModelWeights, fast_method, unfinalized_evaluation


@dataclass(frozen=True)
class LoopEvaluation(Engine):
    """The reference: batch by batch, one client after the other."""

    model: Model
    name = "loop"
    chunk_size = 8
    takes_columns = False

    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Evaluate a chunk of clients."""
        evaluated = []
        for dataset in clients:
            assert isinstance(dataset, Dataset)
            with naming_client(dataset.client_id):
                evaluated.append(unfinalized_evaluation(self.model, weights, dataset))
        nothing = np.zeros(len(evaluated))
        return ChunkResult((), nothing, [sums for sums, _ in evaluated], [n for _, n in evaluated], nothing)


@dataclass(frozen=True)
class ColumnEvaluation(Engine):
    """Softmax regression on columns: a matrix product a client, everything else once a chunk."""

    model: Any
    name = "columns"
    chunk_size = 50
    takes_columns = True

    def run_chunk(self, weights: ModelWeights, clients: Sequence[Client], state: Any, cache: Cache) -> ChunkResult:
        """Evaluate a chunk of clients."""
        columns = columns_of(self.model, clients, cache)
        kernel, bias = weights.trainable
        by_class = np.ascontiguousarray(kernel.T)
        ends = np.cumsum([0, *(len(client.x) for client in columns)])
        logits = np.empty((kernel.shape[1], ends[-1]), np.float32)
        labels = np.concatenate([client.y.reshape(-1) for client in columns]).astype(np.intp)
        read = np.zeros(len(labels), np.bool_)
        for client, start in zip(columns, ends[:-1], strict=True):
            read[start + client.rows] = True
        self.model.checked_labels(labels[read])
        labels[~read] = 0  # nobody reads these, and they may be anything
        head, sums = self.model.softmax_head(), []
        with np.errstate(all="ignore"):  # a model that has diverged is reported by its metrics, not by warnings
            for client, start, end in zip(columns, ends[:-1], ends[1:], strict=True):
                np.matmul(by_class, client.x.reshape(-1, len(kernel)).T, out=logits[:, start:end])
            logits += bias[:, np.newaxis]
            p = softmax(logits, axis=0)
            at_label = labels, np.arange(ends[-1])
            p_label = p[at_label]
            losses = head.examples(logits, p, logits[at_label], p_label, 0).astype(np.float64)
            hits = correct_predictions(
                p[np.newaxis], p_label[np.newaxis], p.max(axis=0)[np.newaxis], labels[np.newaxis]
            )
            for client, start, end in zip(columns, ends[:-1], ends[1:], strict=True):
                sums.append(self._sums(client, losses[start:end], hits[0, start:end]))
        examples: list[int | None] = [len(client.rows) for client in columns]
        nothing = np.zeros(len(columns))
        return ChunkResult((), nothing, sums, examples, nothing)

    def _sums(self, client: Any, losses: Any, hits: Any) -> Unfinalized:
        n, visits = len(losses), len(client.rows)
        batches = len(client.lengths)
        counts = np.bincount(client.rows, minlength=n)
        if n and visits % n == 0 and (counts == visits // n).all():  # whole epochs
            times = visits // n
            correct, loss = float(np.count_nonzero(hits)) * times, float(losses.sum()) * times
        else:
            seen = counts > 0  # a row that is not read must not count, not even as NaN times 0
            correct, loss = float(counts[hits].sum()), float((losses[seen] * counts[seen]).sum())
        sums: Unfinalized = self.model.metrics_of_sums(correct, loss, visits, batches)
        return sums


def evaluation_engine(model: Model) -> Engine:
    """Return the fastest evaluation that is valid for a model."""
    head = fast_method(model, "softmax_head", ("forward_pass", "predict_on_batch"))
    of_sums = fast_method(model, "metrics_of_sums", ("unfinalized_metrics", "initial_metrics"))
    fast = head is not None and of_sums is not None and stacks(model)
    return ColumnEvaluation(model) if fast else LoopEvaluation(model)
