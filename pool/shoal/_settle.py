# SPDX-License-Identifier: BSD-3-Clause
"""What turns a process into a worker, as steps: made in the parent for a fork, taken in the worker.

The problem: after a fork each page that the child writes is copied, at two or three microseconds a page, and running
Python code writes wherever the objects lie that it comes across: reference counts, counters in code.

The way: what can be made beforehand is, so that it lies together, and what is left for the worker are calls, most of
them of functions in C, with arguments that are there already. A worker that is started anew makes and takes the same
steps.

Making them changes nothing that the parent could notice.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import gc
import itertools
import os
import sys
from collections.abc import Iterable
from multiprocessing import process, util
from types import FrameType
from typing import Any, NamedTuple, TextIO

from shoal import _stop
from shoal._current import Step
from shoal._worker_settings import WorkerSettings


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


class StandardInput(NamedTuple):
    """What workers get: a descriptor of /dev/null, and a file that reads descriptor 0, whatever that is by then."""

    null: int
    text: TextIO

    @classmethod
    def new(cls) -> StandardInput | None:
        """Open both; None if there is no standard input, and descriptor 0 is something else."""
        if sys.__stdin__ is None:
            return None
        try:
            null = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return None
        try:
            return cls(null, open(0, encoding="utf-8", closefd=False))
        except (OSError, ValueError):
            os.close(null)
            return None

    def steps(self) -> list[Step]:
        """Have it as `sys.stdin`."""
        steps: list[Step] = [(setattr, (sys, "stdin", self.text))]
        if self.null != 0:
            steps += [(os.dup2, (self.null, 0)), (os.close, (self.null,))]
        return steps


def take(steps: Iterable[Step]) -> None:
    """Do what they say."""
    for function, arguments in steps:
        function(*arguments)


def common_steps(
    settings: WorkerSettings, mask: Iterable[int], stdin: StandardInput | None, forked: bool
) -> list[Step]:
    """Return what is the same for all workers; `forked` from this process, or else this is the worker."""
    mask = [number for number in mask if number != _stop.NUMBER]
    steps: list[Step] = [
        (_signal.set_wakeup_fd, (-1,)),  # the parent's event loop is not to hear of our signals
        (_signal.signal, (_signal.SIGINT, _ignore)),
        (_signal.siginterrupt, (_signal.SIGINT, False)),
        (_signal.signal, (_signal.SIGTERM, _signal.SIG_DFL)),
        *_stop.steps(),
        (_signal.pthread_sigmask, (_signal.SIG_SETMASK, mask)),
    ]
    if forked:
        steps.append((gc.freeze, ()))  # what was inherited is not visited by the collector, so its pages stay shared
    if stdin is not None:
        steps += stdin.steps()
    steps += _flush_by_line()
    if forked:
        steps += [(atexit._clear, ()), (atexit.register, (util._exit_function,))]  # type: ignore[attr-defined]
    steps.append((util._finalizer_registry.clear, ()))  # type: ignore[attr-defined]
    return steps + _reseed() + settings.common_steps()


def own_steps(index: int, settings: WorkerSettings, parent: Parent) -> list[Step]:
    """Return what makes it this worker; after the common steps."""
    identity = {
        "_current_process": WorkerProcess(index, settings.worker_name(index), parent),
        "_parent_process": ParentProcess(parent.name, parent.pid, None),
        "_process_counter": itertools.count(1),
        "_children": set(),
    }
    return [(vars(process).update, (identity,)), (_after_forkers, ()), *settings.own_steps(index)]


def _after_forkers() -> None:
    if util._afterfork_registry.data:  # type: ignore[attr-defined]
        util._run_after_forkers()  # type: ignore[attr-defined]


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: unlike SIG_IGN this is not inherited by a program that a task starts, so Ctrl-C still ends that."""


def _flush_by_line() -> list[Step]:
    """What a task printed is seen even if its worker is killed afterwards, and lines of several workers do not mix.

    Without write_through=False, an unbuffered parent (python -u) would have the end of each line written by itself.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    return [(_reconfigure, (stream.reconfigure,)) for stream in streams if not _flushes_by_line(stream)]


def _flushes_by_line(stream: Any) -> bool:
    return getattr(stream, "line_buffering", False) is True and getattr(stream, "write_through", True) is False


def _reconfigure(reconfigure: Any) -> None:
    try:
        reconfigure(line_buffering=True, write_through=False)
    except (OSError, ValueError):
        pass


def _reseed() -> list[Step]:
    """Give numpy's global generator a state of its own; `random` does so by itself after a fork."""
    seed = getattr(sys.modules.get("numpy.random"), "seed", None)  # None: another thread is half way through its import
    return [] if seed is None else [(seed, ())]
