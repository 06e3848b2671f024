# SPDX-License-Identifier: BSD-3-Clause
"""`map` of `shoal.ProcessPoolExecutor`: results in order, input taken as far as it is wanted."""

import concurrent.futures
import gc
import itertools
import queue
import sys
import threading
import time
import weakref

import pytest

import shoal
from tasks import TIMEOUT, add, fail_on_three, square

pytestmark = pytest.mark.leakcheck


class Thing:
    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("chunksize", [1, 3, 1000])
def test_map_yields_in_order(executor, chunksize):
    assert list(executor.map(square, range(100), chunksize=chunksize)) == [x * x for x in range(100)]


def test_map_takes_several_iterables_and_stops_at_the_shortest(executor):
    assert list(executor.map(add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(executor.map(add)) == []


def test_map_raises_in_its_place_and_ends(executor):
    results = executor.map(fail_on_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_keeps_no_reference_to_what_it_gave(executor):
    for result in executor.map(Thing, range(5)):
        reference = weakref.ref(result)
        del result
        gc.collect()
        assert reference() is None


def test_map_takes_endless_input(executor):
    assert list(itertools.islice(executor.map(square, itertools.count()), 500)) == [x * x for x in range(500)]


def test_map_begins_before_anybody_asks_for_a_result(executor, tmp_path):
    results = executor.map(lambda path: path.touch(), [tmp_path / "begun"])
    deadline = time.monotonic() + TIMEOUT
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert list(results) == [None]


def test_map_gives_up_at_its_timeout(executor):
    executor.submit(square, 1).result(TIMEOUT)
    results = executor.map(time.sleep, [30], timeout=0.1)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    results = executor.map(square, [3], timeout=TIMEOUT)
    assert list(results) == [9]
    executor.kill_workers()


@pytest.mark.parametrize("chunksize", [0, -1])
def test_map_refuses_a_chunksize_below_one(executor, chunksize):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(square, [1], chunksize=chunksize)


@pytest.mark.parametrize("buffersize, chunksize", [(2**40, 1), (2**33, 2**31), (sys.maxsize, sys.maxsize), (3, 2**40)])
def test_sizes_beyond_all_input_change_nothing(executor, buffersize, chunksize):
    results = executor.map(square, range(10), buffersize=buffersize, chunksize=chunksize)
    assert list(results) == [x * x for x in range(10)]


def test_the_rest_of_a_map_may_be_taken_after_shutdown():
    with shoal.ProcessPoolExecutor(2) as executor:
        results = executor.map(square, iter(range(1000)))
    assert list(results) == [x * x for x in range(1000)]


def test_a_map_that_was_left_early_does_not_hold_up_the_shutdown():
    with shoal.ProcessPoolExecutor(2) as executor:
        for value in executor.map(square, itertools.count()):
            if value > 100:
                break


@pytest.mark.parametrize("buffersize", [None, 2, 50])
def test_an_input_may_wait_for_results_of_its_own_call(executor, buffersize):
    taken = queue.Queue()

    def input_from_results():
        yield from range(buffersize or 4)
        for _ in range(20):
            yield taken.get(timeout=TIMEOUT) % 1000

    results = []
    for value in executor.map(square, input_from_results(), buffersize=buffersize):
        results.append(value)
        taken.put(value)
    assert len(results) == (buffersize or 4) + 20


def test_results_come_while_one_of_several_inputs_waits(executor):
    go = threading.Event()

    def waits():
        yield from range(3)
        go.wait(TIMEOUT)
        yield 3

    results = executor.map(add, range(10), waits())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    go.set()
    assert list(results) == [6]


def test_a_map_times_out_although_its_input_waits(executor):
    go = threading.Event()

    def waits():
        go.wait(TIMEOUT)
        yield 1

    results = executor.map(square, waits(), timeout=0.1)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    go.set()


@pytest.mark.parametrize("buffersize", [None, 5])
def test_an_input_is_pulled_a_bounded_number_ahead(executor, buffersize):
    pulled = itertools.count()
    results = executor.map(square, (n for n in pulled), buffersize=buffersize)
    assert [next(results) for _ in range(100)] == [n * n for n in range(100)]
    assert next(pulled) <= 100 + (buffersize or 128) + 1
