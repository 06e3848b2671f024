# SPDX-License-Identifier: BSD-3-Clause
"""The workers of a pool as others look at them: `Pool._pool`, `ProcessPoolExecutor._processes`."""

from __future__ import annotations

import functools
import multiprocessing.connection
import os
import signal
import weakref

from shoal import _ext


class PoolWorker:
    """What `Pool._pool` lists: a worker process as others look at it."""

    def __init__(self, engine: _ext.Engine, index: int, pid: int, name: str) -> None:
        self._engine = engine
        self.name = name
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
