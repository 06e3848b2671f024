# SPDX-License-Identifier: BSD-3-Clause
"""Progress bars of map-like calls: `progress=True`.

The problem: a bar is to move while its caller computes, sleeps or has not come back from submitting, and must not hold
up a single result. And tqdm has locks, while this process may fork workers at any moment.

What is done: one thread for all bars of the process, which lives while there are bars, looks at the counts of their
calls ten times a second and draws. A call that has ended is drawn once more by whoever waited for it, before that one
gets the result, so that the line is finished when the program prints something itself. `_screen.lock` is held whenever
something is drawn, and by whoever forks: a worker never inherits a bar that is half drawn, nor tqdm's locks held.

A bar that cannot be drawn (standard error is closed, the disk behind it full) is given up; the call goes on.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from pathlib import Path
from typing import Any

from shoal import _ext
from shoal._results import AnnouncedMapResult, AnnouncedResult, AsyncResult, MapResult
from shoal._stats import gather

Send = Callable[[Any], AsyncResult]  # one element
Counts = Callable[[], tuple[int, bool]]  # how many elements have ended, and whether all have

TICK_S = 0.1
IN_A_LOG_S = 1.0  # where each state is a line of its own, or part of an endless one
LOCK_S = 1.0  # a fork waits for a terminal that does not take what is drawn, but not for ever
OUR_THREAD = "shoal-bars"


def length_of(inputs: tuple[object, ...]) -> int | None:
    """Return how many elements a call over these has, if they say."""
    lengths = [len(one) if isinstance(one, Sized) else None for one in inputs]
    known = [length for length in lengths if length is not None]
    return min(known) if len(known) == len(lengths) and known else None


class Bar:
    """The bar of one call, from before it is submitted until it has ended or nobody wants it any more."""

    def __init__(self, progress: Any, total: int | None, engine: _ext.Engine) -> None:
        self.counts: Counts | None = None
        self._shares = Shares(engine)
        self._shown = 0
        self._drawn_at = time.monotonic()
        self._paused = False
        with _screen.lock:
            self._bar: Any = _make(progress, total)
        self._pause_s = TICK_S if _on_terminal(self._bar) else IN_A_LOG_S
        if self._bar is not None:
            _screen.add(self)

    def of_map(self, callbacks: tuple[Any, Any] | None) -> MapResult:
        """Return a result that this is the bar of."""
        result: WatchedMapResult | WatchedAnnouncedMapResult
        result = WatchedMapResult() if callbacks is None else WatchedAnnouncedMapResult(*callbacks)
        result._bar = self
        self.counts = result._counts
        return result

    def of_calls(self, callbacks: tuple[Any, Any] | None, send: Send, total: int) -> tuple[AsyncResult, Send]:
        """Return a result of many calls, and how to send those, so that this is their bar."""
        outer = WatchedResult() if callbacks is None else WatchedAnnouncedResult(*callbacks)
        outer._bar = self
        return outer, self.count(send, total)

    def of_iterator(self, results: Any) -> WatchedIterator:
        """Return the same results with this bar."""
        if self.counts is None:
            self.counts = results._counts
        return WatchedIterator(results, self)

    def count(self, send: Send, total: int | None = None) -> Send:
        """Return how to send single calls, so that they count."""
        counter = Counter(send, total)
        self.counts = counter.counts
        return counter

    def tick(self) -> None:
        """Draw what has changed. The screen's lock is held."""
        if self._bar is None or self.counts is None or self._paused:
            return
        finished, done = self.counts()
        now = time.monotonic()
        if done:
            self.close()
        elif now - self._drawn_at >= self._pause_s and (finished > self._shown or now - self._drawn_at >= 1):
            self._drawn_at = now
            self._guard(self._draw, finished)

    def close(self) -> None:
        """Draw the last state and leave the line."""
        with _screen.lock:
            if self._bar is not None:
                if self.counts is not None:
                    self._guard(self._draw, self.counts()[0])
                self._guard(lambda: self._bar.close())
            self._forget()

    def pause(self) -> None:
        """The caller gets an exception, which may be printed: leave the line until they ask for more."""
        with _screen.lock:
            if self._bar is not None and not self._paused:
                self._paused = True
                self._guard(self._leave_line)

    def resume(self) -> None:
        """The caller goes on."""
        self._paused = False

    def disown(self) -> None:
        """In a forked child: the bar is the parent's, and not to be drawn here when it is collected."""
        with suppress(Exception):
            self._bar.disable = True

    def _draw(self, finished: int) -> None:
        if hasattr(self._bar, "set_postfix"):
            words = self._shares.words()
            if words:
                self._bar.set_postfix(words, refresh=False)
        more, self._shown = max(0, finished - self._shown), max(finished, self._shown)
        if more:
            self._bar.update(more)
        elif hasattr(self._bar, "refresh"):
            self._bar.refresh()

    def _leave_line(self) -> None:
        if _on_terminal(self._bar):
            getattr(self._bar, "clear", bool)()
        elif hasattr(self._bar, "fp"):
            self._bar.fp.write("\n")

    def _guard(self, action: Callable[..., object], *arguments: Any) -> None:
        """Whatever a bar raises is no business of the call that it shows."""
        try:
            if self._bar is not None:
                action(*arguments)
        except (OSError, ValueError):  # what it is drawn to is gone
            self.disown()
            self._forget()
        except Exception as error:
            self._forget()
            with suppress(Exception):  # the filters may make it an error
                warnings.warn(f"the progress bar is given up: {error!r}", RuntimeWarning, stacklevel=2)

    def _forget(self) -> None:
        self._bar = None
        self.counts = None
        _screen.bars.discard(self)


