# SPDX-License-Identifier: BSD-3-Clause
"""Looking at the workers of a pool or executor that is being resized."""

import time

import shoal
from tasks import TIMEOUT


def of_pool(pool):
    return pool._engine if isinstance(pool, shoal.Pool) else pool._lifetime.engine


def pids(pool):
    return [pid for pid in of_pool(pool).pids() if pid]


def settle(pool, count):
    """Return the workers' pids when there are `count` of them, and none that is to end."""
    deadline = time.monotonic() + TIMEOUT
    while len(of_pool(pool).pids()) != count or len(pids(pool)) != count:
        assert time.monotonic() < deadline, of_pool(pool).pids()
        of_pool(pool).drain()
        time.sleep(0.01)
    return pids(pool)


def let_go(executor):
    """Wait until the executor has let its workers go."""
    deadline = time.monotonic() + TIMEOUT
    while executor._lifetime is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
