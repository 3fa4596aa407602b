r"""Softmax regression in the span of the client's data.

Every step of SGD subtracts a combination of data rows from the kernel, so that the kernel never leaves
:math:`W_0 + \mathrm{span}(X)`. Local training needs only the logits of the client's rows, and they move by

.. math:: X W_{t+1} + b_{t+1} = X W_t + b_t - \eta\, G_{:,B} E_t, \qquad G = X X^T + 1

with the errors :math:`E_t = (p - \mathrm{onehot}(y)) / |B|` of batch B; the 1 is the bias. So a step costs n x b x c
instead of twice b x d x c, and the weights are computed once, at the end: :math:`W_0 - W = X^T A`, with A the sum of
all errors by row.

Momentum and a pull towards the server's weights are linear in the past errors and the same for every coordinate: the
logits follow the same recursion as the weights would, and each step's errors enter A with a factor that depends on how
long ago it was, the *impulse response* of that recursion. A constant drift d, added to every gradient, is one more
direction: the logits move by X d as well, and the weights by d times the sum of the responses.

In exact terms this is the reference loop's arithmetic; in float32 it agrees to rounding, as long as nothing overflows:
squares of rows do where the rows do not, and such a chunk is for `presorted`. The Gram matrix G never changes, and is
kept between rounds, beside the `Content` of the rows that it was made of. Classes come first in the arrays,
(c, k, ...), since NumPy reduces over a first axis several times faster than over a short last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsim_np import trees
from fedsim_np.learning.engines.cache import Cache, Content
from fedsim_np.learning.engines.columns import ClientColumns
from fedsim_np.learning.engines.descent import Descent
from fedsim_np.learning.engines.schedule import Schedule, schedule_of
from fedsim_np.learning.losses import SoftmaxHead, are_safe, unguarded_softmax
from fedsim_np.learning.metrics import ExampleMetrics, LabelEntries, Unfinalized
from fedsim_np.learning.shortcuts import SGDSteps
from fedsim_np.trees import Array, Arrays


def train(descent: Descent, cache: Cache) -> tuple[Arrays, list[Unfinalized]] | None:
    """Return W0 - W and b0 - b of each client, (k, d, c) and (k, c), and its unfinalized metrics.

    None if a logit has left float32's range: the weights need not have. The cache keeps Gram matrices, and plans of
    chunks that come again.
    """
    head, metrics, steps, server, drift, columns = descent
    xs = [client.x.reshape(len(client.x), len(server[0])) for client in columns]
    first, movement = _at_first(steps, server, drift, xs)
    plan = _plan(head, columns, xs, cache)
    is_right = False
    if head.may_be_plain:
        logits = first.copy()
        z, p, errors, is_right = _take_steps(head, steps, logits, plan, movement, is_quick=True)
    if not is_right:
        logits = first
        z, p, errors, _ = _take_steps(head, steps, logits, plan, movement, is_quick=False)
    if not np.isfinite(logits).all():  # one that was infinite once never is a number again
        return None
    return _update(steps, drift, errors, plan, xs), _measured(metrics, head, z, p, plan)


def _in_fours(rows: int) -> int:
    """Return the next multiple of 4: BLAS multiplies matrices with so many rows faster than with one or two less."""
    return -(-rows // 4) * 4


def _at_first(steps: SGDSteps, server: Arrays, drift: Arrays | None, xs: Sequence[Array]) -> tuple[Array, Array | None]:
    """Return the logits of all rows at the server's weights, (c, k, N), and how the drift moves them in a step."""
    kernel, bias = server
    c, size = len(bias), (len(xs), max(1, *map(len, xs)))
    of_drift = None if drift is None else drift[0].swapaxes(1, 2)
    # One product for both: a client's rows are read once.
    matrix = np.zeros((_in_fours(c if of_drift is None else 2 * c), len(kernel)), np.float32)
    matrix[:c] = kernel.T
    products = np.zeros((len(matrix), *size), np.float32)
    for i, x in enumerate(xs):
        if of_drift is not None:
            matrix[c : 2 * c] = of_drift[i]
        np.matmul(matrix, x.T, out=products[:, i, : len(x)])
    logits, moved = products[:c], products[c : 2 * c]
    logits += bias[:, np.newaxis, np.newaxis]
    if drift is None:
        return logits, None
    moved += drift[1].T[:, :, np.newaxis]
    moved *= np.float32(steps.learning_rate)
    return logits, moved


