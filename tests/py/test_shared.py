# SPDX-License-Identifier: BSD-3-Clause
"""What handles of `shoal.share` promise: one object for each process, small on the way, gone with the last holder."""

import collections
import copy
import functools
import gc
import os
import pickle
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT

np = pytest.importorskip("numpy")


@pytest.fixture(params=["fork", "spawn", "forkserver"], scope="module")
def pool(request):
    with shoal.Pool(2, context=request.param) as pool:
        yield pool


@pytest.fixture
def forked():
    with shoal.Pool(2) as pool:
        yield pool


def used():
    """Bytes of the arena that are in blocks."""
    return shoal._ext.info()["arena_used_bytes"]


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def table():
    return {"numbers": np.arange(100_000), "names": ["a", "b"], "nested": {"x": (1, 2.5)}}


# ---- tasks; at module level, since they are sent by name under each start method ----


def kind(value):
    return type(value).__name__


def kind_inside(values):
    return kind(values[0])


def total(value, extra=0, *, more=0):
    return int(value["numbers"].sum()) + extra + more


def identity(handles):
    handle = handles[0]
    return os.getpid(), id(handle.get()), id(handle.get())


def write_and_read(value):
    value["numbers"][0] += 1
    return os.getpid(), int(value["numbers"][0])


def echo(value):
    return value


class Model:
    """By reference; counts how often it is unpickled in this process."""

    unpickled = 0

    def __init__(self, weights):
        self.weights = weights

    def __setstate__(self, state):
        Model.unpickled += 1
        self.__dict__.update(state)

    def predict(self, x):
        return self.weights * x


def count_unpickled(model, i):
    return os.getpid(), Model.unpickled


# ---- what it is ----


def test_arrays_stay_arrays_and_all_else_gets_a_handle():
    assert type(shoal.share(np.arange(3))) is np.ndarray
    for obj in ({"a": 1}, [1, 2], b"bytes", "text", None, 3, Model(2), np.ma.masked_array([1, 2], [0, 1])):
        assert type(shoal.share(obj)) is shoal.Shared
    assert type(shoal.share([1, 2], writable=True)) is np.ndarray


@pytest.mark.parametrize("obj", [{"a": [1, 2]}, [1] * 100_000, b"b" * 100_000, "text", None, 3, 1 << 70, (), {1, 2}])
def test_get_gives_an_equal_object_of_the_same_type(obj):
    value = shoal.share(obj).get()
    assert value == obj and type(value) is type(obj)


def test_it_is_a_snapshot():
    source = table()
    handle = shoal.share(source)
    source["names"].append("c")
    source["numbers"][0] = -1
    assert handle.get()["names"] == ["a", "b"] and handle.get()["numbers"][0] == 0
    assert handle.get() is handle.get() is not source


def test_sharing_a_handle_gives_the_handle():
    handle = shoal.share({})
    assert shoal.share(handle) is handle


def test_a_handle_cannot_be_made_by_its_type():
    with pytest.raises(TypeError, match=r"shoal\.share"):
        shoal.Shared()


def test_what_cannot_be_pickled_is_refused_with_its_place():
    with pytest.raises(Exception, match="lock"):
        shoal.share({"fine": 1, "culprit": threading.Lock()})


def test_its_text_says_what_it_is():
    assert repr(shoal.share({"a": b"x" * 5000})) == "<shoal.Shared dict, 4 KiB>"


def test_functions_and_classes_by_value_can_be_shared(forked):
    offset = 10
    handle = shoal.share({"f": lambda x: x + offset})
    assert handle.get()["f"](1) == 11
    assert forked.apply(lambda d: d["f"](2), (handle,)) == 12


def test_copies_of_a_handle_are_the_handle():
    handle = shoal.share({})
    assert copy.copy(handle) is handle and copy.deepcopy([handle])[0] is handle


# ---- on the way ----


