# SPDX-License-Identifier: BSD-3-Clause
"""What pickles of things by value name to make them again.

A pickle that carries a function or a class by value refers to these by ``shoal._rebuild.<name>``, so that plain
``pickle.loads`` can read it wherever Shoal can be imported. The names and their arguments are part of the format.

Functions, code, cells, modules and the items of arrays are made in C (``pool/pickle/rebuild.c``), fields of
dataclasses, too (``rebuild_dataclass.c``), classes there and in ``shoal._rebuild_class``, enums in
``shoal._rebuild_enum``, type parameters in ``shoal._rebuild_type_parameter``, shared objects in ``shoal._shared``,
other objects in ``shoal._rebuild_objects``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal._ext import (
    _cell,
    _class,
    _code,
    _dataclass_params,
    _enum,
    _field,
    _fill_cell,
    _fill_class,
    _fill_module,
    _function,
    _import,
    _module,
    _put_items,
    _unpack,
)
from shoal._rebuild_class import _content, _list_effects, _list_registered
from shoal._rebuild_enum import _describe_enum
from shoal._rebuild_objects import (
    _cached_property,
    _descriptor,
    _descriptor_of_kind,
    _fill_exception,
    _fill_single_dispatch,
    _fill_type_alias,
    _fill_weak_set,
    _forward_reference,
    _lru_cache,
    _memory_file,
    _new_type,
    _single_dispatch,
    _system_record,
    _type_alias,
    _view,
)
from shoal._rebuild_type_parameter import _describe_type_parameter, _fill_type_parameter, _type_parameter

__all__ = [
    "_cached_property",
    "_cell",
    "_class",
    "_code",
    "_content",
    "_dataclass_params",
    "_describe_enum",
    "_describe_type_parameter",
    "_descriptor",
    "_descriptor_of_kind",
    "_enum",
    "_field",
    "_fill_cell",
    "_fill_class",
    "_fill_exception",
    "_fill_module",
    "_fill_single_dispatch",
    "_fill_type_alias",
    "_fill_type_parameter",
    "_fill_weak_set",
    "_find_shared",
    "_forward_reference",
    "_function",
    "_import",
    "_list_effects",
    "_list_registered",
    "_lru_cache",
    "_memory_file",
    "_module",
    "_new_type",
    "_put_items",
    "_shared",
    "_shared_at",
    "_single_dispatch",
    "_system_record",
    "_type_alias",
    "_type_parameter",
    "_unpack",
    "_view",
]

if TYPE_CHECKING:
    from shoal._shared import _find_shared, _shared, _shared_at

for _name in __all__:
    if _name in globals():
        globals()[_name].__module__ = __name__  # the place that pickles find them in, wherever they are defined


def __getattr__(name: str) -> object:
    """Find what belongs to shared objects, which few pickles have in them."""
    if name not in __all__:
        raise AttributeError(f"module 'shoal._rebuild' has no attribute {name!r}")
    from shoal import _shared

    value: object = getattr(_shared, name)
    globals()[name] = value  # the pickler looks whether it is there each time that it names it
    return value
