# SPDX-License-Identifier: BSD-3-Clause
"""Workers that die, stop or never start: their task has a clear error, the others go on, nobody hangs."""

import contextlib
import os
import signal
import threading
import time

import pytest

import shoal
from tasks import TIMEOUT, kill_self, overrun_the_stack, square, works

pytestmark = [pytest.mark.leakcheck, pytest.mark.usefixtures("doorbell")]


# ---- workers that die ----


def kill_self_on_three(x):
    if x == 3:
        kill_self()
    return x


def test_a_worker_killed_in_its_task_costs_that_task_alone(pool):
    neighbour = pool.apply_async(square, (5,))
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(kill_self)
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.exit_code is None
    assert "SIGKILL" in str(caught.value)
    assert str(caught.value.pid) in str(caught.value)
    assert neighbour.get(TIMEOUT) == 25
    assert works(pool)


def test_a_lost_worker_is_replaced(pool):
    before = {worker.pid for worker in pool._pool}
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(kill_self)
    assert caught.value.pid in before
    assert works(pool)
    after = {worker.pid for worker in pool._pool}
    assert len(after) == 2 and caught.value.pid not in after


def test_a_death_in_a_map_costs_the_element_that_was_running(pool):
    results = pool.imap(kill_self_on_three, range(8), chunksize=4)
    outcomes = []
    while True:
        try:
            outcomes.append(next(results))
        except StopIteration:
            break
        except shoal.WorkerLost as lost:
            outcomes.append("lost")
            assert "3" in str(lost), "the message names the element"
    assert outcomes == [0, 1, 2, "lost", 4, 5, 6, 7]
    with pytest.raises(shoal.WorkerLost):
        pool.map(kill_self_on_three, range(8), chunksize=4)
    assert works(pool)


def test_a_task_that_calls_os_exit(pool):
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(os._exit, (7,))
    assert (caught.value.signal, caught.value.exit_code) == (None, 7)
    assert "exit code 7" in str(caught.value)
    with pytest.raises(shoal.WorkerLost, match="exit code 0"):
        pool.apply(os._exit, (0,))
    assert works(pool)


def test_a_task_that_overruns_the_stack(pool):
    with pytest.raises(shoal.WorkerLost) as caught:
        pool.apply(overrun_the_stack)
    assert caught.value.signal in (signal.SIGSEGV, signal.SIGABRT)
    assert works(pool)


def test_endless_recursion_in_python_is_the_tasks_recursion_error(pool):
    def recurse():
        return recurse()

    with pytest.raises(RecursionError):
        pool.apply(recurse)
    assert works(pool)


def test_a_replacement_that_wants_memory_before_its_start_is_over_gets_it(monkeypatch):
    """Another thread reads what it asks for while the one that forked it has yet to note that it is there."""
    asks, fork = os.pipe(), os.fork

    def large():
        os.write(asks[1], b".")
        return bytes(300_000)

    def slow_fork():
        pid = fork()
        if pid:
            os.read(asks[0], 1)
            for _ in range(30):  # the more chances, the surer that a bug shows; nothing waits for this
                time.sleep(0.01)
        return pid

    with shoal.Pool(1) as pool:
        pool.apply(abs, (1,))
        monkeypatch.setattr(os, "fork", slow_fork)
        pool._pool[0].kill()
        assert len(pool.apply_async(large).get(TIMEOUT)) == 300_000
        monkeypatch.undo()
    for descriptor in asks:
        os.close(descriptor)


def test_an_idle_worker_that_is_killed_is_replaced(pool):
    for worker in pool._pool:
        worker.kill()
    assert works(pool)


def test_idle_workers_may_be_killed_one_after_the_other(pool):
    for _ in range(10):
        pool._pool[0].kill()
        assert pool.apply(square, (2,)) == 4


def test_workers_killed_just_before_the_end_do_not_hold_it_up():
    """The pool is closed and joined while replacements are being forked."""
    for _ in range(20):
        with shoal.Pool(2) as pool:
            lost = [pool.apply_async(kill_self) for _ in range(2)]
            for worker in pool._pool:
                worker.kill()
            pool.close()
            pool.join()
            assert all(result.ready() and not result.successful() for result in lost)


def test_a_user_who_reaps_our_children(pool):
    stop = threading.Event()

    def reap():
        while not stop.is_set():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    reaper = threading.Thread(target=reap)
    reaper.start()
    try:
        for _ in range(5):
            with pytest.raises(shoal.WorkerLost):
                pool.apply(kill_self)
        assert works(pool)
    finally:
        stop.set()
        reaper.join()


def test_a_parent_that_ignores_sigchld(fresh_python):
    done = fresh_python("""
        import os, signal, shoal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with shoal.Pool(2) as pool:
            try:
                pool.apply(os._exit, (1,))
            except shoal.WorkerLost:
                print("lost")
            print(pool.apply(abs, (-1,)))
    """)
    assert done.stdout == "lost\n1\n"


def test_a_stopped_worker_does_not_stop_the_other(pool):
    victim = pool._pool[0].pid
    os.kill(victim, signal.SIGSTOP)
    try:
        done = [pool.apply_async(square, (x,)) for x in range(200)]
        # At most one task is with the stopped worker; the other worker does the rest.
        deadline = time.monotonic() + TIMEOUT
        while sum(result.ready() for result in done) < 199:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.kill(victim, signal.SIGCONT)
    assert [result.get(TIMEOUT) for result in done] == [x * x for x in range(200)]


def test_a_stopped_worker_does_not_stop_terminate():
    with shoal.Pool(2) as pool:
        os.kill(pool._pool[1].pid, signal.SIGSTOP)


# ---- initializers ----


def test_an_initializer_that_raises_breaks_the_pool_with_its_exception():
    def fail():
        raise ValueError("no start")

    with shoal.Pool(2, initializer=fail) as pool:
        with pytest.raises(shoal.PoolBroken, match="no start") as caught:
            pool.apply(square, (1,))
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(shoal.PoolBroken):
            pool.map(square, range(10))
        with pytest.raises(shoal.PoolBroken):
            list(pool.imap(square, range(10)))


def test_an_initializer_that_raises_runs_a_bounded_number_of_times(tmp_path):
    def fail():
        (tmp_path / str(os.getpid())).touch()
        raise ValueError("no start")

    with shoal.Pool(2, initializer=fail) as pool:
        result = pool.apply_async(square, (1,))
        with pytest.raises(shoal.PoolBroken):
            result.get(TIMEOUT)
    assert len(list(tmp_path.iterdir())) <= 4


@pytest.mark.parametrize("how", ["exit", "signal"])  # killed by others, which takes long: tests/points/in_vain.py
def test_workers_that_die_at_their_start_break_the_pool(how):
    def die():
        os._exit(3) if how == "exit" else os.kill(os.getpid(), signal.SIGVTALRM)

    with shoal.Pool(2, initializer=die) as pool:
        with pytest.raises(shoal.PoolBroken, match="SIGVTALRM|exit code 3"):
            pool.apply(square, (1,))
