# SPDX-License-Identifier: BSD-3-Clause
"""Timeouts of tasks: over every doorbell."""

import concurrent.futures
import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import threading
import time

import pytest

import shoal
from limit_tasks import LONG, SHORT, busy, catches_everything, sound, stops_itself, timeout_of, was_killed
from shoal import _stop
from tasks import TIMEOUT, square, works

pytestmark = pytest.mark.leakcheck


def sleep_on(x):
    if x == 3:
        time.sleep(LONG)
    return x


def cleans_up(path):
    try:
        time.sleep(LONG)
    finally:
        with open(path, "w") as file:
            file.write("clean")


def holds_the_gil():
    pause = ctypes.PyDLL(None).usleep
    while True:
        with contextlib.suppress(BaseException):
            hold_on(pause)


def hold_on(pause):
    while True:
        pause(100_000)


def catches_and_returns():
    with contextlib.suppress(BaseException):
        time.sleep(LONG)
    return "late"


def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    time.sleep(LONG)


def drops_handlers():
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(LONG)


def with_threads():
    threading.Thread(target=time.sleep, args=(LONG,), daemon=True).start()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(time.sleep, 0.01).result()
    time.sleep(LONG)


def with_a_pool():
    with shoal.Pool(1) as pool:
        pool.apply(time.sleep, (LONG,))


class SlowToRead:
    def __reduce__(self):
        return time.sleep, (LONG,)


class SlowToWrite:
    def __reduce__(self):
        time.sleep(LONG)


def keep_slow():
    return SlowToWrite()


def pid_after(x):
    return os.getpid()


STUBBORN = [catches_everything, holds_the_gil, blocks_signals, stops_itself, drops_handlers]
ENDING = [busy, with_threads, with_a_pool, catches_and_returns]


@pytest.fixture
def limited(doorbell):
    with shoal.Pool(2, grace=SHORT) as pool:
        yield pool


def test_a_task_that_takes_too_long_ends_with_a_timeout_that_says_where_it_was(limited):
    error = timeout_of(limited.options(grace=LONG), sleep_on, 3, until=lambda error: "time.sleep" in error.where)
    for kind in (TimeoutError, multiprocessing.TimeoutError, concurrent.futures.TimeoutError):
        assert isinstance(error, kind)
    assert error.seconds >= SHORT and not error.killed
    assert "in sleep_on" in error.where and "time.sleep(LONG)" in error.where
    assert "_worker.py" not in error.where and error.where.strip() in str(error)
    sound(limited)


def test_the_worker_of_a_stopped_task_lives(doorbell):
    with shoal.Pool(1, grace=LONG) as pool:
        pids = [pool.apply(os.getpid)]

        def slept(error):
            pids.append(pool.apply(os.getpid))
            return "time.sleep" in error.where

        timeout_of(pool, sleep_on, 3, until=slept)
        assert pids[-1] == pids[-2]


def test_finally_blocks_of_the_task_run(limited, tmp_path):
    path = tmp_path / "trace"
    timeout_of(limited.options(grace=LONG), cleans_up, path, until=lambda error: path.exists())
    assert path.read_text() == "clean"


@pytest.mark.parametrize("function", ENDING)
def test_whatever_the_interpreter_is_at_is_stopped(limited, function):
    assert not timeout_of(limited.options(grace=LONG), function).killed
    sound(limited)


@pytest.mark.parametrize("function", STUBBORN)
def test_a_task_that_does_not_end_is_killed_and_its_worker_replaced(limited, function):
    before = set(limited._engine.pids())
    assert timeout_of(limited, function, until=was_killed).killed
    assert works(limited)
    assert len(before & set(limited._engine.pids())) <= 1
    sound(limited)


def test_where_a_killed_task_was_is_said_too(limited):
    error = timeout_of(limited.options(grace=1), holds_the_gil, until=lambda error: "in hold_on" in error.where)
    assert "in hold_on" in error.where and error.killed


def test_the_time_runs_from_when_a_worker_takes_the_task(gate):
    with shoal.ProcessPoolExecutor(1, timeout=LONG) as executor:
        blocked = gate.block(executor)
        waiting = executor.options(timeout=1).submit(square, 3)
        time.sleep(1.1)  # that it passes is what is tested
        gate.open()
        assert (blocked.result(TIMEOUT), waiting.result(TIMEOUT)) == ("go", 9)


@pytest.mark.parametrize("chunksize", [1, 10])
def test_the_timeout_of_a_batch_is_each_element_s_own(limited, chunksize):
    results, iterator = [], limited.imap(sleep_on, range(10), chunksize, timeout=1)
    while True:
        try:
            results.append(next(iterator))
        except StopIteration:
            break
        except shoal.TaskTimeout:
            results.append("timeout")
    assert results == [0, 1, 2, "timeout", *range(4, 10)]
    sound(limited)


@pytest.mark.parametrize("stubborn", STUBBORN[:2])
def test_neighbours_in_a_batch_are_neither_lost_nor_run_twice(limited, tmp_path, stubborn):
    def work(x):
        with open(tmp_path / str(x), "a") as file:
            file.write(".")
        return stubborn() if x == 2 else x

    results, iterator = [], limited.imap(work, range(6), 6, timeout=1)
    with contextlib.suppress(StopIteration):
        while True:
            try:
                results.append(next(iterator))
            except shoal.TaskTimeout:
                results.append("timeout")
    assert results == [0, 1, "timeout", 3, 4, 5]
    assert [(tmp_path / str(x)).read_text() for x in range(6)] == ["."] * 6
    sound(limited)


