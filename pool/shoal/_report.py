# SPDX-License-Identifier: BSD-3-Clause
"""`pool.report("file.html")`: a page about what a pool did while it was recorded.

It is made of a trace, which goes into a temporary file meanwhile, and of looks at the memory ten times a second, by a
thread that holds no lock when a worker is forked. The page comes into being whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from shoal import _ext
from shoal._report_data import SAMPLES_MAX, File, Memory, gather, read, thinned
from shoal._report_page import page
from shoal._report_words import size
from shoal.info import gather as machine

LOOK_S = 0.1
OUR_THREAD = "shoal-memory"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Report:
    """What `Pool.report` returns: a context manager, or to be started and stopped."""

    def __init__(self, owner: Any, path: str | os.PathLike[str], limit: int) -> None:
        self._owner = owner
        self._limit = limit
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._trace: Any = None
        self._trace_path: str | None = None  # no Path: CPython 3.12 never forgets the parts of one
        self._memory: _MemoryWatch | None = None

    def start(self) -> Report:
        """Begin to record."""
        if self._trace is not None:
            raise RuntimeError("this report is under way already")
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        with open(self._part, "w", encoding="utf-8"):  # where it cannot be written is told now
            pass
        try:
            descriptor, name = tempfile.mkstemp(prefix="shoal-", suffix=".json")
            os.close(descriptor)
            self._trace_path = name
            self._trace = self._owner.trace(name, limit=self._limit)
            self._trace.start()
        except BaseException:
            self._trace = None
            self._clean()
            raise
        self._memory = _MemoryWatch(self._owner._running_engine())
        return self

    def stop(self) -> None:
        """End it, and write the page."""
        trace, self._trace = self._trace, None
        if trace is None or self._trace_path is None or self._memory is None:
            raise RuntimeError("this report is not under way")
        try:
            samples = self._memory.stop()
            trace.stop()
            workers = self._memory.workers
            _write(self._path, self._part, self._trace_path, _title(self._owner), samples, workers)
        finally:
            self._clean()

    def __enter__(self) -> Report:
        return self if self._trace is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._trace is None:
            return
        try:
            self.stop()
        except OSError:
            if error is None:
                raise  # else that one says more

    def _clean(self) -> None:
        for path in (self._part, self._trace_path):
            if path is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


class _MemoryWatch:
    """A thread that looks at the memory of this process and of its workers."""

    def __init__(self, engine: _ext.Engine) -> None:
        self._engine = engine
        self.workers = engine.workers
        self._samples: list[Memory] = []
        self._began = time.monotonic()
        self._ending = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, name=OUR_THREAD, daemon=True)
        self._thread.start()

    def stop(self) -> list[Memory]:
        self._ending.set()
        self._thread.join()
        self._look()
        return self._samples

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # so that a fork does not warn of it
            with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w", encoding="ascii") as file:
                file.write(OUR_THREAD)
        pause = LOOK_S
        while not self._ending.wait(pause):
            self._look()
            if len(self._samples) >= 2 * SAMPLES_MAX:  # a long recording is looked at less often
                self._samples = thinned(self._samples)
                pause *= 2

    def _look(self) -> None:
        workers = sum(private_bytes(pid) for pid in self._engine.pids() if pid)
        arena = self._engine.stats()["arena_used"]
        self._samples.append(Memory(time.monotonic() - self._began, private_bytes("self"), workers, arena))


def private_bytes(pid: int | str) -> int:
    """What a process has in memory and shares with nobody; 0 if it has ended."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * PAGE_BYTES


def write_of_trace(path: str | os.PathLike[str], trace: str | os.PathLike[str], title: str | None = None) -> None:
    """Write the page of a trace that was recorded before."""
    where = Path(path)
    part = where.with_name(f".{where.name}.{os.getpid()}.part")
    try:
        _write(where, part, trace, title or os.path.basename(trace))
    finally:
        part.unlink(missing_ok=True)


def _write(path: Path, part: Path, trace: File, title: str, samples: Sequence[Memory] = (), workers: int = 0) -> None:
    events, other = read(trace)
    recording = gather(events, {**other, "workers": max(workers, int(other.get("workers", 0)))})
    recording.title, recording.memory = title, list(samples)
    if samples:
        recording.duration = max(recording.duration, samples[-1].at * 1e6)
        recording.facts = _facts()
    part.write_text(page(recording), encoding="utf-8")
    part.replace(path)


def _title(owner: Any) -> str:
    return f"{getattr(owner, 'name', None) or owner._seen_name()} of {_script()}"


def _script() -> str:
    script = sys.argv[0] if sys.argv else ""
    return Path(script).name if script and script not in ("-c", "-m") else "an interactive Python"


def _facts() -> list[tuple[str, str]]:
    found = machine()
    cpus, engine = found["cpus"], found["engine"]
    return [
        ("command", shlex.join(sys.orig_argv)),
        ("process", str(os.getpid())),
        ("Shoal", str(found["shoal"])),
        ("Python", f"{found['python']}, {found['executable']}"),
        ("numpy", found["numpy"] or "not installed"),
        ("system", str(found["system"])),
        ("cores", f"{cpus['machine']} in the machine, {cpus['default workers']} for this process"),
        ("memory", f"{size(engine['memory_available_bytes'])} available"),
        ("arena", f"{size(engine['arena_budget_bytes'])} at most"),
        ("doorbell", str(engine["doorbell"])),
    ]
