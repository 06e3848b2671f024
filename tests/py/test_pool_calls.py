# SPDX-License-Identifier: BSD-3-Clause
"""Single calls of `shoal.Pool`: which functions, arguments and results make the way to a worker and back."""

import multiprocessing
import multiprocessing.pool
import multiprocessing.resource_sharer
import os

import pytest

from tasks import TIMEOUT, add, fail_on_three, square

pytestmark = pytest.mark.leakcheck


def test_apply_returns_what_the_function_returns(pool):
    assert pool.apply(square, (7,)) == 49
    assert pool.apply(add, (1,), {"b": 2, "c": 3}) == 6
    assert pool.apply(dict) == {}


def test_apply_accepts_any_iterable_of_arguments(pool):
    assert pool.apply(add, [1, 2]) == 3
    assert pool.apply(add, iter((1, 2))) == 3
    assert pool.apply_async(add, [1, 2]).get(TIMEOUT) == 3


def test_the_function_runs_in_a_worker(pool):
    pids = {worker.pid for worker in pool._pool}
    assert len(pids) == 2
    assert pool.apply(os.getpid) in pids
    assert os.getpid() not in pids


def test_apply_raises_what_the_function_raised(pool):
    with pytest.raises(ValueError, match="no 3"):
        pool.apply(fail_on_three, (3,))


def test_the_cause_of_an_exception_is_the_workers_traceback(pool):
    with pytest.raises(ValueError) as caught:
        pool.apply(fail_on_three, (3,))
    cause = caught.value.__cause__
    assert isinstance(cause, multiprocessing.pool.RemoteTraceback)
    assert "fail_on_three" in str(cause)
    assert 'raise ValueError(f"no {x}")' in str(cause)


def test_lambdas_closures_and_nested_functions_can_be_called(pool):
    factor = 3

    def scale(x):
        return x * factor

    assert pool.apply(lambda x: x + 1, (1,)) == 2
    assert pool.map(scale, range(5)) == [0, 3, 6, 9, 12]


def test_a_changed_closure_is_sent_anew(pool):
    factor = 2

    def scale(x):
        return x * factor

    assert pool.apply(scale, (10,)) == 20
    factor = 5
    assert pool.apply(scale, (10,)) == 50


def test_a_list_that_a_closure_captured_is_fresh_for_every_task(pool):
    seen = []

    def remember(x):
        seen.append(x)
        return list(seen)

    assert [pool.apply(remember, (x,)) for x in range(3)] == [[0], [1], [2]]
    assert seen == []


def test_an_argument_is_what_it_was_when_it_was_sent(pool):
    argument = [1, 2, 3]
    result = pool.apply_async(sum, (argument,))
    argument.clear()
    assert result.get(TIMEOUT) == 6


def test_what_a_task_does_to_its_argument_the_caller_does_not_see(pool):
    argument = [1]
    pool.apply(list.append, (argument, 2))
    assert argument == [1]


# ---- what travels ----


def test_reducers_of_forking_pickler_are_honoured(pool):
    """Connections travel by them, as in multiprocessing's own pool; so do torch's tensors."""
    mine, theirs = multiprocessing.Pipe()
    try:
        result = pool.apply_async(theirs.recv)
        mine.send("over the pipe")
        assert result.get(TIMEOUT) == "over the pipe"
    finally:
        mine.close()
        theirs.close()
        multiprocessing.resource_sharer.stop(TIMEOUT)


def test_a_large_argument_and_result_make_the_round(pool):
    blob = os.urandom(1 << 20) * 8
    assert pool.apply(bytes, (blob,)) == blob
    assert pool.map(len, [blob] * 4) == [len(blob)] * 4


def test_exceptions_of_the_main_script_are_caught_by_their_class(fresh_python):
    done = fresh_python("""
        import shoal

        class Trouble(Exception):
            pass

        def task():
            raise Trouble("here")

        with shoal.Pool(1) as pool:
            try:
                pool.apply(task)
            except Trouble as error:
                print("caught", error)
    """)
    assert done.stdout == "caught here\n"


def test_objects_of_the_main_script_come_back_as_their_own_class(fresh_python):
    done = fresh_python("""
        import shoal

        class Thing:
            pass

        with shoal.Pool(1) as pool:
            print(isinstance(pool.apply(lambda: Thing()), Thing))
            print(isinstance(pool.apply(lambda x: x, (Thing(),)), Thing))
    """)
    assert done.stdout == "True\nTrue\n"


def test_pandas_frames_travel(pool):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"number": range(1000), "text": [str(n) for n in range(1000)]})
    pandas.testing.assert_frame_equal(
        pool.apply(lambda f: f.assign(double=f.number * 2), (frame,))[["number", "text"]], frame
    )
