# SPDX-License-Identifier: BSD-3-Clause
"""How a class that travels by value is made and changed; used by ``pool/pickle/rebuild_class.c``.

A class is made as its definition made it: its metaclass is called once, with the whole namespace and the keyword
arguments of the definition, so that the hooks of metaclass, bases and descriptors run once and see what they saw there.
What hooks compute they compute anew; then every attribute is put to what it was at the source. So a hook's effect on
others (a registry) is there, and the class is what was sent.

Which class is which is known in C; nothing here keeps anything.
"""

from __future__ import annotations

import abc
import copyreg
import types
import warnings
from collections.abc import Iterator
from typing import Any

from shoal._ext import _is_importable

_MISSING = object()
# Not attributes of the class that is made.
_USED_UP = frozenset({"__qualname__", "__classcell__", "__slots__"})
# Of the names that `type` keeps to itself, those that mean the class's own attribute when they are set on a class.
_SETTABLE = frozenset({"__doc__", "__module__", "__annotations__", "__abstractmethods__", "__type_params__"})


def _set(cls: type, name: str, value: Any) -> None:
    """Past any ``__setattr__`` and property of the metaclass: at the source it has run already."""
    if name not in _SETTABLE and hasattr(type(type.__dict__.get(name)), "__set__"):
        return  # a property `__name__` or `__class__` for the instances: only a birth can give it
    try:
        type.__setattr__(cls, name, value)
    except TypeError:  # a metaclass made in C that insists on its own
        setattr(cls, name, value)


def _delete(cls: type, name: str) -> None:
    try:
        type.__delattr__(cls, name)
    except (AttributeError, TypeError):
        pass


def _set_names(cls: type, name: str, qualname: str) -> None:
    if type.__dict__["__name__"].__get__(cls) != name:
        type.__dict__["__name__"].__set__(cls, name)
    if type.__dict__["__qualname__"].__get__(cls) != qualname:
        type.__dict__["__qualname__"].__set__(cls, qualname)


# ---- made ----


