# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.Future`: a real `concurrent.futures.Future` that costs next to nothing until somebody looks inside.

The problem: a stock Future makes a condition, a lock and two lists when it is born, which takes longer than a whole
task here. But `wait`, `as_completed` and `asyncio` reach into `_condition`, `_state` and `_waiters`.

What it does: outcome, waiting, `result` and callbacks are the engine's (`_ext.Item`). The first look at `_condition`
makes an `_Inside`, and asks the engine to say when the item is done. From then on `_state` is what is stored there, and
it changes under the condition only: who holds the conditions of several futures sees them stand still (`wait` does).
Without an inside, `_state` is what the engine says at that moment.

No lock guards the making of the inside: `dict.setdefault` picks one of two threads that try at once.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures._base import (
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
    CancelledError,
    InvalidStateError,
)
from typing import TYPE_CHECKING, Any

from shoal import _ext
from shoal._announce import give_ctrl_c_to_main_thread

if TYPE_CHECKING:
    from shoal._retry import Retry

DESCRIPTIONS = {PENDING: "pending", RUNNING: "running", CANCELLED_AND_NOTIFIED: "cancelled", FINISHED: "finished"}


class _Inside:
    """What the standard library's functions find in a future."""

    __slots__ = ("callbacks", "condition", "state", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.state = PENDING
        self.waiters: list[Any] = []
        self.callbacks: list[Callable[[Any], object]] = []


class Future(_ext.Item, concurrent.futures.Future):  # type: ignore[type-arg]
    """The outcome of a call to come. Made by `ProcessPoolExecutor.submit`."""

    _inside: _Inside | None = None
    _cancel_running = False
    _retry: Retry | None = None

    # Not the stock one: that makes what this class makes when it is looked at. And C's: calling a method of Python's
    # takes a third of a future's life.
    if TYPE_CHECKING:

        def __init__(self) -> None: ...
    else:
        __init__ = _ext.Item.__init__
        __dict__ = vars(_ext.Item)["_attributes"]  # tells the garbage collector

    # ---- what users call ----

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None, when it has ended; raise like `result` if cancelled or too late."""
        inside = self._inside
        # Known to be done: no look at the engine, because `wait` asks while it relies on other futures standing still.
        if (inside is None or inside.state == PENDING) and not self.wait(timeout):
            raise concurrent.futures.TimeoutError
        if self.cancelled():
            raise CancelledError
        succeeded, value = self.outcome()
        return None if succeeded else value

    def cancel(self, running: bool | None = None) -> bool:
        """Take the call back if no worker has begun it; return whether it is cancelled.

        Parameters
        ----------
        running : bool, optional
            Stop it, too, if a worker runs it. By default what the executor was told (`cancel_running=`), which is False
            unless it was: a stock future says False to those who cancel a running call.
        """
        if self.cancelled():
            return True
        running = self._cancel_running if running is None else running
        if not (super().cancel(running) if self._retry is None else self._retry.cancel(running)):
            return False
        self._tell()
        return True

    def running(self) -> bool:
        """Return whether a worker is at it."""
        return super().running() if self._retry is None else self._retry.running()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(self)` when the future is done or cancelled; at once if it is.

        It runs in the thread that collects the result. What it raises is logged and ignored.
        """

        def call_back(item: _ext.Item) -> None:
            try:
                fn(self)
            except KeyboardInterrupt:
                give_ctrl_c_to_main_thread()
            except Exception:
                LOGGER.exception("exception calling callback for %r", self)

        if not self.watch(call_back):
            call_back(self)

    def __repr__(self) -> str:
        state = self._now()
        text = f"<{type(self).__name__} at {id(self):#x} state={DESCRIPTIONS[state]}"
        if state == FINISHED:
            succeeded, value = self.outcome()
            text += f" {'returned' if succeeded else 'raised'} {type(value).__name__}"
        return text + ">"

    # ---- for executors and tests ----

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether the call is still wanted. The engine itself says when it runs."""
        if self.cancelled():
            return False
        if self.running() or self.done():
            LOGGER.critical("Future %s in unexpected state: %s", id(self), self._now())
            raise RuntimeError("Future in unexpected state")
        return True

    def set_result(self, result: Any) -> None:
        """Give the future a result from outside of the engine."""
        self._settle_once(True, result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Give the future an exception from outside of the engine."""
        self._settle_once(False, exception)

    def _settle_once(self, succeeded: bool, value: Any) -> None:
        if self.done():
            raise InvalidStateError(f"{self._now()}: {self!r}")
        self._settle(succeeded, value)
        self._tell()

    # ---- what the standard library's functions look at ----

    def _look(self) -> _Inside:
        inside = self._inside
        if inside is None:
            made = _Inside()
            inside = self.__dict__.setdefault("_inside", made)
            if inside is made and not self.watch(Future._tell):
                self._tell()
        return inside

    def _tell(self) -> None:
        """The item is done: tell whoever looked. Once; later calls find the state changed."""
        inside = self._inside
        if inside is None:
            return
        with inside.condition:
            if inside.state != PENDING:
                return
            if self.cancelled():
                inside.state = CANCELLED_AND_NOTIFIED
                for waiter in inside.waiters:
                    waiter.add_cancelled(self)
            else:
                inside.state = FINISHED
                for waiter in inside.waiters:
                    # Only wait(FIRST_EXCEPTION) asks which; for anybody else the result is not unpickled here.
                    if getattr(waiter, "stop_on_exception", False) and not self.outcome()[0]:
                        waiter.add_exception(self)
                    else:
                        waiter.add_result(self)
            inside.condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # what others appended to _done_callbacks themselves

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._look().condition

    @property
    def _state(self) -> str:  # type: ignore[override]
        inside = self._inside
        # Once somebody has looked inside, no look at the engine: it might change other futures under his eyes.
        return inside.state if inside is not None else self._now()

    def _now(self) -> str:
        """The state as the engine has it at this moment."""
        if self.done():
            return CANCELLED_AND_NOTIFIED if self.cancelled() else FINISHED
        return RUNNING if self.running() else PENDING

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._look().waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        return self._look().callbacks

    @property
    def _result(self) -> Any:  # type: ignore[override]
        if not self.done() or self.cancelled():
            return None
        succeeded, value = self.outcome()
        return value if succeeded else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        if not self.done() or self.cancelled():
            return None
        succeeded, value = self.outcome()
        return None if succeeded else value
