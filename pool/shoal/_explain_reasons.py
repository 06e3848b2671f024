# SPDX-License-Identifier: BSD-3-Clause
"""Why a part is by value or by reference: what its name says, and what this process's modules say of it.

It asks what the pickler has asked for the same object a moment ago. Nothing is imported for it. Of a pickle from
elsewhere there are only the names.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from shoal._by_value import list_registry_pickle_by_value
from shoal._parts import Part

_MISSING = object()


def add_told_reasons(whole: Part) -> None:
    """Fill in `reason` of what is by value, as far as a pickle itself tells."""
    for part in whole.walk():
        if part.by != "value" or part.reason:
            continue
        if part.kind == "module":
            part.reason = "registered by value, or could not be imported"
        elif _has_a_place(part):
            other = "a lambda of" if "<lambda>" in part.name else "registered by value, or not to be found as"
            name = part.module if "<lambda>" in part.name else f"{part.module}.{part.name}"
            part.reason = _why_by_name(part) or f"{other} {name}"


def add_reasons(whole: Part) -> None:
    """Fill in `reason`, and what kind of thing a reference leads to."""
    registered = list_registry_pickle_by_value()
    for part in whole.walk():
        if part.by == "value":
            part.reason = _why_by_value(part, registered)
        elif part.by == "reference" and part.kind == "reference":
            _find(part)
        elif part.kind == "object" and part.module:
            _tell_result(part)


def _tell_result(part: Part) -> None:
    """What a function gives is no object of that name."""
    found = _look_up(part.module, part.name.removeprefix(f"{part.module}."))
    if isinstance(found, (types.FunctionType, types.BuiltinFunctionType)):
        part.kind, part.name = "result", f"of {part.name}()"


def _registered(module: str, registered: set[str]) -> str:
    """The registered module or package that this module belongs to."""
    name = module
    while name:
        if name in registered:
            return name
        name = name.rpartition(".")[0]
    return ""


def _why_by_value(part: Part, registered: set[str]) -> str:
    module, name = part.module, part.name
    if part.kind == "module":
        package = _registered(name, registered)
        if package:
            return f"{package} is registered by value"
        known = sys.modules.get(name, _MISSING)
        return "it cannot be imported" if known is _MISSING else f"sys.modules has another {name}"
    if not _has_a_place(part):
        return ""
    package = _registered(module, registered)
    if package:
        return f"module {package} is registered by value"
    told = _why_by_name(part)
    if told:
        return told
    if module not in sys.modules:
        return f"there is no module {module}"
    found = _look_up(module, name)
    if found is _MISSING:
        return "a lambda" if "<lambda>" in name else f"{module} has no {name}"
    return f"{module}.{name} is another object now"


def _has_a_place(part: Part) -> bool:
    return part.kind in ("function", "class", "type parameter") and part.module != ""


def _why_by_name(part: Part) -> str:
    if part.module in ("__main__", "__mp_main__"):
        return "defined in __main__" + (", in a function" if "<locals>" in part.name else "")
    return f"defined in a function of {part.module}" if "<locals>" in part.name else ""


def _look_up(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module, _MISSING)
    for step in name.split("."):
        found = getattr(found, step, _MISSING) if found is not _MISSING else found
    return found


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type, "class"),
    (types.ModuleType, "module"),
    ((types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType), "function"),
)


def _find(part: Part) -> None:
    """A reference is a name; what it leads to is told, too."""
    full = part.name if "." in part.name else f"builtins.{part.name}"
    module = part.module or full.rpartition(".")[0]
    found = _look_up(module, full[len(module) + 1 :])
    if found is _MISSING:
        return
    part.kind = next((kind for types_, kind in _KINDS if isinstance(found, types_)), "object")
    part.reason = f"importable as {full}" if module != "builtins" else "built in"
