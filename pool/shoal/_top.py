# SPDX-License-Identifier: BSD-3-Clause
"""`python -m shoal top`: the running pools of this user, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from typing import Any

from shoal._top_scan import PHASES, Sight, look

DESCRIPTION = """\
The running pools of this user, live: q or Ctrl-C ends it. With --once, or where the output is no terminal, a single
table; with --json, a single list for programs. Rates and shares are those since the look before.

run, wait and pickle are shares of the time of all workers: in user code; without a task; reading tasks and handing in
results. Memory is what the process and its workers have for themselves; the arena is shared by the pools of a process.
"""
FIRST_LOOK_S = 0.25  # between the two looks of a single table
INTERVAL_S = 1.0
HEADS = ("PID", "WORKERS", "TASKS/S", "DONE", "QUEUE", "RUN", "WAIT", "PICKLE", "MEMORY", "ARENA", "LOST", "RESTARTS")
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # a screen of our own, without a cursor
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


class Rates:
    """What a pool did since it was looked at before."""

    def __init__(self, sight: Sight, before: Sight | None) -> None:
        self.sight = sight
        since = sight.created if before is None else before.at
        self.seconds = max(1e-9, (sight.at - since) / 1e9)
        earlier = before.workers if before is not None and len(before.workers) == len(sight.workers) else None
        self.per_second = max(0, sight.served - (before.served if before else 0)) / self.seconds
        spent = dict.fromkeys(PHASES, 0)
        for index, worker in enumerate(sight.workers):
            for phase, total in enumerate(worker.phases):
                spent[PHASES[phase]] += max(0, total - (earlier[index].phases[phase] if earlier else 0))
        # Nobody has told of the rest yet: those with a task are in it, the others wait.
        workers = len(sight.workers)
        rest = max(0.0, self.seconds * 1e9 * workers - sum(spent.values()))
        at_work = min(1.0, sight.in_flight / workers) if workers else 0.0
        spent["run"] += round(rest * at_work)
        spent["wait"] += round(rest * (1 - at_work))
        whole = sum(spent.values()) or 1
        self.run = spent["run"] / whole
        self.wait = (spent["wait"] + spent["start"]) / whole
        self.pickle = (spent["pickle"] + spent["unpickle"]) / whole

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        sight = self.sight
        told: dict[str, Any] = {"pid": sight.pid, "command": sight.command}
        if sight.problem:
            return {**told, "problem": sight.problem}
        return {
            **told,
            "state": sight.state,
            "age": round((sight.at - sight.created) / 1e9, 3),
            "workers": len(sight.workers),
            "tasks_per_second": round(self.per_second, 3),
            "submitted": sight.submitted,
            "done": sight.done,
            "failed": sight.failed,
            "lost": sight.lost,
            "restarts": sight.restarts,
            "in_flight": sight.in_flight,
            "backlog": sight.backlog,
            "run": round(self.run, 4),
            "wait": round(self.wait, 4),
            "pickle": round(self.pickle, 4),
            "memory": sight.memory,
            "arena": sight.arena,
        }

    def cells(self) -> list[str]:
        """As HEADS."""
        sight = self.sight
        return [
            str(sight.pid),
            str(len(sight.workers)),
            _count(self.per_second),
            _count(sight.done + sight.failed),
            _count(sight.in_flight + sight.backlog),
            f"{100 * self.run:.0f} %",
            f"{100 * self.wait:.0f} %",
            f"{100 * self.pickle:.0f} %",
            _size(sight.memory),
            _size(sight.arena),
            _count(sight.lost),
            _count(sight.restarts),
        ]


class Watcher:
    """Looks again and again."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int, int], Sight] = {}

    def look(self) -> list[Rates]:
        """All pools, with their rates since the last look."""
        sights = look(time.monotonic_ns())
        rates = [Rates(sight, self._before.get(_key(sight))) for sight in sights]
        self._before = {_key(sight): sight for sight in sights}
        return rates


def _key(sight: Sight) -> tuple[int, int, int]:
    return sight.pid, sight.place, sight.created


