# SPDX-License-Identifier: BSD-3-Clause
"""Whether the kernel kills processes for lack of memory: its counts, when a pool starts and when a worker is lost.

The problem: of a worker that was killed by SIGKILL, the kernel does not say why. It comes from a person, from a service
manager, or from the kernel itself.

How it is told: the kernel counts what it kills for lack of memory, on the whole machine (/proc/vmstat) and in a memory
cgroup (v2 memory.events, v1 memory.oom_control). If neither count has grown, it was not the kernel. If one has, and the
kernel's log may be read, the log names the process; else a count of our own cgroup makes it likely, one of the machine
possible.

What it costs: a few small files read once a second at most, when pools start.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_LOOK_AGAIN_S = 1.0
_LOG_LINES_MAX = 20_000
_COUNTER = b"oom_kill "


class Kills(NamedTuple):
    """How many processes the kernel has killed for lack of memory; None: not known."""

    machine: int | None
    cgroup: int | None

    @classmethod
    def read(cls, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> Kills:
        """Ask the kernel."""
        return cls(_counter_in(f"{proc}/vmstat"), _in_own_cgroup(proc, cgroups))


class _Seen:
    """The counts as they were when they were last read."""

    kills = Kills(None, None)
    at = float("-inf")


def look() -> None:
    """Note the counts, for what comes."""
    now = time.monotonic()
    if now - _Seen.at >= _LOOK_AGAIN_S:
        _Seen.kills, _Seen.at = Kills.read(), now


def by_whom(pid: int) -> str:
    """Who killed this process, a moment ago, in words."""
    before, _Seen.kills, _Seen.at = _Seen.kills, Kills.read(), time.monotonic()
    return told(before, _Seen.kills, pid)


def told(before: Kills, now: Kills, pid: int) -> str:
    """What follows from two looks."""
    if now.machine is None and now.cgroup is None:
        return "somebody sent it the signal, or the kernel, for lack of memory"
    if not _grown(before.machine, now.machine) and not _grown(before.cgroup, now.cgroup):
        return "somebody sent it the signal; the kernel has not killed a process for lack of memory"
    if _named_in_log(pid):
        return "the kernel killed it for lack of memory, says its log"
    if _grown(before.cgroup, now.cgroup):
        return "the kernel killed it for lack of memory: it has just done so in this memory cgroup"
    return "perhaps the kernel, for lack of memory: it has just killed a process of this machine for that"


def _grown(before: int | None, now: int | None) -> bool:
    return now is not None and before is not None and now > before


def _counter_in(path: str) -> int | None:
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(_COUNTER) and line[len(_COUNTER) :].isdigit():
            return int(line[len(_COUNTER) :])
    return None


def _in_own_cgroup(proc: str, cgroups: str) -> int | None:
    try:
        with open(f"{proc}/self/cgroup", "rb", buffering=0) as file:
            lines = os.fsdecode(file.readall()).splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            places = [f"{cgroups}/memory{path}/memory.oom_control", f"{cgroups}/memory/memory.oom_control"]
        elif not controllers:
            places = [f"{cgroups}{path}/memory.events", f"{cgroups}/memory.events"]
        else:
            continue
        for place in places:
            count = _counter_in(place)
            if count is not None:
                return count
    return None


def _named_in_log(pid: int, path: str = "/dev/kmsg") -> bool:
    """Whether the kernel's log, where it may be read, says that this process was killed for lack of memory."""
    words = (f"Killed process {pid} ".encode(), f"Kill process {pid} ".encode())
    try:
        log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for _ in range(_LOG_LINES_MAX):
            try:
                line = os.read(log, 8192)
            except BrokenPipeError:  # a line that has been overwritten meanwhile
                continue
            if not line:
                return False
            if any(word in line for word in words):
                return True
    except OSError:  # BlockingIOError: that was the last one
        pass
    finally:
        os.close(log)
    return False
