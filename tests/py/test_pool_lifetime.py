# SPDX-License-Identifier: BSD-3-Clause
"""The life of a `shoal.Pool`: its arguments, `close`, `terminate` and `join`, and what is left when nobody ends it."""

import gc
import multiprocessing
import multiprocessing.pool
import os
import pickle
import sys
import threading
import time
import warnings

import pytest

import shoal
from tasks import TIMEOUT, add, square

pytestmark = pytest.mark.leakcheck


def test_default_number_of_workers_is_that_of_the_usable_cpus():
    with shoal.Pool() as pool:
        assert pool._processes == shoal.usable_cpus() == len(pool._pool)


@pytest.mark.parametrize("processes", [0, -1])
def test_a_pool_needs_a_worker(processes):
    with pytest.raises(ValueError, match="Number of processes must be at least 1"):
        shoal.Pool(processes)


@pytest.mark.parametrize("processes", ["2", 2.0, [2]])
def test_the_number_of_workers_is_an_integer(processes):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        shoal.Pool(processes)
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        shoal.ProcessPoolExecutor(processes)


def test_a_pool_of_more_workers_than_there_can_be_is_refused():
    with pytest.raises(ValueError):
        shoal.Pool(1_000_000)


def test_the_initializer_must_be_callable():
    with pytest.raises(TypeError, match="initializer must be a callable"):
        shoal.Pool(1, initializer="not callable")


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1"])
def test_maxtasksperchild_must_be_a_positive_int(limit):
    with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
        shoal.Pool(1, maxtasksperchild=limit)


def test_a_closed_pool_takes_nothing_more():
    with shoal.Pool(1) as pool:
        pool.close()
        pool.close()
        for call in (
            lambda: pool.apply(square, (1,)),
            lambda: pool.apply_async(square, (1,)),
            lambda: pool.map(square, [1]),
            lambda: pool.map_async(square, [1]),
            lambda: pool.starmap(add, [(1, 2)]),
            lambda: pool.imap(square, [1]),
            lambda: pool.imap_unordered(square, [1]),
            lambda: pool.__enter__(),
        ):
            with pytest.raises(ValueError, match="Pool not running"):
                call()
        pool.join()


def test_close_and_join_let_outstanding_work_end():
    with shoal.Pool(2) as pool:
        results = [pool.apply_async(square, (x,)) for x in range(1000)]
        pool.close()
        pool.join()
        assert all(result.ready() for result in results)
        assert [result.get() for result in results] == [x * x for x in range(1000)]


def test_join_before_close_is_an_error(pool):
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()


def test_terminate_ends_what_was_not_done():
    pool = shoal.Pool(2)
    results = [pool.apply_async(time.sleep, (100,)) for _ in range(10)]
    mapped = pool.map_async(time.sleep, [100] * 10)
    lazy = pool.imap(time.sleep, [100] * 10)
    pool.terminate()
    pool.terminate()
    pool.join()
    for result in [*results, mapped]:
        with pytest.raises(shoal.PoolTerminated):
            result.get(TIMEOUT)
    with pytest.raises(shoal.PoolTerminated):
        next(lazy)
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (1,))


def test_results_that_had_arrived_survive_terminate():
    with shoal.Pool(2) as pool:
        result = pool.apply_async(square, (9,))
        mapped = pool.map_async(square, range(10))
        result.wait(TIMEOUT)
        mapped.wait(TIMEOUT)
    assert result.get() == 81
    assert mapped.get() == [x * x for x in range(10)]


def test_leaving_the_with_block_terminates():
    with shoal.Pool(2) as pool:
        pids = [worker.pid for worker in pool._pool]
        pool.apply_async(time.sleep, (100,))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_terminate_while_another_thread_waits():
    pool = shoal.Pool(1)
    outcome = []

    def wait():
        try:
            pool.apply(time.sleep, (100,))
        except shoal.PoolTerminated as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while pool._engine.stats()["in_flight"] == 0:
        os.sched_yield()
    pool.terminate()
    thread.join(TIMEOUT)
    assert len(outcome) == 1


def test_a_dropped_pool_warns_and_leaves_nothing():
    pool = shoal.Pool(2)
    pids = [worker.pid for worker in pool._pool]
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_pool_that_was_left_properly_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with shoal.Pool(1) as pool:
            pool.apply(square, (1,))
        del pool
        gc.collect()


