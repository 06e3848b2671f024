# SPDX-License-Identifier: BSD-3-Clause
"""The semantics of a copy without the copy: what arrives can be written, and nobody else sees what was."""

import os
import signal
import sys

import pytest

import shoal

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.leakcheck

SIZES = [10, 5_000, 1_000_000]  # in the stream, in the arena, many pages


@pytest.fixture
def one():
    with shoal.Pool(1) as pool:
        yield pool


def fill(array):
    was = float(array[0])
    array[:] = 7
    return was, float(array.sum()) / len(array)


def echo(array):
    return array


def keep(array):
    sys.shoal_test_kept = array
    return float(array[0])


def kept():
    return sys.shoal_test_kept


def arena_copy(array):
    return shoal.share(array)


def arena_array(array):
    return shoal.array(array)


def unwritable(array):
    array = array.copy()
    array.flags.writeable = False
    return array


KINDS = [np.copy, unwritable, arena_copy, arena_array]


# ---- arguments ----


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_may_write_what_it_gets_and_nobody_sees_it(one, kind, size):
    array = kind(np.ones(size))
    for _ in range(3):
        assert one.apply(fill, (array,)) == (1, 7)
    assert (array == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_elements_of_one_batch_do_not_see_each_other(one, kind):
    array = kind(np.ones(10_000))
    assert one.map(fill, [array] * 8, chunksize=4) == [(1, 7)] * 8
    assert one.starmap(lambda a, b: (fill(a), b.sum()), [(array, array[:])] * 2) == [((1, 7), 10_000)] * 2


@pytest.mark.parametrize("size", SIZES)
def test_one_array_sent_twice_in_one_call_is_one_array_there(one, size):
    shared = shoal.share(np.zeros(size))
    assert one.apply(lambda a, b: a is b, (shared, shared))
    assert not one.apply(lambda a, b: np.shares_memory(a, b), (shared, shared[:]))


def test_parts_that_share_a_page_do_not_share_what_is_written(one):
    shared = shoal.share(np.zeros(30_000))

    def write(first, second, third):
        first[:], second[:], third[:] = 1, 2, 3
        del second
        return first.sum(), third.sum()

    parts = shared[:10_001], shared[9_000:20_000], shared[19_999:]
    for _ in range(3):
        assert one.apply(write, parts) == (10_001, 3 * 10_001)
    assert (shared == 0).all()


def test_what_a_task_keeps_and_wrote_does_not_come_back(one):
    shared = shoal.share(np.ones(100_000))
    assert one.apply(keep, (shared,)) == 1
    one.apply(lambda: sys.shoal_test_kept.fill(5))
    assert one.apply(fill, (shared,)) == (1, 7)
    assert one.apply(keep, (shared,)) == 1, "the one kept before is gone, this is a new one"
    assert (one.apply(kept) == 1).all()


def test_what_a_task_keeps_outlives_the_senders_array(one):
    shared = shoal.share(np.full(100_000, 3.0))
    one.apply(keep, (shared,))
    one.apply(lambda: setattr(sys, "shoal_test_second", sys.shoal_test_kept[10:]))
    del shared
    for n in range(10):
        assert (one.apply(np.full, (100_000, float(n))) == n).all()
    assert (one.apply(kept) == 3).all()


def test_of_two_that_hold_one_array_the_first_to_go_does_not_take_it_along(one):
    def keep_as(name, array):
        setattr(sys, name, array)

    shared = shoal.share(np.full(100_000, 3.0))
    one.apply(keep_as, ("shoal_test_a", shared))
    one.apply(keep_as, ("shoal_test_b", shared))
    del shared
    one.apply(lambda: delattr(sys, "shoal_test_a"))
    for n in range(10):
        assert (one.apply(np.full, (100_000, float(n))) == n).all()
    assert one.apply(lambda: sys.shoal_test_b.sum()) == 300_000


def test_a_task_that_drops_one_and_keeps_the_same_again_holds_it(one):
    def swap(array):
        sys.shoal_test_kept = None
        sys.shoal_test_kept = array

    shared = shoal.share(np.full(100_000, 3.0))
    one.apply(swap, (shared,))
    one.apply(swap, (shared,))
    del shared
    for n in range(10):
        assert (one.apply(np.full, (100_000, float(n))) == n).all()
    assert (one.apply(kept) == 3).all()


def test_what_a_dead_worker_wrote_is_gone(one):
    shared = shoal.share(np.ones(1_000_000))

    def write_and_die(array):
        array[:] = 5
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(shoal.WorkerLost):
        one.apply(write_and_die, (shared,))
    assert (shared == 1).all()
    assert one.apply(fill, (shared,)) == (1, 7)


def test_what_the_function_of_a_batch_carries_is_as_it_was_for_who_goes_on_with_it():
    carried = np.ones(1_000_000)

    def work(number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        was = carried[0]
        carried[:] = 99
        return was

    with shoal.Pool(1) as one:
        seen = []
        iterator = one.imap(work, range(4), chunksize=4)
        for _ in range(4):
            try:
                seen.append(float(iterator.next(60)))
            except shoal.WorkerLost:
                seen.append("lost")
    assert seen == [1, "lost", 1, 99], "of one batch the elements share it, as they share the function"


# ---- results ----


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_result_may_be_written_and_nobody_sees_it(one, kind, size):
    array = kind(np.ones(size))
    first, second = one.apply(echo, (array,)), one.apply(echo, (array,))
    first[:] = 5
    assert (second == 1).all() and (array == 1).all()
    assert one.apply(fill, (array,)) == (1, 7)
    assert one.apply(fill, (first,)) == (5, 7)
    assert (first == 5).all()


def test_a_result_that_the_task_wrote_is_what_it_wrote(one):
    def write_some(array):
        array[50_000] = 9
        return array

    shared = shoal.share(np.ones(100_000))
    result = one.apply(write_some, (shared,))
    assert result[50_000] == 9 and result.sum() == 100_008
    assert (shared == 1).all()


def test_a_result_outlives_the_array_that_it_is(one):
    shared = shoal.share(np.full(100_000, 3.0))
    waiting = one.apply_async(echo, (shared,))
    waiting.wait(60)
    del shared
    kept_results = [one.apply(np.full, (100_000, float(n))) for n in range(5)]
    result = waiting.get(60)
    assert (result == 3).all()
    result[:] = 4
    assert [float(array[0]) for array in kept_results] == [0, 1, 2, 3, 4]


def test_a_result_without_pages_of_its_own_is_sent_on_without_a_copy(one):
    shared = shoal.share(np.ones(1_000_000))
    result = one.apply(echo, (shared,))
    before = one._engine.stats()["arena_used"]
    waiting = [one.apply_async(len, (result,)) for _ in range(20)]
    assert one._engine.stats()["arena_used"] == before
    assert [each.get(60) for each in waiting] == [1_000_000] * 20
    result[0] = 2
    assert one.apply(np.sum, (result,)) == 1_000_001


# ---- readonly and writable ----


@pytest.mark.parametrize("size", SIZES)
def test_readonly_asks_for_plain_views(one, size):
    shared = shoal.share(np.ones(size), readonly=True)
    assert shoal.share(shared, readonly=True) is shared
    assert shoal.share(shared) is not shared
    assert not one.apply(lambda a: a.flags.writeable, (shared,))
    with pytest.raises(ValueError, match="read-only"):
        one.apply(fill, (shared,))
    result = one.apply(lambda a: a[2:], (shared,))
    assert not result.flags.writeable and (result == 1).all()
    del shared
    assert (result == 1).all()


@pytest.mark.parametrize("size", SIZES)
def test_writable_is_one_memory_for_all(pool, size):
    shared = shoal.share(np.zeros(size), writable=True)
    assert shoal.share(shared, writable=True) is shared

    def count(array, place):
        array[place] += 1

    for _ in range(3):  # one after the other: two workers at one element would lose a count
        pool.starmap(count, [(shared, place) for place in range(10)], chunksize=1)
    assert shared[:10].sum() == 30
    shared[:] = 2
    assert pool.apply(np.sum, (shared,)) == 2 * size
    part = pool.apply(lambda a: a[5:], (shared,))
    part[0] = 100
    assert shared[5] == 100


def test_a_writable_array_that_a_worker_inherits_is_shared_too():
    shared = shoal.share(np.zeros(10_000), writable=True)
    sys.shoal_test_inherited = shared
    try:
        with shoal.Pool(1) as one:
            one.apply(exec, ("import sys; sys.shoal_test_inherited[7] = 5",))
            assert shared[7] == 5
            shared[8] = 6
            assert one.apply(eval, ("__import__('sys').shoal_test_inherited[8]",)) == 6
    finally:
        del sys.shoal_test_inherited


def test_a_block_that_was_writable_is_protected_when_it_is_something_else(one):
    shared = shoal.share(np.zeros(100_000), writable=True)
    place = one.apply(lambda a: a.__array_interface__["data"][0], (shared,))
    one.apply(fill, (shared,))

    def may_write(place):
        with open("/proc/self/maps") as maps:
            for line in maps:
                first, end = (int(part, 16) for part in line.split()[0].split("-"))
                if first <= place < end:
                    return line.split()[1][1] == "w"
        return None

    assert one.apply(may_write, (place,)) is False


def test_readonly_and_writable_exclude_each_other():
    with pytest.raises(ValueError, match="readonly and as writable"):
        shoal.share(np.zeros(1), readonly=True, writable=True)


# ---- what a worker inherits ----


def test_memory_that_a_worker_inherited_and_dropped_serves_for_results():
    sys.shoal_test_inherited = shoal.empty(1_000_000)
    sys.shoal_test_inherited[:] = 1
    with shoal.Pool(1) as one:
        one.apply(exec, ("import sys; sys.shoal_test_inherited[:] = 2; del sys.shoal_test_inherited",))
        assert (sys.shoal_test_inherited == 1).all()
        del sys.shoal_test_inherited
        for n in range(5):
            assert (one.apply(np.full, (1_000_000, float(n))) == n).all()


# ---- where there is no mapping to be had ----


def test_without_room_for_mappings_it_is_copies(fresh_python):
    done = fresh_python(
        """
        import resource
        import numpy as np, shoal
        def fill(array):
            was = array[0]
            array[:] = 7
            return float(was)
        shared = shoal.share(np.ones(100_000))
        with shoal.Pool(1) as pool:
            size = pool.apply(lambda: int(open("/proc/self/statm").read().split()[0]) * 4096)
            pool.apply(resource.setrlimit, (resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY)))
            print([pool.apply(fill, (shared,)) for _ in range(3)], shared.sum())
        """
    )
    assert done.stdout == "[1.0, 1.0, 1.0] 100000.0\n"


def test_thousands_of_results_over_one_array_can_be_kept(one):
    shared = shoal.share(np.ones(10_000))
    results = [one.apply(echo, (shared,)) for _ in range(9_000)]
    for number, array in enumerate(results):
        array[0] = number
    assert [int(array[0]) for array in results] == list(range(9_000))
    assert (shared == 1).all()


def test_several_arrays_that_come_back_are_the_memory_that_the_task_had(one):
    def place(array):
        return array.__array_interface__["data"][0]

    def give_back(*arrays):
        return arrays, [array.__array_interface__["data"][0] for array in arrays]

    arrays, places = one.apply(give_back, [np.full(50_000, n) for n in range(4)])
    assert [place(array) for array in arrays] == places, "a forked worker maps it at the same address"
    assert [int(array.sum()) for array in arrays] == [0, 50_000, 100_000, 150_000]

    def give_one(*arrays):
        return arrays[1], arrays[1].__array_interface__["data"][0]

    array, there = one.apply(give_one, [np.full(50_000, n) for n in range(4)])
    assert place(array) != there, "a part does not hold all of it"
    assert array.sum() == 50_000


def test_a_worker_with_too_many_mappings_goes_on(fresh_python):
    done = fresh_python(
        """
        import mmap, sys
        import numpy as np, shoal
        def fill(array):
            was = float(array[0])
            array[:] = 7
            return was
        def use_up():
            sys.taken = []
            try:
                while True:  # read-only and writable in turns, or neighbours would be merged
                    kind = mmap.PROT_READ | (mmap.PROT_WRITE if len(sys.taken) % 2 else 0)
                    sys.taken.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, kind))
            except OSError:
                pass
            for _ in range(8):
                sys.taken.pop()
            return len(sys.taken) > 10_000
        def again():
            sys.taken = None
        shared, plain = shoal.share(np.ones(100_000)), np.ones(100_000)
        with shoal.Pool(1) as pool:
            pid = pool.apply(__import__("os").getpid)
            print(pool.apply(use_up))
            for array in [shared, plain] * 10:
                assert pool.apply(fill, (array,)) == 1
            kept = []
            try:
                kept = [pool.apply(np.full, (100_000, n)) for n in range(20)]
            except MemoryError:
                pass
            assert all((array == n).all() for n, array in enumerate(kept))
            pool.apply(again)
            assert (pool.apply(np.full, (100_000, 5)) == 5).all()
            print(pool.apply(__import__("os").getpid) == pid, shared.sum(), plain.sum())
        """
    )
    assert done.stdout == "True\nTrue 100000.0 100000.0\n"


# ---- what a worker inherited ----

inherited = None


def total_of_inherited(_=None):
    return float(inherited.sum())


class EndsItsPool:
    """Ends the pool that sends it, and starts another one, while it is being pickled."""

    def __init__(self, pool):
        self.pool = pool
        self.others = []

    def __reduce__(self):
        self.pool.terminate()
        self.others.append(shoal.Pool(1))
        return int, ()


def test_memory_that_a_worker_inherited_is_its_own_though_a_pool_ends_when_its_pool_begins():
    global inherited
    inherited = shoal.array(np.full(100_000, 7.0))
    ends = EndsItsPool(shoal.Pool(1))
    with pytest.raises(shoal.PoolTerminated):
        ends.pool.apply(float, (ends,))
    with ends.others[0] as pool:
        inherited = None
        overwritten = [shoal.array(np.full(100_000, 1.0)) for _ in range(8)]
        assert pool.apply(total_of_inherited) == 700_000.0
        del overwritten


def test_memory_that_is_made_last_before_a_fork_is_the_workers_own_as_well(fresh_python):
    done = fresh_python(
        """
        import os, sys, numpy as np
        def make():  # runs after the hooks of whatever is imported below
            if len(sys.arrays) < 2:
                sys.arrays.append(shoal.array(np.full(100_000, 7.0)))
        sys.arrays = []
        os.register_at_fork(before=make)
        import shoal
        def totals(_):
            return [float(array.sum()) for array in sys.arrays]
        ready, go = os.pipe()
        with shoal.Pool(1) as pool:
            pid = os.fork()  # and in a child that is not ours
            if pid == 0:
                os.read(ready, 1)
                os._exit(totals(0) != [700_000.0, 700_000.0])
            del sys.arrays[:]
            overwritten = [shoal.array(np.full(100_000, 1.0)) for _ in range(8)]
            os.write(go, b"x")
            print(pool.apply(totals, (0,)), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert done.stdout == "[700000.0] 0\n"
