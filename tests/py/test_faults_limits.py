# SPDX-License-Identifier: BSD-3-Clause
# alone: uses up memory
"""Memory, descriptors, processes or the budget run out, or a setting is senseless: a clear error, nothing left over."""

import os
import resource

import pytest

from tasks import works

pytestmark = pytest.mark.leakcheck


def test_a_result_larger_than_the_budget(fresh_python):
    done = fresh_python(
        """
        import shoal
        with shoal.Pool(2) as pool:
            try:
                pool.apply(bytes, (256 << 20,))
            except MemoryError as error:
                print("MemoryError", error)
            try:
                pool.map(bytes, [10, 256 << 20, 20], chunksize=3)
            except MemoryError as error:
                print("MemoryError", error)
            print(len(pool.apply(bytes, (1 << 20,))))
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("MemoryError" in line and "SHOAL_ARENA_LIMIT" in line for line in lines[:2])
    assert lines[2] == str(1 << 20)


def test_an_argument_larger_than_the_budget(fresh_python):
    done = fresh_python(
        """
        import shoal
        with shoal.Pool(2) as pool:
            try:
                pool.apply(len, (bytes(256 << 20),))
            except MemoryError as error:
                print("MemoryError", error)
            print(pool.apply(len, (bytes(1 << 20),)))
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )
    assert "SHOAL_ARENA_LIMIT" in done.stdout
    assert done.stdout.splitlines()[-1] == str(1 << 20)


def test_more_than_the_budget_goes_through_bit_by_bit(fresh_python):
    done = fresh_python(
        """
        import shoal
        with shoal.Pool(2) as pool:
            chunks = (bytes([n]) * (8 << 20) for n in range(64))
            print(sum(len(chunk) for chunk in pool.imap(bytes, chunks)) >> 20)
            kept = list(pool.imap(bytes, [8 << 20] * 32))
            print(sum(map(len, kept)) >> 20)
            print(sum(map(len, pool.map(bytes, [8 << 20] * 32))) >> 20)
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )
    assert done.stdout.split() == ["512", "256", "256"]


def test_what_waits_for_its_turn_counts_and_a_submitter_waits_for_room(fresh_python):
    done = fresh_python(
        """
        import time, shoal
        data = [float(n) for n in range(3000)]  # 27 KB, in the stream itself
        most = 0
        with shoal.ProcessPoolExecutor(2) as executor:
            futures = []
            for _ in range(5000):
                futures.append(executor.submit(lambda data: time.sleep(0.0002), data))
                most = max(most, executor._engine.stats()["backlog"])
            print(most * 27_000 >> 20, sum(future.result() is None for future in futures))
        """,
        env={"SHOAL_ARENA_LIMIT": "32M"},
    )
    waiting_mib, done = done.stdout.split()
    assert int(waiting_mib) < 32
    assert int(done) == 5000


@pytest.mark.usefixtures("doorbell")
def test_results_that_are_kept_are_not_of_the_budget(fresh_python):
    done = fresh_python(
        """
        import numpy, shoal
        def make(number):
            return numpy.full(10 << 20, number, "u1")
        with shoal.Pool(2) as pool:
            kept = [pool.apply(make, (n,)) for n in range(10)]
            kept += list(pool.imap(make, range(10, 20)))
            kept += pool.map(make, range(20, 30))
            later = [pool.apply_async(make, (n,)) for n in range(30, 40)]
            kept += [result.get() for result in later]
        print(all((data == n).all() for n, data in enumerate(kept)), sum(map(len, kept)) >> 20)
        """,
        env={"SHOAL_ARENA_LIMIT": "100M"},
    )
    assert done.stdout == "True 400\n"


def test_a_senseless_arena_limit_is_refused(fresh_python):
    done = fresh_python("import shoal; shoal.Pool(1)", env={"SHOAL_ARENA_LIMIT": "plenty"}, check=False)
    assert done.returncode == 1
    assert "SHOAL_ARENA_LIMIT" in done.stderr.splitlines()[-1]


def test_an_unknown_doorbell_is_refused(fresh_python):
    done = fresh_python("import shoal; shoal.Pool(1)", env={"SHOAL_DOORBELL": "gong"}, check=False)
    assert done.returncode == 1
    assert "SHOAL_DOORBELL" in done.stderr.splitlines()[-1]


def test_a_task_that_runs_out_of_memory(pool):
    def greedy():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
        try:
            return len(bytearray(1 << 40))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1]))

    with pytest.raises(MemoryError):
        pool.apply(greedy)
    assert works(pool)


@pytest.mark.parametrize("spare", range(0, 40, 4))
def test_too_few_descriptors_are_an_os_error_and_leave_nothing(fresh_python, spare):
    done = fresh_python(
        """
        import os, resource, sys, shoal
        import multiprocessing.pool, concurrent.futures.process  # not to fail in an import
        spare = int(sys.argv[1])
        used = len(os.listdir("/proc/self/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
        try:
            with shoal.Pool(4) as pool:
                ok = pool.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
            print("works" if ok else "wrong")
        except OSError as error:
            print("OSError", error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with shoal.Pool(4) as pool:
            print(pool.apply(abs, (-1,)))
        with open("/proc/self/task/%d/children" % os.getpid()) as children:
            print("children:", children.read().split())
        """,
        spare,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "works" or lines[0].startswith("OSError")
    assert lines[1:] == ["1", "children: []"]


def test_no_more_processes_are_an_os_error(fresh_python):
    if os.geteuid() == 0 and not os.path.exists("/proc/self/setgroups"):
        pytest.skip("the limit does not bind root")
    done = fresh_python("""
        import os, resource, shoal.pool  # whose own imports need not be readable later
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try:
            shoal.Pool(2)
        except OSError as error:
            print("OSError", error)
    """)
    assert done.stdout.startswith("OSError")


def test_no_address_space_is_a_clear_error(fresh_python):
    done = fresh_python("""
        import resource, shoal
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (32 << 20), resource.RLIM_INFINITY))
        try:
            with shoal.Pool(2) as pool:
                print(pool.apply(abs, (-1,)))
        except (MemoryError, OSError) as error:
            print(type(error).__name__, error)
    """)
    assert len(done.stdout.splitlines()) == 1
