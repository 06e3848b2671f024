# SPDX-License-Identifier: BSD-3-Clause
"""How executors end that nobody shuts down.

One that is dropped while calls are under way lets them be done. When the interpreter exits, those that are still open
finish what was submitted before any other thread is joined and any exit function runs, and take nothing more, as those
of `concurrent.futures` do.
"""

from __future__ import annotations

import sys
import threading
import weakref
from multiprocessing import util
from typing import TYPE_CHECKING

from shoal._lifetime import Lifetime

if TYPE_CHECKING:
    from shoal.executor import ProcessPoolExecutor

# Engines whose executor was dropped while calls were under way: they go on until those are done.
_orphans: set[Lifetime] = set()


def finish(lifetime: Lifetime) -> None:
    """The executor was dropped, or the interpreter exits: let what was submitted end, as concurrent.futures does."""
    lifetime.close()
    if util.is_exiting():
        end_for_good(lifetime)
        return
    _orphans.add(lifetime)
    collect_orphans()


def leave(lifetime: Lifetime) -> None:
    """Nobody has this one any more, and it ends by itself: the interpreter's exit waits for it."""
    _orphans.add(lifetime)


def collect_orphans() -> None:
    """Free what those left whose calls are done by now."""
    _orphans.difference_update([one for one in list(_orphans) if not one.retrying and one.engine.join(0)])


def end_for_good(lifetime: Lifetime) -> None:
    """Let what was submitted end, then the workers; after a Ctrl-C that ended the program, at once."""
    lifetime.stop_bounded(RuntimeError("cannot schedule new futures after interpreter shutdown"))
    lifetime.close()
    interrupted = issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt)
    try:
        if not interrupted:
            lifetime.join()
            return
    except KeyboardInterrupt:
        pass
    lifetime.terminate("the interpreter exited before this task ended")


def _finish_orphans() -> None:
    while _orphans:
        end_for_good(_orphans.pop())


class _AtExit:
    """What is done with the executors that are open when the interpreter exits."""

    def __init__(self) -> None:
        self.begun = False
        self.executors: weakref.WeakSet[ProcessPoolExecutor] = weakref.WeakSet()

    def __call__(self) -> None:
        self.begun = True
        for executor in list(self.executors):
            executor._finish_for_good()
        _finish_orphans()


at_exit = _AtExit()
threading._register_atexit(at_exit)  # type: ignore[attr-defined]
util.Finalize(None, _finish_orphans, exitpriority=14)  # for processes that do not end as the interpreter does
