# SPDX-License-Identifier: BSD-3-Clause
"""Lines that workers print, and warnings, reach the parent: whole, in order, through its own streams and filters."""

import atexit
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

import shoal
from tasks import TIMEOUT, works

pytestmark = pytest.mark.leakcheck
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(scope="module", autouse=True)
def helpers():
    """Processes that multiprocessing keeps from the first start on."""
    for method in METHODS[1:]:
        with shoal.Pool(1, context=method) as pool:
            pool.apply(abs, (1,))


def complain(text="careful", category=UserWarning):
    warnings.warn(text, category, stacklevel=1)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_printed_goes_to_the_parents_stdout_and_stderr(method):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with shoal.Pool(2, context=method) as pool:
            pool.apply(print, ("one", 2))
            pool.apply(print, (), {"end": "three\nfour\n"})
            pool.apply(lambda: print("error", file=sys.stderr))
    assert out.getvalue() == "one 2\nthree\nfour\n"
    assert err.getvalue() == "error\n"


def test_capsys_sees_it(capsys):
    with shoal.Pool(1) as pool:
        pool.apply(print, ("seen",))
    assert capsys.readouterr().out == "seen\n"


def test_a_stream_that_is_replaced_later_sees_it_if_asked_for():
    with shoal.Pool(1, forward=True) as pool:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            pool.apply(print, ("later",))
        assert out.getvalue() == "later\n"


def print_in_pieces(n):
    for piece in ("a", "b", "c"):
        print(piece * 10, end=" ")
    print(n)


def test_lines_are_whole_whoever_prints_at_the_same_time():
    def in_threads(n):
        threads = [threading.Thread(target=print_in_pieces, args=(100 * n + k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(4) as pool:
        pool.map(in_threads, range(100), chunksize=1)
    wanted = {f"{'a' * 10} {'b' * 10} {'c' * 10} {100 * n + k}" for n in range(100) for k in range(4)}
    lines = out.getvalue().splitlines()
    assert len(lines) == 400 and set(lines) == wanted


def test_a_line_without_an_end_comes_when_the_worker_ends():
    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1) as pool:
        pool.apply(print, ("begun",), {"end": ""})
        assert out.getvalue() == ""
        pool.apply(print, (", ended; ",), {"end": "", "flush": True})
        pool.close()
        pool.join()
    assert out.getvalue() == "begun, ended; "


def test_a_line_that_is_written_over_comes_when_it_is_flushed():
    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1) as pool:
        for share in (10, 20):
            pool.apply(print, (f"\r{share} %",), {"end": "", "flush": True})
        assert out.getvalue() == "\r10 %\r20 %"


@pytest.mark.parametrize("method", METHODS)
def test_more_than_the_ring_holds_comes_whole(method):
    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(2, context=method) as pool:
        pool.apply(print, ("x" * 3_000_000,))
        pool.map(print, ["y" * 50_000] * 40)
    lines = out.getvalue().split("\n")
    assert lines[0] == "x" * 3_000_000
    assert lines[1:] == ["y" * 50_000] * 40 + [""]


def test_an_initializer_that_says_more_than_the_ring_holds_ends():
    def chatter():
        for n in range(3000):
            print(n, "." * 200)

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1, initializer=chatter) as pool:
        pool.apply(abs, (1,))
    assert [line.split()[0] for line in out.getvalue().splitlines()] == [str(n) for n in range(3000)]


def test_an_exit_function_that_says_more_than_the_ring_holds_ends():
    def chatter(worker):
        for n in range(3000):
            print(n, "." * 200)

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1, worker_exit=chatter) as pool:
        pool.apply(abs, (1,))
        pool.close()
        pool.join()
    assert [line.split()[0] for line in out.getvalue().splitlines()] == [str(n) for n in range(3000)]


class Chatty:
    """Says something while it is pickled as a result, more than the ring holds."""

    def __init__(self, lines):
        self.lines = lines

    def __reduce__(self):
        for n in range(self.lines):
            print("pickled", n, "." * 200)
        return Chatty, (self.lines,)


@pytest.mark.parametrize("lines", [1, 3000])
def test_what_is_said_while_a_result_is_pickled_comes_after_it(lines):
    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1) as pool:
        assert pool.apply(Chatty, (lines,)).lines == lines
        assert [one.lines for one in pool.map(Chatty, [1, 1, 1], chunksize=3)] == [1] * 3
        assert pool.map(abs, range(100)) == list(range(100))
        pool.close()
        pool.join()
    assert out.getvalue().count("pickled") == lines + 3


