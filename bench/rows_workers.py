# SPDX-License-Identifier: BSD-3-Clause
"""Rows for the workers themselves: how they start, how many there can be, what they cost idle, who gets which task."""

import contextlib
import functools
import os
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator

import frame
import machine
import rows_pool

STARTED = 8
LONGEST_SECONDS = 0.1
MEETING_SECONDS = 30.0


# ---- Start: a pool is made, and all of its workers answer


def meet(directory: str, number: int) -> int:
    """Ends when STARTED tasks are here at once, so that each of them has a worker of its own."""
    place = pathlib.Path(directory)
    (place / str(number)).touch()
    give_up = time.monotonic() + MEETING_SECONDS
    while len(os.listdir(place)) < STARTED:
        if time.monotonic() > give_up:
            raise TimeoutError("not all workers came")
        time.sleep(0.0005)
    return os.getpid()


def start_and_meet(start: Callable) -> frame.Rounds:
    def run(count: int) -> None:
        for _ in range(count):
            with tempfile.TemporaryDirectory() as directory, start() as run_all:
                pids = run_all(meet, [(directory, number) for number in range(STARTED)])
                if len(set(pids)) != STARTED:
                    raise AssertionError("not every worker had a task")

    return run


@contextlib.contextmanager
def start_shoal():
    with rows_pool.shoal_pool(STARTED) as pool:
        yield lambda function, calls: pool.starmap(function, calls, chunksize=1)


@contextlib.contextmanager
def start_mp():
    with rows_pool.mp_pool(STARTED) as pool:
        yield lambda function, calls: pool.starmap(function, calls, chunksize=1)


@contextlib.contextmanager
def start_loky():
    executor = rows_pool.import_loky().ProcessPoolExecutor(STARTED)
    try:
        yield lambda function, calls: list(executor.map(function, *zip(*calls, strict=True)))
    finally:
        executor.shutdown(wait=True, kill_workers=True)


# ---- Many workers on few cores


@contextlib.contextmanager
def tasks_with(workers: int) -> Iterator[frame.Rounds]:
    with rows_pool.shoal_pool(workers) as pool:
        pool.map(rows_pool.add_one, range(1000), chunksize=1)
        yield rows_pool.imap_tasks(pool)


# ---- Idle


@contextlib.contextmanager
def idle() -> Iterator[frame.Rounds]:
    """An operation is a second in which nobody asks for anything; what is shown as its time is the CPU time of all."""
    with rows_pool.shoal_pool(STARTED) as pool:
        pool.map(rows_pool.add_one, range(1000), chunksize=1)
        time.sleep(frame.lasting(1.0))  # what is put in order after work belongs to the work
        tree = machine.descendants(os.getpid())

        def run(count: int) -> frame.Span:
            begin = machine.tree_cpu_seconds(tree)
            time.sleep(frame.lasting(count))
            used = machine.tree_cpu_seconds(tree) - begin
            return frame.Span(used, used)

        yield run


# ---- Shares: tasks of very different length


def durations() -> list[float]:
    """One long task somewhere among many short ones, and all between."""
    chance = random.Random(7)
    longest = frame.lasting(LONGEST_SECONDS)
    seconds = [longest * chance.random() ** 4 for _ in range(200)]
    seconds[120] = longest
    return seconds


def uneven_tasks(pool) -> frame.Rounds:
    seconds = durations()
    return frame.each(lambda: list(pool.imap_unordered(time.sleep, seconds)))


@contextlib.contextmanager
def ideal_schedule() -> Iterator[frame.Rounds]:
    """The same sleeps in as many threads, shared out beforehand: longest first, each to the one with least to do."""
    import threading

    shares: list[list[float]] = [[] for _ in range(rows_pool.WORKERS)]
    for seconds in sorted(durations(), reverse=True):
        min(shares, key=sum).append(seconds)

    def sleep_all(share: list[float]) -> None:
        for seconds in share:
            time.sleep(seconds)

    def run(count: int) -> None:
        for _ in range(count):
            threads = [threading.Thread(target=sleep_all, args=(share,)) for share in shares]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    yield run


def add_to(registry: frame.Registry) -> None:
    def add(name, ours, theirs=None, **fields):
        registry.add(name, ours=ours, theirs=theirs, group="pool", **fields)

    def starting(start):
        return functools.partial(ready_to_start, start)

    fields = {"unit": "ms", "rounds": 10}
    add(
        "start-8/multiprocessing",
        starting(start_shoal),
        starting(start_mp),
        peer="multiprocessing.Pool",
        goal=1.5,
        **fields,
    )
    add("start-8/loky", starting(start_shoal), starting(start_loky), peer="loky", goal=10.0, **fields)
    for workers in (8, 32, 64):
        add(
            f"workers/{workers}",
            functools.partial(tasks_with, workers),
            functools.partial(tasks_with, 2),
            peer="itself with 2 workers",
            calls=5_000,
            goal=1 / 1.5,
        )
    add("idle/8", idle, unit="ms", rounds=10, round_seconds=0.0, limit=1e-3)
    uneven = functools.partial(rows_pool.using, rows_pool.shoal_pool, uneven_tasks)
    add("uneven-tasks", uneven, ideal_schedule, peer="the ideal schedule", unit="ms", rounds=5, goal=0.95)


@contextlib.contextmanager
def ready_to_start(start: Callable) -> Iterator[frame.Rounds]:
    yield start_and_meet(start)
