# SPDX-License-Identifier: BSD-3-Clause
"""Cancelling what runs, and calls that end with their first error: over every doorbell."""

import asyncio
import concurrent.futures
import pickle
import threading
import time

import pytest

import shoal
from limit_tasks import LONG, SHORT, busy, catches_everything, sound, started, stops_itself
from tasks import TIMEOUT, square, works

pytestmark = pytest.mark.leakcheck


@pytest.fixture
def limited(doorbell):
    with shoal.Pool(2, grace=SHORT) as pool:
        yield pool


@pytest.mark.parametrize("function", [busy, catches_everything, stops_itself])
def test_cancel_stops_what_runs(limited, function):
    call = started(limited, function)
    assert call.cancel() and call.cancel() and call.cancelled() and call.ready()
    with pytest.raises(concurrent.futures.CancelledError):
        call.get(TIMEOUT)
    assert works(limited)
    calls = [started(limited, function) for _ in range(2)]
    assert all(call.cancel() for call in calls)
    sound(limited)


def test_a_call_that_is_done_is_not_cancelled(limited):
    call = limited.apply_async(square, (3,))
    assert call.get(TIMEOUT) == 9
    assert not call.cancel() and call.get(TIMEOUT) == 9


def test_what_runs_can_be_left_alone(limited):
    call = started(limited, time.sleep, 3 * SHORT)
    assert not call.cancel(running=False) and call.get(TIMEOUT) is None


def test_cancel_may_come_from_another_thread_and_from_a_callback(limited):
    call = started(limited, busy)
    waiting = threading.Thread(target=call.cancel)
    waiting.start()
    with pytest.raises(concurrent.futures.CancelledError):
        call.get(TIMEOUT)
    waiting.join()
    first = started(limited, busy)
    second = limited.apply_async(square, (3,), None, lambda _: first.cancel())
    assert second.get(TIMEOUT) == 9 and first.cancelled()
    sound(limited)


def test_cancelling_a_map_stops_all_of_it(limited):
    call = limited.map_async(time.sleep, [LONG] * 100, 10)
    while not limited._engine.stats()["in_flight"]:
        time.sleep(0.001)
    assert call.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        call.get(TIMEOUT)
    sound(limited)


def test_a_future_is_cancelled_as_a_stock_one_unless_one_asks_for_more(doorbell):
    with shoal.ProcessPoolExecutor(1, grace=SHORT) as executor:
        future = executor.submit(time.sleep, LONG)
        while not future.running():
            time.sleep(0.001)
        assert not future.cancel() and future.cancel(running=True) and future.cancelled()
        assert concurrent.futures.wait([future], TIMEOUT).done == {future}
        future = executor.options(cancel_running=True).submit(time.sleep, LONG)
        while not future.running():
            time.sleep(0.001)
        assert future.cancel()
        assert executor.submit(square, 3).result(TIMEOUT) == 9


def test_asyncio_cancels_what_runs_if_the_executor_is_told_to(doorbell):
    async def main(executor):
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(executor, time.sleep, LONG), SHORT)
        return await loop.run_in_executor(executor, square, 3)

    with shoal.ProcessPoolExecutor(1, cancel_running=True) as executor:
        assert asyncio.run(main(executor)) == 9


def test_memory_and_blocks_of_a_cancelled_task_come_back(limited):
    numpy = pytest.importorskip("numpy")

    def keep(array):
        array += 1
        time.sleep(LONG)

    before = limited._engine.stats()["arena_used"]
    for function in (keep, lambda array: (array.sum(), catches_everything())):
        call = started(limited, function, numpy.ones(1 << 20))
        assert call.cancel()
        del call
        assert works(limited) and works(limited)
    deadline = time.monotonic() + TIMEOUT
    while limited._engine.stats()["in_flight"] and time.monotonic() < deadline:
        limited.apply(int)
    assert limited._engine.stats()["arena_used"] == before
    sound(limited)


def test_a_cancelled_call_does_not_hold_up_the_exit(fresh_python):
    script = """
        import time, shoal
        if __name__ == "__main__":
            executor = shoal.ProcessPoolExecutor(1, grace=0.05, cancel_running=True)
            future = executor.submit(time.sleep, 300)
            while not future.running():
                time.sleep(0.001)
            print(future.cancel())
    """
    assert fresh_python(script).stdout == "True\n"


# ---- abort_on_error ----


def fails_or_sleeps(x):
    if x == 2:
        raise ValueError("no 2")
    return time.sleep(LONG) if x > 2 else x


@pytest.mark.parametrize("chunksize", [1, 3, 20])
def test_the_first_error_ends_the_call(limited, chunksize):
    with pytest.raises(ValueError, match="no 2"):
        limited.map(fails_or_sleeps, range(200), chunksize, abort_on_error=True)
    sound(limited)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_the_results_before_it_come_first(limited, method):
    results, iterator = [], getattr(limited, method)(fails_or_sleeps, range(10**9), abort_on_error=True)
    with pytest.raises(ValueError, match="no 2"):
        for result in iterator:
            results.append(result)  # noqa: PERF402  what came before the error counts
    assert results in ([0, 1], [1, 0], [0], [1], [])
    with pytest.raises(StopIteration):
        next(iterator)
    sound(limited)


def test_an_executor_s_map_ends_with_its_first_error(doorbell):
    with shoal.ProcessPoolExecutor(2, abort_on_error=True, grace=SHORT) as executor:
        with pytest.raises(ValueError, match="no 2"):
            list(executor.map(fails_or_sleeps, range(100)))
        assert executor.submit(square, 3).result(TIMEOUT) == 9


def test_an_element_that_cannot_be_sent_is_such_an_error(limited):
    with pytest.raises((TypeError, pickle.PicklingError)):
        limited.map(str, [*range(5), threading.Lock(), *range(5)], 1, abort_on_error=True)
    sound(limited)


def test_a_timeout_is_one_too(limited):
    with pytest.raises(shoal.TaskTimeout):
        limited.map(time.sleep, [LONG] * 50, 5, timeout=SHORT, abort_on_error=True)
    sound(limited)
