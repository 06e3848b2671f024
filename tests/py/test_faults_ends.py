# SPDX-License-Identifier: BSD-3-Clause
"""Ends in and out of order, what raises besides tasks, and copies that are copies: over every kind of doorbell."""

import gc
import os
import signal
import threading

import pytest

import shoal
from tasks import TIMEOUT, kill_self, square, works

pytestmark = pytest.mark.usefixtures("doorbell", "leakcheck")


def test_a_pool_may_be_closed_and_terminated_twice_and_takes_nothing_after_that():
    pool = shoal.Pool(2)
    result = pool.map_async(square, range(50))
    pool.close()
    pool.close()
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(ValueError, match="Pool not running"):
            call(square, (1,))
    pool.join()
    pool.join()
    assert result.get(TIMEOUT) == [x * x for x in range(50)]
    pool.terminate()
    pool.terminate()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(square, [1])


def test_terminate_ends_what_was_not_done():
    pool = shoal.Pool(2)
    results = [pool.apply_async(signal.pause) for _ in range(5)]
    pool.terminate()
    for result in results:
        with pytest.raises(shoal.PoolTerminated):
            result.get(TIMEOUT)


def test_a_pool_that_is_dropped_with_work_outstanding_ends():
    pool = shoal.Pool(2)
    result = pool.apply_async(signal.pause)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    with pytest.raises(shoal.PoolTerminated):
        result.get(TIMEOUT)


def test_the_interpreter_ends_with_work_outstanding(fresh_python, tmp_path):
    source = """
        import os, signal, sys, shoal
        pool = shoal.Pool(2)
        busy = [pool.apply_async(signal.pause) for _ in range(5)]
        executor = shoal.ProcessPoolExecutor(2)
        executor.submit(os.mkdir, sys.argv[1])
        print(*[worker.pid for worker in pool._pool], *executor._processes)
    """
    done = fresh_python(source, tmp_path / "made", env={"PYTHONWARNINGS": "ignore"})
    assert done.stderr == ""
    assert (tmp_path / "made").is_dir()
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.filterwarnings("ignore:this process forks workers")
def test_a_pool_outlives_the_thread_that_made_it():
    made = []
    thread = threading.Thread(target=lambda: made.append(shoal.Pool(2)))
    thread.start()
    thread.join()
    with made.pop() as pool:
        assert works(pool)
        with pytest.raises(shoal.WorkerLost):
            pool.apply(kill_self)
        assert works(pool)
        assert pool.map(square, range(10)) == [x * x for x in range(10)]
        os.kill(pool._pool[0].pid, 9)
        assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_a_generator_that_raises_half_way_costs_what_comes_after(pool):
    def numbers():
        yield from range(10)
        raise LookupError("no more")

    results = pool.imap(square, numbers())
    assert [next(results) for _ in range(10)] == [x * x for x in range(10)]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    with pytest.raises(LookupError, match="no more"):
        pool.map(square, numbers())
    assert works(pool)


def test_a_callback_that_raises_harms_nobody(pool, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    result = pool.apply_async(square, (3,), callback=lambda value: 1 // 0)
    assert result.get(TIMEOUT) == 9
    assert works(pool)
    assert [arguments.exc_type for arguments in seen] == [ZeroDivisionError]


def test_a_closure_that_changes_what_it_captured_finds_it_as_it_was(pool):
    captured = [1]

    def change(x):
        captured.append(x)
        return len(captured)

    assert [pool.apply(change, (x,)) for x in range(6)] == [2] * 6
    assert captured == [1]


def test_a_task_that_changes_its_input_and_dies_leaves_it_for_the_next(pool):
    values = [1, 2, 3]

    def change(values, die):
        values.append(4)
        if die:
            kill_self()
        return values

    with pytest.raises(shoal.WorkerLost):
        pool.apply(change, (values, True))
    assert values == [1, 2, 3]
    assert pool.apply(change, (values, False)) == [1, 2, 3, 4]
