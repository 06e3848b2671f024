# SPDX-License-Identifier: BSD-3-Clause
"""Handles to objects that lie in shared memory: what `shoal.share` makes of anything but an array.

The problem: what many tasks need is to travel once and to be there once, and to be gone when nobody needs it.

The protocol: the object is pickled once, into a block of the arena (pool/ext/handle.c). A handle is a token and that
block; in messages of a pool it is a few bytes, and the block is held by whoever holds the handle, as with any block. A
process has one handle for each token, which keeps the object that was unpickled: the same for everybody who asks.

A worker keeps handles with their objects from task to task, for as long as there is a handle in the process whose
memory it is (`_kept`). When the last one is gone there, that process says so in the block and wakes the workers, and
they forget the object when they are between two tasks (`_sweep`). What a worker inherited by a fork it cannot let go of
by itself: such a handle is emptied then.

What it costs: nothing for who does not use it; a worker that keeps objects looks at one word for each after a task.
"""

from __future__ import annotations

import os
import weakref
from _thread import RLock, get_ident
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, Generic, TypeVar

from shoal import _ext

T = TypeVar("T")
_CLOSED: Any = object()


class _Ref(weakref.ref["Shared[Any]"]):
    """What this process knows of a token."""

    __slots__ = ("borrowed", "source", "token")

    token: bytes
    source: Any  # _ext.Block or View; None: the maker has dropped it
    borrowed: bool  # in a worker: it lies in the memory of the pool's process


_registry: dict[bytes, _Ref] = {}
_kept: dict[bytes, Shared[Any]] = {}
_inherited: dict[bytes, _Ref] = {}
_lent: set[bytes] = set()  # of those: in memory of a process that our parent was a worker of; not for long, maybe
_lock = RLock()  # of the registry
_watching = False  # for forks: from the first handle on
_packing: dict[int, list[Shared[Any]]] = {}  # by thread: handles that the object has in it that it is packing