class Shares:
    """Where the workers' time has gone since the bar was made."""

    def __init__(self, engine: _ext.Engine) -> None:
        self._engine = engine
        self._before = self._spent()

    def words(self) -> dict[str, str]:
        """As tqdm shows them; nothing as long as no time has passed."""
        run, pickle, wait = (max(0.0, new - old) for new, old in zip(self._spent(), self._before, strict=True))
        whole = run + pickle + wait
        if whole <= 0:
            return {}
        return {
            name: f"{100 * part / whole:.0f} %" for name, part in (("run", run), ("pickle", pickle), ("wait", wait))
        }

    def _spent(self) -> tuple[float, float, float]:
        stats = gather("", self._engine)
        return stats.run, stats.pickle + stats.unpickle, stats.wait


def _make(progress: Any, total: int | None) -> Any:
    """The bar; None where there is nothing to draw to."""
    if callable(progress):
        return progress(total=total)
    file = sys.stderr
    if file is None or getattr(file, "closed", False):
        return None
    options: dict[str, Any] = {"total": total, "mininterval": 0, "miniters": 1}
    if isinstance(progress, str):
        options["desc"] = progress
    if not _is_terminal(file):
        options["position"] = 0  # to go up in a file takes escape sequences
    elif _columns(file) > 0:
        options["dynamic_ncols"] = True
    else:  # it does not say how wide it is
        options["ncols"] = 80
    try:
        return _tqdm()(**options)
    except OSError:
        return None


def _tqdm() -> Any:
    """The class of tqdm that fits, without the thread that it has to look after bars that are not updated."""
    try:
        tqdm = importlib.import_module("tqdm.auto" if _in_notebook() else "tqdm").tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress=True draws with tqdm, which is not installed: install it (pip install tqdm), or give a class "
            "that makes a bar, progress=MyBar, which is called with total= and needs update(n) and close()",
            name=error.name,
        ) from None
    return type("tqdm", (tqdm,), {"monitor_interval": 0})


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def _columns(file: Any) -> int:
    try:
        return os.get_terminal_size(file.fileno()).columns
    except (AttributeError, ValueError, OSError):
        return 0


def _on_terminal(bar: Any) -> bool:
    """Whether it is drawn over and over in one place."""
    return hasattr(bar, "container") or _is_terminal(getattr(bar, "fp", None))


