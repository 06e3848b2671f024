# SPDX-License-Identifier: BSD-3-Clause
"""`asubmit`: calls that an event loop awaits, on each kind of pool, of loop, and of doorbell."""

import asyncio
import os
import threading
import time

import pytest

import shoal
from async_tasks import LOOPS, POOLS, inbox_of, run, until
from limit_tasks import LONG, sound
from tasks import TIMEOUT, FailsToLoad, add, fail_on_three, square

pytestmark = pytest.mark.leakcheck


@POOLS
@LOOPS
def test_a_call_is_awaited(kind, new_loop):
    async def main(pool):
        assert await pool.asubmit(square, 7) == 49
        assert await pool.asubmit(add, 1, b=2, c=3) == 6
        return await asyncio.gather(*[pool.asubmit(square, x) for x in range(300)])

    with kind(2) as pool:
        assert run(main(pool), new_loop) == [x * x for x in range(300)]


@LOOPS
@pytest.mark.usefixtures("doorbell")
def test_each_doorbell_and_loop_serve_thousands_of_calls_more_than_fit_into_the_queue(new_loop):
    async def main(pool):
        return await asyncio.gather(*[pool.asubmit(square, x) for x in range(6000)])

    with shoal.Pool(2) as pool:
        assert run(main(pool), new_loop) == [x * x for x in range(6000)]
        sound(pool)


@pytest.mark.usefixtures("doorbell")
def test_calls_one_after_the_other_find_each_other(pool):
    async def main():
        total = 0
        for x in range(300):
            total += await pool.asubmit(square, x)
        return total

    assert run(main()) == sum(x * x for x in range(300))


@POOLS
def test_what_a_call_raises_is_raised_where_it_is_awaited(kind):
    async def main(pool):
        with pytest.raises(ValueError, match="no 3"):
            await pool.asubmit(fail_on_three, 3)
        with pytest.raises(ValueError):
            await pool.asubmit(FailsToLoad)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.asubmit(next, iter(()))
        assert await pool.asubmit(square, 2) == 4

    with kind(2) as pool:
        run(main(pool))


@POOLS
def test_what_cannot_be_sent_is_the_outcome_of_the_call(kind):
    async def main(pool):
        future = pool.asubmit(square, threading.Lock())
        with pytest.raises(Exception, match="lock"):
            await future
        with pytest.raises(Exception, match="lock"):
            await pool.options(timeout=60).asubmit(square, threading.Lock())
        assert await pool.asubmit(square, 2) == 4

    with kind(2) as pool:
        run(main(pool))


@POOLS
def test_without_a_loop_it_is_refused(kind):
    with kind(1) as pool, pytest.raises(RuntimeError, match="no running event loop"):
        pool.asubmit(square, 1)


@POOLS
def test_a_pool_that_takes_no_calls_says_so(kind):
    async def main(pool):
        assert await pool.asubmit(square, 2) == 4
        if kind is shoal.Pool:
            pool.close()
        else:
            pool.shutdown()
        with pytest.raises((ValueError, RuntimeError), match="not running|after shutdown"):
            pool.asubmit(square, 2)

    with kind(1) as pool:
        run(main(pool))


# ---- cancelling and limits ----


@POOLS
@LOOPS
def test_cancelling_who_awaits_stops_the_task_in_its_worker(kind, new_loop, gate):
    async def main(pool):
        task = asyncio.ensure_future(asyncio.gather(pool.asubmit(gate.wait)))
        assert await asyncio.to_thread(os.read, gate.running[0], 1) == b"."
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The one worker is free again, and the same.
        assert await pool.asubmit(os.getpid) == pid

    with kind(1) as pool:
        pid = run(asyncio.wait_for(_pid(pool), TIMEOUT))
        run(main(pool), new_loop)


async def _pid(pool):
    return await pool.asubmit(os.getpid)


@POOLS
def test_asyncio_timeouts_stop_the_task(kind):
    async def main(pool):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.asubmit(time.sleep, LONG), 0.05)
        assert await pool.asubmit(square, 3) == 9

    with kind(1) as pool:
        run(main(pool))


@POOLS
def test_the_pools_own_timeout_ends_a_task(kind):
    async def main(pool):
        with pytest.raises(shoal.TaskTimeout):
            await pool.asubmit(time.sleep, LONG)
        assert await pool.options(timeout=60).asubmit(square, 3) == 9

    with kind(1, timeout=0.05) as pool:
        run(main(pool))


