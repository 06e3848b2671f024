# SPDX-License-Identifier: BSD-3-Clause
"""Tasks that are sent again: after the death of their worker, and when a predicate says so."""

import concurrent.futures
import contextlib
import os
import pickle
import signal
import time

import pytest

import shoal
from limit_tasks import LONG, busy, sound
from tasks import TIMEOUT, square

pytestmark = pytest.mark.leakcheck


class Tries:
    """Counts, over all workers, how often a task has begun."""

    def __init__(self, path):
        self.path = path

    def begin(self):
        with open(self.path, "a") as file:
            file.write(".")
        return self.count()

    def count(self):
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0


@pytest.fixture
def tries(tmp_path):
    return Tries(tmp_path / "tries")


def dies_until(tries, n, value=7):
    if tries.begin() < n:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def raises_until(tries, n):
    if tries.begin() < n:
        raise OSError("try again")
    return 7


def is_os_error(error):
    return isinstance(error, OSError)


def test_without_being_asked_nothing_is_sent_again(pool, tries):
    with pytest.raises(shoal.WorkerLost):
        pool.apply(dies_until, (tries, 3))
    assert tries.count() == 1


def test_a_task_whose_worker_dies_is_sent_again(doorbell, tries):
    with shoal.Pool(2) as pool:
        assert pool.apply(dies_until, (tries, 3), retries=2) == 7
        assert tries.count() == 3
        sound(pool)


def test_the_last_error_tells_of_all_attempts(pool, tries):
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(dies_until, (tries, 9), retries=2)
    attempts = caught.value.attempts
    assert [one.number for one in attempts] == [1, 2, 3] and tries.count() == 3
    assert all(isinstance(one.error, shoal.WorkerLost) and one.pid == one.error.pid for one in attempts)
    assert len({one.pid for one in attempts}) == 3 and attempts[-1].error is caught.value
    assert type(attempts[0]) is shoal.Attempt and pickle.loads(pickle.dumps(attempts[0])).number == 1
    assert "attempt 3" in caught.value.__notes__[0] and "SIGKILL" in caught.value.__notes__[0]


def test_what_raises_is_sent_again_only_if_the_predicate_says_so(pool, tries):
    with pytest.raises(OSError, match="try again"):
        pool.apply(raises_until, (tries, 3), retries=2)
    assert tries.count() == 1
    with pytest.raises(OSError, match="try again") as caught:
        pool.apply(raises_until, (tries, 9), retries=2, retry_if=is_os_error)
    assert tries.count() == 4 and len(caught.value.attempts) == 3
    assert {one.pid for one in caught.value.attempts} <= set(pool._engine.pids())
    assert pool.apply(raises_until, (tries, 6), retries=2, retry_if=is_os_error) == 7


def test_the_predicate_is_called_in_this_process_with_the_exception(pool, tries):
    seen = []
    pool.apply_async(raises_until, (tries, 3), retries=5, retry_if=lambda e: seen.append(e) or True).get(TIMEOUT)
    assert [type(error) for error in seen] == [OSError, OSError]


def test_a_predicate_that_raises_ends_it(pool, tries):
    def no(error):
        raise LookupError("in the predicate")

    with pytest.raises(LookupError, match="in the predicate") as caught:
        pool.apply(raises_until, (tries, 3), retries=2, retry_if=no)
    assert isinstance(caught.value.__cause__, OSError) and tries.count() == 1
    sound(pool)


def test_each_attempt_gets_the_arguments_as_they_were(doorbell, tries):
    numpy = pytest.importorskip("numpy")

    def change(array, items, tries):
        seen = (array.sum(), list(items))
        array += 1
        items.append("changed")
        if tries.begin() < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return seen

    array, items = numpy.zeros(1 << 18), []
    with shoal.Pool(2) as pool:
        call = pool.apply_async(change, (array, items, tries), retries=2)
        array += 5
        items.append("by the caller")
        assert call.get(TIMEOUT) == (0.0, [])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_attempt_gets_the_objects_of_handles(no_main, tries, method):
    def look(first, tries, second):
        if tries.begin() < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return first, second

    older = shoal.share({"made": "before"})
    with shoal.Pool(1, context=method) as pool:
        younger = shoal.share(["made", "after"])
        found = pool.apply(look, (older, tries), {"second": younger}, retries=1)
    assert found == ({"made": "before"}, ["made", "after"])


