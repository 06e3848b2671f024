# SPDX-License-Identifier: BSD-3-Clause
"""What pools and executors offer to programs with an event loop: `asubmit` and `amap`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from shoal._limits import options, with_defaults
from shoal._results import AsyncResult
from shoal._retry import Retry

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Unpack

    from shoal._amap import Chunk, Send
    from shoal._lifetime import Lifetime
    from shoal._limits import Limits, Options


def _running_loop() -> asyncio.AbstractEventLoop:
    """Find the loop; from the second call on this is asyncio's own function."""
    from shoal import _aio

    globals()["_running_loop"] = _aio.get_running_loop
    return _aio.get_running_loop()


class AsyncCalls:
    """Calls that are awaited. Their results are collected in the event loop's own thread, many at a time."""

    _limits: Limits | None
    _fail: Callable[..., None]
    _taking_calls: Callable[[], Lifetime]

    def asubmit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Have `func(*args, **kwargs)` computed; return an asyncio future to be awaited, or gathered with others.

        Called where an event loop runs. The call is sent at once. Cancelling the future, or a task that awaits it,
        stops the call, also in the worker that runs it. Limits of time and the like: see `options`.
        """
        loop = _running_loop()
        lifetime = self._taking_calls()
        seat = lifetime.seats.get(id(loop)) or _sit_down(lifetime, loop)
        if self._limits is not None:
            return self._asubmit_limited(seat, loop, lifetime, self._limits, func, args, kwargs)
        try:
            future: asyncio.Future[Any] = seat.submit(loop, func, args, kwargs)
            return future
        except Exception as error:
            return self._afailed(loop, error)

    def _asubmit_limited(
        self,
        seat: Any,
        loop: asyncio.AbstractEventLoop,
        lifetime: Lifetime,
        asked: Limits,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> asyncio.Future[Any]:
        item = AsyncResult()
        asked.apply_to(item)
        func = asked.seeded(func)
        future: asyncio.Future[Any] = seat.inbox.bind(item, loop)
        try:
            if asked.retried:
                item._retry = Retry(item, lifetime, asked)
                item._retry.begin(func, args, kwargs)
            else:
                lifetime.engine.submit(item, func, args, kwargs or None)
        except Exception as error:
            seat.inbox.unbind(item)
            return self._afailed(loop, error)
        seat.inbox.expect()
        return future

    def _afailed(self, loop: asyncio.AbstractEventLoop, error: Exception) -> asyncio.Future[Any]:
        from shoal import _aio

        failed = _aio.Failed(loop)
        self._fail(failed, error)
        return failed.future

    def amap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = True,
        buffersize: int | None = None,
        chunksize: int = 1,
        **asked: Unpack[Options],
    ) -> AsyncGenerator[Any, None]:
        """Yield `func(x)` for each x in `iterable`, to `async for`.

        The input may be asynchronous itself. It is pulled in the loop's thread, a bounded number of tasks ahead. The
        first error ends the iteration, after the results of what came before. However it ends, what is under way then
        is cancelled. The limits: see `options`.

        Parameters
        ----------
        ordered : bool
            False: yield results in the order in which they arrive.
        buffersize : int, optional
            How many tasks there may be whose results were not taken: elements, or chunks of them.
        chunksize : int
            Elements that are sent together, and whose results are taken together; a death of a worker costs one of
            them, and limits are for each. With `retries` each element is a call of its own.
        """
        from shoal import _amap

        lifetime = self._taking_calls()
        limits = with_defaults(options(**asked), self._limits) if asked else self._limits
        if buffersize is not None and (not isinstance(buffersize, int) or buffersize < 1):
            raise ValueError("buffersize must be None or an integer > 0")

        if not isinstance(chunksize, int) or chunksize < 1:
            raise ValueError("chunksize must be an integer > 0")
        if limits is not None and limits.retried:
            chunksize = 1
        send = self._sender_of_items if chunksize == 1 else self._sender_of_chunks
        window = _amap.Window(send(func, limits), ordered, buffersize or lifetime.tasks_ahead, chunksize)
        return _amap.results(window, iterable, None if limits is None else limits.bar, lifetime.engine)

    def _sender_of_items(self, func: Callable[[Any], Any], limits: Limits | None) -> Send:
        next_limits = None if limits is None else limits.of_elements()

        def send(items: list[Any]) -> tuple[asyncio.Future[Any], None]:
            (item,) = items
            if next_limits is None:
                return self.asubmit(func, item), None
            loop = _running_loop()
            lifetime = self._taking_calls()
            seat = lifetime.seats.get(id(loop)) or _sit_down(lifetime, loop)
            return self._asubmit_limited(seat, loop, lifetime, next_limits(), func, (item,), {}), None

        return send

    def _sender_of_chunks(self, func: Callable[[Any], Any], limits: Limits | None) -> Send:
        from shoal._amap import Chunk, seeded_parts

        function_of = seeded_parts(func, limits)

        def send(items: list[Any]) -> tuple[asyncio.Future[Any], Chunk | None]:
            loop = _running_loop()
            lifetime = self._taking_calls()
            seat = lifetime.seats.get(id(loop)) or _sit_down(lifetime, loop)
            item = AsyncResult()
            future: asyncio.Future[Any] = seat.inbox.bind(item, loop)
            try:
                chunk = Chunk(item, lifetime, function_of(len(items)), items, limits)
            except Exception as error:
                seat.inbox.unbind(item)
                return self._afailed(loop, error), None
            seat.inbox.expect()
            return future, chunk

        return send


def _sit_down(lifetime: Lifetime, loop: asyncio.AbstractEventLoop) -> Any:
    from shoal import _aio

    return _aio.seat_for(lifetime, loop)
