# SPDX-License-Identifier: BSD-3-Clause
"""The pools of this user's running processes, found and read from outside: for `python -m shoal top`.

There is no registry, and so nothing that a killed process could leave behind: the memory of every process of this user
is looked at. One that has pools has a memory file called "shoal"; in that, the page behind the header lists them
(pool/ext/directory.h), and each has meters (pool/ext/meter.h). They are read through /proc/PID/fd, as a file that is
opened for reading only: nothing is mapped, and so nothing that ends or shrinks under our eyes can do harm.

Nothing is believed. A magic number, a version, the bounds of the file and the process's own number have to fit; what
does not is another version, damaged, or gone, and is said to be so.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
FILE = "/memfd:shoal"
HEADER_BYTES, DIRECTORY_BYTES = 4096, 4096
REGION_MAGIC, REGION_VERSION = 0x3147524C414F4853, 1
DIRECTORY_MAGIC, DIRECTORY_VERSION = 0x3152494C414F4853, 1
METER_FORMAT, METER_BYTES = 1, 512
WORKERS_MAX = 4096
COMMAND_MAX = 4096
STATES = {1: "running", 2: "closed", 3: "ended"}
PHASES = ("start", "wait", "run", "pickle", "unpickle")
_WORDS = struct.Struct("64Q")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Worker(NamedTuple):
    """What a worker's meter says; nanoseconds."""

    served: int
    phases: tuple[int, ...]  # of PHASES
    mark: int  # they are those up to then


@dataclass
class Sight:
    """One pool, as it was at a moment."""

    pid: int
    place: int  # of its meters: tells the pools of a process apart
    command: str
    problem: str = ""  # why there are no figures
    created: int = 0  # CLOCK_MONOTONIC, ns
    state: str = ""
    submitted: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    restarts: int = 0
    in_flight: int = 0
    backlog: int = 0
    arena: int = 0
    memory: int = 0  # of the process and its workers: what each has for itself
    processes: int = 0  # that use the same memory, the pool's own included
    workers: list[Worker] = field(default_factory=list)
    at: int = 0  # when it was looked at

    @property
    def served(self) -> int:
        """Calls and elements that ended."""
        return sum(worker.served for worker in self.workers)


class Found(NamedTuple):
    """A memory file of Shoal's that a process has open."""

    pid: int
    path: Path
    inode: tuple[int, int]


def look(now: int) -> list[Sight]:
    """All pools, by process and age; those that cannot be read last."""
    found = list(_files())
    sharing: dict[tuple[int, int], list[int]] = {}
    for one in found:
        sharing.setdefault(one.inode, []).append(one.pid)
    first = {inode: min(pids, key=lambda pid: _birth(pid, pids)) for inode, pids in sharing.items()}
    sights = [sight for one in found for sight in _pools(one, sharing[one.inode], first[one.inode], now)]
    return sorted(sights, key=lambda sight: (bool(sight.problem), sight.pid, sight.created, sight.place))


def _files() -> Iterator[Found]:
    own = os.geteuid()
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if process.stat().st_uid != own:
                continue
            names = os.listdir(process / "fd")
        except OSError:  # it has ended, or does not let itself be looked at
            continue
        seen = set()
        for name in names:
            path = process / "fd" / name
            try:
                if not os.readlink(path).startswith(FILE):
                    continue
                status = os.stat(path)
            except OSError:
                continue
            inode = (status.st_dev, status.st_ino)
            if inode not in seen:
                seen.add(inode)
                yield Found(int(process.name), path, inode)


def _pools(found: Found, sharing: list[int], first: int, now: int) -> Iterator[Sight]:
    """Those that this process owns; none if it is a worker, which only uses the memory."""
    try:
        descriptor = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        yield from _read(descriptor, found, sharing, first, now)
    except (OSError, struct.error):  # shorter than it says
        return
    finally:
        os.close(descriptor)


def _read(descriptor: int, found: Found, sharing: list[int], first: int, now: int) -> Iterator[Sight]:
    size = os.fstat(descriptor).st_size
    magic, version = struct.unpack("QI", os.pread(descriptor, 12, 0))
    page = os.pread(descriptor, DIRECTORY_BYTES, HEADER_BYTES)
    words = struct.unpack(f"{DIRECTORY_BYTES // 8}Q", page)
    if magic != REGION_MAGIC:
        return  # somebody else's file of that name
    known = words[0] == DIRECTORY_MAGIC and words[1] == DIRECTORY_VERSION and version == REGION_VERSION
    if not known:
        if words[0] and found.pid == first:  # it is told once
            yield Sight(found.pid, 0, _command(found.pid), problem="another version of Shoal")
        return
    for place, workers in zip(words[2::2], words[3::2]):
        if place == 0:
            continue
        if place % 64 or place < HEADER_BYTES or workers > WORKERS_MAX or place + METER_BYTES * (workers + 1) > size:
            if found.pid == first:
                yield Sight(found.pid, place, _command(found.pid), problem="damaged memory")
            continue
        parent = _WORDS.unpack(os.pread(descriptor, METER_BYTES, place))
        meters = os.pread(descriptor, METER_BYTES * min(parent[4], workers), place + METER_BYTES)
        sight = _sight(found, place, parent, meters, sharing, first, now)
        if sight is not None:
            yield sight


def _sight(
    found: Found, place: int, parent: tuple[int, ...], meters: bytes, sharing: list[int], first: int, now: int
) -> Sight | None:
    if parent[0] != METER_FORMAT:
        if found.pid != first or parent[0] == 0:  # it ends, or begins, just now
            return None
        return Sight(found.pid, place, _command(found.pid), problem="another version of Shoal")
    if parent[1] != _own_pid(found.pid):
        return None  # a worker, or another child that the pool is not of
    return Sight(
        pid=found.pid,
        place=place,
        command=_command(found.pid),
        created=parent[2],
        state=STATES.get(parent[13], "?"),
        submitted=parent[5],
        done=parent[6],
        failed=parent[7],
        lost=parent[8],
        restarts=parent[9],
        in_flight=parent[10],
        backlog=parent[11],
        arena=parent[12],
        memory=sum(map(_private_bytes, sharing)),
        processes=len(sharing),
        workers=[Worker(words[2], words[3:8], words[11]) for words in _WORDS.iter_unpack(meters)],
        at=now,
    )


def _birth(pid: int, sharing: list[int]) -> tuple[bool, int]:
    """By which the process that has made a memory file is the first of those who share it: no child of another, and
    the oldest.
    """
    try:
        words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return int(words[1]) in sharing, int(words[19])
    except (OSError, ValueError, IndexError):
        return True, 1 << 63  # it has ended


def _own_pid(pid: int) -> int:
    """What a process takes its own number to be: in a container it is another one."""
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return pid


def _command(pid: int) -> str:
    """Its command line, on one line, without what a terminal would take for orders."""
    try:
        with open(PROC / str(pid) / "cmdline", "rb") as file:
            raw = file.read(COMMAND_MAX)
    except OSError:
        return "?"
    text = raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "?"


def _private_bytes(pid: int) -> int:
    """What it has in memory and shares with nobody."""
    try:
        _, resident, shared, *_ = (PROC / str(pid) / "statm").read_text().split()
        return max(0, int(resident) - int(shared)) * _PAGE
    except (OSError, ValueError):
        return 0
