# SPDX-License-Identifier: BSD-3-Clause
"""What pools and executors, and views of them, have in common for those who look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from shoal import _ext
    from shoal._report import Report
    from shoal._stats import PoolStats
    from shoal._trace import Trace


class Seen:
    """A pool that says what it has done."""

    def stats(self) -> PoolStats:
        """Return what this pool has done so far, and where its workers' time went.

        It is always counted, and asking waits for nobody. A pool that has ended says what was so then. In a process
        that was forked from the pool's, it raises RuntimeError.
        """
        from shoal._stats import gather

        return gather(self._seen_name(), self._seen_engine())

    def trace(self, path: str | os.PathLike[str], *, limit: int = 1_000_000) -> Trace:
        """Record every task's life, from submitted to read, into a file that Perfetto and chrome://tracing open.

        A context manager; or call `start()` and `stop()` of what is returned. The file is written at the end.

        Parameters
        ----------
        path : str or path
            The file, of Chrome trace events in JSON.
        limit : int
            How many records are kept, two for a task or more; what is beyond is dropped, and the file says how many.
        """
        from shoal._trace import Trace

        return Trace(self._running_engine, path, limit)

    def report(self, path: str | os.PathLike[str], *, limit: int = 1_000_000) -> Report:
        """Record what this pool does, and write a page about it: one HTML file that needs nothing else.

        It shows what each worker did and when, how long elements took, where the time went by function and worker, the
        memory, errors and restarts, and the longest tasks. A context manager; or call `start()` and `stop()` of what is
        returned. While it is recorded the pool cannot be traced. `python -m shoal report` makes a page of a trace.

        Parameters
        ----------
        path : str or path
            The page.
        limit : int
            How many records are kept: see `trace`.
        """
        from shoal._report import Report

        return Report(self, path, limit)

    def _running_engine(self) -> _ext.Engine:
        engine = self._seen_engine()
        if engine is None:  # an executor before its first call
            start: Callable[[], _ext.Engine] = self._start  # type: ignore[attr-defined]
            engine = start()
        return engine

    def _seen_name(self) -> str:
        return type(getattr(self, "_of", self)).__name__

    def _seen_engine(self) -> _ext.Engine | None:
        engine: _ext.Engine | None = getattr(self, "_engine", None)
        return engine

    def __str__(self) -> str:
        try:
            return str(self.stats())
        except RuntimeError:  # a forked child: the pool is its parent's
            return repr(self)
