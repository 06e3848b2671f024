# SPDX-License-Identifier: BSD-3-Clause
"""For those who import from `cloudpickle.cloudpickle`: the same objects, under that name.

Streams that cloudpickle itself has written name their reconstructors here (`_streams.py`). Where `shoal.cloudpickle`
stands in for cloudpickle in sys.modules, this file may be loaded a second time under the other name: so it defines
nothing itself.
"""

from __future__ import annotations

from typing import Any

from shoal.cloudpickle import _pickler
from shoal.cloudpickle._pickler import *  # noqa: F403

__all__ = _pickler.__all__


def __getattr__(name: str) -> Any:
    if hasattr(_pickler, name):
        return getattr(_pickler, name)
    from shoal.cloudpickle import _streams

    return getattr(_streams, name)
