# SPDX-License-Identifier: BSD-3-Clause
"""What a fault costs where the calls are those of a `ProcessPoolExecutor`: over every kind of doorbell."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

import shoal
from tasks import TIMEOUT, FailsToLoad, Unpicklable, kill_self, square

pytestmark = [pytest.mark.leakcheck, pytest.mark.usefixtures("doorbell")]


def works(executor):
    return list(executor.map(square, range(10))) == [x * x for x in range(10)]


def test_deaths_cost_the_call_that_ran_alone(gate, executor):
    neighbour = gate.block(executor)
    for function, arguments, said in ((kill_self, (), "SIGKILL"), (os._exit, (7,), "exit code 7")):
        with pytest.raises(shoal.WorkerLost, match=said) as caught:
            executor.submit(function, *arguments).result(TIMEOUT)
        assert isinstance(caught.value, BrokenProcessPool)
    assert works(executor)
    gate.open()
    assert neighbour.result(TIMEOUT) == "go"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException, GeneratorExit])
def test_bare_base_exceptions_are_delivered(executor, kind):
    def task():
        raise kind("from the task")

    future = executor.submit(task)
    assert type(future.exception(TIMEOUT)) is kind
    with pytest.raises(kind, match="from the task"):
        future.result()
    assert works(executor)


def test_what_cannot_travel_is_the_futures_exception(executor):
    def fail():
        raise Unpicklable("with a lock")

    with pytest.raises(shoal.RemoteError, match="with a lock"):
        executor.submit(fail).result(TIMEOUT)
    with pytest.raises(TypeError, match="lock"):
        executor.submit(id, threading.Lock()).result(TIMEOUT)
    with pytest.raises(shoal.ArgumentDecodingError, match="no number"):
        executor.submit(id, FailsToLoad()).result(TIMEOUT)
    with pytest.raises(shoal.ResultEncodingError, match="lock"):
        executor.submit(threading.Lock).result(TIMEOUT)
    with pytest.raises(ValueError, match="no number"):
        executor.submit(FailsToLoad).result(TIMEOUT)
    assert works(executor)


def test_wait_and_as_completed_end_for_lost_calls_beside_those_of_others(executor):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        futures = [executor.submit(kill_self), executor.submit(square, 2), threads.submit(square, 3)]
        done = concurrent.futures.wait(futures, TIMEOUT).done
        assert done == set(futures)
        assert set(concurrent.futures.as_completed(futures, TIMEOUT)) == done
        assert isinstance(futures[0].exception(), shoal.WorkerLost)


def test_an_asyncio_task_hears_that_its_call_was_lost(executor):
    async def calls():
        loop = asyncio.get_running_loop()
        lost, kept = loop.run_in_executor(executor, kill_self), loop.run_in_executor(executor, square, 3)
        return await asyncio.wait_for(asyncio.gather(lost, kept, return_exceptions=True), TIMEOUT)

    lost, kept = asyncio.run(calls())
    assert isinstance(lost, shoal.WorkerLost)
    assert kept == 9


def test_a_done_callback_that_raises_or_submits_harms_nobody(executor, caplog):
    chained = concurrent.futures.Future()

    def submit_more(future):
        executor.submit(square, future.result()).add_done_callback(lambda second: chained.set_result(second.result()))

    future = executor.submit(square, 3)
    future.add_done_callback(lambda done: 1 // 0)
    future.add_done_callback(submit_more)
    assert chained.result(TIMEOUT) == 81
    assert "ZeroDivisionError" in caplog.text
    assert works(executor)


@pytest.mark.parametrize("end, number", [("terminate_workers", signal.SIGTERM), ("kill_workers", signal.SIGKILL)])
def test_workers_that_are_ended_end_what_they_ran(gate, end, number):
    executor = shoal.ProcessPoolExecutor(2)
    running = [gate.block(executor), gate.block(executor)]
    queued = [executor.submit(square, x) for x in range(100)]
    getattr(executor, end)()
    for future in running:
        with pytest.raises(shoal.WorkerLost, match=number.name):
            future.result(TIMEOUT)
    assert all(future.done() for future in queued)
    executor.shutdown()


def test_an_initializer_that_raises_breaks_it_with_its_exception(tmp_path):
    def fail():
        (tmp_path / str(os.getpid())).touch()
        raise ValueError("no start")

    with shoal.ProcessPoolExecutor(2, initializer=fail) as executor:
        futures = [executor.submit(square, 1)]
        for future in futures:
            assert isinstance(future.exception(TIMEOUT), shoal.PoolBroken)
            assert isinstance(future.exception().__cause__, ValueError)
        with pytest.raises(BrokenProcessPool, match="no start"):
            executor.submit(square, 1)
        with pytest.raises(BrokenProcessPool, match="no start"):
            list(executor.map(square, range(3)))
    assert len(list(tmp_path.iterdir())) <= 4


def test_one_that_is_dropped_or_shut_down_twice_ends_its_calls(tmp_path):
    executor = shoal.ProcessPoolExecutor(1)
    futures = [executor.submit(square, n) for n in range(100)]
    del executor
    gc.collect()
    assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(100)]
    executor = shoal.ProcessPoolExecutor(2)
    futures = [executor.submit(square, n) for n in range(100)]
    executor.shutdown(wait=False)
    executor.shutdown()
    executor.shutdown(cancel_futures=True)
    assert [future.result(0) for future in futures] == [n * n for n in range(100)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_a_task_may_use_an_executor_of_its_own_but_not_the_one_that_runs_it(executor):
    def busy():
        with shoal.ProcessPoolExecutor(1) as inner:
            return list(inner.map(square, range(5)))

    assert executor.submit(busy).result(TIMEOUT) == [0, 1, 4, 9, 16]
    with pytest.raises(TypeError, match="cannot pickle"):
        executor.submit(lambda: executor.submit(square, 2)).result(TIMEOUT)
    assert works(executor)


def test_a_fork_of_the_user_while_calls_are_outstanding(executor):
    futures = [executor.submit(square, x) for x in range(500)]
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(square, 1)
        except RuntimeError:
            os._exit(7)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 7 << 8
    assert [future.result(TIMEOUT) for future in futures] == [x * x for x in range(500)]


def test_an_input_that_raises_half_way_costs_what_comes_after(executor):
    def numbers():
        yield from range(10)
        raise LookupError("no more")

    results = executor.map(square, numbers())
    assert [next(results) for _ in range(10)] == [x * x for x in range(10)]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert works(executor)


def test_one_that_was_first_used_in_a_thread_outlives_it(recwarn):
    executor = shoal.ProcessPoolExecutor(2)
    thread = threading.Thread(target=executor.submit, args=(square, 1))
    thread.start()
    thread.join()
    with executor:
        with pytest.raises(shoal.WorkerLost):
            executor.submit(os._exit, 1).result(TIMEOUT)
        assert works(executor)
