# SPDX-License-Identifier: BSD-3-Clause
"""`Pool.trace`: every task's life, as Chrome trace events, which Perfetto and chrome://tracing open.

The engine gives what both sides have recorded (pool/ext/trace.h, pool/ext/trace.c) when the trace ends; here the two
are put together by slot and generation, and written.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from shoal import _ext

Event = dict[str, Any]

FORMAT = 1
_LIFE = struct.Struct("6Q4I")
_BYTES_MASK = (1 << 56) - 1  # above it: the outcome
_RECORD = struct.Struct("2BH3I32s")
_TASK_TAIL = struct.Struct("Q6I")
_END_TAIL = struct.Struct("4Q")
_ELEMENTS_TAIL = struct.Struct("2Q2I8x")
_NAME = struct.Struct("8x40s")
_TASK, _STARTED, _ELEMENTS, _END, _NAMED, _WORKER, _REQUEUED = range(1, 8)
_FAR = 0xFFFFFFFF  # a task's record does not say when its user code began
_RAISED = 2
_OUTCOMES = ("done", "raised", "lost", "taken back")
_SHORT_US = 1.0  # phases below are told in the task's arguments only


class Trace:
    """What `Pool.trace` returns: a context manager, or to be started and stopped.

    Attributes
    ----------
    path : str
        The file, which is there when the trace has been stopped.
    dropped : int
        Records that there was no room for, once it has been stopped.
    """

    def __init__(self, engine: Callable[[], _ext.Engine], path: str | os.PathLike[str], limit: int) -> None:
        self.path = os.fspath(path)
        self.dropped = 0
        self._find = engine
        self._limit = limit
        self._engine: _ext.Engine | None = None

    def start(self) -> None:
        """Record from now on. RuntimeError if another trace of this pool is running."""
        engine = self._find()
        engine.trace_start(self._limit)
        self._engine = engine

    def stop(self) -> None:
        """Stop recording and write the file; OSError if it cannot be written.

        It is written under another name, `PATH.partial`, and takes its own when it is whole.
        """
        engine, self._engine = self._engine, None
        if engine is None:
            raise RuntimeError("this trace has not been started")
        recorded = engine.trace_stop()
        self.dropped = recorded["dropped_lives"] + recorded["dropped_seen"]
        _write(self.path, _Story(recorded).pieces())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Life:
    """A task, as the parent has seen it, and what its workers have recorded."""

    __slots__ = ("attempts", "bytes", "count", "first", "outcome", "read", "read_by", "sent_by", "submitted", "written")

    def __init__(self, words: tuple[int, ...], time_of: Callable[[int], float | None]) -> None:
        self.submitted, self.written, self.read = (time_of(ticks) for ticks in words[:3])
        self.bytes, self.sent_by, self.read_by = words[3] & _BYTES_MASK, words[4], words[5]
        self.first, self.count = words[8:10]
        self.outcome = _OUTCOMES[words[3] >> 56] if self.read is not None else "unfinished"
        self.attempts: list[_Attempt] = []


class _Attempt:
    """What one worker has recorded of a task; times are ticks."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "claimed",
        "count",
        "elements",
        "ended",
        "first",
        "handed_in",
        "name",
        "pid",
        "raised",
        "started",
        "worker",
    )

    def __init__(self, worker: int, pid: int) -> None:
        self.worker = worker
        self.pid = pid
        self.name = ""
        self.claimed: int | None = None  # None: its beginning was dropped
        self.started: int | None = None
        self.ended: int | None = None  # None: it had not ended, and so what follows
        self.handed_in: int | None = None
        self.bytes_in = self.bytes_out = 0
        self.raised = False
        self.first = self.count = 0
        self.elements: list[tuple[int, int, int, int]] = []  # begin, end, first, count

    def begin(self, unpickle: int, tail: bytes, ending: int, name: str) -> None:
        self.claimed, self.first, self.count, run, pickle, bytes_in, bytes_out = _TASK_TAIL.unpack(tail)
        self.name = name
        if unpickle != _FAR:
            self.started = self.claimed + unpickle
        if ending and self.started is not None:
            self.ended = self.started + run
            self.handed_in = self.ended + pickle
            self.bytes_in, self.bytes_out, self.raised = bytes_in, bytes_out, ending == _RAISED

    def end(self, tail: bytes, ending: int) -> None:
        self.ended, self.handed_in, self.bytes_in, self.bytes_out = _END_TAIL.unpack(tail)
        self.raised = ending == _RAISED


