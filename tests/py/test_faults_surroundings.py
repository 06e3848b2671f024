# SPDX-License-Identifier: BSD-3-Clause
"""What user code around a pool does: forks, threads that end, pools and programs of tasks, changes behind its back."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT, square, works

pytestmark = [pytest.mark.leakcheck, pytest.mark.usefixtures("doorbell")]


@pytest.fixture
def small_cgroup(tmp_path):
    """The file into which a process writes itself to have 64 MiB of memory."""
    for top in (pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")):
        group = top / f"shoal-test-{os.getpid()}"
        limit = "memory.limit_in_bytes" if top.name == "memory" else "memory.max"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(64 << 20))
        except OSError:
            group.rmdir()
            continue
        yield group / "cgroup.procs"
        deadline = time.monotonic() + TIMEOUT
        while (group / "cgroup.procs").read_text():
            assert time.monotonic() < deadline
        group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


def test_a_task_that_is_killed_for_lack_of_memory(small_cgroup):
    def greedy():
        small_cgroup.write_text(str(os.getpid()))
        return len(bytearray(os.urandom(1 << 20) * 512))

    with shoal.Pool(2) as pool:
        with pytest.raises(shoal.WorkerLost) as caught:
            pool.apply(greedy)
        assert caught.value.signal == signal.SIGKILL
        assert works(pool)


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the parent itself has more than the limit")
def test_the_error_of_a_worker_that_the_kernel_killed_says_so(small_cgroup, fresh_python):
    done = fresh_python(
        """
        import os, pathlib, sys, shoal
        group = pathlib.Path(sys.argv[1])

        def greedy(size):
            pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
            return len(bytearray(os.urandom(1 << 20) * (size >> 20)))

        group.write_text(str(os.getpid()))
        with shoal.Pool(1) as pool:
            try:
                pool.apply(greedy, (512 << 20,))
            except shoal.WorkerLost as lost:
                print(lost.task, lost.memory > 20 << 20, lost.cause, sep="|")
        """,
        small_cgroup,
    )
    task, memory, cause = done.stdout.strip().split("|")
    assert (task, memory) == ("greedy(536870912)", "True")
    assert cause.startswith("the kernel killed it for lack of memory")


def test_a_cgroups_limit_bounds_the_budget_and_is_an_error(small_cgroup, fresh_python):
    limits = [small_cgroup.parent / name for name in ("memory.limit_in_bytes", "memory.max")]
    next(limit for limit in limits if limit.exists()).write_text(str(256 << 20))
    done = fresh_python(
        """
        import os, pathlib, sys
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        import numpy, shoal
        with shoal.Pool(2) as pool:
            print(pool._engine.stats()["arena_budget"] <= 128 << 20)
            for make in (lambda: shoal.empty(512 << 20, "u1"), lambda: pool.apply(numpy.zeros, (512 << 20,))):
                try:
                    make()
                except MemoryError:
                    print("MemoryError")
            for _ in range(50):
                assert len(pool.apply(numpy.asarray, (numpy.ones(8 << 20, "u1"),))) == 8 << 20
            print(pool._engine.stats()["lost"])
        """,
        small_cgroup,
    )
    assert done.stdout.split() == ["True", "MemoryError", "MemoryError", "0"]


def test_a_dev_shm_of_64_mb_is_no_limit(fresh_python):
    """As Docker mounts it."""
    mounts = "mount -t tmpfs -o size=64m shoal-test /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mounts], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be had here")
    done = fresh_python(
        """
        import os, subprocess, sys
        if len(sys.argv) == 2:
            again = " ".join([sys.executable, sys.argv[0], "inside", "there"])
            sys.exit(subprocess.run(["unshare", "-m", "sh", "-c", sys.argv[1] + " && exec " + again]).returncode)
        import numpy, shoal
        stat = os.statvfs("/dev/shm")
        print(stat.f_blocks * stat.f_frsize >> 20)
        shared = shoal.share(numpy.ones(100 << 20, "u1"))
        with shoal.Pool(2) as pool:
            print(len(pool.apply(numpy.asarray, (numpy.ones(100 << 20, "u1"),))) >> 20)
            print(pool.apply(numpy.sum, (shared,)) >> 20, os.listdir("/dev/shm"))
        """,
        mounts,
    )
    assert done.stdout.split() == ["64", "100", "100", "[]"]


def test_a_child_that_the_user_forks_keeps_no_worker_alive(fresh_python):
    """The child lives on when its parent, who had the pool, is killed."""
    done = fresh_python("""
        import os, signal, sys, time, shoal
        out = os.pipe()
        if os.fork() == 0:
            os.close(out[0])
            pool = shoal.Pool(2)
            pool.map(abs, range(10))
            child = os.fork()
            if child == 0:
                time.sleep(100)
            os.write(out[1], " ".join(str(worker.pid) for worker in pool._pool).encode() + b" %d" % child)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(out[1])
        os.wait()
        *workers, child = map(int, os.read(out[0], 1000).split())
        deadline = time.monotonic() + 30
        def lives(pid):
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
            except FileNotFoundError:
                return False
        while any(map(lives, workers)) and time.monotonic() < deadline:
            pass
        print([lives(pid) for pid in workers], lives(child))
        os.kill(child, signal.SIGKILL)
    """)
    assert done.stdout == "[False, False] True\n"


def test_forks_of_the_user_while_work_is_outstanding():
    with shoal.Pool(2) as pool:
        results = [pool.apply_async(square, (x,)) for x in range(1000)]
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            assert os.waitpid(pid, 0)[1] == 7 << 8
        assert [result.get(TIMEOUT) for result in results] == [x * x for x in range(1000)]


def test_a_task_cannot_use_the_pool_that_it_runs_in():
    with shoal.Pool(2) as pool:
        box = [pool]

        def recurse():
            box[0].apply(square, (2,))

        with pytest.raises(Exception, match=r"pool|process"):
            pool.apply(recurse)
        assert works(pool)


def test_a_task_may_start_a_pool_a_program_and_a_fork():
    def busy():
        with shoal.Pool(2) as inner:
            squares = inner.map(square, range(5))
        said = subprocess.run([sys.executable, "-c", "print('hello')"], capture_output=True, check=True).stdout
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        return squares, said, os.waitpid(pid, 0)[1] >> 8

    with shoal.Pool(2) as pool:
        assert pool.apply(busy) == ([0, 1, 4, 9, 16], b"hello\n", 3)
        assert works(pool)


def test_threads_that_have_waited_and_ended_leave_the_pool_usable():
    with shoal.Pool(2) as pool:
        for _ in range(20):  # identifiers of threads are used again
            thread = threading.Thread(target=pool.map, args=(square, range(50)))
            thread.start()
            thread.join()
        assert works(pool)


def test_an_argument_that_is_changed_right_after_the_call():
    numpy = pytest.importorskip("numpy")
    with shoal.Pool(2) as pool:
        small, large, array = [1, 2], bytearray(1 << 20), numpy.zeros(1 << 17)
        results = [pool.apply_async(list, (small,)), pool.apply_async(sum, (large,)), pool.apply_async(sum, (array,))]
        small.append(3)
        large[:] = b"\x01" * len(large)
        array[:] = 1
        assert [result.get(TIMEOUT) for result in results] == [[1, 2], 0, 0]


def test_what_a_dead_worker_changed_is_unchanged_for_the_one_who_goes_on():
    """The rest of a batch sees the function's captured values, and its own arguments, as they were submitted."""
    numpy = pytest.importorskip("numpy")
    array, box = numpy.zeros(1 << 18), [0]

    def work(pair):
        number, own = pair
        seen = float(array[0]), box[0], float(own[0])
        array[0] += 1
        box[0] += 1
        own[0] += 1
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return seen

    own = numpy.zeros(1 << 17)
    with shoal.Pool(2) as pool:
        results = pool.imap(work, [(number, own) for number in range(4)], chunksize=4)
        assert next(results) == (0, 0, 0)
        with pytest.raises(shoal.WorkerLost):
            next(results)
        assert next(results) == (0, 0, 0)
        assert next(results) == (1, 1, 0)
    assert (array[0], box, own[0]) == (0, [0], 0)


def test_a_hundred_thousand_outstanding_futures():
    with shoal.ProcessPoolExecutor(2) as executor:
        futures = [executor.submit(square, x) for x in range(100_000)]
        assert sum(future.result(TIMEOUT) for future in futures) == sum(x * x for x in range(100_000))


KEPT = {}


def test_an_array_result_that_another_pool_inherits_and_the_parent_drops():
    numpy = pytest.importorskip("numpy")
    with shoal.Pool(1) as first:
        KEPT["result"] = first.apply(numpy.full, (1 << 18, 7.0))
        with shoal.Pool(1) as second:
            assert second.apply(total_of_kept) == 7.0 * (1 << 18)
            KEPT.clear()
            for number in range(10):  # its memory would be used again
                first.apply(numpy.full, (1 << 18, float(number)))
            assert second.apply(total_of_kept) == 7.0 * (1 << 18)


def total_of_kept():
    return float(KEPT["result"].sum())
