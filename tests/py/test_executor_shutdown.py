# SPDX-License-Identifier: BSD-3-Clause
"""The life of a `shoal.ProcessPoolExecutor`, from its arguments to its shutdown, and the faults of its calls."""

import gc
import os
import signal
import sys
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest

import shoal
from tasks import TIMEOUT, kill_self, square

pytestmark = pytest.mark.leakcheck


# ---- the life of an executor ----


def test_default_number_of_workers_is_that_of_the_usable_cpus():
    assert shoal.ProcessPoolExecutor()._max_workers == shoal.usable_cpus()


@pytest.mark.parametrize("workers", [0, -1])
def test_an_executor_needs_a_worker(workers):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        shoal.ProcessPoolExecutor(workers)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="initializer must be a callable"):
        shoal.ProcessPoolExecutor(1, initializer=1)
    with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
        shoal.ProcessPoolExecutor(1, max_tasks_per_child=1.5)
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        shoal.ProcessPoolExecutor(1, max_tasks_per_child=0)
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        shoal.ProcessPoolExecutor(1, "thread")


def test_an_executor_that_is_never_used_starts_nobody():
    with shoal.ProcessPoolExecutor(2) as executor:
        assert executor._processes == {}


def test_the_initializer_runs_in_each_worker():
    def remember(value):
        sys.shoal_test_value = value

    with shoal.ProcessPoolExecutor(2, initializer=remember, initargs=(7,)) as executor:
        futures = [executor.submit(lambda: sys.shoal_test_value) for _ in range(20)]
        assert {future.result(TIMEOUT) for future in futures} == {7}


def test_workers_are_replaced_after_their_number_of_tasks():
    with shoal.ProcessPoolExecutor(2, max_tasks_per_child=3) as executor:
        pids = [executor.submit(os.getpid).result(TIMEOUT) for _ in range(20)]
    assert max(pids.count(pid) for pid in pids) <= 3


