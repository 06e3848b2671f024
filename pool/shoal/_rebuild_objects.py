# SPDX-License-Identifier: BSD-3-Clause
"""The reconstructors for objects that are no functions, classes or modules. Pickles name them in ``shoal._rebuild``."""

from __future__ import annotations

import functools
import io
import sys
import threading
import types
import typing
import weakref
from collections import OrderedDict, namedtuple
from typing import Any

from shoal import _ext

__all__ = [
    "_cached_property",
    "_descriptor",
    "_descriptor_of_kind",
    "_fill_exception",
    "_fill_single_dispatch",
    "_fill_type_alias",
    "_fill_weak_set",
    "_forward_reference",
    "_lru_cache",
    "_memory_file",
    "_new_type",
    "_single_dispatch",
    "_system_record",
    "_type_alias",
    "_view",
]


# ---- views and descriptors ----


def _view(kind: str, parts: list[Any]) -> Any:
    """A view of a dict that has only what the view shows."""
    mapping: Any = OrderedDict() if kind.startswith("odict") else {}
    if kind.endswith("_keys"):
        mapping.update((part, None) for part in parts)
        return mapping.keys()
    if kind.endswith("_values"):
        mapping.update(enumerate(parts))
        return mapping.values()
    mapping.update(parts)
    return mapping.items()


def _descriptor(cls: type, name: str) -> Any:
    return cls.__dict__[name]


def _descriptor_of_kind(kind: Any, base: Any, arguments: tuple[Any, ...]) -> Any:
    """A property, classmethod or staticmethod of a kind that has an ``__init__`` of its own, made without that."""
    made = base.__new__(kind)
    base.__init__(made, *arguments)
    return made


def _cached_property(kind: Any, function: Any) -> Any:
    made = kind.__new__(kind)
    functools.cached_property.__init__(made, function)
    return made


def _lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _single_dispatch(default: Any) -> Any:
    return functools.singledispatch(default)


def _fill_single_dispatch(function: Any, state: tuple[list[tuple[Any, Any]], dict[str, Any]]) -> None:
    registered, attributes = state
    for cls, implementation in registered:
        function.register(cls, implementation)
    for name, value in attributes.items():
        setattr(function, name, value)


# ---- exceptions ----


def _fill_exception(error: BaseException, state: tuple[Any, Any, dict[str, Any]]) -> None:
    """Its own state in its own way, then attributes past whatever ``__setattr__`` it has."""
    setter, own, extras = state
    if setter is not None:
        setter(error, own)
    elif own is not None:
        error.__setstate__(own)
    for name, value in extras.items():
        object.__setattr__(error, name, value)


# ---- weak sets, and records of the interpreter ----


def _fill_weak_set(obj: Any, state: tuple[list[Any], dict[str, Any]]) -> None:
    members, attributes = state
    weakref.WeakSet.update(obj, members)
    obj.__dict__.update(attributes)


def _system_record(name: str, values: tuple[Any, ...], fields: list[str]) -> Any:
    """The reader's own if it says the same. A record of another interpreter cannot always be made: a likeness, then."""
    own = getattr(sys, name)
    if tuple(own) == values:
        return own
    try:
        return type(own)(values)
    except TypeError:
        return namedtuple(name, fields[: len(values)], rename=True)(*values)


# ---- files ----


def _memory_file(name: Any, content: str | bytes, position: int) -> Any:
    """A file that has been read: its content, at the position it was at."""
    file: Any = io.StringIO(content) if isinstance(content, str) else io.BytesIO(content)
    file.seek(position)
    file.name = name
    return file


# ---- typing objects ----

# Those that are in this process under the place that they were made at: module, qualified name, and a number for those
# that share one. An object that comes home is the one that lives here.
_living: weakref.WeakValueDictionary[tuple[str, str, int], Any] = weakref.WeakValueDictionary()
_living_lock = threading.RLock()  # to look and to enter is one step


_ext._free_in_children(_living_lock)


def _place(obj: Any, module: str, qualname: str) -> int:
    """The number of an object among those of its place that live."""
    number = 0
    with _living_lock:
        while True:
            other = _living.setdefault((module, qualname, number), obj)
            if other is obj:
                return number
            number += 1


def _new_type(name: str, supertype: Any, module: str, qualname: str, number: int) -> Any:
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]
    made.__module__ = module
    made.__qualname__ = qualname
    with _living_lock:
        living = _living.setdefault((module, qualname, number), made)
    return living if living.__supertype__ == supertype and living.__name__ == name else made


@functools.cache
def _alias_template() -> types.CodeType:
    """Makes an alias as the statement does: what it means is asked for when somebody looks at it."""
    return compile("type _shoal_name_ = _shoal_box_[0]", "<type alias>", "exec")


def _owner(parameters: tuple[Any, ...]) -> Any:
    """The type parameter that knows which alias was written with it: nothing can refer weakly to an alias.

    One that is made by a call, which several aliases may have in common, says which module has called.
    """
    written = parameters and getattr(parameters[0], "__module__", "") == "typing"
    return parameters[0] if written else None


def _enter(owner: Any, alias: Any) -> Any:
    """The owner's alias: this, unless it has one already."""
    with _living_lock:
        if not hasattr(owner, "_shoal_alias"):
            owner._shoal_alias = alias
        return owner._shoal_alias


def _is_its_owners(alias: Any) -> bool:
    owner = _owner(alias.__type_params__)
    return owner is not None and _enter(owner, alias) is alias


def _type_alias(name: str, module: str, parameters: tuple[Any, ...], owned: bool, box: list[Any]) -> Any:
    """An alias of what will be in the box, which may name the alias itself; or the one that is here already."""
    if type(name) is not str or type(parameters) is not tuple or type(box) is not list:
        raise TypeError("_type_alias(name, module, parameters, owned, box)")
    owner = _owner(parameters) if owned else None
    if owner is not None:
        known = getattr(owner, "_shoal_alias", None)
        if known is not None and known.__name__ == name and known.__type_params__ == parameters:
            return known
    # The compiler leaves the name to a constant and the type parameters to another, None.
    instead = {"_shoal_name_": name, None: parameters or None}
    template = _alias_template()
    constants = tuple(instead.get(value, value) for value in template.co_consts)
    namespace: dict[str, Any] = {"__name__": module, "_shoal_box_": box}
    exec(template.replace(co_consts=constants), namespace)
    made = namespace["_shoal_name_"]
    return made if owner is None else _enter(owner, made)


def _fill_type_alias(alias: Any, state: tuple[list[Any], Any]) -> None:
    box, value = state
    box[:] = [value]


def _forward_reference(argument: str, is_argument: bool, module: Any, is_class: bool) -> typing.ForwardRef:
    return typing.ForwardRef(argument, is_argument, module, is_class=is_class)
