# SPDX-License-Identifier: BSD-3-Clause
"""What a report shows, made of the events of a trace: columns of tasks, sums by function and worker, a histogram.

A report has to open quickly however many tasks there were. So sums and histogram are made here, of all tasks; what is
drawn one by one is bounded: beyond DRAWN_MAX records, neighbours on a worker are drawn as one, which has the name of
the longest and says for how many it stands.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

File = str | os.PathLike[str]
_DECODER = json.JSONDecoder()

DRAWN_MAX = 100_000
LONGEST = 5
TROUBLES_MAX = 200  # rows of the table of errors; the sum says all
BINS_PER_DECADE = 5
SAMPLES_MAX = 2000  # of memory


class Task(NamedTuple):
    """One task on its worker. Times in microseconds since the trace began."""

    worker: int
    start: float
    duration: float
    unpickle: float
    run: float
    pickle: float
    function: str
    elements: int
    bytes_in: int
    bytes_out: int
    outcome: str
    attempt: int


class Memory(NamedTuple):
    """Bytes at a time, in seconds since the trace began."""

    at: float
    parent: int
    workers: int
    arena: int


@dataclass
class Sum:
    """Of one function, or of one worker."""

    tasks: int = 0
    elements: int = 0
    unpickle: float = 0.0
    run: float = 0.0
    pickle: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    failed: int = 0
    runs: list[float] = field(default_factory=list)  # of each task, for its percentiles

    def add(self, task: Task) -> None:
        """Count one more."""
        self.tasks += 1
        self.elements += task.elements
        self.unpickle += task.unpickle
        self.run += task.run
        self.pickle += task.pickle
        self.bytes_in += task.bytes_in
        self.bytes_out += task.bytes_out
        self.failed += task.outcome in ("raised", "lost")
        self.runs.append(task.run / max(1, task.elements))

    @property
    def busy(self) -> float:
        """Time that a worker spent on it."""
        return self.unpickle + self.run + self.pickle

    def percentile(self, share: float) -> float:
        """Of the time of an element."""
        self.runs.sort()  # which takes no time when it is done already
        return self.runs[min(len(self.runs) - 1, int(share * len(self.runs)))] if self.runs else 0.0


@dataclass
class Recording:
    """All that a report is made of."""

    tasks: list[Task]
    duration: float  # microseconds
    pids: dict[int, list[int]]  # of each worker, one after the other
    element_times: Counter[int]  # histogram: number of the bin -> elements
    other: dict[str, Any]  # of the trace
    memory: list[Memory] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)  # machine, versions
    title: str = "Pool"

    def by_function(self) -> dict[str, Sum]:
        """Sums by function, the one that took longest first."""
        sums = self._sums("function")
        return dict(sorted(sums.items(), key=lambda pair: -pair[1].busy))

    def by_worker(self) -> dict[int, Sum]:
        """Sums by worker; also those that had no task."""
        sums = self._sums("worker")
        return {worker: sums.get(worker, Sum()) for worker in sorted({*self.pids, *sums})}

    def _sums(self, name: str) -> dict[Any, Sum]:
        sums: defaultdict[Any, Sum] = defaultdict(Sum)
        for task in self.tasks:
            sums[getattr(task, name)].add(task)
        return sums

    @property
    def elements(self) -> int:
        """How many calls of a function the tasks were made of."""
        return sum(task.elements for task in self.tasks)

    def longest(self) -> list[Task]:
        """Return the five longest, longest first."""
        return sorted(self.tasks, key=lambda task: -task.run)[:LONGEST]

    def troubles(self) -> list[Task]:
        """Return tasks that raised, or whose worker died, in the order of time."""
        return sorted((one for one in self.tasks if one.outcome in ("raised", "lost")), key=lambda task: task.start)

    def restarts(self) -> int:
        """Return how many processes came in the place of another one."""
        return sum(len(pids) - 1 for pids in self.pids.values() if pids)


def bin_of(microseconds: float) -> int:
    """Which bin of the histogram; they grow by a fixed factor."""
    return math.floor(math.log10(max(microseconds, 0.01)) * BINS_PER_DECADE)


def start_of_bin(number: int) -> float:
    """Where it begins, in microseconds."""
    return float(10 ** (number / BINS_PER_DECADE))


def read(path: File) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """The events of a trace file and what it says besides.

    Line by line where each event has one: a trace of 100,000 tasks has a million events, which are not all wanted.
    """
    with open(path, encoding="utf-8") as file:
        head = [file.readline(1 << 16) for _ in range(4)]
    if len([line for line in head if _event(line) is not None]) >= 2:
        return _lines(path), _other("".join(head), _tail(path), path)
    whole = json.loads(_text(path))
    return iter(whole["traceEvents"]), whole.get("otherData", {})


def _text(path: File) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _tail(path: File) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        return file.read().decode("utf-8", "replace")


def _other(head: str, tail: str, path: File) -> dict[str, Any]:
    for text in (tail, head):
        at = text.rfind('"otherData":')
        if at >= 0:
            try:
                found = _DECODER.raw_decode(text[at + len('"otherData":') :].lstrip())[0]
            except ValueError:
                break
            return found if isinstance(found, dict) else {}
    whole = json.loads(_text(path))
    return dict(whole.get("otherData", {}))


def _event(line: str) -> dict[str, Any] | None:
    """The event on a line of its own."""
    try:
        found = json.loads(line.strip().rstrip(","))
    except ValueError:
        return None
    return found if isinstance(found, dict) and "ph" in found else None


def _lines(path: File) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if '"task"' in line or '"element"' in line:
                event = _event(line)
                if event is not None:
                    yield event


def gather(events: Iterable[dict[str, Any]], other: dict[str, Any]) -> Recording:
    """Make the recording that these events tell."""
    tasks: list[Task] = []
    pids: defaultdict[int, list[int]] = defaultdict(list)
    names: dict[str, str] = {}  # many tasks, few functions
    times: Counter[int] = Counter()
    told: dict[int, int] = {}  # task -> elements whose times are told by themselves
    numbers: list[int] = []
    for event in events:
        kind = event.get("cat")
        if kind == "task":
            task = _task(event, names)
            tasks.append(task)
            numbers.append(int(event.get("args", {}).get("task", -1)))
            pid = int(event.get("pid", 0))
            if pid and pid not in pids[task.worker]:
                pids[task.worker].append(pid)
        elif kind == "element":
            about = event.get("args", {})
            count, number = int(about.get("count", 1)), int(about.get("task", -1))
            times[bin_of(float(event.get("dur", 0)) / max(1, count))] += count
            told[number] = told.get(number, 0) + count
    for task, number in zip(tasks, numbers, strict=True):
        left = task.elements - told.get(number, 0)
        if left > 0 and task.outcome != "unfinished":
            times[bin_of(task.run / max(1, task.elements))] += left
    for worker in range(int(other.get("workers", 0))):
        pids.setdefault(worker, [])
    tasks.sort(key=lambda task: (task.worker, task.start))
    duration = max((task.start + task.duration for task in tasks), default=0.0)
    return Recording(tasks, max(duration, float(other.get("duration", 0.0))), dict(pids), times, other)


def _task(event: dict[str, Any], names: dict[str, str]) -> Task:
    about = event.get("args", {})
    start, duration = float(event.get("ts", 0)), max(0.0, float(event.get("dur", 0)))
    begun, ended = about.get("started"), about.get("ended")
    run_from = start if begun is None else min(max(float(begun), start), start + duration)
    run_to = start + duration if ended is None else min(max(float(ended), run_from), start + duration)
    name = str(event.get("name", "?"))
    return Task(
        int(about.get("worker", 0)),
        start,
        duration,
        run_from - start,
        run_to - run_from,
        start + duration - run_to,
        names.setdefault(name, name),
        int(about.get("elements") or 1),
        int(about.get("bytes_in") or 0) + int(about.get("buffers_in") or 0),
        int(about.get("bytes_out") or 0),
        str(about.get("outcome", "done")),
        int(about.get("attempt") or 0),
    )


def drawn(tasks: list[Task], most: int = DRAWN_MAX) -> tuple[list[Task], list[int]]:
    """Return at most about so many records to draw, and for how many tasks each stands."""
    if len(tasks) <= most:
        return tasks, [1] * len(tasks)
    span = max(task.start + task.duration for task in tasks)
    workers = len({task.worker for task in tasks})
    cell = span * workers / most * 2  # what lies in one cell of time is drawn as one
    merged: list[Task] = []
    counts: list[int] = []
    longest = 0.0  # of those in the last record: it gives the name
    for task in tasks:
        last = merged[-1] if merged else None
        if last is None or last.worker != task.worker or task.start + task.duration - last.start > cell:
            merged.append(task)
            counts.append(1)
            longest = task.duration
            continue
        name = last.function if longest >= task.duration else task.function
        longest = max(longest, task.duration)
        merged[-1] = last._replace(
            function=name,
            duration=task.start + task.duration - last.start,
            unpickle=last.unpickle + task.unpickle,
            run=last.run + task.run,
            pickle=last.pickle + task.pickle,
            elements=last.elements + task.elements,
            bytes_in=last.bytes_in + task.bytes_in,
            bytes_out=last.bytes_out + task.bytes_out,
            outcome=last.outcome if last.outcome in ("raised", "lost") else task.outcome,
        )
        counts[-1] += 1
    return merged, counts


def thinned(samples: list[Memory], most: int = SAMPLES_MAX) -> list[Memory]:
    """Of many samples of memory, the highest of each stretch: a peak is not to be lost."""
    if len(samples) <= most:
        return samples
    step = -(-len(samples) // most)
    parts = [samples[at : at + step] for at in range(0, len(samples), step)]
    return [max(part, key=lambda one: one.parent + one.workers + one.arena) for part in parts]