Contents = Sequence[Content | None]


class _Plan(NamedTuple):
    """What a chunk's steps need besides the weights; kept where the same chunk comes again.

    Attributes
    ----------
    schedule : Schedule
    labels, at_label : ndarray of intp, shape (T, k b)
        The label at each place, and where its entry is in an array (c, k b).
    onehot : ndarray, shape (T, c, k b)
        1 at the entries of labels that count.
    rows : ndarray of intp, shape (T, k b)
        The row at each place, among all rows of the chunk, k N.
    mask : ndarray of bool, shape (T, k b)
    padded : ndarray of bool, shape (T,)
        Whether a step has padding.
    grams : ndarray, shape (k N, N), or None
        G, for clients that take more than one step.
    row_labels : ndarray, shape (k, N)
    contents : sequence of Content or None
        What labels and rows were when this was made; of rows only where G is of them.
    """

    schedule: Schedule
    labels: Array
    at_label: Array
    onehot: Array
    rows: Array
    mask: Array
    padded: Array
    grams: Array | None
    row_labels: Array
    contents: Contents

    def entries(self, predictions: Array) -> LabelEntries:
        """Return where the labels' entries are in predictions of all steps."""
        return _FlatEntries(self.at_label + predictions[:1].size * np.arange(len(self.labels))[:, np.newaxis])


def _plan(head: SoftmaxHead, columns: Sequence[ClientColumns], xs: Sequence[Array], cache: Cache) -> _Plan:
    """Return the chunk's plan, a kept one if it is of the same rows to the bit."""
    k, num_rows = len(xs), max(1, *map(len, xs))
    row_labels = np.zeros((k, num_rows), np.intp)
    for of_client, client in zip(row_labels, columns, strict=True):
        of_client[: len(client.y)] = client.y.reshape(-1)
    key = tuple((client.key, client.order_key) for client in columns), "plan"
    kept: _Plan | tuple[()] | None = cache.find(key)
    if kept and np.array_equal(kept.row_labels, row_labels) and _are_of(kept.contents, xs):
        return kept
    schedule = schedule_of(columns)
    steps, places = len(schedule.rows), k * schedule.rows.shape[2]
    rows = (schedule.rows + (np.arange(k, dtype=np.intp) * num_rows)[:, np.newaxis]).reshape(steps, places)
    mask = schedule.mask.reshape(steps, places)
    labels = row_labels.reshape(-1)[rows]
    head.check(labels[mask])
    labels[~mask] = 0  # nobody reads these, and they may be anything
    at_label = labels * places + np.arange(places)
    onehot = np.zeros((steps, head.num_classes, places), np.float32)
    np.put_along_axis(onehot.reshape(steps, head.num_classes * places), at_label, mask, axis=1)
    grams, contents = _gram_matrices(columns, xs, cache) if steps > 1 else (None, ())
    plan = _Plan(
        schedule=schedule,
        labels=labels,
        at_label=at_label,
        onehot=onehot,
        rows=rows,
        mask=mask,
        padded=np.asarray(~mask.all(axis=1)),
        grams=grams,
        row_labels=row_labels,
        contents=contents,
    )
    if all(client.order_key is not None for client in columns):
        # Only a chunk that comes again is worth it: of clients that are drawn anew, the Gram matrices are kept alone.
        if kept is None:
            cache.put(key, (), 128 * k)
        else:
            parts = [leaf for _, leaf in trees.leaves(plan) if isinstance(leaf, np.ndarray | Content)]
            cache.put(key, plan, sum(part.nbytes for part in parts))
    return plan


def _are_of(contents: Contents, xs: Sequence[Array]) -> bool:
    return all(was is not None and was.is_of(x) for was, x in zip(contents, xs, strict=False))


