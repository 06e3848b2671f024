# SPDX-License-Identifier: BSD-3-Clause
"""What the error of a lost worker tells: the task, the cause, the memory; and that it runs nothing to find that out."""

import ctypes
import datetime
import decimal
import faulthandler
import functools
import os
import pickle
import resource
import signal

import pytest

import shoal
from shoal._kills import Kills, told
from tasks import TIMEOUT, kill_self, works

pytestmark = pytest.mark.leakcheck
HERE = __name__


def die(*args, **keywords):
    kill_self()


class Plain:
    def __repr__(self):
        raise AssertionError("user code was run in the parent")

    __str__ = __repr__

    def __init__(self, value):
        self.value = value

    def __reduce_ex__(self, protocol):
        return loaded_where, (os.getpid(),)


def loaded_where(made_in):
    assert os.getpid() != made_in, "it was unpickled in the parent"
    return 7


class Point:
    def __init__(self, x):
        self.x = x


def lost(pool, function, *args, **keywords):
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(function, args, keywords)
    return caught.value


# ---- the task ----


@pytest.mark.parametrize(
    ("args", "keywords", "text"),
    [
        ((), {}, f"{HERE}.die()"),
        ((5,), {}, f"{HERE}.die(5)"),
        ((1, "abc", None, True, 2.5), {}, f"{HERE}.die(1, 'abc', None, True, 2.5)"),
        (([1, [2]], {"k": (3,)}, {4}, ()), {"width": 640}, HERE + ".die([1, [2]], {'k': (3,)}, {4}, (), width=640)"),
        ((len, datetime.date), {}, f"{HERE}.die(len, datetime.date)"),
        ((decimal.Decimal("1.5"),), {}, f"{HERE}.die(Decimal('1.5'))"),
        ((Point(1), "same", "same"), {}, f"{HERE}.die(<Point object>, 'same', 'same')"),
        ((list(range(20000)),), {}, f"{HERE}.die([0, 1, 2, 3, 4, 5, 6, 7, …], …)"),
        (({n: n for n in range(50)},), {}, HERE + ".die({0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, …})"),
        (("x" * 1000,), {}, f"{HERE}.die('{'x' * 50}'…)"),
        ((b"x" * 1000, 1), {}, f"{HERE}.die(b'{'x' * 50}'…, 1)"),
        ((10**100,), {}, f"{HERE}.die(<int of 333 bits>)"),
        (([[[[[[1]]]]]],), {}, f"{HERE}.die([[[[…]]]])"),
    ],
)
def test_the_task_is_named_with_its_arguments(pool, args, keywords, text):
    error = lost(pool, die, *args, **keywords)
    assert error.task == text
    assert f"while it ran the task: {text}" in str(error)


def test_functions_by_value_and_others_have_their_names(pool):
    def outer(n):
        return lambda x: os._exit(n)

    assert lost(pool, outer(3), 1).task.endswith("<lambda>(1)")
    assert lost(pool, functools.partial(die, 3), 4).task == "partial(test_lost_workers.die)(4)"
    assert lost(pool, os._exit, 3).task in ("posix._exit(3)", "os._exit(3)")
    assert lost(pool, signal.raise_signal, signal.SIGKILL).task.startswith("_signal.raise_signal(")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_functions_of_a_script_are_named(fresh_python, method):
    done = fresh_python(
        """
        import os, sys, shoal

        def leave(x, y=0):
            os._exit(5)

        if __name__ == "__main__":
            with shoal.Pool(1, context=sys.argv[1]) as pool:
                try:
                    pool.apply(leave, (1,), {"y": [2]})
                except shoal.WorkerLost as lost:
                    print(lost.task)
                try:
                    pool.map(leave, ["a"])
                except shoal.WorkerLost as lost:
                    print(lost.task, lost.memory is None or lost.memory > 1 << 20)
        """,
        method,
    )
    assert done.stdout.splitlines() == ["leave(1, y=[2])", "leave('a') True"]


