# SPDX-License-Identifier: BSD-3-Clause
"""The frame of the benchmarks: what a row is, how it is measured, what is computed from the rounds.

The problem: the speed of a machine drifts by tens of per cent while one measures (other users, clock frequency, where
the scheduler happens to put a process), and means of two separate runs compare the weather. So ours and the peer take
turns, round by round, A B A B, in the same minute, and the ratio is taken within each pair of rounds.

The protocol: each side of a row lives in a process of its own under this one (side.py), so that neither sees the
other's heap, threads or crash. The frame tells one of them to run a round and leaves the other asleep. A round is many
calls; what it gives is seconds per call (a mean: it contains the rare slow call, as the user's time does) and CPU
seconds of that side's whole process tree. How many calls make a round is found at the start for each side: at least
`Row.calls`, and as many as fill Row.round_seconds.

What it does not do: it does not average away a busy machine. It waits a while for a quiet moment before each row, and
says for each row how much CPU others used while it ran.
"""

import contextlib
import dataclasses
import math
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import machine

OURS, THEIRS = "ours", "theirs"
PROGRAM_SECONDS = 120.0  # a program that runs for longer hangs

# A set-up: a context manager that gives a function which does n calls. What it returns is nothing, or the Span that
# counts, if it does more than what is to be measured (makes a new argument for each call).
Rounds = Callable[[int], object]
SetUp = Callable[[], AbstractContextManager[Rounds]]


class SkipRow(Exception):
    """Raised by a set-up where this row cannot be measured, with the reason."""


@dataclasses.dataclass
class Span:
    """Parts of a round, added up: `with span: ...`."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process, and of `tree`
    latencies: list[float] = dataclasses.field(default_factory=list)  # of single calls, in seconds, if they were timed
    tree: list[int] | None = None  # its descendants, whose time counts, too

    def _cpu_now(self) -> float:
        return time.process_time() if self.tree is None else machine.tree_cpu_seconds(self.tree)

    def __enter__(self) -> None:
        self.cpu_seconds -= self._cpu_now()
        self.seconds -= time.perf_counter()

    def __exit__(self, *_) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += self._cpu_now()


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `theirs` do the same thing, each in the way that is fastest for it."""

    name: str
    ours: SetUp
    theirs: SetUp | None = None
    peer: str = ""
    calls: int = 1  # the least in one round; the same for both sides
    operations: int = 1  # per call: a map of a million ints is one call of a million operations
    unit: str = "us"  # of the figures shown, per operation: ns, us or ms
    placement: str = "free"  # see machine.place
    rounds: int = 20
    round_seconds: float = 0.1
    processes: int = 1  # of each side, one after the other, among which the rounds are divided
    group: str = ""  # for --group
    goal: float | None = None  # ours is to be so many times faster
    limit: float | None = None  # ours is to take so many seconds per operation at most, in the mean
    busy: int = 0  # so many foreign processes compute all the while
    family: str = ""  # rows whose geometric mean is shown at the end

    def sides(self) -> tuple[str, ...]:
        return (OURS, THEIRS) if self.theirs else (OURS,)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that measures several rows by itself, without a peer, and prints `row=<name> ns=<value>` for each."""

    name: str
    find: Callable[[str], pathlib.Path]  # from the last part of the name
    rounds: int = 5
    group: str = "native"


class Registry:
    """The rows by name, in the order in which they were added."""

    def __init__(self):
        self.rows: dict[str, Row | Program] = {}
        self.family_goals: dict[str, float] = {}

    def add(self, name: str, **fields) -> None:
        self.insert(Row(name, **fields))

    def add_program(self, name: str, find: Callable[[str], pathlib.Path]) -> None:
        self.insert(Program(name, find))

    def insert(self, row: Row | Program) -> None:
        if row.name in self.rows:
            raise ValueError(f"two rows are called {row.name}")
        self.rows[row.name] = row

    def choose(self, names: list[str], group: str | None = None) -> list[Row | Program]:
        """The rows that are called, or lie under, one of `names`; all of them if it is empty. Of `group`, if given."""
        for name in names:
            if not any(is_under(row, name) for row in self.rows):
                raise SystemExit(f"no row is called {name}; --list shows them")
        groups = {row.group for row in self.rows.values()}
        if group is not None and group not in groups:
            raise SystemExit(f"no group is called {group}, but {', '.join(sorted(groups))}")
        return [
            row
            for row in self.rows.values()
            if (group is None or row.group == group) and (not names or any(is_under(row.name, name) for name in names))
        ]


def is_under(row_name: str, name: str) -> bool:
    return row_name == name or row_name.startswith(name.rstrip("/") + "/")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One round of one side."""

    seconds: float  # per operation
    cpu_seconds: float | None  # of the side's process tree, for the whole round; None: not known
    operations: int
    process: int = 0  # which of the side's processes it was
    p50: float | None = None  # seconds of single calls: the median, and what one in a hundred exceeds
    p99: float | None = None


