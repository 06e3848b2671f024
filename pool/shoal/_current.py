# SPDX-License-Identifier: BSD-3-Clause
"""Which worker this process is, for the tasks that run in it."""

from __future__ import annotations

from typing import Any, NamedTuple

from shoal import _ext


class CurrentWorker(NamedTuple):
    """A worker as its own tasks see it: what `shoal.current_worker` returns.

    Attributes
    ----------
    id : int
        From 0 on. The replacement of a worker has the id of the one whose place it takes.
    pool : str
        The name of the pool: see the `name` of `Pool` and `ProcessPoolExecutor`.
    state : dict
        The worker's own, empty when it starts: what one task puts there the next one that runs here finds.
    """

    id: int
    pool: str
    state: dict[Any, Any]


class _Here:
    """This process, if it is a worker."""

    worker: CurrentWorker | None = None


def become(worker: CurrentWorker) -> None:
    """Have this process be that worker."""
    _Here.worker = worker


def current_worker() -> CurrentWorker | None:
    """Return which worker runs this; None in a process that is none, also in one that a task has forked."""
    return _Here.worker if _ext.in_worker() else None
