# SPDX-License-Identifier: BSD-3-Clause
"""What `ProcessPoolExecutor.map` returns: results until a deadline, in order."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from shoal import _ext
from shoal.errors import TaskTimeout

if TYPE_CHECKING:
    from shoal._lifetime import Lifetime
    from shoal._retry_map import RetriedIterator


def _take(take: Callable[[float | None], Any], deadline: float | None) -> Any:
    """`take(seconds left)`; who waits for an executor is told of the deadline by concurrent.futures' own error."""
    try:
        return take(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except multiprocessing.TimeoutError as error:
        if isinstance(error, TaskTimeout):
            raise
        raise concurrent.futures.TimeoutError from None


def each_until(results: RetriedIterator, deadline: float | None) -> Iterator[Any]:
    try:
        while True:
            try:
                yield _take(results.next, deadline)
            except StopIteration:
                return
    finally:
        results.cancel()


def check_sizes(chunksize: int, buffersize: int | None) -> None:
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def results_until(group: _ext.Group, lifetime: Lifetime, deadline: float | None) -> Iterator[Any]:
    try:
        while True:
            try:
                value = [_take(group.next, deadline)]
            except StopIteration:
                return
            yield value.pop()  # the one who gets it is the only one who holds it
    finally:
        # Closed early, or an element raised: nobody takes the rest.
        lifetime.stop_feeding(group)
