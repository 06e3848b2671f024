# SPDX-License-Identifier: BSD-3-Clause
"""For those who import from `cloudpickle.cloudpickle_fast`, as streams of cloudpickle 1 and 2 do."""

from __future__ import annotations

from shoal.cloudpickle import _pickler
from shoal.cloudpickle._pickler import *  # noqa: F403
from shoal.cloudpickle.cloudpickle import __getattr__ as __getattr__

__all__ = _pickler.__all__
