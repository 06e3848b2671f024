# SPDX-License-Identifier: BSD-3-Clause
"""What `shoal.Pool` returns at once for a result to come: waiting, asking, and callbacks."""

import multiprocessing
import threading
import time

import pytest

from tasks import TIMEOUT, fail_on_three, square

pytestmark = pytest.mark.leakcheck


# ---- results to come ----


def test_async_result_tells_when_it_is_ready(gate, pool):
    result = pool.apply_async(gate.wait)
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    gate.open()
    result.wait(TIMEOUT)
    assert result.ready() and result.successful()
    assert result.get() == "go"
    assert result.get() == "go"


def test_get_with_a_timeout_raises_multiprocessings_error(pool):
    result = pool.apply_async(time.sleep, (30,))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0)
    assert not result.ready()


def test_a_failed_call_is_ready_and_not_successful(pool):
    result = pool.apply_async(fail_on_three, (3,))
    result.wait(TIMEOUT)
    assert result.ready() and not result.successful()
    for _ in range(2):
        with pytest.raises(ValueError, match="no 3"):
            result.get()


def test_results_arrive_while_nobody_waits(pool):
    results = [pool.apply_async(square, (x,)) for x in range(100)]
    waits = threading.Event()
    result = pool.apply_async(square, (0,), callback=lambda _: waits.set())
    assert waits.wait(TIMEOUT)
    assert [r.get(TIMEOUT) for r in results] == [square(x) for x in range(100)]
    assert result.get(TIMEOUT) == 0


def test_many_calls_may_be_outstanding(pool):
    results = [pool.apply_async(square, (x,)) for x in range(20_000)]
    assert [result.get(TIMEOUT) for result in results] == [x * x for x in range(20_000)]


# ---- callbacks ----


def test_a_callback_runs_once_before_the_result_is_ready(pool):
    calls = []
    result = pool.apply_async(square, (3,), callback=calls.append)
    assert result.get(TIMEOUT) == 9
    assert calls == [9]
    assert result.get() == 9
    assert calls == [9]


def test_an_error_callback_gets_the_exception(pool):
    values, errors = [], []
    result = pool.apply_async(fail_on_three, (3,), callback=values.append, error_callback=errors.append)
    with pytest.raises(ValueError, match="no 3"):
        result.get(TIMEOUT)
    assert values == []
    assert [str(error) for error in errors] == ["no 3"]


def test_map_callbacks_get_the_whole_list_or_the_first_error(pool):
    lists, errors = [], []
    assert pool.map_async(square, range(10), callback=lists.append).get(TIMEOUT) == [x * x for x in range(10)]
    assert lists == [[x * x for x in range(10)]]
    failed = pool.map_async(fail_on_three, range(10), error_callback=errors.append)
    failed.wait(TIMEOUT)
    assert not failed.successful()
    assert [type(error) for error in errors] == [ValueError]


def test_a_callback_runs_although_nobody_waits(pool):
    called = threading.Event()
    pool.apply_async(square, (1,), callback=lambda _: called.set())
    assert called.wait(TIMEOUT)


def test_a_callback_may_look_at_its_own_result_and_use_the_pool(gate, pool):
    seen = []
    box = {}

    def look(value):
        seen.append((box["result"].ready(), box["result"].get(), pool.apply(square, (len(value),))))

    box["result"] = pool.apply_async(gate.wait, callback=look)
    gate.open()
    assert box["result"].get(TIMEOUT) == "go"
    assert seen == [(True, "go", 4)]


def test_a_callback_that_raises_is_reported_and_harms_nobody(pool, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    result = pool.apply_async(square, (2,), callback=lambda _: 1 / 0)
    assert result.get(TIMEOUT) == 4
    assert [args.exc_type for args in reported] == [ZeroDivisionError]
    assert pool.apply(square, (3,)) == 9
