# SPDX-License-Identifier: BSD-3-Clause
"""What forked workers have of `__main__`: which objects are in the table, what they use. See pool/ext/inherited.h."""

from __future__ import annotations

import concurrent.futures
import dis
import functools
import multiprocessing.pool
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

from shoal import _ext

MAIN = ("__main__", "__mp_main__")  # the other one where it was imported by a worker
POOLS = (multiprocessing.pool.Pool, concurrent.futures.Executor)
CachedFunction: type = functools._lru_cache_wrapper
Namespace = dict[str, Any]


def let_inherit(engine: _ext.Engine, called: Sequence[Callable[..., object]]) -> None:
    """Before the workers are forked: note what they will have of `__main__`. called: what each calls by itself."""
    namespace = main_namespace()
    if namespace is None:
        return
    own = sorted(assigned_by(namespace, called))
    find = functools.partial(_uses, namespace)
    inherited = _ext.Inherited(namespace, list(_definitions(namespace)), own, find, can_be_sent, POOLS)
    engine.inherit(inherited, CachedFunction)


def main_namespace() -> Namespace | None:
    """The globals of `__main__`, if it is an ordinary module."""
    namespace = getattr(sys.modules.get("__main__"), "__dict__", None)
    return namespace if type(namespace) is dict and namespace.get("__name__") in MAIN else None


def is_a(value: object, *kinds: type) -> bool:
    """Whether it is of one of these types. Unlike isinstance this wakes no lazy object, which may not be ready yet."""
    return issubclass(type(value), kinds)


def assigned_by(namespace: Namespace, called: Sequence[Callable[..., object]]) -> set[str]:
    """The globals that these assign, themselves or through what they use of `__main__`."""
    return _Use(namespace, *called, *map(type, called)).assigned


def _definitions(namespace: Namespace) -> Iterator[object]:
    """Functions and classes of `__main__` that their own names lead to."""
    for name, value in list(namespace.items()):
        yield from _definition(name, value)


def _definition(name: str, value: Any) -> Iterator[object]:
    if not is_a(value, FunctionType, type, CachedFunction):
        return
    if getattr(value, "__module__", None) not in MAIN or getattr(value, "__qualname__", None) != name:
        return
    yield value
    if is_a(value, CachedFunction):
        yield _wrapped(value)
    elif is_a(value, type):
        for inner, member in list(vars(value).items()):
            yield from _definition(f"{name}.{inner}", _plain(member))


def _uses(namespace: Namespace, obj: object) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """The globals that an object reads, itself or through functions and classes of `__main__`; and these."""
    use = _Use(namespace, obj)
    return tuple(sorted(use.read - use.assigned)), tuple(use.parts)


class _Use:
    """What an object of `__main__` uses, followed through whatever else of `__main__` it uses."""

    def __init__(self, namespace: Namespace, *objects: object) -> None:
        self.read: set[str] = set()
        self.assigned: set[str] = set()
        self.parts: list[object] = []
        self._namespace = namespace
        self._seen: set[int] = set()
        self._to_do = list(objects)
        while self._to_do:
            self._look_at(self._to_do.pop())

    def _look_at(self, obj: Any) -> None:
        if is_a(obj, functools.partial):
            arguments = [*obj.args, *obj.keywords.values()]
            self._to_do += [*arguments, *map(type, arguments)]
        obj = _plain(obj)
        if id(obj) in self._seen:
            return
        self._seen.add(id(obj))
        if is_a(obj, CachedFunction):
            self._to_do.append(_wrapped(obj))
        elif is_a(obj, FunctionType):
            self._look_into(obj)
        elif not is_a(obj, type) or obj.__module__ not in MAIN:
            return
        else:
            self._to_do += [*obj.__bases__, *vars(obj).values()]
        self.parts.append(obj)

    def _look_into(self, function: FunctionType) -> None:
        if function.__globals__ is self._namespace:
            read = _ext._code_globals(function.__code__)
            self.read.update(read)
            self.assigned.update(assigned_in(function.__code__))
            self._to_do += [self._namespace[name] for name in read if name in self._namespace]
        for cell in function.__closure__ or ():
            try:
                self._to_do.append(cell.cell_contents)
            except ValueError:  # it is empty
                pass


def _wrapped(cached: Any) -> Any:
    return getattr(cached, "__wrapped__", None)


def _plain(member: Any) -> Any:
    """The function in what a class or a program has made of it, where that is easily told; else the thing itself."""
    if is_a(member, staticmethod, classmethod, MethodType):
        return _plain(member.__func__)
    if is_a(member, property):
        return _plain(member.fget)
    if is_a(member, functools.partial, functools.partialmethod):
        return _plain(member.func)
    return member


def assigned_in(code: CodeType) -> Iterator[str]:
    """The globals that this code, or code nested in it, assigns or deletes."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from assigned_in(constant)


def can_be_sent(value: object) -> bool:
    """Whether it can be pickled: nothing is kept of the try."""
    try:
        _ext.dumps(value, 5, buffer_callback=lambda buffer: None)
    except Exception:
        return False
    return True
