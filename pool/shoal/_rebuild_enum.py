# SPDX-License-Identifier: BSD-3-Clause
"""How an enum travels by value: it is born with its members; used by ``save_class.c``, ``rebuild_class.c``.

Its class is described here, not in C as other classes are, since its metaclass has made much of it that a metaclass in
the reader makes again.

A member is made by the data type's own ``__new__``, from its value. Where anything else has had a hand in it, a
``__new__`` or ``__init__`` of the enum, of its bases or of what is mixed in, or a data type that is made of something
else than the value, that is not run again: a member then travels as its value and what the type in C is made from, and
a ``__new__`` and ``__init__`` that stand in for the birth leave it at that. Attributes and slots are set afterwards.
"""

from __future__ import annotations

import copyreg
import types
from typing import Any

from shoal._rebuild_class import _set_names

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
_FILLED = (list, dict, set, bytearray)
_MEMBER_MACHINERY = frozenset({"_name_", "_value_", "__objclass__", "_sort_order_", "_inverted_"})
_IN_BODY = frozenset(
    {"__module__", "__qualname__", "__doc__", "__slots__", "__orig_bases__", "__annotations__"}
    | {"__firstlineno__", "__static_attributes__"}  # of 3.13: before what the metaclass and hooks add
)


def _is_method(value: Any) -> bool:
    return type(value).__name__ in ("function", "classmethod", "staticmethod") or type(value) is property


