# SPDX-License-Identifier: BSD-3-Clause
"""What a worker says goes to its parent: log records, warnings, lines of text. The worker's side; see _hear.py.

The problem: a forked worker has the parent's log handlers, and with them its files and sockets: several processes write
to one file, rotate it, hold its locks. One that is started anew has none, and what it says is lost. A notebook, pytest
or `contextlib.redirect_stdout` has another `sys.stdout` in the parent, which no worker can write to.

The way: what comes is sent through the worker's result ring (pool/ext/worker_say.c), in order, and before the result of
the task that said it.

- A record that has passed the worker's loggers (their levels are those of the parent when the worker started) goes to
  the parent's logger of that name. Handlers that were inherited are not run here; those that the worker has added are,
  and what one of them has taken is not sent.
- A warning that has passed the worker's filters, which are the parent's, is given to the parent's `warn_explicit`, so
  that what is to be shown once is shown once for all workers.
- Text goes line by line, each line whole. What is written to a stream's `buffer` or to its descriptor stays as it is.

What it costs who says nothing: a few assignments when the worker starts.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Collection
from threading import get_ident
from typing import Any, TextIO

from shoal import _ext
from shoal._current import Step

LOGGING, WARNINGS, STDOUT, STDERR = "logging", "warnings", "stdout", "stderr"
ALL = frozenset({LOGGING, WARNINGS, STDOUT, STDERR})
_PARTIAL_MAX = 64 << 10  # characters of a line that does not end
_TEXT_MAX = 1 << 20  # characters in a message

Filters = list[tuple[Any, ...]]


def forwarding(asked: Any) -> Forwarding:
    """Check the `forward` that a pool was made with.

    None: log records and warnings; a stream if the parent's is not that of its process, so that workers cannot have it.
    """
    if asked is None:
        streams = ((STDOUT, sys.stdout, sys.__stdout__), (STDERR, sys.stderr, sys.__stderr__))
        return Forwarding(frozenset({LOGGING, WARNINGS, *(name for name, now, real in streams if now is not real)}))
    if isinstance(asked, bool):
        return Forwarding(ALL if asked else frozenset())
    if isinstance(asked, str) or not isinstance(asked, Collection) or not ALL.issuperset(asked):
        raise ValueError(f"forward must be True, False, or some of {', '.join(sorted(ALL))}; not {asked!r}")
    return Forwarding(frozenset(asked))


class Forwarding:
    """What is forwarded, from the pool's constructor to its workers."""

    def __init__(self, what: frozenset[str]) -> None:
        self.what = what
        # For workers that are started anew: the loggers' levels, what is disabled, the filters of warnings.
        self.levels: dict[str, int] | None = None
        self.disabled = 0
        self.filters: Filters | None = None

    def described(self) -> Forwarding:
        """Return the same with what a worker does not inherit, as it is now."""
        told = Forwarding(self.what)
        if LOGGING in self.what:
            known = list(logging.root.manager.loggerDict.items())
            told.levels = {name: one.level for name, one in known if isinstance(one, logging.Logger) and one.level}
            told.levels[""] = logging.root.level
            told.disabled = int(logging.root.manager.disable)
        if WARNINGS in self.what:
            told.filters = [one for one in warnings.filters if _can_be_sent(one)]
        return told

    # ---- in the worker ----

    def steps(self) -> list[Step]:
        """Return what a worker does before any of the user's code is there."""
        steps: list[Step] = []
        if LOGGING in self.what:
            if self.levels is not None:
                steps.append((self._set_levels, (self.levels,)))
            known: list[Any] = []
            steps.append((known.extend, (logging._handlerList,)))  # type: ignore[attr-defined]
            steps.append((setattr, (_Inherited, "references", known)))
            steps.append((setattr, (logging.Logger, "callHandlers", _call_handlers)))
        if WARNINGS in self.what:
            if self.filters is not None:
                steps.append((_set_filters, (self.filters,)))
            steps.append((setattr, (warnings, "showwarning", _show_warning)))
        for name in (STDOUT, STDERR):
            stream = getattr(sys, name)
            if name in self.what and stream is not None:
                steps.append((setattr, (sys, name, Lines(stream, name))))
        return steps

    def _set_levels(self, levels: dict[str, int]) -> None:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.disable(self.disabled)

    def handlers_so_far(self) -> None:
        """Handlers that are there now are not the worker's own: it has inherited them, or imported the main module."""
        if LOGGING in self.what:
            _Inherited.references = logging._handlerList[:]  # type: ignore[attr-defined]
            _Inherited.handlers = None

    def finish(self) -> None:
        """At the very end: lines that have not ended."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Lines):
                stream.finish()


def _set_filters(filters: Filters) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = filters  # type: ignore[index]


def _can_be_sent(warning_filter: tuple[Any, ...]) -> bool:
    try:
        _ext.dumps(warning_filter)
    except Exception:
        return False
    return True


def say(*message: Any) -> bool:
    """Send a message of plain values to the parent. False: this process is no worker (any more)."""
    engine = _ext._serving()
    return engine is not None and engine.say(_ext.dumps(message))


# ---- text ----


class Lines:
    """A standard stream of a worker: whole lines go to the parent, the rest is the stream that was there."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._shoal_name = name
        self._partial: dict[int, str] = {}  # by thread: the beginning of a line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, text: str) -> int:
        """Send the lines that end with this."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = get_ident()
        whole = self._partial.pop(thread, "") + text
        lines, newline, rest = whole.rpartition("\n")
        if len(rest) > _PARTIAL_MAX:
            lines, newline, rest = whole, "", ""
        if rest:
            self._partial[thread] = rest
        if lines or newline:
            self._send(lines + newline)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send a line that is to be written over again and again (a progress bar); others when they end."""
        thread = get_ident()
        if "\r" in self._partial.get(thread, ""):
            self._send(self._partial.pop(thread))
        self._stream.flush()

    def finish(self) -> None:
        """Send what there is."""
        while self._partial:
            self._send(self._partial.popitem()[1])

    def close(self) -> None:
        """Not here: it is the process's own."""
        self.flush()

    def _send(self, text: str) -> None:
        for start in range(0, len(text), _TEXT_MAX):
            part = text[start : start + _TEXT_MAX]
            if not say(self._shoal_name, part):
                self._stream.write(part)
                self._stream.flush()


