# SPDX-License-Identifier: BSD-3-Clause
"""For those who take pickle from `cloudpickle.compat`, as was the way up to cloudpickle 2."""

from __future__ import annotations

import pickle
from pickle import Pickler

__all__ = ["Pickler", "pickle"]
