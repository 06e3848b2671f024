# SPDX-License-Identifier: BSD-3-Clause
"""A process with threads of its own that forks workers is warned, once, and told what to do."""

import pytest

ALL = {"PYTHONWARNINGS": "always,ignore::DeprecationWarning"}

THREADS = """
    import os, signal, sys, threading, shoal
    stop = threading.Event()
    def start(count):
        for number in range(count):
            threading.Thread(target=stop.wait, name=f"mine-{number}", daemon=True).start()
"""


def test_the_warning_comes_once_and_names_the_threads_and_the_way_out(fresh_python):
    source = """
    start(2)
    def pools():
        for _ in range(2):
            with shoal.Pool(1) as pool:  # here
                pool.apply(abs, (1,))
    pools()
    with shoal.ProcessPoolExecutor(1) as executor:
        executor.submit(abs, 1).result()
    """
    done = fresh_python(THREADS + source, env=ALL)
    warning, line = done.stderr.splitlines()
    assert (
        "script.py:11: RuntimeWarning: this process forks workers while other threads live (mine-0, mine-1): "
        in warning
    )
    assert "Pool(context='forkserver'), ProcessPoolExecutor(mp_context='forkserver')" in warning
    assert line.strip() == "with shoal.Pool(1) as pool:  # here"


def test_many_threads_are_counted(fresh_python):
    done = fresh_python(THREADS + "    start(9)\n    shoal.Pool(1).terminate()", env=ALL)
    assert "(mine-0, mine-1, mine-2, mine-3, mine-4 and 4 more)" in done.stderr


def test_an_executor_warns_where_its_workers_start(fresh_python):
    source = """
    start(1)
    executor = shoal.ProcessPoolExecutor(1)
    executor.submit(abs, 1).result()
    executor.shutdown()
    """
    assert "script.py:10: RuntimeWarning: " in fresh_python(THREADS + source, env=ALL).stderr


def test_a_pool_made_in_a_thread_is_warned_of_the_main_thread(fresh_python):
    source = """
    thread = threading.Thread(target=lambda: shoal.Pool(1).terminate())
    thread.start()
    thread.join()
    """
    assert "(MainThread)" in fresh_python(THREADS + source, env=ALL).stderr


@pytest.mark.parametrize("doorbell", ["uring", "semaphore"])
def test_shoals_own_threads_are_not_warned_of(fresh_python, doorbell):
    source = """
    called = threading.Event()
    def call_back(value):
        threading.current_thread()  # gives the engine's thread a name in threading.enumerate()
        called.set()
    with shoal.Pool(2) as pool:
        pool.map_async(abs, range(100), callback=call_back)
        called.wait()
        for _ in range(2):
            os.kill(pool._pool[0].pid, signal.SIGKILL)
            pool.map_async(abs, range(100)).get()
        with shoal.Pool(1) as other, shoal.ProcessPoolExecutor(1) as executor:
            print(other.map(abs, [-1]), executor.submit(abs, -1).result())
    """
    done = fresh_python(THREADS + source, env={"PYTHONWARNINGS": "always", "SHOAL_DOORBELL": doorbell})
    assert (done.stdout, done.stderr) == ("[1] 1\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_are_not_warned_of(fresh_python, method):
    source = f"""
    if __name__ == "__main__":
        start(2)
        with shoal.Pool(1, context={method!r}) as pool:
            print(pool.apply(abs, (-1,)))
    """
    done = fresh_python(THREADS + source, env={"PYTHONWARNINGS": "always"})
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_as_an_error_it_refuses_the_pool_and_leaves_nothing(fresh_python):
    source = """
    start(1)
    try:
        shoal.Pool(2)
    except RuntimeWarning as warning:
        print("refused", os.listdir("/proc/self/task").__len__(), "mine-0" in str(warning))
    """
    done = fresh_python(THREADS + source, env={"PYTHONWARNINGS": "error::RuntimeWarning"})
    assert (done.stdout, done.stderr) == ("refused 2 True\n", "")


def test_no_lock_of_shoals_stays_locked_in_a_forked_child(fresh_python):
    source = """
    import importlib, pkgutil, _thread
    def locks():
        for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "shoal"]:
            for name, value in list(vars(module).items()):
                if isinstance(value, (_thread.LockType, _thread.RLock)):
                    yield f"{module.__name__}.{name}", value
    for module in pkgutil.walk_packages(shoal.__path__, "shoal."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    held = threading.Event()
    def hold():
        for _, lock in locks():
            lock.acquire()
        held.set()
        stop.wait()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    print(len(list(locks())))
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        print([name for name, lock in locks() if not lock.acquire(timeout=0)])
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)
    """
    count, still_locked = fresh_python(THREADS + source).stdout.splitlines()
    assert int(count) >= 4
    assert still_locked == "[]"


def test_a_thread_of_an_ended_pool_has_left_before_the_process_forks(fresh_python):
    """What it locks while it ends (memory of an allocator that does not know of forks) is free in the child."""
    source = """
    import time
    called, leaves, local, left = threading.Event(), threading.Event(), threading.local(), []
    class Leaving:
        def __del__(self):
            leaves.set()
            for _ in range(100):
                time.sleep(0.001)  # another thread may run, and fork
            left.append(threading.get_native_id() != threading.main_thread().native_id)
    def call_back(value):
        if threading.current_thread() is not threading.main_thread():
            local.kept = Leaving()
            called.set()
    with shoal.Pool(1) as pool:
        while not called.is_set():  # by the engine's thread, and not by this one as it submits
            pool.apply_async(time.sleep, (0.01,), callback=call_back)
            called.wait(1)
    leaves.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if left == [True] else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert fresh_python(THREADS + source).stdout == "0\n"


LOCKS = """
    import os, threading
    from shoal import _rebuild_objects, _rebuild_type_parameter, _shared, _thread_limits, _threads
    locks = [_rebuild_objects._living_lock, _rebuild_type_parameter._lock, _shared._lock, _thread_limits._lock,
             _threads._filters]

    def in_a_child(function):
        pid = os.fork()
        if pid == 0:
            try:
                function()
            except BaseException:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_locks_of_ours_that_another_thread_holds_are_free_in_a_child(fresh_python):
    fresh_python(
        LOCKS
        + """
    held, done = threading.Event(), threading.Event()
    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait()
    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait()

    def take():
        for lock in locks:
            assert lock.acquire(blocking=False)
    assert in_a_child(take) == 0
    assert not any(lock.acquire(blocking=False) for lock in locks)  # not here
    done.set()
    """
    )


def test_a_lock_of_ours_that_the_thread_that_forks_holds_it_holds_in_the_child(fresh_python):
    fresh_python(
        LOCKS
        + """
    for lock in locks:
        lock.acquire()

    def give_back():
        for lock in locks:
            assert lock._is_owned()
            lock.release()
    assert in_a_child(give_back) == 0
    """
    )
