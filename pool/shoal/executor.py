# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.ProcessPoolExecutor`: the interface of `concurrent.futures.ProcessPoolExecutor` on Shoal's engine.

How they end when nobody shuts them down: _executor_end.py.
"""

from __future__ import annotations

import concurrent.futures
import functools
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures._base import LOGGER
from multiprocessing import util
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from shoal import _ext
from shoal._async_calls import AsyncCalls
from shoal._executor_end import at_exit, collect_orphans, end_for_good, finish
from shoal._executor_map import check_sizes, each_until, results_until
from shoal._lifetime import Lifetime, register, start_context, worker_count
from shoal._limits import ExecutorOptions, Limits, options, standing, with_defaults
from shoal._pool_worker import PoolWorker
from shoal._retry import Retry
from shoal._retry_map import RetriedIterator
from shoal._seeing import Seen
from shoal._worker_settings import ExecutorPoolOptions, worker_settings
from shoal._workers import Workers
from shoal.errors import PoolTerminated, future_error
from shoal.future import Future

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from shoal._progress import Bar

OPEN, SHUT, TERMINATED, INHERITED = "open", "shut", "terminated", "inherited"


class ProcessPoolExecutor(  # submit() is the first one's
    _ext.Submitter, Workers, AsyncCalls, Seen, concurrent.futures.Executor
):
    """An executor of worker processes with the interface of `concurrent.futures.ProcessPoolExecutor`.

    The workers start with the first call.

    Parameters
    ----------
    max_workers : int, optional
        Number of workers; by default as many as there are CPUs in the affinity mask and the cgroup's quota.
    mp_context : multiprocessing context or str, optional
        How the workers start: such a context, or "fork", "spawn" or "forkserver". By default what
        `multiprocessing.set_start_method` was told, else fork.
    initializer : callable, optional
        Called as `initializer(*initargs)` in each worker when it starts. If it raises, the executor is broken and every
        future ends with PoolBroken.
    initargs : iterable
        Arguments of the initializer. A fork inherits them; for the other start methods they are pickled, once.
    max_tasks_per_child : int, optional
        A worker ends after this many tasks and is replaced.
    name : str, optional
        What the executor is called; its workers are called after it.
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
        order: at shutdown, or when the worker has had its number of tasks. Both get the worker, which is what
        `shoal.current_worker` returns, or nothing if they can be called without. If worker_init raises, the executor
        is broken; what worker_exit raises is written to standard error.
    forward : bool or collection of str, optional
        What workers log, warn of and print goes through this process: see the guide to logging.
    timeout, grace, retries, retry_if, backoff, abort_on_error, progress, cancel_running
        Limits of all calls that do not say otherwise: see `options`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        **asked: Unpack[ExecutorPoolOptions],
    ) -> None:
        self._mp_context = start_context(mp_context)
        self._max_workers = worker_count(max_workers, "max_workers must be greater than 0")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._settings, others = worker_settings(asked, _logged(initializer), initargs, max_tasks_per_child)
        self._limits = standing(options(**others))
        self._lock = threading.Lock()
        self._lifetime: Lifetime | None = None
        self._engine = None  # set while calls are taken
        self._futures = Future
        if self._limits is not None:
            self._instead = functools.partial(_submit_limited, weakref.ref(self), self._limits)
        self._state = OPEN
        register(self)

    def options(self, **asked: Unpack[ExecutorOptions]) -> ProcessPoolExecutor:
        """Return a view of this executor whose calls have these limits; what is not given is as in this one.

        Parameters
        ----------
        timeout : float, optional
            A task that takes longer, in seconds from when a worker takes it, is stopped and ends with TaskTimeout. In
            `map` this goes for each element.
        grace : float, optional
            How long a task that is stopped may take to end before its worker is killed; 1 second by default.
        retries : int, optional
            How often a task is sent again whose worker died. Without it, user code runs at most once.
        retry_if : callable, optional
            `retry_if(exception)` says whether a task that raised is sent again, too. Called in this process.
        backoff : float or callable, optional
            Seconds before a task is sent again: each time twice as many as before, or `backoff(n)` before attempt n.
        abort_on_error : bool, optional
            The first error of a `map` ends it at once: what is left is taken back, what runs is stopped.
        progress : bool, str or callable, optional
            `map` shows on standard error how far it is: True, or a text to show beside, for a bar of tqdm; or a class
            that makes a bar, such as `tqdm.tqdm` or a `functools.partial` of it.
        cancel_running : bool, optional
            `Future.cancel()` stops a call that runs, and so do those who call it: `asyncio` for one.
        seed : int, sequence of int or numpy.random.SeedSequence, optional
            What random numbers the tasks draw: `random`'s, numpy's global ones, and those of `shoal.rng`.
        """
        return ExecutorView(self, standing(options(**asked)))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: Any = None,
        seed: Any = None,
    ) -> Iterator[Any]:
        """Yield `fn(*x)` for each x in `zip(*iterables)`, in order.

        The input is pulled as results are taken, a bounded number of tasks ahead, so it may be endless. Lists, ranges
        and the like are pulled by the thread that takes the results; anything else has a thread of its own, so that
        results do not wait for a slow input, and an input may wait for results.

        Parameters
        ----------
        timeout : float, optional
            The iterator raises TimeoutError if a result does not arrive within so many seconds from this call.
        chunksize : int
            How many elements make a task.
        buffersize : int, optional
            How many tasks there may be whose results were not taken. So much of the input is pulled before `map`
            returns, and no more until some are taken, also when the executor is shut down; without a buffersize,
            shutdown lets all of the input be computed.
        progress : bool, str or callable, optional
            A progress bar: see `options`.
        seed : int, sequence of int or numpy.random.SeedSequence, optional
            Of the random numbers that the elements draw: see `options`.

        Raises
        ------
        concurrent.futures.TimeoutError
            From the iterator: see `timeout`.
        """
        check_sizes(chunksize, buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._engine is None:
            self._start()
        lifetime = self._lifetime
        assert lifetime is not None
        asked = self._limits
        if progress is not None or seed is not None:
            asked = with_defaults(options(progress=progress, seed=seed), asked)
        bar = None if asked is None else asked.bar(lifetime.engine, *iterables)
        ahead = buffersize or lifetime.tasks_ahead
        if asked is not None and asked.retried:
            results = self._map_retried(fn, zip(*iterables), ahead, deadline, asked, bar)
            return results if bar is None else bar.of_iterator(results)
        group = _ext.Group()
        if asked is not None:
            asked.apply_to(group)
            fn = asked.seeded(fn, elements=True)
        bounded = buffersize is not None
        group._begin(
            lifetime.engine, fn, zip(*iterables), chunksize, True, _ext.Group.ORDERED, ahead, iterables, bounded
        )
        lifetime.feed(group, bounded)
        if bar is None:
            return results_until(group, lifetime, deadline)
        bar.counts = group._counts
        return bar.of_iterator(results_until(group, lifetime, deadline))

    def _map_retried(
        self,
        fn: Callable[..., Any],
        items: Iterable[Any],
        ahead: int,
        deadline: float | None,
        asked: Limits,
        bar: Bar | None,
    ) -> Iterator[Any]:
        limits, reference = asked.of_elements(), weakref.ref(self)
        lifetime = self._lifetime
        assert lifetime is not None

        def send(item: tuple[Any, ...]) -> Any:
            if self._engine is None:
                self._start()  # refuses
            return _submit_limited(reference, limits(), lifetime.engine, fn, item, None)

        sender = send if bar is None else bar.count(send)
        results = RetriedIterator(sender, items, ahead, True, bool(asked.abort_on_error))
        results._pull()
        return each_until(results, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the workers end when all that were taken are done.

        Parameters
        ----------
        wait : bool
            Return when the workers have ended.
        cancel_futures : bool
            Cancel the calls that no worker has begun.
        """
        with self._lock:
            if self._state == INHERITED:
                return
            if self._state == OPEN:
                self._state = SHUT
            self._engine = None
            lifetime = self._lifetime
        if lifetime is None:
            return
        if cancel_futures:
            lifetime.cancel_pending()
        lifetime.stop_bounded(RuntimeError("cannot schedule new futures after shutdown"))
        lifetime.close()
        if wait:
            lifetime.join()
            self._finalizer.cancel()

    def terminate_workers(self) -> None:
        """Send SIGTERM to every worker and take no more calls.

        Calls that a worker is running end with WorkerLost when it dies; those that none has begun are cancelled.
        """
        self._end_workers(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Send SIGKILL to every worker and take no more calls.

        Calls that a worker is running end with WorkerLost; those that none has begun are cancelled.
        """
        self._end_workers(signal.SIGKILL)

    def _end_workers(self, number: signal.Signals) -> None:
        with self._lock:
            if self._state == INHERITED:
                return
            self._state = SHUT
            self._engine = None
            lifetime = self._lifetime
        if lifetime is not None:
            lifetime.cancel_pending()
            lifetime.engine.abandon(PoolTerminated(f"the executor's workers were sent {number.name}"), number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._terminate("the executor was left by Ctrl-C before this task ended")
        else:
            self.shutdown(wait=True)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._state}, {self._max_workers} workers>"

    # ---- what others look at ----

    @property
    def _processes(self) -> dict[int, PoolWorker]:
        if self._lifetime is None:
            return {}
        engine, name = self._lifetime.engine, self._settings.worker_name
        return {pid: PoolWorker(engine, index, pid, name(index)) for index, pid in enumerate(engine.pids()) if pid}

    def _seen_engine(self) -> _ext.Engine | None:
        return None if self._lifetime is None else self._lifetime.engine

    @property
    def _broken(self) -> BaseException | bool:
        return (self._lifetime is not None and self._lifetime.engine.broken) or False

    # ---- beginning and end ----

    def _start(self) -> _ext.Engine:
        """Start the workers if nobody has; refuse if calls are not taken any more."""
        with self._lock:
            if self._state != OPEN:
                self._refuse()
            if at_exit.begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._lifetime is None:
                collect_orphans()
                lifetime = Lifetime(
                    self._max_workers, self._settings, self._mp_context.get_start_method(), future_error
                )
                self._finalizer = util.Finalize(self, finish, args=(lifetime,), exitpriority=15)
                self._lifetime = lifetime
                at_exit.executors.add(self)
                self._started(lifetime)
            self._engine = self._lifetime.engine
            return self._engine

    def _started(self, lifetime: Lifetime) -> None:
        """Workers have been started, for the first time or again."""

    def _resize(self, workers: int) -> None:
        with self._lock:
            if self._state != OPEN:
                self._refuse()
            lifetime = self._lifetime
            if lifetime is None:
                self._max_workers = workers
        if lifetime is not None:
            self._max_workers = lifetime.resize(workers)

    def _taking_calls(self) -> Lifetime:
        if self._engine is None:
            self._start()
        lifetime = self._lifetime
        assert lifetime is not None
        return lifetime

    def _terminate(self, why: str) -> None:
        with self._lock:
            self._state = TERMINATED
            self._engine = None
        if self._lifetime is not None:
            self._lifetime.terminate(why)
            self._finalizer.cancel()

    def _finish_for_good(self) -> None:
        """The interpreter exits: let what was submitted end."""
        if self._state == INHERITED or self._lifetime is None:
            return
        end_for_good(self._lifetime)
        self._finalizer.cancel()

    def _refuse(self) -> NoReturn:
        if self._state == INHERITED:
            raise RuntimeError("this executor belongs to the process that this one was forked from")
        raise RuntimeError("cannot schedule new futures after shutdown")

    def _fail(self, future: Future, error: Exception) -> None:
        """Deliver what went wrong while a call was being sent through its future, unless the executor is at fault."""
        broken = self._broken
        if isinstance(broken, BaseException):
            raise broken
        if self._state != OPEN:  # shut down by another thread meanwhile
            self._refuse()
        if at_exit.begun:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        future._settle(False, error)

    def _disown(self) -> None:
        self._state = INHERITED
        self._engine = None
        self._lock = threading.Lock()  # another thread may have held it when the process forked


class ExecutorView(ProcessPoolExecutor):
    """An executor with limits of its own: what `options` returns. It begins and ends with the executor."""

    def __init__(self, executor: ProcessPoolExecutor, asked: Limits | None) -> None:
        self._of = executor
        self._futures = Future
        self._limits = executor._limits if asked is None else asked.over(executor._limits)
        if self._limits is not None:
            self._instead = functools.partial(_submit_limited, weakref.ref(self), self._limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_of"], name)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._of.shutdown(wait, cancel_futures=cancel_futures)

    def _start(self) -> _ext.Engine:
        return self._of._start()

    def _resize(self, workers: int) -> None:
        self._of._resize(workers)

    def _end_workers(self, number: signal.Signals) -> None:
        self._of._end_workers(number)

    def _terminate(self, why: str) -> None:
        self._of._terminate(why)


def _submit_limited(
    reference: weakref.ref[ProcessPoolExecutor],
    asked: Limits,
    engine: _ext.Engine,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> Future:
    future = Future()
    asked.apply_to(future)
    if asked.cancel_running:
        future._cancel_running = True
    fn = asked.seeded(fn)
    executor = reference()
    assert executor is not None
    try:
        if asked.retried:
            assert executor._lifetime is not None
            future._retry = Retry(future, executor._lifetime, asked)
            future._retry.begin(fn, args, kwargs or {})
        else:
            engine.submit(future, fn, args, kwargs)
    except Exception as error:
        executor._fail(future, error)
    return future


def _logged(initializer: Callable[..., object] | None) -> Callable[..., object] | None:
    return functools.partial(_initialize, initializer) if callable(initializer) else initializer


def _initialize(initializer: Callable[..., object], *arguments: Any) -> None:
    """Run the initializer in a worker; log what it raises, as concurrent.futures does."""
    try:
        initializer(*arguments)
    except BaseException:
        LOGGER.critical("Exception in initializer:", exc_info=True)
        util._run_finalizers()  # type: ignore[attr-defined]  # a log may go through a queue, which has to be emptied
        raise
