# SPDX-License-Identifier: BSD-3-Clause
"""Calls that are sent again: when their worker died, or when a predicate says so of what they raised.

The user holds an outer result that the engine knows only as something to wait for. Behind it is one attempt after the
other, each an engine's item of its own. The call is pickled once, when it is submitted; each attempt sends the same
bytes, so it sees the arguments as they were, whatever an attempt or the caller has done to them since. Handles of
shared objects among the arguments go beside these bytes, so that the engine knows of them and opens them.

Everything here runs in whatever thread collects an attempt's outcome, as callbacks do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _ext
from shoal._shared import Shared
from shoal.errors import PoolBroken, PoolTerminated, WorkerLost

if TYPE_CHECKING:
    from shoal._lifetime import Lifetime
    from shoal._limits import Limits

PID = "_shoal_pid"


class Attempt(NamedTuple):
    """One failed try of a task that was to be tried again (`retries`): what the last error has in its `attempts`."""

    number: int
    """From 1."""
    error: BaseException
    """What it died of."""
    ended: float
    """When, as `time.time()` has it."""
    pid: int | None
    """Of its worker; None if that is not known."""

    def __str__(self) -> str:
        text = str(self.error).partition("\n")[0]
        when = time.strftime("%H:%M:%S", time.localtime(self.ended))
        where = "" if self.pid is None else f" in worker {self.pid}"
        return f"attempt {self.number}, {when}{where}: {type(self.error).__name__}: {text}"


Attempt.__module__ = "shoal"


class Place(NamedTuple):
    """What an argument that goes beside the others leaves behind."""

    number: int


def attempt(data: bytes, *beside: Any) -> Any:
    """In the worker: make the call that `data` is, with what came beside it."""
    engine = _ext._serving()
    function, args, kwargs = engine.loads(data)
    if beside:
        args = tuple(beside[each.number] if type(each) is Place else each for each in args)
        kwargs = {name: beside[each.number] if type(each) is Place else each for name, each in kwargs.items()}
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        with suppress(BaseException):
            setattr(error, PID, os.getpid())
        raise


class Retry:
    """The attempts behind one outer result."""

    def __init__(self, outer: _ext.Item, lifetime: Lifetime, asked: Limits) -> None:
        self.outer = outer
        self.lifetime = lifetime
        self.asked = asked
        self.history: list[Attempt] = []
        self.inner: _ext.Item | None = None
        self.timer: threading.Timer | None = None
        self.cancelled = False
        self._data = b""
        self._beside: list[Shared[Any]] = []
        self._lock = threading.RLock()

    def begin(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Submit the first attempt. What cannot be pickled or submitted is raised."""
        args = tuple(map(self._put_beside, args))
        kwargs = {name: self._put_beside(value) for name, value in kwargs.items()}
        self._data = self.lifetime.engine.dumps((function, args, kwargs))
        self.outer._attach(self.lifetime.engine)
        self.lifetime.retrying.add(self)
        try:
            self._send()
        except BaseException:
            self.lifetime.retried(self)
            raise

    def _put_beside(self, argument: Any) -> Any:
        if not isinstance(argument, Shared):
            return argument
        self._beside.append(argument)
        return Place(len(self._beside) - 1)

    def cancel(self, running: bool) -> bool:
        """Take the attempt back that is under way; False if it is to be left alone, or all is over."""
        with self._lock:
            inner, timer = self.inner, self.timer
            if self.outer.done():
                return self.cancelled
            self.cancelled = True  # before the attempt's end is told, and nothing is sent any more
        if timer is None and inner is not None and not inner.cancel(running) and not inner.done():
            self.cancelled = False
            return False
        if timer is not None:
            timer.cancel()
        self._settle(False, CancelledError())
        return True

    def running(self) -> bool:
        """Return whether a worker is at it."""
        return self.inner is not None and self.inner.running()

    def _send(self) -> None:
        self.timer = None
        inner = _ext.Item()
        self.asked.apply_to(inner)
        self.lifetime.engine.submit(inner, attempt, (self._data, *self._beside), None)
        self.inner = inner
        if not inner.watch(self._ended):
            self._ended(inner)

    def _ended(self, inner: _ext.Item) -> None:
        if self.cancelled or self.outer.done():
            return
        succeeded, value = inner.outcome()
        if succeeded:
            self._settle(True, value)
            return
        pid = value.pid if isinstance(value, WorkerLost) else getattr(value, PID, None)
        with suppress(BaseException):
            delattr(value, PID)
        self.history.append(Attempt(len(self.history) + 1, value, time.time(), pid))
        try:
            again = len(self.history) <= (self.asked.retries or 0) and self._wanted(value)
            delay = self._delay() if again else 0.0
            if again and delay > 0:
                self._wait(delay)
            elif again:
                self._again()
        except BaseException as problem:  # the user's predicate, or the pool has ended meanwhile
            problem.__cause__ = problem.__cause__ or value
            self._settle(False, self._told(problem))
            return
        if not again:
            self._settle(False, self._told(value))

    def _wait(self, delay: float) -> None:
        with self._lock:
            if not self.cancelled:
                self.timer = threading.Timer(delay, self._again)
                self.timer.daemon = True
                self.timer.start()

    def _again(self) -> None:
        try:
            with self._lock:
                if not self.cancelled:
                    self._send()
        except BaseException as problem:
            problem.__cause__ = problem.__cause__ or self.history[-1].error
            self._settle(False, self._told(problem))

    def _wanted(self, error: BaseException) -> bool:
        if isinstance(error, PoolBroken | PoolTerminated):
            return False
        if isinstance(error, WorkerLost):
            return True
        return self.asked.retry_if is not None and bool(self.asked.retry_if(error))

    def _delay(self) -> float:
        backoff = self.asked.backoff
        if backoff is None:
            return 0.0
        if callable(backoff):
            return float(backoff(len(self.history) + 1))
        return float(backoff) * 2.0 ** (len(self.history) - 1)

    def _told(self, error: BaseException) -> BaseException:
        """The error, with what became of all attempts, if there was more than one."""
        if len(self.history) > 1:
            text = "\n".join(map(str, self.history))
            with suppress(BaseException):
                error.attempts = tuple(self.history)  # type: ignore[attr-defined]
                error.__notes__ = [*getattr(error, "__notes__", ()), text]
        return error

    def end(self, error: BaseException) -> None:
        """The pool is terminated."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.outer.done():
            self._settle(False, error)

    def _settle(self, succeeded: bool, value: Any) -> None:
        with suppress(RuntimeError):  # another thread was first
            self.outer._settle(succeeded, value, self.cancelled)
        self._data = b""
        self._beside = []
        self.outer._retry = None  # type: ignore[attr-defined]
        self.lifetime.retried(self)
