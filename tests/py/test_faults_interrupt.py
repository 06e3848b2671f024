# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C and the death of the parent: a script ends at once, and no worker outlives it."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

import shoal
from limit_tasks import sound
from processes import wait_until_gone
from tasks import TIMEOUT, await_file

pytestmark = [pytest.mark.leakcheck, pytest.mark.usefixtures("doorbell")]


def shared_names():
    """Of pools: other programs come and go, our examples among them."""
    return {name for name in os.listdir("/dev/shm") if "shoal" in name and "example" not in name}


def start_script(source, tmp_path, **options):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, "-u", str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


BUSY = """
    import os, sys, time, shoal

    def task(x):
        time.sleep(100)

    {make}
        print(*[pid for pid in pids], flush=True)
        {wait}
"""
WAITS = {
    "map": "pool.map(task, range(10))",
    "apply": "pool.apply(task, (1,))",
    "imap": "list(pool.imap(task, range(10)))",
    "get": "pool.apply_async(task, (1,)).get()",
    "sleep": "pool.map_async(task, range(10)); time.sleep(100)",
    "result": "pool.submit(task, 1).result()",
    "executor map": "list(pool.map(task, range(10)))",
    "with block": "[pool.submit(task, n) for n in range(4)]",
}


def busy_script(wait):
    make = "with shoal.Pool(2) as pool:\n        pids = [worker.pid for worker in pool._pool]"
    if wait in ("result", "executor map", "with block"):
        make = (
            "with shoal.ProcessPoolExecutor(2) as pool:\n        pool.submit(abs, 1).result(); pids = pool._processes"
        )
    return BUSY.format(make=make, wait=WAITS[wait])


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_a_script_at_once_and_leaves_nobody(tmp_path, wait):
    with start_script(busy_script(wait), tmp_path, start_new_session=True) as script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.2)  # so that it waits; before that it would work as well
        os.killpg(script.pid, signal.SIGINT)  # as a terminal does: to everybody
        out, err = script.communicate(timeout=TIMEOUT)
        assert script.returncode == -signal.SIGINT
        assert err.count("KeyboardInterrupt") == 1 and err.count("Traceback") == 1, err
        assert out == ""
        wait_until_gone(pids)


def test_ctrl_c_in_a_notebook_leaves_a_pool_that_works(tmp_path):
    with shoal.Pool(2) as pool:

        def interrupt():
            while not pool._engine.stats()["in_flight"]:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        for number in range(3):
            over = tmp_path / str(number)
            thread = threading.Thread(target=interrupt)
            with pytest.raises(KeyboardInterrupt):
                thread.start()
                pool.map(await_file, [over] * 4)
            over.touch()
            thread.join()
            sound(pool)


@pytest.mark.parametrize("tasks", [0, 1])
def test_ctrl_c_that_another_thread_takes_interrupts_the_wait_all_the_same(tmp_path, tasks):
    over = tmp_path / "over"

    def inputs():
        yield from [over] * tasks
        await_file(over)

    def interrupt():
        while pool._engine.stats()["in_flight"] < tasks or not waits.is_set():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)  # runs the handler in this thread, and wakes nobody

    with shoal.Pool(1) as pool:
        waits = threading.Event()
        thread = threading.Thread(target=interrupt)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            results = pool.imap(await_file, inputs())
            waits.set()
            next(results)
        over.touch()
        thread.join()


def test_ctrl_c_in_a_terminal(tmp_path):
    import pty

    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(busy_script("map")))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-u", str(script)])
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        said = b""
        while b"\n" not in said:
            said += screen.read(1000)
        time.sleep(0.2)
        screen.write(b"\x03")
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while more := screen.read(1000):
                said += more
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
    assert said.count(b"KeyboardInterrupt") == 1 and said.count(b"Traceback") == 1, said
    wait_until_gone([int(worker) for worker in said.split(b"\n")[0].split()])


@pytest.mark.parametrize("wait", ["map", "sleep", "result"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path, wait, number):
    names_before = shared_names()
    with start_script(busy_script(wait), tmp_path) as script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        script.send_signal(number)
        assert script.wait(TIMEOUT) == -number
        wait_until_gone(pids)
        assert script.stderr.read() == ""
    assert shared_names() <= names_before


def test_idle_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    source = """
        import time, shoal
        pool = shoal.Pool(2)
        pool.map(abs, range(10))
        pool._pool[0].kill()  # the replacement too
        pool.map(abs, range(10))
        print(*[worker.pid for worker in pool._pool], flush=True)
        time.sleep(100)
    """
    with start_script(source, tmp_path) as script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        script.kill()
        script.wait(TIMEOUT)
        wait_until_gone(pids)


def test_workers_do_not_outlive_a_parent_whose_forking_thread_ended(tmp_path):
    source = """
        import threading, time, shoal
        box = []
        thread = threading.Thread(target=lambda: box.append(shoal.Pool(2)))
        thread.start()
        thread.join()
        pool = box[0]
        pool.map(abs, range(10))
        print(*[worker.pid for worker in pool._pool], flush=True)
        time.sleep(100)
    """
    with start_script(source, tmp_path) as script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        time.sleep(0.2)
        wait_alive = [pid for pid in pids if psutil.pid_exists(pid)]
        assert wait_alive == pids, "a worker is not to die with the thread that forked it"
        script.kill()
        script.wait(TIMEOUT)
        wait_until_gone(pids)


def test_workers_of_a_nested_pool_end_with_their_worker(tmp_path):
    source = """
        import os, signal, time, shoal

        def nest():
            inner = shoal.Pool(2)
            print(os.getpid(), *[worker.pid for worker in inner._pool], flush=True)
            inner.map(time.sleep, [100] * 2)

        with shoal.Pool(1) as pool:
            pool.apply(nest)
    """
    with start_script(source, tmp_path) as script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        script.kill()
        script.wait(TIMEOUT)
        wait_until_gone(pids)
