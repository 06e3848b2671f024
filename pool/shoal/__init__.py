# SPDX-License-Identifier: BSD-3-Clause
"""Shoal: process pools on shared memory, with the interfaces that Python programs know.

`Pool` is `multiprocessing.Pool`, `ProcessPoolExecutor` is that of `concurrent.futures`; functions may be lambdas,
closures and definitions of a script; `empty`, `array` and `share` make numpy arrays that every worker reads in place,
and `share` handles to anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal._by_value import list_registry_pickle_by_value, register_pickle_by_value, unregister_pickle_by_value
from shoal._ext import (
    Pickler,
    PicklingError,
    Unpickler,
    UnpicklingError,
    __version__,
    dump,
    dumps,
    in_worker,
    load,
    loads,
)
from shoal.arrays import array, empty, share
from shoal.explain import explain, explain_stream

if TYPE_CHECKING:
    from shoal import cloudpickle
    from shoal._cpus import usable_cpus
    from shoal._current import CurrentWorker, current_worker
    from shoal._random_streams import rng
    from shoal._report import Report
    from shoal._results import AsyncResult, IMapIterator, MapResult
    from shoal._retry import Attempt
    from shoal._reusable import get_reusable_executor
    from shoal._shared import Shared
    from shoal._stats import LongTask, PoolStats, WorkerStats
    from shoal._trace import Trace
    from shoal.errors import (
        ArgumentDecodingError,
        PoolBroken,
        PoolTerminated,
        RemoteError,
        ResultEncodingError,
        TaskStopped,
        TaskTimeout,
        WorkerLost,
    )
    from shoal.executor import ProcessPoolExecutor
    from shoal.future import Future
    from shoal.pool import Pool

__all__ = [
    "ArgumentDecodingError",
    "AsyncResult",
    "Attempt",
    "CurrentWorker",
    "Future",
    "IMapIterator",
    "LongTask",
    "MapResult",
    "Pickler",
    "PicklingError",
    "Pool",
    "PoolBroken",
    "PoolStats",
    "PoolTerminated",
    "ProcessPoolExecutor",
    "RemoteError",
    "Report",
    "ResultEncodingError",
    "Shared",
    "TaskStopped",
    "TaskTimeout",
    "Trace",
    "Unpickler",
    "UnpicklingError",
    "WorkerLost",
    "WorkerStats",
    "__version__",
    "array",
    "cloudpickle",
    "current_worker",
    "dump",
    "dumps",
    "empty",
    "explain",
    "explain_stream",
    "get_reusable_executor",
    "in_worker",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "rng",
    "share",
    "unregister_pickle_by_value",
    "usable_cpus",
]

# Where the other names are found when they are first asked for. A process that only reads or writes pickles does not
# need what they bring in: multiprocessing and concurrent.futures take longer to import than all of Shoal.
_LATER = {
    "ArgumentDecodingError": "shoal.errors",
    "AsyncResult": "shoal.pool",
    "Attempt": "shoal._retry",
    "CurrentWorker": "shoal._current",
    "Future": "shoal.future",
    "IMapIterator": "shoal.pool",
    "LongTask": "shoal._stats",
    "MapResult": "shoal.pool",
    "Pool": "shoal.pool",
    "PoolBroken": "shoal.errors",
    "PoolStats": "shoal._stats",
    "PoolTerminated": "shoal.errors",
    "ProcessPoolExecutor": "shoal.executor",
    "RemoteError": "shoal.errors",
    "Report": "shoal._report",
    "ResultEncodingError": "shoal.errors",
    "Shared": "shoal._shared",
    "TaskStopped": "shoal.errors",
    "TaskTimeout": "shoal.errors",
    "Trace": "shoal._trace",
    "WorkerLost": "shoal.errors",
    "WorkerStats": "shoal._stats",
    "current_worker": "shoal._current",
    "get_reusable_executor": "shoal._reusable",
    "rng": "shoal._random_streams",
    "usable_cpus": "shoal._cpus",
}
_MODULES_LATER = {"cloudpickle", "errors", "executor", "future", "pool"}


def __getattr__(name: str) -> object:
    import importlib

    if name in _MODULES_LATER:
        return importlib.import_module(f"shoal.{name}")  # which makes it an attribute
    if name not in _LATER:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
