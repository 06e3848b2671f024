# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.get_reusable_executor`: one executor for all who ask, with the behaviour of loky's."""

import os
import signal
import threading
import time

import pytest

import shoal
from processes import wait_until_gone
from resizing import let_go, pids, settle
from shoal import _reusable
from tasks import TIMEOUT, square

METHODS = ["fork", "spawn", "forkserver"]
# pytest keeps each warning: from 3.12 on Python warns of a fork while there are threads.
pytestmark = [pytest.mark.leakcheck, pytest.mark.filterwarnings("ignore:.*fork.*")]


@pytest.fixture(autouse=True)
def over():
    """None is left from another test, nor for one."""
    yield
    executor, _reusable._Current.executor, _reusable._Current.asked = _reusable._Current.executor, None, None
    if executor is not None:
        executor.shutdown()


def get(workers=2, **asked):
    return shoal.get_reusable_executor(workers, **asked)


# ---- one for all ----


@pytest.mark.parametrize("method", METHODS)
def test_who_asks_for_the_same_gets_the_same(no_main, method):
    executor = get(context=method)
    assert executor.submit(square, 3).result() == 9
    workers = pids(executor)
    assert get(context=method) is executor
    assert pids(executor) == workers


def test_who_asks_for_another_size_gets_it_resized():
    executor = get(1)
    first = executor.submit(os.getpid).result()
    assert get(3) is executor
    assert settle(executor, 3)[0] == first
    assert get(1) is executor
    assert settle(executor, 1) == [first]


def test_it_is_resized_while_calls_are_under_way(gate):
    executor = get(2)
    running = [gate.block(executor) for _ in range(2)]
    waiting = [executor.submit(square, n) for n in range(20)]
    assert get(3) is executor
    assert [call.result(TIMEOUT) for call in waiting] == [n * n for n in range(20)]  # by the third
    assert get(1) is executor
    gate.open(2)
    assert [call.result(TIMEOUT) for call in running] == ["go", "go"]


def test_other_arguments_mean_another_one_unless_it_is_good_enough():
    executor = get(2)
    assert get(2, timeout=11) is not executor
    executor = get(2, timeout=11)
    assert get(2, reuse=True) is executor
    assert shoal.get_reusable_executor(reuse=True) is executor
    assert executor._max_workers == 2
    assert get(2, timeout=11, reuse=False) is not executor
    executor = get(2, initializer=abs, initargs=[-1])
    assert get(2, initializer=abs, initargs=(-1,)) is executor
    assert get(2, initializer=abs, initargs=(-2,)) is not executor
    assert get(2, worker_threads=1).submit(os.getenv, "OMP_NUM_THREADS").result() == "1"


def test_more_workers_than_there_is_room_for_mean_another_one():
    executor = get(1, resizable_to=2)
    executor.submit(abs, 1).result()
    room = executor._lifetime.engine.room
    other = get(room + 1, resizable_to=2)
    assert other is not executor
    assert other.submit(square, 2).result() == 4


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_that_makes_no_sense_is_refused(workers):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        get(workers)


def test_other_nonsense_is_refused():
    with pytest.raises(ValueError, match="reuse"):
        get(reuse="perhaps")
    with pytest.raises(ValueError, match="timeout"):
        get(timeout=-1)
    with pytest.raises(ValueError, match="by hand"):
        get(context="by hand")


# ---- idle ----


def test_workers_that_have_nothing_to_do_end_in_order_and_the_next_call_starts_others(doorbell, tmp_path):
    executor = get(2, timeout=0.02, worker_exit=lambda worker: (tmp_path / str(os.getpid())).touch())
    before = executor.submit(os.getpid).result()
    let_go(executor)
    deadline = time.monotonic() + TIMEOUT
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    wait_until_gone([before], TIMEOUT)
    assert (tmp_path / str(before)).exists()
    assert executor.submit(square, 5).result(TIMEOUT) == 25
    assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_nobody_is_idle_while_a_call_is_under_way(gate):
    executor = get(1, timeout=0.01)
    running = gate.block(executor)
    time.sleep(0.3)  # many times the timeout: it would have ended by then
    assert executor._lifetime is not None
    gate.open()
    assert running.result(TIMEOUT) == "go"
    let_go(executor)


