# SPDX-License-Identifier: BSD-3-Clause
"""`amap`: results to iterate over asynchronously."""

import asyncio
import contextlib
import itertools
import os
import time

import pytest

import shoal
from async_tasks import LOOPS, POOLS, run, until
from limit_tasks import LONG, sound
from tasks import fail_on_three, kill_self, square

pytestmark = pytest.mark.leakcheck


async def asynchronously(items):
    for item in items:
        await asyncio.sleep(0)
        yield item


INPUTS = pytest.mark.parametrize("given", [list, iter, asynchronously])


@POOLS
@LOOPS
@INPUTS
def test_results_come_in_the_order_of_the_input(kind, new_loop, given):
    async def main(pool):
        return [result async for result in pool.amap(square, given(list(range(500))))]

    with kind(2) as pool:
        assert run(main(pool), new_loop) == [x * x for x in range(500)]


@POOLS
@INPUTS
def test_unordered_results_are_all_there(kind, given):
    async def main(pool):
        return [result async for result in pool.amap(square, given(list(range(500))), ordered=False)]

    with kind(2) as pool:
        assert sorted(run(main(pool))) == [x * x for x in range(500)]


def test_unordered_results_do_not_wait_for_a_slow_one(gate, pool):
    def blocks_at_zero(x):
        return gate.wait() if x == 0 else x

    async def main():
        results = pool.amap(blocks_at_zero, range(10), ordered=False)
        first = [await anext(results) for _ in range(9)]
        gate.open()
        return first, [result async for result in results]

    first, rest = run(main())
    assert sorted(first) == list(range(1, 10)) and rest == ["go"]


@INPUTS
@pytest.mark.parametrize("ordered", [True, False])
def test_the_input_is_pulled_a_bounded_number_ahead(pool, given, ordered):
    async def main():
        pulled = 0

        def count():
            nonlocal pulled
            for x in itertools.count():
                pulled += 1
                yield x

        source = count() if given is not asynchronously else asynchronously(count())
        results = pool.amap(square, source, buffersize=7, ordered=ordered)
        for taken in range(1, 20):
            await anext(results)
            assert pulled <= taken + 8
        await results.aclose()

    run(main())
    sound(pool)


@INPUTS
@POOLS
def test_what_an_element_raises_ends_the_iteration_after_the_results_before(kind, given):
    async def main(pool):
        results = []
        with pytest.raises(ValueError, match="no 3"):
            async for result in pool.amap(fail_on_three, given(list(range(10)))):
                results.append(result)
        assert results == [0, 1, 2]

    with kind(2) as pool:
        run(main(pool))


@pytest.mark.parametrize("make_async", [False, True])
@pytest.mark.parametrize("ordered", [True, False])
def test_what_the_input_raises_comes_after_the_results_before(pool, make_async, ordered):
    def failing():
        yield from range(5)
        raise KeyError("input")

    async def main():
        results = []
        with pytest.raises(KeyError, match="input"):
            source = asynchronously(failing()) if make_async else failing()
            async for result in pool.amap(square, source, ordered=ordered):
                results.append(result)
        assert sorted(results) == [0, 1, 4, 9, 16]

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_who_leaves_early_cancels_what_is_under_way(pool, ordered):
    async def main():
        async with contextlib.aclosing(pool.amap(_sleep_after_the_first, range(100), ordered=ordered)) as results:
            async for result in results:
                assert result == 0
                break
        await until(lambda: not pool._engine.stats()["in_flight"])
        assert await pool.asubmit(square, 3) == 9

    run(main())
    sound(pool)


def _sleep_after_the_first(x):
    if x > 0:
        time.sleep(LONG)
    return x


def test_cancelling_the_task_that_iterates_stops_what_runs(gate, pool):
    async def main():
        async def iterate():
            async for _ in pool.amap(lambda x: gate.wait(), asynchronously(range(10))):
                pass

        task = asyncio.create_task(iterate())
        assert await asyncio.to_thread(os.read, gate.running[0], 1) == b"."
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not pool._engine.stats()["in_flight"])

    run(main())
    sound(pool)


def test_an_asynchronous_input_is_closed_with_the_iteration(pool):
    async def main():
        closed = []

        async def source():
            try:
                for x in itertools.count():
                    yield x
                    await asyncio.sleep(0)
            finally:
                closed.append(True)

        given = source()
        results = pool.amap(square, given)
        assert await anext(results) == 0
        await results.aclose()
        await given.aclose()
        assert closed == [True]

    run(main())


@POOLS
def test_limits_are_those_of_each_element(kind):
    async def main(pool):
        results = pool.amap(_sleep_after_the_first, range(3), timeout=0.05)
        assert await anext(results) == 0
        with pytest.raises(shoal.TaskTimeout):
            await anext(results)

    with kind(2) as pool:
        run(main(pool))


def test_a_lost_worker_is_the_outcome_of_its_element(pool):
    async def main():
        with pytest.raises(shoal.WorkerLost):
            async for _ in pool.amap(lambda x: kill_self() if x == 2 else x, range(5)):
                pass
        assert await pool.asubmit(square, 3) == 9

    run(main())


@pytest.mark.parametrize("size", [0, -1, 1.5, "8"])
def test_a_bad_buffersize_is_refused(pool, size):
    async def main():
        with pytest.raises(ValueError, match="buffersize"):
            pool.amap(square, [], buffersize=size)

    run(main())


def test_an_empty_input_has_no_results(pool):
    async def main():
        assert [result async for result in pool.amap(square, [])] == []
        assert [result async for result in pool.amap(square, asynchronously([]), ordered=False)] == []

    run(main())