def test_it_is_a_few_bytes_whatever_its_object(pool):
    small, large = shoal.share([0]), shoal.share(bytes(10_000_000))
    assert len(pickle.dumps(large)) < 200 and len(shoal.dumps(large)) < 200
    assert len(pickle.dumps(large)) - len(pickle.dumps(small)) < 20
    before = used()
    assert pool.map(kind, [large] * 100) == ["bytes"] * 100
    assert used() - before < 1_000_000


def test_as_an_argument_it_arrives_as_the_object(pool):
    handle = shoal.share(table())
    expected = total(table())
    assert pool.apply(total, (handle,)) == expected
    assert pool.apply(total, (), {"value": handle, "extra": 1}) == expected + 1
    assert pool.map(total, [handle, handle], chunksize=1) == [expected] * 2
    assert pool.starmap(total, [(handle, i) for i in range(3)]) == [expected + i for i in range(3)]
    assert list(pool.imap(total, [handle] * 3)) == [expected] * 3
    assert pool.map(functools.partial(total, handle), [5, 6]) == [expected + 5, expected + 6]
    assert pool.map(functools.partial(total, more=1, value=handle), []) == []
    assert pool.apply(functools.partial(total, extra=1, value=handle), (), {"more": 2}) == expected + 3
    assert pool.map(shoal.share(kind), [1]) == ["int"]


def all_of(*arguments):
    return [len(argument) if isinstance(argument, dict) else argument for argument in arguments]


@pytest.mark.parametrize("chunksize", [1, 4, 100])
def test_where_handles_come_first_and_where_they_change(pool, chunksize):
    one, two = shoal.share({"a": 1}), shoal.share({"a": 1, "b": 2})
    for rows in (
        [(one, n) for n in range(40)],
        [(one, two, n) for n in range(40)],
        [(one if n % 7 else two, n) for n in range(40)],
        [(one, two) if n % 5 else (one,) for n in range(40)],
        [(one, two if n % 5 else one, n) for n in range(40)],
        [(n, one) for n in range(40)],
        [(one, n) if n % 3 else [one, n] for n in range(40)],
        [(one,)] * 40,
    ):
        opened = [[len(part.get()) if type(part) is shoal.Shared else part for part in row] for row in rows]
        assert pool.starmap(all_of, rows, chunksize) == opened
        assert pool.starmap(functools.partial(all_of, "bound"), rows, chunksize) == [["bound", *row] for row in opened]


def test_in_containers_and_closures_it_arrives_as_the_handle(pool):
    handle = shoal.share(table())
    assert pool.apply(kind_inside, ([handle],)) == "Shared"
    assert pool.map(kind_inside, [[handle], (handle,)]) == ["Shared"] * 2
    assert pool.map(lambda i: handle.get()["numbers"][i], [3, 4]) == [3, 4]
    assert pool.apply(lambda d: d["inside"]["deep"].get()["names"], ({"inside": {"deep": handle}},)) == ["a", "b"]


def test_an_executor_opens_it_too():
    handle = shoal.share(table())
    with shoal.ProcessPoolExecutor(2) as executor:
        assert executor.submit(total, handle, extra=2).result() == total(table()) + 2
        assert list(executor.map(total, [handle] * 3, range(3))) == [total(table()) + i for i in range(3)]


def test_each_process_unpickles_it_once(pool):
    handle = shoal.share(Model(3))
    seen = dict(pool.starmap(count_unpickled, [(handle, i) for i in range(40)], chunksize=1))
    again = dict(pool.starmap(count_unpickled, [(handle, i) for i in range(40)], chunksize=1))
    for pid, count in again.items():
        assert count == seen.get(pid, count)
    assert handle.get().predict(2) == 6


def test_each_worker_has_the_same_object_every_time(pool):
    handle = shoal.share(table())
    places = collections.defaultdict(set)
    for pid, *ids in pool.map(identity, [[handle]] * 20, chunksize=1):
        places[pid].update(ids)
    assert all(len(ids) == 1 for ids in places.values())


