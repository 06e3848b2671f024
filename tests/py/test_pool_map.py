# SPDX-License-Identifier: BSD-3-Clause
"""Many elements in one call of `shoal.Pool`: `map` and `starmap` with whole lists, `imap` one by one."""

import itertools
import multiprocessing
import sys
import time

import pytest

import shoal
from tasks import TIMEOUT, add, fail_on_three, square

pytestmark = pytest.mark.leakcheck


# ---- whole lists ----


@pytest.mark.parametrize("chunksize", [None, 1, 3, 7, 1000])
@pytest.mark.parametrize("items", [0, 1, 2, 9, 100])
def test_map_returns_the_results_in_order(pool, items, chunksize):
    assert pool.map(square, range(items), chunksize) == [x * x for x in range(items)]


def test_map_takes_generators_and_iterators(pool):
    assert pool.map(square, (x for x in range(10))) == [x * x for x in range(10)]
    assert pool.map(square, iter([1, 2])) == [1, 4]


def test_map_raises_what_an_element_raised(pool):
    with pytest.raises(ValueError, match="no 3"):
        pool.map(fail_on_three, range(10), chunksize=2)


def test_a_generator_that_raises_stops_the_map_before_it_begins(pool):
    def numbers():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(square, numbers())
    assert pool.apply(square, (2,)) == 4


def test_starmap_unpacks_each_element(pool):
    assert pool.starmap(add, [(1, 2), (3, 4), [5, 6]]) == [3, 7, 11]
    assert pool.starmap_async(add, zip(range(4), range(4))).get(TIMEOUT) == [0, 2, 4, 6]


def test_map_result_has_the_methods_of_a_result(pool):
    result = pool.map_async(square, range(100))
    result.wait(TIMEOUT)
    assert result.ready() and result.successful()
    assert result.get(TIMEOUT) == [x * x for x in range(100)]
    slow = pool.map_async(time.sleep, [30])
    with pytest.raises(multiprocessing.TimeoutError):
        slow.get(0.01)
    with pytest.raises(ValueError, match="not ready"):
        slow.successful()


def test_an_empty_map_is_done_at_once(pool):
    result = pool.map_async(square, [])
    assert result.get(TIMEOUT) == []
    assert result.ready() and result.successful()


def test_a_large_map(pool):
    assert pool.map(square, range(100_000)) == [x * x for x in range(100_000)]


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunksize_below_one_is_refused(pool, chunksize):
    with pytest.raises(ValueError, match=rf"Chunksize must be 1\+, not {chunksize}"):
        pool.map(square, [1], chunksize)
    with pytest.raises(ValueError, match=rf"Chunksize must be 1\+, not {chunksize}"):
        pool.imap(square, [1], chunksize)
    with pytest.raises(ValueError, match=rf"Chunksize must be 1\+, not {chunksize}"):
        pool.imap_unordered(square, [1], chunksize)


@pytest.mark.parametrize("chunksize", [2**31, 2**40, sys.maxsize])
def test_a_chunksize_beyond_all_input_makes_one_chunk(pool, chunksize):
    squares = [x * x for x in range(10)]
    assert pool.map(square, range(10), chunksize) == squares
    assert list(pool.imap(square, iter(range(10)), chunksize)) == squares
    assert sorted(pool.imap_unordered(square, range(10), chunksize)) == squares


# ---- one by one ----


@pytest.mark.parametrize("chunksize", [1, 4, 1000])
def test_imap_yields_in_order(pool, chunksize):
    assert list(pool.imap(square, range(1000), chunksize)) == [x * x for x in range(1000)]


@pytest.mark.parametrize("chunksize", [1, 4, 1000])
def test_imap_unordered_yields_everything(pool, chunksize):
    assert sorted(pool.imap_unordered(square, range(1000), chunksize)) == [x * x for x in range(1000)]


def test_imap_of_nothing_is_empty(pool):
    assert list(pool.imap(square, [])) == []
    assert list(pool.imap_unordered(square, iter([]))) == []


def test_imap_next_takes_a_timeout(pool):
    results = pool.imap(time.sleep, [0, 30])
    assert results.next(timeout=TIMEOUT) is None
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)


def test_imap_ends_with_stop_iteration_for_good(pool):
    results = pool.imap(square, [1])
    assert next(results) == 1
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)
    with pytest.raises(StopIteration):
        results.next(timeout=1)


def test_imap_raises_an_elements_exception_in_its_place_and_goes_on(pool):
    results = pool.imap(fail_on_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(results)
    assert list(results) == [4, 5]


def test_imap_over_a_generator_that_raises_gives_what_came_before(pool):
    def numbers():
        yield from range(5)
        raise LookupError("no more")

    results = pool.imap(square, numbers())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert pool.apply(square, (2,)) == 4


def test_imap_pulls_endless_input_a_bounded_number_ahead(pool):
    pulled = itertools.count()

    def numbers():
        while True:
            yield next(pulled)

    results = pool.imap(square, numbers())
    assert [next(results) for _ in range(1000)] == [x * x for x in range(1000)]
    assert next(pulled) < 1000 + 10_000
    assert len(list(itertools.islice(pool.imap_unordered(square, itertools.count()), 1000))) == 1000


def test_imap_that_is_not_consumed_is_done_by_join(tmp_path):
    with shoal.Pool(2) as pool:
        names = [tmp_path / str(number) for number in range(1000)]
        pool.imap_unordered(lambda path: path.touch(), names)
        pool.close()
        pool.join()
    assert all(name.exists() for name in names)


def test_imap_goes_on_after_close():
    with shoal.Pool(2) as pool:
        results = pool.imap(square, iter(range(2000)))
        pool.close()
        assert list(results) == [x * x for x in range(2000)]
        pool.join()
