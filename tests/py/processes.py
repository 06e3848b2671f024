# SPDX-License-Identifier: BSD-3-Clause
"""Looking at processes that are not the test's own children."""

import time

import psutil


def wait_until_gone(pids, seconds=10):
    """Return when none of `pids` runs any more; fail after `seconds`. A zombie has ended."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        if not alive:
            return
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)
