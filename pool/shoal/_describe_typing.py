# SPDX-License-Identifier: BSD-3-Clause
"""How objects of the typing module are told of that pickle knows by name only."""

from __future__ import annotations

import typing
from typing import Any

from shoal import _ext, _rebuild, _rebuild_objects
from shoal._rebuild_type_parameter import one_text

__all__ = ["EXACTLY"]

Reduced = tuple[Any, ...]


def _new_type(kind: Any, protocol: int) -> Reduced | str:
    if _ext._is_importable(kind):
        name: str = kind.__reduce__()
        return name
    number = _rebuild_objects._place(kind, kind.__module__, kind.__qualname__)
    return _rebuild._new_type, (kind.__name__, kind.__supertype__, one_text(kind.__module__), kind.__qualname__, number)


def _forward_reference(reference: typing.ForwardRef, protocol: int) -> Reduced:
    """Without the code that it has compiled, and without what it was found to mean."""
    argument = reference.__forward_arg__
    options = reference.__forward_is_argument__, reference.__forward_module__, reference.__forward_is_class__
    if options == (True, None, False):
        return typing.ForwardRef, (argument,)
    return _rebuild._forward_reference, (argument, *options)


def _type_alias(alias: Any, protocol: int) -> Reduced | str:
    if _ext._is_importable(alias):
        name: str = alias.__reduce__()
        return name
    box: list[Any] = []  # in the pickle, too: filled when the alias is there
    owned = _rebuild_objects._is_its_owners(alias)
    arguments = alias.__name__, one_text(alias.__module__), alias.__type_params__, owned, box
    return _rebuild._type_alias, arguments, (box, alias.__value__), None, None, _rebuild._fill_type_alias


EXACTLY: dict[Any, Any] = {
    typing.NewType: _new_type,
    typing.ForwardRef: _forward_reference,
}
if hasattr(typing, "TypeAliasType"):
    EXACTLY[typing.TypeAliasType] = _type_alias