def test_what_a_task_writes_stays_in_its_worker(pool):
    handle = shoal.share(table())
    seen = pool.map(write_and_read, [handle] * 20, chunksize=1)
    counts = collections.Counter(pid for pid, _ in seen)
    for pid, count in counts.items():
        assert [value for other, value in seen if other == pid] == list(range(1, count + 1))
    assert handle.get()["numbers"][0] == 0


def test_readonly_buffers_cannot_be_written(pool):
    handle = shoal.share(table(), readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        pool.apply(write_and_read, (handle,))
    with pytest.raises(ValueError, match="read-only"):
        handle.get()["numbers"][0] = 1
    assert pool.apply(total, (handle,)) == total(table())


def test_a_result_that_is_part_of_it_can_be_written(pool):
    handle = shoal.share(table())
    for _ in range(2):
        array = pool.apply(echo, (handle,))["numbers"]
        array[0] = 7
        assert array[1] == 1
    assert handle.get()["numbers"][0] == 0


def test_large_buffers_are_one_memory_for_all(forked):
    before = used()
    handle = shoal.share({"array": np.ones(4 << 20)})
    assert used() - before < (33 << 20)
    assert forked.map(lambda h: int(h["array"].sum()), [handle] * 8, chunksize=1) == [4 << 20] * 8
    assert used() - before < (33 << 20)


def test_frames_can_be_shared(pool):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(50_000.0), "b": ["x", "y"] * 25_000})
    handle = shoal.share(frame)
    pandas.testing.assert_frame_equal(pool.apply(echo, (handle,)), frame)
    pandas.testing.assert_frame_equal(handle.get(), frame)


def test_arrow_tables_can_be_shared(pool):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": np.arange(50_000)})
    assert pool.apply(echo, (shoal.share(table),)).equals(table)


# ---- across pools and processes ----


def test_it_comes_back_as_the_same_handle(pool):
    handle = shoal.share(table())
    assert pool.apply(echo, ([handle],))[0] is handle


def make_in_worker(size):
    return shoal.share({"made": list(range(size)), "by": os.getpid()})


@pytest.mark.parametrize("size", [10, 100_000])
def test_one_made_in_a_worker_outlives_it(pool, size):
    handle = pool.apply(make_in_worker, (size,))
    with shoal.Pool(1) as other:
        assert other.apply(len, (handle,)) == 2
    assert handle.get()["made"] == list(range(size)) and handle.get()["by"] in pool._engine.pids()
    assert pool.map(len, [handle] * 4) == [2] * 4


def nest(handles, method):
    handle = handles[0]
    with shoal.Pool(2, context=method) as inner:
        return (
            inner.starmap(total, [(handle, i) for i in range(4)]),
            inner.map(lambda i: int(handle.get()["numbers"][i]), range(4)),
            inner.apply(kind_inside, ([handle],)),
        )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_goes_on_into_pools_of_workers(pool, method):
    handle = shoal.share(table())
    expected = total(table())
    assert pool.apply(nest, ([handle], method)) == ([expected + i for i in range(4)], [0, 1, 2, 3], "Shared")


def test_one_made_before_the_pool_is_used_by_its_name():
    handle = shoal.share(table())
    with shoal.Pool(2) as pool:
        assert pool.map(lambda i: handle.get()["numbers"][i], [1, 2]) == [1, 2]


def set_up(handle):
    global given
    given = handle


def from_set_up(i):
    return int(given.get()["numbers"][i])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_initializer_may_be_given_one(method):
    with shoal.Pool(2, set_up, (shoal.share(table()),), context=method) as pool:
        gc.collect()
        assert pool.map(from_set_up, range(5)) == list(range(5))


def test_handles_within_shared_objects(pool):
    inner = shoal.share(table())
    outer = shoal.share({"inner": inner, "twice": [inner, inner]})
    del inner
    gc.collect()
    assert pool.apply(lambda o: o["twice"][1].get()["names"], (outer,)) == ["a", "b"]
    assert outer.get()["inner"] is outer.get()["twice"][0]


def test_arena_arrays_within_shared_objects(pool):
    handle = shoal.share({"array": shoal.share(np.arange(100_000))})
    assert pool.apply(lambda o: int(o["array"][-1]), (handle,)) == 99_999


