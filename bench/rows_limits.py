# SPDX-License-Identifier: BSD-3-Clause
"""Rows about ending a task: from its timeout, or from cancel(), until its worker has served the next one."""

import contextlib
import time
from collections.abc import Iterator

import frame

TIMEOUT = 0.02


@contextlib.contextmanager
def timed_out() -> Iterator[frame.Rounds]:
    import shoal

    with shoal.Pool(1) as pool:

        def run(count: int) -> frame.Span:
            span = frame.Span()
            for _ in range(count):
                begin = time.perf_counter()
                call = pool.apply_async(time.sleep, (60,), timeout=TIMEOUT)
                pool.apply(int)
                span.seconds += time.perf_counter() - begin - TIMEOUT
                assert call.ready() and not call.successful()
            return span

        yield run


@contextlib.contextmanager
def cancelled() -> Iterator[frame.Rounds]:
    import shoal

    with shoal.Pool(1) as pool:

        def run(count: int) -> frame.Span:
            span = frame.Span()
            for _ in range(count):
                call = pool.apply_async(time.sleep, (60,))
                while not call.running():
                    pass
                with span:
                    call.cancel()
                    pool.apply(int)
            return span

        yield run


def add_to(registry: frame.Registry) -> None:
    for name, work in {"timeout": timed_out, "cancel": cancelled}.items():
        registry.add(
            f"stop/{name}-to-next-task",
            ours=work,
            group="pool",
            unit="ms",
            rounds=5,
            round_seconds=0.0,
            limit=0.02,
        )