class Side(Protocol):
    """One side of a row that is ready to run. side.SideProcess is the real one."""

    def prepare(self) -> None: ...

    def run_round(self) -> Sample: ...


OpenSide = Callable[[Row, str, float], AbstractContextManager[Side]]


@dataclasses.dataclass
class Result:
    """All rounds of one row."""

    row: Row
    samples: dict[str, list[Sample]]
    foreign_share: float = 0.0  # of the machine's CPU time, used by others while the rounds ran
    skipped: str = ""  # the reason
    failed: str = ""  # the error

    def seconds(self, side: str) -> list[float]:
        return [sample.seconds for sample in self.samples[side]]

    def ratios(self) -> list[float]:
        """How many times faster ours was, in each pair of rounds."""
        return [theirs / ours for ours, theirs in zip(self.seconds(OURS), self.seconds(THEIRS), strict=True)]

    def ratio_of_means(self) -> float:
        return statistics.fmean(self.seconds(THEIRS)) / statistics.fmean(self.seconds(OURS))

    def ratio(self) -> float:
        return statistics.median(self.ratios())

    def has_ratio(self) -> bool:
        return self.row.theirs is not None and not self.skipped and not self.failed

    def reaches_goal(self) -> bool | None:
        """None: there is none, or nothing was measured."""
        if self.row.goal is None or not self.has_ratio():
            return None
        return self.ratio() >= self.row.goal

    def keeps_limit(self) -> bool | None:
        """None: there is none, or nothing was measured."""
        if self.row.limit is None or self.skipped or self.failed:
            return None
        return statistics.fmean(self.seconds(OURS)) <= self.row.limit

    def of_single_calls(self, side: str) -> tuple[float, float] | None:
        """Median and 99th percentile of single calls, each the median over the rounds; None: they were not timed."""
        timed = [(sample.p50, sample.p99) for sample in self.samples[side] if sample.p50 is not None]
        return (
            (statistics.median(p50 for p50, _ in timed), statistics.median(p99 for _, p99 in timed)) if timed else None
        )

    def cpu_per_operation(self, side: str) -> float | None:
        samples = self.samples[side]
        if any(sample.cpu_seconds is None for sample in samples):
            return None
        return sum(sample.cpu_seconds for sample in samples) / sum(sample.operations for sample in samples)

    def as_dict(self) -> dict:
        """For --json: every round, and what is computed from them."""
        given: dict = {"name": self.row.name, "peer": self.row.peer}
        for name in ("skipped", "failed"):
            if getattr(self, name):
                return given | {name: getattr(self, name)}
        given["foreign_cpu_share"] = self.foreign_share
        for side in self.row.sides():
            given[side] = {
                "median_seconds": statistics.median(self.seconds(side)),
                "mean_seconds": statistics.fmean(self.seconds(side)),
                "cpu_seconds_per_operation": self.cpu_per_operation(side),
                "single_calls": self.of_single_calls(side),
                "rounds": [dataclasses.asdict(sample) for sample in self.samples[side]],
            }
        if self.row.limit is not None:
            given[OURS]["limit_seconds"] = self.row.limit
        if self.row.theirs:
            ratios = self.ratios()
            given["ratio"] = {
                "median": self.ratio(),
                "min": min(ratios),
                "max": max(ratios),
                "of_means": self.ratio_of_means(),
            }
            if self.row.goal is not None:
                given["ratio"]["goal"] = self.row.goal
        return given


