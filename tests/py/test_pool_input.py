# SPDX-License-Identifier: BSD-3-Clause
"""How lazy calls pull their input: inputs that wait, are slow, raise, or never end."""

import gc
import itertools
import multiprocessing
import queue
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

import shoal
from tasks import TIMEOUT, kill_self, square

pytestmark = pytest.mark.leakcheck

LAZY = ["imap", "imap_unordered"]


class Blocked:
    """An input that gives `count` elements and then waits until the test lets it go on, or for ever."""

    def __init__(self, count):
        self.count = count
        self.go = threading.Event()
        self.left = threading.Event()

    def __iter__(self):
        try:
            yield from range(self.count)
            self.go.wait(TIMEOUT)
            yield from range(self.count, 2 * self.count)
        finally:
            self.left.set()


@pytest.fixture
def blocked():
    source = Blocked(5)
    yield source
    source.go.set()
    source.left.wait(TIMEOUT)


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("chunksize", [1, 2])
def test_an_input_may_wait_for_results_of_its_own_call(pool, name, chunksize):
    taken = queue.Queue()

    def input_from_results():
        yield from range(4)
        for _ in range(20):
            yield taken.get(timeout=TIMEOUT) % 1000

    results = []
    for value in getattr(pool, name)(square, input_from_results(), chunksize):
        results.append(value)
        taken.put(value)
    assert len(results) == 24


@pytest.mark.parametrize("name", LAZY)
def test_results_come_while_the_input_waits(pool, blocked, name):
    results = getattr(pool, name)(square, blocked)
    assert sorted(results.next(TIMEOUT) for _ in range(5)) == [0, 1, 4, 9, 16]
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0.01)
    blocked.go.set()
    assert sorted(results) == [25, 36, 49, 64, 81]


def test_a_slow_input_of_an_executors_map_does_not_hold_up_what_is_there(executor):
    go_on = threading.Event()

    def slow():
        yield 0
        assert go_on.wait(TIMEOUT)
        yield from range(1, 8)

    results = executor.map(square, slow())
    assert next(results) == 0
    go_on.set()
    assert list(results) == [n * n for n in range(1, 8)]


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("chunksize", [1, 7, 1000])
def test_an_endless_generator_is_pulled_a_bounded_number_ahead(pool, name, chunksize):
    pulled = itertools.count()
    results = getattr(pool, name)(square, (n for n in pulled), chunksize)
    taken = [next(results) for _ in range(300)]
    assert len(set(taken)) == 300
    assert next(pulled) <= 300 + 129 * chunksize + chunksize


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_the_input_raises_is_the_last_outcome(pool, name, error):
    def failing():
        yield from range(10)
        raise error("half way")

    results = getattr(pool, name)(square, failing())
    assert sorted(next(results) for _ in range(10)) == [n * n for n in range(10)]
    with pytest.raises(error, match="half way"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert pool.apply(square, (3,)) == 9


@pytest.mark.parametrize("name", LAZY)
def test_terminating_a_pool_does_not_wait_for_the_input(blocked, name):
    pool = shoal.Pool(2)
    results = getattr(pool, name)(square, blocked)
    assert sorted(next(results) for _ in range(5)) == [0, 1, 4, 9, 16]
    pool.terminate()
    pool.join()
    with pytest.raises(shoal.PoolTerminated):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("name", LAZY)
def test_one_who_waits_for_a_blocked_input_hears_that_the_pool_is_terminated(blocked, name):
    pool = shoal.Pool(2)
    results = getattr(pool, name)(square, blocked)
    for _ in range(5):
        next(results)
    outcome = queue.Queue()

    def wait():
        try:
            next(results)
        except BaseException as error:
            outcome.put(type(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    pool.terminate()
    assert outcome.get(timeout=TIMEOUT) is shoal.PoolTerminated
    waiter.join()
    pool.join()


def test_one_who_waits_for_a_blocked_input_hears_that_the_pool_is_broken(blocked):
    fail = threading.Event()

    def initialize():
        if fail.is_set():
            raise ValueError("no start")

    with shoal.Pool(1, initialize) as pool:
        results = pool.imap(square, blocked)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        fail.set()  # the replacement inherits it
        with pytest.raises(BrokenProcessPool):
            pool.apply(kill_self)
        with pytest.raises(shoal.PoolBroken, match="no start"):
            next(results)


def test_join_lets_a_slow_input_come_to_its_end(tmp_path, blocked):
    pool = shoal.Pool(2)
    pool.imap((tmp_path / "x").with_name, map(str, blocked))
    results = pool.imap(square, blocked)
    pool.close()
    threading.Timer(0.05, blocked.go.set).start()
    pool.join()
    assert list(results) == [n * n for n in range(10)]


def test_join_takes_more_than_the_look_ahead_of_inputs_of_both_kinds():
    pool = shoal.Pool(2)
    fed = pool.imap(square, (n for n in range(2000)))
    pulled = pool.imap_unordered(square, range(2000), 3)
    pool.close()
    pool.join()
    assert list(fed) == sorted(pulled) == [n * n for n in range(2000)]


def test_a_pool_that_is_dropped_ends_although_an_input_is_blocked(blocked):
    pool = shoal.Pool(2)
    results = pool.imap(square, blocked)
    assert next(results) == 0
    with pytest.warns(ResourceWarning):
        del pool
        gc.collect()
    with pytest.raises(shoal.PoolTerminated):
        list(results)


def test_the_interpreter_exits_although_an_input_is_blocked(fresh_python):
    done = fresh_python("""
        import shoal, threading
        def endless():
            yield 1
            threading.Event().wait()
        pool = shoal.Pool(2)
        print(next(pool.imap(abs, endless())))
    """)
    assert done.stdout == "1\n"


def test_several_threads_may_iterate_over_inputs_of_their_own(pool):
    sums = []

    def work(start):
        sums.append(sum(pool.imap_unordered(square, (n for n in range(start, start + 500)))))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 500, 1000, 1500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sums) == sum(n * n for n in range(2000))


# ---- buffersize ----


@pytest.mark.parametrize("buffersize, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_buffersize_is_a_positive_integer(executor, buffersize, error):
    with pytest.raises(error, match="buffersize must be"):
        executor.map(square, [1], buffersize=buffersize)


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_a_buffersize_bounds_what_is_pulled(executor, buffersize, chunksize):
    pulled = itertools.count()
    results = executor.map(square, pulled, buffersize=buffersize, chunksize=chunksize)
    for n in range(50):
        assert next(results) == n * n
    assert next(pulled) <= (50 // chunksize + 1 + buffersize) * chunksize


@pytest.mark.parametrize("buffersize", [1, 4])
def test_shutdown_lets_no_more_be_pulled_than_the_buffersize(buffersize):
    pulled = itertools.count()
    with shoal.ProcessPoolExecutor(2) as executor:
        results = executor.map(square, pulled, buffersize=buffersize)
    assert next(pulled) == buffersize
    assert [next(results) for _ in range(buffersize)] == [n * n for n in range(buffersize)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(results)


def test_a_map_with_a_buffersize_outlives_its_executors_name():
    results = shoal.ProcessPoolExecutor(2).map(square, range(100), buffersize=2)
    gc.collect()
    assert list(results) == [n * n for n in range(100)]
    with shoal.ProcessPoolExecutor(1) as another:  # collects what the dropped one left
        another.submit(square, 1).result(TIMEOUT)
