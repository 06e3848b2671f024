# SPDX-License-Identifier: BSD-3-Clause
"""Type parameters by value: known by identity as classes are, but they never change.

The identity is made of what the parameter was defined with and an ordinal among those that were defined alike, so that
it is the same in each run of a program. One that comes home is the same object.
"""

from __future__ import annotations

import hashlib
import os
import threading
import typing
import weakref
from typing import Any

_lock = threading.RLock()  # a collection inside the lock may drop entries in the same thread
_parameters: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
_identities: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()
_ordinals: dict[bytes, int] = {}
_BASE_SIZE = 12
_ORDINAL_SIZE = 4


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it at the fork


os.register_at_fork(after_in_child=_renew_lock)


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
            base = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:_BASE_SIZE]
            ordinal = _ordinals.get(base, 0)
            _ordinals[base] = ordinal + 1
            identity = base + ordinal.to_bytes(_ORDINAL_SIZE, "little")
            _identities[parameter] = identity
            _parameters[identity] = parameter
        return identity


def _describe_type_parameter(parameter: Any) -> tuple[Any, ...] | None:
    """The arguments of ``_type_parameter``, or None if it is something else of that name."""
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
    return kind, parameter.__name__, constraints, keywords, parameter.__module__, identity


def _type_parameter(
    kind: str,
    name: str,
    constraints: tuple[Any, ...],
    keywords: dict[str, Any],
    module: str,
    identity: bytes,
) -> Any:
    if kind not in ("TypeVar", "ParamSpec", "TypeVarTuple") or type(identity) is not bytes:
        raise TypeError(f"no type parameter: {kind!r}")
    with _lock:
        parameter = _parameters.get(identity)
        if parameter is None:
            parameter = getattr(typing, kind)(name, *constraints, **keywords)
            parameter.__module__ = module
            _parameters[identity] = parameter
            _identities[parameter] = identity
            base, ordinal = identity[:_BASE_SIZE], int.from_bytes(identity[_BASE_SIZE:], "little")
            _ordinals[base] = max(_ordinals.get(base, 0), ordinal + 1)
        return parameter
