# SPDX-License-Identifier: BSD-3-Clause
"""Rows for large data in tasks: arrays and data frames that go to a worker and come back."""

import contextlib
import ctypes
import functools
import time
from collections.abc import Callable, Iterator

import frame
import rows_pool

KIBIBYTE, MEBIBYTE = 1 << 10, 1 << 20


def echo(value):
    return value


def plus_one(array):
    return array + 1


def add_in_place(array) -> float:
    """Every page is written."""
    array += 1
    return float(array[-1])


def first_of(array) -> float:
    return float(array[0])


def rows_of(table) -> int:
    return len(table)


def import_numpy():
    try:
        import numpy
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    return numpy


def make_array(size_mib: int):
    return import_numpy().arange(size_mib * MEBIBYTE // 8, dtype="float64")


def make_table(rows: int = 1_000_000):
    """Two numeric columns and two of strings, one of them with few different ones."""
    try:
        import pandas
    except ImportError:
        raise frame.SkipRow("needs pandas") from None
    rows = frame.so_many(rows)
    numbers = import_numpy().arange(rows)
    return pandas.DataFrame(
        {
            "number": numbers,
            "part": numbers / 7,
            "name": [f"name {number}" for number in range(rows)],
            "kind": [("red", "green", "blue")[number % 3] for number in range(rows)],
        }
    )


# ---- Arrays that go through pool.apply: the same code for both sides.


def array_calls(pool, function: Callable, size_mib: int) -> frame.Rounds:
    array = make_array(size_mib)
    if not import_numpy().array_equal(pool.apply(function, (array,)), function(array.copy())):
        raise AssertionError("what comes back is wrong")
    if array[0] != 0.0:
        raise AssertionError("what a task writes is seen by the sender")
    return frame.each(pool.apply, function, (array,))


def less_the_addition(pool, size_mib: int) -> frame.Rounds:
    """`a + 1` in the worker. The addition itself, into warm memory, is timed in the parent and taken off."""
    calls = array_calls(pool, plus_one, size_mib)
    add = addition(size_mib)

    def run(count: int) -> frame.Span:
        begin = time.perf_counter()
        calls(count)
        middle = time.perf_counter()
        add(count)
        return frame.Span(max(middle - begin - (time.perf_counter() - middle), 1e-9), float("nan"))

    return run


def addition(size_mib: int) -> frame.Rounds:
    numpy = import_numpy()
    array = make_array(size_mib)
    target = array + 1
    return frame.each(functools.partial(numpy.add, array, 1, out=target))


@contextlib.contextmanager
def addition_and_two_copies(size_mib: int) -> Iterator[frame.Rounds]:
    """What the hardware needs at least: the addition, and a memcpy there and back, everything warm."""
    add, source = addition(size_mib), make_array(size_mib)
    target = source.copy()
    copy = functools.partial(ctypes.memmove, target.ctypes.data, source.ctypes.data, source.nbytes)

    def run(count: int) -> None:
        for _ in range(count):
            copy()
            add(1)
            copy()

    yield run


# ---- An array that lies in the arena already.


@contextlib.contextmanager
def from_the_arena(size: int) -> Iterator[frame.Rounds]:
    import shoal

    array = shoal.share(import_numpy().ones(size // 8))
    with shoal.Pool(rows_pool.WORKERS) as pool:
        if pool.apply(first_of, (array,)) != 1.0:
            raise AssertionError("what arrives is wrong")
        yield frame.each(pool.apply, first_of, (array,))


# ---- Data frames


def table_calls(pool) -> frame.Rounds:
    table = make_table()
    if pool.apply(rows_of, (table,)) != len(table):
        raise AssertionError("the table arrives incomplete")
    return frame.each(pool.apply, rows_of, (table,))


def table_calls_joblib(parallel) -> frame.Rounds:
    import joblib

    table = make_table()
    if parallel([joblib.delayed(rows_of)(table)]) != [len(table)]:
        raise AssertionError("the table arrives incomplete")
    return frame.each(lambda: parallel([joblib.delayed(rows_of)(table)]))


def add_to(registry: frame.Registry) -> None:
    def add(name, ours, theirs=None, **fields):
        registry.add(name, ours=ours, theirs=theirs, group="pool", unit=fields.pop("unit", "ms"), **fields)

    def compare(name, work, *args, **fields):
        ours, theirs, peer = rows_pool.POOLS
        sides = [functools.partial(rows_pool.using, maker, work, *args) for maker in (ours, theirs)]
        add(name, *sides, peer=peer, **fields)

    for size_mib, rounds, echo_goal, plus_goal in ((1, 20, 20.0, 15.0), (64, 10, 40.0, 20.0), (256, 5, 40.0, 20.0)):
        fields = {"rounds": rounds}
        compare(f"echo/{size_mib}-MiB", array_calls, echo, size_mib, goal=echo_goal, **fields)
        compare(f"plus-one/{size_mib}-MiB", less_the_addition, size_mib, goal=plus_goal, **fields)
        add(
            f"plus-one-floor/{size_mib}-MiB",
            functools.partial(rows_pool.using, rows_pool.shoal_pool, array_calls, plus_one, size_mib),
            functools.partial(addition_and_two_copies, size_mib),
            peer="the addition and two memcpy",
            goal=1 / 1.3,
            **fields,
        )
    compare("in-place/64-MiB", array_calls, add_in_place, 64, rounds=10, goal=5.0)
    for name, size in (("1-KiB", KIBIBYTE), ("1-MiB", MEBIBYTE), ("64-MiB", 64 * MEBIBYTE), ("1-GiB", 1024 * MEBIBYTE)):
        add(f"from-arena/{name}", functools.partial(from_the_arena, size), unit="us", calls=200, limit=20e-6)
    compare("table/multiprocessing", table_calls, rounds=5, goal=5.0)
    add(
        "table/joblib",
        functools.partial(rows_pool.using, rows_pool.shoal_pool, table_calls),
        functools.partial(rows_pool.using, rows_pool.joblib_parallel, table_calls_joblib),
        peer="joblib+loky",
        rounds=5,
        goal=2.0,
    )
