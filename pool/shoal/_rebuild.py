# SPDX-License-Identifier: BSD-3-Clause
"""What pickles of things by value name to make them again.

A pickle that carries a function or a class by value refers to these by ``shoal._rebuild.<name>``, so that plain
``pickle.loads`` can read it wherever Shoal can be imported. The names and their arguments are part of the format.

Functions, code and cells are made in C (``pool/pickle/rebuild.c``). Classes are made here, in two steps, since their
methods refer to them: ``_class`` makes it, ``_fill_class`` gives it its attributes.

A class has an identity from its first dump on: loading it where it lives already gives the living class. Its stamp is a
number that grows with each dump that finds it changed; loading a class that is here already changes it only if the
pickle's stamp is newer.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
import types
import typing
import weakref
from typing import Any

from shoal._ext import _cell, _code, _fill_cell, _function, _type_tag
from shoal._rebuild_objects import (
    _cached_property,
    _descriptor,
    _descriptor_of_kind,
    _fill_exception,
    _fill_type_alias,
    _forward_reference,
    _lru_cache,
    _memory_file,
    _new_type,
    _type_alias,
    _view,
)

__all__ = [
    "_cached_property",
    "_cell",
    "_class",
    "_code",
    "_descriptor",
    "_descriptor_of_kind",
    "_enum",
    "_fill_cell",
    "_fill_class",
    "_fill_exception",
    "_fill_type_alias",
    "_forward_reference",
    "_function",
    "_import",
    "_lru_cache",
    "_memory_file",
    "_module",
    "_new_type",
    "_type_alias",
    "_type_parameter",
    "_view",
]


class _Record:
    """What is known of one class that was sent or received by value."""

    __slots__ = ("__weakref__", "identity", "reference", "stamp", "tag")

    def __init__(self, cls: type, identity: bytes, stamp: int, tag: int) -> None:
        self.identity = identity
        self.stamp = stamp
        self.tag = tag
        # By address: a metaclass may define __eq__ and __hash__ as it likes.
        address = id(cls)
        self.reference = weakref.ref(cls, lambda _: _forget(address, self))


_lock = threading.RLock()  # a collection inside the lock may run _forget in the same thread
_by_address: dict[int, _Record] = {}
_by_identity: dict[bytes, _Record] = {}


def _forget(address: int, record: _Record) -> None:
    with _lock:
        if _by_address.get(address) is record:
            del _by_address[address]
        if _by_identity.get(record.identity) is record:
            del _by_identity[record.identity]


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _enter(cls: type, identity: bytes, stamp: int, tag: int) -> _Record:
    record = _Record(cls, identity, stamp, tag)
    _by_address[id(cls)] = record
    _by_identity[identity] = record
    return record


def _known(identity: bytes) -> type | None:
    record = _by_identity.get(identity)
    return record.reference() if record is not None else None


def _class_record(cls: type) -> tuple[bytes, int]:
    """The identity and the stamp of a class that is about to be dumped."""
    tag = _type_tag(cls)
    with _lock:
        record = _by_address.get(id(cls))
        if record is None:
            record = _enter(cls, os.urandom(16), 1, tag)
        elif tag == 0 or tag != record.tag:
            record.tag = tag
            record.stamp += 1
        return record.identity, record.stamp


def _make(identity: bytes, make: Any) -> type:
    """The class of that identity, made if it is not here yet."""
    cls = _known(identity)
    if cls is None:
        made = make()  # runs metaclass code: not under the lock
        with _lock:
            cls = _known(identity)
            if cls is None:
                cls = made
                _enter(cls, identity, 0, 0)
    return cls


class _TypedDictClass(typing.TypedDict):
    """To know the metaclass by."""


def _class(metaclass: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any], identity: bytes) -> type:
    def make() -> type:
        if metaclass is type(_TypedDictClass):
            # Its metaclass turns bases into dict, which they are already.
            return type.__new__(metaclass, name, bases, dict(namespace))
        prepared = metaclass.__prepare__(name, bases) if hasattr(metaclass, "__prepare__") else {}
        prepared.update(namespace)
        made: type = metaclass(name, bases, prepared)
        return made

    return _make(identity, make)


def _fill_class(cls: type, attributes: dict[str, Any], stamp: int, registered: Any = ()) -> None:
    with _lock:
        record = _by_address.get(id(cls))
        if record is None or record.stamp >= stamp:
            return
        record.stamp = stamp
    members = attributes.pop("_shoal_members_", None)
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    if members is not None:
        for name, state in members.items():
            cls.__members__[name].__dict__.update(state)  # type: ignore[attr-defined]
    for other in registered:
        cls.register(other)  # type: ignore[attr-defined]
    record.tag = _type_tag(cls)


# ---- enums: they are born with their members ----

_ENUM_MACHINERY = frozenset(
    {
        "_all_bits_",
        "_boundary_",
        "_flag_mask_",
        "_hashable_values_",
        "_inverted_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_new_member_",
        "_singles_mask_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_use_args_",
        "_value2member_map_",
        "_value_repr_",
    }
)
_MEMBER_MACHINERY = frozenset({"_name_", "_value_", "__objclass__", "_sort_order_", "_inverted_"})


def _describe_enum(
    cls: Any, namespace: dict[str, Any], attributes: dict[str, Any], identity: bytes
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``_enum``, and the attributes that ``_fill_class`` sets afterwards."""
    base = cls._member_type_
    own_new = "__new_member__" in cls.__dict__ and base is not object
    members = []
    for name, member in cls.__members__.items():
        members.append((name, member._value_, *((base(member),) if own_new else ())))
    states = {}
    for name, member in cls.__members__.items():
        state = {key: value for key, value in member.__dict__.items() if key not in _MEMBER_MACHINERY}
        if state and name == member._name_:
            states[name] = state
    boundary = getattr(cls, "_boundary_", None)
    arguments = (type(cls), cls.__name__, cls.__bases__, namespace, members, boundary, identity)
    inherited = {"__new__": enum.Enum.__new__}
    kept = {
        key: value
        for key, value in attributes.items()
        if key not in _ENUM_MACHINERY
        and key not in cls.__members__
        and not (key in inherited and getattr(value, "__func__", value) is inherited[key])
        and not _is_inherited_method(cls, key, value)
    }
    if states:
        kept["_shoal_members_"] = states
    return arguments, kept


