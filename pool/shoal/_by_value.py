# SPDX-License-Identifier: BSD-3-Clause
"""Which modules travel by value: one registry for the whole process, kept by the pickler.

Names, not modules: reloading a module leaves it registered, and a package stands for all that is below it. Looking a
name up and changing the registry are single operations on a set, so that threads need no lock; a forked child has its
parent's registry.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from shoal._ext import _by_value_modules

__all__ = ["list_registry_pickle_by_value", "register_pickle_by_value", "unregister_pickle_by_value"]


def _check_module(module: Any) -> None:
    if not isinstance(module, types.ModuleType):
        raise ValueError(f"Input should be a module object, got {module!s} instead")


def register_pickle_by_value(module: types.ModuleType) -> None:
    """From now on, functions and classes of the module, and of those below it, travel by value.

    For code that is not installed where it will be unpickled, such as a package that is being worked on. Registering
    twice is as good as once.
    """
    _check_module(module)
    if module.__name__ not in sys.modules:
        raise ValueError(
            f"{module} was not imported correctly, have you used an `import` statement to access it?",
        )
    _by_value_modules.add(module.__name__)


def unregister_pickle_by_value(module: types.ModuleType) -> None:
    """Functions and classes of the module are named again, and looked up where they are unpickled."""
    _check_module(module)
    try:
        _by_value_modules.remove(module.__name__)
    except KeyError:
        raise ValueError(f"{module} is not registered for pickle by value") from None


def list_registry_pickle_by_value() -> set[str]:
    """The names of the registered modules: a copy."""
    return _by_value_modules.copy()