def test_what_pool_lists_as_workers_can_be_joined():
    with shoal.Pool(2) as pool:
        workers = pool._pool
        assert all(worker.is_alive() for worker in workers)
        workers[0].join(0.01)
        assert workers[0].is_alive()
        workers[0].terminate()
        workers[0].join()
        pool.close()
        pool.join()
    for worker in workers:
        worker.join()
        assert not worker.is_alive()


def test_a_pool_cannot_be_pickled(pool):
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        pickle.dumps(pool)
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        pool.apply(id, (pool,))


def test_it_is_a_multiprocessing_pool_to_those_who_ask(pool):
    assert isinstance(pool, multiprocessing.pool.Pool)
    assert pool._processes == 2
    assert pool._state == multiprocessing.pool.RUN
    assert pool._ctx.get_start_method() == "fork"
    assert "state=RUN" in repr(pool) and "pool_size=2" in repr(pool)
    before = threading.active_count()
    with shoal.Pool(1):
        assert threading.active_count() <= before + 1


def test_a_pool_in_a_forked_child_of_the_user_says_that_it_is_not_his(pool):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool.apply(square, (2,))
        except ValueError as error:
            os.write(writer, str(error).encode())
        finally:
            pool.terminate()  # without effect: it is the parent's
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as message:
        assert "belongs to the process" in message.read()
    assert pool.apply(square, (3,)) == 9


def test_pools_still_open_at_exit_end_quietly(fresh_python):
    done = fresh_python("""
        import time, shoal
        pool = shoal.Pool(2)
        waiting = pool.apply_async(time.sleep, (100,))
        lazy = pool.imap(time.sleep, [100] * 5)
        print(*[worker.pid for worker in pool._pool])
    """)
    assert done.stderr == ""
    assert not any(os.path.exists(f"/proc/{pid}") for pid in done.stdout.split())


@pytest.mark.parametrize(
    "call", ["pool.map(square, range(3))", "pool.apply(square, (1,))", "next(pool.imap(square, [1]))"]
)
def test_daemon_threads_that_wait_when_the_interpreter_exits_end_quietly(fresh_python, call):
    done = fresh_python(f"""
        import threading, time, shoal
        def square(x):
            time.sleep(100)
        def run():
            {call}
        pool = shoal.Pool(2)
        threading.Thread(target=run, daemon=True).start()
        while not pool._engine.stats()["in_flight"]:
            time.sleep(0.001)
    """)
    assert done.stderr == ""


PLAIN = """
    import shoal
    with shoal.Pool(2) as pool:
        pool.map_async(abs, range(100)).get()
        for _ in range(3):
            pool._pool[0].kill()  # or it is being replaced just now
            pool.map_async(abs, range(100)).get()
"""


def test_forks_of_a_plain_script_give_no_warning(fresh_python):
    assert fresh_python(PLAIN, env={"PYTHONWARNINGS": "always"}).stderr == ""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python warns from 3.12 on")
def test_forks_with_threads_of_the_user_keep_pythons_warning(fresh_python):
    threaded = """
    import threading
    stop = threading.Event()
    threading.Thread(target=stop.wait, daemon=True).start()
    """
    assert "DeprecationWarning" in fresh_python(threaded + PLAIN, env={"PYTHONWARNINGS": "always"}).stderr


def test_an_exception_in_the_with_block_passes(tmp_path):
    with pytest.raises(LookupError, match="mine"), shoal.Pool(2) as pool:
        pool.map_async(time.sleep, [100] * 4)
        raise LookupError("mine")


def test_a_worker_whose_start_is_under_way_while_another_thread_ends_the_pool_ends_too(fresh_python):
    done = fresh_python(
        """
        import os, signal, threading, time
        forking = threading.Event()
        def hold_up():  # the fork that replaces the worker, until the pool has ended
            if started:
                started.clear()
                forking.set()
                while not has_ended():
                    time.sleep(0.001)
        def has_ended():
            try:
                pool._engine.submit(shoal._ext.Item(), int, (), None)
            except shoal.PoolTerminated:
                return True
            return False
        started = []
        os.register_at_fork(before=hold_up)
        import shoal
        pool = shoal.Pool(1)
        waiter = threading.Thread(target=pool.apply_async(time.sleep, (100,)).wait)
        waiter.start()
        started.append(True)
        os.kill(pool._pool[0].pid, signal.SIGKILL)
        forking.wait()
        pool.terminate()
        waiter.join()
        print(repr(open(f"/proc/self/task/{os.getpid()}/children").read()))
        """
    )
    assert done.stdout == "''\n"
