# SPDX-License-Identifier: BSD-3-Clause
"""`amap` in chunks, and with a bar."""

import contextlib
import itertools
import os
import random

import pytest

import shoal
from async_tasks import POOLS, run
from limit_tasks import LONG, sound
from tasks import fail_on_three, square
from test_amap import INPUTS

pytestmark = pytest.mark.leakcheck


async def taken(results):
    """Return what came before the end, and the error that it ended with."""
    came = []
    try:
        async for result in results:
            came.append(result)
    except Exception as error:
        return came, error
    return came, None


@POOLS
@INPUTS
@pytest.mark.parametrize("chunksize", [2, 7, 500, 1000])
def test_chunks_give_the_results_in_order(kind, given, chunksize):
    async def main(pool):
        return await taken(pool.amap(square, given(list(range(500))), chunksize=chunksize))

    with kind(2) as pool:
        assert run(main(pool)) == ([x * x for x in range(500)], None)


def test_unordered_chunks_are_all_there(pool):
    async def main():
        return await taken(pool.amap(square, range(500), chunksize=9, ordered=False))

    results, error = run(main())
    assert sorted(results) == [x * x for x in range(500)] and error is None


def test_elements_of_a_chunk_run_in_one_worker_and_those_of_many_in_several(pool):
    async def main():
        return await taken(pool.amap(where_am_i, range(40), chunksize=10))

    places, _ = run(main())
    assert all(len(set(places[first : first + 10])) == 1 for first in range(0, 40, 10))


def where_am_i(_):
    return os.getpid()


def test_an_error_comes_in_its_place(pool):
    async def main():
        return await taken(pool.amap(fail_on_three, range(10), chunksize=5))

    results, error = run(main())
    assert len(results) == 3 and isinstance(error, ValueError)
    sound(pool)


def test_a_lost_worker_costs_the_element_that_it_ran(pool):
    async def main():
        return await taken(pool.amap(die_at_three, range(10), chunksize=5))

    results, error = run(main())
    assert results == [0, 1, 2] and isinstance(error, shoal.WorkerLost)
    assert "element 3" in str(error)
    sound(pool)


def die_at_three(x):
    if x == 3:
        os.kill(os.getpid(), 9)
    return x


def test_limits_are_those_of_each_element_of_a_chunk(pool):
    async def main():
        return await taken(pool.amap(pause, [0, 0, LONG, 0], chunksize=4, timeout=0.2))

    results, error = run(main())
    assert results == [0, 0] and isinstance(error, shoal.TaskTimeout)
    sound(pool)


def pause(seconds):
    import time

    time.sleep(seconds)
    return seconds


def draw(_):
    return random.random()


def test_seeded_numbers_are_the_same_whatever_the_chunks(pool):
    async def main(chunksize):
        return (await taken(pool.amap(draw, range(20), chunksize=chunksize, seed=5)))[0]

    expected = pool.map(draw, range(20), seed=5)
    assert [run(main(chunksize)) for chunksize in (1, 7, 20)] == [expected] * 3


def test_elements_with_retries_are_sent_one_by_one(pool, tmp_path):
    def fails_once(x):
        if not (tmp_path / str(x)).exists():
            (tmp_path / str(x)).touch()
            raise LookupError(x)
        return x

    async def main():
        asked = {"retries": 1, "retry_if": lambda error: isinstance(error, LookupError)}
        return await taken(pool.amap(fails_once, range(6), chunksize=3, **asked))

    assert run(main()) == (list(range(6)), None)


def test_who_leaves_in_the_middle_of_a_chunk_has_the_rest_cancelled(pool):
    async def main():
        async with contextlib.aclosing(pool.amap(abs, itertools.count(), chunksize=5)) as results:
            return [await anext(results) for _ in range(7)]

    assert run(main()) == list(range(7))
    sound(pool)


def test_what_cannot_be_pickled_ends_it(pool):
    async def main():
        return await taken(pool.amap(len, [[], [], (x for x in "a")], chunksize=3))

    results, error = run(main())
    assert isinstance(error, TypeError) and "generator" in str(error)
    sound(pool)


@pytest.mark.parametrize("size", [0, -1, 1.5, "2"])
def test_a_bad_chunksize_is_refused(pool, size):
    async def main():
        pool.amap(square, range(3), chunksize=size)

    with pytest.raises(ValueError, match="chunksize"):
        run(main())


class Bar:
    """Counts what it is told."""

    made: list = []

    def __init__(self, total):
        self.total = total
        self.shown = 0
        self.closed = False
        self.made.append(self)

    def update(self, more):
        assert not self.closed
        self.shown += more

    def close(self):
        self.closed = True


@POOLS
@pytest.mark.parametrize("chunksize", [1, 7])
@pytest.mark.parametrize("asked", [{}, {"seed": 3}, {"retries": 1}])
def test_a_bar_counts_all_elements(kind, chunksize, asked):
    Bar.made.clear()

    async def main(pool):
        return await taken(pool.amap(square, range(50), chunksize=chunksize, progress=Bar, **asked))

    with kind(2) as pool:
        assert run(main(pool))[0] == [x * x for x in range(50)]
    (bar,) = Bar.made
    assert (bar.total, bar.shown, bar.closed) == (50, 50, True)


def test_the_bar_of_an_endless_input_has_no_total_and_is_closed_with_the_iteration(pool):
    Bar.made.clear()

    async def main():
        async with contextlib.aclosing(pool.amap(abs, itertools.count(), progress=Bar)) as results:
            return [await anext(results) for _ in range(7)]

    assert run(main()) == list(range(7))
    (bar,) = Bar.made
    assert bar.total is None and bar.shown >= 7 and bar.closed


def test_an_error_leaves_a_closed_bar(pool):
    Bar.made.clear()

    async def main():
        return await taken(pool.amap(fail_on_three, range(10), progress=Bar))

    assert isinstance(run(main())[1], ValueError)
    (bar,) = Bar.made
    assert bar.shown >= 3 and bar.closed
