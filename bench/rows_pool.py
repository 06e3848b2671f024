# SPDX-License-Identifier: BSD-3-Clause
"""Rows for small tasks: shoal.Pool against multiprocessing.Pool, shoal.ProcessPoolExecutor against concurrent.futures
and loky.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator

import frame

WORKERS = 2


def add_one(number):
    return number + 1


def some_work(number):
    return sum(range(number % 1000))


# ---- The pools. Each set-up gets one and makes a function of it that does n calls.


@contextlib.contextmanager
def shoal_pool(workers: int = WORKERS):
    import shoal

    with shoal.Pool(workers) as pool:
        yield pool


@contextlib.contextmanager
def mp_pool(workers: int = WORKERS):
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield pool


@contextlib.contextmanager
def shoal_executor():
    import shoal

    with shoal.ProcessPoolExecutor(WORKERS) as executor:
        # It starts its workers at the first task; wait for them, so that they are there to be pinned.
        list(executor.map(add_one, range(100)))
        yield executor


@contextlib.contextmanager
def cf_executor():
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=fork) as executor:
        # It starts workers one by one as tasks come; wait for all, so that they are there to be pinned.
        list(executor.map(add_one, range(100)))
        yield executor


@contextlib.contextmanager
def loky_executor():
    loky = import_loky()
    executor = loky.get_reusable_executor(max_workers=WORKERS)
    try:
        list(executor.map(add_one, range(100)))
        yield executor
    finally:
        executor.shutdown(wait=True)


@contextlib.contextmanager
def joblib_parallel():
    import_loky()
    import joblib

    # batch_size=1: each call a task, as with submit. pre_dispatch="all": joblib does not wait for its own window.
    with joblib.Parallel(WORKERS, backend="loky", batch_size=1, pre_dispatch="all") as parallel:
        parallel(joblib.delayed(add_one)(number) for number in range(100))
        yield parallel


def import_loky():
    try:
        from joblib.externals import loky
    except ImportError:
        raise frame.SkipRow("needs joblib") from None
    return loky


# ---- What is done with them: the same code for both sides.


def apply_calls(pool) -> frame.Rounds:
    if pool.apply(add_one, (1,)) != 2:
        raise AssertionError("apply gives a wrong result")
    return frame.each_timed(pool.apply, add_one, (1,))


def submit_calls(executor) -> frame.Rounds:
    submit = executor.submit
    return frame.each_timed(lambda: submit(add_one, 1).result())


def many_submits(executor) -> frame.Rounds:
    """All of a round are submitted before the first result is asked for."""

    def run(count: int) -> None:
        submit = executor.submit
        futures = [submit(add_one, number) for number in range(count)]
        check(sum(future.result() for future in futures), count)

    return run


def many_lambdas(executor) -> frame.Rounds:
    def run(count: int) -> None:
        submit, step = executor.submit, 1
        futures = [submit(lambda number: number + step, number) for number in range(count)]
        check(sum(future.result() for future in futures), count)

    return run


def many_joblib(parallel) -> frame.Rounds:
    import joblib

    def run(count: int) -> None:
        check(sum(parallel(joblib.delayed(add_one)(number) for number in range(count))), count)

    return run


def check(total: int, count: int) -> None:
    if total != count * (count + 1) // 2:
        raise AssertionError(f"wrong results of {count} tasks")


def rounds_of_computing(seconds: float) -> int:
    """How many sums take so much CPU time."""
    begin, rounds = time.process_time(), 0
    while time.process_time() - begin < seconds:
        sum(range(1000))
        rounds += 1
    return rounds


def map_behind_computing(pool) -> frame.Rounds:
    """The parent computes for about a second and never looks at the pool meanwhile."""
    rounds, numbers = rounds_of_computing(frame.lasting(1.0)), list(range(20_000))
    expected = list(map(some_work, numbers))

    def run(count: int) -> None:
        for _ in range(count):
            answer = pool.map_async(some_work, numbers)
            for _ in range(rounds):
                sum(range(1000))
            if answer.get() != expected:
                raise AssertionError("map_async gives wrong results")

    return run


def imap_tasks(pool) -> frame.Rounds:
    def run(count: int) -> None:
        seen = 0
        for _ in pool.imap_unordered(add_one, range(count)):
            seen += 1
        if seen != count:
            raise AssertionError(f"{seen} results of {count} tasks")

    return run


def map_of_ints(pool, count: int) -> frame.Rounds:
    numbers = list(range(count))
    if pool.map(add_one, numbers) != [number + 1 for number in numbers]:
        raise AssertionError("map gives wrong results")
    return frame.each(pool.map, add_one, numbers)


@contextlib.contextmanager
def using(pool_maker, work: Callable[..., frame.Rounds], *args) -> Iterator[frame.Rounds]:
    with pool_maker() as pool:
        yield work(pool, *args)


POOLS = shoal_pool, mp_pool, "multiprocessing.Pool"
EXECUTORS = shoal_executor, cf_executor, "concurrent.futures"
LOKY = shoal_executor, loky_executor, "loky"


def add_to(registry: frame.Registry) -> None:
    def compare(name, makers, work, *args, their_work=None, **fields):
        ours, theirs, peer = makers
        registry.add(
            name,
            ours=functools.partial(using, ours, work, *args),
            theirs=functools.partial(using, theirs, their_work or work, *args),
            peer=peer,
            group="pool",
            **fields,
        )

    # Where the processes run decides what a round trip costs, and who else is there.
    places = [("free", "free", 0), ("one-core", "one core", 0), ("two-cores", "two cores", 0)]
    places += [("free-1-busy", "free", 1), ("free-2-busy", "free", 2)]
    for name, placement, busy in places:
        quick = placement != "one core" and not busy
        fields = {"calls": 500, "placement": placement, "busy": busy, "rounds": 40}
        limit = 3e-6 if quick else None
        compare(f"apply/{name}", POOLS, apply_calls, goal=60.0 if quick else 12.0, limit=limit, **fields)
        compare(f"submit/{name}", EXECUTORS, submit_calls, goal=80.0 if quick else 25.0, **fields)
    compare("imap-unordered", POOLS, imap_tasks, calls=5_000, goal=20.0)
    many = {"calls": 20_000, "rounds": 10}
    compare("submits/futures", EXECUTORS, many_submits, goal=80.0, **many)
    joblib = shoal_executor, joblib_parallel, "joblib+loky, batches of one"
    compare("submits/joblib", joblib, many_submits, their_work=many_joblib, goal=100.0, **many)
    compare("submits/lambdas", LOKY, many_lambdas, goal=80.0, **many)
    compare("map-ints", POOLS, map_of_ints, 1_000_000, operations=1_000_000, unit="ns", goal=2.0)
    for name, busy in (("free", 0), ("2-busy", 2)):
        fields = {"unit": "ms", "rounds": 5, "busy": busy, "goal": 1.0}
        compare(f"map-behind-computing/{name}", POOLS, map_behind_computing, **fields)
