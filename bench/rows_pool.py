# SPDX-License-Identifier: BSD-3-Clause
"""Rows for the pools: shoal.Pool against multiprocessing.Pool, shoal.ProcessPoolExecutor against concurrent.futures."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterator

import frame

WORKERS = 2
MEBIBYTE = 1 << 20


def add_one(number):
    return number + 1


def echo(value):
    return value


# ---- The pools. Each set-up gets one and makes a function of it that does n calls.


@contextlib.contextmanager
def shoal_pool():
    import shoal

    with shoal.Pool(WORKERS) as pool:
        yield pool


@contextlib.contextmanager
def mp_pool():
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        yield pool


@contextlib.contextmanager
def shoal_executor():
    import shoal

    with shoal.ProcessPoolExecutor(WORKERS) as executor:
        yield executor


@contextlib.contextmanager
def cf_executor():
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=fork) as executor:
        # It starts workers one by one as tasks come; wait for all, so that they are there to be pinned.
        list(executor.map(add_one, range(100)))
        yield executor


# ---- What is done with them: the same code for both sides.


def apply_calls(pool) -> frame.Rounds:
    if pool.apply(add_one, (1,)) != 2:
        raise AssertionError("apply gives a wrong result")
    return frame.each(pool.apply, add_one, (1,))


def submit_calls(executor) -> frame.Rounds:
    def run(count: int) -> None:
        submit = executor.submit
        for _ in range(count):
            submit(add_one, 1).result()

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


def array_calls(pool, function: Callable, size_mib: int) -> frame.Rounds:
    try:
        import numpy
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    array = numpy.arange(size_mib * MEBIBYTE // 8, dtype=numpy.float64)
    if not numpy.array_equal(pool.apply(function, (array,)), function(array)):
        raise AssertionError("the array that comes back is wrong")
    return frame.each(pool.apply, function, (array,))


@contextlib.contextmanager
def using(pool_maker, work: Callable[..., frame.Rounds], *args) -> Iterator[frame.Rounds]:
    with pool_maker() as pool:
        yield work(pool, *args)


POOLS = shoal_pool, mp_pool, "multiprocessing.Pool"
EXECUTORS = shoal_executor, cf_executor, "concurrent.futures"


def add_to(registry: frame.Registry) -> None:
    def compare(name, makers, work, *args, **fields):
        ours, theirs, peer = makers
        set_ups = [functools.partial(using, maker, work, *args) for maker in (ours, theirs)]
        registry.add(name, ours=set_ups[0], theirs=set_ups[1], peer=peer, group="pool", **fields)

    for name, placement in (("free", "free"), ("one-core", "one core"), ("two-cores", "two cores")):
        compare(f"apply/{name}", POOLS, apply_calls, calls=500, placement=placement, rounds=40)
    compare("submit", EXECUTORS, submit_calls, calls=500, rounds=40)
    compare("imap-unordered", POOLS, imap_tasks, calls=5_000)
    compare("map-ints", POOLS, map_of_ints, 1_000_000, operations=1_000_000, unit="ns")
    for action, function in (("echo", echo), ("plus-one", add_one)):
        for size_mib, rounds in ((1, 20), (64, 10), (256, 5)):
            compare(f"{action}/{size_mib}-MiB", POOLS, array_calls, function, size_mib, unit="ms", rounds=rounds)
