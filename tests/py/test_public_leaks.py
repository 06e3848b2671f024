# SPDX-License-Identifier: BSD-3-Clause
"""Every public name is used many times and leaves no memory behind. A name without a line here is a failure."""

import io
import os
import pickle
import sys
import tempfile
import threading
import types
import warnings

import pytest

import shoal
from leaking import leaks
from shoal import cloudpickle

# pytest keeps each warning: from 3.12 on Python warns of a fork while there are threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

FEW = 10  # rounds of what starts processes


class Plain:
    pass


def through_file(dump, load):
    with io.BytesIO() as file:
        dump([Plain(), lambda: 1], file)
        file.seek(0)
        return load(file)


def through_types(pickler, unpickler):
    return through_file(lambda obj, file: pickler(file).dump(obj), lambda file: unpickler(file).load())


def register_and_unregister(library):
    module = types.ModuleType("leaky_module")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "leaky_module", module)
        library.register_pickle_by_value(module)
        assert library.list_registry_pickle_by_value() == {"leaky_module"}
        library.unregister_pickle_by_value(module)


def raised(make):
    """An exception that goes out with a traceback, and to another process."""
    try:
        raise make()
    except Exception as error:
        return shoal.loads(shoal.dumps(error)), pickle.loads(pickle.dumps(error))


def traced(pool):
    with pool.trace(os.devnull):
        pool.map(len, ["a", "bc"])


def refused(work, expected):
    try:
        work()
    except expected:
        return
    raise AssertionError("nothing was raised")


def new_pool():
    with shoal.Pool(1) as pool:
        pool.apply(int)


def new_executor():
    with shoal.ProcessPoolExecutor(1) as executor:
        executor.submit(int).result()


def in_a_worker():
    return shoal.current_worker().id


def reusable():
    executor = shoal.get_reusable_executor(1)
    executor.submit(int).result()
    executor.shutdown()


def arrays_freed(make):
    def work():
        array = make()
        array[:] = 1
        return array.sum()

    return work


def is_coroutine():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloudpickle.is_tornado_coroutine(print)


def with_pool(use):
    """Of what a pool gives out: `use` gets the one that all rounds share."""
    use.wants_pool = True
    return use


def reported(pool):
    page = f"{tempfile.gettempdir()}/shoal-leaks-{os.getpid()}.html"  # CPython 3.12 keeps the parts of every other name
    with pool.report(page):
        pool.map(len, ["a", "bc"])
    os.unlink(page)


