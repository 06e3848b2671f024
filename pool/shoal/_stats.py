# SPDX-License-Identifier: BSD-3-Clause
"""What a pool says about itself: `Pool.stats()`, and how it is shown.

The engine gives the words of the meters as they lie in shared memory; pool/ext/meter.h says what each means.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal._parts import size_text

if TYPE_CHECKING:
    from shoal import _ext

_WORDS = struct.Struct("64Q")
_TIMES = slice(3, 8)  # start, wait, run, pickle, unpickle
_BYTES = slice(8, 11)  # in, out, saved
_MARK = 11
_LONGEST, _LONG_TASKS, _LONG_WORDS, _NAME_BYTES = 16, 5, 8, 48
_CREATED, _CREATED_WALL, _STATE = 2, 3, 13
_STATES = {1: "running", 2: "closed", 3: "ended"}
PHASES = ("start", "wait", "run", "pickle", "unpickle")


@dataclasses.dataclass(frozen=True)
class LongTask:
    """One of the tasks that took longest.

    Attributes
    ----------
    seconds : float
        How long user code ran.
    function : str
        Its qualified name, cut to 48 bytes.
    when : float
        When it began, as `time.time()` says it.
    worker : int
        The worker that ran it.
    """

    seconds: float
    function: str
    when: float
    worker: int


@dataclasses.dataclass(frozen=True)
class WorkerStats:
    """What one worker has done; if it died, its successors go on with the same figures.

    Attributes
    ----------
    worker : int
        Its number.
    pid : int
        Its process, or 0 while it is being replaced and when the pool has ended.
    restarts : int
        How often it was replaced.
    busy : bool
        Whether it has a task.
    done, failed, lost : int
        Calls and elements that returned, that raised, and that ended because it died.
    served : int
        Calls and elements that ended, as the worker itself counts: also those whose outcome is still under way.
    start, wait, run, pickle, unpickle : float
        Seconds from its fork to ready; without a task; in user code; from there until the result was handed in; from
        having a task to user code. Together they are its life. Tasks below 20 microseconds are timed by samples: then
        the sum is exact, and how it is split is an estimate.
    bytes_in, bytes_out : int
        What its tasks and their results were as pickles, and the arrays that went with them.
    copies_saved : int
        Bytes of arrays among them that nobody copied on the way.
    arena : int
        Bytes of the arena that it holds now.
    longest : tuple of LongTask
        Up to five, longest first.
    """

    worker: int
    pid: int
    restarts: int
    busy: bool
    done: int
    failed: int
    lost: int
    served: int
    start: float
    wait: float
    run: float
    pickle: float
    unpickle: float
    bytes_in: int
    bytes_out: int
    copies_saved: int
    arena: int
    longest: tuple[LongTask, ...]


@dataclasses.dataclass(frozen=True)
class PoolStats:
    """What a pool has done so far. `str()` is a table; `as_dict()` is for JSON.

    Attributes
    ----------
    name : str
        What kind of pool it is.
    pid : int
        The process that it belongs to.
    state : str
        "running", "closed", "ended" or "broken"; "new" for an executor that has had no call.
    created : float
        When it was made, as `time.time()` says it.
    elapsed : float
        Seconds since then.
    submitted, done, failed, lost : int
        Calls and elements: sent; returned; raised; ended because a worker died or the pool ended.
    running, waiting : int
        Tasks (calls, and parts of a map) that are in flight, and that wait for a place among those.
    restarts : int
        Workers that were replaced.
    arena_used, arena_cached, arena_budget : int
        Bytes of the arena of this process: in use, kept for the next use, and how many there may be.
    unread : int
        Bytes of results that nobody has fetched.
    workers : tuple of WorkerStats
    longest : tuple of LongTask
        Up to five of all workers, longest first.
    """

    name: str
    pid: int
    state: str
    created: float
    elapsed: float
    submitted: int
    done: int
    failed: int
    lost: int
    running: int
    waiting: int
    restarts: int
    arena_used: int
    arena_cached: int
    arena_budget: int
    unread: int
    workers: tuple[WorkerStats, ...]
    longest: tuple[LongTask, ...]

    @property
    def start(self) -> float:
        """Seconds that workers took to come up."""
        return sum(worker.start for worker in self.workers)

    @property
    def wait(self) -> float:
        """Seconds that workers had no task."""
        return sum(worker.wait for worker in self.workers)

    @property
    def run(self) -> float:
        """Seconds that workers were in user code."""
        return sum(worker.run for worker in self.workers)

    @property
    def pickle(self) -> float:
        """Seconds that workers took to hand results in."""
        return sum(worker.pickle for worker in self.workers)

    @property
    def unpickle(self) -> float:
        """Seconds that workers took to read tasks."""
        return sum(worker.unpickle for worker in self.workers)

    @property
    def bytes_in(self) -> int:
        """Bytes that workers were sent."""
        return sum(worker.bytes_in for worker in self.workers)

    @property
    def bytes_out(self) -> int:
        """Bytes that workers sent back."""
        return sum(worker.bytes_out for worker in self.workers)

    @property
    def copies_saved(self) -> int:
        """Bytes of arrays that nobody copied on the way."""
        return sum(worker.copies_saved for worker in self.workers)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def gather(name: str, engine: _ext.Engine | None) -> PoolStats:
    """Read the meters of an engine; None: it has not been made yet."""
    import os
    import time

    wall = time.time()
    if engine is None:
        nothing = dict.fromkeys(_COUNTS, 0)
        return PoolStats(name, os.getpid(), "new", wall, 0.0, workers=(), longest=(), **nothing)
    parent_words, found = engine.meters()
    counters = engine.stats()
    parent = _WORDS.unpack(parent_words)
    now_ns = time.monotonic_ns()
    ended = _STATES.get(parent[_STATE]) == "ended"
    workers = tuple(_worker(index, one, now_ns, wall, ended) for index, one in enumerate(found))
    return PoolStats(
        name=name,
        pid=parent[1],
        state="broken" if engine.broken is not None else _STATES.get(parent[_STATE], "running"),
        created=parent[_CREATED_WALL] / 1e9,
        elapsed=(now_ns - parent[_CREATED]) / 1e9,
        submitted=counters["submitted"],
        done=parent[6],
        failed=parent[7],
        lost=counters["lost"],
        running=counters["in_flight"],
        waiting=counters["backlog"],
        restarts=counters["restarts"],
        arena_used=counters["arena_used"],
        arena_cached=counters["arena_cached"],
        arena_budget=counters["arena_budget"],
        unread=counters["unread"],
        workers=workers,
        longest=_longest_of(task for worker in workers for task in worker.longest),
    )


_COUNTS = (
    "submitted",
    "done",
    "failed",
    "lost",
    "running",
    "waiting",
    "restarts",
    "arena_used",
    "arena_cached",
    "arena_budget",
    "unread",
)


def _worker(index: int, found: _ext._WorkerMeter, now_ns: int, wall: float, ended: bool) -> WorkerStats:
    raw, pid, restarts, done, failed, lost, held, busy = found
    words = _WORDS.unpack(raw)
    times = [word / 1e9 for word in words[_TIMES]]
    if pid and not ended and words[_MARK]:  # what it has been at since it last looked at the clock
        times[PHASES.index("run" if busy else "wait")] += max(0, now_ns - words[_MARK]) / 1e9
    start, wait, run, pickle, unpickle = times
    bytes_in, bytes_out, copies_saved = words[_BYTES]
    return WorkerStats(
        worker=index,
        pid=pid,
        restarts=restarts,
        busy=busy,
        done=done,
        failed=failed,
        lost=lost,
        served=words[2],
        start=start,
        wait=wait,
        run=run,
        pickle=pickle,
        unpickle=unpickle,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        copies_saved=copies_saved,
        arena=held,
        longest=_longest_of(_long_tasks(index, raw, now_ns, wall)),
    )


def _long_tasks(index: int, raw: bytes, now_ns: int, wall: float) -> Iterator[LongTask]:
    for number in range(_LONG_TASKS):
        at = 8 * (_LONGEST + number * _LONG_WORDS)
        run_ns, begin_ns = struct.unpack_from("2Q", raw, at)
        name = raw[at + 16 : at + 16 + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        if run_ns:
            yield LongTask(run_ns / 1e9, name, wall - (now_ns - begin_ns) / 1e9, index)


def _longest_of(tasks: Iterable[LongTask]) -> tuple[LongTask, ...]:
    return tuple(sorted(tasks, key=lambda task: -task.seconds)[:_LONG_TASKS])


# ---- how it is shown ----


def time_text(seconds: float) -> str:
    """A time as people read it: 12 µs, 3.4 ms, 1.25 s, 4 min 10 s."""
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            amount = seconds * factor
            return f"{amount:.0f} {unit}" if amount >= 10 or not amount else f"{amount:.1f} {unit}"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _lines(stats: PoolStats) -> Iterator[str]:
    workers = f"{len(stats.workers)} worker{'s'[: len(stats.workers) != 1]}"
    yield f"{stats.name}: {stats.state} for {time_text(stats.elapsed)}, {workers}, pid {stats.pid}"
    told = [f"{stats.done:,} done", f"{stats.failed:,} failed", f"{stats.lost:,} lost"]
    yield f"tasks: {stats.submitted:,} submitted, {', '.join(told)}; {stats.running:,} tasks in flight, " + (
        f"{stats.waiting:,} waiting; {stats.restarts:,} restarts"
    )
    yield f"arena: {size_text(stats.arena_used)} in use, {size_text(stats.arena_cached)} kept, " + (
        f"{size_text(stats.arena_budget)} at most; {size_text(stats.unread)} of results not fetched"
    )
    yield ""
    yield from _table(stats)
    if stats.longest:
        yield ""
        yield "longest tasks:"
        for task in stats.longest:
            yield f"  {time_text(task.seconds):>10}  {task.function}  (worker {task.worker}, {_clock(task.when)})"


def _table(stats: PoolStats) -> Iterator[str]:
    head = ["worker", "pid", "restarts", "done", "failed", "lost", *PHASES, "in", "out", "not copied"]
    rows = [head]
    for worker in stats.workers:
        counts = [worker.restarts, worker.done, worker.failed, worker.lost]
        rows.append(
            [str(worker.worker), str(worker.pid or "-"), *(f"{count:,}" for count in counts), *_amounts(worker)]
        )
    if len(stats.workers) > 1:
        counts = [stats.restarts, stats.done, stats.failed, sum(worker.lost for worker in stats.workers)]
        rows.append(["all", "", *(f"{count:,}" for count in counts), *_amounts(stats)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths))
    whole = sum(getattr(stats, phase) for phase in PHASES)
    if whole:
        shares = (f"{phase} {100 * getattr(stats, phase) / whole:.0f} %" for phase in PHASES)
        yield f"share of the workers' time: {', '.join(shares)}"


def _amounts(of: WorkerStats | PoolStats) -> Iterator[str]:
    for phase in PHASES:
        yield time_text(getattr(of, phase))
    for size in (of.bytes_in, of.bytes_out, of.copies_saved):
        yield size_text(size)


def _clock(when: float) -> str:
    import time

    return time.strftime("%H:%M:%S", time.localtime(when))
