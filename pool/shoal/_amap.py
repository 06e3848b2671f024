# SPDX-License-Identifier: BSD-3-Clause
"""`amap`: results to iterate over asynchronously. Imported with its first call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from shoal import _ext
from shoal._results import AsyncResult, IMapIterator

if TYPE_CHECKING:
    from shoal._lifetime import Lifetime
    from shoal._limits import Limits
    from shoal._progress import Bar

LOOK_AGAIN_S = 0.001
Send = Callable[[list[Any]], "tuple[asyncio.Future[Any], Chunk | None]"]  # one element, or a chunk of them


class Chunk:
    """Elements that were sent together: a lazy call, whose end is that of an item which the loop awaits."""

    def __init__(
        self, outer: AsyncResult, lifetime: Lifetime, func: Callable[..., Any], items: list[Any], limits: Limits | None
    ) -> None:
        self._outer = outer
        self._group = IMapIterator()
        self._size = len(items)
        if limits is not None:
            limits._replace(abort_on_error=None).apply_to(self._group)
        engine = lifetime.engine
        outer._attach(engine)
        self._group._begin(engine, func, items, self._size, False, _ext.Group.ORDERED, lifetime.tasks_ahead, (items,))
        while not self._group.pull():  # there is no memory for all of it now
            self._group.wait(LOOK_AGAIN_S)
        lifetime.feed(self._group)
        outer._retry = self
        if not self._group.watch(self._ended):
            self._ended(self._group)

    def __iter__(self) -> Iterator[Any]:
        """Yield the results of one that has ended; the first error is raised in its place."""
        for _ in range(self._size):
            yield self._group.next(0)

    def cancel(self, running: bool) -> bool:
        """Take all of it back; False if it has ended."""
        if self._outer.done():
            return False
        self._outer._settle(False, CancelledError(), True)
        self._group.cancel(running)
        return True

    def running(self) -> bool:
        """Return whether a worker is at it, as far as is known."""
        return not self._group.done()

    def _ended(self, _: Any) -> None:
        if not self._outer.done():
            self._outer._settle(True, None)


def seeded_parts(func: Callable[..., Any], limits: Limits | None) -> Callable[[int], Callable[..., Any]]:
    """Return what gives the function of the next so many elements: their random numbers are those of the whole call."""
    if limits is None or limits.seed is None:
        return lambda count: func
    from shoal._random_streams import Seeded

    seed, sent = limits.seed.of_call(), 0

    def function_of(count: int) -> Callable[..., Any]:
        nonlocal sent
        first, sent = sent, sent + count
        return Seeded(func, seed, True, first)

    return function_of


class Window:
    """The calls under way, and those whose results were not taken: never more than `ahead`."""

    def __init__(self, send: Send, ordered: bool, ahead: int, chunksize: int) -> None:
        self._send = send
        self._ordered = ordered
        self._ahead = ahead
        self._chunksize = chunksize
        self._filling: list[Any] = []
        self._queue: deque[asyncio.Future[Any]] = deque()  # in the order in which they are taken
        self._under_way: dict[asyncio.Future[Any], Chunk | None] = {}
        self._news: asyncio.Future[None] | None = None  # the taker waits
        self._room: asyncio.Future[None] | None = None  # the one who pulls an asynchronous input waits
        self._finished = 0  # elements
        self._counted = False
        self._uncounted: dict[asyncio.Future[Any], int] = {}
        self.exhausted = False
        self.problem: BaseException | None = None  # of the input: comes after all results

    def begin(self, counted: bool) -> None:
        """Results are asked for, in the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._counted = counted

    def counts(self) -> tuple[int, bool]:
        """Return how many elements have ended, and whether all have: for a bar, in any thread."""
        return self._finished, False

    def has_room(self) -> bool:
        return len(self._under_way) < self._ahead

    def put(self, item: Any) -> None:
        self._filling.append(item)
        if len(self._filling) >= self._chunksize:
            self._send_filled()

    def _send_filled(self) -> None:
        items, self._filling = self._filling, []
        if not items:
            return
        future, self._under_way[future] = self._send(items)
        if self._counted:
            self._uncounted[future] = len(items)
            future.add_done_callback(self._count)
        if self._ordered:
            self._queue.append(future)
            self._tell_taker()
        else:
            future.add_done_callback(self._arrived)

    def _count(self, future: asyncio.Future[Any]) -> None:
        self._finished += self._uncounted.pop(future, 0)

    def end(self, problem: BaseException | None = None) -> None:
        if problem is None:
            self._send_filled()
        self.exhausted = True
        self.problem = problem
        self._tell_taker()

    async def take(self) -> list[Any] | Chunk:
        """The next result in a list, or the results that have come together; an empty list: there are no more."""
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
        chunk = self._under_way.pop(future)
        self._count(future)  # callbacks of futures come a turn of the loop later
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return result if chunk is None else chunk

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


def _fill(window: Window, source: Iterator[Any]) -> None:
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


async def _pull(window: Window, source: AsyncIterable[Any]) -> None:
    try:
        async for item in source:
            window.put(item)
            await window.wait_for_room()
        window.end()
    except Exception as error:
        window.end(error)


async def results(
    window: Window,
    iterable: Iterable[Any] | AsyncIterable[Any],
    make_bar: Callable[..., Bar | None] | None,
    engine: _ext.Engine,
) -> AsyncGenerator[Any, None]:
    """Yield the results of sending each element."""
    bar = None if make_bar is None else make_bar(engine, iterable)
    window.begin(bar is not None)
    if bar is not None:
        bar.counts = window.counts
    source = None if isinstance(iterable, AsyncIterable) else iter(iterable)
    pulling = asyncio.create_task(_pull(window, iterable)) if isinstance(iterable, AsyncIterable) else None
    try:
        while True:
            if source is not None:
                _fill(window, source)
            taken = await window.take()
            if isinstance(taken, Chunk):
                for result in taken:
                    yield result
            elif taken:
                yield taken.pop()
            else:
                return
    finally:
        window.drop()
        if pulling is not None and not pulling.done():
            pulling.cancel()
            await asyncio.wait([pulling])
        if bar is not None:
            bar.close()
