# SPDX-License-Identifier: BSD-3-Clause
"""`amap`: results to iterate over asynchronously. Imported with its first call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from typing import Any

Send = Callable[[Any], "asyncio.Future[Any]"]


class _Window:
    """The calls under way, and those whose results were not taken: never more than `ahead`."""

    def __init__(self, send: Send, ordered: bool, ahead: int) -> None:
        self._send = send
        self._ordered = ordered
        self._ahead = ahead
        self._loop = asyncio.get_running_loop()
        self._queue: deque[asyncio.Future[Any]] = deque()  # in the order in which they are taken
        self._under_way: set[asyncio.Future[Any]] = set()
        self._news: asyncio.Future[None] | None = None  # the taker waits
        self._room: asyncio.Future[None] | None = None  # the one who pulls an asynchronous input waits
        self.exhausted = False
        self.problem: BaseException | None = None  # of the input: comes after all results

    def has_room(self) -> bool:
        return len(self._under_way) < self._ahead

    def put(self, item: Any) -> None:
        future = self._send(item)
        self._under_way.add(future)
        if self._ordered:
            self._queue.append(future)
            self._tell_taker()
        else:
            future.add_done_callback(self._arrived)

    def end(self, problem: BaseException | None = None) -> None:
        self.exhausted = True
        self.problem = problem
        self._tell_taker()

    async def take(self) -> list[Any]:
        """The next result in a list; an empty one: there are no more."""
        while not self._queue:
            if self.exhausted and not self._under_way:
                if self.problem is not None:
                    raise self.problem
                return []
            self._news = self._loop.create_future()
            await self._news
        future = self._queue[0]
        result = [await future]
        self._queue.popleft()
        self._under_way.discard(future)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return result

    async def wait_for_room(self) -> None:
        while not self.has_room():
            self._room = self._loop.create_future()
            await self._room

    def drop(self) -> None:
        for future in list(self._under_way):
            future.cancel()
            if future.done() and not future.cancelled():
                future.exception()  # nobody asks for it any more
        self._under_way.clear()

    def _arrived(self, future: asyncio.Future[Any]) -> None:
        if future in self._under_way:
            self._queue.append(future)
            self._tell_taker()

    def _tell_taker(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _fill(window: _Window, source: Iterator[Any]) -> None:
    while not window.exhausted and window.has_room():
        try:
            item = next(source)
        except StopIteration:
            window.end()
            return
        except Exception as error:
            window.end(error)
            return
        window.put(item)


async def _pull(window: _Window, source: AsyncIterable[Any]) -> None:
    try:
        async for item in source:
            window.put(item)
            await window.wait_for_room()
        window.end()
    except Exception as error:
        window.end(error)


async def results(
    send: Send, iterable: Iterable[Any] | AsyncIterable[Any], ordered: bool, ahead: int
) -> AsyncGenerator[Any, None]:
    """Yield the results of sending each element."""
    window = _Window(send, ordered, ahead)
    source = None if isinstance(iterable, AsyncIterable) else iter(iterable)
    pulling = asyncio.create_task(_pull(window, iterable)) if isinstance(iterable, AsyncIterable) else None
    try:
        while True:
            if source is not None:
                _fill(window, source)
            taken = await window.take()
            if not taken:
                return
            yield taken.pop()
    finally:
        window.drop()
        if pulling is not None and not pulling.done():
            pulling.cancel()
            await asyncio.wait([pulling])
