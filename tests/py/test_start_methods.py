# SPDX-License-Identifier: BSD-3-Clause
"""Pools whose workers are forked, spawned, or forked by multiprocessing's forkserver, over every kind of doorbell.

What a pool does is the same with each. Faults and what is special to one start method: test_start_methods_faults.py.
"""

import multiprocessing
import operator
import os
import pathlib
import signal

import numpy as np
import pytest

import shoal
from tasks import TIMEOUT, add, fail_on_three, kill_self, running_workers, square, works

METHODS = ["fork", "spawn", "forkserver"]
DOORBELLS = ["uring", "uring-eventfd", "semaphore"]


@pytest.fixture(scope="module", params=[(m, d) for m in METHODS for d in DOORBELLS], ids="-".join)
def pool(request, no_main):
    method, doorbell = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOAL_DOORBELL", doorbell)
        try:
            pool = shoal.Pool(2, context=method)
        except OSError as error:
            pytest.skip(str(error))
    with pool:
        yield pool
        pool._engine.verify()


def test_calls_of_every_kind_work(pool):
    assert pool.apply(add, (1,), {"b": 2, "c": 3}) == 6
    assert pool.apply_async(square, (4,)).get() == 16
    assert works(pool)
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert list(pool.imap(square, range(200))) == [x * x for x in range(200)]
    assert sorted(pool.imap_unordered(square, range(200), 7)) == [x * x for x in range(200)]


def test_lambdas_and_closures_go_by_value(pool):
    factor = [3]
    assert pool.map(lambda x: x * factor[0], range(5)) == [0, 3, 6, 9, 12]
    factor[0] = 4
    assert pool.apply(lambda x: x * factor[0], (2,)) == 8


def test_an_exception_arrives_with_the_workers_traceback(pool):
    with pytest.raises(ValueError, match="no 3") as caught:
        pool.map(fail_on_three, range(5))
    assert "fail_on_three" in str(caught.value.__cause__)


@pytest.mark.parametrize("count", [3, 1000, 300_000])
def test_arrays_of_every_size_travel_both_ways(pool, count):
    array = np.arange(count, dtype=float)
    result = pool.apply(operator.add, (array, 1))
    assert (result == array + 1).all()
    assert (pool.apply(np.negative, (array,)) == -array).all()
    result[0] = 7  # it is ours


def test_a_shared_array_is_read_in_place(pool):
    array = shoal.share(np.arange(200_000))
    assert pool.map(lambda i: int(array[i]), [0, 1000, 199_999]) == [0, 1000, 199_999]


def test_a_killed_worker_costs_its_own_task_alone(pool):
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(kill_self)
    assert caught.value.signal == 9
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(os._exit, (3,))
    assert caught.value.exit_code == 3
    assert works(pool)


@pytest.mark.parametrize(("end", "code"), [((os._exit, (3,)), 3), ((kill_self, ()), -signal.SIGKILL)])
def test_a_worker_that_others_look_at_says_how_it_ended(pool, end, code):
    workers = running_workers(pool)  # earlier tests killed some
    assert [worker.exitcode for worker in workers] == [None, None]
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(*end)
    (dead,) = [worker for worker in workers if worker.pid == caught.value.pid]
    dead.join(TIMEOUT)
    assert (dead.is_alive(), dead.exitcode) == (False, code)
    (other,) = [worker for worker in workers if worker is not dead]
    assert other.exitcode is None
    other.kill()  # nobody has looked at the pool since
    other.join(TIMEOUT)
    assert other.exitcode == -signal.SIGKILL
    assert works(pool)


def test_a_task_knows_what_process_it_is_in(pool):
    def look():
        process = multiprocessing.current_process()
        parent = multiprocessing.parent_process()
        return process.name, parent.pid, parent.is_alive(), process.daemon, bytes(process.authkey), shoal.in_worker()

    name, parent, alive, daemon, authkey, inside = pool.apply(look)
    assert name.startswith("ShoalWorker-")
    assert (parent, alive, daemon, inside) == (os.getpid(), True, False, True)
    assert authkey == multiprocessing.current_process().authkey


def test_a_task_may_have_a_pool_and_children_of_its_own(pool):
    def nested():
        with shoal.Pool(1, context="fork") as own:
            inner = own.map(square, range(3))
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        return inner, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), float(shoal.empty(3).shape[0])

    assert pool.apply(nested) == ([0, 1, 4], 5, 3.0)
    assert works(pool)


