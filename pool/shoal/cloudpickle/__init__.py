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

from shoal.cloudpickle import _pickler, cloudpickle
from shoal.cloudpickle._pickler import *  # noqa: F403

__all__ = ["cloudpickle"]
__all__ += _pickler.__all__