def table(rates: Sequence[Rates], width: int | None = None, bold: str = "", plain: str = "") -> list[str]:
    """Lines of a table, cut to `width`."""
    rows = [list(HEADS)] + [one.cells() for one in rates if not one.sight.problem]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = [_cut(_joined(rows[0], widths, "COMMAND"), width)]
    lines[0] = bold + lines[0] + plain
    good = iter(rows[1:])
    for one in rates:
        if one.sight.problem:
            lines.append(_cut(f"{one.sight.pid:>{widths[0]}}  {one.sight.problem}: {one.sight.command}", width))
        else:
            command = one.sight.command if one.sight.state == "running" else f"({one.sight.state}) {one.sight.command}"
            lines.append(_cut(_joined(next(good), widths, command), width))
    return lines


def _joined(row: Sequence[str], widths: Sequence[int], command: str) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) + "  " + command


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…"[:width]


def _count(value: float) -> str:
    for limit, factor, unit in ((10_000, 1, ""), (10_000_000, 1_000, "k"), (10_000_000_000, 1_000_000, "M")):
        if value < limit:
            return f"{value / factor:.0f}{unit}"
    return f"{value / 1e9:.0f}G"


def _size(count: float) -> str:
    for unit in ("", "K", "M", "G"):
        if count < 1000:
            return f"{count:.0f}{unit}" if count >= 9.95 or not unit or not count else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}T"


# ---- the command ----


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--once", action="store_true", help="one table, then end")
    parser.add_argument("--json", action="store_true", help="one list as JSON, then end")
    parser.add_argument(
        "--interval", type=_interval, default=INTERVAL_S, metavar="SECONDS", help="between two looks (1)"
    )


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0.05 to 3600, not {text!r}")
    return seconds


def run(chosen: argparse.Namespace) -> int:
    """Do what was asked for; return the exit status."""
    try:
        if chosen.once or chosen.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _once(chosen.json)
        else:
            _live(chosen.interval)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _once(as_json: bool) -> None:
    watcher = Watcher()
    rates = watcher.look()
    if any(not one.sight.problem for one in rates):
        time.sleep(FIRST_LOOK_S)
        rates = watcher.look()
    if as_json:
        print(json.dumps([one.as_dict() for one in rates], indent=2))
    elif rates:
        print("\n".join(table(rates)))
    else:
        print("no pool of this user is running")
    sys.stdout.flush()


def _live(interval: float) -> None:
    watcher = Watcher()
    watcher.look()
    with _screen() as resized:
        pause = FIRST_LOOK_S
        while not _key_or_pause(pause, resized):
            _show(watcher.look())
            pause = interval


def _show(rates: Sequence[Rates]) -> None:
    columns, lines = shutil.get_terminal_size()
    said = [_cut(f"shoal top  {time.strftime('%H:%M:%S')}  q: end", columns), ""]
    said += table(rates, columns, BOLD, PLAIN) if rates else [_cut("no pool of this user is running", columns)]
    if len(said) > lines:
        said = [*said[: lines - 1], _cut(f"… {len(said) - lines + 1} more", columns)]
    sys.stdout.write(HOME + (CLEAR_LINE + "\n").join(said) + CLEAR_LINE + CLEAR_BELOW)
    sys.stdout.flush()


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """A screen of our own, and a descriptor that can be read when its size has changed."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is to be as it was
        tty.setcbreak(keyboard)
        sys.stdout.write(ENTER)
        sys.stdout.flush()
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
        with contextlib.suppress(OSError, termios.error):  # the terminal is gone
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            sys.stdout.write(LEAVE)
            sys.stdout.flush()


def _key_or_pause(seconds: float, resized: int) -> bool:
    """Wait so long, or until the size changes; return whether to end."""
    until = time.monotonic() + seconds
    keyboard = sys.stdin.fileno()
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([keyboard, resized], [], [], left)
        if keyboard in ready:
            typed = os.read(keyboard, 64)
            if not typed or b"q" in typed or b"Q" in typed or b"\x04" in typed:
                return True
        if resized in ready:
            os.read(resized, 64)
            return False
    return False
