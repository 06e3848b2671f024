# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.Pool`: the interface of `multiprocessing.pool.Pool` on Shoal's engine.

Callbacks run once, in whatever thread collects the result: the one that waits for it, or the engine's own. They run
before the result counts as ready, should be short, and what they raise is reported through `threading.excepthook`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import warnings
from collections.abc import Callable, Iterable, Mapping, Sized
from multiprocessing import util
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from shoal import _ext
from shoal._async_calls import AsyncCalls
from shoal._lifetime import Lifetime, register, start_context, worker_count
from shoal._limits import Limits, Options, options, standing, with_defaults
from shoal._pool_worker import PoolWorker
from shoal._results import (
    AnnouncedMapResult,
    AnnouncedResult,
    AsyncResult,
    Callback,
    Callbacks,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    map_result,
)
from shoal._retry import Retry
from shoal._retry_map import RetriedIterator, RetriedMap
from shoal._seeing import Seen
from shoal._worker_settings import PoolOptions, worker_settings
from shoal._workers import Workers

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from shoal._progress import WatchedIterator

    LazyResults = IMapIterator | RetriedIterator | WatchedIterator

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"  # multiprocessing.pool's own words; others read Pool._state
INHERITED = "INHERITED"


class Pool(Workers, AsyncCalls, Seen, multiprocessing.pool.Pool):
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
    name : str, optional
        What the pool is called; its workers are called after it.
    resizable_to : int, optional
        How many workers `resize` is to be able to give it.
    max_worker_memory : int or str, optional
        Bytes, or "2GB", "500MiB": a worker that has more memory of its own ends after its task and is replaced.
    cpu_affinity : list or str, optional
        CPUs that the workers run on; a list of such lists: each worker takes the next; "spread": each has its share.
    worker_threads : int, optional
        Threads of numerical libraries in each worker (BLAS, OpenMP); 0: as many as they like. By default workers times
        threads stay within the CPUs that may be used, unless OMP_NUM_THREADS is set.
    worker_init, worker_exit : callable, optional
        Called in each worker before its first task, after the initializer, and after its last one, whenever it ends in
        order: when the pool is closed, or the worker has had its number of tasks. Both get the worker, which is what
        `shoal.current_worker` returns, or nothing if they can be called without. If worker_init raises, the pool is
        broken; what worker_exit raises is written to standard error.
    forward : bool or collection of str, optional
        What workers log, warn of and print goes through this process: see the guide to logging.
    timeout, grace, retries, retry_if, backoff, abort_on_error, progress
        Limits of all calls that do not say otherwise: see `options`.
    """

    _state: str = "INIT"  # so that __del__ of a pool whose making failed finds it

    def __init__(  # not calling multiprocessing's: it starts threads and queues
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        **asked: Unpack[PoolOptions],
    ) -> None:
        self._ctx = start_context(context)
        self._processes = worker_count(processes, "Number of processes must be at least 1")
        if maxtasksperchild is not None and not (isinstance(maxtasksperchild, int) and maxtasksperchild > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._settings, others = worker_settings(asked, initializer, initargs, maxtasksperchild)
        self._limits = standing(options(**others))
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        self._lifetime = Lifetime(self._processes, self._settings, self._ctx.get_start_method())
        self._engine = self._lifetime.engine
        self._terminate = util.Finalize(
            self, self._lifetime.terminate, args=("the pool was dropped without being closed",), exitpriority=15
        )
        register(self)
        self._state = RUN

    def options(self, **asked: Unpack[Options]) -> Pool:
        """Return a view of this pool whose calls have these limits; what is not given is as in this one.

        Parameters
        ----------
        timeout : float, optional
            A task that takes longer, in seconds from when a worker takes it, is stopped and ends with TaskTimeout. In a
            map-like call this goes for each element.
        grace : float, optional
            How long a task that is stopped may take to end before its worker is killed; 1 second by default.
        retries : int, optional
            How often a task is sent again whose worker died. Without it, user code runs at most once.
        retry_if : callable, optional
            `retry_if(exception)` says whether a task that raised is sent again, too. Called in this process.
        backoff : float or callable, optional
            Seconds before a task is sent again: each time twice as many as before, or `backoff(n)` before attempt n.
        abort_on_error : bool, optional
            The first error of a map-like call ends it at once: what is left is taken back, what runs is stopped.
        progress : bool, str or callable, optional
            Map-like calls show on standard error how far they are: True, or a text to show beside, for a bar of tqdm;
            or a class that makes a bar, such as `tqdm.tqdm` or a `functools.partial` of it.
        seed : int, sequence of int or numpy.random.SeedSequence, optional
            What random numbers the tasks draw: `random`'s, numpy's global ones, and those of `shoal.rng`.
        """
        from shoal._pool_view import PoolView

        return PoolView(self, standing(options(**asked)))

    # ---- single calls ----

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        **asked: Unpack[Options],
    ) -> Any:
        """Return `func(*args, **kwds)`, computed by a worker. The limits: see `options`."""
        if self._state != RUN:
            self._refuse()
        if asked or self._limits is not None:
            return self._get_all(self.apply_async(func, args, kwds, **asked))
        return self._engine.call(func, args, kwds or None)

    def apply_async(  # type: ignore[override]
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        **asked: Unpack[Options],
    ) -> AsyncResult:
        """Have `func(*args, **kwds)` computed; return its AsyncResult at once. The limits: see `options`.

        `callback(result)` or `error_callback(exception)` runs before the result counts as ready.
        """
        if self._state != RUN:
            self._refuse()
        if asked or self._limits is not None:
            limits = with_defaults(options(**asked), self._limits)
            return self._limited(func, args, kwds, callback, error_callback, limits)
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

    def _limited(
        self,
        func: Callable[..., Any],
        args: Iterable[Any],
        kwds: Mapping[str, Any] | None,
        callback: Callback | None,
        error_callback: Callback | None,
        asked: Limits,
    ) -> AsyncResult:
        announced = callback is not None or error_callback is not None
        result = AnnouncedResult(callback, error_callback) if announced else AsyncResult()
        asked.apply_to(result)
        func = asked.seeded(func)
        try:
            if asked.retried:
                result._retry = Retry(result, self._lifetime, asked)
                result._retry.begin(func, tuple(args), dict(kwds or {}))
            else:
                self._engine.submit(result, func, args, kwds or None)
        except Exception as error:
            self._fail(result, error)
        if isinstance(result, AnnouncedResult):
            result._announcement.expect(result)
        return result

    # ---- whole lists ----

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        **asked: Unpack[Options],
    ) -> list[Any]:
        """Return `[func(x) for x in iterable]`, computed by the workers. The limits: see `options`."""
        results: list[Any] = self._get_all(self._map(func, iterable, chunksize, False, asked=self._asked(asked)))
        return results

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        **asked: Unpack[Options],
    ) -> list[Any]:
        """Return `[func(*x) for x in iterable]`, computed by the workers. The limits: see `options`."""
        results: list[Any] = self._get_all(self._map(func, iterable, chunksize, True, asked=self._asked(asked)))
        return results

    def _asked(self, asked: Options) -> Limits | None:
        given = options(**asked) if asked else None
        return self._limits if given is None else given.over(self._limits)

    def map_async(  # type: ignore[override]
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        **asked: Unpack[Options],
    ) -> MapResult | AsyncResult:
        """Like `map`, but return the MapResult at once."""
        return self._map(func, iterable, chunksize, False, callback, error_callback, self._asked(asked))

    def starmap_async(  # type: ignore[override]
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        **asked: Unpack[Options],
    ) -> MapResult | AsyncResult:
        """Like `starmap`, but return the MapResult at once."""
        return self._map(func, iterable, chunksize, True, callback, error_callback, self._asked(asked))

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        asked: Limits | None = None,
    ) -> MapResult | AsyncResult:
        if self._state != RUN:
            self._refuse()
        items = iterable if isinstance(iterable, Sized) else list(iterable)
        chunksize = _chunksize(chunksize, len(items), self._processes)
        callbacks = None if callback is None and error_callback is None else (callback, error_callback)
        if asked is not None and asked.retried:
            return self._map_retried(func, items, star, callbacks, asked)
        result = map_result(self._engine, callbacks, asked, items)
        func = func if asked is None else asked.seeded(func, elements=True)
        try:
            result._begin(self._engine, func, items, chunksize, star, _ext.Group.LIST, 1)
        except BaseException as error:
            if result._bar is not None:
                result._bar.close()
            if not isinstance(error, Exception):
                raise
            failed = AnnouncedResult(callback, error_callback)
            self._fail(failed, error)
            failed._announcement.expect(failed)
            return failed
        if isinstance(result, AnnouncedMapResult):
            result._announcement.expect(result)
        return result

    def _map_retried(
        self,
        func: Callable[..., Any],
        items: Any,
        star: bool,
        callbacks: Callbacks | None,
        asked: Limits,
    ) -> AsyncResult:
        send = self._sender(func, star, asked)
        bar = asked.bar(self._engine, items)
        if bar is None:
            outer = AsyncResult() if callbacks is None else AnnouncedResult(*callbacks)
        else:
            outer, send = bar.of_calls(callbacks, send, len(items))
        outer._attach(self._engine)
        outer._retry = RetriedMap(outer, send, items, bool(asked.abort_on_error))
        if isinstance(outer, AnnouncedResult):
            outer._announcement.expect(outer)
        return outer

    def _sender(self, func: Callable[..., Any], star: bool, asked: Limits) -> Callable[[Any], AsyncResult]:
        limits = asked.of_elements()

        def send(item: Any) -> AsyncResult:
            return self._limited(func, item if star else (item,), None, None, None, limits())

        return send

    def _get_all(self, result: MapResult | AsyncResult) -> Any:
        try:
            return result.get()
        except KeyboardInterrupt:
            if not result.done():  # Ctrl-C while waiting, not a task that raised it
                result.cancel()
            raise

    # ---- one by one ----

    def imap(  # type: ignore[override]
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        **asked: Unpack[Options],
    ) -> LazyResults:
        """Yield `func(x)` for each x in `iterable`, in its order.

        The input is pulled as results are taken, a bounded number of tasks ahead, so it may be endless. Lists, ranges
        and the like are pulled by the thread that takes the results; anything else has a thread of its own, so that
        results do not wait for a slow input, and an input may wait for results. The limits: see `options`.
        """
        return self._lazily(IMapIterator, func, iterable, chunksize, _ext.Group.ORDERED, self._asked(asked))

    def imap_unordered(  # type: ignore[override]
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        **asked: Unpack[Options],
    ) -> LazyResults:
        """Like `imap`, but yield results in the order in which they arrive."""
        return self._lazily(IMapUnorderedIterator, func, iterable, chunksize, _ext.Group.UNORDERED, self._asked(asked))

    def _lazily(
        self,
        kind: type[IMapIterator],
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        mode: int,
        asked: Limits | None,
    ) -> LazyResults:
        if self._state != RUN:
            self._refuse()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        bar = None if asked is None else asked.bar(self._engine, iterable)
        results: IMapIterator | RetriedIterator
        if asked is not None and asked.retried:
            send, ordered = self._sender(func, False, asked), mode == _ext.Group.ORDERED
            send = send if bar is None else bar.count(send)
            results = RetriedIterator(send, iterable, self._lifetime.tasks_ahead, ordered, bool(asked.abort_on_error))
            return results if bar is None else bar.of_iterator(results)
        results = kind()
        if asked is not None:
            asked.apply_to(results)
            func = asked.seeded(func, elements=True)
        watched = results if bar is None else bar.of_iterator(results)
        results._begin(self._engine, func, iterable, chunksize, False, mode, self._lifetime.tasks_ahead, (iterable,))
        self._lifetime.feed(results)
        return watched

    # ---- the end ----

    def close(self) -> None:
        """Take no more work; the workers end when what was asked for is done."""
        if self._state == RUN:
            self._state = CLOSE
            self._lifetime.close()

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
        self._lifetime.join()
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
        name = self._settings.worker_name
        return [PoolWorker(self._engine, index, pid, name(index)) for index, pid in enumerate(self._engine.pids())]

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={self._processes}>"

    def _repopulate_pool(self) -> None:
        """What multiprocessing's tests call to have workers replaced at once; the engine does so by itself."""
        self._engine.drain()

    def _resize(self, workers: int) -> None:
        if self._state != RUN:
            self._refuse()
        self._processes = self._lifetime.resize(workers)

    def _check_running(self) -> None:
        if self._state != RUN:
            self._refuse()

    def _taking_calls(self) -> Lifetime:
        if self._state != RUN:
            self._refuse()
        return self._lifetime

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


def _chunksize(asked: int | None, items: int, workers: int) -> int:
    """multiprocessing's choice: four chunks for each worker."""
    if asked is None:
        return max(1, -(-items // (workers * 4)))
    if asked < 1:
        raise ValueError(f"Chunksize must be 1+, not {asked:n}")
    return asked