def test_reading_the_arguments_counts(limited):
    assert "SlowToRead" not in timeout_of(limited.options(grace=LONG), str, SlowToRead()).where
    sound(limited)
    iterator = limited.imap(str, [1, SlowToRead(), 3], 3, timeout=1)
    assert next(iterator) == "1"
    with pytest.raises(shoal.TaskTimeout):
        next(iterator)
    assert next(iterator) == "3"


def test_pickling_the_result_counts(limited):
    error = timeout_of(limited.options(grace=LONG), keep_slow, until=lambda error: "__reduce__" in error.where)
    assert "__reduce__" in error.where
    sound(limited)


def test_a_timeout_that_races_with_the_end_gives_one_outcome(limited):
    outcomes = []

    def note(outcome):
        outcomes.append(outcome)

    def close_to_it(x):
        time.sleep(0.009 + x % 5 * 0.0005)
        return x

    calls = [limited.apply_async(close_to_it, (x,), None, note, note, timeout=0.01) for x in range(40)]
    for x, call in enumerate(calls):
        try:
            assert call.get(TIMEOUT) == x
        except shoal.TaskTimeout:
            pass
    assert len(outcomes) == 40
    sound(limited)


@pytest.mark.parametrize("grace", [0, 0.001])
def test_so_it_does_where_the_worker_is_killed(doorbell, grace):
    def close_to_it(x):
        time.sleep(0.003 + x % 5 * 0.0005)
        return x

    with shoal.Pool(2, grace=grace) as pool:
        calls = [pool.apply_async(close_to_it, (x,), timeout=0.004) for x in range(40)]
        for x, call in enumerate(calls):
            with contextlib.suppress(shoal.TaskTimeout):
                assert call.get(TIMEOUT) == x
        results = pool.map_async(close_to_it, range(20), 20, timeout=0.004)
        assert results.wait(TIMEOUT)
        sound(pool)


def test_a_worker_that_is_killed_while_its_timeout_fires_ends_the_task_once(limited):
    for _ in range(5):
        call = limited.options(grace=LONG).apply_async(catches_everything, timeout=SHORT)
        while limited._engine.stats()["in_flight"] and not call.ready():
            with contextlib.suppress(ProcessLookupError):
                for pid in filter(None, limited._engine.pids()):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(SHORT)
        with pytest.raises((shoal.TaskTimeout, shoal.WorkerLost)):
            call.get(TIMEOUT)
    sound(limited)


# ---- what is given ----


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"grace": -0.1}, ValueError),
        ({"grace": []}, TypeError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"retry_if": 3}, TypeError),
        ({"backoff": -1}, ValueError),
        ({"patience": 1}, TypeError),
    ],
)
def test_nonsense_is_refused_wherever_it_is_given(pool, executor, given, error):
    for take in (pool.options, executor.options, lambda **asked: shoal.Pool(1, **asked)):
        with pytest.raises(error):
            take(**given)
    with pytest.raises(error):
        pool.map(square, [1], **given)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 1e9, 10**30, 5])
def test_a_timeout_may_be_as_long_as_one_likes(pool, timeout):
    assert pool.apply(square, (3,), timeout=timeout) == 9


def test_a_tiny_timeout_is_one(limited):
    with pytest.raises(shoal.TaskTimeout):
        limited.apply(time.sleep, (LONG,), timeout=1e-12)


def test_a_stop_does_not_come_to_nothing_while_the_worker_prepares_for_its_first(monkeypatch):
    arm = _stop.arm

    def slow():
        time.sleep(4 * SHORT)
        arm()

    monkeypatch.setattr(_stop, "arm", slow)
    with shoal.Pool(1, grace=LONG) as pool, pytest.raises(shoal.TaskTimeout):
        pool.apply(time.sleep, (LONG,), timeout=SHORT)


def test_options_can_be_nested_and_the_nearest_counts(limited):
    strict = limited.options(timeout=SHORT)
    assert strict.options(grace=LONG)._limits.timeout == SHORT
    assert strict.options(timeout=LONG).apply(time.sleep, (3 * SHORT,)) is None
    assert strict.apply(time.sleep, (3 * SHORT,), timeout=LONG) is None
    with pytest.raises(shoal.TaskTimeout):
        strict.options().apply(time.sleep, (LONG,))


def test_a_view_is_a_pool_and_ends_with_it():
    pool = shoal.Pool(2)
    view = pool.options(timeout=LONG)
    assert isinstance(view, multiprocessing.pool.Pool) and works(view)
    view.close()
    view.join()
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (3,))
    with pytest.raises(ValueError, match="not running"):
        view.apply(square, (3,))


def test_a_view_of_an_executor_is_one_and_ends_with_it():
    with shoal.ProcessPoolExecutor(2) as executor:
        view = executor.options(timeout=LONG)
        assert isinstance(view, concurrent.futures.Executor)
        assert view.submit(square, 3).result(TIMEOUT) == 9 and list(view.map(square, range(3))) == [0, 1, 4]
        with pytest.raises(shoal.TaskTimeout):
            view.options(timeout=SHORT).submit(time.sleep, LONG).result(TIMEOUT)
    with pytest.raises(RuntimeError):
        view.submit(square, 3)