WORK = {
    "ArgumentDecodingError": lambda: raised(lambda: shoal.ArgumentDecodingError("x")),
    "AsyncResult": with_pool(lambda pool: pool.apply_async(len, ("ab",)).get()),
    "Attempt": lambda: pickle.loads(pickle.dumps(str(shoal.Attempt(1, ValueError("x"), 0.0, None)))),
    "CurrentWorker": with_pool(lambda pool: pool.apply(in_a_worker)),
    "Future": lambda: shoal.Future().cancel(),
    "IMapIterator": with_pool(lambda pool: [list(pool.imap(len, ["a", "bc"])), list(pool.imap_unordered(len, ["a"]))]),
    "LongTask": with_pool(lambda pool: [pool.map(len, ["a"]), str(pool.stats().longest)]),
    "MapResult": with_pool(lambda pool: pool.map_async(len, ["a", "bc"]).get()),
    "Pickler": lambda: through_types(shoal.Pickler, pickle.Unpickler),
    "PicklingError": lambda: refused(lambda: shoal.dumps([threading.Lock()]), TypeError) or raised(shoal.PicklingError),
    "Pool": new_pool,
    "PoolBroken": lambda: raised(lambda: shoal.PoolBroken("x")),
    "PoolStats": with_pool(lambda pool: [str(pool), pool.stats().as_dict()]),
    "PoolTerminated": lambda: raised(lambda: shoal.PoolTerminated("x")),
    "ProcessPoolExecutor": new_executor,
    "RemoteError": lambda: raised(lambda: shoal.RemoteError("T", "m", "t", "r")),
    "Report": with_pool(reported),
    "ResultEncodingError": lambda: raised(lambda: shoal.ResultEncodingError("e", "v")),
    "TaskStopped": lambda: refused(lambda: raised(shoal.TaskStopped), shoal.TaskStopped),
    "TaskTimeout": lambda: raised(lambda: shoal.TaskTimeout(1.5, "where")),
    "Trace": with_pool(traced),
    "Unpickler": lambda: through_types(shoal.Pickler, shoal.Unpickler),
    "UnpicklingError": lambda: refused(lambda: shoal.loads(b"\x80\x05]"), (EOFError, shoal.UnpicklingError)),
    "WorkerLost": lambda: raised(lambda: shoal.WorkerLost(1, 2, 9, None, "x")),
    "WorkerStats": with_pool(lambda pool: [pool.apply(len, ("ab",)), str(pool.stats().workers)]),
    "array": arrays_freed(lambda: shoal.array([1.0, 2.0])),
    "cloudpickle": lambda: shoal.cloudpickle.loads(shoal.cloudpickle.dumps(lambda: 1)),
    "current_worker": shoal.current_worker,
    "dump": lambda: through_file(shoal.dump, pickle.load),
    "dumps": lambda: shoal.dumps([Plain(), lambda: 1]),
    "empty": arrays_freed(lambda: shoal.empty(10)),
    "explain": lambda: str(shoal.explain([Plain(), lambda: 1])),
    "get_reusable_executor": reusable,
    "explain_stream": lambda: [str(part) for part in shoal.explain_stream(pickle.dumps([Plain()]))],
    "in_worker": shoal.in_worker,
    "list_registry_pickle_by_value": lambda: register_and_unregister(shoal),
    "load": lambda: through_file(shoal.dump, shoal.load),
    "loads": lambda: shoal.loads(shoal.dumps([Plain(), lambda: 1])),
    "register_pickle_by_value": lambda: register_and_unregister(shoal),
    "Shared": lambda: shoal.share({"a": [1, 2]}).get()["a"],
    "rng": shoal.rng,
    "share": lambda: shoal.share([1, 2]).get(),
    "unregister_pickle_by_value": lambda: register_and_unregister(shoal),
    "usable_cpus": shoal.usable_cpus,
}

CLOUDPICKLE_WORK = {
    "CloudPickler": lambda: through_types(cloudpickle.CloudPickler, pickle.Unpickler),
    "Pickler": lambda: through_types(cloudpickle.Pickler, shoal.Unpickler),
    "cloudpickle": lambda: cloudpickle.cloudpickle.dumps(Plain()),
    "dump": lambda: through_file(cloudpickle.dump, pickle.load),
    "dumps": lambda: cloudpickle.dumps([Plain(), lambda: 1], protocol=4),
    "dynamic_subimport": lambda: cloudpickle.dynamic_subimport("leaky_module", {"x": [1]}),
    "instance": lambda: cloudpickle.instance(Plain),
    "is_tornado_coroutine": is_coroutine,
    "list_registry_pickle_by_value": lambda: register_and_unregister(cloudpickle),
    "load": lambda: through_file(cloudpickle.dump, cloudpickle.load),
    "loads": lambda: cloudpickle.loads(cloudpickle.dumps([Plain(), lambda: 1])),
    "register_pickle_by_value": lambda: register_and_unregister(cloudpickle),
    "subimport": lambda: cloudpickle.subimport("os.path"),
    "unregister_pickle_by_value": lambda: register_and_unregister(cloudpickle),
}

CONSTANTS = {"__version__", "DEFAULT_PROTOCOL"}


@pytest.mark.parametrize("work, public", [(WORK, shoal.__all__), (CLOUDPICKLE_WORK, cloudpickle.__all__)])
def test_no_public_name_is_left_out(work, public):
    assert set(work) == set(public) - CONSTANTS


@pytest.fixture(scope="module")
def one_pool():
    with shoal.Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("name", sorted(WORK))
def test_a_public_name_leaves_nothing_behind(name, request):
    work, rounds = WORK[name], FEW if name in ("Pool", "ProcessPoolExecutor") else 100
    if getattr(work, "wants_pool", False):
        pool = request.getfixturevalue("one_pool")
        assert not leaks(lambda: work(pool), rounds)
    else:
        assert not leaks(work, rounds)


@pytest.mark.parametrize("name", sorted(CLOUDPICKLE_WORK))
def test_a_public_name_of_cloudpickles_leaves_nothing_behind(name):
    assert not leaks(CLOUDPICKLE_WORK[name])
