# SPDX-License-Identifier: BSD-3-Clause
"""Which worker this process is, for the tasks that run in it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from shoal import _ext

Step = tuple[Callable[..., object], tuple[Any, ...]]  # what a process does to become a worker: see _settle.py


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


_here = SimpleNamespace(worker=None, cpus=0)  # this process, if it is a worker


def becoming(worker: CurrentWorker, cpus: int) -> Step:
    """Return what has a process be that worker, which may keep so many CPUs busy."""
    return vars(_here).update, ({"worker": worker, "cpus": cpus},)


def cpus_here() -> int | None:
    """Return how many CPUs a worker, or a process that it has forked, may keep busy; None in others."""
    return _here.cpus or None


def current_worker() -> CurrentWorker | None:
    """Return which worker runs this; None in a process that is none, also in one that a task has forked."""
    return _here.worker if _ext.in_worker() else None
