# SPDX-License-Identifier: BSD-3-Clause
"""A pool gets more workers or fewer while calls are under way, and nothing is lost."""

import os
import random
import signal

import pytest

import shoal
from processes import wait_until_gone
from resizing import of_pool, pids, settle
from tasks import TIMEOUT, square

METHODS = ["fork", "spawn", "forkserver"]
# pytest keeps each warning: from 3.12 on Python warns of a fork while there are threads.
pytestmark = [pytest.mark.leakcheck, pytest.mark.filterwarnings("ignore:.*fork.*")]


def makers():
    def pool(workers, method="fork", **asked):
        return shoal.Pool(workers, context=method, **asked)

    def executor(workers, method="fork", **asked):
        made = shoal.ProcessPoolExecutor(workers, method, **asked)
        made.submit(abs, 1).result()  # it has workers from then on
        return made

    return [pool, executor]


@pytest.mark.parametrize("make", makers())
@pytest.mark.parametrize("method", METHODS)
def test_workers_come_and_go(no_main, make, method):
    with make(1, method) as pool:
        (first,) = settle(pool, 1)
        pool.resize(3)
        grown = settle(pool, 3)
        assert grown[0] == first
        assert list(pool.map(square, range(100))) == [x * x for x in range(100)]
        pool.resize(1)
        wait_until_gone(grown[1:], TIMEOUT)
        assert settle(pool, 1) == [first]
        assert list(pool.map(square, range(10))) == [x * x for x in range(10)]
        pool.resize(2)
        assert settle(pool, 2)[0] == first
        of_pool(pool).verify()


def test_all_that_have_come_work_at_the_same_time(doorbell, gate):
    """Each task waits until all of them run: with fewer workers this would never end."""
    with shoal.ProcessPoolExecutor(1) as executor:
        gate.block(executor)
        executor.resize(4)
        for _ in range(3):
            gate.block(executor)  # returns when it runs
        gate.open(4)


def test_those_that_go_end_their_task_first(doorbell, gate):
    with shoal.ProcessPoolExecutor(3) as executor:
        running = [gate.block(executor) for _ in range(3)]
        waiting = [executor.submit(square, n) for n in range(100)]
        executor.resize(1)
        gate.open(3)
        for call in running:
            call.result(TIMEOUT)
        assert [call.result(TIMEOUT) for call in waiting] == [n * n for n in range(100)]
        settle(executor, 1)


@pytest.mark.parametrize("make", makers())
def test_nothing_is_lost_while_the_size_changes_under_load(doorbell, make):
    dice = random.Random(7)
    with make(2) as pool:
        lazy = pool.imap(square, range(5000)) if isinstance(pool, shoal.Pool) else pool.map(square, range(5000))
        results = []
        for n, result in enumerate(lazy):
            results.append(result)
            if n % 250 == 0:
                pool.resize(dice.randint(1, 5))
        assert results == [n * n for n in range(5000)]
        pool.resize(2)
        settle(pool, 2)
        of_pool(pool).verify()


def test_growing_again_before_the_others_have_gone_gives_all_that_were_asked_for(doorbell, gate):
    with shoal.ProcessPoolExecutor(3) as executor:
        for _ in range(3):
            gate.block(executor)
        executor.resize(1)
        executor.resize(4)  # two of them are still to end, and others take their place then
        gate.open(3)
        settle(executor, 4)
        assert list(executor.map(square, range(50))) == [n * n for n in range(50)]


def test_those_that_go_run_their_exit_functions(tmp_path):
    with shoal.Pool(3, worker_exit=lambda worker: (tmp_path / str(worker.id)).touch()) as pool:
        pool.resize(1)
        settle(pool, 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_pool_has_room_for_so_many_as_were_asked_for_and_says_so():
    with shoal.Pool(1, resizable_to=40) as pool:
        with pytest.raises(ValueError, match="between 1 and (40|8) workers, not 41"):
            pool.resize(41)
    with shoal.Pool(2) as pool:
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                pool.resize(wrong)
        with pytest.raises(TypeError):
            pool.resize("3")
        assert pool.map(square, range(4)) == [0, 1, 4, 9]


def test_a_view_resizes_its_pool_and_chunks_go_by_the_new_size():
    with shoal.Pool(1) as pool:
        pool.options(timeout=TIMEOUT).resize(2)
        settle(pool, 2)
        assert pool._processes == 2
        assert "pool_size=2" in repr(pool)


def test_an_executor_whose_workers_have_not_started_starts_as_many_as_it_was_resized_to():
    with shoal.ProcessPoolExecutor(1) as executor:
        executor.resize(2)
        executor.submit(abs, 1).result()
        settle(executor, 2)


def test_many_pools_may_grow_in_turn():
    """What a worker needs in the parent is free again when it has gone."""
    with shoal.Pool(1) as one, shoal.Pool(1) as other:
        for _ in range(3):
            for pool in (one, other):
                pool.resize(4)
                settle(pool, 4)
                assert pool.map(square, range(20), 1) == [n * n for n in range(20)]
                pool.resize(1)
                settle(pool, 1)
        one._engine.verify()


# ---- where it cannot be ----


def test_a_pool_that_is_closed_or_broken_is_not_resized():
    pool = shoal.Pool(1)
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.resize(2)
    pool.join()
    with pytest.raises(ValueError, match="not running"):
        pool.resize(2)
    executor = shoal.ProcessPoolExecutor(1)
    executor.submit(abs, 1).result()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.resize(2)
    with shoal.Pool(1, initializer=divmod, initargs=(1, 0)) as broken:
        with pytest.raises(shoal.PoolBroken):
            broken.apply(abs, (1,))
        with pytest.raises(shoal.PoolBroken):
            broken.resize(2)


def test_workers_that_come_and_cannot_begin_break_the_pool(tmp_path):
    def begin(worker):
        if worker.id > 0:
            raise LookupError(f"nothing for {worker.id}")

    with shoal.Pool(1, worker_init=begin) as pool:
        assert pool.apply(abs, (-1,)) == 1
        pool.resize(2)
        with pytest.raises(shoal.PoolBroken, match="nothing for 1"):
            while True:
                pool.apply(abs, (-1,))


def test_a_pool_that_ends_while_it_shrinks_leaves_nobody(gate):
    executor = shoal.ProcessPoolExecutor(3)
    running = [gate.block(executor) for _ in range(3)]
    workers = pids(executor)
    executor.resize(1)
    executor.kill_workers()
    for call in running:
        with pytest.raises(shoal.WorkerLost):
            call.result(TIMEOUT)
    executor.shutdown()
    wait_until_gone(workers, TIMEOUT)


@pytest.mark.parametrize("later", [3, 1])
def test_a_worker_that_is_killed_on_its_way_out_is_replaced_only_if_it_is_wanted(doorbell, gate, later):
    with shoal.ProcessPoolExecutor(3) as executor:
        running = [gate.block(executor) for _ in range(3)]
        before = pids(executor)
        executor.resize(1)
        executor.resize(later)
        os.kill(before[2], signal.SIGKILL)
        wait_until_gone(before[2:], TIMEOUT)
        gate.open(2)
        lost = 0
        for call in running:
            try:
                call.result(TIMEOUT)
            except shoal.WorkerLost:
                lost += 1
        assert lost == 1
        settle(executor, later)
        assert list(executor.map(square, range(20))) == [n * n for n in range(20)]
