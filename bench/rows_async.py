# SPDX-License-Identifier: BSD-3-Clause
"""Rows for tasks that an event loop awaits: asubmit against run_in_executor with concurrent.futures."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator

import frame
import rows_pool

Call = Callable[[int], Awaitable[int]]


def ours(executor) -> Call:
    return functools.partial(executor.asubmit, rows_pool.add_one)


def theirs(executor) -> Call:
    return functools.partial(asyncio.get_running_loop().run_in_executor, executor, rows_pool.add_one)


async def all_at_once(call: Call, count: int) -> int:
    return sum(await asyncio.gather(*[call(number) for number in range(count)]))


async def one_by_one(call: Call, count: int) -> int:
    total = 0
    for number in range(count):
        total += await call(number)
    return total


@contextlib.contextmanager
def awaiting(executors, calls, work, uvloop: bool) -> Iterator[frame.Rounds]:
    loop = new_loop(uvloop)
    with contextlib.closing(loop), executors() as executor:

        async def main(count: int) -> int:
            return await work(calls(executor), count)

        def run(count: int) -> None:
            rows_pool.check(loop.run_until_complete(main(count)), count)

        yield run
        loop.run_until_complete(loop.shutdown_asyncgens())


def new_loop(uvloop: bool) -> asyncio.AbstractEventLoop:
    if not uvloop:
        return asyncio.new_event_loop()
    try:
        from uvloop import new_event_loop
    except ImportError:
        raise frame.SkipRow("needs uvloop") from None
    return new_event_loop()


def add_to(registry: frame.Registry) -> None:
    def compare(name, work, uvloop=False, **fields):
        registry.add(
            name,
            ours=functools.partial(awaiting, rows_pool.shoal_executor, ours, work, uvloop),
            theirs=functools.partial(awaiting, rows_pool.cf_executor, theirs, work, uvloop),
            peer="run_in_executor",
            group="pool",
            **fields,
        )

    compare("asyncio/gather", all_at_once, calls=20_000, rounds=10, goal=20.0)
    compare("asyncio/gather-uvloop", all_at_once, uvloop=True, calls=20_000, rounds=10)
    compare("asyncio/one-by-one", one_by_one, calls=500, rounds=20)