def _is_inherited_method(cls: Any, key: str, value: Any) -> bool:
    """EnumMeta copies some methods of the data type and of Enum into each class: the new one gets them, too."""
    if key not in {"__repr__", "__str__", "__format__", "__reduce_ex__", "_generate_next_value_"}:
        return False
    return any(base.__dict__.get(key) is value for base in cls.__mro__[1:])


def _enum(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    members: list[tuple[Any, ...]],
    boundary: Any,
    identity: bytes,
) -> type:
    def make() -> type:
        prepared = metaclass.__prepare__(name, bases)
        for key, value in namespace.items():
            prepared[key] = value
        own_new = any(len(member) == 3 for member in members)
        if own_new:

            def __new__(cls: Any, value: Any, base_value: Any) -> Any:
                member = cls._member_type_.__new__(cls, base_value)
                member._value_ = value
                return member

            prepared["__new__"] = __new__
        for member in members:
            prepared[member[0]] = member[1:] if own_new else member[1]
        keywords = {} if boundary is None else {"boundary": boundary}
        made: type = metaclass(name, bases, prepared, **keywords)
        return made

    return _make(identity, make)


# ---- type parameters: known by identity as classes are, but they never change ----

_parameters: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
_parameter_identities: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def _describe_type_parameter(parameter: Any) -> tuple[Any, ...] | None:
    """The arguments of ``_type_parameter``, or None if it is something else of that name."""
    kind = type(parameter).__name__
    if type(parameter) is not getattr(typing, kind, None):
        return None
    with _lock:
        identity = _parameter_identities.get(parameter)
        if identity is None:
            identity = os.urandom(16)
            _parameter_identities[parameter] = identity
            _parameters[identity] = parameter
    constraints: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    if kind == "TypeVar":
        constraints = parameter.__constraints__
    if kind != "TypeVarTuple":
        keywords = {
            "bound": parameter.__bound__,
            "covariant": parameter.__covariant__,
            "contravariant": parameter.__contravariant__,
        }
        if getattr(parameter, "__infer_variance__", False):
            keywords["infer_variance"] = True
    has_default = getattr(parameter, "has_default", None)
    if has_default is not None and has_default():
        keywords["default"] = parameter.__default__
    return kind, parameter.__name__, constraints, keywords, parameter.__module__, identity


def _type_parameter(
    kind: str,
    name: str,
    constraints: tuple[Any, ...],
    keywords: dict[str, Any],
    module: str,
    identity: bytes,
) -> Any:
    with _lock:
        parameter = _parameters.get(identity)
        if parameter is None:
            parameter = getattr(typing, kind)(name, *constraints, **keywords)
            parameter.__module__ = module
            _parameters[identity] = parameter
            _parameter_identities[parameter] = identity
        return parameter


# ---- modules ----


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = sys.modules["builtins"].__dict__
    return module


def _import(name: str) -> types.ModuleType:
    __import__(name)
    return sys.modules[name]