def _gram_matrices(columns: Sequence[ClientColumns], xs: Sequence[Array], cache: Cache) -> tuple[Array, Contents]:
    """Return the rows of each client's G = X X^T + 1, (k N, N), and of which rows they are, if that is to be known."""
    num_rows, keys = max(1, *map(len, xs)), [(client.key, "gram") for client in columns]
    grams, contents = np.empty((len(xs), num_rows, num_rows), np.float32), list[Content | None]()
    kept: list[tuple[Content, Array] | None] = cache.find_all(keys)
    for x, key, found, into in zip(xs, keys, kept, grams, strict=True):
        n = len(x)
        if found is not None and found[0].is_of(x):
            of_rows: Content | None = found[0]
            gram = found[1]
        else:
            of_rows = Content(x) if key[0] is not None and cache.budget else None  # first: a thread may write to x
            gram = x @ x.T
            gram += 1
            if of_rows is not None:
                cache.put(key, (of_rows, gram), gram.nbytes + of_rows.nbytes)
        contents.append(of_rows)
        # The padding moves logits that nobody reads; but they must not decay to subnormal numbers, which are slow.
        into[:n, :n], into[:n, n:], into[n:] = gram, 0, 0
    return grams.reshape(-1, num_rows), contents


class _FlatEntries(LabelEntries):
    """The labels' entries in arrays (..., m, c) that are (..., c, m) in memory, by their places there."""

    def __init__(self, at_label: Array) -> None:
        self._at = at_label

    def of(self, array: Array) -> Array:
        return np.asarray(array.swapaxes(-1, -2).reshape(-1).take(self._at, mode="clip"))

    def put(self, array: Array, values: Array) -> None:
        array.swapaxes(-1, -2).reshape(-1)[self._at] = values


def _take_steps(
    head: SoftmaxHead, steps: SGDSteps, logits: Array, plan: _Plan, movement: Array | None, *, is_quick: bool
) -> tuple[Array, Array, Array, bool]:
    """Take all steps; the logits (c, k, N) of all rows, at first at the server's weights, move with the weights.

    In the quick way it is at the end that exponentials out of float32's range are looked for.

    Returns
    -------
    z, predictions, errors : ndarray, shape (T, c, k b)
        Of all steps. Of z there is but the last step's where nobody will look at it.
    is_right : bool
        Whether none was found.
    """
    (c, k, num_rows), (num_steps, _, b) = logits.shape, plan.schedule.rows.shape
    rate, momentum, pull = np.float32(steps.learning_rate), np.float32(steps.momentum), np.float32(steps.pull)
    scale = rate / np.maximum(plan.schedule.lengths, 1).astype(np.float32)
    scale = np.repeat(scale, b, axis=1)
    first, velocity = logits.copy() if pull else None, np.zeros_like(logits) if momentum else None
    moved, gram_rows = np.empty_like(logits), np.empty((k * b, num_rows), np.float32)
    z = np.empty((num_steps if head.needs_outputs else 1, c, k * b), np.float32)
    predictions, errors = (np.empty((num_steps, c, k * b), np.float32) for _ in range(2))
    sums = np.empty((num_steps, 1, k * b), np.float32)
    for t, (p, e) in enumerate(zip(predictions, errors, strict=True)):
        here = z[t % len(z)]
        logits.reshape(c, -1).take(plan.rows[t], axis=1, out=here, mode="clip")
        if is_quick:
            unguarded_softmax(here, 0, p, sums[t])
            np.subtract(p, plan.onehot[t], out=e)
        else:  # the head sees the classes last, as it is used to
            head.predict(here.T, out=p.T)
        if is_quick and head.are_plain(e):
            np.multiply(e, scale[t], out=e)
        else:
            head.errors(p.T, _FlatEntries(plan.at_label[t]), scale[t], out=e.T)
        if plan.padded[t]:
            e[:, ~plan.mask[t]] = 0  # not times 0: a client that has finished may have diverged since
        if plan.grams is None or t + 1 == num_steps:
            break
        plan.grams.take(plan.rows[t], axis=0, out=gram_rows, mode="clip")
        by_client = e.reshape(c, k, b).transpose(1, 0, 2)
        np.matmul(by_client, gram_rows.reshape(k, b, num_rows), out=moved.transpose(1, 0, 2))
        if movement is not None:
            moved += movement
        if first is not None:
            moved += rate * pull * (logits - first)
        if velocity is None:
            logits -= moved
        else:
            velocity *= momentum
            velocity += moved
            logits -= moved + momentum * velocity if steps.nesterov else velocity
    return z, predictions, errors, not is_quick or bool((are_safe(sums[:, 0]) | ~plan.mask).all())


