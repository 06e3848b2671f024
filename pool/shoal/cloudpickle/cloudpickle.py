# SPDX-License-Identifier: BSD-3-Clause
"""For those who import from `cloudpickle.cloudpickle`: the same objects, under that name.

Streams that cloudpickle itself has written name their reconstructors here (`_streams.py`), and programs take private
functions from here (`_private.py`); both are imported when they are asked for. Where `shoal.cloudpickle`
stands in for cloudpickle in sys.modules, this file may be loaded a second time under the other name: so it defines
nothing itself.
"""

from __future__ import annotations

from typing import Any

from shoal.cloudpickle import _pickler
from shoal.cloudpickle._pickler import *  # noqa: F403

__all__ = _pickler.__all__


def __getattr__(name: str) -> Any:
    from shoal.cloudpickle import _private, _streams

    for module in (_pickler, _streams, _private):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