def test_a_call_that_waits_is_taken_back(gate, pool):
    async def main():
        blocked = [pool.asubmit(gate.wait) for _ in range(2)]
        waiting = pool.asubmit(square, 1)
        assert waiting.cancel()
        gate.open(2)
        assert await asyncio.gather(*blocked) == ["go", "go"]
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool._engine.stats()["completed"] == 2

    run(main())


def test_a_shielded_call_goes_on(gate, pool):
    async def main():
        future = pool.asubmit(gate.wait)
        outer = asyncio.shield(future)
        outer.cancel()
        gate.open()
        assert await future == "go"

    run(main())


def test_an_outcome_that_races_with_cancelling_is_one_outcome(pool):
    async def main():
        for _ in range(100):
            future = pool.asubmit(square, 2)
            await asyncio.sleep(0)
            cancelled = future.cancel()
            try:
                assert await future == 4 and not cancelled
            except asyncio.CancelledError:
                assert cancelled
        assert await pool.asubmit(square, 5) == 25

    run(main())
    sound(pool)


# ---- who collects ----


@pytest.mark.usefixtures("doorbell")
def test_threads_that_wait_and_a_loop_that_awaits_get_what_is_theirs(pool):
    def wait_often():
        for x in range(200):
            results.append(pool.apply(square, (x,)) == x * x)

    async def main():
        threads = [threading.Thread(target=wait_often) for _ in range(2)]
        for thread in threads:
            thread.start()
        for start in range(0, 600, 20):
            expected = [x * x for x in range(start, start + 20)]
            assert await asyncio.gather(*[pool.asubmit(square, x) for x in range(start, start + 20)]) == expected
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])

    results = []
    run(main())
    assert results == [True] * 400


@pytest.mark.usefixtures("doorbell")
def test_loops_of_several_threads_share_a_pool(pool):
    async def main():
        for start in range(0, 200, 20):
            expected = [x * x for x in range(start, start + 20)]
            assert await asyncio.gather(*[pool.asubmit(square, x) for x in range(start, start + 20)]) == expected
        return True

    def in_thread():
        results.append(run(main()))

    results = []
    threads = [threading.Thread(target=in_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3


@pytest.mark.usefixtures("doorbell")
def test_a_loop_that_is_busy_does_not_keep_others_from_their_results(gate, pool):
    async def main():
        awaited = pool.asubmit(gate.wait)
        gate.open()
        assert pool.apply(square, (3,)) == 9  # in the loop's own thread
        thread = threading.Thread(target=lambda: results.append(pool.apply(square, (4,))))
        thread.start()
        thread.join()  # the loop does not turn meanwhile
        assert await awaited == "go"

    results = []
    run(main())
    assert results == [16]


def test_a_call_of_the_loops_thread_that_waits_leaves_the_awaited_ones_their_wake(gate, pool):
    async def main():
        awaited = pool.asubmit(gate.wait)
        pool.apply(square, (3,))  # it collects, and sleeps on the bell, in the place of the loop
        gate.open()
        assert await awaited == "go"

    run(main())


@LOOPS
def test_nothing_is_watched_while_nothing_is_awaited(pool, new_loop):
    async def main():
        await pool.asubmit(square, 1)
        inbox = inbox_of(pool, asyncio.get_running_loop())
        await until(lambda: not inbox.watched)
        assert pool.apply(square, (2,)) == 4
        assert inbox.outstanding == 0 and not inbox.watched
        assert await pool.asubmit(square, 3) == 9

    run(main(), new_loop)


@pytest.mark.usefixtures("doorbell")
def test_only_a_semaphore_needs_a_thread_to_collect(pool):
    async def main():
        future = pool.asubmit(square, 1)
        assert inbox_of(pool, asyncio.get_running_loop()).bridged is (pool._engine.doorbell == "semaphore")
        assert await future == 1

    run(main())


def test_results_of_many_calls_come_in_few_turns_of_the_loop(pool):
    async def main():
        turns = 0
        done = False

        async def count():
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        futures = [pool.asubmit(square, x) for x in range(2000)]
        while pool._engine.stats()["completed"] < 2000:  # all have come before the loop turns
            pool._engine.drain()
        await asyncio.gather(*futures)
        done = True
        await counting
        return turns

    assert run(main()) < 40