class _NoHooks:
    """A base for a moment: keeps ``__init_subclass__`` of the others from being called."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        pass


class _NoHooksNorDict:
    """Likewise, for bases whose instances have no ``__dict__``."""

    __slots__ = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        pass


def _is_typed_dict(metaclass: type) -> bool:
    return metaclass.__name__ == "_TypedDictMeta" and metaclass.__module__ in ("typing", "typing_extensions")


def _slot_names(name: str, slots: Any) -> set[str]:
    """The attributes that ``__slots__`` makes: they must not be in the namespace, too."""
    if isinstance(slots, str):
        slots = (slots,)
    owner = name.lstrip("_")
    mangled = set()
    for slot in slots:
        private = isinstance(slot, str) and owner and slot.startswith("__") and not slot.endswith("__")
        mangled.add(f"_{owner}{slot}" if private else slot)
    return mangled


def _make_without_hooks(metaclass: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
    if bases == (object,):
        made: type = type.__new__(metaclass, name, bases, namespace)
        return made
    for shim in (_NoHooks, _NoHooksNorDict):
        try:
            made = type.__new__(metaclass, name, (shim, *bases), dict(namespace))
            made.__bases__ = bases
            return made
        except TypeError:  # instances of that base are laid out differently
            pass
    raise TypeError(f"class {name!r} cannot be made without running hooks")


def _call(
    metaclass: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any], keywords: dict[str, Any]
) -> type:
    prepare = getattr(metaclass, "__prepare__", None)
    prepared = {} if prepare is None else prepare(name, bases, **keywords)
    for key, value in namespace.items():
        prepared[key] = value
    made: type = metaclass(name, bases, prepared, **keywords)
    return made


def make(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    keywords: dict[str, Any] | None,
) -> type:
    """The class, from its metaclass. The namespace is left as it is."""
    body = namespace
    conflicts = _slot_names(name, namespace.get("__slots__", ())) & namespace.keys()
    if conflicts:  # set on the class after its slots were made
        body = {key: value for key, value in namespace.items() if key not in conflicts}
    if _is_typed_dict(metaclass):
        # The bases are dict already, and what the metaclass finds out of the annotations is there.
        made: type = type.__new__(metaclass, name, bases, dict(body))
    else:
        try:
            made = _call(metaclass, name, bases, body, keywords or {})
        except Exception as error:
            # The hooks were written for the definition, not for what came of it; or a keyword argument is not known.
            try:
                made = _make_without_hooks(metaclass, name, bases, body)
            except Exception:
                raise error from None
            warnings.warn(
                f"class {namespace.get('__qualname__', name)!r} was made without running the hooks of its definition: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
    if isinstance(made, type):
        _settle(made, name, namespace)
    return made


def _settle(cls: type, name: str, namespace: dict[str, Any]) -> None:
    """Every attribute as it was at the source, whatever the hooks did."""
    _set_names(cls, name, namespace.get("__qualname__", name))
    own = cls.__dict__
    for key, value in namespace.items():
        if key in _USED_UP:
            continue
        if key == "__abstractmethods__":  # `type` looks at it only when it is set
            type.__setattr__(cls, key, value)
        elif own.get(key, _MISSING) is not value:
            _set(cls, key, value)


# ---- changed ----


def change(cls: type, bases: tuple[type, ...], changed: dict[str, Any], removed: list[str]) -> None:
    """A class that is here already, as it has become at its source."""
    if cls.__bases__ != bases:
        cls.__bases__ = bases
    for key in removed:
        _delete(cls, key)
    qualname = changed.get("__qualname__")
    if qualname is not None:
        _set_names(cls, cls.__name__, qualname)
    for key, value in changed.items():
        if key not in _USED_UP:
            _set(cls, key, value)


def fill(cls: type, attributes: dict[str, Any], registered: list[type] | None, made: bool) -> None:
    """What could not be there when the class was made."""
    members, values = attributes.pop("_shoal_members_", {}), attributes.pop("_shoal_values_", [])
    for name, value in attributes.items():
        _set(cls, name, value)
        set_name = getattr(type(value), "__set_name__", None) if made else None
        if set_name is not None:
            set_name(value, cls, name)
            if cls.__dict__.get(name, _MISSING) is not value:
                _set(cls, name, value)
    if members or values:
        from shoal._rebuild_enum import fill_members

        fill_members(cls, members, values)
    for other in registered or ():
        cls.register(other)  # type: ignore[attr-defined]


def _content(target: Any, parts: Any) -> None:
    """What leads to a class, as it was at the source, whatever hooks have done to it meanwhile.

    A list, dict or set, or an instance, whose attributes are meant.
    """
    kind = type(target)
    if kind is list:
        target[:] = parts
    elif kind is set:
        target.clear()
        target.update(parts)
    else:
        items = target if kind is dict else getattr(target, "__dict__", None)
        if type(items) is not dict or type(parts) is not dict:
            raise TypeError(f"cannot set what is in an object of type {kind.__name__!r}")
        items.clear()
        items.update(parts)


def _list_registered(cls: Any) -> list[type] | None:
    """The live classes that were registered with an ABC, in an order that means something."""
    try:
        references = abc._get_dump(cls)[0]  # type: ignore[attr-defined]
    except TypeError:  # an ABC of somebody's own making
        return None
    classes = [other for other in (reference() for reference in references) if other is not None]
    return sorted(classes, key=lambda other: (other.__module__, other.__qualname__))


# ---- what hooks have written to ----

# enum shoal_late_kind (births.h)
_GLOBAL, _CELL, _ATTRIBUTE, _CONTENT = 1, 2, 4, 7
_HOOKS = frozenset({"__new__", "__init__", "__call__", "__prepare__", "__init_subclass__", "__set_name__"})
_CONTAINERS = (list, dict, set)
_ATOMS = (int, float, str, bytes, bool, tuple, frozenset, type(None))

_NEW_OBJECT = copyreg.__newobj__  # type: ignore[attr-defined]

Effect = tuple[int, Any, Any, Any]


def _parts(container: Any) -> Any:
    return type(container)(container)  # a set as a set: the pickler knows an order for its members


def _effect_on(value: Any) -> Effect | None:
    """How to set a mutable object to what it is now."""
    kind = type(value)
    if kind in _CONTAINERS:
        return _CONTENT, value, None, _parts(value)
    if kind.__flags__ & 1 << 9 and type(getattr(value, "__dict__", None)) is dict and not hasattr(kind, "__setstate__"):
        attributes = _sent_attributes(value)  # 1 << 9: a class made in Python
        return None if attributes is None else (_CONTENT, value, None, attributes)
    return None


def _sent_attributes(value: Any) -> dict[str, Any] | None:
    """The attributes that an instance has in the reader; None if its making there gives it more, which is to stay."""
    from shoal._describe import find_describer

    try:
        describer = find_describer(type(value))
        reduced: Any = value.__reduce_ex__(4) if describer is None else describer(value, 4)
    except Exception:
        return None
    if type(reduced) is not tuple or len(reduced) < 3 or (len(reduced) == 6 and reduced[5] is not None):
        return None
    state = reduced[2][0] if type(reduced[2]) is tuple and len(reduced[2]) == 2 else reduced[2]
    state = {} if state is None else state
    if type(state) is not dict or (reduced[0] is not _NEW_OBJECT and state.keys() != value.__dict__.keys()):
        return None
    return dict(state)


def _effects_on(value: Any) -> Iterator[Effect]:
    """The same with what an object, a registry for example, keeps its entries in."""
    effect = _effect_on(value)
    if effect is None:
        return
    if type(value) not in _CONTAINERS:
        yield from ((_CONTENT, part, None, _parts(part)) for part in effect[3].values() if type(part) in _CONTAINERS)
    yield effect


def _effects_of_function(function: types.FunctionType) -> Iterator[Effect]:
    code = function.__code__
    for name in code.co_names:
        value = function.__globals__.get(name)
        if type(value) in _ATOMS and name in function.__globals__:
            yield _GLOBAL, function.__globals__, name, value
        elif not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            yield from _effects_on(value)
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if type(value) in _ATOMS:
            yield _CELL, cell, None, None
        elif not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            yield from _effects_on(value)


def _effects_of_owner(owner: type) -> Iterator[Effect]:
    for name, value in owner.__dict__.items():
        function = getattr(value, "__func__", value)
        if type(function) is types.FunctionType:
            if name in _HOOKS:
                yield from _effects_of_function(function)
        elif type(value) in _ATOMS:
            if not (name.startswith("__") and name.endswith("__")):
                yield _ATTRIBUTE, owner, name, value
        elif not isinstance(value, type):
            yield from _effects_on(value)


def _list_effects(cls: Any) -> list[Effect]:
    """What the hooks of a class that travel by value may have written to, with what it is now."""
    owners: list[type] = list(type(cls).__mro__) + list(cls.__mro__[1:])
    effects: list[Effect] = []
    for value in cls.__dict__.values():
        hooked = [base for base in type(value).__mro__ if "__set_name__" in base.__dict__]
        if hooked and hooked[0].__flags__ & 1 << 9 and not _is_importable(hooked[0]):
            owners += hooked
            effects += _effects_on(value)
    for owner in owners:
        if owner.__flags__ & 1 << 9 and not _is_importable(owner):
            effects += _effects_of_owner(owner)
    return effects
