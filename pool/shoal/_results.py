# SPDX-License-Identifier: BSD-3-Clause
"""What the calls of a `Pool` return: results that come later, and iterators over them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from shoal import _ext
from shoal._announce import Announcement

if TYPE_CHECKING:
    from shoal._amap import Chunk
    from shoal._limits import Limits
    from shoal._progress import Bar
    from shoal._retry import Retry
    from shoal._retry_map import RetriedMap

Callback = Callable[[Any], object]
Callbacks = tuple[Callback | None, Callback | None]  # for a result, for an error


class AsyncResult(_ext.Item):
    """The result of `apply_async`."""

    _retry: Retry | RetriedMap | Chunk | None = None

    def cancel(self, running: bool = True) -> bool:
        """Take the call back, also from a worker that runs it, which is stopped; return whether it is cancelled.

        Whoever waits for it gets `concurrent.futures.CancelledError`. A call that has ended stays as it is.

        Parameters
        ----------
        running : bool
            False: only if no worker has begun it.
        """
        if self._retry is not None:
            return self._retry.cancel(running)
        return super().cancel(running)

    def running(self) -> bool:
        """Return whether a worker is at it."""
        return super().running() if self._retry is None else self._retry.running()

    def ready(self) -> bool:
        """Return whether the call has ended."""
        return self.done()

    def successful(self) -> bool:
        """Return whether the call ended without an exception; ValueError if it has not ended."""
        return _successful(self)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result when it arrives, or raise what the call raised.

        Raises
        ------
        multiprocessing.TimeoutError
            If it does not arrive within `timeout` seconds.
        """
        if not self.wait(timeout):
            raise multiprocessing.TimeoutError
        return self.value()


class MapResult(_ext.Group):
    """The result of `map_async` and `starmap_async`."""

    _bar: Bar | None = None

    def cancel(self, running: bool = True) -> bool:
        """Take all of the call back; what workers are running of it is stopped, unless `running` is False.

        Whoever waits for it gets `concurrent.futures.CancelledError`. Return whether it is cancelled: a call that has
        ended stays as it is.
        """
        return super().cancel(running)

    def ready(self) -> bool:
        """Return whether all calls have ended."""
        return self.done()

    def successful(self) -> bool:
        """Return whether all calls ended without an exception; ValueError if not all have ended."""
        return _successful(self)

    def get(self, timeout: float | None = None) -> Any:
        """Return the list of results when all have arrived, or raise what the first failing call raised.

        Raises
        ------
        multiprocessing.TimeoutError
            If they do not arrive within `timeout` seconds.
        """
        if not self.wait(timeout):
            raise multiprocessing.TimeoutError
        succeeded, value = self.outcome()
        if succeeded:
            return value
        try:
            raise value
        finally:
            del self, value  # the exception's traceback refers to this frame


class AnnouncedResult(AsyncResult):
    """An AsyncResult with callbacks: ready once they have run."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._announcement = Announcement(callback, error_callback)

    def ready(self) -> bool:
        """Return whether the call has ended and its callback has run."""
        return self.done() and self._announcement.made()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the call has ended and its callback has run, at most `timeout` seconds."""
        return self._announcement.wait_after(super().wait, timeout)


class AnnouncedMapResult(MapResult):
    """A MapResult with callbacks: ready once they have run."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._announcement = Announcement(callback, error_callback)

    def ready(self) -> bool:
        """Return whether all calls have ended and the callback has run."""
        return self.done() and self._announcement.made()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all calls have ended and the callback has run, at most `timeout` seconds."""
        return self._announcement.wait_after(super().wait, timeout)


class IMapIterator(_ext.Group):
    """The results of `imap` in the order of the input, as they arrive; `next(timeout)` waits no longer than that."""


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, in the order in which they arrive."""


def map_result(engine: _ext.Engine, callbacks: Callbacks | None, asked: Limits | None, items: Sized) -> MapResult:
    """What `map` waits for: with callbacks, limits and a bar, if there are any."""
    bar = None if asked is None else asked.bar(engine, items)
    if bar is not None:
        result = bar.of_map(callbacks)
    else:
        result = MapResult() if callbacks is None else AnnouncedMapResult(*callbacks)
    if asked is not None:
        asked.apply_to(result)
    return result


def _successful(result: AsyncResult | MapResult) -> bool:
    if not result.ready():
        raise ValueError(f"{result!r} not ready")
    return result.outcome()[0]
