# SPDX-License-Identifier: BSD-3-Clause
"""Starting a worker: from the parent's fork to the worker's exit. (Those that are not forked: _spawn.py.)

The problem: a forked child inherits everything, and most of it is not meant for it: signal handlers, buffered output,
exit functions, a random state equal to its siblings'. It may be forked at any time and in any thread, as a replacement.

What a worker gets: SIGINT without effect (the parent decides; programs that it starts get the usual one back), SIGTERM
that ends it, standard input from /dev/null, output flushed line by line, streams of random numbers of its own, a
`multiprocessing.current_process()` that says who it is and may have children. What it leaves with: the exit functions
and `multiprocessing` finalizers that tasks registered, never the parent's.

What it costs: pages, for the most part. After a fork each page that either side writes next (a reference count is
enough) is a fault of a microsecond or two. So what is the same for all workers of a pool is made once, before the first
fork; between two forks the parent does nothing else; and in the child, what Python's own modules do in many steps
(names for signal numbers, a new text file for standard input) is done in few.

What it does not do: free locks that another thread of the parent held during the fork (docs/failure.md).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import gc
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import process, util
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

from shoal import _stop
from shoal._crash import CrashFile, write_there
from shoal._thread_limits import told
from shoal._threads import python_warning_only_if_true, warn_before_fork
from shoal._worker_settings import WorkerSettings

if TYPE_CHECKING:
    from shoal._ext import Engine

# Kept away while the child still has the parent's handlers: an exception in there would unwind into the parent's code.
HELD_BACK = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2}


class Parent(NamedTuple):
    """The process that a pool belongs to, as multiprocessing names it."""

    name: str
    pid: int
    identity: tuple[int, ...]
    config: dict[str, Any]

    @classmethod
    def current(cls) -> Parent:
        """Describe this process."""
        current = process.current_process()
        left_out = ("daemon", "tempdir", "authkey")
        config = {key: value for key, value in getattr(current, "_config", {}).items() if key not in left_out}
        return cls(current.name, os.getpid(), tuple(current._identity), config)


class Common(NamedTuple):
    """What is the same for all workers that a thread forks in a row."""

    thread: int
    parent: Parent
    stdin: TextIO | None


class ForkStart:
    """How a pool forks its workers: called by the engine as `start(engine, index)`, also for replacements."""

    def __init__(self, settings: WorkerSettings) -> None:
        warn_before_fork()
        self._settings = settings
        self.crashes = CrashFile()
        # The mask of the thread that makes the pool; the one that forks a replacement may have blocked everything.
        self._signal_mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        self._common: Common | None = None

    @contextmanager
    def several(self) -> Iterator[None]:
        """Have this thread fork several workers in here."""
        with self._prepared() as self._common:
            try:
                yield
            finally:
                self._common = None

    def __call__(self, engine: Engine, index: int) -> int:
        """Fork worker `index`; return its pid in the parent, and never in the child."""
        common = self._common
        if common is not None and common.thread == get_ident():
            return self._fork(engine, index, common)
        with self._prepared() as common:
            return self._fork(engine, index, common)

    @contextmanager
    def _prepared(self) -> Iterator[Common]:
        util._flush_std_streams()  # type: ignore[attr-defined]
        common = Common(get_ident(), Parent.current(), _open_stdin())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            with told(self._settings.threads, self._settings.variables), python_warning_only_if_true():
                yield common
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _fork(self, engine: Engine, index: int, common: Common) -> int:
        self.crashes.wipe(index)
        pid = os.fork()
        if pid == 0:
            self._become_worker(engine, index, common)
        return pid

    def _become_worker(self, engine: Engine, index: int, common: Common) -> NoReturn:
        settings = self._settings

        def serve() -> int:
            settle_in(index, settings, common.parent, self._signal_mask, forked=True, stdin=common.stdin)
            write_there(self.crashes.descriptor, index)
            return engine.work(index, settings.set_up, settings.encode_error, _stop.arm, settings.max_memory)

        serve_and_exit(serve, settings)


class WorkerProcess(process.BaseProcess):
    """What `multiprocessing.current_process()` is in a worker. Not a daemon: tasks may have processes of their own."""

    def __init__(self, index: int, name: str, parent: Parent) -> None:
        self._name = name
        self._identity = (*parent.identity, index + 1)
        self._config = {**parent.config, "authkey": process.current_process().authkey}
        self._parent_pid = parent.pid
        self._parent_name = parent.name
        self._popen = None
        self._closed = False
        self._target = None
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}


class ParentProcess(process._ParentProcess):  # type: ignore[name-defined, misc]
    """What `multiprocessing.parent_process()` is in a worker; the descriptor to wait on is made when asked for."""

    _opened: int | None = None

    @property
    def _sentinel(self) -> int:
        if self._opened is None:
            self._opened = os.pidfd_open(self._pid)
        return self._opened

    @_sentinel.setter
    def _sentinel(self, ignored: None) -> None:
        pass


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


def settle_in(
    index: int,
    settings: WorkerSettings,
    parent: Parent,
    mask: Iterable[int],
    forked: bool,
    stdin: TextIO | None = None,
) -> None:
    """Make this process worker `index` of the pool of `parent`; `forked` from it, or started otherwise.

    stdin: what is to be `sys.stdin`, if it is there already.
    """
    signal.set_wakeup_fd(-1)  # the parent's event loop is not to hear of our signals
    _signal.signal(_signal.SIGINT, _ignore)
    signal.siginterrupt(_signal.SIGINT, False)
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _stop.install()
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [number for number in mask if number != _stop.NUMBER])
    if forked:
        gc.freeze()  # what was inherited is not visited by the collector, so its pages stay shared
    _close_stdin(stdin)
    _flush_by_line()
    if forked:
        atexit._clear()
        atexit.register(util._exit_function)  # type: ignore[attr-defined]
    _become_current_process(index, settings.worker_name(index), parent)
    _reseed()
    settings.settle(index)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: unlike SIG_IGN this is not inherited by a program that a task starts, so Ctrl-C still ends that."""


