# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.get_reusable_executor`: one executor for all who ask, as loky has it.

The problem: libraries that want workers now and then do not know of each other, and should neither start them anew for
each call nor hold them for good.

The protocol: one executor stands in this module, under a lock. Who asks for another size gets it resized, while its
calls are under way; who asks for something else, or finds it broken or shut down, gets another one, which takes the
calls of whoever still has the old one. When nothing was asked for in `timeout` seconds, the engine's own thread says
so, and if no call is under way or being submitted the executor lets its engine go: workers end in order, and their
memory is free. The next call starts others.

What it does not do: environment variables and reducers for the workers (loky's `env`, `job_reducers`).
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from shoal import _ext
from shoal._executor_end import leave
from shoal._lifetime import Lifetime, start_context, worker_count
from shoal.executor import OPEN, ProcessPoolExecutor

FOR_EVER_S = 1e9


class ReusableExecutor(ProcessPoolExecutor):
    """What `get_reusable_executor` returns."""

    def __init__(self, max_workers: int, idle_s: float | None, context: Any, asked: dict[str, Any]) -> None:
        self._idle_s = idle_s
        self._held = 0  # calls of `map` that have the lifetime in hand
        self._successor: ReusableExecutor | None = None
        super().__init__(max_workers, context, **asked)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        **asked: Any,
    ) -> Iterator[Any]:
        """See `ProcessPoolExecutor.map`."""
        successor = self._successor
        if successor is not None:
            return successor.map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize, **asked)
        with self._hold():
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize, **asked)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Take no more calls; see `ProcessPoolExecutor.shutdown`.

        Parameters
        ----------
        kill_workers : bool
            Do not wait for what is under way: send SIGKILL to the workers first.
        """
        if kill_workers:
            self.kill_workers()
        super().shutdown(wait, cancel_futures=cancel_futures)

    @contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    def _start(self) -> _ext.Engine:
        successor = self._successor
        return super()._start() if successor is None else successor._start()

    def _give_way_to(self, successor: ReusableExecutor) -> None:
        self._successor = successor
        self._instead = functools.partial(_pass_on, successor)

    def _resize(self, workers: int) -> None:
        with self._hold():
            super()._resize(workers)

    def _taking_calls(self) -> Lifetime:
        successor = self._successor
        return super()._taking_calls() if successor is None else successor._taking_calls()

    def _started(self, lifetime: Lifetime) -> None:
        if self._idle_s is not None:
            reference = weakref.ref(self)

            def idle() -> None:
                executor = reference()
                if executor is not None:
                    executor._let_go()

            lifetime.engine.when_idle(self._idle_s, idle)

    def _let_go(self) -> None:
        """Called in the engine's thread when it has been idle for a while: let the workers end."""
        if not self._lock.acquire(blocking=False):  # somebody is at it: not idle
            return
        try:
            lifetime = self._lifetime
            if self._state != OPEN or lifetime is None or self._held or lifetime.retrying or lifetime.seats:
                return
            if lifetime.engine.close_if_idle():
                self._engine = None
                self._lifetime = None
                self._finalizer.cancel()
                leave(lifetime)
        finally:
            self._lock.release()

    def _usable(self) -> bool:
        return self._state == OPEN and not self._broken

    def _has_room_for(self, workers: int) -> bool:
        lifetime = self._lifetime
        return lifetime is None or workers <= lifetime.engine.room


def _pass_on(
    successor: ReusableExecutor,
    engine: _ext.Engine,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> Any:
    return successor.submit(fn, *args, **(kwargs or {}))


class _Current:
    """The executor that this process has, and what it was asked for with."""

    lock = threading.RLock()
    executor: ReusableExecutor | None = None
    asked: tuple[Any, ...] | None = None


def _forked() -> None:
    _Current.lock = threading.RLock()
    _Current.executor = None
    _Current.asked = None


os.register_at_fork(after_in_child=_forked)


def get_reusable_executor(
    max_workers: int | None = None,
    context: Any = None,
    timeout: float | None = 10,
    kill_workers: bool = False,
    reuse: bool | str = "auto",
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    **asked: Any,
) -> ReusableExecutor:
    """Return the executor that this process has for all who ask, with so many workers.

    It is made when there is none, or when the one before is broken or shut down, or was asked for with other arguments.
    Any thread may call this.

    Parameters
    ----------
    max_workers : int, optional
        Number of workers: the executor is resized, while its calls are under way. By default as many as there are CPUs
        to be used, or with reuse=True as many as it has.
    context : multiprocessing context or str, optional
        How the workers start; see `ProcessPoolExecutor`.
    timeout : float, optional
        When nothing was asked for in so many seconds, the workers end and their memory is free; the next call starts
        others. None: they stay. (A limit for each task is an option of `ProcessPoolExecutor.options`.)
    kill_workers : bool
        If the executor cannot be reused: kill its workers instead of waiting for what they do.
    reuse : bool or "auto"
        Whether an executor that was asked for with other arguments is good enough; "auto": it is not. False: a new one
        in any case.
    initializer, initargs, **asked
        As for `ProcessPoolExecutor`.
    """
    if reuse not in (True, False, "auto"):
        raise ValueError(f"reuse must be True, False or 'auto', not {reuse!r}")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be 0 seconds or more, or None, not {timeout!r}")
    idle_s = None if timeout is None or timeout > FOR_EVER_S else float(timeout)
    method = start_context(context).get_start_method()
    initargs = tuple(initargs)
    wanted = (method, idle_s, initializer, initargs, asked)
    with _Current.lock:
        before = _Current.executor
        if max_workers is None and reuse is True and before is not None:
            max_workers = before._max_workers
        count = worker_count(max_workers, f"max_workers must be greater than 0, got {max_workers}.")
        same = reuse is True or (reuse == "auto" and wanted == _Current.asked)
        if before is not None and same and before._usable() and before._has_room_for(count):
            before.resize(count)
            return before
        executor = ReusableExecutor(count, idle_s, context, {"initializer": initializer, "initargs": initargs, **asked})
        _Current.executor, _Current.asked = executor, wanted
        if before is not None and before._usable():
            before._give_way_to(executor)
    if before is not None:
        before.shutdown(wait=True, kill_workers=kill_workers)
    return executor
