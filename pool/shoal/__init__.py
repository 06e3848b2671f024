# SPDX-License-Identifier: BSD-3-Clause
"""Shoal: process pools on shared memory, with the interfaces that Python programs know.

`Pool` is `multiprocessing.Pool`, `ProcessPoolExecutor` is that of `concurrent.futures`; functions may be lambdas,
closures and definitions of a script; `empty`, `array` and `share` make numpy arrays that every worker reads in place.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

from shoal import _ext, cloudpickle
from shoal._by_value import list_registry_pickle_by_value, register_pickle_by_value, unregister_pickle_by_value
from shoal._cpus import usable_cpus
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
from shoal.errors import (
    ArgumentDecodingError,
    PoolBroken,
    PoolTerminated,
    RemoteError,
    ResultEncodingError,
    WorkerLost,
    pool_broken,
    task_error,
)
from shoal.executor import ProcessPoolExecutor
from shoal.explain import explain, explain_stream
from shoal.future import Future
from shoal.pool import AsyncResult, IMapIterator, MapResult, Pool

__all__ = [
    "ArgumentDecodingError",
    "AsyncResult",
    "Future",
    "IMapIterator",
    "MapResult",
    "Pickler",
    "PicklingError",
    "Pool",
    "PoolBroken",
    "PoolTerminated",
    "ProcessPoolExecutor",
    "RemoteError",
    "ResultEncodingError",
    "Unpickler",
    "UnpicklingError",
    "WorkerLost",
    "__version__",
    "array",
    "cloudpickle",
    "dump",
    "dumps",
    "empty",
    "explain",
    "explain_stream",
    "in_worker",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "share",
    "unregister_pickle_by_value",
    "usable_cpus",
]

_ext.configure(
    worker_lost=WorkerLost,
    task_error=task_error,
    pool_broken=pool_broken,
    forking_reducers=ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
)

del pool_broken, task_error, ForkingPickler