def _open_stdin() -> TextIO | None:
    """Return a file that reads descriptor 0, whatever that is by then; None if there is no standard input."""
    try:
        return None if sys.__stdin__ is None else open(0, encoding="utf-8", closefd=False)
    except (OSError, ValueError):
        return None


def _close_stdin(stdin: TextIO | None) -> None:
    if sys.__stdin__ is None:  # descriptor 0 is something else
        return
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null != 0:
            os.close(null)
    except OSError:
        return
    sys.stdin = stdin or _open_stdin() or sys.stdin


def _flush_by_line() -> None:
    """What a task printed is seen even if its worker is killed afterwards, and lines of several workers do not mix.

    Without write_through=False, an unbuffered parent (python -u) would have the end of each line written by itself.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            try:
                reconfigure(line_buffering=True, write_through=False)
            except (OSError, ValueError):
                pass


def _become_current_process(index: int, name: str, parent: Parent) -> None:
    vars(process).update(
        _current_process=WorkerProcess(index, name, parent),
        _parent_process=ParentProcess(parent.name, parent.pid, None),
        _process_counter=itertools.count(1),
        _children=set(),
    )
    util._finalizer_registry.clear()  # type: ignore[attr-defined]
    if util._afterfork_registry.data:  # type: ignore[attr-defined]
        util._run_after_forkers()  # type: ignore[attr-defined]


def _reseed() -> None:
    """Give numpy's global generator a state of its own; `random` does so by itself after a fork."""
    seed = getattr(sys.modules.get("numpy.random"), "seed", None)  # None: another thread is half way through its import
    if seed is not None:
        seed()


def leave() -> None:
    """Run what tasks registered for the exit of this process, as the interpreter would."""
    atexit._run_exitfuncs()