def _describe_enum(
    cls: Any, attributes: dict[str, Any], mark: bytes, keywords: dict[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``_enum``, and the attributes that ``_fill_class`` sets afterwards."""
    import enum

    plain = _is_plain(cls)
    solid = _solid(cls.__mro__)
    slots = copyreg._slotnames(cls)  # type: ignore[attr-defined]
    members = []
    states = {}
    for name, member in cls.__members__.items():
        members.append((name, member._value_, *(() if plain else (_made_from(solid, member),))))
        state = {key: value for key, value in member.__dict__.items() if key not in _MEMBER_MACHINERY}
        state.update((slot, getattr(member, slot)) for slot in slots if hasattr(member, slot))
        if state and name == member._name_:
            states[name] = state
    keywords = dict(keywords or {})
    boundary = getattr(cls, "_boundary_", None)
    if boundary is not None:
        keywords["boundary"] = boundary
    body: dict[str, Any] = {}
    # Here the metaclass keeps the stand-ins. They come first, since in the reader the others come after them.
    late: dict[str, Any] = {}
    for key in () if plain else ("_new_member_", "_use_args_"):
        if key in attributes:
            late[key] = attributes[key]
    for key, value in attributes.items():
        if key in _ENUM_MACHINERY or key in cls.__members__ or _is_inherited_method(cls, key, value):
            continue
        if key == "__new__" and getattr(value, "__func__", value) is enum.Enum.__new__:
            continue
        in_body = key in _IN_BODY or (_is_method(value) and key not in ("__new__", "__init__", "__new_member__"))
        (body if in_body else late)[key] = value
    if states:
        late["_shoal_members_"] = states
    more_values = _list_more_values(cls)
    if more_values:
        late["_shoal_values_"] = more_values
    return (type(cls), cls.__name__, cls.__bases__, body, mark, members, keywords), late


def _solid(mro: tuple[type, ...]) -> Any:
    """The type whose ``__new__`` is made in C: it says how the memory of a member is laid out."""
    return next(base for base in mro if type(base.__dict__.get("__new__")) is types.BuiltinFunctionType)


def _is_plain(cls: Any) -> bool:
    """Are its members what the data type makes of their values?"""
    import enum

    for base in cls.__mro__:
        if base.__module__ == "enum" or type(base.__dict__.get("__new__")) is types.BuiltinFunctionType:
            continue
        own_new = base.__dict__.get("__new__", enum.Enum.__new__)
        if getattr(own_new, "__func__", own_new) is not enum.Enum.__new__ or "__init__" in base.__dict__:
            return False
        if "__new_member__" in base.__dict__:
            return False
    solid = _solid(cls.__mro__)
    if solid is object:
        return True
    return "__getnewargs__" in solid.__dict__ and all(type(member._value_) is solid for member in cls)


def _made_from(solid: Any, member: Any) -> tuple[Any, ...]:
    """The arguments for ``solid.__new__`` (and ``__init__``, if that fills it)."""
    if solid in _FILLED:
        return (solid(member),)
    own = solid.__dict__
    if "__getnewargs__" in own:
        arguments: tuple[Any, ...] = own["__getnewargs__"](member)
        return arguments
    if "__reduce_ex__" in own:
        reduced = own["__reduce_ex__"](member, 4)
    else:
        reduced = own["__reduce__"](member) if "__reduce__" in own and solid is not object else (None, ())
    return reduced[1] if reduced[0] in (type(member), None) else ()


def _list_more_values(cls: Any) -> list[tuple[str, Any]]:
    """Values that lead to a member besides its own, with its name."""
    more = []
    named = cls.__members__
    for value, member in cls._value2member_map_.items():
        if value is not member._value_ and value != member._value_ and named.get(member._name_) is member:
            more.append((member._name_, value))
    for name, values in getattr(cls, "_unhashable_values_map_", {}).items():
        more += [(name, value) for value in values if name in named and value != named[name]._value_]
    return more


def fill_members(cls: Any, states: dict[str, dict[str, Any]], values: list[tuple[str, Any]]) -> None:
    """Attributes and slots of members, and what else leads to them, as it was at the source."""
    for name, state in states.items():
        member = cls.__members__[name]
        for key, value in state.items():
            if type(getattr(cls, key, None)) is types.MemberDescriptorType:
                object.__setattr__(member, key, value)
            else:
                member.__dict__[key] = value
    for name, value in values:
        member = cls.__members__[name]
        if hasattr(member, "_add_value_alias_"):
            member._add_value_alias_(value)
        else:
            cls._value2member_map_.setdefault(value, member)


def _is_inherited_method(cls: Any, key: str, value: Any) -> bool:
    """EnumMeta copies some methods of the data type and of Enum into each class: the new one gets them, too."""
    if key not in {"__repr__", "__str__", "__format__", "__reduce_ex__", "_generate_next_value_"}:
        return False
    return any(base.__dict__.get(key) is value for base in cls.__mro__[1:])


def _as_member(value: Any) -> Any:
    """A value that a class body would take for a method."""
    import enum

    is_descriptor = any(hasattr(type(value), name) for name in ("__get__", "__set__", "__delete__"))
    return enum.member(value) if is_descriptor and hasattr(enum, "member") else value


def make_enum(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    members: list[tuple[Any, ...]],
    keywords: dict[str, Any],
) -> type:
    if not all(type(member) is tuple and len(member) in (2, 3) and type(member[0]) is str for member in members):
        raise TypeError("the members of an enum are tuples of a name and a value")
    prepared = metaclass.__prepare__(name, bases, **keywords)
    for key, value in namespace.items():
        prepared[key] = value
    plain = all(len(member) == 2 for member in members)
    stand_ins = {} if plain else _stand_ins(bases)
    for key, value in stand_ins.items():
        prepared.setdefault(key, value)
    for member in members:
        prepared[member[0]] = _as_member(member[1]) if plain else member[1:]
    made: type = metaclass(name, bases, prepared, **keywords)
    for key, value in stand_ins.items():
        if made.__dict__.get("__new_member__" if key == "__new__" else key) is value:
            type.__delattr__(made, "__new_member__" if key == "__new__" else key)
    if not plain and made.__reduce_ex__ is not bases[-1].__reduce_ex__ and "__reduce_ex__" not in made.__dict__:
        type.__setattr__(made, "__reduce_ex__", bases[-1].__reduce_ex__)  # not the data type's, as EnumMeta has it
    _set_names(made, name, namespace.get("__qualname__", name))
    return made


def _stand_ins(bases: tuple[type, ...]) -> dict[str, Any]:
    """For the birth of an enum whose members are not just what the data type makes of their values."""
    solid = _solid(tuple(base for one in bases for base in one.__mro__ if base is not object) + (object,))

    def __new__(cls: Any, value: Any, arguments: tuple[Any, ...]) -> Any:
        member = solid.__new__(cls, *arguments)
        if solid in _FILLED:
            solid.__init__(member, *arguments)
        member._value_ = value
        return member

    def __init__(self: Any, *arguments: Any) -> None:
        pass

    # With a `__reduce_ex__` EnumMeta does not look whether it could pickle members that a `__new__` has made.
    return {"__new__": __new__, "__init__": __init__, "__reduce_ex__": bases[-1].__reduce_ex__}
