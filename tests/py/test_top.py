# SPDX-License-Identifier: BSD-3-Clause
"""python -m shoal top: which pools it finds, what it says of them, and that nothing that it looks at can harm it."""

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

import shoal
from shoal import _top, _top_scan
from tasks import TIMEOUT, square

pytestmark = pytest.mark.leakcheck

COMMAND = [sys.executable, "-m", "shoal", "top"]


def told(*pids):
    """What `--json` says of these processes; pools of other tests may run beside."""
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stderr == ""
    return [one for one in json.loads(done.stdout) if one["pid"] in (pids or (os.getpid(),))]


def wait_until(holds):
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def nested(path):
    with shoal.Pool(1) as inner:
        inner.apply(int)
        with open(path, "w") as file:
            json.dump(told(os.getpid(), os.getppid()), file)


# ---- what it finds ----


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_is_found_with_what_it_did(method, no_main):
    with shoal.Pool(2, context=method) as pool:
        pool.map(abs, range(100), 10)
        (one,) = told()
        assert one["workers"] == 2 and one["state"] == "running"
        assert one["submitted"] == one["done"] == 100
        assert (one["failed"], one["lost"], one["restarts"], one["in_flight"], one["backlog"]) == (0, 0, 0, 0, 0)
        assert "pytest" in one["command"]
        assert one["memory"] > 1 << 20
        assert one["run"] + one["wait"] + one["pickle"] == pytest.approx(1, abs=0.001) and one["wait"] > 0.5


def test_several_pools_and_executors_of_one_process_are_told_apart():
    with shoal.Pool(1) as one, shoal.ProcessPoolExecutor(3) as three:
        one.map(square, range(7))
        assert three.submit(square, 3).result() == 9
        assert sorted((pool["workers"], pool["done"]) for pool in told()) == [(1, 7), (3, 1)]
    assert told() == []


def test_work_under_way_is_seen(gate):
    with shoal.ProcessPoolExecutor(1) as executor:
        blocked = gate.block(executor)
        rest = [executor.submit(gate.wait) for _ in range(3)]
        try:
            (one,) = told()
        finally:
            gate.open(4)
        assert [blocked.result(), *(future.result() for future in rest)] == ["go"] * 4
    assert one["in_flight"] + one["backlog"] == 4 and one["run"] > 0.5


def test_a_pool_that_is_resized_has_that_many_workers():
    with shoal.Pool(1) as pool:
        pool.resize(3)
        assert told()[0]["workers"] == 3


def test_a_pool_within_a_worker_is_the_workers(tmp_path):
    with shoal.Pool(1) as pool:
        pool.apply(nested, (tmp_path / "told",))
        inner, outer = sorted(json.loads((tmp_path / "told").read_text()), key=lambda one: one["pid"] == os.getpid())
        assert outer["pid"] == os.getpid()
        assert inner["pid"] == pool._pool[0].pid
        assert inner["done"] == 1


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import shoal, time\npool = shoal.Pool(2)\nprint(flush=True)\ntime.sleep(100)\n")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        (one,) = told(process.pid)
        assert one["workers"] == 2 and str(script) in one["command"]
        process.kill()
        process.wait(TIMEOUT)
        assert told(process.pid) == []


def test_a_process_that_has_no_pool_is_none():
    block = shoal.empty(10)
    assert told() == []
    del block


def test_lost_tasks_and_replaced_workers_are_counted():
    with shoal.Pool(1) as pool:
        with pytest.raises(shoal.WorkerLost):
            pool.apply(os._exit, (3,))
        assert pool.apply(square, (2,)) == 4
        (one,) = told()
        assert (one["lost"], one["restarts"], one["done"]) == (1, 1, 1)


# ---- what is damaged, foreign, or gone ----


def memory_file(size=1 << 16, name="shoal"):
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def fake_region(descriptor, pools, directory=(_top_scan.DIRECTORY_MAGIC, _top_scan.DIRECTORY_VERSION), version=1):
    os.pwrite(descriptor, struct.pack("QI", _top_scan.REGION_MAGIC, version), 0)
    words = [*directory, *(word for pool in pools for word in pool)]
    os.pwrite(descriptor, struct.pack(f"{len(words)}Q", *words), _top_scan.HEADER_BYTES)


