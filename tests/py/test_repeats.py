# SPDX-License-Identifier: BSD-3-Clause
"""What one map-like call would send again and again is sent once, and arrives as a copy all the same."""

import functools
import gc
import itertools
import pickle

import pytest

import shoal
from tasks import TIMEOUT

np = pytest.importorskip("numpy")

LARGE = 1 << 20  # numbers: 8 MiB


@pytest.fixture(params=["fork", "spawn"], scope="module")
def pool(request):
    with shoal.Pool(2, context=request.param) as pool:
        pool.map(abs, range(4))
        yield pool


class Counted:
    """Large, and counts how often it is pickled."""

    def __init__(self):
        self.content = list(range(100_000))
        self.pickled = 0

    def __getstate__(self):
        self.pickled += 1
        return {"content": self.content}

    def at(self, i):
        return self.content[i]


def at(array, i):
    return int(array[i])


def at_pair(pair):
    return int(pair[0][pair[1]])


def last_of_object(counted, i):
    return counted.content[-1] + i


def add_one(array, i):
    array[0] += 1
    return int(array[0])


def append_one(items, i):
    items.append(i)
    return len(items)


def echo(value):
    return value


def arena(pool):
    stats = pool._engine.stats()
    return stats["arena_used"] + stats["arena_cached"]


@pytest.fixture
def at_most(pool):
    """at_most(bytes, call): the call takes no more shared memory than that beyond what is warm."""

    def measure(limit, call):
        shoal._ext.info()
        used = pool._engine.stats()["arena_used"]
        before = arena(pool)
        result = call()
        assert arena(pool) - before <= limit
        gc.collect()
        assert pool._engine.stats()["arena_used"] <= used, "it is gone with the call"
        return result

    return measure


def test_what_the_function_has_captured(pool, at_most):
    big = np.arange(LARGE)
    expected = list(range(40))
    assert at_most(20 << 20, lambda: pool.map(lambda i: int(big[i]), range(40), chunksize=1)) == expected
    assert at_most(20 << 20, lambda: pool.map(functools.partial(at, big), range(40), chunksize=1)) == expected
    assert at_most(20 << 20, lambda: list(pool.imap(functools.partial(at, big), range(40)))) == expected
    assert (
        sorted(at_most(20 << 20, lambda: list(pool.imap_unordered(functools.partial(at, big), range(40))))) == expected
    )


def test_arguments_that_repeat(pool, at_most):
    big = np.arange(LARGE)
    expected = list(range(40))
    pairs = [(big, i) for i in range(40)]
    for chunksize in (1, 7, 40):
        assert at_most(28 << 20, lambda chunksize=chunksize: pool.starmap(at, pairs, chunksize)) == expected
        assert at_most(28 << 20, lambda chunksize=chunksize: pool.map(at_pair, pairs, chunksize)) == expected
    assert at_most(28 << 20, lambda: list(pool.imap(at_pair, pairs))) == expected
    assert at_most(28 << 20, lambda: pool.map(len, [big] * 40, 3)) == [LARGE] * 40


def test_an_executors_arguments_that_repeat():
    big = np.arange(LARGE)
    with shoal.ProcessPoolExecutor(2) as executor:
        assert list(executor.map(at, itertools.repeat(big), range(20))) == list(range(20))
        assert list(executor.map(at, [big] * 20, range(20))) == list(range(20))


def test_a_large_object_is_pickled_once(pool):
    counted = Counted()
    expected = [99_999 + i for i in range(30)]
    assert pool.starmap(last_of_object, [(counted, i) for i in range(30)], chunksize=1) == expected
    assert counted.pickled == 1
    counted.pickled = 0
    assert pool.map(counted.at, range(30), chunksize=1) == list(range(30))
    assert counted.pickled <= 2


def test_each_element_has_an_array_of_its_own(pool):
    big = np.arange(LARGE)
    for chunksize in (1, 5):
        assert pool.starmap(add_one, [(big, i) for i in range(20)], chunksize) == [1] * 20
    assert big[0] == 0


def test_each_element_has_an_object_of_its_own(pool):
    items = list(range(100_000))
    for chunksize in (1, 5):
        assert pool.starmap(append_one, [(items, i) for i in range(20)], chunksize) == [100_001] * 20
    assert len(items) == 100_000


def test_what_several_positions_and_several_objects_hold(pool):
    arrays = [np.full(LARGE // 4, n) for n in range(6)]
    rows = [(a, b, i) for a in arrays for b in arrays for i in range(3)]
    expected = [int(a[0]) * 10 + int(b[0]) for a, b, _ in rows]
    assert pool.starmap(lambda a, b, i: int(a[i]) * 10 + int(b[i]), rows, chunksize=4) == expected
    assert pool.starmap(lambda a, b, i: int(a[i]) * 10 + int(b[i]), rows[::-1], chunksize=1) == expected[::-1]


def test_results_that_are_what_repeats_are_the_callers_own(pool):
    big = np.arange(LARGE)
    first, second, third = pool.map(echo, [big] * 3, chunksize=1)
    first[0] = 5
    assert second[0] == third[0] == big[0] == 0
    assert all(array.flags.writeable for array in (first, second, third))


def test_an_input_that_changes_what_it_gives_is_sent_as_it_is(pool):
    def changing():
        array = np.zeros(LARGE // 4)
        for i in range(10):
            array[:] = i
            yield array, 3

    assert list(pool.imap(at_pair, changing())) == list(range(10))


def test_what_changes_between_two_calls_is_sent_anew(pool):
    big = np.zeros(LARGE)
    for n in range(3):
        big[:] = n
        assert pool.starmap(at, [(big, i) for i in range(6)], chunksize=1) == [n] * 6
        assert pool.map(lambda i: int(big[i]), range(6), chunksize=1) == [n] * 6


def test_what_cannot_be_pickled_is_an_error_as_ever(pool):
    culprit = (np.zeros(LARGE), lambda: (yield), (i for i in range(3)))
    with pytest.raises((TypeError, pickle.PicklingError), match="generator"):
        pool.starmap(at, [(culprit, i) for i in range(4)], chunksize=1)
    with pytest.raises((TypeError, pickle.PicklingError), match="generator"):
        pool.map(functools.partial(at, culprit), range(4), chunksize=1)


def test_arena_arrays_and_handles_go_as_they_are(pool, at_most):
    array, handle = shoal.share(np.arange(LARGE)), shoal.share({"array": np.arange(LARGE)})
    extra = list(range(50_000))
    assert at_most(4 << 20, lambda: pool.map(lambda i: int(array[i]) + extra[i], range(20), 1)) == list(range(0, 40, 2))
    assert at_most(4 << 20, lambda: pool.starmap(at, [(array, i) for i in range(20)], 1)) == list(range(20))
    rows = [(handle, i) for i in range(20)]
    assert at_most(4 << 20, lambda: pool.starmap(lambda d, i: int(d["array"][i]), rows, 1)) == list(range(20))


def kill_first(big, i):
    import os
    import signal

    if i == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return int(big[i])


def test_a_worker_that_dies_costs_one_element(pool):
    big = np.arange(LARGE)
    results = pool.imap(functools.partial(kill_first, big), range(12), chunksize=4)
    outcomes = []
    for _ in range(12):
        try:
            outcomes.append(results.next(TIMEOUT))
        except shoal.WorkerLost:
            outcomes.append(None)
    assert outcomes == [0, 1, 2, None, *range(4, 12)]
