# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of pools and executors let workers do, and how long they wait for an answer that must come."""

import faulthandler
import os
import resource
import signal
import sys
import threading
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


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)


def works(pool):
    return pool.map(square, range(10)) == [x * x for x in range(10)] and pool.apply(square, (3,)) == 9


def running_workers(pool):
    """Return the workers of `pool` once all of them run, with those in the place of dead ones."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        workers = pool._pool
        if all(worker.is_alive() for worker in workers):
            return workers
        assert time.monotonic() < deadline, f"do not run: {[worker for worker in workers if not worker.is_alive()]}"
        pool._repopulate_pool()
        time.sleep(0.01)


def overrun_the_stack():
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_STACK, (64 << 10, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    sys.setrecursionlimit(10**6)
    nested = []
    for _ in range(9000):
        nested = [nested]
    return repr(nested)


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class FailsToLoad:
    def __reduce__(self):
        return (int, ("no number",))


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