class _Story:
    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded
        self.parent = os.getpid()
        self.threads = {one.ident: one for one in threading.enumerate() if one.ident is not None}
        ticks, ticks_end, ns, ns_end = recorded["clock"]
        self.first_tick = ticks
        self.us_of_tick = (ns_end - ns) / (ticks_end - ticks) / 1000 if ticks_end > ticks else 0.001
        self.length = self.time_of(ticks_end) or 0.0
        self.lives = [_Life(words, self.time_of) for words in _LIFE.iter_unpack(recorded["lives"] or b"")]
        self.workers: dict[int, int] = {}  # pid -> worker
        self._attach()

    def time_of(self, ticks: int | None) -> float | None:
        """Microseconds since the trace began."""
        return round((ticks - self.first_tick) * self.us_of_tick, 3) if ticks else None

    def _attach(self) -> None:
        owners = {}
        for number, words in enumerate(_LIFE.iter_unpack(self.recorded["lives"] or b"")):
            owners[words[6], words[7]] = number
        seen = self.recorded["seen"] or b""
        for kind, _ending, _name, slot, generation, life, _tail in _RECORD.iter_unpack(seen):
            if kind == _REQUEUED and life < len(self.lives):
                owners[slot, generation] = life
        attempts: dict[tuple[int, int], _Attempt] = {}
        names: dict[tuple[int, int], str] = {}  # by process and number
        worker = pid = 0
        for index, (kind, ending, name, slot, generation, unpickle, tail) in enumerate(_RECORD.iter_unpack(seen)):
            if kind == _WORKER:
                worker, pid = slot, generation
            elif kind == _NAMED:
                (text,) = _NAME.unpack_from(seen, index * _NAME.size)
                names[pid, name] = text.rstrip(b"\0").decode(errors="replace")
            if not _TASK <= kind <= _END or (slot, generation) not in owners:
                continue
            attempt = attempts.get((slot, generation))
            if attempt is None:
                attempt = attempts[slot, generation] = _Attempt(worker, pid)
                self.lives[owners[slot, generation]].attempts.append(attempt)
                self.workers[pid] = worker
            if kind == _TASK:
                attempt.begin(unpickle, tail, ending, names.get((pid, name), ""))
            elif kind == _STARTED:
                attempt.started = _ELEMENTS_TAIL.unpack(tail)[0]
            elif kind == _END:
                attempt.end(tail, ending)
            else:
                attempt.elements.append(_ELEMENTS_TAIL.unpack(tail))

    # ---- what is written ----

    def pieces(self) -> Iterator[str]:
        """The file's text, in pieces."""
        from shoal import __version__

        began = self.recorded["wall_ns"] / 1e9
        other = {
            "shoal": __version__,
            "format": FORMAT,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "started_unix": began,
            "workers": len(set(self.workers.values())),
            "tasks": len(self.lives),
            "dropped": self.recorded["dropped_lives"] + self.recorded["dropped_seen"],
            "dropped_by": {"parent": self.recorded["dropped_lives"], "workers": self.recorded["dropped_seen"]},
        }
        yield f'{{"displayTimeUnit": "ns", "otherData": {json.dumps(other)}, "traceEvents": [\n'
        separator = ""
        for event in self.events():
            yield separator + json.dumps(event, separators=(",", ":"))
            separator = ",\n"
        yield "\n]}\n"

    def events(self) -> Iterator[Event]:
        """All of them: names first, then life by life."""
        yield _meta("process_name", self.parent, 0, name="parent")
        yield _meta("process_sort_index", self.parent, 0, sort_index=-1)
        for ident in sorted({ident for life in self.lives for ident in (life.sent_by, life.read_by) if ident}):
            yield _meta("thread_name", self.parent, self._thread(ident), name=self._thread_name(ident))
        for pid, worker in self.workers.items():
            yield _meta("process_name", pid, 0, name=f"worker {worker}")
            yield _meta("process_sort_index", pid, 0, sort_index=worker)
            yield _meta("thread_name", pid, pid, name="tasks")
        for number, life in enumerate(self.lives):
            yield from self._life(number, life)

    def _thread(self, ident: int) -> int:
        thread = self.threads.get(ident)
        return (thread.native_id if thread is not None else None) or ident & 0x7FFFFFFF

    def _thread_name(self, ident: int) -> str:
        thread = self.threads.get(ident)
        return thread.name if thread is not None else "collects results"

    def _life(self, number: int, life: _Life) -> Iterator[Event]:
        name = next((attempt.name for attempt in life.attempts), "") or "task"
        sender = self.parent, self._thread(life.sent_by)
        written = life.submitted if life.written is None else life.written
        yield _span(f"send {name}", "send", *sender, life.submitted, written, task=number, bytes=life.bytes)
        for index, attempt in enumerate(life.attempts):
            yield from self._attempt(number, life, attempt, index)
        if life.attempts and life.attempts[0].claimed is not None:
            first = life.attempts[0]
            yield _arrow("s", "send", 2 * number, *sender, life.submitted)
            yield _arrow("f", "send", 2 * number, first.pid, first.pid, self._bounds(life, first)[0])
        if life.read is None:
            return
        reader = self.parent, self._thread(life.read_by)
        yield _span(f"receive {name}", "receive", *reader, life.read, life.read + 0.001, task=number)
        if life.attempts and life.attempts[-1].claimed is not None:
            last = life.attempts[-1]
            begin, end = self._bounds(life, last)
            yield _arrow("s", "result", 2 * number + 1, last.pid, last.pid, max(begin, end - 0.001))
            yield _arrow("f", "result", 2 * number + 1, *reader, life.read)

    def _bounds(self, life: _Life, attempt: _Attempt) -> tuple[float, float]:
        begin = self.time_of(attempt.claimed) if attempt.claimed is not None else life.written
        end = self.time_of(attempt.handed_in)
        if end is None:  # its worker died, or it still runs
            end = life.read if life.read is not None else self.length
        begin = begin or 0.0
        return begin, max(begin, end)

    def _attempt(self, number: int, life: _Life, attempt: _Attempt, index: int) -> Iterator[Event]:
        if attempt.claimed is None:
            return
        begin, end = self._bounds(life, attempt)
        started, ended, handed_in = map(self.time_of, (attempt.started, attempt.ended, attempt.handed_in))
        outcome = life.outcome
        if attempt is not life.attempts[-1]:
            outcome = "lost"
        elif attempt.raised and outcome == "done":
            outcome = "raised"
        arguments = {
            "task": number,
            "worker": attempt.worker,
            "attempt": index,
            "submitted": life.submitted,
            "written": life.written,
            "claimed": begin,
            "started": started,
            "ended": ended,
            "handed_in": handed_in,
            "read": life.read,
            "elements": attempt.count,
            "first": attempt.first,
            "bytes_in": attempt.bytes_in if handed_in is not None else life.bytes,
            "bytes_out": attempt.bytes_out if handed_in is not None else None,
            "outcome": outcome,
        }
        name, place = attempt.name or "task", (attempt.pid, attempt.pid)
        yield _span(name, "task", *place, begin, end, **arguments)
        bounds = (("unpickle", begin, started), ("run", started, ended), ("pickle", ended, end))
        for phase, phase_begin, phase_end in bounds:
            if phase_begin is not None and phase_end is not None and phase_end - phase_begin >= _SHORT_US:
                yield _span(phase, "phase", *place, phase_begin, phase_end, task=number)
        for ticks_begin, ticks_end, first, count in attempt.elements:
            element_begin, element_end = self.time_of(ticks_begin), self.time_of(ticks_end)
            label = f"{name}[{first}]" if count == 1 else f"{name}[{first}:{first + count}]"
            yield _span(label, "element", *place, element_begin, element_end, task=number, first=first, count=count)


