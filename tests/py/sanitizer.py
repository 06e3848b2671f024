# SPDX-License-Identifier: BSD-3-Clause
"""Do the tests run under the address sanitizer? It is slow at what is large, and has memory and locks of its own."""

import os

ADDRESS = "asan" in os.environ.get("LD_PRELOAD", "")
