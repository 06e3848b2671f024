# SPDX-License-Identifier: BSD-3-Clause
"""Handles of shared objects where processes die, objects do not unpickle, threads race and memory runs out."""

import contextlib
import gc
import os
import signal
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT, Gate

np = pytest.importorskip("numpy")

SIZE = 1 << 20  # numbers: 8 MiB


@pytest.fixture(params=["fork", "spawn"])
def method(request):
    return request.param


@pytest.fixture
def pool(doorbell, method):
    with shoal.Pool(2, context=method) as pool:
        pool.map(abs, range(4))
        yield pool


@pytest.fixture
def used(pool):
    """used(): bytes of shared memory that are in blocks; what a test leaves of them is a failure."""
    gc.collect()

    def look():
        pool._engine.drain()
        return pool._engine.stats()["arena_used"]

    before = look()
    yield look
    gc.collect()
    wait_until(lambda: look() <= before)
    pool._engine.verify()


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def table():
    return {"numbers": np.arange(SIZE)}


def last(value):
    return int(value["numbers"][-1])


def open_and_kill_self(handles):
    assert last(handles[0].get()) == SIZE - 1
    os.kill(os.getpid(), signal.SIGKILL)


def kill_self_with(value):
    os.kill(os.getpid(), signal.SIGKILL)


class KillsWorkers:
    """Kills the worker that unpickles it, until the file is gone."""

    def __init__(self, path):
        self.path, self.numbers = path, np.arange(SIZE)

    def __setstate__(self, state):
        self.__dict__.update(state)
        if shoal.in_worker():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
                os.kill(os.getpid(), signal.SIGKILL)


class Unreadable:
    def __init__(self):
        self.numbers = np.arange(SIZE)

    def __setstate__(self, state):
        raise ValueError("the original text")


def path_of(value):
    return value.path


def get_path(handles):
    return handles[0].get().path


def make_and_kill_self():
    handle = shoal.share(table())
    handle.get()
    os.kill(os.getpid(), signal.SIGKILL)


def make():
    return shoal.share(table())


def get_all(handles):
    """Open the same handle in many threads at once: how many objects were there?"""
    found = []
    barrier = threading.Barrier(8)

    def get():
        barrier.wait()
        found.append(id(handles[0].get()))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(found), len(set(found))


def in_a_fork(handles):
    """What a child that the task forks sees of it, and the task afterwards."""
    value = handles[0].get()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        value["numbers"][-1] += 5
        os.write(write, str(last(handles[0].get())).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    seen = os.read(read, 100).decode()
    os.close(read)
    os.close(write)
    return int(seen), last(value)


# ---- workers die ----


def test_a_worker_killed_while_it_holds_one(pool, used):
    handle = shoal.share(table())
    assert pool.map(last, [handle] * 4, chunksize=1) == [SIZE - 1] * 4
    for kill in (open_and_kill_self, kill_self_with):
        with pytest.raises(shoal.WorkerLost):
            pool.apply(kill, ([handle],))
    assert pool.map(last, [handle] * 4, chunksize=1) == [SIZE - 1] * 4
    assert last(handle.get()) == SIZE - 1


def test_a_worker_killed_while_it_opens_one(pool, used, tmp_path):
    path = tmp_path / "there"
    handle = shoal.share(KillsWorkers(str(path)))
    path.touch()
    assert pool.apply(path_of, (handle,)) == str(path), "another worker gets the task: it had not begun"
    path.touch()
    handle = shoal.share(KillsWorkers(str(path)))
    with pytest.raises(shoal.WorkerLost):
        pool.apply(get_path, ([handle],))
    assert pool.apply(get_path, ([handle],)) == str(path)


def test_a_worker_killed_while_it_makes_one(pool, used):
    for _ in range(3):
        with pytest.raises(shoal.WorkerLost):
            pool.apply(make_and_kill_self)
    assert last(pool.apply(make).get()) == SIZE - 1


def test_a_worker_killed_after_it_made_one(pool, used):
    result = pool.apply_async(make)
    result.wait(TIMEOUT)
    killed = pool._engine.pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: answers_from_none_of(killed, pool))
    handle = result.get()
    assert pool.apply(last, (handle,)) == last(handle.get()) == SIZE - 1


def answers_from_none_of(pids, pool):
    try:
        return pool.apply(os.getpid) not in pids and not set(pids) & set(pool._engine.pids())
    except shoal.WorkerLost:
        return False


