# SPDX-License-Identifier: BSD-3-Clause
"""How the calls of `asubmit` and their pools end: in order, in the midst, and with their event loop."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

import shoal
from async_tasks import LOOPS, POOLS, run
from leaking import leaks
from limit_tasks import sound
from tasks import fail_on_three, kill_self, square

pytestmark = pytest.mark.leakcheck


def descriptors_of_loops():
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum("[eventfd]" in link or "[eventpoll]" in link for link in links)


@LOOPS
def test_a_loop_that_ends_leaves_nothing(new_loop, gate, pool):
    async def main():
        pool.asubmit(gate.wait)  # nobody awaits it
        assert await pool.asubmit(square, 2) == 4

    run(main(), new_loop)
    gate.open()
    before = descriptors_of_loops()
    for _ in range(3):
        run(main(), new_loop)
        gate.open()
    assert not pool._lifetime.seats
    assert descriptors_of_loops() == before
    sound(pool)


def test_a_loop_that_is_closed_without_a_word_is_found_out(gate, pool):
    loop = asyncio.new_event_loop()

    async def main():
        futures = [pool.asubmit(gate.wait), pool.asubmit(square, 2)]
        await futures[1]

    loop.run_until_complete(main())
    loop.close()
    gate.open()

    async def other():
        return await pool.asubmit(square, 3)

    assert run(other()) == 9
    assert not pool._lifetime.seats
    sound(pool)


def test_a_loop_that_moves_to_another_thread_gets_its_results(pool):
    loop = asyncio.new_event_loop()

    async def main():
        return await asyncio.gather(*[pool.asubmit(square, x) for x in range(50)])

    def in_thread():
        results.append(loop.run_until_complete(main()))

    results = []
    in_thread()
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    in_thread()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert results == [[x * x for x in range(50)]] * 3


@pytest.mark.usefixtures("doorbell")
@POOLS
def test_a_pool_that_is_ended_while_it_is_awaited_says_so(kind, gate):
    async def main():
        pool = kind(1)
        futures = [pool.asubmit(gate.wait), pool.asubmit(square, 2)]
        assert await asyncio.to_thread(os.read, gate.running[0], 1) == b"."
        if kind is shoal.Pool:
            pool.terminate()
        else:
            pool.kill_workers()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(outcomes[0], shoal.PoolTerminated | shoal.WorkerLost)
        assert isinstance(outcomes[1], shoal.PoolTerminated | asyncio.CancelledError)
        if kind is shoal.ProcessPoolExecutor:
            pool.shutdown()

    run(main())


def test_a_shutdown_that_cancels_is_told_to_who_awaits(gate):
    async def main():
        executor = shoal.ProcessPoolExecutor(1)
        running, waiting = executor.asubmit(gate.wait), executor.asubmit(square, 2)
        assert await asyncio.to_thread(os.read, gate.running[0], 1) == b"."
        executor.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        assert await running == "go"
        await asyncio.to_thread(executor.shutdown)

    run(main())


@pytest.mark.usefixtures("doorbell")
@POOLS
def test_a_worker_that_dies_is_told_to_who_awaits(kind):
    async def main(pool):
        with pytest.raises(shoal.WorkerLost):
            await pool.asubmit(kill_self)
        return await asyncio.gather(*[pool.asubmit(square, x) for x in range(100)])

    with kind(2) as pool:
        assert run(main(pool)) == [x * x for x in range(100)]


def test_a_worker_that_is_killed_while_many_are_awaited_costs_the_one_it_ran(pool):
    async def main():
        futures = [pool.asubmit(square, x) for x in range(3000)]
        os.kill(pool._engine.pids()[0], signal.SIGKILL)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        lost = [x for x, outcome in enumerate(outcomes) if isinstance(outcome, shoal.WorkerLost)]
        assert len(lost) <= 1
        assert all(outcome == x * x for x, outcome in enumerate(outcomes) if x not in lost)

    run(main())
    sound(pool)


@POOLS
def test_retries_are_awaited_as_one_call(kind, tmp_path):
    async def main(pool):
        return await pool.options(retries=2).asubmit(die_once, str(tmp_path / "mark"))

    with kind(2) as pool:
        assert run(main(pool)) == "again"


def die_once(mark):
    if not os.path.exists(mark):
        open(mark, "w").close()
        kill_self()
    return "again"


def test_an_attempt_of_a_retried_call_that_runs_is_stopped_with_it(gate, pool):
    async def main():
        future = pool.options(retries=2).asubmit(gate.wait)
        assert await asyncio.to_thread(os.read, gate.running[0], 1) == b"."
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert await asyncio.gather(*[pool.asubmit(square, x) for x in range(10)]) == [x * x for x in range(10)]

    run(main())


def test_futures_that_are_done_are_freed(pool):
    async def main():
        futures = [pool.asubmit(bytes, 10) for _ in range(10)]
        await asyncio.gather(*futures)
        references = [weakref.ref(future) for future in futures]
        del futures
        await asyncio.sleep(0)
        gc.collect()
        assert not any(reference() for reference in references)

    run(main())


def test_a_child_of_the_process_has_no_part_in_it(pool):
    async def main():
        await pool.asubmit(square, 1)
        future = pool.asubmit(square, 2)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                pool.asubmit(square, 3)
            except (RuntimeError, ValueError):
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert await future == 4

    run(main())


def test_asyncio_is_imported_with_the_first_awaited_call_only():
    source = "import sys, shoal; shoal.Pool, shoal.ProcessPoolExecutor; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_awaited_calls_leave_no_memory_behind(pool):
    async def main():
        future = pool.asubmit(square, 1)
        await asyncio.gather(pool.asubmit(square, 2), pool.asubmit(fail_on_three, 3), return_exceptions=True)
        future.cancel()

    loop = asyncio.new_event_loop()
    assert not leaks(lambda: loop.run_until_complete(main()))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
