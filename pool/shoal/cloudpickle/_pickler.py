# SPDX-License-Identifier: BSD-3-Clause
"""The pickler of `shoal.cloudpickle`.

Everything that cloudpickle does with reducers is done by Shoal's encoder: a `Pickler` here is a `shoal.Pickler` with
cloudpickle's arguments and attributes. So its tables hold what users put there and nothing else, and its
`reducer_override` always answers NotImplemented: the encoder goes on by itself.

`dumps` makes a `Pickler` only if somebody has put a reducer into the class's table.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import pickle
import sys
import types
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from shoal import _ext
from shoal._by_value import list_registry_pickle_by_value, register_pickle_by_value, unregister_pickle_by_value
from shoal._ext import load, loads

__all__ = [
    "DEFAULT_PROTOCOL",
    "CloudPickler",
    "Pickler",
    "__version__",
    "dump",
    "dumps",
    "dynamic_subimport",
    "instance",
    "is_tornado_coroutine",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "subimport",
    "unregister_pickle_by_value",
]

# The release whose interface this is: programs that need a certain cloudpickle compare it.
__version__ = "3.1.2"

DEFAULT_PROTOCOL = pickle.HIGHEST_PROTOCOL

_Reducer = Callable[[Any], str | tuple[Any, ...]]
_BufferCallback = Callable[[pickle.PickleBuffer], Any] | None

_TOO_DEEP = "Could not pickle object as excessively deep recursion required."


class Pickler(_ext.Pickler):
    """Writes pickles to a binary file, as cloudpickle.Pickler does.

    Subclasses override `reducer_override` and end with ``return super().reducer_override(obj)``, or `persistent_id`, or
    have a `dispatch_table`; so may single instances. A reducer in the class's own table counts for every pickler that
    has no table of its own, and for `dump` and `dumps`.
    """

    _dispatch_table: dict[type, _Reducer] = {}
    dispatch_table: MutableMapping[type, _Reducer] = ChainMap(_dispatch_table, copyreg.dispatch_table)
    dispatch = dispatch_table

    if TYPE_CHECKING:

        def reducer_override(self, obj: Any) -> Any: ...

    else:
        reducer_override = _ext.reducer_override

    def __init__(self, file: Any, protocol: int | None = None, buffer_callback: _BufferCallback = None) -> None:
        if protocol is None:
            protocol = DEFAULT_PROTOCOL
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        # cloudpickle's keep the namespaces of functions here. Ours are in the memo.
        self.globals_ref: dict[int, dict[str, Any]] = {}
        self.proto = int(protocol)

    def dump(self, obj: Any) -> None:
        """Write one pickle of obj to the file."""
        try:
            super().dump(obj)
        except RecursionError as error:
            raise pickle.PicklingError(_TOO_DEEP) from error


CloudPickler = Pickler

_class_table: Mapping[type, _Reducer] = Pickler.dispatch_table


def dump(obj: Any, file: Any, protocol: int | None = None, buffer_callback: _BufferCallback = None) -> None:
    """Write a pickle of obj to the binary file."""
    Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)


def dumps(obj: Any, protocol: int | None = None, buffer_callback: _BufferCallback = None) -> bytes:
    """A pickle of obj, as bytes."""
    if Pickler._dispatch_table or Pickler.dispatch_table is not _class_table:
        with io.BytesIO() as file:
            Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)
            return file.getvalue()
    try:
        if protocol is None and buffer_callback is None:
            return _ext.dumps(obj)
        return _ext.dumps(obj, protocol, buffer_callback=buffer_callback)
    except RecursionError as error:
        raise pickle.PicklingError(_TOO_DEEP) from error


def is_tornado_coroutine(func: Any) -> bool:
    """Whether func is a coroutine function of Tornado. Deprecated, as in cloudpickle."""
    warnings.warn(
        "is_tornado_coroutine is deprecated in cloudpickle 3.0 and will be removed in cloudpickle 4.0. Use "
        "tornado.gen.is_coroutine_function directly instead.",
        category=DeprecationWarning,
        stacklevel=2,
    )
    is_coroutine_function = getattr(sys.modules.get("tornado.gen"), "is_coroutine_function", None)
    return is_coroutine_function is not None and bool(is_coroutine_function(func))


def subimport(name: str) -> types.ModuleType:
    """Import the module and give it back, itself and not the package that it is in."""
    __import__(name)
    return sys.modules[name]


def dynamic_subimport(name: str, vars: Mapping[str, Any]) -> types.ModuleType:
    """A new module of that name and content, which is not entered in sys.modules."""
    module = types.ModuleType(name)
    module.__dict__.update(vars)
    module.__dict__["__builtins__"] = builtins.__dict__
    return module


def instance(cls: Callable[[], Any]) -> Any:
    """Decorator of a class of which there is one object only: that object takes the class's name."""
    return cls()
