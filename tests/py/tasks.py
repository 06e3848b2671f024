# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of pools and executors let workers do, and how long they wait for an answer that must come."""

import os
import signal
import time

TIMEOUT = 60


def square(x):
    return x * x


def add(a, b=0, *, c=0):
    return a + b + c


def fail_on_three(x):
    if x == 3:
        raise ValueError(f"no {x}")
    return x


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def works(pool):
    return pool.map(square, range(10)) == [x * x for x in range(10)] and pool.apply(square, (3,)) == 9


class Gate:
    """Tasks that wait until the test lets them go, without a sleep. Made before the workers, which inherit it."""

    def __init__(self):
        self.running, self.go = os.pipe(), os.pipe()

    def block(self, executor):
        """Submit a task that waits; return its future when it runs."""
        future = executor.submit(self.wait)
        assert os.read(self.running[0], 1) == b"."
        return future

    def wait(self):
        os.write(self.running[1], b".")
        assert os.read(self.go[0], 1) == b"."
        return "go"

    def open(self, times=1):
        os.write(self.go[1], b"." * times)

    def close(self):
        for descriptor in (*self.running, *self.go):
            os.close(descriptor)
