# SPDX-License-Identifier: BSD-3-Clause
"""What a worker of `shoal.Pool` is to its tasks: a process with its own state, output and end; and many users."""

import concurrent.futures
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import types
from multiprocessing import connection

import pytest

import shoal
from tasks import TIMEOUT, await_file, square

pytestmark = pytest.mark.leakcheck


def pid_of_worker(_=None):
    return os.getpid()


def test_the_initializer_runs_once_in_each_worker():
    def remember(value):
        sys.shoal_test_value = (value, os.getpid())

    with shoal.Pool(2, initializer=remember, initargs=("here",)) as pool:
        values = {pool.apply(lambda: sys.shoal_test_value) for _ in range(50)}
        pids = {worker.pid for worker in pool._pool}
    assert {value for value, _ in values} == {"here"}
    assert {pid for _, pid in values} <= pids
    assert not hasattr(sys, "shoal_test_value")


@pytest.mark.parametrize("limit", [1, 5])
def test_a_worker_is_replaced_after_its_number_of_tasks(limit):
    with shoal.Pool(2, maxtasksperchild=limit) as pool:
        pids = [pool.apply(pid_of_worker) for _ in range(20)]
        assert pool.map(square, range(30), chunksize=1) == [x * x for x in range(30)]
    assert max(pids.count(pid) for pid in pids) <= limit


def test_a_chunk_is_one_task_for_maxtasksperchild():
    with shoal.Pool(1, maxtasksperchild=1) as pool:
        pids = pool.map(pid_of_worker, range(6), chunksize=3)
    assert len(set(pids)) == 2
    assert pids[0] == pids[2] != pids[3] == pids[5]


def test_workers_have_a_name_and_know_their_parent(pool):
    assert pool.apply(lambda: multiprocessing.current_process().name).startswith("ShoalWorker-")
    assert pool.apply(lambda: multiprocessing.parent_process().pid) == os.getpid()
    assert pool.apply(lambda: multiprocessing.parent_process().is_alive())
    assert pool.apply(lambda: multiprocessing.current_process().daemon) is False
    assert pool.apply(shoal.in_worker) and not shoal.in_worker()
    assert pool.apply(multiprocessing.active_children) == []


def test_workers_draw_different_random_numbers():
    numpy = pytest.importorskip("numpy")

    def draw():
        time.sleep(0.01)  # so that both workers get some
        return os.getpid(), random.random(), numpy.random.random()

    with shoal.Pool(2) as pool:
        drawn = [result.get(TIMEOUT) for result in [pool.apply_async(draw) for _ in range(20)]]
    assert len({one for _, one, _ in drawn}) == 20
    assert len({two for _, _, two in drawn}) == 20


def test_workers_start_while_another_thread_is_half_way_through_importing_numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy.random", types.ModuleType("numpy.random"))
    with shoal.Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1


def test_a_worker_reads_nothing_from_standard_input(pool):
    assert pool.apply(lambda: sys.stdin.read()) == ""
    assert pool.apply(lambda: os.read(0, 10)) == b""


