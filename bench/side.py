# SPDX-License-Identifier: BSD-3-Clause
"""One side of one row, in a process of its own; and the handle by which the frame drives it.

The frame writes one word per line to the process's standard input, `prepare` or `round`, and reads one JSON object per
line from its standard output; at the end of the input the process takes its pool down and ends. What the measured code
itself prints goes to standard error.
"""

import atexit
import contextlib
import gc
import json
import math
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import frame
import machine
import rows

PATIENCE_SECONDS = 120.0  # for one answer; a side that is silent for longer hangs


class SideProcess:
    """The frame's end."""

    def __init__(self, name: str, process: subprocess.Popen):
        self.name = name
        self.process = process

    def ask(self, word: str) -> dict:
        try:
            self.process.stdin.write(f"{word}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said last, or its exit status, tells why
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        if not readable:
            raise TimeoutError(f"{self.name}: no answer within {PATIENCE_SECONDS:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{self.name} ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "skipped" in answer:
            raise frame.SkipRow(answer["skipped"])
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def prepare(self) -> None:
        self.ask("prepare")

    def run_round(self) -> frame.Sample:
        return frame.Sample(**self.ask("round"))


@contextlib.contextmanager
def open_side(row: frame.Row, name: str, round_seconds: float) -> Iterator[SideProcess]:
    program = str(pathlib.Path(__file__).resolve())
    command = [sys.executable, program, row.name, name, str(round_seconds)]
    # A session of its own, so that a side that hangs can be killed with its workers, and nobody else.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with driving(name, process) as side:
        yield side


@contextlib.contextmanager
def fork_side(row: frame.Row, name: str, round_seconds: float) -> Iterator[SideProcess]:
    """The same as a fork of this process: what it has imported need not be imported again for each side."""
    with driving(name, Fork(lambda: answer_all(row, name, round_seconds))) as side:
        yield side


@contextlib.contextmanager
def driving(name: str, process) -> Iterator[SideProcess]:
    try:
        yield SideProcess(name, process)
        process.stdin.close()
        status = process.wait(timeout=PATIENCE_SECONDS)
        if status is None:
            raise TimeoutError(f"{name} did not end after its rounds")
        if status:
            raise ChildProcessError(f"{name} ended with status {status} after its rounds")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


class Fork:
    """As much of subprocess.Popen as a side needs."""

    def __init__(self, work):
        sys.stdout.flush()
        to_child, to_parent = os.pipe(), os.pipe()
        self.pid = os.fork()
        os.setpgid(self.pid, self.pid)  # here and there, so that it can be killed with its workers from now on
        if self.pid == 0:
            for own, standard in ((to_child[0], 0), (to_parent[1], 1)):
                os.dup2(own, standard)
            for end in (*to_child, *to_parent):
                os.close(end)
            self.run(work)
        os.close(to_child[0])
        os.close(to_parent[1])
        self.stdin, self.stdout = os.fdopen(to_child[1], "wb"), os.fdopen(to_parent[0], "rb")
        self.returncode: int | None = None

    def run(self, work) -> NoReturn:
        status = 1
        try:
            work()
            # As at the end of a program: concurrent.futures and loky end their workers in the first, multiprocessing in
            # the second, where it waits for all that are left.
            threading._shutdown()
            atexit._run_exitfuncs()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        return self.wait(0.0)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int | None:
        give_up = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= give_up:
                break
            else:
                time.sleep(0.001)
        return self.returncode


def serve(row: frame.Row, name: str, round_seconds: float, answer) -> None:
    """The process's end."""
    if row.placement == "two cores" and len(os.sched_getaffinity(0)) < 2:
        raise frame.SkipRow("needs two CPUs")
    set_up = row.ours if name == frame.OURS else row.theirs
    with set_up() as run:
        machine.place(row.placement)
        calls = 0
        for line in sys.stdin:
            if line.strip() == "prepare":
                calls = frame.calls_per_round(row, round_seconds, run)
                # The garbage collector stays on, as in users' programs, but does not walk what the set-up made.
                gc.collect()
                gc.freeze()
                answer({"calls": calls})
            else:
                answer(run_round(row, run, calls))


def run_round(row: frame.Row, run: frame.Rounds, calls: int) -> dict:
    gc.collect()
    tree = machine.descendants(os.getpid())
    cpu_begin = machine.tree_cpu_seconds(tree)
    begin = time.perf_counter()
    span = run(calls)
    elapsed = time.perf_counter() - begin
    cpu_seconds = machine.tree_cpu_seconds(tree) - cpu_begin
    single_calls = {}
    if isinstance(span, frame.Span):
        elapsed = span.seconds
        if not math.isnan(span.cpu_seconds):
            cpu_seconds = span.cpu_seconds
        if span.latencies:
            ordered = sorted(span.latencies)
            single_calls = {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}
    operations = calls * row.operations
    return {"seconds": elapsed / operations, "cpu_seconds": cpu_seconds, "operations": operations} | single_calls


def main() -> None:
    row_name, name, round_seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    answer_all(rows.all_rows().rows[row_name], name, round_seconds)


def answer_all(row: frame.Row, name: str, round_seconds: float) -> None:
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    try:
        serve(row, name, round_seconds, answer)
    except frame.SkipRow as reason:
        answer({"skipped": str(reason)})
    except Exception as error:
        answer({"failed": f"{name}: {type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main()
