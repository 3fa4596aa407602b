"""A learning rate that depends on how many steps were taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim_np.errors import argument_error, argument_type_error
from fedsim_np.learning.optimizers.optimizer import LEARNING_RATE_KEY, Optimizer, State, check_hparam
from fedsim_np.trees import Arrays

ScheduleFn = Callable[[int], float]
"""Number of a step or round, from 0 -> learning rate."""


def scheduled_rate(schedule_fn: ScheduleFn, round_num: int) -> float:
    """Return the rate of a round, checked."""
    return check_hparam(f"learning rate of round {round_num}", _plain(schedule_fn(round_num)))


def _plain(rate: Any) -> Any:
    """Return an array without axes, such as np.where gives, as its number."""
    return rate.item() if isinstance(rate, np.ndarray) and not rate.ndim else rate


@dataclass(frozen=True)
class Scheduled(Optimizer):
    """An optimizer with a schedule; made by `schedule_learning_rate`. As in TFF it has no hyperparameters."""

    optimizer: Optimizer
    schedule_fn: ScheduleFn
    hparam_names = ()

    @property
    def is_elementwise(self) -> bool:  # type: ignore[override]
        """As the optimizer."""
        return self.optimizer.is_elementwise

    def initialize(self, weights: Arrays) -> State:
        """Return the number 0 and the optimizer's state with the first rate."""
        return self._at(0, self.optimizer.initialize(weights))

    def next(self, state: State, weights: Arrays, gradients: Arrays) -> tuple[State, Arrays]:
        """Take a step, and set the next step's rate."""
        number = state["round_num"]
        check_hparam(f"learning rate of step {number}", state["optimizer"][LEARNING_RATE_KEY])
        inner, weights = self.optimizer.next(state["optimizer"], weights, gradients)
        return self._at(number + 1, inner), weights

    def _at(self, number: int, inner: State) -> State:
        # Checked when it is used: the rate after the last step never is.
        rate = _plain(self.schedule_fn(number))
        return OrderedDict(round_num=number, optimizer=OrderedDict(inner, learning_rate=rate))


def schedule_learning_rate(optimizer: Optimizer, schedule_fn: ScheduleFn) -> Optimizer:
    r"""Give an optimizer a learning rate for every step.

    .. math:: \eta_t = \mathrm{schedule}(t), \quad t = 0, 1, 2, \dots

    Step t is the t-th call of the optimizer's `next`: at the server it is the round; on a client, whose optimizer is
    fresh in every round, it is the local step. For client rates by round see
    `fedsim_np.learning.build_weighted_fed_avg_with_optimizer_schedule`.

    Parameters
    ----------
    optimizer : Optimizer
        One with a learning rate; its own is not used.
    schedule_fn : callable
        Number of the step, an int from 0, to a finite rate >= 0. As in TFF it is asked one step ahead, so also for the
        step after the last, whose rate is not used.

    Returns
    -------
    Optimizer

    Raises
    ------
    TypeError, ValueError
        If `optimizer` is no optimizer or has no learning rate, or `schedule_fn` gives something else than a rate.

    Examples
    --------
    >>> import numpy as np
    >>> from fedsim_np.learning.optimizers import build_sgdm
    >>> optimizer = schedule_learning_rate(build_sgdm(), lambda t: 1.0 / 2**t)
    >>> weights = gradients = (np.float32([1.0]),)
    >>> state = optimizer.initialize(weights)
    >>> for _ in range(3):
    ...     state, weights = optimizer.next(state, weights, gradients)
    ...     print(weights[0].tolist())
    [0.0]
    [-0.5]
    [-0.75]
    """
    if not isinstance(optimizer, Optimizer):
        raise argument_type_error("optimizer", "an optimizer", optimizer)
    if not callable(schedule_fn):
        raise argument_type_error("schedule_fn", "a callable that takes the step's number", schedule_fn)
    if LEARNING_RATE_KEY not in optimizer.initialize(()):
        raise argument_error("optimizer", "an optimizer with a learning rate in its state", optimizer)
    return Scheduled(optimizer, schedule_fn)
