# SPDX-License-Identifier: BSD-3-Clause
"""How exceptions are told of.

pickle calls the class with ``args`` and then updates ``__dict__``. That loses the cause, the context and whether it is
suppressed; it loses attributes in slots and some of the interpreter's own (NameError.name); and it fails, or makes
another exception, where a class's ``__init__`` hands other arguments on than it gets:

    class NotFound(Exception):
        def __init__(self, kind, key):
            super().__init__(f"no {kind} of the name {key}")

So what has an ``__init__`` of its own is made without it, by ``__new__``, and all of its state is set afterwards. State
is a dict whose items BaseException.__setstate__ sets as attributes, links and ``args`` included: plain pickle reads it
anywhere. Only where a class has a ``__setattr__`` or ``__setstate__`` of its own, as a frozen dataclass has, does the
load need Shoal.

An exception of which pickle loses nothing is left to pickle, byte for byte, and so is one whose class has a
``__reduce__`` of its own, save for links and notes. Tracebacks stay behind: they hold the frames, and all that is in
them. A pool tells a worker's traceback as text, in the cause.
"""

from __future__ import annotations

import builtins
import copyreg
import sys
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from shoal import _rebuild

__all__ = ["find"]

Reduced = tuple[Any, ...]

_GROUP: tuple[Any, ...] = (builtins.BaseExceptionGroup,) if sys.version_info >= (3, 11) else ()
_HEAP_TYPE = 1 << 9
_POINTER = 8
_get_cause = BaseException.__dict__["__cause__"].__get__
_get_context = BaseException.__dict__["__context__"].__get__
_get_suppress = BaseException.__dict__["__suppress_context__"].__get__
_get_args = BaseException.__dict__["args"].__get__
_get_dict = BaseException.__dict__["__dict__"].__get__
_LEFT_OUT = frozenset({"obj", "message", "exceptions"})  # AttributeError's object; a group's are its arguments


def _links(error: BaseException) -> dict[str, Any]:
    """In the order in which they can be set: setting a cause suppresses the context."""
    cause, context, suppress = _get_cause(error), _get_context(error), _get_suppress(error)
    links: dict[str, Any] = {}
    if cause is not None:
        links["__cause__"] = cause
    if context is not None:
        links["__context__"] = context
    if suppress != (cause is not None):
        links["__suppress_context__"] = suppress
    return links


class _Kind:
    """What is to be known of an exception class. Does not hold the class itself."""

    __slots__ = ("base", "fields", "own_init", "own_new", "own_reduce", "own_set", "slots")

    def __init__(self, cls: type) -> None:
        mro = type.__dict__["__mro__"].__get__(cls)
        self.base: Any = next(base for base in mro if not _flags(base) & _HEAP_TYPE)
        names = {
            name: base
            for base in reversed(mro)
            for name in ("__init__", "__new__", "__reduce__", "__reduce_ex__", "__setattr__", "__setstate__")
            if name in type.__dict__["__dict__"].__get__(base)
        }
        own = {name for name, base in names.items() if _flags(base) & _HEAP_TYPE}
        self.slots = tuple(copyreg._slotnames(cls))  # type: ignore[attr-defined]
        self.own_reduce = not own.isdisjoint({"__reduce__", "__reduce_ex__"}) or self._has_hidden_state(cls)
        self.own_init = "__init__" in own
        self.own_new = "__new__" in own
        self.own_set = not own.isdisjoint({"__setattr__", "__setstate__"})
        self.fields = tuple(
            name
            for base in mro
            if not _flags(base) & _HEAP_TYPE and base is not BaseException and base is not object
            for name, value in base.__dict__.items()
            if isinstance(value, (MemberDescriptorType, GetSetDescriptorType)) and name not in _LEFT_OUT
        )

    def _has_hidden_state(self, cls: type) -> bool:
        """Is there something in it that only C knows of?"""
        extra = cls.__basicsize__ - self.base.__basicsize__ - _POINTER * len(self.slots)
        return bool(self.base.__module__ != "builtins" or extra > 2 * _POINTER)

    @property
    def is_ordinary(self) -> bool:
        """Does pickle lose nothing but the links, whatever the object?"""
        special = self.own_init or self.own_new or self.own_reduce or self.own_set
        return not (special or self.slots or self.fields)

    def describe(self, error: BaseException, protocol: int) -> Any:
        """What ``__reduce__`` would say of it, if it knew of all."""
        extras = _links(error)
        if self.own_reduce:
            notes = _get_dict(error).get("__notes__")  # others may add them, whatever the class tells of itself
            return self._with(error.__reduce_ex__(protocol), {"__notes__": notes, **extras} if notes else extras)
        if self.own_init or self.own_new:
            return self._remade(error, extras)
        value: Any = error.__reduce_ex__(protocol)
        missing = {**self._lost(error, value[1]), **_values(error, self.slots), **extras}
        return self._with(value, missing)

    def _lost(self, error: BaseException, args: tuple[Any, ...]) -> dict[str, Any]:
        """The interpreter's own attributes that its ``__init__`` does not set to what they are."""
        if not self.fields:
            return {}
        blank = self.base(*args)
        return {name: value for name, value in _values(error, self.fields).items() if value is not _value(blank, name)}

    def _remade(self, error: BaseException, extras: dict[str, Any]) -> Reduced:
        args = _get_args(error)
        given: tuple[Any, ...] = args
        if isinstance(error, _GROUP):
            given = error.message, error.exceptions
        state = dict(_get_dict(error))
        if issubclass(self.base, OSError) or given != args:
            state["args"] = args
        state.update({name: value for name, value in _values(error, self.fields).items() if value is not None})
        state.update(_values(error, self.slots))
        state.update(extras)
        make = self.base.__new__ if self.own_new else copyreg.__newobj__  # type: ignore[attr-defined]
        value = make, (type(error), *given)
        if not state:
            return value
        return (*value, (None, None, state), None, None, _rebuild._fill_exception) if self.own_set else (*value, state)

    def _with(self, value: Any, extras: dict[str, Any]) -> Any:
        """The same value, with these attributes set in the end."""
        if not extras or not isinstance(value, tuple):
            return value
        value = (*value, *(None,) * (6 - len(value)))
        state, setter = value[2], value[5]
        if setter is None and not self.own_set and (state is None or type(state) is dict):
            return (*value[:2], {**(state or {}), **extras}, *value[3:])
        return (*value[:2], (setter, state, extras), *value[3:5], _rebuild._fill_exception)


def _flags(cls: type) -> int:
    flags: int = type.__dict__["__flags__"].__get__(cls)
    return flags


def _value(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name)
    except AttributeError:
        return None


def _values(error: BaseException, names: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name in names:
        try:
            found[name] = getattr(error, name)
        except AttributeError:
            continue
    return found


def find(cls: type) -> tuple[Callable[[Any, int], Any], bool]:
    """The describer for exceptions of this class; and whether only links can be lost of them."""
    kind = _Kind(cls)
    return kind.describe, kind.is_ordinary
