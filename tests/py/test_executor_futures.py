# SPDX-License-Identifier: BSD-3-Clause
"""The futures of `shoal.ProcessPoolExecutor`, alone and under the functions of concurrent.futures and asyncio."""

import asyncio
import concurrent.futures
import logging
import threading
import time
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

import pytest

import shoal
from tasks import TIMEOUT, add, square

pytestmark = pytest.mark.leakcheck


# ---- submit and its future ----


def fail(text="failed"):
    raise ValueError(text)


def test_submit_returns_a_future_with_the_result(executor):
    future = executor.submit(add, 1, b=2, c=3)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(TIMEOUT) == 6
    assert future.result() == 6
    assert future.exception() is None
    assert future.done() and not future.running() and not future.cancelled()


def test_any_keyword_can_be_passed_on(executor):
    def keywords(**kwargs):
        return kwargs

    assert executor.submit(keywords, self=1, fn=2, timeout=3).result(TIMEOUT) == {"self": 1, "fn": 2, "timeout": 3}


def test_the_exception_arrives_as_raised_with_the_workers_traceback(executor):
    future = executor.submit(fail, "here")
    with pytest.raises(ValueError, match="here"):
        future.result(TIMEOUT)
    error = future.exception(TIMEOUT)
    assert isinstance(error, ValueError)
    assert "in fail\n    raise ValueError(text)" in str(error.__cause__)


def test_result_and_exception_take_a_timeout(gate, executor):
    future = gate.block(executor)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=-1)
    assert not future.done()
    gate.open()
    assert future.result(TIMEOUT) == "go"


def test_a_future_tells_whether_it_runs(gate, executor):
    future = gate.block(executor)
    assert future.running() and not future.done()
    assert future._state == "RUNNING"
    gate.open()
    future.result(TIMEOUT)
    assert not future.running() and future.done()
    assert future._state == "FINISHED"