def test_an_element_of_a_map_is_named(pool):
    def leave_on_three(x, y=None):
        if x == 3:
            os._exit(1)

    with pytest.raises(shoal.WorkerLost) as caught:
        pool.map(leave_on_three, range(6), chunksize=6)
    assert caught.value.task.endswith("leave_on_three(3)")
    assert "element 3 of the input: " in str(caught.value)
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.starmap(leave_on_three, [(1, "a"), (3, [Point(1)])], chunksize=2)
    assert caught.value.task.endswith("leave_on_three(3, [<Point object>])")
    with pytest.raises(shoal.WorkerLost) as caught:
        list(pool.imap(leave_on_three, [Point(1), "no", [1], 3]))
    assert caught.value.task.endswith("leave_on_three(3)")


def test_an_executors_task_is_named(executor):
    with pytest.raises(shoal.WorkerLost) as caught:
        executor.submit(die, 1, two=2).result(TIMEOUT)
    assert caught.value.task == f"{HERE}.die(1, two=2)"
    with pytest.raises(shoal.WorkerLost) as caught:
        list(executor.map(die, [1], ["a"]))
    assert caught.value.task == f"{HERE}.die(1, 'a')"


def test_a_task_that_many_others_have_passed_is_still_named():
    """Its stream is not in the ring any more."""
    running, go = os.pipe(), os.pipe()

    def held_up(*args):
        os.write(running[1], b".")
        os.read(go[0], 1)
        kill_self()

    with shoal.Pool(2) as pool:
        first = pool.apply_async(held_up, ("first", "x" * 2000))
        assert os.read(running[0], 1) == b"."
        for n in range(3000):
            pool.apply(len, (f"{n} {'y' * 1000}",))
        os.write(go[1], b".")
        with pytest.raises(shoal.WorkerLost) as caught:
            first.get(TIMEOUT)
    assert "held_up('first'" in caught.value.task or "held_up(…" in caught.value.task
    for descriptor in (*running, *go):
        os.close(descriptor)


def test_nothing_is_unpickled_or_asked_for_its_repr_in_the_parent(pool):
    assert "loaded_where" in lost(pool, die, Plain(1)).task
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.map(die, [Plain(1)])
    assert "loaded_where" in str(caught.value)


def test_arguments_whose_loading_kills_are_named(pool):
    class Deadly:
        def __reduce__(self):
            return os._exit, (4,)

    error = lost(pool, len, [Deadly()])
    assert "could not be read" in str(error)
    assert error.task.startswith("len([")


def test_the_line_is_bounded(pool):
    error = lost(pool, die, *["word " * 8] * 50, **{f"key_{n}": n for n in range(100)})
    assert len(error.task) <= 200
    assert len(str(error)) < 1000


# ---- the cause ----


def crash():
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ctypes.string_at(0)


def test_the_cause_follows_from_the_signal_or_the_exit_code(pool):
    assert "crash in C code" in lost(pool, crash).cause
    assert "os._exit()" in lost(pool, os._exit, 3).cause
    assert "somebody" in lost(pool, signal.raise_signal, signal.SIGTERM).cause
    error = lost(pool, kill_self)
    assert error.cause
    assert f"likely cause: {error.cause}" in str(error)
    assert works(pool)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((3, 1), (3, 1), "has not killed"),
        ((3, None), (3, None), "has not killed"),
        ((3, 1), (4, 2), "in this memory cgroup"),
        ((None, 1), (None, 2), "in this memory cgroup"),
        ((3, 1), (4, 1), "perhaps the kernel"),
        ((None, None), (None, None), "or the kernel"),
        ((None, None), (7, 7), "has not killed"),
    ],
)
def test_who_sent_sigkill_follows_from_the_kernels_counts(before, now, words):
    assert words in told(Kills(*before), Kills(*now), -1)


