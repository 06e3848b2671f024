# SPDX-License-Identifier: BSD-3-Clause
"""What cannot travel: exceptions, arguments, functions and results. A clear error names it, and the pool goes on."""

import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import sys
import threading

import pytest

import shoal
from tasks import TIMEOUT, square, works

pytestmark = [pytest.mark.leakcheck, pytest.mark.usefixtures("doorbell")]


# ---- exceptions of all kinds ----


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException, GeneratorExit])
def test_bare_base_exceptions_are_delivered_and_the_worker_lives_on(pool, kind):
    def task():
        raise kind("from the task")

    before = {worker.pid for worker in pool._pool}
    with pytest.raises(kind, match="from the task"):
        pool.apply(task)
    assert works(pool)
    assert {worker.pid for worker in pool._pool} == before


def test_sys_exit_in_a_task_is_delivered(pool):
    with pytest.raises(SystemExit) as caught:
        pool.apply(sys.exit, (3,))
    assert caught.value.code == 3
    assert works(pool)


class NeedsTwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class HasNoText(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")

    def __reduce__(self):
        raise RuntimeError("no pickle either")


def raise_needs_two():
    raise NeedsTwoArguments("one", "two")


def raise_unpicklable():
    raise Unpicklable("with a lock")


def raise_no_text():
    raise HasNoText


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [
        (raise_unpicklable, "Unpicklable", "with a lock"),
        (raise_no_text, "HasNoText", ""),
    ],
)
def test_an_exception_that_cannot_travel_is_described(pool, task, name, text):
    with pytest.raises(shoal.RemoteError) as caught:
        pool.apply(task)
    assert caught.value.type_name.endswith(name)
    assert text in caught.value.message
    assert task.__name__ in caught.value.traceback
    assert caught.value.reason
    assert task.__name__ in str(caught.value.__cause__)
    assert works(pool)


def test_an_exception_whose_arguments_its_init_does_not_repeat_arrives_as_it_was_raised(pool):
    with pytest.raises(NeedsTwoArguments) as caught:
        pool.apply(raise_needs_two)
    assert caught.value.args == ("one and two",)
    assert "raise_needs_two" in str(caught.value.__cause__)
    assert works(pool)


def test_an_exception_that_unpickles_in_the_worker_only(pool):
    here = os.getpid()

    class Picky(Exception):
        def __setstate__(self, state):
            if os.getpid() == here:
                raise OSError("not in this process")

        def __reduce__(self):
            return (Picky, (), {"some": "state"})

    def task():
        raise Picky

    with pytest.raises(shoal.RemoteError, match="not in this process"):
        pool.apply(task)
    assert works(pool)


def test_our_own_exceptions_survive_pickling():
    for error in (
        shoal.WorkerLost(1, 2, signal.SIGKILL, None, "while it ran element 3"),
        shoal.WorkerLost(1, 2, None, 5),
        shoal.RemoteError("module.Type", "text", "traceback", "reason"),
        shoal.ResultEncodingError("cannot", "f"),
        shoal.PoolBroken("broken"),
        shoal.PoolTerminated("terminated"),
        shoal.ArgumentDecodingError("arguments"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)


# ---- what cannot be pickled ----


def test_an_argument_that_cannot_be_pickled_is_named(pool):
    with pytest.raises((pickle.PicklingError, TypeError)) as caught:
        pool.apply(square, ({"outer": [1, threading.Lock()]},))
    assert "lock" in str(caught.value)
    assert "outer" in str(caught.value)
    assert works(pool)


def test_apply_async_delivers_a_pickling_error_through_the_result(pool):
    errors = []
    result = pool.apply_async(square, (threading.Lock(),), error_callback=errors.append)
    with pytest.raises((pickle.PicklingError, TypeError), match="lock"):
        result.get(TIMEOUT)
    assert result.ready() and not result.successful()
    assert len(errors) == 1


def test_a_map_names_the_element_that_cannot_be_pickled(pool):
    items = [1, 2, threading.Lock(), 4]
    with pytest.raises((pickle.PicklingError, TypeError), match=r"element 2\b"):
        pool.map(id, items)
    with pytest.raises((pickle.PicklingError, TypeError), match=r"element 2\b"):
        list(pool.imap(id, items, chunksize=2))
    assert works(pool)


def test_a_function_that_cannot_be_pickled(pool):
    lock = threading.Lock()
    with pytest.raises((pickle.PicklingError, TypeError), match="lock"):
        pool.apply(lambda: lock)
    with pytest.raises((pickle.PicklingError, TypeError), match="lock"):
        pool.map(lambda _: lock, range(10))
    assert works(pool)


def test_a_reduce_that_raises_is_the_callers_exception(pool):
    class Bad:
        def __reduce__(self):
            raise LookupError("no way")

    with pytest.raises(LookupError, match="no way"):
        pool.apply(id, (Bad(),))
    assert works(pool)


def make_unpicklable(x=None):
    return {"outer": [1, threading.Lock()]} if x in (None, 3) else x


def test_a_result_that_cannot_be_pickled_is_named(pool):
    with pytest.raises(shoal.ResultEncodingError) as caught:
        pool.apply(make_unpicklable)
    assert isinstance(caught.value, multiprocessing.pool.MaybeEncodingError)
    assert isinstance(caught.value, pickle.PicklingError)
    assert "lock" in str(caught.value)
    assert "outer" in str(caught.value)
    assert works(pool)


def test_a_result_that_cannot_be_pickled_spoils_its_element_alone(pool):
    results = pool.imap(make_unpicklable, range(6), chunksize=3)
    outcomes = []
    while True:
        try:
            outcomes.append(next(results))
        except StopIteration:
            break
        except shoal.ResultEncodingError:
            outcomes.append("spoilt")
    assert outcomes == [0, 1, 2, "spoilt", 4, 5]


class FailsToLoad:
    def __reduce__(self):
        return (fail_to_load, ())


def fail_to_load():
    raise LookupError("cannot be built")


class DiesWhenLoaded:
    def __reduce__(self):
        return (os._exit, (9,))


def test_arguments_that_cannot_be_unpickled(pool):
    with pytest.raises(shoal.ArgumentDecodingError, match="cannot be built") as caught:
        pool.apply(id, (FailsToLoad(),))
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(shoal.ArgumentDecodingError, match="cannot be built"):
        pool.map(id, [FailsToLoad()])
    assert works(pool)


def test_an_element_that_cannot_be_unpickled_spoils_itself_alone(pool):
    results = pool.imap(repr, [1, FailsToLoad(), 3], chunksize=3)
    assert next(results) == "1"
    with pytest.raises(shoal.ArgumentDecodingError):
        next(results)
    assert next(results) == "3"


def test_arguments_that_kill_every_worker_that_reads_them_are_given_up(pool):
    with pytest.raises(shoal.WorkerLost):
        pool.apply(id, (DiesWhenLoaded(),))
    assert works(pool)


def test_a_result_that_cannot_be_unpickled(pool):
    with pytest.raises(LookupError, match="cannot be built"):
        pool.apply(FailsToLoad)
    assert works(pool)
