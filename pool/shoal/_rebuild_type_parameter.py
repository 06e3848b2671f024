# SPDX-License-Identifier: BSD-3-Clause
"""Type parameters, new types and type aliases by value: known by identity as classes are, but they never change."""

from __future__ import annotations

import os
import threading
import typing
import weakref
from typing import Any

_lock = threading.RLock()
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