class _Screen:
    """All bars of this process, and the thread that draws them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.bars: set[Bar] = set()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._locked = False

    def add(self, bar: Bar) -> None:
        with self.lock:
            self.bars.add(bar)
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name=OUR_THREAD, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        # So that a fork does not warn of it: it holds no lock then.
        with suppress(OSError):
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(OUR_THREAD)
        while not self._ending.wait(TICK_S):
            with self.lock:
                for bar in list(self.bars):
                    bar.tick()
                if not self.bars:
                    self._thread = None
                    return

    def end(self) -> None:
        """The interpreter exits."""
        self._ending.set()
        for bar in list(self.bars):
            bar.close()

    def before_fork(self) -> None:
        self._locked = self.lock.acquire(timeout=LOCK_S)

    def after_fork(self) -> None:
        if self._locked:
            self._locked = False
            self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        for bar in self.bars:
            bar.disown()
        self._inherited, self.bars = self.bars, set()  # kept: nothing is to be collected, and drawn, here
        self._thread = None


_screen = _Screen()
os.register_at_fork(
    before=_screen.before_fork,
    after_in_parent=_screen.after_fork,
    after_in_child=_screen.after_fork_in_child,
)
atexit.register(_screen.end)


class _Watched:
    """A result with a bar, which is finished before anybody gets the result."""

    _bar: Bar | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds."""
        try:
            done: bool = super().wait(timeout)  # type: ignore[misc]
        except BaseException:
            self._end_bar()
            raise
        if done:
            self._end_bar()
        return done

    def cancel(self, running: bool = True) -> bool:
        """Take the call back."""
        cancelled: bool = super().cancel(running)  # type: ignore[misc]
        if cancelled:
            self._end_bar()
        return cancelled

    def _end_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


class WatchedMapResult(_Watched, MapResult):
    """A MapResult with a bar."""


class WatchedAnnouncedMapResult(_Watched, AnnouncedMapResult):
    """The same, with callbacks."""


class WatchedResult(_Watched, AsyncResult):
    """The result of a map whose elements may be sent again."""


class WatchedAnnouncedResult(_Watched, AnnouncedResult):
    """The same, with callbacks."""


class WatchedIterator(Iterator[Any]):
    """The results of a lazy call, which has a bar for as long as somebody may take them."""

    def __init__(self, results: Any, bar: Bar) -> None:
        self._results = results
        self._bar = bar

    def __next__(self) -> Any:
        self._bar.resume()
        try:
            return next(self._results)
        except StopIteration:
            self._bar.close()
            raise
        except BaseException:
            self._bar.pause()
            raise
        finally:
            del self  # the exception's traceback refers to this frame

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result or raise its error; multiprocessing.TimeoutError after `timeout` seconds."""
        self._bar.resume()
        try:
            return self._results.next(timeout)
        except StopIteration:
            self._bar.close()
            raise
        except multiprocessing.TimeoutError:
            raise
        except BaseException:
            self._bar.pause()
            raise
        finally:
            del self

    def cancel(self, *arguments: Any, **keywords: Any) -> Any:
        """Nobody wants the rest."""
        self._bar.close()
        return self._results.cancel(*arguments, **keywords)

    def close(self) -> None:
        """Nobody wants the rest: as of a generator."""
        self._bar.close()
        self._results.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_results"], name)

    def __del__(self) -> None:
        bar = self.__dict__.get("_bar")
        if bar is not None:
            bar.close()


class Counter:
    """Counts the calls that a sender makes as they end."""

    def __init__(self, send: Send, total: int | None) -> None:
        self._send = send
        self._total = total
        self._finished = 0

    def __call__(self, item: Any) -> AsyncResult:
        call = self._send(item)
        if not call.watch(self._ended):
            self._ended(call)
        return call

    def counts(self) -> tuple[int, bool]:
        return self._finished, self._finished == self._total

    def _ended(self, call: _ext.Item) -> None:
        self._finished += 1
