# SPDX-License-Identifier: BSD-3-Clause
"""`max_worker_memory`: a worker that has grown too large is replaced between two tasks, and nothing is lost."""

import gc
import os
import time

import pytest

import shoal
from tasks import TIMEOUT, square

MB = 1_000_000
METHODS = ["fork", "spawn", "forkserver"]
pytestmark = pytest.mark.leakcheck


def keep(megabytes):
    """Take memory that the worker keeps; return who it is."""
    shoal.current_worker().state.setdefault("kept", []).append(bytearray(megabytes * MB))
    return os.getpid()


def litter(megabytes):
    """Take memory that only the garbage collector can free."""
    gc.disable()
    cycle = [bytearray(megabytes * MB)]
    cycle.append(cycle)
    return os.getpid()


def pid_after(pool, before):
    """Return who works when the one with pid `before` is gone."""
    deadline = time.monotonic() + TIMEOUT
    while (now := pool.apply(os.getpid)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return now


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_keeps_too_much_is_replaced(no_main, method, tmp_path):
    note = tmp_path / "ended"
    options = {"max_worker_memory": "100MB", "worker_exit": lambda worker: note.touch()}
    with shoal.Pool(1, context=method, **options) as pool:
        first = pool.apply(keep, (150,))
        pid_after(pool, first)
        assert note.exists()
        assert pool.apply(lambda: shoal.current_worker().state) == {}


def test_one_that_keeps_less_stays():
    with shoal.Pool(1, max_worker_memory=200 * MB) as pool:
        first = pool.apply(keep, (20,))
        for _ in range(30):
            assert pool.apply(os.getpid) == first
            time.sleep(0.001)


def test_no_task_is_lost_while_workers_are_replaced_all_the_time(doorbell):
    def grow(x):
        shoal.current_worker().state.setdefault("kept", []).append(bytearray(MB))
        return x * x

    with shoal.ProcessPoolExecutor(2, max_worker_memory=20 * MB) as executor:
        assert list(executor.map(grow, range(300))) == [x * x for x in range(300)]
        assert executor._lifetime.engine.stats()["restarts"] > 0
    with shoal.Pool(2, max_worker_memory=20 * MB) as pool:
        assert pool.map(grow, range(300)) == [x * x for x in range(300)]
        pool._engine.verify()


def test_what_a_forked_worker_was_born_with_does_not_count():
    of_the_parent = bytearray(150 * MB)
    of_the_parent[::4096] = b"x" * len(range(0, len(of_the_parent), 4096))
    with shoal.Pool(1, max_worker_memory=50 * MB) as pool:
        first = pool.apply(keep, (1,))
        for _ in range(10):
            time.sleep(0.006)
            assert pool.apply(os.getpid) == first


def test_garbage_is_collected_first():
    with shoal.Pool(1, max_worker_memory=100 * MB) as pool:
        first = pool.apply(litter, (150,))
        for _ in range(10):
            time.sleep(0.006)
            assert pool.apply(os.getpid) == first


def test_a_pool_whose_workers_are_too_large_from_the_start_does_its_work_all_the_same():
    """Each worker does one task at least."""
    with shoal.Pool(1, initializer=keep, initargs=(60,), max_worker_memory=10 * MB) as pool:
        assert [pool.apply(square, (n,)) for n in range(5)] == [0, 1, 4, 9, 16]
        assert pool.map(square, range(100), 10) == [n * n for n in range(100)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("500 MiB", 500 << 20), ("1.5k", 1500), ("7", 7), ("1ti", 1 << 40), ("3 mb", 3 * MB)],
)
def test_sizes_are_read_as_people_write_them(text, expected):
    with shoal.Pool(1, max_worker_memory=text) as pool:
        assert pool._settings.max_memory == expected


@pytest.mark.parametrize("wrong", ["much", "-3MB", "", "2XB", "GB", 0, -1, 1 << 70, "0"])
def test_other_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="max_worker_memory"):
        shoal.Pool(1, max_worker_memory=wrong)


@pytest.mark.parametrize("wrong", [1.5, True, [1]])
def test_other_types_are_refused(wrong):
    with pytest.raises(TypeError):
        shoal.ProcessPoolExecutor(1, max_worker_memory=wrong)
