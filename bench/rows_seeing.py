# SPDX-License-Identifier: BSD-3-Clause
"""What it costs to be seen: tiny tasks with the meters that are always on, against the same without them; and while a
trace runs, against the same without one.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator

import frame
import machine
import rows_pool

WITHOUT = "the same with SHOAL_METERS=off"
STATS_GOAL = 0.98  # at most 2 % more
TRACE_GOAL = 0.87  # at most 15 % more


@contextlib.contextmanager
def unmetered(maker: Callable) -> Iterator[object]:
    os.environ["SHOAL_METERS"] = "off"
    with maker() as pool:
        yield pool


@contextlib.contextmanager
def traced(maker: Callable, work: Callable[..., frame.Rounds]) -> Iterator[frame.Rounds]:
    """A trace for each round, which is not written: that is after the work."""
    with maker() as pool, tempfile.TemporaryDirectory() as directory:
        inner = work(pool)

        def run(count: int) -> frame.Span:
            trace = pool.trace(f"{directory}/trace.json", limit=200_000)
            trace.start()
            span = frame.Span(tree=machine.descendants(os.getpid()))
            with span:
                inner(count)
            trace._engine.trace_stop()
            return span

        yield run


# name, what makes the pool, what is done with it, more fields
TINY = [
    ("apply", rows_pool.shoal_pool, rows_pool.apply_calls, {"calls": 500, "rounds": 40, "placement": "two cores"}),
    ("submits", rows_pool.shoal_executor, rows_pool.many_submits, {"calls": 20_000, "rounds": 20}),
    ("imap-unordered", rows_pool.shoal_pool, rows_pool.imap_tasks, {"calls": 5_000, "rounds": 40}),
    (
        "map-ints",
        rows_pool.shoal_pool,
        functools.partial(rows_pool.map_of_ints, count=1_000_000),
        {"operations": 1_000_000, "unit": "ns", "rounds": 20},
    ),
]


def add_to(registry: frame.Registry) -> None:
    for name, maker, work, fields in TINY:
        registry.add(
            f"stats/{name}",
            ours=functools.partial(rows_pool.using, maker, work),
            theirs=functools.partial(rows_pool.using, functools.partial(unmetered, maker), work),
            peer=WITHOUT,
            group="pool",
            goal=STATS_GOAL,
            **fields,
        )
    for name, maker, work, fields in TINY:
        registry.add(
            f"trace/{name}",
            ours=functools.partial(traced, maker, work),
            theirs=functools.partial(rows_pool.using, maker, work),
            peer="the same without a trace",
            group="pool",
            goal=TRACE_GOAL,
            **fields,
        )
