# SPDX-License-Identifier: BSD-3-Clause
"""What tests of awaited calls share: pools of both kinds, loops of both kinds, and waiting without a hang."""

import asyncio

import pytest

import shoal
from tasks import TIMEOUT

try:
    import uvloop
except ImportError:
    uvloop = None
else:  # what it makes for the process, and keeps
    _first = uvloop.new_event_loop()
    _first.run_until_complete(asyncio.sleep(0))
    _first.close()

POOLS = pytest.mark.parametrize("kind", [shoal.Pool, shoal.ProcessPoolExecutor])
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, "uvloop"])


def run(coroutine, new_loop=asyncio.new_event_loop):
    """As asyncio.run, on a loop of this kind, with a watchdog."""
    if new_loop == "uvloop":
        if uvloop is None:
            pytest.skip("uvloop is not installed")
        new_loop = uvloop.new_event_loop

    async def watched():
        return await asyncio.wait_for(coroutine, TIMEOUT)

    loop = new_loop()
    try:
        return loop.run_until_complete(watched())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def inbox_of(pool, loop):
    return pool._lifetime.seats[id(loop)].inbox


async def until(condition):
    """Let the loop go on until the condition holds; the caller has a watchdog."""
    while not condition():
        await asyncio.sleep(0.001)
