# SPDX-License-Identifier: BSD-3-Clause
"""Private functions of cloudpickle that programs and tests take from it all the same.

They answer the questions that cloudpickle's answer, with what Shoal's pickler does in mind. The pickler itself does not
use them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from types import CellType
from typing import Any

from shoal._ext import _by_value_modules
from shoal.cloudpickle._streams import _empty_cell_value

_PICKLE_BY_VALUE_MODULES = _by_value_modules

_BUILTIN_TYPE_NAMES = {value: name for name, value in vars(types).items() if type(value) is type}


def _follow(obj: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        obj = getattr(obj, name)
    return obj


def _whichmodule(obj: Any, name: str) -> str | None:
    """The module that obj says it is from, or the first that has it under this name."""
    said: str | None = getattr(obj, "__module__", None)
    if said is not None:
        return said
    for module_name, module in sys.modules.copy().items():
        if module_name in ("__main__", "__mp_main__") or not isinstance(module, types.ModuleType):
            continue
        try:
            if _follow(module, name) is obj:
                return module_name
        except Exception:  # whatever a strange module raises: it is not there
            continue
    return None


def _lookup_module_and_qualname(obj: Any, name: str | None = None) -> tuple[types.ModuleType, str] | None:
    """Where obj can be imported from; None if it cannot."""
    dotted: str = name or getattr(obj, "__qualname__", None) or obj.__name__
    module_name = _whichmodule(obj, dotted)
    module = sys.modules.get(module_name) if module_name and module_name != "__main__" else None
    if module is None:
        return None
    try:
        found = _follow(module, dotted)
    except AttributeError:
        return None
    return (module, dotted) if found is obj else None


def _is_registered_pickle_by_value(module: types.ModuleType) -> bool:
    """Whether the module, or a package that it is in, is registered."""
    parts = module.__name__.split(".")
    return any(".".join(parts[:count]) in _by_value_modules for count in range(1, len(parts) + 1))


def _should_pickle_by_reference(obj: Any, name: str | None = None) -> bool:
    """Whether a function, class or module is named in a pickle instead of being written out."""
    if isinstance(obj, types.ModuleType):
        return not _is_registered_pickle_by_value(obj) and obj.__name__ in sys.modules
    if not isinstance(obj, types.FunctionType) and not issubclass(type(obj), type):
        raise TypeError(f"cannot check importability of {type(obj).__name__} instances")
    found = _lookup_module_and_qualname(obj, name)
    return found is not None and not _is_registered_pickle_by_value(found[0])


def _extract_class_dict(cls: type) -> dict[str, Any]:
    """The class's own attributes, by name, without those that are a base's very object."""
    inherited: dict[str, Any] = {}
    for base in reversed(cls.__bases__):
        inherited.update(base.__dict__)
    missing = object()
    own = cls.__dict__
    return {key: own[key] for key in sorted(own) if inherited.get(key, missing) is not own[key]}


def _walk_global_ops(code: types.CodeType) -> Iterator[str]:
    import dis

    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
            yield instruction.argval


def _extract_code_globals(code: types.CodeType) -> dict[str, None]:
    """The global names that the code and the code nested in it use, in order."""
    found = dict.fromkeys(_walk_global_ops(code))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(_extract_code_globals(constant))
    return found


def cell_set(cell: CellType, value: Any) -> None:
    """Fill the cell."""
    cell.cell_contents = value


def _get_cell_contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _empty_cell_value
