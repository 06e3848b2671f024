# SPDX-License-Identifier: BSD-3-Clause
"""trace(): one life for each task, in order, whoever dies, and a file that is whole or not there."""

import collections
import functools
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

import shoal
from resizing import settle
from tasks import TIMEOUT, Gate, fail_on_three, kill_self, square

METHODS = ["fork", "spawn", "forkserver"]
ORDER = ("submitted", "written", "claimed", "started", "ended", "handed_in", "read")


def nap(seconds):
    time.sleep(seconds)
    return seconds


def meet(place, count):
    """Return when so many workers are here at the same time."""
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < count:
        time.sleep(0.001)


class Read:
    """A trace, checked: what every one has to be, whatever was done."""

    def __init__(self, path):
        with open(path) as file:
            self.whole = json.load(file)
        self.other = self.whole["otherData"]
        self.events = self.whole["traceEvents"]
        for event in self.events:
            self.check_event(event)
        self.tasks = self.of("task")
        self.check_arrows()
        for event in self.tasks:
            self.check_times(event)
        numbers = [event["args"]["task"] for event in self.of("send")]
        assert len(numbers) == len(set(numbers)), "one life for each task"
        assert {event["args"]["task"] for event in self.tasks} <= set(numbers)

    def of(self, cat, phase="X"):
        return [event for event in self.events if event.get("cat") == cat and event["ph"] == phase]

    def check_event(self, event):
        assert {"name", "ph", "pid", "tid"} <= event.keys() and event["ph"] in ("X", "M", "s", "f")
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name")
            return
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0 and isinstance(event["args"], dict)
        else:
            assert isinstance(event["id"], int) and event["cat"] == "flow"

    def check_arrows(self):
        """Each begins and ends once, each end inside of a span of that thread, and not before it began."""
        begins, ends = ({event["id"]: event for event in self.of("flow", phase)} for phase in "sf")
        assert begins.keys() == ends.keys()
        assert len(begins) == len(self.of("flow", "s")) and len(ends) == len(self.of("flow", "f"))
        spans = collections.defaultdict(list)
        for event in self.events:
            if event["ph"] == "X":
                spans[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"] + 0.002))
        for number, begin in begins.items():
            end = ends[number]
            assert begin["ts"] <= end["ts"] and end["bp"] == "e" and begin["name"] == end["name"]
            for event in (begin, end):
                assert any(a <= event["ts"] <= b for a, b in spans[event["pid"], event["tid"]])

    def check_times(self, event):
        args = event["args"]
        times = [args[name] for name in ORDER if args[name] is not None]
        assert times == sorted(times), args
        if args["outcome"] in ("done", "raised"):
            assert len(times) == len(ORDER)

    def outcomes(self):
        return collections.Counter(event["args"]["outcome"] for event in self.tasks)

    def named(self, name):
        return [event for event in self.tasks if event["name"] == name]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.json"


@pytest.mark.parametrize("method", METHODS)
def test_every_task_has_one_life_in_order(method, path):
    with shoal.Pool(2, context=method) as pool:
        pool.apply(square, (1,))
        with pool.trace(path) as trace:
            for x in range(50):
                assert pool.apply(square, (x,)) == x * x
            calls = [pool.apply_async(square, (x,)) for x in range(50)]
            assert [call.get(TIMEOUT) for call in calls] == [x * x for x in range(50)]
            with pytest.raises(ValueError):
                pool.apply(fail_on_three, (3,))
        pool.apply(square, (1,))
    read = Read(path)
    assert read.outcomes() == {"done": 100, "raised": 1} and trace.dropped == 0
    assert len(read.of("send")) == len(read.of("receive")) == 101
    assert len(read.of("flow", "s")) == 202
    assert len(read.named("square")) == 100 and len(read.named("fail_on_three")) == 1


def test_chunks_and_their_elements_are_told(path):
    with shoal.Pool(2) as pool, pool.trace(path):
        pool.map(square, range(5000), chunksize=1000)
        pool.map(nap, [0.002] * 6, chunksize=3)
        list(pool.imap_unordered(square, range(20)))
    read = Read(path)
    elements = collections.Counter()
    for event in read.of("element"):
        elements[event["args"]["task"]] += event["args"]["count"]
    chunks = [event for event in read.tasks if event["args"]["elements"] > 1]
    assert sorted(event["args"]["elements"] for event in chunks) == [3, 3, *[1000] * 5]
    for event in chunks:
        assert elements[event["args"]["task"]] == event["args"]["elements"]
    naps = [event for event in read.of("element") if event["name"].startswith("nap[")]
    assert {event["name"] for event in naps} == {f"nap[{index}]" for index in range(6)}
    assert all(event["dur"] >= 1000 for event in naps)
    assert len(read.named("square")) == 25


def test_arrays_count_with_their_bytes(path):
    np = pytest.importorskip("numpy")
    with shoal.Pool(1) as pool, pool.trace(path):
        pool.apply(np.negative, (np.ones(1 << 17),))
    (event,) = Read(path).tasks
    assert event["args"]["bytes_in"] >= 8 << 17 and event["args"]["bytes_out"] >= 8 << 17


def test_a_worker_that_dies_loses_nothing_that_was_recorded(path):
    with shoal.Pool(1) as pool, pool.trace(path):
        for x in range(10):
            pool.apply(square, (x,))
        with pytest.raises(shoal.WorkerLost):
            pool.apply(kill_self)
        for x in range(10):
            pool.apply(square, (x,))
    read = Read(path)
    assert read.outcomes() == {"done": 20, "lost": 1}
    assert len({event["pid"] for event in read.tasks}) == 2
    (lost,) = read.named("kill_self")
    assert lost["args"]["ended"] is None and lost["args"]["read"] is not None


def test_a_chunk_that_goes_on_in_another_worker_is_one_life_with_two_attempts(path):
    def element(x):
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with shoal.Pool(1) as pool, pool.trace(path):
        with pytest.raises(shoal.WorkerLost):
            pool.map(element, range(8), chunksize=8)
    read = Read(path)
    assert [event["args"]["attempt"] for event in read.tasks] == [0, 1]
    assert [event["args"]["first"] for event in read.tasks] == [0, 4]
    assert len(read.of("send")) == 1


@pytest.mark.parametrize("method", METHODS)
def test_workers_that_come_by_resize_are_in_it_like_all_others(method, path):
    """Also in a later trace, whether they came before it or in it; and where one takes the place of one that went."""
    with shoal.Pool(1, context=method, resizable_to=6) as pool:
        for size in (3, 4):
            place = path.parent / str(size)
            place.mkdir()
            with pool.trace(path) as trace:
                pool.apply(square, (1,))
                pool.resize(size)
                calls = [pool.apply_async(meet, (place, size)) for _ in range(size)]
                for call in calls:
                    call.get(TIMEOUT)
            read = Read(path)
            assert read.outcomes() == {"done": size + 1} and trace.dropped == 0
            assert {event["args"]["worker"] for event in read.named("meet")} == set(range(size))
            assert read.other["workers"] == size
            pool.resize(1)
            settle(pool, 1)


def test_workers_killed_at_any_moment_leave_a_trace_that_can_be_read(path):
    with shoal.Pool(2) as pool, pool.trace(path):
        for _ in range(5):
            calls = [pool.apply_async(square, (x,)) for x in range(200)]
            for pid in [pid for pid in pool._engine.pids() if pid][:1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            for call in calls:
                call.wait(TIMEOUT)
    read = Read(path)
    assert len(read.of("send")) == len(read.of("receive")) == 1000
    assert read.outcomes()["done"] >= 990


def test_what_runs_when_it_ends_is_unfinished(path):
    gate = Gate()
    with shoal.Pool(1) as pool:
        with pool.trace(path):
            call = pool.apply_async(gate.wait)
            assert os.read(gate.running[0], 1) == b"."
        gate.open()
        call.get(TIMEOUT)
    gate.close()
    read = Read(path)
    assert read.outcomes() == {"unfinished": 1} and read.tasks[0]["args"]["ended"] is None


def named(index):
    def function(x):
        return x

    function.__qualname__ = f"f{index}"
    return function


def test_each_task_has_the_name_of_its_function_however_many_there_are(path):
    functions = [named(index) for index in range(30)]
    with shoal.Pool(2) as pool, pool.trace(path):
        for index in [*range(30), *range(29, -1, -1), 0, 1, 0, 1]:
            assert pool.apply(functions[index], (index,)) == index
        assert pool.apply(functools.partial(functions[7], 7)) == 7
        assert pool.apply(list, ((1, 2),)) == [1, 2]
        assert pool.apply(abs, (-1,)) == 1
    names = collections.Counter(event["name"] for event in Read(path).tasks)
    expected = {f"f{index}": 2 for index in range(30)} | {"f0": 4, "f1": 4, "f7": 3, "list": 1, "abs": 1}
    assert names == expected


def test_many_small_tasks_all_have_their_records(path):
    count = 10_000  # twice what the ring holds
    with shoal.Pool(1) as pool, pool.trace(path) as trace:
        assert sum(pool.imap_unordered(abs, range(count))) == sum(range(count))
    tasks = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("cat") == "task"]
    assert trace.dropped == 0 and len(tasks) == len({event["args"]["task"] for event in tasks}) == count
    assert {(event["name"], event["args"]["outcome"]) for event in tasks} == {("abs", "done")}
    assert all(
        event["args"][before] <= event["args"][after] for event in tasks for before, after in itertools.pairwise(ORDER)
    )


class Slow:
    """Takes its time to be pickled, or to be unpickled."""

    def __init__(self, pickle, unpickle):
        self.pickle = pickle
        self.unpickle = unpickle

    def __reduce__(self):
        time.sleep(self.pickle)
        return slow_again, (self.unpickle,)


def slow_again(unpickle):
    time.sleep(unpickle)
    return unpickle


LONG = 2.5  # so many ticks do not go into 32 bits


def be_slow(pickle):
    return Slow(pickle, 0)


def length(phase):
    return phase["dur"] / 1e6


def test_long_phases_are_told_in_full(path):
    with shoal.Pool(3) as pool, pool.trace(path):
        slow = [
            pool.apply_async(nap, (LONG,)),
            pool.apply_async(be_slow, (LONG,)),
            pool.apply_async(abs, (Slow(0, LONG),)),
        ]
        assert [type(one.get(TIMEOUT)) for one in slow] == [float, int, float]
    read = Read(path)
    names = {event["args"]["task"]: event["name"] for event in read.tasks}
    long = {(names[phase["args"]["task"]], phase["name"]) for phase in read.of("phase") if length(phase) >= LONG}
    assert long == {("nap", "run"), ("be_slow", "pickle"), ("abs", "unpickle")}


def test_what_a_worker_recorded_is_whole_wherever_it_died(path):
    with shoal.Pool(1) as pool, pool.trace(path):
        done = 0
        for count in (0, 1, 82, 83, 84, 85):  # a pack has 84 records
            for x in range(count):
                assert pool.apply(square, (x,)) == x * x
            with pytest.raises(shoal.WorkerLost):
                pool.apply(kill_self)
            done += count
    read = Read(path)
    assert read.outcomes() == {"done": done, "lost": 6}
    lost = [event for event in read.tasks if event["args"]["outcome"] == "lost"]
    assert all(event["args"]["started"] is not None and event["args"]["ended"] is None for event in lost)
    assert {event["name"] for event in lost} == {"kill_self"} and len({event["pid"] for event in lost}) == 6


def test_beyond_the_limit_records_are_dropped_and_counted(path):
    with shoal.Pool(1) as pool:
        with pool.trace(path, limit=100) as trace:
            for x in range(100):
                pool.apply(square, (x,))
    read = Read(path)
    assert trace.dropped > 100 and read.other["dropped"] == trace.dropped
    assert sum(read.other["dropped_by"].values()) == trace.dropped
    assert len(read.of("send")) <= 100


def test_traces_follow_each_other_and_one_runs_at_a_time(path):
    with shoal.Pool(1) as pool:
        for count in (3, 5):
            trace = pool.trace(path)
            trace.start()
            with pytest.raises(RuntimeError, match="one at a time"):
                pool.trace(path).start()
            pool.map(square, range(count), chunksize=1)
            trace.stop()
            assert len(Read(path).tasks) == count
        with pytest.raises(RuntimeError, match="not been started"):
            trace.stop()


def test_a_task_that_was_taken_by_a_call_before_the_trace_is_no_part_of_it(path):
    gate = Gate()
    with shoal.Pool(1) as pool:
        call = pool.apply_async(gate.wait)
        assert os.read(gate.running[0], 1) == b"."
        with pool.trace(path):
            gate.open()
            call.get(TIMEOUT)
            pool.apply(square, (3,))
    gate.close()
    assert [event["name"] for event in Read(path).tasks] == ["square"]


def test_executors_and_views_have_it(path):
    with shoal.ProcessPoolExecutor(1) as executor:
        with executor.trace(path):
            assert executor.submit(square, 3).result() == 9
        assert len(Read(path).tasks) == 1
        with executor.options(timeout=TIMEOUT).trace(path):
            assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert len(Read(path).tasks) == 5


def test_a_pool_that_ends_before_its_trace_is_in_it(path):
    pool = shoal.Pool(2)
    trace = pool.trace(path)
    trace.start()
    pool.map(square, range(10), chunksize=1)
    pool.terminate()
    trace.stop()
    assert len(Read(path).of("send")) == 10


def test_threads_that_send_have_their_names(path):
    with shoal.Pool(1) as pool, pool.trace(path):
        thread = threading.Thread(target=pool.apply, args=(square, (3,)), name="the other one")
        thread.start()
        while thread.is_alive():
            thread.join(0.01)
        pool.apply(square, (3,))
        spare = threading.Thread(target=time.sleep, args=(0,))
        spare.start()
        spare.join()
    names = {event["args"]["name"] for event in Read(path).events if event["name"] == "thread_name"}
    assert "MainThread" in names and "tasks" in names


def test_a_full_disk_is_a_clear_error_and_harms_no_task():
    with shoal.Pool(1) as pool:
        trace = pool.trace("/dev/full")
        trace.start()
        for x in range(100):
            pool.apply(square, (x,))
        with pytest.raises(OSError, match="the trace could not be written"):
            trace.stop()
        assert pool.apply(square, (3,)) == 9
        assert os.path.exists("/dev/full") and not os.path.exists("/dev/full.partial")


def test_a_file_that_may_not_grow_leaves_no_part_of_it(tmp_path):
    code = """if True:
        import os, resource, signal, sys
        import shoal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with shoal.Pool(1) as pool:
            trace = pool.trace("t.json")
            trace.start()
            for x in range(300):
                pool.apply(abs, (x,))
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                trace.stop()
            except OSError as error:
                print(error.strerror)
            print(pool.apply(abs, (-3,)), os.listdir())
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert run.stdout == "the trace could not be written: File too large\n3 []\n", run.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)


def test_a_parent_killed_while_it_writes_leaves_the_old_file_and_one_that_says_it_is_partial(tmp_path):
    code = """if True:
        import os, signal
        import shoal
        from shoal import _trace
        def write_some(file, pieces):
            file.write(next(pieces))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        with shoal.Pool(1) as pool:
            with pool.trace("t.json"):
                pool.apply(abs, (1,))
            _trace._write_all = write_some
            with pool.trace("t.json"):
                pool.apply(abs, (1,))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert sorted(os.listdir(tmp_path)) == ["t.json", "t.json.partial"]
    assert len(Read(tmp_path / "t.json").tasks) == 1


def test_what_a_worker_scribbles_over_its_ring_spoils_the_trace_alone(path):
    def scribble():
        import ctypes

        with open("/proc/self/maps") as maps:
            writable = [line.split() for line in maps if "shoal" in line and line.split()[1].startswith("rw-s")]
        hit = 0
        for line in writable:
            begin, end = (int(bound, 16) for bound in line[0].split("-"))
            at = ctypes.string_at(begin, end - begin).find(b"scribble" + bytes(32))
            if at >= 56:  # its own record: the name's place
                ctypes.memset(begin + at - 56, 0xFF, 500)
                hit += 1
        return hit

    with shoal.Pool(1) as pool, pool.trace(path):
        pool.apply(square, (1,))
        assert pool.apply(scribble) > 0
        assert pool.apply(square, (3,)) == 9
    assert json.loads(path.read_text())["otherData"]["tasks"] == 3


def test_nothing_outlives_it(leakcheck, path):
    for _ in range(3):
        with shoal.Pool(1) as pool, pool.trace(path):
            pool.map(square, range(100))
    assert Read(path).tasks