def test_another_process_is_told_why_it_cannot_open_it(fresh_python, tmp_path):
    path = tmp_path / "handle.pickle"
    path.write_bytes(pickle.dumps(shoal.share({"a": 1})))
    done = fresh_python(
        """
        import pathlib, pickle, sys
        try:
            pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
        except Exception as error:
            print(type(error).__name__, error)
        """,
        str(path),
    )
    assert done.stdout.startswith("UnpicklingError a handle of shoal.share() (dict, ")
    assert "handle.get()" in done.stdout


def test_pickled_by_other_means_it_opens_where_it_is_known(pool):
    handle = shoal.share({"a": 1})
    assert pickle.loads(pickle.dumps(handle)) is handle
    assert pool.apply(lambda handles, data: pickle.loads(data) is handles[0], ([handle], pickle.dumps(handle)))


# ---- its end ----


def test_the_last_reference_frees_memory_and_workers(pool):
    gc.collect()
    before = used()
    handle = shoal.share({"array": np.ones(1 << 20)})
    pool.map(echo, [[handle]] * 4, chunksize=1)
    assert pool.map(lambda d: len(d["array"]), [handle] * 4, chunksize=1) == [1 << 20] * 4
    assert used() >= 8 << 20
    del handle
    gc.collect()
    wait_until(lambda: used() <= before)


def test_a_task_has_what_it_was_sent(pool):
    before = used()
    results = [pool.apply_async(total, (shoal.share(table()), i)) for i in range(20)]
    assert [result.get(TIMEOUT) for result in results] == [total(table()) + i for i in range(20)]
    del results
    gc.collect()
    wait_until(lambda: used() <= before)


def test_a_result_holds_what_its_maker_has_dropped(pool):
    handle = shoal.share(table())
    result = pool.apply_async(echo, ([handle],))
    result.wait(TIMEOUT)
    del handle
    gc.collect()
    (handle,) = result.get()
    assert handle.get()["names"] == ["a", "b"]
    assert pool.apply(total, (handle,)) == total(table())


def test_a_cycle_that_holds_it_is_collected(pool):
    gc.collect()
    before = used()
    cycle = [shoal.share({"array": np.ones(1 << 20)})]
    cycle.append(cycle)
    cycle[0].get()["cycle"] = cycle
    assert pool.apply(lambda d: d.setdefault("self", d) is d, (cycle[0],)), "and the worker has one, too"
    del cycle
    gc.collect()
    wait_until(lambda: used() <= before)


def test_it_outlives_the_pools_that_it_was_used_in():
    handle = shoal.share(table())
    for _ in range(3):
        with shoal.Pool(1) as pool:
            assert pool.apply(total, (handle,)) == total(table())
    assert handle.get()["names"] == ["a", "b"]


def test_what_a_worker_inherited_is_let_go_when_its_maker_drops_it():
    gc.collect()
    before = used()
    set_up(shoal.share({"numbers": np.arange(1 << 20)}))
    with shoal.Pool(2) as pool:
        assert pool.map(from_set_up, range(4), chunksize=1) == [0, 1, 2, 3]
        pool_bytes = used()
        set_up(None)
        gc.collect()
        wait_until(lambda: used() <= pool_bytes - (8 << 20))
        with pytest.raises(ReferenceError, match="inherited by a fork"):
            pool.apply(from_set_up, (1,))
        assert pool.apply(os.getpid) in pool._engine.pids()
    assert used() <= before


def test_many_of_them_leave_nothing(pool):
    gc.collect()
    before = used()
    for i in range(300):
        assert pool.apply(len, (shoal.share({"i": i, "bytes": bytes(50_000)}),)) == 2
    gc.collect()
    wait_until(lambda: used() <= before)
    assert all(count == 0 for count in pool.map(kept_handles, range(4)))


def kept_handles(i):
    from shoal import _shared

    return len(_shared._kept) + len(_shared._registry)
