# SPDX-License-Identifier: BSD-3-Clause
"""Starting a worker: from the parent's fork to the worker's exit. (Those that are not forked: _spawn.py.)

The problem: a forked child inherits everything, and most of it is not meant for it: signal handlers, buffered output,
exit functions, a random state equal to its siblings'. It may be forked at any time and in any thread, as a replacement.

What a worker gets: SIGINT without effect (the parent decides; programs that it starts get the usual one back), SIGTERM
that ends it, standard input from /dev/null, output flushed line by line, streams of random numbers of its own, a
`multiprocessing.current_process()` that says who it is and may have children. What it leaves with: the exit functions
and `multiprocessing` finalizers that tasks registered, never the parent's.

What it costs: pages, for the most part. After a fork each page that either side writes next (a reference count is
enough) is a fault of two or three microseconds. So the worker's way is made ready before the first fork (_settle.py),
and between two forks the parent does nothing else.

What it does not do: free locks that another thread of the parent held during the fork (docs/failure.md).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from shoal import _stop
from shoal._crash import CrashFile, write_there
from shoal._current import Step
from shoal._settle import Parent, StandardInput, common_steps, own_steps, take
from shoal._thread_limits import told
from shoal._threads import python_warning_only_if_true, warn_before_fork
from shoal._worker_settings import WorkerSettings

if TYPE_CHECKING:
    from shoal._ext import Engine

# Kept away while the child still has the parent's handlers: an exception in there would unwind into the parent's code.
HELD_BACK = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2}


class Ready(NamedTuple):
    """What is made before a fork: the worker's steps, those that all have and its own."""

    common: list[Step]
    own: dict[int, list[Step]]


class ForkStart:
    """How a pool forks its workers: called by the engine as `start(engine, index)`, also for replacements."""

    def __init__(self, settings: WorkerSettings) -> None:
        warn_before_fork()
        self._settings = settings
        self.crashes = CrashFile()
        # The mask of the thread that makes the pool; the one that forks a replacement may have blocked everything.
        self._signal_mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]

    def __call__(self, engine: Engine, index: int) -> int:
        """Fork worker `index`; return its pid in the parent, and never in the child."""
        with self._ready(range(index, index + 1)) as ready:
            pid = os.fork()
            if pid == 0:
                self._become_worker(engine, index, ready)
            return pid

    def several(self, engine: Engine, count: int, pids: list[int]) -> None:
        """Fork workers 0 to count - 1, one right after the other; their pids go into `pids`, even if one fails."""
        indices = range(count)
        with self._ready(indices) as ready:
            fork, forking, forked = os.fork, engine.forking, pids.append
            for index in indices:
                forking(index)
                pid = fork()
                if pid == 0:
                    self._become_worker(engine, index, ready)
                forked(pid)

    @contextmanager
    def _ready(self, indices: range) -> Iterator[Ready]:
        util._flush_std_streams()  # type: ignore[attr-defined]
        for index in indices:
            self.crashes.wipe(index)
        settings, parent, stdin = self._settings, Parent.current(), StandardInput.new()
        try:
            common = common_steps(settings, self._signal_mask, stdin, forked=True)
            ready = Ready(common, {index: own_steps(index, settings, parent) for index in indices})
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
            try:
                with told(settings.threads, settings.variables), python_warning_only_if_true():
                    yield ready
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        finally:
            if stdin is not None:
                os.close(stdin.null)

    def _become_worker(self, engine: Engine, index: int, ready: Ready) -> NoReturn:
        settings = self._settings

        def serve() -> int:
            take(ready.common)
            take(ready.own[index])
            write_there(self.crashes.descriptor, index)
            return engine.work(index, settings.set_up, settings.encode_error, _stop.arm, settings.max_memory)

        serve_and_exit(serve, settings)


def serve_and_exit(serve: Callable[[], int], settings: WorkerSettings) -> NoReturn:
    """Run a worker's life and end the process with the code that it returns, or 1 and a traceback if it raises."""
    code = 1
    try:
        code = serve()
        if code == 0:
            settings.tear_down()
        leave()
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            settings.forwarding.finish()
        with suppress(BaseException):
            util._flush_std_streams()  # type: ignore[attr-defined]
        os._exit(code)


def leave() -> None:
    """Wait for threads that tasks have left, daemons excepted, and run what tasks registered for the exit of this
    process, as the interpreter would.
    """
    main = threading.main_thread()
    if getattr(main, "_tstate_lock", main) is None:  # before 3.12: forked by a thread that Python did not make
        main._set_tstate_lock()  # type: ignore[attr-defined]
    try:
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