def test_threads_of_a_worker_say_something_between_tasks_and_while_results_are_written():
    def chatter():
        for n in range(2000):
            print("thread", n)

    def begin():
        thread = threading.Thread(target=chatter)
        atexit.register(thread.join)
        thread.start()

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1) as pool:
        pool.apply(begin)
        for n in range(100):
            assert pool.apply(bytes, (n * 3000,)) == bytes(n * 3000)
            assert pool.map(abs, range(200)) == list(range(200))
        pool.close()
        pool.join()
    assert out.getvalue().splitlines() == [f"thread {n}" for n in range(2000)]


def test_a_batch_of_plain_results_goes_on_between_lines():
    def say(n):
        if n % 7 == 0:
            print(n)
        return n

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(2) as pool:
        assert pool.map(say, range(5000)) == list(range(5000))
    assert sorted(map(int, out.getvalue().split())) == list(range(0, 5000, 7))


def test_a_signal_handler_may_print_in_the_midst_of_printing():
    def task():
        count = 0

        def handle(number, frame):
            nonlocal count
            count += 1
            print("signal", count)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for n in range(2000):
            print("line", n)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return count

    with contextlib.redirect_stdout(io.StringIO()) as out, shoal.Pool(1) as pool:
        count = pool.apply(task)
        assert works(pool)
    lines = out.getvalue().replace("signal", "\nsignal").split("\n")
    assert sum(line.startswith("signal") for line in lines) == count


def test_a_child_that_a_task_forks_writes_to_the_stream_that_was_there(capfd):
    def task():
        pid = os.fork()
        if pid == 0:
            print("from a child", flush=True)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    with shoal.Pool(1) as pool:
        assert pool.apply(task) == 0
        assert works(pool)
    assert "from a child\n" in capfd.readouterr().out


def test_descriptors_and_programs_write_as_ever(capfd):
    def task():
        os.write(1, b"raw\n")
        subprocess.run(["echo", "program"], check=True)
        return sys.stdout.fileno(), sys.stdout.encoding.lower().replace("-", "")

    with shoal.Pool(1) as pool:
        assert pool.apply(task)[1] == "utf8"
    assert capfd.readouterr().out == "raw\nprogram\n"


def test_a_script_prints_as_it_did(fresh_python):
    """Nothing stands between a worker and the standard output that it shares with its parent."""
    done = fresh_python("""
        import sys, shoal
        with shoal.Pool(1) as pool:
            print(pool.apply(lambda: type(sys.stdout).__name__), flush=True)
            pool.apply(print, ("direct",))
    """)
    assert done.stdout == "TextIOWrapper\ndirect\n"


# ---- warnings ----


def shown(pool_of, use):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with pool_of() as pool:
            use(pool)
    return [(str(one.message), one.category, os.path.basename(one.filename)) for one in caught]


@pytest.mark.parametrize("method", METHODS)
def test_a_warning_is_shown_by_the_parent_once_for_all_workers(method):
    def use(pool):
        pool.map(complain, ["the same"] * 40, chunksize=1)

    caught = shown(lambda: shoal.Pool(4, context=method), use)
    assert [one for one in caught if one[0] == "the same"] == [("the same", UserWarning, os.path.basename(__file__))]


def test_the_parents_filters_are_the_workers():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "hush")
        warnings.filterwarnings("error", "fatal")
        with shoal.Pool(1) as pool:
            pool.apply(complain, ("hush now",))
            with pytest.raises(UserWarning, match="fatal"):
                pool.apply(complain, ("fatal",))
            for _ in range(3):
                pool.apply(complain, ("again",))
    assert [str(one.message) for one in caught if one.category is UserWarning] == ["again"] * 3


def test_a_category_of_the_tasks_own_is_shown():
    def task():
        class Own(UserWarning):
            pass

        class Stubborn(RuntimeWarning):
            def __reduce__(self):
                raise TypeError("stays here")

        complain(Own("x"))
        complain(Stubborn("y"))

    caught = shown(lambda: shoal.Pool(1), lambda pool: pool.apply(task))
    assert [(text, category.__name__) for text, category, _ in caught if text in "xy"] == [
        ("x", "Own"),
        ("y", "UserWarning"),
    ]


def test_a_task_that_records_warnings_keeps_them():
    def recorded():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            complain("mine")
        return [str(one.message) for one in caught]

    caught = shown(lambda: shoal.Pool(1), lambda pool: pool.apply(recorded) == ["mine"] or pytest.fail("not recorded"))
    assert "mine" not in [text for text, _, _ in caught]


def test_a_stream_that_raises_harms_nothing_else(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(type(unraisable.exc_value)))

    class Full(io.StringIO):
        def write(self, text):
            if "bad" in text:
                raise OSError(28, "No space left on device")
            return super().write(text)

    with contextlib.redirect_stdout(Full()) as out, shoal.Pool(1) as pool:
        for text in ("good", "bad", "good again"):
            pool.apply(print, (text,))
        assert pool.apply_async(abs, (-1,)).get(TIMEOUT) == 1
    assert out.getvalue() == "good\ngood again\n"
    assert seen == [OSError]
