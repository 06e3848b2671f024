# SPDX-License-Identifier: BSD-3-Clause
"""What an attack on the pool brought to light: each defect once, by what is promised instead."""

import concurrent.futures
import inspect
import os
import sys
import textwrap
import threading

import pytest

import shoal
from tasks import TIMEOUT

pytestmark = pytest.mark.leakcheck


# ---- the pool ends under somebody's feet ----


class Pickled:
    """Does something while it is pickled."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()
        return int, ("1",)


@pytest.mark.parametrize("call", ["apply", "map", "imap"])
def test_an_argument_may_end_the_pool_while_it_is_pickled(call):
    pool = shoal.Pool(1)
    argument = [b"x" * 1000, Pickled(pool.terminate), b"y" * 50_000]
    with pytest.raises((shoal.PoolTerminated, ValueError)):
        if call == "apply":
            pool.apply(len, (argument,))
        else:
            list(getattr(pool, call)(len, [argument, argument]))
    pool.join()


def test_another_thread_may_terminate_the_pool_while_a_large_argument_is_copied():
    large = bytearray(16 << 20)
    for _ in range(10):
        pool = shoal.Pool(1)
        begun = threading.Event()
        outcome = []

        def submit_for_ever(pool=pool, begun=begun, outcome=outcome):
            try:
                while True:
                    begun.set()
                    pool.apply_async(len, (large,))
            except (shoal.PoolTerminated, ValueError) as error:
                outcome.append(error)

        thread = threading.Thread(target=submit_for_ever)
        thread.start()
        begun.wait()
        pool.terminate()
        thread.join()
        assert len(outcome) == 1


def test_a_signal_handler_may_terminate_the_pool_while_a_death_is_dealt_with(fresh_python):
    fresh_python(
        """
        import os, random, signal, shoal
        signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
        for _ in range(150):
            pool = shoal.Pool(2)
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-2))
            try:
                while True:
                    try:
                        pool.apply(os._exit, (1,))
                    except shoal.WorkerLost:
                        pass
            except (shoal.PoolTerminated, shoal.PoolBroken, ValueError):
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            pool.terminate()
            pool.join()
        """
    )


@pytest.mark.parametrize("kind", ["callback", "done callback"])
def test_ctrl_c_in_a_callback_reaches_the_main_program(fresh_python, kind):
    source = """
        import os, signal, shoal, sys, threading
        pressed = []
        def call_back(result):
            if threading.current_thread() is threading.main_thread() and not pressed:
                pressed.append(True)
                os.kill(os.getpid(), signal.SIGINT)
        def go_round():
            if sys.argv[1] == "callback":
                pool.apply_async(abs, (1,), callback=call_back).get()
            else:
                future = executor.submit(abs, 1)
                future.add_done_callback(call_back)
                future.result()
        with shoal.Pool(1) as pool, shoal.ProcessPoolExecutor(1) as executor:
            try:
                while not pressed:
                    go_round()
                for _ in range(100):
                    go_round()
            except KeyboardInterrupt:
                print("interrupted")
    """
    done = fresh_python(source, kind)
    assert done.stdout == "interrupted\n"
    assert done.stderr == ""


# ---- whoever waits is told ----


@pytest.mark.parametrize("how", ["cancel", "set_result"])
def test_an_outcome_from_another_thread_wakes_the_one_who_waits(gate, how):
    with shoal.ProcessPoolExecutor(1) as executor:
        blocked = gate.block(executor)
        for _ in range(5):
            future = executor.submit(abs, 1)
            begun = threading.Event()
            outcome = []

            def wait(future=future, begun=begun, outcome=outcome):
                begun.set()
                try:
                    outcome.append(future.result())
                except concurrent.futures.CancelledError:
                    outcome.append("cancelled")

            thread = threading.Thread(target=wait)
            thread.start()
            begun.wait()
            thread.join(0.02)  # it cannot end: this only lets it fall asleep
            assert future.cancel() if how == "cancel" else future.set_result(3) is None
            thread.join(TIMEOUT)
            woken = not thread.is_alive()
            if not woken:
                gate.open()
            assert woken
            assert outcome == ["cancelled" if how == "cancel" else 3]
        gate.open()
        assert blocked.result(TIMEOUT) == "go"


def test_results_that_nobody_reads_do_not_hold_up_the_one_that_is_asked_for(fresh_python):
    fresh_python(
        """
        import os, shoal
        read, write = os.pipe()
        with shoal.Pool(2) as pool:
            waits_for_us = pool.apply_async(os.read, (read, 1))
            results = [pool.apply_async(bytes, (4 << 20,)) for _ in range(10)]
            assert len(results[-1].get()) == 4 << 20
            os.write(write, b"x")
            assert waits_for_us.get() == b"x"
        """,
        env={"SHOAL_ARENA_LIMIT": "16M"},
    )


def test_a_hundred_thousand_calls_can_be_cancelled(gate):
    executor = shoal.ProcessPoolExecutor(1)
    gate.block(executor)
    futures = [executor.submit(abs, -1) for _ in range(100_000)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    gate.open()
    executor.shutdown()


# ---- forks ----


def test_several_threads_may_make_pools_at_once(fresh_python):
    done = fresh_python(
        """
        import sys, threading, shoal
        sys.setswitchinterval(1e-6)
        restarts = []
        def make():
            for _ in range(8):
                with shoal.Pool(2) as pool:
                    assert pool.map(abs, range(10)) == list(range(10))
                    restarts.append(pool._engine.stats()["restarts"])
        threads = [threading.Thread(target=make) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(len(restarts), sum(restarts))
        """
    )
    assert done.stdout == "32 0\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("end", ["return", "raise", "exit"])
def test_a_child_that_a_task_forks_does_not_answer_for_it(end):
    def fork():
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[0] == pid
        if end == "raise":
            raise ValueError
        return "from the child" if end == "return" else sys.exit(0)

    with shoal.Pool(1) as pool:
        assert [pool.apply(fork) for _ in range(3)] == [True] * 3
        assert pool._engine.stats()["restarts"] == 0


def test_arrays_that_a_child_of_the_user_saw_are_freed_when_it_is_gone(fresh_python):
    pytest.importorskip("numpy")
    fresh_python(
        """
        import os, numpy, shoal
        def shared_bytes():  # of our memory file: what is in use of it anywhere
            for name in os.listdir("/proc/self/fd"):
                path = f"/proc/self/fd/{name}"
                if os.path.exists(path) and "memfd:shoal " in os.readlink(path):
                    return os.stat(path).st_blocks * 512
        with shoal.Pool(1) as pool:
            def go_round(times):
                for _ in range(times):
                    array = pool.apply(numpy.ones, (1 << 17,))
                    child = os.fork()
                    if child == 0:
                        os._exit(0)
                    os.waitpid(child, 0)
            go_round(5)
            before = shared_bytes()
            go_round(60)
            assert shared_bytes() - before < 30 << 20, (before, shared_bytes())
        """
    )


# ---- arrays ----


def test_arrays_of_a_result_that_share_memory_arrive_apart():
    numpy = pytest.importorskip("numpy")
    with shoal.Pool(1) as pool:
        for task in (lambda x: (x, x[:]), lambda x: (x, x[:80_000]), lambda x: (x[10:], x[:-10])):
            first, second = pool.apply(task, (numpy.zeros(100_000),))
            first[:] = 7
            assert not second.any()


# ---- a worker that writes where it should not ----


def writable_shared_memory():
    import re

    with open("/proc/self/maps") as maps:
        found = [re.match(r"(\w+)-(\w+) rw-s .*/memfd:shoal ", line) for line in maps]
    return [(int(match[1], 16), int(match[2], 16)) for match in found if match]


def test_a_worker_can_write_nothing_that_its_neighbours_read():
    with shoal.Pool(2) as pool:
        bytes_of_two = pool.apply(lambda: sum(end - start for start, end in writable_shared_memory()))
    with shoal.Pool(6) as pool:
        bytes_of_six = pool.apply(lambda: sum(end - start for start, end in writable_shared_memory()))
    assert 0 < bytes_of_two < 1 << 20  # its own result ring, mapped three times, and words; not the task ring
    assert bytes_of_six - bytes_of_two < 64 << 10  # and not the rings of the others


def overwrite(byte, die):
    import ctypes

    for start, end in writable_shared_memory():
        ctypes.memset(start, byte, end - start)
    if die:
        os._exit(0)


@pytest.mark.parametrize("die", [True, False])
@pytest.mark.parametrize("byte", [0x00, 0x55, 0xFF])
def test_a_worker_that_writes_over_all_it_can_hangs_nobody(byte, die):
    with shoal.Pool(2) as pool:
        results = [pool.apply_async(overwrite, (byte, die))]
        results += [pool.apply_async(bytes, (200_000,)) for _ in range(4)]
        for result in results:
            result.wait(TIMEOUT)
            assert result.ready()


def test_a_worker_that_writes_over_random_words_hangs_nobody(fresh_python):
    script = """
        import ctypes, os, random, shoal

        def poke(seed, die):
            chance = random.Random(seed)
            for start, end in writable_shared_memory():
                for _ in range(200):
                    ctypes.memmove(chance.randrange(start, end - 8), chance.randbytes(8), 8)
            if die:
                os._exit(0)

        for seed in range(12):
            with shoal.Pool(2) as pool:
                for round in range(3):
                    calls = [pool.apply_async(poke, (10 * seed + round, seed % 2))]
                    calls += [pool.apply_async(bytes, (200_000,)) for _ in range(3)]
                    for call in calls:
                        call.wait(30)
                        assert call.ready(), (seed, round)
    """
    fresh_python(inspect.getsource(writable_shared_memory) + textwrap.dedent(script), timeout=100)
