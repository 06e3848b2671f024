# SPDX-License-Identifier: BSD-3-Clause
"""What goes wrong in and around workers that are not forked from their pool's process."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

import shoal
from processes import wait_until_gone
from shoal import _spawn
from tasks import TIMEOUT, kill_self, running_workers, square, works

OTHERS = pytest.mark.parametrize("method", ["spawn", "forkserver"])


@pytest.fixture
def start_script(tmp_path):
    """start_script(source, *args) -> Popen of it, its output as text."""
    started = []

    def start(source, *args, **options):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(source))
        command = [sys.executable, "-u", str(script), *args]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


# ---- death ----


@OTHERS
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_outlives_a_parent_that_is_killed(start_script, method, number):
    source = """
        import os, signal, sys, shoal
        if __name__ == "__main__":
            pool = shoal.Pool(2, context=sys.argv[1])
            busy = pool.apply_async(signal.pause)
            pool.map(abs, range(10))
            print(*[worker.pid for worker in pool._pool], flush=True)
            busy.get()
    """
    script = start_script(source, method)
    pids = [int(pid) for pid in script.stdout.readline().split()]
    pids += [child.pid for child in psutil.Process(script.pid).children(recursive=True)]
    assert len(set(pids)) >= 3  # the resource tracker, and the forkserver
    script.send_signal(number)
    script.wait(TIMEOUT)
    wait_until_gone(pids, TIMEOUT)


@OTHERS
def test_nobody_outlives_a_parent_that_is_killed_while_workers_start(start_script, method):
    source = """
        import sys, shoal
        if __name__ == "__main__":
            pool = shoal.Pool(2, context=sys.argv[1])
            print(*[worker.pid for worker in pool._pool], flush=True)
            sys.stdin.read()
    """
    script = start_script(source, method, stdin=subprocess.PIPE)
    pids = [int(pid) for pid in script.stdout.readline().split()]
    script.kill()
    script.wait(TIMEOUT)
    wait_until_gone(pids, TIMEOUT)


def test_a_worker_is_replaced_when_the_forkserver_died_too(no_main):
    from multiprocessing import forkserver

    with shoal.Pool(2, context="forkserver") as pool:
        assert works(pool)
        pid = forkserver._forkserver._forkserver_pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a signal that was sent has not yet ended anybody
        with pytest.raises(shoal.WorkerLost, match="is gone") as caught:
            pool.apply(kill_self)
        assert (caught.value.signal, caught.value.exit_code) == (None, None)
        assert works(pool)
        assert len(running_workers(pool)) == 2
        assert forkserver._forkserver._forkserver_pid != pid


def test_a_program_that_reaps_all_children_or_ignores_their_end_harms_nobody(fresh_python):
    source = """
        import os, signal, sys, shoal
        def reap(number, frame):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        if __name__ == "__main__":
            for action in (signal.SIG_IGN, reap):
                for method in ("spawn", "forkserver"):
                    signal.signal(signal.SIGCHLD, action)
                    with shoal.Pool(2, context=method) as pool:
                        try:
                            pool.apply(lambda: os.kill(os.getpid(), signal.SIGKILL))
                        except shoal.WorkerLost as error:
                            print(method, error.signal, pool.map(abs, [-1, -2]))
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    """
    lines = fresh_python(source).stdout.splitlines()
    # Who collected it first knows how a child of ours ended; how one of the forkserver did, that says.
    assert [re.sub("spawn (9|None)", "spawn ?", line) for line in lines] == [
        "spawn ? [1, 2]",
        "forkserver 9 [1, 2]",
    ] * 2


def test_a_forkserver_hands_over_more_descriptors_than_one_message_takes(no_main, monkeypatch, doorbell, leakcheck):
    monkeypatch.setattr(_spawn, "DESCRIPTORS_MAX", 3)
    with shoal.Pool(3, context="forkserver") as pool:
        assert works(pool)
        with pytest.raises(shoal.WorkerLost):
            pool.apply(kill_self)
        assert works(pool)


# ---- the main module ----


@OTHERS
def test_the_main_module_is_imported_under_another_name(fresh_python, method):
    source = """
        import sys, shoal
        marker = [__name__]
        def own():
            return "a function of the script"
        class Point:
            def __init__(self, x):
                self.x = x
            def __eq__(self, other):
                return type(self) is type(other) and self.x == other.x
        def look():
            import __main__
            return __main__.marker
        def move(point):
            return Point(point.x + 1)
        if __name__ == "__main__":
            with shoal.Pool(1, context=sys.argv[1]) as pool:
                print(pool.apply(look), pool.apply(own), pool.apply(move, (Point(1),)) == Point(2))
    """
    assert fresh_python(source, method).stdout == "['__mp_main__'] a function of the script True\n"


@OTHERS
def test_a_script_without_the_guard_is_told_so_and_ends(fresh_python, method):
    source = """
        import sys, shoal
        pool = shoal.Pool(2, context=sys.argv[1])
        print(pool.apply(abs, (-3,)))
    """
    done = fresh_python(source, method, check=False)
    assert done.returncode == 1
    assert "shoal.errors.PoolBroken" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr
    assert done.stdout == ""


@OTHERS
def test_a_main_module_that_fails_to_import_breaks_the_pool_with_its_exception(fresh_python, method):
    source = """
        import sys, shoal
        if __name__ == "__mp_main__":
            raise LookupError("only as a script")
        if __name__ == "__main__":
            with shoal.Pool(2, context=sys.argv[1]) as pool:
                try:
                    pool.apply(abs, (-3,))
                except shoal.PoolBroken as error:
                    print(error, repr(error.__cause__), sep="\\n")
    """
    done = fresh_python(source, method)
    text = "a worker could not import the main module: LookupError: only as a script"
    assert done.stdout.splitlines() == [text, "LookupError('only as a script')"]
    assert done.stderr == ""


@OTHERS
@pytest.mark.parametrize("how", ["-", "-c"])
def test_a_script_that_has_no_file_sends_its_functions_by_value(method, how):
    source = textwrap.dedent(
        f"""
        import shoal
        def twice(x):
            return 2 * x
        with shoal.Pool(1, initializer=lambda: twice(1), context={method!r}) as pool:
            print(pool.map(twice, range(3)), pool.map(lambda x: twice(x) + 1, range(3)))
        """
    )
    command = [sys.executable, "-c", source] if how == "-c" else [sys.executable, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stdout == "[0, 2, 4] [1, 3, 5]\n", done.stderr
    assert done.stderr == ""


def test_preloaded_modules_and_the_executable_are_multiprocessings_to_set(fresh_python, tmp_path):
    (tmp_path / "heavy.py").write_text("import os\npid = os.getpid()\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nMARK=set exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    source = """
        import multiprocessing, os, sys, shoal
        def look():
            import heavy
            return heavy.pid == os.getppid(), os.environ.get("MARK")
        if __name__ == "__main__":
            multiprocessing.set_forkserver_preload(["heavy"])
            with shoal.Pool(1, context="forkserver") as pool:
                print(pool.apply(look))
            multiprocessing.set_executable(sys.argv[1])
            with shoal.Pool(1, context="spawn") as pool:
                print(pool.apply(look))
    """
    done = fresh_python(source, python, env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert done.stdout == "(True, None)\n(False, 'set')\n"


# ---- what cannot travel, what cannot be started ----


@OTHERS
def test_an_initializer_that_cannot_be_pickled_is_refused_at_once(method, leakcheck):
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        shoal.Pool(1, square, ((x for x in ()),), context=method)


class Unreadable:
    def __reduce__(self):
        return int, ("x",)


@OTHERS
def test_an_initializers_argument_that_cannot_be_unpickled_breaks_the_pool(method, no_main, leakcheck):
    with shoal.Pool(2, square, (Unreadable(),), context=method) as pool:
        with pytest.raises(shoal.PoolBroken, match="unpickle the initializer and its arguments: ValueError: invalid"):
            pool.apply(square, (1,))


@pytest.mark.parametrize(
    ("initializer", "argument", "said"),
    [(int, "x", "the initializer raised ValueError: invalid"), (os._exit, 7, "ended with exit code 7: workers die")],
)
def test_what_a_worker_said_counts_that_was_dead_before_it_could_be_watched(
    no_main, monkeypatch, initializer, argument, said
):
    from multiprocessing import forkserver

    read = forkserver.read_signed

    def read_late(descriptor):
        pid = read(descriptor)
        while psutil.pid_exists(pid):
            time.sleep(0.001)
        return pid

    monkeypatch.setattr(forkserver, "read_signed", read_late)
    with shoal.Pool(1, initializer, (argument,), context="forkserver") as pool:
        with pytest.raises(shoal.PoolBroken, match=said):
            pool.apply(square, (1,))


def test_an_interpreter_that_cannot_be_started_is_an_error_not_a_hang(fresh_python):
    source = """
        import multiprocessing, shoal
        if __name__ == "__main__":
            for executable in ("/nonexistent", "/bin/false"):
                multiprocessing.set_executable(executable)
                try:
                    with shoal.Pool(2, context="spawn") as pool:
                        pool.apply(abs, (1,))
                except shoal.PoolBroken as error:
                    print(error)
    """
    lines = fresh_python(source).stdout.splitlines()
    assert [re.search("ended with exit code [0-9]+: workers die as soon as they are started", line) for line in lines]
    assert len(lines) == 2


# ---- Ctrl-C ----


@OTHERS
@pytest.mark.parametrize("when", ["starting", "working"])
def test_ctrl_c_ends_all_and_prints_one_traceback(start_script, method, when):
    source = """
        import signal, sys, shoal
        if __name__ == "__main__":
            with shoal.Pool(2, context=sys.argv[1]) as pool:
                if sys.argv[2] == "working":
                    pool.map(abs, range(10))
                print(*[worker.pid for worker in pool._pool], flush=True)
                pool.apply(signal.pause)
    """
    script = start_script(source, method, when, start_new_session=True)
    pids = [int(pid) for pid in script.stdout.readline().split()]
    os.killpg(script.pid, signal.SIGINT)
    errors = script.communicate(timeout=TIMEOUT)[1]
    wait_until_gone(pids, TIMEOUT)
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1, errors


# ---- locks ----


@OTHERS
def test_a_lock_that_another_thread_holds_is_free_in_the_worker(fresh_python, tmp_path, method):
    source = """
        import sys, threading, lockedmodule, shoal
        def task():
            with lockedmodule.lock:  # in a forked worker it would wait for ever
                return "free"
        if __name__ == "__main__":
            held, stop = threading.Event(), threading.Event()
            def hold():
                with lockedmodule.lock:
                    held.set()
                    stop.wait()
            threading.Thread(target=hold).start()
            held.wait()
            with shoal.Pool(1, context=sys.argv[1]) as pool:
                print(pool.apply(task))
            stop.set()
    """
    (tmp_path / "lockedmodule.py").write_text("import threading\nlock = threading.Lock()\n")
    done = fresh_python(source, method, env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert done.stdout == "free\n"
    assert done.stderr == ""