# ---- log records ----


class _Inherited:
    """Handlers that are not the worker's own."""

    references: list[Any] = []  # weak ones
    handlers: dict[int, logging.Handler] | None = None  # by their address; None: nobody has asked yet


def _inherited_handlers() -> dict[int, logging.Handler]:
    if _Inherited.handlers is None:
        known = [reference() for reference in _Inherited.references]
        _Inherited.handlers = {id(one): one for one in known if one is not None}
    return _Inherited.handlers


_PLAIN = (str, int, float, bool, type(None))
_call_handlers_here = logging.Logger.callHandlers


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """In place of Logger.callHandlers."""
    if _ext._serving() is None:  # a process that a task has forked
        _call_handlers_here(logger, record)
        return
    taken, inherited = False, _inherited_handlers()
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            if id(handler) not in inherited:
                taken = True
                if record.levelno >= handler.level:
                    handler.handle(record)
        at = at.parent if at.propagate else None
    if not taken:
        say(LOGGING, *_described(record))


def _described(record: logging.LogRecord) -> tuple[dict[str, Any], bytes | None]:
    """What a record has, in values that travel; and, pickled, what the user has added to it."""
    plain = dict(vars(record))
    plain["msg"], plain["args"] = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        plain["exc_text"] = logging.Formatter().formatException(record.exc_info)
    plain["exc_info"] = None
    added = {name: plain.pop(name) for name in list(plain) if type(plain[name]) not in _PLAIN}
    if not added:
        return plain, None
    try:
        return plain, _ext.dumps(added)
    except Exception:
        pass
    for name in list(added):
        try:
            _ext.dumps(added[name])
        except Exception:
            plain[name] = f"<{type(added.pop(name)).__qualname__} object>"
    return plain, _ext.dumps(added)


# ---- warnings ----


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of warnings.showwarning."""
    if file is None and _ext._serving() is not None:
        try:
            told = _ext.dumps((message, category))
        except Exception:
            told = None
        if say(WARNINGS, told, str(message), category.__name__, filename, lineno, _module_of(filename)):
            return
    warnings._showwarning_orig(message, category, filename, lineno, file, line)  # type: ignore[attr-defined]


def _module_of(filename: str) -> str | None:
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == filename:
            return name
    return None
