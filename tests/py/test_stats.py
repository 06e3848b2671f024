# SPDX-License-Identifier: BSD-3-Clause
"""stats(): what a pool says about itself is so, at any time, from anywhere, and costs nobody anything."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT, Gate, fail_on_three, kill_self, square

METHODS = ["fork", "spawn", "forkserver"]


def nap(seconds):
    time.sleep(seconds)
    return seconds


def long_one(_):
    time.sleep(0.05)


def rest(x):
    return x


def eventually(holds):
    """Whether it holds at last; a worker may take its time on a loaded machine."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def outcomes(stats):
    return sum(worker.done for worker in stats.workers), sum(worker.failed for worker in stats.workers)


def life(worker):
    return worker.start + worker.wait + worker.run + worker.pickle + worker.unpickle


@pytest.mark.parametrize("method", METHODS)
def test_outcomes_are_counted_exactly(method):
    with shoal.Pool(2, context=method) as pool:
        assert [pool.apply(square, (x,)) for x in range(100)] == [x * x for x in range(100)]
        pool.map(square, range(1000))
        pool.map(str, ["x" * 100] * 50, chunksize=7)
        list(pool.imap_unordered(square, range(200)))
        with pytest.raises(ValueError):
            pool.apply(fail_on_three, (3,))
        stats = pool.stats()
    assert (stats.submitted, stats.done, stats.failed, stats.lost) == (1351, 1350, 1, 0)
    assert outcomes(stats) == (1350, 1)
    assert stats.state == "running" and stats.pid == os.getpid() and len(stats.workers) == 2


def test_a_call_that_raises_in_a_map_is_one_failure():
    with shoal.Pool(1) as pool:
        with pytest.raises(ValueError):
            pool.map(fail_on_three, range(10), chunksize=5)
        assert eventually(lambda: (pool.stats().done, pool.stats().failed) == (9, 1))


def test_the_phases_of_a_worker_are_its_life():
    with shoal.Pool(1) as pool:
        begin = time.monotonic()
        for seconds in (0.0, 0.02, 0.0):
            pool.apply(nap, (seconds,))
        pool.map(square, range(20_000))
        asked = time.monotonic()
        (worker,) = pool.stats().workers
        end = time.monotonic()
    assert life(worker) >= asked - begin - 0.001
    assert worker.start > 0 and worker.run >= 0.02
    # Its life began before `begin`, with the fork, by what it took to come up and to get the first call.
    assert life(worker) <= end - begin + pool.stats().elapsed


def test_a_task_that_runs_counts_as_running_time_before_it_ends():
    gate = Gate()
    with shoal.Pool(1) as pool:
        call = pool.apply_async(gate.wait)
        assert os.read(gate.running[0], 1) == b"."
        first = pool.stats().workers[0]
        assert first.busy
        assert eventually(lambda: pool.stats().workers[0].run > first.run)
        assert pool.stats().running == 1
        gate.open()
        call.get(60)
        assert eventually(lambda: not pool.stats().workers[0].busy)
    gate.close()


def test_long_tasks_are_found_among_many_short_ones():
    with shoal.Pool(1) as pool:
        pool.map(square, range(50_000))
        pool.apply(long_one, (1,))
        pool.map(square, range(50_000))
        pool.map(functools.partial(long_one), [1])

        def named():  # a worker publishes its figures after its result
            return [task for task in pool.stats().longest if task.function == "long_one"]

        assert eventually(lambda: len(named()) == 2)
        stats = pool.stats()
    named = [task for task in stats.longest if task.function == "long_one"]
    assert all(task.seconds >= 0.04 for task in named)
    assert all(abs(task.when - time.time()) < 60 for task in named)
    assert list(stats.longest) == sorted(stats.longest, key=lambda task: -task.seconds)


def test_one_long_element_in_the_middle_of_short_ones_is_found():
    def element(x):
        if x == 23_456:
            time.sleep(0.2)
        return x

    with shoal.Pool(1) as pool:
        pool.map(element, range(30_000), chunksize=30_000)
        assert eventually(lambda: pool.stats().longest and pool.stats().longest[0].seconds >= 0.18)
        stats = pool.stats()
    assert stats.longest[0].function == "element"
    assert stats.workers[0].run >= 0.18


def test_bytes_that_nobody_copied_are_told():
    np = pytest.importorskip("numpy")
    with shoal.Pool(1) as pool:
        array = shoal.array(np.ones(1 << 17))  # 1 MiB, in the arena
        pool.apply(len, (array,))
        assert eventually(lambda: pool.stats().bytes_in >= array.nbytes)
        first = pool.stats()
        pool.apply(len, (np.ones(1 << 17),))
        assert eventually(lambda: pool.stats().bytes_in >= 2 * array.nbytes)
        second = pool.stats()
    assert first.bytes_in >= array.nbytes and first.copies_saved == array.nbytes
    assert second.bytes_in >= 2 * array.nbytes and second.copies_saved == array.nbytes
    assert second.arena_budget > second.arena_used >= 0


def test_large_results_count_as_bytes_out():
    np = pytest.importorskip("numpy")
    with shoal.Pool(1) as pool:
        pool.apply(np.ones, (1 << 17,))
        pool.map(square, range(1000))
        assert eventually(lambda: pool.stats().bytes_out >= 8 << 17)


