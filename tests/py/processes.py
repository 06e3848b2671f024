# SPDX-License-Identifier: BSD-3-Clause
"""Looking at processes that are not the test's own children."""

import time

import psutil

from tasks import TIMEOUT


def runs(pid):
    """A zombie has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids, seconds=TIMEOUT):
    """Return when none of `pids` runs any more; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid in pids if runs(pid)]
        if not alive:
            return
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)