def test_the_counts_are_found_in_every_kind_of_cgroup(tmp_path):
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroups"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("nr_free_pages 5\noom_kill 12\noom_kill_x 3\n")
    (proc / "self" / "cgroup").write_text("4:memory:/a/b\n0::/\n")
    (cgroups / "memory" / "a" / "b").mkdir(parents=True)
    (cgroups / "memory" / "a" / "b" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert Kills.read(str(proc), str(cgroups)) == (12, 2)
    (proc / "self" / "cgroup").write_text("0::/c\n")
    assert Kills.read(str(proc), str(cgroups)) == (12, None)
    (cgroups / "c").mkdir()
    (cgroups / "c" / "memory.events").write_text("low 0\noom 1\noom_kill 5\noom_group_kill 0\n")
    assert Kills.read(str(proc), str(cgroups)) == (12, 5)
    (proc / "self" / "cgroup").unlink()
    (proc / "vmstat").unlink()
    assert Kills.read(str(proc), str(cgroups)) == (None, None)


# ---- memory ----


def test_the_memory_that_it_had_is_told(pool):
    def grow_and_die(mebibytes):
        grown = bytearray(os.urandom(1 << 20) * mebibytes)
        os._exit(len(grown) & 1)

    small, large = lost(pool, grow_and_die, 1), lost(pool, grow_and_die, 200)
    assert large.memory > 200 << 20
    assert "MiB at most" in str(large)
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        assert large.memory - small.memory > 100 << 20


# ---- where a crash was ----


def small_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def crash_deep_within():
    small_core()
    ctypes.string_at(0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_stacks_of_a_crash_are_in_the_error(fresh_python, method):
    done = fresh_python(
        """
        import ctypes, os, resource, signal, sys, shoal

        def crash_deep_within(number):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if number:
                os.kill(os.getpid(), number)
            ctypes.string_at(0)

        def attempt(pool, number):
            try:
                pool.apply(crash_deep_within, (number,))
            except shoal.WorkerLost as lost:
                words = ("Fatal Python error", "in crash_deep_within")
                print(signal.Signals(lost.signal).name, [word in lost.crash for word in words], lost.crash in str(lost)
                      or lost.crash.splitlines()[-1] in str(lost), lost.crash.count("Fatal"))

        if __name__ == "__main__":
            with shoal.Pool(2, context=sys.argv[1]) as pool:
                for number in (0, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM, 0, 0):
                    attempt(pool, number)
        """,
        method,
    )
    fatal = "[True, True] True 1"
    quiet = "[False, False] True 0"
    assert done.stdout.splitlines() == [
        f"SIGSEGV {fatal}",
        f"SIGABRT {fatal}",
        f"SIGKILL {quiet}",
        f"SIGTERM {quiet}",
        f"SIGSEGV {fatal}",
        f"SIGSEGV {fatal}",
    ]


def test_the_crash_of_a_process_that_a_task_forked_is_not_the_workers(fresh_python):
    done = fresh_python("""
        import ctypes, os, resource, shoal

        def task():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            pid = os.fork()
            if pid == 0:
                ctypes.string_at(0)
            os.waitpid(pid, 0)
            os.abort()

        with shoal.Pool(1) as pool:
            try:
                pool.apply(task)
            except shoal.WorkerLost as lost:
                print(lost.crash.count("Fatal Python error"), "Aborted" in lost.crash)
    """)
    assert done.stdout == "1 True\n"


def test_whoever_has_enabled_faulthandler_finds_it_there_as_well(pool, capfd):
    if not faulthandler.is_enabled():
        pytest.skip("pytest's own faulthandler is off")
    error = lost(pool, crash_deep_within)
    assert "in crash_deep_within" in error.crash
    assert error.crash in capfd.readouterr().err


def test_a_crash_while_nothing_ran_is_not_told_with_the_next_loss(pool):
    for worker in pool._pool:
        os.kill(worker.pid, signal.SIGSEGV)
    assert works(pool)
    assert "crash_deep_within" in lost(pool, crash_deep_within).crash
    assert lost(pool, kill_self).crash == ""


# ---- the error ----


def test_it_survives_pickling(pool):
    error = lost(pool, crash)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_finding_out_imports_nothing_before_it_is_needed(fresh_python):
    done = fresh_python("""
        import sys, shoal
        with shoal.Pool(1) as pool:
            pool.apply(abs, (1,))
        print([name for name in ("pickletools", "shoal._lost", "shoal._lost_task") if name in sys.modules])
    """)
    assert done.stdout == "[]\n"
