# SPDX-License-Identifier: BSD-3-Clause
"""What the machine says while we measure: CPU time of a tree of processes, CPU time of everybody else, affinity."""

import contextlib
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_clock(pid: int) -> int:
    """The clock of the CPU time that process `pid`, with all its threads, has used (clock_getcpuclockid(3))."""
    return ~pid << 3 | 2


def stat_fields(pid: int) -> list[str]:
    """What /proc/<pid>/stat says after the name: [0] state, [1] parent, [13] and [14] CPU ticks of ended children."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return stat.rpartition(")")[2].split()


def descendants(pid: int) -> list[int]:
    parent_of = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # has ended meanwhile
                parent_of[int(name)] = int(stat_fields(int(name))[1])
    tree = {pid}
    while more := {child for child, parent in parent_of.items() if parent in tree} - tree:
        tree |= more
    return sorted(tree - {pid})


def tree_cpu_seconds(pids: list[int]) -> float:
    """CPU time of this process, of its descendants `pids`, and of the children of all these that have ended.

    The list is an argument so that looking for them, which takes milliseconds, stays out of what is measured.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in pids:
        with contextlib.suppress(OSError):  # has ended meanwhile
            ticks = sum(map(int, stat_fields(pid)[13:15]))
            seconds += time.clock_gettime(cpu_clock(pid)) + ticks / TICKS_PER_SECOND
    return seconds


def busy_cpu_seconds() -> float:
    """CPU time used on the whole machine since it started. Counts what a hypervisor took away as used, by others."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """`count` processes that compute without end, as somebody else's jobs do, wherever the kernel puts them."""
    command = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
        yield


class ForeignShare:
    """The part of the machine's CPU time that others than this process and its descendants use from now on."""

    def __init__(self):
        self.tree = descendants(os.getpid())
        self.begin = self.look()

    def look(self) -> tuple[float, float]:
        return time.monotonic(), busy_cpu_seconds() - tree_cpu_seconds(self.tree)

    def measure(self) -> float:
        (begin, foreign_then), (end, foreign_now) = self.begin, self.look()
        available = (end - begin) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (foreign_now - foreign_then) / available)) if available > 0 else 0.0


def wait_until_quiet(limit: float, patience_seconds: float, look_seconds: float = 0.3) -> float:
    """Wait until others use less than `limit` of the machine, but not for ever. Returns the share last seen."""
    give_up = time.monotonic() + patience_seconds
    while True:
        foreign = ForeignShare()
        time.sleep(look_seconds)
        share = foreign.measure()
        if share < limit or time.monotonic() >= give_up:
            return share


def pin(pid: int, cpus: set[int]) -> None:
    """Let all threads of a process run on `cpus` only."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            os.sched_setaffinity(int(thread), cpus)
        except ProcessLookupError:  # has ended meanwhile
            continue


def place(placement: str) -> None:
    """Pin this process and its workers: "one core", "two cores" (parent on one, workers on another), or "free"."""
    if placement == "free":
        return
    cpus = sorted(os.sched_getaffinity(0))
    parent_cpu, worker_cpu = {"one core": (cpus[0], cpus[0]), "two cores": (cpus[0], cpus[-1])}[placement]
    for pid in descendants(os.getpid()):
        pin(pid, {worker_cpu})
    pin(os.getpid(), {parent_cpu})
