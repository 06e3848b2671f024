# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.Pool`: the interface of `multiprocessing.pool.Pool` on Shoal's engine.

Callbacks run once, in whatever thread collects the result: the one that waits for it, or the engine's own. They run
before the result counts as ready, should be short, and what they raise is reported through `threading.excepthook`.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import os
import signal
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sized
from multiprocessing import util
from types import TracebackType
from typing import Any, NoReturn

from shoal import _ext
from shoal._announce import Announcement
from shoal._lifetime import Lifetime, register, start_context, worker_count

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"  # multiprocessing.pool's own words; others read Pool._state
INHERITED = "INHERITED"

Callback = Callable[[Any], object]


class AsyncResult(_ext.Item):
    """The result of `apply_async`."""

    def ready(self) -> bool:
        """Return whether the call has ended."""
        return self.done()

    def successful(self) -> bool:
        """Return whether the call ended without an exception; ValueError if it has not ended."""
        return _successful(self)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result when it arrives, or raise what the call raised.

        Raises
        ------
        multiprocessing.TimeoutError
            If it does not arrive within `timeout` seconds.
        """
        if not self.wait(timeout):
            raise multiprocessing.TimeoutError
        return self.value()


class MapResult(_ext.Group):
    """The result of `map_async` and `starmap_async`."""

    def ready(self) -> bool:
        """Return whether all calls have ended."""
        return self.done()

    def successful(self) -> bool:
        """Return whether all calls ended without an exception; ValueError if not all have ended."""
        return _successful(self)

    def get(self, timeout: float | None = None) -> Any:
        """Return the list of results when all have arrived, or raise what the first failing call raised.

        Raises
        ------
        multiprocessing.TimeoutError
            If they do not arrive within `timeout` seconds.
        """
        if not self.wait(timeout):
            raise multiprocessing.TimeoutError
        succeeded, value = self.outcome()
        if succeeded:
            return value
        try:
            raise value
        finally:
            del self, value  # the exception's traceback refers to this frame


class AnnouncedResult(AsyncResult):
    """An AsyncResult with callbacks: ready once they have run."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._announcement = Announcement(callback, error_callback)

    def ready(self) -> bool:
        """Return whether the call has ended and its callback has run."""
        return self.done() and self._announcement.made()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the call has ended and its callback has run, at most `timeout` seconds."""
        return self._announcement.wait_after(super().wait, timeout)


class AnnouncedMapResult(MapResult):
    """A MapResult with callbacks: ready once they have run."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._announcement = Announcement(callback, error_callback)

    def ready(self) -> bool:
        """Return whether all calls have ended and the callback has run."""
        return self.done() and self._announcement.made()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all calls have ended and the callback has run, at most `timeout` seconds."""
        return self._announcement.wait_after(super().wait, timeout)


class IMapIterator(_ext.Group):
    """The results of `imap` in the order of the input, as they arrive; `next(timeout)` waits no longer than that."""


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, in the order in which they arrive."""


class PoolWorker:
    """What `Pool._pool` lists: a worker process as others look at it."""

    def __init__(self, engine: _ext.Engine, index: int, pid: int) -> None:
        self._engine = engine
        self.name = f"ShoalWorker-{index + 1}"
        self.pid = self.ident = pid or None  # None: it is being replaced
        self.daemon = False

    @functools.cached_property
    def sentinel(self) -> int:
        """A descriptor that is readable once the process has ended, for `multiprocessing.connection.wait`."""
        try:
            descriptor = os.pidfd_open(self.pid or -1)
        except OSError:  # it has ended: the end of a pipe that nobody writes to is readable, too
            descriptor, other = os.pipe()
            os.close(other)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    @property
    def exitcode(self) -> int | None:
        """What the process ended with, or minus the signal; None while it runs, or if somebody else collected it."""
        return None if self.pid is None or self.is_alive() else self._engine.exit_code(self.pid)

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self.pid is not None and not multiprocessing.connection.wait([self.sentinel], 0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, at most `timeout` seconds."""
        multiprocessing.connection.wait([self.sentinel], timeout)

    def terminate(self) -> None:
        """Send SIGTERM; the pool replaces the worker."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; the pool replaces the worker."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} pid={self.pid}>"


