# SPDX-License-Identifier: BSD-3-Clause
"""How objects are told of that pickle refuses, or loses something of, although they are easily made again.

A describer is a callable(object, protocol) that returns what ``__reduce__`` would say, or None: nothing special about
this one, ask it. The pickler asks ``find_describer`` once for each type. Where ordinary names suffice, none of Shoal's
is used, so that the pickle can be read where there is no Shoal.

Those here are objects in memory; files and typing objects have modules of their own.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import struct
import sys
import weakref
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any

from shoal import _describe_files, _describe_typing, _ext, _rebuild
from shoal._rebuild_type_parameter import one_text

__all__ = ["find_describer", "single_dispatch"]

Reduced = tuple[Any, ...]
Describer = Callable[[Any, int], "Reduced | str | None"]


# ---- caches and wrappers ----


def _lru_cache(wrapper: Any, protocol: int) -> Reduced | str | None:
    """By name if it can be found there; else the function, with a cache of its own that is empty."""
    if not hasattr(wrapper, "__wrapped__"):
        return None  # not made by functools.lru_cache
    if hasattr(wrapper, "__qualname__") and _ext._is_importable(wrapper):
        name: str = wrapper.__reduce__()
        return name
    parameters = wrapper.cache_parameters()
    state = {key: value for key, value in wrapper.__dict__.items() if key != "cache_parameters"}
    if "__module__" in state:
        state["__module__"] = one_text(state["__module__"])
    return _rebuild._lru_cache, (wrapper.__wrapped__, parameters["maxsize"], parameters["typed"]), state


def single_dispatch(function: Any, protocol: int) -> Reduced:
    """What ``functools.singledispatch`` returned: the default, and what was registered. Its caches stay behind."""
    default = function.__wrapped__
    registered = [pair for pair in function.registry.items() if pair != (object, default)]
    names = "__module__", "__name__", "__qualname__", "__doc__"
    attributes = {name: one_text(getattr(function, name)) for name in names}
    attributes.update({name: value for name, value in function.__dict__.items() if name not in _DISPATCHER_MACHINERY})
    return _rebuild._single_dispatch, (default,), (registered, attributes), None, None, _rebuild._fill_single_dispatch


_DISPATCHER_MACHINERY = frozenset({"register", "dispatch", "registry", "_clear_cache", "__wrapped__"})


def _cached_property(descriptor: Any, protocol: int) -> Reduced:
    """Before Python 3.12 it has a lock, which it makes by itself."""
    state = {key: value for key, value in descriptor.__dict__.items() if key != "lock"}
    if type(descriptor) is functools.cached_property:
        return functools.cached_property, (descriptor.func,), state
    return _rebuild._cached_property, (type(descriptor), descriptor.func), state


def _property_like(descriptor: Any, protocol: int) -> Reduced:
    """A property of a kind of its own."""
    # Some kinds take the getter's docstring by themselves and forget one that is given.
    doc = None if descriptor.__doc__ == getattr(descriptor.fget, "__doc__", None) else descriptor.__doc__
    arguments = descriptor.fget, descriptor.fset, descriptor.fdel, doc
    return _of_kind(descriptor, property, arguments, {"__doc__"} if doc is None else frozenset())


def _method_like(descriptor: Any, protocol: int) -> Reduced:
    """A classmethod or staticmethod of a kind of its own."""
    base = classmethod if isinstance(descriptor, classmethod) else staticmethod
    function = descriptor.__func__
    taken = [key for key, value in descriptor.__dict__.items() if getattr(function, key, descriptor) is value]
    return _of_kind(descriptor, base, (function,), taken)


def _of_kind(descriptor: Any, base: Any, arguments: tuple[Any, ...], left_out: Any) -> Reduced:
    kind: Any = type(descriptor)
    state = {key: value for key, value in getattr(descriptor, "__dict__", {}).items() if key not in left_out}
    slots = _slots_of(descriptor)
    whole: Any = (state, slots) if slots else state
    if kind.__init__ is base.__init__ and kind.__new__ is base.__new__:
        return (kind, arguments, whole) if whole else (kind, arguments)
    return _rebuild._descriptor_of_kind, (kind, base, arguments), whole or None


def _slots_of(obj: Any) -> dict[str, Any]:
    import copyreg

    names: list[str] = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
    return {name: getattr(obj, name) for name in names if hasattr(obj, name)}


def _context_manager(manager: Any, protocol: int) -> Reduced | None:
    """What a function of ``contextlib.contextmanager`` returned: the call that made it, as long as it has not begun."""
    if not hasattr(manager, "args"):  # it forgets them when it is entered
        return None
    return type(manager), (manager.func, manager.args, manager.kwds)


# ---- weak references: the referent travels; where nobody else holds it, it dies after the load ----


def _weak_reference(reference: Any, protocol: int) -> Reduced:
    referent, callback = reference(), reference.__callback__
    if referent is None:
        return weakref.ref, (set(),)  # one that is dead as soon as it is made
    return weakref.ref, (referent,) if callback is None else (referent, callback)


def _weak_method(reference: Any, protocol: int) -> Reduced:
    method = reference()
    return (weakref.ref, (set(),)) if method is None else (weakref.WeakMethod, (method,))


def _weak_set(obj: Any, protocol: int) -> Reduced:
    # By update, not as an argument: a member may refer to the set.
    own = _own_attributes(obj, weakref.WeakSet())
    if own is None:
        return type(obj), (), list(obj), None, None, weakref.WeakSet.update
    return type(obj), (), (list(obj), own), None, None, _rebuild._fill_weak_set


def _weak_dict(obj: Any, protocol: int) -> Reduced:
    base = weakref.WeakValueDictionary if isinstance(obj, weakref.WeakValueDictionary) else weakref.WeakKeyDictionary
    return type(obj), (), _own_attributes(obj, base()), None, iter(list(obj.items()))


def _own_attributes(obj: Any, blank: Any) -> dict[str, Any] | None:
    """What a subclass or its user has put there."""
    return {name: value for name, value in obj.__dict__.items() if name not in blank.__dict__} or None


def _context_variable(variable: Any, protocol: int) -> str | Reduced | None:
    """By the module that has it as a global."""
    for name, module in list(sys.modules.items()):
        if name in ("__main__", "__mp_main__") or type(module) is not type(sys) or module.__name__ != name:
            continue
        for key, value in list(module.__dict__.items()):
            if value is variable:
                return getattr, (module, key)
    return None


def _system_record(record: Any, protocol: int) -> Reduced:
    """sys.flags and its kind, of which there is one in each interpreter."""
    kind = type(record)
    fields = [name for name, value in kind.__dict__.items() if isinstance(value, MemberDescriptorType)]
    return _rebuild._system_record, (kind.__name__, tuple(record), fields)


def _struct(obj: Any, protocol: int) -> Reduced:
    return struct.Struct, (obj.format,)


def _vectorize(obj: Any, protocol: int) -> Reduced:
    """numpy.vectorize keeps the ufuncs that it has made, which have no name to be found by; it makes them again."""
    kept = obj.__dict__.get("_ufunc")
    state = {**obj.__dict__, "_ufunc": {} if isinstance(kept, dict) else None}
    return object.__reduce_ex__(obj, 2)[0], (type(obj),), state


def _init_variable(obj: Any, protocol: int) -> Reduced | str | None:
    """dataclasses.InitVar has slots alone, which pickle refuses before protocol 2. (Fields are written in C.)"""
    return None if protocol >= 2 else obj.__reduce_ex__(2)


# ---- the table ----

_EXACTLY: dict[Any, Describer] = {
    functools._lru_cache_wrapper: _lru_cache,
    weakref.ref: _weak_reference,
    weakref.WeakMethod: _weak_method,
    struct.Struct: _struct,
    **_describe_files.EXACTLY,
    **_describe_typing.EXACTLY,
}
_AND_SUBCLASSES: dict[Any, Describer] = {
    functools.cached_property: _cached_property,
    property: _property_like,
    classmethod: _method_like,
    staticmethod: _method_like,
    abc.abstractproperty: _property_like,
    contextlib._GeneratorContextManager: _context_manager,
    contextlib._AsyncGeneratorContextManager: _context_manager,
    weakref.WeakSet: _weak_set,
    weakref.WeakValueDictionary: _weak_dict,
    weakref.WeakKeyDictionary: _weak_dict,
    **_describe_files.AND_SUBCLASSES,
}
# Of modules that may not be imported: by the names of module and class.
_LATER: dict[tuple[str, str], Describer] = {
    ("_contextvars", "ContextVar"): _context_variable,
    ("dataclasses", "InitVar"): _init_variable,
    ("numpy", "vectorize"): _vectorize,
    **{
        ("sys", name): _system_record
        for name in ("flags", "float_info", "hash_info", "int_info", "thread_info", "version_info")
    },
    **_describe_files.LATER,
}
_OWN_WAYS = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")

# By address: a metaclass may define __eq__ and __hash__ as it likes.
_exactly = {id(cls): describer for cls, describer in _EXACTLY.items()}
_and_subclasses = {id(cls): describer for cls, describer in _AND_SUBCLASSES.items()}


def find_describer(cls: type) -> Describer | None:
    """The describer for objects of exactly this type, if any. Exceptions are told of in C."""
    if id(cls) in _exactly:
        return _exactly[id(cls)]
    for base in type.__dict__["__mro__"].__get__(cls):
        if id(base) in _and_subclasses:
            return _and_subclasses[id(base)]
        namespace = type.__dict__["__dict__"].__get__(base)
        if any(name in namespace for name in _OWN_WAYS):
            break  # it says itself how it is made again
    place = type.__dict__["__module__"].__get__(cls), type.__dict__["__name__"].__get__(cls)
    return _LATER.get(place)
