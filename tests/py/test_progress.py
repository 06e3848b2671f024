# SPDX-License-Identifier: BSD-3-Clause
"""progress=: what a bar shows, when it ends, and that it never harms the call that it belongs to."""

import contextlib
import fcntl
import multiprocessing
import os
import re
import signal
import struct
import sys
import termios
import textwrap
import threading
import time
import warnings

import pytest
import tqdm

import shoal
from tasks import TIMEOUT, fail_on_three, kill_self, square, works

pytestmark = pytest.mark.leakcheck

FAIL_TO_DRAW = [OSError(28, "No space left on device"), ValueError("I/O operation on closed file"), RuntimeError("no")]


@pytest.fixture(autouse=True, scope="module")
def locks_of_tqdm():
    tqdm.tqdm.get_lock()  # made once and kept: they lie in shared memory


def wait_until(holds):
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Bars:
    """A class of bars that remember; called as tqdm is."""

    def __init__(self):
        self.made = []

    def __call__(self, total):
        self.made.append(Bar(total))
        return self.made[-1]

    @property
    def only(self):
        assert len(self.made) == 1
        return self.made[0]


class Bar:
    def __init__(self, total):
        self.total, self.n, self.closed, self.cleared = total, 0, 0, 0

    def update(self, more):
        assert more > 0 and not self.closed
        self.n += more

    def close(self):
        self.closed += 1


@pytest.fixture
def bars():
    return Bars()


CALLS = {
    "map": lambda pool, items, **how: pool.map(square, items, **how),
    "map in chunks": lambda pool, items, **how: pool.map(square, items, 7, **how),
    "starmap": lambda pool, items, **how: pool.starmap(square, [(x,) for x in items], **how),
    "imap": lambda pool, items, **how: list(pool.imap(square, items, **how)),
    "imap in chunks": lambda pool, items, **how: list(pool.imap(square, items, 7, **how)),
    "imap_unordered": lambda pool, items, **how: sorted(pool.imap_unordered(square, items, **how)),
    "map_async": lambda pool, items, **how: pool.map_async(square, items, **how).get(TIMEOUT),
    "with callbacks": lambda pool, items, **how: pool.map_async(square, items, callback=bool, **how).get(TIMEOUT),
    "starmap_async": lambda pool, items, **how: pool.starmap_async(square, [(x,) for x in items], **how).get(TIMEOUT),
}


