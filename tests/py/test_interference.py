# SPDX-License-Identifier: BSD-3-Clause
"""Things that get in each other's way: user code that ends the pool in the midst of one of its steps, forks from
wherever, results that share memory, and workers that write over what they share with the parent."""

import concurrent.futures
import ctypes
import os
import pathlib
import random
import signal
import threading

import pytest

import shoal
from tasks import TIMEOUT, kill_self, works

pytestmark = pytest.mark.leakcheck


def test_an_argument_whose_pickling_terminates_the_pool_gets_an_error(pool):
    class Trap:
        def __reduce__(self):
            pool.terminate()
            return int, ()

    with pytest.raises((ValueError, shoal.PoolTerminated)):
        pool.apply(abs, (Trap(),))
    with pytest.raises((ValueError, shoal.PoolTerminated)):
        pool.apply(abs, (1,))


def test_terminate_during_the_copy_of_a_large_argument_is_an_error_for_the_sender():
    for _ in range(5):
        pool = shoal.Pool(1)
        ender = threading.Thread(target=pool.terminate)
        errors = []
        argument = bytearray(64 << 20)

        def send(pool=pool, argument=argument, errors=errors):
            try:
                while True:
                    pool.apply(len, (argument,))
            except (ValueError, shoal.PoolTerminated) as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        ender.start()
        ender.join(TIMEOUT)
        sender.join(TIMEOUT)
        assert len(errors) == 1


def test_cancel_wakes_the_thread_that_waits_for_the_cancelled_call(gate):
    with shoal.ProcessPoolExecutor(1) as executor:
        gate.block(executor)
        waiting = executor.submit(abs, -1)
        outcome = []

        def wait():
            try:
                outcome.append(waiting.result(TIMEOUT))
            except concurrent.futures.CancelledError as error:
                outcome.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.cancel()
        thread.join(TIMEOUT / 2)  # the worker is still busy
        assert len(outcome) == 1
        assert isinstance(outcome[0], concurrent.futures.CancelledError)
        gate.open()


def test_a_signal_handler_may_terminate_the_pool_while_a_worker_is_replaced():
    pool = shoal.Pool(2)
    previous = signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises((ValueError, shoal.PoolTerminated)):
            while True:
                with pytest.raises(shoal.WorkerLost):
                    pool.apply(os._exit, (1,))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        pool.terminate()


@pytest.mark.parametrize("leave", ["return", "exit"])
def test_the_child_of_a_task_that_forks_does_not_answer_in_the_tasks_place(pool, leave):
    def fork():
        child = os.fork()
        if child == 0:
            if leave == "exit":
                raise SystemExit(7)
            return "child"
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    for _ in range(3):
        assert pool.apply(fork) == (7 if leave == "exit" else 0)
    assert works(pool)


def test_arrays_of_one_result_that_shared_memory_in_the_worker_are_independent(pool):
    numpy = pytest.importorskip("numpy")
    for size in (10, 1 << 20):
        whole, part = pool.apply(lambda a: (a, a[:]), (numpy.zeros(size),))
        whole[0] = 7
        assert part[0] == 0


def test_a_childs_view_of_a_result_keeps_its_contents_while_the_parent_uses_the_memory_again(pool):
    numpy = pytest.importorskip("numpy")

    def sevens():
        return numpy.full(1 << 17, 7.0)

    array = pool.apply(sevens)
    go, now = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go, 1)
        os._exit(0 if (array == 7).all() else 1)
    del array
    for _ in range(20):
        pool.apply(sevens)[:] = 9
    os.write(now, b".")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go)
    os.close(now)


def scribble(seed, chunk):
    """Write over what this worker shares with others, wherever it may write."""
    dice = random.Random(seed)
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if "memfd" not in line or fields[1] != "rw-s":
            continue
        start, end = (int(address, 16) for address in fields[0].split("-"))
        if chunk == 0:
            ctypes.memset(start, dice.choice([0, 255]), end - start)
        for _ in range(200 if chunk else 0):
            place = dice.randrange(start, end - chunk + 1)
            ctypes.memmove(place, dice.randbytes(chunk), chunk)


@pytest.mark.parametrize("chunk", [0, 8, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_the_parent_outlives_a_worker_that_writes_over_shared_memory(seed, chunk):
    def scribble_and_die():
        scribble(seed, chunk)
        kill_self()

    with shoal.Pool(2) as pool:
        for task in (scribble_and_die, lambda: scribble(seed, chunk)):
            outcomes = [pool.apply_async(task), *(pool.apply_async(abs, (-n,)) for n in range(4))]
            for outcome in outcomes:
                try:
                    outcome.get(TIMEOUT)
                except (shoal.WorkerLost, RuntimeError, shoal.UnpicklingError):
                    pass  # damaged, and said to be
        answers = 0
        for n in range(20):  # what the last one damaged comes to light with the next tasks
            try:
                answers += pool.apply_async(abs, (-n,)).get(TIMEOUT) == n
            except (shoal.WorkerLost, RuntimeError, shoal.UnpicklingError):
                pass
        assert answers >= 10
