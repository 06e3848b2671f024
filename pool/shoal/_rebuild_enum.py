# SPDX-License-Identifier: BSD-3-Clause
"""How an enum travels by value: it is born with its members; used by ``pool/pickle/save_class.c`` and `rebuild_class.c`.

Its class is described here, not in C as other classes are, since its metaclass has made much of it that a metaclass in
the reader makes again.
"""

from __future__ import annotations

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

    base = cls._member_type_
    own_new = "__new_member__" in cls.__dict__ and base is not object
    members = []
    states = {}
    for name, member in cls.__members__.items():
        members.append((name, member._value_, *((base(member),) if own_new else ())))
        state = {key: value for key, value in member.__dict__.items() if key not in _MEMBER_MACHINERY}
        if state and name == member._name_:
            states[name] = state
    keywords = dict(keywords or {})
    boundary = getattr(cls, "_boundary_", None)
    if boundary is not None:
        keywords["boundary"] = boundary
    body: dict[str, Any] = {}
    late: dict[str, Any] = {}
    for key, value in attributes.items():
        if key in _ENUM_MACHINERY or key in cls.__members__ or _is_inherited_method(cls, key, value):
            continue
        if key == "__new__" and getattr(value, "__func__", value) is enum.Enum.__new__:
            continue
        in_body = key in _IN_BODY or (_is_method(value) and key not in ("__new__", "__init__", "__new_member__"))
        (body if in_body else late)[key] = value
    if states:
        late["_shoal_members_"] = states
    return (type(cls), cls.__name__, cls.__bases__, body, mark, members, keywords), late


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
    own_new = any(len(member) == 3 for member in members)
    if own_new:

        def __new__(cls: Any, value: Any, base_value: Any) -> Any:
            member = cls._member_type_.__new__(cls, base_value)
            member._value_ = value
            return member

        prepared["__new__"] = __new__
    for member in members:
        prepared[member[0]] = member[1:] if own_new else _as_member(member[1])
    made: type = metaclass(name, bases, prepared, **keywords)
    _set_names(made, name, namespace.get("__qualname__", name))
    return made