def test_a_call_that_no_worker_has_begun_can_be_cancelled(gate, executor):
    blocked = [gate.block(executor), gate.block(executor)]
    waiting = [executor.submit(square, x) for x in range(10)]
    assert waiting[-1].cancel() and waiting[-1].cancel()
    assert waiting[-1].cancelled() and waiting[-1].done() and not waiting[-1].running()
    for ask in (waiting[-1].result, waiting[-1].exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask(TIMEOUT)
    assert not blocked[0].cancel(), "it runs"
    gate.open(2)
    assert [future.result(TIMEOUT) for future in waiting[:-1]] == [x * x for x in range(9)]
    assert not waiting[0].cancel(), "it is done"


def test_a_cancelled_call_is_never_run(gate, executor, tmp_path):
    gate.block(executor)
    gate.block(executor)
    futures = [executor.submit((tmp_path / str(n)).touch) for n in range(20)]
    cancelled = [future.cancel() for future in futures]
    gate.open(2)
    concurrent.futures.wait(futures, TIMEOUT)
    assert [(tmp_path / str(n)).exists() for n in range(20)] == [not one for one in cancelled]
    assert sum(cancelled) >= 16, "no more than one prefetched call for each worker"


def test_done_callbacks_run_in_order_and_once(gate, executor):
    calls = []
    future = gate.block(executor)
    future.add_done_callback(lambda f: calls.append(("first", f is future, f.result())))
    future.add_done_callback(lambda f: calls.append(("second", f is future, f.done())))
    gate.open()
    future.result(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while len(calls) < 2 and time.monotonic() < deadline:  # it may be another thread that runs them
        time.sleep(0.001)
    future.add_done_callback(lambda f: calls.append(("late", f is future, True)))
    assert calls == [("first", True, "go"), ("second", True, True), ("late", True, True)]


def test_a_done_callback_runs_although_nobody_waits(executor):
    called = threading.Event()
    executor.submit(square, 1).add_done_callback(lambda _: called.set())
    assert called.wait(TIMEOUT)


def test_a_done_callback_of_a_cancelled_future_runs(gate, executor):
    gate.block(executor)
    gate.block(executor)
    executor.submit(square, 1)
    executor.submit(square, 2)
    last = executor.submit(square, 3)
    calls = []
    last.add_done_callback(lambda future: calls.append(future.cancelled()))
    assert last.cancel()
    assert calls == [True]
    gate.open(2)


def test_a_done_callback_that_raises_is_logged_and_ignored(gate, executor, caplog):
    calls = []
    future = gate.block(executor)
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(calls.append)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.open()
        deadline = time.monotonic() + TIMEOUT
        while not calls and time.monotonic() < deadline:
            future.result(TIMEOUT)
    assert calls == [future]
    assert "exception calling callback" in caplog.text


def test_the_repr_of_a_future_tells_its_state(gate, executor):
    future = gate.block(executor)
    assert "state=running" in repr(future)
    gate.open()
    future.result(TIMEOUT)
    assert "state=finished returned str" in repr(future)
    failed = executor.submit(fail)
    failed.exception(TIMEOUT)
    assert "state=finished raised ValueError" in repr(failed)


def test_a_third_party_may_settle_a_future(gate, executor):
    gate.block(executor)
    gate.block(executor)
    executor.submit(square, 0)
    executor.submit(square, 0)
    future = executor.submit(square, 3)
    assert future.set_running_or_notify_cancel()
    future.set_result("theirs")
    assert future.result(TIMEOUT) == "theirs"
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result("again")
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_exception(ValueError())
    gate.open(2)


def test_futures_may_be_forgotten(executor):
    for _ in range(1000):
        executor.submit(square, 1)
    assert executor.submit(square, 2).result(TIMEOUT) == 4


def test_a_future_can_be_asked_by_many_threads(gate, executor):
    future = gate.block(executor)
    results = []
    threads = [threading.Thread(target=lambda: results.append(future.result(TIMEOUT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join()
    assert results == ["go"] * 8


class SlowToLoad:
    def __init__(self, value):
        self.value = value

    def __setstate__(self, state):
        time.sleep(0.05)  # lets other threads in while it is half there
        self.__dict__.update(state)


def test_a_result_that_is_slow_to_unpickle_can_be_asked_by_many_threads(executor):
    future = executor.submit(SlowToLoad, 5)
    values = []
    threads = [threading.Thread(target=lambda: values.append(future.result(TIMEOUT).value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [5] * 4


def test_executors_and_pools_work_side_by_side(executor):
    with shoal.Pool(2) as pool:
        future = executor.submit(square, 3)
        assert pool.apply(square, (4,)) == 16
        assert future.result(TIMEOUT) == 9


def test_many_threads_may_submit(executor):
    results = []

    def submit(start):
        futures = [executor.submit(square, x) for x in range(start, start + 100)]
        results.append([future.result(TIMEOUT) for future in futures] == [x * x for x in range(start, start + 100)])

    threads = [threading.Thread(target=submit, args=(n * 100,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


# ---- the functions of concurrent.futures ----


def test_wait_for_all(executor):
    futures = [executor.submit(square, x) for x in range(50)]
    done, not_done = concurrent.futures.wait(futures, TIMEOUT, ALL_COMPLETED)
    assert done == set(futures) and not_done == set()
    done, not_done = concurrent.futures.wait(futures, TIMEOUT)
    assert done == set(futures) and not_done == set()


def test_wait_for_the_first(gate, executor):
    blocked = gate.block(executor)
    quick = executor.submit(square, 2)
    done, not_done = concurrent.futures.wait([blocked, quick], TIMEOUT, FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {blocked})
    gate.open()


def test_wait_for_the_first_exception(gate, executor):
    blocked = gate.block(executor)
    failed = executor.submit(fail)
    done, not_done = concurrent.futures.wait([blocked, failed], TIMEOUT, FIRST_EXCEPTION)
    assert (done, not_done) == ({failed}, {blocked})
    gate.open()
    assert concurrent.futures.wait([blocked], TIMEOUT, FIRST_EXCEPTION).done == {blocked}


def test_wait_gives_up_at_its_timeout(gate, executor):
    blocked = gate.block(executor)
    quick = executor.submit(square, 1)
    quick.result(TIMEOUT)
    assert concurrent.futures.wait([blocked, quick], timeout=0.01) == ({quick}, {blocked})
    gate.open()


def test_wait_again_and_again_while_calls_end(executor):
    """`wait` counts what is pending; a future that changed under its eyes would make it return too early."""
    for _ in range(200):
        futures = [executor.submit(square, x) for x in range(20)]
        assert concurrent.futures.wait(futures, TIMEOUT).not_done == set()
        assert all(future.done() for future in futures)


def test_as_completed_yields_each_once(executor):
    futures = [executor.submit(square, x) for x in range(200)]
    seen = list(concurrent.futures.as_completed(futures, TIMEOUT))
    assert len(seen) == 200 and set(seen) == set(futures)


def test_as_completed_yields_in_the_order_of_completion(gate, executor):
    blocked = gate.block(executor)
    quick = executor.submit(square, 1)
    order = concurrent.futures.as_completed([blocked, quick], TIMEOUT)
    assert next(order) is quick
    gate.open()
    assert next(order) is blocked


def test_as_completed_gives_up_at_its_timeout(gate, executor):
    blocked = gate.block(executor)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([blocked], timeout=0.01))
    gate.open()


def test_wait_and_as_completed_see_cancelled_futures(gate, executor):
    gate.block(executor)
    gate.block(executor)
    futures = [executor.submit(square, x) for x in range(10)]
    threading.Timer(0.05, lambda: [future.cancel() for future in futures] and gate.open(2)).start()
    assert set(concurrent.futures.as_completed(futures, TIMEOUT)) == set(futures)
    assert concurrent.futures.wait(futures, TIMEOUT).done == set(futures)
    assert futures[-1].cancelled()


def test_ours_and_stock_futures_can_be_waited_for_together(executor):
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = [pool.submit(square, x) for x in range(20) for pool in (executor, threads)]
        assert concurrent.futures.wait(futures, TIMEOUT).not_done == set()
        assert len(list(concurrent.futures.as_completed(futures, TIMEOUT))) == 40


def test_asyncio_runs_calls_in_it(executor):
    async def main():
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*[loop.run_in_executor(executor, square, x) for x in range(50)])
        assert results == [x * x for x in range(50)]
        assert await asyncio.wrap_future(executor.submit(square, 3)) == 9
        with pytest.raises(ValueError, match="in the worker"):
            await loop.run_in_executor(executor, fail, "in the worker")

    asyncio.run(main())


def test_cancelling_an_asyncio_future_cancels_ours(gate, executor):
    async def main():
        gate.block(executor)
        gate.block(executor)
        futures = [executor.submit(square, x) for x in range(8)]
        wrapped = asyncio.wrap_future(futures[-1])
        wrapped.cancel()
        await asyncio.sleep(0)  # the loop hands the cancellation on
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        gate.open(2)
        assert futures[-1].cancelled()

    asyncio.run(main())
