# SPDX-License-Identifier: BSD-3-Clause
"""cloudpickle's interface, on Shoal's pickler.

``import shoal.cloudpickle as cloudpickle``, or this before anything else imports cloudpickle, moves a program over::

    sys.modules["cloudpickle"] = shoal.cloudpickle

Names, arguments, messages and hooks are those of cloudpickle 3.1. The streams are Shoal's: any process that can import
Shoal reads them, with plain ``pickle.loads``. Streams that cloudpickle itself has written can be loaded, too.

``_pickler.py`` says what the parts do. The submodules ``cloudpickle`` and ``cloudpickle_fast`` have all the same names,
for those who import from there.
"""

from __future__ import annotations

from shoal.cloudpickle import cloudpickle
from shoal.cloudpickle._pickler import (
    DEFAULT_PROTOCOL,
    CloudPickler,
    Pickler,
    __version__,
    dump,
    dumps,
    dynamic_subimport,
    instance,
    is_tornado_coroutine,
    list_registry_pickle_by_value,
    load,
    loads,
    register_pickle_by_value,
    subimport,
    unregister_pickle_by_value,
)

__all__ = [
    "DEFAULT_PROTOCOL",
    "CloudPickler",
    "Pickler",
    "__version__",
    "cloudpickle",
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
