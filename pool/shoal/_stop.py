# SPDX-License-Identifier: BSD-3-Clause
"""How a task is stopped in the middle, as far as that is Python: the signal's handler in the worker, and where it was.

The engine says which task is meant (pool/ext/limits.c, worker_stop.c); the handler asks it, so a signal that comes late
does nothing. A task in C code that does not come back to the interpreter never runs the handler. So that it can be
said all the same where it was, `faulthandler` writes the stack into a memory file when the signal arrives; the parent
reads it under /proc before it kills the worker.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import functools
import os
import sys
from contextlib import suppress
from types import FrameType

from shoal import _ext
from shoal._current import Step
from shoal.errors import TaskStopped, TaskTimeout

NUMBER: int = _signal.SIGRTMAX - 7
STACK_NAME = "shoal-stack"
STACK_BYTES_MAX = 8192
STARTS = tuple(os.path.join(os.path.dirname(__file__), name) for name in ("_worker.py", "_spawn.py"))


class _Worker:
    """What this worker process knows: the file for stacks, how long the stopped task had run, and where it was."""

    file = -1
    seconds = 0.0
    where = ""


def steps() -> list[Step]:
    """Return what has a process stop its task when it is told to. In its main thread, once."""
    # Where exceptions are ignored (around a fork, in __del__), the one that was to end the task goes astray.
    missed = functools.partial(_ext._stop_missed, TaskStopped, sys.unraisablehook)
    return [(_signal.signal, (NUMBER, _stop)), (setattr, (sys, "unraisablehook", missed))]


def _stop(number: int, frame: FrameType | None) -> None:
    seconds = _ext._stop_wanted()
    if seconds is None:  # that task has ended
        _forget()
        return
    _Worker.seconds = seconds
    _Worker.where = ""
    try:
        _Worker.where = _stack(frame)
    finally:
        raise TaskStopped


def _forget() -> None:
    """What faulthandler wrote is of a task that has ended."""
    if _Worker.file >= 0:
        with suppress(OSError):
            os.ftruncate(_Worker.file, 0)
            os.lseek(_Worker.file, 0, os.SEEK_SET)


def arm() -> None:
    """Before the first task that has a limit: see to it that it can be said where one is that has to be killed."""
    import faulthandler

    _Worker.file = os.memfd_create(STACK_NAME, os.MFD_CLOEXEC)
    faulthandler.register(NUMBER, _Worker.file, all_threads=False, chain=True)


def _stack(frame: FrameType | None) -> str:
    """The user's part of the stack, outermost call first."""
    import traceback

    frames = _frames(frame)
    for at, one in enumerate(frames):
        if one.f_code.co_filename in STARTS and one.f_code.co_name == "serve":
            del frames[: at + 1]
            break
    return "".join(traceback.StackSummary.extract((one, one.f_lineno) for one in frames).format())


def _frames(frame: FrameType | None) -> list[FrameType]:
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def stopped_error() -> TaskTimeout:
    """In the worker: the error of the task that was stopped last."""
    where, _Worker.where = _Worker.where, ""
    _forget()
    return TaskTimeout(_Worker.seconds, where)


def killed_error(seconds: float, pid: int) -> TaskTimeout:
    """In the parent: the error of a task whose worker is killed over it (pid 0: has died by itself)."""
    return TaskTimeout(seconds, _stack_of(pid) if pid else "", killed=True)


def _stack_of(pid: int) -> str:
    """What faulthandler wrote in that process when it was told to stop; empty if that cannot be read."""
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for number in os.listdir(directory):
            if os.readlink(f"{directory}/{number}").startswith(f"/memfd:{STACK_NAME}"):
                with open(f"{directory}/{number}", "rb") as file:
                    return _turned(file.read(STACK_BYTES_MAX).decode(errors="replace"))
    return ""


def _turned(dump: str) -> str:
    """faulthandler has the innermost call first; tracebacks the other way round, here from where the task begins."""
    lines = [line for line in dump.splitlines() if line.startswith("  File ")]
    for at, line in enumerate(lines):
        if line.endswith(" in serve") and line.startswith(tuple(f'  File "{name}"' for name in STARTS)):
            del lines[at:]
            break
    return "".join(line + "\n" for line in reversed(lines))