def test_the_figures_survive_the_death_of_the_worker():
    with shoal.Pool(1) as pool:
        pool.map(square, range(1000))
        pool.apply(nap, (0.05,))
        assert eventually(lambda: pool.stats().workers[0].served == 1001)
        (before,) = pool.stats().workers
        with pytest.raises(shoal.WorkerLost):
            pool.apply(kill_self)
        pool.apply(square, (3,))
        assert eventually(lambda: pool.stats().workers[0].served > before.served)
        (after,) = pool.stats().workers
    assert after.restarts == 1 and after.lost == 1 and after.done == before.done + 1
    assert after.run >= before.run and after.served > before.served and after.pid != before.pid
    assert after.start > before.start
    assert [task for task in after.longest if task.function == "nap"]


def test_a_worker_killed_at_any_moment_leaves_figures_that_can_be_read():
    with shoal.Pool(2) as pool:
        for _ in range(10):
            calls = [pool.apply_async(square, (x,)) for x in range(300)]
            for pid in [pid for pid in pool._engine.pids() if pid][:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for call in calls:
                call.wait(60)
            text = str(pool.stats())
            assert "worker" in text
        assert eventually(lambda: pool.stats().restarts >= 1)
        stats = pool.stats()
    assert stats.done + stats.failed + stats.lost == 3000


def test_what_a_worker_scribbles_over_its_figures_harms_nobody():
    def scribble():
        import ctypes

        with open("/proc/self/maps") as maps:
            writable = [line.split() for line in maps if "shoal" in line and line.split()[1].startswith("rw-s")]
        hit = 0
        for line in writable:
            begin, end = (int(bound, 16) for bound in line[0].split("-"))
            for at in range(begin, end - 448, 64):
                words = (ctypes.c_uint64 * 64).from_address(at)
                if words[0] == 1 and words[2] >= 500 and words[11] and words[13]:  # a worker's meter
                    for word in range(1, 64):
                        words[word] = 2**64 - 1
                    hit += 1
        return hit

    with shoal.Pool(1) as pool:
        pool.map(square, range(1000))
        for _ in range(600):
            pool.apply(square, (1,))
        assert pool.apply(scribble) == 1
        assert "worker" in str(pool.stats())
        assert pool.apply(square, (3,)) == 9
        assert pool.stats().done == 1602


def test_last_values_are_there_when_the_pool_has_ended():
    with shoal.Pool(2) as pool:
        pool.map(square, range(1000))
        pool.close()
        assert pool.stats().state in ("closed", "ended")
        pool.join()
    stats = pool.stats()
    assert stats.state == "ended" and stats.done == 1000 and stats.run > 0
    assert all(worker.pid == 0 for worker in stats.workers)
    assert "1,000 done" in str(pool)


def test_it_is_the_same_from_views_and_threads():
    with shoal.Pool(1) as pool:
        pool.map(square, range(10))
        seen = []
        thread = threading.Thread(target=lambda: seen.append(pool.options(timeout=5).stats()))
        thread.start()
        thread.join()
    assert seen[0].done == 10 and seen[0].name == "Pool"


def test_executors_have_it_before_and_after_the_first_call():
    with shoal.ProcessPoolExecutor(2) as executor:
        assert executor.stats().state == "new" and executor.stats().workers == ()
        assert sum(executor.map(square, range(10))) == 285
        stats = executor.stats()
        assert stats.name == "ProcessPoolExecutor" and stats.done == 10
        assert executor.options(timeout=5).stats().done == 10
        assert str(executor).startswith("ProcessPoolExecutor: running")
    assert executor.stats().state == "ended"


def test_print_shows_it_and_repr_is_as_with_multiprocessing():
    with shoal.Pool(2) as pool:
        pool.map(square, range(10))
        assert repr(pool) == "<shoal.pool.Pool state=RUN pool_size=2>"
        text = str(pool)
    assert text.startswith("Pool: running") and "10 done" in text and "share of the workers' time" in text


def test_in_a_forked_child_it_says_whose_pool_it_is():
    with shoal.Pool(1) as pool:
        pool.map(square, range(10))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pool.stats()
            except RuntimeError:
                code = 0 if str(pool) == repr(pool) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_is_plain_data():
    with shoal.Pool(1) as pool:
        pool.apply(nap, (0.001,))
        assert eventually(lambda: pool.stats().longest)
        stats = pool.stats()
    assert json.loads(json.dumps(stats.as_dict()))["done"] == 1
    assert dataclasses.is_dataclass(stats.workers[0]) and dataclasses.is_dataclass(stats.longest[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.done = 5


def test_reading_all_the_time_disturbs_no_call():
    with shoal.Pool(2) as pool:
        stop = threading.Event()
        failures = []

        def read():
            while not stop.is_set():
                try:
                    str(pool.stats())
                except Exception as error:
                    failures.append(error)
                    return

        thread = threading.Thread(target=read)
        thread.start()
        try:
            assert sorted(pool.imap_unordered(rest, range(600), chunksize=3)) == list(range(600))
            assert pool.map(square, range(1000)) == [x * x for x in range(1000)]
        finally:
            stop.set()
            thread.join()
        assert not failures
        assert pool.stats().done == 1600


def test_without_meters_outcomes_are_counted_all_the_same():
    code = """if True:
        import shoal
        with shoal.Pool(1) as pool:
            pool.map(abs, range(1000))
            pool.apply(abs, (1,))
            stats = pool.stats()
        print(stats.done, stats.run)
    """
    environment = {**os.environ, "SHOAL_METERS": "off"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.stdout.split() == ["1001", "0.0"], run.stderr


def test_a_pool_that_was_refused_for_a_broken_initializer_says_so():
    def no_way():
        raise ValueError("no way")

    pool = shoal.Pool(1, initializer=no_way)
    with pytest.raises(shoal.PoolBroken):
        pool.apply(square, (1,))
    assert pool.stats().state == "broken"
    pool.terminate()