def measure(row: Row, rounds: int, round_seconds: float, open_side: OpenSide) -> Result:
    """Run `rounds` rounds of each side, in turns."""
    result = Result(row, {side: [] for side in row.sides()})
    foreign_shares = []
    processes = min(row.processes, rounds)
    try:
        for process in range(processes):
            with contextlib.ExitStack() as stack:
                stack.enter_context(machine.busy_processes(row.busy))
                sides = {name: stack.enter_context(open_side(row, name, round_seconds)) for name in row.sides()}
                for side in sides.values():
                    side.prepare()
                foreign = machine.ForeignShare()
                for _ in range(rounds * process // processes, rounds * (process + 1) // processes):
                    for name, side in sides.items():
                        result.samples[name].append(dataclasses.replace(side.run_round(), process=process))
                foreign_shares.append(foreign.measure())
        result.foreign_share = statistics.fmean(foreign_shares)
    except SkipRow as reason:
        result.skipped = str(reason)
    except Exception as error:  # a row that breaks must not take the others along
        result.failed = f"{type(error).__name__}: {error}"
    return result


def measure_program(program: Program, rounds: int) -> list[Result]:
    """Run the program `rounds` times; one result for each row that it prints."""
    results: dict[str, Result] = {}
    try:
        own_name = program.name.rpartition("/")[2]
        path = program.find(own_name)
        foreign = machine.ForeignShare()
        for _ in range(rounds):
            done = subprocess.run([path], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False)
            if done.returncode != 0:
                raise ChildProcessError(f"status {done.returncode}: {done.stderr.strip()}")
            for name, seconds in parse_program(done.stdout):
                row = Row(f"{program.name}/{name.removeprefix(own_name + '_')}", ours=no_set_up, unit="ns")
                result = results.setdefault(name, Result(row, {OURS: []}))
                result.samples[OURS].append(Sample(seconds, None, 1))
        share = foreign.measure()
        for result in results.values():
            result.foreign_share = share
        if not results:
            raise ValueError("it printed no row")
    except SkipRow as reason:
        return [Result(Row(program.name, ours=no_set_up), {}, skipped=str(reason))]
    except Exception as error:
        return [Result(Row(program.name, ours=no_set_up), {}, failed=f"{type(error).__name__}: {error}")]
    return list(results.values())


def parse_program(output: str) -> Iterator[tuple[str, float]]:
    """Names and seconds from lines `row=<name> ns=<value>`; other lines, and other words in a line, are passed over."""
    for line in output.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "row" in words:
            yield words["row"], float(words["ns"]) * 1e-9


def no_set_up() -> AbstractContextManager[Rounds]:
    raise SkipRow("measured by a program of its own")


def timed(run: Rounds, calls: int) -> float:
    """Seconds of what counts in a round."""
    begin = time.perf_counter()
    span = run(calls)
    elapsed = time.perf_counter() - begin
    return span.seconds if isinstance(span, Span) else elapsed


# A quick run shows that rows work, not how fast they are: single calls, and what takes long is cut down.

QUICK_CALLS = 100
_quick = [False]


def be_quick() -> None:
    """From now on, in this process and its forks."""
    _quick[0] = True


def is_quick() -> bool:
    """Is it only to be seen whether it works?"""
    return _quick[0]


def lasting(seconds: float) -> float:
    """How long something takes that a row makes or waits for."""
    return seconds / 20 if _quick[0] else seconds


def so_many(count: int) -> int:
    """How many parts something has that takes long to make."""
    return count // 20 if _quick[0] else count


def calls_per_round(row: Row, round_seconds: float, run: Rounds) -> int:
    """Find by trying how many calls fill a round. Warms everything up, too."""
    calls = min(row.calls, QUICK_CALLS) if _quick[0] else row.calls
    run(calls)
    while not _quick[0]:
        elapsed = timed(run, calls)
        if elapsed >= round_seconds:
            return calls
        if elapsed >= round_seconds / 4:
            return max(calls, round(calls * round_seconds / elapsed))
        calls *= 4
    return calls


def each(call: Callable, *args) -> Rounds:
    """A round that is `call(*args)` n times. Both sides of a row are driven by the same loop."""

    def run(count: int) -> None:
        for _ in range(count):
            call(*args)

    return run


def each_timed(call: Callable, *args) -> Rounds:
    """A round that is `call(*args)` n times, each timed by itself (which adds two looks at the clock to each)."""

    def run(count: int) -> Span:
        clock = time.perf_counter
        latencies = []
        begin = clock()
        for _ in range(count):
            start = clock()
            call(*args)
            latencies.append(clock() - start)
        return Span(clock() - begin, math.nan, latencies)

    return run


def each_new(make: Callable, call: Callable, *args, at_once: int = 100) -> Rounds:
    """A round that is `call(make(), *args)` n times. Making the arguments, and freeing them, does not count."""

    def run(count: int) -> Span:
        span = Span()
        while count > 0:
            values = [make() for _ in range(min(count, at_once))]
            count -= len(values)
            with span:
                for value in values:
                    call(value, *args)
        return span

    return run


@contextlib.contextmanager
def ready(run: Rounds) -> Iterator[Rounds]:
    """For a set-up that has nothing to take down."""
    yield run