@pytest.mark.parametrize("limits", [{}, {"retries": 1}, {"timeout": TIMEOUT}], ids=["plain", "retries", "timeout"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_map_like_call_has_a_bar_that_ends_full(pool, bars, call, limits):
    assert call(pool, range(50), progress=bars, **limits) == [x * x for x in range(50)]
    assert (bars.only.total, bars.only.n, bars.only.closed) == (50, 50, 1)


@pytest.mark.parametrize("limits", [{}, {"retries": 1}], ids=["plain", "retries"])
def test_an_executors_map_has_one_too(executor, bars, limits):
    view = executor.options(**limits)
    assert list(view.map(pow, range(5, 20), range(10), progress=bars)) == [(x + 5) ** x for x in range(10)]
    assert (bars.only.total, bars.only.n, bars.only.closed) == (10, 10, 1)


def test_options_give_every_call_one_and_a_call_can_refuse_it(bars):
    with shoal.Pool(1, progress=bars) as pool:
        assert pool.map(square, range(3)) == [0, 1, 4]
        assert pool.map(square, range(3), progress=False) == [0, 1, 4]
        assert pool.apply(square, (3,)) == 9
    with shoal.ProcessPoolExecutor(1) as executor:
        assert list(executor.options(progress=bars).map(square, range(3))) == [0, 1, 4]
        assert executor.options(progress=bars).submit(square, 3).result() == 9
    assert [(bar.total, bar.n, bar.closed) for bar in bars.made] == [(3, 3, 1)] * 2


def test_what_is_empty_has_an_empty_bar(pool, bars):
    assert pool.map(square, [], progress=bars) == list(pool.imap(square, [], progress=bars)) == []
    assert [(bar.total, bar.n, bar.closed) for bar in bars.made] == [(0, 0, 1)] * 2


def test_a_generator_has_no_total(pool, bars):
    assert list(pool.imap(square, (x for x in range(30)), progress=bars)) == [x * x for x in range(30)]
    assert (bars.only.total, bars.only.n, bars.only.closed) == (None, 30, 1)


@pytest.mark.parametrize("size", [1, 200], ids=["in a run", "of their own"])
def test_elements_count_when_they_end_and_not_with_their_chunk(gate, bars, size):
    with shoal.Pool(1) as pool:

        def task(x):
            return gate.wait() if x == 3 else bytes(size * x)

        result = pool.map_async(task, range(5), 5, progress=bars)
        wait_until(lambda: bars.only.n == 3)
        assert not result.ready()
        gate.open()
        assert result.get(TIMEOUT)[3] == "go" and bars.only.n == 5


def test_it_moves_and_ends_while_nobody_asks_for_results(pool, bars):
    results = pool.map_async(square, range(20), progress=bars)
    wait_until(lambda: bars.only.n == 20 and bars.only.closed)
    assert results.get(TIMEOUT) == [x * x for x in range(20)]


def test_many_calls_have_one_thread_which_ends_with_them(gate, bars):
    def drawing():
        return [one.name for one in threading.enumerate()].count("shoal-bars")

    with shoal.Pool(2) as pool:
        calls = [pool.map_async(lambda x: gate.wait(), range(4), progress=bars) for _ in range(5)]
        drawn_by = drawing()
        gate.open(20)
        for call in calls:
            call.get(TIMEOUT)
        assert drawn_by == 1
        wait_until(lambda: drawing() == 0)
        assert pool.map(square, range(3), progress=bars) == [0, 1, 4]  # and comes again
    assert [bar.n for bar in bars.made] == [4] * 5 + [3]


# ---- ends that are no good ----


def test_an_error_of_a_map_comes_after_the_bar_has_ended(pool, bars):
    with pytest.raises(ValueError, match="no 3"):
        pool.map(fail_on_three, range(8), progress=bars)
    assert bars.only.closed == 1


def test_an_error_of_one_element_does_not_end_the_bar_of_the_others(pool, bars):
    results = pool.imap(fail_on_three, range(8), progress=bars)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(results)
    assert list(results) == [4, 5, 6, 7]
    assert (bars.only.n, bars.only.closed) == (8, 1)


@pytest.mark.parametrize("end", ["cancel", "drop", "terminate"])
@pytest.mark.parametrize("call", ["map_async", "imap"])
def test_it_ends_with_its_call(gate, bars, call, end):
    with shoal.Pool(1) as pool:
        result = getattr(pool, call)(lambda x: gate.wait(), range(500), progress=bars)
        assert os.read(gate.running[0], 1) == b"."
        if end == "cancel":
            assert result.cancel() is not False
        elif end == "terminate":
            pool.terminate()
        elif call == "imap":
            del result
        else:
            gate.open(500)
            del result  # a map is done all the same
            pool.close()
            pool.join()
        wait_until(lambda: bars.only.closed == 1)


def test_a_dead_worker_is_replaced_while_bars_are_drawn(bars):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a fork beside threads
        with shoal.Pool(2) as pool:
            waiting = pool.map_async(time.sleep, [0.01] * 100, 1, progress=bars)
            for _ in range(5):
                with pytest.raises(shoal.WorkerLost):
                    pool.apply(kill_self)
            with contextlib.suppress(shoal.WorkerLost):
                waiting.get(TIMEOUT)
            assert works(pool)
    assert bars.only.closed == 1


@pytest.mark.parametrize("error", FAIL_TO_DRAW, ids=["disk full", "closed", "bug"])
def test_a_bar_that_cannot_be_drawn_is_given_up_and_the_call_goes_on(pool, error):
    class Broken(Bar):
        def update(self, more):
            raise error

        refresh = update

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pool.map(square, range(9), progress=Broken) == [x * x for x in range(9)]
        assert list(pool.imap(square, range(9), progress=Broken)) == [x * x for x in range(9)]
    said = [str(one.message) for one in caught if "progress bar" in str(one.message)]
    assert len(said) == (2 if isinstance(error, RuntimeError) else 0), caught


def test_a_class_that_makes_no_bar_is_an_error_before_anything_is_sent(pool, tmp_path):
    def refuses(total):
        raise KeyError("no bar")

    def touch(x):
        (tmp_path / "touched").touch()

    for call in (pool.map, pool.imap, pool.map_async):
        with pytest.raises(KeyError, match="no bar"):
            call(touch, range(3), progress=refuses)
    assert works(pool)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [3, 1.5, b"text", ["x"]])
def test_what_cannot_be_meant_is_refused(pool, wrong):
    with pytest.raises(TypeError, match="progress must be True, a description, or a class"):
        pool.map(square, range(3), progress=wrong)


def test_without_tqdm_the_error_says_what_to_do(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs|install it \(pip install tqdm\), or give a class"):
        pool.map(square, range(3), progress=True)
    assert works(pool)


def test_a_timeout_of_next_is_no_end(gate, bars):
    with shoal.Pool(1) as pool:
        results = pool.imap(lambda x: gate.wait(), range(2), progress=bars)
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(0.01)
        assert not bars.only.closed
        gate.open(2)
        assert list(results) == ["go", "go"]


# ---- what is written ----

SCRIPT = """
    import os, sys, time, tqdm, shoal
    def task(x):
        if x == "die": raise ValueError("no such thing")
        time.sleep(0.002)
        return x
    def nested(x):
        for _ in tqdm.tqdm(range(3), desc=f"inner {x}", leave=False): time.sleep(0.001)
        return x
    if __name__ == "__main__":
        with shoal.Pool(2) as pool:
            %s
        print("end")
"""


def in_terminal(tmp_path, line, when=None, do=None, columns=100):
    """What the script writes to its terminal, and its status. `do(terminal)` when it has written `when`."""
    import pty

    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) % line)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, str(script)], {**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    said = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen, contextlib.suppress(OSError):  # EIO: it is closed
        while more := screen.read(10000):
            said += more
            if when is not None and re.search(when, said):
                when = None
                do(screen)
    _, status = os.waitpid(pid, 0)
    return said.decode(), status


@pytest.mark.parametrize("columns", [100, 0], ids=["100 columns", "no size"])
def test_on_a_terminal_it_is_one_line_that_ends_before_the_programs_own(tmp_path, columns):
    said, status = in_terminal(tmp_path, 'pool.map(task, range(300), progress="working")', columns=columns)
    assert status == 0 and said.endswith("end\r\n")
    lines = said.split("\r\n")
    assert lines[1:] == ["end", ""], said
    last = lines[0].split("\r")[-1]
    assert last.startswith("working: 100%") and "300/300" in last and "it/s" in last


def test_it_says_where_the_time_of_the_workers_goes(tmp_path):
    said, _ = in_terminal(tmp_path, 'pool.map(task, range(300), progress="working")')
    last = said.split("\r\n")[0].split("\r")[-1]
    run, pickle, wait = (int(last.partition(f"{name}=")[2].split()[0]) for name in ("run", "pickle", "wait"))
    assert run > pickle and 98 <= run + pickle + wait <= 102


def test_calls_side_by_side_have_a_line_each(tmp_path):
    line = 'one, two = (pool.map_async(task, range(200), progress=p) for p in ("one", "two")); one.get(); two.get()'
    said, status = in_terminal(tmp_path, line)
    assert status == 0 and said.endswith("end\r\n")
    assert "one: 100%" in said and "two: 100%" in said


def test_bars_of_tasks_do_not_hang_or_end_it(tmp_path):
    said, status = in_terminal(tmp_path, 'pool.map(nested, range(50), progress="outer")')
    assert status == 0 and "outer: 100%" in said and "inner" in said


def test_a_traceback_begins_on_a_line_of_its_own(tmp_path):
    for call in ("pool.map", "list(pool.imap", "list(pool.imap_unordered"):
        close = ")" * (call.count("(") + 1)
        said, status = in_terminal(tmp_path, f'{call}(task, [*range(200), "die"], progress=True{close}')
        assert os.WEXITSTATUS(status) == 1
        before = said.partition("multiprocessing.pool.RemoteTraceback" if "RemoteTraceback" in said else "Traceback")[0]
        rest = before.rpartition("\n")[2].rpartition("\r")[2]
        assert rest.strip() in ("", '"""'), said
        assert "no such thing" in said


@pytest.mark.parametrize("call", ["pool.map(task, range(20000)", "list(pool.imap(task, range(20000)"])
def test_ctrl_c_leaves_no_half_line(tmp_path, call):
    close = ")" * (call.count("(") - call.count(")"))
    said, status = in_terminal(
        tmp_path, f"{call}, progress='long'{close}", rb"long: +[1-9]\d*%", lambda screen: screen.write(b"\x03")
    )
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
    assert said.count("KeyboardInterrupt") == 1
    line = said[: said.index("Traceback")].rpartition("\n")[2].rpartition("\r")[2]
    assert line.replace("^C", "").strip() == "", said


def test_in_a_file_there_is_no_escape_sequence(fresh_python):
    line = 'one, two = (pool.map_async(task, range(200), progress=p) for p in ("one", "two")); one.get(); two.get()'
    done = fresh_python(textwrap.dedent(SCRIPT) % line)
    assert "\x1b" not in done.stderr
    assert "one: 100%" in done.stderr and "two: 100%" in done.stderr
    assert done.stderr.endswith("\n") and done.stdout == "end\n"


@pytest.mark.parametrize(
    "before",
    ["sys.stderr = None", "sys.stderr.close()", "os.close(2)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"],
    ids=["None", "closed", "no descriptor", "disk full"],
)
def test_where_nothing_can_be_drawn_the_call_is_as_without(fresh_python, before):
    line = f"{before}; assert pool.map(task, range(150), progress=True) == list(range(150))"
    line += "; assert list(pool.imap(task, range(150), progress=True)) == list(range(150))"
    assert fresh_python(textwrap.dedent(SCRIPT) % line, check=False).stdout == "end\n"


def test_a_program_that_ends_meanwhile_ends_the_line(fresh_python):
    done = fresh_python(
        textwrap.dedent(SCRIPT) % "pool.map_async(task, range(10**6), progress='long'); time.sleep(0.3)"
    )
    assert done.stderr.endswith("\n") and done.stderr.count("Traceback") == 0


def test_who_asks_for_none_does_not_import_tqdm(fresh_python):
    fresh_python(
        """
        import sys, shoal
        with shoal.Pool(1, timeout=60) as pool:
            pool.map(abs, range(3))
            list(pool.imap(abs, range(3)))
        assert not {"tqdm", "shoal._progress"} & set(sys.modules)
        """
    )


def test_in_a_notebook_it_is_a_notebooks_bar(monkeypatch, pool):
    import types

    asked = []
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=type("tqdm", (), NOTEBOOK_BAR(asked))))
    assert pool.map(square, range(4), progress="cells") == [0, 1, 4, 9]
    assert asked == ["cells", 4, "closed"]


def NOTEBOOK_BAR(asked):
    return {
        "__init__": lambda self, total, desc, **options: asked.append(desc),
        "update": lambda self, more: asked.append(more),
        "close": lambda self: asked.append("closed"),
        "container": None,
    }