def _meta(name: str, pid: int, tid: int, /, **args: Any) -> Event:
    return {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _span(name: str, cat: str, pid: int, tid: int, begin: float | None, end: float | None, /, **args: Any) -> Event:
    begin = begin or 0.0
    duration = round(max(0.0, (end or 0.0) - begin), 3)
    return {"name": name, "cat": cat, "ph": "X", "pid": pid, "tid": tid, "ts": begin, "dur": duration, "args": args}


def _arrow(phase: str, name: str, number: int, pid: int, tid: int, ts: float | None) -> Event:
    event: Event = {"name": name, "cat": "flow", "ph": phase, "id": number, "pid": pid, "tid": tid}
    event["ts"] = round(ts or 0.0, 3)
    if phase == "f":
        event["bp"] = "e"
    return event


def _write(path: str, pieces: Iterator[str]) -> None:
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        regular = True
    partial = f"{path}.partial" if regular else path  # a pipe or a device is no file to be replaced
    try:
        with open(partial, "w", encoding="utf-8", buffering=1 << 20) as file:
            _write_all(file, pieces)
        if regular:
            os.replace(partial, path)
    except BaseException as error:
        if regular:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"the trace could not be written: {error.strerror}", path) from error
        raise


def _write_all(file: IO[str], pieces: Iterator[str]) -> None:
    for piece in pieces:
        file.write(piece)
