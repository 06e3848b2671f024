# SPDX-License-Identifier: BSD-3-Clause
"""The WorkerLost of a worker that is gone: what it was, and why it ended, as far as that can be told."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, Any

from shoal._kills import by_whom
from shoal._lost_task import describe
from shoal.errors import WorkerLost

if TYPE_CHECKING:
    from shoal._ext import Engine
    from shoal._spawn import SpawnStart
    from shoal._worker import ForkStart

_CAUSES: dict[int, str] = {
    signals.SIGSEGV: "a crash in C code: an access to memory that is not there, or an overrun stack",
    signals.SIGBUS: "memory of a mapped file that is not there: the file was cut short, or its disk is full",
    signals.SIGABRT: "C code called abort(): a failed assertion, a damaged heap, a fatal error of Python",
    signals.SIGILL: "an instruction that this CPU does not have: C code built for another one, or memory run as code",
    signals.SIGFPE: "a division by zero in C code, or another fault of arithmetic",
    signals.SIGSYS: "a system call that is forbidden here (seccomp)",
    signals.SIGXCPU: "its limit of CPU time (RLIMIT_CPU)",
    signals.SIGXFSZ: "its limit of the size of a file (RLIMIT_FSIZE)",
}


def worker_lost(
    worker: int,
    pid: int,
    signal: int | None,
    exit_code: int | None,
    what: str,
    memory: int,
    task: tuple[str, Any, Any] | None,
    engine: Engine,
    start: ForkStart | SpawnStart | None,
) -> WorkerLost:
    """Make the error of a worker that is gone. Called by the engine; runs no user code."""
    crash = start.crashes.read(worker, signal) if start is not None else ""
    if task is None and exit_code is not None:  # it ended at its start: whatever it said is on standard error
        return WorkerLost(worker, pid, signal, exit_code, what)
    cause = likely_cause(pid, signal, exit_code)
    return WorkerLost(worker, pid, signal, exit_code, what, memory or None, cause, describe(task, engine), crash)


def likely_cause(pid: int, signal: int | None, exit_code: int | None) -> str:
    """Why it ended, in words; empty where nothing can be said."""
    if signal == signals.SIGKILL:
        return by_whom(pid)
    if exit_code is not None:
        return "os._exit(), or exit() in C code"
    return "" if signal is None else _CAUSES.get(signal, "somebody sent it the signal")