def _measured(
    metrics: ExampleMetrics, head: SoftmaxHead, z: Array, predictions: Array, plan: _Plan
) -> list[Unfinalized]:
    """Return each client's unfinalized metrics."""
    schedule, (steps, k, b) = plan.schedule, plan.schedule.rows.shape
    entries = plan.entries(predictions)
    z, p = (array.transpose(0, 2, 1) for array in (z, predictions))

    def of_clients(values: Array) -> Array:
        return np.asarray(np.where(plan.mask, values, 0).reshape(steps, k, b).sum(axis=2))

    lengths = schedule.lengths.astype(np.float32)
    batch_losses = (of_clients(head.losses(z, p, entries)) / np.maximum(lengths, 1)).astype(np.float64)
    loss = (batch_losses * schedule.lengths).sum(axis=0)
    measured = metrics.values(p, plan.labels[..., np.newaxis], z if head.needs_outputs else None)
    means = [of_clients(values).sum(axis=0) for values in measured]
    return metrics.of_clients(means, loss, schedule.num_examples, schedule.num_steps)


def _update(steps: SGDSteps, drift: Arrays | None, errors: Array, plan: _Plan, xs: Sequence[Array]) -> Arrays:
    """Return W0 - W and b0 - b of each client, (k, d, c) and (k, c)."""
    longest, k, b = plan.schedule.rows.shape
    c, num_rows = errors.shape[1], plan.row_labels.shape[1]
    num_steps, response = plan.schedule.num_steps, _impulse_response(steps, longest)
    if steps.momentum or steps.pull:
        # Step t of a client with T batches is followed by T - 1 - t others.
        age = num_steps - 1 - np.arange(longest)[:, np.newaxis]
        weight = response[np.maximum(age, 0)].astype(np.float32)
        errors = errors * np.repeat(weight, b, axis=1)[:, np.newaxis]
    coefficients = _sums_by_row(errors, plan.rows, k * num_rows).reshape(-1, k, num_rows)
    kernels = np.empty((k, len(coefficients), xs[0].shape[1]), np.float32)
    for i, x in reversed(list(enumerate(xs))):  # the last one's data are still in the cache
        np.matmul(coefficients[:, i, : len(x)], x, out=kernels[i])
    biases = np.add.reduce(coefficients[:c], axis=2)  # of padding they are zeros
    update = kernels[:, :c].transpose(0, 2, 1), np.ascontiguousarray(biases.T)
    if drift is not None:
        in_all = steps.learning_rate * np.concatenate([[0.0], np.cumsum(response)])[num_steps]
        for part, direction in zip(update, drift, strict=True):
            np.add(part, trees.along(in_all, direction) * direction, out=part)
    return update


def _impulse_response(steps: SGDSteps, count: int) -> Array:
    """Return how far a unit step has moved the weights after 1, ..., count steps, (count,) float64.

    On displacements D = w - w0, with gradients that are times the rate already, steps are the recursion

    g = rate * gradient + rate * mu * D;   a = momentum * a + g;   D -= a   (Nesterov: D -= g + momentum * a)
    """
    pull = float(np.float32(steps.learning_rate * steps.pull))
    a = displacement = 0.0
    moved = np.empty(count)
    for t in range(count):
        g = (t == 0) + pull * displacement
        a = steps.momentum * a + g
        displacement -= g + steps.momentum * a if steps.nesterov else a
        moved[t] = -displacement
    return moved


def _sums_by_row(errors: Array, rows: Array, num_rows: int) -> Array:
    """Return the sums of errors (T, c, k b) by row, float32 (c, num_rows), with rows of zeros up to a multiple of 4."""
    c = errors.shape[1]
    places, by_class = rows.reshape(-1), errors.transpose(1, 0, 2).reshape(c, -1)
    sums = np.zeros((_in_fours(c), num_rows), np.float32)
    for of_class, out in zip(by_class, sums, strict=False):
        out[:] = np.bincount(places, of_class, minlength=num_rows)[:num_rows]
    return sums
