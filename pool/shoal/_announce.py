# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks of a result: run once, never harmful to the thread that happens to run them."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from typing import Any

from shoal import _ext

Callback = Callable[[Any], object]


class Announcement:
    """The callback and error callback of one result. Whoever waits for the result waits for them too."""

    def __init__(self, callback: Callback | None, error_callback: Callback | None) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._made = threading.Event()
        self._thread: int | None = None

    def expect(self, result: _ext.Item | _ext.Group) -> None:
        """Call back when `result` is done; at once if it is."""
        if not result.watch(self._make):
            self._make(result)

    def made(self) -> bool:
        """Return whether the callback has run. True in the callback itself, which may look at its result."""
        return self._made.is_set() or self._thread == threading.get_ident()

    def wait_after(self, wait: Callable[[float | None], bool], timeout: float | None) -> bool:
        """Call `wait`, then wait for the callback; together at most `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not wait(timeout):
            return False
        if self.made():
            return True
        return self._made.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _make(self, result: _ext.Item | _ext.Group) -> None:
        self._thread = threading.get_ident()
        try:
            succeeded, value = result.outcome()
            callback = self._callback if succeeded else self._error_callback
            if callback is not None:
                call_back(callback, value)
        finally:
            self._thread = None
            self._made.set()
            self._callback = self._error_callback = None


def call_back(callback: Callback, value: Any) -> None:
    """Call a user's callback. What it raises goes to threading.excepthook, Ctrl-C to the main thread."""
    try:
        callback(value)
    except KeyboardInterrupt:
        give_ctrl_c_to_main_thread()
    except BaseException as error:
        threading.excepthook(
            threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        )


def give_ctrl_c_to_main_thread() -> None:
    """Have KeyboardInterrupt raised again where a user expects it, after a callback got it."""
    _thread.interrupt_main()
