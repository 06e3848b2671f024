# SPDX-License-Identifier: BSD-3-Clause
"""Tasks that do not end by themselves, for tests of timeouts and of cancelling."""

import contextlib
import os
import signal
import time

import pytest

import shoal
from tasks import TIMEOUT, works

LONG = 300  # seconds: a task that takes so long is one that never ends
SHORT = 0.05  # for the timeout of such a task


def catches_everything():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(LONG)


def stops_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(LONG)


def busy():
    while True:
        pass


def sound(pool):
    """Everything is as it should be, once what is still being stopped has ended."""
    pool._engine.verify()
    assert works(pool)
    deadline = time.monotonic() + TIMEOUT
    while pool._engine.stats()["in_flight"]:
        assert time.monotonic() < deadline
        pool._engine.drain()
        time.sleep(0.001)
    assert pool._engine.stats()["backlog"] == 0


def timeout_of(pool, function, *arguments, until=lambda error: True):
    """The error of that call, whose time was short; longer, if the task was so slow that it had not come to `until`."""
    for seconds in (SHORT, 20 * SHORT, 400 * SHORT):
        with pytest.raises(shoal.TaskTimeout) as caught:
            pool.apply(function, arguments, timeout=seconds)
        if until(caught.value):
            break
    return caught.value


def was_killed(error):
    return error.killed


def started(pool, function, *arguments):
    call = pool.apply_async(function, arguments)
    while not call.running():
        time.sleep(0.001)
    return call
