# SPDX-License-Identifier: BSD-3-Clause
"""A pool that takes any function: this one is a lambda, and uses a global of the script."""

import shoal

scale = 3
with shoal.Pool() as pool:
    print(pool.map(lambda number: number * scale, range(5)))