@pytest.fixture
def region():
    descriptor = memory_file()
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    "pools, directory, version, problem",
    [
        ([], (_top_scan.DIRECTORY_MAGIC, 99), 1, "another version of Shoal"),
        ([], (123, 456), 1, "another version of Shoal"),
        ([], (_top_scan.DIRECTORY_MAGIC, 1), 99, "another version of Shoal"),
        ([(1 << 40, 2)], (_top_scan.DIRECTORY_MAGIC, 1), 1, "damaged memory"),
        ([(8192, 1 << 60)], (_top_scan.DIRECTORY_MAGIC, 1), 1, "damaged memory"),
        ([(8193, 1)], (_top_scan.DIRECTORY_MAGIC, 1), 1, "damaged memory"),
        ([(65536, 0)], (_top_scan.DIRECTORY_MAGIC, 1), 1, "damaged memory"),
    ],
)
def test_what_does_not_fit_is_named_and_the_others_are_shown(region, pools, directory, version, problem):
    fake_region(region, pools, directory, version)
    with shoal.Pool(1):
        found = told()
    assert [one.get("problem") for one in found] == [None, problem]


def test_a_meter_of_another_format_is_named(region):
    fake_region(region, [(8192, 1)])
    os.pwrite(region, struct.pack("2Q", 77, os.getpid()), 8192)
    assert [one["problem"] for one in told()] == ["another version of Shoal"]


@pytest.mark.parametrize("size", [0, 7, 4096, 8191])
def test_a_file_that_is_too_short_is_passed_over(size):
    descriptor = memory_file(size)
    os.pwrite(descriptor, struct.pack("QI", _top_scan.REGION_MAGIC, 1)[:size], 0)
    os.ftruncate(descriptor, size)
    assert told() == []
    os.close(descriptor)


def test_somebody_elses_file_of_that_name_is_passed_over(region):
    os.pwrite(region, b"something else" * 1000, 0)
    assert told() == []


def test_whatever_lies_in_the_memory_is_shown_or_named():
    chance = random.Random(3)
    found = _top_scan.Found(os.getpid(), None, (0, 0))
    descriptor = memory_file()
    for _ in range(300):
        os.pwrite(descriptor, chance.randbytes(1 << 16), 0)
        fake_region(descriptor, [(8192, chance.randrange(20)), (chance.randrange(1 << 16), chance.randrange(1 << 9))])
        words = [1, os.getpid(), *(chance.choice([0, 1, chance.getrandbits(64)]) for _ in range(12))]
        os.pwrite(descriptor, struct.pack("14Q", *words), 8192)
        with contextlib.suppress(struct.error):
            sights = list(_top_scan._read(descriptor, found, [os.getpid()], os.getpid(), chance.getrandbits(63)))
            rates = [_top.Rates(sight, None) for sight in sights]
            assert all(len(line) <= 200 for line in _top.table(rates, 200))
            json.dumps([one.as_dict() for one in rates])
    os.close(descriptor)


def test_the_first_of_those_who_share_memory_is_the_one_who_made_it():
    with shoal.Pool(2) as pool:
        workers = [worker.pid for worker in pool._pool]
        everybody = [*workers, os.getpid()]
        assert min(everybody, key=lambda pid: _top_scan._birth(pid, everybody)) == os.getpid()
        gone = 1 << 30
        assert min([gone, *everybody], key=lambda pid: _top_scan._birth(pid, everybody)) == os.getpid()


