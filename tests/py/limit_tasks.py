# SPDX-License-Identifier: BSD-3-Clause
"""Tasks that do not end by themselves, for tests of timeouts and of cancelling."""

import contextlib
import os
import signal
import time

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


def started(pool, function, *arguments):
    call = pool.apply_async(function, arguments)
    while not call.running():
        time.sleep(0.001)
    return call