class Shared(Generic[T]):
    """A handle to an object in shared memory: what `shoal.share(obj)` gives for everything but numpy arrays.

    It pickles to a few bytes. As an argument of a task it arrives as the object itself; in containers, closures and
    attributes it arrives as the handle, whose `get()` gives the object. Each process unpickles the object once and
    keeps it while the handle lives; large buffers are mapped, not copied.
    """

    __slots__ = ("__weakref__", "_about", "_contained", "_lock", "_object", "_readonly", "_ref")

    _ref: _Ref
    _lock: RLock
    _object: T
    _readonly: bool
    _about: str  # what it is, for messages
    _contained: tuple[Shared[Any], ...]  # handles that the object has in it

    def __init__(self) -> None:
        raise TypeError("handles are made by shoal.share(obj)")

    def get(self) -> T:
        """Return the object: unpickled when it is first asked for in this process, the same one from then on.

        It is this process's own: what it writes there no other process sees, but each later `get()` here does.

        Raises
        ------
        ReferenceError
            If this process has the handle by a fork only, and its maker has dropped it.
        UnpicklingError
            If the object cannot be unpickled here; the cause is what was raised.
        """
        value = self._object
        return self._open() if value is _CLOSED else value

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory that the object takes."""
        return 0 if self._ref.source is None else _ext._place(self._ref.source)[1]

    def __repr__(self) -> str:
        return f"<shoal.Shared {self._about}>"

    def _open(self) -> T:
        with self._lock:
            if self._object is _CLOSED:
                try:
                    value = _ext._unpack(self._source(), self._readonly)
                except ReferenceError:
                    raise
                except Exception as error:
                    text = f"the object of {self!r} cannot be unpickled in this process"
                    raise _ext.UnpicklingError(f"{text}: {type(error).__name__}: {error}") from error
                if self._ref.borrowed:
                    _keep(self)
                self._object = value
            return self._object

    def _source(self) -> Any:
        if self._ref.source is None:
            text = f"{self!r} was inherited by a fork, and the process that made it has dropped its own"
            raise ReferenceError(f"{text}: keep the handle there, or pass it to the task")
        return self._ref.source

    def __reduce__(self) -> tuple[Any, ...]:
        handles = _packing.get(get_ident())
        if handles is not None:
            handles.append(self)
        return _find_shared, (self._ref.token, self._about, os.getpid())


def make(obj: T, readonly: bool) -> Shared[T]:
    """Pack `obj` and return a handle to it."""
    thread = get_ident()
    before = _packing.get(thread)
    handles: list[Shared[Any]] = []
    _packing[thread] = handles
    try:
        source = _ext._pack(obj)
    finally:
        if before is None:
            _packing.pop(thread, None)
        else:
            _packing[thread] = before
    about = f"{type(obj).__qualname__}, {_size(_ext._place(source)[1])}"
    return _new(os.urandom(16), source, False, readonly, about, tuple(dict.fromkeys(handles)))


def _size(nbytes: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes //= 1024
    return f"{nbytes} {unit}"


def _new(
    token: bytes, source: Any, borrowed: bool, readonly: bool, about: str, contained: tuple[Shared[Any], ...]
) -> Shared[Any]:
    handle: Shared[Any] = Shared.__new__(Shared)
    handle._object = _CLOSED
    handle._readonly = readonly
    handle._about = about
    handle._contained = contained
    handle._lock = RLock()
    ref = _Ref(handle, _gone)
    ref.token = token
    ref.source = source
    ref.borrowed = borrowed
    handle._ref = ref
    if token:
        if not _registry:
            _watch_forks()
        _settle(source)
        _registry[token] = ref
    return handle


def _gone(ref: _Ref, registry: dict[bytes, _Ref] = _registry, retire: Callable[[Any], None] = _ext._retire) -> None:
    """The last reference of this process to a handle is gone. (Defaults: the interpreter may be on its way out.)"""
    if registry.get(ref.token) is ref:
        del registry[ref.token]
        retire(ref.source)
    ref.source = None


# ---- on the way ----


def _reduce(handle: Shared[Any]) -> tuple[Any, ...]:
    """How a handle travels in a pool."""
    token, source = handle._ref.token, handle._source()
    if not token:
        return _ext._unpack, (PickleBuffer(source),)
    return _shared, (token, PickleBuffer(source), handle._readonly, handle._about, handle._contained)


def reduce_for_start(kept: list[Shared[Any]]) -> Callable[[Shared[Any]], tuple[Any, ...]]:
    """How a handle travels to a worker that is started anew, as an argument of the initializer; `kept` must be."""

    def reduce(handle: Shared[Any]) -> tuple[Any, ...]:
        kept.append(handle)
        place = _ext._place(_ext._own(handle._source()))
        return _shared_at, (handle._ref.token, *place, handle._readonly, handle._about, handle._contained)

    return reduce


def _carried(source: Any) -> Shared[Any]:
    """Make what stands in for an object that one call sends often: it arrives as a new copy each time."""
    return _new(b"", source, False, False, "part of a call", ())


def _shared(token: bytes, buffer: Any, readonly: bool, about: str, contained: tuple[Shared[Any], ...]) -> Shared[Any]:
    """A handle has arrived."""
    if _ext.in_worker():
        _ext._handle_arrived()
    with _lock:
        handle = _known(token)
        if handle is not None and handle._ref.source is not None and token not in _lent:
            return handle
        source, borrowed = _ext._take_in(buffer)
        if handle is None:
            return _new(token, source, borrowed, readonly, about, contained)
        _lent.discard(token)
        _empty(handle._ref)
        _settle(source)
        handle._ref.source, handle._ref.borrowed = source, borrowed
        return handle


def _settle(source: Any) -> None:
    """From now on children that are forked have it, and it is known to them."""
    if type(source) is _ext.Block:
        source._settle()


def _shared_at(
    token: bytes, offset: int, size: int, readonly: bool, about: str, contained: tuple[Shared[Any], ...]
) -> Shared[Any]:
    """A handle has arrived as an argument of the initializer: the pool keeps its own while there are workers."""
    with _lock:
        return _known(token) or _new(token, _ext._borrow(offset, size), False, readonly, about, contained)


def _find_shared(token: bytes, about: str, pid: int) -> Shared[Any]:
    """A handle was pickled by other means than a pool of ours."""
    handle = _known(token)
    if handle is not None:
        return handle
    text = (
        f"a handle of shoal.share() ({about}, pickled by process {pid}) cannot be opened in process {os.getpid()},"
        " which has none of the same object: handles travel in tasks and results of Shoal's pools, and by fork. Pass"
        " the handle itself to a task (not bytes that it was pickled to), or send handle.get() where there is no such"
        " pool"
    )
    raise _ext.UnpicklingError(text)


def _known(token: bytes) -> Shared[Any] | None:
    ref = _registry.get(token)
    return None if ref is None else ref()


# ---- in a worker ----


def _opened(value: Any) -> Any:
    return value.get() if type(value) is Shared else value


def _opened_function(function: Any) -> Any:
    import functools

    if type(function) is not functools.partial:
        return _opened(function)
    keywords = {name: _opened(value) for name, value in function.keywords.items()}
    partial = functools.partial(_opened(function.func), *map(_opened, function.args), **keywords)
    partial.__dict__.update(function.__dict__)
    return partial


def _open_handles(place: int, obj: Any) -> Any:
    """Open what is an argument of a task; see enum handle_place."""
    if place == 0:
        function, args, kwargs = obj
        if kwargs is not None:
            kwargs = {name: _opened(value) for name, value in dict(kwargs).items()}
        return _opened_function(function), tuple(map(_opened, args)), kwargs
    if place == 1:
        return _opened_function(obj)
    return tuple(map(_opened, _opened(obj))) if place == 3 else _opened(obj)


def _keep(handle: Shared[Any]) -> None:
    _kept[handle._ref.token] = handle
    _ext.configure(sweeper=_sweep)


def _sweep() -> None:
    """Between two tasks of a worker: forget what no handle is left of in the process whose memory it is."""
    offsets = [_forget(ref) for ref in _refs_to_look_at() if not _ext._is_live(ref.source)]
    if offsets and any(map(_ext._is_held, offsets)):  # by a cycle, maybe
        import gc

        gc.collect()


def _forget(ref: _Ref) -> int:
    """Return where it lies."""
    offset = _ext._place(ref.source)[0]
    _kept.pop(ref.token, None)
    if _inherited.pop(ref.token, None) is not None:
        _empty(ref)
    return offset


def _refs_to_look_at() -> list[_Ref]:
    for ref in [ref for ref in _inherited.values() if ref() is None or ref.source is None]:
        del _inherited[ref.token]
    return [*(handle._ref for handle in _kept.values()), *_inherited.values()]


def _empty(ref: _Ref) -> None:
    handle = ref()
    ref.source = None
    if handle is not None:
        handle._object = _CLOSED


def _watch_forks() -> None:
    global _watching
    if not _watching:
        _watching = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for ref in list(_registry.values()):
        handle = ref()
        if handle is not None:
            handle._lock = RLock()
            if ref.borrowed:
                _lent.add(ref.token)
            ref.borrowed = False
            _inherited[ref.token] = ref
    _ext.configure(sweeper=_sweep)


# The pickles name these by the place where all that pickles name is.
for _function in (_shared, _shared_at, _find_shared, _ext._unpack):
    _function.__module__ = "shoal._rebuild"
_ext._free_in_children(_lock)
os.register_at_fork(after_in_child=_packing.clear)
os.register_at_fork(after_in_child=_kept.clear)
_ext.configure(handle_type=Shared, handle_reducer=_reduce, make_carried=_carried, opener=_open_handles)
Shared.__module__ = "shoal"
