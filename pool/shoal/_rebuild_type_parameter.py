# SPDX-License-Identifier: BSD-3-Clause
"""Type parameters by value: known by identity as classes are, but they never change.

The identity says what the parameter was defined with, and has an ordinal among those that were defined alike, so that
it is the same in each run of a program. One that comes home is the same object.

Bounds, constraints and defaults of those that a class, function or alias was written with (PEP 695) are evaluated when
somebody asks for them, and so may name what the parameter belongs to. Such a parameter is made first and told what they
are afterwards.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
import typing
import weakref
from typing import Any

from shoal import _ext

_lock = threading.RLock()  # a collection inside the lock may drop entries in the same thread
_parameters: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
_identities: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()
_ordinals: dict[bytes, int] = {}
_unfilled: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
_ORDINAL_SIZE = 4


_ext._free_in_children(_lock)


def one_text(text: Any) -> Any:
    """Of equal names of modules, which one it is depends on who imported what: for the pickler they are one."""
    return sys.intern(text) if type(text) is str else text


def _place(value: Any) -> str:
    """What a bound or constraint is called, without addresses."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__name__}:{getattr(value, '__name__', '')}"


def _identity_of(parameter: Any, constraints: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
    with _lock:
        identity = _identities.get(parameter)
        if identity is None:
            parts = [type(parameter).__name__, parameter.__name__, str(parameter.__module__)]
            parts += map(_place, constraints)
            parts += [f"{name}={_place(value)}" for name, value in keywords.items()]
            base = "\0".join(parts).encode("utf-8", "surrogatepass")
            ordinal = _ordinals.get(base, 0)
            _ordinals[base] = ordinal + 1
            identity = base + ordinal.to_bytes(_ORDINAL_SIZE, "little")
            _identities[parameter] = identity
            _parameters[identity] = parameter
        return identity


def _describe_type_parameter(parameter: Any) -> tuple[Any, ...] | None:
    """What its __reduce__ would say, or None if it is something else of that name."""
    kind = type(parameter).__name__
    if type(parameter) is not getattr(typing, kind, None):
        return None
    constraints: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    if kind == "TypeVar":
        constraints = parameter.__constraints__
    if kind != "TypeVarTuple":
        # ParamSpec() of 3.12 and later takes a missing bound for the type of None.
        if parameter.__bound__ is not None and (kind == "TypeVar" or parameter.__bound__ is not type(None)):
            keywords["bound"] = parameter.__bound__
        variance = "covariant", "contravariant", "infer_variance"
        keywords.update((name, True) for name in variance if getattr(parameter, f"__{name}__", False))
    has_default = getattr(parameter, "has_default", None)
    if has_default is not None and has_default():
        keywords["default"] = parameter.__default__
    identity = _identity_of(parameter, constraints, keywords)
    late = _is_late(kind, constraints, keywords)
    made_of = kind, parameter.__name__, len(constraints) if late else constraints
    if not late:
        return _type_parameter, (*made_of, keywords, one_text(parameter.__module__), identity)
    state: dict[str, Any] = {"constraints": constraints}
    state.update((name, keywords[name]) for name in ("bound", "default") if name in keywords)
    blank = {name: None if name in state else value for name, value in keywords.items()}
    arguments = *made_of, blank, one_text(parameter.__module__), identity
    return _type_parameter, arguments, state, None, None, _fill_type_parameter


def _is_late(kind: str, constraints: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Can it have been written in a list of type parameters, with something that is evaluated when asked for?"""
    if sys.version_info < (3, 12) or (kind != "TypeVarTuple" and not keywords.get("infer_variance")):
        return False
    return bool(constraints) or "default" in keywords or ("bound" in keywords and kind == "TypeVar")


@functools.cache
def _template(kind: str, constraints: int, bound: bool, default: bool) -> types.CodeType:
    stars = {"TypeVar": "", "TypeVarTuple": "*", "ParamSpec": "**"}[kind]
    parts = "".join(f"_box['constraints'][{i}], " for i in range(constraints))
    limit = f": ({parts})" if constraints else ": _box['bound']" if bound else ""
    value = " = _box['default']" if default else ""
    return compile(f"type _alias[{stars}_shoal_name_{limit}{value}] = None", "<type parameter>", "exec")


def _renamed(code: types.CodeType, name: str) -> types.CodeType:
    constants = tuple(
        _renamed(value, name) if isinstance(value, types.CodeType) else name if value == "_shoal_name_" else value
        for value in code.co_consts
    )
    return code.replace(co_consts=constants)


def _make_late(kind: str, name: str, constraints: int, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """With what is looked up in a dict, that is returned, too."""
    if type(name) is not str or constraints > 1 << 16:
        raise TypeError(f"no type parameter: {name!r}")
    template = _template(kind, constraints, "bound" in keywords, "default" in keywords)
    box: dict[str, Any] = {}
    namespace: dict[str, Any] = {"_box": box}
    exec(_renamed(template, name), namespace)
    return namespace["_alias"].__type_params__[0], box


def _type_parameter(
    kind: str,
    name: str,
    constraints: tuple[Any, ...] | int,
    keywords: dict[str, Any],
    module: str,
    identity: bytes,
) -> Any:
    """The number of constraints instead of these: what it is defined with follows."""
    if kind not in ("TypeVar", "ParamSpec", "TypeVarTuple") or type(identity) is not bytes:
        raise TypeError(f"no type parameter: {kind!r}")
    with _lock:
        parameter = _parameters.get(identity)
        if parameter is None:
            if isinstance(constraints, int):
                parameter, box = _make_late(kind, name, constraints, keywords)
                _unfilled[parameter] = box
            else:
                parameter = getattr(typing, kind)(name, *constraints, **keywords)
            parameter.__module__ = module
            _parameters[identity] = parameter
            _identities[parameter] = identity
            base, ordinal = identity[:-_ORDINAL_SIZE], int.from_bytes(identity[-_ORDINAL_SIZE:], "little")
            _ordinals[base] = max(_ordinals.get(base, 0), ordinal + 1)
        return parameter


def _fill_type_parameter(parameter: Any, state: dict[str, Any]) -> None:
    with _lock:
        box = _unfilled.pop(parameter, None)
    if box is not None:  # else it was here already
        box.update(state)
