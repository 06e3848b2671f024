# SPDX-License-Identifier: BSD-3-Clause
"""Map-like calls whose elements are sent again: each element is a call of its own, whatever the chunk size."""

from __future__ import annotations

import collections
import multiprocessing
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shoal import _ext
from shoal._results import AsyncResult

Send = Callable[[Any], AsyncResult]  # one element


class RetriedMap:
    """All elements at once; `outer` gets the list of results, or the first error by place."""

    def __init__(self, outer: _ext.Item, send: Send, items: Iterable[Any], abort: bool) -> None:
        self.outer = outer
        self.abort = abort
        self.calls = [send(item) for item in items]
        self.left = len(self.calls)
        if not self.calls:
            outer._settle(True, [])
        for call in list(self.calls):
            if not call.watch(self._ended):
                self._ended(call)

    def cancel(self, running: bool) -> bool:
        """Cancel all that can be; False if the whole is done."""
        if self.outer.done():
            return False
        calls, self.calls = self.calls, []
        self.outer._settle(False, _cancelled(), True)
        for call in calls:
            call.cancel(running)
        return True

    def running(self) -> bool:
        """Return whether a worker is at one of them."""
        return any(call.running() for call in self.calls)

    def _ended(self, call: Any) -> None:
        self.left -= 1
        if not self.calls or self.outer.done():
            return
        if self.abort and not call.outcome()[0]:
            calls, self.calls = self.calls, []
            self.outer._settle(False, call.outcome()[1])
            for other in calls:
                other.cancel()
        elif self.left == 0:
            outcomes = [one.outcome() for one in self.calls]
            self.calls = []
            errors = [value for succeeded, value in outcomes if not succeeded]
            self.outer._settle(not errors, errors[0] if errors else [value for _, value in outcomes])


class RetriedIterator(Iterator[Any]):
    """The results of a lazy call, in order or as they come; the input is pulled so many tasks ahead."""

    def __init__(self, send: Send, items: Iterable[Any], ahead: int, ordered: bool, abort: bool) -> None:
        self._send = send
        self._items = iter(items)
        self._more = True
        self._ahead = ahead
        self._ordered = ordered
        self._abort = abort
        self._calls: collections.deque[AsyncResult] = collections.deque()
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result or raise its error; multiprocessing.TimeoutError after `timeout` seconds."""
        self._pull()
        if not self._calls:
            raise StopIteration
        if self._ordered:
            call = self._calls[0]
            if not call.wait(timeout):
                raise multiprocessing.TimeoutError
            self._calls.popleft()
        else:
            try:
                call = self._ended.get(timeout=timeout)
            except queue.Empty:
                raise multiprocessing.TimeoutError from None
            self._calls.remove(call)
        succeeded, value = call.outcome()
        if succeeded:
            return value
        if self._abort:
            self.cancel()
        raise value

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self._more = False
        while self._calls:
            self._calls.pop().cancel()

    def _pull(self) -> None:
        while self._more and len(self._calls) < self._ahead:
            try:
                item = next(self._items)
            except StopIteration:
                self._more = False
                return
            call = self._send(item)
            self._calls.append(call)
            if not self._ordered and not call.watch(self._ended.put):
                self._ended.put(call)


def _cancelled() -> BaseException:
    from concurrent.futures import CancelledError

    return CancelledError()
