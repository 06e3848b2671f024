# SPDX-License-Identifier: BSD-3-Clause
"""Rows for how fast a program with a pool comes to its end: by Ctrl-C, by SIGTERM, by the parent's death.

An operation starts a program for each kind of doorbell, one after the other, and sends its main process the signal; its
time is that of the slowest of them. Idle: no worker has anything to do, and the main thread sleeps. Busy: each worker
computes without an end, and the main thread waits for one of them.
"""

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import frame

DOORBELLS = ("uring", "uring-eventfd", "semaphore")
GIVE_UP_SECONDS = 60.0
SCRIPT = """
import os, sys, time
import shoal

def compute():
    os.write(begun, b".")
    while True:
        pass

workers, busy = int(sys.argv[1]), sys.argv[2] == "busy"
waiting, begun = os.pipe()
with shoal.Pool(workers) as pool:
    pool.map(abs, range(100), chunksize=1)
    results = [pool.apply_async(compute) for _ in range(workers * busy)]
    for _ in results:
        os.read(waiting, 1)
    try:
        print(*[worker.pid for worker in pool._pool], flush=True)
        while True:  # a signal just before a sleep does not end that one
            results[0].get() if busy else time.sleep(0.05)
    except KeyboardInterrupt:
        os.write(1, b"%.9f" % time.monotonic())
        raise
"""


def wait_for_ends(processes: list[int]) -> None:
    """Of processes, by their pidfds."""
    poll = select.poll()
    for process in processes:
        poll.register(process, select.POLLIN)
    left = len(processes)
    while left > 0:
        ready = poll.poll(GIVE_UP_SECONDS * 1000)
        if not ready:
            raise TimeoutError("a worker outlived its pool")
        for process, _ in ready:
            poll.unregister(process)
        left -= len(ready)


def seconds_to_end(doorbell: str, state: str, workers: int, number: signal.Signals, caught: bool) -> float:
    """From the signal until the exception was caught, or until the program and all its workers are gone."""
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(workers), state],
        env={**os.environ, "SHOAL_DOORBELL": doorbell},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(program.wait)
        stack.callback(program.kill)
        assert program.stdout is not None
        stack.enter_context(program.stdout)
        pids = [int(pid) for pid in program.stdout.readline().split()]
        if len(pids) != workers:
            raise frame.SkipRow(f"no pool with the doorbell {doorbell}")
        processes = [os.pidfd_open(pid) for pid in [program.pid, *pids]]
        for process in processes:
            stack.callback(os.close, process)
        begin = time.monotonic()
        program.send_signal(number)
        if caught:
            return float(program.stdout.read()) - begin
        wait_for_ends(processes)
        return time.monotonic() - begin


@contextlib.contextmanager
def ending(state: str, workers: int, number: signal.Signals, caught: bool) -> Iterator[frame.Rounds]:
    doorbells = DOORBELLS[:1] if frame.is_quick() else DOORBELLS

    def run(count: int) -> frame.Span:
        span = frame.Span()
        for _ in range(count):
            slowest = max(seconds_to_end(doorbell, state, workers, number, caught) for doorbell in doorbells)
            span.seconds += slowest
        return span

    yield run


def add_to(registry: frame.Registry) -> None:
    events = {
        "ctrl-c-caught": (signal.SIGINT, True, 0.1),
        "ctrl-c-gone": (signal.SIGINT, False, 1.0),
        "sigterm-gone": (signal.SIGTERM, False, 1.0),
        "parent-killed-gone": (signal.SIGKILL, False, 1.0),
    }
    for event, (number, caught, limit) in events.items():
        for state in ("idle", "busy"):
            for workers in (2, 8):
                registry.add(
                    f"end/{event}/{state}-{workers}",
                    ours=functools.partial(ending, state, workers, number, caught),
                    group="pool",
                    unit="ms",
                    rounds=5,
                    round_seconds=0.0,
                    limit=limit,
                )