def last_or_kill(value, n):
    if n == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return last(value) + n


def test_a_worker_killed_in_the_midst_of_a_batch_that_shares_one(pool, used):
    handle = shoal.share(table())
    tries = [pool.starmap_async(last_or_kill, [(handle, n) for n in range(lowest, 40)], 10) for lowest in (0, 8)]
    with pytest.raises(shoal.WorkerLost):
        tries[0].get(TIMEOUT)
    assert tries[1].get(TIMEOUT) == [SIZE - 1 + n for n in range(8, 40)]
    del tries


# ---- objects that cannot be had ----


def test_an_object_that_does_not_unpickle(pool, used):
    handle = shoal.share(Unreadable())
    with pytest.raises(shoal.ArgumentDecodingError, match="ValueError: the original text"):
        pool.apply(path_of, (handle,))
    with pytest.raises(shoal.UnpicklingError, match="ValueError: the original text"):
        pool.apply(get_path, ([handle],))
    with pytest.raises(shoal.UnpicklingError, match="the original text") as caught:
        handle.get()
    assert type(caught.value.__cause__) is ValueError
    outcomes = pool.map_async(path_of, [handle] * 3, chunksize=1)
    with pytest.raises(shoal.ArgumentDecodingError):
        outcomes.get(TIMEOUT)
    assert pool.apply(abs, (-1,)) == 1


# ---- who is gone, who is still there ----


def test_its_makers_pool_is_closed(pool, used, method):
    with shoal.Pool(1, context=method) as maker:
        handle = maker.apply(make)
        assert maker.apply(last, (handle,)) == SIZE - 1
    assert pool.apply(last, (handle,)) == last(handle.get()) == SIZE - 1


def test_a_queued_task_has_it_when_its_maker_has_dropped_it(doorbell):
    gate = Gate()
    with shoal.Pool(1) as pool:
        waiting = pool.apply_async(gate.wait)
        assert os.read(gate.running[0], 1) == b"."
        result = pool.apply_async(last, (shoal.share(table()),))
        gc.collect()
        gate.open()
        assert result.get(TIMEOUT) == SIZE - 1 and waiting.get(TIMEOUT) == "go"
        wait_until(lambda: (pool._engine.drain(), pool._engine.stats()["arena_used"])[1] < SIZE)
    gate.close()


def test_one_that_is_dropped_and_sent_back_again_and_again(pool, used):
    handle = shoal.share(table())
    for _ in range(30):
        result = pool.apply_async(list, ([handle],))
        del handle
        (handle,) = result.get(TIMEOUT)
        assert pool.apply(last, (handle,)) == SIZE - 1


# ---- threads, forks, Ctrl-C ----


def test_threads_that_open_it_at_once(pool, used):
    for _ in range(5):
        handle = shoal.share(table())
        assert pool.apply(get_all, ([handle],)) == (8, 1)
        assert get_all([handle]) == (8, 1)


def test_threads_that_send_and_drop_at_once(pool, used):
    wrong = []

    def work():
        for _ in range(10):
            if pool.apply(last, (shoal.share(table()),)) != SIZE - 1:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class Named(type):
    """A class that waits where it is asked for its name: when its instance has been packed."""

    def __getattribute__(cls, name):
        if name == "__qualname__":
            started, go_on = type.__getattribute__(cls, "gates")
            started.set()
            assert go_on.wait(TIMEOUT)
        return type.__getattribute__(cls, name)


class Unpickled:
    """Waits where it is unpickled in this process, behind what came before it in the same result."""

    gates = None

    def __setstate__(self, state):
        started, go_on = Unpickled.gates
        started.set()
        assert go_on.wait(TIMEOUT)

    def __getstate__(self):
        return {"some": 1}


def array_and_more(size):
    return [np.ones(size), Unpickled()]


def make_one_that_waits(gates, pool):
    kind = Named("Kind", (dict,), {"gates": gates, "__reduce__": lambda self: (dict, (dict(self),))})
    shoal.share(kind(table()))


def receive_one_that_waits(gates, pool):
    Unpickled.gates = gates
    pool.apply(array_and_more, (SIZE,))