@pytest.mark.parametrize("method", METHODS)
class TestEachMethod:
    pytestmark = pytest.mark.usefixtures("no_main")

    def test_an_executor_works(self, method):
        context = multiprocessing.get_context(method)
        with shoal.ProcessPoolExecutor(2, mp_context=context, initializer=square, initargs=(1,)) as executor:
            assert executor.submit(add, 1, b=2).result() == 3
            assert list(executor.map(square, range(20), chunksize=3)) == [x * x for x in range(20)]
            assert executor._mp_context is context

    def test_a_task_may_not_write_to_what_the_parent_alone_writes(self, method):
        def writable_bytes():
            total = 0
            for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
                if "memfd:shoal " in line and line.split()[1].startswith("rw-s"):
                    start, end = (int(number, 16) for number in line.split()[0].split("-"))
                    total += end - start
            return total

        # Slot words and bells, its own result ring under both its mappings: less than the task ring alone has.
        with shoal.Pool(2, context=method) as pool:
            assert 0 < pool.apply(writable_bytes) < 2_000_000

    def test_a_worker_is_replaced_after_its_tasks(self, method):
        with shoal.Pool(1, maxtasksperchild=2, context=method) as pool:
            pids = [pool.apply(os.getpid) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]

    def test_an_initializer_may_be_a_closure_and_get_what_a_process_inherits(self, method):
        context = multiprocessing.get_context(method)
        lock, reader_writer = context.Lock(), context.Pipe()
        seen = []

        def begin(lock, connection, number):
            with lock:
                connection.send(number + len(seen))

        with shoal.Pool(1, begin, (lock, reader_writer[1], 42), context=context):
            assert reader_writer[0].poll(60)
            assert reader_writer[0].recv() == 42

    def test_an_initializer_that_raises_breaks_the_pool(self, method):
        with shoal.Pool(2, initializer=int, initargs=("x",), context=method) as pool:
            with pytest.raises(shoal.PoolBroken, match="initializer raised ValueError: invalid literal"):
                pool.apply(square, (1,))

    def test_close_and_join_let_the_work_end(self, method, leakcheck):
        pool = shoal.Pool(2, context=method)
        result = pool.map_async(square, range(100))
        pool.close()
        pool.join()
        assert result.get() == [x * x for x in range(100)]

    def test_terminate_ends_busy_and_starting_workers(self, method, leakcheck):
        pool = shoal.Pool(2, context=method)
        result = pool.apply_async(signal.pause)
        pool.terminate()
        with pytest.raises(shoal.PoolTerminated):
            result.get()

    def test_workers_of_a_pool_that_has_ended_say_how_they_ended(self, method):
        with shoal.Pool(2, context=method) as pool:
            assert works(pool)
            killed = pool._pool
        with shoal.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
            assert executor.submit(square, 3).result() == 9
            stopped = list(executor._processes.values())
        for worker in killed + stopped:
            worker.join(TIMEOUT)
        assert [worker.exitcode for worker in killed + stopped] == [-signal.SIGKILL] * 2 + [0] * 2

    def test_dropping_a_pool_leaves_nothing(self, method, leakcheck):
        pool = shoal.Pool(1, context=method)
        assert pool.apply(square, (2,)) == 4
        with pytest.warns(ResourceWarning):
            del pool


# ---- which method ----


def test_the_start_method_of_the_program_is_the_default(fresh_python):
    source = """
        import multiprocessing, shoal
        if __name__ == "__main__":
            print(shoal.Pool(1)._ctx.get_start_method())
            multiprocessing.set_start_method("spawn")
            with shoal.Pool(1) as pool, shoal.ProcessPoolExecutor(1) as executor:
                print(pool._ctx.get_start_method(), executor._mp_context.get_start_method(), pool.apply(abs, (-3,)))
            with shoal.Pool(1, context="fork") as pool:
                print(pool._ctx.get_start_method())
    """
    assert fresh_python(source).stdout.splitlines() == ["fork", "spawn spawn 3", "fork"]


def test_an_unknown_start_method_is_refused_by_name():
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        shoal.Pool(1, context="thread")

    class Other:
        def get_start_method(self):
            return "loky"

    with pytest.raises(ValueError, match="the start method 'loky' is not supported: fork, spawn or forkserver"):
        shoal.ProcessPoolExecutor(1, mp_context=Other())
