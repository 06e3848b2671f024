# SPDX-License-Identifier: BSD-3-Clause
"""Rows for what tasks share: 10,000 tasks with an array or a table of 256 MiB that all of them read.

"an array of their own": the same tasks, but each worker has made an array as large for itself.
A row of memory gives bytes as nanoseconds: what parent and workers have together (proportional set size), against that
of the same tasks over a small array, plus the size of the large one.
"""

import contextlib
import functools
import gc
import pathlib
from collections.abc import Iterator

import frame
import rows_pool

TASKS = 10_000
SIZE = 32 << 20  # numbers: 256 MiB
READ = 8_192  # numbers that a task reads


def make_array(size: int):
    try:
        import numpy
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    return numpy.ones(size)


def read_some(array, number: int) -> float:
    """Some of the array, another part of it for each task."""
    start = number * 7_919 % max(1, len(array) - READ)
    return float(array[start : start + READ].sum())


def read_column(table, number: int) -> float:
    return read_some(table["numbers"], number)


def read_own(nothing, number: int) -> float:
    """The same of an array as large, that each worker has of its own."""
    return read_some(own_array(SIZE), number)


def read_small(nothing, number: int) -> float:
    return read_some(own_array(READ), number)


@functools.cache
def own_array(size: int):
    return make_array(size)


def as_argument(pool, function, shared) -> frame.Rounds:
    inputs = [(shared, number) for number in range(TASKS)]

    def run(times: int) -> None:
        for _ in range(times):
            if len(pool.starmap(function, inputs)) != TASKS:
                raise AssertionError("results are missing")

    return run


def as_bound_argument(pool, function, shared) -> frame.Rounds:
    bound = functools.partial(function, shared)

    def run(times: int) -> None:
        for _ in range(times):
            if len(pool.map(bound, range(TASKS))) != TASKS:
                raise AssertionError("results are missing")

    return run


@contextlib.contextmanager
def sharing(make_shared, function, send) -> Iterator[frame.Rounds]:
    import shoal

    with shoal.Pool(rows_pool.WORKERS) as pool:
        pool.map(abs, range(TASKS))
        yield send(pool, function, make_shared(shoal))


def shared_array(shoal):
    return shoal.share(make_array(SIZE))


def shared_table(shoal):
    return shoal.share({"numbers": make_array(SIZE), "name": "table"})


def plain_array(shoal):
    return make_array(SIZE)


def nothing(shoal):
    return None


@contextlib.contextmanager
def by_joblib() -> Iterator[frame.Rounds]:
    try:
        import joblib
    except ImportError:
        raise frame.SkipRow("needs joblib") from None
    array = make_array(SIZE)
    with joblib.Parallel(rows_pool.WORKERS, batch_size=TASKS // (4 * rows_pool.WORKERS)) as parallel:

        def run(times: int) -> None:
            for _ in range(times):
                results = parallel(joblib.delayed(read_some)(array, number) for number in range(TASKS))
                if len(results) != TASKS:
                    raise AssertionError("results are missing")

        run(1)
        yield run


def proportional_bytes(pids) -> int:
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


@contextlib.contextmanager
def memory_with(make_shared, function, beside: int) -> Iterator[frame.Rounds]:
    """Bytes, as nanoseconds, that parent and workers have when the tasks have run, and `beside`."""
    import shoal

    with shoal.Pool(rows_pool.WORKERS) as pool:
        shared = make_shared(shoal)
        for send in (as_argument, as_bound_argument):
            send(pool, function, shared)(1)
        gc.collect()

        def run(times: int) -> frame.Span:
            return frame.Span(seconds=times * (proportional_bytes(["self", *pool._engine.pids()]) + beside) / 1e9)

        yield run


def add_to(registry: frame.Registry) -> None:
    same = functools.partial(sharing, nothing, read_own)
    fields = {"operations": TASKS, "unit": "us", "rounds": 10, "group": "pool"}
    without = "an array of their own"
    sides = [
        ("array-bound", shared_array, read_some, as_bound_argument),
        ("array-argument", shared_array, read_some, as_argument),
        ("table-argument", shared_table, read_column, as_argument),
        ("captured", plain_array, read_some, as_bound_argument),
    ]
    for name, make_shared, function, send in sides:
        registry.add(
            f"shared/{name}",
            ours=functools.partial(sharing, make_shared, function, send),
            theirs=functools.partial(same, send),
            peer=without,
            goal=1 / 1.2,
            **fields,
        )
    registry.add(
        "shared/array-joblib",
        ours=functools.partial(sharing, shared_array, read_some, as_argument),
        theirs=by_joblib,
        peer="joblib, memmap",
        **fields,
    )
    for name, make_shared, function in (("array", shared_array, read_some), ("table", shared_table, read_column)):
        registry.add(
            f"shared/{name}-memory",
            ours=functools.partial(memory_with, make_shared, function, 0),
            theirs=functools.partial(memory_with, nothing, read_small, SIZE * 8),
            peer="a small array, and the size",
            unit="ms",
            rounds=5,
            round_seconds=0.0,
            group="pool",
            goal=1 / 1.05,
        )