@pytest.mark.parametrize("have_in_hand", [make_one_that_waits, receive_one_that_waits])
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_worker_that_was_forked_while_a_thread_had_one_in_hand_does_not_keep_it(have_in_hand):
    gates = started, go_on = threading.Event(), threading.Event()
    with shoal.Pool(1) as first:
        assert first.apply(abs, (-1,)) == 1
        thread = threading.Thread(target=have_in_hand, args=(gates, first))
        thread.start()
        try:
            assert started.wait(TIMEOUT)
            second = shoal.Pool(1)
            assert second.apply(abs, (-2,)) == 2
            free = free_bytes()
        finally:
            go_on.set()
            thread.join()
        del thread
        gc.collect()
        wait_until(lambda: free_bytes() >= free + SIZE * 8)
        assert second.apply(abs, (-3,)) == 3
        second.terminate()


def free_bytes():
    """Memory of the arena that is in no block and has not gone back to the system."""
    return shoal._ext.info()["arena_cached_bytes"]


def test_the_users_own_fork(pool, used):
    handle = shoal.share(table())
    assert in_a_fork([handle]) == (SIZE + 4, SIZE - 1)
    assert pool.apply(in_a_fork, ([handle],)) == (SIZE + 4, SIZE - 1)
    assert pool.apply(last, (handle,)) == SIZE - 1


def test_a_child_keeps_it_when_the_parent_drops_it():
    handle = shoal.share(table())
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # until the parent has used the memory for something else, if it could
        os._exit(0 if last(handle.get()) == SIZE - 1 and (handle.get()["numbers"] == np.arange(SIZE)).all() else 1)
    os.close(read)
    del handle
    gc.collect()
    others = [shoal.share({"numbers": np.zeros(SIZE)}) for _ in range(4)]
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(others) == 4


def test_ctrl_c_while_it_is_opened(fresh_python):
    done = fresh_python("""
        import os, signal, shoal
        class Slow:
            def __setstate__(self, state):
                self.__dict__.update(state)
                if state["interrupts"]:
                    os.kill(os.getpid(), signal.SIGINT)
        def make(interrupts):
            slow = Slow()
            slow.interrupts = interrupts
            return shoal.share(slow)
        handle = make(True)
        try:
            handle.get()
        except KeyboardInterrupt:
            print("interrupted")
        try:
            handle.get()
        except KeyboardInterrupt:
            print("interrupted again, and not stuck")
        with shoal.Pool(2) as pool:
            print(pool.apply(lambda slow: slow.interrupts, (handle,)))  # workers do not react to it
            print(pool.apply(lambda slow: slow.interrupts, (make(False),)))
    """)
    assert done.stdout.split("\n")[:4] == ["interrupted", "interrupted again, and not stuck", "True", "False"]


# ---- memory ----


def test_no_room_is_a_memory_error_and_nothing_stays(fresh_python):
    done = fresh_python(
        """
        import shoal
        with shoal.Pool(2) as pool:
            before = pool._engine.stats()["arena_used"]
            for _ in range(3):
                try:
                    shoal.share({"bytes": bytes(256 << 20)})
                except MemoryError as error:
                    print(error)
            handles = []
            try:
                while True:
                    handles.append(shoal.share({"bytes": bytes(8 << 20)}))
            except MemoryError as error:
                print(error)
            print(len(handles), pool.apply(lambda d: len(d["bytes"]), (handles[0],)))
            handles.clear()
            print(pool.apply(lambda d: len(d["bytes"]), (shoal.share({"bytes": bytes(32 << 20)}),)))
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )
    lines = done.stdout.splitlines()
    assert all("SHOAL_ARENA_LIMIT" in line for line in lines[:4])
    assert lines[4].split() == ["7", str(8 << 20)]
    assert lines[5] == str(32 << 20)


def test_references_and_descriptors_do_not_add_up(pool, used):
    def work():
        handle = shoal.share({"numbers": np.arange(10_000)})
        assert pool.apply(len, (handle,)) == 1
        assert pool.apply(lambda handles: handles[0].get() is not None, ([handle],))
        assert handle.get()["numbers"][1] == 1

    work()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        work()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < descriptors + 10  # a thread that waits has some of its own
    assert not [obj for obj in gc.get_objects() if type(obj) is shoal.Shared]
    wait_until(lambda: sum(pool.map(count_handles, range(4), chunksize=1)) == 0)


def count_handles(i):
    return sum(type(obj) is shoal.Shared for obj in gc.get_objects())
