"""Saving a run's states while it goes on: one at a time, by a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from fedsim_np.program.checkpoints import FileProgramStateManager
from fedsim_np.program.log_files import syncs_anywhere
from fedsim_np.program.loggers import Logger

_LOGGER = logging.getLogger(__name__)
_OWN_SAVE = FileProgramStateManager.save


class Saver:
    """Saves states; within ``with``, what was begun is finished at the end, whatever ends it.

    A manager or a logger of the user's own is called by the thread that calls `save`: it may not bear another one.

    Parameters
    ----------
    manager : FileProgramStateManager or None
        None saves nothing.
    loggers : sequence of Logger
        What a resumed run will not tell them again must be safe before the state is.
    """

    def __init__(self, manager: FileProgramStateManager | None, loggers: Sequence[Logger]) -> None:
        self._manager, self._loggers = manager, [logger for logger in loggers if hasattr(logger, "sync")]
        self._saving: _Saving | None = None
        self._begun: queue.SimpleQueue[_Saving | None] | None = None  # what the thread takes up; None ends it

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        saving, interrupt = self._saving, None
        while saving is not None and not saving.done.is_set():
            try:
                saving.wait()
            except BaseException as raised:  # Ctrl-C: it takes milliseconds, and half a state is of no use
                interrupt = raised
        if self._begun is not None:
            self._begun.put(None)
        if error is None and interrupt is None:
            self.wait()
        elif saving is not None and saving.error is not None:
            _LOGGER.error("The state of round %s could not be saved: %s", saving.round_num, saving.error)
        if error is None and interrupt is not None:
            raise interrupt

    def save(self, state: Any, round_num: int) -> None:
        """Begin to save a state, when the one before is saved."""
        if self._manager is None:
            return
        self.wait()
        syncs: list[Callable[[], None]] = []
        for logger in self._loggers:
            if syncs_anywhere(logger):
                syncs.append(logger.sync)
            else:
                logger.sync()
        if type(self._manager) is FileProgramStateManager and self._manager.save == _OWN_SAVE.__get__(self._manager):
            self._saving = _Saving([*syncs, self._manager.prepare(state, round_num)], round_num)
            self._begin(self._saving)
        else:
            for sync in syncs:
                sync()
            self._manager.save(state, round_num)

    def _begin(self, saving: _Saving) -> None:
        if self._begun is None:
            begun: queue.SimpleQueue[_Saving | None] = queue.SimpleQueue()
            try:
                # A daemon: nothing waits for it where this object was left behind; all that was begun is finished.
                threading.Thread(target=_finish_all, args=(begun,), name="fedsim_np saving", daemon=True).start()
            except RuntimeError:  # the interpreter is about to end, and starts none
                saving.finish()
                return
            self._begun = begun
        self._begun.put(saving)
        saving.is_passed_on = True

    def check(self) -> None:
        """Raise what the last save has raised, if it is over."""
        if self._saving is not None and self._saving.done.is_set():
            self.wait()

    def wait(self) -> None:
        """Wait for what is being saved; raise what it raises."""
        if self._saving is not None:
            self._saving.wait()
            saving, self._saving = self._saving, None
            if saving.error is not None:
                raise saving.error


def _finish_all(begun: queue.SimpleQueue[_Saving | None]) -> None:
    while (saving := begun.get()) is not None:
        saving.finish()


class _Saving:
    """Steps that are taken once, by the thread that they are passed on to."""

    def __init__(self, steps: Sequence[Callable[[], None]], round_num: int) -> None:
        self._steps, self.round_num = steps, round_num
        self._lock, self.done = threading.Lock(), threading.Event()
        self.is_passed_on = False
        self.error: BaseException | None = None

    def finish(self) -> None:
        with self._lock:
            if self.done.is_set():
                return
            try:
                for step in self._steps:
                    step()
            except BaseException as error:
                self.error = error
            finally:
                self.done.set()

    def wait(self) -> None:
        if self.is_passed_on:
            self.done.wait()
        else:  # an interrupt came between
            self.finish()