def test_processes_that_may_not_be_looked_at_are_passed_over(monkeypatch):
    list_really = os.listdir

    def refuse(path):
        if str(path).endswith("/fd"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_really(path)

    monkeypatch.setattr(_top_scan.os, "listdir", refuse)
    with shoal.Pool(1):
        assert _top_scan.look(time.monotonic_ns()) == []


def test_a_pool_that_ends_between_two_looks_is_no_longer_shown():
    watcher = _top.Watcher()
    with shoal.Pool(1) as pool:
        pool.map(square, range(5))
        assert [one.sight.done for one in watcher.look() if one.sight.pid == os.getpid()] == [5]
        pool.map(square, range(5))
        assert [one.sight.done for one in watcher.look() if one.sight.pid == os.getpid()] == [10]
    assert [one for one in watcher.look() if one.sight.pid == os.getpid()] == []


def test_a_command_line_is_no_order_to_the_terminal(monkeypatch, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(b"evil\0\x1b[2J\x07\xff\n\0")
    monkeypatch.setattr(_top_scan, "PROC", tmp_path)
    assert _top_scan._command(7) == "evil ?[2J?\ufffd?"
    assert _top_scan._command(8) == "?"


# ---- how it is shown ----


def test_where_the_output_is_no_terminal_it_is_one_table():
    with shoal.Pool(1):
        for arguments in ([], ["--once"]):
            done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=True)
            assert done.stderr == "" and "\x1b" not in done.stdout
            lines = done.stdout.splitlines()
            assert lines[0].split()[:2] == ["PID", "WORKERS"]
            assert [line for line in lines if line.split()[:2] == [str(os.getpid()), "1"]]


def test_without_pools_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(_top, "look", lambda now: [])
    _top._once(False)
    assert capsys.readouterr().out == "no pool of this user is running\n"
    _top._once(True)
    assert json.loads(capsys.readouterr().out) == []


def test_a_reader_that_has_seen_enough_is_no_error():
    with shoal.Pool(1), subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", "1e9"])
def test_an_interval_that_makes_no_sense_is_refused(text):
    done = subprocess.run([*COMMAND, f"--interval={text}"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2 and "a number of seconds from 0.05 to 3600" in done.stderr


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, columns=120, lines=20):
        self.own, other = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(other)
        self.process = subprocess.Popen(
            [*COMMAND, "--interval=0.05"],
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm"},
        )
        self.other = other
        self.said = ""

    def resize(self, columns, lines):
        fcntl.ioctl(self.own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, holds):
        deadline = time.monotonic() + TIMEOUT
        while not holds(self.said):
            assert time.monotonic() < deadline
            self.said += os.read(self.own, 100_000).decode(errors="replace")

    def next_screen(self):
        """One that is drawn from now on."""
        self.said = ""
        self.read_until(lambda said: said.count("\x1b[H") >= 2)
        return self.said.split("\x1b[H")[1]

    def type(self, text):
        os.write(self.own, text)

    def end(self):
        """Its status; the terminal must be as it was."""
        os.set_blocking(self.own, False)
        while self.process.poll() is None:
            with contextlib.suppress(BlockingIOError):
                self.said += os.read(self.own, 100_000).decode(errors="replace")
            time.sleep(0.005)
        with contextlib.suppress(BlockingIOError):
            self.said += os.read(self.own, 100_000).decode(errors="replace")
        assert termios.tcgetattr(self.other) == self.before
        assert self.said.endswith("\x1b[?25h\x1b[?1049l") and "Traceback" not in self.said
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.own)
        os.close(self.other)


@pytest.fixture
def terminal():
    opened = Terminal()
    yield opened
    opened.close()


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03", b"\x04"], ids=["q", "Q", "Ctrl-C", "Ctrl-D"])
def test_a_key_ends_it_quietly(terminal, key):
    terminal.read_until(lambda said: "shoal top" in said)
    terminal.type(key)
    assert terminal.end() == 0


def test_a_signal_leaves_the_terminal_as_it_was(terminal):
    terminal.read_until(lambda said: "shoal top" in said)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0


def test_it_shows_pools_come_and_go(terminal):
    terminal.read_until(lambda said: "shoal top" in said)
    own = re.compile(rf"^ *{os.getpid()}  ", re.MULTILINE)
    with shoal.Pool(2):
        wait_until(lambda: own.search(terminal.next_screen()))
    wait_until(lambda: not own.search(terminal.next_screen()))
    terminal.type(b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize("columns, lines", [(40, 5), (1, 1), (300, 100)])
def test_it_fits_into_whatever_size_the_terminal_gets(terminal, columns, lines):
    terminal.read_until(lambda said: "shoal top" in said)
    with shoal.Pool(1):
        terminal.resize(columns, lines)
        terminal.next_screen()
        screen = terminal.next_screen()
        for code in ("\x1b[K", "\x1b[J", "\x1b[1m", "\x1b[0m"):
            screen = screen.replace(code, "")
        shown = screen.split("\r\n")
        assert len(shown) <= lines and all(len(line) <= columns for line in shown)
    terminal.type(b"q")
    assert terminal.end() == 0
