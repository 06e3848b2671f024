# SPDX-License-Identifier: BSD-3-Clause
"""What a fault costs where workers are not forked: the same as where they are, with every kind of doorbell.

One pool serves all tests of a start method and doorbell, so each of them also shows that it has survived those before.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT, FailsToLoad, Unpicklable, kill_self, overrun_the_stack, square, works

METHODS = ["spawn", "forkserver"]
DOORBELLS = ["uring", "uring-eventfd", "semaphore"]


@pytest.fixture(scope="module", params=[(m, d) for m in METHODS for d in DOORBELLS], ids="-".join)
def how(request, no_main):
    """The start method, with the doorbell set."""
    method, doorbell = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOAL_DOORBELL", doorbell)
        try:
            shoal.Pool(1).terminate()
        except OSError as error:
            pytest.skip(str(error))
        yield method


@pytest.fixture(scope="module")
def pool(how):
    with shoal.Pool(2, context=how) as pool:
        yield pool
        pool._engine.verify()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException, GeneratorExit])
def test_bare_base_exceptions_are_delivered(pool, kind):
    def task():
        raise kind("from the task")

    with pytest.raises(kind, match="from the task"):
        pool.apply(task)
    assert works(pool)


def test_deaths_cost_the_call_that_ran_alone(pool):
    neighbour = pool.apply_async(square, (5,))
    with pytest.raises(shoal.WorkerLost, match="SIGKILL"):
        pool.apply(kill_self)
    with pytest.raises(shoal.WorkerLost, match="exit code 7"):
        pool.apply(os._exit, (7,))
    with pytest.raises(shoal.WorkerLost, match="SIGSEGV|SIGABRT"):
        pool.apply(overrun_the_stack)
    assert neighbour.get(TIMEOUT) == 25
    assert works(pool)


def test_a_death_in_a_batch_costs_the_element_that_was_running(pool):
    def kill_self_on_three(x):
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = pool.imap(kill_self_on_three, range(8), chunksize=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(shoal.WorkerLost):
        next(results)
    assert list(results) == [4, 5, 6, 7]


def test_what_cannot_travel_is_described(pool):
    def fail():
        raise Unpicklable("with a lock")

    with pytest.raises(shoal.RemoteError, match="with a lock") as caught:
        pool.apply(fail)
    assert "in fail" in caught.value.traceback
    with pytest.raises(shoal.ResultEncodingError, match="lock"):
        pool.apply(threading.Lock)
    with pytest.raises(shoal.ArgumentDecodingError, match="no number"):
        pool.apply(id, (FailsToLoad(),))
    with pytest.raises(ValueError, match="no number"):
        pool.apply(FailsToLoad)
    assert works(pool)


def test_a_stopped_worker_does_not_stop_the_other(pool):
    victim = pool._pool[0].pid
    os.kill(victim, signal.SIGSTOP)
    try:
        done = [pool.apply_async(square, (x,)) for x in range(100)]
        deadline = time.monotonic() + TIMEOUT
        while sum(result.ready() for result in done) < 99:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.kill(victim, signal.SIGCONT)
    assert [result.get(TIMEOUT) for result in done] == [x * x for x in range(100)]


def test_a_task_that_changes_its_input_and_dies_leaves_it_for_the_next(pool):
    numpy = pytest.importorskip("numpy")

    def change(array, box, die):
        seen = float(array[0]), box[0]
        array[0] = box[0] = 7
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        return seen

    array, box = numpy.zeros(1 << 18), [0]
    with pytest.raises(shoal.WorkerLost):
        pool.apply(change, (array, box, True))
    assert pool.apply(change, (array, box, False)) == (0, 0)
    result = pool.apply_async(change, (array, box, False))
    array[0] = box[0] = 5
    assert result.get(TIMEOUT) == (0, 0)


def test_a_task_may_start_a_pool_a_program_and_a_fork_but_not_use_its_own_pool(pool):
    def busy():
        with shoal.Pool(1) as inner:
            squares = inner.map(square, range(5))
        said = subprocess.run([sys.executable, "-c", "print('hello')"], capture_output=True, check=True).stdout
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        return squares, said, os.waitpid(pid, 0)[1] >> 8

    assert pool.apply(busy) == ([0, 1, 4, 9, 16], b"hello\n", 3)
    with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
        pool.apply(lambda: pool.apply(square, (2,)))
    assert works(pool)


def test_a_fork_of_the_user_while_work_is_outstanding(pool):
    results = [pool.apply_async(square, (x,)) for x in range(500)]
    pid = os.fork()
    if pid == 0:
        try:
            pool.apply(square, (1,))
        except ValueError:
            os._exit(7)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 7 << 8
    assert [result.get(TIMEOUT) for result in results] == [x * x for x in range(500)]


def test_the_end_in_and_out_of_order(how):
    pool = shoal.Pool(1, context=how)
    result = pool.apply_async(square, (3,))
    pool.close()
    pool.close()
    pool.join()
    assert result.get(TIMEOUT) == 9
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (1,))
    pool = shoal.Pool(1, context=how)
    result = pool.apply_async(signal.pause)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
    with pytest.raises(shoal.PoolTerminated):
        result.get(TIMEOUT)


def test_an_executor_loses_one_call_and_says_why_its_workers_do_not_start(how):
    with shoal.ProcessPoolExecutor(2, how) as executor:
        lost, kept = executor.submit(kill_self), executor.submit(square, 5)
        with pytest.raises(shoal.WorkerLost):
            lost.result(TIMEOUT)
        assert kept.result(TIMEOUT) == 25
        assert list(executor.map(square, range(10))) == [x * x for x in range(10)]
    with shoal.ProcessPoolExecutor(1, how, initializer=divmod, initargs=(1, 0)) as executor:
        future = executor.submit(square, 1)
        assert isinstance(future.exception(TIMEOUT), shoal.PoolBroken)
        assert isinstance(future.exception().__cause__, ZeroDivisionError)