def test_a_timeout_can_be_retried(pool, tries):
    def slow_at_first(tries):
        if tries.begin() == 1:
            time.sleep(LONG)
        return 7

    again = pool.options(timeout=2, retries=1, retry_if=lambda error: isinstance(error, TimeoutError))
    assert again.apply(slow_at_first, (tries,)) == 7


@pytest.mark.parametrize("backoff", [0.01, lambda attempt: 0.01 * attempt])
def test_there_can_be_a_pause_between_attempts(pool, tries, backoff):
    assert pool.options(retries=3, backoff=backoff).apply(dies_until, (tries, 3)) == 7


def test_a_backoff_that_raises_ends_it(pool, tries):
    with pytest.raises(ZeroDivisionError):
        pool.options(retries=3, backoff=lambda attempt: 1 / 0).apply(dies_until, (tries, 3))


def test_callbacks_run_once_at_the_end(pool, tries):
    seen = []
    pool.apply_async(dies_until, (tries, 3), None, seen.append, seen.append, retries=2).get(TIMEOUT)
    assert seen == [7]


def test_what_cannot_be_sent_is_not_tried(pool):
    call = pool.apply_async(square, (contextlib.nullcontext(open(os.devnull)),), retries=2)
    with pytest.raises(TypeError):
        call.get(TIMEOUT)
    sound(pool)


def test_a_call_that_is_tried_again_can_be_cancelled(pool, tries):
    call = pool.apply_async(busy, retries=5)
    while not call.running():
        time.sleep(0.001)
    assert call.cancel() and call.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        call.get(TIMEOUT)
    call = pool.options(retries=5, backoff=LONG).apply_async(dies_until, (tries, 3))
    while not tries.count() or pool._engine.stats()["in_flight"]:
        pool._engine.drain()
        time.sleep(0.001)
    assert call.cancel() and call.cancel()
    sound(pool)


def test_termination_ends_what_waits_for_its_next_attempt(tries):
    with shoal.Pool(1, retries=5, backoff=LONG) as pool:
        call = pool.apply_async(dies_until, (tries, 3))
        while not tries.count() or pool._engine.stats()["in_flight"]:
            pool._engine.drain()
            time.sleep(0.001)
    with pytest.raises(shoal.PoolTerminated):
        call.get(TIMEOUT)


def test_closing_and_joining_waits_for_all_attempts(tries):
    pool = shoal.Pool(1, retries=5, backoff=0.01)
    call = pool.apply_async(dies_until, (tries, 4))
    pool.close()
    pool.join()
    assert call.ready() and call.get() == 7


def test_an_executor_does_all_of_it(doorbell, tries):
    with shoal.ProcessPoolExecutor(2, retries=2) as executor:
        future = executor.submit(dies_until, tries, 3)
        others = executor.submit(square, 3)
    assert future.result(TIMEOUT) == 7 and others.result(TIMEOUT) == 9 and isinstance(future, shoal.Future)
    assert concurrent.futures.wait([future], TIMEOUT).done


@pytest.mark.parametrize("method", ["map", "starmap", "imap", "imap_unordered"])
def test_elements_of_a_map_are_sent_again_each_by_itself(pool, tmp_path, method):
    def work(x):
        return dies_until(Tries(tmp_path / str(x)), 2 if x % 3 == 0 else 1, x)

    items = [(x,) for x in range(7)] if method == "starmap" else range(7)
    assert sorted(getattr(pool, method)(work, items, retries=1)) == list(range(7))
    assert [Tries(tmp_path / str(x)).count() for x in range(7)] == [2, 1, 1, 2, 1, 1, 2]
    sound(pool)


def test_the_first_error_by_place_is_a_map_s_error(pool):
    with pytest.raises(ValueError, match="'b'"):
        pool.map(int, ["1", "b", "c"], retries=1)
    assert pool.map(int, [], retries=1) == []
    with pytest.raises(ValueError, match="'b'"):
        pool.map(int, ["b", *["1"] * 50], retries=1, abort_on_error=True)
    iterator = pool.imap(int, ["1", "b", "3"], retries=1)
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="'b'"):
        next(iterator)
    assert next(iterator) == 3
    with pytest.raises(StopIteration):
        next(iterator)


def test_an_executor_s_map_is_tried_again(tmp_path):
    def work(x, y):
        return dies_until(Tries(tmp_path / str(x)), 2 if x == 3 else 1, x + y)

    with shoal.ProcessPoolExecutor(2, retries=1) as executor:
        assert list(executor.map(work, range(6), range(6))) == [2 * x for x in range(6)]
