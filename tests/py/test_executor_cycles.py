# SPDX-License-Identifier: BSD-3-Clause
"""The garbage collector is told of a future when it may be part of a cycle, and not before."""

import gc
import weakref

import pytest

import shoal
from tasks import TIMEOUT

pytestmark = pytest.mark.leakcheck


@pytest.fixture
def executor():
    with shoal.ProcessPoolExecutor(1) as made:
        yield made


def refers_by_attribute(future):
    future.itself = future


def refers_by_its_dict(future):
    vars(future)["itself"] = future


def refers_by_result(future):
    future.result(TIMEOUT).append(future)


def refers_by_callback(future):
    future.result(TIMEOUT)
    future.add_done_callback(lambda done: None)
    future.callback = lambda: future


def refers_by_what_wait_makes(future):
    future._done_callbacks.append(lambda done, future=future: None)


def refers_by_an_exception(future):
    try:
        future.result(TIMEOUT)[1]
    except IndexError as error:
        future.error = error


def refers_by_weak_reference(future):
    future.note = weakref.ref(future)


@pytest.mark.parametrize(
    "refer",
    [
        refers_by_attribute,
        refers_by_its_dict,
        refers_by_result,
        refers_by_callback,
        refers_by_what_wait_makes,
        refers_by_an_exception,
        refers_by_weak_reference,
    ],
)
def test_a_future_that_refers_to_itself_is_collected(executor, refer):
    future = executor.submit(list)
    refer(future)
    future.exception(TIMEOUT)
    gone = weakref.ref(future)
    del future
    executor.submit(int).result(TIMEOUT)  # the engine holds it no more
    gc.collect()
    assert gone() is None


def test_a_future_whose_callback_refers_to_it_is_collected_though_it_ended_otherwise(executor):
    future = shoal.Future()
    future.add_done_callback(lambda done, future=future: None)
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None


def test_a_result_from_outside_that_holds_the_future_is_collected():
    future = shoal.Future()
    future.set_result([future])
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None


def test_futures_of_numbers_are_nothing_to_the_collector(executor):
    futures = [executor.submit(abs, -number) for number in range(100)]
    assert not any(map(gc.is_tracked, futures))
    assert [future.result(TIMEOUT) for future in futures] == list(range(100))
    assert not any(map(gc.is_tracked, futures))
    assert not gc.is_tracked(executor.submit(str))
