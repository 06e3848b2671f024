# SPDX-License-Identifier: BSD-3-Clause
# alone: counts resident memory
"""How much memory arrays take in the processes of a pool, and that it goes back."""

import os
import pathlib
import time

import pytest

import shoal

np = pytest.importorskip("numpy")

MIB = 1 << 20


def own_bytes():
    """Memory of this process that it shares with nobody."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":") for line in lines[1:])
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def region_bytes():
    """What the region of this process, an anonymous file, has of the machine's memory."""
    for fd in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{fd}"
        if os.path.exists(path) and "memfd:shoal " in os.readlink(path):
            return os.stat(path).st_blocks * 512
    return 0


def wait_until(predicate):
    deadline = time.monotonic() + 60
    while not predicate() and time.monotonic() < deadline:
        time.sleep(0.01)
    return predicate()


def test_a_gib_that_eight_workers_read_takes_less_than_10_mib_more_in_each():
    def read_all(array, arrived, number):
        before = own_bytes()
        total = int(array[::4096].sum())
        arrived[number] = 1
        wait_until(lambda: arrived.all())  # all of them have it mapped
        return total, own_bytes() - before

    array = shoal.share(np.ones(1 << 30, "u1"))
    arrived = shoal.share(np.zeros(8), writable=True)
    with shoal.Pool(8) as pool:
        results = pool.starmap(read_all, [(array, arrived, n) for n in range(8)], chunksize=1)
    assert all(total == 1 << 18 for total, _ in results)
    assert max(more for _, more in results) < 10 * MIB


def test_memory_is_flat_over_many_echoes():
    array = np.ones(16 * MIB, "u1")
    with shoal.Pool(2) as pool:

        def rounds(count):
            for _ in range(count):
                assert len(pool.apply(np.asarray, (array,))) == len(array)
            return resident_bytes(), max(pool.map(lambda _: resident_bytes(), range(8), chunksize=1)), region_bytes()

        before = rounds(20)
        after = rounds(100)
    assert all(then < first + 8 * MIB for first, then in zip(before, after)), (before, after)


def test_what_a_task_wrote_is_given_back_by_its_worker():
    array = shoal.share(np.ones(64 * MIB, "u1"))
    with shoal.Pool(1) as pool:
        before = pool.apply(own_bytes)
        pool.apply(np.ndarray.fill, (array, 2))
        assert pool.apply(own_bytes) < before + 8 * MIB


def test_an_idle_pool_gives_back_the_memory_that_messages_took(fresh_python):
    done = fresh_python(
        """
        import os, time
        import numpy as np, shoal
        def region_mib():
            places = [f"/proc/self/fd/{fd}" for fd in range(3, 50)]
            ours = [place for place in places if os.path.lexists(place) and "memfd:shoal " in os.readlink(place)]
            return os.stat(ours[0]).st_blocks >> 11
        def goes_back():
            deadline = time.monotonic() + 30
            while region_mib() > empty + 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            return region_mib() <= empty + 1
        array = np.ones(64 << 20, "u1")
        with shoal.Pool(2) as pool:
            empty = region_mib()
            for call in (pool.apply, lambda *args: pool.apply_async(*args).get(60), pool.apply):
                result = call(np.asarray, (array,))
                print(region_mib() > empty + 32, result.sum() == 64 << 20)
                del result
                print(goes_back())
        """,
        env={"SHOAL_ARENA_IDLE": "0.5"},
    )
    assert done.stdout.split() == ["True"] * 9


def test_a_senseless_idle_time_is_refused(fresh_python):
    done = fresh_python("import shoal; shoal.Pool(1)", env={"SHOAL_ARENA_IDLE": "soon"}, check=False)
    assert done.returncode == 1
    assert "SHOAL_ARENA_IDLE" in done.stderr.splitlines()[-1]


def test_a_result_that_is_dropped_after_its_pool_gives_its_memory_back():
    with shoal.Pool(1) as pool:
        result = pool.apply(np.ones, (8 * MIB,))
    assert region_bytes() > 64 * MIB
    del result
    assert region_bytes() < 32 * MIB