def test_what_the_parent_has_yet_to_read_is_not_for_its_workers(tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("first\n" + "more\n" * 5000)
    script = """
import os, sys, shoal
assert sys.stdin.readline() == "first\\n"
def read(): return sys.stdin.read(), sys.stdin.fileno(), os.getpid()
with shoal.Pool(1, maxtasksperchild=1) as pool:
    answers = [pool.apply(read) for _ in range(3)]
assert len({pid for _, _, pid in answers}) == 3, "a worker for each"
assert {answer[:2] for answer in answers} == {("", 0)}
assert sys.stdin.read() == "more\\n" * 5000
"""
    with open(lines) as stdin:
        subprocess.run([sys.executable, "-c", script], stdin=stdin, check=True, timeout=TIMEOUT)


def test_what_a_worker_prints_is_there_although_it_is_killed(fresh_python):
    done = fresh_python("""
        import os, signal, shoal

        def task():
            print("printed by the task")
            os.kill(os.getpid(), signal.SIGKILL)

        with shoal.Pool(1) as pool:
            try:
                pool.apply(task)
            except shoal.WorkerLost:
                print("lost")
    """)
    assert done.stdout == "printed by the task\nlost\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_of_several_workers_do_not_mix(fresh_python, unbuffered):
    source = """
        import shoal
        with shoal.Pool(4) as pool:
            pool.map(print, ["a line of text"] * 2000, chunksize=1)
    """
    done = fresh_python(source, env={"PYTHONUNBUFFERED": unbuffered})
    assert set(done.stdout.splitlines()) == {"a line of text"}
    assert done.stdout.count("\n") == 2000


def test_what_the_parent_had_not_flushed_is_printed_once(fresh_python):
    done = fresh_python("""
        import sys, shoal
        sys.stdout.write("before ")
        with shoal.Pool(2, maxtasksperchild=1) as pool:
            sys.stdout.write("inside ")
            pool.map(abs, range(10), chunksize=1)
            pool.close()
            pool.join()
        sys.stdout.write("after")
    """)
    assert done.stdout == "before inside after"


def test_exit_functions_of_the_parent_do_not_run_in_workers(fresh_python):
    done = fresh_python("""
        import atexit, shoal
        atexit.register(print, "exit of the parent")
        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            pool.close()
            pool.join()
    """)
    assert done.stdout == "exit of the parent\n"


def test_exit_functions_of_a_task_run_when_its_worker_ends(fresh_python):
    done = fresh_python("""
        import atexit, shoal
        with shoal.Pool(1) as pool:
            pool.apply(atexit.register, (print, "exit of the worker"))
            pool.close()
            pool.join()
    """)
    assert done.stdout == "exit of the worker\n"


def leave_threads(path):
    def late():
        await_file(path / "leaves")
        for _ in range(20):  # the longer, the surer that a bug shows; nothing waits for this
            time.sleep(0.01)
        (path / threading.current_thread().name).touch()

    threading.Thread(target=late, name="thread").start()
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    concurrent.futures.ThreadPoolExecutor(1, "executor").submit(late)  # which nobody shuts down


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_that_ends_waits_for_threads_that_tasks_have_left(no_main, tmp_path, method):
    with shoal.Pool(1, context=method, worker_exit=(tmp_path / "leaves").touch) as pool:
        pool.apply(leave_threads, (tmp_path,))
        pool.close()
        pool.join()
        assert {path.name for path in tmp_path.iterdir()} == {"leaves", "thread", "executor_0"}
    (tmp_path / "leaves").unlink()
    with shoal.Pool(1, context=method) as pool:
        pool.apply(leave_threads, (tmp_path,))  # and the end of the block terminates


def test_so_does_one_that_was_forked_by_a_thread_that_python_does_not_know(fresh_python, tmp_path):
    done = fresh_python(
        """
        import _thread, atexit, pathlib, shoal, sys, threading, time, warnings
        warnings.simplefilter("ignore")
        made, pools, path = threading.Event(), [], pathlib.Path(sys.argv[1])

        def make():
            threading.current_thread()
            pools.append(shoal.Pool(1, worker_exit=(path / "leaves").touch))
            made.set()

        def late():
            while not (path / "leaves").exists():
                time.sleep(0.001)
            time.sleep(0.1)
            (path / "late").touch()

        _thread.start_new_thread(make, ())
        made.wait()
        pools[0].apply(lambda: threading.Thread(target=late, daemon=False).start())
        pools[0].apply(atexit.register, (print, "exit of the worker"))
        pools[0].close()
        pools[0].join()
        print((path / "late").exists())
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("exit of the worker\nTrue\n", "")


def test_a_task_may_have_processes_and_pools_of_its_own(pool):
    def with_child():
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        return child.exitcode

    def with_pool(n):
        with shoal.Pool(2) as inner:
            return inner.map(square, range(n))

    assert pool.apply(with_child) == 0
    assert pool.map(with_pool, [3, 4]) == [[0, 1, 4], [0, 1, 4, 9]]


def test_a_pool_inside_a_pool_inside_a_pool(pool):
    def nest(depth):
        if depth == 0:
            return 1
        with shoal.Pool(1) as inner:
            return 1 + inner.apply(nest, (depth - 1,))

    assert pool.apply(nest, (2,)) == 3


def test_two_pools_side_by_side():
    with shoal.Pool(2) as first, shoal.Pool(1) as second:
        one = first.map_async(square, range(100))
        two = second.map_async(square, range(100, 200))
        assert one.get(TIMEOUT) == [x * x for x in range(100)]
        assert two.get(TIMEOUT) == [x * x for x in range(100, 200)]


def test_many_threads_may_use_one_pool(pool):
    failures = []

    def use(start):
        try:
            for number in range(start, start + 50):
                assert pool.apply(square, (number,)) == number * number
            assert pool.map(square, range(start, start + 50)) == [x * x for x in range(start, start + 50)]
            assert list(pool.imap(square, range(start, start + 50))) == [x * x for x in range(start, start + 50)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_end_of_a_worker_can_be_waited_for():
    with shoal.Pool(2) as pool:
        first, second = pool._pool
        assert connection.wait([first.sentinel, second.sentinel], 0) == []
        assert first.exitcode is None
        first.kill()
        assert connection.wait([first.sentinel, second.sentinel], TIMEOUT) == [first.sentinel]
        first.join(TIMEOUT)
        assert not first.is_alive()
    second.join(TIMEOUT)
    late = type(first)(pool._engine, 0, second.pid, second.name)
    assert connection.wait([late.sentinel], TIMEOUT) == [late.sentinel]