def test_shutdown_waits_for_what_was_submitted():
    executor = shoal.ProcessPoolExecutor(2)
    futures = [executor.submit(square, x) for x in range(500)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [x * x for x in range(500)]
    executor.shutdown()


def test_nothing_can_be_submitted_after_shutdown(executor):
    executor.submit(square, 1).result(TIMEOUT)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(square, [1])
    unused = shoal.ProcessPoolExecutor(1)
    unused.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        unused.submit(square, 1)


def test_shutdown_without_waiting_lets_calls_end(gate):
    executor = shoal.ProcessPoolExecutor(2)
    blocked = gate.block(executor)
    queued = [executor.submit(square, x) for x in range(100)]
    executor.shutdown(wait=False)
    gate.open()
    assert blocked.result(TIMEOUT) == "go"
    assert [future.result(TIMEOUT) for future in queued] == [x * x for x in range(100)]
    executor.shutdown()


def test_shutdown_can_cancel_what_nobody_has_begun(gate):
    executor = shoal.ProcessPoolExecutor(2)
    blocked = [gate.block(executor), gate.block(executor)]
    queued = [executor.submit(square, x) for x in range(100)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open(2)
    assert [future.result(TIMEOUT) for future in blocked] == ["go", "go"]
    executor.shutdown()
    assert all(future.done() for future in queued)
    assert sum(future.cancelled() for future in queued) >= 96


@pytest.mark.parametrize("end, number", [("terminate_workers", signal.SIGTERM), ("kill_workers", signal.SIGKILL)])
def test_workers_can_be_ended_with_their_calls(gate, end, number):
    executor = shoal.ProcessPoolExecutor(2)
    running = [gate.block(executor), gate.block(executor)]
    queued = [executor.submit(square, x) for x in range(100)]
    rest = executor.map(square, range(1000))
    workers = list(executor._processes.values())
    getattr(executor, end)()
    for future in running:
        with pytest.raises(BrokenProcessPool, match=number.name) as caught:
            future.result(TIMEOUT)
        assert caught.value.signal == number
    assert all(future.done() for future in queued)
    assert all(future.cancelled() or isinstance(future.exception(), BrokenProcessPool) for future in queued)
    with pytest.raises((CancelledError, BrokenProcessPool)):
        list(rest)
    for worker in workers:
        worker.join(TIMEOUT)
        assert not worker.is_alive()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(square, 1)
    executor.shutdown()
    assert executor._processes == {}


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_workers_that_never_were_can_be_ended(end):
    executor = shoal.ProcessPoolExecutor(2)
    getattr(executor, end)()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(square, 1)
    getattr(executor, end)()


def test_a_dropped_executor_ends_its_calls_first(tmp_path):
    executor = shoal.ProcessPoolExecutor(1)
    futures = [executor.submit((tmp_path / str(n)).touch) for n in range(50)]
    del executor
    gc.collect()
    for future in futures:
        future.result(TIMEOUT)
    assert len(list(tmp_path.iterdir())) == 50
    with shoal.ProcessPoolExecutor(1) as another:  # collects what the dropped one left
        another.submit(square, 1).result(TIMEOUT)
    del another, future, futures


def test_calls_of_an_executor_still_open_at_exit_are_done(fresh_python):
    done = fresh_python("""
        import shoal
        executor = shoal.ProcessPoolExecutor(2)
        futures = [executor.submit(print, n, flush=True) for n in range(20)]
    """)
    assert sorted(map(int, done.stdout.split())) == list(range(20))
    assert done.stderr == ""


def test_at_exit_calls_are_done_before_exit_functions_and_none_is_taken_after(fresh_python):
    done = fresh_python("""
        import atexit, shoal, threading, time
        executor = shoal.ProcessPoolExecutor(2)
        futures = [executor.submit(time.sleep, 0.01) for _ in range(20)]

        @atexit.register
        def look():
            print(all(future.done() for future in futures))
            for late in (executor, shoal.ProcessPoolExecutor(1)):
                try:
                    late.submit(int)
                except RuntimeError as error:
                    print(error)
    """)
    refusal = "cannot schedule new futures after interpreter shutdown"
    assert done.stdout.splitlines() == ["True", refusal, refusal]
    assert done.stderr == ""


def test_a_context_manager_left_by_an_exception_waits_and_passes_it_on():
    with pytest.raises(LookupError, match="mine"), shoal.ProcessPoolExecutor(1) as executor:
        future = executor.submit(square, 3)
        raise LookupError("mine")
    assert future.result() == 9


# ---- faults ----


def test_what_cannot_be_pickled_is_the_futures_exception(executor):
    future = executor.submit(square, threading.Lock())
    with pytest.raises(Exception, match="lock"):
        future.result(TIMEOUT)
    unsendable = executor.submit(threading.Lock)
    with pytest.raises(shoal.ResultEncodingError, match="lock"):
        unsendable.result(TIMEOUT)
    assert executor.submit(square, 2).result(TIMEOUT) == 4


def test_a_killed_worker_costs_its_call_alone(gate, executor):
    neighbour = gate.block(executor)
    with pytest.raises(BrokenProcessPool, match="SIGKILL") as caught:
        executor.submit(kill_self).result(TIMEOUT)
    assert type(caught.value) is shoal.WorkerLost
    assert executor.submit(square, 2).result(TIMEOUT) == 4
    gate.open()
    assert neighbour.result(TIMEOUT) == "go"


def test_a_failing_initializer_breaks_the_executor():
    def fail_to_start():
        raise ValueError("no start")

    with shoal.ProcessPoolExecutor(2, initializer=fail_to_start) as executor:
        with pytest.raises(BrokenProcessPool, match="no start") as caught:
            executor.submit(square, 1).result(TIMEOUT)
        assert isinstance(caught.value, shoal.PoolBroken)
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(BrokenProcessPool, match="no start"):
            executor.submit(square, 1)


def test_what_an_initializer_raises_is_logged(fresh_python):
    done = fresh_python("""
        import logging, shoal
        logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
        def fail_to_start(what):
            raise ValueError(what)
        try:
            shoal.ProcessPoolExecutor(1, initializer=fail_to_start, initargs=("no start",)).submit(int).result()
        except shoal.PoolBroken as error:
            print(error)
    """)
    assert "no start" in done.stdout
    assert "concurrent.futures CRITICAL Exception in initializer:" in done.stderr
    assert "ValueError: no start" in done.stderr


def test_an_executor_in_a_forked_child_of_the_user_says_that_it_is_not_his(executor):
    executor.submit(square, 1).result(TIMEOUT)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(square, 2)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            executor.shutdown()  # without effect: it is the parent's
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as message:
        assert "belongs to the process" in message.read()
    assert executor.submit(square, 3).result(TIMEOUT) == 9
