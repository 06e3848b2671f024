# SPDX-License-Identifier: BSD-3-Clause
"""in_vain.py METHOD: each worker is killed while it starts; prints how the pool ends, and whether it tried for ever.

In this build it gives up after two seconds, not after thirty.
"""

import os
import signal
import sys

import shoal
from shoal import _spawn, _worker

STARTS_MAX = 60  # with the pauses between them, two seconds are too short for more
kind = _worker.ForkStart if sys.argv[1] == "fork" else _spawn.SpawnStart
start, start_several = kind.__call__, getattr(kind, "several", None)
starts = 0


def kill(pid):
    global starts
    starts += 1
    os.kill(pid, signal.SIGKILL)


def start_and_kill(self, engine, index):
    started = start(self, engine, index)
    kill(started[0] if isinstance(started, tuple) else started)
    return started


def start_several_and_kill(self, engine, count, pids):
    start_several(self, engine, count, pids)
    for pid in pids:
        kill(pid)


def main():
    kind.__call__ = start_and_kill
    if start_several is not None:
        kind.several = start_several_and_kill
    with shoal.Pool(2, signal.pause, context=sys.argv[1]) as pool:
        try:
            pool.apply(abs, (-1,))
        except shoal.PoolBroken as error:
            print("by SIGKILL" in str(error) and "workers die as soon as they are started" in str(error), end=" ")
    print(starts <= STARTS_MAX)


if __name__ == "__main__":
    main()
