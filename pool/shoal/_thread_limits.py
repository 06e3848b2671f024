# SPDX-License-Identifier: BSD-3-Clause
"""Threads of numerical libraries in workers: BLAS, OpenMP and others.

The problem: each of them starts as many threads as there are CPUs, in each worker, and so many threads on so few CPUs
get in each other's way. What a library does is settled when it is loaded, from the environment, or by calling it.

The protocol: a worker gets the variables that these libraries read, before any is loaded there. One that the parent has
loaded is in a forked worker already: it is told in the parent, right before the fork, and told the old number right
after it. (Told in the child, OpenBLAS starts threads at once, at 0.1 ms for each worker.) OpenBLAS as numpy and scipy
bring it along is found by the name of its function; where other libraries with threads are loaded, threadpoolctl knows
them, if it is installed.

What the user has set in the environment stays as it is, and then nothing is told to anybody, unless the pool was asked
for a number.

What it costs, if numpy is not loaded: seven variables in each worker.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shoal import _ext

MAIN = "OMP_NUM_THREADS"  # read by nearly all of them, if they have none of their own
VARIABLES = (
    MAIN,
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Extension modules that are linked against the OpenBLAS of their package; the names that it may have there.
LINKED = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath", "scipy.linalg._fblas")
PREFIXES = ("scipy_openblas_", "openblas_")
SUFFIXES = ("64_", "", "_64")
Tell = Callable[[int], Callable[[], object]]  # a number of threads; what it gives restores the old one
OTHERS = ("sklearn", "torch", "mkl", "faiss", "xgboost", "lightgbm")  # bring along an OpenMP of their own


def variables_to_set(asked: bool) -> tuple[str, ...]:
    """Return which variables workers get; asked: for a number of threads, by the pool's maker."""
    if asked:
        return tuple(one for one in VARIABLES if not _is_fixed(one))
    if MAIN in os.environ:
        return ()
    return tuple(one for one in VARIABLES if one not in os.environ and not _is_fixed(one))


def _is_fixed(variable: str) -> bool:
    return variable.startswith("NUMBA") and "numba" in sys.modules  # it refuses another number once it is loaded


# Loaded libraries, in this process, while workers are forked: for each thread that forks, what has them do what they
# did before.
_told: list[Callable[[], object]] = []
_lock = threading.RLock()
_ext._free_in_children(_lock)
os.register_at_fork(after_in_child=_told.clear)


@contextmanager
def told(threads: int, variables: tuple[str, ...]) -> Iterator[None]:
    """While workers are forked that get these variables: what is loaded uses so many threads at most."""
    libraries = _loaded() if "OPENBLAS_NUM_THREADS" in variables else None
    if libraries is None:
        yield
        return
    with _lock:
        _told.append(_told[0] if _told else libraries(threads))
    try:
        yield
    finally:
        with _lock:
            restore = _told.pop()
            if not _told:
                restore()


def _loaded() -> Tell | None:
    """Return what tells loaded libraries a number of threads, and gives back what restores the old one."""
    if not any(module in sys.modules for module in (*LINKED, *OTHERS)):
        return None
    tell = None
    if any(module in sys.modules for module in OTHERS) or not _openblas():
        tell = _threadpoolctl()
    if tell is None and _openblas():
        tell = _tell_openblas
    return tell if getattr(sys.modules.get("torch"), "set_num_threads", None) is None else _with_torch(tell)


def _with_torch(tell_others: Tell | None) -> Tell:
    """Tell torch, too: it keeps a number of its own, which nobody else knows.

    One: a forked worker has none of the threads of torch's OpenMP that the parent has started, and waits for them.
    """
    torch: Any = sys.modules["torch"]

    def tell(threads: int) -> Callable[[], object]:
        before = torch.get_num_threads()
        if before > 1:
            torch.set_num_threads(1)
        restore_others = tell_others(threads) if tell_others is not None else None

        def restore() -> None:
            if restore_others is not None:
                restore_others()
            if before > 1:
                torch.set_num_threads(before)

        return restore

    return tell


def _threadpoolctl() -> Tell | None:
    try:
        import threadpoolctl  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return None

    def tell(threads: int) -> Callable[[], object]:
        limits = {"blas": threads, "openmp": 1}  # see _with_torch: GNU's is not for forked children either
        restore: Callable[[], object] = threadpoolctl.threadpool_limits(limits).restore_original_limits
        return restore

    return tell


_found: dict[str, list[tuple[Any, Any]]] = {}


def _openblas() -> list[tuple[Any, Any]]:
    """(get, set) of each OpenBLAS that is loaded."""
    libraries = []
    for name in LINKED:
        if name not in _found and name in sys.modules:
            _found[name] = _functions(getattr(sys.modules[name], "__file__", None))
        libraries += _found.get(name, [])
    return libraries


def _functions(path: str | None) -> list[tuple[Any, Any]]:
    import ctypes

    try:
        library = ctypes.PyDLL(path, mode=os.RTLD_NOLOAD)  # its symbols, and those of what it is linked against
    except OSError:
        return []
    for prefix in PREFIXES:
        for suffix in SUFFIXES:
            if hasattr(library, f"{prefix}set_num_threads{suffix}"):
                get = getattr(library, f"{prefix}get_num_threads{suffix}")
                put = getattr(library, f"{prefix}set_num_threads{suffix}")
                get.restype, put.argtypes, put.restype = ctypes.c_int, (ctypes.c_int,), None
                return [(get, put)]
    return []


def _tell_openblas(threads: int) -> Callable[[], object]:
    before = []
    for get, put in _openblas():
        number = get()
        if number > threads:
            before.append((put, number))
            put(threads)

    def restore() -> None:
        for put, number in before:
            put(number)

    return restore
