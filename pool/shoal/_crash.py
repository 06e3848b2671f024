# SPDX-License-Identifier: BSD-3-Clause
"""What Python itself says when a worker crashes: the stacks that `faulthandler` writes, for the worker's WorkerLost.

The problem: a crash in C code leaves a signal number. Python's faulthandler can say where that was, but writes to a
descriptor, in a signal handler, so the parent has to have the other end; and a pipe may be full.

The way: one memory file for a pool, sparse, with a place of its own for each worker index, further apart than
faulthandler ever writes. A worker opens it anew, so that it has a position of its own. The parent reads the place when
the worker is lost, and wipes it.

What it does not do: help a worker that crashes before it is set up, or whose tasks have faulthandler write elsewhere.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress

_PLACE_BYTES = 16 << 20
_TEXT_BYTES = 16 << 10  # that are shown
_FATAL = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}


class CrashFile:
    """The file, in the parent: it lives as long as the pool may start workers."""

    def __init__(self) -> None:
        self.descriptor = -1
        with suppress(OSError):
            self.descriptor = os.memfd_create("shoal-crash", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def wipe(self, index: int) -> None:
        """Another worker is about to have this place."""
        with suppress(OSError):
            if self.descriptor >= 0 and os.pread(self.descriptor, 1, index * _PLACE_BYTES).strip(b"\0"):
                os.pwrite(self.descriptor, bytes(_TEXT_BYTES), index * _PLACE_BYTES)

    def read(self, index: int, number: int | None) -> str:
        """Return what a worker wrote that was killed by this signal; empty if it wrote nothing."""
        if self.descriptor < 0:
            return ""
        with suppress(OSError):
            place = index * _PLACE_BYTES
            said = os.pread(self.descriptor, _TEXT_BYTES, place).partition(b"\0")[0]
            if said:
                os.pwrite(self.descriptor, bytes(_TEXT_BYTES), place)
            if said and number in _FATAL:
                if faulthandler.is_enabled():  # whoever has enabled it looks there, too
                    os.write(2, said)
                return said.decode("utf-8", "replace")
        return ""


def write_there(descriptor: int, index: int) -> None:
    """In a worker: have faulthandler write into the file."""
    if descriptor < 0:
        return
    with suppress(OSError, RuntimeError, ValueError):
        file = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(file, index * _PLACE_BYTES, os.SEEK_SET)
        before = faulthandler.is_enabled()
        faulthandler.enable(file)
        os.register_at_fork(after_in_child=lambda: _as_before(before))


def _as_before(enabled: bool) -> None:
    """In a process that a task has forked: its crash is not its worker's."""
    with suppress(OSError, RuntimeError, ValueError, AttributeError):
        if enabled:
            faulthandler.enable(2)
        else:
            faulthandler.disable()