class Pool(multiprocessing.pool.Pool):
    """A pool of worker processes with the interface of `multiprocessing.Pool`.

    Parameters
    ----------
    processes : int, optional
        Number of workers; by default as many as there are CPUs in the affinity mask and the cgroup's quota.
    initializer : callable, optional
        Called as `initializer(*initargs)` in each worker when it starts. If it raises, the pool is broken and every
        call ends with PoolBroken.
    initargs : iterable
        Arguments of the initializer. A fork inherits them; for the other start methods they are pickled, once.
    maxtasksperchild : int, optional
        A worker ends after this many tasks and is replaced.
    context : multiprocessing context or str, optional
        How the workers start: such a context, or "fork", "spawn" or "forkserver". By default what
        `multiprocessing.set_start_method` was told, else fork.
    """

    _state: str = "INIT"  # so that __del__ of a pool whose making failed finds it

    def __init__(  # not calling multiprocessing's: it starts threads and queues
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._ctx = start_context(context)
        self._processes = worker_count(processes, "Number of processes must be at least 1")
        if maxtasksperchild is not None and not (isinstance(maxtasksperchild, int) and maxtasksperchild > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        self._lifetime = Lifetime(
            self._processes, initializer, initargs, maxtasksperchild, self._ctx.get_start_method()
        )
        self._engine = self._lifetime.engine
        self._terminate = util.Finalize(
            self, self._lifetime.terminate, args=("the pool was dropped without being closed",), exitpriority=15
        )
        register(self)
        self._state = RUN

    # ---- single calls ----

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Return `func(*args, **kwds)`, computed by a worker."""
        if self._state != RUN:
            self._refuse()
        return self._engine.call(func, args, kwds or None)

    def apply_async(  # type: ignore[override]
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """Have `func(*args, **kwds)` computed; return its AsyncResult at once.

        `callback(result)` or `error_callback(exception)` runs before the result counts as ready.
        """
        if self._state != RUN:
            self._refuse()
        if callback is None and error_callback is None:
            result = AsyncResult()
            try:
                self._engine.submit(result, func, args, kwds or None)
            except Exception as error:
                self._fail(result, error)
            return result
        announced = AnnouncedResult(callback, error_callback)
        try:
            self._engine.submit(announced, func, args, kwds or None)
        except Exception as error:
            self._fail(announced, error)
        announced._announcement.expect(announced)
        return announced

    # ---- whole lists ----

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return `[func(x) for x in iterable]`, computed by the workers."""
        results: list[Any] = self._get_all(self._map(func, iterable, chunksize, False))
        return results

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Return `[func(*x) for x in iterable]`, computed by the workers."""
        results: list[Any] = self._get_all(self._map(func, iterable, chunksize, True))
        return results

    def map_async(  # type: ignore[override]
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult | AsyncResult:
        """Like `map`, but return the MapResult at once."""
        return self._map(func, iterable, chunksize, False, callback, error_callback)

    def starmap_async(  # type: ignore[override]
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult | AsyncResult:
        """Like `starmap`, but return the MapResult at once."""
        return self._map(func, iterable, chunksize, True, callback, error_callback)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult | AsyncResult:
        if self._state != RUN:
            self._refuse()
        items = iterable if isinstance(iterable, Sized) else list(iterable)
        chunksize = _chunksize(chunksize, len(items), self._processes)
        announced = callback is not None or error_callback is not None
        result = AnnouncedMapResult(callback, error_callback) if announced else MapResult()
        try:
            result._begin(self._engine, func, items, chunksize, star, _ext.Group.LIST, 1)
        except Exception as error:
            failed = AnnouncedResult(callback, error_callback)
            self._fail(failed, error)
            failed._announcement.expect(failed)
            return failed
        if isinstance(result, AnnouncedMapResult):
            result._announcement.expect(result)
        return result

    def _get_all(self, result: MapResult | AsyncResult) -> Any:
        try:
            return result.get()
        except KeyboardInterrupt:
            if not result.done():  # Ctrl-C while waiting, not a task that raised it
                result.cancel()
            raise

    # ---- one by one ----

    def imap(  # type: ignore[override]
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Yield `func(x)` for each x in `iterable`, in its order.

        The input is pulled as results are taken, a bounded number of tasks ahead, so it may be endless. Lists, ranges
        and the like are pulled by the thread that takes the results; anything else has a thread of its own, so that
        results do not wait for a slow input, and an input may wait for results.
        """
        return self._lazily(IMapIterator, func, iterable, chunksize, _ext.Group.ORDERED)

    def imap_unordered(  # type: ignore[override]
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Like `imap`, but yield results in the order in which they arrive."""
        return self._lazily(IMapUnorderedIterator, func, iterable, chunksize, _ext.Group.UNORDERED)

    def _lazily(
        self,
        kind: type[IMapIterator],
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        mode: int,
    ) -> IMapIterator:
        if self._state != RUN:
            self._refuse()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        result = kind()
        result._begin(self._engine, func, iterable, chunksize, False, mode, self._lifetime.tasks_ahead, (iterable,))
        self._lifetime.feed(result)
        return result

    # ---- the end ----

    def close(self) -> None:
        """Take no more work; the workers end when what was asked for is done."""
        if self._state == RUN:
            self._state = CLOSE
            self._engine.close()

    def terminate(self) -> None:
        """End the workers at once. Calls that were not done end with PoolTerminated."""
        if self._state == INHERITED:
            return
        self._state = TERMINATE
        self._lifetime.terminate("the pool was terminated before this task ended")
        self._terminate.cancel()

    def join(self) -> None:
        """Wait for the workers to end, after `close` or `terminate`."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state == INHERITED:
            self._refuse()
        self._engine.join()
        self._terminate.cancel()

    def __enter__(self) -> Pool:
        if self._state != RUN:
            self._refuse()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # ---- what others look at ----

    @property
    def _pool(self) -> list[PoolWorker]:
        return [PoolWorker(self._engine, index, pid) for index, pid in enumerate(self._engine.pids())]

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={self._processes}>"

    def _repopulate_pool(self) -> None:
        """What multiprocessing's tests call to have workers replaced at once; the engine does so by itself."""
        self._engine.drain()

    def _check_running(self) -> None:
        if self._state != RUN:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._state == INHERITED:
            raise ValueError("Pool not running: it belongs to the process that this one was forked from")
        raise ValueError("Pool not running")

    def _fail(self, result: AsyncResult, error: Exception) -> None:
        """Deliver what went wrong while a call was being sent as its outcome, unless the pool itself is at fault."""
        broken = self._engine.broken
        if broken is not None:
            raise broken
        if self._state != RUN:  # closed by another thread meanwhile
            self._refuse()
        result._settle(False, error)

    def _disown(self) -> None:
        self._state = INHERITED


def _successful(result: AsyncResult | MapResult) -> bool:
    if not result.ready():
        raise ValueError(f"{result!r} not ready")
    return result.outcome()[0]


def _chunksize(asked: int | None, items: int, workers: int) -> int:
    """multiprocessing's choice: four chunks for each worker."""
    if asked is None:
        return max(1, -(-items // (workers * 4)))
    if asked < 1:
        raise ValueError(f"Chunksize must be 1+, not {asked:n}")
    return asked
