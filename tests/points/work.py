# SPDX-License-Identifier: BSD-3-Clause
"""What the workers of rounds.py run, and how often they ran it: a byte for each task, in a file that all map."""

import contextlib
import mmap
import os
import signal

import numpy

import shoal

TASKS = 60
kept = []


def map_ran():
    with open(os.environ["SHOAL_TEST_RAN"], "r+b") as file:
        file.truncate(TASKS)
        return mmap.mmap(file.fileno(), TASKS)


ran = map_ran()


def line(n):
    return f"{n} {'said ' * (5000 if n % 7 == 0 else n)}"


def call(n, payload):
    ran[n] += 1
    if "SHOAL_TEST_SAYS" in os.environ:
        print(line(n))
    if n % 10 == 0:  # an array
        kept.append(payload[:10])  # its block is held beyond the task, until the next one comes
        del kept[:-1]
    return n, payload


def keep_all(arrays):
    kept[:] = arrays
    return len(arrays)


def item(n):
    ran[n] += 1
    return n, b"y" * (200_000 if n % 7 == 0 else n)


def total(value, n):
    ran[n] += 1
    return n, int(value["numbers"].sum())


def make(n):
    """A handle that this worker keeps, too, until nobody has it."""
    handle = shoal.share({"numbers": numpy.full(20_000, n)})
    assert handle.get()["numbers"][0] == n
    return handle


def stay():
    while True:
        with contextlib.suppress(BaseException):
            signal.pause()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(descriptor, _):
    os.read(descriptor, 1)
