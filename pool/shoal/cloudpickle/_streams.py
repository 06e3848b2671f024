# SPDX-License-Identifier: BSD-3-Clause
"""Reading what cloudpickle itself has written, where `shoal.cloudpickle` stands in for it.

A stream of cloudpickle 2 or 3 names functions of cloudpickle's own that make functions, classes and views again. These
are those functions; their names and arguments are that format. Nothing of Shoal's writes such streams. Loading is as
faithful as the stream is: what cloudpickle leaves out stays out.
"""

from __future__ import annotations

import builtins
import dataclasses
import os
import sys
import threading
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import CellType
from typing import Any

__all__ = ["CellType"]

# ---- classes and type variables are known by an id, so that two streams of one class give one class ----

_lock = threading.Lock()
_by_id: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the fork


os.register_at_fork(after_in_child=_renew_lock)


def _known(tracker_id: str | None, made: Any) -> Any:
    if tracker_id is None:
        return made
    with _lock:
        return _by_id.setdefault(tracker_id, made)


def _make_skeleton_class(
    metaclass: Any, name: str, bases: tuple[Any, ...], namespace: dict[str, Any], tracker_id: str | None, extra: Any
) -> Any:
    born_with = {sys.intern(key): value for key, value in namespace.items()}
    made = types.new_class(name, bases, {"metaclass": metaclass}, lambda prepared: prepared.update(born_with))
    return _known(tracker_id, made)


def _make_skeleton_enum(
    bases: tuple[Any, ...],
    name: str,
    qualname: str,
    members: dict[str, Any],
    module: str,
    tracker_id: str | None,
    extra: Any,
) -> Any:
    metaclass: Any = type(bases[-1])
    prepared = metaclass.__prepare__(name, bases)
    for member, value in members.items():
        prepared[member] = value
    made = metaclass.__new__(metaclass, name, bases, prepared)
    made.__module__ = module
    made.__qualname__ = qualname
    return _known(tracker_id, made)


def _class_setstate(cls: Any, state: tuple[dict[str, Any], Any]) -> Any:
    attributes = state[0]
    registered: Iterable[type] = attributes.pop("_abc_impl", None) or ()
    for name, value in attributes.items():
        setattr(cls, name, value)
    if "__firstlineno__" in attributes:  # setting another attribute has deleted it
        cls.__firstlineno__ = attributes["__firstlineno__"]
    for other in registered:
        cls.register(other)
    return cls


def _make_typevar(
    name: str,
    bound: Any,
    constraints: tuple[Any, ...],
    covariant: bool,
    contravariant: bool,
    tracker_id: str | None,
) -> Any:
    make: Any = typing.TypeVar
    made = make(name, *constraints, bound=bound, covariant=covariant, contravariant=contravariant)
    return _known(tracker_id, made)


# ---- functions ----


class _Empty:
    """The content of an empty cell."""

    def __reduce__(self) -> str:
        return "_empty_cell_value"


_empty_cell_value = _Empty()


def _make_empty_cell() -> CellType:
    return CellType()


def _make_cell(value: Any = _empty_cell_value) -> CellType:
    return CellType() if value is _empty_cell_value else CellType(value)


def _make_function(
    code: types.CodeType,
    namespace: dict[str, Any],
    name: str | None,
    defaults: tuple[Any, ...] | None,
    closure: tuple[CellType, ...] | None,
) -> types.FunctionType:
    namespace["__builtins__"] = builtins.__dict__
    return types.FunctionType(code, namespace, name, defaults, closure)


def _function_setstate(function: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, members = state
    function.__dict__.update(attributes)
    function.__globals__.update(members.pop("__globals__"))
    function.__globals__["__builtins__"] = builtins.__dict__
    members.pop("_cloudpickle_submodules", None)  # imported by being loaded
    for own, sent in zip(function.__closure__ or (), members.pop("__closure__") or ()):
        try:
            own.cell_contents = sent.cell_contents
        except ValueError:
            continue  # an empty one
    for name, value in members.items():
        setattr(function, name, value)


# ---- the others ----


def _builtin_type(name: str) -> Any:
    return getattr(types, name)


def _make_dict_keys(keys: Iterable[Any], is_ordered: bool = False) -> Any:
    kind: Callable[[Any], dict[Any, Any]] = OrderedDict.fromkeys if is_ordered else dict.fromkeys
    return kind(keys).keys()


def _make_dict_values(values: Iterable[Any], is_ordered: bool = False) -> Any:
    kind: Any = OrderedDict if is_ordered else dict
    return kind(enumerate(values)).values()


def _make_dict_items(mapping: dict[Any, Any], is_ordered: bool = False) -> Any:
    return (OrderedDict(mapping) if is_ordered else mapping).items()


def _file_reconstructor(text: Any) -> Any:
    return text


def _get_dataclass_field_type_sentinel(name: str) -> Any:
    marks: Any = dataclasses
    return {mark.name: mark for mark in (marks._FIELD, marks._FIELD_CLASSVAR, marks._FIELD_INITVAR)}[name]
