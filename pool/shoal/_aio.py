# SPDX-License-Identifier: BSD-3-Clause
"""Calls that an event loop awaits. What is awaited, and what a pool keeps for each loop; the rest is `_ext.Inbox`.

Imported with the first such call: `import shoal`, and a program without asyncio, do without it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shoal import _ext

if TYPE_CHECKING:
    from shoal._lifetime import Lifetime

get_running_loop = asyncio.get_running_loop


class Awaited(asyncio.Future):  # type: ignore[type-arg]
    """What `asubmit` returns: an asyncio future. Cancelling it stops the task, also if a worker runs it."""

    __slots__ = ("_item",)

    _item: _ext.Item | None

    def cancel(self, msg: Any = None) -> bool:
        """Take the call back, also from a worker that runs it, which is stopped; return whether it is cancelled."""
        item = self._item
        if item is not None and not self.done():
            item.cancel(True)
        return super().cancel(msg)

    def _end(self) -> None:
        """The call was cancelled by somebody else: the executor's `shutdown(cancel_futures=True)`."""
        super().cancel()


class Failed:
    """In the place of an item that could not be submitted, where its outcome is given."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()

    def _settle(self, succeeded: bool, value: Any) -> None:
        if isinstance(value, StopIteration):
            value, cause = RuntimeError("the call raised StopIteration"), value
            value.__cause__ = cause
        self.future.set_exception(value)


class Seat:
    """A loop's inbox in a pool. It is closed with the loop: with its asynchronous generators, or when it is gone."""

    def __init__(self, lifetime: Lifetime, loop: asyncio.AbstractEventLoop) -> None:
        seats, key = lifetime.seats, id(loop)

        def gone(_: Any = None) -> None:
            seat = seats.pop(key, None)
            if seat is not None:
                seat.close()

        self.inbox = _ext.Inbox(lifetime.engine, Awaited)
        self.submit = self.inbox.submit
        self.loop = weakref.ref(loop, gone)
        self._end = _until_shutdown(gone)
        with suppress(StopIteration):  # begun, and so known to the loop
            self._end.__anext__().__await__().__next__()
        seats[key] = self

    def over(self) -> bool:
        """Return whether the loop has ended without a word."""
        loop = self.loop()
        return loop is None or loop.is_closed()

    def close(self) -> None:
        """Give back what it has; outcomes that are still to come are dropped."""
        self.inbox.close()
        with suppress(StopIteration, RuntimeError):  # not ended by itself just now
            self._end.aclose().__await__().__next__()


async def _until_shutdown(tell: Callable[[], None]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        tell()


def seat_for(lifetime: Lifetime, loop: asyncio.AbstractEventLoop) -> Seat:
    """Make an inbox for a loop that has none; close those of loops that have ended."""
    for key, seat in list(lifetime.seats.items()):
        if seat.over():
            lifetime.seats.pop(key, None)
            seat.close()
    return Seat(lifetime, loop)