def test_results_of_a_map_that_nobody_has_taken_are_not_lost():
    executor = get(1, timeout=0.01)
    results = executor.map(square, range(1000))
    assert next(results) == 0
    time.sleep(0.2)
    assert list(results) == [n * n for n in range(1, 1000)]


def test_without_a_timeout_workers_stay():
    executor = get(1, timeout=None)
    first = executor.submit(os.getpid).result()
    time.sleep(0.2)
    assert executor.submit(os.getpid).result() == first


def test_an_idle_one_is_resized_when_it_starts_again():
    executor = get(1, timeout=0.02)
    executor.submit(abs, 1).result()
    let_go(executor)
    assert get(2, timeout=0.02) is executor
    assert executor.submit(square, 2).result() == 4
    assert executor._max_workers == 2


# ---- made anew ----


def test_one_that_was_shut_down_is_made_anew():
    executor = get()
    executor.submit(abs, 1).result()
    executor.shutdown()
    other = get()
    assert other is not executor
    assert other.submit(square, 4).result() == 16
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_one_that_is_broken_is_made_anew(tmp_path):
    def begin():
        if not (tmp_path / "well").exists():
            raise LookupError("not well")

    executor = get(1, initializer=begin)
    with pytest.raises(shoal.PoolBroken, match="not well"):
        executor.submit(abs, 1).result()
    (tmp_path / "well").touch()
    other = get(1, initializer=begin)
    assert other is not executor
    assert other.submit(square, 4).result() == 16


def test_a_worker_that_dies_does_not_break_it():
    executor = get(1)
    with pytest.raises(shoal.WorkerLost):
        executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL)).result()
    assert get(1) is executor
    assert executor.submit(square, 4).result() == 16


def test_one_whose_workers_were_killed_is_made_anew():
    executor = get(1)
    executor.submit(abs, 1).result()
    executor.kill_workers()
    assert get(1) is not executor
    assert get(1).submit(square, 4).result() == 16


def test_what_the_one_before_does_is_waited_for_or_killed(gate):
    executor = get(1)
    running = gate.block(executor)
    other = get(1, timeout=11, kill_workers=True)
    assert other is not executor
    with pytest.raises(shoal.WorkerLost):
        running.result(TIMEOUT)
    gate.open()  # for the next
    running = gate.block(other)
    last = get(1, timeout=12)
    assert running.done()
    assert last.submit(square, 4).result() == 16


def test_who_still_has_the_one_before_goes_on_with_the_new_one():
    executor = get(1)
    executor.submit(abs, 1).result()
    other = get(1, timeout=11)
    assert executor.submit(os.getpid).result() == other.submit(os.getpid).result()
    assert executor.submit(divmod, *(7, 2)).result() == (3, 1)
    assert list(executor.map(square, range(3))) == [0, 1, 4]
    with pytest.raises(TypeError, match="lock"):
        executor.submit(len, threading.Lock()).result()


def test_a_forked_child_and_a_worker_have_their_own(gate):
    def inside():
        executor = shoal.get_reusable_executor(1)
        answer = executor.submit(os.getppid).result(), executor.submit(os.getpid).result()
        executor.shutdown()
        return answer

    executor = get(1)
    worker = executor.submit(os.getpid).result()
    parent, grandchild = executor.submit(inside).result(TIMEOUT)
    assert parent == worker
    assert grandchild not in (worker, os.getpid())


def test_the_interpreter_ends_quietly_with_one_that_is_open_or_going(fresh_python):
    source = """
        import shoal, sys, time
        executor = shoal.get_reusable_executor(2, timeout=float(sys.argv[1]))
        executor.submit(abs, -1).result()
        time.sleep(0.05)
        later = executor.submit(pow, 2, 3)
        later.add_done_callback(lambda call: print(call.result()))
    """
    for timeout in ("10", "0.001"):
        done = fresh_python(source, timeout)
        assert done.stdout == "8\n"
        assert done.stderr == ""
