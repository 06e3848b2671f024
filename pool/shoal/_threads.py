# SPDX-License-Identifier: BSD-3-Clause
"""Other threads of this process, when it forks workers.

The problem: a forked worker has only the thread that forked. A lock that another thread held just then is never
released in it, and a task that takes it waits for ever; the state of a GPU does not survive a fork at all. Shoal's own
locks are not among them, nor are those that Python sets anew in a child (imports, logging, threading, standard
streams). About the rest nothing can be done but not to fork: hence a warning, once, that names the threads and the way
out.

The main thread is another one, too, where a thread makes a pool. That it only waits says nothing about what it holds.

Threads that a library has for itself (a pool of OpenBLAS, of an allocator) are not warned of: their libraries take care
of forks, and nearly every process has some. CUDA's are.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal import _ext

TASKS = Path("/proc/self/task")
OURS = ("shoal", "iou-")  # names of native threads: the engine's, and those that the kernel makes for io_uring
GPU = ("cuda",)

_warned = False
_filters = threading.RLock()  # held while they are changed: two threads may fork at a time


_ext._free_in_children(_filters)


def warn_before_fork() -> None:
    """Warn, once in a process, if other threads than Shoal's own live."""
    global _warned
    if _warned:
        return
    names = _names_of_others()
    if not names:
        return
    _warned = True
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    warnings.warn(
        f"this process forks workers while other threads live ({some}): a lock that one of them holds now stays locked "
        "in the workers, and a task that takes it waits for ever. Make pools before threads, or have workers started "
        "without a fork: Pool(context='forkserver'), ProcessPoolExecutor(mp_context='forkserver')",
        RuntimeWarning,
        stacklevel=_level_of_the_user(),
    )


@contextmanager
def python_warning_only_if_true() -> Iterator[None]:
    """Keep Python's own warning about a fork with threads (from 3.12 on) quiet where they are the engine's own.

    Those hold no lock of Shoal's across a fork; anybody else's may hold what it likes, and then the warning is true.
    """
    if sys.version_info >= (3, 12) and _only_our_threads():
        with _filters, warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*multi-threaded.*fork\(\)", DeprecationWarning)
            yield
    else:
        yield


def _only_our_threads() -> bool:
    return len([name for name in _native_names().values() if not name.startswith(OURS)]) == 1


def _names_of_others() -> list[str]:
    native = _native_names()
    names = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.current_thread()
        and not native.get(thread.native_id or 0, OURS[0]).startswith(OURS)  # ours, or it has ended
    ]
    return names + [name for name in native.values() if name.startswith(GPU)]


def _native_names() -> dict[int, str]:
    """Names of the threads of this process as the kernel has them, by thread id."""
    names = {}
    try:
        for task in TASKS.iterdir():
            try:
                names[int(task.name)] = (task / "comm").read_text().rstrip("\n")
            except OSError:  # it has ended
                continue
    except OSError:  # no /proc
        pass
    return names


def _level_of_the_user() -> int:
    """Return the stacklevel, as seen by the caller, of the first frame that is not in this package."""
    package = str(Path(__file__).parent)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
