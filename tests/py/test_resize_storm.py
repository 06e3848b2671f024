# SPDX-License-Identifier: BSD-3-Clause
"""Threads resize a pool as they like while its workers are killed: every task has an outcome, and only one."""

import contextlib
import os
import random
import signal
import threading

import pytest

import shoal
from resizing import of_pool, pids, settle
from tasks import TIMEOUT, square

# pytest keeps each warning: from 3.12 on Python warns of a fork while there are threads.
pytestmark = [pytest.mark.leakcheck, pytest.mark.filterwarnings("ignore:.*fork.*")]


def test_threads_resize_as_they_like_under_a_killer(doorbell):
    """Each task ends with its result, or WorkerLost if it ran in a worker that was killed."""
    dice, stop = random.Random(11), threading.Event()
    kills = 0

    def resize(seed):
        mine = random.Random(seed)
        while not stop.wait(0.002):
            executor.resize(mine.randint(1, 5))

    def kill():
        nonlocal kills
        while not stop.wait(0.005):
            alive = pids(executor)
            with contextlib.suppress(ProcessLookupError):  # it was collected just now
                if alive:  # else all are being replaced
                    os.kill(dice.choice(alive), signal.SIGKILL)
                    kills += 1

    def attempt(call, n):
        try:
            return call.result(TIMEOUT) == n * n
        except shoal.WorkerLost:
            return None

    with shoal.ProcessPoolExecutor(2) as executor:
        executor.submit(abs, 1).result()
        threads = [threading.Thread(target=resize, args=(n,)) for n in range(3)] + [threading.Thread(target=kill)]
        for thread in threads:
            thread.start()
        try:
            outcomes = []
            while kills < 15:
                calls = [(executor.submit(square, n), n) for n in range(200)]
                outcomes += [attempt(*call) for call in calls]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert False not in outcomes
        assert outcomes.count(None) <= kills
        executor.resize(2)
        settle(executor, 2)
        of_pool(executor).verify()
        assert [executor.submit(square, n).result(TIMEOUT) for n in range(20)] == [n * n for n in range(20)]
