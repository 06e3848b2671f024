# SPDX-License-Identifier: BSD-3-Clause
"""The engine of one pool from its start to its end: what `Pool` and `ProcessPoolExecutor` have in common.

A lazy call (`imap`, `Executor.map`) that nobody iterates is done all the same when the pool is joined, as it is with
multiprocessing: so it is kept here until it has ended.

Neither this object nor the engine refers to the pool. So a pool that is dropped is collected at once and its finalizer
ends the engine; at the interpreter's exit the finalizers of those still open run.
"""

from __future__ import annotations

import multiprocessing
import operator
import os
import sys
import weakref
from collections.abc import Callable
from multiprocessing import util
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Protocol

from shoal import _ext
from shoal._cpus import usable_cpus
from shoal._current import cpus_here
from shoal._inherited import let_inherit
from shoal._kills import look
from shoal._spawn import SpawnStart
from shoal._worker import ForkStart
from shoal._worker_settings import WorkerSettings
from shoal.errors import PoolTerminated, task_error

if TYPE_CHECKING:
    from shoal._aio import Seat
    from shoal._retry import Retry

# How many tasks a lazy call looks ahead: enough that no worker waits for the caller.
TASKS_AHEAD_MIN = 128
TASKS_AHEAD_PER_WORKER = 16


class Owner(Protocol):
    """A pool or executor: what a fork must reach."""

    def _disown(self) -> None: ...


class Lifetime:
    """An engine that runs, the lazy calls that still feed it, and how both end."""

    def __init__(
        self,
        workers: int,
        settings: WorkerSettings,
        method: str = "fork",
        task_error: Callable[..., BaseException] = task_error,
    ) -> None:
        settings.plan(workers)
        self._settings = settings
        start = ForkStart(settings) if method == "fork" else SpawnStart(method, settings)
        self.engine = _ext.Engine(workers, start, settings.max_tasks, task_error, settings.room(workers))
        self.tasks_ahead = _tasks_ahead(workers)
        self.retrying: set[Retry] = set()
        self.seats: dict[int, Seat] = {}  # of event loops that have awaited calls, by their id
        self._closing = False
        self._feeding: set[_ext.Group] = set()
        self._bounded: weakref.WeakSet[_ext.Group] = weakref.WeakSet()
        try:
            if isinstance(start, SpawnStart):
                start.prepare(self.engine)
                self.engine.start()
            else:
                let_inherit(self.engine, settings.functions.called())
                self.engine.start(start.several)
        except BaseException:
            self.engine.terminate(PoolTerminated("the pool could not be started"))
            raise
        look()

    def resize(self, workers: int) -> int:
        """Have so many workers; return how many it is to be by now, as other threads may resize as well."""
        self._settings.plan(workers)
        self.engine.resize(workers)
        workers = self.engine.workers
        self.tasks_ahead = _tasks_ahead(workers)
        return workers

    def feed(self, group: _ext.Group, bounded: bool = False) -> None:
        """Keep a lazy call until all its tasks have ended, even if nobody takes the results.

        bounded: all that were submitted, that is; nobody else pulls its input.
        """
        if bounded:
            self._bounded.add(group)
            return
        self._feeding.add(group)
        if not group.watch_lazily(self._feeding.discard):
            self._feeding.discard(group)

    def stop_bounded(self, why: Exception) -> None:
        """Bounded calls pull no more: `why` is their last outcome, if there was more."""
        for group in list(self._bounded):
            group._stop(why)

    def stop_feeding(self, group: _ext.Group) -> None:
        """Forget a lazy call: nobody wants the rest."""
        group.cancel()
        self._feeding.discard(group)

    def cancel_pending(self) -> None:
        """Take back whatever no worker has begun."""
        for group in [*self._feeding, *self._bounded]:
            self.stop_feeding(group)
        for retry in list(self.retrying):
            retry.outer.cancel(running=False)
        for item in self.engine.pending():
            item.cancel(running=False)

    def close(self) -> None:
        """Take nothing new; the workers end when all is done, attempts that are still to come included."""
        self._closing = True
        if not self.retrying:
            self.engine.close()

    def join(self) -> None:
        """Wait for the end, after `close`."""
        while self.retrying:
            for retry in list(self.retrying):
                retry.outer.wait()
        self.engine.join()

    def retried(self, retry: Retry) -> None:
        """All is over with this one."""
        self.retrying.discard(retry)
        if self._closing and not self.retrying:
            self.engine.close()

    def terminate(self, why: str) -> None:
        """End the workers at once; what was not done ends with PoolTerminated.

        At the interpreter's exit with SystemExit: who still waits then is a daemon thread, which ends of it quietly.
        """
        error: BaseException = SystemExit(why) if util.is_exiting() else PoolTerminated(why)
        self._feeding.clear()
        for retry in list(self.retrying):
            retry.end(error)
        self.engine.terminate(error)


def _tasks_ahead(workers: int) -> int:
    return max(TASKS_AHEAD_MIN, TASKS_AHEAD_PER_WORKER * workers)


def worker_count(asked: int | None, complaint: str) -> int:
    """Return how many workers to start; `complaint` is for a number below 1."""
    if asked is None:
        return min(usable_cpus(), cpus_here() or sys.maxsize)  # in a worker: its share of them
    count = operator.index(asked)
    if count < 1:
        raise ValueError(complaint)
    return count


def start_context(asked: Any) -> BaseContext:
    """Return the multiprocessing context that says how workers start: the one asked for, also by the name of its start
    method; else what the program has set for the whole process (`multiprocessing.set_start_method`); else fork.
    """
    if asked is None:
        asked = multiprocessing.get_start_method(allow_none=True) or "fork"
    chosen = multiprocessing.get_context(asked) if isinstance(asked, str) else asked
    method = chosen.get_start_method()
    if method not in ("fork", "spawn", "forkserver"):
        raise ValueError(f"the start method {method!r} is not supported: fork, spawn or forkserver")
    context: BaseContext = chosen
    return context


# Every pool of this process. A forked child inherits them as objects, but their engines belong to the parent.
_owners: set[weakref.ref[Any]] = set()


def register(owner: Owner) -> None:
    """Have `owner._disown()` called in every child that this process forks."""
    _owners.add(weakref.ref(owner, _owners.discard))


def _disown_all() -> None:
    for reference in list(_owners):
        owner = reference()
        if owner is not None:
            owner._disown()
    _owners.clear()


os.register_at_fork(after_in_child=_disown_all)
